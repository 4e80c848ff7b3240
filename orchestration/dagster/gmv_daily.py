"""GMV of the day before, published every morning. Copy this file into your code location.

The work is done by the command `gmv run`, in an environment of its own; this file says when, and tells Dagster what
its exit code means. See docs/orchestration.md for the variables below, backfills and what to do when it is red.
"""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg

GMV = shlex.split(os.environ.get("GMV_COMMAND", "gmv"))
TIMEZONE = os.environ.get("GMV_TIMEZONE", "UTC")
AT = time.fromisoformat(os.environ.get("GMV_AT", "06:00"))
LATE_AFTER = timedelta(seconds=int(os.environ.get("GMV_LATE_SECONDS", "10800")))
RETRY_SECONDS = int(os.environ.get("GMV_RETRY_SECONDS", "600"))

DONE, WRONG_USE, REFUSED = 0, 2, 3
"""Exit codes of gmv that a retry doesn't help; 1 (failed) and 4 (another run holds the lake) may pass."""

SCHEDULED = {"gmv/window": "all pending days"}
"""The daily run's tag. Any other run, by hand or of a backfill, publishes the days of its partitions."""

DAYS = dg.DailyPartitionsDefinition(start_date="2023-01-01", timezone=TIMEZONE)
DUE = datetime.combine(date(2023, 1, 1), AT) + LATE_AFTER
ON_TIME = dg.FreshnessPolicy.cron(
    deadline_cron=f"{DUE.minute} {DUE.hour} * * *", lower_bound_delta=LATE_AFTER, timezone=TIMEZONE
)


