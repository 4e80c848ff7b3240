"""The lists that `gmv show NAME` prints beside the lake's tables, and the report shows: each once, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from gmv import checks
from gmv.lake.reader import Reader
from gmv.quality import days, oddities


@dataclass(frozen=True)
class List:
    """A list of what is odd in the lake as it is; what is resolved has left it.

    Attributes:
        columns: of its rows; `amount` is the money concerned.
        rows: makes it.
        one_row_is: in words.
    """

    columns: Sequence[str]
    rows: Callable[[Reader], list[dict]]
    one_row_is: str


PROBLEMS = "problems"

LISTS: dict[str, List] = {
    **{
        oddity.name: List(
            oddity.columns, partial(oddities.rows, oddity=oddity), f'exception to "{oddity.check.must_hold}"'
        )
        for oddity in oddities.ODDITIES
    },
    checks.NEW_SUBSIDIARY.name: List(
        days.NEW_SUBSIDIARY_COLUMNS, days.new_subsidiaries, "subsidiary that is new, or like another"
    ),
    checks.FEED_MISSING.name: List(
        days.FEED_MISSING_COLUMNS, days.feed_missing, "table without records on a day that another has"
    ),
}


def problems(reader: Reader) -> list[dict]:
    """How many rows each list has, and the money concerned: list, count, amount; first those in quarantine."""
    rejected = reader.rows(
        "select 'quarantine' as list, count(*) as count, null as amount from silver.quarantine"
    )
    counted = [*rejected, *oddities.summary(reader)]
    for name in (checks.NEW_SUBSIDIARY.name, checks.FEED_MISSING.name):
        rows = LISTS[name].rows(reader)
        amounts = [row["amount"] for row in rows if row.get("amount") is not None]
        counted.append({"list": name, "count": len(rows), "amount": sum(amounts) if amounts else None})
    return [row for row in counted if row["count"]]


LISTS[PROBLEMS] = List(("list", "count", "amount"), problems, "list that is not empty")
