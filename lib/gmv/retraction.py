"""Retraction: a file's events leave force, as if they had not arrived, and may be put back.

Bronze keeps the records. A row in `bronze/files`, under a run of its own, says that a file is retracted or
restored; silver and ledger take that run in as they take in arrivals (docs/files.md).
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gmv import ledger, silver
from gmv.errors import UsageError
from gmv.lake import location, records
from gmv.lake.lake import Lake, in_force
from gmv.lake.reader import Reader
from gmv.lake.unfinished import Unfinished
from gmv.tables import EVENT_TABLES, FILES, QUARANTINE


@dataclass(frozen=True)
class Content:
    """Content that was ingested, under the path that it first came by.

    Attributes:
        reason: why it was retracted or put back last; empty where it never was.
        changed_at: when that was, UTC; None where it never was.
    """

    path: str
    table: str
    size: int
    modified_at: dt.datetime
    sha256: str
    records: int
    ingested_at: dt.datetime
    is_retracted: bool
    reason: str
    changed_at: dt.datetime | None

    def __str__(self) -> str:
        state = ", retracted" if self.is_retracted else ""
        return f"{self.sha256} ({self.records} records, ingested {self.ingested_at:%Y-%m-%d %H:%M}{state})"


def named(reader: Reader, name: str, landing: Path) -> Content:
    """The ingested content that a user means.

    Args:
        name: a path below landing, a path of the file system or an address in S3 that leads there, or a sha256 (its
            first eight digits or more).
        landing: the landing folder.

    Raises:
        UsageError: when there is none, or more than one.
    """
    paths = {name, _below(landing, name)}
    found = [
        Content(**row)
        for row in reader.rows(
            """
            with newest as (
                select sha256, outcome, reason, recorded_at from bronze.files
                where outcome in ('retracted', 'restored')
                qualify row_number() over (partition by sha256 order by recorded_at desc, run desc) = 1
            )
            select path, "table", size, modified_at, files.sha256, records,
                   files.recorded_at as ingested_at, coalesce(newest.outcome = 'retracted', false) as is_retracted,
                   coalesce(newest.reason, '') as reason, newest.recorded_at as changed_at
            from bronze.files as files left join newest using (sha256)
            where files.outcome = 'ingested' and (
                files.sha256 in (select sha256 from bronze.files where list_contains($paths, path))
                or length($name) >= 8 and starts_with(files.sha256, lower($name)))
            order by ingested_at
            """,
            paths=sorted(paths),
            name=name,
        )
    ]
    if not found and reader.rows(
        "select 1 from bronze.files "
        "where outcome = 'refused' and \"table\" is not null and list_contains($paths, path)",
        paths=sorted(paths),
    ):
        raise UsageError(
            f"{name} was refused: nothing of it was loaded that could be retracted. Correct it where it lies, or "
            'publish without it: gmv run --accept refused_file --because "…".'
        )
    if not found:
        raise UsageError(
            f"{name}: no ingested file has this path below landing, or this sha256. "
            "`gmv show bronze/files` lists them; nothing was changed."
        )
    if len(found) > 1:
        raise UsageError(
            f"{name} had several contents; name one by its sha256: {'; '.join(map(str, found))}. "
            "Nothing was changed."
        )
    return found[0]


def _below(landing: Path, name: str) -> str:
    """The path below landing to which a path of the file system, or an address in S3, leads."""
    if location.is_remote(landing):
        return name.removeprefix(f"{landing}/")
    return os.path.relpath(os.path.abspath(name), landing).replace(os.sep, "/")


def note(lake_path: Path, content: Content, because: str, run: str, *, undo: bool) -> None:
    """Note that a file is retracted, or put back, under a run of its own; call it with the lock held."""
    row = {
        "path": content.path,
        "table": content.table,
        "size": content.size,
        "modified_at": content.modified_at,
        "sha256": content.sha256,
        "records": content.records,
        "outcome": "restored" if undo else "retracted",
        "reason": because,
        "run": run,
        "recorded_at": records.now(),
    }
    records.append(lake_path, FILES, [row])


def take_in(lake: Lake, unfinished: Unfinished) -> list[dict]:
    """Bring silver's versions and quarantine to the files in force, where a file's force changed.

    A version that another file in force also holds stays, under that file; a rejected record leaves and
    returns with its file. What silver should hold of the purchases in these files is read from bronze again,
    so it may be repeated.

    Returns:
        For each file: path, outcome (retracted or restored), records, and how many versions and rejected
        records silver has under it now. Nothing, at no cost, where no file's force changed.
    """
    if not unfinished.changed_files:
        return []
    changed = _changed(lake, unfinished)
    for event in EVENT_TABLES:
        files = [row["sha256"] for row in changed if row["table"] == event.name]
        if files:
            touched = lake.touched_by_files(files, [event])
            naming = in_force(lake.records_naming(event, touched), unfinished)
            read = naming.transform(silver.read_values, event)
            lake.correct_versions(event, read.transform(silver.versions, event), touched)
            in_files = in_force(lake.read(event.bronze), unfinished).where(F.col("sha256").isin(files))
            rejected = in_files.transform(silver.read_values, event).transform(silver.quarantine, event)
            lake.replace(QUARANTINE, rejected, "sha256", files)
    return _told(Reader(lake.path), changed)


def postings(
    lake: Lake, unfinished: Unfinished, versions: dict[str, DataFrame], holds: DataFrame
) -> DataFrame | None:
    """What retracted and restored files change in the ledger, before anything that arrived is looked at.

    Args:
        versions: by event table, the versions of all purchases that the step touches.
        holds: rows of `gold/gmv_ledger` of these purchases.

    Returns:
        What `ledger.difference` returns, with `cause` (retraction, or undo where a purchase is in restored
        files only); None where no file's force changed.
    """
    if not unfinished.changed_files:
        return None
    caused = _causes(lake, unfinished)
    has_arrived = F.col("run").isin(unfinished.arrivals)
    without_arrivals = {
        name: frame.where(~has_arrived).join(caused, "purchase_id", how="left_semi")
        for name, frame in versions.items()
    }
    should_hold = ledger.postings(ledger.standings(without_arrivals))
    holds = holds.join(caused, "purchase_id", how="left_semi")
    return ledger.difference(should_hold, holds).join(caused, "purchase_id", how="inner")


def _causes(lake: Lake, unfinished: Unfinished) -> DataFrame:
    """purchase_id and cause, for the purchases in files whose force changed."""
    out = [file for file in unfinished.changed_files if file in unfinished.out_of_force]
    back = [file for file in unfinished.changed_files if file not in unfinished.out_of_force]
    causes: list[DataFrame] = []
    for cause, files in (("retraction", out), ("undo", back)):
        ids = lake.touched_by_files(files).ids if files else None
        if ids is not None:
            causes.append(ids.withColumn("cause", F.lit(cause)))
    both = causes[0] if len(causes) == 1 else causes[0].union(causes[1])
    return both.groupBy("purchase_id").agg(F.min("cause").alias("cause"))  # retraction goes before undo


def _changed(lake: Lake, unfinished: Unfinished) -> list[dict]:
    rows = Reader(lake.path).rows(
        'select path, "table", sha256, records from bronze.files '
        "where outcome = 'ingested' and list_contains($files, sha256) order by path, sha256",
        files=list(unfinished.changed_files),
    )
    for row in rows:
        row["outcome"] = "retracted" if row["sha256"] in unfinished.out_of_force else "restored"
    return rows


def _told(reader: Reader, changed: Sequence[dict]) -> list[dict]:
    told = []
    for row in changed:
        (counted,) = reader.rows(
            f'select (select count(*) from silver."{row["table"]}_versions" where sha256 = $sha256) as versions, '
            "(select count(*) from silver.quarantine where sha256 = $sha256) as quarantined",
            sha256=row["sha256"],
        )
        told.append({name: row[name] for name in ("path", "outcome", "records")} | counted)
    return told
