"""A lake for tests, driven by the committed notebooks' own code cells, in this process."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import nbformat
from gmv.lake.reader import Reader
from gmv.settings import PROJECT

LAYERS = ("01_bronze", "02_silver", "03_gold")


def execute(notebook: str, **parameters: str) -> dict:
    """Execute a notebook's code cells from top to bottom; what they assigned is returned."""
    namespace: dict = {}
    for cell in nbformat.read(PROJECT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{notebook}:{cell.id}", "exec"), namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace |= parameters
    return namespace


class TestLake:
    """A lake, its landing folder, and the runs on it."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.path, self.landing, self.runs_dir = folder / "lake", folder / "landing", folder / "runs"
        self.landing.mkdir()

    def put(self, name: str, text: str | bytes) -> None:
        """Let a file arrive; leading spaces of its lines are taken off, so that tests can indent them."""
        file = self.landing / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, str):
            text = "".join(line.strip() + "\n" for line in text.strip().splitlines()).encode()
        file.write_bytes(text)

    def run(
        self, as_of_date: str = "2030-01-01", notebooks: tuple[str, ...] = LAYERS, **parameters: str
    ) -> dict:
        """Run the notebooks in order; returns what the last one assigned."""
        common = {
            "lake": str(self.path),
            "landing": str(self.landing),
            "runs_dir": str(self.runs_dir),
            "as_of_date": as_of_date,
        }
        namespace: dict = {}
        for name in notebooks:
            namespace = execute(name, **common, **parameters)
        return namespace

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
