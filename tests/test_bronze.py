"""What becomes of each file that arrives, and what bronze holds of it, without Spark."""

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pytest
import small_lake
from gmv import bronze, retraction, view
from gmv.errors import GmvError
from gmv.lake import faults, location, records
from gmv.lake.reader import Reader
from gmv.tables import EVENT_TABLES, FILES, PROGRESS, PURCHASE, PURCHASE_EXTRA_INFO
from pipeline import Died

HEADER = ",".join(PURCHASE_EXTRA_INFO.column_names)
INFO = "purchase_extra_info"


class Folder:
    """A landing folder, and the lake that its files are taken into."""

    def __init__(self, path) -> None:
        self.lake, self.landing = path / "lake", path / "landing"
        self.landing.mkdir(parents=True, exist_ok=True)
        self.runs = 0

    @property
    def reader(self) -> Reader:
        return Reader(self.lake)

    def put(self, name: str, *ids: str, at: int = 1_700_000_000) -> None:
        """A file with an event of each purchase, last written at a time in seconds."""
        rows = [f"2023-03-10 08:00:00,2023-03-10,{one},nac" for one in ids]
        (self.landing / name).write_text("\n".join([HEADER, *rows, ""]))
        os.utime(self.landing / name, (at, at))

    def arrivals(self, reread: bool = False) -> bronze.Arrivals:
        self.runs += 1
        found = bronze.unread(self.reader, self.landing, reread)
        return bronze.take_in(self.reader, found, f"run {self.runs}", self.lake / bronze.STAGED)

    def run(self, reread: bool = False) -> list[str]:
        """What 01_bronze does; the path and outcome of each file that it notes."""
        bronze.finish_killed_run(self.lake)
        arrivals = self.arrivals(reread)
        staged = bronze.records_of(arrivals)
        bronze.check_records(staged, arrivals)
        bronze.save(self.lake, staged, arrivals, f"run {self.runs}")
        return [f"{row['path']} {row['outcome']}" for row in arrivals.outcomes]

    def retract(self, name: str, undo: bool = False) -> None:
        content = retraction.named(self.reader, name, self.landing)
        retraction.note(self.lake, content, "why", f"{name} {undo} {self.runs}", undo=undo)

    def ids(self) -> list[str]:
        """The purchases of all records in bronze."""
        rows = self.reader.rows(f"select purchase_id from bronze.{INFO} order by all")
        return [row["purchase_id"] for row in rows]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_a_file_is_read_again_when_its_size_or_its_time_has_changed(folder):
    folder.put(f"{INFO}.csv", "1")
    assert folder.run() == [f"{INFO}.csv ingested"]
    assert folder.run() == []
    folder.put(f"{INFO}.csv", "22")
    assert folder.run() == [f"{INFO}.csv ingested"], "of another size"
    folder.put(f"{INFO}.csv", "33", at=1_600_000_000)
    assert folder.run() == [f"{INFO}.csv ingested"], "of another time, though an older one"
    folder.put(f"{INFO}.csv", "44", at=1_600_000_000)
    assert folder.run() == [], "told apart by reading all again only"
    assert folder.run(reread=True) == [f"{INFO}.csv ingested"]
    assert folder.ids() == ["1", "22", "33", "44"], "what a file brought before stays"


def test_what_is_as_it_was_is_noted_once_however_often_it_is_read_again(folder):
    folder.put(f"{INFO}-1.csv", "1")
    folder.put(f"{INFO}-2.csv", "1")
    folder.put("notes.csv", "1", "2")
    (folder.landing / f"{INFO}-3.csv").write_text("no header of ours\n1\n")
    assert folder.run() == [
        "notes.csv refused",
        f"{INFO}-1.csv ingested",
        f"{INFO}-2.csv repeated",
        f"{INFO}-3.csv refused",
    ]
    assert folder.run(reread=True) == []
    os.utime(folder.landing / f"{INFO}-1.csv", (9, 9))
    os.utime(folder.landing / "notes.csv", (9, 9))
    assert folder.run() == ["notes.csv refused", f"{INFO}-1.csv repeated"]
    assert folder.run(reread=True) == []


def test_other_content_of_a_refused_file_is_noted_though_its_size_and_time_are_the_same(folder):
    for text in ("no header of ours\n1\n", "no header of ours\n2\n"):
        (folder.landing / f"{INFO}.csv").write_text(text)
        os.utime(folder.landing / f"{INFO}.csv", (9, 9))
        assert folder.run(reread=True) == [f"{INFO}.csv refused"]


