"""Each orchestrator as `make …` starts it, with its daemons: `make orchestration-test`, which takes minutes.

A real tick publishes; a backfill asked for on the command line is cut by a kill of the daemon, and right after
a restart; runs that are asked for at once wait for each other; everything listens on loopback alone, and ends.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command import GMV
from deployment import EXPECTED, Deployment, Process, environment_of
from gmv.lake.reader import Reader
from gmv.settings import PROJECT

SECONDS = 1800
REPRICED = EXPECTED.replace("778.55", "878.55")
"""What the sample gives once an item's price has gone from 50.09 to 60.09; it is sold ten times."""

pytestmark = pytest.mark.timeout(7200)


class Instance:
    """An orchestrator as `make …` starts it, with all of its processes."""

    def __init__(self, orchestrator: str, folder: Path, **variables: str) -> None:
        if environment_of(orchestrator) is None:
            pytest.skip(f"no {orchestrator} here; make orchestration-setup installs it")
        self.orchestrator, self.programs = orchestrator, environment_of(orchestrator)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.deployment = Deployment(
            folder,
            PORT=str(self.port),
            GMV_RETRY_SECONDS="5",
            **{f"{orchestrator.upper()}_HOME": str(folder / "home")},
            **variables,
        )
        self.sessions: set[int] = set()

    def start(self) -> None:
        self.process: Process = self.deployment.start(
            PROJECT / "orchestration" / self.orchestrator / "start", name=f"start-{time.monotonic_ns()}"
        )
        self.sessions.add(self.process.popen.pid)
        self.process.wait_for("Stop it by Ctrl-C", SECONDS)

    def processes(self) -> list[psutil.Process]:
        """Every living process that was started in this deployment, whoever its parent is by now.

        Some have left the session of what started them; others have written their title over their environment.
        """
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                is_ours = os.getsid(process.pid) in self.sessions or process.environ().get("GMV_LAKE") == str(
                    self.deployment.lake
                )
                if is_ours and process.status() != "zombie":
                    found.append(process)
        return found

    def listening(self) -> set[str]:
        """The addresses that its processes take connections on."""
        addresses = set()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                sockets = process.net_connections("inet")
                addresses |= {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
        return addresses

    def kill(self, *patterns: str) -> None:
        """Kill processes of this instance, by what their command lines contain."""
        victims = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any(re.search(pattern, " ".join(process.cmdline())) for pattern in patterns):
                    victims.append(process)
        assert victims, [" ".join(process.cmdline()) for process in self.processes()]
        for victim in victims:
            with contextlib.suppress(psutil.Error):
                victim.kill()

    def stop(self) -> None:
        """End it as Ctrl-C does; nothing of it is left."""
        self.process.popen.send_signal(signal.SIGTERM)
        self.process.end(120)
        wait_until(lambda: not self.processes(), "no process is left", 120)

    def command(self, *command: str | Path) -> str:
        """What a command of the orchestrator prints."""
        done = subprocess.run(
            [str(part) for part in command],
            env=self.deployment.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def post(self, path: str, asked: dict) -> dict:
        """Ask its API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.load(answer)

    def screen(self, path: str, name: str) -> None:
        """Keep a picture of a page, where a folder is named for them."""
        pictures = self.deployment.environment.get("SCREENS_FOLDER")
        if pictures:
            subprocess.run(
                ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
                + ["--window-size=1300,800", "--virtual-time-budget=30000", "--timeout=60000"]
                + [f"--screenshot={pictures}/{name}.png", f"http://127.0.0.1:{self.port}{path}"],
                capture_output=True,
                timeout=300,
            )


def wait_until(is_so: Callable[[], bool], what: str, seconds: int = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(1)


@contextlib.contextmanager
def running(orchestrator: str, folder: Path, **variables: str) -> Iterator[Instance]:
    """An instance with the sample in its landing folder; whatever happens, none of its processes outlives it."""
    (folder / "landing").mkdir()
    for file in (PROJECT / "data_lake" / "landing").iterdir():
        (folder / "landing" / file.name).write_bytes(file.read_bytes())
    instance = Instance(orchestrator, folder, **variables)
    try:
        instance.start()
        yield instance
    finally:
        for process in instance.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def let_price_rise(deployment: Deployment) -> None:
    """A file arrives that raises a price of 18 February."""
    (deployment.landing / "product_item-late.csv").write_text(
        "transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value\n"
        "2023-03-02 08:00:00,2023-03-02,78,38221,10,60.09\n"
    )


def text_of(folder: Path) -> str:
    """All that stands in the files of a folder."""
    return "".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())


def let_runs_fail(deployment: Deployment) -> None:
    """From the next start on `gmv run` fails, and every other command works."""
    command = deployment.folder / "failing-gmv"
    command.write_text(f'#!/bin/sh\n[ "$1" = run ] && exit 1\nexec {GMV} "$@"\n')
    command.chmod(0o755)
    deployment.environment["GMV_COMMAND"] = str(command)


def in_minutes(minutes: int) -> str:
    """A time of day, for GMV_AT."""
    return f"{dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes):%H:%M}"


def today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def gmv_is_in_silver(deployment: Deployment, after: int) -> Callable[[], bool]:
    """Whether another run than the first ones is under way, beyond bronze."""

    def is_so() -> bool:
        runs = deployment.runs()
        return len(runs) > after and runs[-1]["outcome"] == "" and "01_bronze" in runs[-1]["steps"]

    return is_so


def has_outcome(deployment: Deployment, published: str) -> Callable[[], bool]:
    def is_so() -> bool:
        last = deployment.runs()[-1:]
        return bool(last) and last[0]["outcome"] == "succeeded" and deployment.published() == published

    return is_so


def assert_runs_never_overlapped(deployment: Deployment) -> None:
    rows = Reader(deployment.lake).rows(
        """select run, min("at") as began, max("at") filter (event = 'ended') as ended
           from monitoring.runs group by run order by began"""
    )
    for one, following in itertools.pairwise(rows):
        assert one["ended"] is None or one["ended"] <= following["began"], (one, following)


def assert_sums_are_right(deployment: Deployment) -> None:
    assert deployment.published() == REPRICED
    (sums,) = Reader(deployment.lake).rows(
        """select count(*) as postings, (select count(*) from bronze.product_item) as items,
                  (select sum(gmv) from gold.daily_gmv) - sum(amount) as difference from gold.gmv_ledger"""
    )
    assert (sums["postings"], sums["items"], str(sums["difference"])) == (5, 8, "0.00")  # nothing twice


def test_airflow(tmp_path):
    variables = {
        "GMV_AT": "00:00",  # this day's tick is over, so it happens as soon as Airflow is there
        "GMV_LATE_SECONDS": "10",  # a run takes longer
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
    }
    with running("airflow", tmp_path, **variables) as airflow:
        place = airflow.deployment
        wait_until(has_outcome(place, EXPECTED), "the tick has published")
        assert place.runs()[0]["today"] == str(today())
        assert airflow.listening() <= {"127.0.0.1", "::1"}

        def runs_of_dag() -> list[dict]:
            return airflow.get("/api/v2/dags/gmv_daily/dagRuns")["dag_runs"]

        def tasks(state: str) -> list[dict]:
            path = f"/api/v2/dags/gmv_daily/dagRuns/~/taskInstances?state={state}&limit=100"
            return airflow.get(path)["task_instances"]

        wait_until(lambda: [run["state"] for run in runs_of_dag()] == ["success"], "the first run is green")
        callbacks = tmp_path / "home" / "logs" / "executor_callbacks"
        wait_until(lambda: "Published up to" in text_of(callbacks), "the deadline was missed, and told")
        let_price_rise(place)
        variables = airflow.deployment.environment
        variables |= {
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "orchestration/airflow/dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        airflow.command(
            *(airflow.programs / "airflow", "backfill", "create", "--dag-id", "gmv_daily"),
            *("--from-date", "2023-02-18", "--to-date", "2023-02-19T23:59", "--max-active-runs", "2"),
        )
        wait_until(gmv_is_in_silver(place, after=1), "the backfill is under way")
        assert len([run for run in runs_of_dag() if run["state"] == "running"]) > 1
        assert len(tasks("running")) == 1  # the others wait for the pool
        airflow.kill(r"airflow scheduler")
        airflow.process.end(120)
        wait_until(lambda: not airflow.processes(), "what the scheduler left behind has ended")
        airflow.start()
        wait_until(lambda: len(runs_of_dag()) == 3, "the runs are there")
        wait_until(lambda: all(run["state"] == "success" for run in runs_of_dag()), "the backfill is green")
        window = json.dumps({"start_date": "2023-02-17", "end_date": "2023-02-19"})
        airflow.command(airflow.programs / "airflow", "dags", "trigger", "gmv_daily", "--conf", window)
        wait_until(
            lambda: [run["state"] for run in runs_of_dag()] == 4 * ["success"], "three days at once are green"
        )
        assert_sums_are_right(place)
        assert_runs_never_overlapped(place)
        airflow.screen("/dags/gmv_daily", "airflow")
        airflow.stop()


def test_dagster(tmp_path):
    with running("dagster", tmp_path, GMV_AT=in_minutes(3), DAGSTER_DISABLE_TELEMETRY="1") as dagster:
        place = dagster.deployment
        days = {str(today())}
        wait_until(has_outcome(place, EXPECTED), "the tick has published")
        assert place.runs()[0]["today"] in days | {str(today())}  # unless midnight has passed
        assert dagster.listening() <= {"127.0.0.1", "::1"}

        def states() -> list[str]:
            asked = {"query": "{ runsOrError { ... on Runs { results { status } } } }"}
            return [
                run["status"] for run in dagster.post("/graphql", asked)["data"]["runsOrError"]["results"]
            ]

        wait_until(lambda: states() == ["SUCCESS"], "the first run is green")
        let_price_rise(place)
        job = ("--job", "gmv_daily", "--python-file", PROJECT / "orchestration" / "dagster" / "gmv_daily.py")
        span = ("--from", "2023-02-18", "--to", "2023-02-19")
        dagster.command(dagster.programs / "dagster", "job", "backfill", "--noprompt", *job, *span)
        wait_until(gmv_is_in_silver(place, after=1), "the backfill is under way")
        assert sorted(states()) == ["QUEUED", "STARTED", "SUCCESS"]  # one slot
        dagster.kill(r"orchestration/dagster/\.venv/bin")
        dagster.process.end(120)
        wait_until(lambda: not dagster.processes(), "what the daemon left behind has ended")
        dagster.start()
        asked = {
            "query": "{ runsOrError(filter: {statuses: [STARTED]}) { ... on Runs { results { runId } } } }"
        }
        (lost,) = dagster.post("/graphql", asked)["data"]["runsOrError"]["results"]
        mutation = (
            f'mutation {{ terminateRun(runId: "{lost["runId"]}", terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) '
            "{ __typename } }"
        )
        assert dagster.post("/graphql", {"query": mutation})["data"]["terminateRun"]["__typename"] == (
            "TerminateRunSuccess"
        )
        wait_until(lambda: sorted(states()) == ["CANCELED", "SUCCESS", "SUCCESS"], "the other is green")
        ends = {"start": "2023-02-17", "end": "2023-02-19"}
        tags = {f"dagster/asset_partition_range_{end}": day for end, day in ends.items()}
        dagster.command(dagster.programs / "dagster", "job", "launch", *job, "--tags", json.dumps(tags))
        wait_until(lambda: states().count("SUCCESS") == 3, "three days at once are green")
        assert_sums_are_right(place)
        assert_runs_never_overlapped(place)
        dagster.screen("/assets/daily_gmv", "dagster")

        def freshness() -> str:
            asset = 'assetNodeOrError(assetKey: {path: ["daily_gmv"]})'
            asked = {
                "query": f"{{ {asset} {{ ... on AssetNode {{ freshnessStatusInfo {{ freshnessStatus }} }} }} }}"
            }
            (node,) = dagster.post("/graphql", asked)["data"].values()
            return node["freshnessStatusInfo"]["freshnessStatus"]

        wait_until(lambda: freshness() == "HEALTHY", "the number is there in time")
        dagster.stop()
        let_runs_fail(place)
        place.environment |= {"GMV_AT": in_minutes(2), "GMV_LATE_SECONDS": "60", "GMV_RETRY_SECONDS": "1"}
        dagster.start()
        dagster.command(dagster.programs / "dagster", "job", "launch", *job, "--tags", json.dumps(tags))
        wait_until(lambda: states().count("FAILURE") == 1, "the run of a gmv that fails is red")
        wait_until(lambda: freshness() == "DEGRADED", "the number is late")
        captured = tmp_path / "home" / "storage"
        wait_until(lambda: "Published up to" in text_of(captured), "the failure was told")
        dagster.stop()


def test_prefect(tmp_path):
    with running("prefect", tmp_path, GMV_AT=in_minutes(3), GMV_LATE_SECONDS="120") as prefect:
        place = prefect.deployment
        days = {str(today())}
        wait_until(has_outcome(place, EXPECTED), "the tick has published")
        assert place.runs()[0]["today"] in days | {str(today())}  # unless midnight has passed
        assert prefect.listening() <= {"127.0.0.1", "::1"}
        place.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{prefect.port}/api"

        def states(flow: str = "gmv-daily") -> list[str]:
            runs = prefect.post("/api/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
            return sorted(run["state_name"] for run in runs if run["state_name"] not in ("Scheduled", "Late"))

        wait_until(lambda: states() == ["Completed"], "the first run is green")
        wait_until(
            lambda: states("gmv-watch") == ["Failed"], "the lake's newest number is of 2023, and that is told"
        )
        let_price_rise(place)
        flow = [prefect.programs / "python", PROJECT / "orchestration" / "prefect" / "gmv_daily.py"]
        backfill = [*flow, "backfill", "2023-02-17", "2023-02-19"]
        run_id = re.search(r"Flow run (\S+)", prefect.command(*backfill))[1]
        assert run_id in prefect.command(*backfill)  # asked for twice, done once
        wait_until(gmv_is_in_silver(place, after=1), "the backfill is under way")
        prefect.command(*backfill, "--key", "again")
        wait_until(
            lambda: states() == ["AwaitingConcurrencySlot", "Completed", "Running"], "the second one waits"
        )
        prefect.kill(r"orchestration/prefect/\.venv/bin")
        prefect.process.end(120)
        wait_until(lambda: not prefect.processes(), "what the runner left behind has ended")
        prefect.start()
        wait_until(lambda: states().count("Completed") == 2, "the second backfill is green")
        assert_sums_are_right(place)
        assert_runs_never_overlapped(place)
        prefect.screen("/dashboard", "prefect")
        prefect.stop()
