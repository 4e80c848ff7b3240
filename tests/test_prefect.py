"""Prefect runs gmv: a tick at a fixed time, failures that pass, two runs at once, and a refused backfill."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from deployment import EXPECTED, WINDOW, Deployment, environment_of, in_orchestration_test
from gmv.lake import lock

PREFECT = environment_of("prefect")
DRIVER = Path(__file__).with_name("prefect_driver.py")
pytestmark = [
    pytest.mark.timeout(2400),
    pytest.mark.skipif(PREFECT is None, reason="no Prefect here; make orchestration-setup installs it"),
]


@pytest.fixture
def deployment(server, tmp_path):
    return Deployment(tmp_path, PREFECT_HOME=str(tmp_path / "home"), PREFECT_SERVER_ANALYTICS_ENABLED="false")


def told(said: str) -> dict:
    return json.loads(re.search(r"^TOLD (.*)$", said, re.MULTILINE)[1])


@in_orchestration_test
def test_a_tick_publishes_the_day_before_when_retries_have_outlasted_two_failures(deployment):
    run = deployment.start(PREFECT / "python", DRIVER, "2023-02-24T06:00", "{}")
    run.wait_for("gmv ended with 1: The landing folder .* does not exist")
    held = lock.acquire(deployment.lake, "this test")
    deployment.let_sample_arrive()
    run.wait_for("gmv ended with 4: .*this test")
    held.release()
    result = told(run.end())
    assert result["state"][0] == "COMPLETED", result
    (record,) = deployment.runs()
    assert (record["today"], record["window"]["start_date"]) == ("2023-02-24", None)
    assert deployment.published() == EXPECTED
    assert "# GMV of 2023-02-23: 505.50 (+505.50 to the day before)" in result["artifacts"]["gmv-daily"]
    assert Path(record["report"]).as_uri() in result["artifacts"]["gmv-report"]


@in_orchestration_test
def test_a_tick_waits_for_a_backfill_of_three_days_and_publishes_the_others(deployment):
    deployment.environment["GMV_RETRY_SECONDS"] = "15"
    deployment.let_sample_arrive()
    command = (PREFECT / "python", DRIVER)
    backfill = deployment.start(*command, "2023-02-24T06:00", json.dumps(WINDOW), name="backfill")
    backfill.wait_for(r"01_bronze +\d")
    tick = deployment.start(*command, "2023-02-25T06:00", "{}", name="tick")
    tick.wait_for("gmv ended with 4: ")
    for run in (backfill, tick):
        result = told(run.end())
        assert result["state"][0] == "COMPLETED", result
    deployment.assert_published_by_backfill_then_tick()


@in_orchestration_test
def test_a_refused_backfill_of_three_days_ends_in_a_state_of_its_own_and_is_not_tried_again(deployment):
    deployment.write_refused_lake()
    result = told(deployment.start(PREFECT / "python", DRIVER, "2023-02-25T06:00", json.dumps(WINDOW)).end())
    kind, name, why = result["state"]
    assert (kind, name) == ("FAILED", "Refused") and result["run"] == ["Refused", 1]
    assert "Publication refused: Nothing was published" in why
    (record,) = deployment.runs()
    assert record["window"] == WINDOW
    assert deployment.published() == EXPECTED  # as before
