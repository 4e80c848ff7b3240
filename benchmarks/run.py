"""Times the pipeline side by side with scripts that recompute everything, on the same files and machine.

Every contender is a whole process, from its start to its end, with all its children. All must give the same
rows, to the cent; a contender that fails or disagrees ends the benchmark.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import psutil
import pyarrow.parquet
import typer
from generate import generate
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
RESULTS = HERE / "results"
GMV = Path(sys.executable).with_name("gmv")

LONGEST_SECONDS = 3600
"""A process that takes longer ends the benchmark."""
POLL_SECONDS = 0.05
"""How often memory is looked at: a shorter peak may be missed."""
YARDSTICK = "pyspark"
"""The contender whose time is 1.0."""

FIRST_LOAD, INCREMENT, NOTHING_NEW = "first load", "a day's increment", "nothing new"
PHASES = (FIRST_LOAD, INCREMENT, NOTHING_NEW)

Rows = dict[tuple[str, str], Decimal]
"""gmv by transaction_date and subsidiary."""


@dataclass(frozen=True)
class Contender:
    """A way to get daily GMV: its command, and how its rows are read afterwards."""

    name: str
    title: str
    keeps_state: bool
    """It remembers what it has done, so a run with nothing new differs from a recompute."""
    command: Callable[[Path, Path], list[str]]
    """From the landing folder and the folder for all that it writes."""
    rows: Callable[[Path], Rows]
    """From the folder that it has written."""


@dataclass(frozen=True)
class Measured:
    """One process: how long it took, and the most resident memory that its tree held at once."""

    contender: str
    phase: str
    seconds: float
    peak_bytes: int


# --- The contenders ---------------------------------------------------------------------------------------


def _gmv_command(landing: Path, out: Path) -> list[str]:
    places = ["--landing", landing, "--lake", out / "lake", "--runs-dir", out / "runs"]
    return [str(GMV), "run", *map(str, places)]


def _gmv_rows(out: Path) -> Rows:
    command = [GMV, "show", "daily_gmv", "--format", "csv", "--lake", out / "lake"]
    shown = subprocess.run(
        command, capture_output=True, text=True, env=_environment(), cwd=out, timeout=LONGEST_SECONDS
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


def _script(name: str, title: str) -> Contender:
    script = HERE / f"recompute_{name}.py"
    return Contender(
        name,
        f"{title} {version(name)}",
        False,
        lambda landing, out: [sys.executable, str(script), str(landing), str(out)],
        _script_rows,
    )


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("gmv", "gmv run", True, _gmv_command, _gmv_rows),
        _script("pyspark", "plain PySpark"),
        _script("pandas", "pandas"),
        _script("polars", "Polars"),
        _script("duckdb", "DuckDB"),
    )
}


# --- Measuring --------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    """This process's environment without the pipeline's settings, so that its defaults are measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GMV_")}


class _Tree:
    """A process and its descendants, also those whose parent has ended since they were seen."""

    def __init__(self, root: int) -> None:
        self._members = {psutil.Process(root)}

    def resident_bytes(self) -> int:
        """The sum over all members; memory that they share counts for each."""
        total = 0
        for member in list(self._members):
            try:
                self._members.update(member.children(recursive=True))
            except psutil.NoSuchProcess:
                self._members.discard(member)
        for member in list(self._members):
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                self._members.discard(member)
        return total

    def kill(self) -> None:
        self.resident_bytes()  # sees the newest members
        for member in self._members:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue


def run_to_its_end(command: list[str], cwd: Path) -> tuple[float, int]:
    """Wall seconds and peak bytes of a command.

    Raises:
        RuntimeError: it ended with an error, or took too long. Carries the end of what it said.
    """
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=_environment(), cwd=cwd
        )
        tree, peak = _Tree(process.pid), 0
        while process.poll() is None:
            peak = max(peak, tree.resident_bytes())
            if time.perf_counter() - started > LONGEST_SECONDS:
                tree.kill()
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            said.seek(0)
            end = said.read().decode(errors="replace")[-3000:]
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{end}")
    return seconds, peak


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


def _increments_of(data: Path) -> list[str]:
    """The days after the first load, as they stand in the names of the files."""
    return sorted(file.stem.removeprefix("purchase-") for file in data.glob("purchase-*.csv"))


def _land(files: list[Path], landing: Path) -> None:
    for file in files:
        os.link(file, landing / file.name)


def _measure_all(
    contenders: list[Contender], data: Path, work: Path, console: Console
) -> tuple[list[Measured], Rows]:
    """One repetition: all phases, and in each all contenders one after the other on the same landing."""
    landing = work / "landing"
    landing.mkdir()
    days = _increments_of(data)
    dated = {day: sorted(data.glob(f"*-{day}.csv")) for day in days}
    first_load = sorted(set(data.glob("*.csv")) - {file for files in dated.values() for file in files})
    phases = [(FIRST_LOAD, first_load), *((INCREMENT, dated[day]) for day in days), (NOTHING_NEW, [])]

    measured: list[Measured] = []
    for phase, files in phases:
        _land(files, landing)
        rows: dict[str, Rows] = {}
        for contender in contenders:
            if phase == NOTHING_NEW and not contender.keeps_state:
                again = [one for one in measured if one.contender == contender.name][-1]
                measured.append(Measured(contender.name, phase, again.seconds, again.peak_bytes))
                continue
            out = work / contender.name
            out.mkdir(exist_ok=True)
            seconds, peak = run_to_its_end(contender.command(landing, out), work)
            console.print(f"{phase}: {contender.title}: {seconds:.1f} s, {peak / 2**20:,.0f} MiB")
            measured.append(Measured(contender.name, phase, seconds, peak))
            rows[contender.name] = contender.rows(out)
        if rows:
            check_same(rows)
            result = next(iter(rows.values()))
    return measured, result


