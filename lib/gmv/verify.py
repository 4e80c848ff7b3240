"""Every number once more, from bronze, by a second engine and with SQL of its own.

Shares no code with the transforms: `sql/verify_events.sql` reads bronze's strings again,
`sql/verify_numbers.sql` applies the rules again, and the questions in `gmv.verify_questions` put both results
side by side.
`verify` does so for the whole lake, `verify_run` for what a run changed.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from gmv import progress, verify_questions
from gmv.lake import ledger_days, pruning, records
from gmv.lake.reader import Reader, remedy
from gmv.lake.unfinished import Unfinished
from gmv.tables import (
    DAILY_GMV,
    DAILY_GMV_HISTORY,
    EVENT_TABLES,
    FILES,
    GMV_LEDGER,
    LEDGER_DAYS,
    QUARANTINE,
    Table,
)
from gmv.verify_questions import Question

CERTIFICATE = "certificate.json"
"""A certificate's file in the folder of its run."""
FOLDER = "verify-"
"""What the folders of `gmv verify` begin with, whose certificates are of the whole lake."""

ONLY_IN_A_BACKUP = (
    f"The past that {GMV_LEDGER.path} or {DAILY_GMV_HISTORY.path} has lost is only in a backup: "
    "bring both back from one, as they were at one moment."
)

SHOWN = 20
"""Differences that a comparison names; all of them are counted."""


@dataclass(frozen=True)
class Comparison:
    """One table beside its recomputation."""

    name: str
    what: str
    """What was compared, in one sentence."""
    rows: int
    """Rows of both sides together that were compared."""
    different: int
    """How many differ."""
    cents_apart: int | None
    """Sum of the absolute differences in cents; None where no amounts are compared."""
    differences: list[dict[str, Any]]
    """The first SHOWN: `table`, the day, subsidiary, purchase or file at fault, `recomputed` and `stored`."""

    @property
    def agrees(self) -> bool:
        return self.different == 0


