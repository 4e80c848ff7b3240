"""Lakes for tests of what reads them: rows in, Delta tables out, without Spark."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from gmv.tables import Table

_ARROW_TYPES = {
    "string": pa.string(),
    "bigint": pa.int64(),
    "int": pa.int32(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp_ntz": pa.timestamp("us"),
    "array<string>": pa.list_(pa.string()),
    "map<string,string>": pa.map_(pa.string(), pa.string()),
}


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def write(lake: Path, table: Table, rows: list[dict]) -> None:
    """Append rows to a table of the lake; columns that a row lacks are empty."""
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in table.columns])
    unknown = {name for row in rows for name in row} - set(schema.names)
    assert not unknown, f"{table.path} has no columns {unknown}"
    write_deltalake(
        lake / table.path,
        pa.Table.from_pylist(rows, schema=schema),
        mode="append",
        partition_by=list(table.partition_by) or None,
    )


def rows_of(names: str, *values: tuple) -> list[dict]:
    """Rows from a header of names and tuples of values."""
    return [dict(zip(names.split(), row, strict=True)) for row in values]


def _arrow_type(name: str) -> pa.DataType:
    decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", name)
    return pa.decimal128(int(decimal[1]), int(decimal[2])) if decimal else _ARROW_TYPES[name]
