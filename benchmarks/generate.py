"""Makes event CSV files like those of a marketplace: late, twice, out of order, corrected. The same seed
gives the same bytes.

Days follow each other as they would at the source. Each day brings new purchases, decides their whole life
(payment, extra information, corrections), and writes what arrives on it: its own events, and those of
earlier days that had to wait. So memory holds one day and the events on their way, however long the history.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import typer
from rich.console import Console
from rich.table import Table

HISTORY_DAYS = 731
"""Two years, one of them a leap year. A steady history lasts as long as it takes."""

PAID = 0.85
"""Share of purchases that are ever paid."""
PAYMENT_LAG_DAYS = 3
"""Mean of the exponential time from purchase to payment."""
CORRECTED = 0.05
"""Share of all purchases that are corrected once, after payment and extra information."""
CORRECTED_WITHIN_DAYS = 90
CORRECTIONS = {"repriced": 0.40, "withdrawn": 0.25, "moved_day": 0.15, "moved_subsidiary": 0.20}
"""What is corrected, as shares of the corrections."""
LATE = 1 / 10_000
"""Share of events that arrive after the day on which they happened."""
LATE_UP_TO_DAYS = 365
REPEATED = 1 / 500
"""Share of events that arrive once more, as exact copies."""
REPEATED_WITHIN_DAYS = 3
EXTRA_INFO_MEDIAN_MINUTES = 30
EXTRA_INFO_SIGMA = 2.0
"""Of the lognormal time from purchase to extra information: 2 % take longer than a day."""

WEEKDAYS = np.array([0.95, 0.85, 0.85, 0.95, 1.15, 1.25, 1.00])
"""Purchases by day of the week, Monday first; 1 on average."""
GROWTH = (0.1, 1.9)
"""Purchases at the begin and the end of the history, by its average: it grows on a line."""

SUBSIDIARIES = pa.array(["nacional", "internacional", "latam", "europa", "asia"])
SUBSIDIARY_SHARES = [0.60, 0.25, 0.08, 0.05, 0.02]
MEDIAN_CENTS = np.array([8_990, 19_900, 5_490, 24_900, 14_900])
"""Of purchase_value, by subsidiary; the values are lognormal around it."""
VALUE_SIGMA = 0.7
LOWEST_CENTS = 100

BUYERS, PRODUCTS, PRODUCERS = 500_000, 60_000, 4_000

_DAY = 86_400  # seconds
_EVENT = [("happens", "M8[s]"), ("arrives", "M8[s]"), ("purchase_id", "i8")]
_PURCHASE = np.dtype(
    [
        *_EVENT,
        ("buyer_id", "i8"),
        ("prod_item_id", "i8"),
        ("order_date", "M8[D]"),
        ("release_date", "M8[D]"),
        ("producer_id", "i8"),
    ]
)
_PRODUCT_ITEM = np.dtype([*_EVENT, ("product_id", "i8"), ("item_quantity", "i8"), ("cents", "i8")])
_PURCHASE_EXTRA_INFO = np.dtype([*_EVENT, ("subsidiary", "i8")])
_UNPAID = np.datetime64("NaT", "D")

Events = dict[str, np.ndarray]
"""Events by table name."""


@dataclass(frozen=True)
class Written:
    """A file and what it holds."""

    path: Path
    rows: int
    bytes: int


# --- The life of a day's purchases --------------------------------------------------------------------


def _lives(day: np.datetime64, first_id: int, count: int, rng: np.random.Generator) -> Events:
    """All events, whenever they happen and arrive, of the purchases that are made on a day."""
    purchases = np.zeros(count, _PURCHASE)
    purchases["happens"] = day + _seconds(np.sort(rng.triangular(0, 0.8 * _DAY, _DAY, count)))
    purchases["purchase_id"] = np.arange(first_id, first_id + count)
    purchases["buyer_id"] = rng.integers(1, BUYERS, count, endpoint=True)
    purchases["prod_item_id"] = rng.integers(1, PRODUCTS, count, endpoint=True)
    purchases["order_date"] = day
    purchases["release_date"] = _UNPAID
    purchases["producer_id"] = rng.integers(1, PRODUCERS, count, endpoint=True)

    infos = np.zeros(count, _PURCHASE_EXTRA_INFO)
    minutes = EXTRA_INFO_MEDIAN_MINUTES * rng.lognormal(0, EXTRA_INFO_SIGMA, count)
    infos["happens"] = purchases["happens"] + _seconds(60 * minutes)
    infos["purchase_id"] = purchases["purchase_id"]
    infos["subsidiary"] = rng.choice(len(SUBSIDIARIES), count, p=SUBSIDIARY_SHARES)

    items = np.zeros(count, _PRODUCT_ITEM)
    items["happens"] = purchases["happens"]
    items["purchase_id"] = purchases["purchase_id"]
    items["product_id"] = rng.integers(1, PRODUCTS, count, endpoint=True)
    items["item_quantity"] = rng.geometric(0.75, count)
    # A random number becomes whole cents here, once; from here on no amount is a float.
    cents = np.rint(MEDIAN_CENTS[infos["subsidiary"]] * rng.lognormal(0, VALUE_SIGMA, count))
    items["cents"] = np.maximum(cents.astype("i8"), LOWEST_CENTS)

    is_paid = rng.random(count) < PAID
    payments = purchases[is_paid]
    payments["happens"] += _seconds(rng.exponential(PAYMENT_LAG_DAYS * _DAY, len(payments)))
    payments["release_date"] = payments["happens"].astype("M8[D]")

    corrections = _corrections(payments, items[is_paid], infos[is_paid], rng)
    return {
        "purchase": _sent(np.concatenate([purchases, payments, corrections["purchase"]]), rng),
        "product_item": _sent(np.concatenate([items, corrections["product_item"]]), rng),
        "purchase_extra_info": _sent(np.concatenate([infos, corrections["purchase_extra_info"]]), rng),
    }


def _corrections(
    payments: np.ndarray, items: np.ndarray, infos: np.ndarray, rng: np.random.Generator
) -> Events:
    """The corrections of paid purchases, whose payments, items and extra information come row by row."""
    is_corrected = rng.random(len(payments)) < CORRECTED / PAID
    payments, items, infos = payments[is_corrected], items[is_corrected], infos[is_corrected]
    lag = rng.integers(1, CORRECTED_WITHIN_DAYS * _DAY, len(payments), endpoint=True)
    corrected_at = np.maximum(payments["happens"], infos["happens"]) + _seconds(lag)
    kinds = rng.choice(list(CORRECTIONS), len(payments), p=list(CORRECTIONS.values()))
    for events in (payments, items, infos):
        events["happens"] = corrected_at

    withdrawn = payments[kinds == "withdrawn"]
    withdrawn["release_date"] = _UNPAID
    moved = payments[kinds == "moved_day"]
    moved["release_date"] = moved["happens"].astype("M8[D]")
    repriced = items[kinds == "repriced"]
    percent = rng.choice([50, 75, 90, 95, 105, 110, 125], len(repriced))
    repriced["cents"] = repriced["cents"] * percent // 100
    elsewhere = infos[kinds == "moved_subsidiary"]
    steps = rng.integers(1, len(SUBSIDIARIES), len(elsewhere))
    elsewhere["subsidiary"] = (elsewhere["subsidiary"] + steps) % len(SUBSIDIARIES)
    return {
        "purchase": np.concatenate([withdrawn, moved]),
        "product_item": repriced,
        "purchase_extra_info": elsewhere,
    }


def _sent(events: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The events with the time when they arrive, and copies of some."""
    is_late = rng.random(len(events)) < LATE
    lateness = rng.integers(_DAY, LATE_UP_TO_DAYS * _DAY, len(events), endpoint=True)
    events["arrives"] = events["happens"] + _seconds(np.where(is_late, lateness, 0))
    copies = events[rng.random(len(events)) < REPEATED]
    copies["arrives"] += _seconds(rng.integers(0, REPEATED_WITHIN_DAYS * _DAY, len(copies), endpoint=True))
    return np.concatenate([events, copies])


