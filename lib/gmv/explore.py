"""A look around the lake for people who know little SQL: one line of Python, one frame.

Every function takes a `Reader` first and returns a pandas frame; amounts are Decimal. Days may be given as
dates, as times of which the day counts, or as text such as "2023-02-18"; purchases as text or numbers. What is
not there gives a frame without rows.
"""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pyarrow as pa

from gmv import explain as explaining
from gmv import tell
from gmv.errors import UsageError
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.report import data
from gmv.settings import settings
from gmv.tables import EVENT_TABLES, STRIPPED

Day = dt.date | str


def daily_gmv(reader: Reader, start_date: Day | None = None, end_date: Day | None = None) -> pd.DataFrame:
    """The published numbers: transaction_date, subsidiary, gmv.

    Raises:
        UsageError: a day that is not a date, or a last day before the first.
    """
    return data.daily_gmv(reader, *_range(start_date, end_date))


def day(reader: Reader, date: Day) -> pd.DataFrame:
    """Each purchase that counts on a day, the largest amount first, as the ledger has it now.

    Returns:
        purchase_id, subsidiary, amount, and item_quantity and purchase_value of its latest item.

    Raises:
        UsageError: `date` is not a date.
    """
    return reader.frame(
        """
        select purchase_id, subsidiary, amount, item_quantity, purchase_value
        from (
            select purchase_id, subsidiary, sum(amount) as amount
            from gold.gmv_ledger
            where transaction_date = $date
            group by purchase_id, subsidiary
            having sum(purchases) > 0
        )
        left join silver.product_item using (purchase_id)
        order by amount desc, purchase_id
        """,
        date=_date(date),
    )


def arrived(reader: Reader, purchase_id: str | int) -> pd.DataFrame:
    """Every CSV record of a purchase as it arrived (bronze), copies and unreadable values included.

    Returns:
        table, file, line, ingested_at (UTC), and the columns of all three event tables, as text.
    """
    return reader.frame(
        _each_event_table(
            "select '{name}' as \"table\", file, line, ingested_at, {columns} from bronze.{name}\n"
            "where trim(purchase_id, '{stripped}') = $purchase_id",
            order_by="transaction_datetime, file, line",
        ),
        purchase_id=str(purchase_id),
    )


def versions(reader: Reader, purchase_id: str | int) -> pd.DataFrame:
    """Every distinct valid event of a purchase (silver), in the order in which they happened.

    Returns:
        table, the typed columns of all three event tables, and the file that brought each first.
    """
    found = reader.arrow(
        _each_event_table(
            "select '{name}' as \"table\", {columns}, file from silver.{name}_versions\n"
            "where purchase_id = $purchase_id",
            order_by="transaction_datetime, file",
        ),
        purchase_id=str(purchase_id),
    )
    return _with_whole_numbers(found)


def latest(reader: Reader, purchase_id: str | int) -> pd.DataFrame:
    """The latest version of a purchase in each table (silver): what GMV is computed from.

    Returns:
        table, and the typed columns of all three event tables.
    """
    found = reader.arrow(
        _each_event_table(
            "select '{name}' as \"table\", {columns} from silver.{name} where purchase_id = $purchase_id",
            order_by='"table"',
        ),
        purchase_id=str(purchase_id),
    )
    return _with_whole_numbers(found)


def _with_whole_numbers(found: pa.Table) -> pd.DataFrame:
    """Integers that are empty in some rows as integers, to the last digit; pandas would make 1223.0 of them."""
    integers = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}
    return found.to_pandas(date_as_object=False, types_mapper=integers.get)


def postings(reader: Reader, purchase_id: str | int) -> pd.DataFrame:
    """What the ledger posted for a purchase (gold), in the order in which it was recorded.

    Returns:
        known_on, transaction_date, subsidiary, amount, purchases (+1 enters, -1 leaves, 0 another amount),
        reason, cause, ledger_seq, run, recorded_at (UTC).
    """
    return reader.frame(
        """
        select known_on, transaction_date, subsidiary, amount, purchases, reason, cause,
            ledger_seq, run, recorded_at
        from gold.gmv_ledger
        where purchase_id = $purchase_id
        order by ledger_seq, known_on, purchases, transaction_date, subsidiary, reason
        """,
        purchase_id=str(purchase_id),
    )


