"""`gmv show`: a table's rows, exact and sorted, without Spark."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Any, TextIO

from gmv.errors import UsageError
from gmv.lake.reader import Reader
from gmv.quality.lists import LISTS
from gmv.tables import DAILY_GMV, RUNS, TABLES, Table


def table_named(name: str) -> Table:
    """The table of `daily_gmv`, `gold.daily_gmv` or `gold/daily_gmv`; `purchase` is silver's.

    Raises:
        UsageError: when there is none.
    """
    wanted = name.replace(".", "/")
    found = [table for table in TABLES if wanted in (table.path, table.name)]
    if not found and name in LISTS:  # which are shown without a table, but for a window or a moment
        raise UsageError(f"{name} is a list of what is so now; it takes no dates.")
    if not found:
        raise UsageError(
            f"There is no table or list {name!r}; there are {', '.join(table.path for table in TABLES)}, "
            f"{', '.join(LISTS)}."
        )
    return max(found, key=lambda table: table.layer)


MOST_DRAWN = 1_000
"""A table for people has the last so many rows: to draw rows takes a hundred times as long as to read them."""


@dataclass(frozen=True)
class Selection:
    """Rows of a table, by a query and its parameters.

    Attributes:
        title: the table, and the point in time if one was asked for.
        one_row_is: in words.
        sorted_by: SQL, its columns in the order in which they sort the rows; `all` of them as they stand.
    """

    sql: str
    parameters: Mapping[str, object]
    title: str
    one_row_is: str
    sorted_by: Sequence[str] = ("all",)

    def count(self, reader: Reader) -> int:
        """How many rows there are."""
        (row,) = reader.rows(f"select count(*) as n from ({self.sql})", **self.parameters)
        return row["n"]

    def last(self, reader: Reader, most: int) -> list[dict[str, Any]]:
        """The last so many rows, sorted."""
        last = f"select * from ({self.sql}) order by {self._order(' desc nulls first')} limit {most}"
        return reader.rows(f"select * from ({last}) order by {self._order()}", **self.parameters)

    def batches(self, reader: Reader) -> Iterator[list[dict[str, Any]]]:
        """All rows, sorted; never all of them in memory."""
        return reader.batches(f"select * from ({self.sql}) order by {self._order()}", **self.parameters)

    def _order(self, direction: str = "") -> str:
        return ", ".join(f"{column}{direction}" for column in self.sorted_by)


def rows(
    reader: Reader,
    table: Table,
    start_date: dt.date | None = None,
    end_date: dt.date | None = None,
    known_on: dt.date | None = None,
    recorded_by: dt.datetime | None = None,
) -> list[dict[str, Any]]:
    """All rows of a `selection`, sorted."""
    selected = selection(table, start_date, end_date, known_on, recorded_by)
    return [*chain.from_iterable(selected.batches(reader))]


def selection(
    table: Table,
    start_date: dt.date | None = None,
    end_date: dt.date | None = None,
    known_on: dt.date | None = None,
    recorded_by: dt.datetime | None = None,
) -> Selection:
    """What to show of a table.

    Args:
        start_date, end_date: of transaction_date, inclusive, for tables that have it.
        known_on: daily_gmv as the sources knew it at the end of this day (rule 6).
        recorded_by: daily_gmv as this lake had published it at this moment, UTC. With `known_on`: as the
            sources knew it then, as far as the ledger held it at that moment.

    Raises:
        UsageError: for a point in time of another table than daily_gmv.
    """
    if (known_on or recorded_by) and table != DAILY_GMV:
        raise UsageError("--known-on and --recorded-by tell about daily_gmv only.")
    title, one_row_is = table.path, table.one_row_is
    if known_on:
        title += f", as known on {known_on}"
        one_row_is = (
            "day and subsidiary on which at least one purchase counted: the sum of the ledger's postings"
        )
        source = """
            select transaction_date, subsidiary, cast(sum(amount) as decimal(38, 2)) as gmv from gold.gmv_ledger
            where known_on <= $known_on and recorded_at <= coalesce($recorded_by, timestamp '9999-12-31')
            group by all having sum(purchases) > 0"""
        parameters: dict[str, object] = {"known_on": known_on, "recorded_by": recorded_by}
    elif recorded_by:
        title += ", as published"
        source = """
            select transaction_date, subsidiary, gmv from (
                select * from gold.daily_gmv_history where published_at <= $recorded_by
                qualify row_number() over (
                    partition by transaction_date, subsidiary order by ledger_seq desc, published_at desc) = 1
            ) where gmv is not null"""
        parameters = {"recorded_by": recorded_by}
    else:
        source, parameters = f"select * from {table.layer}.{table.name}", {}
    if recorded_by:
        title += f" by {recorded_by} UTC"
    dated = ""
    if "transaction_date" in table.column_names:
        dated = "where (transaction_date >= $start_date or $start_date is null)" + (
            " and (transaction_date <= $end_date or $end_date is null)"
        )
        if table.layer == "bronze":  # a text there
            dated = dated.replace("transaction_date ", "try_cast(transaction_date as date) ")
        parameters |= {"start_date": start_date, "end_date": end_date}
    # What happened in runs is told in order of time: by its columns, a run would end before it starts.
    sorted_by = ('"at"', "run", "event", "details") if table == RUNS else ("all",)
    return Selection(f"select * from ({source}) {dated}", parameters, title, one_row_is, sorted_by)


def which_rows(one_row_is: str, which: str, drawn: int, of: int) -> str:
    """What stands below a table: what one row is, and that these are the `first` or `last` of more."""
    part = f"\nThe {which} {drawn:,} of {of:,} rows; --format csv has all." if drawn < of else ""
    return f"One row is one {one_row_is}.{part}"


def as_csv(columns: Sequence[str], of_rows: Iterable[dict[str, Any]], for_spreadsheet: bool = False) -> str:
    """As `write_csv` writes them."""
    text = io.StringIO()
    write_csv(text, columns, of_rows, for_spreadsheet)
    return text.getvalue()


def write_csv(
    to: TextIO, columns: Sequence[str], of_rows: Iterable[dict[str, Any]], for_spreadsheet: bool = False
) -> None:
    """Write header and rows; amounts with all their decimals, empty for null.

    Args:
        for_spreadsheet: a text that a spreadsheet would take for a formula gets an apostrophe before it, and the
            file a byte-order mark, so that its accents are understood. Without it every value is exact.
    """
    if for_spreadsheet:
        to.write("\ufeff")
    writer = csv.writer(_LineFeeds(to), lineterminator="\r\n")
    writer.writerow(columns)
    shown = _guarded if for_spreadsheet else _plain
    writer.writerows([shown(row[column]) for column in columns] for row in of_rows)


@dataclass(frozen=True)
class _LineFeeds:
    """Ends rows with LF alone. The csv module puts only those ends of line into quotes that end its own rows."""

    to: TextIO

    def write(self, row: str) -> int:
        return self.to.write(row.removesuffix("\r\n") + "\n")


def as_json(of_rows: Any) -> str:
    """Objects; amounts as texts, since JSON's numbers are floats to most readers."""
    return json.dumps(of_rows, default=_plain, indent=2, ensure_ascii=False) + "\n"


def as_text(value: Any) -> str:
    """A value for people: amounts with separators of thousands."""
    return f"{value:,f}" if isinstance(value, Decimal) else str(_plain(value))


_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def _guarded(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.lstrip(" ").startswith(_BEGINS_FORMULA)
    return f"'{value}" if is_formula else _plain(value)


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat(" ") if isinstance(value, dt.datetime) else value.isoformat()
    if isinstance(value, list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return value
