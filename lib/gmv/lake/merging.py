"""Bringing a table with one row per purchase to the latest rows of some purchases, file by file.

Delta's MERGE writes all files that it changes anew as one, in the order of its join: a late event of an old
purchase then draws the old file into that of the newest purchases, until each run writes the whole table. Here a
file's rows stay in their file and place, a file without a change stays as it is, and what is new is a small file.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from gmv.lake import faults, pruning, records
from gmv.lake.reader import Reader
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
    actions: list[AddAction | RemoveAction] = []
    for path in pruning.may_hold_any(delta, "purchase_id", touched):
        with (place / path).open("rb") as file:
            merged = _merged(pq.read_table(file, schema=latest.schema), latest, ids)
        is_new[merged.positions] = False
        if merged.rows is not None:
            actions.append(RemoveAction(path, True, _now(), partition_values={}))
            actions += _written(place, table, merged.rows)
    actions += _written(place, table, latest.filter(is_new).sort_by("purchase_id"))
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
class _Merged:
    """What becomes of a file.

    Attributes:
        rows: its rows from now on; None: they stay as they are.
        positions: of the rows of `latest` whose purchases it has.
    """

    rows: pa.Table | None
    positions: np.ndarray


def _merged(old: pa.Table, latest: pa.Table, touched: pa.Array) -> _Merged:
    position = pc.index_in(old["purchase_id"], latest["purchase_id"])
    is_replaced = pc.is_valid(position).to_numpy()
    positions = position.drop_null().to_numpy()
    is_gone = pc.is_in(old["purchase_id"], touched).to_numpy() & ~is_replaced
    if not is_gone.any() and old.filter(is_replaced).equals(latest.take(positions)):
        return _Merged(None, positions)
    taken = np.arange(old.num_rows)
    taken[is_replaced] = old.num_rows + positions
    return _Merged(pa.concat_tables([old, latest]).take(taken[~is_gone]), positions)


def _written(place: Path, table: Table, rows: pa.Table) -> list[AddAction]:
    """Write rows to a file of the table, which belongs to it once this action is committed; no file for no rows."""
    if not rows.num_rows:
        return []
    written = pa.BufferOutputStream()
    pq.write_table(
        rows,
        written,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in rows.column_names if name not in HARDLY_REPEATED],
        row_group_size=records.ROW_GROUP_ROWS,
        store_decimal_as_integer=True,
    )
    content = written.getvalue().to_pybytes()
    path = f"part-{uuid.uuid4()}.zstd.parquet"
    (place / path).write_bytes(content)
    return [AddAction(path, len(content), {}, _now(), True, _statistics(table, rows))]


def _statistics(table: Table, rows: pa.Table) -> str:
    """What Delta keeps of a file to skip it by, as delta-rs writes it."""
    least, greatest, nulls = {}, {}, {}
    for name in records.skipped_by(table):
        ends = pc.min_max(rows[name]).as_py()
        nulls[name] = rows[name].null_count
        if ends["min"] is not None:
            least[name], greatest[name] = str(ends["min"]), str(ends["max"])
    return json.dumps(
        {"numRecords": rows.num_rows, "minValues": least, "maxValues": greatest, "nullCount": nulls}
    )


def _now() -> int:
    return int(time.time() * 1000)
