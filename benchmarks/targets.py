"""What a run costs beside recomputing everything: the sample, first loads, a day's run against growing history.

All in one run on one machine, one process at a time, and only ratios count. Each contender is a whole process
with all its children, and all must give the same rows, to the cent.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import matplotlib
import psutil
import pyarrow.dataset
import pyarrow.parquet
import typer
from deltalake import DeltaTable
from generate import generate
from gmv.tables import TABLES
from rich.console import Console
from rich.table import Table
from run import CONTENDERS, DATA, GMV, RESULTS, _environment, _increments_of, _java, _land, _Tree, check_same

matplotlib.use("agg")

PROJECT = Path(__file__).resolve().parents[1]
SAMPLE = PROJECT / "data_lake" / "landing"


@dataclass(frozen=True)
class Cost:
    """What a process with all its children took.

    Attributes:
        wall, cpu: seconds; cpu is user and system time of all processes.
        java, python: the most resident bytes that its Java and its other processes held at once.
    """

    wall: float
    cpu: float
    java: int
    python: int


@dataclass(frozen=True)
class Line:
    """A line of the result: a cost, what it is compared with, and the ratio that is aimed at."""

    what: str
    cost: str
    beside: str
    ratio: float
    target: float

    def cells(self) -> list[str]:
        met = "yes" if self.ratio <= self.target else "no"
        return [self.what, self.cost, self.beside, f"{self.ratio:.2f}", f"{self.target:g}", met]


HEADER = ["what", "measured", "beside", "ratio", "target", "met"]


def cost_of(command: list[str], cwd: Path) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: it ended with an error; carries the end of what it said.
    """
    before = _cpu_of_children()
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=_environment(), cwd=cwd
        )
        tree, java, python = _Tree(process.pid), 0, 0
        while process.poll() is None:
            now_java, now_python = _resident_by_kind(tree)
            java, python = max(java, now_java), max(python, now_python)
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        wall = time.perf_counter() - began
        if process.returncode != 0:
            said.seek(0)
            end = said.read().decode(errors="replace")[-3000:]
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{end}")
    return Cost(wall, _cpu_of_children() - before, java, python)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident_by_kind(tree: _Tree) -> tuple[int, int]:
    tree.resident_bytes()  # sees the newest members
    java = python = 0
    for member in list(tree._members):
        try:
            resident = member.memory_info().rss
            if member.name() == "java":
                java += resident
            else:
                python += resident
        except psutil.NoSuchProcess:
            continue
    return java, python


