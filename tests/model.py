"""The rules of GMV in plain Python: a second opinion on every number, to be read in one go.

Shares nothing with the pipeline. An event is a value of one of three classes; its fields are the table's
columns, in order, and an empty value is None. Amounts are exact: arithmetic that would round raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import ClassVar, NamedTuple

UNKNOWN = "unknown"
EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True)
class Purchase:
    table: ClassVar[str] = "purchase"
    transaction_datetime: datetime
    transaction_date: date
    purchase_id: str
    buyer_id: int | None = None
    prod_item_id: int | None = None
    order_date: date | None = None
    release_date: date | None = None
    producer_id: int | None = None


@dataclass(frozen=True)
class ProductItem:
    table: ClassVar[str] = "product_item"
    transaction_datetime: datetime
    transaction_date: date
    purchase_id: str
    product_id: int | None
    item_quantity: int
    purchase_value: Decimal


@dataclass(frozen=True)
class PurchaseExtraInfo:
    table: ClassVar[str] = "purchase_extra_info"
    transaction_datetime: datetime
    transaction_date: date
    purchase_id: str
    subsidiary: str


Event = Purchase | ProductItem | PurchaseExtraInfo
EVENT_CLASSES = {cls.table: cls for cls in (Purchase, ProductItem, PurchaseExtraInfo)}


class Standing(NamedTuple):
    """Where a purchase counts, and with how much. Nowhere is None."""

    transaction_date: date
    subsidiary: str
    amount: Decimal


class PostingKey(NamedTuple):
    purchase_id: str
    known_on: date
    transaction_date: date
    subsidiary: str
    reason: str


# --- Rule 1: the latest version ---------------------------------------------------------------------


def precedence(event: Event) -> tuple:
    """Greater wins: first the time, then the other columns in order; empty is below every value."""
    others = [
        getattr(event, field.name)
        for field in fields(event)
        if field.name not in ("transaction_datetime", "purchase_id")
    ]
    by_bytes = [value.encode() if isinstance(value, str) else value for value in others]
    # A pair of None with None is equal, of None with a value is decided by its first half.
    return event.transaction_datetime, *((value is not None, value) for value in by_bytes)


def latest(events: Iterable[Event]) -> dict[tuple[str, str], Event]:
    """The latest version by (table, purchase_id)."""
    newest: dict[tuple[str, str], Event] = {}
    for event in events:
        key = (event.table, event.purchase_id)
        if key not in newest or precedence(event) > precedence(newest[key]):
            newest[key] = event
    return newest


# --- Rules 2 to 6: where a purchase counts, and the sums ------------------------------------------------


def as_of(events: Iterable[Event], on: date) -> list[Event]:
    """The events that had happened by the end of that day."""
    return [event for event in events if event.transaction_datetime.date() <= on]


def standing(events: Iterable[Event], purchase_id: str, on: date = date.max) -> Standing | None:
    """Where the purchase counts, as known at the end of that day."""
    known = latest(event for event in as_of(events, on) if event.purchase_id == purchase_id)
    purchase = known.get(("purchase", purchase_id))
    item = known.get(("product_item", purchase_id))
    extra_info = known.get(("purchase_extra_info", purchase_id))
    if purchase is None or purchase.release_date is None or item is None:
        return None
    amount = EXACT.multiply(item.purchase_value, Decimal(item.item_quantity))
    return Standing(purchase.transaction_date, extra_info.subsidiary if extra_info else UNKNOWN, amount)


def awaits_item(events: Iterable[Event], purchase_id: str, on: date) -> bool:
    """Paid, but without any item, as known at the end of that day."""
    known = latest(event for event in as_of(events, on) if event.purchase_id == purchase_id)
    purchase = known.get(("purchase", purchase_id))
    return bool(purchase and purchase.release_date) and ("product_item", purchase_id) not in known


def as_known(events: Iterable[Event], on: date) -> dict[tuple[date, str], Decimal]:
    """GMV by (transaction_date, subsidiary) as known at the end of that day; no row where nothing counts."""
    events = list(events)
    gmv: dict[tuple[date, str], Decimal] = {}
    for purchase_id in {event.purchase_id for event in events}:
        if place := standing(events, purchase_id, on):
            key = (place.transaction_date, place.subsidiary)
            gmv[key] = EXACT.add(gmv.get(key, Decimal("0.00")), place.amount)
    return gmv


def daily_gmv(events: Iterable[Event]) -> dict[tuple[date, str], Decimal]:
    """GMV by (transaction_date, subsidiary), by all events."""
    return as_known(events, date.max)


# --- The ledger ---------------------------------------------------------------------------------------


def postings(events: Iterable[Event]) -> dict[PostingKey, tuple[Decimal, int]]:
    """(amount, purchases) of every posting: what the ledger should sum up to by its key."""
    events = list(events)
    ledger = {}
    for purchase_id in {event.purchase_id for event in events}:
        own = [event for event in events if event.purchase_id == purchase_id]
        before, awaited_item = None, False
        for known_on in sorted({event.transaction_datetime.date() for event in own}):
            after = standing(own, purchase_id, known_on)
            for place, amount, purchases, reason in change(before, after, awaited_item):
                key = PostingKey(purchase_id, known_on, place.transaction_date, place.subsidiary, reason)
                assert key not in ledger
                ledger[key] = (amount, purchases)
            before, awaited_item = after, awaits_item(own, purchase_id, known_on)
    return ledger


def change(before: Standing | None, after: Standing | None, awaited_item: bool) -> list[tuple]:
    """The postings (place, amount, purchases, reason) that lead from one standing to another."""
    if before is None and after is None:
        return []
    if before is None:
        return [(after, after.amount, 1, "item_arrived" if awaited_item else "paid")]
    if after is None:
        return [(before, EXACT.minus(before.amount), -1, "withdrawn")]
    posted = []
    if before[:2] != after[:2]:
        if before.transaction_date != after.transaction_date:
            reason = "moved_day"
        else:
            reason = "subsidiary_known" if before.subsidiary == UNKNOWN else "moved_subsidiary"
        posted.append((before, EXACT.minus(before.amount), -1, reason))
        posted.append((after, before.amount, 1, reason))
    if before.amount != after.amount:
        posted.append((after, EXACT.subtract(after.amount, before.amount), 0, "repriced"))
    return posted
