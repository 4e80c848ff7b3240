"""Files that are open problems: refused, without a table, or with too much in quarantine."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from gmv.checks import QUARANTINED, QUARANTINED_SHARE, REFUSED_FILE, UNMATCHED_FILE, Check
from gmv.lake.reader import Reader
from gmv.progress import OUT_OF_FORCE
from gmv.quality.findings import Finding
from gmv.settings import settings


def refused(reader: Reader) -> dict[Check, list[Finding]]:
    """Files that were refused, or that belong to no table, and are still so.

    A file is open until its path has other content that is not refused, or its content has been ingested
    under another path or retracted.
    """
    rows = reader.rows(
        f"""
        with newest as (
            select * from bronze.files where outcome not in ('retracted', 'restored')
            qualify row_number() over (partition by path order by recorded_at desc, run desc) = 1
        )
        select path, "table", sha256, size, modified_at, reason from newest
        where outcome = 'refused'
          and (sha256 is null or sha256 not in ({OUT_OF_FORCE})
               and sha256 not in (select sha256 from bronze.files where outcome = 'ingested'))
        order by path
        """
    )
    found: dict[Check, list[Finding]] = {REFUSED_FILE: [], UNMATCHED_FILE: []}
    for row in rows:
        check = REFUSED_FILE if row["table"] else UNMATCHED_FILE
        content = row["sha256"] or f"{row['path']}, {row['size']} bytes of {row['modified_at']}"
        found[check].append(Finding(check, row["path"], "refused", row["reason"], identity=content))
    return found


def quarantined(reader: Reader) -> dict[Check, list[Finding]]:
    """Files in force of which too large a share is quarantined, and what is quarantined by reason."""
    rows = reader.rows(
        f"""
        with rejected as (
            select sha256, file as path, count(*) as quarantined from silver.quarantine
            where sha256 not in ({OUT_OF_FORCE}) group by all
        )
        select path, sha256, records, quarantined from bronze.files join rejected using (sha256, path)
        where outcome = 'ingested' order by path
        """
    )
    most = settings().quarantined_percent
    shares = []
    for row in rows:
        percent = Decimal(100 * row["quarantined"]) / Decimal(row["records"])
        if percent > most:
            value = f"{row['quarantined']} of {row['records']} records"
            message = (
                f"{row['path']}: {row['quarantined']:,} of its {row['records']:,} records "
                f"({percent:.1f} %) are quarantined; {most:f} % are allowed."
            )
            shares.append(Finding(QUARANTINED_SHARE, row["path"], value, message, identity=row["sha256"]))
    reasons = reader.rows(
        f"""
        with reasons as (
            select unnest(reasons) as reason, "table", file from silver.quarantine
            where sha256 not in ({OUT_OF_FORCE})
        )
        select "table", reason, count(*) as records, count(distinct file) as files, min(file) as example
        from reasons group by all order by records desc, "table", reason
        """
    )
    by_reason = [
        Finding(
            QUARANTINED,
            f"{row['table']}: {row['reason']}",
            f"{row['records']} records",
            f"{row['records']:,} record(s) of {row['table']} in {row['files']} file(s), such as "
            f"{row['example']}, are quarantined: {row['reason']}.",
        )
        for row in reasons
    ]
    return {QUARANTINED_SHARE: shares, QUARANTINED: by_reason}


BY_RULE = ("rule", "records", "files", "example", "value")


def by_rule(reader: Reader) -> list[dict[str, Any]]:
    """Rejected records by rule, the most frequent first.

    Returns:
        rule, records, files, example (file and line), value (the raw value of the column that the rule is
        about, or the record's text).
    """
    rows = reader.rows(
        """
        select reason as rule, count(*) as records, count(distinct file) as files,
            arg_min(struct_pack(file, line, "values", raw), (file, line)) as example
        from (select unnest(reasons) as reason, file, line, "values", raw from silver.quarantine)
        group by reason order by records desc, rule
        """
    )
    return [
        row
        | {
            "example": f"{row['example']['file']}, line {row['example']['line']}",
            "value": _raw_value(row["rule"], row["example"]),
        }
        for row in rows
    ]


def _raw_value(rule: str, example: dict[str, Any]) -> str:
    column = re.match(r"\w+", rule)
    values = dict(example["values"] or [])
    if column and column[0] in values:
        return repr(values[column[0]] or "")
    return (example["raw"] or "")[:80]
