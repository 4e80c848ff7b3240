"""`gmv show`: tables for people have the last rows, csv has all of them."""

import csv
import io
import json
from decimal import Decimal

import pytest
from gmv import show
from gmv.cli import app
from gmv.errors import UsageError
from gmv.lake.reader import Reader
from gmv.tables import DAILY_GMV, GMV_LEDGER, PURCHASE_EXTRA_INFO, QUARANTINE, RUNS, WAITING
from small_lake import at, day, rows_of, write
from typer.testing import CliRunner

MANY = show.MOST_DRAWN + 5
AMOUNTS = [Decimal(number) for number in range(1, MANY + 1)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """As many subsidiaries as amounts on one day, and as many purchases without more than their extra information."""
    place = tmp_path_factory.mktemp("lake")
    numbers = [(day("2023-02-08"), f"s{amount:05}", amount) for amount in AMOUNTS]
    write(place, DAILY_GMV, rows_of("transaction_date subsidiary gmv", *numbers))
    infos = [(f"{amount}", day("2023-02-08")) for amount in AMOUNTS]
    write(place, PURCHASE_EXTRA_INFO.latest, rows_of("purchase_id transaction_date", *infos))
    return place


def shown(lake, *arguments, columns=100):
    env = {"COLUMNS": str(columns)}
    told = CliRunner().invoke(app, ["show", *arguments, "--lake", str(lake)], env=env)
    assert told.exit_code == 0, told.output
    return told.stdout


@pytest.mark.parametrize("text", ["2023-02-08", "20230208", "2023-02-08T24:00", "2023-02-08T10:00Z", "noon"])
def test_a_time_of_record_is_written_with_its_hour(lake, text):
    """A day alone would be its first moment, and --known-on means the end of one."""
    told = CliRunner().invoke(app, ["show", "daily_gmv", "--recorded-by", text, "--lake", str(lake)])
    assert isinstance(told.exception, UsageError), told.output
    assert f"--recorded-by: '{text}' is no UTC time; write it as YYYY-MM-DDTHH:MM." in str(told.exception)


def test_a_drawn_table_has_the_last_rows_and_says_where_all_are(lake):
    told = shown(lake, "daily_gmv")
    assert told.count("2023-02-08") == show.MOST_DRAWN
    assert "s00005" not in told and "s00006" in told and "1,005.00" in told
    assert f"The last 1,000 of {MANY:,} rows; --format csv has all." in told


def test_a_drawn_list_has_the_first_rows_which_matter_most(lake):
    told = shown(lake, "orphans")
    assert told.count("\n│") == show.MOST_DRAWN
    assert "│ 1 " in told and "│ 999 " not in told
    assert f"The first 1,000 of {MANY:,} rows; --format csv has all." in told


def test_a_table_that_is_drawn_whole_says_nothing(lake):
    assert "rows" not in shown(lake, "daily_gmv", "--start-date", "2023-03-01")


def test_what_a_row_is_stands_below_the_table(lake):
    assert "\nOne row is one day and subsidiary on which at least one purchase counts:" in shown(
        lake, "daily_gmv"
    )
    assert '\nOne row is one exception to "every paid purchase has an item".' in shown(lake, "awaiting_item")


@pytest.mark.parametrize(
    ("asked", "title", "is_published"),
    [
        ([], "gold/daily_gmv", True),
        (
            ["--recorded-by", "2023-03-01T06:00"],
            "gold/daily_gmv, as published by 2023-03-01 06:00:00 UTC",
            True,
        ),
        (["--known-on", "2023-02-20"], "gold/daily_gmv, as known on 2023-02-20", False),
        (
            ["--known-on", "2023-02-20", "--recorded-by", "2023-03-01T06:00"],
            "gold/daily_gmv, as known on 2023-02-20 by 2023-03-01 06:00:00 UTC",
            False,
        ),
    ],
)
def test_numbers_as_known_on_a_day_are_not_called_published(tmp_path, asked, title, is_published):
    write(tmp_path, DAILY_GMV, [])
    told = shown(tmp_path, "daily_gmv", *asked, columns=200)
    assert " ".join(told.partition("┏")[0].split()) == title
    assert ("the published number" in told) == is_published


def test_where_columns_would_be_too_narrow_values_stand_below_each_other(tmp_path):
    posting = (day("2023-02-08"), "internacional", Decimal("554.50"), "20230401T060000-1a2b")
    write(tmp_path, GMV_LEDGER, rows_of("transaction_date subsidiary amount run", posting))
    narrow, wide = (shown(tmp_path, "gmv_ledger", columns=columns) for columns in (80, 200))
    assert (
        "│ amount           │ 554.50 " in narrow and "│ run              │ 20230401T060000-1a2b │" in narrow
    )
    assert max(map(len, narrow.splitlines())) <= 80
    assert "┃ subsidiary    ┃" in wide and "20230401T060000-1a2b" in wide
    assert "transaction_date" in shown(tmp_path, "daily_gmv_history", columns=200), (
        "an empty one has its columns"
    )


def test_the_last_rows_are_those_of_the_end_with_what_is_empty(tmp_path):
    ids = [("1",), (None,), ("2",)]
    write(tmp_path, WAITING, rows_of("purchase_id", *ids))
    last = show.selection(WAITING).last(Reader(tmp_path), 2)
    assert [row["purchase_id"] for row in last] == ["2", None]
    assert [row["purchase_id"] for row in show.rows(Reader(tmp_path), WAITING)] == ["1", "2", None]


def test_what_happened_in_runs_stands_in_order_of_time(tmp_path):
    moments = [("r1", "started", 1), ("r1", "ended", 3), ("r2", "started", 3), ("r1", "accepted", 2)]
    happened = rows_of("run event at", *((run, event, at(f"2023-03-0{on}")) for run, event, on in moments))
    write(tmp_path, RUNS, happened)
    in_order = ["r1 started", "r1 accepted", "r1 ended", "r2 started"]
    assert [f"{row['run']} {row['event']}" for row in show.rows(Reader(tmp_path), RUNS)] == in_order
    last = show.selection(RUNS).last(Reader(tmp_path), 3)
    assert [f"{row['run']} {row['event']}" for row in last] == in_order[1:]


def test_below_records_in_quarantine_stands_each_rule_with_an_example(
    tmp_path,
):
    columns = "table reasons values line file"
    amount = [("item_quantity", "-1"), ("purchase_value", "1.005")]
    several = ["item_quantity: negative", "purchase_value: more than 2 decimals"]
    many = [
        ("product_item", several[1:], amount, line, "product_item-b.csv")
        for line in range(3, show.MOST_DRAWN + 5)
    ]
    rare = ("product_item", several, amount, 2, "product_item-a.csv")
    write(tmp_path, QUARANTINE, rows_of(columns, rare, *many))
    records, _, rules = shown(tmp_path, "quarantine", columns=200).partition("by rule")
    assert several[0] not in records
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in rules.splitlines() if "│" in line]
    assert cells == [
        [several[1], "1003", "2", "product_item-a.csv, line 2", "'1.005'"],
        [several[0], "1", "1", "product_item-a.csv, line 2", "'-1'"],
    ]
    assert shown(tmp_path, "quarantine", "--format", "csv").count("\n") == 1 + 1 + len(many), "records alone"


