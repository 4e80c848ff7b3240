"""The gates: each passes just inside of its limit and blocks just outside, and says what a person needs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal

import pytest
from deltalake import DeltaTable
from gmv import checks, quality, status
from gmv.errors import PublicationRefused, UsageError
from gmv.lake.reader import Reader
from gmv.lake.unfinished import Unfinished
from gmv.publication import Plan, ledger_sums
from gmv.quality import acceptance, days, findings
from gmv.quality.standing import standing
from gmv.settings import PROJECT, settings
from gmv.tables import (
    CHECK_RESULTS,
    DAILY_GMV,
    FILES,
    GMV_LEDGER,
    PARTITION_STATS,
    PRODUCT_ITEM,
    PROGRESS,
    PURCHASE,
    QUARANTINE,
    RUNS,
)
from gmv.verify import Certificate, Comparison
from small_lake import at, day, rows_of, write, write_sample

RUN = "20230302T060000-0002"
TODAY = day("2023-03-02")


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """The sample, published; nothing is wrong with it."""
    monkeypatch.setenv("GMV_FEED_MISSING_RECORDS", "10")  # some of its days have payments alone
    write_sample(tmp_path)
    files(tmp_path, ("purchase.csv", "ab" * 32, "ingested", 11, None))
    return tmp_path


def files(lake, *of_files: tuple, recorded_at: str = "2023-03-01T06:00:00", table: str | None = "purchase"):
    rows = rows_of("path sha256 outcome records reason", *of_files)
    arrived = {"table": table, "size": 1, "modified_at": at("2023-03-01T05:00:00"), "run": RUN}
    write(lake, FILES, [{**row, **arrived, "recorded_at": at(recorded_at)} for row in rows])


def rejected(lake, count: int, sha256: str = "ab" * 32, **values) -> None:
    row = {
        "table": "purchase",
        "reasons": ["release_date: not a date"],
        "file": "purchase.csv",
        "sha256": sha256,
        "run": RUN,
        "ingested_at": at("2023-03-01T06:00:00"),
    }
    write(lake, QUARANTINE, [{**row, "line": line, **values} for line in range(2, 2 + count)])


def count(lake, on: str, run: str = "", hour: int = 6, layer: str = "bronze", **records: int) -> None:
    """Note how many records a layer has of a day, by table; with a run, as news to the ledger."""
    noted = {"layer": layer, "day": day(on), "run": run, "recorded_at": at(f"2023-03-02T0{hour}:00:00")}
    write(lake, PARTITION_STATS, [{**noted, "table": table, "records": n} for table, n in records.items()])
    if run:
        write(lake, PROGRESS, [{"step": "ledger", "bronze_run": run, "recorded_at": noted["recorded_at"]}])


def judge(lake, coming: dict | None = None, accepting=None, run: str = RUN) -> list[dict]:
    """The gate of 03_gold, on the days of the sample; `coming` is what silver would give."""
    reader = Reader(lake)
    sums = ledger_sums(reader)
    days = sorted({place[0] for place in sums})
    return quality.check_gold(
        reader, sums if coming is None else coming, Plan(days, [], [], [], sums, TODAY), run, accepting
    )


def refusal(lake, **arguments) -> str:
    """What a blocked gate says; the published table is untouched by it."""
    before = DeltaTable(lake / DAILY_GMV.path).version()
    with pytest.raises(PublicationRefused) as refused:
        judge(lake, **arguments)
    assert refused.value.exit_code == 3
    assert DeltaTable(lake / DAILY_GMV.path).version() == before
    return str(refused.value)


def failed(results: list[dict]) -> list[tuple]:
    return [(one["check"], one["subject"], one["value"]) for one in results if not one["passed"]]


def noted(lake) -> list[tuple]:
    """Failing results of `monitoring/check_results`: check, severity, subject, accepted."""
    rows = Reader(lake).rows("select * from monitoring.check_results where not passed order by all")
    return [(row["check"], row["severity"], row["subject"], row["accepted"]) for row in rows]


# --- What blocks ------------------------------------------------------------------------------------------


def test_a_sound_lake_passes_and_notes_one_result_for_each_check(lake):
    results = judge(lake)
    assert failed(results) == []
    names = [one["check"] for one in results]
    assert len(names) == len(set(names))
    rows = Reader(lake).rows('select "check", passed from monitoring.check_results')
    assert {row["check"]: row["passed"] for row in rows} == dict.fromkeys(names, True)


def test_a_cent_between_silver_and_ledger_blocks_and_names_day_value_and_purchase(lake):
    sums = ledger_sums(Reader(lake))
    place = day("2023-02-18"), "nacional"
    assert failed(judge(lake, coming=sums)) == []
    said = refusal(lake, coming=sums | {place: sums[place] + Decimal("0.01")})
    assert "ledger_equals_silver: On 2023-02-18 (nacional) silver gives 778.56, the ledger 778.55" in said
    assert "--accept" not in said
    assert noted(lake) == [("ledger_equals_silver", "block", "2023-02-18 nacional", False)]
    assert "gives None, the ledger 778.55" in refusal(
        lake, coming={one: gmv for one, gmv in sums.items() if one != place}
    )


def test_days_that_a_run_does_not_look_at_are_not_compared(lake):
    sums, on = ledger_sums(Reader(lake)), day("2023-02-18")
    coming = {place: gmv for place, gmv in sums.items() if place[0] == on}
    assert (
        failed(quality.check_gold(Reader(lake), coming, Plan([on], [], [], [], sums, TODAY), RUN, None)) == []
    )


def test_where_silver_and_ledger_disagree_the_purchases_are_named_that_do(lake):
    on = {"transaction_datetime": at("2023-03-05T00:00"), "transaction_date": day("2023-03-05")}
    purchases = [{**on, "purchase_id": f"p{n}", "release_date": day("2023-03-05")} for n in (1, 2, 3)]
    unpaid = {**on, "purchase_id": "unpaid"}
    write(lake, PURCHASE.latest, [*purchases, unpaid])
    items = [("p1", 2, "10.00"), ("p2", 1, "7.00"), ("p3", 1, "0.00"), ("unpaid", 1, "5.00")]
    priced = rows_of("purchase_id item_quantity purchase_value", *((n, q, Decimal(v)) for n, q, v in items))
    write(lake, PRODUCT_ITEM.latest, [{**on, **row} for row in priced])
    posted = rows_of(
        "purchase_id amount purchases",
        ("p1", Decimal("15.00"), 1),
        ("p2", Decimal("7.00"), 1),
        ("p3", Decimal("0.00"), 2),  # twice
        ("gone", Decimal("0.00"), 1),
        ("back", Decimal("9.00"), 1),
        ("back", Decimal("-9.00"), -1),
    )
    common = {"transaction_date": day("2023-03-05"), "subsidiary": "unknown", "ledger_seq": 2}
    write(lake, GMV_LEDGER, [{**common, "known_on": day("2023-03-05"), **row} for row in posted])
    place = day("2023-03-05"), "unknown"
    said = refusal(lake, coming=ledger_sums(Reader(lake)) | {place: Decimal("27.00")})
    assert (
        "On 2023-03-05 (unknown) silver gives 27.00, the ledger 22.00; "
        "purchases: gone (0.00 / 0.00), p1 (20.00 / 15.00), p3 (0.00 / 0.00). "
    ) in said


def test_gmv_of_zero_passes_and_a_cent_below_blocks(lake):
    place = day("2023-02-24"), "nacional"
    for amount, is_refused in ((Decimal("0.00"), False), (Decimal("-0.01"), True)):
        coming = ledger_sums(Reader(lake)) | {place: amount}
        # The ledger has no such row, so agreement fails as well; what matters here is which check names it.
        said = refusal(lake, coming=coming)
        assert ("negative_gmv: On 2023-02-24 nacional would have" in said) is is_refused
        assert "--accept" not in said, "that alone would not publish"


@pytest.mark.parametrize(("rejected_records", "is_refused"), [(5, False), (6, True)])
def test_five_percent_of_a_file_may_be_quarantined_and_not_more(lake, rejected_records, is_refused):
    files(lake, ("purchase-2.csv", "cd" * 32, "ingested", 100, None))
    rejected(lake, rejected_records, sha256="cd" * 32, file="purchase-2.csv")
    if not is_refused:
        assert [check for check, *_ in failed(judge(lake))] == ["quarantined"]
        return
    said = refusal(lake)
    assert "purchase-2.csv: 6 of its 100 records (6.0 %) are quarantined; 5 % are allowed." in said
    assert said.endswith('To publish all the same: gmv run --accept quarantined_share --because "…"')
    assert ("quarantined_share", "block", "purchase-2.csv", False) in noted(lake)


def test_what_is_quarantined_is_told_by_reason_with_its_records_and_files_the_most_frequent_first(lake):
    a, b = "release_date: not a date", "purchase_id: empty"
    for name, reasons in (("2.csv", [a]), ("1.csv", [a, b]), ("1.csv", [a]), ("3.csv", [b])):
        rejected(lake, 1, sha256=name, file=name, reasons=reasons)
    rejected(lake, 1, table="product_item", file="0.csv")
    told = [one for one in judge(lake) if one["check"] == "quarantined"]
    assert [(one["subject"], one["value"]) for one in told] == [
        (f"purchase: {a}", "3 records"),
        (f"purchase: {b}", "2 records"),
        (f"product_item: {a}", "1 records"),
    ]
    assert told[0]["message"].startswith("3 record(s) of purchase in 2 file(s), such as 1.csv, are ")


def test_the_quarantined_share_is_a_setting(lake, monkeypatch):
    rejected(lake, 6)  # of 11
    for percent, is_refused in (("54.5", True), ("54.6", False)):
        monkeypatch.setenv("GMV_QUARANTINED_PERCENT", percent)
        settings.cache_clear()
        if is_refused:
            assert f"{percent} % are allowed" in refusal(lake)
        else:
            judge(lake)


def test_a_retracted_file_is_out_of_the_account(lake):
    rejected(lake, 11)
    assert "11 of its 11 records" in refusal(lake)
    files(
        lake, ("purchase.csv", "ab" * 32, "retracted", None, "sent twice"), recorded_at="2023-03-02T00:00:00"
    )
    assert failed(judge(lake)) == []
    files(lake, ("purchase.csv", "ab" * 32, "restored", None, "was right"), recorded_at="2023-03-03T00:00:00")
    assert "11 of its 11 records" in refusal(lake)


REASON = "purchase-2.csv: column 'release_date' is missing (found: 'a'). Nothing of this file was loaded."


def open_problems(lake) -> list[str]:
    """What is open besides the age of the sample's numbers."""
    problems = status.status(Reader(lake), TODAY).problems
    return [problem.what for problem in problems if problem.kind != "stale"]


