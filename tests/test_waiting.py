"""What waits for something is known without looking at all purchases again, and is what a look at all would find."""

import datetime as dt
import random
import shutil
import uuid
from decimal import Decimal

import pyarrow as pa
import pytest
import small_lake
from deltalake import DeltaTable
from gmv import maintain, waiting
from gmv.lake import merging, records
from gmv.lake.reader import Reader
from gmv.tables import EVENT_TABLES, PRODUCT_ITEM, PURCHASE, PURCHASE_EXTRA_INFO, WAITING

VALUES = {
    PURCHASE: {"release_date": dt.date(2023, 2, 1)},
    PRODUCT_ITEM: {"item_quantity": 1, "purchase_value": Decimal("1.00")},
    PURCHASE_EXTRA_INFO: {"subsidiary": "nac"},
}


def bring(lake, event, ids, gone=()) -> None:
    """What a run does to silver: versions that it brings, merged into one of the tables."""
    if not DeltaTable.is_deltatable(str(lake / event.latest.path)):
        small_lake.write(lake, event.latest, [])
    run = uuid.uuid4().hex
    rows = [{"purchase_id": one, **VALUES[event]} for one in ids]
    small_lake.write(lake, event.versions, [{**row, "run": run} for row in rows])
    small_lake.write(lake, event.versions, [{"purchase_id": one, "run": run} for one in gone])
    columns = [{name: row.get(name) for name in event.latest.column_names} for row in rows]
    latest = pa.Table.from_pylist(columns, records.arrow_schema(event.latest))
    merging.merge_latest(lake, event.latest, latest, [*ids, *gone], [run])


def told(rows: pa.Table) -> set[tuple[str, str]]:
    pairs = [(row["purchase_id"], row["awaits"]) for row in rows.to_pylist()]
    assert len(pairs) == len(set(pairs))
    return set(pairs)


def now(lake) -> set[tuple[str, str]]:
    return told(waiting.waiting(Reader(lake)))


def is_kept(lake) -> bool:
    """Whether the list holds for the tables as they are."""
    (row, *_) = Reader(lake).rows("select * from monitoring.waiting") or [{}]
    versions = {event.name: Reader(lake).version(event.latest) for event in EVENT_TABLES}
    return all(row.get(f"{name}_version") == version for name, version in versions.items())


@pytest.mark.parametrize("seed", range(6))
def test_the_list_is_what_a_look_at_all_purchases_finds(tmp_path, seed):
    chance = random.Random(seed)
    ids = [str(number) for number in range(95, 130)] + ["o'clock", "0099", "Z"]
    has = {event: set() for event in EVENT_TABLES}
    for _ in range(12):
        event = chance.choice(EVENT_TABLES)
        brought = chance.sample(ids, chance.randint(0, 6))
        gone = chance.sample(sorted(has[event]), min(len(has[event]), chance.randint(0, 2)))
        bring(tmp_path, event, brought, set(gone) - set(brought))
        has[event] = (has[event] - set(gone)) | set(brought)
        if chance.random() < 0.2:
            DeltaTable(tmp_path / event.latest.path).optimize.compact()
        paid, item, info = (has[one] for one in EVENT_TABLES)
        expected = {(one, "item") for one in paid - item} | {
            (one, "purchase") for one in (item | info) - paid
        }
        assert now(tmp_path) == expected
        if chance.random() < 0.6:
            waiting.note(Reader(tmp_path))
            assert is_kept(tmp_path)
            assert now(tmp_path) == expected


def lake_of_two_files(lake) -> None:
    """1 and 2 in one file, 8 and 9 in another; 2 and 9 lack their item."""
    for ids in (["1", "2"], ["8", "9"]):
        bring(lake, PURCHASE, ids)
        bring(lake, PURCHASE_EXTRA_INFO, ids)
        bring(lake, PRODUCT_ITEM, ids[:1])


