"""Cron and systemd run gmv: the lines that they are given, and what the script does with each exit code."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess

import pytest
from deployment import Deployment
from gmv.lake import lock
from gmv.settings import PROJECT

SCRIPT = PROJECT / "orchestration" / "cron" / "gmv-daily"
CRONTAB = (PROJECT / "orchestration" / "cron" / "crontab").read_text()
UNITS = PROJECT / "orchestration" / "systemd"


@pytest.fixture
def deployment(tmp_path):
    return Deployment(tmp_path)


def cron_commands() -> list[str]:
    """The commands of the crontab's lines, in order."""
    return re.findall(r"^\d+ \d+ \* \* \* (.*)$", CRONTAB, re.MULTILINE)


def test_the_days_run_outlasts_a_missing_folder_and_a_held_lake(deployment):
    run = deployment.start(SCRIPT, "2023-02-24")
    run.wait_for("gmv ended with 1; again in 1 s, 3 time")
    held = lock.acquire(deployment.lake, "this test")
    deployment.landing.mkdir()
    run.wait_for("gmv ended with 4; again in .* s, [21] time")
    held.release()
    assert "Nothing is new" in run.end()
    assert run.popen.returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_script_can_be_stopped_while_it_waits_to_try_again(number, code):
    environment = {**os.environ, "GMV_COMMAND": "false", "GMV_RETRY_SECONDS": "60"}
    with subprocess.Popen(
        [SCRIPT], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as waiting:
        assert "again in 60 s" in waiting.stderr.readline()
        os.killpg(waiting.pid, number)
        assert waiting.wait(timeout=20) == code


@pytest.mark.parametrize(
    ("first", "said"),
    [("kill -9 $$", "gmv ended with 137; again"), ("exit 3", ""), ("exec no-such-command", "")],
)
def test_a_run_that_was_killed_is_tried_again_but_not_what_would_end_the_same(tmp_path, first, said):
    command = tmp_path / "gmv"
    command.write_text(
        f'#!/bin/sh\necho >> "{tmp_path}/tries"\n[ $(wc -l < "{tmp_path}/tries") = 2 ] || {first}\n'
    )
    command.chmod(0o755)
    environment = {**os.environ, "GMV_COMMAND": str(command), "GMV_RETRY_SECONDS": "0"}
    told = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, timeout=60)
    assert said in told.stderr and ("again" in told.stderr) is bool(said)
    assert (told.returncode == 0) is bool(said)


def test_a_command_in_a_folder_with_a_space_is_quoted_and_may_have_words_before_it(tmp_path):
    command = tmp_path / "my gmv" / "gmv"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$*" >> "{tmp_path}/told"\n')
    command.chmod(0o755)
    environment = {**os.environ, "GMV_COMMAND": f"nice -n 1 '{command}'", "GMV_LOG": f"{tmp_path}/log"}
    _, look = cron_commands()
    for line in ([SCRIPT, "2023-02-24"], ["/bin/sh", "-c", look]):
        subprocess.run(line, env=environment, check=True, timeout=60)
    assert (tmp_path / "told").read_text() == "run --as-of-date 2023-02-24\nstatus\n"


def test_wrong_use_is_not_tried_again(deployment):
    deployment.environment["GMV_SPARK_CORES"] = "none"
    run = deployment.start(SCRIPT)
    said = run.end()
    assert run.popen.returncode == 2
    assert "GMV_SPARK_CORES" in said and "again" not in said


def test_the_crontabs_lines_are_silent_on_a_good_day_and_speak_on_a_bad_one(deployment):
    deployment.landing.mkdir()
    publish, _ = cron_commands()
    told_to_cron = {
        **deployment.environment,
        "GMV_HOME": str(PROJECT),
        "GMV_LOG": str(deployment.folder / "log"),
    }
    assert set(re.findall(r"^(GMV_\w+)=", CRONTAB, re.MULTILINE)) == {"GMV_HOME", "GMV_COMMAND", "GMV_LOG"}

    def cron(command: str, **more: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", command], env=told_to_cron | more, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    assert cron(publish) == ""
    assert "Nothing is new" in (deployment.folder / "log").read_text()
    assert cron(publish, GMV_SPARK_CORES="none").startswith("gmv-daily ended with 2; see ")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_accepts_the_units_and_knows_when_the_timer_ticks(tmp_path):
    for unit in ("gmv-daily.service", "gmv-daily.timer"):
        text = (UNITS / unit).read_text().replace("/opt/gmv", str(PROJECT)).replace("User=gmv\n", "")
        (tmp_path / unit).write_text(text)
    told = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in os.listdir(tmp_path))],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0 and str(tmp_path) not in told.stderr, told.stderr
    (ticks,) = re.findall(r"^OnCalendar=(.*)$", (UNITS / "gmv-daily.timer").read_text(), re.MULTILINE)
    calendar = subprocess.run(["systemd-analyze", "calendar", ticks], capture_output=True, text=True)
    assert calendar.returncode == 0 and "06:00:00" in calendar.stdout
