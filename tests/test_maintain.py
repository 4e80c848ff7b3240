"""Maintenance: fewer files, purchases side by side, the same rows; and when it is due."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import small_lake
from command import GMV, own_environment
from deltalake import DeltaTable
from gmv import maintain, monitoring
from gmv.errors import GmvError, LakeLocked, UsageError
from gmv.lake import faults, lock, pruning, records
from gmv.lake.lake import Lake
from gmv.lake.reader import Reader
from gmv.run import runner
from gmv.settings import settings
from gmv.tables import CHECK_RESULTS, FILES, GMV_LEDGER, PURCHASE, RUNS, TABLES


def request(lake: Path) -> runner.Request:
    return runner.Request(lake, lake.parent / "landing", lake.parent / "runs")


def showing(_: str) -> contextlib.nullcontext:
    return contextlib.nullcontext()


def rows_of_all_tables(lake) -> dict[str, list[dict]]:
    """Every row of every table, in a fixed order; the record of runs aside, which maintenance adds to."""
    reader = Reader(lake)
    return {
        table.path: sorted(reader.rows(f'select * from {table.layer}."{table.name}"'), key=repr)
        for table in TABLES
        if table != RUNS
    }


def files(lake, table) -> int:
    return len(DeltaTable(lake / table.path).file_uris())


def posting(purchase_id: int, seq: int) -> dict:
    return {
        "purchase_id": str(purchase_id),
        "transaction_date": dt.date(2023, 2, 1),
        "subsidiary": "nacional",
        "amount": Decimal("9.99"),
        "purchases": 1,
        "known_on": dt.date(2023, 2, 1),
        "reason": "paid",
        "ledger_seq": seq,
        "run": f"run {seq}",
    }


def scattered(lake, batches: int = 8, each: int = 500) -> None:
    """Postings of purchases that lie scattered: each batch, in a file of its own, has ids from all over."""
    for seq in range(batches):
        rows = [posting(1_000_000 + number * batches + seq, seq) for number in range(each)]
        small_lake.write(lake, GMV_LEDGER, rows)


def test_rows_stay_the_same_and_files_get_fewer(tmp_path):
    small_lake.write_sample(tmp_path / "lake")
    scattered(tmp_path / "lake")
    for _ in range(5):
        small_lake.write(tmp_path / "lake", CHECK_RESULTS, [{"run": "r", "check": "c"}])
    before = rows_of_all_tables(tmp_path / "lake")
    assert files(tmp_path / "lake", CHECK_RESULTS) == 5

    done = runner.maintain(request(tmp_path / "lake"), showing)

    assert rows_of_all_tables(tmp_path / "lake") == before
    assert files(tmp_path / "lake", CHECK_RESULTS) == 1
    assert files(tmp_path / "lake", GMV_LEDGER) == 1
    told = {one["table"]: one for one in done}
    assert (told["gold/gmv_ledger"]["files_before"], told["gold/gmv_ledger"]["files"]) == (9, 1)
    assert told["gold/gmv_ledger"]["rows"] == 4_004


def test_purchases_that_lay_scattered_are_side_by_side_afterwards(tmp_path, monkeypatch):
    scattered(tmp_path, each=20_000)
    monkeypatch.setattr(maintain, "FILE_BYTES", 40_000)
    assert maintain.unclustered_share(described(tmp_path)) > 0.8
    maintain.maintain(tmp_path)
    assert files(tmp_path, GMV_LEDGER) > 2
    assert maintain.unclustered_share(described(tmp_path)) == 0


def test_two_small_files_become_one_and_the_log_is_summed_up(tmp_path):
    for run in ("a", "b"):
        small_lake.write(tmp_path, CHECK_RESULTS, [{"run": run}])
    maintain.maintain(tmp_path)
    assert files(tmp_path, CHECK_RESULTS) == 1
    assert len([*(tmp_path / CHECK_RESULTS.path).glob("_delta_log/*.checkpoint.parquet")]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_maintenance_that_is_stopped_is_recorded_and_the_lake_is_free(tmp_path, monkeypatch, number):
    small_lake.write_sample(tmp_path / "lake")
    monkeypatch.setattr(maintain, "maintain", lambda lake: signal.raise_signal(number))
    with pytest.raises(GmvError, match="Interrupted: what was committed stays"):
        runner.maintain(request(tmp_path / "lake"), showing)
    (row,) = Reader(tmp_path / "lake").rows(
        "select kind, outcome from monitoring.runs where event = 'ended' order by \"at\" desc limit 1"
    )
    assert row == {"kind": "maintain", "outcome": "interrupted"}
    lock.ensure_free(tmp_path / "lake")


def test_rows_that_were_lost_on_the_way_are_told(tmp_path, monkeypatch):
    scattered(tmp_path, batches=2, each=5)
    monkeypatch.setattr(maintain, "_arrange", lambda delta, table, files: delta.delete("ledger_seq = 1"))
    with pytest.raises(GmvError, match=r"gold/gmv_ledger: 10 rows became 5 while it was maintained"):
        maintain.maintain(tmp_path)


def cut_short(file: Path) -> None:
    file.write_bytes(b"PAR1 nothing PAR1")


@pytest.mark.parametrize("harm", [Path.unlink, cut_short, small_lake.garble])
@pytest.mark.parametrize("table", [GMV_LEDGER, CHECK_RESULTS], ids=lambda table: table.path)
def test_a_table_that_can_not_be_read_is_named_with_what_to_do(tmp_path, table, harm):
    for value in ("a", "b"):
        small_lake.write(tmp_path, table, [{table.column_names[0]: value}])
    harm(Path(DeltaTable(tmp_path / table.path).file_uris()[0]))
    with pytest.raises(GmvError, match=rf"^{table.path} can't be read: .* from a backup"):
        maintain.maintain(tmp_path)


def test_a_table_whose_log_can_not_be_read_is_named_with_what_to_do(tmp_path):
    small_lake.write(tmp_path, GMV_LEDGER, [{"run": "a"}])
    (commit,) = (tmp_path / GMV_LEDGER.path / "_delta_log").glob("*.json")
    commit.write_text("{ this is no commit")
    with pytest.raises(GmvError, match=r"^gold/gmv_ledger can't be read: .* from a backup"):
        maintain.maintain(tmp_path)


def test_a_sort_that_needs_more_memory_than_it_may_take_says_so_and_changes_nothing(tmp_path, monkeypatch):
    scattered(tmp_path, each=20_000)
    monkeypatch.setattr(maintain, "sorting_bytes", lambda: 2**20)
    before = described(tmp_path)
    with pytest.raises(GmvError, match=r"gold/gmv_ledger is as it was: .* the 1 MiB .* GMV_SPARK_MEMORY_MIB"):
        maintain.maintain(tmp_path)
    assert described(tmp_path) == before


def test_all_sorts_together_take_no_more_than_spark_may(monkeypatch):
    monkeypatch.setenv("GMV_SPARK_MEMORY_MIB", "6144")
    settings.cache_clear()
    assert maintain.sorting_bytes() * maintain.AT_THE_SAME_TIME == 6 * 2**30
    settings.cache_clear()


def test_tables_whose_rows_change_have_smaller_files(tmp_path, monkeypatch):
    for number in range(4):
        rows = [{"purchase_id": str(one), "buyer_id": one} for one in range(number, 80_000, 4)]
        for table in (PURCHASE.latest, PURCHASE.versions):
            small_lake.write(tmp_path, table, rows)
    monkeypatch.setattr(maintain, "FILE_BYTES", 800_000)
    monkeypatch.setattr(maintain, "LATEST_FILE_BYTES", 80_000)
    maintain.maintain(tmp_path)
    assert files(tmp_path, PURCHASE.latest) > files(tmp_path, PURCHASE.versions)


def described(lake) -> list[dict]:
    return pa.table(DeltaTable(lake / GMV_LEDGER.path).get_add_actions(flatten=True)).to_pylist()


@pytest.mark.parametrize(
    "ranges, share",
    [
        ([("1", "3"), ("4", "6")], 0),
        ([("1", "3"), ("3", "6")], 0.5),
        ([(None, None), ("1", "2")], 0.5),
    ],
)
def test_files_whose_ids_overlap_are_unclustered(ranges, share):
    told = [{"num_records": 10, "min.purchase_id": low, "max.purchase_id": high} for low, high in ranges]
    assert maintain.unclustered_share(told) == share


def test_files_that_no_table_uses_are_removed_after_a_week_and_not_before(tmp_path):
    scattered(tmp_path)
    folder = tmp_path / GMV_LEDGER.path
    replaced = set(folder.glob("*.parquet"))
    left_by_killed_writes = {days: folder / f"part-{days}.parquet" for days in (6, 8)}
    for days, path in left_by_killed_writes.items():
        path.write_bytes(b"PAR1")
        os.utime(path, (time.time() - days * 86_400,) * 2)
    maintain.maintain(tmp_path)
    assert all(path.exists() for path in replaced), "a reader may still have them open"
    assert left_by_killed_writes[6].exists()
    assert not left_by_killed_writes[8].exists()


def test_maintenance_is_on_record_and_waits_for_no_other_run(tmp_path):
    small_lake.write_sample(tmp_path)
    runner.maintain(request(tmp_path), showing)
    (ended,) = Reader(tmp_path).rows(
        "select kind, outcome from monitoring.runs where kind = 'maintain' and event = 'ended'"
    )
    assert ended == {"kind": "maintain", "outcome": "succeeded"}

    held = lock.acquire(tmp_path, "another run")
    try:
        os.environ.pop("GMV_LOCK_FD", None)
        with pytest.raises(LakeLocked, match="another run"):
            runner.maintain(request(tmp_path), showing)
    finally:
        held.release()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "table", [PURCHASE.bronze, PURCHASE.versions, GMV_LEDGER], ids=lambda table: table.path
)
def test_killed_at_a_commit_it_changes_nothing_and_the_next_one_ends_well(tmp_path, table, moment):
    lake, paused = tmp_path / "lake", tmp_path / "paused"
    small_lake.write_sample(lake)
    before = rows_of_all_tables(lake)
    command = [str(GMV), "maintain", "--lake", str(lake), "--runs-dir", str(tmp_path / "runs")]
    stop = {faults.PAUSE_AT: f"runner {moment} {table.path}", faults.PAUSE_FILE: str(paused)}
    killed = subprocess.Popen(command, env=own_environment(**stop))
    while not paused.exists():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert rows_of_all_tables(lake) == before
    assert subprocess.run(command, env=own_environment(), capture_output=True).returncode == 0
    assert rows_of_all_tables(lake) == before


def test_it_is_due_after_so_many_runs_since_the_last_time(tmp_path, monkeypatch):
    monkeypatch.setenv("GMV_MAINTAIN_EVERY", "2")
    settings.cache_clear()
    small_lake.write_sample(tmp_path, run="first")
    told = [maintain.is_due(Reader(tmp_path))]
    for day, kind in enumerate(["run", "maintain", "run", "retract", "run", "maintain", "run"], start=2):
        ended = {"run": f"of-{day}", "kind": kind, "event": "ended", "outcome": "succeeded"}
        small_lake.write(tmp_path, RUNS, [{**ended, "at": dt.datetime(2023, 3, day)}])
        told.append(maintain.is_due(Reader(tmp_path)))
    assert told == [False, True, False, False, False, True, False, False]


def test_runs_that_find_nothing_new_count_and_maintain_the_tables_when_it_is_due(tmp_path, monkeypatch):
    monkeypatch.setenv("GMV_MAINTAIN_EVERY", "2")
    settings.cache_clear()
    of_one = request(tmp_path / "lake")
    of_one.landing.mkdir()
    outcomes = "select kind from monitoring.runs where event = 'ended' order by \"at\""
    for _ in range(3):
        assert runner.run(of_one, showing).outcome == "nothing_new"
    reader = Reader(of_one.lake)
    assert [row["kind"] for row in reader.rows(outcomes)] == ["run", "run", "maintain", "run"]
    assert len(reader.files(RUNS)) == 4, (
        "all up to the start of maintenance are one; its end and a run came after it"
    )


def test_it_is_never_due_by_itself_where_that_is_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv("GMV_MAINTAIN_EVERY", "0")
    settings.cache_clear()
    small_lake.write_sample(tmp_path)
    assert not maintain.is_due(Reader(tmp_path))


@pytest.mark.parametrize(("kind", "last", "is_due"), [("run", "failed", False), ("maintain", "failed", True)])
def test_what_failed_neither_makes_it_due_nor_is_it_done(tmp_path, monkeypatch, kind, last, is_due):
    monkeypatch.setenv("GMV_MAINTAIN_EVERY", "2")
    settings.cache_clear()
    small_lake.write_sample(tmp_path, run="one")
    ended = {"run": "two", "kind": "run", "event": "ended", "outcome": "succeeded"}
    if kind == "maintain":
        small_lake.write(tmp_path, RUNS, [{**ended, "at": dt.datetime(2023, 3, 2)}])
    small_lake.write(
        tmp_path,
        RUNS,
        [{**ended, "run": "three", "kind": kind, "outcome": last, "at": dt.datetime(2023, 3, 3)}],
    )
    assert maintain.is_due(Reader(tmp_path)) is is_due


def test_a_large_file_that_many_small_ones_overlap_is_the_one_that_is_kept():
    small = [{"num_records": 1, "min.purchase_id": f"{n}", "max.purchase_id": f"{n}"} for n in range(1, 6)]
    large = {"num_records": 95, "min.purchase_id": "1", "max.purchase_id": "5"}
    assert maintain.unclustered_share([*small, large]) == 0.05


# --- What a run reads is what it brought ---------------------------------------------------------------


def test_reader_of_runs_opens_only_files_that_may_hold_their_rows(tmp_path):
    scattered(tmp_path, batches=3, each=10)
    reader = Reader(tmp_path)
    assert reader.rows("select count(*) as n from gold.gmv_ledger") == [{"n": 30}]
    of_one = reader.of_runs(["run 1"])
    assert of_one.rows("select distinct run from gold.gmv_ledger") == [{"run": "run 1"}]
    assert reader.of_runs(["run 7"]).rows("select count(*) as n from gold.gmv_ledger") == [{"n": 0}]
    maintain.maintain(tmp_path)
    merged = Reader(tmp_path).of_runs(["run 1"])
    assert merged.rows("select count(*) as n from gold.gmv_ledger where run = 'run 1'") == [{"n": 10}]


def test_reader_near_some_purchases_opens_only_files_that_may_hold_them(tmp_path):
    for run, ids in (("run 1", range(100, 110)), ("run 2", range(500, 510))):
        brought = [{"purchase_id": str(one), "run": run} for one in ids]
        small_lake.write(tmp_path, PURCHASE.versions, brought)
    reader = Reader(tmp_path)

    def ids_near(*ids: str) -> set[str]:
        near = Reader(tmp_path).near(pruning.id_ranges(ids))
        return {row["purchase_id"] for row in near.rows("from silver.purchase_versions")}

    assert ids_near("105") == {str(one) for one in range(100, 110)}
    assert (
        ids_near("105", "507") == ids_near() == ids_near("no number") == {*ids_near("105"), *ids_near("507")}
    )
    assert ids_near("300") == set()
    assert reader.near(pruning.id_ranges(["105"])).rows("from bronze.purchase") == []  # no such table yet

    for wanted in ({"purchase_id": pruning.id_ranges(["105"])}, {"run": pruning.exactly(["run 2"])}):
        assert reader.sql(reader.select(PURCHASE.versions, wanted)).shape[0] == 10
    assert reader.sql(reader.select(PURCHASE.versions, {"purchase_id": []})).shape[0] == 20


@pytest.mark.parametrize("name", ["lake", "my {lake}* 100%?"])
def test_spark_reads_the_files_of_the_newest_version_whatever_the_folder_is_called(tmp_path, spark, name):
    for batch in (["1", "2"], ["3"]):
        small_lake.write(tmp_path / name, PURCHASE.versions, [{"purchase_id": one} for one in batch])
    lake = Lake(tmp_path / name, spark)

    def ids(near: Sequence[tuple[str, str]] = ()) -> list[str]:
        return sorted(row.purchase_id for row in lake.read(PURCHASE.versions, near).collect())

    assert ids() == ["1", "2", "3"]
    assert ids([("2", "2")]) == ["2"]
    DeltaTable(tmp_path / name / PURCHASE.versions.path).delete("purchase_id = '1'")
    assert ids() == ["2", "3"]
    assert lake.read(PURCHASE.latest).collect() == []


@pytest.mark.parametrize(
    ("name", "unfit"),
    [
        ("my [own] lake", "[ ]"),
        ("50%25", "%25"),
        ("all*", "*"),
        ("two\nlines", "'\\n'"),
    ],
)
def test_a_folder_that_delta_rs_can_not_write_below_is_refused_in_a_sentence(tmp_path, name, unfit):
    with pytest.raises(UsageError, match=re.escape(f"can't write below a folder with {unfit} in its name")):
        lock.acquire(tmp_path / name, "the test")
    assert not list(tmp_path.iterdir())


def test_bronze_counts_add_what_each_run_brought_once(tmp_path):
    def arrive(run: str, *days: str) -> None:
        brought = [{"transaction_date": day, "purchase_id": "1", "run": run} for day in days]
        small_lake.write(tmp_path, PURCHASE.bronze, brought)
        small_lake.write(tmp_path, FILES, [{"path": f"{run}.csv", "run": run, "outcome": "ingested"}])

    def counted(reader: Reader) -> list[tuple]:
        noted = monitoring.note_counts(reader, "bronze", "the caller")
        return [(row["run"], str(row["day"]), row["records"]) for row in noted]

    arrive("run 1", "2023-02-01", " 2023-02-01 ", "nonsense")
    assert counted(Reader(tmp_path)) == [("run 1", "2023-02-01", 2), ("run 1", "None", 1)]
    assert counted(Reader(tmp_path)) == []
    arrive("run 2", "2023-02-01")  # killed before it noted its counts
    arrive("run 3", "2023-02-01", "2023-02-02")
    assert counted(Reader(tmp_path)) == [
        ("run 2", "2023-02-01", 3),
        ("run 3", "2023-02-01", 4),
        ("run 3", "2023-02-02", 1),
    ]
    assert counted(Reader(tmp_path)) == []


# --- Writing without Spark ------------------------------------------------------------------------------


def test_no_rows_are_no_commit(tmp_path):
    records.append(tmp_path, FILES, [])
    assert not (tmp_path / FILES.path).exists()


def test_no_minima_and_maxima_of_amounts_are_kept(tmp_path):
    rows = pa.Table.from_pylist([posting(1, 1)], records.arrow_schema(GMV_LEDGER))
    records.append_columns(tmp_path, GMV_LEDGER, rows)
    (file,) = described(tmp_path)
    assert "min.purchase_id" in file
    assert "min.amount" not in file
    assert records.count(tmp_path, GMV_LEDGER) == 1
