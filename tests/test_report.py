"""The report: its numbers, its figures, and the page that stakeholders open."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import json
import os
import re
import shutil
import subprocess
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import matplotlib.dates as mdates
import nbformat
import pandas as pd
import papermill
import pytest
import small_lake
from gmv import tables
from gmv.cli import app
from gmv.errors import GmvError
from gmv.finality import Finality
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.report import data, figures, headline, health, page, show
from gmv.run import runner
from gmv.settings import PROJECT
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from small_lake import at, day, rows_of
from typer.testing import CliRunner

HOSTILE = "<script>alert('$x^$')</script>"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("sample")
    small_lake.write_sample(lake)
    return lake


@pytest.fixture
def march(tmp_path: Path) -> Path:
    """Paid at 100.00 without subsidiary; then `nac` at 80.00; then moved to the 25th."""
    ten, twelve, twenty_five = day("2023-03-10"), day("2023-03-12"), day("2023-03-25")
    columns = "transaction_date subsidiary amount purchases known_on reason ledger_seq"
    postings = rows_of(
        columns,
        (ten, "unknown", Decimal("100.00"), 1, ten, "paid", 1),
        (ten, "unknown", Decimal("-100.00"), -1, twelve, "subsidiary_known", 2),
        (ten, "nac", Decimal("100.00"), 1, twelve, "subsidiary_known", 2),
        (ten, "nac", Decimal("-20.00"), 0, twelve, "repriced", 2),
        (ten, "nac", Decimal("-80.00"), -1, twenty_five, "moved_day", 3),
        (twenty_five, "nac", Decimal("80.00"), 1, twenty_five, "moved_day", 3),
    )
    small_lake.write(
        tmp_path, tables.GMV_LEDGER, [{"purchase_id": "1", "cause": "event", **row} for row in postings]
    )
    history = rows_of(
        "transaction_date subsidiary previous_gmv gmv ledger_seq run published_at",
        (ten, "unknown", None, Decimal("100.00"), 1, "r11", at("2023-03-11T06:00")),
        (ten, "unknown", Decimal("100.00"), None, 2, "r13", at("2023-03-13T06:00")),
        (ten, "nac", None, Decimal("80.00"), 2, "r13", at("2023-03-13T06:00")),
        (ten, "nac", Decimal("80.00"), None, 3, "r26", at("2023-03-26T06:00")),
        (twenty_five, "nac", None, Decimal("80.00"), 3, "r26", at("2023-03-26T06:00")),
    )
    small_lake.write(tmp_path, tables.DAILY_GMV_HISTORY, history)
    return tmp_path


def tuples(frame: pd.DataFrame, *columns: str) -> list[tuple]:
    """Rows as plain values, days as text, empty ones as None."""
    plain = frame[list(columns)] if columns else frame
    return [
        tuple(
            None if pd.isna(value) else f"{value:%Y-%m-%d}" if isinstance(value, pd.Timestamp) else value
            for value in row
        )
        for row in plain.itertuples(index=False)
    ]


def daily(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """A frame of daily GMV from day, subsidiary and amount as text."""
    frame = pd.DataFrame(rows, columns=["transaction_date", "subsidiary", "gmv"])
    frame["transaction_date"] = pd.to_datetime(frame["transaction_date"])
    frame["gmv"] = [Decimal(amount) for amount in frame["gmv"]]
    return frame


# --- Numbers ---------------------------------------------------------------------------------------


def test_daily_gmv_of_the_sample_is_exact(sample: Path) -> None:
    assert tuples(data.daily_gmv(Reader(sample))) == [
        ("2023-02-08", "internacional", Decimal("554.50")),
        ("2023-02-18", "nacional", Decimal("778.55")),
        ("2023-02-23", "internacional", Decimal("505.50")),
    ]


def test_a_window_includes_its_first_and_last_day_and_nothing_else(sample: Path) -> None:
    reader = Reader(sample)
    assert len(data.daily_gmv(reader, day("2023-02-08"), day("2023-02-18"))) == 2
    assert len(data.daily_gmv(reader, day("2023-02-09"), day("2023-02-17"))) == 0


def test_a_run_reports_only_what_it_changed(march: Path) -> None:
    assert tuples(data.published_changes(Reader(march), "r13")) == [
        ("2023-03-10", "nac", None, Decimal("80.00"), Decimal("80.00")),
        ("2023-03-10", "unknown", Decimal("100.00"), None, Decimal("-100.00")),
    ]
    assert data.published_changes(Reader(march), "r12").empty


def test_restatements_are_split_by_reason_largest_first(march: Path) -> None:
    columns = ("transaction_date", "subsidiary", "previous_gmv", "gmv", "difference", "why", "of_which")
    assert tuples(data.restatements(Reader(march), "r13"), *columns) == [
        (
            *("2023-03-10", "unknown", Decimal("100.00"), None, Decimal("-100.00")),
            *("Subsidiary became known: another one", Decimal("-100.00")),
        ),
        (
            *("2023-03-10", "nac", None, Decimal("80.00"), Decimal("80.00")),
            *("Subsidiary became known: this one", Decimal("100.00")),
        ),
        (
            *("2023-03-10", "nac", None, Decimal("80.00"), Decimal("80.00")),
            *("Price or quantity lowered", Decimal("-20.00")),
        ),
    ]


def test_a_first_publication_restates_nothing(march: Path) -> None:
    reader = Reader(march)
    assert data.restatements(reader, "r11").empty
    assert tuples(data.restatements(reader, "r26"), "transaction_date", "why") == [
        ("2023-03-10", "Moved to another day")
    ]


def test_restatements_of_all_runs_keep_to_the_window(march: Path) -> None:
    reader = Reader(march)
    assert set(data.restatements(reader)["run"]) == {"r13", "r26"}
    assert data.restatements(reader, start_date=day("2023-03-11")).empty


def test_restatements_since_a_moment_are_those_after_it(march: Path) -> None:
    reader = Reader(march)
    assert set(data.restatements(reader, since=at("2023-03-13T05:59:59"))["run"]) == {"r13", "r26"}
    assert set(data.restatements(reader, since=at("2023-03-13T06:00"))["run"]) == {"r26"}


def test_what_the_ledger_does_not_explain_is_said(march: Path) -> None:
    repaired = rows_of(
        "transaction_date subsidiary previous_gmv gmv ledger_seq run published_at",
        (day("2023-03-25"), "nac", Decimal("81.00"), Decimal("80.00"), 3, "r27", at("2023-03-27T06:00")),
    )
    small_lake.write(march, tables.DAILY_GMV_HISTORY, repaired)
    assert tuples(data.restatements(Reader(march), "r27"), "difference", "why", "of_which", "purchases") == [
        (
            *(Decimal("-1.00"), "Not explained by the ledger: the published number had been damaged"),
            *(Decimal("-1.00"), 0),
        )
    ]


def test_a_retraction_is_named_as_the_cause(march: Path) -> None:
    small_lake.write(
        march,
        tables.GMV_LEDGER,
        rows_of(
            "purchase_id transaction_date subsidiary amount purchases known_on reason cause ledger_seq",
            (
                "1",
                day("2023-03-25"),
                "nac",
                Decimal("-80.00"),
                -1,
                day("2023-03-25"),
                "paid",
                "retraction",
                4,
            ),
        ),
    )
    small_lake.write(
        march,
        tables.DAILY_GMV_HISTORY,
        rows_of(
            "transaction_date subsidiary previous_gmv gmv ledger_seq run published_at",
            (day("2023-03-25"), "nac", Decimal("80.00"), None, 4, "r28", at("2023-03-28T06:00")),
        ),
    )
    assert data.restatements(Reader(march), "r28")["why"].tolist() == [
        "Payment that no longer counts here, because a file was retracted"
    ]


def test_a_restatement_by_another_amount_is_told_as_that_whatever_it_corrects(march):
    place = {"purchase_id": "1", "transaction_date": day("2023-03-25"), "subsidiary": "nac"}
    corrected = {"amount": Decimal("-5.00"), "purchases": 0, "known_on": day("2023-03-25"), "ledger_seq": 4}
    small_lake.write(
        march, tables.GMV_LEDGER, [place | corrected | {"reason": "paid", "cause": "event", "run": "r28"}]
    )
    published = {"previous_gmv": Decimal("80.00"), "gmv": Decimal("75.00"), "ledger_seq": 4, "run": "r28"}
    del place["purchase_id"]
    small_lake.write(
        march, tables.DAILY_GMV_HISTORY, [place | published | {"published_at": at("2023-03-28T06:00")}]
    )
    assert data.restatements(Reader(march), "r28")["why"].tolist() == ["Price or quantity lowered"]


def test_the_newest_count_of_a_partition_is_shown(tmp_path: Path) -> None:
    columns = "run layer table day records recorded_at"
    counts = rows_of(
        columns,
        ("a", "gold", "daily_gmv", day("2023-02-08"), 1, at("2023-03-01T06:00")),
        ("b", "gold", "daily_gmv", day("2023-02-08"), 2, at("2023-03-02T06:00")),
        ("a", "bronze", "purchase", None, 3, at("2023-03-01T06:00")),
        ("a", "bronze", "purchase", day("2023-02-09"), 4000, at("2023-03-01T06:00")),
    )
    small_lake.write(tmp_path, tables.PARTITION_STATS, counts)
    frame = data.partition_rows(Reader(tmp_path))
    assert tuples(frame) == [
        ("bronze", "purchase", None, 3),
        ("bronze", "purchase", "2023-02-09", 4000),
        ("gold", "daily_gmv", "2023-02-08", 2),
    ]
    by_day = data.rows_by_day(frame)
    assert list(by_day.columns) == ["day", "bronze purchase", "gold daily_gmv"]
    assert tuples(by_day) == [("not readable", 3, None), ("2023-02-08", None, 2), ("2023-02-09", 4000, None)]
    assert "4,000" in repr(show.table(by_day, empty=""))
    assert tuples(data.newest_days(Reader(tmp_path)), "table", "newest_day") == [
        ("purchase", "2023-02-09"),
        ("daily_gmv", "2023-02-08"),
    ]


@pytest.mark.parametrize("far", ["9999-12-31", "0001-01-01", "1999-12-31", "2023-03-03"])
def test_a_record_of_a_far_day_neither_ends_the_report_nor_stretches_its_chart(
    tmp_path: Path, far: str
) -> None:
    counts = rows_of(
        "run layer table day records recorded_at",
        ("a", "bronze", "purchase", None, 3, at("2023-03-01T06:00")),
        ("a", "bronze", "purchase", day("2000-01-01"), 1, at("2023-03-01T06:00")),
        ("a", "bronze", "purchase", day("2023-03-02"), 4, at("2023-03-01T06:00")),
        ("a", "bronze", "purchase", day(far), 2, at("2023-03-01T06:00")),
        ("a", "bronze", "product_item", day(far), 0, at("2023-03-01T06:00")),
    )
    small_lake.write(tmp_path, tables.PARTITION_STATS, counts)
    reader = Reader(tmp_path)
    frame = data.partition_rows(reader, day("2023-03-01"), day("2023-03-02"))
    assert tuples(frame) == [("bronze", "purchase", None, 5), ("bronze", "purchase", "2023-03-02", 4)]
    assert figures.partition_rows(frame).alt.startswith("Bars of rows per day and table")
    assert len(data.partition_rows(reader)) == 3
    assert tuples(data.newest_days(reader), "table", "newest_day") == [("purchase", "2023-03-02")]


def test_headline_counts_new_changed_and_removed_numbers(march: Path, sample: Path) -> None:
    assert data.headline(Reader(sample), "20230301T060000-0001") == (
        "This run published numbers for 3 day(s): 3 new. Together they change GMV by +1,838.55. "
        "The newest day with published GMV is Thursday, 23 February 2023."
    )
    assert data.headline(Reader(sample), "another") == (
        "This run changed no published number. "
        "The newest day with published GMV is Thursday, 23 February 2023."
    )
    assert data.headline(Reader(march), "r13") == "No GMV has been published yet."
    rows = rows_of(
        "transaction_date subsidiary previous_gmv gmv run",
        (day("2023-03-10"), "int", Decimal("80.00"), Decimal("81.00"), "r27"),
        (day("2023-03-10"), "nac", Decimal("80.00"), Decimal("79.50"), "r27"),
        (day("2023-03-10"), "unknown", Decimal("5.00"), None, "r27"),
        (day("2023-03-25"), "int", None, Decimal("7.00"), "r27"),
    )
    small_lake.write(march, tables.DAILY_GMV_HISTORY, rows)
    newest = {"transaction_date": day("2023-03-25"), "subsidiary": "int", "gmv": Decimal("7.00")}
    small_lake.write(march, tables.DAILY_GMV, [newest])
    assert data.headline(Reader(march), "r27") == (
        "This run published numbers for 2 day(s): 1 new, 2 changed, 1 removed. Together they change GMV by +2.50. "
        "The newest day with published GMV is Saturday, 25 March 2023."
    )


def test_a_report_opened_by_itself_is_about_the_newest_publication(march: Path) -> None:
    reader = Reader(march)
    assert data.run_to_report(reader, "r13") == "r13"
    assert data.run_to_report(reader, "opened-in-jupyter") == "r26"
    small_lake.write(march, tables.RUNS, [{"run": "r27", "event": "started", "at": at("2023-03-27T06:00")}])
    assert data.run_to_report(Reader(march), "r27") == "r27", "a run on record, that published nothing"


def test_about_tells_window_today_and_code_version(sample: Path) -> None:
    reader = Reader(sample)
    about = data.about(reader, "20230301T060000-0001", day("2023-02-01"), None, day("2026-01-01"))
    assert tuples(about) == [
        ("Run", "20230301T060000-0001"),
        ("First day of this page", "2023-02-01"),
        ("Last day of this page", "the newest that was published"),
        ("Today, for the run", "2023-03-01"),
        ("Code version", "0123abc"),
    ]
    unknown = data.about(reader, "another", None, None, day("2026-01-01"))
    assert tuples(unknown)[3:] == [("Today, for the run", "2026-01-01"), ("Code version", "not recorded")]


def test_durations_are_told_by_run_and_step(tmp_path: Path) -> None:
    columns = "run kind event at outcome details"
    details = '{"seconds": {"01_bronze": 12.34, "02_silver": 5}}'
    events = rows_of(
        columns,
        ("r1", "run", "started", at("2023-03-01T06:00:00"), None, None),
        ("r1", "run", "ended", at("2023-03-01T06:01:30"), "succeeded", details),
        ("r2", "run", "started", at("2023-03-02T06:00:00"), None, None),
    )
    small_lake.write(tmp_path, tables.RUNS, events)
    durations = data.run_durations(Reader(tmp_path), newest=10)
    assert tuples(durations, "run", "outcome", "seconds", "01_bronze", "02_silver") == [
        ("r2", "not ended", None, None, None),
        ("r1", "succeeded", 90, 12.34, 5),
    ]
    assert data.run_durations(Reader(tmp_path), newest=1)["run"].tolist() == ["r2"]


def test_durations_are_those_of_runs_that_did_something_however_many_found_nothing_new(
    tmp_path: Path,
) -> None:
    columns = "run kind event at outcome details"
    ended = ("run", "ended", at("2023-03-01T06:01:30"), "succeeded", '{"seconds": {"01_bronze": 12.34}}')
    nothing = [
        ("run", "ended", at(f"2023-03-01T{hour:02}:00:00"), "nothing_new", "{}") for hour in range(7, 24)
    ]
    events = rows_of(columns, *((f"r{n}", *one) for n, one in enumerate([ended, *nothing])))
    small_lake.write(tmp_path, tables.RUNS, events)
    assert tuples(data.run_durations(Reader(tmp_path), newest=10), "run", "01_bronze") == [("r0", 12.34)]


def test_table_versions_lists_the_tables_that_exist(march: Path) -> None:
    assert tuples(data.table_versions(Reader(march))) == [
        ("gold", "gmv_ledger", 0),
        ("gold", "daily_gmv_history", 0),
    ]


def test_an_empty_lake_gives_empty_answers_not_errors(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    frames = [
        data.daily_gmv(reader),
        data.published_changes(reader, "r1"),
        data.restatements(reader),
        data.partition_rows(reader),
        data.rows_by_day(data.partition_rows(reader)),
        data.newest_days(reader),
        data.run_durations(reader, newest=10),
        data.table_versions(reader),
    ]
    assert [len(frame) for frame in frames] == [0] * len(frames)
    assert data.headline(reader, "r1") == "No GMV has been published yet."
    assert list(tmp_path.iterdir()) == []


# --- Tables and sentences ----------------------------------------------------------------------------


def test_amounts_have_separators_two_decimals_and_stand_right() -> None:
    frame = pd.DataFrame({"gmv": [Decimal("12345678901234567.8"), None], "purchases": [1200, 1]})
    html = show.table(frame, empty="")._repr_html_()
    assert '<th scope="col" class="number" style="text-align: right">GMV</th>' in html
    assert '<td class="number" style="text-align: right">12,345,678,901,234,567.80</td>' in html
    assert '<td class="number" style="text-align: right">—</td>' in html
    assert '<td class="number" style="text-align: right">1,200</td>' in html


def test_an_amount_that_is_empty_in_every_row_stands_right_too() -> None:
    frame = pd.DataFrame({"previous_gmv": [None], "subsidiary": ["nacional"]})
    html = show.table(frame, empty="")._repr_html_()
    assert '<td class="number" style="text-align: right">—</td><td>nacional</td>' in html


def test_differences_show_their_sign_and_amounts_do_not() -> None:
    frame = pd.DataFrame({"gmv": [Decimal("80")], "difference": [Decimal("80")]})
    assert repr(show.table(frame, empty="")).split() == ["GMV", "Change", "80.00", "+80.00"]


def test_days_and_times_are_told_apart() -> None:
    frame = pd.DataFrame({"day": [pd.Timestamp("2023-02-08")], "at": [pd.Timestamp("2023-03-01 06:00:42")]})
    assert repr(show.table(frame, empty="")).split()[-3:] == ["2023-02-08", "2023-03-01", "06:00:42"]


def test_a_table_without_rows_is_a_sentence() -> None:
    assert show.table(daily(), empty="Nothing <yet>.")._repr_html_() == "<p>Nothing &lt;yet&gt;.</p>"


def test_a_long_table_says_what_it_leaves_out() -> None:
    frame = pd.DataFrame({"records": range(2000)})
    table = show.table(frame, empty="", last=2)
    assert repr(table).split("\n") == ["Records", "  1,998", "  1,999", "The last 2 of 2,000 rows."]
    assert "rows." not in repr(show.table(frame, empty="", last=2000))


def test_hostile_names_are_text_in_tables() -> None:
    html = show.table(daily(("2023-02-08", HOSTILE, "1.00")), empty="")._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;alert(" in html


# --- Figures -----------------------------------------------------------------------------------------


def bars(figure: Figure) -> list[tuple[str, str, float]]:
    """Label, day and height of each bar that is not 0."""
    return [
        (
            group.get_label(),
            f"{pd.Timestamp(bar.get_x() + bar.get_width() / 2, unit='D'):%Y-%m-%d}",
            bar.get_height(),
        )
        for group in figure.axes[0].containers
        for bar in group
        if bar.get_height()
    ]


def test_bars_stand_on_their_days_and_gaps_stay_gaps() -> None:
    picture = figures.daily_gmv(
        daily(("2023-02-08", "a", "554.50"), ("2023-02-18", "b", "778.55"), ("2023-02-18", "a", "1.00"))
    )
    for figure in (picture.wide, picture.narrow):
        assert bars(figure) == [
            ("a", "2023-02-08", 554.5),
            ("a", "2023-02-18", 1.0),
            ("b", "2023-02-18", 778.55),
        ]
        first, last = figure.axes[0].get_xlim()
        assert 10 < last - first < 13
    assert picture.alt.endswith("the highest day is 18 Feb 2023 with 779.55.")


def test_the_axis_covers_the_window_not_only_days_with_gmv() -> None:
    picture = figures.daily_gmv(daily(("2023-02-08", "a", "1")), dt.date(2023, 2, 1), dt.date(2023, 2, 28))
    first, last = picture.wide.axes[0].get_xlim()
    assert 27 < last - first < 30


def test_a_window_without_an_end_leaves_days_to_be_seen() -> None:
    of_all_time = dt.date.min, dt.date.max
    gmv = figures.daily_gmv(daily(("2023-02-08", "a", "1")), *of_all_time)
    counted = pd.DataFrame(
        {"layer": "gold", "table": "daily_gmv", "day": [pd.Timestamp("2023-02-08")], "records": [1]}
    )
    for picture in (gmv, figures.partition_rows(counted, *of_all_time)):
        first, last = picture.wide.axes[0].get_xlim()
        assert 365 < last - first < 800


def test_average_needs_seven_days_and_counts_days_without_gmv_as_0() -> None:
    six_days = figures.daily_gmv(daily(("2023-02-01", "a", "7"), ("2023-02-06", "a", "7")))
    assert six_days.wide.axes[0].get_lines() == []
    seven_days = figures.daily_gmv(daily(("2023-02-01", "a", "7"), ("2023-02-07", "a", "7")))
    (line,) = seven_days.wide.axes[0].get_lines()
    assert [value for value in line.get_ydata() if not pd.isna(value)] == [2.0]


def test_the_average_ends_with_the_newest_day_that_has_gmv() -> None:
    picture = figures.daily_gmv(
        daily(("2023-02-01", "a", "7"), ("2023-02-07", "a", "7")), end_date=dt.date(2023, 2, 28)
    )
    (line,) = picture.wide.axes[0].get_lines()
    assert len(line.get_ydata()) == 7
    (shade,) = [patch for patch in picture.wide.axes[0].patches if patch.get_label() == "no GMV"]
    assert shade.get_width() == 5, "what comes after it is no gap"


def test_parts_are_stacked_and_the_newest_run_is_the_last() -> None:
    counted = pd.DataFrame(
        {
            "layer": "gold",
            "table": ["daily_gmv", "gmv_ledger"],
            "day": pd.Timestamp("2023-02-08"),
            "records": [2, 5],
        }
    )
    odd = {"gmv_ledger": [pd.Timestamp("2023-02-08")], "purchase": [pd.Timestamp("2023-02-09")]}
    picture = figures.partition_rows(counted, end_date=dt.date(2023, 2, 9), odd=odd)
    assert picture.alt.endswith("gold 7 rows. Marked as odd: 8 Feb 2023."), "what is marked, and nothing else"
    gold = picture.wide.axes[-1]
    (marks,) = gold.get_lines()
    assert len(marks.get_xdata()) == 1, "purchase has a panel of its own"
    drawn = [(bar.get_y(), bar.get_height()) for group in gold.containers for bar in group]
    assert drawn == [(0, 2), (2, 5)]
    took = pd.DataFrame(
        {"started_at": pd.to_datetime(["2023-03-02", "2023-03-01"]), "01_bronze": [1, 2], "02_silver": [4, 8]}
    )
    steps = figures.durations(took).wide.axes[0].containers
    drawn = [(bar.get_x(), bar.get_width()) for group in steps for bar in group]
    assert drawn == [(0, 2), (0, 1), (2, 8), (1, 4)]


def test_many_subsidiaries_are_drawn_together_and_none_is_lost() -> None:
    frame = daily(*[("2023-02-08", f"branch {number}", f"{number}.00") for number in range(1, 11)])
    drawn = bars(figures.daily_gmv(frame).wide)
    assert [label for label, _, _ in drawn] == [
        *("branch 10", "branch 6", "branch 7", "branch 8", "branch 9"),
        "5 smaller ones",
    ]
    assert sum(height for _, _, height in drawn) == 55


def test_a_year_is_drawn_as_steps_that_add_up() -> None:
    days = [day for number, day in enumerate(pd.date_range("2022-01-01", periods=365)) if number != 100]
    rows = [(f"{day:%Y-%m-%d}", name, "7.00") for day in days for name in ("a", "b")]
    axes = figures.daily_gmv(daily(*rows)).wide.axes[0]
    lower, upper = (patch.get_data() for patch in axes.patches if patch.get_label() in ("a", "b"))
    assert lower.values.sum() == 364 * 7 and upper.values.sum() == 364 * 14
    assert (lower.values == upper.baseline).all() and upper.values[100] == lower.values[100] == 0
    first, last = (mdates.num2date(edge) for edge in (lower.edges[0], lower.edges[-1]))
    assert (f"{first:%Y-%m-%d %H}", f"{last:%Y-%m-%d %H}") == ("2021-12-31 12", "2022-12-31 12")
    legend = [text.get_text() for text in axes.get_figure().legends[0].get_texts()]
    assert legend == ["a", "b", "7-day average", "no GMV"]


def test_the_highest_day_of_a_year_is_drawn_whole() -> None:
    days = pd.date_range("2022-01-01", periods=365)
    rows = [
        (f"{day:%Y-%m-%d}", name, "70.00" if day == days[200] else "7.00") for day in days for name in "ab"
    ]
    assert figures.daily_gmv(daily(*rows)).wide.axes[0].get_ylim()[1] >= 140


@pytest.mark.parametrize("days", [1, 3, 10, 16, 60, 120, 400, 700, 4000])
def test_dates_and_amounts_never_overlap(days: int) -> None:
    rows = [(f"{on:%Y-%m-%d}", "a", "1234567.89") for on in pd.date_range("2022-11-20", periods=days)]
    picture = figures.daily_gmv(daily(*rows))
    for figure in (picture.wide, picture.narrow):
        figure.draw_without_rendering()
        axes = figure.axes[0]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels(), axes.texts):
            boxes = [label.get_window_extent() for label in labels if label.get_text()]
            assert not any(one.overlaps(other) for one, other in pairwise(boxes))
        assert len(axes.get_xticklabels()) >= min(days, 2)
        assert all(re.fullmatch(r"[\d,.]+", label.get_text()) for label in axes.get_yticklabels())


@pytest.mark.parametrize(
    ("amount", "top", "label"),
    [
        ("0.00", "1", "GMV per day"),
        ("0.03", "0.04", "GMV per day"),
        ("9000000.00", "10,000,000", "GMV per day"),
        ("12345678901.00", "15,000", "GMV per day, in millions"),
    ],
)
def test_amounts_are_labelled_in_plain_units(amount: str, top: str, label: str) -> None:
    axes = figures.daily_gmv(daily(("2023-02-08", "a", amount))).wide.axes[0]
    assert axes.get_ylabel() == label
    assert axes.get_yticklabels()[-1].get_text() == top


def test_hostile_names_are_drawn_as_text() -> None:
    picture = figures.daily_gmv(daily(("2023-02-08", HOSTILE, "1"), ("2023-02-08", "_x", "1")))
    picture.wide.draw_without_rendering()  # mathematical text between the dollars would not parse
    (legend,) = picture.wide.legends
    assert [text.get_text() for text in legend.get_texts()] == ["<script>alert('$x^$')</script>", "_x"]


@pytest.mark.parametrize("name", ["MARKETPLACE HOLDING NO. {}", "Comércio Internacional {} Ltda.", "{:W>40}"])
def test_long_names_stay_apart_inside_of_the_picture_and_leave_the_bars_their_room(name: str) -> None:
    rows = [("2023-02-08", name.format(number), "1.00") for number in range(6)]
    picture = figures.daily_gmv(daily(*rows))
    for figure in (picture.wide, picture.narrow):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert legend.get_window_extent().x1 <= figure.bbox.x1
        assert figure.axes[0].get_window_extent().height > 2.5 * figure.dpi
        assert len({text.get_text() for text in legend.get_texts()}) == 6


def test_row_counts_have_a_panel_for_each_layer(sample: Path) -> None:
    picture = figures.partition_rows(data.partition_rows(Reader(sample)))
    assert [axes.get_title(loc="left") for axes in picture.wide.axes] == [
        "Bronze: records as they arrived",
        "Silver: latest version per purchase",
        "Gold: published numbers, and ledger",
    ]
    heights = [
        sum(bar.get_height() for group in axes.containers for bar in group) for axes in picture.wide.axes
    ]
    assert heights == [25, 18, 7]


def test_records_without_a_readable_date_are_named_in_their_panel() -> None:
    frame = pd.DataFrame(
        {
            "layer": ["bronze", "bronze"],
            "table": ["purchase", "purchase"],
            "day": pd.to_datetime(["2023-02-08", None]),
            "records": [4, 1500],
        }
    )
    titles = [axes.get_title(loc="left") for axes in figures.partition_rows(frame).wide.axes]
    assert titles[0].endswith("and 1,500 without a sensible date")
    assert "sensible" not in titles[1]


def test_an_empty_lake_has_figures_that_say_so(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert figures.daily_gmv(data.daily_gmv(reader)).alt == "No GMV has been published for these days."
    assert (
        figures.partition_rows(data.partition_rows(reader)).alt == "No rows have been counted for these days."
    )


def test_a_picture_is_a_png_with_words_and_a_narrow_one() -> None:
    bundle, metadata = figures.daily_gmv(daily(("2023-02-08", "a", "554.50")))._repr_mimebundle_()
    for png in (bundle["image/png"], metadata["image/png"]["narrow"]):
        assert base64.b64decode(png).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == (
        "Bars of GMV per day by subsidiary, 8 Feb 2023. The total is 554.50 on 1 day(s) with GMV, "
        "the highest day is 8 Feb 2023 with 554.50."
    )


# --- The page ----------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]


def report_of(lake: Path, folder: Path, **parameters: str) -> str:
    """The page that the report's notebook gives for a lake."""
    papermill.execute_notebook(
        PROJECT / "notebooks" / "04_report.ipynb",
        folder / "04_report.ipynb",
        parameters={"lake": str(lake), "runs_dir": str(folder), "as_of_date": "2023-03-01", **parameters},
        kernel_name="python3",
        progress_bar=False,
    )
    page.render(folder / "04_report.ipynb", folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_sample_gives_one_file_that_needs_nothing_else(sample: Path, tmp_path: Path) -> None:
    html = report_of(sample, tmp_path, run_id="20230301T060000-0001")
    elements = Elements(html)
    assert not elements.all("script") and not elements.all("link") and not elements.all("iframe")
    addresses = [
        value
        for _, attributes in elements.found
        for name, value in attributes.items()
        if name in ("src", "srcset", "href", "action", "data") and value
    ]
    assert addresses and all(re.match("data:image/png|#", address) for address in addresses)
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    assert len(elements.all("img")) == 3
    assert all(len(image["alt"] or "") > 40 for image in elements.all("img"))
    assert elements.all("th") and all(header["scope"] == "col" for header in elements.all("th"))
    assert "554.50" in html and "778.55" in html and "505.50" in html
    assert "Nothing was restated" in html
    assert "notebook.start" not in html and "In [" not in html


def test_all_text_is_dark_enough_on_white() -> None:
    """By the rule of WCAG AA: a contrast of 4.5."""
    css = (Path(page.__file__).parent / "template" / "page.css").read_text()
    of_the_page = re.findall(r"(?<![-\w])color: *(#\w+)", css)
    of_figures = [value for name, value in figures._STYLE.items() if re.search("text|label|tick", name)]
    colours = [colour for colour in [*of_the_page, *of_figures] if str(colour).startswith("#")]
    assert len(of_the_page) > 3 and len(colours) > len(of_the_page)
    for colour in colours:
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)
        ]
        light = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert 1.05 / (light + 0.05) >= 4.5, colour


