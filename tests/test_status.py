"""`gmv status`: what is late or broken ends with 1, in words, JSON and OpenMetrics; and what runs leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import small_lake
from gmv import cli, freshness, monitoring, problems, progress, status, tables
from gmv.checks import BY_NAME
from gmv.errors import PublicationRefused, UsageError
from gmv.lake import lock, records
from gmv.lake.reader import Reader
from gmv.quality import acceptance, files, gates
from gmv.quality.findings import Finding
from gmv.settings import settings
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from small_lake import at, day, rows_of
from typer.testing import CliRunner


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    small_lake.write_sample(tmp_path / "lake")
    return tmp_path / "lake"


def gmv(lake: Path, *options: str):
    return CliRunner().invoke(cli.app, ["status", "--lake", str(lake), "--runs-dir", str(lake), *options])


def kinds(lake: Path, today: str = "2023-02-24") -> list[str]:
    return [one.kind for one in problems.open_problems(Reader(lake), day(today))]


def test_a_lake_that_is_well_ends_with_0(lake):
    told = gmv(lake, "--as-of-date", "2023-02-24")
    assert told.exit_code == 0, told.output
    assert "Published up to 2023-02-23\n" in told.output and "Pending days    none" in told.output


@pytest.mark.parametrize(("today", "late"), [("2023-02-25", 0), ("2023-02-26", 1), ("2023-03-01", 4)])
def test_late_is_what_lies_behind_the_expected_day(lake, today, late):
    fresh = freshness.freshness(Reader(lake), day(today))
    assert fresh.days_late == late
    told = gmv(lake, "--as-of-date", today)
    assert told.exit_code == (1 if late else 0)
    assert ("BROKEN" in told.output) == bool(late)


@pytest.mark.parametrize(("subsidiary", "is_equal"), [("nacional", True), ("internacional", False)])
def test_a_pending_day_whose_sum_stays_says_that_subsidiaries_alone_differ(lake, subsidiary, is_equal):
    common = {"purchase_id": "29", "transaction_date": day("2023-02-23"), "known_on": day("2023-02-24")}
    common |= {"reason": "moved_subsidiary", "cause": "event", "ledger_seq": 2, "run": "r2"}
    leaves = {"subsidiary": "internacional", "amount": Decimal("-505.50"), "purchases": -1}
    comes = {
        "subsidiary": subsidiary,
        "amount": Decimal("505.50") if is_equal else Decimal("1.00"),
        "purchases": 1,
    }
    small_lake.write(lake, tables.GMV_LEDGER, [common | leaves, common | comes])
    told = gmv(lake, "--as-of-date", "2023-02-24").output
    assert "2023-02-23 │    505.50" in told
    assert ("Equal numbers   mean that subsidiaries alone differ\n" in told) is is_equal


def test_a_lake_before_its_first_run_is_not_late(tmp_path):
    told = gmv(tmp_path)
    assert told.exit_code == 0 and "Last run        none" in told.output


def started(lake: Path, run: str = "r2") -> None:
    begun = {"run": run, "kind": "run", "event": "started", "at": at("2023-03-02T06:00")}
    small_lake.write(lake, tables.RUNS, [begun])


def test_a_killed_run_is_broken_but_one_at_work_is_not(lake):
    started(lake)
    assert kinds(lake) == ["failed_run"]
    with_lock = lock.acquire(lake, "run r2")
    assert kinds(lake) == []
    with_lock.release()


def ended(lake: Path, run: str, kind: str, outcome: str, message: str | None = None) -> None:
    """A run on record, of the hour that its name ends with."""
    common = {"run": run, "kind": kind, "at": at(f"2023-03-02T0{run[-1]}:00")}
    small_lake.write(lake, tables.RUNS, [{**common, "event": "started"}])
    small_lake.write(
        lake, tables.RUNS, [{**common, "event": "ended", "outcome": outcome, "message": message}]
    )


def test_what_is_no_run_neither_hides_that_one_failed_nor_is_one_that_failed(lake):
    ended(lake, "r2", "maintain", "failed")
    assert kinds(lake) == []
    ended(lake, "r3", "run", "failed")
    ended(lake, "r4", "maintain", "succeeded")
    assert kinds(lake) == ["failed_run"]


def judged(run: str, check: str, severity: str = "block", **values) -> dict:
    """A failing result of a check."""
    failing = {"run": run, "check": check, "severity": severity, "passed": False, "message": "m"}
    return {**failing, "subject": "2023-02-18", "recorded_at": at("2023-03-02T07:00"), **values}


def test_a_block_is_named_by_what_blocks_not_by_what_warns_or_was_accepted(lake):
    small_lake.write(
        lake,
        tables.CHECK_RESULTS,
        [
            judged("r2", "negative_gmv"),
            judged("r2", "ties", "warn", subject="lake"),
            judged("r2", "refused_file", accepted=True, subject="a.csv"),
        ],
    )
    ended(lake, "r2", "run", "refused")
    assert [one.key for one in problems.open_problems(Reader(lake), day("2023-02-24"))] == [
        "blocked_publication:negative_gmv"
    ]


def test_a_block_by_several_checks_has_one_name_in_every_process(lake):
    """Alerts know it by its name: another order of them would be told as another problem."""
    checks = ["refused_file", "negative_gmv", "row_accounting", "ledger_equals_silver", "recomputed"]
    small_lake.write(lake, tables.CHECK_RESULTS, [judged("r2", check) for check in checks])
    ended(lake, "r2", "run", "refused")
    (told,) = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert told.subject == "ledger_equals_silver,negative_gmv,recomputed,refused_file,row_accounting"


def test_a_block_is_told_since_the_run_that_was_refused_first(lake):
    for run, outcome in (
        ("r2", "refused"),
        ("r3", "succeeded"),
        ("r4", "refused"),
        ("r5", "failed"),
        ("r6", "refused"),
    ):
        ended(lake, run, "run", outcome)
    blocked, failed = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert blocked.what == "Publication is blocked since run r4; the last good numbers stay."
    assert failed.what == "Run r5 failed."


def test_a_block_says_once_that_the_last_good_numbers_stay(lake):
    negative = Finding(
        BY_NAME["negative_gmv"], "2023-02-22 nac", "-1.00", "On 2023-02-22 nac would have -1.00."
    )
    with pytest.raises(PublicationRefused) as refused:
        gates._passed_or_refused(Reader(lake), {negative.check: [negative]}, "r2")
    ended(lake, "r2", "run", "refused", str(refused.value))
    (blocked,) = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert blocked.why.startswith("negative_gmv: On 2023-02-22 nac would have -1.00.")
    assert str(blocked).count("the last good numbers stay") == 1


def test_a_run_that_is_being_refused_is_told_as_that_before_it_has_ended(lake):
    started(lake)
    small_lake.write(lake, tables.CHECK_RESULTS, [judged("r2", "negative_gmv")])
    held = lock.acquire(lake, "run r2")
    assert kinds(lake) == ["blocked_publication"]
    held.release()
    assert kinds(lake) == ["blocked_publication"]


def republish(lake: Path, run: str, seq: int, previous: str | None, gmv: str, on: str = "2023-02-23") -> None:
    """A run changes a published number by what the ledger received under this seq."""
    place = {"transaction_date": day(on), "subsidiary": "internacional", "ledger_seq": seq, "run": run}
    change = Decimal(gmv) - Decimal(previous or 0)
    post = {"purchase_id": "29", "amount": change, "known_on": day("2023-03-01"), "cause": "event"}
    post |= {"purchases": 0 if previous else 1, "reason": "paid"}  # which a correction of the amount keeps
    small_lake.write(lake, tables.GMV_LEDGER, [{**place, **post}])
    before = {"previous_gmv": previous and Decimal(previous)}
    history = {**place, **before, "gmv": Decimal(gmv), "published_at": at(f"2023-03-0{seq}T06:00")}
    small_lake.write(lake, tables.DAILY_GMV_HISTORY, [history])
    row = {"transaction_date": day(on), "subsidiary": "internacional", "gmv": Decimal(gmv)}
    records.replace_days(lake, [day(on)], [row], {"run": run})


def restatements(lake: Path) -> list[problems.Problem]:
    return [
        one for one in problems.open_problems(Reader(lake), day("2023-02-24")) if one.kind == "restatement"
    ]


@pytest.mark.parametrize(("gmv", "is_told"), [("454.95", False), ("454.94", True), ("556.06", True)])
def test_a_restatement_is_told_beyond_the_limit_of_what_was_published(lake, monkeypatch, gmv, is_told):
    monkeypatch.setenv("GMV_RESTATEMENT_PERCENT", "10")
    settings.cache_clear()
    republish(lake, "r2", 2, "505.50", gmv)
    assert bool(restatements(lake)) is is_told


def test_a_restatement_has_the_reasons_of_its_own_publication(lake):
    republish(lake, "r2", 2, "505.50", "405.50")
    republish(lake, "r3", 3, "405.50", "605.50")
    waits = {"transaction_date": day("2023-02-23"), "subsidiary": "internacional", "ledger_seq": 4}
    waits |= {"purchase_id": "29", "amount": Decimal("-605.50"), "purchases": -1, "reason": "withdrawn"}
    small_lake.write(lake, tables.GMV_LEDGER, [{**waits, "cause": "event", "known_on": day("2023-03-01")}])
    (told,) = restatements(lake)
    assert told.subject == "2023-02-23:r3"
    assert told.what == "2023-02-23 was restated by +200.00: from 405.50 to 605.50."
    assert told.why == "Why: Price or quantity raised +200.00 (1 purchase(s))."


def test_a_day_that_one_run_publishes_twice_at_first_is_not_restated(lake):
    republish(lake, "r2", 2, None, "100.00", on="2023-02-20")
    republish(lake, "r2", 3, "100.00", "200.00", on="2023-02-20")
    assert restatements(lake) == []


def test_while_a_run_is_at_work_it_is_not_told_that_the_one_before_failed(lake):
    ended(lake, "r2", "run", "failed")
    started(lake, "r3")
    with_lock = lock.acquire(lake, "run r3")
    assert kinds(lake) == []
    with_lock.release()
    assert kinds(lake) == ["failed_run"]


def test_what_a_person_accepted_is_no_problem(lake):
    odd = {"run": "r1", "check": "day_drop", "severity": "warn", "passed": False, "subject": "2023-02-23"}
    small_lake.write(lake, tables.CHECK_RESULTS, [{**odd, "message": "m", "recorded_at": at("2023-03-02")}])
    assert kinds(lake) == ["anomaly"]
    again = {**odd, "run": "r2", "accepted": True, "recorded_at": at("2023-03-03")}
    small_lake.write(lake, tables.CHECK_RESULTS, [again])
    assert kinds(lake) == []


def test_what_a_person_accepted_later_is_no_problem(lake):
    odd = {"run": "r1", "check": "weekday_gmv", "severity": "warn", "passed": False}
    odd |= {"subject": "2023-02-23 nac", "value": "5.00", "message": "m", "recorded_at": at("2023-03-02")}
    small_lake.write(lake, tables.CHECK_RESULTS, [odd])
    assert kinds(lake) == ["anomaly"]
    for value, left in (("6.00", ["anomaly"]), ("5.00", [])):  # an acceptance holds for what was found
        found = Finding(BY_NAME["weekday_gmv"], "2023-02-23 nac", value, "m")
        acceptance.accept(lake, [found], acceptance.Acceptance("weekday_gmv", "it is so"), "r2")
        assert kinds(lake) == left


def test_an_anomaly_is_no_problem_any_more_when_a_week_has_been_published_since(lake):
    odd = {
        "run": "r1",
        "check": "day_drop",
        "severity": "warn",
        "passed": False,
        "recorded_at": at("2023-03-02"),
    }
    small_lake.write(lake, tables.CHECK_RESULTS, [{**odd, "subject": "2023-02-16", "message": "m"}])
    assert kinds(lake) == []
    small_lake.write(lake, tables.CHECK_RESULTS, [{**odd, "subject": "2023-02-17", "message": "m"}])
    assert kinds(lake) == ["anomaly"]


def test_each_anomaly_says_what_its_own_day_is_made_of(lake):
    odd = [judged("r2", "day_drop", "warn", subject=on) for on in ("2023-02-18", "2023-02-23")]
    small_lake.write(lake, tables.CHECK_RESULTS, odd)
    found = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert {one.subject: one.why for one in found} == {
        "day_drop:2023-02-18": "The whole day by the ledger: Payment received +778.55 (2 purchase(s)).",
        "day_drop:2023-02-23": "The whole day by the ledger: Payment received +505.50 (1 purchase(s)).",
    }


def test_reasons_of_equal_amounts_come_in_the_same_order_each_time(lake):
    small_lake.write(lake, tables.CHECK_RESULTS, [judged("r2", "day_drop", "warn", subject="2023-02-22")])
    place = {"transaction_date": day("2023-02-22"), "subsidiary": "nacional", "known_on": day("2023-02-28")}
    place |= {"cause": "event", "ledger_seq": 2, "amount": Decimal("5.00"), "purchases": 1}
    posted = [{**place, "purchase_id": why, "reason": why} for why in ("paid", "moved_day", "item_arrived")]
    small_lake.write(lake, tables.GMV_LEDGER, posted)
    (told,) = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert [reason.rpartition(" +")[0] for reason in told.why.split("; ")] == [
        "The whole day by the ledger: Item details arrived after the payment",
        "Moved here from another day",
        "Payment received",
    ]


def test_a_refused_file_that_nobody_wants_to_hear_of_is_no_problem(lake, monkeypatch):
    refused = {"path": "purchase-2.csv", "table": "purchase", "sha256": "cd", "size": 1, "outcome": "refused"}
    refused["reason"] = "purchase-2.csv: is empty."
    small_lake.write(lake, tables.FILES, [{**refused, "run": "r2", "recorded_at": at("2023-03-02")}])
    (told,) = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert str(told) == "purchase-2.csv: is empty. Correct the file where it lies; the next run reads it."
    monkeypatch.setenv("GMV_SEVERITIES", '{"refused_file": "off"}')
    settings.cache_clear()
    assert kinds(lake) == []


def test_of_each_kind_the_first_problems_are_told_and_how_many_more_there_are(lake):
    files = [
        {
            "path": f"{n}.csv",
            "sha256": f"{n}",
            "outcome": "refused",
            "reason": f"{n}.csv: no table.",
            "run": "r2",
        }
        for n in range(1000, 3000)
    ]
    small_lake.write(lake, tables.FILES, [{**file, "recorded_at": at("2023-03-02")} for file in files])
    told = gmv(lake, "--as-of-date", "2023-02-24").output
    assert "1019.csv: no table." in told and "1020.csv" not in told
    assert "And 1,980 more of refused_file; --format json has all." in told
    as_json = gmv(lake, "--as-of-date", "2023-02-24", "--format", "json").output
    assert "2999.csv: no table." in as_json


def test_beyond_three_reasons_the_others_are_told_as_one_sum(lake):
    small_lake.write(lake, tables.CHECK_RESULTS, [judged("r2", "day_drop", "warn", subject="2023-02-22")])
    place = {"transaction_date": day("2023-02-22"), "subsidiary": "nacional", "known_on": day("2023-02-28")}
    place |= {"cause": "event", "ledger_seq": 2}
    reasons = [("paid", "90.00", 1), ("withdrawn", "-40.00", -1), ("item_arrived", "30.00", 1)]
    reasons += [("moved_day", "20.00", 1), ("repriced", "-1.00", 0), ("moved_subsidiary", "-5.00", -1)]
    posted = rows_of("reason amount purchases", *((why, Decimal(by), of) for why, by, of in reasons))
    small_lake.write(lake, tables.GMV_LEDGER, [{**place, "purchase_id": "1", **row} for row in posted])
    (told,) = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert "+90.00" in told.why and "-40.00" in told.why and "+30.00" in told.why
    assert told.why.endswith("; other reasons +14.00.")
    nothing = {**place, "purchase_id": "2", "reason": "repriced", "amount": Decimal("-14.00"), "purchases": 0}
    small_lake.write(lake, tables.GMV_LEDGER, [nothing])
    (told,) = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert "other reasons" not in told.why, "they come to nothing"


def test_a_run_that_was_interrupted_is_told_apart_from_one_that_failed(lake):
    ended(lake, "r2", "run", "interrupted")
    (told,) = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert told.what == "Run r2 was interrupted."


def test_quarantined_records_are_told_with_the_number_of_their_files(lake):
    rejected = [{"file": file, "sha256": file, "line": line} for file, line in (("a", 2), ("a", 3), ("b", 2))]
    small_lake.write(lake, tables.QUARANTINE, [{**row, "reasons": ["field_count"]} for row in rejected])
    (told,) = problems.open_problems(Reader(lake), day("2023-02-24"))
    assert told.what == "3 record(s) of 2 file(s) are in quarantine."
    assert told.advice == "Look at `gmv show quarantine`, and have right records delivered in a new file."


def test_quarantined_records_are_no_problem_any_more_when_they_are_accepted_or_retracted(lake, monkeypatch):
    bad = {"file": "a", "sha256": "a", "table": "purchase", "line": 2, "reasons": ["field_count"]}
    small_lake.write(lake, tables.QUARANTINE, [bad])
    (found,) = files.quarantined(Reader(lake))[BY_NAME["quarantined"]]
    acceptance.accept(lake, [found], acceptance.Acceptance("quarantined", "a line of totals"), "r2")
    assert kinds(lake) == []
    small_lake.write(lake, tables.QUARANTINE, [{**bad, "line": 3}])
    assert kinds(lake) == ["quarantine"], "there are more now"
    with monkeypatch.context() as patch:
        patch.setenv("GMV_SEVERITIES", '{"quarantined": "off"}')
        settings.cache_clear()
        assert kinds(lake) == []
    settings.cache_clear()
    out = {"path": "a", "table": "purchase", "sha256": "a", "size": 1, "outcome": "retracted", "run": "r3"}
    small_lake.write(lake, tables.FILES, [{**out, "recorded_at": at("2023-03-02")}])
    assert kinds(lake) == [], "before a run has taken that in, too"


def test_what_is_late_or_broken_comes_first(lake):
    small_lake.write(lake, tables.CHECK_RESULTS, [judged("r2", "day_drop", "warn", subject="2023-02-23")])
    refused = {"path": "purchase-2.csv", "table": "purchase", "sha256": "cd", "size": 1, "outcome": "refused"}
    small_lake.write(lake, tables.FILES, [{**refused, "run": "r2", "recorded_at": at("2023-03-02")}])
    ended(lake, "r2", "run", "failed")
    assert kinds(lake, "2023-02-27") == ["failed_run", "stale", "anomaly", "refused_file"]


def test_json_has_everything_and_amounts_as_texts(lake):
    posting = {"purchase_id": "9", "transaction_date": day("2023-02-18"), "subsidiary": "nacional"}
    posting |= {"amount": Decimal("0.10"), "purchases": 1, "known_on": day("2023-02-18"), "reason": "paid"}
    small_lake.write(lake, tables.GMV_LEDGER, [{**posting, "cause": "event", "ledger_seq": 2}])
    told = gmv(lake, "--as-of-date", "2023-03-01", "--format", "json")
    found = json.loads(told.output)
    assert told.exit_code == 1 and found["is_well"] is False
    assert found["pending"] == [{"day": "2023-02-18", "published": "778.55", "coming": "778.65"}]
    assert found["freshness"]["days_late"] == 4
    assert [one["key"] for one in found["problems"]] == ["stale"]


def test_openmetrics_is_read_by_prometheus_own_parser(lake):
    started(lake, 'r"2\\')
    told = gmv(lake, "--as-of-date", "2023-03-01", "--format", "openmetrics")
    samples = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(told.output)
        for sample in family.samples
    }
    assert samples["gmv_well", ()] == 0
    assert samples["gmv_problems", (("kind", "stale"),)] == 1
    assert samples["gmv_days_late", ()] == 4
    assert samples["gmv_newest_published_day_timestamp_seconds", ()] == 1677110400  # 2023-02-23T00:00Z
    assert samples["gmv_newest_event_timestamp_seconds", (("table", "purchase"),)] == 1677571200


def test_openmetrics_has_the_last_run_the_newest_file_and_what_waits_to_be_published(lake):
    posting = {
        "purchase_id": "9",
        "subsidiary": "nacional",
        "purchases": 1,
        "ledger_seq": 2,
        "reason": "paid",
    }
    for on, amount in (("2023-02-18", "0.10"), ("2023-02-19", "2.00"), ("2023-03-01", "4.00")):
        small_lake.write(
            lake, tables.GMV_LEDGER, [{**posting, "transaction_date": day(on), "amount": Decimal(amount)}]
        )
    for moment in ("2023-02-27", "2023-02-28", "2023-02-26"):
        small_lake.write(lake, tables.FILES, [{"outcome": "ingested", "modified_at": at(moment)}])
    older = {"run": "r9", "kind": "run", "outcome": "failed"}
    for event, moment in (("started", "2023-02-01T00:00"), ("ended", "2023-02-01T01:00")):
        small_lake.write(lake, tables.RUNS, [{**older, "event": event, "at": at(moment)}])

    lines = status.status(Reader(lake), day("2023-03-01")).as_openmetrics().splitlines()

    assert {
        "gmv_pending_days 2",
        "gmv_pending_amount 2.10",
        "gmv_newest_file_timestamp_seconds 1677542400",  # 2023-02-28T00:00Z
        'gmv_last_run_started_timestamp_seconds{outcome="succeeded"} 1677650400',  # 2023-03-01T06:00Z
        "gmv_last_run_duration_seconds 42.0",
    } <= set(lines)


def test_openmetrics_of_an_empty_lake_is_valid_too(tmp_path):
    told = status.status(Reader(tmp_path), day("2023-03-01")).as_openmetrics()
    assert next(iter(text_string_to_metric_families(told))).name == "gmv_well"


def test_a_run_leaves_its_days_freshness_and_steps(lake):
    run = "20230301T060000-0001"
    week_before = {"transaction_date": day("2023-02-16"), "subsidiary": "nacional", "gmv": Decimal("500.00")}
    day_before = {**week_before, "transaction_date": day("2023-02-22"), "gmv": Decimal("600.00")}
    small_lake.write(lake, tables.DAILY_GMV, [week_before, day_before])
    arrived = {"path": "purchase.csv", "outcome": "ingested", "size": 700, "records": 11, "run": run}
    arrived |= {"modified_at": at("2023-03-01T05:00")}
    earlier = {**arrived, "run": "r0", "modified_at": at("2023-02-01T05:00")}
    small_lake.write(lake, tables.FILES, [arrived, earlier, {**earlier, "run": run, "outcome": "repeated"}])
    monitoring.note_run(Reader(lake), run, day("2023-03-01"), {"01_bronze": 1.25})
    reader = Reader(lake)
    days = reader.rows("select day, gmv, against_day_before, against_week_before from monitoring.day_stats")
    assert [tuple(row.values()) for row in days] == [
        (day("2023-02-08"), Decimal("554.50"), None, None),
        (day("2023-02-18"), Decimal("778.55"), None, None),
        (day("2023-02-23"), Decimal("505.50"), Decimal("-94.50"), Decimal("5.50")),
    ]
    (fresh,) = reader.rows("select * exclude (recorded_at) from monitoring.freshness")
    assert fresh == {
        "run": run,
        "newest_event": at("2023-02-28T09:00"),
        "newest_file": at("2023-03-01T05:00"),
        "newest_published_day": day("2023-02-23"),
        "expected_day": day("2023-02-27"),
        "days_late": 4,
        "bytes_read": 700,
        "records_read": 11 + 25,  # the sample's own
    }
    assert reader.rows("select step, milliseconds from monitoring.steps") == [
        {"step": "01_bronze", "milliseconds": 1250}
    ]


def test_the_days_of_a_run_that_was_killed_are_noted_by_the_next(lake):
    gone = {
        "transaction_date": day("2023-02-18"),
        "subsidiary": "nacional",
        "previous_gmv": Decimal("778.55"),
    }
    monitoring.note_run(Reader(lake), "20230301T060000-0001", day("2023-03-01"), {})
    records.replace_days(lake, [day("2023-02-18")], [], {"run": "killed"})
    published = {"ledger_seq": 2, "run": "killed", "published_at": records.now()}
    small_lake.write(lake, tables.DAILY_GMV_HISTORY, [{**gone, **published}])
    for run in ("next", "after it"):
        monitoring.note_run(Reader(lake), run, day("2023-03-02"), {})
    noted = Reader(lake).rows("select run, day, gmv from monitoring.day_stats where run not like '2023%'")
    assert noted == [{"run": "next", "day": day("2023-02-18"), "gmv": Decimal("0.00")}]


def test_a_day_that_lost_all_its_rows_is_counted_as_0(lake):
    for layer in ("silver", "gold"):
        assert monitoring.changed_counts(Reader(lake), layer) == []
    records.replace_days(lake, [day("2023-02-18")], [], {"run": "r2"})
    lost = {"layer": "gold", "table": "daily_gmv", "day": day("2023-02-18"), "records": 0}
    assert monitoring.changed_counts(Reader(lake), "gold") == [lost]


@pytest.mark.parametrize(
    "command",
    [["status"], ["show", "daily_gmv"], ["show", "daily_gmv", "--format", "csv"], ["explain", "2023-02-08"]],
)
def test_looking_needs_no_pandas_whose_import_takes_as_long_as_the_look(lake, command):
    """pyarrow imports it by itself, in some of its functions."""
    source = (
        "import sys; from gmv.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, *command, "--lake", str(lake)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["show", "daily_gmv"],
        ["show", "problems"],
        ["explain", "2023-02-08"],
        ["report"],
        ["maintain"],
        ["export", "--to", "there"],
        ["verify"],
        ["rebuild"],
    ],
)
def test_a_mistyped_lake_is_not_one_without_problems(tmp_path, command):
    told = CliRunner().invoke(cli.app, [*command, "--lake", str(tmp_path / "nowhere")])
    assert isinstance(told.exception, UsageError) and "There is no lake at" in str(told.exception)
    assert not (tmp_path / "nowhere").exists()


def test_a_run_at_work_is_told_as_that(lake):
    small_lake.write(
        lake, tables.RUNS, [{"run": "r9", "event": "started", "kind": "run", "at": at("2023-03-05")}]
    )
    held = lock.acquire(lake, "the run")
    told = CliRunner().invoke(cli.app, ["status", "--lake", str(lake)]).stdout
    held.release()
    assert "Last run        r9 is at work (2023-03-05 00:00 UTC)" in told
    assert "r9 did not end" in CliRunner().invoke(cli.app, ["status", "--lake", str(lake)]).stdout


def test_a_run_that_ends_while_its_lake_is_looked_at_was_not_killed(lake):
    of_run = {"run": "r9", "kind": "run"}
    small_lake.write(lake, tables.RUNS, [{**of_run, "event": "started", "at": at("2023-03-05")}])
    reader = Reader(lake)
    assert reader.version(tables.RUNS) == 1
    ended = {**of_run, "event": "ended", "outcome": "succeeded", "at": at("2023-03-05T00:01")}
    small_lake.write(lake, tables.RUNS, [ended])
    found = status.status(reader, day("2023-02-24"))
    assert found.is_well and found.is_at_work


def test_a_run_whose_start_could_not_be_noted_is_the_last_one_all_the_same(lake):
    """As on a disk that was full for a moment."""
    failed = {"run": "r2", "kind": "run", "event": "ended", "outcome": "failed", "message": "m"}
    small_lake.write(lake, tables.RUNS, [{**failed, "at": at("2023-03-02T06:00")}])
    found = status.status(Reader(lake), day("2023-02-24"))
    assert (found.last_run["run"], found.last_run["outcome"]) == ("r2", "failed")
    assert "\ngmv_last_run_duration_seconds 0.0\n" in found.as_openmetrics()


def test_a_notebook_that_was_given_the_id_of_another_is_told_as_it_ended(lake):
    common = {"run": "mine", "kind": "notebook"}
    events = rows_of(
        "event at outcome message",
        ("started", at("2023-03-02T06:00"), None, None),
        ("ended", at("2023-03-02T06:10"), "succeeded", "first"),
        ("started", at("2023-03-02T08:00"), None, None),
        ("ended", at("2023-03-02T08:10"), "failed", None),
    )
    small_lake.write(lake, tables.RUNS, [{**common, **row} for row in events])
    ended(lake, "r7", "maintain", "succeeded")
    assert status.status(Reader(lake), day("2023-02-24")).last_run == {
        **common,
        "started": at("2023-03-02T08:00"),
        "ended": at("2023-03-02T08:10"),
        "outcome": "failed",
        "message": None,
    }


def test_what_each_step_has_still_to_take_in_is_told(lake):
    arrived = {"path": "purchase.csv", "sha256": "cd", "outcome": "ingested", "records": 1, "run": "r2"}
    small_lake.write(lake, tables.FILES, [{**arrived, "recorded_at": at("2023-03-02")}])
    first, *others = progress.STEPS
    small_lake.write(lake, tables.PROGRESS, [{"step": first, "bronze_run": "r2", "run": "r2"}])
    found = status.status(Reader(lake), day("2023-02-24"))
    assert found.unfinished == {first: []} | {step: ["r2"] for step in others}


def test_what_is_of_today_is_not_pending(lake):
    posting = {"purchase_id": "9", "transaction_date": day("2023-02-24"), "subsidiary": "nacional"}
    posting |= {"amount": Decimal("0.10"), "purchases": 1, "known_on": day("2023-02-24"), "reason": "paid"}
    small_lake.write(lake, tables.GMV_LEDGER, [{**posting, "cause": "event", "ledger_seq": 2}])
    assert status.status(Reader(lake), day("2023-02-24")).pending == []
    found = status.status(Reader(lake), day("2023-02-25"))
    assert found.pending == [
        {"day": day("2023-02-24"), "published": Decimal("0.00"), "coming": Decimal("0.10")}
    ]
    told = gmv(lake, "--as-of-date", "2023-02-25").output
    assert "│ 2023-02-24 │      0.00 │   0.10 │" in told
    assert "\ngmv_pending_amount 0.10\n" in found.as_openmetrics()
