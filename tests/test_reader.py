"""What is read of a lake without Spark: the pinned version, and no more files than the question needs."""

import datetime as dt
import os
import subprocess
import sys
import tempfile
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from gmv.lake import records
from gmv.lake.reader import Damaged, NotEnoughMemory, Reader
from gmv.settings import settings
from gmv.tables import DAILY_GMV, event_table

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


def test_a_published_day_that_cannot_be_read_is_damage_by_name(tmp_path):
    publish(tmp_path, {1: "1.00"})
    for file in (tmp_path / DAILY_GMV.path).rglob("*.parquet"):
        file.unlink()
    for look in (lambda reader: published(reader), lambda reader: reader.check(DAILY_GMV)):
        with pytest.raises(Damaged, match="gold/daily_gmv"):
            look(Reader(tmp_path))


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


def test_what_does_not_fit_in_memory_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setenv("GMV_SPARK_MEMORY_MIB", "512")
    settings.cache_clear()
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
