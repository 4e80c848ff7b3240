"""Measures the anomaly checks: how often they see planted faults, and how often they cry wolf.

Daily sums come from generated CSV files by DuckDB, without Spark, each day as it was known at its own end:
as the run of the next morning judges it. The figures are in docs/quality.md.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import duckdb
import typer
from generate import generate
from gmv import checks
from gmv.quality import anomalies
from gmv.tables import UNKNOWN_SUBSIDIARY
from rich.console import Console
from rich.table import Table

Numbers = dict[str, dict[dt.date, Decimal]]
"""By subsidiary or table, and day."""

JUDGED_DAYS = 364
"""The last days of the history: whole weeks, so that each weekday has its share."""


def daily(folder: Path) -> tuple[Numbers, Numbers]:
    """GMV by subsidiary, and purchase rows, as known at the end of each day itself."""
    gmv: Numbers = defaultdict(dict)
    rows: Numbers = defaultdict(dict)
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    for table in ("purchase", "product_item", "purchase_extra_info"):
        connection.execute(
            f"create table {table} as from read_csv('{folder}/{table}.csv', all_varchar = true)"
        )
    found = connection.sql(
        """
        with paid as (
            -- A day's payments are those of its own purchase events; what is withdrawn or moved later is not yet.
            select purchase_id, min(transaction_date::date) as day from purchase
            where release_date is not null group by purchase_id
        ),
        item as (
            select purchase_id, item_quantity::int * purchase_value::decimal(18, 2) as amount,
                   transaction_datetime::timestamp as "at" from product_item
        ),
        info as (select purchase_id, subsidiary, transaction_datetime::timestamp as "at" from purchase_extra_info)
        select day, coalesce(subsidiary, 'unknown') as subsidiary, sum(amount)::decimal(38, 2) as gmv
        from paid
        asof join item on paid.purchase_id = item.purchase_id and paid."day" + interval 1 day >= item."at"
        asof left join info on paid.purchase_id = info.purchase_id and paid."day" + interval 1 day >= info."at"
        group by all
        """
    ).fetchall()
    for day, subsidiary, amount in found:
        gmv[subsidiary][day] = amount
    for table in ("purchase", "product_item", "purchase_extra_info"):
        for day, count in connection.sql(
            f"select transaction_date::date, count(*) from {table} group by all"
        ).fetchall():
            rows[table][day] = Decimal(count)
    gmv.pop(UNKNOWN_SUBSIDIARY, None)  # which has a check of its own
    return dict(gmv), dict(rows)


# --- Faults ------------------------------------------------------------------------------------------------

Fault = Callable[[Numbers, dt.date], None]


def _scaled(share: str, names: tuple[str, ...] = ()) -> Fault:
    """The day's numbers times `share`, of some names or of all."""

    def plant(numbers: Numbers, day: dt.date) -> None:
        for name, of_days in numbers.items():
            if day in of_days and (not names or name in names):
                of_days[day] = (of_days[day] * Decimal(share)).quantize(Decimal("0.01"))

    return plant


FAULTS: dict[str, Fault] = {
    "a tenth of the day is missing": _scaled("0.9"),
    "a quarter of the day is missing": _scaled("0.75"),
    "half of the day is missing": _scaled("0.5"),
    "the day is missing but for a hundredth": _scaled("0.01"),
    "the day is there twice, under other ids": _scaled("2"),
    "amounts are a hundred times too high": _scaled("100"),
    "the largest subsidiary is missing": _scaled("0", ("nacional",)),
    "the smallest subsidiary is missing": _scaled("0", ("asia",)),
    "half of a small subsidiary is missing": _scaled("0.5", ("europa",)),
}

CHECKS = (checks.DAY_DROP, checks.WEEKDAY_GMV, checks.SUBSIDIARY_VANISHED, checks.WEEKDAY_RECORDS)


def judge(gmv: Numbers, rows: Numbers, day: dt.date) -> set[str]:
    """The checks that speak about a day."""
    totals: dict[dt.date, Decimal] = defaultdict(Decimal)
    for of_days in gmv.values():
        for one in (day, day - dt.timedelta(1)):
            totals[one] += of_days.get(one, Decimal(0))
    found = anomalies.drops(totals, [day])
    found += anomalies.unlike_weekday(checks.WEEKDAY_GMV, gmv, [day])
    found += anomalies.unlike_weekday(checks.WEEKDAY_RECORDS, rows, [day], decimals=0)
    return {finding.check.name for finding in found}


def planted(numbers: Numbers, fault: Fault, day: dt.date) -> Numbers:
    changed = {name: dict(of_days) for name, of_days in numbers.items()}
    fault(changed, day)
    return changed


def main(
    purchases: Annotated[int, typer.Option(min=1000, help="Purchases in two years")] = 400_000,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    every: Annotated[int, typer.Option(min=1, help="Plant a fault on every so many days")] = 5,
) -> None:
    """Print, for each check, on how many of the days it speaks: clean days, and days with a planted fault."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder) / "events", purchases, seed=seed)
        gmv, rows = daily(Path(folder) / "events")
    last = max(rows["purchase"])
    days = [last - dt.timedelta(number) for number in range(JUDGED_DAYS)]
    table = Table("days", title=f"{purchases:,} purchases in two years, seed {seed}")
    for check in CHECKS:
        table.add_column(check.name, justify="right")
    table.add_column("any", justify="right")

    def add(name: str, spoke: list[set[str]]) -> None:
        counts = [sum(check.name in one for one in spoke) for check in CHECKS] + [sum(map(bool, spoke))]
        table.add_row(name, *(f"{100 * count / len(spoke):.1f} %" for count in counts))

    add(f"clean ({len(days)})", [judge(gmv, rows, day) for day in days])
    for name, fault in FAULTS.items():
        is_of_all = name in list(FAULTS)[:5]
        spoke = [
            judge(planted(gmv, fault, day), planted(rows, fault, day) if is_of_all else rows, day)
            for day in days[::every]
        ]
        add(f"{name} ({len(spoke)})", spoke)
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