def test_a_refused_file_blocks_until_it_is_replaced(lake):
    files(lake, ("purchase-2.csv", "cd" * 32, "refused", None, REASON))
    said = refusal(lake)
    assert said.splitlines() == [
        "Nothing was published; the last good numbers stay.",
        f"refused_file: {REASON} {checks.REFUSED_FILE.advice}",
        'To publish all the same: gmv run --accept refused_file --because "…"',
    ]
    assert REASON in open_problems(lake)
    files(lake, ("purchase-2.csv", "ce" * 32, "refused", None, "again"), recorded_at="2023-03-02T00:00:00")
    assert "refused_file: again" in refusal(lake)
    files(lake, ("purchase-2.csv", "cf" * 32, "ingested", 3, None), recorded_at="2023-03-03T00:00:00")
    assert failed(judge(lake)) == []
    assert open_problems(lake) == []


@pytest.mark.parametrize(
    ("path", "outcome"), [("purchase-2.csv", "retracted"), ("purchase-2-renamed.csv", "ingested")]
)
def test_a_refused_content_is_closed_when_it_is_retracted_or_came_under_another_name(lake, path, outcome):
    files(lake, ("purchase-2.csv", "cd" * 32, "refused", None, REASON))
    files(lake, (path, "cd" * 32, outcome, 0, None), recorded_at="2023-03-02T00:00:00")
    assert failed(judge(lake)) == []


