"""Oddities: what is not wrong enough to hold a number back, but should be known. Named queries, once.

Each lists what it is about, over the lake as it is; what is resolved is no longer listed. `gmv show NAME`
prints the whole list. A run looks only at the purchases that arrived events touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gmv import checks, progress
from gmv.checks import Check
from gmv.lake import lookups, pruning
from gmv.lake.reader import BROUGHT, Reader
from gmv.quality.findings import Finding, severity
from gmv.tables import (
    EVENT_TABLES,
    FILES,
    PRODUCT_ITEM,
    PURCHASE,
    PURCHASE_EXTRA_INFO,
    QUARANTINE,
    STRIPPED,
    UNKNOWN_SUBSIDIARY,
    EventTable,
)


@dataclass(frozen=True)
class Oddity:
    """A list of what is odd.

    Attributes:
        check: the check that it breaks.
        columns: of its rows; `amount` is the money concerned.
        query: SQL over the judged relations (see `_judge`).
        sentence: of a run's finding; `{n}` is how many.
    """

    check: Check
    columns: Sequence[str]
    query: str
    sentence: str
    is_finding: str = "true"
    """SQL: which of the rows break the check."""

    @property
    def name(self) -> str:
        return self.check.name


def _precedence(event: EventTable) -> str:
    return ", ".join(f"{name} desc nulls last" for name in event.precedence)


_AMOUNT = "cast(cast(purchase_value as decimal(38, 2)) * item_quantity as decimal(38, 2)) as amount"


def counted(schema: str) -> str:
    """SQL: every purchase that counts, where, and with how much (rules 2 and 3), by the latest rows in a schema."""
    return f"""
        select purchase_id, purchase.transaction_date,
               coalesce(info.subsidiary, '{UNKNOWN_SUBSIDIARY}') as subsidiary, {_AMOUNT}
        from {schema}.purchase as purchase
        join {schema}.product_item as item using (purchase_id)
        left join {schema}.purchase_extra_info as info using (purchase_id)
        where purchase.release_date is not null"""


_COUNTED = f"counted as ({counted('judged')})"

_AWAITING_ITEM = Oddity(
    checks.AWAITING_ITEM,
    ("purchase_id", "transaction_date", "subsidiary", "release_date"),
    f"""
    select purchase_id, purchase.transaction_date,
           coalesce(info.subsidiary, '{UNKNOWN_SUBSIDIARY}') as subsidiary, release_date
    from judged.purchase as purchase
    anti join judged.product_item as item using (purchase_id)
    left join judged.purchase_extra_info as info using (purchase_id)
    where release_date is not null
    """,
    "{n} paid purchase(s) await their item and are not counted",
)
_UNKNOWN_SUBSIDIARY = Oddity(
    checks.UNKNOWN_SUBSIDIARY,
    ("purchase_id", "transaction_date", "amount"),
    f"""
    with {_COUNTED}
    select purchase_id, transaction_date, amount from counted
    anti join judged.purchase_extra_info as info using (purchase_id)
    """,
    "{n} counted purchase(s) have no subsidiary yet",
)
_ORPHANS = Oddity(
    checks.ORPHANS,
    ("purchase_id", "table", "transaction_date", "amount"),
    f"""
    select purchase_id, 'product_item' as "table", transaction_date, {_AMOUNT}
    from judged.product_item anti join judged.purchase using (purchase_id)
    union all
    select purchase_id, 'purchase_extra_info', transaction_date, null
    from judged.purchase_extra_info anti join judged.purchase using (purchase_id)
    """,
    "{n} item(s) or extra information came without their purchase and are not counted",
)
_SEVERAL_PRODUCTS = Oddity(
    checks.SEVERAL_PRODUCTS,
    ("purchase_id", "transaction_date", "subsidiary", "counted", "products", "amount"),
    f"""
    with {_COUNTED},
    mixed as (
        select purchase_id from judged.product_item_versions
        group by purchase_id having min(product_id) <> max(product_id)
    ),
    newest as (
        select purchase_id, product_id, {_AMOUNT}
        from judged.product_item_versions semi join mixed using (purchase_id)
        qualify row_number() over (
            partition by purchase_id, product_id order by {_precedence(PRODUCT_ITEM)}) = 1
    )
    select purchase_id, transaction_date, subsidiary, counted.amount as counted, count(*) as products,
           cast(sum(newest.amount) - counted.amount as decimal(38, 2)) as amount
    from newest join counted using (purchase_id)
    group by purchase_id, transaction_date, subsidiary, counted.amount
    """,
    "{n} purchase(s) have items of several products, of which GMV takes one and leaves out the amount",
)


def _each(query: str) -> str:
    """The query for each event table, with its name for `{event}`, all together."""
    return " union all ".join(query.replace("{event}", event.name) for event in EVENT_TABLES)


_ON_OTHER_DAY = _each(
    """
        select purchase_id, '{event}' as "table", transaction_datetime, transaction_date from judged.{event}
        where transaction_date <> cast(transaction_datetime as date)"""
)
_OTHER_DAY = Oddity(
    checks.OTHER_DAY,
    ("purchase_id", "table", "transaction_datetime", "transaction_date", "amount"),
    f"""
    with {_COUNTED}, latest as ({_ON_OTHER_DAY})
    select purchase_id, "table", transaction_datetime, latest.transaction_date,
           case when "table" = 'purchase' then amount end as amount
    from latest left join counted using (purchase_id)
    """,
    "{n} latest event(s) are booked on another day than that of their time",
)


def _tied(event: EventTable, columns: str) -> str:
    """The distinct contents of the versions of a purchase's latest time."""
    return f"""
        select distinct purchase_id, {columns} from (
            select * from judged.{event.name}_versions semi join tied using (purchase_id)
            qualify rank() over (partition by purchase_id order by transaction_datetime desc) = 1
        )"""


