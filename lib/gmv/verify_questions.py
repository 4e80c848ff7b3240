"""What `gmv.verify` asks of each table: SQL that puts what the lake holds beside what bronze gives.

The relations that are asked are made by `gmv.verify` and the scripts in `sql/`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gmv.tables import EVENT_TABLES, LEDGER_DAYS, EventTable


@dataclass(frozen=True)
class Question:
    """A comparison to make: `differences` selects one row per difference, `rows` counts what is compared.

    Columns `recomputed` and `stored` hold both values; an amount in `apart` counts towards cents_apart.
    """

    name: str
    what: str
    rows: str
    differences: str
    is_money: bool = False


PENDING_DAYS = """
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


def _versions_question(event: EventTable) -> Question:
    columns = ", ".join(event.column_names)
    return Question(
        event.versions.name,
        f"{event.versions.path} holds each distinct valid event of bronze.{event.name} exactly once, "
        "under a file in force that holds it.",
        f"(select count(*) from {event.name}_events) + (select count(*) from stored_{event.name}_versions)",
        f"""
        with held as (
            select {columns}, file_number, 1 as recomputed, 0 as stored
            from {event.name}_records where is_valid
            union all
            select {columns}, file_number, 0, 1
            from stored_{event.name}_versions
            left join (from arrived_files where "table" = '{event.name}' and not is_retracted)
                using (file, sha256)
        ),
        by_file as (
            select {columns}, file_number, max(recomputed) as recomputed, sum(stored) as stored
            from held
            group by {columns}, file_number
        ),
        apart as (
            select {columns}, max(recomputed) as recomputed, sum(stored) as stored
            from by_file
            group by {columns}
            having max(recomputed) <> sum(stored)
                or bool_or(stored > 0 and recomputed = 0 and (file_number is not null or is_whole_lake()))
        )
        select '{event.versions.path}' as "table", purchase_id, transaction_datetime,
            {_rows_of(event)},
            case when bool_or(recomputed = stored)
                then 'stored under a file that does not hold it, or is not in force' end as note
        from apart
        group by purchase_id, transaction_datetime
        """,
    )


def _latest_question(event: EventTable) -> Question:
    columns = ", ".join(event.column_names)
    return Question(
        event.latest.name,
        f"{event.latest.path} holds the latest version of each purchase (rule 1).",
        f"(select count(*) from {event.name}_latest) + (select count(*) from stored_{event.name})",
        f"""
        with apart as (
            select {columns}, sum(recomputed) as recomputed, sum(stored) as stored
            from (
                select {columns}, 1 as recomputed, 0 as stored from {event.name}_latest
                union all
                select {columns}, 0, 1 from stored_{event.name}
            )
            group by {columns}
            having sum(recomputed) <> sum(stored)
        )
        select '{event.latest.path}' as "table", purchase_id, {_rows_of(event)}
        from apart
        group by purchase_id
        """,
    )


def _rows_of(event: EventTable) -> str:
    """Both sides of a group of rows that differ, each row as often as it occurs there."""
    row = ", ".join(f"'{name}': {name}" for name in event.column_names)
    return ", ".join(
        f"flatten(list(repeat([{{{row}}}], {side}::bigint) order by {event.column_names[1]})) as {side}"
        for side in ("recomputed", "stored")
    )


_QUARANTINE_QUESTION = Question(
    "quarantine",
    "silver/quarantine holds exactly the records in force that break a rule of values.",
    "(select count(*) from rejected) + (select count(*) from stored_quarantine)",
    """
    with both_sides as (
        select event_table, file, sha256, line, 1 as recomputed, 0 as stored from rejected
        union all
        select "table", file, sha256, line, 0, 1 from stored_quarantine
    )
    select 'silver/quarantine' as "table", event_table, file, sha256, line,
        sum(recomputed)::bigint as recomputed, sum(stored)::bigint as stored
    from both_sides
    group by event_table, file, sha256, line
    having sum(recomputed) <> sum(stored)
    """,
)

_VERSIONS_BY_FILE = " union all ".join(
    f"select '{event.name}' as event_table, file, sha256, count(*) as versions "
    f"from stored_{event.name}_versions group by all"
    for event in EVENT_TABLES
)