def test_a_file_without_a_table_is_a_warning_that_a_setting_makes_block(lake, monkeypatch):
    files(lake, ("notes.csv", None, "refused", None, "notes.csv: no table."), table=None)
    assert failed(judge(lake)) == [("unmatched_file", "notes.csv", "refused")]
    monkeypatch.setenv("GMV_SEVERITIES", json.dumps({"unmatched_file": "block"}))
    settings.cache_clear()
    assert "unmatched_file: notes.csv: no table." in refusal(lake)
    monkeypatch.setenv("GMV_SEVERITIES", json.dumps({"unmatched_file": "off"}))
    settings.cache_clear()
    assert failed(judge(lake)) == []


@pytest.mark.parametrize(
    ("severities", "message"),
    [
        ('{"row_accounting": "warn"}', "row_accounting always blocks"),
        ('{"no_check": "warn"}', "no such check: 'no_check'"),
        ('{"ties": "loud"}', "GMV_SEVERITIES"),
    ],
)
def test_a_severity_that_makes_no_sense_is_refused(monkeypatch, severities, message):
    monkeypatch.setenv("GMV_SEVERITIES", severities)
    settings.cache_clear()
    with pytest.raises(UsageError, match=message):
        settings()


# --- Silver: neither can be accepted ----------------------------------------------------------------------


