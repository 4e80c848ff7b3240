"""`gmv status`: what is late or broken ends with 1, in words, JSON and OpenMetrics; and what runs leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import small_lake
from gmv import cli, monitoring, problems, status, tables
from gmv.checks import BY_NAME
from gmv.errors import UsageError
from gmv.lake import lock
from gmv.lake.reader import Reader
from gmv.quality import acceptance
from gmv.quality.findings import Finding
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from small_lake import at, day
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
    fresh = problems.freshness(Reader(lake), day(today))
    assert fresh.days_late == late
    told = gmv(lake, "--as-of-date", today)
    assert told.exit_code == (1 if late else 0)
    assert ("BROKEN" in told.output) == bool(late)


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


def test_openmetrics_of_an_empty_lake_is_valid_too(tmp_path):
    told = status.status(Reader(tmp_path), day("2023-03-01")).as_openmetrics()
    assert next(iter(text_string_to_metric_families(told))).name == "gmv_well"


def test_a_run_leaves_its_days_freshness_and_steps(lake):
    run = "20230301T060000-0001"
    week_before = {"transaction_date": day("2023-02-16"), "subsidiary": "nacional", "gmv": Decimal("500.00")}
    small_lake.write(lake, tables.DAILY_GMV, [week_before])
    arrived = {"path": "purchase.csv", "outcome": "ingested", "size": 700, "records": 11, "run": run}
    small_lake.write(lake, tables.FILES, [{**arrived, "modified_at": at("2023-03-01T05:00")}])
    monitoring.note_run(Reader(lake), run, day("2023-03-01"), {"01_bronze": 1.25})
    reader = Reader(lake)
    days = reader.rows("select day, gmv, against_day_before, against_week_before from monitoring.day_stats")
    assert [tuple(row.values()) for row in days] == [
        (day("2023-02-08"), Decimal("554.50"), None, None),
        (day("2023-02-18"), Decimal("778.55"), None, None),
        (day("2023-02-23"), Decimal("505.50"), None, Decimal("5.50")),
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
        "records_read": 11,
    }
    assert reader.rows("select step, milliseconds from monitoring.steps") == [
        {"step": "01_bronze", "milliseconds": 1250}
    ]


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
    assert "Last run        r9 is at work (UTC 2023-03-05 00:00)" in told
    assert "r9 did not end" in CliRunner().invoke(cli.app, ["status", "--lake", str(lake)]).stdout


def test_what_is_of_today_is_not_pending(lake):
    posting = {"purchase_id": "9", "transaction_date": day("2023-02-24"), "subsidiary": "nacional"}
    posting |= {"amount": Decimal("0.10"), "purchases": 1, "known_on": day("2023-02-24"), "reason": "paid"}
    small_lake.write(lake, tables.GMV_LEDGER, [{**posting, "cause": "event", "ledger_seq": 2}])
    assert status.status(Reader(lake), day("2023-02-24")).pending == []
    found = status.status(Reader(lake), day("2023-02-25"))
    assert [one["day"] for one in found.pending] == [day("2023-02-24")]
    assert "\ngmv_pending_amount 0.10\n" in found.as_openmetrics()
