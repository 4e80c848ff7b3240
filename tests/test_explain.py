"""explain: every change of a published number adds up to the cent, down to files and their values."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from gmv import explain, tables, tell
from gmv.cli import app
from gmv.errors import UsageError
from gmv.evidence import Event, Part
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.reasons import UNEXPLAINED
from gmv.report import data as report_data
from hypothesis import given, settings
from hypothesis import strategies as st
from model_lake import ModelLake
from pipeline import events
from small_lake import at, day, rows_of, write
from strategies import DAYS, event_arrivals
from typer.testing import CliRunner

LATER = day("2030-01-01")


def files_of(text: str) -> dict:
    """Files by name, each with its events: `name: kind time purchase values …`, an event per line."""
    files: dict[str, list] = defaultdict(list)
    for line in text.strip().splitlines():
        name, event = line.strip().split(": ")
        files[name] += events(event)
    return files


def explained(reader: Reader, on: str, today: dt.date = LATER) -> list[str]:
    """The changes of a day as lines, and below each its parts."""
    lines = []
    for change in explain.days(reader, Window(day(on), day(on)), today):
        lines.append(f"{change.subsidiary} {change.state} {change.before} -> {change.after}")
        for part in change.parts:
            behind = f"{part.event.table} {part.event.at:%m-%d} {part.event.file}" if part.event else "-"
            lines.append(f"  {part.amount:+} {part.reason}: {behind} by {', '.join(part.arrived) or '-'}")
    return lines


@pytest.fixture
def worked_example(tmp_path: Path) -> Reader:
    lake = ModelLake()
    for files in (
        """a/purchase.csv: purchase 03-10T08:00 1 paid
           a/item.csv: item 03-10T08:00 1 1 100.00""",
        """b/item.csv: item 03-12T09:00 1 1 80.00
           b/info.csv: info 03-12T10:00 1 nac""",
        "c/purchase.csv: purchase 03-25T09:00 1 paid",
        "d/purchase.csv: purchase 03-20T09:00 1 unpaid",
    ):
        lake.run(files_of(files))
    return lake.save(tmp_path)


def test_each_change_of_a_day_is_told_with_its_events_and_their_files(worked_example):
    assert explained(worked_example, "2023-03-10") == [
        "nac published None -> 80.00",
        "  +100.00 subsidiary_known: purchase_extra_info 03-12 b/info.csv by b/info.csv",
        "  -20.00 repriced: product_item 03-12 b/item.csv by b/item.csv",
        "nac published 80.00 -> None",
        "  -80.00 moved_day: purchase 03-25 c/purchase.csv by c/purchase.csv",
        # The late withdrawal changes the past only: its corrections are of an event that came before it.
        "nac unpublished None -> None",
        "  -80.00 withdrawn: purchase 03-20 d/purchase.csv by d/purchase.csv",
        "  +80.00 moved_day: purchase 03-25 c/purchase.csv by d/purchase.csv",
        "unknown published None -> 100.00",
        "  +100.00 paid: purchase 03-10 a/purchase.csv by a/purchase.csv",
        "unknown published 100.00 -> None",
        "  -100.00 subsidiary_known: purchase_extra_info 03-12 b/info.csv by b/info.csv",
    ]


def test_no_posting_is_told_by_an_event_that_came_after_it(tmp_path):
    """Two events of one purchase and day, in two deliveries: each posting has its own."""
    lake = ModelLake()
    for files in (
        "a.csv: purchase 03-10T08:00 1 paid\n b.csv: item 03-10T08:00 1 1 100.00",
        "c.csv: item 03-12T09:00 1 1 80.00",
        "d.csv: item 03-12T15:00 1 1 90.00",
    ):
        lake.run(files_of(files))
    told = explained(lake.save(tmp_path), "2023-03-10")
    assert [line.strip() for line in told if "repriced" in line] == [
        "-20.00 repriced: product_item 03-12 c.csv by c.csv",
        "+10.00 repriced: product_item 03-12 d.csv by d.csv",
    ]


def test_a_correction_is_not_put_down_to_an_event_that_only_came_along_with_its_cause(tmp_path):
    lake = ModelLake()
    for files in (
        """a.csv: purchase 03-10T08:00 1 paid
           b.csv: item 03-10T08:00 1 1 100.00
           c.csv: purchase 03-12T08:00 1 paid""",
        """d.csv: purchase 03-12T09:00 1 paid
           e.csv: purchase 03-11T08:00 1 unpaid""",
    ):
        lake.run(files_of(files))
    told = explained(lake.save(tmp_path), "2023-03-10")
    assert [line.strip() for line in told if " by " in line][2:] == [
        "-100.00 withdrawn: purchase 03-11 e.csv by e.csv",
        "+100.00 moved_day: purchase 03-12 d.csv by d.csv, e.csv",
    ]


def test_a_run_is_explained_by_what_it_published_and_posted(worked_example):
    by_run = {run: explain.run(worked_example, run, LATER) for run in ("run002", "run004")}
    assert [(change.subsidiary, change.difference) for change in by_run["run002"]] == [
        ("nac", Decimal("80.00")),
        ("unknown", Decimal("-100.00")),
    ]
    assert [(str(c.transaction_date), c.state, len(c.parts)) for c in by_run["run004"]] == [
        ("2023-03-10", "unpublished", 2),
        ("2023-03-25", "unpublished", 2),
    ]
    with pytest.raises(UsageError, match="no run 'run9'"):
        explain.run(worked_example, "run9", LATER)


@pytest.mark.parametrize(
    ("purchases", "said"), [(1, "Payment received"), (-1, "Payment that no longer counts here")]
)
def test_what_is_free_is_told_by_whether_it_enters_or_leaves(purchases, said):
    assert Part(Decimal("0.00"), "paid", purchases=purchases).why == said


def test_a_correction_of_the_amount_alone_is_no_payment_that_comes_or_goes():
    lowered = Part(Decimal("-54.50"), "paid", "retraction", purchases=0)
    assert lowered.why == "Price or quantity lowered, because a file was retracted"
    assert Part(Decimal("5.00"), "withdrawn", purchases=0).why == "Price or quantity raised"


def test_a_run_that_found_nothing_new_is_explained_by_nothing(tmp_path):
    lake = ModelLake()
    lake.run(files_of("a.csv: purchase 03-10T08:00 1 paid"))
    idle = lake.run({})
    reader = lake.save(tmp_path)
    assert explain.run(reader, idle, day("2023-03-11")) == []


def test_values_of_the_event_and_words_of_finance(worked_example):
    rows = tell.explanation_rows(
        explain.days(worked_example, Window(day("2023-03-10"), day("2023-03-10")), LATER)
    )
    assert list(rows[0]) == list(tell.EXPLAIN_COLUMNS)
    assert [(row["why"], row["event_values"]) for row in rows[:4]] == [
        ("Subsidiary became known: this one", "nac"),
        ("Price or quantity lowered", "1 × 80.00"),
        ("Moved to another day", "paid 2023-03-25, for 2023-03-25"),
        ("Payment withdrawn", "not paid"),
    ]


def test_a_day_that_waits_is_told_as_pending_or_in_progress(tmp_path):
    lake = ModelLake()
    lake.run(files_of("a.csv: purchase 03-10T08:00 1 paid\nb.csv: item 03-10T08:00 1 1 100.00"))
    lake.run(files_of("c.csv: item 03-12T08:00 1 1 70.00"), publishes=lambda _: False)
    reader = lake.save(tmp_path)
    waits = ["  -30.00 repriced: product_item 03-12 c.csv by c.csv"]
    assert explained(reader, "2023-03-10")[2:] == ["unknown pending 100.00 -> 70.00", *waits]
    assert explained(reader, "2023-03-10", today=day("2023-03-10"))[2:] == [
        "unknown in_progress 100.00 -> 70.00",
        *waits,
    ]


def test_a_number_that_was_never_published_is_no_restatement_when_it_waits(tmp_path):
    lake = ModelLake()
    lake.run(
        files_of("a.csv: purchase 03-10T08:00 1 paid\nb.csv: item 03-10T08:00 1 1 100.00"), lambda _: False
    )
    window = Window(day("2023-03-10"), day("2023-03-10"))
    (change,) = explain.days(lake.save(tmp_path), window, day("2023-03-11"))
    assert (change.state, change.is_restatement) == ("pending", False)


def test_postings_from_before_the_first_publication_are_no_restatement(tmp_path):
    lake = ModelLake()
    lake.run(
        files_of(
            """a.csv: purchase 03-10T08:00 1 paid
               b.csv: item 03-10T08:00 1 1 100.00
               c.csv: info 03-12T08:00 1 nac"""
        )
    )
    lake.run(files_of("d.csv: item 03-13T08:00 1 1 120.00\nd.csv: item 03-14T08:00 1 1 100.00"))
    window = Window(day("2023-03-10"), day("2023-03-10"))
    changes = explain.days(lake.save(tmp_path), window, LATER)
    assert [(change.subsidiary, change.state, change.is_restatement) for change in changes] == [
        ("nac", "published", False),
        ("nac", "unpublished", True),
        ("unknown", "unpublished", False),
    ]


def test_damage_is_named_and_never_hidden(tmp_path):
    lake = ModelLake()
    lake.run(files_of("a.csv: purchase 03-10T08:00 1 paid\nb.csv: item 03-10T08:00 1 1 100.00"))
    lake.published[day("2023-03-10"), "unknown"] += Decimal("0.01")
    assert explained(lake.save(tmp_path / "number"), "2023-03-10")[2:] == [
        "unknown damaged 100.00 -> 100.01",
        "  +0.01 unexplained: - by -",
        "unknown pending 100.01 -> 100.00",
        "  -0.01 unexplained: - by -",
    ]
    lake.published[day("2023-03-10"), "unknown"] -= Decimal("0.01")
    lake.ledger[0]["amount"] -= Decimal("0.01")
    assert explained(lake.save(tmp_path / "ledger"), "2023-03-10")[:3] == [
        "unknown published None -> 100.00",
        "  +99.99 paid: purchase 03-10 a.csv by a.csv",
        "  +0.01 unexplained: - by -",
    ]
    lake.ledger[0]["amount"] += Decimal("0.01")
    lake.history[0]["previous_gmv"] = Decimal("7.00")
    assert explained(lake.save(tmp_path / "history"), "2023-03-10") == [
        "unknown damaged None -> 7.00",
        "  +7.00 unexplained: - by -",
        "unknown published 7.00 -> 100.00",
        "  +100.00 paid: purchase 03-10 a.csv by a.csv",
        "  -7.00 unexplained: - by -",
    ]


def test_a_row_that_was_lost_before_it_was_published_again_is_named(tmp_path):
    lake = ModelLake()
    lake.run(files_of("a.csv: purchase 03-10T08:00 1 paid\nb.csv: item 03-10T08:00 1 1 100.00"))
    del lake.published[day("2023-03-10"), "unknown"]
    lake.run(files_of("c.csv: item 03-12T08:00 1 1 70.00"))
    assert explained(lake.save(tmp_path), "2023-03-10")[2:5] == [
        "unknown damaged 100.00 -> None",
        "  -100.00 unexplained: - by -",
        "unknown published None -> 70.00",
    ]


def test_a_retraction_is_told_with_its_file_and_what_was_said(tmp_path):
    ten = day("2023-03-10")
    posted = rows_of(
        "amount purchases cause ledger_seq run recorded_at",
        (Decimal("100.00"), 1, "event", 1, "run1", at("2023-03-11 06:01:00")),
        (Decimal("-100.00"), -1, "retraction", 2, "out1", at("2023-03-15 06:01:00")),
    )
    place = {
        "purchase_id": "1",
        "transaction_date": ten,
        "subsidiary": "nac",
        "known_on": ten,
        "reason": "paid",
    }
    write(tmp_path, tables.GMV_LEDGER, [place | row for row in posted])
    noted = rows_of(
        "bronze_run recorded_at", ("run1", at("2023-03-11 06:02:00")), ("out1", at("2023-03-15 06:02:00"))
    )
    write(tmp_path, tables.PROGRESS, [{"step": "ledger", **row} for row in noted])
    files = rows_of(
        "path table sha256 outcome reason run",
        ("bad.csv", "purchase", "ba", "ingested", None, "run1"),
        ("bad.csv", "purchase", "ba", "retracted", "a test that went to production", "out1"),
        ("another.csv", "purchase", "an", "retracted", "it is of another shop", "out1"),
    )
    write(tmp_path, tables.FILES, files)
    records = rows_of(
        "transaction_datetime transaction_date purchase_id release_date file sha256 line run",
        ("2023-03-10 08:00:00", "2023-03-10", " 1 ", "2023-03-10", "bad.csv", "ba", 2, "run1"),
        ("2023-03-10 08:00:00", "2023-03-10", "2", "2023-03-10", "another.csv", "an", 2, "run1"),
        # A greater event of the same day, which no step has taken in yet.
        ("2023-03-10 09:00:00", "2023-03-10", "1", "2023-03-10", "later.csv", "la", 2, "run9"),
    )
    arrived = {"ingested_at": at("2023-03-11 06:00:00")}
    write(tmp_path, tables.PURCHASE.bronze, [record | arrived for record in records])
    (change,) = explain.days(Reader(tmp_path), Window(ten, ten), LATER)
    paid, retracted = change.parts
    assert (paid.why, paid.arrived, paid.event.is_in_force) == ("Payment received", ["bad.csv"], False)
    assert retracted.why == "Payment that no longer counts here, because a file was retracted"
    assert (retracted.arrived, retracted.because) == (["bad.csv"], "a test that went to production")
    assert retracted.event == Event(
        "purchase",
        at("2023-03-10 08:00:00"),
        {"transaction_date": ten, "release_date": ten},
        "bad.csv",
        is_in_force=False,
    )

    put_back = {"cause": "undo", "ledger_seq": 3, "run": "undo1", "recorded_at": at("2023-03-16 06:01:00")}
    write(tmp_path, tables.GMV_LEDGER, [place | posted[0] | put_back])
    noted = {"step": "ledger", "bronze_run": "undo1", "recorded_at": at("2023-03-16 06:02:00")}
    write(tmp_path, tables.PROGRESS, [noted])
    write(
        tmp_path, tables.FILES, [files[1] | {"outcome": "restored", "reason": "it was none", "run": "undo1"}]
    )
    (change,) = explain.days(Reader(tmp_path), Window(ten, ten), LATER)
    undone = change.parts[2]
    assert undone.why == "Payment received, because a retracted file was restored"
    assert (undone.arrived, undone.because) == (["bad.csv"], "it was none")
    assert [part.event.is_in_force for part in change.parts] == [True, True, True]


def test_a_retraction_is_told_by_the_file_of_its_purchase_though_the_event_is_in_another(tmp_path):
    """The event's own file was retracted by mistake, and put back before the step took that in."""
    ten = day("2023-03-10")
    place = {
        "purchase_id": "1",
        "transaction_date": ten,
        "subsidiary": "nac",
        "known_on": ten,
        "ledger_seq": 2,
    }
    taken_back = {"amount": Decimal("-100.00"), "purchases": -1, "reason": "paid", "cause": "retraction"}
    when = {"run": "out1", "recorded_at": at("2023-03-15 06:01:00")}
    by_rule = {
        "amount": Decimal("100.00"),
        "purchases": 1,
        "reason": "paid",
        "cause": "rule",
        "ledger_seq": 3,
    }
    later = {"run": "rebuild1", "recorded_at": at("2023-03-16 06:01:00")}
    write(tmp_path, tables.GMV_LEDGER, [place | taken_back | when, place | by_rule | later])
    noted = rows_of(
        "bronze_run recorded_at", ("run1", at("2023-03-11 06:02:00")), ("out1", at("2023-03-15 06:02:00"))
    )
    write(tmp_path, tables.PROGRESS, [{"step": "ledger", **row} for row in noted])
    files = rows_of(
        "path table sha256 outcome reason run",
        ("purchase.csv", "purchase", "pu", "ingested", None, "run1"),
        ("purchase.csv", "purchase", "pu", "retracted", "the wrong one", "out1"),
        ("item.csv", "product_item", "it", "retracted", "in another currency", "out1"),
        ("another.csv", "product_item", "an", "retracted", "it is of another shop", "out1"),
    )
    write(tmp_path, tables.FILES, [{**row, "recorded_at": at("2023-03-15 06:00:00")} for row in files])
    put_back = files[1] | {"outcome": "restored", "reason": "", "recorded_at": at("2023-03-15 06:00:30")}
    write(tmp_path, tables.FILES, [put_back])
    records = rows_of(
        "transaction_datetime transaction_date purchase_id item_quantity purchase_value file sha256 run",
        ("2023-03-10 08:00:00", "2023-03-10", "1", "1", "100.00", "item.csv", "it", "run1"),
        ("2023-03-10 08:00:00", "2023-03-10", "2", "1", "100.00", "another.csv", "an", "run1"),
    )
    write(tmp_path, tables.PRODUCT_ITEM.bronze, records)
    of_purchase = records[0] | {"release_date": "2023-03-10", "file": "purchase.csv", "sha256": "pu"}
    names = {column.name for column in tables.PURCHASE.bronze.columns}
    write(
        tmp_path, tables.PURCHASE.bronze, [{name: of_purchase[name] for name in of_purchase.keys() & names}]
    )
    paid = {"transaction_datetime": at("2023-03-10 08:00:00"), "transaction_date": ten, "release_date": ten}
    brought = {"purchase_id": "1", "file": "purchase.csv", "sha256": "pu", "run": "run1"}
    write(tmp_path, tables.PURCHASE.versions, [paid | brought])
    (change,) = explain.days(Reader(tmp_path), Window(ten, ten), LATER)
    part, of_rule = change.parts
    assert (part.event.file, part.arrived, part.because) == (
        "purchase.csv",
        ["item.csv"],
        "in another currency",
    )
    assert (of_rule.event.file, of_rule.arrived) == ("purchase.csv", ()), "a rule is no file's doing"


