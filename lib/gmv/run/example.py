"""`make example`: the deliveries of examples/restated, run by run, into a lake of their own."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from gmv.lake import spark
from gmv.lake.reader import Reader
from gmv.run import runner
from gmv.run.record import Record
from gmv.settings import PROJECT, settings

DELIVERIES = PROJECT / "examples" / "restated"


def mornings() -> list[dt.date]:
    """The days on which files are delivered: a folder each."""
    return sorted(dt.date.fromisoformat(folder.name) for folder in DELIVERIES.iterdir() if folder.is_dir())


def make(folder: Path, show: runner.Show, runs_on: Sequence[dt.date] = ()) -> Iterator[Record]:
    """Let the deliveries arrive in time, and run on the mornings of their days.

    Args:
        folder: `lake`, `landing` and `runs` are made in it anew.
        runs_on: only run on these mornings, each with what has been delivered since the one before; by
            default on all. The numbers as known on a day are the same either way.

    Yields:
        The record of each run.
    """
    for name in ("lake", "landing", "runs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for morning in mornings():
        shutil.copytree(DELIVERIES / morning.isoformat(), folder / "landing" / morning.isoformat())
        if not runs_on or morning in runs_on:
            yield runner.run(
                runner.Request(folder / "lake", folder / "landing", folder / "runs", as_of_date=morning),
                show,
            )


@contextmanager
def spark_server(log: Path) -> Iterator[None]:
    """One Spark server for all the runs, so that they take seconds; the one of SPARK_REMOTE where it is set."""
    if "SPARK_REMOTE" in os.environ:
        yield
        return
    with spark.SparkServer(None, log) as server, server.in_use():
        yield


def main() -> None:
    """Make the example, tell what each run changed, and what to try next."""
    folder = settings().example
    print(f"The deliveries of {DELIVERIES.relative_to(PROJECT)}, and a run on each of their mornings:")
    with spark_server(folder / "spark.log"):
        for record in make(folder, lambda _: nullcontext()):
            changes = record.steps["03_gold"]["changes"]
            new = sum(change["previous_gmv"] is None for change in changes)
            print(
                f"  {record.today}  {len(record.steps['01_bronze']['files'])} file(s), {new} new published "
                f"number(s), {len(changes) - new} changed",
                flush=True,
            )
    lake = folder / "lake"
    january = Reader(lake).rows(
        "select sum(amount) filter (known_on <= $closed) as closed, sum(amount) as now "
        "from gold.gmv_ledger where transaction_date between '2023-01-01' and '2023-01-31'",
        closed=dt.date(2023, 1, 31),
    )[0]
    print(f"January closed at {january['closed']}. Today it is {january['now']}.")
    print(f"Lake:   {lake}")
    print(f"Report: {runner.last_report(folder / 'runs')}")
    print("Try:")
    print(f"  gmv show daily_gmv --known-on 2023-01-31 --lake {lake}")
    print(f"  gmv explain --start-date 2023-01-01 --end-date 2023-01-31 --lake {lake}")


if __name__ == "__main__":
    main()
