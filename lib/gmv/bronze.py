"""Bronze: which files have arrived, what becomes of each, and their records as they are.

Reading files is in `gmv.landing`; what the lake already knows of them comes from `bronze/files`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from gmv import landing
from gmv.csv_records import Refused
from gmv.errors import GmvError, UsageError
from gmv.lake import location, records
from gmv.lake.reader import Reader
from gmv.tables import EVENT_TABLES, FILES, EventTable, event_table

if TYPE_CHECKING:
    import pyarrow.dataset as ds

STAGED = "_staged"
"""Folder in the lake where records wait between being parsed and being in bronze."""

WAITING = "waiting"
"""What a run tells of a file that changed while it was read."""

HOLDS_RECORDS = ("ingested", "retracted", "restored")
"""Outcomes of content that is in bronze, whether in force or not."""


@dataclass
class Arrivals:
    """What a run found in the landing folder.

    Attributes:
        outcomes: a row of `bronze/files` for each file that is new or has changed.
        staged: the parsed records, by event table: parquet files with the columns of its bronze table.
        waiting: files that changed while they were read, and why: left for the next run.
        is_saved: whether `save` has begun with them.
    """

    outcomes: list[dict] = field(default_factory=list)
    staged: dict[str, list[Path]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    is_saved: bool = False


def unread(reader: Reader, folder: Path, reread: bool = False) -> list[landing.LandingFile]:
    """The files of the landing folder whose path, size or time the lake does not know, or that can be read at last.

    Args:
        reread: all files, known or not.
    """
    found = landing.find(folder)
    if reread:
        return found
    known = _last_outcomes(reader)
    return [
        file
        for file in found
        if not _is_as_it_was(file, known)
        or (known[file.path]["sha256"] is None and landing.can_be_read(file))
    ]


def take_in(
    reader: Reader,
    files: Sequence[landing.LandingFile],
    run: str,
    target: Path,
) -> Arrivals:
    """Read files, each recognized by its content, and stage the records of those that are new.

    Args:
        reader: the lake before this run.
        files: what `unread` found.
        run: the bronze run.
        target: folder for the staged records; the lake is not touched.

    Returns:
        An outcome for each file: `ingested`, `repeated` (its content is in bronze already) or `refused`; none for
        a file that was read again and is what it was.
    """
    seen = {
        row["sha256"]: row["outcome"]
        for row in reader.rows(
            "select sha256, outcome from bronze.files where list_contains($holds, outcome) "
            "qualify row_number() over (partition by sha256 order by recorded_at desc, run desc) = 1",
            holds=list(HOLDS_RECORDS),
        )
    }
    known = cache(partial(_last_outcomes, reader))  # asked for where content is not new only
    arrivals = Arrivals()
    ingested_at = records.now()
    for file in files:
        try:
            outcome = _outcome_of(file, seen, run, ingested_at, target, arrivals)
        except landing.Changed as waiting:
            arrivals.waiting.append(str(waiting))
            continue
        if outcome["outcome"] != "ingested" and _was_told(file, outcome, known()):
            continue
        arrivals.outcomes.append(
            {
                "path": file.path,
                "table": file.table,
                "size": file.size,
                "modified_at": file.modified_at,
                "run": run,
                "recorded_at": ingested_at,
                **outcome,
            }
        )
    return arrivals


def _last_outcomes(reader: Reader) -> dict[str, dict]:
    """What the lake knows of each path: size, modified_at, sha256 and outcome, as last read."""
    return {
        row["path"]: row
        for row in reader.rows(
            "select path, size, modified_at, sha256, outcome from bronze.files "
            "where outcome not in ('retracted', 'restored') "
            "qualify row_number() over (partition by path order by recorded_at desc, run desc) = 1"
        )
    }


def _is_as_it_was(file: landing.LandingFile, known: dict[str, dict]) -> bool:
    last = known.get(file.path)
    return last is not None and (file.size, file.modified_at) == (last["size"], last["modified_at"])


def _was_told(file: landing.LandingFile, outcome: dict, known: dict[str, dict]) -> bool:
    """Whether a file is as it was, and its content had this outcome: what was ingested then is repeated now."""
    if not _is_as_it_was(file, known):
        return False
    last = known[file.path]
    held = {"ingested": "repeated"}.get(last["outcome"], last["outcome"])
    return (outcome["outcome"], outcome.get("sha256")) == (held, last["sha256"])


def _outcome_of(
    file: landing.LandingFile,
    seen: dict[str, str],
    run: str,
    ingested_at: dt.datetime,
    target: Path,
    arrivals: Arrivals,
) -> dict:
    try:
        sha256 = landing.sha256(file)
    except Refused as refused:
        return {"outcome": "refused", "reason": str(refused)}
    if sha256 in seen:
        is_retracted = " and is retracted" if seen[sha256] == "retracted" else ""
        reason = f"its content was ingested before{is_retracted}"
        return {"outcome": "repeated", "sha256": sha256, "reason": reason}
    if file.table is None:
        names = ", ".join(event.name for event in EVENT_TABLES)
        reason = f"{file.path}: neither its name nor a folder of its path names a table ({names}). It was left alone."
        return {"outcome": "refused", "sha256": sha256, "reason": reason}
    event = event_table(file.table)
    try:
        staged = landing.stage(file, event, run, ingested_at, target / event.name)
    except landing.Unreadable as refused:
        return {"outcome": "refused", "reason": str(refused)}
    except Refused as refused:
        return {"outcome": "refused", "sha256": sha256, "reason": str(refused)}
    seen[sha256] = "ingested"
    arrivals.staged.setdefault(event.name, []).append(staged.parquet)
    return {"outcome": "ingested", "sha256": staged.sha256, "records": staged.records}


def records_of(arrivals: Arrivals) -> dict[EventTable, ds.Dataset]:
    """The staged records as rows of the bronze tables; no entry for a table that nothing came for."""
    import pyarrow.dataset as ds  # not for all who import this module: it takes pandas along

    return {
        event: ds.dataset(arrivals.staged[event.name], schema=records.arrow_schema(event.bronze))
        for event in EVENT_TABLES
        if event.name in arrivals.staged
    }


def summary(arrivals: Arrivals) -> list[dict]:
    """What became of each file, for a run's record: path, table, records, outcome, reason."""
    told = ("path", "table", "records", "outcome", "reason")
    waiting = [{"outcome": WAITING, "reason": reason} for reason in arrivals.waiting]
    return [{name: row.get(name) for name in told} for row in [*arrivals.outcomes, *waiting]]