def test_a_posting_is_told_by_the_event_of_then_though_its_file_was_retracted_since(lake):
    lake.arrive("a", "purchase 03-10T07:00 1 unpaid\n item 03-10T08:00 1 1 100.00")
    lake.arrive("b", "purchase 03-10T08:00 1 paid")
    lake.run()
    lake.arrive("c", "purchase 03-10T08:00 1 paid\n purchase 03-10T08:00 2 paid\n item 03-12T08:00 1 1 90.00")
    lake.run()
    lake.retract("purchase-b.csv")
    lake.retract("product_item-c.csv")
    lake.run()
    lake.arrive("d", "item 03-12T07:00 1 1 70.00")
    lake.run()
    assert explained(lake.reader, "2023-03-10") == [
        "unknown published None -> 100.00",
        "  +100.00 paid: purchase 03-10 purchase-b.csv by purchase-b.csv",
        "unknown published 100.00 -> 90.00",
        "  -10.00 repriced: product_item 03-12 product_item-c.csv by product_item-c.csv",
        "unknown published 90.00 -> 100.00",
        "  +10.00 repriced: product_item 03-12 product_item-c.csv by product_item-c.csv",
        "unknown published 100.00 -> 70.00",
        "  -30.00 repriced: product_item 03-12 product_item-d.csv by product_item-d.csv",
    ]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(event_arrivals(max_runs=4), st.data())
