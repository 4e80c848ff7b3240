"""Rows that have been looked up by their purchases, kept for whoever asks for them again.

Delta never changes a file that it has written. So what was found in a table's files holds for every version that has
all of these still: only the files that came since are opened for the same purchases, and for others all of them. When
a day's corrections lie all over months of purchases, to open these files is most of what a run does.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from gmv.lake import location, pruning, records
from gmv.lake.reader import Reader
from gmv.tables import Table

MOST_ROWS = 100_000
"""So many rows at most are looked up at once, and kept."""

_KEPT_OF_A_TABLE = 2
"""What was looked up last; of a table whose rows change, before and after."""


@dataclass(frozen=True)
class _LookUp:
    """All rows of some purchases in some files.

    Attributes:
        ids: the purchases, also those without a row.
        files: all that the table had, whether they were opened or not.
        rows: with the table's columns, in any order.
    """

    ids: frozenset[str]
    files: frozenset[str]
    rows: pa.Table


_TOLD = b"looked_up"
_DONE: dict[str, list[_LookUp]] = {}
"""By the table's place, the newest first."""


def rows_of(reader: Reader, table: Table, ids: Collection[str]) -> pa.Table | None:
    """A table's rows of some purchases, at the version that a reader has pinned.

    Args:
        ids: their purchase_id.

    Returns:
        The table's columns, in any order; None where these are more than `MOST_ROWS`.
    """
    place, wanted, files = str(reader.lake / table.path), frozenset(ids), frozenset(reader.files(table))
    known = max(
        (one for one in _DONE.get(place, ()) if one.files <= files),
        key=lambda one: len(one.ids & wanted),
        default=_LookUp(frozenset(), frozenset(), records.arrow_schema(table).empty_table()),
    )
    again, others = wanted & known.ids, wanted - known.ids
    found = [known.rows.filter(pc.is_in(known.rows["purchase_id"], pa.array(again, pa.string())))]
    found += [_found(reader, table, again, files - known.files), _found(reader, table, others, files)]
    rows = pa.concat_tables(found)
    if rows.num_rows > MOST_ROWS:
        return None
    if others or files != known.files:
        keep(place, wanted, files, rows)
    return rows


def _found(reader: Reader, table: Table, ids: Collection[str], files: Collection[str]) -> pa.Table:
    """The rows of some purchases in some of a table's files; if they are too many, some of them."""
    schema = records.arrow_schema(table)
    if not ids or not files:
        return schema.empty_table()
    columns = ", ".join(f'"{name}"' for name in table.column_names)
    wanted = {"purchase_id": pruning.id_ranges(list(ids))}
    query = (
        f"select {columns} from ({reader.select(table, wanted, among=files)}) "
        f"where {pruning.ONE_OF_IDS} limit {MOST_ROWS + 1}"
    )
    with reader.naming_what_is_damaged([table]):
        return reader.sql(query, ids=list(ids)).to_arrow_table().cast(schema)


def near(reader: Reader, tables: Iterable[Table], ids: Sequence[str]) -> Reader:
    """The same tables, for questions about some purchases; of some tables, others' rows are not even there.

    Queries must still choose the rows by `purchase_id`, as with `Reader.near`.

    Args:
        tables: those that will be asked.
    """
    asked = reader.near(pruning.id_ranges(ids))
    for table in tables:
        rows = rows_of(reader, table, ids)
        if rows is not None:
            asked.hold(table, rows)
    return asked


def keep(place: str, ids: Collection[str], files: Collection[str], rows: pa.Table) -> None:
    """Keep what has been found in another way: all rows of some purchases in all of a table's files.

    Args:
        place: the table's.
        files: as `data_files` gives them.
        rows: with the table's columns.
    """
    done = _LookUp(frozenset(ids), frozenset(files), rows)
    _DONE[place] = [done, *_DONE.get(place, ())][:_KEPT_OF_A_TABLE]


def leave(folder: Path) -> None:
    """Write what this process has looked up, for another one to take.

    Raises:
        OSError: it can't be written; what is there is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = [(place, one) for place, looked_up in _DONE.items() for one in looked_up]
    for number, (place, one) in enumerate(kept):
        told = json.dumps({"place": place, "ids": sorted(one.ids), "files": sorted(one.files)})
        rows = one.rows.replace_schema_metadata({_TOLD: told})
        written = pa.BufferOutputStream()
        with pa.ipc.new_file(written, rows.schema) as writer:
            writer.write_table(rows)
        location.replace_bytes(folder / f"{number}.arrow", written.getvalue().to_pybytes())


def take(folder: Path) -> None:
    """Read what another process has left; nothing where there is no such folder."""
    for path in sorted(folder.glob("*.arrow")):
        rows = pa.ipc.open_file(path.read_bytes()).read_all()
        told = json.loads(rows.schema.metadata[_TOLD])
        keep(told["place"], told["ids"], told["files"], rows.replace_schema_metadata(None))
