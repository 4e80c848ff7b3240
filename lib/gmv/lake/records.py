"""Small tables that the pipeline keeps about itself, and the published days: written without Spark."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import ColumnProperties, CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import TableNotFoundError

from gmv.lake import faults, pruning
from gmv.tables import DAILY_GMV, HARDLY_REPEATED, LOOKED_UP, Table

_ARROW_TYPES = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp_ntz": pa.timestamp("us"),
    "decimal(18,2)": pa.decimal128(18, 2),
    "decimal(38,2)": pa.decimal128(38, 2),
    "array<string>": pa.list_(pa.string()),
    "map<string,string>": pa.map_(pa.string(), pa.string()),
}

ROW_GROUP_ROWS = 131_072
"""Each group of rows has its least and greatest id, by which look-ups skip it."""

KEPT_DAYS = 7
"""Files that no table uses any more are kept so long, for readers that still do."""

_AHEAD = "GMV_CLOCK_AHEAD"
"""Environment variable: seconds that are added to the clock's time."""

_SKIPPED_BY = ("purchase_id", "run", "transaction_date", "transaction_datetime", "subsidiary", "known_on")


def arrow_schema(table: Table) -> pa.Schema:
    """The table's columns as Arrow types."""
    return pa.schema([(column.name, _ARROW_TYPES[column.type]) for column in table.columns])


def packed(table: Table) -> list[str]:
    """The columns whose values are written as differences to the one before: numbers of which hardly two are equal."""
    packable = ("int", "bigint", "timestamp_ntz", "decimal(18,2)")
    return [one.name for one in table.columns if one.name in HARDLY_REPEATED and one.type in packable]


def parquet(table: Table) -> WriterProperties:
    """How delta-rs writes a table's files: to be read quickly where purchases are looked up, and small elsewhere."""
    columns = {name: ColumnProperties(dictionary_enabled=False) for name in HARDLY_REPEATED}
    if table not in LOOKED_UP:
        return WriterProperties(
            compression="ZSTD",
            compression_level=1,
            max_row_group_size=ROW_GROUP_ROWS,
            column_properties=columns,
        )
    differences = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
    return WriterProperties(
        compression="SNAPPY",
        max_row_group_size=ROW_GROUP_ROWS,
        column_properties=columns | dict.fromkeys(packed(table), differences),
    )


def now() -> dt.datetime:
    """The present moment in UTC, without a zone: as the tables hold it; never before what `follow` was given."""
    return _by_the_clock() + dt.timedelta(seconds=float(os.environ.get(_AHEAD, 0)))


def follow(newest: dt.datetime | None) -> dt.timedelta:
    """Let this process, and those that it starts, date what they note after all that a lake holds.

    The newest row is what counts, in many tables. After a run whose clock was ahead, nothing would be newer for as
    long as that was.

    Args:
        newest: the time of the lake's newest record; None where it has none.

    Returns:
        How far the clock is behind; zero when it is not.
    """
    os.environ.pop(_AHEAD, None)
    behind = max(newest - _by_the_clock(), dt.timedelta()) if newest else dt.timedelta()
    if behind:
        os.environ[_AHEAD] = str((behind + dt.timedelta(seconds=1)).total_seconds())
    return behind


