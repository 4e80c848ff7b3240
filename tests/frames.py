"""Rows as Spark frames with the columns of a declared table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from gmv.tables import EVENT_TABLES, EventTable, Table
from model import Event
from pyspark.sql import DataFrame, SparkSession

BROUGHT_BY = {"file": "a.csv", "sha256": "aa", "run": "r1"}


def frame(spark: SparkSession, table: Table, rows: Iterable[Mapping[str, object]]) -> DataFrame:
    """Rows of a table; columns that a row lacks are empty.

    Raises:
        AssertionError: for a column that the table does not have.
    """
    names = table.column_names
    values = []
    for row in rows:
        assert set(row) <= set(names), f"{table.path} has no columns {set(row) - set(names)}"
        values.append(tuple(row.get(name) for name in names))
    return spark.createDataFrame(
        values, ", ".join(f"`{column.name}` {column.type}" for column in table.columns)
    )


def versions(spark: SparkSession, event: EventTable, events: Iterable[Event]) -> DataFrame:
    """The model's events of one table as rows of its versions table, in their order."""
    return frame(
        spark, event.versions, [asdict(one) | BROUGHT_BY for one in events if one.table == event.name]
    )


def all_versions(spark: SparkSession, events: Iterable[Event]) -> dict[str, DataFrame]:
    """The model's events as `gmv.ledger.standings` takes them: by event table name."""
    events = list(events)
    return {event.name: versions(spark, event, events) for event in EVENT_TABLES}
