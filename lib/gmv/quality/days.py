"""What is odd about days and subsidiaries: names that are new, feeds that are missing, numbers unlike their past."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from decimal import Decimal

from gmv import checks
from gmv.checks import Check
from gmv.lake.reader import NEWEST_COUNTS, Reader, records_by_day
from gmv.progress import OUT_OF_FORCE
from gmv.publication import Place, published
from gmv.quality import anomalies, standing
from gmv.quality.findings import Accepted, Finding, severity
from gmv.settings import settings
from gmv.tables import EARLIEST_PLAUSIBLE, EVENT_TABLES, UNKNOWN_SUBSIDIARY, event_table

NEW_SUBSIDIARY_COLUMNS = ("subsidiary", "alike", "first_published_at", "days", "amount")
FEED_MISSING_COLUMNS = ("day", "table", "others")

_ALIKE = "strip_accents(lower(trim({})))"
"""Names that are equal by this differ only in case, accents or outer spaces."""


def feed_missing(reader: Reader, days: Collection[dt.date] | None = None) -> list[dict]:
    """Tables without records on a day on which another has them: day, table, others. Retracted files have none.

    Args:
        days: only these; None: all.
    """
    least = settings().feed_missing_records
    return [
        {
            "day": day,
            "table": missing,
            "others": ", ".join(f"{table} {n}" for table, n in sorted(fed.items())),
        }
        for day, fed in sorted(_fed(reader).items())
        if (days is None or day in days) and max(fed.values()) >= least
        for missing in sorted({event.name for event in EVENT_TABLES} - fed.keys())
    ]


def _fed(reader: Reader) -> dict[dt.date, dict[str, int]]:
    """By day and table, how many records files in force have; only where there are some."""
    counted: Counter[tuple[dt.date, str]] = Counter()
    for row in reader.rows(
        f"""
        from ({NEWEST_COUNTS}) where layer = 'bronze'
            and day between date '{EARLIEST_PLAUSIBLE}' and current_date
        """
    ):
        counted[row["day"], row["table"]] = row["records"]
    retracted = reader.rows(
        'select "table", list(sha256) as contents, list(run) as runs from bronze.files '
        f"where outcome = 'ingested' and sha256 in ({OUT_OF_FORCE}) group by all"
    )
    for of_table in retracted:
        out = records_by_day(
            event_table(of_table["table"]).bronze,
            "list_contains($runs, run) and list_contains($contents, sha256)",
        )
        of_runs = {"runs": of_table["runs"], "contents": of_table["contents"]}
        for row in reader.of_runs(of_table["runs"]).rows(out, **of_runs):
            counted[row["day"], of_table["table"]] -= row["records"]
    fed: dict[dt.date, dict[str, int]] = defaultdict(dict)
    for (day, table), records in counted.items():
        if records > 0:
            fed[day][table] = records
    return fed


def new_subsidiaries(reader: Reader) -> list[dict]:
    """Subsidiaries that equal another but for case, accents or outer spaces, and those that the newest
    publication was the first to have: subsidiary, alike, first_published_at, days, amount."""
    return reader.rows(
        f"""
        with first as (
            select subsidiary, min(published_at) as first_published_at from gold.daily_gmv_history
            where subsidiary <> '{UNKNOWN_SUBSIDIARY}' group by all
        ),
        now as (
            select subsidiary, {_ALIKE.format("subsidiary")} as folded, count(*) as days,
                   cast(sum(gmv) as decimal(38, 2)) as amount
            from gold.daily_gmv where subsidiary <> '{UNKNOWN_SUBSIDIARY}' group by all
        ),
        alike as (
            select now.subsidiary, string_agg(other.subsidiary, ', ' order by other.subsidiary) as alike
            from now join now as other using (folded) where other.subsidiary <> now.subsidiary group by all
        )
        select subsidiary, alike, first_published_at, days, amount
        from now join first using (subsidiary) left join alike using (subsidiary)
        where alike is not null or first_published_at > (select min(first_published_at) from first)
            and first_published_at = (select max(published_at) from gold.daily_gmv_history)
        order by all
        """
    )


def fed_by(reader: Reader, runs: Collection[str], today: dt.date) -> set[dt.date]:
    """The closed days of which these bronze runs brought records; where a table is missing, none may count."""
    rows = reader.rows(
        "select distinct day from monitoring.partition_stats "
        "where layer = 'bronze' and list_contains($runs, run) and day < $today",
        runs=list(runs),
        today=today,
    )
    return {row["day"] for row in rows}


def judged(
    reader: Reader,
    coming: Mapping[Place, Decimal],
    days: Collection[dt.date],
    fed: Collection[dt.date],
) -> dict[Check, Collection[dt.date]]:
    """The days that each check of `found` judges: all of them, or those whose numbers move.

    Args:
        coming: GMV of the run's days.
        days: those to publish, whose numbers are new.
        fed: what `fed_by` gives.
    """
    moved = _moved(coming, published(reader), days)
    of_numbers = (checks.DAY_DROP, checks.WEEKDAY_GMV, checks.SUBSIDIARY_VANISHED, checks.WEEKDAY_RECORDS)
    return {
        checks.NEW_SUBSIDIARY: days,
        checks.FEED_MISSING: {*days, *fed, *_fed_since(reader)},
        **dict.fromkeys(of_numbers, moved),
    }


def found(
    reader: Reader,
    sums: Mapping[Place, Decimal],
    coming: Mapping[Place, Decimal],
    judged: Mapping[Check, Collection[dt.date]],
    flagged: Collection[Finding],
) -> dict[Check, list[Finding]]:
    """What is odd about the days that are about to be published.

    Args:
        sums: GMV of all days and subsidiaries, by the ledger.
        coming: GMV of the run's days.
        judged: what `judged` gives.
        flagged: anomalies of earlier runs, whose numbers are not taken for normal.
    """
    new = judged[checks.NEW_SUBSIDIARY]
    numbers = {place: gmv for place, gmv in sums.items() if place[0] not in new}
    numbers |= {place: gmv for place, gmv in coming.items() if place[0] in new}
    by_subsidiary: dict[str, dict[dt.date, Decimal]] = defaultdict(dict)
    totals: dict[dt.date, Decimal] = defaultdict(Decimal)
    for (day, subsidiary), gmv in numbers.items():
        totals[day] += gmv
        if subsidiary != UNKNOWN_SUBSIDIARY:  # which has a check of its own, and shrinks as names come
            by_subsidiary[subsidiary][day] = gmv
    results: dict[Check, list[Finding]] = {
        checks.NEW_SUBSIDIARY: _new(reader, coming),
        checks.FEED_MISSING: _missing(reader, judged[checks.FEED_MISSING]),
        checks.DAY_DROP: anomalies.drops(totals, judged[checks.DAY_DROP]),
        checks.WEEKDAY_GMV: [],
        checks.SUBSIDIARY_VANISHED: [],
    }
    abnormal = {(finding.subject, finding.value) for finding in flagged}
    moved = judged[checks.WEEKDAY_GMV]
    for finding in anomalies.unlike_weekday(checks.WEEKDAY_GMV, by_subsidiary, moved, abnormal):
        results[finding.check].append(finding)
    if severity(checks.WEEKDAY_RECORDS) != "off":
        results[checks.WEEKDAY_RECORDS] = anomalies.unlike_weekday(
            checks.WEEKDAY_RECORDS, _records(reader), judged[checks.WEEKDAY_RECORDS], abnormal, decimals=0
        )
    return results


def _fed_since(reader: Reader) -> set[dt.date]:
    """The days that lacked a table when they were judged last, and lack none any more, such as by a retraction."""
    lacked = {row["day"] for row in standing.standing(reader) if row["check"] == checks.FEED_MISSING.name}
    return lacked - {row["day"] for row in feed_missing(reader, lacked)}


def _moved(
    coming: Mapping[Place, Decimal], was: Mapping[Place, Decimal], days: Collection[dt.date]
) -> set[dt.date]:
    """The days of which a number is new, or moves by a percent or more; a late cent makes no day odd."""
    places = {place for place in coming.keys() | was.keys() if place[0] in days}
    zero = Decimal(0)
    return {
        place[0]
        for place in places
        if place not in was or abs(coming.get(place, zero) - was[place]) * 100 >= was[place]
    }


def _new(reader: Reader, coming: Mapping[Place, Decimal]) -> list[Finding]:
    known = {
        row["subsidiary"]
        for row in reader.rows("select distinct subsidiary from gold.daily_gmv_history")
        if row["subsidiary"] != UNKNOWN_SUBSIDIARY
    }
    names = {subsidiary for _, subsidiary in coming if subsidiary != UNKNOWN_SUBSIDIARY}
    if not known or not names - known:
        return []
    alike = reader.rows(
        f"""
        select new.name as name, string_agg(old.name, ', ' order by old.name) as others
        from (select unnest($new) as name) as new join (select unnest($all) as name) as old
        on {_ALIKE.format("new.name")} = {_ALIKE.format("old.name")} and new.name <> old.name group by all
        """,
        new=sorted(names - known),
        all=sorted(names | known),
    )
    others = {row["name"]: row["others"] for row in alike}
    results = []
    for name in sorted(names - known):
        amount = sum((gmv for place, gmv in coming.items() if place[1] == name), Decimal(0))
        days = [day for day, subsidiary in coming if subsidiary == name]
        said = f"'{name}' has never been published; it has {amount:,.2f} from {min(days)} on"
        said += f", and equals '{others[name]}' but for case, accents or spaces" if name in others else ""
        value = f"like {others[name]}" if name in others else "new"
        results.append(Finding(checks.NEW_SUBSIDIARY, name, value, f"{said}.", amount))
    return results


def _missing(reader: Reader, days: Collection[dt.date]) -> list[Finding]:
    return [
        Finding(
            checks.FEED_MISSING,
            f"{row['day']} {row['table']}",
            "0 records",
            f"On {row['day']} nothing came for {row['table']}; other tables have records: {row['others']}.",
        )
        for row in feed_missing(reader, days)
    ]


def _records(reader: Reader) -> dict[str, dict[dt.date, Decimal]]:
    """Rows of the silver tables by day, as they were counted last."""
    counted: dict[str, dict[dt.date, Decimal]] = defaultdict(dict)
    for row in reader.rows(f"from ({NEWEST_COUNTS}) where layer = 'silver' and day is not null"):
        counted[row["table"]][row["day"]] = Decimal(row["records"])
    return counted


def flagged(reader: Reader, accepted: Collection[Accepted]) -> list[Finding]:
    """The anomalies of earlier runs that nobody has accepted.

    Args:
        accepted: what `acceptance.accepted` gives.
    """
    judged = (checks.WEEKDAY_GMV, checks.SUBSIDIARY_VANISHED, checks.WEEKDAY_RECORDS)
    rows = reader.rows(
        """
        select distinct "check", subject, value, message from monitoring.check_results
        where not passed and list_contains($judged, "check") order by all
        """,
        judged=[check.name for check in judged],
    )
    found = [
        Finding(checks.BY_NAME[row["check"]], row["subject"], row["value"], row["message"]) for row in rows
    ]
    return [one for one in found if one.accepted_as not in accepted]