@dataclass(frozen=True)
class Certificate:
    """What was compared, on which state of the lake, and what came out."""

    scope: str
    """What was looked at: the whole lake, or what some bronze runs changed."""
    today: dt.date
    made_at: dt.datetime
    """UTC."""
    versions: dict[str, int | None]
    """Delta version by table path; None: the table does not exist."""
    comparisons: list[Comparison]
    pending_days: list[dt.date]
    """Closed days whose published rows differ from the ledger: they wait for a run, which is no fault."""
    unfinished: list[str]
    """Bronze runs that silver or the ledger has still to take in; until then, tables may differ."""
    seconds: float

    @property
    def agrees(self) -> bool:
        return all(comparison.agrees for comparison in self.comparisons)

    @property
    def lacks_past(self) -> bool:
        """The ledger and the history do not tell together why numbers were what they were; no other table does."""
        return any(one.name == verify_questions.HISTORY.name and not one.agrees for one in self.comparisons)

    def advice(self) -> str:
        """What to do about what differs."""
        differ = {one.name for one in self.comparisons if not one.agrees}
        told = ["`gmv run` takes in what is unfinished. Where that does not help:"] if self.unfinished else []
        told += [ONLY_IN_A_BACKUP] if self.lacks_past else []
        if LEDGER_DAYS.name in differ:
            told.append(f"For {LEDGER_DAYS.path}, {remedy(LEDGER_DAYS)}.")
        if differ - {verify_questions.HISTORY.name, LEDGER_DAYS.name}:
            told += ["After that, or without one:"] if self.lacks_past else []
            told.append("`gmv rebuild` makes silver anew from bronze, and posts what the ledger lacks.")
        return " ".join(told)

    def faults(self) -> list[str]:
        """A sentence for each comparison that differs: how much, and the first difference by name."""
        return [
            f"{comparison.name}: {comparison.different} of {comparison.rows} rows differ"
            + (f" by {comparison.cents_apart} cents" if comparison.cents_apart is not None else "")
            + f"; the first: {in_words(comparison.differences[0])}"
            for comparison in self.comparisons
            if not comparison.agrees
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: amounts, dates and times as strings."""
        return _for_json(
            {
                "agrees": self.agrees,
                "scope": self.scope,
                "today": self.today,
                "made_at": self.made_at,
                "versions": self.versions,
                "comparisons": [
                    {"agrees": comparison.agrees, **vars(comparison)} for comparison in self.comparisons
                ],
                "pending_days": self.pending_days,
                "unfinished": self.unfinished,
                "seconds": round(self.seconds, 1),
            }
        )


def verify(reader: Reader, today: dt.date) -> Certificate:
    """Recompute silver, ledger and daily_gmv from bronze, and compare them with what the lake holds.

    Args:
        reader: a lake at pinned versions.
        today: days before it are closed; today and later are in progress and not compared with daily_gmv.
    """
    started = time.monotonic()
    versions = pin(reader)
    unfinished = [run for step in progress.STEPS for run in progress.unfinished(reader, step).runs]
    # The session's temporary tables end with it.
    with reader.naming_what_is_damaged(_COMPARED_TABLES), reader.session() as session:
        comparisons = _compare_whole_lake(session, today)
        session.execute(verify_questions.PENDING_DAYS)
        pending_days = [day for (day,) in session.execute("from pending_days order by all").fetchall()]
        asked = (*verify_questions.ABOUT_DAYS, verify_questions.kept_sums(ledger_days.by_day(reader)))
        comparisons += [_compare(session, question) for question in asked]
    return Certificate(
        "the whole lake",
        today,
        records.now(),
        versions,
        comparisons,
        pending_days,
        sorted(set(unfinished)),
        time.monotonic() - started,
    )


def verify_run(reader: Reader, unfinished: Unfinished, today: dt.date) -> Certificate:
    """Recompute what a step changed: its files' records, and each touched purchase from its versions.

    The cost follows what arrived: records are read again in the files of these bronze runs only, and
    purchases are looked up only if one of these runs brought, or took out, one of their versions. Where these
    runs are all there is, nothing is looked up.

    Args:
        reader: a lake whose silver and ledger have these bronze runs.
        unfinished: the bronze runs that the step takes in; nothing is compared when there are none.
        today: kept with the certificate.
    """
    started = time.monotonic()
    comparisons: list[Comparison] = []
    versions = pin(reader)
    if unfinished.runs and progress.is_all_there_is(reader, unfinished.runs):
        with reader.naming_what_is_damaged(_COMPARED_TABLES), reader.session() as session:
            comparisons += _compare_whole_lake(session, today)
    elif unfinished.runs:
        wanted: dict[str, object] = {
            "runs": list(unfinished.runs),
            "changed": list(unfinished.changed_files),
            "out_of_force": list(unfinished.out_of_force),
        }
        with reader.naming_what_is_damaged(_COMPARED_TABLES), reader.session() as session:
            _prepare(session, _OWN_FILES, wanted)
            read_events(session)
            session.execute(_OWN_PURCHASES)
            brought_by = session.execute("select distinct run from noted_files").fetchall()
            runs = [*unfinished.runs, *(run for (run,) in brought_by)]
            for event in EVENT_TABLES:
                _look_up(session, reader, event.versions, "own", runs)
            session.execute(_OWN_VERSIONS)
            comparisons += [_compare(session, question) for question in verify_questions.ABOUT_FILES]
            session.execute(_DROP_RECORDS)
            session.execute(_TOUCHED)
            _look_up_strays(session, reader, runs)
            for table in (*(event.latest for event in EVENT_TABLES), GMV_LEDGER):
                _look_up(session, reader, table, "touched")
            session.execute(_TOUCHED_PURCHASES)
            _execute(session, "verify_numbers.sql")
            comparisons += [_compare(session, question) for question in verify_questions.ABOUT_PURCHASES]
    return Certificate(
        f"what {len(unfinished.runs)} bronze run(s) changed: their files and touched purchases",
        today,
        records.now(),
        versions,
        comparisons,
        pending_days=[],
        unfinished=[],
        seconds=time.monotonic() - started,
    )


def keep(certificate: Certificate, folder: Path) -> None:
    """Leave a certificate in the folder of its run."""
    folder.joinpath(CERTIFICATE).write_text(json.dumps(certificate.as_dict(), indent=2) + "\n")


def pin(reader: Reader) -> dict[str, int | None]:
    """Fix the version of each table that is compared, and return them by path."""
    for table in _COMPARED_TABLES:
        reader.view(table)
    return {table.path: reader.version(table) for table in _COMPARED_TABLES}


def _compare_whole_lake(session: duckdb.DuckDBPyConnection, today: dt.date) -> list[Comparison]:
    _prepare(session, _WHOLE_LAKE, {"today": today})
    read_events(session)
    comparisons = [_compare(session, question) for question in verify_questions.ABOUT_FILES]
    session.execute(_DROP_RECORDS)
    _execute(session, "verify_numbers.sql")
    return comparisons + [_compare(session, question) for question in verify_questions.ABOUT_PURCHASES]


def _prepare(session: duckdb.DuckDBPyConnection, script: str, parameters: dict[str, object]) -> None:
    named = ", ".join(f"${name} as {name}" for name in parameters)
    session.execute(f"create temp table parameters as select {named}", parameters)
    session.execute(script)


def read_events(session: duckdb.DuckDBPyConnection) -> None:
    """Read bronze's strings: what `sql/verify_events.sql` says that it takes and makes."""
    _execute(session, "verify_events.sql")


def _execute(session: duckdb.DuckDBPyConnection, script: str) -> None:
    session.execute((resources.files("gmv") / "sql" / script).read_text("utf-8"))


# --- What is looked at: the whole lake, or what some bronze runs changed ------------------------------------

_WHOLE_LAKE = (
    "".join(
        f"""
    create temp view arrived_{event.name} as from bronze.{event.name};
    create temp view stored_{event.name} as from silver.{event.name};
    create temp view stored_{event.name}_versions as from silver.{event.name}_versions;
    """
        for event in EVENT_TABLES
    )
    + """
    create temp view noted_files as from bronze.files where outcome = 'ingested';
    create temp view stored_quarantine as from silver.quarantine;
    create temp view stored_ledger as from gold.gmv_ledger;
    create temp table out_of_force as
    select sha256
    from bronze.files
    where outcome in ('retracted', 'restored')
    qualify outcome = 'retracted'
        and row_number() over (partition by sha256 order by recorded_at desc, run desc) = 1;
    create temp macro is_whole_lake() as true;
"""
)

# When the files have been compared: records take the most memory, and the rest needs events alone.
_DROP_RECORDS = "".join(f"drop table {event.name}_records;" for event in EVENT_TABLES)

# Files that these runs brought, and those that they put back or retracted, each with the run that brought it.
_OWN_FILES = """
    create temp table noted_files as
    select * from bronze.files
    where outcome = 'ingested' and (
        list_contains((select runs from parameters), run)
        or list_contains((select changed from parameters), sha256));
    create temp table out_of_force as
    select unnest(cast((select out_of_force from parameters) as varchar[])) as sha256;
    create temp macro is_whole_lake() as false;
    create temp view stored_quarantine as from silver.quarantine semi join noted_files using (sha256);
""" + "".join(
    f"""
    create temp view arrived_{event.name} as
    from bronze.{event.name} where run in (select run from noted_files)
        and sha256 in (select sha256 from noted_files where "table" = '{event.name}');
    """
    for event in EVENT_TABLES
)

# The purchases that records of changed files name.
_NAMED_BY_CHANGED = {
    event: f"""
    select filled(purchase_id) as purchase_id from arrived_{event.name}
    where list_contains((select changed from parameters), sha256) and filled(purchase_id) is not null
    """
    for event in EVENT_TABLES
}

# The purchases that own files name, whether they bring something new of them or not.
_OWN_PURCHASES = "create temp table own as " + " union ".join(
    f"select purchase_id from {event.name}_events union {_NAMED_BY_CHANGED[event]}" for event in EVENT_TABLES
)

# The versions that own files brought, and those that they hold copies of.
_OWN_VERSIONS = "".join(
    f"""
    create temp table stored_{event.name}_versions as
    select * from near_{event.name}_versions
    where run in (select run from noted_files) and sha256 in (select sha256 from noted_files)
    union all
    select stored.* from near_{event.name}_versions as stored
    semi join {event.name}_events as own on stored.purchase_id = own.purchase_id
        and {" and ".join(f"stored.{name} is not distinct from own.{name}" for name in event.column_names)}
    where sha256 not in (select sha256 from noted_files);
    """
    for event in EVENT_TABLES
)

_TOUCHED = "create temp table touched as " + " union ".join(
    f"""
    select purchase_id from near_{event.name}_versions
    where list_contains((select runs from parameters), run)
    union {_NAMED_BY_CHANGED[event]}
    """
    for event in EVENT_TABLES
)

# From here on, events are the versions of touched purchases, whatever run brought them.
_TOUCHED_PURCHASES = (
    "".join(
        f"""
        create or replace temp table {event.name}_events as
        select {", ".join(event.column_names)} from near_{event.name}_versions
        semi join touched using (purchase_id);
        create temp view stored_{event.name} as from near_{event.name};
        """
        for event in EVENT_TABLES
    )
    + "create temp view stored_ledger as from near_gmv_ledger;"
)


# Purchases that were touched, though no own file names them: of such, a version was invented.
_STRAYS = "create temp table strays as from touched anti join own using (purchase_id)"


def _look_up(
    session: duckdb.DuckDBPyConnection, reader: Reader, table: Table, ids: str, runs: Sequence[str] = ()
) -> None:
    """Copy a table's rows of some purchases, and those that some bronze runs brought, to `near_…`, in one pass.

    Args:
        ids: a table with the purchase_id of these purchases.
    """
    session.execute(f"create temp table near_{table.name} as {_rows_of(session, reader, table, ids)}")
    if runs:
        brought = reader.select(table, {"run": pruning.exactly(runs)})
        session.execute(
            f"insert into near_{table.name} from ({brought}) anti join {ids} using (purchase_id) "
            "where list_contains($runs, run)",
            {"runs": list(runs)},
        )


def _look_up_strays(session: duckdb.DuckDBPyConnection, reader: Reader, runs: Sequence[str]) -> None:
    """Add to `near_…` the other versions of purchases of which only some runs' versions have been looked up."""
    session.execute(_STRAYS)
    if session.execute("from strays limit 1").fetchall():
        for event in EVENT_TABLES:
            session.execute(
                f"insert into near_{event.versions.name} {_rows_of(session, reader, event.versions, 'strays')} "
                "where not list_contains($runs, run)",
                {"runs": list(runs)},
            )


def _rows_of(session: duckdb.DuckDBPyConnection, reader: Reader, table: Table, ids: str) -> str:
    """A query for a table's rows of some purchases; if they are few, of its files that may hold them."""
    found = [one for (one,) in session.execute(f"from {ids} limit {pruning.MOST_IDS + 1}").fetchall()]
    ranges = pruning.id_ranges(found) if len(found) <= pruning.MOST_IDS else []
    return f"from ({reader.select(table, {'purchase_id': ranges})}) semi join {ids} using (purchase_id)"


_COMPARED_TABLES = (
    *(event.bronze for event in EVENT_TABLES),
    FILES,
    *(event.versions for event in EVENT_TABLES),
    *(event.latest for event in EVENT_TABLES),
    QUARANTINE,
    GMV_LEDGER,
    DAILY_GMV,
    DAILY_GMV_HISTORY,
    LEDGER_DAYS,
)


# --- Asking and telling -----------------------------------------------------------------------------------


def _compare(session: duckdb.DuckDBPyConnection, question: Question) -> Comparison:
    session.execute(f"create or replace temp table differences as {question.differences}")
    rows, different = _one_row(session, f"select {question.rows}, (select count(*) from differences)")
    cents = _one_row(session, "select sum(apart) * 100 from differences")[0] if question.is_money else None
    found = session.execute(f"from differences order by all limit {SHOWN}")
    names = [column[0] for column in found.description or ()]
    return Comparison(
        question.name,
        question.what,
        rows,
        different,
        int(cents or 0) if question.is_money else None,
        [_only_what_differs(dict(zip(names, row, strict=True))) for row in found.fetchall()],
    )


def _one_row(session: duckdb.DuckDBPyConnection, query: str) -> tuple:
    (row,) = session.execute(query).fetchall()
    return row


def _only_what_differs(difference: dict[str, Any]) -> dict[str, Any]:
    """A row beside a row is shown by the values that differ; otherwise both sides are shown whole."""
    shown = {name: value for name, value in difference.items() if name not in ("apart", "note")}
    if difference.get("note"):
        shown["note"] = difference["note"]
        return shown
    sides = [difference["recomputed"], difference["stored"]]
    one_each = [side[0] if isinstance(side, list) and len(side) == 1 else side for side in sides]
    if all(isinstance(side, dict) for side in one_each) and one_each[0].keys() == one_each[1].keys():
        unequal = [name for name in one_each[0] if one_each[0][name] != one_each[1][name]]
        shown["recomputed"], shown["stored"] = ({name: side[name] for name in unequal} for side in one_each)
    return shown


def in_words(difference: dict[str, Any]) -> str:
    """A difference in one line: what is at fault, and both values."""
    return ", ".join(f"{name} {_as_text(value)}" for name, value in difference.items() if value is not None)


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_as_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "[" + " | ".join(map(_as_text, value)) + "]"
    return "nothing" if value is None else str(value)


def _for_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _for_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_for_json(item) for item in value]
    if isinstance(value, Decimal | dt.date):
        return str(value)
    return value
