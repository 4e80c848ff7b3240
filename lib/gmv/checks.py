"""Every check, declared once: what it judges, what must hold, how severe a failure is, and what to do.

Limits are settings (docs/settings.md); severities can be changed by the setting `severities`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["block", "warn", "off"]


@dataclass(frozen=True)
class Check:
    """A rule about what is about to be published.

    Attributes:
        name: as in `monitoring/check_results`.
        severity: `block`: nothing is published while it fails; `warn`: it is reported; `off`: not looked at.
        subject: what is judged: each failing one is a result of its own.
        must_hold: what a subject must fulfil; `{...}` is the value of that setting.
        advice: what to do when it fails.
        is_integrity: the lake contradicts itself, so it can neither be accepted nor made less severe.
    """

    name: str
    severity: Severity
    subject: str
    must_hold: str
    advice: str
    is_integrity: bool = False


LEDGER_EQUALS_SILVER = Check(
    "ledger_equals_silver",
    "block",
    "day and subsidiary",
    "joined silver and the ledger's sums agree to the cent",
    "`gmv verify` compares every table with bronze; `gmv rebuild` makes silver and ledger anew from it.",
    is_integrity=True,
)
SILVER_KEY_UNIQUE = Check(
    "silver_key_unique",
    "block",
    "table",
    "one row for each purchase",
    "`gmv verify` compares every table with bronze; `gmv rebuild` makes silver anew from it.",
    is_integrity=True,
)
ROW_ACCOUNTING = Check(
    "row_accounting",
    "block",
    "file",
    "records = new versions + copies + quarantined",
    "`gmv verify` compares every table with bronze; `gmv rebuild` makes silver anew from it.",
    is_integrity=True,
)
RECOMPUTED = Check(
    "recomputed",
    "block",
    "table",
    "a second engine comes to the same for all that the run changed",
    "`gmv verify` compares every table with bronze; `gmv rebuild` makes silver and ledger anew from it.",
    is_integrity=True,
)
NEGATIVE_GMV = Check(
    "negative_gmv",
    "block",
    "day and subsidiary",
    "GMV is 0.00 or more",
    "No event can bring an amount below 0: look at the day's postings with `gmv show gmv_ledger`.",
)
REFUSED_FILE = Check(
    "refused_file",
    "block",
    "file",
    "no refused file is open",
    "Correct the file where it lies; the next run reads it.",
)
QUARANTINED_SHARE = Check(
    "quarantined_share",
    "block",
    "file",
    "at most {quarantined_percent} % of its records are quarantined",
    "Look at `gmv show quarantine`, have the whole file delivered again, corrected, and retract the wrong one.",
)
UNMATCHED_FILE = Check(
    "unmatched_file",
    "warn",
    "file",
    "its name or folder names a table",
    "Rename it after its table, move it into a folder with the table's name, or accept it.",
)
QUARANTINED = Check(
    "quarantined",
    "warn",
    "reason",
    "no record is quarantined",
    "Look at `gmv show quarantine`, and have right records delivered in a new file.",
)
DOUBTFUL = Check(
    "doubtful",
    "warn",
    "purchases",
    "no quarantined record may be newer than what its purchase counts by",
    "Have the quarantined events delivered again: `gmv show doubtful` has file, line and reasons.",
)
AWAITING_ITEM = Check(
    "awaiting_item",
    "warn",
    "purchases",
    "every paid purchase has an item",
    "Ask for the items of `gmv show awaiting_item`; the numbers follow when they come.",
)
UNKNOWN_SUBSIDIARY = Check(
    "unknown_subsidiary",
    "warn",
    "purchases",
    "every counted purchase has a subsidiary",
    "Ask for the extra information of `gmv show unknown_subsidiary`; the numbers follow when it comes.",
)
ORPHANS = Check(
    "orphans",
    "warn",
    "purchases",
    "no item or extra information without its purchase",
    "Ask for the purchases of `gmv show orphans`.",
)
SEVERAL_PRODUCTS = Check(
    "several_products",
    "warn",
    "purchases",
    "a purchase has one product_id",
    "GMV takes the latest item alone. `gmv show several_products` has the amount that it leaves out.",
)
OTHER_DAY = Check(
    "other_day",
    "warn",
    "events",
    "transaction_date is the day of transaction_datetime",
    "GMV goes by transaction_date; ask the source which of the two is right.",
)
TIES = Check(
    "ties",
    "warn",
    "purchases",
    "no two versions of one time give different GMV",
    "The greater values count (rule 1). `gmv show ties` has what the others would give.",
)
CHANGED_IN_PLACE = Check(
    "changed_in_place",
    "warn",
    "events",
    "a file that came again under its path says the same of each purchase and time",
    "The greater values count, not the newer file: if the old content was wrong, retract it.",
)
NEW_SUBSIDIARY = Check(
    "new_subsidiary",
    "warn",
    "subsidiary",
    "it has been published before",
    "If it is only another spelling, have it corrected at the source.",
)
FEED_MISSING = Check(
    "feed_missing",
    "warn",
    "day and table",
    "has events on a day on which another table has {feed_missing_records} or more",
    "Ask for the day's file; the numbers follow when it comes.",
)
DAY_DROP = Check(
    "day_drop",
    "warn",
    "day",
    "not more than {day_drop_percent} % below the day before",
    "See whether the day's files are complete; `gmv explain` tells what the number is made of.",
)
WEEKDAY_GMV = Check(
    "weekday_gmv",
    "warn",
    "day and subsidiary",
    "within {anomaly_deviations} deviations of what the last {anomaly_weeks} of its weekday let expect",
    "See whether files are missing or repeated under other values; accept it if the day was like that.",
)
WEEKDAY_RECORDS = Check(
    "weekday_records",
    "warn",
    "day and table",
    "rows within {anomaly_deviations} deviations of what the last {anomaly_weeks} of its weekday let expect",
    "See whether the table's files of that day are complete.",
)
SUBSIDIARY_VANISHED = Check(
    "subsidiary_vanished",
    "warn",
    "day and subsidiary",
    "counts something, as in each of the last {anomaly_weeks} weeks on this weekday",
    "See whether the subsidiary's files have come, or come under another name.",
)

CHECKS: tuple[Check, ...] = tuple(one for one in vars().values() if isinstance(one, Check))
BY_NAME = {check.name: check for check in CHECKS}
