"""The commands that work on a lake: run, retract, rebuild, maintain; and verify and report, which only read it.

A run decides whether there is anything to do, executes the four notebooks under the lake's lock, and records what
happened.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.abc
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmv import bronze, monitoring, notebook, progress, publication, recovery, verify
from gmv.errors import GmvError, PublicationRefused, UsageError
from gmv.identity import new_run_id
from gmv.lake import faults, location, lock, spark
from gmv.lake.reader import Reader
from gmv.notebook import REPORT
from gmv.parameters import ACCEPTING, OF_ONE, REREAD
from gmv.problems import runs_since_one_ended_well
from gmv.publication import Window
from gmv.quality.acceptance import Acceptance
from gmv.run import alerts, signals
from gmv.run.record import Record, is_lost
from gmv.settings import settings
from gmv.verify import Certificate

if TYPE_CHECKING:
    from gmv.lake.spark import SparkServer
    from gmv.run.kernels import Kernels

BIG_BYTES = 6_000_000
"""From so many bytes of new files on (100,000 records, see `lake.MOST_ROWS_TO_COLLECT`), Spark does the work:
its server compiles fully, which is slower to start and several times faster to work."""
MAINTAINED_BYTES = 50_000_000
"""A run with so many bytes of new files is followed by maintenance."""

NO_WINDOW = Window()

Show = Callable[[str], AbstractContextManager[None]]
"""Shows that a step is at work while its context is open."""


@dataclass(frozen=True)
class Request:
    """What the user asked for. Folders are absolute; `record_to` is a file for a copy of run.json."""

    lake: Path
    landing: Path
    runs_dir: Path
    window: Window = NO_WINDOW
    as_of_date: dt.date | None = None
    reread: bool = False
    resume: str = ""
    """An older run, whose window and today this one takes over."""
    record_to: Path | None = None
    is_rehearsal: bool = False
    """On a copy of the lake, for a plan: without a report, and nobody is told."""
    accepting: Acceptance | None = None


def run(request: Request, show: Show) -> Record:
    """Take in what has arrived, publish the days of the window, and make the report.

    Returns:
        The run's record; its outcome is `succeeded` or `nothing_new`.

    Raises:
        LakeLocked, PublicationRefused, GmvError: after the record has noted it.
    """
    _spare_pandas()
    run_id = new_run_id()
    if request.record_to:
        request.record_to.unlink(missing_ok=True)  # a run that does not begin leaves none
    _require_places(request)
    with _held(request.lake, f"run {run_id}") as held:
        request = _resumed(request)
        _finish_killed_rebuild(request, held, show)
        return _run(request, run_id, held, show)


def retract(
    request: Request,
    name: str,
    because: str,
    show: Show,
    tell: Callable[[str], None],
    *,
    undo: bool,
    run: bool,
) -> Record | None:
    """Take a file's events out of force, or put them back, and publish what that changes.

    Args:
        name: the file's path below landing, or its sha256.
        because: why, for the record.
        tell: told what was noted, before the run begins.
        undo: put it back.
        run: take the change in at once; otherwise the next run does.

    Returns:
        The record of the run that took it in; None without one.

    Raises:
        UsageError: no ingested content has that name, or several have it; or it was never retracted.
        LakeLocked, PublicationRefused, GmvError: as `run`. What was noted stays, and the next run goes on.
    """
    from gmv import retraction  # with Spark's client, which a run itself has no use for

    run_id = new_run_id()
    _require_lake(request)
    if run:
        _require_places(request)
    with _held(request.lake, f"retraction {run_id}") as held:
        _finish_killed_rebuild(request, held, show)
        recovery.finish_killed_run(request.lake)
        content = retraction.named(Reader(request.lake), name, request.landing)
        if undo and not content.changed_at:
            raise UsageError(f"{content.path} was never retracted; there is nothing to undo.")
        if content.is_retracted is undo:
            record = _record(request, run_id, "retract")
            with record.kept(held):
                retraction.note(request.lake, content, because, run_id, undo=undo)
                record.message = f"{content.path} {'restored' if undo else 'retracted'}: {because}"
            tell(
                f"{content.path}: its {content.records} records {'count again' if undo else 'count no longer'}."
            )
        else:
            state = "counts again" if undo else "is retracted"
            tell(f"{content.path} {state} since {content.changed_at:%Y-%m-%d %H:%M} UTC: {content.reason}")
        return _run(request, new_run_id(), held, show) if run else None


def rebuild(request: Request, show: Show) -> tuple[Record, Certificate]:
    """Make silver anew from bronze, swap in what differs, post what the ledger lacks, and verify it all.

    Returns:
        The record, whose step `rebuild` tells what was found and done; and the certificate.

    Raises:
        UsageError: when there is no lake.
        LakeLocked: when a run is at work.
        GmvError: when the rebuilt tables do not agree with what the second engine makes of bronze.
    """
    _require_lake(request)
    run_id = new_run_id()
    with _held(request.lake, f"rebuild {run_id}") as held:
        bronze.finish_killed_run(request.lake)
        return _rebuild(request, run_id, held, show)


def _rebuild(request: Request, run_id: str, held: lock.Lock, show: Show) -> tuple[Record, Certificate]:
    from gmv import rebuild as rebuilding
    from gmv.lake.lake import Lake

    record = _record(request, run_id, "rebuild")
    (arrived,) = Reader(request.lake).rows(
        "select coalesce(sum(size), 0) as size from bronze.files where outcome = 'ingested'"
    )
    with record.kept(held):
        record.make_folder()
        is_small = arrived["size"] < BIG_BYTES
        with (
            record.timed("rebuild"),
            _spark_for(held, record.folder / spark.LOG, is_small) as server,
            server.in_use() if server else contextlib.nullcontext(),
        ):
            session = spark.connect()
            try:
                rebuilt = rebuilding.rebuild(Lake(request.lake, session), run_id, show)
            finally:
                if server:  # its client would look for it for minutes, once it has ended
                    session.stop()
        record.steps["rebuild"].update(rebuilt.as_dict())
        with show("verify"):
            certificate = verify.verify(Reader(request.lake), record.today)
        verify.keep(certificate, record.folder)
        if not certificate.agrees:
            lost = f" {verify.ONLY_IN_A_BACKUP}" if certificate.lacks_past else ""
            raise GmvError(
                f"Silver was made anew, but a second engine comes to other numbers: "
                f"{'. '.join(certificate.faults())}.{lost} See {record.place / verify.CERTIFICATE}."
            )
    return record, certificate


def _finish_killed_rebuild(request: Request, held: lock.Lock, show: Show) -> None:
    if progress.unfinished_rebuilds(Reader(request.lake)):
        bronze.finish_killed_run(request.lake)
        _rebuild(request, new_run_id(), held, show)


def verify_all(request: Request, show: Show) -> tuple[Certificate, Path]:
    """Recompute every number from bronze, compare, and leave the certificate in a folder of its own.

    No run may be at work while the versions of the tables are looked up, so that they belong together; after
    that, one may.

    Returns:
        The certificate, and the path of `certificate.json`.

    Raises:
        LakeLocked: when a run is at work: its tables would be compared half done.
        UsageError: when there is no lake.
        GmvError: when the folder can't be made.
    """
    _require_lake(request)
    run_id = new_run_id()
    reader = Reader(request.lake)
    lock.ensure_free(request.lake)
    verify.pin(reader)
    lock.ensure_free(request.lake)
    place = request.runs_dir / f"{verify.FOLDER}{run_id}"
    folder = location.local_twin(place)
    location.make_new(folder)
    with show("verify"):
        certificate = verify.verify(reader, request.as_of_date or settings().today())
    verify.keep(certificate, folder)
    if location.is_remote(place):
        location.upload(folder, place)
    return certificate, place / verify.CERTIFICATE


def maintain(request: Request, show: Show) -> list[dict]:
    """Maintain the lake's tables, as a run of kind `maintain`.

    Returns:
        What became of each table, as `gmv.maintain.maintain` gives it.

    Raises:
        UsageError: when there is no lake.
        LakeLocked: another run holds the lake.
        GmvError: a table can't be maintained; it is as it was.
    """
    _require_lake(request)
    with _held(request.lake, "gmv maintain") as held:
        recovery.finish_killed_run(request.lake)
        return _maintain(request, held, show)


def _maintain(request: Request, held: lock.Lock, show: Show) -> list[dict]:
    from gmv import maintain as maintaining

    record = _record(replace(request, window=NO_WINDOW, record_to=None), new_run_id(), "maintain")
    with show("maintain"), record.kept(held):
        return maintaining.maintain(request.lake)


def _run(request: Request, run_id: str, held: lock.Lock, show: Show) -> Record:
    record = _record(request, run_id, "run")
    with _watched(request, record), record.kept(held):
        recovery.finish_killed_run(request.lake)
        files = bronze.unread(Reader(request.lake), request.landing, request.reread)
        arrived = sum(file.size for file in files)
        if files or request.accepting or _has_work(record):
            record.make_folder()
            _execute(request, record, held, show, is_small=arrived < BIG_BYTES)
        else:
            record.ends_as = "nothing_new"
    if not request.is_rehearsal:
        _maintain_if_due(request, held, show, was_big=arrived >= MAINTAINED_BYTES)
    return record


def _record(request: Request, run_id: str, kind: str) -> Record:
    return Record(
        run_id,
        kind,
        request.lake,
        request.runs_dir / run_id,
        request.window,
        request.as_of_date or settings().today(),
        _parameters(request) | _of_one_notebook(request),
        copy_to=request.record_to,
    )


def _require_places(request: Request) -> None:
    for place in (request.lake, request.landing, request.runs_dir):
        location.check(place)
    if not location.is_remote(request.landing) and not request.landing.is_dir():
        raise GmvError(  # no wrong use: it may be there in a minute, so schedulers try again
            f"The landing folder {request.landing} does not exist. Make it, or name another by --landing."
        )


def _require_lake(request: Request) -> None:
    for place in (request.lake, request.runs_dir):
        location.check(place)
    location.require_lake(request.lake)


@contextlib.contextmanager
def _watched(request: Request, record: Record) -> Iterator[None]:
    """However the run ends, note how the lake is then, and tell of problems; neither changes how it ended."""
    try:
        yield
    finally:
        if record.outcome and not request.is_rehearsal:
            report = record.place / "report.html"
            has_report = (record.folder / report.name).exists()
            seconds = {name: step["seconds"] for name, step in record.steps.items()}
            try:
                monitoring.note_run(Reader(record.lake), record.run, record.today, seconds)
                alerts.after_run(record.lake, record.run, record.today, report if has_report else None)
            except Exception as error:
                if record.outcome == "succeeded" or not is_lost(record.lake, error):  # else the run tells it
                    said = str(error).strip().partition("\n")[0]
                    print(
                        "gmv: the run ended as told, but its end could not be watched: "
                        f"{type(error).__name__}: {said}",
                        file=sys.stderr,
                    )


def make_report(request: Request, show: Show) -> Path:
    """Run 04_report alone, for any window, without the lake's lock.

    Returns:
        The report's path.

    Raises:
        UsageError: when there is no lake.
        GmvError: when its folder can't be made.
    """
    location.require_lake(request.lake)
    run_id = new_run_id()
    place = request.runs_dir / f"report-{run_id}"
    folder = location.local_twin(place)
    location.make_new(folder)
    from gmv.run.kernels import Kernels

    with show(REPORT), Kernels(folder, {notebook.FACTS_FOLDER: str(folder)}) as kernels:
        _render_report(request, folder, {**_parameters(request), "run_id": ""}, kernels)
    if location.is_remote(request.runs_dir):
        location.upload(folder, place)
    return place / "report.html"


def last_report(runs_dir: Path) -> Path | None:
    """The newest run's report."""
    found = location.newest(runs_dir, "report.html")
    return found[0] if found else None


