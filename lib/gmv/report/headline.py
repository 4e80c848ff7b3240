"""The first ten seconds of the report: the newest number, what it is beside others, what moved and why."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from statistics import median

import pandas as pd

from gmv.finality import SETTLED, Finality
from gmv.report import data

WEEKS = 8
"""The same weekday's median is that of so many weeks before."""

FEWEST_WEEKDAYS = 4
"""A median of fewer days with GMV would say little."""


@dataclass(frozen=True)
class Fact:
    """A number beside the headline, with what it is and a note below it."""

    what: str
    value: str
    note: str


@dataclass(frozen=True)
class Headline:
    """The newest published day in numbers, and in words.

    Attributes:
        title: which day, and how old it is where that isn't yesterday.
        gmv: its GMV.
        facts: against the day before, against the weekday, the month so far, how final.
        in_words: what moved and why.
    """

    title: str
    gmv: Decimal
    facts: Sequence[Fact]
    in_words: str


def headline(
    published: pd.DataFrame, restated: pd.DataFrame, final: Sequence[Finality], today: dt.date
) -> Headline | None:
    """The headline; None where nothing has been published.

    Args:
        published: all of daily_gmv, as `data.daily_gmv` gives it.
        restated: what was restated since the last report, as `data.restatements` gives it.
        final: how final each day is.
        today: yesterday is the day before it.
    """
    if published.empty:
        return None
    totals: dict[dt.date, Decimal] = defaultdict(lambda: data.NOTHING)
    for row in published.to_dict("records"):
        totals[row["transaction_date"].date()] += row["gmv"]
    newest = max(totals)
    gmv = totals[newest]
    before = newest - dt.timedelta(days=1)
    title = f"GMV of {data.in_words(newest)}"
    behind = (today - dt.timedelta(days=1) - newest).days
    if behind > 0:
        title += f": {behind:,} day{'s' if behind > 1 else ''} older than yesterday"
    facts = [
        _against_day_before(gmv, before, totals.get(before)),
        _against_weekday(gmv, newest, totals),
        _month_so_far(newest, totals),
        _how_final(next(one for one in final if one.day == newest)),
    ]
    moved = _what_moved(published, newest, before)
    return Headline(title, gmv, facts, f"{moved} {restated_in_words(restated)}")


def restated_in_words(restated: pd.DataFrame) -> str:
    """How many earlier days changed since the last report, by how much, and mostly why."""
    if restated.empty:
        return "Since the last report, no earlier day has been restated."
    days = restated["transaction_date"].nunique()
    total = sum(restated["of_which"], Decimal(0))
    by_reason: dict[str, Decimal] = defaultdict(Decimal)
    for row in restated.to_dict("records"):
        by_reason[_net(row["why"])] += row["of_which"]
    largest = max(by_reason.items(), key=lambda item: (abs(item[1]), item[0]))
    counted = "1 earlier day was" if days == 1 else f"{days:,} earlier days were"
    return (
        f"Since the last report, {counted} restated, by {total:+,.2f} in all; "
        f"the largest part is {largest[1]:+,.2f}: {_lower(largest[0])}."
    )


def _against_day_before(gmv: Decimal, before: dt.date, of_before: Decimal | None) -> Fact:
    what = "Against the day before"
    if of_before is None:
        return Fact(what, "—", f"{data.in_words(before)} has no GMV")
    return Fact(what, f"{gmv - of_before:+,.2f}", _share(gmv, of_before))


def _against_weekday(gmv: Decimal, newest: dt.date, totals: Mapping[dt.date, Decimal]) -> Fact:
    earlier = [newest - dt.timedelta(weeks=number) for number in range(1, WEEKS + 1)]
    amounts = [totals[day] for day in earlier if day in totals]
    what = f"Against the usual {newest:%A}"
    if len(amounts) < FEWEST_WEEKDAYS:
        return Fact(what, "—", f"only {len(amounts)} of the {WEEKS} {newest:%A}s before have GMV")
    usual = median(amounts).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    note = f"{_share(gmv, usual)} of {usual:,.2f}, the median of {len(amounts)} {newest:%A}s"
    return Fact(what, f"{gmv - usual:+,.2f}", note)


def _month_so_far(newest: dt.date, totals: Mapping[dt.date, Decimal]) -> Fact:
    first = newest.replace(day=1)
    month = sum((gmv for day, gmv in totals.items() if day >= first), Decimal(0))
    days = sum(day >= first for day in totals)
    return Fact(f"{newest:%B} so far", f"{month:,.2f}", f"{days} day{'s' if days > 1 else ''} with GMV")


def _how_final(one: Finality) -> Fact:
    if one.low is None or one.high is None:
        return Fact("Is it final?", one.state, one.evidence)
    between = f"9 in 10 such days still change by {one.low:+,.2f} to {one.high:+,.2f}"
    return Fact("Is it final?", one.state, f"{between}{'' if one.state == SETTLED else '; see below'}")


def _what_moved(published: pd.DataFrame, newest: dt.date, before: dt.date) -> str:
    def by_subsidiary(day: dt.date) -> dict[str, Decimal]:
        rows = published[published["transaction_date"] == pd.Timestamp(day)]
        return dict(zip(rows["subsidiary"], rows["gmv"], strict=True))

    now, then = by_subsidiary(newest), by_subsidiary(before)
    if not then:
        largest = max(now, key=lambda name: (now[name], name))
        return f"The largest part of it is {largest}, with {now[largest]:,.2f}."
    zero = Decimal("0.00")
    moves = {name: now.get(name, zero) - then.get(name, zero) for name in now.keys() | then.keys()}
    change = sum(moves.values(), zero)
    if not any(moves.values()):
        return "No subsidiary has another number than the day before."
    direction = "Unchanged in all" if not change else f"{'Up' if change > 0 else 'Down'} {abs(change):,.2f}"
    largest = max(moves, key=lambda name: (moves[name] * change > 0, abs(moves[name]), name))
    told = f"{direction} against the day before, most of all in {largest} ({moves[largest]:+,.2f})"
    against = max(moves, key=lambda name: (abs(moves[name]), name))
    if against != largest:
        told += f"; the other way went {against} ({moves[against]:+,.2f})"
    return f"{told}."


def _net(why: str) -> str:
    """The reason without its direction: what moves between places goes out of one and into another."""
    for beginning, net in (
        ("Subsidiary became known", "Subsidiary became known"),
        ("Moved here from another", "Moved between"),
        ("Moved to another", "Moved between"),
    ):
        if why.startswith(beginning):
            rest, comma, because = why.removeprefix(beginning).partition(",")
            place = {" day": " days", " subsidiary": " subsidiaries"}.get(rest, "")
            return f"{net}{place}{comma}{because}"
    return why


def _share(gmv: Decimal, of: Decimal) -> str:
    return f"{(gmv - of) / of * 100:+,.1f} %" if of else "from nothing"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
