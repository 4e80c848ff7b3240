"""Rows that were looked up once are not looked for again, and are those of the version that is asked."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import small_lake
from deltalake import DeltaTable
from gmv import maintain, notebook
from gmv.errors import GmvError
from gmv.lake import lookups, merging
from gmv.lake.reader import Reader
from gmv.lake.records import arrow_schema
from gmv.tables import PURCHASE, Table

VERSIONS, LATEST = PURCHASE.versions, PURCHASE.latest


def add(lake: Path, *ids: str, run: str = "run 1") -> None:
    small_lake.write(lake, VERSIONS, [{"purchase_id": one, "run": run} for one in ids])


def found(lake: Path, *ids: str, table: Table = VERSIONS, version: int | None = None) -> list[str]:
    """The ids of the rows that are found; sorted, since their order is not told."""
    rows = lookups.rows_of(Reader(lake, {} if version is None else {table.path: version}), table, ids)
    assert rows is not None and rows.schema == arrow_schema(table)
    return sorted(rows["purchase_id"].to_pylist())


def lose(lake: Path, table: Table = VERSIONS) -> None:
    """Lose all files that a table has now: who opens one of them fails."""
    for file in DeltaTable(lake / table.path).file_uris():
        Path(file).unlink()


def test_only_the_files_that_came_since_are_opened_for_the_same_purchases(tmp_path):
    add(tmp_path, "1", "2", "3")
    assert found(tmp_path, "1", "2", "9") == ["1", "2"]
    lose(tmp_path)
    assert found(tmp_path, "1", "2", "9") == ["1", "2"]
    add(tmp_path, "1", "9", "3", run="run 2")
    assert found(tmp_path, "1", "2", "9") == ["1", "1", "2", "9"]
    assert found(tmp_path, "1", "9") == ["1", "1", "9"]
    with pytest.raises(GmvError, match="silver/purchase_versions"):
        found(tmp_path, "3")


def test_purchases_that_were_not_looked_up_are_looked_for_in_all_files(tmp_path):
    add(tmp_path, "1", "2")
    assert found(tmp_path, "1") == ["1"]
    add(tmp_path, "2", "3", run="run 2")
    assert found(tmp_path, "1", "2", "3") == ["1", "2", "2", "3"]
    assert found(tmp_path) == []


def test_rows_of_files_that_the_table_has_no_more_are_not_told(tmp_path):
    add(tmp_path, "1", "2")
    assert found(tmp_path, "1", "2") == ["1", "2"]
    DeltaTable(tmp_path / VERSIONS.path).delete("purchase_id = '1'")
    assert found(tmp_path, "1", "2") == ["2"]
    add(tmp_path, "1", run="run 2")
    maintain.maintain(tmp_path)
    assert found(tmp_path, "1", "2") == ["1", "2"]


def test_each_version_is_told_as_it_is(tmp_path):
    def row(buyer: int) -> pa.Table:
        return pa.Table.from_pylist([{"purchase_id": "1", "buyer_id": buyer}], arrow_schema(LATEST))

    def buyers(version: int | None = None) -> list[int]:
        rows = lookups.rows_of(
            Reader(tmp_path, {} if version is None else {LATEST.path: version}), LATEST, ["1"]
        )
        return rows["buyer_id"].to_pylist()

    small_lake.write(tmp_path, LATEST, [{"purchase_id": "1", "buyer_id": 7}])
    before = DeltaTable(tmp_path / LATEST.path).version()
    merging.merge_latest(tmp_path, LATEST, row(8), ["1"])
    assert (buyers(), buyers(before), buyers(), buyers(before)) == ([8], [7], [8], [7])


def test_too_many_rows_are_not_told_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(lookups, "MOST_ROWS", 3)
    add(tmp_path, "1", "2", "3")
    assert found(tmp_path, "1", "2", "3") == ["1", "2", "3"]
    add(tmp_path, "4", run="run 2")
    assert lookups.rows_of(Reader(tmp_path), VERSIONS, ["1", "2", "3", "4"]) is None
    assert found(tmp_path, "4") == ["4"]
    add(tmp_path / "at once", "1", "2", "3", "4")
    assert lookups.rows_of(Reader(tmp_path / "at once"), VERSIONS, ["1", "2", "3", "4"]) is None


def test_tables_of_two_lakes_and_a_table_that_is_not_there_are_told_apart(tmp_path):
    add(tmp_path / "a", "1")
    assert found(tmp_path / "a", "1") == ["1"]
    assert found(tmp_path / "b", "1") == []
    add(tmp_path / "b", "1", "1")
    assert found(tmp_path / "b", "1") == ["1", "1"]


def test_what_one_process_looked_up_is_found_by_another(tmp_path, monkeypatch):
    add(tmp_path / "lake", "1", "2")
    small_lake.write(tmp_path / "lake", LATEST, [{"purchase_id": "1"}])
    assert found(tmp_path / "lake", "1", "9") == found(tmp_path / "lake", "1", "9", table=LATEST) == ["1"]
    lookups.leave(tmp_path / "left")
    monkeypatch.setattr(lookups, "_DONE", {})
    lookups.take(tmp_path / "nothing left")
    assert lookups._DONE == {}
    lookups.take(tmp_path / "left")
    for table in (VERSIONS, LATEST):
        lose(tmp_path / "lake", table)
        assert found(tmp_path / "lake", "1", "9", table=table) == ["1"]


def test_what_a_merge_has_read_need_not_be_looked_up(tmp_path):
    small_lake.write(tmp_path, LATEST, [{"purchase_id": one, "buyer_id": 7} for one in ("1", "2", "3")])
    before = DeltaTable(tmp_path / LATEST.path).version()
    now = [{"purchase_id": "1", "buyer_id": 7}, {"purchase_id": "2", "buyer_id": 8}, {"purchase_id": "4"}]
    old_files = DeltaTable(tmp_path / LATEST.path).file_uris()
    merging.merge_latest(
        tmp_path, LATEST, pa.Table.from_pylist(now, arrow_schema(LATEST)), ["1", "2", "3", "4", "5"]
    )
    for file in old_files:
        Path(file).unlink()
    rows = lookups.rows_of(Reader(tmp_path, {LATEST.path: before}), LATEST, ["1", "2", "3", "5"])
    assert sorted((row["purchase_id"], row["buyer_id"]) for row in rows.to_pylist()) == [
        ("1", 7),
        ("2", 7),
        ("3", 7),
    ]
    assert found(tmp_path, "1", "2", "3", "4", "5", table=LATEST) == ["1", "2", "4"]


def test_questions_about_some_purchases_open_no_file_of_the_tables_that_were_looked_up(tmp_path):
    add(tmp_path, "1", "2", "3")
    small_lake.write(tmp_path, LATEST, [{"purchase_id": one} for one in ("1", "2")])
    near = lookups.near(Reader(tmp_path), [VERSIONS, LATEST], ["1", "9"])
    for table in (VERSIONS, LATEST):
        lose(tmp_path, table)
        assert near.rows(f"select purchase_id from silver.{table.name}") == [{"purchase_id": "1"}]


def test_gold_takes_what_silver_of_the_same_run_left(tmp_path, monkeypatch):
    lake = tmp_path / "lake"
    add(lake, "1", "2")
    monkeypatch.setattr(lookups, "_DONE", {})
    monkeypatch.setenv(notebook.FACTS_FOLDER, str(tmp_path))  # as in a run, which alone finishes a killed one

    def begin(name: str, run: str) -> notebook.Step:
        folders = {"lake": str(lake), "landing": str(tmp_path), "runs_dir": str(tmp_path / "runs")}
        return notebook.start(name, {**folders, "run_id": run})

    silver = begin("02_silver", "one")
    assert found(lake, "1") == ["1"]
    silver.finish()
    for run, is_taken in (("another", False), ("one", True)):
        lookups._DONE.clear()
        begin("03_gold", run).release()
        assert bool(lookups._DONE) == is_taken
    lose(lake)
    assert found(lake, "1") == ["1"]


def test_silver_ends_well_where_it_can_leave_nothing(tmp_path):
    given = {"lake": str(tmp_path), "landing": str(tmp_path), "runs_dir": str(tmp_path), "run_id": "one"}
    step = notebook.start("02_silver", given)
    step.staging.parent.mkdir()
    step.staging.write_text("no folder")
    step.finish()
    notebook.start("03_gold", given).release()
