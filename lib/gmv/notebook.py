"""What every notebook starts with: its parameters read, the lake's lock held, Spark at hand when needed."""

from __future__ import annotations

import ast
import atexit
import datetime as dt
import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gmv import bronze, progress, publication, verify
from gmv.errors import GmvError, UsageError
from gmv.lake import faults, location, lock, records
from gmv.lake.reader import Reader, remedy
from gmv.progress import Unfinished
from gmv.publication import Window
from gmv.quality import acceptance
from gmv.settings import DATE, PROJECT, settings
from gmv.tables import DAILY_GMV, EVENT_TABLES, GMV_LEDGER, RUNS
from gmv.verify import Certificate

if TYPE_CHECKING:
    from gmv.lake.lake import Lake

T = TypeVar("T")

REREAD = "reread"
ACCEPTING = ("accept", "because")

PARAMETERS = (
    "start_date",
    "end_date",
    "as_of_date",
    "lake",
    "landing",
    "runs_dir",
    "run_id",
    REREAD,
    *ACCEPTING,
)
OF_ONE = {"01_bronze": (REREAD,), "03_gold": ACCEPTING}
"""By notebook, the parameters that no other has."""
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
    _reject_unknown(name, namespace)
    if isinstance(before := namespace.get("step"), Step):  # run again from the top, in the same kernel
        before.release()
    return Step(name, {parameter: namespace.get(parameter, "") for parameter in PARAMETERS})


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

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        self.name = faults.where = name
        self.window = Window(
            parse_date("start_date", parameters["start_date"]), parse_date("end_date", parameters["end_date"])
        )
        self.today = parse_date("as_of_date", parameters["as_of_date"]) or settings().today()
        self._lake_path = location.location(parameters["lake"] or settings().lake)
        self.landing = location.location(parameters["landing"] or settings().landing)
        self.runs_dir = location.location(parameters["runs_dir"] or settings().runs_dir)
        self.run = check_run_id(str(parameters["run_id"])) if parameters["run_id"] else new_run_id()
        self.reread = parse_flag(REREAD, parameters[REREAD])
        self.accepting = acceptance.asked_for(*(parse_text(parameters[name]) for name in ACCEPTING))
        self._facts: dict[str, Any] = {}
        self._lock: lock.Lock | None = None
        if name in WRITERS:
            self._lock = lock.acquire(self._lake_path, f"notebook {name} of run {self.run}")
            if not self._is_part_of_a_run:
                try:
                    follow_clock(self._lake_path)
                    self._began = records.now()
                    finish_killed_run(self._lake_path)
                except BaseException:
                    self.release()  # the kernel may live on for long
                    raise
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
        return Reader(self._lake_path)

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
            server = spark.SparkServer(self._lock, location.local_twin(self.runs_dir) / spark.LOG)
            atexit.register(server.stop)
            server.wait()
            os.environ.update(server.environment())
        return Lake(self._lake_path, spark.connect())

    @property
    def staging(self) -> Path:
        """Folder of this machine for records between parsing and bronze."""
        return location.local_twin(self._lake_path) / bronze.STAGED / self.run

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
        folder = os.environ.get(FACTS_FOLDER)
        if folder:
            location.replace_text(Path(folder, f"{self.name}.json"), json.dumps(self._facts, default=str))
        elif self.name in WRITERS:
            self._note_run_alone()
        self.release()

    def release(self) -> None:
        """Let go of the lake without having finished."""
        if self._lock:
            self._lock.release(for_all=True)  # its Spark server may live on for long

    @property
    def _is_part_of_a_run(self) -> bool:
        return FACTS_FOLDER in os.environ

    def _note_run_alone(self) -> None:
        window = {"start_date": self.start_date, "end_date": self.end_date, "as_of_date": self.today}
        common = {"run": self.run, "kind": "notebook", "code_version": code_version(), **window}
        details = json.dumps({"notebook": self.name, **self._facts}, default=str)
        records.append(
            self.lake_path,
            RUNS,
            [
                {**common, "event": "started", "at": self._began},
                {**common, "event": "ended", "at": records.now(), "outcome": "succeeded", "details": details},
            ],
        )


