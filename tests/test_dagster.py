"""Dagster runs gmv: a tick at a fixed time, a backfill that fails once, one that waits, one that is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from deployment import EXPECTED, WINDOW, Deployment, environment_of

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


def test_a_backfill_that_fails_is_tried_again_while_the_tick_waits_for_its_turn(deployment, receiver):
    deployment.let_sample_arrive()
    deployment.break_lake()
    deployment.tell(receiver)
    backfill = deployment.start(
        *(DAGSTER / "python", DRIVER, "backfill", *WINDOW.values()),
        name="backfill",
        pause_at="03_gold after start",
    )
    backfill.wait_for("gmv ended with 1: 02_silver failed")
    deployment.mend_lake()
    backfill.wait_for_pause()
    deployment.environment["GMV_RETRY_SECONDS"] = "10"  # 70 s in all
    tick = deployment.start(DAGSTER / "python", DRIVER, "tick", "2023-02-24T06:00", name="tick")
    tick.wait_for("gmv ended with 4: ")
    backfill.go_on()
    result = told(backfill.end())
    assert result["success"], result["failure"]
    result = told(tick.end())
    assert result["success"], result["failure"]
    deployment.assert_backfill_failed_then_published_and_tick_published_the_rest(receiver)

    assert result["materialized"] == [
        f"{asset} 2023-02-23" for asset in ("bronze", "daily_gmv", "report", "silver")
    ]
    shown = result["metadata"]["daily_gmv"]
    assert (shown["gmv"], shown["change to the day before"]) == ("505.50", "+505.50")
    assert result["metadata"]["report"]["report.html"] == deployment.last_report()
    assert result["checks"]["may_be_published"][0]
    assert not result["checks"]["nothing_odd"][0], "two days have payments alone"


def test_a_refused_backfill_of_three_days_fails_its_check_and_is_not_tried_again(deployment, receiver):
    deployment.write_refused_lake()
    deployment.tell(receiver)
    result = told(deployment.start(DAGSTER / "python", DRIVER, "backfill", *WINDOW.values()).end())
    passed, why = result["checks"]["may_be_published"]
    assert not passed and "the last good numbers stay" in why
    assert not result["success"] and "Publication refused" in result["failure"][0]
    assert {line.split()[0] for line in result["materialized"]} == {"bronze", "silver"}
    (record,) = deployment.runs()
    assert record["window"] == WINDOW
    assert deployment.published() == EXPECTED  # as before
    assert receiver.titles() == ["GMV: blocked publication"]


def test_wrong_use_is_not_tried_again(deployment):
    deployment.let_runs_be_wrong_use()
    result = told(deployment.start(DAGSTER / "python", DRIVER, "tick", "2023-02-24T06:00").end())
    assert "gmv ended with 2: no such day" in result["failure"][0]
    assert deployment.times_run() == 1
