"""Why a number is what it is: from each publication to the next, posting by posting, to the cent.

Each change of a day and subsidiary has parts that add up to it: the postings that the ledger received since the
number was published before. What they don't add up to is a part of its own, so that nothing is hidden.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gmv import publication
from gmv.errors import UsageError
from gmv.evidence import Part, postings
from gmv.lake.reader import Reader
from gmv.publication import Place, Window
from gmv.reasons import UNEXPLAINED

NOTHING = Decimal("0.00")


@dataclass(frozen=True)
class Change:
    """A number of a day and subsidiary that became another.

    Attributes:
        state: published; unpublished (postings that change no published number, such as a late event's);
            damaged (the published number is another than was published); pending (closed, waits to be
            published); in_progress (of today or later).
        before, after: empty where nothing counts.
        run, published_at: of the publication (UTC); empty for the other states.
        is_restatement: the day had been published before; of what is unpublished, before its last postings.
        parts: add up to the difference.
    """

    transaction_date: dt.date
    subsidiary: str
    state: str
    before: Decimal | None
    after: Decimal | None
    run: str | None = None
    published_at: dt.datetime | None = None
    is_restatement: bool = True
    parts: Sequence[Part] = field(default_factory=list)

    @property
    def is_waiting(self) -> bool:
        """The published number is not the coming one."""
        return self.state in ("pending", "in_progress")

    @property
    def difference(self) -> Decimal:
        return (self.after or NOTHING) - (self.before or NOTHING)


def days(reader: Reader, window: Window, today: dt.date) -> list[Change]:
    """What happened to the numbers of some days, from the first publication to what the ledger has now.

    Args:
        window: the days, inclusive.
        today: days before it are closed.

    Returns:
        By day and subsidiary in order of time; the differences of each add up to what the ledger has now.
    """
    found = reader.rows(
        """
        select distinct transaction_date as day from (
            select transaction_date from gold.gmv_ledger
            union all select transaction_date from gold.daily_gmv_history
            union all select transaction_date from gold.daily_gmv
        ) where transaction_date between $start_date and $end_date
        """,
        start_date=window.start_date,
        end_date=window.end_date,
    )
    return _changes(reader, [row["day"] for row in found], today)


def run(reader: Reader, run: str, today: dt.date) -> list[Change]:
    """What a run published, and the changes to which it posted, whichever run published them.

    Raises:
        UsageError: no run of that id published or posted anything, or is on record.
    """
    on = _days_of(reader, run)
    if not on and not reader.rows("select 1 from monitoring.runs where run = $run limit 1", run=run):
        raise UsageError(f"There is no run {run!r} in this lake; `gmv show runs` lists them.")
    return [change for change in _changes(reader, sorted(on), today) if _is_of(change, run)]


def run_and_waiting(reader: Reader, run: str, today: dt.date) -> list[Change]:
    """What `run` returns, and every other number that waits to be published."""
    waiting = publication.differing_days(publication.ledger_sums(reader), publication.published(reader))
    return [
        change
        for change in _changes(reader, sorted(_days_of(reader, run) | waiting), today)
        if _is_of(change, run) or change.is_waiting
    ]


def _days_of(reader: Reader, run: str) -> set[dt.date]:
    found = reader.rows(
        """
        select transaction_date as day from gold.gmv_ledger where run = $run
        union select transaction_date from gold.daily_gmv_history where run = $run
        """,
        run=run,
    )
    return {row["day"] for row in found}


def _is_of(change: Change, run: str) -> bool:
    return change.run == run or any(part.run == run for part in change.parts)


def _changes(reader: Reader, on: Sequence[dt.date], today: dt.date) -> list[Change]:
    judged = set(on)
    parts: dict[Place, list[Part]] = defaultdict(list)
    for place, part in postings(reader, on):
        parts[place].append(part)
    history: dict[Place, list[dict]] = defaultdict(list)
    first_published: dict[dt.date, dt.datetime] = {}
    for row in reader.rows(
        "select * from gold.daily_gmv_history where list_contains($days, transaction_date) "
        "order by ledger_seq, published_at",
        days=list(on),
    ):
        day = row["transaction_date"]
        history[day, row["subsidiary"]].append(row)
        first_published[day] = min(first_published.get(day, row["published_at"]), row["published_at"])
    published, sums = publication.published(reader), publication.ledger_sums(reader)
    places = {place for place in parts.keys() | history.keys() | published.keys() if place[0] in judged}
    return [
        change
        for place in sorted(places)
        for change in _of_place(
            place,
            parts[place],
            history[place],
            first_published.get(place[0]),
            published.get(place),
            sums.get(place),
            today,
        )
    ]


def _of_place(
    place: Place,
    parts: Sequence[Part],
    history: Iterable[dict],
    first_published: dt.datetime | None,
    published: Decimal | None,
    coming: Decimal | None,
    today: dt.date,
) -> list[Change]:
    changes: list[Change] = []
    before: Decimal | None = None
    seq = 0

    def add(state: str, after: Decimal | None, own: Sequence[Part], **of_publication: Any) -> None:
        nonlocal before
        rest = (after or NOTHING) - (before or NOTHING) - sum((part.amount for part in own), NOTHING)
        explained = [*own, Part(rest, UNEXPLAINED)] if rest else list(own)
        changes.append(Change(*place, state, before, after, **of_publication, parts=explained))
        before = after

    for row in history:
        own = [part for part in parts if seq < (part.ledger_seq or 0) <= row["ledger_seq"]]
        if row["previous_gmv"] != before:  # what was published in between is not on record
            add("damaged", row["previous_gmv"], [])
        add(
            "published",
            row["gmv"],
            own,
            run=row["run"],
            published_at=row["published_at"],
            is_restatement=row["published_at"] > first_published,
        )
        seq = row["ledger_seq"]
    if published != before:
        add("damaged", published, [])
    since = [part for part in parts if (part.ledger_seq or 0) > seq]
    if coming != published:
        state = "pending" if place[0] < today else "in_progress"
        add(state, coming, since, is_restatement=first_published is not None)
    elif since:
        last_posted = since[-1].recorded_at
        is_later = first_published and last_posted and last_posted > first_published
        add("unpublished", coming, since, is_restatement=bool(is_later))
    return changes