def counts_on(reader: Reader, purchase_id: str | int) -> pd.DataFrame:
    """Where a purchase counts now: one row, or none when it does not count.

    Returns:
        transaction_date, subsidiary, amount.
    """
    return reader.frame(
        """
        select transaction_date, subsidiary, sum(amount) as amount
        from gold.gmv_ledger
        where purchase_id = $purchase_id
        group by transaction_date, subsidiary
        having sum(purchases) > 0
        order by transaction_date, subsidiary
        """,
        purchase_id=str(purchase_id),
    )


def known_on(
    reader: Reader, date: Day, start_date: Day | None = None, end_date: Day | None = None
) -> pd.DataFrame:
    """GMV as the sources knew it at the end of a day, beside what is known now; of all days, or some.

    Both are sums of the ledger, so days in progress and days that wait to be published are among them.

    Returns:
        transaction_date, subsidiary, gmv_then, gmv_now (empty: nothing counts there), difference; sorted by
        day and subsidiary.

    Raises:
        UsageError: a day that is not a date, or a last day before the first.
    """
    first, last = _range(start_date, end_date)
    return reader.frame(
        """
        with sums as (
            select transaction_date, subsidiary,
                sum(amount) as amount_now,
                sum(purchases) as purchases_now,
                sum(amount) filter (known_on <= $date) as amount_then,
                sum(purchases) filter (known_on <= $date) as purchases_then
            from gold.gmv_ledger
            where transaction_date >= coalesce($start_date, date '0001-01-01')
                and transaction_date <= coalesce($end_date, date '9999-12-31')
            group by transaction_date, subsidiary
        )
        select transaction_date, subsidiary,
            case when purchases_then > 0 then amount_then end as gmv_then,
            case when purchases_now > 0 then amount_now end as gmv_now,
            coalesce(gmv_now, 0.00) - coalesce(gmv_then, 0.00) as difference
        from sums
        where purchases_then > 0 or purchases_now > 0
        order by transaction_date, subsidiary
        """,
        date=_date(date),
        start_date=first,
        end_date=last,
    )


def what_changed(reader: Reader, start_date: Day | None = None, end_date: Day | None = None) -> pd.DataFrame:
    """Published numbers that changed afterwards, by reason, the largest change first.

    Returns:
        as `gmv.report.data.restatements`.

    Raises:
        UsageError: a day that is not a date, or a last day before the first.
    """
    first, last = _range(start_date, end_date)
    return data.restatements(reader, start_date=first, end_date=last)


def explain(reader: Reader, start_date: Day, end_date: Day | None = None) -> pd.DataFrame:
    """Why a day's numbers are what they are: every posting of each change, with the event behind it.

    Args:
        end_date: last day of a range, inclusive; none: that one day.

    Returns:
        transaction_date, subsidiary, state, before, after, amount (adds up to after - before), why,
        purchase_id, known_on, event_values, event_file, arrived_files (whose arrival caused the posting).

    Raises:
        UsageError: a day that is not a date, or a last day before the first.
    """
    window = Window(*_range(start_date, end_date or start_date))
    rows = tell.explanation_rows(explaining.days(reader, window, settings().today()))
    columns = ["transaction_date", "subsidiary", "state", "before", "after", "amount", "why"]
    columns += ["purchase_id", "known_on", "event_values", "event_file", "arrived_files"]
    return pd.DataFrame(rows, columns=columns)


def example() -> Reader:
    """The lake that `make example` makes, in which numbers change; without it, one without tables."""
    return Reader(settings().example / "lake")


def _each_event_table(select: str, order_by: str) -> str:
    selects = [
        select.format(name=event.name, columns=", ".join(event.column_names), stripped=STRIPPED)
        for event in EVENT_TABLES
    ]
    return "\nunion all by name\n".join(selects) + f"\norder by {order_by}"


def _range(start_date: Day | None, end_date: Day | None) -> tuple[dt.date | None, dt.date | None]:
    first, last = _date(start_date), _date(end_date)
    if first and last and first > last:
        raise UsageError(f"The first day, {first}, is after the last, {last}.")
    return first, last


def _date(value: Day | None) -> dt.date | None:
    if isinstance(value, dt.datetime):
        return value.date()
    if value is None or isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise UsageError(f"{value!r} is not a date: write it as YYYY-MM-DD.") from None