class Bench:
    """All measurements of one benchmark, in a working folder that is removed afterwards."""

    def __init__(self, work: Path, console: Console, repeat: int) -> None:
        self.work = work
        self.console = console
        self.repeat = repeat
        self.lines: list[Line] = []
        self.days: dict[int, Cost] = {}
        """Cost of a day's run by purchases of history."""

    def run(self, contender: str, landing: Path, out: Path, what: str) -> Cost:
        """One contender on a landing folder."""
        out.mkdir(exist_ok=True, parents=True)
        cost = cost_of(CONTENDERS[contender].command(landing, out), self.work)
        self.console.print(
            f"{what}: {CONTENDERS[contender].title}: {cost.wall:.1f} s, CPU {cost.cpu:.1f} s, "
            f"Java {cost.java / 2**20:,.0f} MiB, others {cost.python / 2**20:,.0f} MiB"
        )
        return cost

    def add(self, what: str, cost: Cost, beside: str, other: Cost, target: float) -> None:
        self.lines.append(
            Line(
                what,
                _seconds(cost),
                f"{beside}: {_seconds(other)}",
                cost.wall / max(other.wall, 1e-9),
                target,
            )
        )

    def add_limit(self, what: str, value: float, unit: str, limit: float) -> None:
        self.lines.append(Line(what, f"{value:,.2f} {unit}", f"{limit:g} {unit}", value / limit, 1.0))

    def sample(self) -> None:
        """The sample, cold and with nothing new."""
        colds, agains, plains = [], [], []
        for number in range(self.repeat):
            out = self.work / f"sample-{number}"
            colds.append(self.run("gmv", SAMPLE, out / "gmv", "the sample"))
            agains.append(self.run("gmv", SAMPLE, out / "gmv", "the sample, nothing new"))
            plains.append(self.run("pyspark", SAMPLE, out / "pyspark", "the sample"))
            check_same({name: CONTENDERS[name].rows(out / name) for name in ("gmv", "pyspark")})
        plain = _median(plains)
        self.add("sample, cold", _median(colds), "plain PySpark", plain, 1.5)
        self.add("sample, nothing new", _median(agains), "plain PySpark", plain, 0.5)

    def history(self, purchases: int, seed: int, with_pyspark: bool) -> None:
        """A first load of so many purchases, then a day's run, beside recomputing both times."""
        data = DATA / f"{purchases}-1-{seed}"
        if not data.exists():
            self.console.print(f"Generating {data.name} …")
            generate(data, purchases, 1, seed)
        out = self.work / f"history-{purchases}"
        landing = out / "landing"
        landing.mkdir(parents=True)
        (day,) = _increments_of(data)
        dated = sorted(data.glob(f"*-{day}.csv"))
        others = ["duckdb", *(["pyspark"] if with_pyspark else [])]
        size = f"{purchases:,} purchases"

        _land(sorted(set(data.glob("*.csv")) - set(dated)), landing)
        first = self.run("gmv", landing, out / "gmv", f"first load, {size}")
        plain = {name: self.run(name, landing, out / name, f"first load, {size}") for name in others}
        check_same({name: CONTENDERS[name].rows(out / name) for name in ["gmv", *others]})
        if with_pyspark:
            self.add(f"first load, {size}", first, "plain PySpark", plain["pyspark"], 1.5)
        self.add_limit(
            f"Spark server's memory, first load, {size}",
            first.java / 2**30,
            "GiB",
            6 if purchases > 2_000_000 else 4,
        )
        self.add_limit(f"runner's and kernels' memory, first load, {size}", first.python / 2**20, "MiB", 500)

        _land(dated, landing)
        daily = self.days[purchases] = self.run("gmv", landing, out / "gmv", f"a day, {size}")
        plain = {name: self.run(name, landing, out / name, f"a day, {size}") for name in others}
        check_same({name: CONTENDERS[name].rows(out / name) for name in ["gmv", *others]})
        if with_pyspark:
            self.add(f"a day, {size} of history", daily, "plain PySpark", plain["pyspark"], 0.5)
        self.add(f"a day, {size} of history", daily, "DuckDB", plain["duckdb"], 1.0)
        self.commands(out / "gmv" / "lake", size)
        self.disk(out / "gmv" / "lake", size)
        shutil.rmtree(out)

    def commands(self, lake: Path, size: str) -> None:
        """Commands that only look."""
        for arguments, limit in ((["--help"], 0.5), (["show", "daily_gmv"], 2), (["status"], 2)):
            of_lake = ["--lake", str(lake)] if arguments != ["--help"] else []
            costs = [cost_of([str(GMV), *arguments, *of_lake], self.work) for _ in range(max(3, self.repeat))]
            self.add_limit(f"gmv {' '.join(arguments)}, {size}", _median(costs).wall, "s", limit)

    def disk(self, lake: Path, size: str) -> None:
        """The files that tables use after maintenance, beside the same rows as zstd parquet."""
        cost_of(
            [str(GMV), "maintain", "--lake", str(lake), "--runs-dir", str(lake.parent / "runs")], self.work
        )
        used = plain = 0
        for table in TABLES:
            if table.layer not in ("bronze", "silver", "gold") or not (lake / table.path).exists():
                continue
            delta = DeltaTable(lake / table.path)
            files = delta.file_uris()
            if not files or table.partition_by:
                continue
            used += sum(Path(file).stat().st_size for file in files)
            again = self.work / "again.parquet"
            dataset = pyarrow.dataset.dataset(files)
            with pyarrow.parquet.ParquetWriter(again, dataset.schema, compression="zstd") as writer:
                for batch in dataset.to_batches():
                    writer.write_batch(batch)
            plain += again.stat().st_size
            again.unlink()
        self.lines.append(
            Line(
                f"tables on disk after maintain, {size}",
                f"{used / 2**20:,.1f} MiB",
                f"the same rows as zstd parquet: {plain / 2**20:,.1f} MiB",
                used / max(plain, 1),
                1.5,
            )
        )

    def growth(self) -> None:
        """A day's run against the longest history, beside the shortest."""
        least, most = min(self.days), max(self.days)
        if least != most:
            self.add(f"a day at {most:,}", self.days[most], f"at {least:,}", self.days[least], 1.3)


