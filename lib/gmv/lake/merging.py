"""Bringing a table with one row per purchase to the latest rows of some purchases, file by file.

Delta's MERGE writes all files that it changes anew as one, in the order of its join: a late event of an old
purchase then draws the old file into that of the newest purchases, until each run writes the whole table. Here a
file's rows stay in their file and place, a file without a change stays as it is, and what is new is a small file.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from gmv.lake import faults, lookups, pruning, records
from gmv.lake.reader import Reader, data_files
from gmv.tables import HARDLY_REPEATED, EventTable, Table

BRONZE_RUNS = "bronze_runs"
_KEPT_MILLISECONDS = records.KEPT_DAYS * 24 * 3600 * 1000
KEEPS_ROWS = ("OPTIMIZE", "VACUUM START", "VACUUM END")
"""What Delta calls commits of maintenance."""


def merge_latest(
    lake: Path, table: Table, latest: pa.Table, touched: Sequence[str], bronze_runs: Sequence[str] = ()
) -> None:
    """Bring a table to the latest rows of the touched purchases, in one commit; none where they are there already.

    Args:
        latest: the table's columns, at most one row per touched purchase.
        touched: the ids that were looked at; those that `latest` lacks leave the table.
        bronze_runs: those that brought a version of each touched purchase; kept with the commit, so that it can be
            told later which purchases it may have changed.
    """
    place = lake / table.path
    delta = DeltaTable(str(place))
    latest, ids = latest.combine_chunks(), pa.array(touched, pa.string())
    is_new = np.ones(latest.num_rows, bool)
    before = [latest.slice(0, 0)]
    actions: list[AddAction | RemoveAction] = []
    for path in pruning.may_hold_any(delta, "purchase_id", touched):
        parts = _parts(place / path, latest, ids)
        for part in parts:
            is_new[part.positions] = False
            before.append(part.before)
        if any(part.is_changed for part in parts):
            actions.append(RemoveAction(path, True, _now(), partition_values={}))
            actions += _written(place, table, (part.merged(latest) for part in parts))
    lookups.keep(str(place), touched, data_files(delta), pa.concat_tables(before))
    actions += _written(place, table, [latest.filter(is_new).sort_by("purchase_id")])
    if actions:
        with faults.commit(table.path):
            delta.create_write_transaction(
                actions,
                "append",
                delta.schema(),
                commit_properties=records.commit_properties({BRONZE_RUNS: list(bronze_runs)}),
            )


@dataclass(frozen=True)
class Since:
    """What became of a table since one of its versions.

    Attributes:
        version: the newest one that has the rows of that version still; None: there is no table.
        bronze_runs: those whose purchases have been merged since; no other row differs.
    """

    version: int | None
    bronze_runs: frozenset[str]


def since(reader: Reader, table: Table, version: int | None) -> Since | None:
    """What has been merged into a table from one of its versions to that of a reader, by its log.

    Args:
        version: None: the table did not exist then.

    Returns:
        None where that can't be told: the table was written in another way, its log is not kept any more, or files of
        that version may be removed already.
    """
    until = reader.version(table)
    if version is None and until is None:
        return Since(None, frozenset())
    if version is None or until is None or until < version:
        return None
    told = records.commits(reader.lake, table, version)
    commits = [told[one] for one in range(until, version, -1) if one in told]
    if len(commits) != until - version:
        return None
    runs: set[str] = set()
    for commit in reversed(commits):
        if commit["operation"] in KEEPS_ROWS:
            version += not runs
            continue
        marks = json.loads(commit.get("userMetadata") or "{}")
        if not marks.get(BRONZE_RUNS) or commit["timestamp"] < _now() - _KEPT_MILLISECONDS:
            return None
        runs.update(marks[BRONZE_RUNS])
    return Since(version, frozenset(runs))


def since_each(reader: Reader, versions: Mapping[EventTable, int | None]) -> dict[EventTable, Since] | None:
    """`since` of each event table's latest rows; None where it can't be told of one of them."""
    told = {event: since(reader, event.latest, version) for event, version in versions.items()}
    known = {event: one for event, one in told.items() if one}
    return known if len(known) == len(told) else None


@dataclass(frozen=True)
class _Part:
    """Some rows of a file, and what becomes of them.

    Attributes:
        rows: as they are.
        taken: which rows they are from now on, by their number in these rows and, after them, those of `latest`.
        before: those of the touched purchases.
        positions: of the rows of `latest` whose purchases are among them.
        is_changed: whether they become others.
    """

    rows: pa.Table
    before: pa.Table
    taken: np.ndarray
    positions: np.ndarray
    is_changed: bool

    def merged(self, latest: pa.Table) -> pa.Table:
        """The rows from now on."""
        return pa.concat_tables([self.rows, latest]).take(self.taken) if self.is_changed else self.rows


def _parts(path: Path, latest: pa.Table, touched: pa.Array) -> list[_Part]:
    """A file's rows in parts of a row group each, so that there is never more than one of them twice in memory."""
    with path.open("rb") as file:  # pq.read_table reads as right, and takes three times the memory
        rows = pq.ParquetFile(file).read(latest.column_names).select(latest.column_names).cast(latest.schema)
    starts = range(0, rows.num_rows, records.ROW_GROUP_ROWS)
    return [_part(rows.slice(start, records.ROW_GROUP_ROWS), latest, touched) for start in starts]


