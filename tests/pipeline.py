"""A lake for tests, driven by the committed notebooks' own code cells, in this process."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import nbformat
import pytest
from gmv import retraction
from gmv.errors import UsageError
from gmv.identity import new_run_id
from gmv.lake import faults, location
from gmv.lake.reader import Reader
from gmv.parameters import OF_ONE
from gmv.settings import PROJECT, settings
from model import Event, ProductItem, Purchase, PurchaseExtraInfo
from strategies import write_csv

LAYERS = ("01_bronze", "02_silver", "03_gold")
IN_S3 = os.environ.get("TEST_LAKES_IN") == "s3"
"""The switch by which the rules are tested on a lake over three buckets of a real S3 server: `make s3-test`."""
_numbers = itertools.count(1)


def joined(reader: Reader) -> dict[tuple[dt.date, str], tuple[Decimal, int]]:
    """GMV and purchases by day and subsidiary, by plain SQL over the silver tables of a reader."""
    rows = reader.rows(
        """
        select p.transaction_date, coalesce(e.subsidiary, 'unknown') as subsidiary, count(*) as purchases,
               cast(sum(cast(purchase_value as decimal(38, 2)) * item_quantity) as decimal(38, 2)) as gmv
        from silver.purchase as p join silver.product_item using (purchase_id)
        left join silver.purchase_extra_info as e using (purchase_id)
        where release_date is not null group by all
        """
    )
    return {(row["transaction_date"], row["subsidiary"]): (row["gmv"], row["purchases"]) for row in rows}


class Died(BaseException):
    """Stands for the end of a process."""


@contextlib.contextmanager
def dying(at: int) -> Iterator[None]:
    """Raise Died at one of the points that are reached, counted from 1: just before and after each commit."""
    numbers = itertools.count(1)

    def reach(moment: str) -> None:
        if next(numbers) == at:
            raise Died(moment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "reach", reach)
        yield


def _cells(notebook: str) -> list:
    read = nbformat.read(PROJECT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    return [cell for cell in read.cells if cell.cell_type == "code"]


def execute(
    notebook: str, *, twice: str = "", order: Callable[[list], list] = list, **parameters: object
) -> dict:
    """Execute a notebook's code cells from top to bottom; what they assigned is returned.

    Parameters are injected as papermill does, and the lake is let go of as by the end of a kernel.

    Args:
        twice: a call; the cells with it are run again at once, and refuse to.
        order: of its code cells, gives those that are executed, some perhaps again.
    """
    injected = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items())])
    namespace: dict = {"In": ["", injected]}
    try:
        for cell in order(_cells(notebook)):
            code = compile(cell.source, f"{notebook}:{cell.id}", "exec")
            exec(code, namespace)
            if twice and twice in cell.source:
                with pytest.raises(UsageError, match="from its first cell"):
                    exec(code, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                exec(injected, namespace)
    finally:
        if "step" in namespace:
            namespace["step"].release()
    return namespace


def events(text: str) -> list[Event]:
    """Events from lines such as these, days without a year being of 2023:

    purchase 03-10T08:00 1 paid          its transaction_date is that of its time,
    purchase 03-10T08:00 1 unpaid 03-09  or the one that is given
    item     03-10T08:00 1 2 50.00       quantity and value
    info     03-10T08:00 1 nac
    """
    return [_event(*line.split()) for line in text.strip().splitlines()]


def _event(kind: str, when: str, purchase_id: str, *values: str) -> Event:
    at = dt.datetime.fromisoformat(_with_year(when))
    match kind, values:
        case "purchase", ("paid" | "unpaid" as state, *on):
            day = dt.date.fromisoformat(_with_year(*on)) if on else at.date()
            return Purchase(at, day, purchase_id, release_date=day if state == "paid" else None)
        case "item", (quantity, value):
            return ProductItem(at, at.date(), purchase_id, None, int(quantity), Decimal(value))
        case "info", (subsidiary,):
            return PurchaseExtraInfo(at, at.date(), purchase_id, subsidiary)
    raise ValueError(f"no event: {kind} {when} {purchase_id} {values}")


def _with_year(text: str) -> str:
    return text if text.startswith("20") else f"2023-{text}"


@contextlib.contextmanager
def _any_share_in_quarantine() -> Iterator[None]:
    """Files of tests are small: one rejected record of them is far above the share that may be."""
    with pytest.MonkeyPatch.context() as patch:
        if "GMV_QUARANTINED_PERCENT" not in os.environ:
            patch.setenv("GMV_QUARANTINED_PERCENT", "100")
        settings.cache_clear()
        yield
    settings.cache_clear()


class TestLake:
    """A lake, its landing folder, and the runs on it."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.path, self.landing, self.runs_dir = folder / "lake", folder / "landing", folder / "runs"
        if IN_S3:
            self.path = location.location(f"s3://tests-{{zone}}/{next(_numbers)}/lake")
        self.landing.mkdir()

    def put(self, name: str, text: str | bytes) -> None:
        """Let a file arrive; leading spaces of its lines are taken off, so that tests can indent them."""
        file = self.landing / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, str):
            text = "".join(line.strip() + "\n" for line in text.strip().splitlines()).encode()
        file.write_bytes(text)

    def arrive(self, name: str, text: str) -> list[Event]:
        """Let events arrive, in one file for each of their tables: `purchase-<name>.csv`, ...

        Args:
            text: an event per line, as `events` reads it.
        """
        arrived = events(text)
        for table in {event.table for event in arrived}:
            write_csv(
                self.landing,
                f"{table}-{name}.csv",
                table,
                [event for event in arrived if event.table == table],
            )
        return arrived

    def run(
        self,
        as_of_date: str = "2030-01-01",
        notebooks: tuple[str, ...] = LAYERS,
        **parameters: object,
    ) -> dict:
        """Run the notebooks in order; returns what the last one assigned."""
        common = {
            "lake": str(self.path),
            "landing": str(self.landing),
            "runs_dir": str(self.runs_dir),
            "as_of_date": as_of_date,
        }
        namespace: dict = {}
        with _any_share_in_quarantine():
            for name in notebooks:
                of_others = [one for notebook, own in OF_ONE.items() if notebook != name for one in own]
                known = {key: value for key, value in parameters.items() if key not in of_others}
                namespace = execute(name, **common, **known)
        return namespace

    def retract(self, name: str, because: str = "it is wrong", undo: bool = False) -> str:
        """Note that a file is retracted, or put back; the next run takes it in. Returns the run noted."""
        run = new_run_id()
        content = retraction.named(self.reader, name, self.landing)
        retraction.note(self.path, content, because, run, undo=undo)
        return run

    @property
    def reader(self) -> Reader:
        return Reader(self.path)

    def daily_gmv(self) -> dict[tuple[dt.date, str], Decimal]:
        """The published numbers."""
        rows = self.reader.rows("select * from gold.daily_gmv")
        return {(row["transaction_date"], row["subsidiary"]): row["gmv"] for row in rows}

    def published(self) -> list[str]:
        """The published numbers as lines `day subsidiary amount`, sorted."""
        return sorted(f"{day} {subsidiary} {gmv}" for (day, subsidiary), gmv in self.daily_gmv().items())

    def postings(self, purchase_id: str | None = None) -> list[str]:
        """The ledger as lines `seq purchase day subsidiary amount/purchases known_on reason`, in order."""
        rows = self.reader.rows(
            "select * from gold.gmv_ledger where purchase_id = $one or $one is null "
            "order by ledger_seq, known_on, amount, subsidiary, reason",
            one=purchase_id,
        )
        return [
            f"{row['ledger_seq']} {row['purchase_id']} {row['transaction_date']} {row['subsidiary']} "
            f"{row['amount']:+}/{row['purchases']:+} {row['known_on']} {row['reason']}"
            for row in rows
        ]