def save(lake_path: Path, staged: dict[EventTable, ds.Dataset], arrivals: Arrivals, run: str) -> None:
    """Append the records, one commit per table, then the files' outcomes.

    Each commit carries its files' outcomes, so that a run that is killed before it has written them is
    finished by the next (`finish_killed_run`): a file is ingested when its records are in the table.

    Raises:
        UsageError: it was called with these before, and may have written some of them though it was interrupted.
    """
    if arrivals.is_saved:
        raise UsageError(
            "These records were saved before, so nothing was written. Run this notebook again from its first cell."
        )
    arrivals.is_saved = True
    for event, rows in staged.items():
        marks = {"run": run, "files": _ingested(arrivals, event)}
        few_at_a_time = rows.scanner(batch_readahead=1, fragment_readahead=1)
        records.append_columns(lake_path, event.bronze, few_at_a_time.to_reader(), marks)
    records.append(lake_path, FILES, arrivals.outcomes)


def finish_killed_run(lake_path: Path) -> None:
    """Note the files whose records a killed run left in bronze without noting them.

    Raises:
        GmvError: naming a table of bronze that holds other records than `bronze/files` tells of.
    """
    for folder in {location.local_twin(lake_path), lake_path}:
        location.remove(folder / STAGED)
    # By content, since the id of a notebook's run may be given twice.
    of_run = "select distinct sha256 from bronze.files where run = $run and outcome = 'ingested'"
    reader, missing = Reader(lake_path), []
    for event in EVENT_TABLES:
        if marks := records.last_marks(lake_path, event.bronze):
            noted = {row["sha256"] for row in reader.rows(of_run, run=marks["run"])}
            files = [_from_text(row) for row in marks["files"]]
            missing += [row for row in files if row["sha256"] not in noted]
    _require_all_records(reader, missing)
    records.append(lake_path, FILES, missing)


def _require_all_records(reader: Reader, unnoted: Sequence[dict]) -> None:
    """Stop where bronze lost records, which silver made anew would lose, or files, which would come in again."""
    noted = reader.rows(
        'select "table", cast(sum(records) as bigint) as records from bronze.files '
        "where outcome = 'ingested' group by all"
    )
    told: Counter[str] = Counter()
    for row in (*noted, *unnoted):
        told[row["table"]] += row["records"]
    for event in EVENT_TABLES:
        held = records.count(reader.lake, event.bronze)
        if held != told[event.name]:
            raise GmvError(
                f"{event.bronze.path} holds {held} record(s), but bronze/files tells of {told[event.name]}. "
                "Nothing was changed; bring the tables of bronze back from a backup, all as they were at one moment."
            )


def check_records(staged: dict[EventTable, ds.Dataset], arrivals: Arrivals) -> dict[str, int]:
    """Records per table, as they lie staged, against the files' own counts.

    Raises:
        GmvError: naming the table and both counts, when they differ.
    """
    counts = {event.name: rows.count_rows() for event, rows in staged.items()}
    for name, count in counts.items():
        expected = sum(
            row["records"]
            for row in arrivals.outcomes
            if row["table"] == name and row["outcome"] == "ingested"
        )
        if count != expected:
            raise GmvError(
                f"bronze/{name}: {count} records were staged but its files hold {expected}. Nothing was saved; "
                "run again, and report this if it comes back."
            )
    return counts


def _ingested(arrivals: Arrivals, event: EventTable) -> list[dict]:
    return [
        _as_text(row)
        for row in arrivals.outcomes
        if row["table"] == event.name and row["outcome"] == "ingested"
    ]


def _as_text(row: dict) -> dict:
    return {
        name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in row.items()
    }


def _from_text(row: dict) -> dict:
    is_time = {column.name for column in FILES.columns if column.type == "timestamp_ntz"}
    return {
        name: dt.datetime.fromisoformat(value) if name in is_time else value for name, value in row.items()
    }
