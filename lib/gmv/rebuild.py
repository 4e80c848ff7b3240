"""Rebuild: silver anew from bronze, beside the old tables, compared, and swapped in where it differs.

The ledger gets what it lacks, and gold/daily_gmv, if it is damaged, what its history says was published. A
rebuild notes that it begins to repair or swap, and when it is done; one that was killed in between is done
again, by the next run or rebuild, which changes nothing that was done already.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gmv import ledger, monitoring, progress, publication, retraction, silver
from gmv.errors import GmvError
from gmv.lake import location
from gmv.lake.lake import Lake, Touched, at_the_same_time, in_force
from gmv.lake.reader import Damaged, Reader, data_files, empty_commit
from gmv.lake.unfinished import Unfinished
from gmv.tables import (
    DAILY_GMV,
    DAILY_GMV_HISTORY,
    EVENT_TABLES,
    GMV_LEDGER,
    GOLD,
    QUARANTINE,
    SILVER,
    Table,
)

BESIDE = "_rebuild"
"""Folder in the lake for the rebuilt tables, until they are swapped in."""
DAMAGED = "_damaged"
"""Folder in the lake for what can't be read and is replaced: kept for a person to look at."""


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found and did.

    Attributes:
        tables: for each silver table: table, rows (of the rebuilt one), different (rows that differ from the old
            one; empty where that could not be read) and outcome (as before, replaced, restored).
        repaired: what was wrong with ledger, history and daily_gmv, one sentence each.
        posted: how many postings the ledger lacked, and its greatest ledger_seq now.
    """

    tables: list[dict[str, Any]]
    repaired: list[str]
    posted: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def rebuild(lake: Lake, run: str, show: Callable[[str], AbstractContextManager[None]]) -> Rebuilt:
    """Bring silver, ledger and daily_gmv to what bronze, by the rules as they are now, gives.

    Takes in what earlier runs left unfinished. Publishes nothing: days that differ from what was published
    become pending. A lake that is right stays exactly as it is.

    Args:
        run: this rebuild's id.
        show: shows that a step is at work.

    Raises:
        GmvError: when a table that records what happened can't be read and can't be repaired; or when this user may
            not read a file, which is no damage.
    """
    for table in (*SILVER, *GOLD):
        _require_permission(lake.path / table.path)
    clean(lake.path)
    lost = []
    for table in (*SILVER, *GOLD):
        lost += _without_damaged_checkpoints(lake.path, table, run)
        lost += _without_empty_commits(lake.path, table, run)
    lost += [*_repair(lake.path, GMV_LEDGER, run), *_repair(lake.path, DAILY_GMV_HISTORY, run)]
    is_history_whole = not progress.unfinished_rebuilds(Reader(lake.path), progress.HISTORY_LOST)
    if is_history_whole and DAILY_GMV_HISTORY in progress.gone_back(Reader(lake.path)):
        lost.append(
            f"{DAILY_GMV_HISTORY.path} was older, or gone: of what it told, only the last publication is known"
        )
    to_silver = progress.unfinished(Reader(lake.path), progress.SILVER)
    beside = Lake(lake.path / BESIDE / run, lake.spark)
    with show("from bronze"):
        _build(lake, beside, to_silver)
    with show("compare"):
        tables = [_compared(lake, beside, table) for table in SILVER]
    progress.note_rebuild(lake.path, run, progress.BEGUN)
    with show("swap in"):
        for table, found in zip(SILVER, tables, strict=True):
            if found["outcome"] != "as before":
                _set_aside_unless_open(lake.path, table, run)
                lake.swap_in(table, beside.read(table))
    progress.note(lake.path, to_silver, run)
    with show("ledger"):
        to_ledger = progress.unfinished(Reader(lake.path), progress.LEDGER)
        posted = lake.append_postings(_lacking(lake, to_ledger), run)
    progress.note(lake.path, to_ledger, run)
    restored = _restore_daily_gmv(lake.path, run, is_history_whole=is_history_whole)
    for layer in ("silver", "gold"):
        monitoring.note_counts(Reader(lake.path), layer, run)
    progress.note_rebuild(lake.path, run, progress.DONE)
    clean(lake.path)
    return Rebuilt(tables, [*lost, *restored], posted)


def clean(lake_path: Path) -> None:
    """Remove what a killed rebuild left beside the tables."""
    location.remove(lake_path / BESIDE)


# --- Silver ---------------------------------------------------------------------------------------------


def _build(lake: Lake, beside: Lake, unfinished: Unfinished) -> None:
    """All of silver from all records in force, with the steps of 02_silver."""
    read = {
        event: in_force(lake.read(event.bronze), unfinished).transform(silver.read_values, event)
        for event in EVENT_TABLES
    }
    rejected = reduce(
        DataFrame.unionByName, (frame.transform(silver.quarantine, event) for event, frame in read.items())
    )
    at_the_same_time(
        [
            (beside.append, event.versions, frame.transform(silver.versions, event))
            for event, frame in read.items()
        ]
        + [(beside.append, QUARANTINE, rejected)]
    )
    at_the_same_time(
        [
            (beside.append, event.latest, beside.read(event.versions).transform(silver.latest, event))
            for event in EVENT_TABLES
        ]
    )


def _compared(lake: Lake, beside: Lake, table: Table) -> dict[str, Any]:
    found: dict[str, Any] = {"table": table.path, "rows": beside.read(table).count(), "different": None}
    if not lake.exists(table):
        return found | {"different": found["rows"], "outcome": "restored"}
    try:
        found["different"] = _rows_apart(lake.read(table), beside.read(table))
    except Exception:  # whatever is wrong with it: the rebuilt one takes its place
        return found | {"outcome": "restored"}
    return found | {"outcome": "replaced" if found["different"] else "as before"}


def _rows_apart(one: DataFrame, other: DataFrame) -> int:
    """How many rows only one of two tables has, counting each as often as it is there."""
    comparable = [
        F.sort_array(F.map_entries(F.col(field.name))).alias(field.name)
        if field.dataType.typeName() == "map"
        else F.col(field.name)
        for field in one.schema.fields
    ]
    both = (
        one.select(*comparable)
        .withColumn("copies", F.lit(1))
        .unionByName(other.select(*comparable).withColumn("copies", F.lit(-1)))
    )
    apart = both.groupBy(*one.columns).agg(F.sum("copies").alias("copies"))
    return int(apart.agg(F.coalesce(F.sum(F.abs("copies")), F.lit(0))).collect()[0][0])


# --- The ledger, and what was published -----------------------------------------------------------------


def _lacking(lake: Lake, unfinished: Unfinished) -> DataFrame:
    """The postings that the ledger lacks: what arrived or was retracted under its cause, the rest as `rule`."""
    versions, holds = lake.versions_of(Touched(None)), lake.read(GMV_LEDGER)
    difference = ledger.difference(ledger.postings(ledger.standings(versions)), holds)
    if not unfinished.runs:
        return difference.withColumn("cause", F.lit("rule"))
    caused = ledger.with_cause(difference, retraction.postings(lake, unfinished, versions, holds))
    touched = lake.touched_by(unfinished).ids
    if touched is None:
        return caused
    is_of_rule = (F.col("cause") == "event") & F.col("has_arrived").isNull()
    return (
        caused.join(touched.withColumn("has_arrived", F.lit(True)), "purchase_id", how="left")
        .withColumn("cause", F.when(is_of_rule, F.lit("rule")).otherwise(F.col("cause")))
        .drop("has_arrived")
    )


def _restore_daily_gmv(lake_path: Path, run: str, *, is_history_whole: bool) -> list[str]:
    """Make daily_gmv what its history says was published, where it is missing or damaged."""
    problem = _problem(lake_path, DAILY_GMV)
    if problem is None:
        try:
            publication.write_missing_history(lake_path, trust_published=not is_history_whole)
            return []
        except GmvError as error:
            problem = str(error).split(" Nothing was changed")[0]
    if _problem(lake_path, DAILY_GMV_HISTORY) == MISSING:
        return []
    _set_aside_unless_open(lake_path, DAILY_GMV, run)
    places = publication.restore_published(lake_path)
    return [f"gold/daily_gmv was restored to what its history says was published, {places} rows: {problem}"]


# --- Damage ---------------------------------------------------------------------------------------------

MISSING = "it was missing"


def _require_permission(path: Path) -> None:
    """Refuse where this user may not read a file of a table: it would be set aside as damaged, and its rows lost."""
    if location.is_remote(path) or not path.exists():
        return

    def refuse(error: OSError) -> None:
        raise GmvError(
            f"{error.filename} can't be read ({error.strerror}). Give this user permission to read it, and rebuild "
            "again; nothing was changed."
        ) from None

    for folder, _, files in os.walk(path, onerror=refuse):
        for name in files:
            try:
                Path(folder, name).open("rb").close()
            except PermissionError as error:
                refuse(error)


def _problem(lake_path: Path, table: Table) -> str | None:
    """What is wrong with a table's files, if anything; every value is read."""
    if not DeltaTable.is_deltatable(str(lake_path / table.path)):
        return MISSING
    try:
        Reader(lake_path).check(table)
    except Damaged as damaged:
        return damaged.problem
    except duckdb.Error as error:  # a file that is gone is missed before its values are read
        return str(error).strip().splitlines()[0][:200]
    return None


