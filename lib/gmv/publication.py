"""Which days a run publishes, and publishing them: daily_gmv's days in one commit, then their history."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from gmv.errors import GmvError, UsageError
from gmv.lake import ledger_days, records
from gmv.lake.reader import Reader, at_one_moment
from gmv.tables import DAILY_GMV, DAILY_GMV_HISTORY, EARLIEST_PLAUSIBLE

Place = tuple[dt.date, str]
"""A transaction_date and a subsidiary."""


@dataclass(frozen=True)
class Window:
    """The days that a run may publish, inclusive; both empty: all pending days."""

    start_date: dt.date | None = None
    end_date: dt.date | None = None

    def __post_init__(self) -> None:
        if (self.start_date is None) != (self.end_date is None):
            raise UsageError(
                "A window needs both a start date and an end date; without either, it is of all days."
            )
        if self.start_date and self.end_date and self.start_date > self.end_date:
            raise UsageError(f"The start date {self.start_date} is after the end date {self.end_date}.")

    def __contains__(self, day: dt.date) -> bool:
        return self.start_date is None or self.end_date is None or self.start_date <= day <= self.end_date

    def days(self) -> list[dt.date]:
        """Each day of the window that an event can have by now (docs/rules.md), for a window may end in the year 9999;
        none where no window was given."""
        if self.start_date is None or self.end_date is None:
            return []
        first = max(self.start_date, dt.date.fromisoformat(EARLIEST_PLAUSIBLE))
        last = min(self.end_date, records.now().date() + dt.timedelta(days=1))
        return [first + dt.timedelta(n) for n in range((last - first).days + 1)]


@dataclass(frozen=True)
class Plan:
    """What becomes of each day that a run has to look at.

    Attributes:
        publish: pending days that the run publishes.
        recompute: other closed days of the window; rewritten if they differ from silver.
        pending: pending days that stay so: outside of the window, or in closed books.
        in_progress: days from today on that have GMV in the ledger; listed, not published.
        ledger: what `ledger_sums` told, by which this was decided.
        today: days before it are closed.
    """

    publish: Sequence[dt.date]
    recompute: Sequence[dt.date]
    pending: Sequence[dt.date]
    in_progress: Sequence[dt.date]
    ledger: Mapping[Place, Decimal]
    today: dt.date

    @property
    def days(self) -> list[dt.date]:
        """The days whose daily_gmv is computed from silver."""
        return sorted([*self.publish, *self.recompute])


def ledger_sums(reader: Reader) -> dict[Place, Decimal]:
    """GMV by the ledger: Σ amount by day and subsidiary, where at least one purchase counts (rule 5)."""
    rows = reader.rows(
        "select transaction_date, subsidiary, cast(sum(amount) as decimal(38, 2)) as gmv "
        f"from ({ledger_days.by_day(reader)}) group by transaction_date, subsidiary having sum(purchases) > 0"
    )
    return {(row["transaction_date"], row["subsidiary"]): row["gmv"] for row in rows}


def published(reader: Reader) -> dict[Place, Decimal]:
    """The published number of each day and subsidiary."""
    return {
        (row["transaction_date"], row["subsidiary"]): row["gmv"]
        for row in reader.rows("select transaction_date, subsidiary, gmv from gold.daily_gmv")
    }


def differing(one: Mapping[Place, Decimal], other: Mapping[Place, Decimal]) -> list[Place]:
    """The days and subsidiaries of which two sets of daily rows are not the same, in order."""
    return sorted(place for place in one.keys() | other.keys() if one.get(place) != other.get(place))


def differing_days(one: Mapping[Place, Decimal], other: Mapping[Place, Decimal]) -> set[dt.date]:
    """The days on which two sets of daily rows are not the same."""
    return {day for day, _ in differing(one, other)}


def plan(reader: Reader, window: Window, today: dt.date, closed_until: dt.date | None = None) -> Plan:
    """Decide which days a run publishes.

    Args:
        window: as the user gave it.
        today: days before it are closed.
        closed_until: books are closed up to this day: its pending days wait for a window that ends on or
            before it.
    """
    sums = ledger_sums(reader)
    pending = {day for day in differing_days(sums, published(reader)) if day < today}
    if closed_until and window.end_date and window.end_date <= closed_until:
        closed_until = None  # this window is of closed books, on purpose
    publish = {day for day in pending if day in window and not (closed_until and day <= closed_until)}
    recompute = {day for day in window.days() if day < today} - pending
    in_progress = {place[0] for place in sums if place[0] >= today}
    return Plan(
        sorted(publish), sorted(recompute), sorted(pending - publish), sorted(in_progress), sums, today
    )


def closed_books(pending: Iterable[dt.date], closed_until: dt.date | None) -> str:
    """Which pending days wait since their books are closed, and how to publish them; empty if none does."""
    waiting = sorted(day for day in pending if closed_until and day <= closed_until)
    if not waiting:
        return ""
    return (
        f"Books are closed up to {closed_until}: {len(waiting)} pending day(s) wait for a window that ends by then "
        f"(gmv run --start-date {waiting[0]} --end-date {waiting[-1]})."
    )


def publish(
    lake_path: Path,
    reader: Reader,
    coming: Mapping[Place, Decimal],
    days: Iterable[dt.date],
    run: str,
    recomputed: Sequence[Mapping] | None,
    checks: Sequence[Mapping] | None,
) -> list[dict]:
    """Replace the days whose numbers change, in one commit, and note each change in the history.

    Args:
        reader: the lake as it is before.
        coming: the numbers of all `days`.
        days: the days that may be replaced.
        run: recorded with the commit and the history.
        recomputed, checks: what both gates told of these numbers; None: it refused, or was not asked.

    Returns:
        The new rows of `gold/daily_gmv_history`; none when every day has its number already.

    Raises:
        UsageError: a gate is not passed.
    """
    if recomputed is None or checks is None:
        raise UsageError(
            "These numbers have not passed every check, so nothing was published. "
            "Run the cells above that check them; where one refuses, it says what to do."
        )
    before = published(reader)
    changed = differing_days(before, coming) & set(days)
    if not changed:
        return []
    marks = {
        "run": run,
        "ledger_seq": ledger_days.newest_seq(reader),
        "published_at": records.now().isoformat(),
    }
    rows = [
        {"transaction_date": day, "subsidiary": subsidiary, "gmv": gmv}
        for (day, subsidiary), gmv in sorted(coming.items())
        if day in changed
    ]
    records.replace_days(lake_path, changed, rows, marks)
    return write_missing_history(lake_path)


def write_missing_history(lake_path: Path, *, trust_published: bool = False) -> list[dict]:
    """Add what the history lacks of the last publication, so that a run killed in between is finished.

    Args:
        trust_published: the history has lost rows, so daily_gmv is right where they differ.

    Returns:
        The rows that were added.

    Raises:
        GmvError: when daily_gmv differs from its history without a publication that explains it: damage.
    """
    rows = _missing_history(Reader(lake_path), trust_published)
    records.append(lake_path, DAILY_GMV_HISTORY, rows)
    return rows


def state(lake_path: Path) -> Reader:
    """The lake at one moment, for those who look at it, whatever a run does meanwhile.

    What is published is in the history, also in the moment before its run has noted it there, or where it was killed
    then.
    """
    reader = at_one_moment(lake_path)
    with contextlib.suppress(GmvError):  # damage is told to those who ask for these tables
        if rows := _missing_history(reader):
            reader.add(DAILY_GMV_HISTORY, pa.Table.from_pylist(rows, records.arrow_schema(DAILY_GMV_HISTORY)))
    return reader


def _missing_history(reader: Reader, trust_published: bool = False) -> list[dict]:
    now_published = published(reader)
    by_history = _published_by_history(reader)
    places = differing(now_published, by_history)
    if not places:
        return []
    marks = records.last_marks(reader.lake, DAILY_GMV)
    # A run's id may have been given to more than one notebook, so the moment is compared too.
    is_noted = not marks or (
        not trust_published
        and reader.rows(
            "select 1 from gold.daily_gmv_history where run = $run and published_at = $published_at limit 1",
            run=marks["run"],
            published_at=dt.datetime.fromisoformat(marks["published_at"]),
        )
    )
    if is_noted:
        day, subsidiary = places[0]
        raise GmvError(
            f"gold/daily_gmv is damaged: {day} ({subsidiary}) holds {now_published.get(places[0])}, but "
            f"{by_history.get(places[0])} was published. Nothing was changed; `gmv rebuild` repairs it."
        )
    return [
        {
            "transaction_date": day,
            "subsidiary": subsidiary,
            "previous_gmv": by_history.get((day, subsidiary)),
            "gmv": now_published.get((day, subsidiary)),
            "ledger_seq": marks["ledger_seq"],
            "run": marks["run"],
            "published_at": dt.datetime.fromisoformat(marks["published_at"]),
        }
        for day, subsidiary in places
    ]


def restore_published(lake_path: Path) -> int:
    """Make daily_gmv what its history says was published; returns the number of its rows.

    For a table that is damaged: numbers that were published and are not in the history become pending.
    """
    reader = Reader(lake_path)
    numbers_then = _published_by_history(reader)
    rows = [
        {"transaction_date": day, "subsidiary": subsidiary, "gmv": gmv}
        for (day, subsidiary), gmv in sorted(numbers_then.items())
    ]
    marks = reader.rows(
        "select run, ledger_seq, published_at from gold.daily_gmv_history "
        "order by published_at desc, ledger_seq desc limit 1"
    )
    last = {**marks[0], "published_at": marks[0]["published_at"].isoformat()} if marks else None
    records.replace_all_days(lake_path, rows, last)
    return len(rows)


def _published_by_history(reader: Reader) -> dict[Place, Decimal]:
    """The newest number of each day and subsidiary, by the history; those that are gone left out."""
    return {
        (row["transaction_date"], row["subsidiary"]): row["gmv"]
        for row in reader.rows(
            "select transaction_date, subsidiary, gmv from gold.daily_gmv_history "
            "qualify row_number() over (partition by transaction_date, subsidiary "
            "order by ledger_seq desc, published_at desc) = 1"
        )
        if row["gmv"] is not None
    }


def counted_meanwhile(reader: Reader, the_plan: Plan) -> dict[str, Decimal]:
    """Money of purchases that went from a published day to one that stays pending, or the other way.

    What a pending day does not show yet are its postings since the ledger last added up to its published
    numbers. A purchase that these take away, and that counts on a day which does not wait, counts twice; one
    that they bring, and that has left such a day after it was part of its published number, and has counted
    somewhere ever since, counts nowhere.

    Args:
        reader: the lake after the publication.

    Returns:
        twice and nowhere. The next run that publishes the pending days repairs both.
    """
    if not the_plan.pending:
        return {"twice": Decimal("0.00"), "nowhere": Decimal("0.00")}
    (row,) = reader.rows(
        """
        with of_pending as (  -- what was posted of pending days, and the sums until then
            select *, sum(amount) over (
                partition by transaction_date, subsidiary order by ledger_seq
                range between unbounded preceding and current row) as gmv_then
            from gold.gmv_ledger where list_contains($pending, transaction_date)
        ), unpublished as (  -- of that, what came since the sums were the published numbers
            select of_pending.* from of_pending left join gold.daily_gmv as published
                using (transaction_date, subsidiary)
            qualify ledger_seq > coalesce(
                max(ledger_seq) filter (gmv_then = coalesce(published.gmv, 0))
                    over (partition by transaction_date, subsidiary), 0)
        ), lacking as (  -- what that brings to a day, or takes from it, by purchase
            select purchase_id, sum(amount) as amount, sum(purchases) as purchases
            from unpublished group by purchase_id, transaction_date having sum(purchases) <> 0
        ), counting as (  -- the batch with which each of these last began to count
            select purchase_id, max(ledger_seq) as since from (
                select purchase_id, ledger_seq from gold.gmv_ledger semi join lacking using (purchase_id)
                group by purchase_id, ledger_seq having sum(purchases) > 0
            ) group by purchase_id
        ), stay as (  -- when they came to, and left, days that do not wait
            select purchase_id, transaction_date, ledger_seq, sum(purchases) as purchases,
                   lag(ledger_seq) over (
                       partition by purchase_id, transaction_date order by ledger_seq) as came_at
            from gold.gmv_ledger semi join lacking using (purchase_id)
            where not list_contains($waiting, transaction_date)
            group by purchase_id, transaction_date, ledger_seq having sum(purchases) <> 0
        ), elsewhere as (  -- whether they count there now; when they last left what was published
            select purchase_id, bool_or(still > 0) as counts, max(left_at) as left_at from (
                select purchase_id, sum(purchases) as still, max(ledger_seq) filter (
                    purchases < 0 and exists (
                        select 1 from gold.daily_gmv_history as shown
                        where shown.transaction_date = stay.transaction_date
                            and shown.ledger_seq >= stay.came_at and shown.ledger_seq < stay.ledger_seq)
                ) as left_at
                from stay group by purchase_id, transaction_date
            ) group by purchase_id
        )
        select cast(coalesce(-sum(amount) filter (purchases < 0 and counts), 0) as decimal(38, 2)) as twice,
               cast(coalesce(sum(amount) filter (purchases > 0 and left_at >= since), 0) as decimal(38, 2))
                   as nowhere
        from lacking join elsewhere using (purchase_id) join counting using (purchase_id)
        """,
        pending=list(the_plan.pending),
        waiting=[*the_plan.pending, *the_plan.in_progress],
    )
    return row


def results(the_plan: Plan, window: Window, changes: Iterable[Mapping], reader: Reader) -> dict[str, str]:
    """What became of each planned day (YYYY-MM-DD): published, unchanged, empty, pending or in progress.

    Args:
        changes: the history rows of this run's publication.
        reader: the lake after it.
    """
    was_changed = {row["transaction_date"] for row in changes}
    has_rows = {place[0] for place in published(reader)}
    told = {day: "in progress" for day in the_plan.in_progress if day in window}
    closed = {*the_plan.days, *the_plan.pending}
    told |= {day: "in progress" for day in window.days() if day not in closed}
    told |= {day: "pending" for day in the_plan.pending}
    for day in the_plan.days:
        told[day] = "published" if day in was_changed else "unchanged" if day in has_rows else "empty"
    return {day.isoformat(): told[day] for day in sorted(told)}
