"""Is a day's number final? What the ledger says about how late GMV becomes known.

A day's GMV goes on changing after the day: payments are withdrawn, prices corrected, files arrive late. How
much, is in the ledger: each posting has the day on which it was learned. So for a day of some age, the other
days of the lake, when they were of that age, show how much more is to come.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import accumulate

from gmv import publication
from gmv.freshness import newest_events
from gmv.lake import ledger_days
from gmv.lake.reader import Reader
from gmv.settings import settings

IN_PROGRESS, PENDING, PROVISIONAL, SETTLED = ("in progress", "pending", "provisional", "settled")

RATE = Decimal("0.9")
"""In how many of all cases the interval holds what is still to come."""

FEWEST_DAYS = 30
"""An interval needs so many earlier days as evidence."""

MOST_DAYS = 400
"""The newest so many of them are used: what was usual two years ago need not be now."""

Change = tuple[dt.date, dt.date, Decimal]
"""A transaction_date, the day on which a change of its GMV was learned, and the amount."""


@dataclass(frozen=True)
class Interval:
    """The further change to expect of a number, as shares of it, with the evidence.

    Attributes:
        low, high: shares; -0.02 is two percent down.
        days: how many earlier days of the same age it rests on.
    """

    low: Decimal
    high: Decimal
    days: int

    @property
    def largest(self) -> Decimal:
        return max(abs(self.low), abs(self.high))


class History:
    """How each day's GMV became known.

    Args:
        changes: day, day on which the change was learned, amount; in any order.
        known_through: the newest day of which the lake can know: nothing is learned after it.
        horizon: how many days ahead further changes are counted.
    """

    def __init__(self, changes: Iterable[Change], known_through: dt.date, horizon: int) -> None:
        self.known_through, self.horizon = known_through, horizon
        by_age: dict[dt.date, dict[int, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        for day, learned_on, amount in changes:
            if learned_on <= known_through:
                by_age[day][max(0, (learned_on - day).days)] += amount
        self._known = {
            day: (sorted(amounts), list(accumulate(amounts[age] for age in sorted(amounts))))
            for day, amounts in by_age.items()
        }
        self._days = sorted(self._known, reverse=True)
        self._greatest_age = max((ages[-1] for ages, _ in self._known.values()), default=0)
        self._days_worth_something = sorted(day for day, (_, sums) in self._known.items() if sums[-1] > 0)
        self._intervals: dict[int, Interval | None] = {}

    def known(self, day: dt.date, age: int) -> Decimal:
        """GMV of a day as it was known so many days after it."""
        ages, sums = self._known.get(day, ((), ()))
        known = bisect_right(ages, age)
        return sums[known - 1] if known else Decimal(0)

    def age(self, day: dt.date) -> int:
        """How many days after it the lake's knowledge of a day reaches; 0 is its own evening."""
        return max(0, (self.known_through - day).days)

    def interval(self, age: int) -> Interval | None:
        """The further change, within the horizon, of a number of this age; None where history is too thin.

        It is the range between two of the changes that earlier days have seen, sorted: with k of them, the
        one with rank (k+1)·5 % and the one with rank (k+1)·95 %, rounded outwards. If a new day is like the
        earlier ones, its own change lies between them in at least 90 % of all cases (split conformal
        prediction, Vovk et al. 2005), whatever the distribution.
        """
        if age not in self._intervals:
            changes = self._further_changes(age)
            count = len(changes)
            tail = (1 - RATE) / 2 * (count + 1)
            rank = int(tail.to_integral_value(ROUND_FLOOR))
            self._intervals[age] = (
                Interval(changes[rank - 1], changes[-rank], count) if count >= FEWEST_DAYS else None
            )
        return self._intervals[age]

    def _further_changes(self, age: int) -> list[Decimal]:
        """By how much earlier days changed within the horizon after this age, as shares, sorted."""
        newest = self.known_through - dt.timedelta(days=age + self.horizon)
        if age >= self._greatest_age:  # no day has changed any more, when it was so old
            return [Decimal(0)] * min(MOST_DAYS, bisect_right(self._days_worth_something, newest))
        changes = []
        for day in self._days:
            if day <= newest and (then := self.known(day, age)) > 0:
                changes.append((self.known(day, age + self.horizon) - then) / then)
                if len(changes) == MOST_DAYS:
                    break
        return sorted(changes)


@dataclass(frozen=True)
class Finality:
    """How final one day's number is.

    Attributes:
        day: the transaction_date.
        state: in progress, pending, provisional or settled.
        gmv: published; of a day in progress, what the ledger has so far.
        coming: of a pending day, what the ledger has; else empty.
        low, high: amounts between which the further change is expected; empty where there is no interval.
        evidence: why, in a sentence.
    """

    day: dt.date
    state: str
    gmv: Decimal
    coming: Decimal | None
    low: Decimal | None
    high: Decimal | None
    evidence: str


