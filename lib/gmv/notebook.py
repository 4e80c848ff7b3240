"""A notebook at work: its parameters read, the lake's lock held, Spark at hand when needed, its facts noted."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gmv import bronze, identity, parameters, progress, publication, recovery, verify
from gmv.errors import GmvError, UsageError
from gmv.lake import faults, location, lock, lookups, records
from gmv.lake.reader import Reader
from gmv.lake.unfinished import Unfinished
from gmv.parameters import parse_date
from gmv.publication import Window
from gmv.quality import acceptance
from gmv.settings import settings
from gmv.tables import RUNS
from gmv.verify import Certificate

if TYPE_CHECKING:
    from gmv.lake.lake import Lake
    from gmv.lake.spark import SparkServer

T = TypeVar("T")

WRITERS = ("01_bronze", "02_silver", "03_gold")
"""Notebooks that write to the lake; the others take no lock."""
REPORT = "04_report"

FACTS_FOLDER = "GMV_FACTS"
"""Environment variable: the folder where a run's notebooks leave what they did, for its record."""


def start(name: str, namespace: dict[str, Any]) -> Step:
    """Begin a notebook: read its parameters, take the lake's lock if it writes.

    Args:
        name: the notebook's name, such as `02_silver`.
        namespace: the notebook's globals(), which hold the parameters.

    Raises:
        UsageError: for an unknown parameter or a value that can't be read.
        LakeLocked: when another run holds the lake.
    """
    GmvError.shows_stack_trace = FACTS_FOLDER in os.environ  # for a run's record; a person reads the sentence
    parameters.reject_unknown(name, namespace)
    if isinstance(before := namespace.get("step"), Step):  # run again from the top, in the same kernel
        before.end_server()
        before.release()
    return Step(name, {parameter: namespace.get(parameter, "") for parameter in parameters.ALL})