_TIED = _each(
    """
        select purchase_id from (
            select purchase_id, transaction_datetime, count(*) as versions
            from judged.{event}_versions semi join twice_at_a_time using (purchase_id)
            group by purchase_id, transaction_datetime
            qualify rank() over (partition by purchase_id order by transaction_datetime desc) = 1)
        where versions > 1"""
)
# Windows sort; so they are kept to the few purchases that may be concerned.
_TWICE_AT_A_TIME = _each(
    """
        select purchase_id from judged.{event}_versions
        group by purchase_id, transaction_datetime having count(*) > 1"""
)
_TIES = Oddity(
    checks.TIES,
    ("purchase_id", "changes_gmv", "transaction_date", "subsidiary", "counted", "others", "amount"),
    f"""
    with {_COUNTED},
    twice_at_a_time as ({_TWICE_AT_A_TIME}),
    tied as (select distinct purchase_id from ({_TIED})),
    purchases as ({_tied(PURCHASE, "transaction_date, release_date is not null as is_paid")}),
    items as ({_tied(PRODUCT_ITEM, _AMOUNT)}),
    infos as ({_tied(PURCHASE_EXTRA_INFO, "subsidiary")}),
    possible as (
        select distinct purchase_id, coalesce(is_paid, false) and items.amount is not null as counts,
               case when counts then purchases.transaction_date end as transaction_date,
               case when counts then coalesce(infos.subsidiary, '{UNKNOWN_SUBSIDIARY}') end as subsidiary,
               case when counts then items.amount else 0 end as amount
        from tied
        left join purchases using (purchase_id)
        left join items using (purchase_id)
        left join infos using (purchase_id)
    ),
    other as (
        select possible.*,
               case when counts then concat_ws(' ', possible.transaction_date, possible.subsidiary, possible.amount)
                    else 'nowhere' end as told
        from possible left join counted using (purchase_id)
        where possible.transaction_date is distinct from counted.transaction_date
           or possible.subsidiary is distinct from counted.subsidiary
           or possible.amount <> coalesce(counted.amount, 0)
    )
    select purchase_id, count(other.purchase_id) > 0 as changes_gmv,
           any_value(counted.transaction_date) as transaction_date, any_value(counted.subsidiary) as subsidiary,
           any_value(counted.amount) as counted, string_agg(told, '; ' order by told) as others,
           cast(greatest(any_value(counted.amount), max(other.amount)) as decimal(38, 2)) as amount
    from tied left join other using (purchase_id) left join counted using (purchase_id)
    group by purchase_id
    """,
    "{n} purchase(s) have versions of one time that would give different GMV; the greater values count",
    is_finding="changes_gmv",
)


_SAID = {
    PURCHASE: "said.transaction_date || if(said.release_date is null, ', unpaid', ', paid')",
    PRODUCT_ITEM: "said.item_quantity || ' x ' || said.purchase_value",
    PURCHASE_EXTRA_INFO: "said.subsidiary",
}
"""What a version says, as a text."""
_WORTH = {
    PURCHASE: "if(said.release_date is null, 0, counted.amount)",
    PRODUCT_ITEM: "cast(said.purchase_value as decimal(38, 2)) * said.item_quantity",
    PURCHASE_EXTRA_INFO: "counted.amount",
}
"""The amount that a version would give, beside the other tables' latest."""


