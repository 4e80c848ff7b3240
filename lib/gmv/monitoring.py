"""What a run notes about tables and about itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from gmv.freshness import freshness
from gmv.lake import ledger_days, records
from gmv.lake.reader import NEWEST_COUNTS, Reader, records_by_day
from gmv.tables import DAY_STATS, EVENT_TABLES, FRESHNESS, PARTITION_STATS, STEPS

_NOTED = f'select "table", day, records from ({NEWEST_COUNTS}) where layer = $layer and "table" = $table'


def changed_counts(reader: Reader, layer: str) -> list[dict]:
    """The days whose row count differs from the one that was noted last.

    Args:
        layer: silver or gold.

    Returns:
        layer, table, day, records; a day that lost all its rows has 0.
    """
    count = "select transaction_date as day, count(*) as records from {} group by all"
    if layer == "silver":
        counted = {event.name: count.format(f"silver.{event.name}") for event in EVENT_TABLES}
    else:
        postings = (
            "select transaction_date as day, cast(sum(postings) as bigint) as records from ({}) group by all"
        )
        counted = {
            "daily_gmv": count.format("gold.daily_gmv"),
            "gmv_ledger": postings.format(ledger_days.by_day(reader)),
        }
    changed = []
    for table, counts in counted.items():
        changed += reader.rows(
            f"""
            with counted as ({counts}), noted as ({_NOTED})
            select $layer as layer, $table as "table", day, coalesce(counted.records, 0) as records
            from counted full join noted using (day)
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
        counted = records_by_day(event.bronze, "list_contains($runs, run)")
        for row in reader.of_runs(runs).rows(f"{counted} order by run, day", runs=runs):
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


def note_run(reader: Reader, run: str, today: dt.date, seconds: Mapping[str, float]) -> None:
    """Append what a run that has ended leaves: the days that it changed, freshness, bytes, durations.

    The days that a run changed which was killed before it could note them are among those of the next.

    Args:
        reader: the lake after the run.
        today: the run's.
        seconds: how long each step took.
    """
    moment = records.now()
    common = {"run": run, "recorded_at": moment}
    days = reader.rows(
        """
        with total as (
            select transaction_date as day, cast(sum(gmv) as decimal(38, 2)) as gmv
            from gold.daily_gmv group by all
        ), changed as (
            select distinct transaction_date as day from gold.daily_gmv_history
            where run = $run
                or published_at > (select coalesce(max(recorded_at), timestamp '-infinity') from monitoring.day_stats)
        )
        select day, coalesce(total.gmv, 0.00) as gmv,
            coalesce(total.gmv, 0.00) - day_before.gmv as against_day_before,
            coalesce(total.gmv, 0.00) - week_before.gmv as against_week_before
        from changed
        left join total using (day)
        left join total as day_before on day_before.day = changed.day - 1
        left join total as week_before on week_before.day = changed.day - 7
        order by day
        """,
        run=run,
    )
    records.append(reader.lake, DAY_STATS, [{**row, **common} for row in days])
    (read,) = reader.rows(
        "select cast(coalesce(sum(size), 0) as bigint) as bytes_read, "
        "cast(coalesce(sum(records), 0) as bigint) as records_read "
        "from bronze.files where run = $run and outcome = 'ingested'",
        run=run,
    )
    fresh = freshness(reader, today)
    records.append(
        reader.lake,
        FRESHNESS,
        [
            {
                **common,
                **read,
                "newest_event": fresh.newest_event,
                "newest_file": fresh.newest_file,
                "newest_published_day": fresh.newest_published_day,
                "expected_day": fresh.expected_day,
                "days_late": fresh.days_late,
            }
        ],
    )
    timed = [{**common, "step": step, "milliseconds": round(took * 1000)} for step, took in seconds.items()]
    records.append(reader.lake, STEPS, timed)
