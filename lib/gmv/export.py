"""`gmv export`: the published numbers as plain files, for engines without Delta and for people's inboxes.

Parquet goes into one file per day, in folders that Hive-style readers take for a partition
(`transaction_date=2023-02-08/daily_gmv.parquet`). A day is replaced by one rename, or one PUT, so a reader
sees its old rows or its new ones. `_manifest.json` comes last and names every day's file, rows, sum and hash.
What is there already is told by the files themselves, not by the manifest: an export that was killed had changed
some of them before it came to that.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from gmv import show
from gmv.errors import GmvError, UsageError
from gmv.lake import location, records
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.settings import settings
from gmv.tables import DAILY_GMV

MANIFEST = "_manifest.json"


@dataclass(frozen=True)
class Exported:
    """What an export did: days (or files) written, left as they were, and removed since they have no rows."""

    written: list[str]
    unchanged: list[str]
    removed: list[str]


def parquet(reader: Reader, target: Path, window: Window) -> Exported:
    """Write daily_gmv as one parquet file per day, below `target`.

    Args:
        reader: the lake; one version of daily_gmv is read.
        target: a folder, made if it is missing, or a place in S3.
        window: the days to bring up to date; without one, all. Other days stay as they were exported.

    Returns:
        The days, as YYYY-MM-DD.

    Raises:
        UsageError: nothing was ever published in this lake, so that it may be the wrong one; or `target` is a file.
        GmvError: the manifest that is there can't be read.
    """
    _require(reader, target)
    schema = records.arrow_schema(DAILY_GMV)
    schema = schema.remove(schema.get_field_index("transaction_date"))
    before = _manifest(target).get("days", {})
    may_be_gone = {day for day in before.keys() | _days_there(target) if dt.date.fromisoformat(day) in window}
    days = {day: facts for day, facts in before.items() if day not in may_be_gone}
    done = Exported([], [], [])
    for day, rows in _by_day(reader, window).items():
        content = io.BytesIO()
        pa.parquet.write_table(pa.Table.from_pylist(rows, schema), content, compression="snappy")
        facts = _facts(_file_of(day), content.getvalue(), rows)
        days[day] = facts
        is_same = _replace(target, facts["file"], content.getvalue())
        (done.unchanged if is_same else done.written).append(day)
    for day in sorted(may_be_gone - days.keys()):
        _remove(target / _file_of(day))
        done.removed.append(day)
    _write_manifest(target, reader, days)
    return done


def csv(reader: Reader, target: Path, window: Window) -> Exported:
    """Write daily_gmv as one CSV file below `target`, with a manifest beside it.

    Returns:
        The file's name: `daily_gmv.csv`, or with the window's days `daily_gmv_2023-02-01_2023-02-28.csv`.

    Raises:
        UsageError, GmvError: as `parquet`.
    """
    _require(reader, target)
    of_window = f"_{window.start_date}_{window.end_date}" if window.start_date else ""
    name = f"daily_gmv{of_window}.csv"
    rows = show.rows(reader, DAILY_GMV, window.start_date, window.end_date)
    content = show.as_csv(DAILY_GMV.column_names, rows).encode()
    files = _manifest(target).get("files", {})
    facts = _facts(name, content, rows)
    is_same = _replace(target, name, content)
    _write_manifest(target, reader, {**files, name: facts}, what="files")
    return Exported([] if is_same else [name], [name] if is_same else [], [])


def _require(reader: Reader, target: Path) -> None:
    if reader.version(DAILY_GMV) is None:  # else a mistyped lake would empty what was exported before
        raise UsageError(f"There is no {DAILY_GMV.path} in {reader.lake}: nothing was exported.")
    if not location.is_remote(target) and target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a folder: nothing was exported. Name another by --to.")
    _require_apart(reader, target)


def _require_apart(reader: Reader, target: Path) -> None:
    """What is exported may not lie among what runs read and write."""
    own = {"lake": reader.lake, "landing folder": settings().landing, "runs folder": settings().runs_dir}
    for name, place in own.items():
        if _is_in(target, location.location(place)):
            raise UsageError(
                f"{target} is in the {name}, {place}: nothing was exported. Name another by --to."
            )


def _is_in(target: Path, place: Path) -> bool:
    if location.is_remote(target) or location.is_remote(place):
        return any(f"{target}/".startswith(f"{one}/") for one in location.over_buckets(place))
    return target.resolve().is_relative_to(place.resolve())


def _by_day(reader: Reader, window: Window) -> dict[str, list[dict[str, Any]]]:
    of_days = defaultdict(list)
    for row in show.rows(reader, DAILY_GMV, window.start_date, window.end_date):
        of_days[row["transaction_date"].isoformat()].append(row)
    return of_days


def _file_of(day: str) -> str:
    return f"transaction_date={day}/daily_gmv.parquet"


def _days_there(target: Path) -> set[str]:
    """The days that have a file."""
    if location.is_remote(target):
        files = {found.path for found in location.objects(target)}
    else:
        files = {path.relative_to(target).as_posix() for path in target.glob(_file_of("*"))}
    named = (re.fullmatch(_file_of(r"(\d{4}-\d\d-\d\d)"), file) for file in files)
    return {found[1] for found in named if found}


def _facts(file: str, content: bytes, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "file": file,
        "rows": len(rows),
        "gmv": str(sum((row["gmv"] for row in rows), Decimal("0.00"))),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _manifest(target: Path) -> dict[str, Any]:
    manifest = target / MANIFEST
    try:
        return json.loads(manifest.read_text()) if manifest.exists() else {}
    except ValueError as error:
        raise GmvError(
            f"{manifest} can't be read: {error}. It says which days were exported: bring it back, or empty {target}."
        ) from error


def _write_manifest(target: Path, reader: Reader, entries: dict[str, Any], what: str = "days") -> None:
    told = {
        **_manifest(target),
        "table": DAILY_GMV.path,
        "version": reader.version(DAILY_GMV),
        "exported_at": records.now().isoformat(timespec="seconds"),
        what: dict(sorted(entries.items())),
    }
    _replace(target, MANIFEST, (json.dumps(told, indent=2) + "\n").encode())


def _replace(target: Path, name: str, content: bytes) -> bool:
    """Put a file where readers see the old or the new one, never a part; whether it was there already, as it is."""
    file = target / name
    with contextlib.suppress(FileNotFoundError):
        if file.read_bytes() == content:
            return True
    if location.is_remote(target):
        location.filesystem().pipe_file(str(file), content)
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    location.replace_bytes(file, content)
    return False


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    if not location.is_remote(file):
        with contextlib.suppress(OSError):  # it is gone, or holds a file of another's
            file.parent.rmdir()


FORMATS: dict[str, Callable[[Reader, Path, Window], Exported]] = {"parquet": parquet, "csv": csv}