def _latest_told(event: EventTable) -> str:
    """The versions of each purchase's latest time: what each says and is worth, with what brought it."""
    return f"""
        select purchase_id, '{event.name}' as "table", said.transaction_datetime, file, {_SAID[event]} as told,
               cast({_WORTH[event]} as decimal(38, 2)) as worth, arrived_at
        from judged.{event.name}_versions as said
        semi join of_changed_files using (purchase_id)
        join arrived using (file, sha256) left join counted using (purchase_id)
        qualify rank() over (partition by purchase_id order by said.transaction_datetime desc) = 1"""


_OF_CHANGED_FILES = _each(
    """
        select purchase_id from judged.{event}_versions semi join changed_files using (file)"""
)
_CHANGED_IN_PLACE = Oddity(
    checks.CHANGED_IN_PLACE,
    (
        "purchase_id",
        "table",
        "transaction_datetime",
        "file",
        "old",
        "new",
        "old_amount",
        "new_amount",
        "amount",
    ),
    f"""
    with {_COUNTED},
    arrived as (
        select path as file, sha256, min(recorded_at) as arrived_at from bronze.files
        where outcome = 'ingested' group by all
    ),
    changed_files as (select file from arrived group by file having count(*) > 1),
    of_changed_files as ({_OF_CHANGED_FILES}),
    told as (
        select *, dense_rank() over (partition by purchase_id, "table", file order by arrived_at) as nth
        from ({" union all ".join(_latest_told(event) for event in EVENT_TABLES)})
    )
    select purchase_id, "table", transaction_datetime, file, was.told as old, now.told as new,
           was.worth as old_amount, now.worth as new_amount,
           cast(abs(coalesce(now.worth, 0) - coalesce(was.worth, 0)) as decimal(38, 2)) as amount
    from told as was join told as now using (purchase_id, "table", transaction_datetime, file)
    where now.nth = was.nth + 1
    """,
    "{n} event(s) were changed in place: their file came again under its name and says something else",
)
_VALID = _each(
    """
        select '{event}' as "table", purchase_id, transaction_datetime, arrived_at
        from judged.{event}_versions semi join rejected using (purchase_id) join arrived using (run, sha256)"""
)
_DOUBTFUL = Oddity(
    checks.DOUBTFUL,
    ("purchase_id", "table", "transaction_date", "subsidiary", "amount", "reasons", "file", "line"),
    f"""
    with {_COUNTED},
    arrived as (
        select run, sha256, min(recorded_at) as arrived_at from bronze.files
        where outcome = 'ingested' group by all
    ),
    rejected as (
        select *, case when not contains(array_to_string(reasons, ' '), 'transaction_datetime:')
                       then try_cast(values['transaction_datetime'] as timestamp) end as happened_at
        from judged.quarantine where purchase_id is not null
    ),
    valid as ({_VALID})
    select purchase_id, "table", transaction_date, subsidiary, amount, reasons, file, line
    from rejected left join counted using (purchase_id)
    where not exists (
        from valid where valid."table" = rejected."table" and valid.purchase_id = rejected.purchase_id
        and (valid.transaction_datetime > rejected.happened_at
             or (valid.transaction_datetime = rejected.happened_at or rejected.happened_at is null)
                and valid.arrived_at > rejected.ingested_at)
    )
    """,
    "{n} rejected record(s) may be newer than what their purchases count by",
)

ODDITIES: tuple[Oddity, ...] = (
    _DOUBTFUL,
    _AWAITING_ITEM,
    _UNKNOWN_SUBSIDIARY,
    _ORPHANS,
    _SEVERAL_PRODUCTS,
    _OTHER_DAY,
    _TIES,
    _CHANGED_IN_PLACE,
)


def rows(reader: Reader, oddity: Oddity) -> list[dict]:
    """The whole list, over the lake as it is, sorted."""
    _judge(reader, None)
    selected = ", ".join(f'"{column}"' for column in oddity.columns)
    return reader.rows(
        f"select {selected} from ({oddity.query}) order by not ({oddity.is_finding}), {selected}"
    )