def test_hostile_names_are_text_on_the_page(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    row = {"transaction_date": day("2023-02-08"), "subsidiary": HOSTILE, "gmv": Decimal("1.00")}
    small_lake.write(lake, tables.DAILY_GMV, [row])
    published = {"ledger_seq": 1, "run": "r1", "published_at": at("2023-03-01T06:00")}
    small_lake.write(lake, tables.DAILY_GMV_HISTORY, [{**row, **published}])
    html = report_of(lake, tmp_path, run_id="r1")
    assert not Elements(html).all("script")
    assert "&lt;script&gt;alert(" in html


def test_an_empty_lake_has_a_page_that_says_so(tmp_path: Path) -> None:
    html = report_of(tmp_path / "lake", tmp_path)
    assert "No GMV has been published yet." in html
    assert "The lake has no tables yet." in html


def notebook_with(folder: Path, *outputs: nbformat.NotebookNode) -> Path:
    path = folder / "notebook.ipynb"
    cells = [new_markdown_cell("# A heading"), new_code_cell("secret_code()", outputs=list(outputs))]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_page_has_outputs_and_text_but_no_code_and_no_warnings(tmp_path: Path) -> None:
    path = notebook_with(
        tmp_path,
        new_output("stream", name="stdout", text="<b>printed</b>"),
        new_output("stream", name="stderr", text="a warning"),
        new_output("execute_result", data={"text/plain": "<i>42</i>"}, execution_count=1),
        new_output(
            "display_data",
            data={"image/png": "aGVsbG8="},
            metadata={"image/png": {"alt": f'"{HOSTILE}'}},
        ),
    )
    page.render(path, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "A heading" in html and "&lt;b&gt;printed" in html and "&lt;i&gt;42" in html
    assert "secret_code" not in html and "a warning" not in html
    assert not Elements(html).all("script")
    assert Elements(html).all("img")[0]["alt"] == f'"{HOSTILE}'


def test_a_failed_notebook_gives_no_page_and_keeps_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("the last one")
    failed = new_output("error", ename="ValueError", evalue="no such day", traceback=[])
    with pytest.raises(GmvError, match="a cell failed with ValueError: no such day"):
        page.render(notebook_with(tmp_path, failed), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "the last one"


def test_a_notebook_that_was_not_run_gives_no_page(tmp_path: Path) -> None:
    with pytest.raises(GmvError, match="has no outputs"):
        page.render(notebook_with(tmp_path), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# --- The headline, and the rest of the page --------------------------------------------------------------


def final_of(*days: str) -> list[Finality]:
    return [Finality(day(on), "provisional", Decimal("1.00"), None, None, None, "Thin.") for on in days]


def test_the_headline_is_the_newest_day_beside_the_day_before_its_weekday_and_the_month() -> None:
    weekdays = [("2023-03-03", "80"), ("2023-03-10", "100"), ("2023-03-17", "120"), ("2023-03-24", "110.01")]
    frame = daily(
        ("2023-02-28", "nac", "1000.00"),
        ("2023-03-01", "nac", "0.99"),
        *((on, "nac", amount) for on, amount in weekdays),
        ("2023-03-30", "nac", "90.00"),
        ("2023-03-31", "nac", "70.00"),
        ("2023-03-31", "int", "50.51"),
    )
    final = [
        *final_of("2023-03-30", "2023-03-31"),
        dataclasses.replace(*final_of("2023-04-01"), state="in progress"),
    ]
    final[0] = dataclasses.replace(final[0], state="settled")
    found = headline.headline(frame, frame.head(0), final, day("2023-04-01"))
    assert found and (found.title, found.gmv) == ("GMV of Friday, 31 March 2023", Decimal("120.51"))
    assert [(fact.value, fact.note) for fact in found.facts] == [
        ("+30.51", "+33.9 %"),
        ("+15.51", "+14.8 % of 105.00, the median of 4 Fridays"),
        ("621.51", "7 days with GMV"),
        ("provisional", "Thin."),
    ]
    assert found.in_words == (
        "Up 30.51 against the day before, most of all in int (+50.51). "
        "Since the last report, no earlier day has been restated."
    )


def test_each_fact_of_the_headline_is_a_paragraph_also_where_the_page_has_no_styles() -> None:
    """In Jupyter, a list of terms is torn apart: its terms float left of their values."""
    facts = [headline.Fact("May so far", "1.00", "2 days"), headline.Fact("Is it final?", "settled", "Old.")]
    html = show.Top(headline.Headline("GMV", Decimal(1), facts, "Up."))._repr_html_()
    paragraphs = re.findall(r"<p\b[^>]*>(.*?)</p>", html)
    told = [re.sub(r"<[^>]+>", "", paragraph) for paragraph in paragraphs]
    assert told == ["GMV", "1.00", "May so far 1.00 2 days", "Is it final? settled Old.", "Up."]


@pytest.mark.parametrize(
    ("moves", "told"),
    [
        ({"a": 60, "b": 30, "c": -40}, "Up 50.00 against the day before, most of all in a (+60.00)."),
        ({"a": -60, "b": 30, "c": -4}, "Down 34.00 against the day before, most of all in a (-60.00)."),
        (
            {"a": 30, "b": 25, "c": -50},
            "Up 5.00 against the day before, most of all in a (+30.00); the other way went c (-50.00).",
        ),
        (
            {"a": -30, "b": -25, "c": 50},
            "Down 5.00 against the day before, most of all in a (-30.00); the other way went c (+50.00).",
        ),
        ({"a": 30, "c": -30}, "Unchanged in all against the day before, most of all in c (-30.00)."),
        ({"a": 10, "b": 0}, "Up 10.00 against the day before, most of all in a (+10.00)."),
        ({"a": 0}, "No subsidiary has another number than the day before."),
    ],
)
def test_the_headline_names_first_what_moved_as_the_whole_did(moves: dict[str, int], told: str) -> None:
    frame = daily(
        *(("2023-03-30", name, "100.00") for name in moves),
        *(("2023-03-31", name, f"{100 + move}.00") for name, move in moves.items()),
    )
    found = headline.headline(frame, frame.head(0), final_of("2023-03-31"), day("2023-04-01"))
    assert found and found.in_words.startswith(told)


def test_the_headline_says_how_old_it_is_and_what_it_can_not_be_compared_with() -> None:
    frame = daily(("2023-03-29", "nac", "10.00"))
    found = headline.headline(frame, frame.head(0), final_of("2023-03-29"), day("2023-04-01"))
    assert found and found.title == "GMV of Wednesday, 29 March 2023: 2 days older than yesterday"
    assert [fact.value for fact in found.facts] == ["—", "—", "10.00", "provisional"]
    assert [fact.note for fact in found.facts][:2] == [
        "Tuesday, 28 March 2023 has no GMV",
        "only 0 of the 8 Wednesdays before have GMV",
    ]
    found = headline.headline(frame, frame.head(0), final_of("2023-03-29"), day("2023-03-31"))
    assert found and found.title == "GMV of Wednesday, 29 March 2023: 1 day older than yesterday"


@pytest.mark.parametrize(("state", "rest"), [("provisional", "; see below"), ("settled", "")])
def test_the_headline_says_between_what_its_number_still_changes(state: str, rest: str) -> None:
    final = [Finality(day("2023-03-31"), state, Decimal(10), None, Decimal("-0.50"), Decimal("0.25"), "")]
    frame = daily(("2023-03-31", "nac", "10.00"))
    found = headline.headline(frame, frame.head(0), final, day("2023-04-01"))
    assert found and found.facts[-1].value == state
    assert found.facts[-1].note == f"9 in 10 such days still change by -0.50 to +0.25{rest}"


def test_the_headline_of_a_day_after_none_or_after_nothing_compares_with_no_share() -> None:
    rows = [("2023-03-31", "a", "4.00"), ("2023-03-31", "b", "6.00"), ("2023-03-31", "c", "5.00")]
    final, today = final_of("2023-03-31"), day("2023-04-01")
    alone = headline.headline(daily(*rows), daily(), final, today)
    assert alone and alone.in_words.startswith("The largest part of it is b, with 6.00.")
    after = headline.headline(daily(("2023-03-30", "a", "0.00"), *rows), daily(), final, today)
    assert after and (after.facts[0].value, after.facts[0].note) == ("+15.00", "from nothing")


def test_what_moved_between_places_is_no_part_of_why_the_whole_was_restated() -> None:
    why = ["Moved to another", "Moved here from another"]
    parts = [
        (f"{one} {place}", by)
        for place in ("day", "subsidiary")
        for one, by in zip(why, (-50, 50), strict=True)
    ]
    parts += [("Subsidiary became known: another one", -70), ("Subsidiary became known: this one", 70)]
    parts += [("Price or quantity lowered", -3), ("Moved to another day, because a file was retracted", -4)]
    restated = pd.DataFrame(
        [(pd.Timestamp(f"2023-03-0{1 + number % 2}"), *part) for number, part in enumerate(parts)],
        columns=["transaction_date", "why", "of_which"],
    )
    restated["of_which"] = restated["of_which"].map(Decimal)
    assert headline.restated_in_words(restated) == (
        "Since the last report, 2 earlier days were restated, by -7.00 in all; "
        "the largest part is -4.00: moved between days, because a file was retracted."
    )


def test_the_headline_says_what_was_restated_and_mostly_why(march: Path) -> None:
    restated = data.restatements(Reader(march), since=at("2023-03-12T00:00"))
    assert headline.restated_in_words(restated) == (
        "Since the last report, 1 earlier day was restated, by -100.00 in all; "
        "the largest part is -80.00: moved between days."
    )
    assert tuples(data.restated_days(restated), "difference", "why", "of_which")[0] == (
        *(Decimal("-100.00"), "Subsidiary became known: another one", Decimal("-100.00")),
    )
    assert sum(data.restated_days(restated)["of_which"]) == Decimal("-100.00")


def test_days_are_marked_in_the_chart_and_named_in_words() -> None:
    rows = [(f"{on:%Y-%m-%d}", "a", "10.00") for on in pd.date_range("2023-03-01", periods=10)]
    outside = pd.Timestamp("2023-03-11")
    marks = figures.Marks(restated=[pd.Timestamp("2023-03-02"), outside], odd=[pd.Timestamp("2023-03-04")])
    picture = figures.daily_gmv(daily(*rows[:5], *rows[7:]), marks=marks)
    (legend,) = picture.wide.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("a", "7-day average", "restated", "check it", "no GMV"),
    ]
    _, restated, odd = picture.wide.axes[0].get_lines()
    assert len(restated.get_xdata()) == len(odd.get_xdata()) == 1, "none beside the axis"
    assert {label.xyann[1] for label in picture.wide.axes[0].texts} == {17}, (
        "above two marks of 7 points each"
    )
    assert picture.alt.endswith("Marked as restated: 2 Mar 2023. Marked as odd: 4 Mar 2023.")
    twelve = [f"{on:%Y-%m-%d}" for on in pd.date_range("2023-03-01", periods=12)]
    marks = figures.Marks(pending=[pd.Timestamp(on) for on in twelve])
    picture = figures.daily_gmv(daily(*((on, "a", "10.00") for on in twelve)), marks=marks)
    assert "pending" in [text.get_text() for text in picture.wide.legends[0].get_texts()]
    assert picture.alt.endswith(
        "Marked as pending: " + ", ".join(f"{n} Mar 2023" for n in range(1, 11)) + " and 2 more."
    )


def test_anomalies_of_a_window_are_those_of_its_first_to_its_last_day(tmp_path: Path) -> None:
    odd = {"run": "r", "check": "day_drop", "severity": "warn", "passed": False, "message": "m"}
    days_ = [f"2023-03-{number:02}" for number in range(1, 6)]
    small_lake.write(tmp_path, tables.CHECK_RESULTS, [{**odd, "subject": one} for one in days_])
    shown = health.anomalies(Reader(tmp_path), day(days_[1]), day(days_[3]))
    assert shown["day"].dt.day.tolist() == [4, 3, 2]


def test_the_usual_weekday_is_of_the_eight_weeks_before() -> None:
    weeks = [str(day("2023-03-31") - dt.timedelta(weeks=number)) for number in range(1, 10)]
    amounts = ["100", "100", "100", "100", "1", "1", "1", "1", "1"]  # the ninth is not looked at
    frame = daily(
        ("2023-03-31", "nac", "100.00"), *((on, "nac", one) for on, one in zip(weeks, amounts, strict=True))
    )
    found = headline.headline(frame, frame.head(0), final_of("2023-03-31"), day("2023-04-01"))
    assert found and found.facts[1].value == "+49.50"


def test_days_are_counted_by_how_final_they_are() -> None:
    states = {"2023-03-01": "settled", "2023-03-02": "settled", "2023-03-03": "provisional"}
    states |= {"2023-03-04": "pending", "2023-03-05": "in progress"}
    final = [Finality(day(on), state, Decimal(1), None, None, None, "") for on, state in states.items()]
    assert health.finality_in_words(final) == (
        "Of 5 day(s), 2 settled, 1 provisional, 1 pending, 1 in progress. "
        "The newest settled day is Thursday, 2 March 2023."
    )


def test_what_calls_for_attention_is_what_is_late_or_broken(sample: Path, tmp_path: Path) -> None:
    """What status lists besides, such as a quarantined record, is told elsewhere on the page."""
    lake = tmp_path / "lake"
    shutil.copytree(sample, lake)
    small_lake.write(lake, tables.QUARANTINE, [{"reasons": ["field_count"], "file": "a.csv", "line": 2}])
    assert health.broken(Reader(lake), day("2023-02-24")).empty
    failed = {"run": "r2", "kind": "run", "event": "ended", "outcome": "failed", "message": "out of memory."}
    small_lake.write(lake, tables.RUNS, [{**failed, "at": at("2023-03-02T06:00")}])
    found = health.broken(Reader(lake), day("2023-02-27"))
    assert found["attention"][0] == "Run r2 failed. out of memory."
    assert found["what_to_do"].str.contains("gmv run goes on|ask for them").tolist() == [True, True]
    assert found["attention"][1].startswith("Late: 2023-02-23 is the newest published day")


def test_freshness_says_what_is_newest_what_was_expected_and_how_late_it_is(sample: Path) -> None:
    reader = Reader(sample)
    assert tuples(health.freshness(reader, day("2023-02-27"))) == [
        ("Published day", "2023-02-23", "2023-02-25", "2 days"),
        ("Event of purchase", "2023-02-28 08:00", "", ""),
        ("Event of product_item", "2023-02-28 08:00", "", ""),
        ("Event of purchase_extra_info", "2023-02-28 09:00", "", ""),
        ("File in landing (UTC)", "none", "", ""),
    ]
    late = [health.freshness(reader, day(f"2023-02-{on}"))["late"][0] for on in (24, 25, 26)]
    assert late == ["no", "no", "1 day"]


def test_before_the_first_publication_nothing_is_late(tmp_path: Path) -> None:
    found = health.freshness(Reader(tmp_path), day("2023-03-01"))
    assert tuples(found)[0] == ("Published day", "none", "2023-02-27", "")


def test_days_that_are_not_settled_are_listed_newest_first() -> None:
    states = {1: "settled", 2: "provisional", 3: "pending", 4: "in progress"}
    low, high = Decimal("-0.50"), Decimal("0.25")
    final = [Finality(day(f"2023-03-0{on}"), states[on], Decimal(on), None, low, high, "") for on in states]
    assert tuples(health.not_final(final), "day", "state", "gmv", "change_from", "change_to") == [
        ("2023-03-04", "in progress", Decimal(4), low, high),
        ("2023-03-03", "pending", Decimal(3), low, high),
        ("2023-03-02", "provisional", Decimal(2), low, high),
    ]
    assert tuples(health.finality_frame(final), "state")[-1] == ("settled",)


def test_odd_days_are_told_by_the_table_that_they_are_about(tmp_path: Path) -> None:
    odd = {"run": "r", "check": "weekday_records", "severity": "warn", "passed": False, "message": "m"}
    subjects = ["2023-03-01 purchase", "2023-03-02 purchase", "2023-03-02 product_item", "2023-03-03"]
    small_lake.write(tmp_path, tables.CHECK_RESULTS, [{**odd, "subject": one} for one in subjects])
    assert health.odd_tables(health.anomalies(Reader(tmp_path))) == {
        "": [pd.Timestamp("2023-03-03")],
        "product_item": [pd.Timestamp("2023-03-02")],
        "purchase": [pd.Timestamp("2023-03-02"), pd.Timestamp("2023-03-01")],
    }


def test_open_points_have_the_money_concerned(tmp_path: Path) -> None:
    small_lake.write(
        tmp_path,
        tables.DAILY_GMV,
        rows_of(
            "transaction_date subsidiary gmv",
            (day("2023-03-01"), "unknown", Decimal("5.00")),
            (day("2023-03-01"), "nac", Decimal("7.00")),
        ),
    )
    final = [Finality(day("2023-03-01"), "pending", Decimal("12.00"), Decimal("9.00"), None, None, "")]
    final += [Finality(day("2023-03-02"), "settled", Decimal("2.00"), None, None, None, "")]
    paid = {"purchase_id": "paid", "release_date": day("2023-03-01")}
    small_lake.write(tmp_path, tables.PURCHASE.latest, [paid])
    orphans = [{"purchase_id": one} for one in ("1", "2")]
    small_lake.write(tmp_path, tables.PRODUCT_ITEM.latest, orphans)
    assert tuples(health.open_points(Reader(tmp_path), final), "what", "count", "amount") == [
        ("Pending days", 1, Decimal("-3.00")),
        ("Days with unknown subsidiary", 1, Decimal("5.00")),
        ("Awaiting item", 1, None),
        ("Orphans", 2, None),
    ]


def test_each_check_is_told_as_it_was_made_last_and_what_blocks_first(tmp_path: Path) -> None:
    columns = "run check severity passed subject recorded_at"
    small_lake.write(
        tmp_path,
        tables.CHECK_RESULTS,
        rows_of(
            columns,
            ("r1", "ties", "warn", True, "all", at("2023-03-01T06:00")),
            ("r1", "orphans", "warn", False, "lake", at("2023-03-01T06:00")),
            ("r2", "ties", "warn", False, "lake", at("2023-03-02T06:00")),
            ("r2", "orphans", "warn", True, "all", at("2023-03-02T06:00")),
            ("r2", "refused_file", "block", False, "c.csv", at("2023-03-02T06:00")),
            ("r2", "refused_file", "block", False, "b.csv", at("2023-03-02T06:00")),
        ),
    )
    reader = Reader(tmp_path)
    assert tuples(health.failed_checks(reader), "check", "subject") == [
        ("refused_file", "b.csv"),
        ("refused_file", "c.csv"),
        ("ties", "lake"),
    ]
    assert health.checks_in_words(reader) == "Of 3 checks, 2 found something when they were last made."
    passed = [
        ("r3", check, "warn", True, "all", at("2023-03-03T06:00")) for check in ("ties", "refused_file")
    ]
    small_lake.write(tmp_path, tables.CHECK_RESULTS, rows_of(columns, *passed))
    assert health.checks_in_words(Reader(tmp_path)) == "All 3 checks passed when they were last made."
    assert health.failed_checks(Reader(tmp_path)).empty


def test_the_last_report_is_that_of_the_run_before(tmp_path: Path) -> None:
    for run, on, outcome in (
        ("r1", 1, "succeeded"),
        ("r2", 2, "failed"),
        ("r3", 3, "succeeded"),
        ("r4", 4, "succeeded"),
    ):
        row = {"run": run, "kind": "run", "event": "ended", "outcome": outcome}
        small_lake.write(tmp_path, tables.RUNS, [{**row, "at": at(f"2023-03-0{on}T06:00")}])
    cared_for = {"run": "m", "kind": "maintain", "event": "ended", "outcome": "succeeded"}
    small_lake.write(tmp_path, tables.RUNS, [{**cared_for, "at": at("2023-03-02T07:00")}])
    assert data.last_report(Reader(tmp_path), "r3") == at("2023-03-01T06:00")
    assert data.last_report(Reader(tmp_path), "not known yet") == at("2023-03-04T06:00")
    assert data.last_report(Reader(tmp_path), "r1") is None


def test_a_day_that_lost_its_rows_is_not_how_far_a_table_reaches(tmp_path: Path) -> None:
    counts = rows_of(
        "run layer table day records recorded_at",
        ("a", "gold", "daily_gmv", day("2023-02-08"), 1, at("2023-03-01T06:00")),
        ("a", "gold", "daily_gmv", day("2023-02-09"), 0, at("2023-03-01T06:00")),
    )
    small_lake.write(tmp_path, tables.PARTITION_STATS, counts)
    assert tuples(data.newest_days(Reader(tmp_path)), "newest_day") == [("2023-02-08",)]


def test_the_day_that_changed_most_comes_first_though_it_fell() -> None:
    restated = pd.DataFrame(
        [(pd.Timestamp("2023-03-01"), "a", Decimal(5), 1), (pd.Timestamp("2023-03-02"), "b", Decimal(-9), 1)],
        columns=["transaction_date", "why", "of_which", "purchases"],
    )
    assert data.restated_days(restated)["difference"].tolist() == [Decimal(-9), Decimal(5)]


def test_a_pending_day_that_comes_to_nothing_takes_all_of_its_money_away(tmp_path: Path) -> None:
    final = [Finality(day("2023-03-01"), "pending", Decimal("12.00"), Decimal("0.00"), None, None, "")]
    final += [Finality(day("2023-03-02"), "settled", Decimal("2.00"), None, None, None, "")]
    points = tuples(health.open_points(Reader(tmp_path), final), "what", "count", "amount")
    assert points[0] == ("Pending days", 1, Decimal("-12.00"))
    assert health.pending_days(final) == [pd.Timestamp("2023-03-01")]


def test_quarantine_is_told_by_rule_with_an_example(tmp_path: Path) -> None:
    columns = "reasons file line values raw"
    rejected = rows_of(
        columns,
        (["purchase_value: not exact"], "b.csv", 2, [("purchase_value", "1.005")], None),
        (["purchase_value: not exact"], "a.csv", 9, [("purchase_value", None)], None),
        (
            ["purchase_value: not exact"],
            "a.csv",
            7,
            [("purchase_id", "1"), ("purchase_value", HOSTILE)],
            None,
        ),
        (["field_count", "encoding"], "a.csv", 8, None, "x" * 90),
    )
    small_lake.write(tmp_path, tables.QUARANTINE, rejected)
    assert tuples(health.quarantine(Reader(tmp_path))) == [
        ("purchase_value: not exact", 3, 2, "a.csv, line 7", repr(HOSTILE)),
        ("encoding", 1, 1, "a.csv, line 8", "x" * 80),
        ("field_count", 1, 1, "a.csv, line 8", "x" * 80),
    ]


def test_the_newest_certificate_is_told_beside_the_lake_as_it_is(march: Path, tmp_path: Path) -> None:
    reader = Reader(march)
    assert health.certificate(reader, tmp_path).in_words.startswith("No certificate")
    compared = {"what": "Ledger", "rows": 6, "different": 0, "cents_apart": 0}
    told = {"agrees": True, "versions": {"gold/gmv_ledger": 0}, "comparisons": [compared]}
    for folder in ("verify-r1", "r2"):
        (tmp_path / "runs" / folder).mkdir(parents=True)
    kept = tmp_path / "runs" / "verify-r1" / "certificate.json"
    kept.write_text(json.dumps(told))
    of_a_run = tmp_path / "runs" / "r2" / "certificate.json"  # of what that run changed, and newer
    its_own = {"scope": "what 1 bronze run changed", "comparisons": [{**compared, "rows": 2}]}
    of_a_run.write_text(json.dumps({**told, **its_own}))
    os.utime(of_a_run, (2e9, 2e9))
    said = health.certificate(reader, tmp_path / "runs").in_words
    assert "6 rows" in said and "in verify-r1. The tables are still those that were compared." in said
    kept.write_text(json.dumps({**told, "agrees": False, "versions": {"gold/gmv_ledger": 7}}))
    said = health.certificate(reader, tmp_path / "runs").in_words
    assert said.startswith("NOT CERTIFIED") and "1 of the compared tables have changed" in said
    kept.unlink()
    said = health.certificate(reader, tmp_path / "runs").in_words
    assert (
        "2 rows" in said
        and "This certificate covers what 1 bronze run changed; the command gmv verify" in said
    )
    published_since = {**told["versions"], "gold/daily_gmv": 7, "gold/daily_gmv_history": 7}
    of_a_run.write_text(json.dumps({**told, **its_own, "versions": published_since}))
    said = health.certificate(reader, tmp_path / "runs").in_words
    assert "The tables are still those that were compared." in said
    of_a_run.write_text(json.dumps({**told, **its_own, "comparisons": [{**compared, "rows": 0}]}))
    said = health.certificate(reader, tmp_path / "runs").in_words
    assert said.startswith("The newest run changed nothing that could be compared; the command gmv verify")


def test_numbers_on_the_page_and_beside_it_are_those_of_gmv_show(sample: Path, tmp_path: Path) -> None:
    html = report_of(sample, tmp_path, run_id="20230301T060000-0001")
    page.write_numbers(Reader(sample), Window(), tmp_path / "daily_gmv.csv")
    told = CliRunner().invoke(app, ["show", "daily_gmv", "--format", "csv", "--lake", str(sample)])
    assert (tmp_path / "daily_gmv.csv").read_text() == told.output
    table = next(part for part in html.split("<details>") if "The numbers of this chart" in part)
    on_page = re.findall(r"<tr><td>([\d-]+)</td><td>(\w+)</td><td[^>]*>([\d,.]+)</td></tr>", table)
    shown = [line.split(",") for line in told.output.splitlines()[1:]]
    assert [(on, name, amount.replace(",", "")) for on, name, amount in on_page] == [
        tuple(row) for row in shown
    ]


def test_of_numbers_that_can_not_be_written_whole_none_are_there(sample, tmp_path, monkeypatch):
    def cut_short(file: Path, content: str | bytes, **_: object) -> None:
        with file.open("wb") as written:
            written.write((content.encode() if isinstance(content, str) else content)[:40])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", cut_short)
    monkeypatch.setattr(Path, "write_bytes", cut_short)
    with pytest.raises(OSError, match="No space left"):
        page.write_numbers(Reader(sample), Window(), tmp_path / "daily_gmv.csv")
    assert not (tmp_path / "daily_gmv.csv").exists()


def test_numbers_beside_a_page_are_those_it_shows_though_a_run_publishes_meanwhile(
    tmp_path, monkeypatch
) -> None:
    small_lake.write_sample(tmp_path / "lake")
    later = {"transaction_date": day("2023-02-24"), "subsidiary": "nacional", "gmv": Decimal("1.00")}
    render = page.render

    def publish_before(*arguments: Path) -> None:
        small_lake.write(tmp_path / "lake", tables.DAILY_GMV, [later])
        render(*arguments)

    monkeypatch.setattr(page, "render", publish_before)
    request = runner.Request(tmp_path / "lake", tmp_path, tmp_path / "runs", as_of_date=day("2023-03-01"))
    html = runner.make_report(request, lambda _: contextlib.nullcontext())
    assert "2023-02-23" in html.read_text() and "2023-02-24" not in html.read_text()
    assert (html.parent / "daily_gmv.csv").read_text().splitlines()[-1] == "2023-02-23,internacional,505.50"
    assert not [*html.parent.glob("*.json")]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: the page's layout is not looked at")
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_width_and_is_printed_whole_by_a_browser_that_reaches_nobody(
    sample, tmp_path, width
) -> None:
    """A page that is wider than its window would scroll sideways."""
    html = report_of(sample, tmp_path, run_id="20230301T060000-0001")
    root = "document.documentElement"
    wide, shown = measured(html, tmp_path, width, f"{root}.scrollWidth", f"{root}.clientWidth")
    assert wide <= shown and shown > width - 30
    assert printed_pages(tmp_path / "report.html", width) <= 6


def printed_pages(page: Path, width: int) -> int:
    """How many pages a browser prints whose window has this width."""
    printed = page.with_suffix(".pdf")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    subprocess.run(
        [
            *(str(CHROMIUM), *options, f"--window-size={width},900", f"--print-to-pdf={printed}"),
            *(f"--user-data-dir={page.parent / 'browser'}", f"file://{page}"),
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    return len(re.findall(rb"/Type /Page\b", printed.read_bytes()))


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: the page's layout is not looked at")
@pytest.mark.parametrize("width", [1280, 400])
def test_large_amounts_and_long_names_stay_in_their_place_in_the_headline(tmp_path, width) -> None:
    huge = Decimal("1000000003518366.40")
    facts = [headline.Fact("Against the day before", f"{huge:+,.2f}", "a" * 120)] * 4
    top = show.Top(headline.Headline("GMV", huge, facts, "a" * 120))._repr_html_()
    css = (Path(page.__file__).parent / "template" / "page.css").read_text()
    html = f"<head><style>{css}</style></head><body><main>{top}</main></body>"
    over = "[...document.querySelectorAll('.top *')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert measured(html, tmp_path, width, over, "1") == (0, 1)
    assert ">1,<wbr>000,<wbr>000,<wbr>003,<wbr>518,<wbr>366.40</p>" in top  # broken there, if at all


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: the page's layout is not looked at")
def test_what_is_broken_and_what_to_do_is_seen_on_a_phone_without_scrolling(sample, tmp_path) -> None:
    late = show.table(health.broken(Reader(sample), day("2023-03-01")), empty="")._repr_html_()
    css = (Path(page.__file__).parent / "template" / "page.css").read_text()
    html = f"<head><style>{css}</style></head><body><main>{late}</main></body>"
    table = "document.querySelector('.table')"
    wide, shown = measured(html, tmp_path, 360, f"{table}.scrollWidth", f"{table}.clientWidth")
    assert wide <= shown


def measured(html: str, folder: Path, width: int, *expressions: str) -> tuple[int, ...]:
    """What a probe in a copy of the page finds in a window of this width."""
    numbers = " + ' ' + ".join(expressions)
    probe = f"<script>addEventListener('load', () => document.title = 'found ' + {numbers})</script></body>"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    framed = html.replace(policy, f"{policy}; script-src 'unsafe-inline'").replace("</body>", probe)
    (folder / "inner.html").write_text(framed)
    frame = f'<iframe src="inner.html" style="width: {width}px; height: 900px; border: 0"></iframe>'
    wait = "<script>addEventListener('load', () => document.title = frames[0].document.title)</script>"
    (folder / "outer.html").write_text(f"<html><body>{frame}{wait}</body></html>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
    shown = subprocess.run(
        [
            *(str(CHROMIUM), *options, "--allow-file-access-from-files", "--window-size=1400,1000"),
            *(f"--user-data-dir={folder / 'browser'}", f"file://{folder / 'outer.html'}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r"<title>found ([\d ]+)</title>", shown.stdout)
    assert found, shown.stdout[:500] + shown.stderr[-500:]
    return tuple(map(int, found[1].split()))
