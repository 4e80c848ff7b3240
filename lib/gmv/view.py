"""What the notebooks show after each step: small pandas frames of a few rows, never a whole table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import pyarrow.dataset as ds
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gmv.bronze import WAITING, Arrivals
from gmv.lake.reader import BROUGHT, Reader
from gmv.lake.unfinished import Unfinished
from gmv.landing import LandingFile
from gmv.publication import Plan, Window
from gmv.tables import EventTable
from gmv.verify import Certificate

MOST_ROWS = 20

pd.options.display.max_colwidth = 150
"""Messages of checks are shown whole."""


def files(found: Sequence[LandingFile]) -> pd.DataFrame:
    """The files to read: path, table, size in bytes."""
    return _frame([{"path": file.path, "table": file.table, "bytes": file.size} for file in found])


def outcomes(arrivals: Arrivals) -> pd.DataFrame:
    """What became of each file; those that wait for the next run come last."""
    rows = [
        {name: row.get(name) for name in ("path", "records", "outcome", "reason")}
        for row in arrivals.outcomes
    ]
    waiting = [{"path": text, "outcome": WAITING} for text in arrivals.waiting]
    return _frame([*rows, *waiting]).fillna("")


def first(records: Mapping[EventTable, ds.Dataset]) -> pd.DataFrame:
    """The first two records of each table, by line; columns that a table lacks are empty."""
    rows = [
        {"table": event.name, **row}
        for event, staged in records.items()
        for row in staged.head(2, columns=["file", "line", *event.column_names]).to_pylist()
    ]
    return _frame(rows).fillna("")


def unfinished(of: Unfinished) -> pd.DataFrame:
    """What a step has still to take in: how many bronze runs, their records, and files retracted or put back."""
    counts = {
        "bronze runs": len(of.runs),
        "first": of.runs[0] if of.runs else "",
        "last": of.runs[-1] if of.runs else "",
        "records": of.records,
        "files retracted or put back": len(of.changed_files),
    }
    return _frame([counts])


def plan(of: Plan) -> pd.DataFrame:
    """What becomes of the days that a run looks at: how many, the first and the last."""
    groups = {
        "publish": of.publish,
        "recompute": of.recompute,
        "stay pending": of.pending,
        "in progress": of.in_progress,
    }
    return _frame(
        [
            {"what": name, "days": len(days), "first": min(days, default=""), "last": max(days, default="")}
            for name, days in groups.items()
        ]
    )


def example_purchases(reader: Reader, unfinished: Unfinished) -> list[str]:
    """Up to three purchases that these bronze runs touched: those with the most versions in these runs."""
    rows = reader.of_runs(unfinished.runs).rows(
        f"select purchase_id from ({BROUGHT}) group by purchase_id order by count(*) desc, purchase_id limit 3",
        runs=list(unfinished.runs),
    )
    return [row["purchase_id"] for row in rows]


def lives(frame: DataFrame, purchases: Sequence[str]) -> pd.DataFrame:
    """The rows of a few purchases, in the order of their lives."""
    rows = frame.where(F.col("purchase_id").isin(list(purchases))).limit(MOST_ROWS).toPandas()
    return rows.sort_values(["purchase_id", "known_on"]).reset_index(drop=True)


def table(rows: Iterable[Mapping]) -> pd.DataFrame:
    """Rows as they are."""
    return _frame(list(rows))


def days(counts: Iterable[Mapping]) -> pd.DataFrame:
    """Days whose number of records changed, newest first."""
    rows = sorted(counts, key=lambda row: (row["day"] or dt.date.min, row["table"]), reverse=True)
    return _frame([{name: row[name] for name in ("table", "day", "records")} for row in rows])


def certificate(of: Certificate) -> pd.DataFrame:
    """What was compared: rows, how many differ, and cents apart where amounts are compared."""
    return _frame(
        [
            {
                "name": one.name,
                "rows": one.rows,
                "different": one.different,
                "cents_apart": "" if one.cents_apart is None else str(one.cents_apart),
            }
            for one in of.comparisons
        ]
    )


def changes(history: Iterable[Mapping]) -> pd.DataFrame:
    """Published numbers that changed: day, subsidiary, from, to."""
    return _frame(
        [
            {name: row[name] for name in ("transaction_date", "subsidiary", "previous_gmv", "gmv")}
            for row in history
        ]
    )


def results(of_days: Mapping[str, str]) -> pd.DataFrame:
    """How many days had which result, and the first and last of them."""
    frame = pd.DataFrame({"day": list(of_days), "result": list(of_days.values())})
    return frame.groupby("result").agg(days=("day", "count"), first=("day", "min"), last=("day", "max"))


def daily_gmv(reader: Reader, window: Window) -> pd.DataFrame:
    """The published numbers of the window, or the newest ones."""
    frame = reader.frame(
        "select transaction_date, subsidiary, gmv from gold.daily_gmv "
        "where transaction_date between coalesce($start, date '0001-01-01') and coalesce($end, date '9999-12-31') "
        "order by transaction_date desc, subsidiary limit $most",
        start=window.start_date,
        end=window.end_date,
        most=MOST_ROWS,
    )
    return frame.sort_values(["transaction_date", "subsidiary"]).reset_index(drop=True)


def _frame(rows: Sequence[Mapping]) -> pd.DataFrame:
    return pd.DataFrame(list(rows[:MOST_ROWS]))
