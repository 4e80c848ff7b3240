"""A run that is stopped at a point of its choice, and whoever is to be killed there.

A case is a point (`02_silver after silver/purchase`: see gmv.lake.faults) and a victim. The lake has a first run
behind it; the second, which brings corrections, is killed. `make crash-test` tries all cases and prints a table.
"""

from __future__ import annotations

import datetime as dt
import itertools
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from command import GMV, own_environment
from gmv import notebook
from gmv.lake import faults, location, lock
from gmv.lake.reader import Reader
from gmv.run import forking
from gmv.tables import EVENT_TABLES, FILES, TABLES, Table
from pipeline import events
from strategies import write_csv

VICTIMS = ("kernel", "runner", "server")
TODAY = dt.date(2023, 4, 2)

BEFORE = """
    purchase 03-10T08:00 1 paid
    purchase 03-10T08:00 2 paid 03-11
    purchase 03-10T08:00 3 paid 03-12
    purchase 03-10T08:00 4 paid 03-13
    item     03-10T08:00 1 2 50.05
    item     03-10T08:00 2 1 11.00
    item     03-10T08:00 3 1 12.00
    item     03-10T08:00 5 1 15.00
    info     03-10T08:00 1 nac
    info     03-10T08:00 2 nac
    info     03-10T08:00 3 nac
"""
CORRECTIONS = """
    purchase 03-20T08:00 2 unpaid 03-11
    purchase 03-20T08:00 3 paid 03-16
    purchase 03-09T08:00 1 unpaid 03-08
    purchase 03-20T08:00 5 paid
    item     03-20T08:00 1 2 40.05
    item     03-20T08:00 4 3 5.00
    info     03-20T08:00 1 int
    info     03-20T08:00 4 nac
"""
REJECTED = """transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
2023-03-10 08:00:00,2023-03-10,6,,1,18.00
2023-03-18 08:00:00,2023-03-18,7,,1,19.999
"""

# What each part of a run commits to, in order. test_crash.py checks that a run passes all of these and no others.
COMMITS = {
    "runner": [
        "monitoring/runs",
        "run.json",
        "monitoring/day_stats",
        "monitoring/freshness",
        "monitoring/steps",
        "monitoring/alerts",
    ],
    "01_bronze": [
        *(event.bronze.path for event in EVENT_TABLES),
        "bronze/files",
        "monitoring/partition_stats",
    ],
    "02_silver": [
        *(event.versions.path for event in EVENT_TABLES),
        "silver/quarantine",
        *(event.latest.path for event in EVENT_TABLES),
        "monitoring/check_results",
        "monitoring/progress",
        "monitoring/waiting",
        "monitoring/partition_stats",
    ],
    "03_gold": [
        "gold/gmv_ledger",
        "monitoring/ledger_days",
        "monitoring/silver_sums",
        "monitoring/progress",
        "monitoring/check_results",
        "gold/daily_gmv",
        "gold/daily_gmv_history",
        "monitoring/partition_stats",
    ],
}


@dataclass(frozen=True)
class Case:
    """Where a run is stopped, and who is killed there."""

    point: str
    victim: str

    def __str__(self) -> str:
        return f"{self.victim} killed at {self.point}"


def all_cases() -> list[Case]:
    """Each commit of a run, before and after it, with each victim that can be killed there."""
    cases = [Case("runner after server start", "server"), Case("runner after server start", "runner")]
    for where, commits in COMMITS.items():
        victims = VICTIMS if where != "runner" else ("runner",)
        points = [f"{where} {moment} {commit}" for commit in commits for moment in ("before", "after")]
        if where != "runner":
            points.insert(0, f"{where} after start")
        cases += [Case(point, victim) for point, victim in itertools.product(points, victims)]
    cases += [Case("04_report after start", victim) for victim in ("kernel", "runner")]
    if sys.platform == "linux":
        cases += [Case(f"{name} after start", "origin") for name in (*notebook.WRITERS, notebook.REPORT)]
    return cases


def is_kernel(process: psutil.Process) -> bool:
    return process.name() == forking.KERNEL or "ipykernel_launcher" in _command(process)


def is_origin(process: psutil.Process, run: int) -> bool:
    """Whether it is the process that a run's kernels are forked from, which becomes the last of them."""
    return process.ppid() == run and forking.__name__ in _command(process)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.ZombieProcess:  # it has ended
        return []