def _repair(lake_path: Path, table: Table, run: str) -> list[str]:
    """Let a table go on without the files that are gone or can't be read; what they held is lost from it.

    That it does is noted before: whoever comes after a kill finds a table that can be read.
    """
    problem = _problem(lake_path, table)
    if problem in (None, MISSING):
        return []
    progress.note_rebuild(lake_path, run, progress.BEGUN)
    if table == DAILY_GMV_HISTORY:
        progress.note_rebuild(lake_path, run, progress.HISTORY_LOST)
    if _set_aside_unless_open(lake_path, table, run):
        return [f"{table.path} could not be opened and was set aside in {DAMAGED}/{run}"]
    reader, unreadable = Reader(lake_path), []
    for uri in data_files(DeltaTable(str(lake_path / table.path))):
        file = location.location(uri)
        try:
            reader.connection.execute("select max(hash(columns(*))) from read_parquet($1)", [uri]).fetchall()
        except duckdb.Error:
            unreadable.append(file.name)
            if file.exists():
                _move(file, lake_path / DAMAGED / run / table.path / file.name)
    DeltaTable(str(lake_path / table.path)).repair()
    return [
        f"{table.path} went on without {len(unreadable)} of its files ({', '.join(unreadable)}): {problem}"
    ]


def _without_empty_commits(lake_path: Path, table: Table, run: str) -> list[str]:
    """Let a table go back to before its newest commits, where these are empty."""
    told = []
    while empty := empty_commit(lake_path / table.path):
        progress.note_rebuild(lake_path, run, progress.BEGUN)
        for file in [*empty.parent.glob(f"*{empty.stem}.*crc"), empty]:  # Spark's checksums of it, too
            _move(file, lake_path / DAMAGED / run / f"{table.path}_log" / file.name)
        told.append(f"{table.path} went back to before its commit {int(empty.stem)}, which was empty")
    return told


