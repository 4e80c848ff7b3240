"""`gmv export`: plain files of the published numbers, each whole or not at all, to the cent."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import duckdb
import pandas as pd
import polars
import pytest
import small_lake
from gmv import export
from gmv.errors import GmvError, UsageError
from gmv.lake import location, records
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.settings import settings

PUBLISHED = [
    (dt.date(2023, 2, 8), "internacional", Decimal("554.50")),
    (dt.date(2023, 2, 18), "nacional", Decimal("778.55")),
    (dt.date(2023, 2, 23), "internacional", Decimal("505.50")),
]


@pytest.fixture
def lake(tmp_path):
    small_lake.write_sample(tmp_path / "lake")
    return tmp_path / "lake"


def _exported(folder) -> list[tuple]:
    return duckdb.sql(
        f"select transaction_date, subsidiary, gmv from read_parquet('{folder}/*/*.parquet', "
        "hive_partitioning = true, hive_types = {'transaction_date': date}) order by all"
    ).fetchall()


def test_days_lie_in_partitions_that_other_engines_read(lake, tmp_path):
    done = export.parquet(Reader(lake), tmp_path / "out", Window())
    assert done.written == ["2023-02-08", "2023-02-18", "2023-02-23"]
    assert _exported(tmp_path / "out") == PUBLISHED
    of_polars = polars.read_parquet(tmp_path / "out" / "*" / "*.parquet", hive_partitioning=True).sort(
        "transaction_date"
    )
    assert of_polars["gmv"].to_list() == [gmv for _, _, gmv in PUBLISHED]
    of_pandas = pd.read_parquet(tmp_path / "out", dtype_backend="pyarrow")
    assert of_pandas["gmv"].sum() == Decimal("1838.55")


def test_a_second_export_writes_what_changed_and_removes_what_is_gone(lake, tmp_path):
    out = tmp_path / "out"
    export.parquet(Reader(lake), out, Window())
    day, gone = dt.date(2023, 2, 18), dt.date(2023, 2, 23)
    changed = [{"transaction_date": day, "subsidiary": "nacional", "gmv": Decimal("778.56")}]
    records.replace_days(lake, [day, gone], changed, {"run": "next"})
    done = export.parquet(Reader(lake), out, Window())
    assert (done.written, done.unchanged, done.removed) == (["2023-02-18"], ["2023-02-08"], ["2023-02-23"])
    assert [gmv for _, _, gmv in _exported(out)] == [Decimal("554.50"), Decimal("778.56")]
    assert sorted(path.name for path in out.iterdir()) == [
        "_manifest.json",
        "transaction_date=2023-02-08",
        "transaction_date=2023-02-18",
    ]


def test_a_window_leaves_other_days_as_they_were_exported(lake, tmp_path):
    out = tmp_path / "out"
    day = dt.date(2023, 2, 8)
    assert export.parquet(Reader(lake), out, Window(day, day)).written == ["2023-02-08"]
    export.parquet(Reader(lake), out, Window())
    days = [day, dt.date(2023, 2, 18)]
    records.replace_days(lake, days, [], {"run": "next"})
    done = export.parquet(Reader(lake), out, Window(day, day))
    assert (done.written, done.removed) == ([], ["2023-02-08"])
    assert [day for day, _, _ in _exported(out)] == [day for day, _, _ in PUBLISHED[1:]]


def test_the_manifest_names_each_day_with_its_rows_sum_and_hash(lake, tmp_path):
    export.parquet(Reader(lake), tmp_path, Window())
    told = json.loads((tmp_path / "_manifest.json").read_text())
    assert (told["table"], told["version"]) == ("gold/daily_gmv", 0)
    facts = told["days"]["2023-02-18"]
    assert (facts["rows"], facts["gmv"]) == (1, "778.55")
    assert len(facts["sha256"]) == 64 and (tmp_path / facts["file"]).is_file()


def test_the_manifest_names_no_day_that_is_gone_and_each_csv_that_is_there(lake, tmp_path):
    export.parquet(Reader(lake), tmp_path / "out", Window())
    records.replace_days(lake, [dt.date(2023, 2, 18)], [], {"run": "next"})
    export.parquet(Reader(lake), tmp_path / "out", Window())
    of_february = Window(dt.date(2023, 2, 1), dt.date(2023, 2, 28))
    for window in (Window(), of_february):
        export.csv(Reader(lake), tmp_path / "out", window)
    told = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert told["version"] == 1
    assert [*told["days"]] == ["2023-02-08", "2023-02-23"]
    assert [*told["files"]] == ["daily_gmv.csv", "daily_gmv_2023-02-01_2023-02-28.csv"]


def test_who_reads_a_file_while_it_is_replaced_reads_the_old_one_to_its_end(lake, tmp_path):
    export.csv(Reader(lake), tmp_path / "out", Window())
    before = (tmp_path / "out" / "daily_gmv.csv").read_text()
    records.replace_days(lake, [dt.date(2023, 2, 18)], [], {"run": "next"})
    with (tmp_path / "out" / "daily_gmv.csv").open() as reading:
        export.csv(Reader(lake), tmp_path / "out", Window())
        assert reading.read() == before
    assert (tmp_path / "out" / "daily_gmv.csv").read_text() != before


def test_a_day_whose_file_was_deleted_is_written_again(lake, tmp_path):
    export.parquet(Reader(lake), tmp_path, Window())
    (tmp_path / "transaction_date=2023-02-18" / "daily_gmv.parquet").unlink()
    assert export.parquet(Reader(lake), tmp_path, Window()).written == ["2023-02-18"]


@pytest.mark.parametrize("is_folder_gone", [False, True])
def test_a_day_that_is_gone_may_have_been_deleted_before(lake, tmp_path, is_folder_gone):
    export.parquet(Reader(lake), tmp_path / "out", Window())
    (tmp_path / "out" / "transaction_date=2023-02-18" / "daily_gmv.parquet").unlink()
    if is_folder_gone:
        (tmp_path / "out" / "transaction_date=2023-02-18").rmdir()
    (tmp_path / "out" / "transaction_date=2023-02-23" / "notes.txt").write_text("mine")
    records.replace_days(lake, [dt.date(2023, 2, 18), dt.date(2023, 2, 23)], [], {"run": "next"})
    done = export.parquet(Reader(lake), tmp_path / "out", Window())
    assert done.removed == ["2023-02-18", "2023-02-23"]
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")) == [
        "_manifest.json",
        "transaction_date=2023-02-08/daily_gmv.parquet",
        "transaction_date=2023-02-23/notes.txt",
    ]


def killed_before_its_manifest(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", export.FORMATS)
def test_a_number_that_a_killed_export_wrote_and_that_was_put_back_is_put_back(
    lake, tmp_path, monkeypatch, name
):
    out, day = tmp_path / "out", dt.date(2023, 2, 18)
    export.FORMATS[name](Reader(lake), out, Window())
    as_published = {path: path.read_bytes() for path in out.rglob("*daily_gmv.*")}
    wrong = [{"transaction_date": day, "subsidiary": "nacional", "gmv": Decimal("1.00")}]
    records.replace_days(lake, [day], wrong, {"run": "wrong"})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(export, "_write_manifest", killed_before_its_manifest)
        export.FORMATS[name](Reader(lake), out, Window())
    records.replace_days(lake, [day], [{**wrong[0], "gmv": Decimal("778.55")}], {"run": "right"})
    export.FORMATS[name](Reader(lake), out, Window())
    assert {path: path.read_bytes() for path in out.rglob("*daily_gmv.*")} == as_published


def test_a_day_that_a_killed_export_wrote_and_that_is_gone_is_removed(lake, tmp_path, monkeypatch):
    out, day = tmp_path / "out", dt.date(2023, 2, 18)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(export, "_write_manifest", killed_before_its_manifest)
        export.parquet(Reader(lake), out, Window())
    records.replace_days(lake, [day], [], {"run": "next"})
    assert export.parquet(Reader(lake), out, Window(day, day)).removed == ["2023-02-18"]
    assert _exported(out) == [PUBLISHED[0], PUBLISHED[2]]


def test_a_mistyped_lake_does_not_empty_what_was_exported(lake, tmp_path):
    out = tmp_path / "out"
    export.parquet(Reader(lake), out, Window())
    for write in export.FORMATS.values():
        with pytest.raises(
            UsageError, match=r"^There is no gold/daily_gmv in .*/lakes: nothing was exported"
        ):
            write(Reader(tmp_path / "lakes"), out, Window())
    assert _exported(out) == PUBLISHED


def test_a_manifest_that_can_not_be_read_is_told_and_nothing_is_written(lake, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_manifest.json").write_text("{")
    with pytest.raises(GmvError, match=r"_manifest\.json can't be read: .* bring it back, or empty"):
        export.parquet(Reader(lake), tmp_path / "out", Window())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_manifest.json"]


def test_csv_for_finance_is_exact(lake, tmp_path):
    window = Window(dt.date(2023, 2, 10), dt.date(2023, 2, 28))
    done = export.csv(Reader(lake), tmp_path, window)
    assert done.written == ["daily_gmv_2023-02-10_2023-02-28.csv"]
    assert (tmp_path / done.written[0]).read_text() == (
        "transaction_date,subsidiary,gmv\n2023-02-18,nacional,778.55\n2023-02-23,internacional,505.50\n"
    )
    assert export.csv(Reader(lake), tmp_path, window).unchanged == done.written


def test_a_csv_that_was_deleted_is_written_again(lake, tmp_path):
    out = tmp_path / "out"
    assert export.csv(Reader(lake), out, Window()).written == ["daily_gmv.csv"]
    assert export.csv(Reader(lake), out, Window()) == export.Exported([], ["daily_gmv.csv"], [])
    (out / "daily_gmv.csv").unlink()
    assert export.csv(Reader(lake), out, Window()) == export.Exported(["daily_gmv.csv"], [], [])
    assert (out / "daily_gmv.csv").exists()


def test_a_file_is_no_target(lake, tmp_path):
    (tmp_path / "out").write_text("mine")
    for write in export.FORMATS.values():
        with pytest.raises(UsageError, match=r"out is not a folder: nothing was exported"):
            write(Reader(lake), tmp_path / "out", Window())


@pytest.mark.parametrize("place", ["lake", "landing", "runs"])
def test_what_runs_read_and_write_is_no_target(lake, tmp_path, monkeypatch, place):
    places = {"lake": lake, "landing": tmp_path / "landing", "runs": tmp_path / "runs"}
    monkeypatch.setenv("GMV_LANDING", str(places["landing"]))
    monkeypatch.setenv("GMV_RUNS_DIR", str(places["runs"]))
    settings.cache_clear()
    target = places[place] / "deeper" / ".." / "finance"
    with pytest.raises(UsageError, match=f"is in the {place}"):
        export.csv(Reader(lake), target, Window())
    assert not target.exists()


def test_no_link_leads_an_export_into_the_lake(lake, tmp_path):
    (tmp_path / "link").symlink_to(lake)
    for reader, target in ((Reader(lake), tmp_path / "link"), (Reader(tmp_path / "link"), lake)):
        with pytest.raises(UsageError, match="is in the lake"):
            export.csv(reader, target / "finance", Window())


@pytest.mark.parametrize(
    ("target", "is_in"),
    [
        ("s3://acme-analytics/lake/gold", True),
        ("s3://acme-raw/lake", True),
        ("s3://acme-analytics/lake-export", False),
        ("s3://acme-analytics/export", False),
        ("finance", False),
    ],
)
def test_what_is_a_target_in_an_object_store_goes_by_whole_names(target, is_in):
    pytest.importorskip("s3fs", reason="make setup-s3 brings it")
    lake = location.location("s3://acme-{zone}/lake")
    assert export._is_in(location.location(target), lake) is is_in


def test_one_folder_may_hold_both_formats(lake, tmp_path):
    export.parquet(Reader(lake), tmp_path, Window())
    export.csv(Reader(lake), tmp_path, Window())
    manifest = json.loads((tmp_path / "_manifest.json").read_text())
    assert (len(manifest["days"]), list(manifest["files"])) == (3, ["daily_gmv.csv"])
    assert export.parquet(Reader(lake), tmp_path, Window()).written == []
    assert "files" in json.loads((tmp_path / "_manifest.json").read_text())


def test_an_export_to_s3_is_the_same(lake, store):
    from gmv.lake import location

    target = location.location(f"s3://{store.make_bucket('finance')}/export")
    assert len(export.parquet(Reader(lake), target, Window()).written) == 3
    connection = duckdb.connect()
    connection.register_filesystem(location.filesystem())
    listed = [f"s3://finance/export/{found.path}" for found in location.objects(target)]
    parquet = [uri for uri in listed if uri.endswith(".parquet")]
    rows = connection.execute(
        "select transaction_date, subsidiary, gmv from read_parquet($files, hive_partitioning = true, "
        "hive_types = {'transaction_date': date}) order by all",
        {"files": parquet},
    ).fetchall()
    assert rows == PUBLISHED
    records.replace_days(lake, [dt.date(2023, 2, 23)], [], {"run": "next"})
    assert export.parquet(Reader(lake), target, Window()).removed == ["2023-02-23"]
