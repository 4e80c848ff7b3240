"""What a run leaves behind: run.json in its folder, and its start and end in `monitoring/runs`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from gmv.lake import faults, location, records, spark
from gmv.lake.reader import Reader
from gmv.notebook import code_version
from gmv.publication import Window
from gmv.tables import RUNS, TABLES


@dataclass
class Record:
    """One run, from its start to its end.

    Attributes:
        place: where the run's files are found: a folder, or a place in an object store.
        outcome: succeeded, nothing_new, failed, refused or interrupted; empty while it runs.
        steps: what each notebook noted, by its name, with `seconds` and `spark_jobs`.
        copy_to: a file that is kept equal to run.json, for whoever started the run.
    """

    run: str
    kind: str
    lake: Path
    place: Path
    window: Window
    today: dt.date
    parameters: dict[str, str]
    outcome: str = ""
    message: str = ""
    started_at: dt.datetime = field(default_factory=records.now)
    ended_at: dt.datetime | None = None
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    code_version: str = field(default_factory=code_version)
    copy_to: Path | None = None
    _copied_until: float = 0

    @property
    def folder(self) -> Path:
        """The run's folder on this machine: its place, or what is copied there."""
        return location.local_twin(self.place)

    def start(self) -> None:
        """Note the start, in the lake and in the run's folder."""
        self._append("started", self.started_at)
        self.write()

    def end(self, outcome: str, message: str = "") -> None:
        """Note the end, in the lake and in the run's folder."""
        self.outcome, self.message, self.ended_at = outcome, message, records.now()
        self._append("ended", self.ended_at)
        self.write()

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure a step, and take in what its notebook noted about itself."""
        began, jobs_before = monotonic(), self._spark_jobs()
        try:
            yield
        finally:
            facts = self.folder / f"{step}.json"
            noted = json.loads(facts.read_text()) if facts.exists() else {}
            facts.unlink(missing_ok=True)
            self.steps[step] = {
                "seconds": round(monotonic() - began, 1),
                "spark_jobs": self._spark_jobs() - jobs_before,
                **noted,
            }
            self.write()

    def _spark_jobs(self) -> int:
        """How many jobs this run's Spark server has started; 0 where the server is not the run's own."""
        log = self.folder / spark.LOG
        return log.read_text(errors="replace").count(spark.JOB_STARTED) if log.exists() else 0

    def write(self) -> None:
        """Write run.json, and its copy; a reader sees the old or the new one, never a part.

        A run without anything new has no folder, so it writes the copy alone.
        """
        has_folder, report = self.folder.is_dir(), self.folder / "report.html"
        if not has_folder and not self.copy_to:
            return
        reader = Reader(self.lake)
        told = {
            "run": self.run,
            "kind": self.kind,
            "outcome": self.outcome,
            "message": self.message,
            "folder": self.place if has_folder else None,
            "report": self.place / report.name if report.exists() else None,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "parameters": self.parameters,
            "window": {"start_date": self.window.start_date, "end_date": self.window.end_date},
            "today": self.today,
            "code_version": self.code_version,
            "steps": self.steps,
            "table_versions": {table.path: reader.version(table) for table in TABLES},
        }
        text = json.dumps(told, indent=2, default=str) + "\n"
        if has_folder:
            with faults.commit("run.json"):
                _replace(self.folder / "run.json", text)
            if self.place != self.folder:
                self._copied_until = location.upload(self.folder, self.place, self._copied_until)
        if self.copy_to:
            _replace(self.copy_to, text)

    def _append(self, event: str, at: dt.datetime) -> None:
        records.append(
            self.lake,
            RUNS,
            [
                {
                    "run": self.run,
                    "event": event,
                    "kind": self.kind,
                    "at": at,
                    "start_date": self.window.start_date,
                    "end_date": self.window.end_date,
                    "as_of_date": self.today,
                    "code_version": self.code_version,
                    "outcome": self.outcome or None,
                    "message": self.message or None,
                    "details": json.dumps(
                        {"seconds": {name: step["seconds"] for name, step in self.steps.items()}}
                    ),
                }
            ],
        )


def _replace(file: Path, text: str) -> None:
    unfinished = file.with_name(f"{file.name}.part")
    unfinished.write_text(text)
    unfinished.replace(file)