def changes(reader: Reader) -> list[Change]:
    """When each change of a day's GMV was learned, from the ledger.

    What the first run with anything of a day posted counts as learned when it happened at the source (a
    history that is loaded in one go was not late). What later runs posted was learned when it happened or
    the day before the run, whichever is later. Retractions, undos and changed rules are no lateness and are
    counted as if they had always been known.
    """
    found = reader.frame(
        f"""
        with runs as (
            select run, max(as_of_date) as today from monitoring.runs where as_of_date is not null group by run
        ),
        posted as (
            select *, ledger_seq = min(ledger_seq) over (partition by transaction_date) as is_first from (
                select transaction_date, ledger_seq, run, known_on, cause, sum(amount) as amount
                from ({ledger_days.by_day(reader)}) group by all
            )
        )
        select transaction_date as day,
            case when is_first or cause <> 'event' then known_on
                 else greatest(known_on, today - 1) end as learned_on,
            cast(sum(amount) as decimal(38, 2)) as amount
        from posted left join runs using (run)
        group by all
        """
    )
    return list(zip(found["day"].dt.date, found["learned_on"].dt.date, found["amount"], strict=True))


def finality(reader: Reader, today: dt.date) -> list[Finality]:
    """Each day that has GMV, published or in the ledger: how final its number is, oldest first.

    Args:
        reader: the lake.
        today: days before it are closed.
    """
    sums, published = publication.ledger_sums(reader), publication.published(reader)
    differing = publication.differing_days(sums, published)
    sums_by_day, published_by_day = _by_day(sums), _by_day(published)
    newest = {name: moment and moment.date() for name, moment in newest_events(reader).items()}
    known = [day for day in newest.values() if day]
    known_through = min([today - dt.timedelta(days=1), *([max(known)] if known else [])])
    history = History(changes(reader), known_through, settings().finality_days)
    return [
        _judged(
            day,
            published_by_day[day],
            sums_by_day[day],
            is_closed=day < today,
            is_pending=day in differing,
            history=history,
            newest=newest,
        )
        for day in sorted(sums_by_day.keys() | published_by_day.keys())
    ]


def _judged(
    day: dt.date,
    gmv: Decimal,
    coming: Decimal,
    *,
    is_closed: bool,
    is_pending: bool,
    history: History,
    newest: Mapping[str, dt.date | None],
) -> Finality:
    if not is_closed:
        return Finality(day, IN_PROGRESS, coming, None, None, None, "The day is not over.")
    if is_pending:
        closed = settings().closed_until
        publishing = (
            f"books are closed up to {closed}, so a window that ends by then publishes it."
            if closed and day <= closed
            else "a run without a window publishes it."
        )
        differ = "Published and ledger differ" + (" in subsidiaries alone" if coming == gmv else "")
        return Finality(day, PENDING, gmv, coming, None, None, f"{differ}: {publishing}")
    waits_for = [table for table, reaches in newest.items() if reaches is None or reaches <= day]
    age, horizon = history.age(day), history.horizon
    interval = history.interval(age)
    if interval is None:
        evidence = f"History is too thin: fewer than {FEWEST_DAYS} days are {age + horizon:,} days old."
        return Finality(day, PROVISIONAL, gmv, None, None, None, _and_feeds(evidence, waits_for))
    if waits_for:
        evidence = "No interval: it would assume that all tables are complete."
        return Finality(day, PROVISIONAL, gmv, None, None, None, _and_feeds(evidence, waits_for))
    low, high = _amount(gmv * interval.low, ROUND_FLOOR), _amount(gmv * interval.high, ROUND_CEILING)
    is_settled = interval.largest < settings().settled_share
    evidence = f"{interval.days:,} earlier days, from {_plural(age, 'day')} old to {horizon} days later."
    return Finality(day, SETTLED if is_settled else PROVISIONAL, gmv, None, low, high, evidence)


def _and_feeds(evidence: str, waits_for: Sequence[str]) -> str:
    return f"{evidence} No later events yet in {', '.join(waits_for)}." if waits_for else evidence


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _amount(value: Decimal, rounding: str) -> Decimal:
    return value.quantize(Decimal("0.01"), rounding)


def _by_day(places: Mapping[publication.Place, Decimal]) -> dict[dt.date, Decimal]:
    totals: dict[dt.date, Decimal] = defaultdict(lambda: Decimal("0.00"))
    for (day, _), gmv in places.items():
        totals[day] += gmv
    return totals