# --- Telling ----------------------------------------------------------------------------------------------


def _table(measured: list[Measured], contenders: list[Contender]) -> tuple[list[str], list[list[str]]]:
    """Header and lines, one per phase and contender: median time with its range, and its ratio to PySpark's."""
    by_phase = {
        (phase, contender.name): [
            one for one in measured if (one.phase, one.contender) == (phase, contender.name)
        ]
        for phase in PHASES
        for contender in contenders
    }

    def median(phase: str, name: str) -> float:
        return statistics.median(one.seconds for one in by_phase[phase, name])

    lines = []
    for phase, name in by_phase:
        if not by_phase[phase, name]:
            continue
        seconds = [one.seconds for one in by_phase[phase, name]]
        has_yardstick = (phase, YARDSTICK) in by_phase
        lines.append(
            [
                phase,
                CONTENDERS[name].title,
                f"{median(phase, name):.1f}",
                f"{min(seconds):.1f} to {max(seconds):.1f}",
                f"{median(phase, name) / median(phase, YARDSTICK):.2f}" if has_yardstick else "",
                f"{max(one.peak_bytes for one in by_phase[phase, name]) / 2**20:,.0f}",
            ]
        )
    return ["phase", "contender", "seconds", "range", "/ PySpark", "peak MiB"], lines


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        return "not on the path"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    return said.splitlines()[0]


def _page(
    name: str,
    facts: dict[str, str],
    header: list[str],
    lines: list[list[str]],
    rows: Rows,
    contenders: list[Contender],
) -> str:
    """The results as a Markdown page."""
    total = sum(rows.values(), Decimal(0))
    same = "All contenders gave the same" if len(contenders) > 1 else f"{contenders[0].title} gave"
    notes = [
        f"{same} {len(rows):,} rows at the end, {total:,.2f} in total.",
        "Seconds are wall time of whole processes: median and range. Memory is the greatest sum "
        f"of resident memory of a process and its children, looked at every {POLL_SECONDS} s.",
    ]
    if not all(contender.keeps_state for contender in contenders):
        notes.append(
            "The scripts keep no state: with nothing new they do the same work again, so the time of their last "
            "recompute is repeated there, not measured once more."
        )
    table = [header, ["---", "---", *["---:"] * (len(header) - 2)], *lines]
    return "\n".join(
        [
            f"# {name}",
            "",
            *(f"- {fact}: {value}" for fact, value in facts.items()),
            "",
            *(f"| {' | '.join(line)} |" for line in table),
            "",
            *(f"{note}\n" for note in notes),
        ]
    )


# --- Command line -----------------------------------------------------------------------------------------

EXAMPLES = """
Examples:

  python benchmarks/run.py --purchases 20000 --repeat 3

  python benchmarks/run.py --purchases 2000000 --repeat 1

  python benchmarks/run.py --only gmv --only duckdb
"""


def main(
    purchases: Annotated[
        int, typer.Option(min=1, help="Purchases in the two years of the first load")
    ] = 20_000,
    repeat: Annotated[int, typer.Option(min=1, help="Repetitions, each from an empty lake")] = 3,
    increments: Annotated[int, typer.Option(min=0, help="Days that arrive after the first load")] = 1,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Contender to run, may be repeated: {', '.join(CONTENDERS)}")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated data")] = 1,
    name: Annotated[
        str, typer.Option(help="Of the page in benchmarks/results; by default after the parameters")
    ] = "",
) -> None:
    """Time gmv and the recomputing scripts side by side, and write a page of results."""
    console = Console()
    unknown = sorted(set(only or []) - set(CONTENDERS))
    if unknown:
        raise typer.BadParameter(
            f"no such contender: {', '.join(unknown)}. There are: {', '.join(CONTENDERS)}."
        )
    contenders = [contender for contender in CONTENDERS.values() if not only or contender.name in only]
    name = name or f"{purchases}-purchases"

    data = DATA / f"{purchases}-{increments}-{seed}"
    if not data.exists():
        console.print(f"Generating {data.name} …")
        generate(data, purchases, increments, seed)

    load, *_ = os.getloadavg()
    measured: list[Measured] = []
    for repetition in range(repeat):
        turn = repetition % len(contenders)
        with tempfile.TemporaryDirectory(prefix="work-", dir=DATA) as work:
            times, rows = _measure_all(contenders[turn:] + contenders[:turn], data, Path(work), console)
        measured += times

    files = list(data.glob("*.csv"))
    facts = {
        "Date": f"{datetime.now(UTC):%Y-%m-%d}",
        "Data": f"{purchases:,} purchases, days that arrive after them: {increments}, seed {seed}; "
        f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:,.0f} MB",
        "Repetitions": f"{repeat}, contenders interleaved",
        "Machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB memory, "
        f"{platform.system()} {platform.machine()}",
        "Load before": f"{load:.1f} processes on average in the last minute; others' work slows all contenders",
        "Python": platform.python_version(),
        "Java": _java(),
    }
    header, lines = _table(measured, contenders)
    shown = Table(*header, box=None)
    for column in shown.columns[2:]:
        column.justify = "right"
    for line in lines:
        shown.add_row(*line)
    console.print(shown)
    RESULTS.mkdir(exist_ok=True)
    page = RESULTS / f"{name}.md"
    page.write_text(_page(name, facts, header, lines, rows, contenders), encoding="utf-8")
    console.print(f"Written: benchmarks/results/{page.name}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(main)
    app()
