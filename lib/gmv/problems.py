"""What a person should look at: each problem with what it is, how much it is about, why, and what to do.

`gmv status` lists the open ones; alerts tell of each when it begins and when it is over.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from gmv.checks import BY_NAME, QUARANTINED
from gmv.errors import LakeLocked, PublicationRefused
from gmv.freshness import Freshness, freshness
from gmv.lake import lock
from gmv.lake.location import is_remote
from gmv.lake.reader import Reader
from gmv.progress import OUT_OF_FORCE
from gmv.quality import acceptance, files
from gmv.quality.findings import Finding, Found, severity
from gmv.quality.standing import standing
from gmv.reasons import REASON_TOLD, why
from gmv.settings import settings

FAILED_RUN = "failed_run"
BLOCKED = "blocked_publication"
STALE = "stale"
ANOMALY = "anomaly"
RESTATEMENT = "restatement"
REFUSED_FILE = "refused_file"
QUARANTINE = "quarantine"

ANOMALY_DAYS = 7
"""An anomaly is a problem while its day is among the newest published ones; later it is history."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        kind: one of the names above.
        subject: what it is about, such as a day or a check; with `kind` it names the problem for as long as
            it lasts.
        what: what happened and how much, in a sentence.
        why: as far as the ledger or the run knows; may be empty.
        advice: what to do.
    """

    kind: str
    subject: str
    what: str
    why: str
    advice: str

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.subject}" if self.subject else self.kind

    @property
    def is_broken(self) -> bool:
        """Late or broken: numbers are missing or can't be made, so that somebody must act."""
        return self.kind in (FAILED_RUN, BLOCKED, STALE)

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.advice) if part)


def open_problems(reader: Reader, today: dt.date) -> list[Problem]:
    """Everything that is open now; what is late or broken comes first."""
    found = [
        *_of_runs(reader),
        *_stale(freshness(reader, today)),
        *_anomalies(reader),
        *_restatements(reader),
        *_refused_files(reader),
        *_quarantined(reader),
    ]
    return sorted(found, key=lambda problem: not problem.is_broken)


def runs_since_one_ended_well(reader: Reader) -> list[dict[str, Any]]:
    """Newest first: run, outcome (empty: it did not end), message, has_ended."""
    return reader.rows(
        """
        with of_run as (
            select run, min("at") as began, arg_max(outcome, "at") as outcome, arg_max(message, "at") as message,
                count(*) filter (event = 'ended') > 0 as has_ended
            from monitoring.runs where kind = 'run' and event in ('started', 'ended') group by run
        )
        select run, outcome, coalesce(message, '') as message, has_ended from of_run
        where (began, run) > coalesce(
            (select max((began, run)) from of_run where outcome in ('succeeded', 'nothing_new')),
            (timestamp '-infinity', ''))
        order by began desc, run desc
        """
    )


def _of_runs(reader: Reader) -> Iterable[Problem]:
    """The newest run that failed and the newest that was refused, of those since one ended well."""
    rows = runs_since_one_ended_well(reader)
    refused = [run["run"] for run in rows if run["outcome"] == "refused"]
    told: set[str] = set()
    for run in rows:
        # A refused run's own report is made before the run has ended.
        may_be_refused = run["outcome"] == "refused" or not run["has_ended"]
        refusing = reader.rows(_REFUSING, run=run["run"]) if may_be_refused else []
        if run["outcome"] == "refused" or refusing:
            problem = _blocked(run, refusing, since=refused[-1] if refused else run["run"])
        elif run["has_ended"]:
            what = f"Run {run['run']} {'failed' if run['outcome'] == 'failed' else 'was interrupted'}."
            problem = Problem(FAILED_RUN, "", what, run["message"].strip(), _RUN_AGAIN)
        elif is_at_work(reader.lake, run["run"]):
            return  # it is at work, and what comes of it will be told then
        else:
            problem = Problem(FAILED_RUN, "", f"Run {run['run']} did not end: it was killed.", "", _RUN_AGAIN)
        if problem.kind not in told:
            yield problem
        told.add(problem.kind)


def _blocked(run: Mapping[str, Any], refusing: Sequence[Mapping[str, Any]], since: str) -> Problem:
    subject = ",".join(sorted({row["check"] for row in refusing}))
    what = f"Publication is blocked since run {since}; the last good numbers stay."
    said = run["message"].removeprefix(PublicationRefused.begins).strip() or " ".join(
        f"{row['check']}: {row['message']}" for row in refusing
    )
    return Problem(BLOCKED, subject, what, said, "Look at the values named; gmv run tries again.")


_REFUSING = (
    'select "check", message from monitoring.check_results '
    "where run = $run and severity = 'block' and not passed and accepted is not true order by all"
)
_RUN_AGAIN = "What was committed stays; gmv run goes on where it ended."


def _stale(fresh: Freshness) -> Iterable[Problem]:
    if fresh.days_late:
        event = f"{fresh.newest_event:%Y-%m-%d %H:%M}" if fresh.newest_event else "none"
        yield Problem(
            STALE,
            "",
            f"Late: {fresh.newest_published_day} is the newest published day, but {fresh.expected_day} was expected.",
            f"The newest event is of {event}, the newest file of {_minute(fresh.newest_file)}.",
            "If files are missing, ask for them; if they are there, see why no run took them in.",
        )


