"""`make crash-test`: every commit of a run, before and after it, with every victim that can be killed there.

After each kill: readers get the last published numbers; a plain `gmv run` completes; the second engine agrees;
the tables are those of a run that was never killed. Ends with a table, which is also written as markdown.
All rounds take hours, so each outcome is noted as it comes, and a matrix that was interrupted goes on.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import crash
import typer
from crash import Case, Scene
from gmv.lake.reader import Reader
from gmv.settings import PROJECT
from gmv.verify import verify
from rich.console import Console
from rich.progress import track
from rich.table import Table

PAGE = PROJECT / "docs" / "crash-matrix.md"
NOTES = PROJECT / ".crash-matrix.jsonl"
"""The outcomes of a matrix that has not come to its end, a line for each."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case: an empty fault is a good end."""

    case: Case
    fault: str
    seconds_to_free: float
    """From the kill until nobody held the lake any more."""
    seconds_to_finish: float
    """What the plain run took that went on."""


def try_case(case: Case, scene: Scene, before: dict, after: dict, expected: dict) -> Outcome:
    """Kill a run on a lake of its own, look, let a plain run finish, and compare."""
    freed = finished = 0.0
    try:
        freed = scene.kill(scene.run_until(case.point), case.victim)
        published = scene.published()
        assert published in (before, after), "readers got numbers that were never published"
        began = time.monotonic()
        scene.run()
        finished = time.monotonic() - began
        assert scene.published() == after, "the finished run published other numbers"
        assert verify(Reader(scene.lake), crash.TODAY).agrees, "the second engine disagrees"
        assert crash.taken_in_once(scene.lake), "a file is noted twice, or under another run than its records"
        found = crash.content(scene.lake)
        differing = [path for path in expected if found[path] != expected[path]]
        assert not differing, f"other rows than without the kill in {', '.join(differing)}"
    except (AssertionError, subprocess.TimeoutExpired) as fault:
        return Outcome(case, str(fault).strip() or type(fault).__name__, freed, finished)
    return Outcome(case, "", freed, finished)


def _noted() -> list[Outcome]:
    if not NOTES.exists():
        return []
    lines = [json.loads(line) for line in NOTES.read_text().splitlines()]
    return [Outcome(**{**line, "case": Case(**line["case"])}) for line in lines]


def main(
    only: Annotated[str, typer.Option(help="Only cases whose text holds this.")] = "",
    times: Annotated[int, typer.Option(help="How often the whole matrix is tried.", min=1)] = 1,
    jobs: Annotated[int, typer.Option(help="How many cases are tried at the same time.", min=1)] = 2,
    write: Annotated[
        bool, typer.Option(help="Write docs/crash-matrix.md, and go on with a matrix that was interrupted.")
    ] = False,
) -> None:
    """Try all cases and print what came of each."""
    console = Console()
    outcomes = _noted() if write else []
    left = Counter({case: times for case in crash.all_cases() if only in str(case)})
    left.subtract(outcome.case for outcome in outcomes)
    cases = [case for number in range(times) for case in left if left[case] > number]
    order = {case: number for number, case in enumerate(left)}
    if outcomes:
        console.print(f"{len(outcomes)} outcomes are in {NOTES.name}; {len(cases)} cases are left.")
    with tempfile.TemporaryDirectory(prefix="gmv-crash-") as folder, _pool(jobs) as pool:
        first = Scene(Path(folder, "first"))
        crash.first_run(first)
        crash.deliver_corrections(first)
        undisturbed = crash.copy_of(first, Path(folder, "undisturbed"))
        undisturbed.run()
        before, after, expected = first.published(), undisturbed.published(), crash.content(undisturbed.lake)

        def tried(number: int, case: Case) -> Outcome:
            place = Path(folder, f"case-{number}")
            outcome = try_case(case, crash.copy_of(first, place), before, after, expected)
            shutil.rmtree(place)
            return outcome

        running = [pool.submit(tried, number, case) for number, case in enumerate(cases)]
        for done in track(
            as_completed(running),
            "Killing",
            total=len(running),
            console=console,
            disable=not console.is_terminal,
        ):
            told = done.result()
            outcomes.append(told)
            if write:
                with NOTES.open("a") as notes:
                    notes.write(json.dumps(asdict(told)) + "\n")
            console.print(
                f"{told.case}: {told.fault or 'as if never killed'} "
                f"(free after {told.seconds_to_free:.1f} s, finished in {told.seconds_to_finish:.0f} s)",
                highlight=False,
            )
    outcomes.sort(key=lambda one: order[one.case])
    _tell(console, outcomes)
    if write:
        PAGE.write_text(_page(outcomes, times))
        NOTES.unlink(missing_ok=True)
    faults = [outcome for outcome in outcomes if outcome.fault]
    print(f"{len(outcomes) - len(faults)} passed, {len(faults)} failed")
    raise typer.Exit(1 if faults else 0)


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing more when they are left, as by Ctrl-C."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """A row for each case: how often it ended well, the worst of its faults and times."""
    by_case: dict[Case, list[Outcome]] = {}
    for outcome in outcomes:
        by_case.setdefault(outcome.case, []).append(outcome)
    return [
        [
            case.point,
            case.victim,
            "; ".join(sorted({one.fault for one in tries if one.fault})) or "as if never killed",
            f"{sum(not one.fault for one in tries)} of {len(tries)}",
            f"{max(one.seconds_to_free for one in tries):.1f}",
            f"{max(one.seconds_to_finish for one in tries):.0f}",
        ]
        for case, tries in by_case.items()
    ]


_HEADER = ["point", "victim", "outcome", "rounds", "lake free after (s)", "finished in (s)"]


def _tell(console: Console, outcomes: Sequence[Outcome]) -> None:
    table = Table(*_HEADER)
    for row in _rows(outcomes):
        table.add_row(*row)
    console.print(table)


def _page(outcomes: Sequence[Outcome], times: int) -> str:
    lines = [
        "# What a kill does, at every commit",
        "",
        "A run that brings corrections is stopped just before or just after a commit, and one of its processes is",
        "killed there (SIGKILL). *As if never killed* means: readers got the last published numbers, the next plain",
        "`gmv run` completed, the second engine agreed to the cent, and all rows of bronze, silver and gold are",
        "those of a run that nobody killed. The times are the longest of all rounds, beside a second case at work:",
        "until no process holds the lake any more, and what the run took that went on. A run whose server is killed",
        "when it has no more work for it ends well; then the next finds nothing to do. The origin is the process that",
        "kernels are forked from.",
        "",
        f"`make crash-test`: {len(outcomes)} cases in {times} round(s), {dt.date.today()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, "
        f"Python {platform.python_version()}.",
        "",
        f"| {' | '.join(_HEADER)} |",
        f"|{' --- |' * len(_HEADER)}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in _rows(outcomes)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
