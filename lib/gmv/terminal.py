"""How a command puts rows, tables and lines on a terminal, exact rows on a pipe, and shows a step at work."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_COLUMNS = 100
"""Tables are no wider than so many characters."""

_LEGIBLE = 24
"""A column is not made narrower than so many characters."""

_AMOUNTS = {"gmv", "previous_gmv", "amount", "published", "coming", "difference", "records", "purchases"}


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    spreadsheet = "spreadsheet"
    json = "json"


@dataclass(frozen=True)
class Rows:
    """Rows to draw as a table.

    Attributes:
        columns: those that are shown, in order.
        rows: values by column.
        note: a line below the table.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    title: str
    note: str = ""


def say(parts: Iterable[str | Rows]) -> None:
    """Print lines as they are, and rows as tables that fit the terminal."""
    for part in parts:
        if isinstance(part, Rows):
            _draw(part)
        else:
            print(part)


def write_rows(columns: Sequence[str], rows: Iterable[dict[str, Any]], output: Format) -> None:
    """Write all rows exactly; what the stream can't hold is an error."""
    from gmv import show

    if output is Format.json:
        write_json([*rows])
    else:
        _require_exact_output()
        show.write_csv(sys.stdout, columns, rows, for_spreadsheet=output is Format.spreadsheet)


def write_json(value: Any) -> None:
    """Write an object exactly; amounts as texts."""
    from gmv import show

    _require_exact_output()
    sys.stdout.write(show.as_json(value))


def _require_exact_output() -> None:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="strict")


def _draw(what: Rows) -> None:
    from rich.console import Console

    from gmv import show

    console, columns = Console(), what.columns
    texts = [[show.as_text(row[column]) for column in columns] for row in what.rows]
    widths = [max(map(len, (column, *(row[i] for row in texts)))) for i, column in enumerate(columns)]
    fits = not texts or sum(min(width, _LEGIBLE) + 3 for width in widths) < console.width
    draw = _side_by_side if fits else _one_below_other
    console.print(draw(columns, texts, what.title))
    if what.note:
        print(what.note)


def _side_by_side(columns: Sequence[str], texts: Iterable[Sequence[str]], title: str) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right" if column in _AMOUNTS else "left", overflow="fold")
    for row in texts:
        table.add_row(*map(Text, row))
    return table


def _one_below_other(columns: Sequence[str], texts: Iterable[Sequence[str]], title: str) -> RenderableType:
    """A row's values below each other, for tables that are too wide for this terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in texts:
        for column, text in zip(columns, row, strict=True):
            table.add_row(column, Text(text), end_section=column == columns[-1])
    return table


def print_tables(tables: Iterable[RenderableType]) -> None:
    """Print tables and sentences for people, no wider than MOST_COLUMNS."""
    from rich.console import Console

    console = Console(width=min(Console().width, MOST_COLUMNS) if sys.stdout.isatty() else MOST_COLUMNS)
    for table in tables:
        console.print(table)


@contextlib.contextmanager
def showing(step: str) -> Iterator[None]:
    """Show that a step is at work and for how long; on a pipe or in a file, a line when it ends."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    began = time.monotonic()
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(step)
            yield
    else:
        yield
    console.print(f"{step:<12} {time.monotonic() - began:6.1f} s", highlight=False)