def _execute(request: Request, record: Record, held: lock.Lock, show: Show, is_small: bool) -> None:
    """The notebooks, in order; what the next one imports is imported while one is at work.

    What checks refuse to publish is seen in a report, too.
    """
    facts = {notebook.FACTS_FOLDER: str(record.folder)}
    parameters = {**_parameters(request), "as_of_date": record.today.isoformat(), "run_id": record.run}
    refused = None
    with _spark_for(held, record.folder / spark.LOG, is_small) as server:
        from gmv.run.kernels import Kernels  # while the server starts

        faults.reach("after server start")
        with Kernels(record.folder, facts, held, server) as kernels:
            try:
                _publish(record, show, parameters, kernels, then="" if request.is_rehearsal else REPORT)
            except PublicationRefused as refusal:
                refused = refusal
            if server:
                server.ask_to_end()
            if not request.is_rehearsal:
                try:
                    with show(REPORT), record.timed(REPORT):
                        _render_report(request, record.folder, parameters, kernels)
                except (GmvError, OSError) as error:  # such as a disk that is full
                    said = str(error).rstrip(".")
                    if refused:
                        raise PublicationRefused(f"{refused}\nThere is no report of it: {said}.") from error
                    raise GmvError(
                        f"The numbers are published, the report is not: {said}. "
                        f"Make it with: gmv report --lake {request.lake}"
                    ) from error
    if refused:
        if not request.is_rehearsal:
            refused.report = str(record.place / "report.html")
        raise refused


