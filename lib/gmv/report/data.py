"""The numbers of the report: small questions to the lake, each answered by one query.

Every function takes a `Reader` first and returns a pandas frame. Amounts are Decimal, days datetime64 at
midnight, times datetime64 in UTC. A lake without the tables gives frames without rows.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from decimal import Decimal

import pandas as pd

from gmv.lake.reader import NEWEST_COUNTS, Reader
from gmv.reasons import REASON_TOLD, why
from gmv.tables import EARLIEST_PLAUSIBLE, TABLES

UNREADABLE_DAY = "not readable"
"""The day of records whose date can't be read, or can't be a date of theirs."""
NOTHING = Decimal("0.00")

_IN_WINDOW = """
    between coalesce($start_date::date, date '0001-01-01') and coalesce($end_date::date, date '9999-12-31')
"""

_IS_PLAUSIBLE = f"(day >= date '{EARLIEST_PLAUSIBLE}' and day <= cast(recorded_at as date) + interval 1 day)"
"""By the rule that else puts a record into quarantine: what is counted elsewhere would stretch a chart by ages."""


def daily_gmv(
    reader: Reader, start_date: dt.date | None = None, end_date: dt.date | None = None
) -> pd.DataFrame:
    """The published numbers of a window, inclusive; without limits, all of them.

    Returns:
        transaction_date, subsidiary, gmv (Decimal), sorted by day and subsidiary.
    """
    return reader.frame(
        f"""
        select transaction_date, subsidiary, gmv
        from gold.daily_gmv
        where transaction_date {_IN_WINDOW}
        order by transaction_date, subsidiary
        """,
        start_date=start_date,
        end_date=end_date,
    )


def run_to_report(reader: Reader, run: str) -> str:
    """The run, if the lake knows it; else the newest run that changed a published number.

    So that the report can be opened by itself, outside of a run. A lake without any gives `run` back.
    """
    known = reader.rows(
        """
        select run from monitoring.runs where run = $run
        union all
        select run from gold.daily_gmv_history where run = $run
        """,
        run=run,
    )
    newest = reader.rows("select run from gold.daily_gmv_history order by published_at desc, run limit 1")
    return run if known or not newest else newest[0]["run"]


def published_changes(reader: Reader, run: str) -> pd.DataFrame:
    """What one run changed in the published numbers.

    Returns:
        transaction_date, subsidiary, previous_gmv (empty: the row is new), gmv (empty: the row is gone),
        difference (Decimals; an empty amount counts as 0), sorted by day and subsidiary.
    """
    return reader.frame(
        """
        select transaction_date, subsidiary, previous_gmv, gmv,
            coalesce(gmv, 0.00) - coalesce(previous_gmv, 0.00) as difference
        from gold.daily_gmv_history
        where run = $run
        order by transaction_date, subsidiary
        """,
        run=run,
    )


def headline(reader: Reader, run: str) -> str:
    """In one or two sentences: how many published numbers the run changed, and how far numbers reach."""
    changes = published_changes(reader, run)
    newest = reader.rows("select max(transaction_date) as day from gold.daily_gmv")[0]["day"]
    if newest is None:
        return "No GMV has been published yet."
    reach = f"The newest day with published GMV is {in_words(newest)}."
    if changes.empty:
        return f"This run changed no published number. {reach}"
    new = int(changes["previous_gmv"].isna().sum())
    gone = int(changes["gmv"].isna().sum())
    counts = [(new, "new"), (len(changes) - new - gone, "changed"), (gone, "removed")]
    told = ", ".join(f"{count:,} {word}" for count, word in counts if count)
    total = sum(changes["difference"], Decimal(0))
    return (
        f"This run published numbers for {changes['transaction_date'].nunique():,} day(s): {told}. "
        f"Together they change GMV by {total:+,.2f}. {reach}"
    )


def last_report(reader: Reader, run: str) -> dt.datetime | None:
    """When the run before this one, of those that made a report, had ended; None where there is none."""
    (row,) = reader.rows(
        """
        select max("at") as ended from monitoring.runs
        where kind = 'run' and event = 'ended' and outcome = 'succeeded' and run <> $run
            and "at" < coalesce(
                (select min("at") from monitoring.runs where run = $run), timestamp '9999-12-31')
        """,
        run=run,
    )
    return row["ended"]


def restated_days(restated: pd.DataFrame) -> pd.DataFrame:
    """The frame of `restatements` by day and reason, the days that changed most first.

    Returns:
        transaction_date, difference (of the day), why, of_which (Decimals), purchases.
    """
    amounts: dict[tuple, Decimal] = defaultdict(Decimal)
    purchases: dict[tuple, int] = defaultdict(int)
    by_day: dict[pd.Timestamp, Decimal] = defaultdict(Decimal)
    for row in restated.to_dict("records"):
        amounts[row["transaction_date"], row["why"]] += row["of_which"]
        purchases[row["transaction_date"], row["why"]] += int(row["purchases"])
        by_day[row["transaction_date"]] += row["of_which"]
    rows = [
        (day, by_day[day], why, amount, purchases[day, why])
        for (day, why), amount in sorted(
            amounts.items(),
            key=lambda item: (-abs(by_day[item[0][0]]), item[0][0], -abs(item[1]), item[0][1]),
        )
    ]
    return pd.DataFrame(rows, columns=["transaction_date", "difference", "why", "of_which", "purchases"])


def restatements(
    reader: Reader,
    run: str | None = None,
    start_date: dt.date | None = None,
    end_date: dt.date | None = None,
    since: dt.datetime | None = None,
) -> pd.DataFrame:
    """Changes in days that had been published before, split by reason, the largest change first.

    A change is explained by the postings of its day and subsidiary that the ledger received since the
    number was last published. What they do not explain is a row of its own.

    Args:
        reader: the lake.
        run: only what this run restated.
        start_date: first day; none: from the oldest on.
        end_date: last day, inclusive; none: to the newest.
        since: only what was published after this moment, UTC.

    Returns:
        transaction_date, subsidiary, previous_gmv (empty: there was no row), gmv (empty: the row is gone),
        difference, why (words), of_which (the part of the difference that has this reason), purchases (how
        many were concerned), run, published_at. Amounts are Decimals; of_which adds up to difference.
    """
    frame = reader.frame(
        f"""
        with changes as (
            select *,
                coalesce(gmv, 0.00) - coalesce(previous_gmv, 0.00) as difference,
                coalesce(lag(ledger_seq) over same_number, 0) as previous_seq,
                min(published_at) over (partition by transaction_date) < published_at as is_restatement
            from gold.daily_gmv_history
            window same_number as (
                partition by transaction_date, subsidiary order by ledger_seq, published_at
            )
        ),
        restated as (
            select * from changes
            where is_restatement
                and ($run is null or run = $run)
                and ($since is null or published_at > $since)
                and transaction_date {_IN_WINDOW}
        ),
        explained as (
            select restated.transaction_date, restated.subsidiary, restated.published_at,
                {REASON_TOLD},
                sum(posting.amount) as of_which,
                count(distinct posting.purchase_id) as purchases
            from restated
            join gold.gmv_ledger as posting
                on posting.transaction_date = restated.transaction_date
                and posting.subsidiary = restated.subsidiary
                and posting.ledger_seq > restated.previous_seq
                and posting.ledger_seq <= restated.ledger_seq
            group by all
        ),
        unexplained as (
            select transaction_date, subsidiary, published_at,
                'unexplained' as reason,
                'event' as cause,
                rest > 0 as adds,
                rest as of_which,
                0 as purchases
            from (
                select transaction_date, subsidiary, published_at,
                    any_value(difference) - coalesce(sum(of_which), 0.00) as rest
                from restated
                left join explained using (transaction_date, subsidiary, published_at)
                group by all
            )
            where rest <> 0
        )
        select transaction_date, subsidiary, previous_gmv, gmv, difference,
            reason, cause, adds, of_which, purchases, run, published_at
        from restated
        join (select * from explained union all select * from unexplained)
            using (transaction_date, subsidiary, published_at)
        order by abs(difference) desc, transaction_date, subsidiary, published_at,
            abs(of_which) desc, reason, cause, adds
        """,
        run=run,
        start_date=start_date,
        end_date=end_date,
        since=since,
    )
    words = [
        why(reason, adds, cause)
        for reason, adds, cause in zip(frame["reason"], frame["adds"], frame["cause"], strict=True)
    ]
    frame["why"] = pd.Series(words, dtype=object)
    return frame[
        [
            *("transaction_date", "subsidiary", "previous_gmv", "gmv", "difference"),
            *("why", "of_which", "purchases", "run", "published_at"),
        ]
    ]


def partition_rows(
    reader: Reader, start_date: dt.date | None = None, end_date: dt.date | None = None
) -> pd.DataFrame:
    """How many rows each table holds of each day of a window: the newest count of each.

    Returns:
        layer, table, day (empty: bronze records whose date can't be read or is far off, as 9999-12-31, in every
        window), records; bronze first, gold last.
    """
    return reader.frame(
        f"""
        with counted as (
            select layer, "table", if({_IS_PLAUSIBLE}, day, null) as of_day, sum(records)::bigint as records
            from ({NEWEST_COUNTS}) group by all
        )
        select layer, "table", of_day as day, records
        from counted
        where if(of_day is null, records > 0, of_day {_IN_WINDOW})
        order by list_position(['bronze', 'silver', 'gold'], layer), "table", day nulls first
        """,
        start_date=start_date,
        end_date=end_date,
    )


def rows_by_day(counts: pd.DataFrame) -> pd.DataFrame:
    """The frame of `partition_rows` with one row per day, and one column per layer and table.

    A table that holds nothing of a day has an empty cell. Records without a day come first, as UNREADABLE_DAY.
    """
    named = pd.DataFrame(
        {
            "day": counts["day"].dt.strftime("%Y-%m-%d").fillna(UNREADABLE_DAY),
            "table": counts["layer"] + " " + counts["table"],
            "records": counts["records"].astype("Int64"),
        }
    )
    by_day = named.pivot(index="day", columns="table", values="records")
    readable_last = sorted(by_day.index, key=lambda day: (day != UNREADABLE_DAY, day))
    return (
        by_day.loc[readable_last, list(dict.fromkeys(named["table"]))].rename_axis(columns=None).reset_index()
    )


def newest_days(reader: Reader) -> pd.DataFrame:
    """How far each table reaches.

    Returns:
        layer, table, newest_day (that has at least one row), counted_at (UTC), bronze first, gold last.
    """
    return reader.frame(
        f"""
        select layer, "table", max(day) as newest_day, max(recorded_at) as counted_at
        from ({NEWEST_COUNTS})
        where records > 0 and {_IS_PLAUSIBLE}
        group by layer, "table"
        order by list_position(['bronze', 'silver', 'gold'], layer), "table"
        """
    )


def run_durations(reader: Reader, newest: int) -> pd.DataFrame:
    """How long the newest runs took, and each of their steps, newest first; those that found nothing new have none.

    Returns:
        run, kind, started_at (UTC), outcome (`not ended` until it has), seconds (empty until then), and a
        column of seconds for each step that the run records name.
    """
    frame = reader.frame(
        """
        select run,
            any_value(kind) as kind,
            min("at") filter (event = 'started') as started_at,
            max("at") filter (event = 'ended') as ended_at,
            if(ended_at is null, 'not ended', arg_max(outcome, "at")) as outcome,
            date_diff('second', started_at, ended_at)::integer as seconds,
            arg_max(details, "at") as details
        from monitoring.runs
        group by run
        having outcome is distinct from 'nothing_new'
        order by coalesce(started_at, ended_at) desc, run desc
        limit $newest
        """,
        newest=newest,
    ).astype({"seconds": "Int64"})
    steps = [json.loads(details or "{}").get("seconds", {}) for details in frame["details"]]
    by_step = pd.DataFrame(
        steps, index=frame.index, columns=sorted({name for step in steps for name in step})
    )
    return frame[["run", "kind", "started_at", "outcome", "seconds"]].join(by_step)


def about(
    reader: Reader, run: str, start_date: dt.date | None, end_date: dt.date | None, today: dt.date
) -> pd.DataFrame:
    """What a reader must know to make the same page again.

    Args:
        reader: the lake.
        run: the run that the page is about; what monitoring.runs has on it goes before `today`.
        start_date: the page's first day.
        end_date: the page's last day.
        today: used where the run is not on record.

    Returns:
        fact, value: both text.
    """
    recorded = reader.rows(
        """
        select max(as_of_date) as today, arg_max(code_version, "at") as code_version
        from monitoring.runs
        where run = $run
        """,
        run=run,
    )[0]
    facts = [
        ("Run", run),
        ("First day of this page", str(start_date or "the first that was published")),
        ("Last day of this page", str(end_date or "the newest that was published")),
        ("Today, for the run", str(recorded["today"] or today)),
        ("Code version", recorded["code_version"] or "not recorded"),
    ]
    return pd.DataFrame(facts, columns=["fact", "value"])


def version_of(reader: Reader, path: str) -> int | None:
    """The Delta version of the table at this path; None where it does not exist."""
    return next((reader.version(table) for table in TABLES if table.path == path), None)


def in_words(day: dt.date) -> str:
    """A day for a sentence: Thursday, 23 February 2023."""
    return f"{day:%A}, {day.day} {day:%B %Y}"


def table_versions(reader: Reader) -> pd.DataFrame:
    """The Delta version of each table that the numbers were read from.

    Returns:
        layer, table, version: one row per table that exists.
    """
    versions = [(table.layer, table.name, reader.version(table)) for table in TABLES]
    return pd.DataFrame(
        [row for row in versions if row[2] is not None], columns=["layer", "table", "version"]
    )