class Step:
    """A notebook at work.

    Attributes:
        window: the days to publish, as given (`start_date`, `end_date`).
        today: days before it are closed.
        run: this run's id.
        reread: whether to read every file again, known or not.
        accepting: the check that a person accepts in this run, and why; None: none.
        landing, runs_dir: folders.
    """

    def __init__(self, name: str, given: dict[str, Any]) -> None:
        self.name = faults.where = name
        self.window = Window(
            parse_date("start_date", given["start_date"]), parse_date("end_date", given["end_date"])
        )
        self.today = parse_date("as_of_date", given["as_of_date"]) or settings().today()
        self._lake_path = location.location(given["lake"] or settings().lake)
        self.landing = location.location(given["landing"] or settings().landing)
        self.runs_dir = location.location(given["runs_dir"] or settings().runs_dir)
        run = str(given["run_id"])
        self.run = identity.check_run_id(run) if run else identity.new_run_id()
        self.reread = parameters.parse_flag(parameters.REREAD, given[parameters.REREAD])
        check, because = (parameters.parse_text(given[name]) for name in parameters.ACCEPTING)
        self.accepting = acceptance.asked_for(check, because)
        self._facts: dict[str, Any] = {}
        self._server: SparkServer | None = None
        self._lock: lock.Lock | None = None
        if name in WRITERS:
            until = "which ends with its last cell or its kernel"  # also where a cell failed
            self._lock = lock.acquire(self._lake_path, f"notebook {name} of run {self.run}, {until}")
            if not self._is_part_of_a_run:
                try:
                    recovery.follow_clock(self._lake_path)
                    self._began = records.now()
                    recovery.finish_killed_run(self._lake_path)
                except BaseException:
                    self.release()  # the kernel may live on for long
                    raise
        if name == "03_gold":
            lookups.take(self._looked_up)
        faults.reach("after start")

    @property
    def start_date(self) -> dt.date | None:
        return self.window.start_date

    @property
    def end_date(self) -> dt.date | None:
        return self.window.end_date

    @property
    def lake_path(self) -> Path:
        """The lake's folder, to write to.

        Raises:
            UsageError: the notebook has let go of the lake, which others may write since.
        """
        if self._lock and self._lock.is_released:
            raise UsageError(
                "This notebook has ended and let go of the lake, so nothing was written. "
                "Run it again from its first cell."
            )
        return self._lake_path

    @property
    def reader(self) -> Reader:
        """The lake for SQL without Spark, as it is now."""
        if self.name in WRITERS:  # nobody else writes
            return Reader(self._lake_path)
        return publication.state(self._lake_path)

    @property
    def lake(self) -> Lake:
        """The lake's tables as Spark DataFrames; starts a local Spark server where there is none.

        Raises:
            UsageError: as `lake_path`.
        """
        self.lake_path  # noqa: B018 - raises
        return self._spark_lake

    @cached_property
    def _spark_lake(self) -> Lake:
        from gmv.lake import spark
        from gmv.lake.lake import Lake

        if "SPARK_REMOTE" not in os.environ:
            self._server = spark.SparkServer(self._lock, location.local_twin(self.runs_dir) / spark.LOG)
            atexit.register(self._server.stop)
            self._server.wait()
            os.environ.update(self._server.environment())
        return Lake(self._lake_path, spark.connect())

    @property
    def staging(self) -> Path:
        """Folder of this machine for records between parsing and bronze."""
        return location.local_twin(self._lake_path) / bronze.STAGED / self.run

    @property
    def _looked_up(self) -> Path:
        """Folder of this machine for what silver has looked up, and gold would look up again."""
        return self.staging / "looked_up"

    def unfinished(self) -> Unfinished:
        """The bronze runs that this notebook's step has still to take in."""
        return progress.unfinished(
            self.reader, {"02_silver": progress.SILVER, "03_gold": progress.LEDGER}[self.name]
        )

    def meanwhile(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin a call in a thread, while Spark works for the notebook; `result()` waits, and raises what it raised."""
        pool = ThreadPoolExecutor(max_workers=1)
        begun = pool.submit(call, *arguments)
        pool.shutdown(wait=False)
        return begun

    def note(self, **facts: Any) -> None:
        """Keep numbers of this step for the run's record (`run.json`)."""
        self._facts.update(facts)

    def keep(self, certificate: Certificate) -> None:
        """Leave a certificate in the run's folder; a notebook run alone has none."""
        if folder := os.environ.get(FACTS_FOLDER):
            verify.keep(certificate, Path(folder))

    def finish(self) -> None:
        """End the notebook: leave its facts for the run's record, let go of the lake."""
        if self.name == "02_silver":
            with contextlib.suppress(OSError):  # gold looks it up itself, then
                lookups.leave(self._looked_up)
        folder = os.environ.get(FACTS_FOLDER)
        if folder:
            location.replace_text(Path(folder, f"{self.name}.json"), json.dumps(self._facts, default=str))
        elif self.name in WRITERS:
            self._note_run_alone()
        self.release()

    def end_server(self) -> None:
        """End the Spark server that this notebook has started: it may be at work for a cell that was interrupted."""
        if not self._server:
            return
        if lake := self.__dict__.get("_spark_lake"):
            lake.spark.release_session_on_close = False  # nor would a server answer that has died
            lake.spark.stop()
        self._server.stop()
        for name in self._server.environment():
            os.environ.pop(name, None)
        self._server = None

    def release(self) -> None:
        """Let go of the lake without having finished."""
        if self._lock:
            self._lock.release(for_all=True)  # its Spark server may live on for long

    @property
    def _is_part_of_a_run(self) -> bool:
        return FACTS_FOLDER in os.environ

    def _note_run_alone(self) -> None:
        window = {"start_date": self.start_date, "end_date": self.end_date, "as_of_date": self.today}
        common = {"run": self.run, "kind": "notebook", "code_version": identity.code_version(), **window}
        details = json.dumps({"notebook": self.name, **self._facts}, default=str)
        records.append(
            self.lake_path,
            RUNS,
            [
                {**common, "event": "started", "at": self._began},
                {**common, "event": "ended", "at": records.now(), "outcome": "succeeded", "details": details},
            ],
        )
