"""Which bronze runs a step has still to take in: what makes every step safe to kill and to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.tables import PROGRESS

SILVER, LEDGER = STEPS = ("silver", "ledger")


@dataclass(frozen=True)
class Unfinished:
    """The bronze runs that a step's progress lacks.

    Attributes:
        step: `silver` or `ledger`.
        runs: their ids, oldest first.
        records: how many records they brought.
        is_everything: the step has taken in nothing yet, so these are all there are.
    """

    step: str
    runs: Sequence[str]
    records: int
    is_everything: bool


def unfinished(reader: Reader, step: str) -> Unfinished:
    """The bronze runs that a step has still to take in; the ledger, of those that silver has."""
    has_silver = f"and run in (select bronze_run from monitoring.progress where step = '{SILVER}') "
    rows = reader.rows(
        "select run, sum(records) as records from bronze.files "
        "where outcome in ('ingested', 'retracted', 'restored') "
        "and run not in (select bronze_run from monitoring.progress where step = $step) "
        + (has_silver if step == LEDGER else "")
        + "group by run order by run",
        step=step,
    )
    finished = reader.rows("select 1 from monitoring.progress where step = $step limit 1", step=step)
    return Unfinished(
        step, [row["run"] for row in rows], int(sum(row["records"] or 0 for row in rows)), not finished
    )


def note(lake_path: Path, taken: Unfinished, run: str) -> None:
    """Note that a step has taken these bronze runs in; call it after the step's last commit."""
    moment = records.now()
    records.append(
        lake_path,
        PROGRESS,
        [
            {"step": taken.step, "bronze_run": bronze_run, "run": run, "recorded_at": moment}
            for bronze_run in taken.runs
        ],
    )
