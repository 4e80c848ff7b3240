"""`gmv doctor`: whether this machine and this lake are fit, and what to do where they aren't."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gmv import recovery
from gmv.errors import GmvError
from gmv.lake import lease, location, lock, spark
from gmv.lake.reader import Reader, remedy
from gmv.settings import PROJECT, settings
from gmv.tables import TABLES, Table

FREE_BYTES_WANTED = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it is fit, what was found, and what to do."""

    what: str
    fit: bool
    found: str


def examine(lake: Path, landing: Path, runs_dir: Path) -> list[Finding]:
    """Look at Java, Delta's jars, notebooks, folders, disk, and into the lake, where that can be reached."""
    reached = _finding("Lake", lambda: _folder(lake))
    return [
        _finding("Python", _python),
        _finding("Java", lambda: f"{spark.java()} (version {spark.java_version(spark.java())})"),
        _finding("Spark", _pyspark),
        _finding("Delta's jars", lambda: f"{len(spark.jars())} jars in {spark.JARS}"),
        _finding("Class archive", _class_archive),
        _finding("Notebooks", _notebooks),
        _finding("Landing folder", lambda: _folder(landing, must_exist=True, to_write=False)),
        reached,
        _finding("Runs folder", lambda: _folder(runs_dir)),
        _finding("Disk", lambda: _disk(lake)),
        *(_of_lake(lake) if reached.fit else []),
    ]


def _of_lake(lake: Path) -> list[Finding]:
    conditions = [_finding("Conditional writes", lambda: lease.check_conditions(lake))]
    return [
        *(conditions if location.is_remote(lake) else []),
        _finding("Lock", lambda: _lock(lake)),
        *(_finding(table.path, lambda table=table: _table(lake, table)) for table in TABLES),  # type: ignore[misc]
    ]


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except GmvError as unfit:
        return Finding(what, False, str(unfit))
    except Exception as error:
        if told := location.explanation(location.chained(error)):
            return Finding(what, False, told)
        raise


def _python() -> str:
    return f"{sys.version.split()[0]} in {sys.prefix}"


def _pyspark() -> str:
    import pyspark

    remote = os.environ.get("SPARK_REMOTE")
    if remote:
        spark.require_remote()
    where = (
        f"the server {remote.split(';')[0]}"
        if remote
        else f"a local server, {settings().spark_memory_mib} MiB"
    )
    return f"PySpark {pyspark.__version__}, on {where}, {settings().spark_cores} cores"


def _class_archive() -> str:
    archive = spark.class_archive(spark.java())
    return str(archive) if archive.exists() else "none: Spark starts slower; gmv doctor --fix makes it"


def _notebooks() -> str:
    found = sorted((PROJECT / "notebooks").glob("0*.ipynb"))
    if len(found) < 4:
        raise GmvError(f"{PROJECT / 'notebooks'} lacks notebooks: work in a checkout of the project.")
    return ", ".join(path.stem for path in found)


def _folder(path: Path, must_exist: bool = False, to_write: bool = True) -> str:
    if location.is_remote(path):
        location.check(path)
        return f"{path} answers"
    nearest = _nearest(path)
    if not nearest.is_dir():
        raise GmvError(f"{nearest} is not a folder. Name another.")
    if not os.access(nearest, os.R_OK | os.X_OK | (os.W_OK if to_write else 0)):
        raise GmvError(f"{nearest} can't be {'written' if to_write else 'read'}. Change its permissions.")
    if nearest == path:
        return str(path)
    if must_exist:
        raise GmvError(f"{path} does not exist. Make it, or name another.")
    return f"{path} (will be made by the first run)"


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there, and that this user may see."""
    return next(folder for folder in [path, *path.parents] if os.path.exists(folder))  # Path.exists raises


def _disk(lake: Path) -> str:
    existing = _nearest(location.local_twin(lake))
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES_WANTED:
        raise GmvError(f"Only {free / 2**30:.1f} GiB are free at {existing}; free some before the next run.")
    return f"{free / 2**30:.0f} GiB free"


def _lock(lake: Path) -> str:
    if location.is_remote(lake):
        lock.require_fit(lake)
        lock.ensure_free(lake)  # to hold the lease, if only for a moment, would refuse a run that begins
        return "free"
    if not lake.exists():
        return "free"
    try:
        lock.acquire(lake, "gmv doctor").release()
    except OSError as error:
        raise GmvError(f"The lock can't be opened: {error}.") from error
    return "free"


def _table(lake: Path, table: Table) -> str:
    reader = Reader(lake)
    version = reader.version(table)
    if version is not None:
        return f"version {version}, {reader.check(table)} rows"
    if table in recovery.missing(reader):
        raise GmvError(f"{table.path} is missing, though runs have written it; {remedy(table)}.")
    return "not there yet"
