"""Checks that a person accepts: `gmv run --accept CHECK|all --because "…"`.

An acceptance is a row of `monitoring/runs` with the event `accepted`: who, when, why, and of which check
and subject. It holds until the subject changes: a file until its content does, a day until its number does.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gmv.checks import BY_NAME, CHECKS
from gmv.errors import UsageError
from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.quality.findings import Accepted, Finding, severity
from gmv.tables import RUNS

ALL = "all"


@dataclass(frozen=True)
class Acceptance:
    """What a person asks to be accepted.

    Attributes:
        check: a check's name, or `all`: every check that blocks and can be accepted.
        because: why.
    """

    check: str
    because: str

    def covers(self, finding: Finding) -> bool:
        if self.check == ALL:
            return severity(finding.check) == "block" and not finding.check.is_integrity
        return self.check == finding.check.name


def asked_for(check: str, because: str) -> Acceptance | None:
    """The acceptance of these parameters; None when both are empty.

    Raises:
        UsageError: for one without the other, an unknown check, or one that can't be accepted.
    """
    check, because = check.strip(), because.strip()
    if not check and not because:
        return None
    if not because:
        raise UsageError("What is accepted needs a reason, which is kept with it: say it in because.")
    if not check:
        raise UsageError("A reason (because) says why a check is accepted; name the check in accept.")
    acceptable = [one.name for one in CHECKS if not one.is_integrity]
    if check != ALL and check not in BY_NAME:
        raise UsageError(f"There is no check {check!r} to accept; there are all, {', '.join(acceptable)}.")
    if check != ALL and BY_NAME[check].is_integrity:
        raise UsageError(
            f"{check} can't be accepted: its failure says that the lake contradicts itself, so no number of it "
            f"can be trusted. {BY_NAME[check].advice}"
        )
    return Acceptance(check, because)


def accepted(reader: Reader) -> set[Accepted]:
    """Everything that was ever accepted, as `Finding.accepted_as` gives it."""
    rows = reader.rows("select details from monitoring.runs where event = 'accepted'")
    all_details = (json.loads(row["details"]) for row in rows)
    return {(details["check"], details["subject"], details["holds_for"]) for details in all_details}


def accept(lake_path: Path, findings: Iterable[Finding], acceptance: Acceptance, run: str) -> None:
    """Note in `monitoring/runs` who accepted each of these findings, when and why."""
    moment = records.now()
    rows = [
        {
            "run": run,
            "event": "accepted",
            "kind": "run",
            "at": moment,
            "details": json.dumps(
                {
                    "check": finding.check.name,
                    "subject": finding.subject,
                    "value": finding.value,
                    "holds_for": finding.accepted_as[-1],
                    "who": who(),
                    "because": acceptance.because,
                },
                ensure_ascii=False,
            ),
        }
        for finding in findings
    ]
    records.append(lake_path, RUNS, rows)


def who() -> str:
    """The user of the operating system."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return "unknown user"
