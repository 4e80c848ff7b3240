"""The latest rows of touched purchases come into their table, and files without a change stay as they are."""

import datetime as dt
import shutil
from decimal import Decimal

import pyarrow as pa
import pytest
import small_lake
from deltalake import DeltaTable
from gmv import maintain
from gmv.lake import merging, records
from gmv.lake.pruning import exactly
from gmv.lake.reader import Reader
from gmv.tables import PRODUCT_ITEM

TABLE = PRODUCT_ITEM.latest


def item(purchase_id: str, value: str = "1.00", minute: int = 0, product_id: int | None = None) -> dict:
    return {
        "transaction_datetime": dt.datetime(2023, 2, 1, 8, minute, 0, 123_456),
        "transaction_date": dt.date(2023, 2, 1),
        "purchase_id": purchase_id,
        "product_id": product_id,
        "item_quantity": 2,
        "purchase_value": Decimal(value),
    }


def merge(lake, latest: list[dict], touched: list[str], bronze_runs=()) -> None:
    rows = pa.Table.from_pylist(latest, records.arrow_schema(TABLE))
    merging.merge_latest(lake, TABLE, rows, touched, bronze_runs)


def rows_of(lake) -> list[dict]:
    return Reader(lake).rows("select * from silver.product_item order by purchase_id")


def files(lake) -> dict[str, dict]:
    """The table's files by the ids that they hold, as its log describes them."""
    added = pa.table(DeltaTable(lake / TABLE.path).get_add_actions(flatten=True)).to_pylist()
    held = {}
    for file in added:
        ids = pa.parquet.read_table(lake / TABLE.path / file["path"])["purchase_id"].to_pylist()
        held[" ".join(ids)] = file
    return held


def test_touched_purchases_are_replaced_added_and_removed_and_others_stay(tmp_path):
    small_lake.write(tmp_path, TABLE, [item(one) for one in ("1", "2", "3", "9")])
    latest = [item("1", "5.00", product_id=7), item("2"), item("4", "99999999999999.99")]
    for _ in ("once", "and again"):
        merge(tmp_path, latest, ["1", "2", "3", "4"])
        assert rows_of(tmp_path) == [*latest, item("9")]


def test_each_row_stays_in_its_file_and_place_and_new_ones_are_a_file(tmp_path):
    for ids in (("11", "12", "13"), ("21", "23", "22"), ("31", "32")):
        small_lake.write(tmp_path, TABLE, [item(one) for one in ids])
    before = files(tmp_path)

    merge(tmp_path, [item("23", "5.00"), item("31"), item("42"), item("41")], ["12", "23", "31", "41", "42"])

    after = files(tmp_path)
    assert after.keys() == {"11 13", "21 23 22", "31 32", "41 42"}
    assert after["31 32"]["path"] == before["31 32"]["path"], "nothing of it has changed"
    assert after["21 23 22"]["path"] != before["21 23 22"]["path"]


