"""Do the intervals of `gmv.finality` hold? A backtest on generated data, without Spark.

Two years of events are generated; DuckDB computes from the CSV files what the ledger would hold. Then, for
days in the past, the interval is made of what was known by then, and compared with what came after.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import duckdb
import generate
import typer
from gmv.finality import RATE, Change, History
from rich.console import Console
from rich.table import Table

AGES = (0, 1, 2, 3, 5, 7, 14, 30, 60, 89, 100)
"""Ages of a number, in days, at which its interval is tried."""

CHANGES = """
with purchase as (
    select purchase_id, transaction_datetime::date as known_on, transaction_date, release_date
    from read_csv('{folder}/purchase.csv')
    qualify row_number() over (
        partition by purchase_id, known_on
        order by transaction_datetime desc, transaction_date desc, release_date desc nulls last) = 1
), item as (
    select purchase_id, transaction_datetime::date as known_on, item_quantity, purchase_value
    from read_csv('{folder}/product_item.csv', types = {{'purchase_value': 'decimal(18,2)'}})
    qualify row_number() over (
        partition by purchase_id, known_on
        order by transaction_datetime desc, product_id desc, item_quantity desc, purchase_value desc) = 1
), days as (
    select purchase_id, known_on from purchase union select purchase_id, known_on from item
), standing as (
    select days.purchase_id, days.known_on,
        if(release_date is not null and purchase_value is not null, transaction_date, null) as day,
        cast(purchase_value as decimal(38, 2)) * item_quantity as amount
    from days
    asof left join purchase
        on purchase.purchase_id = days.purchase_id and purchase.known_on <= days.known_on
    asof left join item on item.purchase_id = days.purchase_id and item.known_on <= days.known_on
), change as (
    select known_on, day, amount,
        lag(day) over life as old_day, lag(amount) over life as old_amount
    from standing window life as (partition by purchase_id order by known_on)
)
select day, known_on, sum(amount)::decimal(38, 2) from (
    select day, known_on, amount from change where day is not null
    union all
    select old_day, known_on, -old_amount from change where old_day is not null
) group by all having sum(amount) <> 0
"""


def changes_of(folder: Path) -> list[Change]:
    """What the ledger would hold of the CSV files in a folder, by day and the day it was known on."""
    return duckdb.connect().execute(CHANGES.format(folder=folder)).fetchall()


def backtest(changes: list[Change], horizon: int, every: int = 7) -> tuple[Counter[int], Counter[int]]:
    """Make the intervals as of many mornings in the past, and look at what came within the horizon.

    Args:
        changes: what `changes_of` returns.
        horizon: days ahead.
        every: an evening in so many days is tried.

    Returns:
        By age: how many intervals were tried, and how many held.
    """
    first, last = min(day for day, _, _ in changes), max(known_on for _, known_on, _ in changes)
    later = History(changes, last, horizon)
    tried: Counter[int] = Counter()
    held: Counter[int] = Counter()
    evening = first
    while evening <= last - dt.timedelta(days=horizon):
        by_then = History(changes, evening, horizon)
        for age in AGES:
            day = evening - dt.timedelta(days=age)
            interval, then = by_then.interval(age), by_then.known(day, age)
            if interval and then > 0:
                change = (later.known(day, age + horizon) - then) / then
                tried[age] += 1
                held[age] += interval.low <= change <= interval.high
        evening += dt.timedelta(days=every)
    return tried, held


def main(
    purchases: Annotated[int, typer.Option(min=1000, help="Purchases in the two years")] = 200_000,
    seeds: Annotated[int, typer.Option(min=1, help="How many generated histories")] = 3,
    horizon: Annotated[int, typer.Option(min=1, help="Days ahead")] = 90,
) -> None:
    """Print, by the age of a number, in how many cases its interval held."""
    tried: Counter[int] = Counter()
    held: Counter[int] = Counter()
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            generate.generate(Path(folder, "csv"), purchases, seed=seed)
            of_seed = backtest(changes_of(Path(folder, "csv")), horizon)
        tried.update(of_seed[0])
        held.update(of_seed[1])
    table = Table("age of the number, in days", "intervals", "held", "share")
    for age in AGES:
        table.add_row(str(age), f"{tried[age]:,}", f"{held[age]:,}", f"{held[age] / tried[age]:.1%}")
    table.add_section()
    all_tried, all_held = tried.total(), held.total()
    table.add_row("all", f"{all_tried:,}", f"{all_held:,}", f"{all_held / all_tried:.1%}")
    Console().print(table)
    print(f"Stated rate: {RATE:.0%}. {seeds} histories of {purchases:,} purchases, {horizon} days ahead.")


if __name__ == "__main__":
    typer.run(main)
