"""`gmv status`: the last run, pending days, freshness and open problems, without Spark."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from gmv import progress, publication
from gmv.freshness import Freshness, freshness
from gmv.lake.reader import Reader
from gmv.problems import Problem, is_at_work, open_problems


@dataclass(frozen=True)
class Status:
    """The state of a lake.

    Attributes:
        last_run: run, kind, started, ended, outcome, message of the newest run; empty before the first.
        pending: closed days whose published rows differ from the ledger, with both sums.
        unfinished: bronze runs that a step has still to take in, by step.
        freshness: newest events, file and published day, and the day that is expected.
        problems: what a person should look at; late or broken first.
        is_at_work: the last run, as far as this machine knows.
    """

    last_run: dict[str, Any]
    pending: list[dict[str, Any]]
    unfinished: dict[str, list[str]]
    freshness: Freshness
    problems: list[Problem]
    is_at_work: bool = False

    @property
    def is_well(self) -> bool:
        """Nothing is late or broken."""
        return not any(problem.is_broken for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        problems = [{"key": one.key, "is_broken": one.is_broken, **asdict(one)} for one in self.problems]
        fresh = {**asdict(self.freshness), "days_late": self.freshness.days_late}
        return {
            "is_well": self.is_well,
            "last_run": self.last_run,
            "pending": self.pending,
            "unfinished": self.unfinished,
            "freshness": fresh,
            "problems": problems,
        }

    def as_openmetrics(self) -> str:
        """As OpenMetrics text, for Prometheus and its like; times in seconds since 1970, UTC."""
        fresh, last = self.freshness, self.last_run
        seconds = None
        if last and last["ended"]:
            seconds = (last["ended"] - last["started"]).total_seconds()
        kinds: dict[str, int] = {}
        for problem in self.problems:
            kinds[problem.kind] = kinds.get(problem.kind, 0) + 1
        coming = sum(day["coming"] - day["published"] for day in self.pending)
        gauges: tuple[tuple[str, str, str, list[tuple[dict[str, str], Any]]], ...] = (
            ("gmv_well", "1 when nothing is late or broken", "", [({}, int(self.is_well))]),
            (
                "gmv_problems",
                "Open problems by kind",
                "",
                [({"kind": k}, n) for k, n in sorted(kinds.items())],
            ),
            (
                "gmv_days_late",
                "Days that publication lies behind what is expected",
                "",
                [({}, fresh.days_late)],
            ),
            ("gmv_pending_days", "Closed days that wait to be published", "", [({}, len(self.pending))]),
            ("gmv_pending_amount", "By how much publishing them changes GMV", "", [({}, coming)]),
            (
                "gmv_newest_event_timestamp_seconds",
                "Newest event of each table, by the source's clock",
                "seconds",
                [({"table": table}, _epoch(at)) for table, at in fresh.newest_events.items()],
            ),
            (
                "gmv_newest_file_timestamp_seconds",
                "Newest file",
                "seconds",
                [({}, _epoch(fresh.newest_file))],
            ),
            (
                "gmv_newest_published_day_timestamp_seconds",
                "Begin of the newest published day",
                "seconds",
                [({}, _epoch(fresh.newest_published_day))],
            ),
            (
                "gmv_last_run_started_timestamp_seconds",
                "Start of the last run",
                "seconds",
                [({"outcome": last["outcome"] or "not ended"}, _epoch(last["started"]))] if last else [],
            ),
            ("gmv_last_run_duration_seconds", "How long it took", "seconds", [({}, seconds)]),
        )
        lines = [line for name, what, unit, samples in gauges for line in _metric(name, what, unit, samples)]
        return "\n".join([*lines, "# EOF"]) + "\n"


def status(reader: Reader, today: dt.date) -> Status:
    """Look at a lake; nothing is written."""
    sums, published = publication.ledger_sums(reader), publication.published(reader)
    days = sorted(day for day in publication.differing_days(sums, published) if day < today)
    pending = [
        {
            "day": day,
            "published": sum((gmv for place, gmv in published.items() if place[0] == day), Decimal("0.00")),
            "coming": sum((gmv for place, gmv in sums.items() if place[0] == day), Decimal("0.00")),
        }
        for day in days
    ]
    unfinished = {step: list(progress.unfinished(reader, step).runs) for step in progress.STEPS}
    last_run = _last_run(reader)
    return Status(
        last_run,
        pending,
        unfinished,
        freshness(reader, today),
        open_problems(reader, today),
        bool(last_run) and not last_run["ended"] and is_at_work(reader.lake, last_run["run"]),
    )


def _last_run(reader: Reader) -> dict[str, Any]:
    """The newest run, as it began and ended last: a notebook's id may be given twice."""
    rows = reader.rows(
        """
        select run, any_value(kind) as kind,
               coalesce(max("at") filter (event = 'started'), min("at")) as started,
               max("at") filter (event = 'ended') as ended,
               arg_max_null(outcome, "at") filter (event = 'ended') as outcome,
               arg_max_null(message, "at") filter (event = 'ended') as message
        from monitoring.runs where event in ('started', 'ended') group by run order by started desc limit 1
        """
    )
    return rows[0] if rows else {}


def _metric(name: str, what: str, unit: str, samples: Iterable[tuple[dict[str, str], Any]]) -> list[str]:
    """A gauge's lines; a sample without a value is left out. Amounts are written exactly."""
    head = [f"# TYPE {name} gauge", *([f"# UNIT {name} {unit}"] if unit else []), f"# HELP {name} {what}."]
    lines = []
    for labels, value in samples:
        if value is not None:
            told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            lines.append(f"{name}{{{told}}} {value}" if told else f"{name} {value}")
    return [*head, *lines]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _epoch(moment: dt.date | None) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime(moment.year, moment.month, moment.day)
    return int(moment.replace(tzinfo=dt.UTC).timestamp())