_ROW_ACCOUNTING_QUESTION = Question(
    "row_accounting",
    "Per file, records noted = rows in bronze = new versions + copies + quarantined (retracted files: "
    "records = rows).",
    "(select count(*) from arrived_files)",
    f"""
    with noted as (
        select "table" as event_table, path as file, sha256, max(records) as records
        from noted_files group by all
    ),
    arrived as (
        select "table" as event_table, file, sha256, is_retracted, records, valid_records
        from arrived_files left join valid_records using (file_number)
    ),
    brought as (
        {_VERSIONS_BY_FILE}
    ),
    quarantined as (
        select "table" as event_table, file, sha256, count(*) as records from stored_quarantine group by all
    ),
    accounts as (
        select event_table, file, sha256, coalesce(is_retracted, false) as is_retracted,
            noted.records as noted,
            coalesce(arrived.records, 0) as in_bronze,
            coalesce(brought.versions, 0) as new_versions,
            coalesce(valid_records, 0) - new_versions as copies,
            coalesce(quarantined.records, 0) as quarantined
        from noted
        full join arrived using (event_table, file, sha256)
        left join brought using (event_table, file, sha256)
        left join quarantined using (event_table, file, sha256)
    )
    select 'bronze/files' as "table", event_table, file, sha256,
        {{'records': in_bronze}} as recomputed,
        {{
            'records': noted, 'new_versions': new_versions, 'copies': copies, 'quarantined': quarantined
        }} as stored
    from accounts
    where noted is distinct from in_bronze
        or not is_retracted and (copies < 0 or new_versions + copies + quarantined <> in_bronze)
    """,
)

_LEDGER_BY_DAY_QUESTION = Question(
    "ledger_by_day",
    "The ledger's postings sum to rules 1 to 5 over bronze, by day and subsidiary, on all days.",
    "(select count(*) from gmv_by_day) + (select count(*) from ledger_by_day)",
    """
    select 'gold/gmv_ledger' as "table", transaction_date, subsidiary,
        {'gmv': expected.gmv, 'purchases': expected.purchases} as recomputed,
        {'gmv': ledger.gmv, 'purchases': ledger.purchases} as stored,
        abs(coalesce(expected.gmv, 0) - coalesce(ledger.gmv, 0)) as apart
    from gmv_by_day as expected
    full join ledger_by_day as ledger using (transaction_date, subsidiary)
    where expected.gmv is distinct from ledger.gmv or expected.purchases is distinct from ledger.purchases
    """,
    is_money=True,
)

_LEDGER_AS_KNOWN_QUESTION = Question(
    "ledger_as_known",
    "The ledger's postings sum, by purchase, day known, day and subsidiary, to the changes of standing that "
    "bronze's events cause: so GMV as known on any day is right (rule 6).",
    "(select count(*) from changes) + (select count(*) from stored_ledger)",
    """
    with ledger as (
        select purchase_id, known_on, transaction_date, subsidiary,
            sum(amount)::decimal(38, 2) as amount, sum(purchases)::bigint as purchases
        from stored_ledger
        group by all
        having sum(amount) <> 0 or sum(purchases) <> 0
    )
    select 'gold/gmv_ledger' as "table", purchase_id, known_on, transaction_date, subsidiary,
        {'amount': expected.amount, 'purchases': expected.purchases} as recomputed,
        {'amount': ledger.amount, 'purchases': ledger.purchases} as stored,
        abs(coalesce(expected.amount, 0) - coalesce(ledger.amount, 0)) as apart
    from changes as expected
    full join ledger using (purchase_id, known_on, transaction_date, subsidiary)
    where expected.amount is distinct from ledger.amount
        or expected.purchases is distinct from ledger.purchases
    """,
    is_money=True,
)

_DAILY_GMV_QUESTION = Question(
    "daily_gmv",
    "gold/daily_gmv is rules 1 to 5 over bronze, on every closed day that is not pending.",
    "(select count(*) from gmv_by_day) + (select count(*) from gold.daily_gmv)",
    """
    select 'gold/daily_gmv' as "table", transaction_date, subsidiary,
        expected.gmv as recomputed, published.gmv as stored,
        abs(coalesce(expected.gmv, 0) - coalesce(published.gmv, 0)) as apart,
        case when rows_stored > 1 then 'stored more than once' end as note
    from gmv_by_day as expected
    full join published using (transaction_date, subsidiary)
    where (expected.gmv is distinct from published.gmv or rows_stored > 1)
        and transaction_date < (select today from parameters)
        and transaction_date not in (from pending_days)
    """,
    is_money=True,
)

