"""What is behind a posting: the source's event, and the files whose arrival made the ledger post."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gmv import progress, verify
from gmv.lake.reader import Reader
from gmv.publication import Place
from gmv.reasons import BEHIND, UNEXPLAINED, why
from gmv.tables import EVENT_TABLES, FILES, GMV_LEDGER, STRIPPED, EventTable

_TOLD_VALUES: dict[str, tuple[str, ...]] = {
    "purchase": ("transaction_date", "release_date"),
    "product_item": ("item_quantity", "purchase_value"),
    "purchase_extra_info": ("subsidiary",),
}
"""The columns that decide where a purchase counts, and with how much."""


@dataclass(frozen=True)
class Event:
    """The source's event behind a posting: of its purchase, the version whose day is the posting's known_on.

    Attributes:
        values: those that decide where the purchase counts, and with how much.
        file: the file that brought it first.
        is_in_force: not so where its file was retracted, or a rule rejects it by now.
    """

    table: str
    at: dt.datetime
    values: dict[str, Any]
    file: str
    is_in_force: bool = True


@dataclass(frozen=True)
class Part:
    """A posting, and what is behind it; or what no posting explains, with the reason `unexplained`.

    Attributes:
        purchases: +1 enters, -1 leaves, 0 another amount.
        known_on: the day of the event, by the source's clock.
        run: the run that posted it, at `recorded_at` (UTC).
        event: empty for what is unexplained.
        arrived: the files whose arrival made the ledger post; for a late event's corrections another one than
            the event's own. Of a retraction: the file that was retracted.
        because: the reason that was given for a retraction.
    """

    amount: Decimal
    reason: str
    cause: str = "event"
    purchase_id: str | None = None
    purchases: int = 0
    known_on: dt.date | None = None
    ledger_seq: int | None = None
    run: str | None = None
    recorded_at: dt.datetime | None = None
    event: Event | None = None
    arrived: Sequence[str] = ()
    because: str | None = None

    @property
    def why(self) -> str:
        """In words: the reason, and its cause where it is not an event.

        What corrects an earlier posting keeps its reason; if the purchase goes on counting there, it is the amount
        that has changed.
        """
        if self.purchases == 0:
            return why(self.reason if self.reason == UNEXPLAINED else "repriced", self.amount > 0, self.cause)
        return why(self.reason, self.purchases > 0, self.cause)


def postings(reader: Reader, on: Sequence[dt.date]) -> Iterable[tuple[Place, Part]]:
    """The postings of some days, the greatest amount first within a batch, each with what is behind it."""
    rows = reader.rows(_postings_and_files(), days=list(on))
    outcomes: dict[str, list[dict]] = defaultdict(list)
    for row in reader.rows(
        "select * from bronze.files where outcome in ('retracted', 'restored') order by recorded_at, run"
    ):
        outcomes[row["sha256"]].append(row)
    holding = progress.purchases_in(reader, outcomes.keys(), {row["purchase_id"] for row in rows})
    of_retracted = {purchase for _, purchase in holding}
    by_then = _told_by_bronze(
        reader, [row for row in rows if not row["was_there"] or row["purchase_id"] in of_retracted], outcomes
    )
    for row in rows:
        event, files = by_then.get(row["number"]) or (_event(row), row["files"] or [])
        changed = _changed_files(row, event, holding)
        yield (
            (row["transaction_date"], row["subsidiary"]),
            Part(
                amount=row["amount"],
                reason=row["reason"],
                cause=row["cause"] or "event",
                purchase_id=row["purchase_id"],
                purchases=row["purchases"],
                known_on=row["known_on"],
                ledger_seq=row["ledger_seq"],
                run=row["run"],
                recorded_at=row["recorded_at"],
                event=event,
                arrived=_arrived(row, event, files, changed),
                because="; ".join(dict.fromkeys(file["reason"] for file in changed if file["reason"]))
                or None,
            ),
        )


def _changed_files(row: dict, event: Event | None, holding: Collection[tuple[str, str]]) -> list[dict]:
    """Of the files that were retracted or put back when the ledger posted, those behind it, as far as can be told.

    Args:
        row: a posting.
        holding: sha256 and purchase_id, where a file names the purchase.
    """
    files = row["out_of_force"] or []
    files = [file for file in files if file["cause"] == row["cause"]] or files
    files = [file for file in files if (file["sha256"], row["purchase_id"]) in holding] or files
    return [file for file in files if event and file["path"] == event.file] or files


def _arrived(row: dict, event: Event | None, files: Sequence[str], changed: Sequence[dict]) -> Sequence[str]:
    """The paths of the files that made the ledger post.

    Args:
        row: a posting.
        files: those with anything of its purchase that the ledger took in with it.
        changed: what `_changed_files` gives.
    """
    if row["cause"] == "rule":
        return ()
    if changed:
        return [*dict.fromkeys(file["path"] for file in changed)]
    # What corrects an earlier posting may do so for what else of the purchase has arrived.
    is_own = event and event.file in files and not row["corrects"]
    return [event.file] if event and (is_own or not files) else files


def _postings_and_files() -> str:
    """SQL: the ledger's postings on `$days`, with the event of silver behind each, and the files that came with it.

    A ledger step notes the bronze runs that it has taken in, after it has posted: `noted_at`. What it had not taken in
    yet is behind none of its postings (`was_there`).
    """
    behind = " ".join(f"when '{reason}' then '{event.name}'" for reason, event in BEHIND.items())
    own = ", ".join(
        f"own_{event.name} as materialized (select * from silver.{event.versions.name} "
        "where purchase_id in (select purchase_id from posted))"
        for event in EVENT_TABLES
    )
    brought = " union all ".join(
        f"select purchase_id, file, run from own_{event.name}" for event in EVENT_TABLES
    )
    events = " union all by name ".join(_events(event) for event in EVENT_TABLES)
    return f"""
        with taken as (
            select bronze_run, recorded_at as noted_at from monitoring.progress where step = 'ledger'
        ),
        posted as (
            select posting.*, noted_at, row_number() over () as number, case reason {behind} end as behind,
                min(ledger_seq) over (partition by {", ".join(GMV_LEDGER.key)}) < ledger_seq as corrects
            from (from gold.gmv_ledger where list_contains($days, transaction_date)) as posting
            asof left join (select distinct noted_at from taken) as noted
                on posting.recorded_at <= noted.noted_at
        ),
        {own},
        events as ({events}),
        arrived as (
            select purchase_id, noted_at, list(distinct file order by file) as files
            from ({brought}) as brought join taken on brought.run = taken.bronze_run
            group by all
        ),
        changed as (
            select noted_at, path, sha256, reason,
                case outcome when 'retracted' then 'retraction' else 'undo' end as cause
            from bronze.files as files join taken on files.run = taken.bronze_run
            where outcome in ('retracted', 'restored')
            qualify row_number() over (partition by noted_at, sha256 order by recorded_at desc, run desc) = 1
        ),
        out_of_force as (
            select noted_at, list({{'path': path, 'sha256': sha256, 'cause': cause, 'reason': reason}}
                order by path) as files
            from changed group by noted_at
        )
        select posted.*, events.* exclude (number), arrived.files,
            if(cause in ('retraction', 'undo'), out_of_force.files, null) as out_of_force
        from posted
        left join events using (number)
        left join arrived using (purchase_id, noted_at)
        left join out_of_force using (noted_at)
        order by ledger_seq, abs(amount) desc, purchase_id, known_on, reason, amount
        """


def _events(event: EventTable) -> str:
    """SQL: of each posting behind which is this table, the greatest version of its day, of those that were there."""
    values = ", ".join(f"own.{name} as event_{name}" for name in _TOLD_VALUES[event.name])
    return f"""
        select number, own.transaction_datetime as event_at, {values}, own.file as event_file,
            coalesce(noted_at is null or taken_at <= noted_at, false) as was_there
        from posted join own_{event.name} as own
            on own.purchase_id = posted.purchase_id and cast(own.transaction_datetime as date) = posted.known_on
        left join ({_TAKEN_AT}) as took on took.bronze_run = own.run
        where behind = '{event.name}'
        qualify row_number() over (
            partition by number
            order by was_there desc, {", ".join(f"own.{name} desc nulls last" for name in event.precedence)}
        ) = 1
        """


def _event(row: dict) -> Event | None:
    """The event of silver behind a posting."""
    if row["event_at"] is None:
        return None
    values = {name: row[f"event_{name}"] for name in _TOLD_VALUES[row["behind"]]}
    return Event(row["behind"], row["event_at"], values, row["event_file"])


@dataclass(frozen=True)
class _Force:
    """Which records of bronze were in force for the ledger at a moment.

    Attributes:
        taken_at: when the ledger had taken in each bronze run.
        outcomes: by sha256, when a file was retracted or put back, oldest first.
    """

    taken_at: Mapping[str, dt.datetime]
    outcomes: Mapping[str, Sequence[dict]]

    def holds(self, record: dict, at: dt.datetime) -> bool:
        if not record["is_valid"] or not self._has_taken(record["run"], at):
            return False
        of_file = self.outcomes.get(record["sha256"], ())
        known = [row for row in of_file if self._has_taken(row["run"], at)]
        return not known or known[-1]["outcome"] == "restored"

    def _has_taken(self, bronze_run: str, at: dt.datetime) -> bool:
        return self.taken_at.get(bronze_run, dt.datetime.max) <= at


def _told_by_bronze(
    reader: Reader, postings: Sequence[dict], outcomes: Mapping[str, Sequence[dict]]
) -> dict[int, tuple[Event, list[str]]]:
    """The event behind each posting, and the files that made the ledger post, as they were in force then.

    For what silver does not tell: a file was retracted or put back, or a rule rejects by now what it holds.

    Args:
        outcomes: by sha256, when a file was retracted or put back, oldest first.

    Returns:
        By number of the posting; without those of which bronze has nothing.
    """
    if not postings:
        return {}
    records = _records(reader, {row["purchase_id"] for row in postings})
    force = _Force({row["bronze_run"]: row["taken_at"] for row in reader.rows(_TAKEN_AT)}, outcomes)
    told = {}
    for posting in postings:
        of_purchase = records[posting["purchase_id"]]
        posted_at = posting["noted_at"] or _NOW
        behind = _record_behind(posting, of_purchase, posted_at, force)
        if behind:
            holds = any(
                record["version"] == behind["version"] and force.holds(record, _NOW) for record in of_purchase
            )
            values = {name: behind[name] for name in _TOLD_VALUES[behind["table"]]}
            event = Event(behind["table"], behind["at"], values, behind["file"], is_in_force=holds)
            told[posting["number"]] = event, _files_that_came(of_purchase, posted_at, force)
    return told


def _record_behind(
    posting: dict, of_purchase: Sequence[dict], posted_at: dt.datetime, force: _Force
) -> dict | None:
    """Of the records of the posting's table and day, the first that was in force when the ledger posted.

    Without such, one that was until then: what a retraction takes back. None where bronze has none of that day.
    """
    of_day = [
        record
        for record in of_purchase
        if record["table"] == posting["behind"]
        and record["at"]
        and record["at"].date() == posting["known_on"]
    ]

    def rank(record: dict) -> tuple[int, bool]:
        is_in_force, was_before = (force.holds(record, at) for at in (posted_at, posted_at - _MOMENT))
        return 2 if is_in_force else 1 if was_before else 0, record["is_valid"]

    return max(of_day, key=rank, default=None)


def _files_that_came(of_purchase: Sequence[dict], posted_at: dt.datetime, force: _Force) -> list[str]:
    """The files with a version of the purchase that the ledger took in when it posted, and did not know before."""
    known = {record["version"] for record in of_purchase if force.holds(record, posted_at - _MOMENT)}
    return sorted(
        {
            record["file"]
            for record in of_purchase
            if force.taken_at.get(record["run"]) == posted_at
            and force.holds(record, posted_at)
            and record["version"] not in known
        }
    )


_MOMENT = dt.timedelta(microseconds=1)
_NOW = dt.datetime.max - _MOMENT
"""Later than any step of the ledger, and before what it has not taken in."""
_TAKEN_AT = """
    select bronze_run, min(recorded_at) as taken_at from monitoring.progress
    where step = 'ledger' group by bronze_run"""
"""SQL: when the ledger had taken in each bronze run."""


def _records(reader: Reader, purchases: Collection[str]) -> dict[str, list[dict]]:
    """What bronze holds of some purchases, each table's greatest version first, as the second engine reads it."""
    found: dict[str, list[dict]] = defaultdict(list)
    for table in (*(event.bronze for event in EVENT_TABLES), FILES):
        reader.view(table)
    with reader.session() as session:
        session.execute("create temp view out_of_force as select sha256 from bronze.files where false")
        for event in EVENT_TABLES:
            session.execute(
                f"create temp table arrived_{event.name} as from bronze.{event.name} "
                "where trim(purchase_id, $stripped) in (select unnest($purchases))",
                {"stripped": STRIPPED, "purchases": list(purchases)},
            )
        verify.read_events(session)
        for event in EVENT_TABLES:
            rows = session.sql(
                f"""
                select {", ".join(event.column_names)}, is_valid, file, sha256, run
                from {event.name}_records join arrived_files using (file_number)
                left join (select distinct sha256, run from arrived_{event.name}) using (sha256)
                order by {", ".join(f"{name} desc nulls last" for name in event.precedence)}, run, file
                """
            )
            for row in rows.to_arrow_table().to_pylist():
                version = event.name, *(row[name] for name in event.column_names)
                about = {"table": event.name, "at": row["transaction_datetime"], "version": version}
                found[row["purchase_id"]].append(row | about)
    return found
