"""Airflow runs gmv: a tick at a fixed time, a backfill that fails once, one that waits, one that is refused."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from deployment import EXPECTED, WINDOW, Deployment, environment_of
from gmv.settings import PROJECT

AIRFLOW = environment_of("airflow")
pytestmark = [
    pytest.mark.timeout(2400),
    pytest.mark.skipif(AIRFLOW is None, reason="no Airflow here; make orchestration-setup installs it"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Airflow's own folder, with a fresh database."""
    folder = tmp_path_factory.mktemp("airflow")
    migrated = Deployment(folder, **_variables(folder)).start(AIRFLOW / "airflow", "db", "migrate")
    migrated.end()
    assert migrated.popen.returncode == 0
    return folder


@pytest.fixture
def deployment(server, home, tmp_path):
    return Deployment(tmp_path, **_variables(home))


def _variables(home):
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "orchestration" / "airflow" / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "GMV_LATE_SECONDS": "0",
    }


def event_of_daily_gmv(home: Path) -> dict:
    """What Airflow shows with the newest event of the asset."""
    with sqlite3.connect(home / "airflow.db") as database:
        (extra,) = database.execute("select extra from asset_event order by id desc limit 1").fetchone()
    return json.loads(extra)


def test_a_backfill_that_fails_is_tried_again_while_the_tick_waits_for_its_turn(deployment, home, receiver):
    deployment.let_sample_arrive()
    deployment.break_lake()
    deployment.tell(receiver)
    dags_test = (AIRFLOW / "airflow", "dags", "test", "gmv_daily")
    backfill = deployment.start(
        *(*dags_test, "2023-02-23T06:00", "-c", json.dumps(WINDOW)),
        name="backfill",
        pause_at="03_gold after start",
    )
    backfill.wait_for("gmv ended with 1: 02_silver failed")
    deployment.mend_lake()
    backfill.wait_for_pause()
    deployment.environment["GMV_RETRY_SECONDS"] = "10"  # 70 s in all
    tick = deployment.start(*dags_test, "2023-02-24T06:00", name="tick")
    tick.wait_for("gmv ended with 4: ")
    backfill.go_on()
    for run in (backfill, tick):
        said = run.end()
        assert run.popen.returncode == 0, said[-3000:]
    deployment.assert_backfill_failed_then_published_and_tick_published_the_rest(receiver)

    shown = event_of_daily_gmv(home)
    assert shown["headline"] == "GMV of 2023-02-23: 505.50 (+505.50 to the day before)"
    assert (shown["run"], shown["report"]) == (deployment.runs()[-1]["run"], deployment.last_report())
    assert shown["rows"]["gold/daily_gmv 2023-02-23"] == 1
    assert {"day_drop", "ledger_equals_silver"} <= {check["check"] for check in shown["checks"]}


def test_a_refused_backfill_of_three_days_is_red_in_a_task_of_its_own_and_not_tried_again(
    deployment, receiver
):
    deployment.write_refused_lake()
    deployment.tell(receiver)
    run = deployment.start(
        *(AIRFLOW / "airflow", "dags", "test", "gmv_daily", "2023-02-25T06:00", "-c", json.dumps(WINDOW))
    )
    said = run.end()
    assert run.popen.returncode in (0, 1), f"ended by a signal: {run.popen.returncode}"
    assert "Publication refused: Nothing was published" in said
    (record,) = deployment.runs()
    assert record["window"] == WINDOW
    assert deployment.published() == EXPECTED  # as before
    assert receiver.titles() == ["GMV: blocked publication"]

    run_id = re.search(r"Created dag run.*(manual__[^,\s]+),", said)[1]
    states = deployment.start(
        *(AIRFLOW / "airflow", "tasks", "states-for-dag-run", "gmv_daily", run_id, "--output", "json"),
        name="states",
    )
    rows = json.loads(re.search(r"\[\{.*\}\]", states.end(), re.DOTALL)[0])
    assert {row["task_id"]: row["state"] for row in rows} == {"run": "success", "published": "failed"}


def test_wrong_use_is_not_tried_again(deployment):
    deployment.let_runs_be_wrong_use()
    said = deployment.start(AIRFLOW / "airflow", "dags", "test", "gmv_daily", "2023-02-26T06:00").end()
    assert "AirflowFailException: no such day" in said
    assert deployment.times_run() == 1
