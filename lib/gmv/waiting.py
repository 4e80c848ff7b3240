"""Which purchases wait for something: paid ones for their item, items and extra information for their purchase.

The list of the last run holds for all purchases that have not changed since. Only the others are looked at again,
however long the history is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from gmv.lake import lookups, merging, pruning, records
from gmv.lake.reader import Reader
from gmv.tables import EVENT_TABLES, WAITING

ITEM, PURCHASE = "item", "purchase"

MOST_KEPT = 100_000
"""A longer list is not kept: to write it with each run would take longer than to make it anew."""

_PART = "coalesce(try_cast(purchase_id as bigint) // 1024, cast(hash(purchase_id) % 16384 as bigint))"
"""Neighbouring purchases are one part, since those of which something has not come yet are mostly the newest."""

_WAITING = f"""
    select purchase_id, '{ITEM}' as awaits
    from (select purchase_id from purchase where is_paid) anti join item using (purchase_id)
    union all
    select purchase_id, '{PURCHASE}'
    from (from item union from info) anti join purchase using (purchase_id)
"""


def waiting(reader: Reader) -> pa.Table:
    """The purchases that wait now, by the silver tables of a reader.

    Returns:
        purchase_id, awaits (`item` or `purchase`), one row each, in any order.
    """
    changed = _changed_since(reader, _kept(reader))
    if changed is None:
        return _found(reader)
    unchanged = reader.arrow(
        "select purchase_id, awaits from monitoring.waiting "
        f"where purchase_id is not null and not {pruning.ONE_OF_IDS}",
        ids=changed,
    )
    return pa.concat_tables([unchanged, _found_among(reader, changed)]) if changed else unchanged


def note(reader: Reader) -> None:
    """Keep the list for the next run, unless it is kept already, or too long."""
    versions = {f"{event.name}_version": reader.version(event.latest) for event in EVENT_TABLES}
    if _kept(reader) == versions:
        return
    found = waiting(reader)
    if found.num_rows > MOST_KEPT:
        return
    rows = found.to_pylist() or [{}]
    schema = records.arrow_schema(WAITING)
    named = [{name: ({**row, **versions}).get(name) for name in schema.names} for row in rows]
    records.replace_columns(reader.lake, WAITING, pa.Table.from_pylist(named, schema))


def _kept(reader: Reader) -> dict[str, int | None]:
    """The versions for which the list holds, by their columns; empty ones where there is none."""
    (versions,) = reader.rows(
        "select any_value(columns(* exclude (purchase_id, awaits))) from monitoring.waiting"
    )
    return versions


def _changed_since(reader: Reader, versions: Mapping[str, int | None]) -> list[str] | None:
    """The purchases that may have changed in silver since these versions of its tables; None: any may have."""
    since = merging.since_each(reader, {event: versions[f"{event.name}_version"] for event in EVENT_TABLES})
    if since is None:
        return None
    runs = {run for of_table in since.values() for run in of_table.bronze_runs}
    return reader.touched_by(sorted(runs))


def _found_among(reader: Reader, ids: Sequence[str]) -> pa.Table:
    """The purchases that wait, of these."""
    return lookups.near(reader, [event.latest for event in EVENT_TABLES], ids).arrow(
        f"""
        with purchase as materialized (
            select purchase_id, release_date is not null as is_paid from silver.purchase where {pruning.ONE_OF_IDS}
        ),
        item as materialized (select purchase_id from silver.product_item where {pruning.ONE_OF_IDS}),
        info as materialized (select purchase_id from silver.purchase_extra_info where {pruning.ONE_OF_IDS})
        {_WAITING}
        """,
        ids=list(ids),
    )


def _found(reader: Reader) -> pa.Table:
    """The purchases that wait, of all.

    Most parts of the ids have all three of each purchase. There, the three tables have as many ids, with the same
    fingerprint; only the other parts are joined. To join all takes longer, and five times the memory.
    """
    parts = " union all ".join(
        f"select {_PART} as part, count(*) as ids, bit_xor(hash(purchase_id)) as fingerprint "
        f"from silver.{event.name} group by part"
        for event in EVENT_TABLES
    )
    return reader.arrow(
        f"""
        with differing as materialized (
            select part from ({parts}) group by part
            having count(*) < {len(EVENT_TABLES)} or count(distinct (ids, fingerprint)) > 1
        ),
        purchase as materialized (
            select purchase_id, release_date is not null as is_paid from silver.purchase
            where {_PART} in (from differing)
        ),
        item as materialized (
            select purchase_id from silver.product_item where {_PART} in (from differing)
        ),
        info as materialized (
            select purchase_id from silver.purchase_extra_info where {_PART} in (from differing)
        )
        {_WAITING}
        """
    )