def _without_damaged_checkpoints(lake_path: Path, table: Table, run: str) -> list[str]:
    """Let a table be opened by its commits, where a summary of them is all that can't be read."""
    path = lake_path / table.path
    if location.is_remote(path) or _opens(path):
        return []
    aside = {
        file: lake_path / DAMAGED / run / f"{table.path}_log" / file.name
        for file in path.glob("_delta_log/*checkpoint*")
    }
    for file, target in aside.items():
        _move(file, target)
    if _opens(path):
        return [f"{table.path} was opened by its commits, without {len(aside)} file(s) that sum them up"]
    for file, target in aside.items():
        target.rename(file)
    return []


def _opens(path: Path) -> bool:
    """Whether a table's log can be read, or there is none to read."""
    try:
        DeltaTable(str(path)).file_uris()
    except TableNotFoundError:
        return not path.exists()
    except Exception:  # whatever is wrong with it
        return False
    return True


def _set_aside_unless_open(lake_path: Path, table: Table, run: str) -> bool:
    """Move a table away whose log can't be read, so that a new one can take its place."""
    path = lake_path / table.path
    if _opens(path):
        return False
    _move(path, lake_path / DAMAGED / run / table.path)
    return True


def _move(source: Path, target: Path) -> None:
    if location.is_remote(source):
        raise GmvError(f"{source} can't be read. Move it away, and rebuild again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
