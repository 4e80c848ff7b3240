"""What is read of a lake without Spark: the pinned version, and no more files than the question needs."""

import datetime as dt
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
import small_lake
from deltalake import DeltaTable, write_deltalake
from gmv.errors import GmvError
from gmv.lake import pruning, records
from gmv.lake import reader as reader_module
from gmv.lake.reader import Damaged, NotEnoughMemory, Reader
from gmv.settings import settings
from gmv.tables import DAILY_GMV, RUNS, event_table

PURCHASE = event_table("purchase").latest
NEWEST = dt.datetime(2024, 3, 2, 12, 0, 0, 999_400)


def publish(lake, amounts):
    """One more version of gold/daily_gmv: some days of March 2024 with an amount each."""
    days = {dt.date(2024, 3, number): Decimal(amount) for number, amount in amounts.items()}
    rows = [{"transaction_date": day, "subsidiary": "a", "gmv": gmv} for day, gmv in days.items()]
    records.replace_days(lake, days, rows, {"run": "r"})
    return DeltaTable(lake / DAILY_GMV.path).version()


def published(reader):
    rows = reader.rows("select transaction_date, gmv from gold.daily_gmv order by all")
    return {row["transaction_date"].day: str(row["gmv"]) for row in rows}


def test_each_version_of_the_published_days_has_its_own_rows(tmp_path):
    old = publish(tmp_path, {1: "1.00", 2: "2.00"})
    assert published(Reader(tmp_path)) == {1: "1.00", 2: "2.00"}
    new = publish(tmp_path, {2: "2.50", 3: "3.00"})
    assert published(Reader(tmp_path)) == {1: "1.00", 2: "2.50", 3: "3.00"}
    assert published(Reader(tmp_path, {DAILY_GMV.path: old})) == {1: "1.00", 2: "2.00"}
    assert published(Reader(tmp_path, {DAILY_GMV.path: new})) == {1: "1.00", 2: "2.50", 3: "3.00"}
    publish(tmp_path, {1: "1.00"})
    assert published(Reader(tmp_path)) == {1: "1.00", 2: "2.50", 3: "3.00"}


def test_a_table_that_was_not_there_stays_away_from_who_has_looked(tmp_path):
    looked = Reader(tmp_path)
    assert not looked.exists(DAILY_GMV)
    publish(tmp_path, {1: "1.00"})
    assert not looked.exists(DAILY_GMV) and looked.files(DAILY_GMV) == []
    assert published(looked) == published(Reader(tmp_path, looked.versions)) == {}
    assert published(Reader(tmp_path)) == {1: "1.00"}


def test_a_table_is_opened_anew_once_a_commit_has_come(tmp_path, monkeypatch):
    publish(tmp_path, {1: "1.00"})
    opened = []
    monkeypatch.setattr(
        reader_module, "DeltaTable", lambda *asked: opened.append(asked) or DeltaTable(*asked)
    )
    for _ in range(3):
        assert published(Reader(tmp_path)) == {1: "1.00"}
    assert len(opened) == 1
    publish(tmp_path, {1: "2.00"})
    for _ in range(3):
        assert published(Reader(tmp_path)) == {1: "2.00"}
    assert len(opened) == 2


def test_a_table_that_was_made_anew_at_its_place_is_opened_anew(tmp_path):
    publish(tmp_path, {1: "1.00"})
    assert published(Reader(tmp_path)) == {1: "1.00"}
    shutil.rmtree(tmp_path / DAILY_GMV.path)
    assert published(Reader(tmp_path)) == {}
    publish(tmp_path, {1: "3.00"})
    assert published(Reader(tmp_path)) == {1: "3.00"}
    shutil.rmtree(tmp_path / DAILY_GMV.path)
    publish(tmp_path, {1: "4.00"})
    assert published(Reader(tmp_path)) == {1: "4.00"}


