"""`gmv status`: the last run, pending days, freshness and open problems, without Spark."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from gmv import progress, publication
from gmv.lake.reader import Reader
from gmv.quality import acceptance, files
from gmv.quality.findings import severity


@dataclass(frozen=True)
class Status:
    """The state of a lake.

    Attributes:
        last_run: run, kind, started, ended, outcome, message of the newest run; empty before the first.
        pending: closed days whose published rows differ from the ledger, with both sums.
        unfinished: bronze runs that a step has still to take in, by step.
        freshness: newest event, file and published day.
        problems: what a person should look at, one sentence each.
    """

    last_run: dict[str, Any]
    pending: list[dict[str, Any]]
    unfinished: dict[str, list[str]]
    freshness: dict[str, Any]
    problems: list[str] = field(default_factory=list)


def status(reader: Reader, today: dt.date) -> Status:
    """Look at a lake; nothing is written."""
    sums, published = publication.ledger_sums(reader), publication.published(reader)
    days = sorted(day for day in publication.differing_days(sums, published) if day < today)
    pending = [
        {
            "day": day,
            "published": sum(gmv for place, gmv in published.items() if place[0] == day),
            "coming": sum(gmv for place, gmv in sums.items() if place[0] == day),
        }
        for day in days
    ]
    unfinished = {step: list(progress.unfinished(reader, step).runs) for step in progress.STEPS}
    return Status(_last_run(reader), pending, unfinished, _freshness(reader), _problems(reader))


def _last_run(reader: Reader) -> dict[str, Any]:
    rows = reader.rows(
        """
        select run, any_value(kind) as kind, min("at") filter (event = 'started') as started,
               max("at") filter (event = 'ended') as ended, max(outcome) as outcome, max(message) as message
        from monitoring.runs group by run order by started desc limit 1
        """
    )
    return rows[0] if rows else {}


def _freshness(reader: Reader) -> dict[str, Any]:
    newest_event = " union all ".join(
        f'select max(transaction_datetime) as "at" from silver.{table}'
        for table in ("purchase", "product_item", "purchase_extra_info")
    )
    (row,) = reader.rows(
        f"""
        select (select max("at") from ({newest_event})) as newest_event,
               (select max(modified_at) from bronze.files) as newest_file,
               (select max(transaction_date) from gold.daily_gmv) as newest_published_day
        """
    )
    return row


def _problems(reader: Reader) -> list[str]:
    refused = {
        check: findings for check, findings in files.refused(reader).items() if severity(check) != "off"
    }
    accepted = acceptance.accepted(reader)
    (rejected,) = reader.rows(
        "select count(*) as records, count(distinct sha256) as files from silver.quarantine"
    )
    problems = [
        finding.message
        for findings in refused.values()
        for finding in findings
        if (finding.check.name, finding.accepted_as) not in accepted
    ]
    if rejected["records"]:
        problems.append(
            f"{rejected['records']} record(s) of {rejected['files']} file(s) are in quarantine: gmv show quarantine"
        )
    return problems