@pytest.mark.parametrize("undo", [False, True], ids=["retracted", "put back"])
def test_content_that_was_retracted_or_put_back_is_not_ingested_again_under_any_name(folder, undo):
    folder.put(f"{INFO}.csv", "1")
    folder.run()
    folder.retract(f"{INFO}.csv")
    if undo:
        folder.retract(f"{INFO}.csv", undo=True)
    for reread in (False, True):
        assert folder.run(reread) == [], "nothing of it has changed in landing"
    folder.put(f"{INFO}-again.csv", "1")
    assert folder.run() == [f"{INFO}-again.csv repeated"]
    (said,) = folder.reader.rows("select reason from bronze.files where outcome = 'repeated'")
    assert said["reason"].endswith("ingested before" if undo else "ingested before and is retracted")
    assert folder.ids() == ["1"]


def test_content_that_came_before_that_of_others_is_known_as_well(folder):
    for number in (1, 2):
        folder.put(f"{INFO}-{number}.csv", str(number))
        folder.run()
    for number in (1, 2):
        folder.put(f"{INFO}-{number}-again.csv", str(number))
    assert folder.run() == [f"{INFO}-1-again.csv repeated", f"{INFO}-2-again.csv repeated"]
    assert folder.ids() == ["1", "2"]


def test_content_that_no_table_fits_is_repeated_where_another_name_brought_it(folder):
    folder.put(f"{INFO}.csv", "1")
    folder.put("some notes.csv", "1")
    assert folder.run() == [f"{INFO}.csv ingested", "some notes.csv repeated"]


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_file_whose_disk_fails_is_refused_once_and_read_when_it_can_be(folder, monkeypatch, times):
    """Whether it fails at once, or after the file has been read once or twice."""
    folder.put(f"{INFO}.csv", "1")
    real, opened = Path.open, []

    def failing(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        if path.parent == folder.landing and opened.count(path) > times:
            raise OSError(5, "Input/output error", str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        assert folder.run() == [f"{INFO}.csv refused"]
        assert bronze.unread(folder.reader, folder.landing) == []
    assert folder.run() == [f"{INFO}.csv ingested"]


def test_a_file_that_changes_while_it_is_read_waits_and_those_after_it_do_not(folder):
    for number in (1, 2):
        folder.put(f"{INFO}-{number}.csv", str(number))
    found = bronze.unread(folder.reader, folder.landing)
    folder.put(f"{INFO}-1.csv", "1", "and another")
    arrivals = bronze.take_in(folder.reader, found, "r", folder.lake / bronze.STAGED)
    assert [(row["path"], row["outcome"]) for row in bronze.summary(arrivals)] == [
        (f"{INFO}-2.csv", "ingested"),
        (None, bronze.WAITING),
    ]


def test_nothing_is_saved_when_other_records_are_staged_than_the_files_hold(folder):
    for number, ids in ((1, "12"), (2, "345")):
        folder.put(f"{INFO}-{number}.csv", *ids)
    (folder.landing / "purchase.csv").write_text("no header of ours\n1\n")
    arrivals = folder.arrivals()
    staged = bronze.records_of(arrivals)
    assert bronze.check_records(staged, arrivals) == {INFO: 5}
    rows = staged[PURCHASE_EXTRA_INFO].to_table()
    for wrong in (rows.slice(1), pa.concat_tables([rows, rows.slice(4)])):
        with pytest.raises(GmvError, match=rf"bronze/{INFO}: {len(wrong)} records .* hold 5\. Nothing was"):
            bronze.check_records({PURCHASE_EXTRA_INFO: pyarrow.dataset.dataset(wrong)}, arrivals)


def events_of_two_tables(folder) -> None:
    folder.put(f"{INFO}-1.csv", "1")
    folder.put(f"{INFO}-2.csv", "2")
    header = ",".join(EVENT_TABLES[0].column_names)
    (folder.landing / "purchase.csv").write_text(f"{header}\n2023-03-10 08:00:00,2023-03-10,1,,,,,\n")
    (folder.landing / "purchase-refused.csv").write_text("no header of ours\n1\n")


def noted(folder) -> list[dict]:
    return folder.reader.rows("select * exclude recorded_at from bronze.files order by path")


def test_the_first_records_of_all_tables_are_shown_in_one(folder):
    folder.put(f"{INFO}.csv", *"123")
    purchase = dict(dict.fromkeys(PURCHASE.column_names, "x"), purchase_id="7", release_date="")
    lines = [",".join(purchase), ",".join(purchase.values())]
    (folder.landing / "purchase.csv").write_text("\n".join([*lines, ""]))
    shown = view.first(bronze.records_of(folder.arrivals()))
    assert shown[["table", "file", "line", "purchase_id", "release_date"]].to_numpy().tolist() == [
        ["purchase", "purchase.csv", 2, "7", ""],
        [INFO, f"{INFO}.csv", 2, "1", ""],
        [INFO, f"{INFO}.csv", 3, "2", ""],
    ]
    assert view.first({}).empty


def test_files_of_a_killed_run_are_noted_by_the_next_as_it_would_have_noted_them(folder, tmp_path):
    events_of_two_tables(folder)
    shutil.copytree(folder.landing, tmp_path / "another/landing")
    whole = Folder(tmp_path / "another")
    whole.run()
    folder.run()
    location.remove(folder.lake / FILES.path)  # as if it had been killed before its last commit
    ingested = [row for row in noted(whole) if row["outcome"] == "ingested"]
    for _ in range(2):  # the second time finds all of them noted
        bronze.finish_killed_run(folder.lake)
        assert noted(folder) == ingested
    assert folder.run() == ["purchase-refused.csv refused"]


def test_a_run_killed_between_two_tables_has_no_more_noted_than_what_is_in_bronze(folder, monkeypatch):
    events_of_two_tables(folder)

    def reach(moment: str) -> None:
        if moment == "after bronze/purchase":
            raise Died(moment)

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(faults, "reach", reach)
        folder.run()
    assert noted(folder) == []
    assert folder.run() == [
        "purchase-refused.csv refused",
        f"{INFO}-1.csv ingested",
        f"{INFO}-2.csv ingested",
    ]
    assert records.count(folder.lake, EVENT_TABLES[0].bronze) == 1
    assert folder.ids() == ["1", "2"]


def test_content_that_was_refused_under_another_name_is_ingested_though_a_killed_run_had_the_same_id(
    folder, monkeypatch
):
    """A notebook that is run again in Jupyter may be given the id of its last run."""
    folder.put("notes.csv", "1")
    folder.put(f"{INFO}-before.csv", "0")
    assert folder.run() == ["notes.csv refused", f"{INFO}-before.csv ingested"]
    (folder.landing / "notes.csv").rename(folder.landing / f"{INFO}.csv")
    folder.runs = 0

    def reach(moment: str) -> None:
        if moment == f"after bronze/{INFO}":
            raise Died(moment)

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(faults, "reach", reach)
        folder.run()
    assert folder.run() == []
    assert folder.ids() == ["0", "1"]


def test_what_a_killed_run_had_staged_is_removed(folder):
    folder.put(f"{INFO}.csv", "1")
    folder.arrivals()
    assert (folder.lake / bronze.STAGED).exists()
    bronze.finish_killed_run(folder.lake)
    assert not (folder.lake / bronze.STAGED).exists()


@pytest.mark.parametrize(
    ("table", "as_after_run", "said"),
    [
        (PURCHASE_EXTRA_INFO.bronze, 1, f"bronze/{INFO} holds 1 .* bronze/files tells of 3"),
        (PURCHASE_EXTRA_INFO.bronze, 0, f"bronze/{INFO} holds 0 .* bronze/files tells of 3"),
        (FILES, 1, f"bronze/{INFO} holds 3 .* bronze/files tells of 2"),
        (FILES, 0, f"bronze/{INFO} holds 3 .* bronze/files tells of 1"),
    ],
)
def test_tables_of_bronze_that_do_not_fit_together_stop_what_would_lose_or_repeat_records(
    folder, tmp_path, table, as_after_run, said
):
    """As when one of them alone was brought back from a backup, or is gone."""
    for run in (1, 2, 3):
        folder.put(f"{INFO}-{run}.csv", str(run))
        folder.run()
        shutil.copytree(folder.lake / table.path, tmp_path / f"after {run}")
    small_lake.write(folder.lake, PROGRESS, [{"step": "silver", "bronze_run": "run 1"}])
    shutil.rmtree(folder.lake / table.path)
    if as_after_run:
        shutil.copytree(tmp_path / f"after {as_after_run}", folder.lake / table.path)
    with pytest.raises(GmvError, match=f"{said}. Nothing was changed; .* backup"):
        bronze.finish_killed_run(folder.lake)
    assert len(folder.reader.rows("from bronze.files where outcome = 'ingested'")) == (
        as_after_run if table == FILES else 3
    ), "nothing was noted"
    with pytest.raises(GmvError, match=said):
        folder.run()


def test_files_that_the_last_run_alone_had_noted_are_noted_again(folder, tmp_path):
    folder.put(f"{INFO}-1.csv", "1")
    folder.run()
    shutil.copytree(folder.lake / FILES.path, tmp_path / "before")
    folder.put(f"{INFO}-2.csv", "2")
    folder.run()
    shutil.rmtree(folder.lake / FILES.path)
    shutil.copytree(tmp_path / "before", folder.lake / FILES.path)
    assert folder.run() == []
    assert len(folder.reader.rows("from bronze.files where outcome = 'ingested'")) == 2