def test_a_table_without_the_file_of_its_newest_commit_is_opened_each_time(tmp_path):
    for amount in ("1.00", "2.00"):
        publish(tmp_path / amount, {1: amount})
        DeltaTable(tmp_path / amount / DAILY_GMV.path).create_checkpoint()
        for log in tmp_path.joinpath(amount, DAILY_GMV.path, "_delta_log").glob("*.json"):
            log.unlink()
    for amount in ("1.00", "2.00"):
        shutil.copytree(tmp_path / amount, tmp_path / "lake")
        assert published(Reader(tmp_path / "lake")) == {1: amount}
        shutil.rmtree(tmp_path / "lake")


def test_readers_keep_their_views_and_temporary_tables_apart(tmp_path):
    publish(tmp_path / "one", {1: "1.00"})
    publish(tmp_path / "two", {2: "2.00"})
    one, two = Reader(tmp_path / "one"), Reader(tmp_path / "two")
    assert published(one) == {1: "1.00"}
    assert published(two) == {2: "2.00"}
    with one.session() as session:
        session.execute("create temp table of_the_session as from gold.daily_gmv")
        assert session.execute("select gmv from of_the_session").fetchall() == [(Decimal("1.00"),)]
    with two.session() as session, pytest.raises(duckdb.CatalogException):
        session.execute("from of_the_session")


def test_a_query_outlives_the_name_of_its_reader(tmp_path):
    publish(tmp_path, {1: "1.00"})
    asked = Reader(tmp_path).sql("select gmv from gold.daily_gmv")
    gc.collect()
    assert asked.fetchall() == [(Decimal("1.00"),)]


@pytest.mark.parametrize("query", ["from gold.daily_gmv", "from gold.daily_gmv, range(1_000_000)"])
def test_readers_leave_nothing_behind_also_where_a_question_was_not_read_to_its_end(tmp_path, query):
    publish(tmp_path, {1: "1.00"})

    def name_of_a_reader_and_what_it_was_asked() -> tuple[str, pa.RecordBatchReader]:
        reader = Reader(tmp_path)
        return reader._database, reader.sql(query).to_arrow_reader(10)

    gone, read_in_part = name_of_a_reader_and_what_it_was_asked()
    read_in_part.read_next_batch()
    others = Reader(tmp_path).rows("select database_name as name from duckdb_databases()")
    assert gone.startswith("reader_") and gone not in [row["name"] for row in others]


def test_readers_on_several_threads_have_their_own_tables(tmp_path):
    for number in range(8):
        publish(tmp_path / str(number), {number + 1: f"{number}.00"})
    with ThreadPoolExecutor(8) as eight:
        told = list(eight.map(lambda n: [published(Reader(tmp_path / str(n))) for _ in range(20)], range(8)))
    assert told == [[{number + 1: f"{number}.00"}] * 20 for number in range(8)]


def test_days_that_are_published_again_and_again_stay_in_one_file(tmp_path):
    publish(tmp_path, {number: "1.00" for number in range(1, 31)})
    for number in (7, 1, 30):
        publish(tmp_path, {number: "2.00"})
    assert len(Reader(tmp_path).files(DAILY_GMV)) == 1
    assert published(Reader(tmp_path)) == {n: "2.00" if n in (1, 7, 30) else "1.00" for n in range(1, 31)}


def test_published_days_that_have_a_file_each_in_an_older_lake_come_into_one_when_one_is_replaced(tmp_path):
    days = [dt.date(2024, 3, number) for number in (1, 2, 3)]
    rows = [{"transaction_date": day, "subsidiary": "a", "gmv": Decimal("1.00")} for day in days]
    table = pa.Table.from_pylist(rows, records.arrow_schema(DAILY_GMV))
    write_deltalake(tmp_path / DAILY_GMV.path, table, partition_by="transaction_date")
    assert published(Reader(tmp_path)) == {1: "1.00", 2: "1.00", 3: "1.00"}
    publish(tmp_path, {2: "2.50"})
    assert published(Reader(tmp_path)) == {1: "1.00", 2: "2.50", 3: "1.00"}
    assert len(Reader(tmp_path).files(DAILY_GMV)) == 1
    assert published(Reader(tmp_path, {DAILY_GMV.path: 0})) == {1: "1.00", 2: "1.00", 3: "1.00"}