def _seconds(cost: Cost) -> str:
    return f"{cost.wall:.1f} s (CPU {cost.cpu:.1f} s)"


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        *(
            statistics.median(getattr(cost, name) for cost in costs)
            for name in ("wall", "cpu", "java", "python")
        )
    )


def _page(name: str, facts: dict[str, str], lines: list[Line]) -> str:
    return "\n".join(
        [
            f"# {name}",
            "",
            *(f"- {fact}: {value}" for fact, value in facts.items()),
            "",
            f"![Ratios and targets]({name}.png)",
            "",
            f"| {' | '.join(HEADER)} |",
            "| --- | --- | --- | ---: | ---: | --- |",
            *(f"| {' | '.join(line.cells())} |" for line in lines),
            "",
            "Seconds are wall time of whole processes; CPU seconds are user and system time of them and all their",
            "children. On a machine that others use too, wall times of different moments can't be compared; CPU time",
            "can, with some care. All contenders gave the same cents at each step.",
            "",
        ]
    )


def _chart(lines: list[Line], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.32 * len(lines)), layout="constrained")
    shares = [line.ratio / line.target for line in lines]
    colors = ["#2a7f62" if share <= 1 else "#c0392b" for share in shares]
    axes.barh([line.what for line in lines], shares, color=colors)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("measured, by what is aimed at (left of the line: met)")
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@contextmanager
def _working_folder() -> Iterator[Path]:
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=DATA) as work:
        yield Path(work)


EXAMPLES = """
Examples:

  python benchmarks/targets.py --purchases 20000 --purchases 200000

  python benchmarks/targets.py --purchases 200000 --purchases 2000000 --purchases 20000000
"""


def main(
    purchases: Annotated[
        list[int] | None, typer.Option(min=1, help="Purchases of a history, may be repeated")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Repetitions of what is short")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated data")] = 1,
    name: Annotated[str, typer.Option(help="Of the page in benchmarks/results")] = "targets",
) -> None:
    """Compare each cost with its target, and write a page and a chart of results."""
    console = Console()
    load, *_ = os.getloadavg()
    sizes = sorted(purchases or [20_000, 200_000])
    with _working_folder() as work:
        bench = Bench(work, console, repeat)
        bench.sample()
        for size in sizes:
            bench.history(size, seed, with_pyspark=size <= 5_000_000)
        bench.growth()
    facts = {
        "Date": f"{datetime.now(UTC):%Y-%m-%d}",
        "Machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB memory, "
        f"{platform.system()} {platform.machine()}",
        "Load before and after": f"{load:.1f} and {os.getloadavg()[0]:.1f} processes on average; "
        "others' work slows all contenders",
        "Python": platform.python_version(),
        "Java": _java(),
    }
    shown = Table(*HEADER, box=None)
    for line in bench.lines:
        shown.add_row(*line.cells())
    console.print(shown)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(_page(name, facts, bench.lines), encoding="utf-8")
    _chart(bench.lines, RESULTS / f"{name}.png")
    console.print(f"Written: benchmarks/results/{name}.md")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(main)
    app()
