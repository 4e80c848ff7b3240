"""Which bronze runs a step has still to take in: what makes every step safe to kill and to repeat."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path

from gmv import tables
from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.lake.unfinished import Unfinished
from gmv.tables import EVENT_TABLES, PROGRESS, STRIPPED, Table

SILVER, LEDGER = STEPS = ("silver", "ledger")
BEGUN, DONE = "rebuild", "rebuilt"
NOTED_WITH = {SILVER: tables.SILVER, LEDGER: tables.GOLD}
"""The tables whose versions are noted with a step: none of them is older ever after."""
HISTORY_LOST = "history lost"

_OUT_OF_FORCE = """
    select sha256 from bronze.files where outcome in ('retracted', 'restored') {of_runs}
    qualify row_number() over (partition by sha256 order by recorded_at desc, run desc) = 1
        and outcome = 'retracted'"""
OUT_OF_FORCE = _OUT_OF_FORCE.format(of_runs="")
"""SQL: the sha256 of every file that is retracted: its records stay in bronze, and count nowhere else."""


def unfinished(reader: Reader, step: str) -> Unfinished:
    """The bronze runs that a step has still to take in; the ledger, of those that silver has."""
    of_silver = f"and run in (select bronze_run from monitoring.progress where step = '{SILVER}') "
    of_runs = of_silver if step == LEDGER else ""
    rows = reader.rows(
        "select run, sum(records) filter (outcome = 'ingested') as records, "
        "bool_or(outcome <> 'ingested') as is_retraction from bronze.files "
        "where outcome in ('ingested', 'retracted', 'restored') "
        "and run not in (select bronze_run from monitoring.progress where step = $step) "
        f"{of_runs}"
        "group by run order by min(recorded_at), run",
        step=step,
    )
    finished = reader.rows("select 1 from monitoring.progress where step = $step limit 1", step=step)
    retractions = [row["run"] for row in rows if row["is_retraction"]]
    out_of_force = reader.rows(f"{_OUT_OF_FORCE.format(of_runs=of_runs)} order by sha256")
    return Unfinished(
        step,
        runs=[row["run"] for row in rows],
        records=int(sum(row["records"] or 0 for row in rows)),
        is_everything=not finished,
        retractions=retractions,
        changed_files=_changed_by(reader, retractions),
        out_of_force=[row["sha256"] for row in out_of_force],
    )


def is_all_there_is(reader: Reader, runs: Sequence[str]) -> bool:
    """Whether no other bronze run than these brought, retracted or restored a file: as after a first load."""
    others = reader.rows(
        "select 1 from bronze.files where outcome in ('ingested', 'retracted', 'restored') "
        "and not list_contains($runs, run) limit 1",
        runs=list(runs),
    )
    return not others


def _changed_by(reader: Reader, retractions: Sequence[str]) -> list[str]:
    if not retractions:
        return []
    rows = reader.rows(
        "select distinct sha256 from bronze.files where outcome in ('retracted', 'restored') "
        "and list_contains($runs, run) order by sha256",
        runs=list(retractions),
    )
    return [row["sha256"] for row in rows]


def note_rebuild(lake_path: Path, run: str, moment: str) -> None:
    """Note that a rebuild begins to change tables (BEGUN), that the history of what was published can't be read
    whole (HISTORY_LOST), or that this rebuild and all before it are done (DONE).
    """
    is_done = moment == DONE
    runs = unfinished_rebuilds(Reader(lake_path)) if is_done else [run]
    _append(lake_path, moment, runs, run, [*chain(*NOTED_WITH.values())] if is_done else [])


def unfinished_rebuilds(reader: Reader, moment: str = BEGUN) -> list[str]:
    """Rebuilds that began to change tables and were killed: until one is done, tables may not fit together.

    Args:
        moment: HISTORY_LOST for those among them that found the history in pieces.
    """
    rows = reader.rows(
        "select distinct bronze_run from monitoring.progress where step = $moment and bronze_run not in "
        "(select bronze_run from monitoring.progress where step = $done) order by bronze_run",
        moment=moment,
        done=DONE,
    )
    return [row["bronze_run"] for row in rows]


def note(lake_path: Path, taken: Unfinished, run: str) -> None:
    """Note that a step has taken these bronze runs in; call it after the step's last commit."""
    _append(lake_path, taken.step, taken.runs, run, NOTED_WITH[taken.step])


def _append(lake_path: Path, step: str, bronze_runs: Sequence[str], run: str, noted: Sequence[Table]) -> None:
    reader = Reader(lake_path)
    versions = {table.path: version for table in noted if (version := reader.version(table)) is not None}
    common = {
        "step": step,
        "run": run,
        "recorded_at": records.now(),
        "table_versions": json.dumps(versions) if versions else None,
    }
    records.append(lake_path, PROGRESS, [{**common, "bronze_run": one} for one in bronze_runs])


def gone_back(reader: Reader) -> list[Table]:
    """The tables that are gone, or older than what has been noted of them, such as from a backup."""
    noted = reader.rows(
        "select table_versions from monitoring.progress where table_versions is not null "
        "qualify row_number() over (partition by step order by recorded_at desc) = 1 order by recorded_at"
    )
    versions = dict(chain.from_iterable(json.loads(row["table_versions"]).items() for row in noted))
    return [
        table
        for table in chain.from_iterable(NOTED_WITH.values())
        if table.path in versions
        and ((version := reader.version(table)) is None or version < versions[table.path])
    ]


def purchases_in(
    reader: Reader, contents: Collection[str], among: Collection[str] | None = None
) -> set[tuple[str, str]]:
    """The purchases that the records of some files name, in force or not.

    Args:
        contents: the files' sha256.
        among: only these purchases; none: all.

    Returns:
        sha256 and purchase_id.
    """
    if not contents:
        return set()
    runs = reader.rows(
        "select distinct run from bronze.files where outcome = 'ingested' and list_contains($contents, sha256)",
        contents=list(contents),
    )
    records = " union ".join(
        f"select sha256, trim(purchase_id, $stripped) as purchase_id from bronze.{event.name}"
        for event in EVENT_TABLES
    )
    rows = reader.of_runs([row["run"] for row in runs]).rows(
        f"""
        select * from ({records}) where list_contains($contents, sha256) and purchase_id <> ''
            and ($among is null or purchase_id in (select unnest($among)))
        """,
        stripped=STRIPPED,
        contents=list(contents),
        among=None if among is None else list(among),
    )
    return {(row["sha256"], row["purchase_id"]) for row in rows}