def _anomalies(reader: Reader) -> Iterable[Problem]:
    (newest,) = reader.rows("select max(transaction_date) as day from gold.daily_gmv")
    if newest["day"] is None:
        return
    since = newest["day"] - dt.timedelta(ANOMALY_DAYS)
    rows = [row for row in standing(reader) if row["day"] > since]
    made_of = _made_of(reader, {row["day"] for row in rows})
    for row in rows:
        yield Problem(
            ANOMALY,
            f"{row['check']}:{row['subject']}",
            f"{row['check']}, {row['subject']}: {row['message'].rstrip('.')}.",
            made_of[row["day"]],
            f"{BY_NAME[row['check']].advice if row['check'] in BY_NAME else ''} See gmv explain {row['day']}".strip(),
        )


def _restatements(reader: Reader) -> Iterable[Problem]:
    """Days whose published number changed above the limit in the newest publication."""
    rows = reader.rows(
        """
        with newest as (
            select run from gold.daily_gmv_history order by published_at desc, run desc limit 1
        ), change as (
            select transaction_date as day, sum(coalesce(gmv, 0) - coalesce(previous_gmv, 0)) as difference
            from gold.daily_gmv_history
            where run = (select run from newest) and transaction_date in (
                select transaction_date from gold.daily_gmv_history
                where run <> (select run from newest)
            )
            group by all
        ), total as (
            select transaction_date as day, sum(gmv) as gmv from gold.daily_gmv group by all
        )
        select day, cast(difference as decimal(38, 2)) as difference, (select run from newest) as run,
            cast(coalesce(total.gmv, 0) as decimal(38, 2)) as gmv
        from change left join total using (day) order by abs(difference) desc, day
        """
    )
    limit = settings().restatement_percent / 100
    for row in rows:
        before = row["gmv"] - row["difference"]
        if abs(row["difference"]) > limit * abs(before):
            yield Problem(
                RESTATEMENT,
                f"{row['day']}:{row['run']}",
                f"{row['day']} was restated by {row['difference']:+,.2f}: from {before:,.2f} to {row['gmv']:,.2f}.",
                _posted(reader, row["day"], row["run"]),
                f"Tell those who use the number; gmv explain {row['day']} has every posting.",
            )


def _refused_files(reader: Reader) -> Iterable[Problem]:
    for finding in _open(reader, files.refused(reader)):
        yield Problem(REFUSED_FILE, finding.subject, finding.message, "", finding.check.advice)


def _quarantined(reader: Reader) -> Iterable[Problem]:
    (row,) = reader.rows(
        "select count(*) as records, count(distinct sha256) as files from silver.quarantine "
        f"where sha256 not in ({OUT_OF_FORCE})"
    )
    if row["records"] and any(_open(reader, {QUARANTINED: files.quarantined(reader)[QUARANTINED]})):
        what = f"{row['records']} record(s) of {row['files']} file(s) are in quarantine."
        yield Problem(QUARANTINE, "", what, "", QUARANTINED.advice)


def _open(reader: Reader, found: Found) -> Iterator[Finding]:
    """What fails checks that are looked at, and nobody has accepted."""
    accepted = acceptance.accepted(reader)
    for check, findings in found.items():
        if severity(check) != "off":
            yield from (finding for finding in findings if finding.accepted_as not in accepted)


def _made_of(reader: Reader, days: Collection[dt.date]) -> dict[dt.date, str]:
    """What the ledger has of each of these days, by reason."""
    query = f"{_REASONS} where list_contains($days, transaction_date) group by all {_LARGEST_FIRST}"
    rows = reader.rows(query, days=list(days)) if days else []
    return {
        day: _by_reason("The whole day by the ledger", [row for row in rows if row["day"] == day])
        for day in days
    }


def _posted(reader: Reader, day: dt.date, run: str) -> str:
    """What the ledger received of a day since its number was published before, by reason."""
    return _by_reason(
        "Why",
        reader.rows(
            f"""
            {_REASONS}
            where transaction_date = $day
                and ledger_seq > coalesce((
                    select max(ledger_seq) from gold.daily_gmv_history
                    where transaction_date = $day and run <> $run), 0)
                and ledger_seq <= (
                    select max(ledger_seq) from gold.daily_gmv_history
                    where transaction_date = $day and run = $run)
            group by all {_LARGEST_FIRST}
            """,
            day=day,
            run=run,
        ),
    )


_REASONS = f"""
    select transaction_date as day, {REASON_TOLD},
        cast(sum(amount) as decimal(38, 2)) as amount, count(distinct purchase_id) as purchases
    from gold.gmv_ledger
"""
_LARGEST_FIRST = "order by abs(sum(amount)) desc, reason, adds, cause"


_MOST_REASONS = 3


def _by_reason(begin: str, rows: list[dict]) -> str:
    if not rows:
        return ""
    told = [
        f"{why(row['reason'], row['adds'], row['cause'])} {row['amount']:+,.2f} ({row['purchases']:,} purchase(s))"
        for row in rows[:_MOST_REASONS]
    ]
    rest = sum((row["amount"] for row in rows[_MOST_REASONS:]), Decimal("0.00"))
    return f"{begin}: {'; '.join([*told, *([f'other reasons {rest:+,.2f}'] if rest else [])])}."


def is_at_work(lake: Path, run: str) -> bool:
    """Whether a run without an end on record is at work, or was when the record was read: it has its end there now."""
    ended = "select 1 from monitoring.runs where run = $run and event = 'ended' limit 1"
    return _is_held(lake) or bool(Reader(lake).rows(ended, run=run))


def _is_held(lake: Path) -> bool:
    if is_remote(lake):  # its lease is not looked at here: better silent than wrong
        return True
    try:
        lock.ensure_free(lake)
    except LakeLocked:
        return True
    return False


def _minute(moment: dt.datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "unknown time"