def test_a_table_of_monitoring_in_an_older_lake_gets_the_columns_that_were_declared_since(tmp_path):
    write_deltalake(tmp_path / RUNS.path, pa.table({"run": ["a"], "event": ["ended"]}))
    records.append(tmp_path, RUNS, [{"run": "b", "event": "ended", "outcome": "failed"}])
    assert Reader(tmp_path).rows("select run, outcome from monitoring.runs order by run") == [
        {"run": "a", "outcome": None},
        {"run": "b", "outcome": "failed"},
    ]


def test_a_published_day_that_cannot_be_read_is_damage_by_name(tmp_path):
    publish(tmp_path, {1: "1.00"})
    for file in (tmp_path / DAILY_GMV.path).rglob("*.parquet"):
        file.unlink()
    for look in (lambda reader: published(reader), lambda reader: reader.check(DAILY_GMV)):
        with pytest.raises(Damaged, match="gold/daily_gmv"):
            look(Reader(tmp_path))


def test_a_question_that_lacks_a_value_is_no_fault_of_the_lake(tmp_path):
    publish(tmp_path, {1: "1.00"})
    with pytest.raises(duckdb.InvalidInputException, match="not provided for the following parameters: day"):
        Reader(tmp_path).rows("from gold.daily_gmv where transaction_date = $day")


def bring(lake, *moments):
    """One more file of silver/purchase."""
    rows = [
        {"purchase_id": str(number), "transaction_datetime": moment} for number, moment in enumerate(moments)
    ]
    records.append(lake, PURCHASE, rows)


def test_the_newest_event_is_looked_for_in_the_file_that_holds_it(tmp_path):
    bring(tmp_path, dt.datetime(2024, 3, 1), dt.datetime(2024, 3, 1, 23))
    of_no_use = DeltaTable(tmp_path / PURCHASE.path).file_uris()
    bring(tmp_path, NEWEST, dt.datetime(2024, 2, 1))
    bring(tmp_path, NEWEST - dt.timedelta(microseconds=300))
    # Spark and delta-rs write milliseconds to the log, cut off; another writer may write all that there is.
    log = tmp_path / PURCHASE.path / "_delta_log" / "00000000000000000002.json"
    assert "12:00:00.999" in log.read_text()
    log.write_text(log.read_text().replace("12:00:00.999", "12:00:00.999100"))
    for file in of_no_use:
        tmp_path.joinpath(PURCHASE.path, file).unlink()
    assert Reader(tmp_path).newest(PURCHASE, "transaction_datetime") == NEWEST


def test_a_table_without_rows_has_no_newest_event(tmp_path):
    assert Reader(tmp_path).newest(PURCHASE, "transaction_datetime") is None
    bring(tmp_path, None)
    assert Reader(tmp_path).newest(PURCHASE, "transaction_datetime") is None


@pytest.mark.parametrize(
    ("ids", "ranges"),
    [
        (["12", "7", "10", "9"], [("7", "9"), ("10", "12")]),
        (["7", "007", "011"], [("7", "7"), ("007", "011")]),
        (["100000", "199999", "299999"], [("100000", "199999"), ("299999", "299999")]),
        (["9" * 18], [("9" * 18, "9" * 18)]),
        (["5", "9" * 19], []),  # no bigint, by which SQL finds neighbours
        (["5", "A1"], []),
        (["5", "²"], []),
        (["5", "٣"], []),
        (["5", ""], []),
    ],
)
def test_ids_that_are_whole_numbers_are_in_ranges_and_others_may_be_anywhere(ids, ranges):
    assert pruning.id_ranges(ids) == ranges


@pytest.mark.parametrize(
    ("ranges", "ids"),
    [([("1", "3"), ("o'c", "o'd")], ["1", "3", "o'clock"]), ([], ["0", "1", "3", "9", "o'clock"])],
    ids=["some", "everywhere"],
)
def test_the_condition_of_ranges_holds_for_the_ids_in_them_and_without_any_for_all(ranges, ids):
    rows = duckdb.sql(
        "select id from (values ('0'), ('1'), ('3'), ('9'), ('o''clock')) as all_ids(id) "
        f"where {pruning.within('id', ranges)} order by id"
    )
    assert [row[0] for row in rows.fetchall()] == ids