@dg.multi_asset(
    specs=[
        dg.AssetSpec("bronze", description="Records as they arrived", kinds={"deltalake"}),
        dg.AssetSpec(
            "silver", deps=["bronze"], description="Typed, latest versions", kinds={"deltalake", "spark"}
        ),
        dg.AssetSpec(
            "daily_gmv",
            deps=["silver"],
            description="The published number, per day and subsidiary",
            kinds={"deltalake", "gold"},
            freshness_policy=ON_TIME,
        ),
        dg.AssetSpec("report", deps=["daily_gmv"], description="report.html of the run", kinds={"html"}),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "may_be_published", asset="daily_gmv", blocking=True, description="Blocking checks"
        ),
        dg.AssetCheckSpec("nothing_odd", asset="daily_gmv", description="Checks that only warn"),
    ],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),  # one run for all of a backfill's days
    retry_policy=dg.RetryPolicy(max_retries=3, delay=RETRY_SECONDS, backoff=dg.Backoff.EXPONENTIAL),
    pool="gmv_writer",
    group_name="gmv",
)
def gmv_layers(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Take in what has arrived and publish; a failure that may pass is tried again."""
    first, last = (date.fromisoformat(day) for day in context.partition_key_range)
    is_scheduled = SCHEDULED.items() <= context.run.tags.items()
    window = [] if is_scheduled else ["--start-date", str(first), "--end-date", str(last)]

    code, record, message = gmv_run(["--as-of-date", str(last + timedelta(days=1)), *window])
    if code not in (DONE, REFUSED):
        raise dg.Failure(f"gmv ended with {code}: {message}", allow_retries=code != WRONG_USE)

    run = record["run"]
    rows = [row for row in gmv_show("partition_stats") if row["run"] == run]
    for layer in ("bronze", "silver"):
        yield dg.MaterializeResult(layer, metadata={"gmv run": run, **row_counts(rows, layer)})

    checks = [row for row in gmv_show("check_results") if row["run"] == run]
    blocking = [row for row in checks if row["severity"] == "block"]
    yield dg.AssetCheckResult(
        asset_key="daily_gmv",
        check_name="may_be_published",
        passed=code == DONE,
        description=message if code == REFUSED else "",
        metadata={"checks": as_table(blocking)},
    )
    if code == REFUSED:
        raise dg.Failure(f"Publication refused: {message}", allow_retries=False)
    warnings = [row for row in checks if row["severity"] != "block"]
    yield dg.AssetCheckResult(
        asset_key="daily_gmv",
        check_name="nothing_odd",
        passed=all(row["passed"] for row in warnings),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"checks": as_table(warnings)},
    )
    gold = record["steps"].get("03_gold", {})
    yield dg.MaterializeResult(
        "daily_gmv",
        metadata={
            "gmv run": run,
            **gmv_of(last),
            **row_counts(rows, "gold"),
            "restated": dg.MetadataValue.json(gold.get("changes", [])),
            "days": dg.MetadataValue.json(gold.get("days", {})),
        },
    )
    yield dg.MaterializeResult("report", metadata={"gmv run": run, **report_of(record)})


daily = dg.define_asset_job("gmv_daily", selection=[gmv_layers], description="Publish all pending days")
every_morning = dg.build_schedule_from_partitioned_job(
    daily,
    hour_of_day=AT.hour,
    minute_of_hour=AT.minute,
    tags=SCHEDULED,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.run_failure_sensor(monitored_jobs=[daily], default_status=dg.DefaultSensorStatus.RUNNING)
def tell_failure(context: dg.RunFailureSensorContext) -> None:
    """gmv tells its own failures; this tells those in which it was killed or could not start."""
    told = subprocess.run([*GMV, "status"], capture_output=True, text=True)
    context.log.error(f"{context.failure_event.message}\n{told.stdout}{told.stderr}")


defs = dg.Definitions(assets=[gmv_layers], jobs=[daily], schedules=[every_morning], sensors=[tell_failure])


def gmv_run(options: list[str]) -> tuple[int, dict[str, Any], str]:
    """Run gmv, its output in the step's log; returns exit code, run.json (empty if no run began), and message."""
    with tempfile.TemporaryDirectory() as folder:
        record_file = Path(folder, "run.json")
        command = [*GMV, "run", *options, "--record-to", str(record_file)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                lines = list(map(_logged, process.stdout or ()))
            except BaseException:
                process.terminate()  # the step is being stopped; gmv then ends as by Ctrl-C
                raise
        record = json.loads(record_file.read_text()) if record_file.exists() else {}
    said = [line.removeprefix("gmv: ").strip() for line in lines if line.startswith("gmv: ")]
    return process.returncode, record, record.get("message") or (said or lines or ["it said nothing"])[-1]


def _logged(line: str) -> str:
    print(line, end="", flush=True)
    return line


def gmv_show(table: str, *options: str) -> list[dict[str, Any]]:
    """Rows of a table."""
    shown = subprocess.run(
        [*GMV, "show", table, "--format", "json", *options], capture_output=True, text=True, check=True
    )
    return json.loads(shown.stdout)


def gmv_of(day: date) -> dict[str, Any]:
    """A day's published GMV, and its change to the day before, as texts: amounts are no floats."""
    before = day - timedelta(days=1)
    rows = gmv_show("daily_gmv", "--start-date", str(before), "--end-date", str(day))
    gmv = {
        on: sum((Decimal(row["gmv"]) for row in rows if row["transaction_date"] == str(on)), Decimal("0.00"))
        for on in (before, day)
    }
    return {
        "day": str(day),
        "gmv": f"{gmv[day]:,.2f}",
        "change to the day before": f"{gmv[day] - gmv[before]:+,.2f}",
    }


def row_counts(rows: list[dict[str, Any]], layer: str) -> dict[str, int]:
    """Rows of the days whose count this run changed, by table; Dagster draws them over time."""
    counts: dict[str, int] = {}
    for row in rows:
        if row["layer"] == layer:
            name = f"rows of changed days: {row['table']}"
            counts[name] = counts.get(name, 0) + row["records"]
    return counts


def report_of(record: dict[str, Any]) -> dict[str, Any]:
    """A link to the run's report; a run without anything new has none."""
    place = record["report"]
    if not place:
        return {}
    return {"report.html": dg.MetadataValue.url(place if "://" in place else Path(place).as_uri())}


def as_table(checks: list[dict[str, Any]]) -> dg.MetadataValue:
    """Check results, those that failed first."""
    columns = ("passed", "check", "subject", "value", "limit")
    rows = sorted([str(row[name]).replace("|", "/") for name in columns] for row in checks)
    lines = [columns, ["---"] * len(columns), *rows]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(line) + " |" for line in lines))