def _part(rows: pa.Table, latest: pa.Table, touched: pa.Array) -> _Part:
    is_touched = pc.is_in(rows["purchase_id"], touched)
    before = rows.filter(is_touched)
    position = pc.index_in(before["purchase_id"], latest["purchase_id"])
    is_replaced = pc.is_valid(position)
    positions = position.drop_null().to_numpy()
    is_changed = not before.equals(latest.take(positions))
    numbers = np.flatnonzero(is_touched.to_numpy())  # of the rows before, among all
    taken = np.arange(rows.num_rows)
    taken[numbers[is_replaced.to_numpy()]] = rows.num_rows + positions
    taken = np.delete(taken, numbers[~is_replaced.to_numpy()])
    return _Part(rows, before, taken, positions, is_changed)


def _written(place: Path, table: Table, parts: Iterable[pa.Table]) -> list[AddAction]:
    """Write rows to a file of the table, which belongs to it once this action is committed; no file for no rows."""
    written, schema = pa.BufferOutputStream(), records.arrow_schema(table)
    statistics = _Statistics(table)
    with pq.ParquetWriter(
        written,
        schema,
        compression="snappy",
        use_dictionary=[name for name in schema.names if name not in HARDLY_REPEATED],
        column_encoding=dict.fromkeys(records.packed(table), "DELTA_BINARY_PACKED"),
        store_decimal_as_integer=True,
    ) as writer:
        for rows in filter(len, parts):
            writer.write_table(rows, row_group_size=records.ROW_GROUP_ROWS)
            statistics.add(rows)
    if not statistics.rows:
        return []
    content = written.getvalue().to_pybytes()
    path = f"part-{uuid.uuid4()}.parquet"
    (place / path).write_bytes(content)
    return [AddAction(path, len(content), {}, _now(), True, statistics.as_json())]


class _Statistics:
    """What Delta keeps of a file to skip it by, gathered while its rows are written.

    Attributes:
        rows: how many they are so far.
    """

    def __init__(self, table: Table) -> None:
        self.rows = 0
        self._ends: dict[str, list[Any]] = {name: [] for name in records.skipped_by(table)}
        self._nulls = dict.fromkeys(self._ends, 0)

    def add(self, rows: pa.Table) -> None:
        """Count more rows in."""
        self.rows += rows.num_rows
        for name, ends in self._ends.items():
            ends += (end for end in pc.min_max(rows[name]).as_py().values() if end is not None)
            self._nulls[name] += rows[name].null_count

    def as_json(self) -> str:
        """As delta-rs writes it."""
        known = {name: ends for name, ends in self._ends.items() if ends}
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {name: str(min(ends)) for name, ends in known.items()},
                "maxValues": {name: str(max(ends)) for name, ends in known.items()},
                "nullCount": self._nulls,
            }
        )


def _now() -> int:
    return int(time.time() * 1000)
