"""A place where an orchestrator runs gmv: folders, variables, and its commands as processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import small_lake
from command import GMV, own_environment
from deltalake import DeltaTable
from gmv.lake import faults
from gmv.settings import PROJECT
from gmv.tables import PRODUCT_ITEM
from receiver import Receiver

WINDOW = {"start_date": "2023-02-17", "end_date": "2023-02-19"}
"""Three days, of which the sample has a purchase on the second."""

EXPECTED = (PROJECT / "tests" / "sample" / "expected_daily_gmv.csv").read_text()


def environment_of(orchestrator: str) -> Path | None:
    """Where the programs of an orchestrator are; None where `make orchestration-setup` has not been."""
    venv = PROJECT / "orchestration" / orchestrator / ".venv"
    return venv / "bin" if (venv / ".ready").exists() else None


class Process:
    """A program at work, what it says going to a file."""

    def __init__(
        self, command: list[str], said: Path, environment: dict[str, str], cwd: Path, pause_file: Path
    ) -> None:
        self.said = said
        self._pause_file = pause_file
        with said.open("wb") as file:
            self.popen = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )

    def wait_for(self, pattern: str, seconds: int = 1200) -> re.Match[str]:
        """Wait until it says something."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said.read_text(errors="replace"))):
            text = self.said.read_text(errors="replace")
            assert self.popen.poll() is None, f"ended without {pattern!r}:\n{text[-3000:]}"
            assert time.monotonic() < deadline, f"no {pattern!r} in {seconds} s:\n{text[-3000:]}"
            time.sleep(0.2)
        return found

    def wait_for_pause(self) -> None:
        """Wait until a run in it waits at its `pause_at`."""
        while not self._pause_file.exists():
            assert self.popen.poll() is None, f"ended before: {self.said.read_text(errors='replace')[-3000:]}"
            time.sleep(0.1)

    def go_on(self) -> None:
        """Let the run that waits go on."""
        self._pause_file.write_text("go")

    def end(self, seconds: int = 1200) -> str:
        """Wait for its end; what it said. An exit code is in `popen.returncode`. What it started ends, too."""
        try:
            self.popen.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        return self.said.read_text(errors="replace")


class Deployment:
    """Folders for a lake and its runs, and variables that lead an orchestrator to them."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder = folder
        self.lake, self.landing, self.runs_dir = folder / "lake", folder / "landing", folder / "runs"
        self.environment = {
            **{name: value for name, value in own_environment().items() if not name.startswith("GMV_")},
            "GMV_COMMAND": str(GMV),
            "GMV_LAKE": str(self.lake),
            "GMV_LANDING": str(self.landing),
            "GMV_RUNS_DIR": str(self.runs_dir),
            "GMV_RETRY_SECONDS": "1",
            "GMV_REPORT_LINK": "https://files.example.com/gmv/runs/",
            **more,
        }

    def let_sample_arrive(self) -> None:
        """The sample's files are in the landing folder."""
        shutil.copytree(PROJECT / "data_lake" / "landing", self.landing)

    def break_lake(self) -> None:
        """No table of silver can be written until `mend_lake`, so that a run fails."""
        self.lake.mkdir()
        (self.lake / "silver").touch()

    def mend_lake(self) -> None:
        (self.lake / "silver").unlink()

    def tell(self, receiver: Receiver) -> None:
        """Alerts go there."""
        self.environment["GMV_ALERT_URLS"] = f"json://127.0.0.1:{receiver.port}"

    def let_runs_be_wrong_use(self) -> None:
        """Instead of gmv there is a command that ends as after a wrong option; `times_run` counts."""
        command = self.folder / "gmv"
        command.write_text(
            f'#!/bin/sh\necho run >> {self.folder}/runs.txt\necho "gmv: no such day" >&2\nexit 2\n'
        )
        command.chmod(0o755)
        self.environment["GMV_COMMAND"] = str(command)

    def times_run(self) -> int:
        """How often that command was started."""
        return len((self.folder / "runs.txt").read_text().splitlines())

    def write_refused_lake(self) -> None:
        """A lake that holds the sample, with a price a cent too high in silver, on 18 February."""
        self.landing.mkdir()
        small_lake.write_sample(self.lake)
        price = "cast(purchase_value + cast(0.01 as decimal(18,2)) as decimal(18,2))"
        DeltaTable(self.lake / PRODUCT_ITEM.latest.path).update(
            updates={"purchase_value": price}, predicate="purchase_id = '78'"
        )

    def start(
        self, *command: str | Path, name: str = "said", cwd: Path | None = None, pause_at: str = ""
    ) -> Process:
        """Start a program in this place; the first run in it that gets to `pause_at` waits there (gmv.lake.faults)."""
        pause_file = self.folder / f"{name}.paused"
        pausing = {faults.PAUSE_AT: pause_at, faults.PAUSE_FILE: str(pause_file)} if pause_at else {}
        said, environment = self.folder / f"{name}.log", self.environment | pausing
        return Process([str(part) for part in command], said, environment, cwd or self.folder, pause_file)

    def published(self) -> str:
        """The published numbers, as CSV."""
        shown = subprocess.run(
            [GMV, "show", "daily_gmv", "--format", "csv"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return shown.stdout

    def assert_backfill_failed_then_published_and_tick_published_the_rest(self, receiver: Receiver) -> None:
        """What is left of a backfill of WINDOW that failed once, and of the tick that waited for it."""
        failed, backfill, tick = self.runs()
        assert [failed["outcome"], backfill["outcome"], tick["outcome"]] == [
            "failed",
            "succeeded",
            "succeeded",
        ]
        assert (failed["window"], backfill["window"]) == (WINDOW, WINDOW)
        assert (tick["window"]["start_date"], tick["today"]) == (None, "2023-02-24")
        assert backfill["ended_at"] <= tick["started_at"]
        changed = [
            [row["transaction_date"] for row in run["steps"]["03_gold"]["changes"]]
            for run in (backfill, tick)
        ]
        assert changed == [["2023-02-18"], ["2023-02-08", "2023-02-23"]]
        assert self.published() == EXPECTED
        assert receiver.titles()[:2] == ["GMV: failed run", "GMV: resolved: failed run"]

    def last_report(self) -> str:
        """The link to the newest run's report, as people in the orchestrator's pages can follow it."""
        return f"https://files.example.com/gmv/runs/{self.runs()[-1]['run']}/report.html"

    def runs(self) -> list[dict]:
        """The records of the runs that did something, oldest first."""
        return [json.loads(file.read_text()) for file in sorted(self.runs_dir.glob("*/run.json"))]
