"""The gates: what 02_silver and 03_gold check before anything is published."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence, Set
from decimal import Decimal
from types import MappingProxyType

from gmv.checks import (
    LEDGER_EQUALS_SILVER,
    NEGATIVE_GMV,
    RECOMPUTED,
    ROW_ACCOUNTING,
    SILVER_KEY_UNIQUE,
    Check,
)
from gmv.errors import PublicationRefused
from gmv.lake import lookups, pruning
from gmv.lake.reader import Reader
from gmv.lake.unfinished import Unfinished
from gmv.publication import Place, Plan, differing
from gmv.quality import acceptance, days, files, oddities, standing
from gmv.quality.acceptance import Acceptance
from gmv.quality.findings import Accepted, Finding, Found, in_words, note, severity, told
from gmv.tables import EVENT_TABLES
from gmv.verify import Certificate

_MOST_PLACES = 3
"""So many days and subsidiaries that disagree are traced to their purchases."""


def row_accounts(reader: Reader, unfinished: Unfinished) -> list[dict]:
    """What became of the records of each file that these bronze runs ingested.

    Returns:
        table, file, records, new_versions, copies, quarantined. `copies` are the valid records whose version
        was there before, or came by another record: the rest, which must not be negative. Files that were put
        back are among them; retracted files are accounted apart, by `retraction.take_in`.
    """
    files = reader.rows(
        """
        select sha256, run from bronze.files
        where outcome = 'ingested' and not list_contains($out_of_force, sha256) and (
            list_contains($runs, run) or sha256 in (
                select sha256 from bronze.files where outcome = 'restored' and list_contains($runs, run)))
        """,
        runs=list(unfinished.runs),
        out_of_force=list(unfinished.out_of_force),
    )
    runs = sorted({file["run"] for file in files})
    brought = " union all ".join(
        f"select sha256, count(*) as new_versions from silver.{event.versions.name} "
        "where list_contains($runs, run) group by sha256"
        for event in EVENT_TABLES
    )
    return reader.of_runs(runs).rows(
        f"""
        with brought as ({brought}),
        rejected as (
            select sha256, count(*) as quarantined from silver.quarantine
            where list_contains($runs, run) group by sha256
        )
        select files."table", path as file, files.records, coalesce(new_versions, 0) as new_versions,
               files.records - coalesce(new_versions, 0) - coalesce(quarantined, 0) as copies,
               coalesce(quarantined, 0) as quarantined
        from bronze.files as files left join brought using (sha256) left join rejected using (sha256)
        where outcome = 'ingested' and list_contains($files, sha256)
        order by all
        """,
        runs=runs,
        files=[file["sha256"] for file in files],
    )


def check_silver(
    reader: Reader, accounts: Iterable[Mapping], run: str, touched: Sequence[str] | None
) -> list[dict]:
    """Row accounting and key uniqueness of the silver tables; these can't be accepted.

    Args:
        accounts: what `row_accounts` returns.
        touched: the purchases that this run may have written; None: all are looked at.

    Raises:
        PublicationRefused: naming the file or table that fails; silver does not count as done then.
    """
    found: Found = {ROW_ACCOUNTING: [], SILVER_KEY_UNIQUE: []}
    for account in accounts:
        if account["copies"] < 0:
            value = f"{account['new_versions']} new + {account['quarantined']} quarantined"
            message = f"{account['file']} has {account['records']} records, but {value}."
            found[ROW_ACCOUNTING].append(Finding(ROW_ACCOUNTING, account["file"], value, message))
    ids = {} if touched is None else {"ids": list(touched)}
    of_touched = pruning.ONE_OF_IDS if ids else "true"
    near = lookups.near(reader, [event.latest for event in EVENT_TABLES], touched) if touched else reader
    for event in EVENT_TABLES:
        (counted,) = near.rows(
            "select count(*) as n, count(distinct purchase_id) as ids "
            f"from silver.{event.name} where {of_touched}",
            **ids,
        )
        if counted["n"] != counted["ids"]:
            name, value = event.latest.path, f"{counted['n']} rows for {counted['ids']} purchases"
            found[SILVER_KEY_UNIQUE].append(Finding(SILVER_KEY_UNIQUE, name, value, f"{name} has {value}."))
    return _passed_or_refused(reader, found, run)


def check_recomputed(reader: Reader, certificate: Certificate, run: str) -> list[dict]:
    """The second engine's recomputation agrees, table by table; this can't be accepted.

    Args:
        certificate: of what this run changed.

    Raises:
        PublicationRefused: naming the table, the purchase or file, and the cents; nothing may be published then.
    """
    faults = iter(certificate.faults())
    findings = [
        Finding(
            RECOMPUTED,
            comparison.name,
            f"{comparison.different} of {comparison.rows} rows differ",
            f"A second engine comes to other numbers. {next(faults)}.",
            amount=None if comparison.cents_apart is None else Decimal(comparison.cents_apart).scaleb(-2),
        )
        for comparison in certificate.comparisons
        if not comparison.agrees
    ]
    return _passed_or_refused(reader, {RECOMPUTED: findings}, run)


def check_gold(
    reader: Reader, coming: Mapping[Place, Decimal], plan: Plan, run: str, accepting: Acceptance | None
) -> list[dict]:
    """Every check of what is about to be published.

    Args:
        coming: GMV of the plan's days, computed from silver.
        accepting: what a person accepts in this run; None: nothing.

    Returns:
        check, severity, passed, accepted, subject, value, amount, message of each result.

    Raises:
        PublicationRefused: naming what blocks; nothing may be published then.
    """
    sums, looked_at = plan.ledger, set(plan.days)
    new = oddities.since_last_publication(reader)
    judged = days.judged(reader, coming, set(plan.publish), days.fed_by(reader, new, plan.today))
    accepted = acceptance.accepted(reader)
    flagged = days.flagged(reader, accepted)
    found: Found = {
        LEDGER_EQUALS_SILVER: _apart(
            reader, coming, {place: gmv for place, gmv in sums.items() if place[0] in looked_at}
        ),
        NEGATIVE_GMV: _negative(coming),
        **files.refused(reader),
        **files.quarantined(reader),
        **oddities.found(reader, new),
        **days.found(reader, sums, coming, judged, flagged),
    }
    healed = standing.healed(reader, found, judged)
    earlier = standing.not_judged_anew(reader, judged) if accepting else ()
    return _passed_or_refused(reader, found, run, accepted, accepting, earlier, healed)


def _passed_or_refused(
    reader: Reader,
    found: Found,
    run: str,
    accepted: Set[Accepted] = frozenset(),
    accepting: Acceptance | None = None,
    earlier: Iterable[Finding] = (),
    healed: Mapping[Check, Iterable[str]] = MappingProxyType({}),
) -> list[dict]:
    """Note the results, and what was accepted: of this run, and of what `earlier` runs published with a warning."""
    found = {check: findings for check, findings in found.items() if severity(check) != "off"}
    if accepting:
        newly = [
            finding
            for finding in itertools.chain(*found.values(), earlier)
            if accepting.covers(finding) and finding.accepted_as not in accepted
        ]
        acceptance.accept(reader.lake, newly, accepting, run)
        accepted = accepted | {finding.accepted_as for finding in newly}
    blocking = {
        check: left
        for check, findings in found.items()
        if severity(check) == "block"
        and (left := [one for one in findings if check.is_integrity or one.accepted_as not in accepted])
    }
    rows = note(reader.lake, found, run, accepted, {} if blocking else healed)
    if blocking:
        raise PublicationRefused(_refusal(blocking))
    return told(rows)


def _refusal(blocking: Found) -> str:
    """What blocks and what to do, a line for each check."""
    lines = [PublicationRefused.begins]
    lines += [f"{check.name}: {in_words(findings)} {check.advice}" for check, findings in blocking.items()]
    acceptable = [check.name for check in blocking if not check.is_integrity]
    if len(acceptable) == len(blocking):
        name = acceptable[0] if len(acceptable) == 1 else acceptance.ALL
        lines.append(f'To publish all the same: gmv run --accept {name} --because "…"')
    return "\n".join(lines)


def _apart(reader: Reader, coming: Mapping[Place, Decimal], sums: Mapping[Place, Decimal]) -> list[Finding]:
    """Days and subsidiaries for which silver's join and the ledger give other cents."""
    findings = []
    for number, place in enumerate(differing(coming, sums)):
        from_silver, from_ledger = coming.get(place), sums.get(place)
        message = f"On {place[0]} ({place[1]}) silver gives {from_silver}, the ledger {from_ledger}"
        if number < _MOST_PLACES:
            message += f"; purchases: {', '.join(_purchases_apart(reader, place)) or 'none found'}"
        difference = (from_silver or Decimal(0)) - (from_ledger or Decimal(0))
        findings.append(
            Finding(
                LEDGER_EQUALS_SILVER,
                f"{place[0]} {place[1]}",
                f"{from_silver} from silver, {from_ledger} in the ledger",
                message + ".",
                amount=abs(difference),
            )
        )
    return findings