def spoil(lake, purchase_id: str) -> None:
    """Make the files of silver's tables unreadable that hold this purchase."""
    for event in EVENT_TABLES:
        for file in DeltaTable(lake / event.latest.path).file_uris():
            (path,) = (lake / event.latest.path).glob(file.rsplit("/", 1)[1])
            if purchase_id in pa.parquet.read_table(path)["purchase_id"].to_pylist():
                path.write_bytes(b"not parquet")


def test_only_files_of_purchases_that_changed_are_opened_again(tmp_path):
    lake_of_two_files(tmp_path)
    waiting.note(Reader(tmp_path))
    bring(tmp_path, PRODUCT_ITEM, ["9"])
    reader = Reader(tmp_path)
    spoil(tmp_path, "1")
    assert told(waiting.waiting(reader)) == {("2", "item")}


def test_the_list_holds_after_maintenance(tmp_path):
    lake_of_two_files(tmp_path)
    waiting.note(Reader(tmp_path))
    maintain.maintain(tmp_path)
    spoil(tmp_path, "1")
    assert now(tmp_path) == {("2", "item"), ("9", "item")}


def test_nothing_that_waits_is_kept_as_well(tmp_path):
    for event in EVENT_TABLES:
        bring(tmp_path, event, ["1"])
    waiting.note(Reader(tmp_path))
    assert is_kept(tmp_path)
    version = DeltaTable(tmp_path / WAITING.path).version()
    waiting.note(Reader(tmp_path))
    assert DeltaTable(tmp_path / WAITING.path).version() == version
    assert now(tmp_path) == set()


def test_a_lake_without_silver_has_nothing_that_waits(tmp_path):
    assert now(tmp_path) == set()
    waiting.note(Reader(tmp_path))
    assert now(tmp_path) == set()


def test_a_table_that_was_replaced_or_lost_its_old_log_is_looked_at_as_a_whole(tmp_path):
    lake_of_two_files(tmp_path)
    waiting.note(Reader(tmp_path))
    table = DeltaTable(tmp_path / PURCHASE.latest.path)
    rows = pa.Table.from_pylist(
        [{name: None for name in PURCHASE.column_names} | {"purchase_id": "5", **VALUES[PURCHASE]}],
        records.arrow_schema(PURCHASE.latest),
    )
    records.replace_columns(tmp_path, PURCHASE.latest, rows)
    expected = {("5", "item"), ("1", "purchase"), ("2", "purchase"), ("8", "purchase"), ("9", "purchase")}
    assert now(tmp_path) == expected
    table.update_incremental()
    table.create_checkpoint()
    for old in sorted((tmp_path / PURCHASE.latest.path / "_delta_log").glob("*.json"))[:-1]:
        old.unlink()
    assert now(tmp_path) == expected


def test_a_table_that_is_older_than_the_list_is_looked_at_as_a_whole(tmp_path):
    lake_of_two_files(tmp_path)
    waiting.note(Reader(tmp_path))
    shutil.rmtree(tmp_path / PURCHASE.latest.path)
    bring(tmp_path, PURCHASE, ["2"])
    assert now(tmp_path) == {("2", "item"), ("1", "purchase"), ("8", "purchase"), ("9", "purchase")}


def test_as_many_items_as_purchases_do_not_make_them_the_same(tmp_path):
    for event, ids in ((PURCHASE, ["1"]), (PRODUCT_ITEM, ["2"]), (PURCHASE_EXTRA_INFO, ["1"])):
        bring(tmp_path, event, ids)
    assert now(tmp_path) == {("1", "item"), ("2", "purchase")}


def test_a_list_that_is_too_long_is_made_anew_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "MOST_KEPT", 1)
    lake_of_two_files(tmp_path)
    waiting.note(Reader(tmp_path))
    assert not DeltaTable.is_deltatable(str(tmp_path / WAITING.path))
    assert now(tmp_path) == {("2", "item"), ("9", "item")}


def test_an_unpaid_purchase_waits_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(VALUES, PURCHASE, {})
    for ids in (["1", "2"], ["3"]):  # found among all, and among those that changed
        bring(tmp_path, PURCHASE, ids)
        assert now(tmp_path) == set()
        waiting.note(Reader(tmp_path))
