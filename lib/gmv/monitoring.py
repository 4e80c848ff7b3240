"""What a run notes about tables and about itself."""

from __future__ import annotations

from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.tables import EVENT_TABLES, PARTITION_STATS

_COUNTS = {
    "bronze": {
        event.name: f"""
            select case when regexp_full_match(trim(transaction_date), '\\d{{4}}-\\d{{2}}-\\d{{2}}')
                        then try_cast(trim(transaction_date) as date) end as day, count(*) as records
            from bronze.{event.name} group by all"""
        for event in EVENT_TABLES
    },
    "silver": {
        event.name: f"select transaction_date as day, count(*) as records from silver.{event.name} group by all"
        for event in EVENT_TABLES
    },
    "gold": {
        "daily_gmv": "select transaction_date as day, count(*) as records from gold.daily_gmv group by all",
        "gmv_ledger": "select transaction_date as day, count(*) as records from gold.gmv_ledger group by all",
    },
}


def changed_counts(reader: Reader, layer: str) -> list[dict]:
    """The days whose row count differs from the one that was noted last.

    Args:
        layer: bronze (by the transaction_date that can be read), silver or gold.

    Returns:
        layer, table, day (empty: unreadable), records; a day that lost all its rows has 0.
    """
    changed = []
    for table, counts in _COUNTS[layer].items():
        changed += reader.rows(
            f"""
            with counted as ({counts}),
            noted as (
                select day, records from monitoring.partition_stats where layer = $layer and "table" = $table
                qualify row_number() over (partition by day order by recorded_at desc, run desc) = 1
            )
            select $layer as layer, $table as "table", coalesce(counted.day, noted.day) as day,
                   coalesce(counted.records, 0) as records
            from counted full join noted on counted.day is not distinct from noted.day
            where coalesce(counted.records, 0) <> coalesce(noted.records, 0)
            order by day
            """,
            layer=layer,
            table=table,
        )
    return changed


def note_counts(reader: Reader, layer: str, run: str) -> list[dict]:
    """Append the changed counts of a layer to `monitoring/partition_stats`, and return them."""
    moment = records.now()
    rows = [{**row, "run": run, "recorded_at": moment} for row in changed_counts(reader, layer)]
    records.append(reader.lake, PARTITION_STATS, rows)
    return rows