def account(records: int, new_versions: int, quarantined: int) -> dict:
    copies = records - new_versions - quarantined
    counts = {"records": records, "new_versions": new_versions, "copies": copies, "quarantined": quarantined}
    return {"table": "purchase", "file": "purchase.csv", **counts}


def test_row_accounts_that_do_not_add_up_block(lake):
    assert failed(quality.check_silver(Reader(lake), [account(11, 8, 3)], RUN, None)) == []
    with pytest.raises(PublicationRefused) as refused:
        quality.check_silver(Reader(lake), [account(11, 8, 4)], RUN, None)
    assert "row_accounting: purchase.csv has 11 records, but 8 new + 4 quarantined." in str(refused.value)
    assert "--accept" not in str(refused.value)
    assert noted(lake) == [("row_accounting", "block", "purchase.csv", False)]


def test_a_purchase_with_two_rows_in_silver_blocks(lake):
    assert failed(quality.check_silver(Reader(lake), [], RUN, None)) == []
    again = Reader(lake).rows("select * from silver.purchase where purchase_id = '56'")
    write(lake, PURCHASE.latest, again)
    with pytest.raises(PublicationRefused, match="silver/purchase has 7 rows for 6 purchases"):
        quality.check_silver(Reader(lake), [], RUN, None)
    write(lake, PRODUCT_ITEM.latest, Reader(lake).rows("select * from silver.product_item limit 1"))
    with pytest.raises(PublicationRefused, match="silver/product_item has 7 rows for 6 purchases"):
        quality.check_silver(Reader(lake), [], RUN, None)


def test_of_the_purchases_that_a_run_touched_alone_it_is_asked_whether_they_have_two_rows(lake):
    again = Reader(lake).rows("select * from silver.purchase where purchase_id = '56'")
    write(lake, PURCHASE.latest, again)
    assert failed(quality.check_silver(Reader(lake), [], RUN, touched=["29", "78"])) == []
    with pytest.raises(PublicationRefused, match="silver/purchase has 3 rows for 2 purchases"):
        quality.check_silver(Reader(lake), [], RUN, touched=["56", "78"])


def test_row_accounts_are_of_the_files_in_force_that_these_runs_brought_or_put_back(lake):
    noted = rows_of(
        "path run outcome records",
        ("earlier.csv", "r1", "ingested", 10),
        ("back.csv", "r1", "ingested", 10),
        ("new.csv", "r2", "ingested", 10),
        ("copies.csv", "r2", "ingested", 10),
        ("refused.csv", "r2", "refused", None),
        ("out.csv", "r2", "ingested", 10),
        ("earlier.csv", "r2", "repeated", None),
        ("new.csv", "r3", "repeated", None),
        ("back.csv", "r3", "restored", None),
        ("earlier.csv", "r0", "restored", None),
    )
    write(lake, FILES, [{**row, "sha256": row["path"], "table": "purchase"} for row in noted])
    brought = [
        ("back.csv", "r1"),
        ("new.csv", "r2"),
        ("out.csv", "r2"),
        ("new.csv", "r0"),
        ("earlier.csv", "r1"),
    ]
    of_files = [{"sha256": sha256, "run": run} for sha256, run in brought]
    write(lake, PURCHASE.versions, [{**row, "purchase_id": one} for row in of_files for one in "1234"])
    write(lake, QUARANTINE, [{**row, "line": line} for row in of_files for line in (5, 6)])

    accounts = quality.row_accounts(
        Reader(lake), Unfinished("silver", ["r2", "r3"], 30, False, ["r3"], ["back.csv"], ["out.csv"])
    )

    names = ("file", "records", "new_versions", "copies", "quarantined")
    assert [tuple(account[name] for name in names) for account in accounts] == [
        ("back.csv", 10, 4, 4, 2),
        ("copies.csv", 10, 0, 10, 0),
        ("new.csv", 10, 4, 4, 2),
    ]


