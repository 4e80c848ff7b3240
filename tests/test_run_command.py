"""`gmv run` as its users start it: a process of its own, with kernels and a Spark server."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import crash
import psutil
import pytest
import small_lake
from command import GMV, own_environment
from gmv import cli
from gmv.errors import GmvError, LakeLocked, UsageError
from gmv.lake import lock, spark
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.run import forking, kernels, runner
from gmv.settings import PROJECT, settings
from gmv.tables import DAILY_GMV_HISTORY, GMV_LEDGER, RUNS
from jupyter_core.utils import ensure_event_loop

sys.path.insert(0, str(PROJECT / "benchmarks"))
PR_SET_CHILD_SUBREAPER = 36
EXPECTED = (PROJECT / "tests" / "sample" / "expected_daily_gmv.csv").read_text()


@pytest.fixture
def folders(tmp_path):
    """Options that name a lake, a landing folder with the sample, and a runs folder."""
    shutil.copytree(PROJECT / "data_lake" / "landing", tmp_path / "landing")
    return [
        *("--lake", str(tmp_path / "lake")),
        *("--landing", str(tmp_path / "landing")),
        *("--runs-dir", str(tmp_path / "runs")),
    ]


def gmv(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return started(str(GMV), *arguments, **environment)


def started(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in an environment that names no Spark server."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=own_environment(**environment),
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that mention a folder, or have it open as their lake's lock."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            holds = any(os.readlink(fd).startswith(str(folder)) for fd in (process / "fd").iterdir())
        except OSError:
            continue
        if (str(folder) in command or holds) and process.name != str(os.getpid()):
            found.append(command)
    return found


def test_run_publishes_the_sample_and_a_second_run_finds_nothing_new(folders, tmp_path):
    told = tmp_path / "told.json"
    etl_gmv = str(PROJECT / "etl_gmv.py")  # which is `gmv run`
    first = started(sys.executable, etl_gmv, *folders, "--record-to", str(told), TZ="Etc/GMT+12")
    assert first.returncode == 0, first.stderr
    assert gmv("show", "daily_gmv", "--format", "csv", "--lake", str(tmp_path / "lake")).stdout == EXPECTED

    (folder,) = (tmp_path / "runs").iterdir()
    saved = {path.name for path in folder.iterdir()}
    assert saved >= {
        "01_bronze.ipynb",
        "02_silver.ipynb",
        "03_gold.ipynb",
        "04_report.ipynb",
        "run.json",
        "report.html",
    }
    record = json.loads((folder / "run.json").read_text())
    assert record["outcome"] == "succeeded"
    assert record["report"] == str(folder / "report.html")
    assert told.read_bytes() == (folder / "run.json").read_bytes()
    assert record["steps"]["03_gold"]["days"] == dict.fromkeys(
        ["2023-02-08", "2023-02-18", "2023-02-23"], "published"
    )
    assert record["table_versions"]["gold/daily_gmv"] is not None
    # Midnight may pass between two notebooks: the day on which the run began is today for all.
    for notebook in folder.glob("*.ipynb"):
        given = json.loads(notebook.read_text())["metadata"]["papermill"]["parameters"]
        assert given["as_of_date"] == record["today"]
    text = "".join(path.read_text() for path in folder.iterdir())
    assert "SPARK_CONNECT_AUTHENTICATE_TOKEN" not in text

    second = gmv("run", *folders, "--record-to", str(told))
    assert second.returncode == 0, second.stderr
    assert json.loads(told.read_text())["outcome"] == "nothing_new"
    assert "Nothing is new" in second.stdout
    assert str(folder / "report.html") in second.stdout
    assert len(list((tmp_path / "runs").iterdir())) == 1
    outcomes = [
        row["outcome"] for row in Reader(tmp_path / "lake").rows("select outcome from monitoring.runs")
    ]
    assert sorted(filter(None, outcomes)) == ["nothing_new", "succeeded"]


def test_a_refused_run_reports_and_is_resumed_with_its_window_and_today(folders, tmp_path):
    (tmp_path / "landing" / "purchase-broken.csv").write_text("purchase_id;release_date\n1;2023-02-08\n")
    window = ("--start-date", "2023-02-01", "--end-date", "2023-02-20", "--as-of-date", "2023-02-18")
    refused = gmv("run", *folders, *window)
    assert refused.returncode == 3 and "Traceback" not in refused.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"Report: {folder / 'report.html'}" in refused.stderr
    assert "Publication is blocked" in (folder / "report.html").read_text()
    assert json.loads((folder / "run.json").read_text())["outcome"] == "refused"
    assert Reader(tmp_path / "lake").rows("select * from gold.daily_gmv") == []

    accepting = ("--accept", "refused_file", "--because", "the day is whole without it")
    assert gmv("run", *folders, "--resume", "20200101T000000-0000").returncode == 2
    resumed = gmv("run", *folders, "--resume", folder.name, *accepting)
    assert resumed.returncode == 0, resumed.stderr
    lake = Reader(tmp_path / "lake")
    days = lake.rows("select distinct transaction_date::varchar as day from gold.daily_gmv")
    assert days == [{"day": "2023-02-08"}]  # the 18th was today
    asked = "select distinct start_date, end_date, as_of_date from monitoring.runs where event = 'started'"
    assert len(lake.rows(asked)) == 1


def has_work(lake: Path, today: str, window: Window = runner.NO_WINDOW) -> bool:
    """Whether a run on that day would have work, though no file has arrived."""
    request = runner.Request(lake, lake / "landing", lake / "runs", window, small_lake.day(today))
    return runner._has_work(runner._record(request, "r9", "run"))


def test_nothing_is_to_do_where_all_is_published_unless_a_window_asks(tmp_path):
    small_lake.write_sample(tmp_path)
    assert not has_work(tmp_path, "2023-03-01")
    february = Window(small_lake.day("2023-02-01"), small_lake.day("2023-02-28"))
    assert has_work(tmp_path, "2023-03-01", february), "its days are computed again"


def test_a_day_that_is_over_since_is_work_unless_its_books_are_closed(tmp_path, monkeypatch):
    small_lake.write_sample(tmp_path)
    on = small_lake.day("2023-03-01")
    place = {"transaction_date": on, "subsidiary": "nacional", "known_on": on}
    posting = {"purchase_id": "9", "amount": Decimal("1.00"), "purchases": 1, "ledger_seq": 2}
    small_lake.write(tmp_path, GMV_LEDGER, [place | posting])
    assert not has_work(tmp_path, "2023-03-01")
    assert has_work(tmp_path, "2023-03-02")
    monkeypatch.setenv("GMV_CLOSED_UNTIL", "2023-03-01")
    settings.cache_clear()
    assert not has_work(tmp_path, "2023-03-02")


@pytest.mark.parametrize(
    ("kind", "outcome", "lacks_report"),
    [
        ("run", None, True),
        ("run", "failed", True),
        ("notebook", "succeeded", True),
        ("run", "succeeded", False),
    ],
)
def test_a_run_that_published_and_was_stopped_leaves_its_report_to_do(tmp_path, kind, outcome, lacks_report):
    small_lake.write_sample(tmp_path, run="20230301T060000-0001")
    began, after = small_lake.at("2023-03-02T06:00:00"), small_lake.at("2023-03-02T06:05:00")
    small_lake.write(tmp_path, RUNS, [{"run": "r2", "kind": "run", "event": "started", "at": began}])
    assert not has_work(tmp_path, "2023-03-02"), "it had published nothing"
    published = {"transaction_date": small_lake.day("2023-02-08"), "subsidiary": "internacional", "run": "r2"}
    number = {"previous_gmv": Decimal("554.50"), "gmv": Decimal("554.50"), "ledger_seq": 2}
    small_lake.write(tmp_path, DAILY_GMV_HISTORY, [published | number | {"published_at": began}])
    if outcome:
        ended = {"run": "r3", "kind": kind, "event": "ended", "at": after, "outcome": outcome}
        small_lake.write(tmp_path, RUNS, [ended])
    assert has_work(tmp_path, "2023-03-02") is lacks_report


def test_what_checks_refused_is_work_until_a_run_has_passed_them(tmp_path):
    """A refused file may be all that came of a day, so that no day waits; it is open all the same."""
    small_lake.write_sample(tmp_path, run="20230301T060000-0001")
    for hour, kind, outcome, is_work in (
        (6, "run", "refused", True),
        (7, "run", "failed", True),
        (8, "notebook", "succeeded", True),
        (9, "run", "succeeded", False),
    ):
        ended = {"run": f"r{hour}", "kind": kind, "event": "ended", "outcome": outcome}
        small_lake.write(tmp_path, RUNS, [ended | {"at": small_lake.at(f"2023-03-02T0{hour}:00")}])
        assert has_work(tmp_path, "2023-03-02") is is_work, outcome


def test_a_run_is_resumed_with_its_own_window_and_today(tmp_path):
    request = runner.Request(tmp_path, tmp_path / "landing", tmp_path / "runs", resume="r1")
    first, last, today = map(small_lake.day, ("2023-02-01", "2023-02-20", "2023-02-21"))
    of_run = {"start_date": first, "end_date": last, "as_of_date": today, "event": "started"}
    other = {"run": "r2", "kind": "run", "event": "started", "as_of_date": small_lake.day("2023-03-01")}
    small_lake.write(tmp_path, RUNS, [other, {"run": "r1", "kind": "run"} | of_run])
    small_lake.write(tmp_path, RUNS, [{"run": "r4", "kind": "retract"} | of_run])
    resumed = runner._resumed(request)
    assert (resumed.window, resumed.as_of_date) == (Window(first, last), today)
    for wrong in (
        replace(request, resume="r4"),
        replace(request, as_of_date=today),
        replace(request, window=Window(first, last)),
    ):
        with pytest.raises(UsageError, match="--resume"):
            runner._resumed(wrong)


def test_ctrl_c_is_recorded_leaves_no_process_and_the_next_run_completes(folders, tmp_path):
    environment = own_environment(TZ="Pacific/Kiritimati")  # 26 hours from where the test above runs
    run = subprocess.Popen([str(GMV), "run", *folders], stderr=subprocess.PIPE, env=environment, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "lake" / "bronze" / "purchase" / "_delta_log").exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "Interrupted: what was committed stays" in said and "Traceback" not in said
    deadline = time.monotonic() + 20
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_of(tmp_path) == []
    (row,) = Reader(tmp_path / "lake").rows("select outcome from monitoring.runs where event = 'ended'")
    assert row["outcome"] == "interrupted"

    assert gmv("run", *folders, TZ="Pacific/Kiritimati").returncode == 0
    assert gmv("show", "daily_gmv", "--format", "csv", "--lake", str(tmp_path / "lake")).stdout == EXPECTED


def test_ctrl_c_ends_each_command_with_a_sentence_and_1(monkeypatch, capsys, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gmv.status.status", interrupted)
    monkeypatch.setattr(sys, "argv", ["gmv", "status", "--lake", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^1$"):
        cli.main()
    assert capsys.readouterr().err == "gmv: Interrupted.\n", "it commits nothing"


def test_killed_runner_takes_its_server_along_and_the_next_run_completes(folders, tmp_path):
    run = subprocess.Popen([str(GMV), "run", *folders], stderr=subprocess.DEVNULL, env=own_environment())
    deadline = time.monotonic() + 120
    while not (tmp_path / "lake" / "bronze" / "purchase" / "_delta_log").exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    run.kill()
    run.wait()
    held = lock.acquire(tmp_path / "lake", "the test", wait_seconds=30)
    held.release()
    assert gmv("run", *folders).returncode == 0
    assert gmv("show", "daily_gmv", "--format", "csv", "--lake", str(tmp_path / "lake")).stdout == EXPECTED


def test_a_locked_lake_is_named_with_its_holder(folders, tmp_path):
    held = lock.acquire(tmp_path / "lake", "the test")
    refused = gmv("run", *folders)
    held.release()
    assert refused.returncode == 4
    assert "is being written by the test" in refused.stderr


def test_lock_is_held_until_released(tmp_path):
    held = lock.acquire(tmp_path, "one")
    with pytest.raises(LakeLocked, match="written by one"):
        lock.acquire(tmp_path, "two")
    held.release()
    lock.acquire(tmp_path, "two").release()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--start-date", "2023-02-30", "--end-date", "2023-03-01"], "'2023-02-30' is no date"),
        (["--start-date", "2023-02-01"], "needs both"),
        (["--start-date", "2023-02-02", "--end-date", "2023-02-01"], "is after"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_use_ends_with_2_and_writes_nothing(folders, tmp_path, arguments, said):
    wrong = gmv("run", *folders, *arguments)
    assert wrong.returncode == 2
    assert said in wrong.stderr and "Traceback" not in wrong.stderr
    assert not (tmp_path / "lake").exists()


def test_missing_landing_folder_is_an_error_of_one_sentence(tmp_path):
    failed = gmv("run", "--lake", str(tmp_path / "lake"), "--landing", str(tmp_path / "none"))
    assert failed.returncode == 1
    assert "does not exist" in failed.stderr and "Traceback" not in failed.stderr


def test_reread_finds_what_was_replaced_in_place_and_plan_foresees_it(folders, tmp_path):
    assert gmv("run", *folders).returncode == 0
    (file,) = (tmp_path / "landing").glob("*product_item*.csv")
    before = file.stat()
    file.write_text(file.read_text().replace("55.45", "66.45"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    seen = gmv("show", "daily_gmv", "--format", "csv", *folders[:2])
    unread = gmv("run", *folders)
    assert unread.returncode == 0 and "Nothing is new" in unread.stdout

    planned = gmv("plan", "--reread", *folders[:4], "--format", "csv")
    assert planned.returncode == 0, planned.stderr
    assert "2023-02-08" in planned.stdout and "664.50" in planned.stdout
    assert gmv("show", "daily_gmv", "--format", "csv", *folders[:2]).stdout == seen.stdout

    reread = gmv("run", "--reread", *folders)
    assert reread.returncode == 0, reread.stderr
    assert (
        "2023-02-08,internacional,664.50" in gmv("show", "daily_gmv", "--format", "csv", *folders[:2]).stdout
    )


def test_numbers_are_published_though_their_report_fails(folders, tmp_path, monkeypatch):
    broken = tmp_path / "notebooks"
    shutil.copytree(kernels.NOTEBOOKS, broken)
    notebook_with(broken, monkeypatch, "raise RuntimeError('no ink')", name="04_report")
    request = runner.Request(tmp_path / "lake", tmp_path / "landing", tmp_path / "runs")
    with pytest.raises(
        GmvError, match=r"published, the report is not: .*no ink.*gmv report --lake"
    ) as failed:
        runner.run(request, lambda _: contextlib.nullcontext())
    assert type(failed.value) is GmvError  # exit code 1
    assert gmv("show", "daily_gmv", "--format", "csv", *folders[:2]).stdout == EXPECTED

    again = gmv("run", *folders)
    assert again.returncode == 0 and "report.html" in again.stdout, again.stdout + again.stderr
    assert runner.last_report(tmp_path / "runs")


def test_numbers_are_published_though_the_disk_is_full_for_their_report(folders, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "report.html")

    monkeypatch.setattr("gmv.report.page.render", fail)
    request = runner.Request(tmp_path / "lake", tmp_path / "landing", tmp_path / "runs")
    with pytest.raises(
        GmvError,
        match=r"published, the report is not: .*No space left.*report.html'\. Make it with: gmv report",
    ):
        runner.run(request, lambda _: contextlib.nullcontext())
    (noted,) = Reader(tmp_path / "lake").rows("from monitoring.runs where event = 'ended'")
    assert noted["outcome"] == "failed" and "published, the report is not" in noted["message"]


def notebook_with(folder: Path, monkeypatch, source: str, name: str = "one") -> None:
    """Let the runner find one notebook of one cell."""
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")
    monkeypatch.setattr(kernels, "NOTEBOOKS", folder)


def run_notebook(folder: Path, server=None) -> None:
    with kernels.Kernels(folder, {}, server=server) as running:
        running.execute("one", folder / "out.ipynb", {}, then="one")


def test_hung_cell_ends_within_its_time(tmp_path, monkeypatch):
    notebook_with(tmp_path, monkeypatch, "import time\ntime.sleep(600)")
    monkeypatch.setenv("GMV_CELL_SECONDS", "2")
    settings.cache_clear()
    with pytest.raises(GmvError, match=r"longer than 2 seconds \(GMV_CELL_SECONDS\)"):
        run_notebook(tmp_path)
    assert (tmp_path / "out.ipynb").exists()


def test_dead_kernel_is_a_clear_failure(tmp_path, monkeypatch):
    notebook_with(tmp_path, monkeypatch, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(GmvError, match="its kernel or its Spark server died"):
        run_notebook(tmp_path)
    assert (tmp_path / "out.ipynb").exists()


def test_ctrl_c_in_a_cell_leaves_nothing_that_speaks_of_it_later(tmp_path, monkeypatch, caplog):
    """A stubborn cell, so that whoever waits for it still does when its kernel is killed."""
    source = """
    import os, signal, time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.kill(int(os.environ["OF_THE_TEST"]), signal.SIGINT)
    time.sleep(600)
    """
    notebook_with(tmp_path, monkeypatch, textwrap.dedent(source))
    monkeypatch.setenv("OF_THE_TEST", str(os.getpid()))
    with pytest.raises(KeyboardInterrupt):
        run_notebook(tmp_path)
    assert not asyncio.all_tasks(ensure_event_loop())
    gc.collect()
    assert not caplog.records


class CtrlC:
    """It comes just before a callback of the event loop: that of a number, counted from when it is told."""

    def __init__(self, monkeypatch) -> None:
        self.due = iter(())
        run_callback = asyncio.Handle._run

        def run(handle: asyncio.Handle) -> None:
            if next(self.due, None) == 0:
                signal.raise_signal(signal.SIGINT)
            run_callback(handle)

        monkeypatch.setattr(asyncio.Handle, "_run", run)

    def comes_before(self, number: int) -> None:
        self.due = iter(range(number, -1, -1))

    def ends(self, folder: Path) -> None:
        """It ends a notebook, and leaves nothing."""
        with pytest.raises(KeyboardInterrupt):
            run_notebook(folder)
        assert next(self.due, None) is None
        assert not asyncio.all_tasks(ensure_event_loop())


@pytest.mark.timeout(120)
def test_ctrl_c_is_heard_just_before_whatever_callback(tmp_path, monkeypatch):
    """One that is due, and would never be called, might be what a task waits for, even in order to be cancelled."""
    source = "import time\nfor _ in range(20):\n    print(1, flush=True)\n    time.sleep(0.02)"
    notebook_with(tmp_path, monkeypatch, source)
    ctrl_c = CtrlC(monkeypatch)
    for number in range(58, 98, 3):  # as the kernel answers, and while it works
        ctrl_c.comes_before(number)
        ctrl_c.ends(tmp_path)


@pytest.mark.parametrize("number", range(4))
def test_ctrl_c_while_a_kernel_ends_leaves_nothing(tmp_path, monkeypatch, number):
    notebook_with(tmp_path, monkeypatch, "1")
    ctrl_c, end = CtrlC(monkeypatch), kernels.KernelManager.end

    async def interrupted(kernel: kernels.KernelManager, now: bool = False) -> None:
        if now:
            ctrl_c.comes_before(number)
        await end(kernel, now)

    monkeypatch.setattr(kernels.KernelManager, "end", interrupted)
    ctrl_c.ends(tmp_path)


def test_a_task_that_refuses_to_be_cancelled_keeps_nobody():
    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
        await asyncio.sleep(600)

    loop = ensure_event_loop()
    task = loop.create_task(stubborn())
    loop.run_until_complete(asyncio.sleep(0))
    kernels._drop_tasks()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_error_of_a_notebook_keeps_its_kind(tmp_path, monkeypatch):
    notebook_with(tmp_path, monkeypatch, "from gmv.errors import LakeLocked\nraise LakeLocked('held by x')")
    with pytest.raises(LakeLocked, match="held by x"):
        run_notebook(tmp_path)


def test_server_takes_no_connection_without_its_token(server):
    asks = (
        "import os; from pyspark.sql import SparkSession;"
        "print(SparkSession.builder.remote(os.environ['SPARK_REMOTE']).getOrCreate().range(3).count())"
    )
    token = "SPARK_CONNECT_AUTHENTICATE_TOKEN"
    environment = {**own_environment(), **server.environment()}
    run = [sys.executable, "-c", asks]
    with_token = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120)
    assert with_token.stdout.strip() == "3"
    wrong = {**environment, token: "guessed"}
    without = subprocess.run(run, env=wrong, capture_output=True, text=True, timeout=120)
    assert without.returncode != 0 and "UNAUTHENTICATED" in without.stderr


def test_a_server_starts_where_another_one_is_in_use(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_REMOTE", "sc://nowhere.invalid:1")
    with spark.SparkServer(None, tmp_path / "spark.log") as another:
        another.wait()


def test_a_server_elsewhere_that_does_not_answer_is_named_and_its_token_is_not(monkeypatch):
    monkeypatch.setattr(spark, "_ANSWER_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # connections are refused
        port = silent.getsockname()[1]
        for address in (
            f"sc://127.0.0.1:{port}",
            f"sc://127.0.0.1:{port}/;token=geheim",
            "sc://nowhere.invalid:1",
        ):
            monkeypatch.setenv("SPARK_REMOTE", address)
            with pytest.raises(GmvError, match=r"SPARK_REMOTE, .*:\d+, did not answer within 1 sec") as told:
                spark.require_remote()
            assert "geheim" not in str(told.value)


def test_an_address_of_a_server_elsewhere_that_is_none_is_wrong_use_and_is_not_repeated(monkeypatch):
    for address in ("geheim:1", "sc://host:geheim", "sc://host/geheim", "sc://host/;token:geheim"):
        monkeypatch.setenv("SPARK_REMOTE", address)
        with pytest.raises(UsageError, match="Write it as sc://host:port") as told:
            spark.require_remote()
        assert "geheim" not in str(told.value)


def test_the_port_of_a_server_is_free_and_none_that_the_system_gives_to_others(monkeypatch):
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if given.exists():
        assert spark._PORTS[-1] < int(given.read_text().split()[0])
    with socket.socket() as another:
        another.bind(("127.0.0.1", 0))
        taken, free = another.getsockname()[1], spark.free_port()
        monkeypatch.setattr(spark, "_PORTS", [taken, free])
        assert {spark.free_port() for _ in range(20)} == {free}
        monkeypatch.setattr(spark, "_PORTS", [taken])
        with pytest.raises(GmvError, match=f"No port from {taken} to {taken} is free"):
            spark.free_port()


class EndedServer:
    """A Spark server that has ended; its clients would go on asking for many minutes."""

    def is_alive(self) -> bool:
        return False

    def environment(self) -> dict[str, str]:
        return {}

    def wait(self) -> None:
        raise GmvError("The Spark server ended while it started.")


def test_a_notebook_that_uses_spark_begins_when_its_server_answers(tmp_path, monkeypatch):
    notebook_with(tmp_path, monkeypatch, "1", "02_silver")
    with (
        kernels.Kernels(tmp_path, {}, server=EndedServer()) as running,
        pytest.raises(GmvError, match="ended while it started"),
    ):
        running.execute("02_silver", tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()
    assert not [child for child in psutil.Process().children(recursive=True) if crash.is_kernel(child)]


def test_a_server_that_ended_ends_the_notebook_and_its_kernel(tmp_path, monkeypatch):
    notebook_with(tmp_path, monkeypatch, "import time\ntime.sleep(600)")
    began = time.monotonic()
    with pytest.raises(GmvError, match="its kernel or its Spark server died"):
        run_notebook(tmp_path, EndedServer())
    assert time.monotonic() - began < 60
    assert not [child for child in psutil.Process().children(recursive=True) if crash.is_kernel(child)]


def test_a_kernel_has_what_it_imports_and_neither_its_names_nor_a_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("GMV_ALERT_URLS", "slack://of-nobody")
    source = """
    import os
    import sys
    from pathlib import Path
    seen = {**globals()}
    assert "gmv.ledger" in sys.modules and "ledger" not in seen
    assert "debugpy" not in {name for name, module in sys.modules.items() if module}
    assert get_ipython().kernel.parent.parent_handle == os.getppid()
    assert b"of-nobody" not in Path("/proc/self/environ").read_bytes()
    """
    notebook_with(tmp_path, monkeypatch, textwrap.dedent(source) + "\nfrom gmv import ledger")
    run_notebook(tmp_path)


@pytest.mark.parametrize(("name", "is_holder"), [("one", True), ("04_report", False)])
def test_a_kernel_that_writes_holds_the_lock_and_the_reports_does_not(tmp_path, monkeypatch, name, is_holder):
    held = lock.acquire(tmp_path / "lake", "the test")
    lock_file = str(tmp_path / "lake" / lock.LOCK_FILE)
    source = f"""
    import os
    open_files = [os.path.realpath(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd")]
    assert ({lock_file!r} in open_files, "GMV_LOCK_FD" in os.environ) == ({is_holder}, {is_holder})
    """
    notebook_with(tmp_path, monkeypatch, textwrap.dedent(source), name)
    with kernels.Kernels(tmp_path, {}, held) as running:
        running.execute(name, tmp_path / "out.ipynb", {})
    held.release()


def test_what_kernels_are_forked_from_has_no_other_thread(tmp_path, monkeypatch):
    source = """
    import os
    from gmv import view, verify
    import matplotlib.pyplot
    assert len(os.listdir(f"/proc/{os.getppid()}/task")) == 1
    """
    notebook_with(tmp_path, monkeypatch, textwrap.dedent(source), "03_gold")  # one that uses Spark
    with kernels.Kernels(tmp_path, {}) as running:
        running.execute("03_gold", tmp_path / "out.ipynb", {}, then="03_gold")


def test_a_forked_kernel_gives_back_what_its_tables_took(tmp_path, monkeypatch):
    source = """
    import resource
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    import pyarrow as pa

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    def reverse_some_ids(number):
        ids = pa.array(map(str, range(number)))
        for _ in range(5):
            ids = ids.take(pa.array(range(number - 1, -1, -1)))

    reverse_some_ids(4)
    before = resident()
    with ThreadPoolExecutor(3) as three:
        list(three.map(reverse_some_ids, [400_000] * 3))
    assert resident() - before < 20, f"{resident() - before} MiB"
    """
    notebook_with(tmp_path, monkeypatch, textwrap.dedent(source), "03_gold")
    with kernels.Kernels(tmp_path, {}) as running:
        running.execute("03_gold", tmp_path / "out.ipynb", {}, then="03_gold")


@pytest.fixture
def adopting_orphans():
    """This process gets the descendants that lose their parent, as a desktop's session manager does."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0)


def the_origin() -> psutil.Process:
    """The process that kernels of this one are forked from, once it has its command line."""
    deadline = time.monotonic() + 10
    while not (found := [one for one in psutil.Process().children() if crash.is_origin(one, os.getpid())]):
        assert time.monotonic() < deadline, "there is no process that kernels are forked from"
        time.sleep(0.01)
    (origin,) = found
    return origin


def test_a_kernel_ends_although_its_origin_is_killed_while_it_starts(tmp_path, adopting_orphans):
    with (tmp_path / "log").open("wb") as log:
        origin = forking.Origin(dict(os.environ), [], log)
    with contextlib.closing(origin):
        process = the_origin()
        kernel = origin.fork([], ["-f", str(tmp_path / "connection.json")], dict(os.environ), str(tmp_path))
        process.kill()
        deadline = time.monotonic() + 10
        while kernel.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        ended = kernel.poll() is not None
        kernel.kill()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(kernel.pid, 0)
    assert ended


def test_a_signal_to_a_kernel_that_has_ended_goes_nowhere(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    handle = forking.Forked(ended.pid)
    ended.wait()
    handle.send_signal(signal.SIGINT)
    assert handle.poll() == -1


def test_a_run_itself_does_without_pandas_and_sparks_client(folders, tmp_path):
    """They are in its kernels, where they have uses; here pyarrow would import pandas, unless it can't be found."""
    shutil.rmtree(tmp_path / "landing")
    (tmp_path / "landing").mkdir()
    source = """
    import sys
    from gmv.cli import main
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 0
    assert "pyarrow" in sys.modules and not {"pandas", "pyspark"} & set(sys.modules)
    import pandas
    """
    command = [sys.executable, "-c", textwrap.dedent(source), "run", *folders]
    done = subprocess.run(command, capture_output=True, text=True, env=own_environment())
    assert done.returncode == 0, done.stderr


def test_the_last_kernel_is_the_process_that_the_others_were_forked_from(tmp_path, monkeypatch):
    notebook_with(
        tmp_path, monkeypatch, "import os\nfrom pathlib import Path\nPath(str(os.getppid())).touch()"
    )
    with kernels.Kernels(tmp_path, {}) as running:
        running.execute("one", tmp_path / "out.ipynb", {}, then="one")
        origin = the_origin()
        assert (tmp_path / str(origin.pid)).exists()
        running.execute("one", tmp_path / "out.ipynb", {})
        assert (tmp_path / str(os.getpid())).exists()
    assert not origin.is_running()


class Silent:
    """A program in a kernel's place that says nothing."""

    def __init__(self, seconds: int) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])

    def __call__(self, *_: object, **__: object) -> forking.Forked:
        return forking.Forked(self._process.pid)


@pytest.mark.parametrize(
    ("seconds", "said"), [(600, "it did not answer within 2 seconds"), (0, "it ended before it answered")]
)
def test_a_kernel_that_does_not_answer_is_a_clear_failure(tmp_path, monkeypatch, seconds, said):
    notebook_with(tmp_path, monkeypatch, "1")
    monkeypatch.setenv("GMV_KERNEL_START_SECONDS", "2")
    settings.cache_clear()
    silent = Silent(seconds)
    monkeypatch.setattr(forking.Origin, "fork", silent)
    with pytest.raises(GmvError, match=f"its kernel did not start: {said}"):
        run_notebook(tmp_path)
    assert silent._process.wait(timeout=20) <= 0


def test_what_a_forked_kernel_takes_of_a_processor_counts_as_the_runs(tmp_path, monkeypatch):
    """A kernel is killed, and its parent must have waited for it."""
    from measure import cpu_of_children  # benchmarks/measure.py

    notebook_with(tmp_path, monkeypatch, "import time\nwhile time.process_time() < 3: pass")
    before = cpu_of_children()
    with kernels.Kernels(tmp_path, {}) as running:
        running.execute("one", tmp_path / "out.ipynb", {}, then="one")
        running.execute("one", tmp_path / "out.ipynb", {})
    assert cpu_of_children() - before > 5


def test_without_the_process_to_fork_from_the_run_says_so(tmp_path, monkeypatch):
    notebook_with(tmp_path, monkeypatch, "1")
    with kernels.Kernels(tmp_path, {}) as running:
        the_origin().kill()
        with pytest.raises(GmvError, match="forked from has ended"):
            running.execute("one", tmp_path / "out.ipynb", {})
