"""The report's second half: what was not clean, how fresh everything is, and who says that it is right."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gmv import problems, verify, waiting
from gmv.finality import IN_PROGRESS, PENDING, PROVISIONAL, SETTLED, Finality
from gmv.freshness import freshness as how_new
from gmv.lake import location
from gmv.lake.reader import Reader
from gmv.quality import files
from gmv.quality.standing import standing
from gmv.report import data
from gmv.tables import DAILY_GMV, DAILY_GMV_HISTORY


def broken(reader: Reader, today: dt.date) -> pd.DataFrame:
    """What is late or broken now: failed runs, blocked publication, stale data.

    Returns:
        attention (what happened, and why), what_to_do: text.
    """
    rows = [
        (f"{problem.what} {problem.why}", problem.advice)
        for problem in problems.open_problems(reader, today)
        if problem.is_broken
    ]
    return pd.DataFrame(rows, columns=["attention", "what_to_do"])


def finality_frame(final: Sequence[Finality]) -> pd.DataFrame:
    """How final each day is, newest first.

    Returns:
        day, state, gmv, coming (of pending days), change_from, change_to (Decimals; the further change to
        expect), evidence.
    """
    columns = ["day", "state", "gmv", "coming", "change_from", "change_to", "evidence"]
    rows = [
        (pd.Timestamp(one.day), one.state, one.gmv, one.coming, one.low, one.high, one.evidence)
        for one in reversed(final)
    ]
    return pd.DataFrame(rows, columns=columns)


def finality_in_words(final: Sequence[Finality]) -> str:
    """How many days are in which state, and since when days are settled."""
    if not final:
        return "No day has GMV yet."
    counts = {state: sum(one.state == state for one in final) for state in (SETTLED, PROVISIONAL, PENDING)}
    told = [f"{count:,} {state}" for state, count in counts.items() if count]
    in_progress = sum(one.state == IN_PROGRESS for one in final)
    if in_progress:
        told.append(f"{in_progress:,} in progress")
    settled = [one.day for one in final if one.state == SETTLED]
    newest = (
        f" The newest settled day is {data.in_words(max(settled))}." if settled else " No day is settled."
    )
    return f"Of {len(final):,} day(s), {', '.join(told)}.{newest}"


def pending_days(final: Sequence[Finality]) -> list[pd.Timestamp]:
    """The days whose number waits to be published."""
    return [pd.Timestamp(one.day) for one in final if one.state == PENDING]


def not_final(final: Sequence[Finality]) -> pd.DataFrame:
    """The frame of `finality_frame`, of days that are not settled."""
    return finality_frame([one for one in final if one.state != SETTLED])


def odd_tables(found: pd.DataFrame) -> dict[str, list[pd.Timestamp]]:
    """Of the frame of `anomalies`: the days by the table, or subsidiary, that each is about."""
    days: dict[str, list[pd.Timestamp]] = {}
    for row in found.to_dict("records"):
        days.setdefault(row["about"], []).append(row["day"])
    return days


def freshness(reader: Reader, today: dt.date) -> pd.DataFrame:
    """How new what the lake holds is, beside what is expected.

    Returns:
        what, newest, expected, late: all text.
    """
    fresh = how_new(reader, today)
    late = "no" if fresh.newest_published_day else ""
    if fresh.days_late:
        late = f"{fresh.days_late:,} day{'s' if fresh.days_late > 1 else ''}"
    rows = [
        ("Published day", _text(fresh.newest_published_day), str(fresh.expected_day), late),
        *((f"Event of {table}", _text(at), "", "") for table, at in fresh.newest_events.items()),
        ("File in landing (UTC)", _text(fresh.newest_file), "", ""),
    ]
    return pd.DataFrame(rows, columns=["what", "newest", "expected", "late"])


def anomalies(
    reader: Reader, start_date: dt.date | None = None, end_date: dt.date | None = None
) -> pd.DataFrame:
    """Anomalies that stand: checks that warn of a day, or of a day and a subsidiary or table.

    Returns:
        day, about (the subsidiary or table; empty: the whole day), check, found, expected, message; by day.
    """
    columns = ["day", "about", "check", "found", "expected", "message"]
    rows = pd.DataFrame(
        [
            (row["day"], row["about"], row["check"], row["value"], row["limit"], row["message"])
            for row in standing(reader)
        ],
        columns=columns,
    ).astype({"day": "datetime64[us]"})
    inside = (rows["day"] >= pd.Timestamp(start_date or dt.date(1700, 1, 1))) & (
        rows["day"] <= pd.Timestamp(end_date or dt.date(2200, 1, 1))
    )
    return rows[inside].reset_index(drop=True)


def failed_checks(reader: Reader) -> pd.DataFrame:
    """What each check said when it was last made, where it did not pass.

    Returns:
        check, severity, subject, found, must_be, message; blocking ones first.
    """
    return reader.frame(
        f"""
        select "check", severity, subject, "value" as found, "limit" as must_be, message
        from ({_of_newest_run()}) where not passed
        order by severity, "check", subject
        """
    )


def checks_in_words(reader: Reader) -> str:
    """How many checks were made last, and how many of them passed."""
    (row,) = reader.rows(
        f"""
        select count(distinct "check") as checks, count(distinct "check") filter (not passed) as failed
        from ({_of_newest_run()})
        """
    )
    if not row["checks"]:
        return "No check has been made yet."
    if not row["failed"]:
        return f"All {row['checks']:,} checks passed when they were last made."
    return f"Of {row['checks']:,} checks, {row['failed']:,} found something when they were last made."


def quarantine(reader: Reader) -> pd.DataFrame:
    """Rejected records by rule, as `gmv show quarantine` tells them."""
    return pd.DataFrame(files.by_rule(reader), columns=files.BY_RULE)


def open_points(reader: Reader, final: Sequence[Finality]) -> pd.DataFrame:
    """What waits for something, with the money concerned.

    Returns:
        what, count, amount (Decimal; empty where no money is concerned), meaning.
    """
    (unknown,) = reader.rows(
        "select count(*) as days, cast(coalesce(sum(gmv), 0) as decimal(38, 2)) as amount "
        "from gold.daily_gmv where subsidiary = 'unknown'"
    )
    waits = Counter(waiting.waiting(reader)["awaits"].to_pylist())
    pending = [one for one in final if one.state == PENDING]
    coming = sum(((one.gmv if one.coming is None else one.coming) - one.gmv for one in pending), data.NOTHING)
    rows = [
        ("Pending days", len(pending), coming, "The ledger has another number than was published."),
        (
            "Days with unknown subsidiary",
            unknown["days"],
            unknown["amount"],
            "Counted; the subsidiary has not come.",
        ),
        ("Awaiting item", waits[waiting.ITEM], None, "Paid, but not counted: no item has come."),
        ("Orphans", waits[waiting.PURCHASE], None, "Items or subsidiaries whose purchase has not come."),
    ]
    return pd.DataFrame(rows, columns=["what", "count", "amount", "meaning"])


@dataclass(frozen=True)
class Certified:
    """The newest certificate, beside the lake as it is now.

    Attributes:
        in_words: whether it agrees, for which state of the lake, and of when.
        comparisons: compared, rows, different, cents_apart.
    """

    in_words: str
    comparisons: pd.DataFrame


def certificate(reader: Reader, runs_dir: Path) -> Certified:
    """What the newest certificate of the whole lake in the runs folder says; without one, the newest run's own.

    A sentence where there is none at all.
    """
    columns = ["compared", "rows", "different", "cents_apart"]
    # A run's own is of what it changed alone.
    of_all = location.newest(runs_dir, verify.CERTIFICATE, within=verify.FOLDER)
    newest = of_all or location.newest(runs_dir, verify.CERTIFICATE)
    if newest is None:
        return Certified(
            "No certificate: nobody has recomputed these numbers from bronze yet. The command gmv verify does.",
            pd.DataFrame(columns=columns),
        )
    found, written = newest
    told: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    # A run compares before it publishes.
    not_compared = () if of_all else (DAILY_GMV.path, DAILY_GMV_HISTORY.path)
    changed = [
        path
        for path, version in told["versions"].items()
        if path not in not_compared and data.version_of(reader, path) != version
    ]
    rows = [(one["what"], one["rows"], one["different"], one["cents_apart"]) for one in told["comparisons"]]
    frame = pd.DataFrame(rows, columns=columns).astype({"cents_apart": "Int64"})
    compared = int(frame["rows"].sum())
    result = (
        "Every comparison agrees to the cent: a second engine recomputed the tables from bronze, and "
        f"{compared:,} rows of both sides were compared."
        if told["agrees"]
        else f"NOT CERTIFIED: {int(frame['different'].sum()):,} of {compared:,} compared rows differ."
    )
    state = (
        "The tables are still those that were compared."
        if not changed
        else f"Since then, {len(changed)} of the compared tables have changed."
    )
    if not of_all and not compared:
        result = "The newest run changed nothing that could be compared; the command gmv verify compares all."
    elif not of_all:
        result += f" This certificate covers {told['scope']}; the command gmv verify compares the whole lake."
    return Certified(f"{result} Made {written:%Y-%m-%d %H:%M} UTC, in {found.parent.name}. {state}", frame)


def _text(moment: dt.date | None) -> str:
    if isinstance(moment, dt.datetime):
        return f"{moment:%Y-%m-%d %H:%M}"
    return str(moment) if moment else "none"


def _of_newest_run() -> str:
    """Each check's results of the newest run that made it."""
    return """
        select * from monitoring.check_results as result
        where (run, "check") in (
            select arg_max(run, recorded_at), "check" from monitoring.check_results group by "check"
        )
    """
