"""Prefect runs gmv: a tick at a fixed time, a backfill that fails once, one that waits, one that is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from deployment import EXPECTED, WINDOW, Deployment, environment_of

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


def test_a_backfill_that_fails_is_tried_again_while_the_tick_waits_for_its_turn(deployment, receiver):
    deployment.let_sample_arrive()
    deployment.break_lake()
    deployment.tell(receiver)
    run_flow = (PREFECT / "python", DRIVER)
    backfill = deployment.start(
        *(*run_flow, "2023-02-23T06:00", json.dumps(WINDOW)), name="backfill", pause_at="03_gold after start"
    )
    deployment.environment["GMV_RETRY_SECONDS"] = "10"  # 70 s in all
    begin = deployment.folder / "begin"
    tick = deployment.start(*run_flow, "2023-02-24T06:00", "{}", begin, name="tick")
    backfill.wait_for("gmv ended with 1: 02_silver failed")
    deployment.mend_lake()
    backfill.wait_for_pause()
    begin.touch()
    tick.wait_for("gmv ended with 4: ")
    backfill.go_on()
    result = told(backfill.end())
    assert result["state"][0] == "COMPLETED", result
    result = told(tick.end())
    assert result["state"][0] == "COMPLETED", result
    deployment.assert_backfill_failed_then_published_and_tick_published_the_rest(receiver)

    assert "# GMV of 2023-02-23: 505.50 (+505.50 to the day before)" in result["artifacts"]["gmv-daily"]
    assert deployment.last_report() in result["artifacts"]["gmv-report"]


def test_a_refused_backfill_of_three_days_ends_in_a_state_of_its_own_and_is_not_tried_again(
    deployment, receiver
):
    deployment.write_refused_lake()
    deployment.tell(receiver)
    result = told(deployment.start(PREFECT / "python", DRIVER, "2023-02-25T06:00", json.dumps(WINDOW)).end())
    kind, name, why = result["state"]
    assert (kind, name) == ("FAILED", "Refused") and result["run"] == ["Refused", 1]
    assert "Publication refused: Nothing was published" in why
    (record,) = deployment.runs()
    assert record["window"] == WINDOW
    assert deployment.published() == EXPECTED  # as before
    assert receiver.titles() == ["GMV: blocked publication"]


def test_wrong_use_is_not_tried_again(deployment):
    deployment.let_runs_be_wrong_use()
    result = told(deployment.start(PREFECT / "python", DRIVER, "2023-02-24T06:00", "{}").end())
    assert "gmv ended with 2: no such day" in result["state"][2]
    assert deployment.times_run() == 1