def test_a_second_engine_that_comes_to_other_numbers_blocks_with_the_first_difference_of_each_table(lake):
    def compared(name: str, different: int, cents: int | None) -> Comparison:
        differences = [{"table": name, "purchase_id": f"p{n}"} for n in range(different)]
        return Comparison(name, "…", 9, different, cents, differences)

    def check(*comparisons: Comparison) -> list[dict]:
        moment = at("2023-03-02T06:00")
        made = Certificate("…", TODAY, moment, {}, list(comparisons), [], [], 1.0)
        return quality.check_recomputed(Reader(lake), made, RUN)

    assert failed(check(compared("silver", 0, None), compared("ledger", 0, 0))) == []
    with pytest.raises(PublicationRefused) as refused:
        check(compared("silver", 2, None), compared("history", 0, 0), compared("ledger", 1, 1234))
    said = str(refused.value)
    assert "silver: 2 of 9 rows differ; the first: table silver, purchase_id p0." in said
    assert "ledger: 1 of 9 rows differ by 1234 cents; the first: table ledger, purchase_id p0." in said
    assert "--accept" not in said
    rows = Reader(lake).rows("from monitoring.check_results where not passed order by subject")
    assert [(row["subject"], row["value"], row["amount"]) for row in rows] == [
        ("ledger", "1 of 9 rows differ", Decimal("12.34")),
        ("silver", "2 of 9 rows differ", None),
    ]


# --- Accepting ----------------------------------------------------------------------------------------------


def test_what_is_accepted_is_published_and_recorded_until_the_file_changes(lake):
    files(lake, ("purchase-2.csv", "cd" * 32, "refused", None, REASON))
    refusal(lake)
    results = judge(lake, accepting=acceptance.asked_for("refused_file", "sent by mistake"))
    assert [(one["check"], one["accepted"]) for one in results if not one["passed"]] == [
        ("refused_file", True)
    ]
    (row,) = Reader(lake).rows("select * from monitoring.runs where event = 'accepted'")
    assert row["run"] == RUN and row["at"] is not None
    assert json.loads(row["details"]) == {
        "check": "refused_file",
        "subject": "purchase-2.csv",
        "value": "refused",
        "holds_for": "cd" * 32,
        "who": acceptance.who(),
        "because": "sent by mistake",
    }
    assert open_problems(lake) == []

    assert failed(judge(lake)) == [("refused_file", "purchase-2.csv", "refused")], "it holds for later runs"
    judge(lake, accepting=acceptance.asked_for("refused_file", "once more"))
    assert len(Reader(lake).rows("select 1 from monitoring.runs where event = 'accepted'")) == 1
    files(lake, ("purchase-2.csv", "ce" * 32, "refused", None, REASON), recorded_at="2023-03-04T00:00:00")
    assert "refused_file" in refusal(lake)


def test_a_file_that_could_not_be_read_is_accepted_as_it_is_and_not_once_it_has_changed(lake):
    """What can't be read has no sha256: its size and time tell whether it is the same."""
    refused = {"path": "b.csv", "table": "purchase", "outcome": "refused", "reason": "b.csv can't be read."}
    for hour, size, modified_at in ((1, 5, 1), (2, 6, 1), (3, 6, 2)):
        arrived = {"size": size, "modified_at": at(f"2023-03-0{modified_at}T00:00:00")}
        write(lake, FILES, [{**refused, **arrived, "recorded_at": at(f"2023-03-02T0{hour}:00:00")}])
        assert "b.csv can't be read." in refusal(lake)
        judge(lake, accepting=acceptance.asked_for("refused_file", "known"))
        judge(lake)


def test_that_one_file_is_empty_was_accepted_of_that_one_alone(lake):
    """All empty files have the same content."""
    files(lake, ("purchase-2.csv", "cd" * 32, "refused", None, "purchase-2.csv: is empty."))
    judge(lake, accepting=acceptance.asked_for("refused_file", "a day without sales"))
    files(lake, ("purchase-3.csv", "cd" * 32, "refused", None, "purchase-3.csv: is empty."))
    assert "refused_file: purchase-3.csv: is empty. Correct" in refusal(lake)


def test_files_at_fault_are_told_in_the_order_of_their_names(lake):
    files(lake, *((f"purchase-{n}.csv", n * 64, "refused", None, f"{n}.") for n in "3124"))
    files(lake, *((f"purchase-{n}.csv", n * 64, "ingested", 1, None) for n in "7586"))
    for n in "6857":
        rejected(lake, 1, sha256=n * 64, file=f"purchase-{n}.csv")
    said = refusal(lake)
    assert "refused_file: 1. 2. 3. And 1 more" in said
    assert re.findall(r"purchase-(\d).csv: 1 of its 1 records", said) == ["5", "6", "7"]


def test_an_acceptance_is_of_one_check_and_subject(lake):
    files(lake, ("purchase-2.csv", "cd" * 32, "refused", None, REASON))
    rejected(lake, 11)
    said = refusal(lake, accepting=acceptance.asked_for("refused_file", "known"))
    assert "quarantined_share" in said and "refused_file" not in said
    files(lake, ("purchase-3.csv", "ff" * 32, "refused", None, "Another."))
    assert "refused_file: Another." in refusal(lake)
    results = judge(lake, accepting=acceptance.asked_for("all", "known"))
    assert {one["check"] for one in results if one["accepted"]} == {"refused_file", "quarantined_share"}


