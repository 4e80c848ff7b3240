"""What breaks a check, and its row in `monitoring/check_results`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

from gmv.checks import Check
from gmv.lake import records
from gmv.settings import settings
from gmv.tables import CHECK_RESULTS

_MOST_TOLD = 3

Accepted = tuple[str, str, str]
"""What a person accepted: `accepted_as`."""


@dataclass(frozen=True)
class Finding:
    """A subject that fails a check.

    Attributes:
        subject: the file, table, or day that was judged.
        value: what was found.
        message: a sentence: what, where, how much.
        amount: the money concerned, where it is known.
        identity: what the subject must stay like for an acceptance to hold. Empty: subject and value.
    """

    check: Check
    subject: str
    value: str
    message: str
    amount: Decimal | None = None
    identity: str = ""

    @property
    def accepted_as(self) -> Accepted:
        return accepted_as(self.check.name, self.subject, self.value, self.identity)


def accepted_as(check: str, subject: str, value: str, identity: str = "") -> Accepted:
    """What an acceptance is known by: the check, its subject, and what that must stay like, by default its value.

    A file's content alone would not do: all empty files are alike.
    """
    return check, subject, identity or f"{subject}: {value}"


Found = dict[Check, list[Finding]]
"""The checks that were looked at, with what fails them."""


def severity(check: Check) -> str:
    """How severe a failure is, by the settings: `block`, `warn` or `off`."""
    return settings().severities.get(check.name, check.severity)


def limit(check: Check) -> str:
    """What must hold, with the limits of the settings."""
    return check.must_hold.format_map(_Limits())


class _Limits(dict):
    def __missing__(self, name: str) -> str:
        value = getattr(settings(), name)
        return f"{value:f}" if isinstance(value, Decimal) else str(value)


def note(
    lake_path: Path,
    found: Found,
    run: str,
    accepted: Iterable[Accepted] = (),
    healed: Mapping[Check, Iterable[str]] = MappingProxyType({}),
) -> list[dict]:
    """Append the results to `monitoring/check_results`: a row for each failing subject, one for a pass.

    Args:
        accepted: what was accepted, as `accepted_as` gives it.
        healed: subjects that failed before and pass now, which get a row of their own.

    Returns:
        The rows.
    """
    moment, are_accepted = records.now(), set(accepted)
    rows = []
    for check, findings in found.items():
        common = {
            "run": run,
            "check": check.name,
            "severity": severity(check),
            "limit": limit(check),
            "recorded_at": moment,
        }
        if not findings:
            rows.append({**common, "passed": True, "subject": "all", "value": "0", "message": limit(check)})
        rows += [
            {**common, "passed": True, "subject": subject, "value": "0", "message": limit(check)}
            for subject in healed.get(check, ())
        ]
        rows += [
            {
                **common,
                "passed": False,
                "accepted": finding.accepted_as in are_accepted,
                "subject": finding.subject,
                "value": finding.value,
                "message": finding.message,
                "amount": finding.amount,
            }
            for finding in findings
        ]
    records.append(lake_path, CHECK_RESULTS, rows)
    return rows


def told(rows: Iterable[Mapping]) -> list[dict]:
    """Results for a notebook and for the run's record."""
    names = ("check", "severity", "passed", "accepted", "subject", "value", "amount", "message")
    return [{name: row.get(name) for name in names} for row in rows]


def in_words(findings: Sequence[Finding]) -> str:
    """The first findings of a check as one sentence."""
    more = len(findings) - _MOST_TOLD
    rest = f" And {more} more: gmv show check_results." if more > 0 else ""
    return " ".join(finding.message for finding in findings[:_MOST_TOLD]) + rest
