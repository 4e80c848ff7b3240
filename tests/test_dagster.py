"""Dagster runs gmv: a tick at a fixed time, failures that pass, two runs at once, and a refused backfill."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from deployment import EXPECTED, WINDOW, Deployment, environment_of, in_orchestration_test
from gmv.lake import lock

DAGSTER = environment_of("dagster")
DRIVER = Path(__file__).with_name("dagster_driver.py")
pytestmark = [
    pytest.mark.timeout(2400),
    pytest.mark.skipif(DAGSTER is None, reason="no Dagster here; make orchestration-setup installs it"),
]


@pytest.fixture
def deployment(server, tmp_path):
    return Deployment(tmp_path, DAGSTER_DISABLE_TELEMETRY="1")


def told(said: str) -> dict:
    return json.loads(re.search(r"^TOLD (.*)$", said, re.MULTILINE)[1])


def test_a_tick_publishes_the_day_before_when_retries_have_outlasted_two_failures(deployment):
    run = deployment.start(DAGSTER / "python", DRIVER, "tick", "2023-02-24T06:00")
    run.wait_for("gmv ended with 1: The landing folder .* does not exist")
    held = lock.acquire(deployment.lake, "this test")
    deployment.let_sample_arrive()
    run.wait_for("gmv ended with 4: .*this test")
    held.release()
    result = told(run.end())
    assert result["success"], result["failure"]
    assert result["materialized"] == [
        f"{asset} 2023-02-23" for asset in ("bronze", "daily_gmv", "report", "silver")
    ]
    (record,) = deployment.runs()
    assert (record["today"], record["window"]["start_date"]) == ("2023-02-24", None)
    assert deployment.published() == EXPECTED
    shown = result["metadata"]["daily_gmv"]
    assert (shown["gmv"], shown["change to the day before"]) == ("505.50", "+505.50")
    assert result["metadata"]["report"]["report.html"] == Path(record["report"]).as_uri()
    assert result["checks"]["may_be_published"][0]
    assert not result["checks"]["nothing_odd"][0], "two days have payments alone"


@in_orchestration_test
def test_a_tick_waits_for_a_backfill_of_three_days_and_publishes_the_others(deployment):
    deployment.environment["GMV_RETRY_SECONDS"] = "15"
    deployment.let_sample_arrive()
    backfill = deployment.start(DAGSTER / "python", DRIVER, "backfill", *WINDOW.values(), name="backfill")
    backfill.wait_for(r"01_bronze +\d")
    tick = deployment.start(DAGSTER / "python", DRIVER, "tick", "2023-02-25T06:00", name="tick")
    tick.wait_for("gmv ended with 4: ")
    for run in (backfill, tick):
        result = told(run.end())
        assert result["success"], result["failure"]
    deployment.assert_published_by_backfill_then_tick()


@in_orchestration_test
def test_a_refused_backfill_of_three_days_fails_its_check_and_is_not_tried_again(deployment):
    deployment.write_refused_lake()
    result = told(deployment.start(DAGSTER / "python", DRIVER, "backfill", *WINDOW.values()).end())
    passed, why = result["checks"]["may_be_published"]
    assert not passed and "the last good numbers stay" in why
    assert not result["success"] and "Publication refused" in result["failure"][0]
    assert {line.split()[0] for line in result["materialized"]} == {"bronze", "silver"}
    (record,) = deployment.runs()
    assert record["window"] == WINDOW
    assert deployment.published() == EXPECTED  # as before