def _by_the_clock() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def append(lake: Path, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a table in one commit; no commit for no rows.

    Args:
        rows: a value per column of the table; a missing one is empty.
    """
    schema = arrow_schema(table)
    columns = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)
    if columns.num_rows:
        append_columns(lake, table, columns)


def append_columns(
    lake: Path,
    table: Table,
    columns: pa.Table | pa.RecordBatchReader,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Append rows in one commit.

    Args:
        columns: those of the table; a reader may have more rows than fit in memory.
        metadata: kept with the commit as Delta's userMetadata.
    """
    with faults.commit(table.path):
        write_deltalake(
            str(lake / table.path),
            columns,
            mode="append",
            schema_mode="merge",  # a table that was made before a column was declared gets it
            configuration=properties(table),
            writer_properties=parquet(table),
            commit_properties=commit_properties(metadata),
        )


def replace_columns(lake: Path, table: Table, columns: pa.Table, predicate: str | None = None) -> None:
    """Replace the rows that a predicate names, or all, in one commit; the table is made if it is missing."""
    with faults.commit(table.path):
        write_deltalake(
            str(lake / table.path),
            columns,
            mode="overwrite",
            predicate=predicate,
            configuration=properties(table),
            writer_properties=parquet(table),
        )


def properties(table: Table) -> dict[str, str | None]:
    """A new table's properties: minima and maxima are kept of columns that files are skipped by.

    To find those of all columns takes a tenth of the time to write a large table.
    """
    return {"delta.dataSkippingStatsColumns": ",".join(skipped_by(table))}


def skipped_by(table: Table) -> list[str]:
    """The columns whose minima and maxima are kept of each file."""
    return [name for name in table.column_names if name in _SKIPPED_BY]


def replace_days(
    lake: Path, days: Iterable[dt.date], rows: Iterable[Mapping[str, Any]], metadata: Mapping[str, Any]
) -> None:
    """Publish: replace whole days of gold/daily_gmv in one commit.

    Args:
        days: every day to replace; one without rows loses those that it has.
        rows: the rows of daily_gmv on these days, and on no other.
        metadata: kept with the commit as Delta's userMetadata.
    """
    listed = ", ".join(f"'{day.isoformat()}'" for day in sorted(days))
    path = str(lake / DAILY_GMV.path)
    if not DeltaTable.is_deltatable(path):
        DeltaTable.create(path, arrow_schema(DAILY_GMV), configuration=properties(DAILY_GMV))
    elif (table := DeltaTable(path)).metadata().partition_columns:  # an older lake's, with a file per day
        replace_all_days(lake, table.to_pyarrow_table().to_pylist(), None)
    with faults.commit(DAILY_GMV.path):
        write_deltalake(
            path,
            _daily_gmv(rows),
            mode="overwrite",
            predicate=f"transaction_date in ({listed})",
            writer_properties=parquet(DAILY_GMV),
            commit_properties=commit_properties(metadata),
        )


def replace_all_days(
    lake: Path, rows: Iterable[Mapping[str, Any]], metadata: Mapping[str, Any] | None
) -> None:
    """Let these rows be all of gold/daily_gmv, in one commit, whatever it holds; made if it is missing."""
    with faults.commit(DAILY_GMV.path):
        write_deltalake(
            str(lake / DAILY_GMV.path),
            _daily_gmv(rows),
            mode="overwrite",
            schema_mode="overwrite",
            partition_by=[],
            configuration=properties(DAILY_GMV),
            writer_properties=parquet(DAILY_GMV),
            commit_properties=commit_properties(metadata),
        )


def _daily_gmv(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows], arrow_schema(DAILY_GMV))


def count(lake: Path, table: Table) -> int:
    """How many rows a table has, by its log; 0 while it does not exist."""
    try:
        files = pruning.described(DeltaTable(str(lake / table.path)))
    except TableNotFoundError:
        return 0
    return sum(file["num_records"] or 0 for file in files)


def commits(lake: Path, table: Table, since: int) -> dict[int, dict[str, Any]]:
    """What the log still has of the table's commits, by version, from one version on to the newest."""
    delta = DeltaTable(str(lake / table.path))
    # delta-rs numbers the commits right for the newest version alone, so they are asked of that.
    return {int(one["version"]): one for one in delta.history(delta.version() - since + 1)}


def last_marks(lake: Path, table: Table) -> dict[str, Any]:
    """The userMetadata of the newest commit that carries any; empty where there is none."""
    try:
        delta = DeltaTable(str(lake / table.path))
    except TableNotFoundError:
        return {}
    for newest in (20, None):  # it is among the last few, whatever maintenance did since
        for commit in delta.history(newest):
            if commit.get("userMetadata"):
                return json.loads(commit["userMetadata"])
    return {}


def commit_properties(metadata: Mapping[str, Any] | None) -> CommitProperties | None:
    """What delta-rs keeps with a commit, as Delta's userMetadata."""
    return CommitProperties(custom_metadata={"userMetadata": json.dumps(metadata)}) if metadata else None
