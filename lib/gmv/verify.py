"""Every number once more, from bronze, by a second engine and with SQL of its own.

Shares no code with the transforms: `sql/verify_events.sql` reads bronze's strings again,
`sql/verify_numbers.sql` applies the rules again, and the comparisons below put both results side by side.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any

import duckdb

from gmv.lake.reader import Reader
from gmv.tables import DAILY_GMV, DAILY_GMV_HISTORY, EVENT_TABLES, FILES, GMV_LEDGER, QUARANTINE, EventTable

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

    today: dt.date
    versions: dict[str, int | None]
    """Delta version by table path; None: the table does not exist."""
    comparisons: list[Comparison]
    pending_days: list[dt.date]
    """Closed days whose published rows differ from the ledger: they wait for a run, which is no fault."""
    seconds: float

    @property
    def agrees(self) -> bool:
        return all(comparison.agrees for comparison in self.comparisons)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: amounts, dates and times as strings."""
        return _for_json(
            {
                "agrees": self.agrees,
                "today": self.today,
                "versions": self.versions,
                "comparisons": [
                    {"agrees": comparison.agrees, **vars(comparison)} for comparison in self.comparisons
                ],
                "pending_days": self.pending_days,
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
    versions = {table.path: reader.version(table) for table in _COMPARED_TABLES}
    with reader.connection.cursor() as session:  # its temporary tables end with it
        _spill_outside_the_working_folder(session)
        session.execute("create temp table parameters as select $today::date as today", {"today": today})
        for script in ("verify_events.sql", "verify_numbers.sql"):
            session.execute((resources.files("gmv") / "sql" / script).read_text("utf-8"))
        session.execute(_PENDING_DAYS)
        pending_days = [day for (day,) in session.execute("from pending_days order by all").fetchall()]
        comparisons = [_compare(session, question) for question in _QUESTIONS]
    return Certificate(today, versions, comparisons, pending_days, time.monotonic() - started)


def _spill_outside_the_working_folder(session: duckdb.DuckDBPyConnection) -> None:
    if session.execute("select current_setting('temp_directory')").fetchone() == (".tmp",):
        session.execute(f"set temp_directory = '{tempfile.gettempdir()}/gmv-verify-{uuid.uuid4().hex}'")


# --- The comparisons --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """A comparison to make: `differences` selects one row per difference, `rows` counts what is compared.

    Columns `recomputed` and `stored` hold both values; an amount in `apart` counts towards cents_apart.
    """

    name: str
    what: str
    rows: str
    differences: str
    is_money: bool = False


_PENDING_DAYS = """
create temp table published as
select transaction_date, subsidiary, sum(gmv)::decimal(38, 2) as gmv, count(*) as rows_stored
from gold.daily_gmv
group by all;

create temp table ledger_by_day as
select transaction_date, subsidiary, sum(amount)::decimal(38, 2) as gmv, sum(purchases)::bigint as purchases
from gold.gmv_ledger
group by all
having sum(amount) <> 0 or sum(purchases) <> 0;

create temp table pending_days as
select distinct transaction_date
from (from ledger_by_day where purchases > 0) as ledger
full join published using (transaction_date, subsidiary)
where transaction_date < (select today from parameters) and ledger.gmv is distinct from published.gmv;
"""


def _versions_question(event: EventTable) -> _Question:
    columns = ", ".join(event.column_names)
    row = ", ".join(f"'{name}': {name}" for name in event.column_names)
    return _Question(
        event.versions.name,
        f"{event.versions.path} holds each distinct valid event of bronze.{event.name} once, "
        "brought by a file in force that holds it.",
        f"select (select count(*) from {event.name}_events) + (select count(*) from silver.{event.name}_versions)",
        f"""
        with held as (
            select {columns}, file_number, 1 as recomputed, 0 as stored from {event.name}_records where is_valid
            union all
            select {columns}, file_number, 0, 1
            from silver.{event.name}_versions
            left join (from arrived_files where "table" = '{event.name}' and not is_retracted)
                using (file, sha256)
        ),
        by_file as (
            select {columns}, max(recomputed) as recomputed, sum(stored) as stored
            from held group by {columns}, file_number
        ),
        apart as (
            select {columns}, max(recomputed) as recomputed, sum(stored) as stored,
                max(stored) filter (recomputed = 0 and stored > 0) as stored_for_another_file
            from by_file
            group by {columns}
            having max(recomputed) <> sum(stored) or stored_for_another_file is not null
        )
        select '{event.versions.path}' as "table", purchase_id, transaction_datetime,
            flatten(list(repeat([{{{row}}}], recomputed::bigint))) as recomputed,
            flatten(list(repeat([{{{row}}}], stored::bigint))) as stored,
            case when bool_or(stored_for_another_file is not null)
                then 'a file brought it that does not hold it, or is not in force' end as note
        from apart
        group by purchase_id, transaction_datetime
        """,
    )