def test_any_life_of_a_lake_adds_up_to_the_cent(life, data):
    _, runs = life
    lake = ModelLake()
    brought: dict[str, set[str]] = {}
    for files in runs:
        published_days = data.draw(st.sets(st.sampled_from(DAYS)))
        run = lake.run({file.name: file.events for file in files}, publishes=published_days.__contains__)
        brought[run] = {file.name for file in files}
    with tempfile.TemporaryDirectory() as folder:
        reader = lake.save(Path(folder))
        changes = explain.days(reader, Window(min(DAYS), max(DAYS)), LATER)
        reported = report_data.restatements(reader)
    assert sum(len(change.parts) for change in changes) == len(lake.ledger)
    now: dict[tuple, Decimal | None] = {}
    published: dict[tuple, Decimal | None] = {}
    for change in changes:
        place = change.transaction_date, change.subsidiary
        assert change.before == now.get(place)
        assert sum((part.amount for part in change.parts), Decimal(0)) == change.difference
        now[place] = change.after
        if change.state == "published":
            published[place] = change.after
        for part in change.parts:
            assert part.reason != UNEXPLAINED
            assert part.event.at.date() == part.known_on
            assert part.arrived and set(part.arrived) <= brought[part.run]
    assert {place: gmv for place, gmv in now.items() if gmv is not None} == lake.sums()
    assert {place: gmv for place, gmv in published.items() if gmv is not None} == lake.published

    # The report's own query, which reads sums instead of purchases, says the same.
    expected: dict[tuple, Decimal] = defaultdict(Decimal)
    for change in changes:
        if change.state == "published" and change.is_restatement and change.before != change.after:
            for part in change.parts:
                expected[change.run, change.transaction_date, change.subsidiary, part.why] += part.amount
    of_report: dict[tuple, Decimal] = defaultdict(Decimal)
    for row in reported.to_dict("records"):
        key = row["run"], row["transaction_date"].date(), row["subsidiary"], row["why"]
        of_report[key] += row["of_which"]
    assert of_report == expected