def test_a_number_is_accepted_for_its_day_and_value(lake):
    finding = findings.Finding(checks.NEGATIVE_GMV, "2023-02-24 nacional", "-1.00", "…")
    same = findings.Finding(checks.NEGATIVE_GMV, "2023-02-24 nacional", "-1.00", "…")
    other = findings.Finding(checks.NEGATIVE_GMV, "2023-02-24 nacional", "-1.01", "…")
    acceptance.accept(lake, [finding], acceptance.asked_for("negative_gmv", "a correction"), RUN)
    accepted = acceptance.accepted(Reader(lake))
    assert same.accepted_as in accepted
    assert other.accepted_as not in accepted


@pytest.mark.parametrize(
    ("check", "subject"),
    [(checks.DAY_DROP, "2023-02-01"), (checks.FEED_MISSING, "2023-02-01 purchase")],
)
def test_what_is_odd_about_a_day_of_an_earlier_run_can_be_accepted(lake, check, subject):
    """That the day is not judged anew is what lets its finding stand."""
    count(lake, "2023-02-01", product_item=10, purchase_extra_info=10)
    findings.note(lake, {check: [findings.Finding(check, subject, "9", "It is odd.")]}, RUN)
    assert [row["subject"] for row in standing(Reader(lake))] == [subject]
    judge(lake, accepting=acceptance.asked_for("refused_file", "another check"))
    assert [row["subject"] for row in standing(Reader(lake))] == [subject]
    judge(lake, accepting=acceptance.asked_for(check.name, "a holiday"))
    assert standing(Reader(lake)) == []


def test_what_blocked_a_day_is_no_anomaly_of_what_was_published(lake):
    """It is told while it blocks, and need not be judged anew when it was mended."""
    sums = ledger_sums(Reader(lake))
    refusal(lake, coming=sums | {(day("2023-02-18"), "nacional"): Decimal("-0.01")})
    assert [check for check, *_ in noted(lake)] == ["ledger_equals_silver", "negative_gmv"]
    assert standing(Reader(lake)) == []


def test_what_was_odd_and_is_judged_anew_and_passes_needs_no_acceptance(lake):
    odd = findings.Finding(checks.FEED_MISSING, "2023-02-18 purchase", "0 records", "Nothing came.")
    findings.note(lake, {checks.FEED_MISSING: [odd]}, "r0")
    judge(lake, accepting=acceptance.asked_for("feed_missing", "a holiday"))
    assert Reader(lake).rows("select 1 from monitoring.runs where event = 'accepted'") == []
    assert standing(Reader(lake)) == []


@pytest.mark.parametrize(("on", "is_told"), [("2023-03-01", True), (str(TODAY), False)])
def test_a_day_on_which_nothing_counts_as_a_table_has_not_come_is_told_when_it_is_over(lake, on, is_told):
    """It has no number to publish."""
    count(lake, on, "r9", purchase=10, purchase_extra_info=9)
    assert failed(judge(lake)) == [("feed_missing", f"{on} product_item", "0 records")] * is_told


def test_a_day_that_no_news_concern_is_not_told_again(lake):
    count(lake, "2023-03-01", purchase=10, purchase_extra_info=9)
    assert failed(judge(lake)) == []


def test_what_silver_has_of_a_day_says_nothing_of_what_has_come(lake):
    """Its purchases may have moved there, and its rows are not records."""
    count(lake, "2023-03-01", "r9", purchase=10, purchase_extra_info=9)
    count(lake, "2023-03-01", "r9", hour=7, layer="silver", product_item=8)
    assert failed(judge(lake)) == [("feed_missing", "2023-03-01 product_item", "0 records")]


def test_a_day_that_changes_in_silver_alone_has_not_been_fed(lake):
    count(lake, "2023-03-01", purchase=10, purchase_extra_info=9)
    count(lake, "2023-03-01", "r9", layer="silver", purchase=10)
    assert failed(judge(lake)) == []


def test_a_table_that_is_no_longer_missing_leaves_no_problem_though_no_number_moves(lake):
    count(lake, "2023-03-01", "r9", purchase=10, product_item=10)
    judge(lake)
    assert [row["about"] for row in standing(Reader(lake))] == ["purchase_extra_info"]
    ended = {"event": "ended", "kind": "run", "outcome": "succeeded", "at": at("2023-03-02T06:30:00")}
    write(lake, RUNS, [{"run": RUN, **ended}])
    count(lake, "2023-03-01", hour=7, purchase_extra_info=1)
    judge(lake)
    assert standing(Reader(lake)) == []