def _publish(record: Record, show: Show, parameters: Mapping[str, Any], kernels: Kernels, then: str) -> None:
    for name, following in itertools.pairwise((*notebook.WRITERS, then)):
        with show(name), record.timed(name):
            own = {key: record.parameters[key] for key in OF_ONE.get(name, ()) if key in record.parameters}
            kernels.execute(name, record.folder / f"{name}.ipynb", {**parameters, **own}, then=following)


def _render_report(request: Request, folder: Path, parameters: Mapping[str, Any], kernels: Kernels) -> None:
    """The executed 04_report, the page and the CSV of its numbers, in a folder.

    A run may publish meanwhile; the CSV has the numbers that the page shows.
    """
    with ThreadPoolExecutor(1) as beside:
        importing = beside.submit(importlib.import_module, "gmv.report.page")  # while the kernel works
        kernels.execute(REPORT, folder / f"{REPORT}.ipynb", parameters)
        page = importing.result()
    page.render(folder / f"{REPORT}.ipynb", folder / "report.html")
    noted = folder / f"{REPORT}.json"
    shown = Reader(request.lake, json.loads(noted.read_text())["versions"])
    noted.unlink()
    page.write_numbers(shown, request.window, folder / "daily_gmv.csv")


@contextlib.contextmanager
def _spark_for(held: lock.Lock, log: Path, is_small: bool) -> Iterator[SparkServer | None]:
    """This run's Spark server; none is started where SPARK_REMOTE names one, which must answer."""
    if "SPARK_REMOTE" in os.environ:
        spark.require_remote()
        yield None
    else:
        with spark.SparkServer(held, log, is_small) as server:
            yield server