def test_a_file_is_read_and_written_in_parts_and_is_still_one(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROW_GROUP_ROWS", 2)
    small_lake.write(tmp_path, TABLE, [item(one) for one in ("15", "12", "13", "14", "11", "16", "17")])

    merge(tmp_path, [item("12", "5.00", minute=9), item("17", product_id=7)], ["12", "13", "14", "17"])

    held = files(tmp_path)
    assert held.keys() == {"15 12 11 16 17"}
    assert rows_of(tmp_path) == [
        item("11"),
        item("12", "5.00", minute=9),
        item("15"),
        item("16"),
        item("17", product_id=7),
    ]
    (file,) = held.values()
    told = pa.parquet.read_metadata(tmp_path / TABLE.path / file["path"])
    assert [told.row_group(number).num_rows for number in range(told.num_row_groups)] == [2, 2, 1]
    assert (file["num_records"], file["min.purchase_id"], file["max.purchase_id"]) == (5, "11", "17")
    assert file["max.transaction_datetime"] == dt.datetime(2023, 2, 1, 8, 9, 0, 123_456)


def test_a_file_that_loses_all_its_purchases_is_gone(tmp_path):
    small_lake.write(tmp_path, TABLE, [item("1"), item("2")])
    merge(tmp_path, [], ["1", "2"])
    assert (rows_of(tmp_path), files(tmp_path)) == ([], {})


def test_what_is_there_already_is_no_commit(tmp_path):
    small_lake.write(tmp_path, TABLE, [item("1"), item("2", product_id=4)])
    merge(tmp_path, [item("2", product_id=4), item("1")], ["1", "2", "never seen"])
    assert DeltaTable(tmp_path / TABLE.path).version() == 0


@pytest.mark.parametrize(
    ("held", "touched"),
    [(["2", "9"], ["1", "91"]), (["b4", "c7"], ["a9", "c8"]), (["b4"], [])],
    ids=["numbers", "texts", "none"],
)
def test_a_file_is_not_opened_when_no_touched_id_is_between_its_least_and_greatest(tmp_path, held, touched):
    small_lake.write(tmp_path, TABLE, [item(one) for one in held])
    for file in (tmp_path / TABLE.path).glob("*.parquet"):
        file.write_bytes(b"not parquet")
    merge(tmp_path, [item(one) for one in touched], touched)
    assert records.count(tmp_path, TABLE) == len(held) + len(touched)


@pytest.mark.parametrize(
    "touched", ["2", "5", "9", "b" * 60, "d" * 60], ids=lambda one: f"{one[0]} {len(one)}"
)
def test_a_file_that_may_hold_a_touched_id_is_opened(tmp_path, touched):
    held = ["2", "9"] if touched.isdigit() else ["b" * 60, "d" * 60]
    small_lake.write(tmp_path, TABLE, [item(one) for one in held])
    merge(tmp_path, [item(touched, "5.00")], ["1", touched, "z"])
    assert [(row["purchase_id"], row["purchase_value"]) for row in rows_of(tmp_path)] == sorted(
        {**dict.fromkeys(held, Decimal("1.00")), touched: Decimal("5.00")}.items()
    )


def test_a_file_of_which_no_least_and_greatest_id_are_kept_is_opened(tmp_path):
    properties = {"delta.dataSkippingNumIndexedCols": "0"}
    DeltaTable.create(tmp_path / TABLE.path, records.arrow_schema(TABLE), configuration=properties)
    small_lake.write(tmp_path, TABLE, [item("1"), item("2")])
    merge(tmp_path, [item("2", "5.00")], ["2"])
    assert rows_of(tmp_path) == [item("1"), item("2", "5.00")]


def test_files_are_skipped_by_what_is_kept_of_those_that_are_written_anew(tmp_path):
    small_lake.write(tmp_path, TABLE, [item("1"), item("2")])
    merge(tmp_path, [item("2", minute=30), item("7", minute=10), item("8")], ["2", "7", "8"])
    told = {
        ids: (
            *(file[f"{end}.purchase_id"] for end in ("min", "max")),
            file["num_records"],
            file["null_count.purchase_id"],
            file["min.transaction_date"],
        )
        for ids, file in files(tmp_path).items()
    }
    assert told == {
        "1 2": ("1", "2", 2, 0, dt.date(2023, 2, 1)),
        "7 8": ("7", "8", 2, 0, dt.date(2023, 2, 1)),
    }
    assert records.count(tmp_path, TABLE) == 4
    reader = Reader(tmp_path)
    assert [file.rsplit("/", 1)[1] for file in reader.files(TABLE, exactly(["7"]))] == [
        files(tmp_path)["7 8"]["path"]
    ]
    assert reader.newest(TABLE, "transaction_datetime") == dt.datetime(2023, 2, 1, 8, 30, 0, 123_456)


def test_no_dictionary_is_written_of_what_hardly_repeats(tmp_path):
    records.append(tmp_path, TABLE, [item("1"), item("2")])
    merge(tmp_path, [item("3")], ["3"])
    maintained = tmp_path / "maintained"
    shutil.copytree(tmp_path / TABLE.path, maintained / TABLE.path)
    maintain.maintain(maintained)
    for lake in (tmp_path, maintained):
        for file in files(lake).values():
            group = pa.parquet.read_metadata(lake / TABLE.path / file["path"]).row_group(0)
            has_dictionary = {
                group.column(number).path_in_schema: group.column(number).has_dictionary_page
                for number in range(group.num_columns)
            }
            assert not any(has_dictionary[name] for name in ("purchase_id", "purchase_value"))
            assert has_dictionary["transaction_date"]


# --- What has been merged since a version ------------------------------------------------------------------


@pytest.fixture
def merged(tmp_path):
    """Versions: 0 the table, 1 and 2 runs a and b, 3 maintenance, 4 run c with one that was killed before it."""
    small_lake.write(tmp_path, TABLE, [item("1")])
    merge(tmp_path, [item("2")], ["2"], ["a"])
    merge(tmp_path, [item("3")], ["3"], ["b"])
    DeltaTable(tmp_path / TABLE.path).optimize.compact()
    merge(tmp_path, [item("4")], ["4"], ["c", "killed before"])
    return tmp_path


def since(lake, version, until=None) -> tuple | None:
    told = merging.since(Reader(lake, {} if until is None else {TABLE.path: until}), TABLE, version)
    return told and (told.version, sorted(told.bronze_runs))


def test_the_runs_that_were_merged_since_a_version_are_told_by_the_log(merged):
    assert since(merged, 0) == (0, ["a", "b", "c", "killed before"])
    assert since(merged, 1) == (1, ["b", "c", "killed before"])
    assert since(merged, 2) == (3, ["c", "killed before"])  # maintenance has the same rows
    assert since(merged, 3) == (3, ["c", "killed before"])
    assert since(merged, 4) == (4, [])
    assert since(merged, 1, until=2) == (1, ["b"])
    assert since(merged, 2, until=3) == (3, [])
    assert since(merged, 3, until=2) is None


def test_removing_files_that_no_version_needs_leaves_what_is_told(merged):
    removed = DeltaTable(merged / TABLE.path).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert removed and DeltaTable(merged / TABLE.path).version() == 6, "its start and its end are commits"
    assert since(merged, 3) == (3, ["c", "killed before"])
    assert since(merged, 4) == (6, [])


def test_what_was_written_in_another_way_is_not_told(merged):
    small_lake.write(merged, TABLE, [item("5")])
    merge(merged, [item("6")], ["6"], ["d"])
    assert since(merged, 3) is None
    assert since(merged, 5) == (5, ["d"])
    merge(merged, [item("7")], ["7"])  # by no run
    assert since(merged, 5) is None


def test_what_lost_its_log_is_not_told(merged):
    DeltaTable(merged / TABLE.path).create_checkpoint()
    log = merged / TABLE.path / "_delta_log"
    for version in range(3):
        (log / f"{version:020}.json").unlink()
    assert since(merged, 1) is None
    assert since(merged, 2) == (3, ["c", "killed before"])


def test_a_table_that_is_some_commits_behind_is_not_told(merged):
    """As one from an older backup is."""
    assert since(merged, 7) is None


def test_what_may_have_lost_its_files_is_not_told(merged, monkeypatch):
    now = merging._now()
    days = records.KEPT_DAYS * 24 * 3600 * 1000
    monkeypatch.setattr(merging, "_now", lambda: now + days - 60_000)
    assert since(merged, 0) == (0, ["a", "b", "c", "killed before"])
    monkeypatch.setattr(merging, "_now", lambda: now + days + 60_000)
    assert since(merged, 0) is None
    assert since(merged, 4) == (4, [])


def test_a_table_that_did_not_exist_is_told_only_if_it_does_not_yet(merged):
    assert since(merged, None) is None
    assert since(merged / "elsewhere", None) == (None, [])
    assert since(merged / "elsewhere", 3) is None