@pytest.mark.parametrize("name", ["2023-02-18 notes.csv", "2023-02-31 notes.csv", "2023-02-18"])
def test_a_file_whose_name_begins_with_a_day_is_no_anomaly_of_it(lake, name):
    files(lake, (name, None, "refused", None, f"{name}: no table."), table=None)
    assert failed(judge(lake)) == [("unmatched_file", name, "refused")]
    assert standing(Reader(lake)) == []
    assert open_problems(lake) == [f"{name}: no table."]


def missing_from(monkeypatch, records: int) -> None:
    """From so many records of another table on, a table without any is missed."""
    monkeypatch.setenv("GMV_FEED_MISSING_RECORDS", str(records))
    settings.cache_clear()


def test_what_fails_again_stands_and_what_passes_is_healed_by_the_run_that_publishes(lake, monkeypatch):
    def missed() -> list[str]:
        return [row["subject"] for row in standing(Reader(lake))]

    missing_from(monkeypatch, 2)
    judge(lake, run="r2")
    assert missed() == ["2023-02-18 product_item", "2023-02-18 purchase_extra_info"]
    judge(lake, run="r3")
    assert missed() == ["2023-02-18 product_item", "2023-02-18 purchase_extra_info"]
    rows = Reader(lake).rows("from monitoring.check_results where \"check\" = 'feed_missing' and passed")
    assert rows == [], "nothing of it has passed"
    missing_from(monkeypatch, 3)
    rejected(lake, 11)
    refusal(lake, run="r4")
    assert len(missed()) == 2, "what was refused may be judged anew"
    judge(lake, accepting=acceptance.asked_for("quarantined_share", "known"), run="r5")
    assert missed() == []


def test_each_check_of_a_day_stands_for_itself(lake):
    of_day = [checks.DAY_DROP, checks.FEED_MISSING]
    found = {check: [findings.Finding(check, "2023-02-01", "9", "Odd.")] for check in of_day}
    findings.note(lake, found, RUN, accepted={("day_drop", "2023-02-01", "2023-02-01: 9")})
    assert [row["check"] for row in standing(Reader(lake))] == ["feed_missing"]
    passed = {checks.DAY_DROP: [], checks.WEEKDAY_RECORDS: []}
    findings.note(lake, passed, "r3", healed={checks.WEEKDAY_RECORDS: ["2023-02-01"]})
    assert [row["check"] for row in standing(Reader(lake))] == ["feed_missing"]


def test_what_stands_is_told_with_the_newest_day_first_and_the_subsidiary_that_it_is_about(lake):
    subjects = ["2023-02-08 nacional", "2023-02-18 Rio Grande", "2023-02-18"]
    odd = [findings.Finding(checks.DAY_DROP, subject, "9", "Odd.") for subject in subjects]
    findings.note(lake, {checks.DAY_DROP: odd}, RUN)
    assert [(row["day"], row["about"]) for row in standing(Reader(lake))] == [
        (day("2023-02-18"), ""),
        (day("2023-02-18"), "Rio Grande"),
        (day("2023-02-08"), "nacional"),
    ]


def test_a_check_that_is_switched_off_heals_nothing(lake, monkeypatch):
    posted = {"transaction_date": day("2023-02-20"), "subsidiary": "nacional", "amount": Decimal("9.00")}
    write(lake, GMV_LEDGER, [{**posted, "purchases": 1, "ledger_seq": 2}])
    odd = findings.Finding(checks.WEEKDAY_RECORDS, "2023-02-20 purchase", "0", "Nothing came.")
    findings.note(lake, {checks.WEEKDAY_RECORDS: [odd]}, "r0")
    monkeypatch.setenv("GMV_SEVERITIES", json.dumps({"weekday_records": "off"}))
    settings.cache_clear()
    judge(lake)
    assert [row["subject"] for row in standing(Reader(lake))] == [odd.subject]
    monkeypatch.delenv("GMV_SEVERITIES")
    settings.cache_clear()
    judge(lake)
    assert standing(Reader(lake)) == []


def test_a_result_has_the_money_concerned(lake):
    place = day("2023-02-18"), "nacional"
    refusal(lake, coming=ledger_sums(Reader(lake)) | {place: Decimal("778.50")})
    rows = Reader(lake).rows("select subject, amount from monitoring.check_results where not passed")
    assert rows == [{"subject": "2023-02-18 nacional", "amount": Decimal("0.05")}]