def _resumed(request: Request) -> Request:
    """The request with the window and the today of the run that it resumes.

    Raises:
        UsageError: when there is no such run, or a window or today is given besides.
    """
    if not request.resume:
        return request
    if request.window.start_date or request.as_of_date:
        raise UsageError(
            "--resume takes window and today from the run; leave out --start-date, --end-date, --as-of-date."
        )
    rows = Reader(request.lake).rows(
        "select start_date, end_date, as_of_date from monitoring.runs "
        "where run = $run and kind = 'run' and event = 'started'",
        run=request.resume,
    )
    if not rows:
        raise UsageError(
            f"--resume: the lake {request.lake} knows no run {request.resume!r}; see: gmv show runs."
        )
    window = Window(rows[0]["start_date"], rows[0]["end_date"])
    return replace(request, window=window, as_of_date=rows[0]["as_of_date"])


def _has_work(record: Record) -> bool:
    reader = Reader(record.lake)
    if record.window.start_date or any(progress.unfinished(reader, step).runs for step in progress.STEPS):
        return True
    due = publication.plan(reader, record.window, record.today, settings().closed_until).publish
    return bool(due) or _lacks_report(reader) or _was_refused(reader)


def _was_refused(reader: Reader) -> bool:
    """Whether checks refused a run, and none has ended well since: a refused file may be all that came of a day,
    so that no day waits."""
    return any(run["outcome"] == "refused" for run in runs_since_one_ended_well(reader))


def _lacks_report(reader: Reader) -> bool:
    """Whether the last run that published was stopped before it had made its report."""
    return bool(
        reader.rows(
            """
            select 1 from monitoring.runs
            where kind = 'run' and event = 'started' and run in (select run from gold.daily_gmv_history)
                and "at" > coalesce((
                    select max("at") from monitoring.runs
                    where kind = 'run' and event = 'ended' and outcome = 'succeeded'
                ), timestamp '-infinity')
            limit 1
            """
        )
    )


def _maintain_if_due(request: Request, held: lock.Lock, show: Show, was_big: bool) -> None:
    """Maintain the tables after a big load, and every `maintain_every` runs."""
    from gmv import maintain as maintaining

    if settings().maintain_every and (was_big or maintaining.is_due(Reader(request.lake))):
        try:
            _maintain(request, held, show)
        except GmvError as error:
            raise GmvError(
                f"The numbers are published, but the tables are not maintained: {error}"
            ) from error


def _parameters(request: Request) -> dict[str, str]:
    def text(date: dt.date | None) -> str:
        return date.isoformat() if date else ""

    return {
        "start_date": text(request.window.start_date),
        "end_date": text(request.window.end_date),
        "as_of_date": text(request.as_of_date),
        "lake": str(request.lake),
        "landing": str(request.landing),
        "runs_dir": str(request.runs_dir),
    }


def _of_one_notebook(request: Request) -> dict[str, Any]:
    """Parameters that only one notebook knows, and only where they were asked for."""
    asked = request.accepting
    accepting = dict(zip(ACCEPTING, (asked.check, asked.because), strict=True)) if asked else {}
    return accepting | ({REREAD: True} if request.reread else {})


@contextlib.contextmanager
def _held(lake: Path, holder: str) -> Iterator[lock.Lock]:
    held = lock.acquire(lake, holder)
    try:
        recovery.follow_clock(lake)
        with _stopping_on_terminate():
            yield held
    finally:
        held.release()


def _stopping_on_terminate() -> AbstractContextManager[None]:
    """A polite kill (SIGTERM) ends a run as Ctrl-C does: recorded, and with no process left behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    return signals.handled({signal.SIGTERM: interrupt})


class _NoPandas(importlib.abc.MetaPathFinder):
    """Says that pandas is not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _spare_pandas() -> None:
    """Let pyarrow make its first array while it can't import pandas.

    It looks for pandas once, to know pandas' series when it is given some. The run gives it none: kernels use
    pandas, this process doesn't, and it costs a third of a second and forty megabytes.
    """
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