def test_tables_fit_a_hundred_columns_and_end_in_the_same_sum(worked_example):
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    for table in tell.explanation(
        explain.days(worked_example, Window(day("2023-03-10"), day("2023-03-10")), LATER)
    ):
        console.print(table)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100
    of_day, of_restatements = (line for line in lines if "together" in line)
    assert "+0.00" in of_day and "-100.00" in of_restatements
    assert any("posted when d/purchase.csv arrived" in line for line in lines)


def test_many_numbers_that_never_changed_are_shown_too(tmp_path):
    from rich.console import Console

    lake = ModelLake()
    files = [
        f"{number}.csv: {event}"
        for number in range(41)
        for event in (
            f"purchase 03-10T08:00 {number} paid",
            f"item 03-10T08:00 {number} 1 {number}.00",
            f"info 03-10T08:00 {number} of-{number:02}",
        )
    ]
    lake.run(files_of("\n".join(files)))
    window = Window(day("2023-03-10"), day("2023-03-10"))
    numbers, *_ = tell.explanation(explain.days(lake.save(tmp_path), window, LATER))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(numbers)
    text = console.export_text()
    assert "of-40" in text and "of-01" in text and "of-00" not in text
    assert "The newest of 41 changes" in text


def test_csv_and_json_are_exact_and_a_question_needs_one_subject(worked_example):
    def told(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["explain", *arguments, "--lake", str(worked_example.lake)])
        if result.exception:
            raise result.exception
        return result.output

    as_csv = list(csv.DictReader(io.StringIO(told("2023-03-10", "--format", "csv"))))
    assert tuple(as_csv[0]) == tell.EXPLAIN_COLUMNS
    assert sum(Decimal(row["amount"]) for row in as_csv) == Decimal("0.00")
    assert [row["amount"] for row in json.loads(told("2023-03-25", "--format", "json"))] == [
        *("80.00", "-80.00", "80.00")
    ]
    assert told("--start-date", "2023-03-11", "--end-date", "2023-03-20").startswith("Nothing counts on")
    assert "+80.00" in told("--run", "run003")
    for wrong in ([], ["2023-03-10", "--run", "run001"], ["--start-date", "2023-03-10"], ["10.03.2023"]):
        with pytest.raises(UsageError):
            told(*wrong)
