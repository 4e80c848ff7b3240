"""Faults of the disk: what a user is told, what stays readable, and that nothing is lost by them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_lake
from command import GMV
from deltalake.exceptions import DeltaError
from gmv import doctor, progress, publication, recovery
from gmv.errors import GmvError
from gmv.lake import records
from gmv.lake.reader import Damaged, Reader
from gmv.run import runner
from gmv.tables import GMV_LEDGER, GOLD, PRODUCT_ITEM, PROGRESS, PURCHASE, SILVER

HEADER = ",".join(PURCHASE.column_names) + "\n"
ROW = "2023-02-03 00:00:00,2023-02-03,56,1223,3,2023-01-14,,619\n"


def gmv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command; whatever it says, it says without a stack trace."""
    done = subprocess.run([str(GMV), *arguments], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def lake(tmp_path) -> Path:
    """The sample's lake."""
    small_lake.write_sample(tmp_path / "lake")
    return tmp_path / "lake"


def a_parquet_file_of(lake: Path, table: str) -> Path:
    return sorted((lake / table).rglob("*.parquet"))[-1]


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(file: Path) -> None:
    file.unlink()


def scribble(file: Path) -> None:
    file.write_text("{ this is no commit")


@pytest.mark.parametrize("harm", [cut_short, remove, small_lake.garble])
@pytest.mark.parametrize(
    ("table", "advice"),
    [
        ("gold/daily_gmv", "`gmv rebuild` makes it anew from gold/daily_gmv_history."),
        ("silver/purchase", "`gmv rebuild` makes it anew from bronze."),
        ("gold/gmv_ledger", "bring it back from a backup; without one, `gmv rebuild` goes on"),
    ],
)
def test_a_damaged_parquet_file_is_named_with_what_to_do(lake, table, advice, harm):
    harm(a_parquet_file_of(lake, table))
    shown = gmv("show", table, "--lake", str(lake))
    assert shown.returncode == 1
    assert f"{table} can't be read" in shown.stderr and advice in shown.stderr
    examined = gmv("doctor", "--lake", str(lake))
    assert examined.returncode == 1
    assert f"NOT {table}" in examined.stdout
    assert examined.stdout.count("NOT ") == 1


def test_a_damaged_commit_is_named_with_what_to_do(lake):
    scribble(sorted((lake / "gold/daily_gmv/_delta_log").glob("*.json"))[-1])
    shown = gmv("show", "daily_gmv", "--lake", str(lake))
    assert shown.returncode == 1
    assert "gold/daily_gmv can't be read" in shown.stderr and "gmv rebuild" in shown.stderr


@pytest.mark.parametrize("table", [*SILVER, GMV_LEDGER], ids=lambda table: table.name)
def test_no_run_goes_on_from_a_commit_that_a_loss_of_power_left_empty(lake, table):
    small_lake.write(lake, table, [{}])
    small_lake.write(lake, table, [{}])
    recovery.finish_killed_run(lake)
    commits = sorted((lake / table.path / "_delta_log").glob("*.json"))
    commits[-1].write_text("")  # Delta takes the table to be as it was before
    for look in (recovery.finish_killed_run, lambda lake: Reader(lake).check(table)):
        with pytest.raises(
            Damaged, match=f"{table.path} can't be read: .*{commits[-1].name} is empty.*gmv rebuild"
        ):
            look(lake)


def test_a_table_that_is_gone_is_told_from_one_that_is_not_there_yet(lake):
    note = {"step": progress.SILVER, "bronze_run": "20230301T060000-0001", "run": "20230301T060000-0001"}
    small_lake.write(lake, PROGRESS, [note])
    assert [one.what for one in doctor._of_lake(lake) if not one.fit] == []
    shutil.rmtree(lake / "silver/purchase")
    shutil.rmtree(lake / "gold/gmv_ledger")
    assert {one.what: one.found for one in doctor._of_lake(lake) if not one.fit} == {
        "silver/purchase": "silver/purchase is missing, though runs have written it; "
        "`gmv rebuild` makes it anew from bronze.",
        "gold/gmv_ledger": "gold/gmv_ledger is missing, though runs have written it; bring it back from a "
        "backup; without one, `gmv rebuild` goes on without what is lost.",
    }


def test_damaged_records_are_to_be_brought_back_from_a_backup(lake):
    cut_short(a_parquet_file_of(lake, "bronze/purchase"))
    assert "backup" in gmv("show", "bronze/purchase", "--lake", str(lake)).stderr


def test_other_tables_stay_readable(lake):
    cut_short(a_parquet_file_of(lake, "silver/purchase"))
    assert len(publication.published(Reader(lake))) == 3
    with pytest.raises(Damaged, match="silver/purchase"):
        Reader(lake).rows("select * from silver.purchase")


def test_a_run_on_a_damaged_lake_ends_with_1_and_publishes_nothing(lake, tmp_path):
    (tmp_path / "landing").mkdir()
    before = sorted((lake / "gold/daily_gmv").rglob("*"))
    remove(a_parquet_file_of(lake, "gold/gmv_ledger"))
    places = ["--landing", str(tmp_path / "landing"), "--runs-dir", str(tmp_path / "runs")]
    ended = gmv("run", "--lake", str(lake), *places)
    assert ended.returncode == 1
    assert "gold/gmv_ledger can't be read" in ended.stderr
    assert sorted((lake / "gold/daily_gmv").rglob("*")) == before


def a_table_is_gone(lake: Path, runs: Path) -> None:
    shutil.rmtree(lake / "gold/gmv_ledger")


def test_a_table_that_was_brought_back_alone_stops_runs_until_it_is_made_up_for(lake, tmp_path):
    def take_in(run: str) -> None:
        small_lake.write(lake, PRODUCT_ITEM.versions, [{"purchase_id": "56", "run": run}])
        progress.note(lake, progress.Unfinished("silver", [run], 1, is_everything=False), run)

    take_in("r1")
    shutil.copytree(lake / "silver", tmp_path / "backup")
    take_in("r2")
    assert progress.gone_back(Reader(lake)) == []
    shutil.rmtree(lake / "silver")
    shutil.copytree(tmp_path / "backup", lake / "silver")
    with pytest.raises(GmvError, match=r"^silver/product_item_versions: older than .*`gmv rebuild`"):
        recovery.finish_killed_run(lake)
    for moment in (progress.BEGUN, progress.DONE):
        progress.note_rebuild(lake, "r3", moment)
    assert progress.gone_back(Reader(lake)) == []


@pytest.mark.parametrize("table", GOLD, ids=lambda table: table.name)
def test_gold_without_its_only_version_stops_runs(tmp_path, table):
    small_lake.write_sample(tmp_path)
    shutil.rmtree(tmp_path / "bronze")  # which nothing is noted of
    progress.note(tmp_path, progress.Unfinished("ledger", ["r1"], 1, is_everything=True), "r1")
    recovery.finish_killed_run(tmp_path)
    shutil.rmtree(tmp_path / table.path)
    assert progress.gone_back(Reader(tmp_path)) == [table]
    with pytest.raises(GmvError, match=rf"{table.path}.*Nothing was changed"):
        recovery.finish_killed_run(tmp_path)


def runs_folder_is_a_file(lake: Path, runs: Path) -> None:
    runs.write_text("no folder")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (a_table_is_gone, "The lake lacks gold/gmv_ledger"),
        (runs_folder_is_a_file, "Name another place by --runs-dir."),
    ],
)
def test_a_run_that_fails_before_its_first_notebook_is_on_record(lake, tmp_path, fault, said):
    landing, runs = tmp_path / "landing", tmp_path / "runs"
    landing.mkdir()
    (landing / "purchase-2.csv").write_text(HEADER + ROW)
    fault(lake, runs)
    ended = gmv("run", "--lake", str(lake), "--landing", str(landing), "--runs-dir", str(runs))
    assert ended.returncode == 1 and said in ended.stderr
    (noted,) = Reader(lake).rows("from monitoring.runs where event = 'ended' order by \"at\" desc limit 1")
    assert noted["outcome"] == "failed" and said in noted["message"]
    told = gmv("status", "--lake", str(lake), "--as-of-date", "2023-02-24")
    assert told.returncode == 1 and "BROKEN" in told.stdout and said in " ".join(told.stdout.split())


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_proof_or_a_report_without_a_folder_names_another_place(lake, tmp_path, command):
    runs_folder_is_a_file(lake, tmp_path / "runs")
    ended = gmv(command, "--lake", str(lake), "--runs-dir", str(tmp_path / "runs"))
    assert ended.returncode == 1 and "Name another place by --runs-dir." in " ".join(ended.stderr.split())


