"""Which anomalies of days still stand, by what later runs found and what a person has accepted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping

from gmv.checks import BY_NAME, CHECKS, Check
from gmv.lake.reader import Reader
from gmv.quality import acceptance
from gmv.quality.findings import Finding, Found, accepted_as

_FAILING = """
    select cast(left(subject, 10) as date) as day, trim(substr(subject, 11)) as about, "check", subject, "value",
           "limit", message
    from (
        select * from monitoring.check_results
        qualify row_number() over (partition by "check", subject order by recorded_at desc, run desc) = 1
    )
    where not passed and severity = 'warn' and accepted is not true and list_contains($of_days, "check")
    order by day desc, "check", about
"""
_OF_DAYS = [check.name for check in CHECKS if check.subject.startswith("day")]
"""A file's name may begin as a day does, too."""


def standing(reader: Reader) -> list[dict]:
    """Checks that warn of a day, or of a day and a subsidiary or table: the newest judgement of each, but for
    those that were accepted, then or later. What a check blocks is never published.

    Returns:
        day, about (the subsidiary or table; empty: the whole day), check, subject, value, limit, message;
        newest days first.
    """
    rows = reader.rows(_FAILING, of_days=_OF_DAYS)
    accepted = acceptance.accepted(reader) if rows else set()
    return [row for row in rows if accepted_as(row["check"], row["subject"], row["value"]) not in accepted]


def not_judged_anew(reader: Reader, judged: Mapping[Check, Collection[dt.date]]) -> list[Finding]:
    """What `standing` gives of days that are not judged anew, for a person to accept.

    Args:
        judged: the days that are, by check.
    """
    return [
        Finding(check, row["subject"], row["value"], row["message"])
        for row in standing(reader)
        if (check := BY_NAME.get(row["check"])) and row["day"] not in judged.get(check, ())
    ]


def healed(
    reader: Reader, found: Found, judged: Mapping[Check, Collection[dt.date]]
) -> dict[Check, list[str]]:
    """The subjects that failed a check when they were judged last, and were judged anew and pass.

    Args:
        found: what fails now.
        judged: the days that were judged anew, by check.
    """
    healed: dict[Check, list[str]] = {}
    for row in reader.rows(_FAILING, of_days=_OF_DAYS):
        check = BY_NAME.get(row["check"])
        if check not in found or row["day"] not in judged.get(check, ()):
            continue
        if row["subject"] not in {finding.subject for finding in found[check]}:
            healed.setdefault(check, []).append(row["subject"])
    return healed
