"""What a run notes about tables and about itself."""

from __future__ import annotations

from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.tables import EVENT_TABLES, PARTITION_STATS

_COUNTS = {
    "silver": {
        event.name: f"select transaction_date as day, count(*) as records from silver.{event.name} group by all"
        for event in EVENT_TABLES
    },
    "gold": {
        "daily_gmv": "select transaction_date as day, count(*) as records from gold.daily_gmv group by all",
        "gmv_ledger": "select transaction_date as day, count(*) as records from gold.gmv_ledger group by all",
    },
}


_NOTED = """
    select "table", day, records from monitoring.partition_stats where layer = $layer and "table" = $table
    qualify row_number() over (partition by day order by recorded_at desc, run desc) = 1"""

_READABLE_DAY = """case when regexp_full_match(trim(transaction_date), '\\d{4}-\\d{2}-\\d{2}')
    then try_cast(trim(transaction_date) as date) end"""


def changed_counts(reader: Reader, layer: str) -> list[dict]:
    """The days whose row count differs from the one that was noted last.

    Args:
        layer: silver or gold.

    Returns:
        layer, table, day, records; a day that lost all its rows has 0.
    """
    changed = []
    for table, counts in _COUNTS[layer].items():
        changed += reader.rows(
            f"""
            with counted as ({counts}), noted as ({_NOTED})
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


def added_counts(reader: Reader) -> list[dict]:
    """Bronze's days to which rows were added by runs that have not noted it, with the new count.

    Bronze only grows, so only what these runs brought is read, however much there is.

    Returns:
        layer, table, day (the transaction_date; empty: it can't be read), records, run.
    """
    runs = [
        row["run"]
        for row in reader.rows(
            "select distinct run from bronze.files where outcome = 'ingested' and run not in "
            "(select run from monitoring.partition_stats where layer = 'bronze') order by run"
        )
    ]
    noted = {
        (row["table"], row["day"]): row["records"]
        for event in EVENT_TABLES
        for row in reader.rows(_NOTED, layer="bronze", table=event.name)
    }
    added = []
    for event in EVENT_TABLES if runs else ():
        counted = f"""
            select run, {_READABLE_DAY} as day, count(*) as records from bronze.{event.name}
            where list_contains($runs, run) group by all order by run, day"""
        for row in reader.of_runs(runs).rows(counted, runs=runs):
            place = (event.name, row["day"])
            noted[place] = noted.get(place, 0) + row["records"]
            added.append({**row, "layer": "bronze", "table": event.name, "records": noted[place]})
    return added


def note_counts(reader: Reader, layer: str, run: str) -> list[dict]:
    """Append the changed counts of a layer to `monitoring/partition_stats`, and return them."""
    moment = records.now()
    changed = added_counts(reader) if layer == "bronze" else changed_counts(reader, layer)
    rows = [{"run": run, **row, "recorded_at": moment} for row in changed]
    records.append(reader.lake, PARTITION_STATS, rows)
    return rows