def summary(reader: Reader) -> list[dict]:
    """How much there is in each list: list, count, amount."""
    _judge(reader, None)
    counts = [_count(reader, oddity) for oddity in ODDITIES]
    return [
        {"list": oddity.name, "count": count["n"], "amount": count["amount"]}
        for oddity, count in zip(ODDITIES, counts, strict=True)
    ]


def found(reader: Reader, runs: Sequence[str]) -> dict[Check, list[Finding]]:
    """What is odd about the purchases that these bronze runs touched.

    Args:
        runs: bronze runs; their purchases are looked at, and no others.
    """
    _judge(reader, runs)
    result = {}
    for oddity in ODDITIES:
        if severity(oddity.check) == "off":
            continue
        count = _count(reader, oddity)
        message = f"{oddity.sentence.format(n=count['n'])}: {', '.join(count['examples'])}"
        message += f"{', …' if count['n'] > len(count['examples']) else ''} (gmv show {oddity.name})."
        result[oddity.check] = (
            [Finding(oddity.check, oddity.check.subject, str(count["n"]), message, amount=count["amount"])]
            if count["n"]
            else []
        )
    return result


def _count(reader: Reader, oddity: Oddity) -> dict:
    amount = "cast(sum(amount) as decimal(38, 2))" if "amount" in oddity.columns else "null::decimal(38, 2)"
    (row,) = reader.rows(
        f"""
        with odd as (select * from ({oddity.query}) where {oddity.is_finding})
        select count(*) as n, {amount} as amount,
               (select coalesce(list(purchase_id), []) from (
                    select distinct purchase_id from odd order by all limit {_EXAMPLES})) as examples
        from odd
        """
    )
    return row


_EXAMPLES = 5


def _judge(reader: Reader, runs: Sequence[str] | None) -> None:
    """Make the relations that are judged: purchase, purchase_versions, ..., quarantine, in the schema `judged`.

    Args:
        runs: only purchases that these bronze runs touched; None, or where there are no others: all, as views.
    """
    tables = [table for event in EVENT_TABLES for table in (event.latest, event.versions)]
    for table in (*tables, FILES, QUARANTINE):
        reader.view(table)
    execute = reader.connection.execute
    execute("drop schema if exists judged cascade; create schema judged")
    rejected = f"""
        select *, nullif(trim(values['purchase_id'], '{STRIPPED}'), '') as purchase_id from silver.quarantine
        where sha256 not in ({progress.OUT_OF_FORCE})"""
    if runs is None or progress.is_all_there_is(reader, runs):
        for table in tables:
            execute(f"create view judged.{table.name} as from {table.path.replace('/', '.')}")
        execute(f"create view judged.quarantine as {rejected}")
        return
    ids = reader.of_runs(runs).arrow(f"select distinct purchase_id from ({BROUGHT})", runs=list(runs))
    reader.connection.register("brought", ids)
    execute(
        f"""
        create table judged.touched as
        select purchase_id from brought union
        select purchase_id from ({rejected}) where list_contains($runs, run) and purchase_id is not null
        """,
        {"runs": list(runs)},
    )
    reader.connection.unregister("brought")
    of_touched = "semi join judged.touched using (purchase_id)"
    found = [one for (one,) in execute(f"from judged.touched limit {pruning.MOST_IDS + 1}").fetchall()]
    are_few = len(found) <= pruning.MOST_IDS
    near = pruning.id_ranges(found) if are_few else []
    for table in tables:
        rows = lookups.rows_of(reader, table, found) if are_few else None
        if rows is not None:
            reader.connection.register("looked_up", rows)
            execute(f"create table judged.{table.name} as from looked_up")
            reader.connection.unregister("looked_up")
            continue
        selected = reader.select(table, {"purchase_id": near})
        kind = "table" if near else "view"  # many purchases are not copied
        execute(f"create {kind} judged.{table.name} as from ({selected}) {of_touched}")
    execute(f"create table judged.quarantine as from ({rejected}) {of_touched}")


def since_last_publication(reader: Reader) -> list[str]:
    """The bronze runs that the ledger took in since a run last succeeded: what is new in the numbers."""
    return [
        row["bronze_run"]
        for row in reader.rows(
            """
            select distinct bronze_run from monitoring.progress
            where step = 'ledger' and recorded_at > coalesce((
                select max("at") from monitoring.runs
                where event = 'ended' and outcome = 'succeeded'
                  and (kind = 'run' or kind = 'notebook' and contains(details, '"03_gold"'))
            ), timestamp '2000-01-01')
            order by all
            """
        )
    ]