def _seconds(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype("i8").astype("m8[s]")


# --- Day after day --------------------------------------------------------------------------------------


def _purchases_by_day(
    days: np.ndarray, trend: np.ndarray, purchases: int, per_day: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How many purchases each day brings: `purchases` in all of the history, then about `per_day` a day.

    Args:
        trend: each of the history's days by its average.

    Returns:
        The purchases of each day, and which share of them is as many as `per_day` a day: 1 where they are fewer.
    """
    weekday = (days.astype("i8") + 3) % 7  # 1970-01-01 was a Thursday
    volume = WEEKDAYS[weekday] * rng.lognormal(0, 0.05, len(days))
    history = volume[: len(trend)] * trend
    until = np.rint(purchases * np.cumsum(history) / history.sum()).astype("i8")
    counts, after = np.diff(until, prepend=0), np.rint(per_day * volume[len(trend) :]).astype("i8")
    shares = np.minimum(per_day * volume[: len(trend)] / np.maximum(counts, 1), 1)
    return np.concatenate([counts, after]), np.concatenate([shares, np.ones(len(after))])


def _arrivals(
    days: np.ndarray, counts: np.ndarray, shares: np.ndarray, last_day: np.datetime64, seed: int
) -> Iterator[Events]:
    """What arrives on each of the days, in the order of its arrival.

    Args:
        shares: of each day's purchases, how many have events that arrive after the first load.
        last_day: of the first load.
    """
    on_their_way: Events = {}
    first_id = 1
    for day, count, share in zip(days, counts, shares, strict=True):
        rng = np.random.default_rng((seed, int(day.astype("i8"))))
        arrived: Events = {}
        lives = _lives(day, first_id, int(count), rng)
        goes_on = rng.random(count) < share
        for table, events in lives.items():
            is_in_load = events["arrives"].astype("M8[D]") <= last_day
            events = events[is_in_load | goes_on[events["purchase_id"] - first_id]]
            waiting = np.concatenate([on_their_way[table], events]) if table in on_their_way else events
            is_here = waiting["arrives"].astype("M8[D]") == day
            on_their_way[table] = waiting[~is_here]
            today = waiting[is_here]
            arrived[table] = today[np.argsort(today["arrives"], kind="stable")]
        yield arrived
        first_id += int(count)


# --- Files ------------------------------------------------------------------------------------------------


def _csv_table(events: np.ndarray) -> pa.Table:
    """The events as the columns of their CSV file."""
    columns: dict[str, pa.Array] = {
        "transaction_datetime": pa.array(events["happens"]),
        "transaction_date": pa.array(events["happens"].astype("M8[D]")),
        "purchase_id": pa.array(events["purchase_id"]),
    }
    for name in events.dtype.names[len(_EVENT) :]:
        if name == "cents":
            whole = pa.array(events["cents"]).cast(pa.decimal128(19, 0))
            columns["purchase_value"] = pc.multiply(whole, pa.scalar(Decimal("0.01")))
        elif name == "subsidiary":
            columns["subsidiary"] = SUBSIDIARIES.take(pa.array(events["subsidiary"]))
        else:
            columns[name] = pa.array(events[name])
    return pa.table(columns)


class _Files:
    """The files that are being written, one per table, until the next ones are begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Written] = []
        self._open: dict[str, tuple[BinaryIO, int]] = {}

    def begin(self, suffix: str) -> None:
        """Close the files, and write to `<table><suffix>.csv` from now on."""
        self.close()
        self._suffix = suffix

    def write(self, arrived: Events) -> None:
        for table, events in arrived.items():
            is_new = table not in self._open
            if is_new:
                self._open[table] = (self.folder / f"{table}{self._suffix}.csv").open("wb"), 0
            file, rows = self._open[table]
            options = pa.csv.WriteOptions(include_header=is_new, quoting_style="none", quoting_header="none")
            pa.csv.write_csv(_csv_table(events), file, options)
            self._open[table] = file, rows + len(events)

    def close(self) -> None:
        for file, rows in self._open.values():
            file.close()
            path = Path(file.name)
            self.written.append(Written(path, rows, path.stat().st_size))
        self._open = {}


def generate(
    out: Path,
    purchases: int,
    increments: int = 0,
    seed: int = 1,
    end_date: date = date(2024, 12, 31),
    parts: int = 1,
    per_day: int = 5_500,
    steady: bool = False,
) -> list[Written]:
    """Write a first load, and the files of the days after it. Returns every file with its rows and bytes.

    The first load does not depend on `increments`, nor on `per_day` unless it is steady: more of them only add files.
    A day after it brings `per_day` new purchases, and the late events and corrections that so many a day have,
    however many more the history had: else a day after a larger history would bring more.

    Args:
        out: folder to make. It appears whole or not at all.
        purchases: made in the two years of the first load.
        increments: days after the first load; each has a file per table, named after the day.
        seed: the same one gives the same bytes.
        end_date: the last day of the first load, which holds all that arrived by its end.
        parts: files per table of the first load, each of some months of arrivals.
        per_day: purchases made on each day after the first load, on average, whatever its size. Of a history with
            more a day, only so many have events that arrive after the first load.
        steady: the first load has `per_day` purchases a day, too, and as many days as that takes, instead of two
            years on which they grow. So more purchases are a longer history, not fuller days.

    Raises:
        FileExistsError: `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists. Remove it, or name another folder.")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    trend = np.ones(max(1, round(purchases / per_day))) if steady else np.linspace(*GROWTH, HISTORY_DAYS)
    first_day = np.datetime64(end_date - timedelta(days=len(trend) - 1), "D")
    days = first_day + np.arange(len(trend) + increments)
    counts, shares = _purchases_by_day(days, trend, purchases, per_day, np.random.default_rng(seed))
    if steady:
        shares = np.ones(len(days))

    files = _Files(partial)
    begun = None
    for number, arrived in enumerate(_arrivals(days, counts, shares, days[len(trend) - 1], seed)):
        if number >= len(trend):
            suffix = f"-{days[number]}"
        else:
            suffix = f"-part-{number * parts // len(trend) + 1:03}" if parts > 1 else ""
        if suffix != begun:
            files.begin(suffix)
            begun = suffix
        files.write(arrived)
    files.close()
    partial.rename(out)
    return [Written(out / file.path.name, file.rows, file.bytes) for file in files.written]


# --- Command line -------------------------------------------------------------------------------------------

EXAMPLES = """
Examples:

  python benchmarks/generate.py /tmp/small --purchases 20000

  python benchmarks/generate.py /tmp/large --purchases 2000000 --increments 30 --seed 1

  python benchmarks/generate.py /tmp/parts --purchases 200000 --parts 12 --end-date 2023-12-31

  python benchmarks/generate.py /tmp/ten-years --purchases 20000000 --steady
"""


def main(
    out: Annotated[Path, typer.Argument(help="Folder to make and to write the CSV files to")],
    purchases: Annotated[
        int, typer.Option(min=0, help="Purchases in the two years of the first load")
    ] = 20_000,
    increments: Annotated[
        int, typer.Option(min=0, help="Days after the first load, each with its own dated files")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes")] = 1,
    end_date: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day of the first load")
    ] = datetime(2024, 12, 31),
    parts: Annotated[
        int, typer.Option(min=1, max=HISTORY_DAYS, help="Files per table of the first load")
    ] = 1,
    per_day: Annotated[
        int, typer.Option(min=0, help="Purchases a day after the first load, on average")
    ] = 5_500,
    steady: Annotated[
        bool,
        typer.Option("--steady", help="As many a day in the first load, which lasts as long as that takes"),
    ] = False,
) -> None:
    """Write event CSV files: a first load of two years, then one file per table and day."""
    console = Console()
    if steady and not per_day:
        raise typer.BadParameter("--steady needs purchases on each day: --per-day above 0.")
    try:
        files = generate(out, purchases, increments, seed, end_date.date(), parts, per_day, steady)
    except FileExistsError as error:
        Console(stderr=True).print(str(error), soft_wrap=True)
        raise typer.Exit(2) from None
    table = Table("file")
    table.add_column("rows", justify="right")
    table.add_column("bytes", justify="right")
    for file in files:
        table.add_row(file.path.name, f"{file.rows:,}", f"{file.bytes:,}")
    table.add_section()
    table.add_row("total", f"{sum(file.rows for file in files):,}", f"{sum(file.bytes for file in files):,}")
    console.print(table)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(main)
    app()
