"""What a run leaves behind: run.json in its folder, and its start and end in `monitoring/runs`."""

from __future__ import annotations

import datetime as dt
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from gmv.errors import GmvError, PublicationRefused, is_disk_full
from gmv.identity import code_version
from gmv.lake import faults, location, records, spark
from gmv.lake.lock import Lock
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.run import signals
from gmv.settings import settings
from gmv.tables import RUNS, TABLES


@dataclass
class Record:
    """One run, from its start to its end.

    Attributes:
        place: where the run's files are found: a folder, or a place in an object store.
        outcome: succeeded, nothing_new, failed, refused or interrupted; empty while it runs.
        steps: what each notebook noted, by its name, with `seconds` and `spark_jobs`.
        ends_as: the outcome, when no error comes up.
        copy_to: a file that is kept equal to run.json, for whoever started the run.
    """

    run: str
    kind: str
    lake: Path
    place: Path
    window: Window
    today: dt.date
    parameters: dict[str, Any]
    outcome: str = ""
    ends_as: str = "succeeded"
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

    def make_folder(self) -> None:
        """Make the run's folder, for runs that leave more than a row.

        Raises:
            GmvError: it can't be made.
        """
        location.make_new(self.folder)
        self.write()

    def end(self, outcome: str, message: str = "") -> None:
        """Note the end, in the lake and in the run's folder: in one of them also where the other can't be written."""
        self.outcome, self.message, self.ended_at = outcome, message, records.now()
        try:
            self._append("ended", self.ended_at)
        finally:
            self.write()

    @contextmanager
    def kept(self, held: Lock) -> Iterator[None]:
        """Around the run: note its start, and how it ends.

        Args:
            held: the lake's lock. Once that is lost, the end is not noted any more.

        Raises:
            GmvError: the run was interrupted.
        """
        try:
            self.start()
            yield
            with _uninterrupted():
                self.end(self.ends_as, self.message)
        except BaseException as error:
            if self.outcome:  # only the end could not be noted
                raise
            ended, told = _told(error, held)
            with _uninterrupted():
                self._end_unsuccessful(held, ended, told)
            if ended == "interrupted":
                raise GmvError(told) from error
            raise

    def _end_unsuccessful(self, held: Lock, outcome: str, message: str) -> None:
        """Note such an end. Where the lake can't be reached any more, the run's own failure is what is told."""
        if not held.stop_renewing():
            return
        try:
            self.end(outcome, message)
        except Exception as error:
            if isinstance(error, OSError) or is_disk_full(error):  # the disk that ended the run is still full
                print(f"gmv: how the run ended could not be written everywhere: {error}", file=sys.stderr)
            elif not is_lost(self.lake, error):
                raise

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
        told = {
            "run": self.run,
            "kind": self.kind,
            "outcome": self.outcome,
            "message": self.message,
            "folder": self.place if has_folder else None,
            "report": link_to(self.place / report.name) if report.exists() else None,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "parameters": self.parameters,
            "window": {"start_date": self.window.start_date, "end_date": self.window.end_date},
            "today": self.today,
            "code_version": self.code_version,
            "steps": self.steps,
            "table_versions": self._table_versions() if self.outcome else {},
        }
        text = json.dumps(told, indent=2, default=str) + "\n"
        if has_folder:
            with faults.commit("run.json"):
                location.replace_text(self.folder / "run.json", text)
            if self.place != self.folder:
                self._copied_until = location.upload(self.folder, self.place, self._copied_until)
        if self.copy_to:
            location.replace_text(self.copy_to, text)

    def _table_versions(self) -> dict[str, int | None]:
        """What the run leaves; to ask each table after each of its steps would cost as long as a small step."""
        reader = Reader(self.lake)
        return {table.path: reader.version(table) for table in TABLES}

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


def link_to(report: Path) -> str:
    """Where people find a run's report: as GMV_REPORT_LINK leads to it; without that, its place."""
    runs_dir = (settings().report_link or "").rstrip("/")
    return f"{runs_dir}/{report.parent.name}/{report.name}" if runs_dir else str(report)


def is_lost(lake: Path, error: Exception) -> bool:
    """Whether an error is that an object store refuses or does not answer."""
    return location.is_remote(lake) and location.explanation(location.chained(error)) is not None


def _told(error: BaseException, held: Lock) -> tuple[str, str]:
    """The outcome of a run with such an error, and what is told of it."""
    if held.loss or isinstance(error, KeyboardInterrupt):  # a lost lease ends notebooks, too
        told = held.loss or "Interrupted: what was committed stays, and the next run goes on."
        return "interrupted", told
    outcome = "refused" if isinstance(error, PublicationRefused) else "failed"
    return outcome, str(error) if isinstance(error, GmvError) else f"{type(error).__name__}: {error}"


def _uninterrupted() -> AbstractContextManager[None]:
    """Neither Ctrl-C nor a polite kill is heard meanwhile."""
    return signals.handled({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN})
