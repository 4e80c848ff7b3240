"""What `gmv explain` and `gmv plan` print: rows for csv and json, tables in finance words for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from gmv.explain import NOTHING, Change, Part

MOST_ROWS = 20
WIDTH = 100

EXPLAIN_COLUMNS = (
    *("transaction_date", "subsidiary", "state", "published_by", "published_at", "before", "after"),
    *("amount", "reason", "why", "cause", "purchase_id", "purchases", "known_on"),
    *("posted_by", "ledger_seq", "recorded_at"),
    *("event_table", "event_at", "event_values", "event_file", "arrived_files", "because"),
)

_STATES = {
    "published": "published",
    "unpublished": "posted, changes no published number",
    "damaged": "damaged",
    "pending": "pending: waits to be published",
    "in_progress": "in progress: not published yet",
}


def explanation_rows(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """A row for each part of each change, with the columns EXPLAIN_COLUMNS.

    `amount` adds up to `after` - `before` over the rows of a change, an empty one counting as 0.
    """
    return [
        {
            "transaction_date": change.transaction_date,
            "subsidiary": change.subsidiary,
            "state": change.state,
            "published_by": change.run,
            "published_at": change.published_at,
            "before": change.before,
            "after": change.after,
            "amount": part.amount,
            "reason": part.reason,
            "why": part.why,
            "cause": part.cause,
            "purchase_id": part.purchase_id,
            "purchases": part.purchases,
            "known_on": part.known_on,
            "posted_by": part.run,
            "ledger_seq": part.ledger_seq,
            "recorded_at": part.recorded_at,
            "event_table": part.event.table if part.event else None,
            "event_at": part.event.at if part.event else None,
            "event_values": _values(part) if part.event else None,
            "event_file": part.event.file if part.event else None,
            "arrived_files": list(part.arrived),
            "because": part.because,
        }
        for change in changes
        for part in change.parts
    ]


def explanation(changes: Sequence[Change]) -> Iterator[RenderableType]:
    """Tables for people: the numbers in order of time, then why they changed, then the postings."""
    if not changes:
        yield "Nothing counts on these days, and nothing ever did."
        return
    restated = [change for change in changes if change.is_restatement]
    yield _numbers(changes, restated)
    if restated:
        yield _why("Why it changed after it was first published", restated)
        yield _postings("The postings behind that", restated)
    else:
        yield _why("Why it is what it is (it never changed)", changes)
        yield _postings("The postings behind that", changes)


def _numbers(changes: Sequence[Change], restated: Sequence[Change]) -> Table:
    table = _table(
        "The numbers, in order of time", day="", subsidiary="", what="", GMV="right", change="right"
    )
    shown = changes if len(changes) <= 2 * MOST_ROWS else restated
    for change in shown[-2 * MOST_ROWS :]:
        table.add_row(
            str(change.transaction_date),
            escape(change.subsidiary),
            _when(change),
            f"{_amount(change.before)} → {_amount(change.after)}",
            f"{change.difference:+,.2f}",
        )
    waiting = [change for change in changes if change.state in ("pending", "in_progress")]
    first = _sum(change for change in changes if not change.is_restatement and change not in waiting)
    published = _sum(change for change in changes if change not in waiting)
    table.add_section()
    table.add_row("", "", "as first published", f"{first:,.2f}", "")
    table.add_row("", "", "published now", f"{published:,.2f}", f"{published - first:+,.2f}")
    if waiting:
        coming = _sum(changes)
        table.add_row("", "", "when all is published", f"{coming:,.2f}", f"{coming - published:+,.2f}")
    if len(shown) > 2 * MOST_ROWS or len(shown) < len(changes):
        table.caption = f"The newest of {len(changes):,} changes; --format csv prints all."
    return table


def _why(title: str, changes: Sequence[Change]) -> Table:
    """The changes by reason, subsidiary, run and purchase; each of the four adds up to the same."""
    by: dict[str, Callable[[Change, Part], str]] = {
        "reason": lambda _, part: part.why,
        "subsidiary": lambda change, _: change.subsidiary,
        "run": lambda change, _: change.run or _STATES[change.state],
        "purchase": lambda _, part: part.purchase_id or "none",
    }
    table = _table(title, by="", what="", purchases="right", change="right")
    for name, key in by.items():
        amounts: dict[str, Decimal] = defaultdict(lambda: NOTHING)
        purchases: dict[str, set[str]] = defaultdict(set)
        for change in changes:
            for part in change.parts:
                amounts[key(change, part)] += part.amount
                purchases[key(change, part)] |= {part.purchase_id} if part.purchase_id else set()
        largest = sorted(amounts.items(), key=lambda item: (-abs(item[1]), item[0]))
        for value, amount in largest[:MOST_ROWS]:
            table.add_row(name, escape(value), f"{len(purchases[value]):,}", f"{amount:+,.2f}")
        if others := largest[MOST_ROWS:]:
            rest = sum((amount for _, amount in others), NOTHING)
            table.add_row(name, f"{len(others):,} others", "", f"{rest:+,.2f}")
        table.add_section()
    concerned = {part.purchase_id for change in changes for part in change.parts if part.purchase_id}
    table.add_row("together", "", f"{len(concerned):,}", f"{_sum(changes):+,.2f}")
    return table


def _sum(changes: Iterable[Change]) -> Decimal:
    return sum((change.difference for change in changes), NOTHING)


def _postings(title: str, changes: Iterable[Change]) -> Table:
    table = _table(title, counted="", change="right", why="", purchase="", **{"the event, and its file": ""})
    table.columns[2].max_width = 22  # the files' names need the room
    parts = [(change, part) for change in changes for part in change.parts]
    shown = parts
    if len(parts) > MOST_ROWS:
        shown = sorted(parts, key=lambda pair: -abs(pair[1].amount))[:MOST_ROWS]
        table.caption = f"The {MOST_ROWS} largest of {len(parts):,}; --format csv prints all."
    for change, part in shown:
        table.add_row(
            f"{change.transaction_date}\n{escape(change.subsidiary)}",
            f"{part.amount:+,.2f}",
            escape(part.why),
            escape(part.purchase_id or ""),
            escape(_event(part)),
        )
    return table


def _event(part: Part) -> str:
    lines = []
    if part.event:
        lines.append(f"{part.event.table} of {part.event.at:%Y-%m-%d %H:%M}: {_values(part)}")
        lines.append(part.event.file)
    elif part.purchase_id:
        lines.append(f"an event of {part.known_on} that is not in force now")
    others = [file for file in part.arrived if not part.event or file != part.event.file]
    if others:
        lines.append(f"posted when {', '.join(others)} {_came(part)}")
    if part.because:
        lines.append(f"because: {part.because}")
    return "\n".join(lines)


def _came(part: Part) -> str:
    return {"retraction": "was retracted", "undo": "was restored"}.get(part.cause, "arrived")


def _values(part: Part) -> str:
    assert part.event is not None
    values = part.event.values
    if part.event.table == "product_item":
        return f"{values['item_quantity']} × {values['purchase_value']:,.2f}"
    if part.event.table == "purchase_extra_info":
        return str(values["subsidiary"])
    if values["release_date"] is None:
        return "not paid"
    return f"paid {values['release_date']}, for {values['transaction_date']}"


def _when(change: Change) -> str:
    if change.published_at is None:
        return _STATES[change.state]
    how = "restated" if change.is_restatement else "first published"
    return f"{how} {change.published_at:%Y-%m-%d %H:%M} by {change.run}"


def _amount(value: Decimal | None) -> str:
    return "no row" if value is None else f"{value:,.2f}"


def _table(title: str, **columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name, justify in columns.items():
        table.add_column(name, justify="right" if justify else "left", overflow="fold")
    return table
