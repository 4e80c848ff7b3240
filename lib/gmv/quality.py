"""Checks: rules that name the rows that break them. Results go to `monitoring/check_results`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from gmv.errors import GmvError, PublicationRefused
from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.progress import Unfinished
from gmv.publication import Place, Plan, ledger_sums
from gmv.tables import CHECK_RESULTS, EVENT_TABLES
from gmv.verify import Certificate


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


def check_silver(reader: Reader, accounts: Iterable[Mapping], run: str) -> list[dict]:
    """Row accounting and key uniqueness of the silver tables; these can't be accepted.

    Raises:
        GmvError: naming the file or table that fails.
    """
    results = [
        _result(
            run,
            "row_accounting",
            subject=account["file"],
            passed=account["copies"] >= 0,
            value=f"{account['new_versions']} new + {account['quarantined']} quarantined",
            limit=f"{account['records']} records",
        )
        for account in accounts
    ]
    for event in EVENT_TABLES:
        (counted,) = reader.rows(
            f"select count(*) as n, count(distinct purchase_id) as ids from silver.{event.name}"
        )
        results.append(
            _result(
                run,
                "silver_key_unique",
                subject=f"silver/{event.name}",
                passed=counted["n"] == counted["ids"],
                value=f"{counted['n']} rows",
                limit=f"{counted['ids']} purchases",
            )
        )
    records.append(reader.lake, CHECK_RESULTS, results)
    for result in results:
        if not result["passed"]:
            raise GmvError(
                f"{result['check']}: {result['subject']} has {result['value']} for {result['limit']}. "
                "Nothing was published; `gmv verify` compares every table with bronze."
            )
    return _told(results)


def check_recomputed(reader: Reader, certificate: Certificate, run: str) -> list[dict]:
    """The second engine's recomputation agrees, table by table; this can't be accepted.

    Args:
        certificate: of what this run changed.

    Raises:
        PublicationRefused: naming the table, the purchase or file, and the cents; nothing may be published then.
    """
    results = [
        _result(
            run,
            "recomputed",
            subject=comparison.name,
            passed=comparison.agrees,
            value=f"{comparison.different} of {comparison.rows} rows differ",
            limit="0",
        )
        for comparison in certificate.comparisons
    ]
    records.append(reader.lake, CHECK_RESULTS, results)
    if not certificate.agrees:
        raise PublicationRefused(
            f"Nothing was published: a second engine comes to other numbers. {'. '.join(certificate.faults())}. "
            "The last good numbers stay; `gmv verify` compares every table, `gmv rebuild` makes silver anew."
        )
    return _told(results)


def check_gold(reader: Reader, coming: Mapping[Place, Decimal], plan: Plan, run: str) -> list[dict]:
    """Agreement: on every day of the plan, silver's join and the ledger's sums give the same cents.

    Args:
        coming: GMV of the plan's days, computed from silver.

    Raises:
        PublicationRefused: naming the days, subsidiaries and cents; nothing may be published then.
    """
    judged = set(plan.days)
    sums = {place: gmv for place, gmv in ledger_sums(reader).items() if place[0] in judged}
    apart = sorted(place for place in coming.keys() | sums.keys() if coming.get(place) != sums.get(place))
    results = [
        _result(
            run,
            "ledger_equals_silver",
            subject=f"{len(judged)} days" if not apart else ", ".join(f"{day} {name}" for day, name in apart),
            passed=not apart,
            value=f"{sum(coming.values(), Decimal(0)):.2f} from silver",
            limit=f"{sum(sums.values(), Decimal(0)):.2f} in the ledger",
        )
    ]
    records.append(reader.lake, CHECK_RESULTS, results)
    if apart:
        day, subsidiary = apart[0]
        raise PublicationRefused(
            f"Nothing was published: silver and ledger differ on {len({place[0] for place in apart})} day(s). "
            f"On {day} ({subsidiary}) silver gives {coming.get(apart[0])}, the ledger {sums.get(apart[0])}; "
            f"purchases: {', '.join(_purchases_apart(reader, apart[0])) or 'none found'}."
        )
    return _told(results)


def _purchases_apart(reader: Reader, place: Place) -> list[str]:
    """Purchases whose latest versions and whose postings disagree about one day and subsidiary."""
    return [
        f"{row['purchase_id']} ({row['from_silver'] or '0.00'} / {row['from_ledger'] or '0.00'})"
        for row in reader.rows(
            """
            with from_silver as (
                select purchase_id, cast(purchase_value as decimal(38, 2)) * item_quantity as amount
                from silver.purchase as p
                join silver.product_item as i using (purchase_id)
                left join silver.purchase_extra_info as e using (purchase_id)
                where p.transaction_date = $day and p.release_date is not null
                  and coalesce(e.subsidiary, 'unknown') = $subsidiary
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


def _result(run: str, check: str, subject: str, passed: bool, value: str, limit: str) -> dict:
    return {
        "run": run,
        "check": check,
        "severity": "block",
        "passed": passed,
        "subject": subject,
        "value": value,
        "limit": limit,
        "message": f"{value} against {limit}",
        "recorded_at": records.now(),
    }


def _told(results: Iterable[Mapping]) -> list[dict]:
    return [
        {name: result[name] for name in ("check", "subject", "passed", "value", "limit")}
        for result in results
    ]
