"""GMV by silver's join, day by day, kept from run to run: what has not changed since need not be joined again.

The sums of the last run hold at the versions of the silver tables that they were taken at. What a run's purchases
change is added to them; days on which the result is not the ledger's sum are joined as a whole.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from gmv import publication
from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.publication import Place, Plan, Window
from gmv.tables import EVENT_TABLES, SILVER_SUMS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_EXACT = decimal.Context(prec=60, traps=[decimal.Inexact])


class Sum(NamedTuple):
    """What counts on a day and subsidiary: amount, and number of purchases."""

    gmv: Decimal
    purchases: int


@dataclass(frozen=True)
class SilverSums:
    """What silver's join gives, a sum per day and subsidiary where at least one purchase counts (rule 5).

    Attributes:
        versions: of the silver tables that it holds at, by event table name; None: the table does not exist.
    """

    by_place: Mapping[Place, Sum]
    versions: Mapping[str, int | None]

    def changed_by(self, change: DataFrame) -> SilverSums:
        """These sums and what some purchases change of them (`gold.change`)."""
        by_place = dict(self.by_place)
        for place, difference in _collected(change).items():
            gmv, purchases = by_place.get(place, Sum(Decimal(0), 0))
            by_place[place] = Sum(_EXACT.add(gmv, difference.gmv), purchases + difference.purchases)
        return SilverSums({place: one for place, one in by_place.items() if one.purchases}, self.versions)

    def with_days(self, days: Iterable[dt.date], daily_gmv: DataFrame) -> SilverSums:
        """These sums, on some days replaced by what a join of all their purchases gives (`gold.daily_gmv`)."""
        replaced = set(days)
        others = {place: one for place, one in self.by_place.items() if place[0] not in replaced}
        return SilverSums(others | _collected(daily_gmv), self.versions)

    def gmv(self, days: Iterable[dt.date]) -> dict[Place, Decimal]:
        """The amounts on these days."""
        wanted = set(days)
        return {place: one.gmv for place, one in self.by_place.items() if place[0] in wanted}


def kept(reader: Reader) -> SilverSums:
    """The sums of the last run; none where there are none."""
    rows = reader.rows("select * from monitoring.silver_sums")
    first = rows[0] if rows else {}
    return SilverSums(
        {(row["transaction_date"], row["subsidiary"]): Sum(row["gmv"], row["purchases"]) for row in rows},
        {event.name: first.get(f"{event.name}_version") for event in EVENT_TABLES},
    )


def days_to_join(sums: SilverSums, plan: Plan, window: Window) -> list[dt.date]:
    """The days whose purchases are joined as a whole: those of a window, and those whose sums are not the ledger's.

    After a first load, or whenever it can't be told what has changed since the last run, these are all days that
    have changed.
    """
    gmv = {place: one.gmv for place, one in sums.by_place.items()}
    of_window = set(plan.days) & set(window.days())
    return sorted(of_window | publication.differing_days(gmv, plan.ledger))


def keep(reader: Reader, sums: SilverSums, instead_of: SilverSums) -> None:
    """Keep sums for the next run; no commit where they are kept already.

    Args:
        reader: the lake with the versions of the silver tables that they hold at.
        instead_of: what is kept.
    """
    versions = {event.name: reader.version(event.latest) for event in EVENT_TABLES}
    if instead_of == SilverSums(sums.by_place, versions) or not (sums.by_place or instead_of.by_place):
        return
    at_versions = {f"{name}_version": version for name, version in versions.items()}
    rows = [
        {"transaction_date": day, "subsidiary": subsidiary, **one._asdict(), **at_versions}
        for (day, subsidiary), one in sorted(sums.by_place.items())
    ]
    records.replace_columns(
        reader.lake, SILVER_SUMS, pa.Table.from_pylist(rows, records.arrow_schema(SILVER_SUMS))
    )


def _collected(daily_gmv: DataFrame) -> dict[Place, Sum]:
    rows = daily_gmv.collect()
    return {(row.transaction_date, row.subsidiary): Sum(row.gmv, row.purchases) for row in rows}
