"""A lake that an older version of the project left: looked at, published, maintained and exported as it is."""

from __future__ import annotations

import datetime as dt
import shutil
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import small_lake
from deltalake import DeltaTable, write_deltalake
from gmv import doctor, export, maintain, progress, publication, recovery, status
from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.tables import CHECK_RESULTS, DAILY_GMV, PROGRESS, Table
from small_lake import at, day

SAMPLE = {day("2023-02-08"): "554.50", day("2023-02-18"): "778.55", day("2023-02-23"): "505.50"}
RUN = "20230301T060000-0001"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """The sample as versions of 2026-11-24 left it.

    A file per published day; neither table_versions in monitoring/progress nor amount and accepted in
    monitoring/check_results; and no kept lists or sums.
    """
    lake = tmp_path / "lake"
    small_lake.write_sample(lake)
    published = DeltaTable(lake / DAILY_GMV.path).to_pyarrow_table()
    shutil.rmtree(lake / DAILY_GMV.path)
    write_deltalake(lake / DAILY_GMV.path, published, partition_by="transaction_date")
    shutil.rmtree(lake / PROGRESS.path)
    noted = {"bronze_run": RUN, "run": RUN, "recorded_at": at("2023-03-01T06:00:40")}
    older(lake, PROGRESS, [{"step": step, **noted} for step in progress.STEPS], "table_versions")
    failed = {"run": RUN, "check": "day_drop", "severity": "warn", "passed": False, "subject": "2023-02-23"}
    failed |= {"value": "505.50", "message": "2023-02-23 has 505.50.", "recorded_at": noted["recorded_at"]}
    older(lake, CHECK_RESULTS, [failed], "amount", "accepted")
    return lake


def older(lake: Path, table: Table, rows: list[dict], *lacking: str) -> None:
    """Write a table as it was before some of its columns were declared."""
    columns = pa.Table.from_pylist(rows, records.arrow_schema(table)).drop_columns(list(lacking))
    write_deltalake(lake / table.path, columns)


def numbers(lake: Path) -> dict[dt.date, str]:
    return {day: str(gmv) for (day, _), gmv in publication.published(Reader(lake)).items()}


def test_it_is_whole_and_nothing_waits(lake):
    recovery.finish_killed_run(lake)
    told = status.status(Reader(lake), day("2023-02-24"))
    assert told.is_well and not told.pending and not any(told.unfinished.values())
    assert [problem.subject for problem in told.problems] == ["day_drop:2023-02-23"]
    assert [one for one in doctor.examine(lake, lake, lake) if "/" in one.what and not one.fit] == []


def test_its_days_stay_when_one_is_published(lake):
    before = Reader(lake)
    coming = publication.published(before) | {(day("2023-02-18"), "nacional"): Decimal("700.00")}
    publication.publish(lake, before, coming, SAMPLE, "later", recomputed=[], checks=[])
    assert numbers(lake) == SAMPLE | {day("2023-02-18"): "700.00"}
    history = Reader(lake).rows("select previous_gmv, gmv from gold.daily_gmv_history where run = 'later'")
    assert history == [{"previous_gmv": Decimal("778.55"), "gmv": Decimal("700.00")}]


def test_maintenance_and_export_take_it_as_it_is(lake, tmp_path):
    maintain.maintain(lake)
    assert numbers(lake) == SAMPLE
    target = tmp_path / "exported"
    assert export.parquet(Reader(lake), target, Window()).written == [str(one) for one in SAMPLE]