class Scene:
    """A lake with its landing and runs folders, and the command line on it.

    Args:
        folder: for all of them; made if it is missing.
        place: for all of them instead, in an object store.
    """

    def __init__(self, folder: Path, place: Path | None = None) -> None:
        self.place = place or folder
        self.lake, self.landing, self.runs = (self.place / name for name in ("lake", "landing", "runs"))
        self.pause_file = folder / "paused"
        folder.mkdir(parents=True, exist_ok=True)
        self.landing.mkdir(parents=True, exist_ok=True)

    def options(self) -> list[str]:
        folders = ["--lake", str(self.lake), "--landing", str(self.landing), "--runs-dir", str(self.runs)]
        return [*folders, "--as-of-date", str(TODAY)]

    def deliver(self, name: str, text: str) -> None:
        arrived = events(text)
        for table in sorted({event.table for event in arrived}):
            of_table = [event for event in arrived if event.table == table]
            write_csv(self.landing, f"{table}-{name}.csv", table, of_table)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(GMV), *(arguments or ("run",)), *self.options()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=own_environment(GMV_QUARANTINED_PERCENT="100") | environment,  # its files are small
        )

    def run(self, *arguments: str, **environment: str) -> str:
        """`gmv run` to its end; what it said.

        Raises:
            AssertionError: with what it said, when it fails.
        """
        process = self.start(*arguments, **environment)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        return said

    def run_until(self, point: str) -> subprocess.Popen[str]:
        """A run that waits at a point.

        Raises:
            AssertionError: when the run ends without having got there.
        """
        self.pause_file.unlink(missing_ok=True)
        process = self.start("run", **{faults.PAUSE_AT: point, faults.PAUSE_FILE: str(self.pause_file)})
        while not self.pause_file.exists():
            assert process.poll() is None, f"never at {point}: {process.stdout and process.stdout.read()}"
            time.sleep(0.02)
        return process

    def go_on(self) -> None:
        self.pause_file.write_text("go")

    def kill(self, run: subprocess.Popen[str], victim: str) -> float:
        """Kill the victim of a run that waits, let the others go on, and wait until nobody holds the lake.

        A run may end well without its server, or without its kernels' origin, where it has no more work for it.

        Returns:
            How many seconds it took until the lake was free.
        """
        is_victim = {
            "runner": lambda process: process.pid == run.pid,
            "kernel": is_kernel,
            "origin": lambda process: is_origin(process, run.pid),
            "server": lambda process: process.name() == "java",
        }[victim]
        victims: list[psutil.Process] = []
        deadline = time.monotonic() + 20
        while not victims:  # a server that is being started takes a moment to be there
            assert time.monotonic() < deadline, f"there is no {victim} to kill"
            family = psutil.Process(run.pid).children(recursive=True)
            victims = [process for process in [psutil.Process(run.pid), *family] if is_victim(process)]
        for process in victims:
            process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        self.go_on()
        run.communicate(timeout=120)
        assert run.returncode or victim in ("server", "origin"), "the run succeeded although it was killed"
        lock.acquire(self.lake, "the test", wait_seconds=60).release()
        seconds = time.monotonic() - killed
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, f"processes were left behind: {[_command(process)[:3] for process in alive]}"
        return seconds

    def published(self) -> dict:
        rows = Reader(self.lake).rows("select * from gold.daily_gmv")
        return {(row["transaction_date"], row["subsidiary"]): row["gmv"] for row in rows}


def content(lake: Path) -> dict[str, list[tuple]]:
    """The rows of the bronze, silver and gold tables, sorted; without times and runs, which differ by nature."""
    reader = Reader(lake)
    return {table.path: _rows(reader, table) for table in TABLES if table.layer != "monitoring"}


def _rows(reader: Reader, table: Table) -> list[tuple]:
    aside = {"run", "ingested_at", "recorded_at", "published_at", "modified_at"}
    columns = ", ".join(f'"{name}"' for name in table.column_names if name not in aside)
    distinct = "distinct" if table == FILES else ""
    return reader.sql(f"select {distinct} {columns} from {table.layer}.{table.name} order by all").fetchall()


def taken_in_once(lake: Path) -> bool:
    """Whether each content is noted once, by the run that its records are of."""
    reader = Reader(lake)
    twice = "select sha256 from bronze.files where outcome = 'ingested' group by all having count(*) > 1"
    noted = "select sha256, run from bronze.files where outcome = 'ingested'"
    held = " union ".join(f"select sha256, run from bronze.{event.name}" for event in EVENT_TABLES)
    return not reader.rows(twice) and not reader.rows(f"({held}) except ({noted})")


def first_run(scene: Scene) -> None:
    """The run that every case has behind it."""
    scene.deliver("1", BEFORE)
    scene.run()


def deliver_corrections(scene: Scene) -> None:
    """What the killed run brings: every table, corrections, a late event, a rejected record."""
    scene.deliver("2", CORRECTIONS)
    (scene.landing / "product_item-3.csv").write_text(REJECTED)


def copy_of(scene: Scene, folder: Path) -> Scene:
    """The same in another folder, or in a place of its name beside the scene's."""
    if location.is_remote(scene.place):
        place = scene.place.parent / folder.name
        location.filesystem().copy(str(scene.place), str(place), recursive=True)
        return Scene(folder, place)
    for name in ("lake", "landing", "runs"):
        if getattr(scene, name).exists():
            shutil.copytree(getattr(scene, name), folder / name, dirs_exist_ok=True)
    return Scene(folder)
