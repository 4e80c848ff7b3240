"""The pipeline on real Delta tables, by the notebooks' own code."""

from __future__ import annotations

import shutil
import subprocess

from command import GMV
from gmv.settings import PROJECT
from pipeline import LAYERS

SAMPLE = PROJECT / "data_lake" / "landing"
EXPECTED = (PROJECT / "tests" / "sample" / "expected_daily_gmv.csv").read_text().splitlines()[1:]


def test_sample_gives_its_expected_result(lake):
    shutil.copytree(SAMPLE, lake.landing, dirs_exist_ok=True)
    lake.run()
    assert lake.published() == [line.replace(",", " ") for line in EXPECTED]


def test_sample_gives_its_expected_result_by_plain_papermill(lake, tmp_path):
    window = ("-p", "start_date", "2023-02-01", "-p", "end_date", "2023-02-28")
    places = (
        "-p",
        "lake",
        str(lake.path),
        "-p",
        "landing",
        str(SAMPLE),
        "-p",
        "runs_dir",
        str(lake.runs_dir),
    )
    for name in LAYERS:
        notebook = str(PROJECT / "notebooks" / f"{name}.ipynb")
        command = [GMV.with_name("papermill"), notebook, tmp_path / "out.ipynb", *window, *places]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert lake.published() == [line.replace(",", " ") for line in EXPECTED]


def test_worked_example_of_the_ledger(lake):
    """Paid at 100.00, then nac at 80.00, then paid again on another day, then a late withdrawal between."""
    header = (
        "transaction_datetime,transaction_date,purchase_id,"
        "buyer_id,prod_item_id,order_date,release_date,producer_id"
    )
    item = "transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value"
    info = "transaction_datetime,transaction_date,purchase_id,subsidiary"
    lake.put("purchase-10.csv", f"{header}\n2023-03-10 09:00:00,2023-03-10,1,5,6,2023-03-09,2023-03-10,7")
    lake.put("product_item-10.csv", f"{item}\n2023-03-10 09:00:00,2023-03-10,1,6,1,100.00")
    lake.run(as_of_date="2023-03-11")
    assert lake.published() == ["2023-03-10 unknown 100.00"]

    lake.put("product_item-12.csv", f"{item}\n2023-03-12 09:00:00,2023-03-12,1,6,1,80.00")
    lake.put("purchase_extra_info-12.csv", f"{info}\n2023-03-12 10:00:00,2023-03-12,1,nac")
    lake.run(as_of_date="2023-03-13")
    assert lake.published() == ["2023-03-10 nac 80.00"]

    lake.put("purchase-25.csv", f"{header}\n2023-03-25 09:00:00,2023-03-25,1,5,6,2023-03-09,2023-03-25,7")
    lake.run(as_of_date="2023-03-26")
    assert lake.published() == ["2023-03-25 nac 80.00"]

    lake.put("purchase-20-late.csv", f"{header}\n2023-03-20 09:00:00,2023-03-20,1,5,6,2023-03-09,,7")
    last = lake.run(as_of_date="2023-04-02")
    assert lake.published() == ["2023-03-25 nac 80.00"]
    assert last["changes"] == []
    assert lake.postings() == [
        "1 1 2023-03-10 unknown +100.00/+1 2023-03-10 paid",
        "2 1 2023-03-10 unknown -100.00/-1 2023-03-12 subsidiary_known",
        "2 1 2023-03-10 nac -20.00/+0 2023-03-12 repriced",
        "2 1 2023-03-10 nac +100.00/+1 2023-03-12 subsidiary_known",
        "3 1 2023-03-10 nac -80.00/-1 2023-03-25 moved_day",
        "3 1 2023-03-25 nac +80.00/+1 2023-03-25 moved_day",
        "4 1 2023-03-10 nac -80.00/-1 2023-03-20 withdrawn",
        "4 1 2023-03-25 nac -80.00/-1 2023-03-25 moved_day",
        "4 1 2023-03-10 nac +80.00/+1 2023-03-25 moved_day",
        "4 1 2023-03-25 nac +80.00/+1 2023-03-25 paid",
    ]


def test_a_file_without_a_valid_record_is_quarantined_where_spark_plans_anew_while_it_works(lake, spark):
    lake.arrive("a", "purchase 03-10T08:00 1 paid\nitem 03-10T08:00 1 1 50.00\ninfo 03-10T08:00 1 nac")
    lake.run()
    lake.put(
        "product_item-b.csv",
        """
        transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
        2023-03-11 08:00:00,2023-03-11,1,5,1,50.005
        """,
    )
    spark.conf.set("spark.sql.adaptive.enabled", "true")  # as on a server for many rows, or one elsewhere
    try:
        lake.run()
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", "false")
    quarantined = lake.reader.rows("select file, line from silver.quarantine")
    assert quarantined == [{"file": "product_item-b.csv", "line": 2}]
    assert lake.published() == ["2023-03-10 nac 50.00"]
