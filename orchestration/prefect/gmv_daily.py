"""GMV of the day before, published every morning. Copy this file to where your flows are served.

The work is done by the command `gmv run`, in an environment of its own; this file says when, and tells Prefect what
its exit code means. See docs/orchestration.md for the variables below, backfills and what to do when it is red.

    python gmv_daily.py                                    serve the flow with its schedule
    python gmv_daily.py backfill 2023-02-01 2023-02-28     ask for these days again
"""

import argparse
import json
import os
import shlex
import subprocess
import tempfile
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from prefect import flow, runtime, serve, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments import run_deployment
from prefect.schedules import Cron
from prefect.states import Failed

GMV = shlex.split(os.environ.get("GMV_COMMAND", "gmv"))
TIMEZONE = os.environ.get("GMV_TIMEZONE", "UTC")
AT = time.fromisoformat(os.environ.get("GMV_AT", "06:00"))
DUE = datetime.combine(date(2023, 1, 1), AT) + timedelta(
    seconds=int(os.environ.get("GMV_LATE_SECONDS", "10800"))
)
RETRY_SECONDS = int(os.environ.get("GMV_RETRY_SECONDS", "600"))

DONE, WRONG_USE, REFUSED = 0, 2, 3
"""Exit codes of gmv that a retry doesn't help; 1 (failed) and 4 (another run holds the lake) may pass."""


class GmvFailed(Exception):
    """gmv ended with an exit code that is neither done nor refused."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"gmv ended with {code}: {message}")
        self.code = code


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a retry may help."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, GmvFailed) and error.code == WRONG_USE)


@task(
    retries=3,
    retry_delay_seconds=[RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS],
    retry_condition_fn=may_pass,
    timeout_seconds=6 * 3600,
    persist_result=False,
)
def gmv_run(options: list[str]) -> tuple[dict[str, Any], str]:
    """Run gmv, its output in the log; returns run.json, and why publication was refused, if it was."""
    with tempfile.TemporaryDirectory() as folder:
        record_file = Path(folder, "run.json")
        command = [*GMV, "run", *options, "--record-to", str(record_file)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                lines = list(map(_logged, process.stdout or ()))
            except BaseException:
                process.terminate()  # the flow is being stopped; gmv then ends as by Ctrl-C
                raise
        record = json.loads(record_file.read_text()) if record_file.exists() else {}
    said = [line.removeprefix("gmv: ").strip() for line in lines if line.startswith("gmv: ")]
    message = record.get("message") or (said or lines or ["it said nothing"])[-1]
    if process.returncode not in (DONE, REFUSED):
        raise GmvFailed(process.returncode, message)
    return record, message if process.returncode == REFUSED else ""


@flow(log_prints=True)
def gmv_daily(start_date: date | None = None, end_date: date | None = None) -> Any:
    """Take in what has arrived and publish all pending days, or the days from start_date to end_date."""
    today = runtime.flow_run.scheduled_start_time.astimezone(ZoneInfo(TIMEZONE)).date()
    days = (("start", start_date), ("end", end_date))
    window = [f"--{name}-date={day}" for name, day in days if day]
    record, refused = gmv_run(["--as-of-date", str(today), *window])
    show(record, refused, end_date or today - timedelta(days=1))
    if refused:
        return Failed(name="Refused", message=f"Publication refused: {refused}")
    return None


@flow(log_prints=True)
def gmv_watch() -> None:
    """Red when the lake is late or something in it needs a person."""
    subprocess.run([*GMV, "status"], check=True)


def show(record: dict[str, Any], refused: str, day: date) -> None:
    """Leave what a run found as artifacts: the day's GMV and its change, checks, rows, the report."""
    before, run = day - timedelta(days=1), record["run"]
    rows = gmv_show("daily_gmv", "--start-date", str(before), "--end-date", str(day))
    gmv = {
        on: sum((Decimal(row["gmv"]) for row in rows if row["transaction_date"] == str(on)), Decimal("0.00"))
        for on in (before, day)
    }
    counts = [row for row in gmv_show("partition_stats") if row["run"] == run]
    checks = [row for row in gmv_show("check_results") if row["run"] == run]
    gold = record["steps"].get("03_gold", {})
    create_markdown_artifact(
        "\n\n".join(
            [
                f"# GMV of {day}: {gmv[day]:,.2f} ({gmv[day] - gmv[before]:+,.2f} to the day before)",
                f"Run {run}: {record['outcome']}. {refused}",
                "## Published numbers that changed",
                as_table(gold.get("changes", []), "transaction_date", "subsidiary", "previous_gmv", "gmv"),
                "## Checks",
                as_table(checks, "passed", "severity", "check", "subject", "value", "limit"),
                "## Rows of days whose count changed",
                as_table(counts, "layer", "table", "day", "records"),
            ]
        ),
        key="gmv-daily",
        description=f"Run {run}",
    )
    if place := record["report"]:
        link = place if "://" in place else Path(place).as_uri()
        create_link_artifact(link, "report.html", key="gmv-report", description=run)


def gmv_show(table: str, *options: str) -> list[dict[str, Any]]:
    """Rows of a table."""
    shown = subprocess.run(
        [*GMV, "show", table, "--format", "json", *options], capture_output=True, text=True, check=True
    )
    return json.loads(shown.stdout)


def as_table(rows: list[dict[str, Any]], *columns: str) -> str:
    lines = [
        columns,
        ["---"] * len(columns),
        *([str(row[name]).replace("|", "/") for name in columns] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else "None."


def _logged(line: str) -> str:
    print(line, end="")
    return line


def serve_daily() -> None:
    """Keep the schedule: D-1 each morning, a look at the lake later; one gmv run at a time, others wait."""
    daily = gmv_daily.to_deployment(
        name="daily",
        schedule=Cron(f"{AT.minute} {AT.hour} * * *", timezone=TIMEZONE),
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
    )
    watch = gmv_watch.to_deployment(
        name="watch", schedule=Cron(f"{DUE.minute} {DUE.hour} * * *", timezone=TIMEZONE)
    )
    serve(daily, watch)


def backfill(start_date: date, end_date: date, key: str) -> None:
    """Ask the served flow for these days. The same key again names the same run, and starts none."""
    run = run_deployment(
        "gmv-daily/daily",
        parameters={"start_date": str(start_date), "end_date": str(end_date)},
        idempotency_key=key or f"backfill {start_date} {end_date}",
        timeout=0,
    )
    print(f"Flow run {run.id} ({run.name}): {run.state.name if run.state else 'scheduled'}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the daily flow, or ask it for a backfill.")
    commands = parser.add_subparsers(dest="command")
    asked = commands.add_parser("backfill", help="publish days again")
    asked.add_argument("start_date", type=date.fromisoformat)
    asked.add_argument("end_date", type=date.fromisoformat)
    asked.add_argument("--key", default="", help="another name, to do the same days once more")
    arguments = parser.parse_args()
    if arguments.command == "backfill":
        backfill(arguments.start_date, arguments.end_date, arguments.key)
    else:
        serve_daily()


if __name__ == "__main__":
    main()
