"""Lakes for tests of what reads them: rows in, Delta tables out, without Spark."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake
from gmv import tables
from gmv.lake.records import arrow_schema
from gmv.tables import Table


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def write(lake: Path, table: Table, rows: list[dict]) -> None:
    """Append rows to a table of the lake; columns that a row lacks are empty."""
    schema = arrow_schema(table)
    unknown = {name for row in rows for name in row} - set(schema.names)
    assert not unknown, f"{table.path} has no columns {unknown}"
    write_deltalake(
        lake / table.path,
        pa.Table.from_pylist(rows, schema=schema),
        mode="append",
    )


def garble(file: Path) -> None:
    """Harm a parquet file that can still be opened and its rows counted: the values of a column can't be read."""
    column = pq.read_metadata(file).row_group(0).column(0)
    begins, content = column.dictionary_page_offset or column.data_page_offset, bytearray(file.read_bytes())
    content[begins : begins + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(content)


def rows_of(names: str, *values: tuple) -> list[dict]:
    """Rows from a header of names and tuples of values."""
    return [dict(zip(names.split(), row, strict=True)) for row in values]


# --- The sample, as a run leaves it -----------------------------------------------------------------

_PURCHASES = """
    2023-02-03 00:00:00,2023-02-03,56,1223,3,2023-01-14,,619
    2023-02-03 07:00:00,2023-02-03,70,1196,1,2023-01-24,,860
    2023-02-03 08:00:00,2023-02-03,55,1654,58598,2023-02-03,,557
    2023-02-08 00:00:00,2023-02-08,56,1223,3,2023-01-14,2023-02-08,619
    2023-02-08 02:00:00,2023-02-08,29,1867,3,2023-01-14,,676
    2023-02-08 08:00:00,2023-02-08,78,1777,55753,2023-01-24,,912
    2023-02-13 00:00:00,2023-02-13,202,1166,23730,2023-01-14,,689
    2023-02-18 00:00:00,2023-02-18,202,1166,23730,2023-01-14,2023-02-18,689
    2023-02-18 08:00:00,2023-02-18,78,1777,55753,2023-01-24,2023-02-18,912
    2023-02-23 02:00:00,2023-02-23,29,1867,3,2023-01-14,2023-02-23,676
    2023-02-28 08:00:00,2023-02-28,55,1654,58598,2023-02-03,,557
"""
_ITEMS = """
    2023-02-03 00:00:00,2023-02-03,56,81426,10,55.45
    2023-02-03 07:00:00,2023-02-03,70,23238,10,2000.45
    2023-02-03 08:00:00,2023-02-03,55,23434,5,50.59
    2023-02-08 02:00:00,2023-02-08,29,26361,10,50.55
    2023-02-08 08:00:00,2023-02-08,78,38221,10,50.09
    2023-02-13 00:00:00,2023-02-13,202,19358,5,55.53
    2023-02-28 08:00:00,2023-02-28,55,23434,5,55.59
"""
_SUBSIDIARIES = """
    2023-02-03 01:00:00,2023-02-03,56,internacional
    2023-02-03 08:00:00,2023-02-03,70,internacional
    2023-02-03 09:00:00,2023-02-03,55,nacional
    2023-02-08 03:00:00,2023-02-08,29,internacional
    2023-02-08 09:00:00,2023-02-08,78,nacional
    2023-02-13 01:00:00,2023-02-13,202,nacional
    2023-02-28 09:00:00,2023-02-28,55,nacional
"""
_POSTINGS = rows_of(
    "purchase_id transaction_date subsidiary amount known_on",
    ("56", day("2023-02-08"), "internacional", Decimal("554.50"), day("2023-02-08")),
    ("78", day("2023-02-18"), "nacional", Decimal("500.90"), day("2023-02-18")),
    ("202", day("2023-02-18"), "nacional", Decimal("277.65"), day("2023-02-18")),
    ("29", day("2023-02-23"), "internacional", Decimal("505.50"), day("2023-02-23")),
)
_PUBLISHED = rows_of(
    "transaction_date subsidiary gmv",
    (day("2023-02-08"), "internacional", Decimal("554.50")),
    (day("2023-02-18"), "nacional", Decimal("778.55")),
    (day("2023-02-23"), "internacional", Decimal("505.50")),
)


def write_sample(lake: Path, run: str = "20230301T060000-0001") -> None:
    """The sample in all layers, as one run on 1 March 2023 leaves it."""
    started, ended = at("2023-03-01T06:00:00"), at("2023-03-01T06:00:42")
    counts: Counter[tuple] = Counter()
    for event, text in zip(tables.EVENT_TABLES, (_PURCHASES, _ITEMS, _SUBSIDIARIES), strict=True):
        records = [
            dict(zip(event.column_names, line.strip().split(","), strict=True))
            for line in text.split("\n")[1:-1]
        ]
        brought = {"file": f"{event.name}.csv", "sha256": "ab" * 32, "run": run}
        write(
            lake,
            event.bronze,
            [{**raw, **brought, "line": line, "ingested_at": started} for line, raw in enumerate(records, 2)],
        )
        taken_in = {"path": brought["file"], "table": event.name, "sha256": brought["sha256"], "run": run}
        ingested = {"records": len(records), "outcome": "ingested", "recorded_at": started}
        write(lake, tables.FILES, [taken_in | ingested])
        versions = [
            {column.name: _typed(column.type, raw[column.name]) for column in event.columns}
            for raw in records
        ]
        write(lake, event.versions, [{**version, **brought} for version in versions])
        latest = {version["purchase_id"]: version for version in versions}  # the sample is in order of time
        write(lake, event.latest, list(latest.values()))
        counts.update(("bronze", event.name, version["transaction_date"]) for version in versions)
        counts.update(("silver", event.name, version["transaction_date"]) for version in latest.values())
    posted = {"purchases": 1, "reason": "paid", "cause": "event", "ledger_seq": 1, "run": run}
    write(lake, tables.GMV_LEDGER, [{**row, **posted, "recorded_at": ended} for row in _POSTINGS])
    write(lake, tables.DAILY_GMV, _PUBLISHED)
    published = {"ledger_seq": 1, "run": run, "published_at": ended}
    write(lake, tables.DAILY_GMV_HISTORY, [{**row, **published} for row in _PUBLISHED])
    counts.update(("gold", "gmv_ledger", row["transaction_date"]) for row in _POSTINGS)
    counts.update(("gold", "daily_gmv", row["transaction_date"]) for row in _PUBLISHED)
    write(
        lake,
        tables.PARTITION_STATS,
        [
            {"run": run, "layer": layer, "table": table, "day": on, "records": records, "recorded_at": ended}
            for (layer, table, on), records in counts.items()
        ],
    )
    progress = {"bronze_run": run, "run": run, "recorded_at": ended}
    write(lake, tables.PROGRESS, [{"step": step, **progress} for step in ("silver", "ledger")])
    common = {"run": run, "kind": "run", "code_version": "0123abc", "as_of_date": day("2023-03-01")}
    write(
        lake,
        tables.RUNS,
        [
            {**common, "event": "started", "at": started},
            {**common, "event": "ended", "at": ended, "outcome": "succeeded"},
        ],
    )


def _typed(type_: str, text: str) -> object:
    if text == "":
        return None
    readers = {"timestamp_ntz": at, "date": day, "string": str, "int": int, "bigint": int}
    return readers.get(type_, Decimal)(text)
