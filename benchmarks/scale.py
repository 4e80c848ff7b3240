"""How a lake grows: what its tables hold per purchase, and what that makes of more purchases and years.

Of tables that grow with purchases; the others grow with runs, days and files, and stay small.

Reads the Delta logs of a lake that the benchmark (or anything else) has made; nothing is run or written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from deltalake import DeltaTable
from gmv.lake.location import location
from gmv.tables import EVENT_TABLES, GMV_LEDGER, PURCHASE, Table
from rich.console import Console
from rich.table import Table as Shown

GROWING = (
    *(event.bronze for event in EVENT_TABLES),
    *(event.versions for event in EVENT_TABLES),
    *(event.latest for event in EVENT_TABLES),
    GMV_LEDGER,
)


@dataclass(frozen=True)
class Size:
    """What a table's newest version holds."""

    table: Table
    rows: int
    bytes: int
    files: int
    commits: int


def sizes(lake: Path) -> list[Size]:
    """The size of each table that exists, from its log alone."""
    found = []
    for table in GROWING:
        path = str(lake / table.path)
        if DeltaTable.is_deltatable(path):
            delta = DeltaTable(path)
            columns = delta.get_add_actions(flatten=True)
            names = columns.schema.names
            rows = sum(columns.column(names.index("num_records")).to_pylist())
            size = sum(columns.column(names.index("size_bytes")).to_pylist())
            found.append(Size(table, rows, size, len(columns), delta.version() + 1))
    return found


EXAMPLES = """
Example:

  python benchmarks/scale.py ~/lake --per-day 10000000 --years 10
"""


def main(
    lake: Annotated[Path, typer.Argument(help="Lake to look at")],
    per_day: Annotated[int, typer.Option(min=1, help="Purchases a day to extrapolate to")] = 10_000_000,
    years: Annotated[int, typer.Option(min=1, help="For so many years")] = 10,
) -> None:
    """Show what a lake holds per purchase, and what so many more would take."""
    found = sizes(location(lake))
    purchases = max((one.rows for one in found if one.table == PURCHASE.latest), default=0)
    if not purchases:
        Console(stderr=True).print(f"{lake}: there are no purchases in it.", soft_wrap=True)
        raise typer.Exit(2)
    factor = per_day * 365 * years / purchases
    shown = Shown(
        "table", title=f"{purchases:,} purchases; × {factor:,.0f} for {per_day:,} a day, {years} years"
    )
    for name in (
        "rows",
        "bytes",
        "files",
        "commits",
        "rows/purchase",
        "bytes/purchase",
        "rows then",
        "TB then",
    ):
        shown.add_column(name, justify="right")
    for one in found:
        shown.add_row(
            one.table.path,
            *(f"{number:,}" for number in (one.rows, one.bytes, one.files, one.commits)),
            f"{one.rows / purchases:.2f}",
            f"{one.bytes / purchases:.1f}",
            f"{one.rows * factor:.3g}",
            f"{one.bytes * factor / 1e12:.2f}",
        )
    shown.add_section()
    size = sum(one.bytes for one in found)
    shown.add_row(
        "all", "", f"{size:,}", "", "", "", f"{size / purchases:.1f}", "", f"{size * factor / 1e12:.2f}"
    )
    Console(width=140).print(shown)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(main)
    app()
