"""GMV of the day before, published every morning. Copy this file into the folder of your DAGs.

The work is done by the command `gmv run`, in an environment of its own; this file says when, and tells Airflow what
its exit code means. See docs/orchestration.md for the variables below, backfills and what to do when it is red.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import (
    Asset,
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    Metadata,
    Param,
    SyncCallback,
    dag,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException

GMV = shlex.split(os.environ.get("GMV_COMMAND", "gmv"))
TIMEZONE = os.environ.get("GMV_TIMEZONE", "UTC")
AT = time.fromisoformat(os.environ.get("GMV_AT", "06:00"))
RETRY_DELAY = timedelta(seconds=int(os.environ.get("GMV_RETRY_SECONDS", "600")))
LATE_AFTER = timedelta(seconds=int(os.environ.get("GMV_LATE_SECONDS", "10800")))

DONE, WRONG_USE, REFUSED = 0, 2, 3
"""Exit codes of gmv that a retry doesn't help; 1 (failed) and 4 (another run holds the lake) may pass."""

DAILY_GMV = Asset("daily_gmv", uri="x-gmv://gold/daily_gmv")


def tell_late(context: dict[str, Any] | None = None) -> None:
    """A run isn't done in time: look at the lake, which says what is late, and fail so that it shows."""
    subprocess.run([*GMV, "status"], check=True)


@dag(
    schedule=CronDataIntervalTimetable(f"{AT.minute} {AT.hour} * * *", timezone=TIMEZONE),
    start_date=pendulum.datetime(2023, 1, 1, tz=TIMEZONE),
    catchup=False,  # one run publishes every day that waits
    max_active_runs=1,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=LATE_AFTER, callback=SyncCallback(tell_late)
    )
    if LATE_AFTER
    else None,  # `airflow dags test` of 3.3 can't end a run that has a deadline
    params={
        "start_date": Param(
            None, type=["null", "string"], format="date", description="First day, inclusive."
        ),
        "end_date": Param(None, type=["null", "string"], format="date", description="Last day, inclusive."),
    },
    tags=["gmv"],
    doc_md=__doc__,
)
def gmv_daily() -> None:
    @task(
        pool="gmv_writer",  # one slot: backfills have a limit of active runs of their own
        retries=3,
        retry_delay=RETRY_DELAY,
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=6),
    )
    def run() -> dict[str, Any]:
        """Take in what has arrived and publish; a failure that may pass is tried again."""
        context = get_current_context()
        tick = context.get("data_interval_end") or context["dag_run"].run_after  # by hand: no interval
        today = pendulum.instance(tick).in_timezone(TIMEZONE).date()
        start, end = context["params"]["start_date"], context["params"]["end_date"]
        if context["dag_run"].run_type == "backfill" and not (start or end):
            start = end = str(today - timedelta(days=1))
        window = [f"--{name}-date={day}" for name, day in (("start", start), ("end", end)) if day]

        code, record, message = gmv_run(["--as-of-date", str(today), *window])
        if code == WRONG_USE:
            raise AirflowFailException(message)
        if code not in (DONE, REFUSED):
            raise AirflowException(f"gmv ended with {code}: {message}")
        day = date.fromisoformat(end) if end else today - timedelta(days=1)
        return {**summary(record, day), "refused": message if code == REFUSED else None}

    @task(outlets=[DAILY_GMV])
    def published(told: dict[str, Any]):
        """Red when the checks refused publication: a person is needed. Else whoever waits for the number is told."""
        if told["refused"]:
            raise AirflowFailException(f"Publication refused: {told['refused']}")
        yield Metadata(DAILY_GMV, extra=told)

    published(run())


def gmv_run(options: list[str]) -> tuple[int, dict[str, Any], str]:
    """Run gmv, its output in the task's log; returns exit code, run.json (empty if no run began), and message."""
    with tempfile.TemporaryDirectory() as folder:
        record_file = Path(folder, "run.json")
        command = [*GMV, "run", *options, "--record-to", str(record_file)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                lines = list(map(_logged, process.stdout or ()))
            except BaseException:
                process.terminate()  # the task is being stopped; gmv then ends as by Ctrl-C
                raise
        record = json.loads(record_file.read_text()) if record_file.exists() else {}
    said = [line.removeprefix("gmv: ").strip() for line in lines if line.startswith("gmv: ")]
    return process.returncode, record, record.get("message") or (said or lines or ["it said nothing"])[-1]


def _logged(line: str) -> str:
    print(line, end="")
    return line


def gmv_show(table: str, *options: str) -> list[dict[str, Any]]:
    """Rows of a table."""
    shown = subprocess.run(
        [*GMV, "show", table, "--format", "json", *options], capture_output=True, text=True, check=True
    )
    return json.loads(shown.stdout)


def summary(record: dict[str, Any], day: date) -> dict[str, Any]:
    """What a run found, for people: the day's GMV and its change, checks, rows that changed, the report."""
    before = day - timedelta(days=1)
    rows = gmv_show("daily_gmv", "--start-date", str(before), "--end-date", str(day))
    gmv = {
        on: sum((Decimal(row["gmv"]) for row in rows if row["transaction_date"] == str(on)), Decimal("0.00"))
        for on in (before, day)
    }
    change = gmv[day] - gmv[before]
    steps, run, report = record["steps"], record["run"], record["report"]
    return {
        "headline": f"GMV of {day}: {gmv[day]:,.2f} ({change:+,.2f} to the day before)",
        "run": run,
        "outcome": record["outcome"],
        "report": Path(report).as_uri() if report and "://" not in report else report,
        "day": str(day),
        "gmv": str(gmv[day]),
        "change_to_day_before": str(change),
        "days": steps.get("03_gold", {}).get("days", {}),
        "restated": steps.get("03_gold", {}).get("changes", []),
        "rows": {
            f"{row['layer']}/{row['table']} {row['day']}": row["records"]
            for row in gmv_show("partition_stats")
            if row["run"] == run
        },
        "checks": [row for row in gmv_show("check_results") if row["run"] == run],
    }


gmv_daily()
