"""Every table, declared once: its columns and their types, its key, and what one row is.

Types are Spark's names. `timestamp_ntz` holds a time without a zone: the source's own clock for
`transaction_datetime`, UTC for whatever the pipeline notes about itself.

A column may be added to a table of monitoring that is appended to: it is empty in what older lakes hold. One of another
table, or of a kept list or sums, needs a step that brings older lakes along, which nothing here does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

AMOUNT = "decimal(38,2)"
"""The type of a sum of amounts."""
UNKNOWN_SUBSIDIARY = "unknown"
"""The subsidiary of a purchase whose purchase_extra_info has not come yet (rule 3)."""

EARLIEST_PLAUSIBLE = "2000-01-01"
"""Transaction dates and times before this day are rejected as `implausible_date`."""

HARDLY_REPEATED = (
    *("purchase_id", "transaction_datetime", "buyer_id", "prod_item_id", "product_id"),
    *("purchase_value", "amount", "line"),
)
"""Columns with few equal values: parquet files are written faster, and are smaller, without a dictionary of them."""

STRIPPED = " \u00a0\u202f\ufeff"
"""Spaces, no-break spaces and byte-order marks: taken off around every value of an event."""


@dataclass(frozen=True)
class Column:
    """A column: its name, its Spark type, and for event columns what a value must satisfy."""

    name: str
    type: str
    required: bool = False
    """An empty value rejects the record."""
    minimum: int | None = None
    """A number below this rejects the record."""
    plausible: bool = False
    """A time before EARLIEST_PLAUSIBLE, or more than a day after ingestion, rejects the record."""


@dataclass(frozen=True)
class Table:
    """A Delta table: where it lies in the lake (`<layer>/<name>`) and the contract of its rows."""

    layer: str
    name: str
    one_row_is: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return f"{self.layer}/{self.name}"

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]


# --- The three event tables -----------------------------------------------------------------------

_EVENT = (
    Column("transaction_datetime", "timestamp_ntz", required=True, plausible=True),
    Column("transaction_date", "date", required=True, plausible=True),
    Column("purchase_id", "string", required=True),
)


@dataclass(frozen=True)
class EventTable:
    """One kind of event, and the tables that hold it: as it arrived, every version, the latest."""

    name: str
    columns: tuple[Column, ...]
    key: str = "purchase_id"

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def precedence(self) -> list[str]:
        """Columns that order the versions of one purchase; the greatest comes first (rule 1).

        Ties in time go to the other columns in column order; an empty value is below every other.
        """
        return ["transaction_datetime"] + [
            name for name in self.column_names if name not in ("transaction_datetime", self.key)
        ]

    @property
    def bronze(self) -> Table:
        """Its records as they arrived: every column a text, and where it came from."""
        return Table(
            "bronze",
            self.name,
            "CSV record as it arrived",
            tuple(replace(column, type="string") for column in self.columns) + _ARRIVAL,
        )

    @property
    def versions(self) -> Table:
        """Its distinct valid events, typed, each with the file and bronze run that brought it first."""
        return Table(
            "silver",
            f"{self.name}_versions",
            "distinct valid event of a purchase, with the file and bronze run that brought it first",
            self.columns + _BROUGHT_BY,
            key=tuple(self.column_names),
        )

    @property
    def latest(self) -> Table:
        """The latest version of each purchase."""
        return Table(
            "silver",
            self.name,
            "purchase: its latest version",
            self.columns,
            key=(self.key,),
        )


_ARRIVAL = (
    Column("extra", "map<string,string>"),  # columns the table does not know, by header name
    Column("raw", "string"),  # the record's text, where it could not be split or decoded
    Column("defect", "string"),  # `field_count` or `encoding` where the record could not be read
    Column("line", "bigint"),  # the record's first line in its file, from 1
    Column("file", "string"),  # path below the landing folder
    Column("sha256", "string"),  # of the file's bytes
    Column("run", "string"),  # the bronze run that ingested it
    Column("ingested_at", "timestamp_ntz"),  # UTC
)
_BROUGHT_BY = (Column("file", "string"), Column("sha256", "string"), Column("run", "string"))

PURCHASE = EventTable(
    "purchase",
    (
        *_EVENT,
        Column("buyer_id", "bigint"),
        Column("prod_item_id", "bigint"),
        Column("order_date", "date"),
        Column("release_date", "date"),
        Column("producer_id", "bigint"),
    ),
)
PRODUCT_ITEM = EventTable(
    "product_item",
    (
        *_EVENT,
        Column("product_id", "bigint"),
        Column("item_quantity", "int", required=True, minimum=0),
        Column("purchase_value", "decimal(18,2)", required=True, minimum=0),
    ),
)
PURCHASE_EXTRA_INFO = EventTable(
    "purchase_extra_info",
    (*_EVENT, Column("subsidiary", "string", required=True)),
)
EVENT_TABLES = (PURCHASE, PRODUCT_ITEM, PURCHASE_EXTRA_INFO)

# --- Bronze: what became of each file ---------------------------------------------------------------

FILES = Table(
    "bronze",
    "files",
    "new or changed outcome of a file",
    (
        Column("path", "string"),  # below the landing folder, with forward slashes
        Column("table", "string"),  # the event table it belongs to; empty when none
        Column("size", "bigint"),  # bytes
        Column("modified_at", "timestamp_ntz"),  # UTC
        Column("sha256", "string"),
        Column("records", "bigint"),
        Column("outcome", "string"),  # ingested, refused, repeated, retracted, restored
        Column("reason", "string"),
        Column("run", "string"),
        Column("recorded_at", "timestamp_ntz"),  # UTC
    ),
)

# --- Silver: what could not be read -----------------------------------------------------------------

QUARANTINE = Table(
    "silver",
    "quarantine",
    "rejected record, with every rule that it breaks",
    (
        Column("table", "string"),
        Column("reasons", "array<string>"),
        Column("values", "map<string,string>"),  # the raw values by column
        Column("raw", "string"),
        Column("line", "bigint"),
        Column("file", "string"),
        Column("sha256", "string"),
        Column("run", "string"),  # the bronze run
        Column("ingested_at", "timestamp_ntz"),
    ),
)

# --- Gold ---------------------------------------------------------------------------------------------

GMV_LEDGER = Table(
    "gold",
    "gmv_ledger",
    "posting: a change of one purchase's standing",
    (
        Column("purchase_id", "string"),
        Column("transaction_date", "date"),
        Column("subsidiary", "string"),
        Column("amount", AMOUNT),
        Column("purchases", "int"),  # +1 enters, -1 leaves, 0 another amount
        Column("known_on", "date"),  # the day of the version that caused it
        Column("reason", "string"),  # paid, item_arrived, withdrawn, repriced, moved_day, … (gmv.reasons)
        Column("cause", "string"),  # event, retraction, undo, rule
        Column("ledger_seq", "bigint"),  # one number per appended batch
        Column("run", "string"),
        Column("recorded_at", "timestamp_ntz"),  # UTC
    ),
    key=("purchase_id", "known_on", "transaction_date", "subsidiary", "reason"),
)
DAILY_GMV = Table(
    "gold",
    "daily_gmv",
    "day and subsidiary on which at least one purchase counts: the published number",
    (
        Column("transaction_date", "date"),
        Column("subsidiary", "string"),
        Column("gmv", AMOUNT),
    ),
    key=("transaction_date", "subsidiary"),
)
DAILY_GMV_HISTORY = Table(
    "gold",
    "daily_gmv_history",
    "change of a published number",
    (
        Column("transaction_date", "date"),
        Column("subsidiary", "string"),
        Column("previous_gmv", AMOUNT),  # empty: the row is new
        Column("gmv", AMOUNT),  # empty: the row is gone
        Column("ledger_seq", "bigint"),
        Column("run", "string"),
        Column("published_at", "timestamp_ntz"),  # UTC
    ),
)

# --- Monitoring -----------------------------------------------------------------------------------------

RUNS = Table(
    "monitoring",
    "runs",
    "start or end of a run, or something that a person accepted in it",
    (
        Column("run", "string"),
        Column("event", "string"),  # started, ended, accepted
        Column("kind", "string"),  # run, notebook, retract, rebuild, maintain
        Column("at", "timestamp_ntz"),  # UTC
        Column("start_date", "date"),  # the window; empty: none was given
        Column("end_date", "date"),
        Column("as_of_date", "date"),  # today, as resolved
        Column("code_version", "string"),
        Column("outcome", "string"),  # succeeded, nothing_new, failed, refused, interrupted
        Column("message", "string"),
        Column("details", "string"),  # JSON: seconds by step, counts; what was accepted, and why
    ),
)
PROGRESS = Table(
    "monitoring",
    "progress",
    "step that has taken in a bronze run",
    (
        Column("step", "string"),  # silver, ledger; of a rebuild: rebuild, rebuilt, history lost
        Column("bronze_run", "string"),
        Column("run", "string"),
        Column("recorded_at", "timestamp_ntz"),  # UTC
        Column("table_versions", "string"),  # JSON: of silver, or of gold, at that time
    ),
)
PARTITION_STATS = Table(
    "monitoring",
    "partition_stats",
    "count of a table's day that a run changed",
    (
        Column("run", "string"),
        Column("layer", "string"),
        Column("table", "string"),
        Column("day", "date"),  # transaction_date; empty where bronze's could not be read
        Column("records", "bigint"),
        Column("recorded_at", "timestamp_ntz"),  # UTC
    ),
)
WAITING = Table(
    "monitoring",
    "waiting",
    "purchase of which something has not come, at these versions of the silver tables",
    (
        Column("purchase_id", "string"),  # empty in the only row where nothing waits
        Column("awaits", "string"),  # item (it is paid), purchase (only others of its events have come)
        *(Column(f"{event.name}_version", "bigint") for event in EVENT_TABLES),  # of silver's table
    ),
)
SILVER_SUMS = Table(
    "monitoring",
    "silver_sums",
    "day and subsidiary: what the join of silver's tables gives, at these versions of them",
    (
        Column("transaction_date", "date"),
        Column("subsidiary", "string"),
        Column("gmv", AMOUNT),
        Column("purchases", "bigint"),  # how many count there
        *(Column(f"{event.name}_version", "bigint") for event in EVENT_TABLES),  # of silver's table
    ),
)
LEDGER_DAYS = Table(
    "monitoring",
    "ledger_days",
    "day and subsidiary in a batch of the ledger: its postings added up, by the day known and cause",
    (
        Column("transaction_date", "date"),
        Column("subsidiary", "string"),
        Column("known_on", "date"),
        Column("cause", "string"),
        Column("ledger_seq", "bigint"),
        Column("run", "string"),
        Column("amount", AMOUNT),
        Column("purchases", "bigint"),
        Column("postings", "bigint"),  # how many were added up
        Column("ledger_version", "bigint"),  # of gold/gmv_ledger when they were
        Column("ledger_committed_at", "bigint"),  # that version's commit, milliseconds since 1970
    ),
)
CHECK_RESULTS = Table(
    "monitoring",
    "check_results",
    "check that passed in a run, or a subject that failed it",
    (
        Column("run", "string"),
        Column("check", "string"),
        Column("severity", "string"),  # block, warn
        Column("passed", "boolean"),
        Column("subject", "string"),  # the day, file or table that was judged
        Column("value", "string"),
        Column("limit", "string"),
        Column("message", "string"),
        Column("amount", AMOUNT),  # the money concerned, where it is known
        Column("accepted", "boolean"),  # it fails, but a person has accepted this subject as it is
        Column("recorded_at", "timestamp_ntz"),  # UTC
    ),
)
DAY_STATS = Table(
    "monitoring",
    "day_stats",
    "published day that a run changed, beside the days that it is compared with",
    (
        Column("run", "string"),
        Column("day", "date"),
        Column("gmv", AMOUNT),  # of all subsidiaries; 0.00 when all rows are gone
        Column("against_day_before", AMOUNT),  # empty: that day has no GMV
        Column("against_week_before", AMOUNT),  # the same weekday; empty: it has no GMV
        Column("recorded_at", "timestamp_ntz"),  # UTC
    ),
)
FRESHNESS = Table(
    "monitoring",
    "freshness",
    "run: how new what the lake holds was at its end, and how much it read",
    (
        Column("run", "string"),
        Column("newest_event", "timestamp_ntz"),  # by the source's clock
        Column("newest_file", "timestamp_ntz"),  # UTC
        Column("newest_published_day", "date"),
        Column("expected_day", "date"),  # that should be published by then
        Column("days_late", "int"),
        Column("bytes_read", "bigint"),  # of the files that the run ingested
        Column("records_read", "bigint"),
        Column("recorded_at", "timestamp_ntz"),  # UTC
    ),
)
STEPS = Table(
    "monitoring",
    "steps",
    "step of a run, and how long it took",
    (
        Column("run", "string"),
        Column("step", "string"),  # 01_bronze, 02_silver, 03_gold, 04_report
        Column("milliseconds", "bigint"),
        Column("recorded_at", "timestamp_ntz"),  # UTC
    ),
)
ALERTS = Table(
    "monitoring",
    "alerts",
    "something that became of a problem: it began, was told, could not be told, or is over",
    (
        Column("problem", "string"),  # its name for as long as it lasts
        Column("kind", "string"),  # failed_run, blocked_publication, stale, anomaly, restatement
        Column("event", "string"),  # raised, resolved, delivered, failed
        Column("of", "string"),  # what was delivered or failed: raised, resolved
        Column("address", "string"),  # number and service of the address, never the address itself
        Column("message", "string"),  # what is told; of a failed delivery: why
        Column("run", "string"),
        Column("at", "timestamp_ntz"),  # UTC
    ),
)

SILVER: tuple[Table, ...] = (
    *(event.versions for event in EVENT_TABLES),
    *(event.latest for event in EVENT_TABLES),
    QUARANTINE,
)
GOLD = (GMV_LEDGER, DAILY_GMV, DAILY_GMV_HISTORY)
LOOKED_UP = (
    *(event.versions for event in EVENT_TABLES),
    *(event.latest for event in EVENT_TABLES),
    GMV_LEDGER,
)
"""Tables in which purchases are looked up by their ids."""
TABLES: tuple[Table, ...] = (
    *(event.bronze for event in EVENT_TABLES),
    FILES,
    *SILVER,
    *GOLD,
    RUNS,
    PROGRESS,
    PARTITION_STATS,
    WAITING,
    SILVER_SUMS,
    LEDGER_DAYS,
    CHECK_RESULTS,
    DAY_STATS,
    FRESHNESS,
    STEPS,
    ALERTS,
)


def event_table(name: str) -> EventTable:
    """The event table of that name.

    Raises:
        KeyError: when there is none.
    """
    return {event.name: event for event in EVENT_TABLES}[name]
