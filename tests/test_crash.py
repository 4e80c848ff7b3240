"""A run that is killed again and again, at a commit further on each time, and then let go.

The whole matrix, each commit with each victim and a run that finishes after each, is `make crash-test`.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import crash
import psutil
import pytest
from crash import Case, Scene
from crash_matrix import PAGE
from gmv.errors import LakeLocked
from gmv.lake import faults, lock
from gmv.lake.reader import Reader
from gmv.verify import verify

# Runners and kernels only: what is committed without Spark may still be committed when the server has been killed.
# And kernels, mostly: when a runner is killed, its kernel does one or two commits more until it notices.
KILLS = [
    Case("01_bronze after bronze/purchase", "kernel"),
    Case("01_bronze before bronze/files", "runner"),
    Case("02_silver after start", "kernel"),
    Case("02_silver before silver/quarantine", "kernel"),
    Case("02_silver after silver/quarantine", "kernel"),
    Case("02_silver before monitoring/check_results", "kernel"),
    Case("02_silver before monitoring/progress", "kernel"),
    Case("03_gold after start", "kernel"),
    Case("03_gold after gold/gmv_ledger", "kernel"),
    Case("03_gold before gold/daily_gmv", "kernel"),
    Case("03_gold after gold/daily_gmv", "kernel"),
    Case("runner after gold/daily_gmv_history", "runner"),  # which it adds for the killed one
]
PUBLISHED_FROM = KILLS.index(Case("03_gold after gold/daily_gmv", "kernel"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    """A lake after its first run, with corrections in landing."""
    scene = Scene(tmp_path_factory.mktemp("crash"))
    crash.first_run(scene)
    crash.deliver_corrections(scene)
    return scene


def test_the_page_of_the_whole_matrix_has_each_case_and_no_fault():
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    tried = {Case(point.removeprefix("| "), victim): outcome for point, victim, outcome, *_ in rows}
    assert tried == dict.fromkeys(crash.all_cases(), "as if never killed")


@pytest.mark.timeout(3600)
def test_a_run_killed_at_any_commit_ends_as_one_that_was_never_killed(scene, tmp_path):
    end_as_if_never_killed(scene, tmp_path)


def end_as_if_never_killed(scene: Scene, folder: Path) -> None:
    """Kill runs of a scene that waits for its second one, look after each kill, and let a last one end.

    Args:
        scene: is left as it is.
        folder: for copies of it, which are compared: a copy's files have other times, and so count as changed.
    """
    undisturbed = crash.copy_of(scene, folder / "undisturbed")
    points = folder / "points"
    undisturbed.run(**{faults.POINTS_FILE: str(points)})
    assert set(points.read_text().splitlines()) == {case.point for case in crash.all_cases()}
    before, after = scene.published(), undisturbed.published()
    assert before != after

    server_killed = crash.copy_of(scene, folder / "server")
    server_killed.kill(server_killed.run_until("02_silver after silver/purchase_versions"), "server")
    assert server_killed.published() == before
    server_killed.run()
    assert crash.content(server_killed.lake) == crash.content(undisturbed.lake)

    scene = crash.copy_of(scene, folder / "killed")
    for position, case in enumerate(KILLS):
        run = scene.run_until(case.point)
        scene.kill(run, case.victim)
        assert scene.published() == (after if position >= PUBLISHED_FROM else before), str(case)
    scene.run()

    assert crash.content(scene.lake) == crash.content(undisturbed.lake)
    assert crash.taken_in_once(scene.lake)
    assert verify(Reader(scene.lake), crash.TODAY).agrees
    assert day_stats(scene) == day_stats(undisturbed)


def day_stats(scene: Scene) -> dict:
    """The last of each day's that runs have noted."""
    rows = Reader(scene.lake).rows("select day, gmv from monitoring.day_stats order by recorded_at")
    return {row["day"]: row["gmv"] for row in rows}


def test_the_lake_stays_locked_until_the_server_of_a_killed_run_has_ended(scene, tmp_path):
    scene = crash.copy_of(scene, tmp_path / "orphaned")
    run = scene.run_until("02_silver before silver/purchase_versions")
    family = psutil.Process(run.pid).children(recursive=True)
    (server,) = (process for process in family if process.name() == "java")
    server.suspend()  # as if a write kept it; it can't end when it is asked to
    run.kill()
    run.wait()
    kernels_gone, _ = psutil.wait_procs([one for one in family if crash.is_kernel(one)], timeout=20)
    assert kernels_gone
    with pytest.raises(LakeLocked, match=f"process {run.pid} "):
        lock.acquire(scene.lake, "too early")
    assert server.is_running()
    lock.acquire(scene.lake, "the next one", wait_seconds=20).release()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


INTERRUPTED_AT = [
    ("runner after monitoring/runs", 1),  # just begun
    ("03_gold before gold/daily_gmv", 2),  # pressed again, since nothing seems to happen
    ("04_report after start", 1),  # published
]


@pytest.mark.timeout(1200)
def test_an_interrupt_is_recorded_whenever_it_comes_and_the_next_run_completes(scene, tmp_path):
    scene = crash.copy_of(scene, tmp_path / "interrupted")
    known = {folder.name for folder in scene.runs.iterdir()}
    for point, times in INTERRUPTED_AT:
        run = scene.run_until(point)
        family = psutil.Process(run.pid).children(recursive=True)
        for _ in range(times):
            run.send_signal(signal.SIGINT)
            time.sleep(0.3)
        scene.go_on()
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 1, said
        assert "Interrupted: what was committed stays" in said and "Traceback" not in said, said
        lock.acquire(scene.lake, "the test", wait_seconds=20).release()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, point
        newest = "select run, outcome from monitoring.runs where event = 'ended' order by \"at\" desc limit 1"
        (ended,) = Reader(scene.lake).rows(newest)
        assert ended["outcome"] == "interrupted" and ended["run"] not in known
        known.add(ended["run"])
        if point != INTERRUPTED_AT[0][0]:  # where it had no folder yet
            record = json.loads((scene.runs / ended["run"] / "run.json").read_text())
            assert record["outcome"] == "interrupted"

    scene.run()  # nothing has arrived, but what was published has no report
    (run,) = {folder.name for folder in scene.runs.iterdir()} - known
    assert (scene.runs / run / "report.html").exists()
    assert "Nothing is new" in scene.run()
    assert verify(Reader(scene.lake), crash.TODAY).agrees