_PUBLISHED_QUESTION = Question(
    "published",
    "gold/daily_gmv is what the newest rows of gold/daily_gmv_history say was published, on all days.",
    "(select count(*) from gold.daily_gmv_history) + (select count(*) from gold.daily_gmv)",
    """
    with newest as (
        select transaction_date, subsidiary, gmv
        from gold.daily_gmv_history
        qualify row_number() over (
            partition by transaction_date, subsidiary order by ledger_seq desc, published_at desc
        ) = 1
    )
    select 'gold/daily_gmv' as "table", transaction_date, subsidiary,
        newest.gmv as recomputed, published.gmv as stored,
        abs(coalesce(newest.gmv, 0) - coalesce(published.gmv, 0)) as apart,
        case when rows_stored > 1 then 'stored more than once' end as note
    from newest
    full join published using (transaction_date, subsidiary)
    where newest.gmv is distinct from published.gmv or rows_stored > 1
    """,
    is_money=True,
)

HISTORY = Question(
    "history",
    "Each row of gold/daily_gmv_history follows on the row before it, and holds the sum of the ledger's "
    "postings up to its ledger_seq.",
    "(select count(*) from gold.daily_gmv_history)",
    """
    with steps as (
        select *, lag(gmv) over (
            partition by transaction_date, subsidiary order by ledger_seq, published_at
        ) as gmv_before
        from gold.daily_gmv_history
    ),
    ledger as (
        select transaction_date, subsidiary, ledger_seq,
            sum(sum(amount)) over up_to_here as gmv, sum(sum(purchases)) over up_to_here as purchases
        from gold.gmv_ledger
        group by transaction_date, subsidiary, ledger_seq
        window up_to_here as (partition by transaction_date, subsidiary order by ledger_seq)
    ),
    expected as (
        select steps.*, case when ledger.purchases > 0 then ledger.gmv::decimal(38, 2) end as ledger_gmv
        from steps
        asof left join ledger
            on steps.transaction_date = ledger.transaction_date and steps.subsidiary = ledger.subsidiary
            and steps.ledger_seq >= ledger.ledger_seq
    )
    select 'gold/daily_gmv_history' as "table", transaction_date, subsidiary, ledger_seq,
        {'previous_gmv': gmv_before, 'gmv': ledger_gmv} as recomputed,
        {'previous_gmv': previous_gmv, 'gmv': gmv} as stored,
        abs(coalesce(gmv_before, 0) - coalesce(previous_gmv, 0))
            + abs(coalesce(ledger_gmv, 0) - coalesce(gmv, 0)) as apart
    from expected
    where previous_gmv is distinct from gmv_before or gmv is distinct from ledger_gmv
    """,
    is_money=True,
)

ABOUT_FILES = (
    _ROW_ACCOUNTING_QUESTION,
    _QUARANTINE_QUESTION,
    *(_versions_question(event) for event in EVENT_TABLES),
)
ABOUT_PURCHASES = (
    *(_latest_question(event) for event in EVENT_TABLES),
    _LEDGER_AS_KNOWN_QUESTION,
)


def kept_sums(by_day: str) -> Question:
    """Whether what runs keep of the ledger is the ledger.

    Args:
        by_day: what `ledger_days.by_day` gives.
    """
    of_ledger, kept = (
        f"{{'amount': (sum(amount) filter ({of_it}))::decimal(38, 2), "
        f"'purchases': (sum(purchases) filter ({of_it}))::bigint, "
        f"'postings': (sum(postings) filter ({of_it}))::bigint}}"
        for of_it in ("is_ledger", "not is_ledger")
    )
    return Question(
        LEDGER_DAYS.name,
        "The sums by day that runs keep of the ledger, instead of adding up all of it, are its sums.",
        f"(select count(*) from ({by_day}))",
        f"""
        select *, coalesce(abs(recomputed.amount - stored.amount),
            abs(recomputed.amount), abs(stored.amount)) as apart
        from (
            select 'monitoring/ledger_days' as "table", transaction_date, subsidiary, known_on, cause, ledger_seq,
                run, {of_ledger} as recomputed, {kept} as stored
            from (
                select *, 1 as postings, true as is_ledger from gold.gmv_ledger
                union all by name
                select *, false as is_ledger from ({by_day})
            )
            group by transaction_date, subsidiary, known_on, cause, ledger_seq, run
        )
        where recomputed is distinct from stored
        """,
        is_money=True,
    )


ABOUT_DAYS = (
    _LEDGER_BY_DAY_QUESTION,
    _DAILY_GMV_QUESTION,
    _PUBLISHED_QUESTION,
    HISTORY,
)