def test_of_many_findings_three_are_told_and_the_others_counted():
    many = [findings.Finding(checks.NEGATIVE_GMV, f"{n}", "v", f"Day {n}.") for n in range(5)]
    assert findings.in_words(many) == "Day 0. Day 1. Day 2. And 2 more: gmv show check_results."
    assert findings.in_words(many[:3]) == "Day 0. Day 1. Day 2."


def test_an_anomaly_that_was_published_with_a_warning_can_be_accepted_later(lake):
    flagged = findings.Finding(checks.WEEKDAY_GMV, "2023-02-01 nacional", "9.00", "much less than likely")
    findings.note(lake, {checks.WEEKDAY_GMV: [flagged]}, RUN)
    assert days.flagged(Reader(lake), acceptance.accepted(Reader(lake))) == [flagged]
    judge(lake, accepting=acceptance.asked_for("refused_file", "another check"))
    assert days.flagged(Reader(lake), acceptance.accepted(Reader(lake))) == [flagged]
    judge(lake, accepting=acceptance.asked_for("weekday_gmv", "a holiday"))
    assert days.flagged(Reader(lake), acceptance.accepted(Reader(lake))) == []


@pytest.mark.parametrize("check", ["ledger_equals_silver", "silver_key_unique", "row_accounting"])
def test_a_lake_that_contradicts_itself_can_not_be_accepted(lake, check):
    with pytest.raises(UsageError, match=f"{check} can't be accepted: its failure says"):
        acceptance.asked_for(check, "it will be fine")
    sums = ledger_sums(Reader(lake))
    place = day("2023-02-18"), "nacional"
    coming = sums | {place: sums[place] + Decimal("0.01")}
    assert "ledger_equals_silver" in refusal(lake, coming=coming, accepting=acceptance.asked_for("all", "hm"))
    assert noted(lake) == [("ledger_equals_silver", "block", "2023-02-18 nacional", False)]
    assert acceptance.accepted(Reader(lake)) == set()
    # Not even by a row that somebody wrote by hand.
    value = "778.56 from silver, 778.55 in the ledger"
    details = {
        "check": "ledger_equals_silver",
        "subject": "2023-02-18 nacional",
        "holds_for": f"2023-02-18 nacional: {value}",
    }
    write(lake, RUNS, [{"run": RUN, "event": "accepted", "details": json.dumps(details)}])
    assert "ledger_equals_silver" in refusal(lake, coming=coming)


@pytest.mark.parametrize(
    ("check", "because", "message"),
    [
        ("refused_file", "", "say it in because"),
        ("", "because", "name the check in accept"),
        ("refused", "because", "There is no check 'refused' to accept; there are all, negative_gmv"),
    ],
)
def test_an_acceptance_needs_a_check_and_a_reason(check, because, message):
    with pytest.raises(UsageError, match=message) as wrong:
        acceptance.asked_for(check, because)
    assert wrong.value.exit_code == 2
    assert acceptance.asked_for("", "") is None


# --- What is declared -------------------------------------------------------------------------------------


def test_every_limit_of_a_check_is_a_setting():
    for check in checks.CHECKS:
        for name in re.findall(r"\{(\w+)\}", check.must_hold):
            assert name in type(settings()).model_fields
        assert "{" not in findings.limit(check)


def test_results_have_the_columns_that_are_declared(lake):
    judge(lake)
    rows = Reader(lake).rows("select * from monitoring.check_results")
    assert list(rows[0]) == CHECK_RESULTS.column_names


def test_the_docs_have_every_check_with_its_severity_and_limit():
    text = (PROJECT / "docs" / "quality.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| (\w+)(?: \(always\))? \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    assert told == [
        (check.name, check.severity, check.subject, findings.limit(check)) for check in checks.CHECKS
    ]


def test_results_of_a_lake_that_was_made_before_a_column_was_declared_are_read_and_added_to(lake):
    older = replace(
        CHECK_RESULTS, columns=tuple(one for one in CHECK_RESULTS.columns if one.name != "amount")
    )
    write(lake, older, [{"run": "r0", "check": "day_drop", "passed": True}])
    assert [row["amount"] for row in Reader(lake).rows("select * from monitoring.check_results")] == [None]
    judge(lake)
    rows = Reader(lake).rows('select run, "check" from monitoring.check_results order by run limit 2')
    assert len(rows) == 2