@pytest.mark.parametrize(("apart", "ranges"), [(200, 200), (201, 0)])
def test_ids_that_lie_too_far_apart_for_a_few_ranges_may_be_anywhere(apart, ranges):
    ids = [str(10**8 + number * pruning.GAP) for number in range(apart)]
    assert len(pruning.id_ranges(ids)) == ranges


def test_files_of_which_no_least_and_greatest_value_is_kept_are_opened(tmp_path):
    properties = {"delta.dataSkippingNumIndexedCols": "0"}
    DeltaTable.create(tmp_path / PURCHASE.path, records.arrow_schema(PURCHASE), configuration=properties)
    bring(tmp_path, NEWEST)
    assert Reader(tmp_path).near(pruning.id_ranges(["0"])).rows(
        "select transaction_datetime from silver.purchase where purchase_id = '0'"
    ) == [{"transaction_datetime": NEWEST}]
    assert Reader(tmp_path).newest(PURCHASE, "transaction_datetime") == NEWEST


def test_what_does_not_fit_in_memory_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setenv("GMV_SPARK_MEMORY_MIB", "512")
    settings.cache_clear()
    # Readers that spill elsewhere share nothing with this one.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reader = Reader(tmp_path)
    reader.connection.execute("set temp_directory = ''")  # nowhere to spill to
    with pytest.raises(NotEnoughMemory, match=r"512 MiB .* GMV_SPARK_MEMORY_MIB"):
        reader.rows(
            "select count(distinct range::varchar || 'a purchase id of some length') from range(20000000)"
        )


SPILL = "set memory_limit = '100MB'; create temp table spilled as select hash(range) from range(20000000)"


def test_what_a_killed_process_had_spilled_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = f"""
from gmv.lake.reader import Reader
reader = Reader(".")
reader.connection.execute({SPILL!r})
print("spilled", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout.readline() == b"spilled\n"
        process.kill()
    (folder,) = tmp_path.glob("gmv-spilled-*")
    assert folder.stat().st_mode & 0o077 == 0, "others could read what is spilled"
    assert set(folder.glob(f"*_{process.pid}_*"))
    reader = Reader(tmp_path)
    reader.connection.execute(SPILL)
    assert not set(folder.glob(f"*_{process.pid}_*"))


def test_files_of_an_old_version_that_are_not_kept_any_more_are_no_damage(tmp_path):
    old = publish(tmp_path, {1: "1.00"})
    looked = Reader(tmp_path, {DAILY_GMV.path: old})
    assert published(looked) == {1: "1.00"}
    publish(tmp_path, {1: "2.00"})
    DeltaTable(tmp_path / DAILY_GMV.path).vacuum(0, dry_run=False, enforce_retention_duration=False)
    for reader in (looked, Reader(tmp_path, looked.versions)):
        with pytest.raises(GmvError, match=f"version {old}, .* Look at the lake anew") as told:
            published(reader)
        assert not isinstance(told.value, Damaged)


def test_files_that_may_hold_one_of_many_texts_are_found_in_whatever_order_these_come(tmp_path):
    ids_of_files = (("b", "d"), ("f", "f"), ("h", "k"))
    for ids in ids_of_files:
        small_lake.write(tmp_path, PURCHASE, [{"purchase_id": one} for one in ids])

    def held(*values: str) -> set[str]:
        """The least ids of the files that may hold one of these."""
        delta = DeltaTable(tmp_path / PURCHASE.path)
        paths = pruning.may_hold_any(delta, "purchase_id", values)
        return {file["min.purchase_id"] for file in pruning.described(delta) if file["path"] in paths}

    assert held("k", "a", "f") == {"f", "h"}
    assert held("d") == held("b") == {"b"}
    assert held("z", "e", "g", "a") == held() == set()
    small_lake.write(tmp_path, PURCHASE, [{"buyer_id": 1}])
    assert held("d") == {"b", None}


def test_a_lake_in_a_folder_with_a_quote_in_its_name_is_read(tmp_path):
    lake = tmp_path / "Pat's lake"
    small_lake.write(lake, PURCHASE, [{"purchase_id": "7"}])
    assert Reader(lake).rows("select purchase_id from silver.purchase") == [{"purchase_id": "7"}]
