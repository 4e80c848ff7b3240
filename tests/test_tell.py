"""What the command line says of a run that ended well, to the word."""

from __future__ import annotations

import datetime as dt

import pytest
from gmv import tell
from gmv.publication import Window
from gmv.run.record import Record
from gmv.settings import settings
from gmv.terminal import Rows


def books_are_closed(monkeypatch: pytest.MonkeyPatch, until: str) -> None:
    monkeypatch.setenv("GMV_CLOSED_UNTIL", until)
    settings.cache_clear()


def test_a_run_tells_each_days_result_what_waits_what_counts_twice_and_what_failed(tmp_path, monkeypatch):
    books_are_closed(monkeypatch, "2023-01-10")
    record = Record("r", "run", tmp_path, tmp_path, Window(None, None), dt.date(2023, 1, 13), {})
    record.steps = {
        "01_bronze": {
            "files": [
                {"outcome": "ingested", "reason": None},
                {"outcome": "waiting", "reason": "b.csv: it grew."},
            ]
        },
        "03_gold": {
            "days": {
                "2023-01-09": "published",
                "2023-01-10": "pending",
                "2023-01-11": "published",
                "2023-01-12": "in progress",
            },
            "changes": [
                {
                    "transaction_date": "2023-01-11",
                    "subsidiary": "nac",
                    "previous_gmv": None,
                    "gmv": "80.00",
                }
            ],
            "meanwhile": {"twice": "80.00", "nowhere": "1234.50"},
            "checks": [
                {"check": "recomputed", "passed": True, "accepted": None, "message": "agrees"},
                {"check": "refused_file", "passed": False, "accepted": True, "message": "c.csv: no header."},
                {"check": "ties", "passed": False, "accepted": True, "message": "one"},
                {"check": "ties", "passed": False, "accepted": False, "message": "two"},
            ],
        },
    }
    told = list(tell.run_ended(record, tmp_path))
    (numbers,) = [one for one in told if isinstance(one, Rows)]
    assert [str(row["gmv"]) for row in numbers.rows] == ["80.00"]
    assert [one for one in told if one is not numbers] == [
        "waiting  b.csv: it grew.",
        "    2 day(s) published    2023-01-09 … 2023-01-11",
        "    1 day(s) pending      2023-01-10",
        "    1 day(s) in progress  2023-01-12",
        "Books are closed up to 2023-01-10: 1 pending day(s) wait for a window that ends by then "
        "(gmv run --start-date 2023-01-10 --end-date 2023-01-10).",
        "Until the pending days are published, 80.00 of purchases that moved day count twice; "
        "that window puts that right.",
        "Until the pending days are published, 1,234.50 of purchases that moved day count nowhere; "
        "that window puts that right.",
        "accepted refused_file: c.csv: no header.",
        "warning  ties: two (and 1 more: gmv show ties)",
        f"Run:    {record.place}",
        f"Report: {record.place}/report.html",
    ]


@pytest.mark.parametrize(
    ("closed_until", "repairing"),
    [
        ("", "the next run without a window puts that right."),
        ("2023-01-09", "the next run without a window puts that right."),
        ("2023-01-10", "that window and the next run without a window put that right."),
        ("2023-01-12", "that window puts that right."),
    ],
)
def test_what_counts_twice_is_put_right_by_runs_that_publish_the_pending_days(
    monkeypatch, closed_until, repairing
):
    books_are_closed(monkeypatch, closed_until)
    days = {"2023-01-09": "published", "2023-01-10": "pending", "2023-01-12": "pending"}
    *waiting, twice = tell.until_published(days, {"twice": "80.00", "nowhere": "0.00"})
    assert twice.endswith(f", 80.00 of purchases that moved day count twice; {repairing}")
    assert bool(waiting) == repairing.startswith("that window")
