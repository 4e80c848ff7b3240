"""Hypothesis strategies for events that collide, and the CSV files in which they arrive.

Few purchases, few days and few times: so that ties, copies, withdrawals, moves and missing tables are common.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

from hypothesis import strategies as st
from model import EVENT_CLASSES, Event, ProductItem, Purchase, PurchaseExtraInfo

PURCHASE_IDS = ("7", "07", "A1", "a1")  # four purchases, however alike
DAYS = (date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1), date(2024, 3, 2), date(2025, 3, 1))
TIMES = (time(0, 0), time(12, 30, 15), time(23, 59, 59, 999999))
# U+FB01 and the trolley sort the other way round in UTF-16 than in UTF-8.
SUBSIDIARIES = ("nacional", "Nacional", "São Paulo", "日本", "\ufb01lial", "🛒", "unknown", 'a "b", c')
QUANTITIES = (0, 1, 2, 10, 2**31 - 1)
VALUES = tuple(Decimal(text) for text in ("0.00", "0.01", "19.99", "100.00", "9999999999999999.99"))

_times = st.builds(datetime.combine, st.sampled_from(DAYS), st.sampled_from(TIMES))
_days = st.sampled_from(DAYS)
_day_or_empty = st.sampled_from((None, *DAYS))
_number_or_empty = st.sampled_from((None, -1, 0, 7, 2**63 - 1))


def purchases(purchase_id: str) -> st.SearchStrategy[Purchase]:
    """Versions of one purchase, two of seven without payment: so that some are withdrawn and paid again."""
    return st.builds(
        Purchase,
        transaction_datetime=_times,
        transaction_date=_days,
        purchase_id=st.just(purchase_id),
        buyer_id=_number_or_empty,
        prod_item_id=_number_or_empty,
        order_date=_day_or_empty,
        release_date=st.sampled_from((None, None, *DAYS)),
        producer_id=_number_or_empty,
    )


def product_items(purchase_id: str) -> st.SearchStrategy[ProductItem]:
    return st.builds(
        ProductItem,
        transaction_datetime=_times,
        transaction_date=_days,
        purchase_id=st.just(purchase_id),
        product_id=_number_or_empty,
        item_quantity=st.sampled_from(QUANTITIES),
        purchase_value=st.sampled_from(VALUES),
    )


def purchase_extra_infos(purchase_id: str) -> st.SearchStrategy[PurchaseExtraInfo]:
    return st.builds(
        PurchaseExtraInfo,
        transaction_datetime=_times,
        transaction_date=_days,
        purchase_id=st.just(purchase_id),
        subsidiary=st.sampled_from(SUBSIDIARIES),
    )


@st.composite
def event_lists(draw: st.DrawFn, max_purchases: int = 3, max_versions: int = 4) -> list[Event]:
    """Valid events of some purchases in any order: up to `max_versions` in each table, ties and copies."""
    events: list[Event] = []
    for purchase_id in draw(st.lists(st.sampled_from(PURCHASE_IDS), max_size=max_purchases, unique=True)):
        for versions_of in (purchases, product_items, purchase_extra_infos):
            wanted = draw(st.integers(0, max_versions))
            events += [draw(versions_of(purchase_id)) for _ in range(wanted)]
    return draw(st.permutations(events))


@dataclass(frozen=True)
class LandedFile:
    """A CSV file as it arrives: its name, its table, its columns in their order, and its events."""

    name: str
    table: str
    columns: tuple[str, ...]
    events: tuple[Event, ...]

    def write(self, folder: Path) -> Path:
        return write_csv(folder, self.name, self.table, self.events, self.columns)


@st.composite
def arrivals(draw: st.DrawFn, events: Sequence[Event], max_runs: int = 3) -> list[list[LandedFile]]:
    """The events as files that arrive before each of some runs: every event at least once, some again.

    Files have distinct names, may have their columns in any order, and a run may find none.
    """
    runs = draw(st.integers(1, max_runs))
    batches: dict[tuple[int, str, int], list[Event]] = {}
    copied = draw(st.lists(st.sampled_from(events), max_size=4)) if events else []
    for event in draw(st.permutations([*events, *copied])):
        run, part = draw(st.integers(0, runs - 1)), draw(st.integers(0, 1))
        batches.setdefault((run, event.table, part), []).append(event)
    files: list[list[LandedFile]] = [[] for _ in range(runs)]
    for (run, table, part), batch in sorted(batches.items(), key=lambda item: item[0]):
        columns = draw(st.just(column_names(table)) | st.permutations(column_names(table)))
        files[run].append(LandedFile(f"{table}-{run}_{part}.csv", table, tuple(columns), tuple(batch)))
    return files


@st.composite
def event_arrivals(
    draw: st.DrawFn, max_purchases: int = 3, max_runs: int = 3
) -> tuple[list[Event], list[list[LandedFile]]]:
    """Events, and the files and runs in which they arrive."""
    events = draw(event_lists(max_purchases))
    return events, draw(arrivals(events, max_runs))


def column_names(table: str) -> list[str]:
    """The columns of an event table, in the order in which sources write them."""
    return [field.name for field in fields(EVENT_CLASSES[table])]


def write_csv(
    folder: Path, name: str, table: str, events: Sequence[Event], columns: Sequence[str] | None = None
) -> Path:
    """Write events of one table as a CSV file, as a source would; the columns in another order if given."""
    columns = column_names(table) if columns is None else list(columns)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for event in events:
            writer.writerow(_text(getattr(event, column)) for column in columns)
    return path


def _text(value: object) -> str:
    return "" if value is None else str(value)
