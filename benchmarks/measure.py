"""What a process costs, and the processes that are compared: the pipeline, and scripts that recompute everything."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

import psutil
import pyarrow.parquet
from gmv.lake import spark

HERE = Path(__file__).resolve().parent
GMV = Path(sys.executable).with_name("gmv")

LONGEST_SECONDS = 7200
"""A process that takes longer ends the benchmark."""
POLL_SECONDS = 0.1
"""How often memory is looked at: a shorter peak may be missed."""
_ORPHAN_SECONDS = 30
"""How long processes may live on after the one that started them."""
_ADOPT_ORPHANS = 36  # of prctl: descendants that lose their parent become this process's children

Rows = dict[tuple[str, str], Decimal]
"""gmv by transaction_date and subsidiary."""


# --- Costs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a process with all its descendants took.

    Attributes:
        wall, cpu: seconds; cpu is user and system time of all processes.
        java: the most resident bytes that its Java processes held at once.
        others: the same of its other processes; memory that several share counts once (where the system tells).
    """

    wall: float
    cpu: float
    java: int
    others: int


def median(costs: Iterable[Cost]) -> Cost:
    """Of each of its figures by itself."""
    return Cost(*(statistics.median(figures) for figures in zip(*map(astuple, costs), strict=True)))


def cost_of(command: list[str], cwd: Path, ends_with: Sequence[int] = (0,)) -> Cost:
    """Run a command to its end, and that of all processes that it started.

    Args:
        ends_with: the exit codes that are no error.

    Raises:
        RuntimeError: it ended with an error, or took too long. Carries the end of what it said.
    """
    before = cpu_of_children()
    with tempfile.TemporaryFile() as said, _adopting_orphans():
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment(), cwd=cwd
        )
        tree, java, others = _Tree(process.pid), 0, 0
        while process.poll() is None:
            now_java, now_others = tree.resident()
            java, others = max(java, now_java), max(others, now_others)
            if time.perf_counter() - began > LONGEST_SECONDS:
                tree.kill()
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        wall = time.perf_counter() - began
        tree.wait_for_orphans()
        if process.returncode not in ends_with:
            said.seek(0)
            end = said.read().decode(errors="replace")[-3000:]
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{end}")
    return Cost(wall, cpu_of_children() - before, java, others)


def environment() -> dict[str, str]:
    """This process's environment without the pipeline's settings, so that its defaults are measured, on one Java."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("GMV_")}
    return {**others, "JAVA_HOME": str(spark.java().parent.parent)}


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    """PySpark leaves its virtual machine to end by itself; it counts when it ends as this process's child."""
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(_ADOPT_ORPHANS, 1)
    try:
        yield
    finally:
        prctl(_ADOPT_ORPHANS, 0)


def cpu_of_children() -> float:
    """Seconds of a processor of all processes that this one, or one of them, has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Tree:
    """A process and its descendants, also those whose parent has ended since they were seen."""

    def __init__(self, root: int) -> None:
        self._members = {psutil.Process(root)}
        self._known: dict[psutil.Process, tuple[int, int]] = {}

    def _look(self) -> set[psutil.Process]:
        """Those that live."""
        living = {member for member in self._members if member.is_running()}
        parents = {process: process.info["ppid"] for process in psutil.process_iter(["ppid"])}
        pids = {member.pid for member in living}
        while children := {process for process, parent in parents.items() if parent in pids} - living:
            living |= children
            pids |= {child.pid for child in children}
        if living != self._members:
            self._members = living
            self._known.clear()  # what they share is shared by others now
        return living

    def resident(self) -> tuple[int, int]:
        """Bytes of its Java processes, and of the others."""
        java = others = 0
        for member in self._look():
            try:
                held = member.memory_info().rss
                if member.name() == "java":
                    java += held
                else:
                    others += self._part(member, held)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return java, others

    def _part(self, member: psutil.Process, held: int) -> int:
        """Of what a process holds: its part. The system takes long to tell; it is asked when something has changed."""
        if self._known.get(member, (-1, 0))[0] != held:
            self._known[member] = held, getattr(member.memory_full_info(), "pss", held)
        return self._known[member][1]

    def wait_for_orphans(self) -> None:
        """Until all have ended; those that lost their parent are this process's children, and it waits for them."""
        deadline = time.monotonic() + _ORPHAN_SECONDS
        left = {member.pid for member in self._look()}
        while left:
            if time.monotonic() > deadline:
                self.kill()
            left = {pid for pid in left if not _has_ended(pid)}
            time.sleep(0.01)

    def kill(self) -> None:
        for member in self._look():
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not psutil.pid_exists(pid)


# --- What is compared -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """A way to get daily GMV: its command, and how its rows are read afterwards."""

    name: str
    title: str
    command: Callable[[Path, Path], list[str]]
    """From the landing folder and the folder for all that it writes."""
    rows: Callable[[Path], Rows]
    """From the folder that it has written."""
    most_purchases: float = float("inf")
    """It is not tried on more: it would take too long, or all memory."""

    def cost(self, landing: Path, out: Path) -> Cost:
        """What it takes with the files that lie in landing.

        Raises:
            RuntimeError: it ended with an error.
        """
        out.mkdir(exist_ok=True, parents=True)
        return cost_of(self.command(landing, out), out)


def _gmv_command(landing: Path, out: Path) -> list[str]:
    places = ["--landing", landing, "--lake", out / "lake", "--runs-dir", out / "runs"]
    return [str(GMV), "run", *map(str, places)]


def _gmv_rows(out: Path) -> Rows:
    command = [GMV, "show", "daily_gmv", "--format", "csv", "--lake", out / "lake"]
    shown = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=out, timeout=LONGEST_SECONDS
    )
    if shown.returncode != 0:
        raise RuntimeError(f"{GMV.name} show ended with {shown.returncode}: {shown.stderr.strip()}")
    return {
        (row["transaction_date"], row["subsidiary"]): Decimal(row["gmv"])
        for row in csv.DictReader(io.StringIO(shown.stdout))
    }


def _script_rows(out: Path) -> Rows:
    rows = pyarrow.parquet.read_table(out / "daily_gmv.parquet").to_pylist()
    return {(row["transaction_date"].isoformat(), row["subsidiary"]): row["gmv"] for row in rows}


def _script(name: str, title: str, most_purchases: float = float("inf")) -> Contender:
    script = HERE / f"recompute_{name}.py"
    return Contender(
        name,
        f"{title} {version(name)}",
        lambda landing, out: [sys.executable, str(script), str(landing), str(out)],
        _script_rows,
        most_purchases,
    )


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("gmv", "gmv run", _gmv_command, _gmv_rows),
        _script("pyspark", "plain PySpark", 5_000_000),
        _script("pandas", "pandas", 2_000_000),
        _script("polars", "Polars", 5_000_000),
        _script("duckdb", "DuckDB"),
    )
}


def check_same(rows: dict[str, Rows]) -> None:
    """Raise RuntimeError, naming a day and subsidiary, unless all contenders have the same rows."""
    (first, expected), *others = rows.items()
    for name, found in others:
        if found != expected:
            differing = sorted(
                key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
            )
            day, subsidiary = differing[0]
            raise RuntimeError(
                f"{first} and {name} disagree in {len(differing)} rows, the first being {day} {subsidiary}: "
                f"{expected.get(differing[0])} and {found.get(differing[0])}"
            )
