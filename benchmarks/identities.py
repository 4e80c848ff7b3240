"""Every identity of the ledger, after a first load and after each of many daily increments, at any size.

After each run the whole lake is verified from bronze by the second engine: versions, latest, ledger by day and
as known on every day, published numbers, history. The first difference ends it with 1. Prints how long runs
and verifications took, side by side.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer
from generate import generate
from gmv.lake.reader import Reader
from gmv.run import example, runner
from gmv.verify import verify
from rich.console import Console

END_DATE = date(2024, 12, 31)


def main(
    purchases: Annotated[int, typer.Option(min=0, help="Purchases in the first load")] = 20_000,
    increments: Annotated[int, typer.Option(min=0, help="Days after it, each with its files")] = 3,
    per_day: Annotated[int, typer.Option(min=0, help="Purchases made on each of these days")] = 200,
) -> None:
    """Run the first load and each day's increment, and verify the whole lake after each."""
    console = Console(width=100)
    with tempfile.TemporaryDirectory(prefix="gmv-identities-") as name:
        folder = Path(name)
        for sub in ("landing", "lake", "runs"):
            (folder / sub).mkdir()
        files = generate(folder / "all", purchases, increments, end_date=END_DATE, per_day=per_day)
        console.print(
            f"{purchases:,} purchases, {sum(file.rows for file in files):,} records, {increments} increments"
        )
        with example.spark_server(folder / "spark.log"):
            for number in range(increments + 1):
                day = END_DATE + timedelta(number)
                arrive(folder, day if number else None)
                began = time.monotonic()
                request = runner.Request(
                    folder / "lake", folder / "landing", folder / "runs", as_of_date=day + timedelta(1)
                )
                record = runner.run(request, lambda _: nullcontext())
                took = time.monotonic() - began
                certificate = verify(Reader(folder / "lake"), request.as_of_date or day)
                own = record.steps["03_gold"]["certificate"]["seconds"]
                console.print(
                    f"{'first load' if not number else day}  run {took:6.1f} s, of it verifying its own {own:5.1f} s; "
                    f"whole lake {certificate.seconds:5.1f} s, {certificate.seconds / took:4.0%} of the run"
                )
                if not certificate.agrees or certificate.pending_days:
                    console.print("\n".join(certificate.faults()) or f"pending: {certificate.pending_days}")
                    sys.exit(1)
    console.print("Every identity held after each run, to the cent.")


def arrive(folder: Path, day: date | None) -> None:
    """Let the files of a day arrive; None: those of the first load."""
    for file in sorted((folder / "all").iterdir()):
        is_dated = file.stem[-10:].count("-") == 2
        if file.stem.endswith(f"-{day}") if day else not is_dated:
            shutil.move(file, folder / "landing" / file.name)


if __name__ == "__main__":
    typer.run(main)