@pytest.fixture
def tiny_disk(tmp_path):
    """A folder on a disk of its own, which a test can fill or make read-only; for root on Linux."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_a_run_with_1_and_the_published_numbers_stay(tiny_disk, tmp_path):
    lake = tiny_disk / "lake"
    small_lake.write_sample(lake)
    before = publication.published(Reader(lake))
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "purchase.csv").write_text(HEADER + ROW * 200_000)
    filler = tiny_disk / "filler"
    free = os.statvfs(tiny_disk)
    filler.write_bytes(b"x" * max(0, free.f_bavail * free.f_frsize - 32_768))
    places = ["--landing", str(tmp_path / "landing"), "--runs-dir", str(tmp_path / "runs")]
    ended = gmv("run", "--lake", str(lake), *places)
    assert ended.returncode == 1
    assert "No space left" in ended.stderr
    assert publication.published(Reader(lake)) == before


def fill(disk: Path) -> None:
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize))


def test_a_disk_that_is_full_is_said_so_whoever_writes_to_it(tiny_disk, lake):
    moved = tiny_disk / "lake"
    shutil.copytree(lake, moved)
    fill(tiny_disk)
    for command in (
        ("export", "--lake", str(lake), "--to", str(tiny_disk / "out")),  # Python writes,
        ("maintain", "--lake", str(moved)),  # delta-rs does
    ):
        ended = gmv(*command)
        assert ended.returncode == 1
        assert "gmv: No space left on the disk" in ended.stderr and "make room" in ended.stderr


def test_what_ended_a_run_is_told_though_its_end_can_not_be_written(lake, tmp_path, monkeypatch, capsys):
    request = runner.Request(lake, tmp_path, tmp_path / "runs")
    with (
        pytest.raises(GmvError, match=r"^02_silver failed$"),
        runner._held(lake, "the test") as held,
        runner._record(request, "r9", "run").kept(held),
    ):
        monkeypatch.setattr(records, "append", full)
        raise GmvError("02_silver failed")
    assert "how the run ended could not be written everywhere: Failed to parse" in capsys.readouterr().err


def full(*_: object) -> None:
    raise DeltaError("Failed to parse parquet: External: No space left on device (os error 28)")


def test_a_read_only_lake_is_said_so(tiny_disk, tmp_path):
    lake = tiny_disk / "lake"
    small_lake.write_sample(lake)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    (tmp_path / "landing").mkdir()
    places = ["--landing", str(tmp_path / "landing"), "--runs-dir", str(tmp_path / "runs")]
    ended = gmv("run", "--lake", str(lake), *places)
    assert ended.returncode == 1
    assert "Read-only file system" in ended.stderr
    assert gmv("show", "daily_gmv", "--lake", str(lake)).returncode == 0