def _negative(coming: Mapping[Place, Decimal]) -> list[Finding]:
    return [
        Finding(
            NEGATIVE_GMV,
            f"{day} {subsidiary}",
            f"{gmv}",
            f"On {day} {subsidiary} would have {gmv}.",
            amount=gmv,
        )
        for (day, subsidiary), gmv in sorted(coming.items())
        if gmv < 0
    ]


def _purchases_apart(reader: Reader, place: Place) -> list[str]:
    """Purchases whose latest versions and whose postings disagree about one day and subsidiary."""
    return [
        f"{row['purchase_id']} ({row['from_silver'] or '0.00'} / {row['from_ledger'] or '0.00'})"
        for row in reader.rows(
            f"""
            with from_silver as (
                select purchase_id, amount from ({oddities.counted("silver")})
                where transaction_date = $day and subsidiary = $subsidiary
            ), from_ledger as (
                select purchase_id, sum(amount) as amount, sum(purchases) as purchases from gold.gmv_ledger
                where transaction_date = $day and subsidiary = $subsidiary
                group by purchase_id having sum(amount) <> 0 or sum(purchases) <> 0
            )
            select purchase_id, s.amount as from_silver, l.amount as from_ledger
            from from_silver as s full join from_ledger as l using (purchase_id)
            where s.amount is distinct from l.amount or l.purchases is distinct from 1
            order by purchase_id limit 20
            """,
            day=place[0],
            subsidiary=place[1],
        )
    ]