def test_an_empty_quarantine_has_no_rules(tmp_path):
    assert "by rule" not in shown(tmp_path, "quarantine")


def test_an_end_of_line_in_a_value_is_no_new_row_of_csv():
    values = ["a\rb", "a\nb", "a\r\nb", "\r\n", " "]
    text = show.as_csv(["subsidiary"], [{"subsidiary": value} for value in values])
    assert [row["subsidiary"] for row in csv.DictReader(io.StringIO(text, newline=""))] == values
    assert text.startswith("subsidiary\n") and text.endswith("\n \n")


def test_csv_and_json_have_all_rows_of_tables_and_lists(lake):
    read = list(csv.DictReader(io.StringIO(shown(lake, "daily_gmv", "--format", "csv"))))
    assert [Decimal(row["gmv"]) for row in read] == AMOUNTS
    assert [
        Decimal(row["gmv"]) for row in json.loads(shown(lake, "daily_gmv", "--format", "json"))
    ] == AMOUNTS
    assert shown(lake, "orphans", "--format", "csv").count("\n") == 1 + MANY


def test_rows_are_read_some_at_a_time(lake, monkeypatch):
    monkeypatch.setattr("gmv.lake.reader._ROWS_IN_BATCH", 400)
    batches = list(show.selection(DAILY_GMV).batches(Reader(lake)))
    assert max(map(len, batches)) < MANY
    assert [row["gmv"] for batch in batches for row in batch] == AMOUNTS


def test_a_list_takes_no_dates(lake):
    told = CliRunner().invoke(app, ["show", "orphans", "--start-date", "2023-02-08", "--lake", str(lake)])
    assert isinstance(told.exception, UsageError)
    assert str(told.exception) == "orphans is a list of what is so now; it takes no dates."


def test_help_names_each_format_whole_where_a_terminal_has_80_columns(monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    told = CliRunner().invoke(app, ["plan", "--help"]).output
    assert "table, csv, spreadsheet or json." in " ".join(told.replace("│", " ").split())
