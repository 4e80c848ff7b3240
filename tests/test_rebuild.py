"""Rebuild: a lake that is right stays as it is; a changed rule is posted as such; damage is repaired."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import small_lake
from deltalake import DeltaTable
from gmv import identity, monitoring, progress, publication, rebuild, silver
from gmv.errors import GmvError
from gmv.lake import location
from gmv.lake.lake import Lake
from gmv.lake.reader import Damaged, Reader, data_files
from gmv.lake.unfinished import Unfinished
from gmv.rebuild import Rebuilt
from gmv.tables import (
    DAILY_GMV,
    DAILY_GMV_HISTORY,
    GMV_LEDGER,
    PRODUCT_ITEM,
    PURCHASE,
    PURCHASE_EXTRA_INFO,
    QUARANTINE,
    TABLES,
    Table,
)
from gmv.verify import verify
from pipeline import TestLake

TODAY = dt.date(2030, 1, 1)
SHOW = contextlib.nullcontext

FIRST = """
    purchase 03-10T08:00 1 paid
    item     03-10T08:00 1 2 10.00
    info     03-10T08:00 1 nac
    purchase 03-11T08:00 2 paid
    item     03-11T08:00 2 1 7.77
    purchase 03-12T08:00 3 paid
    item     03-12T08:00 3 1 3.00
    """
BAD = """
    transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
    2023-03-10 08:00:00,2023-03-10,1,,2,10.00
    2023-03-10 09:00:00,2023-03-10,1,,-2,10.00
    2023-03-10 08:00:00,2023-03-10,4,,1,1000.00
    """


@pytest.fixture(scope="module")
def once_used(tmp_path_factory, spark) -> Path:
    """The folder of a lake with copies, quarantine, a retracted file and a pending day."""
    folder = tmp_path_factory.mktemp("used")
    lake = TestLake(folder)
    lake.arrive("1", FIRST)
    lake.put("product_item-2.csv", BAD)
    lake.run()
    lake.arrive("3", "item 03-13T08:00 1 2 11.00\n purchase 03-09T08:00 4 paid\n info 03-13T08:00 2 nac")
    lake.retract("product_item-2.csv")
    lake.run(start_date="2023-03-11", end_date="2023-03-11")
    return folder


@pytest.fixture
def used(once_used, tmp_path) -> TestLake:
    """A copy of that lake."""
    lake = TestLake(tmp_path)
    shutil.copytree(once_used, tmp_path, dirs_exist_ok=True)
    return lake


def rebuilt(lake: TestLake, spark) -> Rebuilt:
    return rebuild.rebuild(Lake(lake.path, spark), identity.new_run_id(), lambda _: SHOW())


def contents(lake: TestLake) -> dict[str, list[str]]:
    """Every row of silver and gold."""
    tables = [table for table in TABLES if table.layer in ("silver", "gold")]
    rows = {table.path: lake.reader.rows(f"select * from {table.layer}.{table.name}") for table in tables}
    return {path: sorted(map(str, found)) for path, found in rows.items()}


def delta_versions(lake: TestLake) -> dict[str, int]:
    tables = [table.path for table in TABLES if table.layer in ("silver", "gold")]
    return {path: DeltaTable(lake.path / path).version() for path in tables}


def test_a_lake_that_is_right_stays_as_it_is(used, spark):
    whole, versions = contents(used), delta_versions(used)
    pending = publication.plan(used.reader, publication.Window(), TODAY).publish
    assert pending == [dt.date(2023, 3, 10)]
    done = rebuilt(used, spark)
    assert {row["outcome"] for row in done.tables} == {"as before"}
    assert (done.posted["postings"], done.repaired) == (0, [])
    assert contents(used) == whole
    assert delta_versions(used) == versions, "not even a commit"
    assert publication.plan(used.reader, publication.Window(), TODAY).publish == pending
    assert not (used.path / rebuild.BESIDE).exists()
    assert verify(used.reader, TODAY).agrees

    used.arrive("4", "purchase 03-14T08:00 5 paid\n item 03-14T08:00 5 1 5.00")
    used.run(notebooks=("01_bronze",))
    used.retract("product_item-2.csv", undo=True)
    assert rebuilt(used, spark).posted["postings"] == 2, "what was left is taken in"
    posted = used.reader.rows("select purchase_id, cause from gold.gmv_ledger where ledger_seq = 3")
    assert {(row["purchase_id"], row["cause"]) for row in posted} == {("5", "event"), ("4", "undo")}
    assert progress.unfinished(used.reader, "silver").runs == []
    assert progress.unfinished(used.reader, "ledger").runs == []
    assert [monitoring.changed_counts(used.reader, layer) for layer in ("silver", "gold")] == [[], []]
    assert verify(used.reader, TODAY).agrees


def nac_becomes_nacional(monkeypatch) -> None:
    """The rule of tomorrow: subsidiary `nac` is called `nacional`."""
    versions = silver.versions

    def renaming(read, event):
        found = versions(read, event)
        if event.name != "purchase_extra_info":
            return found
        return found.replace({"nac": "nacional"}, subset=["subsidiary"])

    monkeypatch.setattr(silver, "versions", renaming)


def test_a_changed_rule_is_posted_now_as_a_rule_and_published_by_the_next_run(used, spark, monkeypatch):
    published = used.published()
    nac_becomes_nacional(monkeypatch)
    done = rebuilt(used, spark)
    assert {row["table"]: row["outcome"] for row in done.tables if row["outcome"] != "as before"} == {
        "silver/purchase_extra_info_versions": "replaced",
        "silver/purchase_extra_info": "replaced",
    }
    rows = used.reader.rows(
        "select * from gold.gmv_ledger where ledger_seq = $seq", seq=done.posted["ledger_seq"]
    )
    assert {(row["purchase_id"], row["subsidiary"], row["cause"]) for row in rows} == {
        ("1", "nac", "rule"),
        ("1", "nacional", "rule"),
        ("2", "nac", "rule"),
        ("2", "nacional", "rule"),
    }
    assert {(row["purchase_id"], str(row["known_on"])) for row in rows} == {
        ("1", "2023-03-10"),
        ("1", "2023-03-13"),
        ("2", "2023-03-13"),
    }, "each keeps the day of what it corrects"
    assert used.published() == published, "a rebuild publishes nothing"
    results = used.run(notebooks=("03_gold",))["results"]
    assert results == {"2023-03-10": "published", "2023-03-11": "published"}
    assert used.published() == [
        "2023-03-10 nacional 22.00",
        "2023-03-11 nacional 7.77",
        "2023-03-12 unknown 3.00",
    ]


def test_what_arrived_before_a_rule_changed_is_posted_beside_it_as_an_event(used, spark, monkeypatch):
    nac_becomes_nacional(monkeypatch)
    used.arrive("4", "purchase 03-14T08:00 5 paid\n item 03-14T08:00 5 1 5.00\n info 03-14T08:00 5 nac")
    used.run(notebooks=("01_bronze",))
    done = rebuilt(used, spark)
    posted = used.reader.rows(
        "select distinct purchase_id, cause from gold.gmv_ledger where ledger_seq = $seq order by all",
        seq=done.posted["ledger_seq"],
    )
    assert [(row["purchase_id"], row["cause"]) for row in posted] == [
        ("1", "rule"),
        ("2", "rule"),
        ("5", "event"),
    ]


def test_tables_that_are_missing_or_damaged_are_made_anew(used, spark):
    used.arrive("4", "item 03-14T08:00 2 1 -7.00")
    used.run(notebooks=("01_bronze", "02_silver"))
    whole = contents(used)
    assert len(whole["silver/quarantine"]) == 1
    shutil.rmtree(used.path / PURCHASE.latest.path)
    a_file_of(used.path / QUARANTINE.path).unlink()
    a_file_of(used.path / PRODUCT_ITEM.versions.path).unlink()
    a_file_of(used.path / PRODUCT_ITEM.latest.path).write_bytes(b"PAR1 nothing PAR1")
    shutil.rmtree(used.path / PURCHASE.versions.path / "_delta_log")
    a_file_of(used.path / DAILY_GMV.path).unlink()
    newest_commit(used.path / PURCHASE_EXTRA_INFO.versions.path).write_text("")
    DeltaTable(used.path / GMV_LEDGER.path).create_checkpoint()
    next((used.path / GMV_LEDGER.path).glob("_delta_log/*.checkpoint.parquet")).write_bytes(
        b"PAR1 nothing PAR1"
    )
    with pytest.raises(GmvError, match=r"lacks silver/purchase_versions, silver/purchase, .*gmv rebuild"):
        used.run()
    done = rebuilt(used, spark)
    assert {row["table"] for row in done.tables if row["outcome"] == "restored"} == {
        "silver/purchase_versions",
        "silver/purchase",
        "silver/product_item_versions",
        "silver/product_item",
        "silver/quarantine",
    }
    assert [row["table"] for row in done.tables if row["outcome"] == "replaced"] == [
        "silver/purchase_extra_info_versions"
    ]
    went_back, opened, restored = done.repaired
    assert opened.startswith("gold/gmv_ledger was opened by its commits")
    assert went_back.startswith("silver/purchase_extra_info_versions went back to before its commit 1")
    assert restored.startswith("gold/daily_gmv was restored to what its history says was published, 3 rows")
    assert contents(used) == whole
    assert done.posted["postings"] == 0
    assert verify(used.reader, TODAY).agrees


def test_a_ledger_and_a_history_that_lost_files_go_on_without_their_past(used, spark):
    published = used.published()
    a_file_of(used.path / GMV_LEDGER.path).unlink()
    a_file_of(used.path / DAILY_GMV_HISTORY.path).unlink()
    done = rebuilt(used, spark)
    assert done.posted["postings"] > 0, "what the lost file held is posted anew"
    assert [said.split(" its files")[0] for said in done.repaired] == [
        "gold/gmv_ledger went on without 1 of",
        "gold/daily_gmv_history went on without 1 of",
    ]
    assert used.published() == published
    certificate = verify(used.reader, TODAY)
    assert {one.name for one in certificate.comparisons if not one.agrees} <= {"history"}, "sums are right"


def test_a_rebuild_that_is_killed_after_it_gave_up_a_part_of_the_history_keeps_what_was_published(
    used, spark, monkeypatch
):
    published = used.published()
    last = used.reader.rows("select run from gold.daily_gmv_history order by published_at desc limit 1")
    file_of_an_older_run = next(
        Path(file)
        for file in data_files(DeltaTable(used.path / DAILY_GMV_HISTORY.path))
        if pq.read_table(file)["run"][0].as_py() != last[0]["run"]
    )
    file_of_an_older_run.unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rebuild, "_build", killed)
        rebuilt(used, spark)
    with pytest.raises(GmvError, match="A rebuild of this lake was killed"):
        used.run()
    rebuilt(used, spark)
    assert used.published() == published
    assert progress.unfinished_rebuilds(used.reader, progress.HISTORY_LOST) == []


def test_a_history_that_is_gone_stops_runs_and_a_rebuild_says_what_that_means(used, spark):
    published = used.published()
    shutil.rmtree(used.path / DAILY_GMV_HISTORY.path)
    with pytest.raises(GmvError, match=r"^gold/daily_gmv_history: .*gone.*`gmv rebuild`"):
        used.run()
    (said,) = rebuilt(used, spark).repaired
    assert said.startswith("gold/daily_gmv_history was older, or gone")
    assert used.published() == published
    used.run(notebooks=("03_gold",))


def newest_commit(folder: Path) -> Path:
    return max(folder.glob("_delta_log/*.json"))


def a_file_of(folder: Path) -> Path:
    """A parquet file that the table needs."""
    return Path(data_files(DeltaTable(folder))[0])


def test_a_killed_rebuild_is_done_again(used, spark, monkeypatch):
    published, history = used.published(), used.reader.rows("select * from gold.daily_gmv_history")
    change(used, PRODUCT_ITEM.latest, "purchase_value = cast(0.01 as decimal(18, 2))", "purchase_id = '1'")
    change(used, DAILY_GMV, "gmv = cast(9.99 as decimal(38, 2))", "transaction_date = '2023-03-12'")
    assert not verify(used.reader, TODAY).agrees
    with pytest.raises(GmvError, match=r"gold/daily_gmv is damaged: 2023-03-12.*gmv rebuild"):
        used.run()
    swap_in = Lake.swap_in

    def killed(self, table, rows):
        swap_in(self, table, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "swap_in", killed)
        with pytest.raises(KeyboardInterrupt):
            rebuilt(used, spark)
    with pytest.raises(GmvError, match="A rebuild of this lake was killed"):
        used.run()
    (said,) = rebuilt(used, spark).repaired
    assert "2023-03-12 (unknown) holds 9.99, but 3.00 was published" in said
    assert used.published() == published
    assert used.reader.rows("select * from gold.daily_gmv_history") == history
    assert progress.unfinished_rebuilds(used.reader) == []
    assert verify(used.reader, TODAY).agrees
    used.run(notebooks=("03_gold",))
    assert used.published()[0] == "2023-03-10 nac 22.00"


def change(lake: TestLake, table: Table, assignment: str, where: str) -> None:
    """Change a table as no run does."""
    column, value = assignment.split(" = ", 1)
    changed = DeltaTable(lake.path / table.path).update(updates={column: value}, predicate=where)
    assert changed["num_updated_rows"] == 1


# --- Damage of gold alone, without Spark -----------------------------------------------------------------------


def lose_a_file(table: Path) -> None:
    a_file_of(table).unlink()


def cut_a_file_short(table: Path) -> None:
    a_file_of(table).write_bytes(b"PAR1 nothing PAR1")


def garble_a_page(table: Path) -> None:
    small_lake.garble(a_file_of(table))


def lose_the_log(table: Path) -> None:
    shutil.rmtree(table / "_delta_log")


def scribble_over_the_log(table: Path) -> None:
    for commit in (table / "_delta_log").glob("*.json"):
        commit.write_text("{ this is no commit")


@pytest.mark.parametrize(
    "harm", [shutil.rmtree, lose_a_file, cut_a_file_short, garble_a_page, lose_the_log, scribble_over_the_log]
)
def test_daily_gmv_is_restored_to_what_was_published(tmp_path, harm):
    lake = tmp_path / "a lake"
    small_lake.write_sample(lake)
    published = publication.published(Reader(lake))
    harm(lake / DAILY_GMV.path)
    (said,) = rebuild._restore_daily_gmv(lake, "r1", is_history_whole=True)
    assert said.startswith("gold/daily_gmv was restored to what its history says was published, 3 rows: ")
    assert publication.published(Reader(lake)) == published
    is_set_aside = harm in (lose_the_log, scribble_over_the_log)
    assert (lake / rebuild.DAMAGED / "r1" / DAILY_GMV.path).exists() is is_set_aside
    assert rebuild._restore_daily_gmv(lake, "r1", is_history_whole=True) == []


def test_what_was_published_stays_where_no_history_of_it_is_left(tmp_path):
    """Not even the commit says which run published it."""
    small_lake.write_sample(tmp_path)
    published = publication.published(Reader(tmp_path))
    shutil.rmtree(tmp_path / DAILY_GMV_HISTORY.path)
    assert rebuild._restore_daily_gmv(tmp_path, "r1", is_history_whole=True) == []
    assert publication.published(Reader(tmp_path)) == published


def test_a_record_that_does_not_exist_yet_is_no_damage(tmp_path):
    for table in (GMV_LEDGER, DAILY_GMV_HISTORY):
        assert rebuild._repair(tmp_path, table, "r1") == []
    assert progress.unfinished_rebuilds(Reader(tmp_path)) == []


@pytest.mark.parametrize("harm", [lose_a_file, cut_a_file_short, garble_a_page])
def test_the_other_files_of_a_ledger_that_lost_one_stay(tmp_path, harm):
    for seq in (1, 2):
        small_lake.write(tmp_path, GMV_LEDGER, [{"purchase_id": "1", "ledger_seq": seq}])
    harm(tmp_path / GMV_LEDGER.path)
    (said,) = rebuild._repair(tmp_path, GMV_LEDGER, "r1")
    assert said.startswith("gold/gmv_ledger went on without 1 of its files")
    assert progress.unfinished_rebuilds(Reader(tmp_path)) == ["r1"], "a kill here would leave the loss unseen"
    assert len(Reader(tmp_path).rows("select ledger_seq from gold.gmv_ledger")) == 1


@pytest.mark.parametrize("harm", [cut_a_file_short, garble_a_page, scribble_over_the_log])
def test_what_can_not_be_read_in_an_object_store_is_named_for_a_person_to_move(tmp_path, monkeypatch, harm):
    small_lake.write_sample(tmp_path)
    harm(tmp_path / GMV_LEDGER.path)
    remote = SimpleNamespace(is_remote=lambda path: True, location=location.location)
    monkeypatch.setattr(rebuild, "location", remote)
    with pytest.raises(
        GmvError, match=r"/gold/gmv_ledger\S* can't be read\. Move it away, and rebuild again"
    ):
        rebuild._repair(tmp_path, GMV_LEDGER, "r1")


def test_a_file_without_permission_is_no_damage():
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        lake.chmod(0o755)  # tmp_path is its owner's alone
        small_lake.write(lake, GMV_LEDGER, [])
        file = next(lake.glob("gold/gmv_ledger/_delta_log/*.json"))
        file.chmod(0)
        user, nobody = os.geteuid(), 65534
        if user == 0:  # who may read everything
            os.seteuid(nobody)
        try:
            with pytest.raises(
                GmvError, match=f"{file.name} can't be read \\(Permission denied\\). Give this user"
            ):
                rebuild.rebuild(SimpleNamespace(path=lake), "r", lambda _: SHOW())
        finally:
            os.seteuid(user)
        assert file.exists()


@pytest.mark.parametrize("harm", [lose_a_file, cut_a_file_short, garble_a_page, scribble_over_the_log])
def test_a_ledger_that_lost_a_file_can_be_read_and_added_to(tmp_path, harm):
    small_lake.write_sample(tmp_path)
    harm(tmp_path / GMV_LEDGER.path)
    kept = harm in (cut_a_file_short, garble_a_page)
    held = a_file_of(tmp_path / GMV_LEDGER.path).read_bytes() if kept else None
    assert len(rebuild._repair(tmp_path, GMV_LEDGER, "r1")) == 1
    if held:
        (kept,) = (tmp_path / rebuild.DAMAGED / "r1" / GMV_LEDGER.path).glob("*.parquet")
        assert kept.read_bytes() == held, "for a person to look at"
    assert Reader(tmp_path).rows("select count(*) as n from gold.gmv_ledger") == [{"n": 0}]
    small_lake.write(tmp_path, GMV_LEDGER, [{"purchase_id": "1", "ledger_seq": 2}])
    assert rebuild._repair(tmp_path, GMV_LEDGER, "r1") == []
    assert Reader(tmp_path).rows("select ledger_seq from gold.gmv_ledger") == [{"ledger_seq": 2}]


def test_a_table_goes_back_to_before_its_empty_commits(tmp_path):
    for seq in (1, 2, 3):
        small_lake.write(tmp_path, GMV_LEDGER, [{"purchase_id": "1", "ledger_seq": seq}])
    log = tmp_path / GMV_LEDGER.path / "_delta_log"
    names = [f"{number:020}.json" for number in (1, 2)]
    for name in names:
        (log / name).write_text("")
        (log / f".{name}.crc").write_text("Spark's checksum")
    assert rebuild._without_empty_commits(tmp_path, GMV_LEDGER, "r1") == [
        "gold/gmv_ledger went back to before its commit 2, which was empty",
        "gold/gmv_ledger went back to before its commit 1, which was empty",
    ]
    assert Reader(tmp_path).rows("select ledger_seq from gold.gmv_ledger") == [{"ledger_seq": 1}]
    assert progress.unfinished_rebuilds(Reader(tmp_path)) == ["r1"], "a kill here would leave the loss unseen"
    kept = tmp_path / rebuild.DAMAGED / "r1" / f"{GMV_LEDGER.path}_log"
    assert {file.name for file in kept.iterdir()} == {*names, *(f".{name}.crc" for name in names)}
    assert {file.name for file in log.iterdir()} == {f"{0:020}.json"}
    assert rebuild._without_empty_commits(tmp_path, GMV_LEDGER, "r1") == []


@pytest.mark.parametrize("damaged", [b"", b"PAR1 nothing PAR1"])
def test_a_table_loses_nothing_with_a_summary_of_its_commits(tmp_path, damaged):
    for seq in (1, 2):
        small_lake.write(tmp_path, GMV_LEDGER, [{"purchase_id": "1", "ledger_seq": seq}])
    DeltaTable(tmp_path / GMV_LEDGER.path).create_checkpoint()
    (checkpoint,) = (tmp_path / GMV_LEDGER.path).glob("_delta_log/*.checkpoint.parquet")
    checkpoint.write_bytes(damaged)
    with pytest.raises(Damaged, match="gold/gmv_ledger can't be read"):
        Reader(tmp_path).check(GMV_LEDGER)
    assert rebuild._without_damaged_checkpoints(tmp_path, GMV_LEDGER, "r1") == [
        "gold/gmv_ledger was opened by its commits, without 2 file(s) that sum them up"
    ]
    assert rebuild._repair(tmp_path, GMV_LEDGER, "r1") == []
    assert Reader(tmp_path).check(GMV_LEDGER) == 2
    assert rebuild._without_damaged_checkpoints(tmp_path, GMV_LEDGER, "r1") == []


def test_an_empty_commit_is_no_loss_as_long_as_a_checkpoint_says_what_it_did(tmp_path):
    for seq in (1, 2):
        small_lake.write(tmp_path, GMV_LEDGER, [{"purchase_id": "1", "ledger_seq": seq}])
    DeltaTable(tmp_path / GMV_LEDGER.path).create_checkpoint()
    newest_commit(tmp_path / GMV_LEDGER.path).write_text("")
    assert Reader(tmp_path).check(GMV_LEDGER) == 2
    assert rebuild._without_empty_commits(tmp_path, GMV_LEDGER, "r1") == []
    (checkpoint,) = (tmp_path / GMV_LEDGER.path).glob("_delta_log/*.checkpoint.parquet")
    checkpoint.write_bytes(b"")
    assert len(rebuild._without_damaged_checkpoints(tmp_path, GMV_LEDGER, "r1")) == 1
    assert len(rebuild._without_empty_commits(tmp_path, GMV_LEDGER, "r1")) == 1
    assert Reader(tmp_path).check(GMV_LEDGER) == 1


def test_checkpoints_stay_where_a_table_can_not_be_opened_without_them_either(tmp_path):
    small_lake.write(tmp_path, GMV_LEDGER, [{"purchase_id": "1", "ledger_seq": 1}])
    DeltaTable(tmp_path / GMV_LEDGER.path).create_checkpoint()
    table = tmp_path / GMV_LEDGER.path
    for file in table.glob("_delta_log/*[0-9].*"):
        file.write_text("{ neither commit nor checkpoint")
    before = sorted(table.rglob("*"))
    assert rebuild._without_damaged_checkpoints(tmp_path, GMV_LEDGER, "r1") == []
    assert sorted(table.rglob("*")) == before
    assert rebuild._set_aside_unless_open(tmp_path, GMV_LEDGER, "r1")


def test_a_table_of_which_no_commit_is_left_is_set_aside_whole(tmp_path):
    for seq in (1, 2):
        small_lake.write(tmp_path, GMV_LEDGER, [{"purchase_id": "1", "ledger_seq": seq}])
    first, second = sorted((tmp_path / GMV_LEDGER.path / "_delta_log").glob("*.json"))
    first.write_text("{ this is no commit")
    second.write_text("")
    assert len(rebuild._without_empty_commits(tmp_path, GMV_LEDGER, "r1")) == 1
    assert rebuild._repair(tmp_path, GMV_LEDGER, "r1") == [
        "gold/gmv_ledger could not be opened and was set aside in _damaged/r1"
    ]


@pytest.mark.parametrize("harm", [shutil.rmtree, lose_a_file])
def test_a_ledger_that_was_lost_goes_on_after_the_batches_that_its_history_tells_of(tmp_path, harm):
    small_lake.write_sample(tmp_path)
    harm(tmp_path / GMV_LEDGER.path)
    rebuild._repair(tmp_path, GMV_LEDGER, "r1")
    nothing = Unfinished("ledger", [], 0, is_everything=False)
    assert Lake(tmp_path, None).post(None, nothing, "r2") == {"postings": 0, "ledger_seq": 1}