def follow_clock(lake_path: Path) -> None:
    """Date what is noted from now on after what the lake holds, also where this machine's clock is behind that."""
    (newest,) = Reader(lake_path).rows('select max("at") as moment from monitoring.runs')
    behind = records.follow(newest["moment"])
    if behind >= dt.timedelta(minutes=1):
        print(
            f"gmv: this machine's clock is {behind} behind the lake's newest record, so what is noted now is dated "
            "after that. See whether the clock is right.",
            file=sys.stderr,
        )


def finish_killed_run(lake_path: Path) -> None:
    """Write what a killed run left unwritten beside its commits; call it with the lock held.

    Raises:
        GmvError: when tables are damaged, or a rebuild was killed while it swapped them.
    """
    _require_whole(lake_path)
    bronze.finish_killed_run(lake_path)
    publication.write_missing_history(lake_path)


def _require_whole(lake_path: Path) -> None:
    reader = Reader(lake_path)
    if progress.unfinished_rebuilds(reader):
        raise GmvError(
            "A rebuild of this lake was killed. `gmv run` or `gmv rebuild` finishes it; do that first."
        )
    has_silver = reader.rows(
        "select 1 from monitoring.progress where step = $step limit 1", step=progress.SILVER
    )
    has_gold = reader.rows("select 1 from gold.daily_gmv_history limit 1")
    needed = [GMV_LEDGER, DAILY_GMV] if has_gold else []  # the gravest loss comes first
    needed += [table for event in EVENT_TABLES for table in (event.versions, event.latest) if has_silver]
    missing = [table for table in needed if not reader.exists(table)]
    if missing:
        raise GmvError(
            f"The lake lacks {', '.join(table.path for table in missing)}, though runs have written that. "
            f"Nothing was changed; {remedy(missing[0])}."
        )


def new_run_id() -> str:
    """An id that sorts by time: the moment in UTC, and four random digits."""
    return f"{records.now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def check_run_id(text: str) -> str:
    """The run id, if it is one: letters, digits, `-`, `_` and `.`, so that it can't leave the runs folder.

    Raises:
        UsageError: when it isn't.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise UsageError(f"run_id: {text!r} is no run id (letters, digits, '-', '_' and '.').")
    return text


def parse_date(name: str, text: object) -> dt.date | None:
    """The date of `YYYY-MM-DD`; None for an empty text.

    Raises:
        UsageError: naming the parameter and its value.
    """
    if text is None or text == "":
        return None
    if isinstance(text, str) and DATE.fullmatch(text):
        try:
            return dt.date.fromisoformat(text)
        except ValueError:
            pass
    raise UsageError(f"{name}: {text!r} is no date; write it as YYYY-MM-DD.")


def parse_text(value: object) -> str:
    """The text, also of a number, such as papermill makes of a ticket's; an empty one for None."""
    return "" if value is None else str(value)


def parse_flag(name: str, value: object) -> bool:
    """True of `True`, False of `False` or an empty text; papermill's `-r` brings them as texts.

    Raises:
        UsageError: naming the parameter and its value.
    """
    known = {"true": True, "false": False, "": False}
    text = "" if value is None else str(value).lower()
    if text not in known:
        raise UsageError(f"{name}: {value!r} is neither True nor False.")
    return known[text]


def code_version() -> str:
    """The checkout's commit, with `+` when files differ from it; the package's version outside of one."""
    import importlib.metadata
    import subprocess

    told = subprocess.run(
        ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=+", "--exclude=*"],
        capture_output=True,
        text=True,
    )
    return told.stdout.strip() if told.returncode == 0 else importlib.metadata.version("gmv-pipeline")


def _reject_unknown(name: str, namespace: dict[str, Any]) -> None:
    """papermill injects parameters that a notebook doesn't know without an error; this is the error."""
    of_others = {one for notebook, names in OF_ONE.items() if notebook != name for one in names}
    known = [parameter for parameter in PARAMETERS if parameter not in of_others]
    injected = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters")]
    for cell in injected[-1:]:
        assigned = {
            target.id
            for statement in ast.parse(cell).body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        for unknown in sorted(assigned - set(known)):
            raise UsageError(f"{unknown}: no such parameter of {name}; there are {', '.join(known)}.")
