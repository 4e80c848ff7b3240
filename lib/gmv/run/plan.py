"""`gmv plan`: what a run would do and change. It is the run itself, on a copy of the lake that is thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gmv import explain, progress
from gmv.errors import PublicationRefused
from gmv.explain import Change
from gmv.lake import scratch
from gmv.lake.reader import Reader
from gmv.run import runner
from gmv.tables import EVENT_TABLES


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        refused: what the checks would say; empty when they pass.
        files: path, table, records, outcome and reason of each file that is new or has changed.
        touched_purchases: how many purchases have an event that the run takes in or out.
        days: the result of each planned day: published, unchanged, empty, pending or in progress.
        changes: of these days what would be published, or is still to come, with the postings behind it.
        meanwhile: money that would count twice, or nowhere, until pending days are published.
    """

    refused: str = ""
    files: Sequence[dict[str, Any]] = ()
    touched_purchases: int = 0
    days: dict[str, str] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    meanwhile: dict[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """A run would find nothing new, and no number waits."""
        return not (self.files or self.days or self.changes or self.touched_purchases)


def plan(request: runner.Request, show: runner.Show) -> Plan:
    """Rehearse a run; neither the lake nor the runs folder is written to.

    Raises:
        LakeLocked: a run is at work on the lake.
        GmvError: what the run would raise.
    """
    with tempfile.TemporaryDirectory(prefix="gmv-plan-") as folder:
        lake = Path(folder, "lake")
        scratch.copy(request.lake, lake)
        rehearsal = replace(request, lake=lake, runs_dir=Path(folder, "runs"), is_rehearsal=True)
        refused = ""
        gold: dict[str, Any] = {}
        try:
            gold = runner.run(rehearsal, show).steps.get("03_gold", {})
        except PublicationRefused as error:
            refused = str(error)
        reader = Reader(lake)
        (run,) = reader.rows(
            "select run, as_of_date as today from monitoring.runs "
            "where event = 'started' and kind = 'run' order by \"at\" desc limit 1"
        )
        return Plan(
            refused,
            _files(reader, run["run"]),
            _touched_purchases(reader, run["run"]),
            gold.get("days", {}),
            explain.run_and_waiting(reader, run["run"], run["today"]),
            gold.get("meanwhile", {}),
        )


def _files(reader: Reader, run: str) -> list[dict[str, Any]]:
    """What is known already comes last: a folder that was copied anew is full of it."""
    return reader.rows(
        'select path, "table", records, outcome, reason from bronze.files where run = $run '
        "order by outcome = 'repeated', path",
        run=run,
    )


def _touched_purchases(reader: Reader, run: str) -> int:
    taken = "(select bronze_run from monitoring.progress where step = 'ledger' and run = $run)"
    taken_out = reader.rows(
        f"select sha256 from bronze.files where outcome in ('retracted', 'restored') and run in {taken}",
        run=run,
    )
    out = {purchase for _, purchase in progress.purchases_in(reader, {row["sha256"] for row in taken_out})}
    touched = " union ".join(
        f"select purchase_id from silver.{event.versions.name} where run in (select bronze_run from taken)"
        for event in EVENT_TABLES
    )
    (row,) = reader.rows(
        f"""
        with taken as {taken}
        select count(*) as purchases from (
            {touched} union select purchase_id from gold.gmv_ledger where run = $run union select unnest($out)
        )
        """,
        run=run,
        out=list(out),
    )
    return int(row["purchases"])
