"""Which files of a table may hold the rows that are wanted, by the minima and maxima that Delta keeps of each."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

Range = tuple[str, str]
"""The least and the greatest text that are wanted."""

MOST_IDS = 100_000
"""Up to so many purchases are looked up by their ids; for more, tables are scanned."""
ONE_OF_IDS = "purchase_id in (select unnest(cast($ids as varchar[])))"
"""SQL: whether a row is of one of these purchases, given as the parameter `ids`."""
GAP = 100_000
_MOST_RANGES = 200


def id_ranges(ids: Sequence[str]) -> list[Range]:
    """A few ranges of strings that enclose all ids.

    Ids that are whole numbers of one length are in the order of their numbers; neighbours less than
    100,000 apart share a range. When any id is of another kind there are no ranges: look everywhere.
    """
    if not all(one.isascii() and one.isdigit() and len(one) <= 18 for one in ids):
        return []
    ranges: list[Range] = []
    for one in sorted(ids, key=lambda text: (len(text), text)):
        if ranges and len(ranges[-1][1]) == len(one) and int(one) - int(ranges[-1][1]) < GAP:
            ranges[-1] = (ranges[-1][0], one)
        else:
            ranges.append((one, one))
    return ranges if len(ranges) <= _MOST_RANGES else []


def exactly(values: Sequence[str]) -> list[Range]:
    """The ranges that enclose each of some values alone."""
    return [(value, value) for value in values]


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def within(column: str, ranges: Sequence[Range]) -> str:
    """SQL: whether a column is in one of the ranges; true without ranges."""
    ends = (f"{column} between {quoted(low)} and {quoted(high)}" for low, high in ranges)
    return f"({' or '.join(ends)})" if ranges else "true"


def described(delta: DeltaTable) -> list[dict]:
    """Each file of the table as its log tells: path, num_records, size_bytes, min.purchase_id, max.purchase_id, …"""
    # Not pa.table: it imports pandas to look whether it was given a data frame, which takes as long as the rest.
    return pa.RecordBatchReader.from_stream(delta.get_add_actions(flatten=True)).read_all().to_pylist()


def may_hold(delta: DeltaTable, wanted: Mapping[str, Sequence[Range]]) -> list[str]:
    """The paths, relative to the table, of the files that may hold a row within the ranges of every column.

    Args:
        wanted: ranges by column; a column without ranges does not choose.
    """
    files = described(delta)
    for column, ranges in wanted.items():
        if ranges:
            files = [file for file in files if _may_be_within(file, column, ranges)]
    return [file["path"] for file in files]


def may_hold_any(delta: DeltaTable, column: str, values: Iterable[str]) -> list[str]:
    """The paths of the files that may hold a row with one of these texts, of which there may be many."""
    ordered = sorted(values)
    paths = []
    for file in described(delta):
        low, high = file.get(f"min.{column}"), file.get(f"max.{column}")
        next_value = bisect_left(ordered, low or "")
        if low is None or high is None or (next_value < len(ordered) and ordered[next_value] <= high):
            paths.append(file["path"])
    return paths


def _may_be_within(file: Mapping[str, Any], column: str, ranges: Sequence[Range]) -> bool:
    low, high = file.get(f"min.{column}"), file.get(f"max.{column}")
    return low is None or high is None or any(low <= last and first <= high for first, last in ranges)


def may_hold_greatest(delta: DeltaTable, column: str) -> list[str]:
    """The paths of the files that may hold a timestamp column's greatest value.

    Most writers cut off what is less than a millisecond: within one, files can't be told apart.
    """
    highs = {file["path"]: file.get(f"max.{column}") for file in described(delta)}
    known = [high for high in highs.values() if high is not None]
    least = max(known) - dt.timedelta(milliseconds=1) if known else None
    return [path for path, high in highs.items() if high is None or high >= least]
