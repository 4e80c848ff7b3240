"""Readers beside a writer, and writers beside each other, on real tables and real locks."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from gmv import explain, publication, show
from gmv.errors import LakeLocked, UsageError
from gmv.lake import lock, records
from gmv.lake.reader import Damaged, Reader, at_one_moment
from gmv.settings import PROJECT
from gmv.tables import DAILY_GMV, GMV_LEDGER, TABLES, Table

DAYS = [dt.date(2023, 3, 1) + dt.timedelta(n) for n in range(30)]


def publish(lake, gmv: str) -> None:
    rows = [
        {"transaction_date": day, "subsidiary": subsidiary, "gmv": Decimal(gmv)}
        for day in DAYS
        for subsidiary in ("int", "nac")
    ]
    marks = {"run": gmv, "ledger_seq": 1, "published_at": "2023-03-31T06:00:00"}
    records.replace_days(lake, DAYS, rows, marks)


def test_ten_readers_see_whole_days_of_one_publication_or_of_the_other(tmp_path):
    publish(tmp_path, "1.00")
    is_over = threading.Event()

    def look() -> tuple[int, list]:
        looks, torn = 0, []
        while not is_over.is_set() or not looks:
            published = publication.published(Reader(tmp_path))
            looks += 1
            if len(published) != 60 or len(set(published.values())) != 1:
                torn.append(published)
        return looks, torn

    with ThreadPoolExecutor(10) as pool:
        readers = [pool.submit(look) for _ in range(10)]
        for turn in range(10):
            publish(tmp_path, f"{2 + turn}.00")
        is_over.set()
        seen = [reader.result() for reader in readers]
    assert all(looks for looks, _ in seen)
    assert [torn for _, torn in seen if torn] == []


def test_a_reader_that_began_before_a_publication_stays_with_what_it_saw(tmp_path):
    publish(tmp_path, "1.00")
    reader = Reader(tmp_path)
    assert set(publication.published(reader).values()) == {Decimal("1.00")}
    publish(tmp_path, "2.00")
    assert set(publication.published(reader).values()) == {Decimal("1.00")}
    assert set(publication.published(Reader(tmp_path)).values()) == {Decimal("2.00")}


def test_a_lock_whose_holder_was_killed_is_taken_over(tmp_path):
    dies = (
        "import os, pathlib; from gmv.lake import lock;"
        "lock.acquire(pathlib.Path(os.environ['AT']), 'the dead run'); os._exit(9)"
    )
    died = subprocess.run([sys.executable, "-c", dies], env={**os.environ, "AT": str(tmp_path)})
    assert died.returncode == 9
    lock.acquire(tmp_path, "the next one").release()


def test_a_child_that_inherited_the_lock_keeps_it_when_its_run_lets_go(tmp_path):
    held = lock.acquire(tmp_path, "the run")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held.fd])
    try:
        held.release()
        with pytest.raises(LakeLocked, match="by the run"):
            lock.acquire(tmp_path, "too early")
    finally:
        child.communicate()
    lock.acquire(tmp_path, "the next one").release()


def test_a_run_that_ended_well_lets_go_for_its_idle_children_too(tmp_path):
    held = lock.acquire(tmp_path, "the run")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held.fd])
    try:
        held.release(for_all=True)
        lock.acquire(tmp_path, "the next one").release()
    finally:
        child.communicate()


def test_to_let_go_twice_lets_go_of_nothing_else(tmp_path):
    held = lock.acquire(tmp_path / "one", "run one")
    held.release()
    other = lock.acquire(tmp_path / "two", "run two")  # most likely under the number that is free now
    assert held.is_released
    held.release()
    with pytest.raises(LakeLocked, match="by run two"):
        lock.acquire(tmp_path / "two", "too early")
    other.release()


def test_a_lock_that_was_inherited_is_of_its_own_lake_alone(tmp_path, monkeypatch):
    one = lock.acquire(tmp_path / "one", "run one")
    for name, value in one.environment().items():
        monkeypatch.setenv(name, value)
    two = lock.acquire(tmp_path / "two", "run two")
    monkeypatch.undo()
    with pytest.raises(LakeLocked, match="by run two"):
        lock.acquire(tmp_path / "two", "too early")
    two.release()
    one.release()


def test_who_holds_the_lock_is_told_whatever_stood_there_before(tmp_path):
    lock.acquire(tmp_path, "a run whose name was longer").release()
    held = lock.acquire(tmp_path, "the run")
    with pytest.raises(LakeLocked, match=rf"by the run \(process {os.getpid()} on "):
        lock.acquire(tmp_path, "too early")
    held.release()


@pytest.mark.parametrize("noted", ["", "{", '{"holder": "half a note"}'])
def test_a_holder_who_has_not_noted_who_it_is_yet_is_another_run(tmp_path, noted):
    held = lock.acquire(tmp_path, "the run")
    (tmp_path / lock.LOCK_FILE).write_text(noted)
    with pytest.raises(LakeLocked, match="is being written by another run"):
        lock.ensure_free(tmp_path)
    held.release()


def test_a_lake_that_was_never_locked_is_free(tmp_path):
    lock.ensure_free(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/lake"])
def test_no_lake_is_made_of_a_file_or_below_one(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"/{place} is no folder: .* Name another by --lake"):
        lock.acquire(tmp_path / place, "the run")


def test_two_may_look_at_the_lock_at_once(tmp_path):
    lock.acquire(tmp_path, "a run before").release()
    with (tmp_path / lock.LOCK_FILE).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        lock.ensure_free(tmp_path)


def test_a_lock_that_was_inherited_is_its_parents_to_release(tmp_path, monkeypatch):
    held = lock.acquire(tmp_path, "the run")
    for name, value in held.environment().items():
        monkeypatch.setenv(name, value)
    lock.acquire(tmp_path, "its notebook").release(for_all=True)
    monkeypatch.undo()
    with pytest.raises(LakeLocked, match="by the run"):
        lock.acquire(tmp_path, "too early")
    held.release()


@pytest.mark.parametrize(("name", "is_kept"), [("gmv-spark-1", False), ("somebody's", True)])
def test_the_supervisor_removes_what_a_killed_owner_left_of_its_servers_folder(tmp_path, name, is_kept):
    scratch = tmp_path / name
    scratch.mkdir()
    (scratch / "blockmgr").mkdir()
    ended = subprocess.run(
        [sys.executable, PROJECT / "lib/gmv/lake/supervisor.py", "5", "/bin/sleep", "60"],
        stdin=subprocess.DEVNULL,
        cwd=scratch,
        timeout=60,
    )
    assert ended.returncode != 0 and scratch.exists() is is_kept


def test_who_only_looks_at_the_lock_does_not_turn_a_run_away(tmp_path):
    lock.acquire(tmp_path, "a run before").release()
    looking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_SH);"
            "print('looks', flush=True); time.sleep(0.2)",
            str(tmp_path / lock.LOCK_FILE),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with looking:
        assert looking.stdout.readline() == "looks\n"
        lock.acquire(tmp_path, "a run").release()


def test_a_lock_that_a_child_of_the_dead_holds_is_not_taken_over(tmp_path):
    """As by a Spark server that outlives its killed runner: the lake is free when it has ended, not before."""
    leaves = (
        "import os, pathlib, subprocess; from gmv.lake import lock;"
        "held = lock.acquire(pathlib.Path(os.environ['AT']), 'the dead run');"
        "child = subprocess.Popen(['/bin/sleep', '60'], pass_fds=[held.fd], stdout=-3, stderr=-3);"
        "print(child.pid); os._exit(9)"
    )
    died = subprocess.run(
        [sys.executable, "-u", "-c", leaves],
        env={**os.environ, "AT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    with pytest.raises(LakeLocked, match="the dead run"):
        lock.acquire(tmp_path, "too early")
    subprocess.run(["kill", "-9", died.stdout.strip()], check=True)
    lock.acquire(tmp_path, "the next one", wait_seconds=10).release()


def test_who_looks_at_several_tables_meanwhile_sees_all_of_them_at_one_moment(tmp_path, monkeypatch):
    publish(tmp_path, "1.00")
    looks, version = [], Reader.version

    def version_while_a_run_publishes(reader: Reader, table: Table) -> int | None:
        found = version(reader, table)
        if table is DAILY_GMV:
            looks.append(found)
            if len(looks) == 1:
                publish(tmp_path, "2.00")
        return found

    monkeypatch.setattr(Reader, "version", version_while_a_run_publishes)
    seen = at_one_moment(tmp_path).versions
    assert looks == [1, 2, 2] and set(seen) == {table.path for table in TABLES}
    assert seen[DAILY_GMV.path] == 2 and seen[GMV_LEDGER.path] is None


def test_what_is_published_is_in_the_history_before_its_run_has_noted_it(tmp_path):
    marks = {"run": "r1", "ledger_seq": 1, "published_at": "2023-03-31T06:00:00"}
    row = {"transaction_date": DAYS[0], "subsidiary": "nac", "gmv": Decimal("1.00")}
    records.replace_days(tmp_path, DAYS[:1], [row], marks)
    killed = publication.state(tmp_path)
    asked = "select * from gold.daily_gmv_history"
    seen = killed.rows(asked)
    by_then = show.rows(killed, DAILY_GMV, recorded_by=dt.datetime(2023, 3, 31, 7))
    assert by_then == [row] and Reader(tmp_path).rows(asked) == []
    assert publication.write_missing_history(tmp_path) == seen
    assert publication.state(tmp_path).rows(asked) == Reader(tmp_path).rows(asked) == seen
    (told,) = explain.days(killed, publication.Window(DAYS[0], DAYS[0]), DAYS[-1])[:1]
    assert (told.state, told.run) == ("published", "r1")


def test_a_damaged_table_is_told_of_to_none_but_those_who_ask_for_it(tmp_path):
    publish(tmp_path, "1.00")
    (tmp_path / GMV_LEDGER.path / "_delta_log").mkdir(parents=True)
    (tmp_path / GMV_LEDGER.path / "_delta_log" / f"{0:020}.json").write_text("{")
    seen = publication.state(tmp_path)
    assert len(publication.published(seen)) == 60
    with pytest.raises(Damaged, match="gold/gmv_ledger can't be read"):
        seen.rows("select * from gold.gmv_ledger")
