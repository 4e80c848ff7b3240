"""The scripts that the pipeline is compared with: they follow rules 1-5, to the cent."""

from __future__ import annotations

import importlib
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "benchmarks"))
measure = importlib.import_module("measure")

FIRST_LINES = {
    "purchase": "transaction_datetime,transaction_date,purchase_id,buyer_id,prod_item_id,order_date,release_date,"
    "producer_id",
    "product_item": "transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value",
    "purchase_extra_info": "transaction_datetime,transaction_date,purchase_id,subsidiary",
}

# PySpark's is checked by benchmarks/run.py, which ends when its rows differ from the others'.
each_script = pytest.mark.parametrize("name", ["duckdb", "pandas", "polars"])


def daily_gmv(name: str, landing: Path, out: Path) -> tuple[str, str]:
    """What the script prints, and the rows that it writes, as CSV."""
    script = PROJECT / "benchmarks" / f"recompute_{name}.py"
    ran = subprocess.run(
        [sys.executable, str(script), str(landing), str(out)], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    written = duckdb.read_parquet(str(out / "daily_gmv.parquet"))
    assert written.types[2] == "DECIMAL(38,2)"
    rows = written.order("transaction_date, subsidiary").fetchall()
    return ran.stdout, "".join(f"{day},{subsidiary},{gmv}\n" for day, subsidiary, gmv in rows)


def write_events(landing: Path, **events: str) -> None:
    landing.mkdir()
    for table, first_line in FIRST_LINES.items():
        lines = [line.strip() for line in events[table].strip().splitlines()]
        (landing / f"{table}.csv").write_text("\n".join([first_line, *lines]) + "\n")


@each_script
def test_the_sample_gives_the_expected_rows(name: str, tmp_path: Path) -> None:
    printed, rows = daily_gmv(name, PROJECT / "data_lake" / "landing", tmp_path / "out")

    expected = (PROJECT / "tests" / "sample" / "expected_daily_gmv.csv").read_text()
    assert "transaction_date,subsidiary,gmv\n" + rows == expected
    assert printed == "1838.55 3\n"


@each_script
def test_each_rule_is_followed(name: str, tmp_path: Path) -> None:
    write_events(
        tmp_path / "landing",
        # 1 is paid on the 2nd, without extra information. 2 is withdrawn. 3 moves from the 1st to the 3rd.
        # 4 has a tie, which the greater release_date wins. 5 has no item. 6 counts, at 0.00.
        purchase="""
            2024-01-01 10:00:00,2024-01-01,1,1,1,2024-01-01,,1
            2024-01-02 10:00:00,2024-01-02,1,1,1,2024-01-01,2024-01-02,1
            2024-01-01 10:00:00,2024-01-01,2,1,1,2024-01-01,2024-01-01,1
            2024-01-05 10:00:00,2024-01-05,2,1,1,2024-01-01,,1
            2024-01-03 10:00:00,2024-01-03,3,1,1,2024-01-01,2024-01-03,1
            2024-01-01 10:00:00,2024-01-01,3,1,1,2024-01-01,2024-01-01,1
            2024-01-03 10:00:00,2024-01-03,4,1,1,2024-01-01,2024-01-03,
            2024-01-03 10:00:00,2024-01-03,4,1,1,2024-01-01,,9
            2024-01-03 10:00:00,2024-01-03,5,1,1,2024-01-01,2024-01-03,1
            2024-01-04 10:00:00,2024-01-04,6,,,,2024-01-04,
        """,
        # 3 comes three times as an exact copy. 4 has a tie, which the greater value wins.
        product_item="""
            2024-01-01 10:00:00,2024-01-01,1,1,3,0.10
            2024-01-01 10:00:00,2024-01-01,2,1,1,7.00
            2024-01-01 10:00:00,2024-01-01,3,1,2,50.05
            2024-01-01 10:00:00,2024-01-01,3,1,2,50.05
            2024-01-01 10:00:00,2024-01-01,3,1,2,50.05
            2024-01-01 10:00:00,2024-01-01,4,1,1,9.99
            2024-01-01 10:00:00,2024-01-01,4,1,1,10.01
            2024-01-01 10:00:00,2024-01-01,6,1,5,0.00
        """,
        # 3 moves to latam. 4's tie goes to z, whose bytes are greater than Z's. 7 is an orphan.
        purchase_extra_info="""
            2024-01-01 10:00:00,2024-01-01,2,nacional
            2024-01-02 10:00:00,2024-01-02,3,latam
            2024-01-01 10:00:00,2024-01-01,3,nacional
            2024-01-01 10:00:00,2024-01-01,4,Z
            2024-01-01 10:00:00,2024-01-01,4,z
            2024-01-01 10:00:00,2024-01-01,6,nacional
            2024-01-01 10:00:00,2024-01-01,7,nacional
        """,
    )

    printed, rows = daily_gmv(name, tmp_path / "landing", tmp_path / "out")

    assert rows.splitlines() == [
        "2024-01-02,unknown,0.30",
        "2024-01-03,latam,100.10",
        "2024-01-03,z,10.01",
        "2024-01-04,nacional,0.00",
    ]
    assert printed == "110.41 4\n"


@each_script
def test_nothing_paid_gives_no_rows(name: str, tmp_path: Path) -> None:
    write_events(
        tmp_path / "landing",
        purchase="2024-01-01 10:00:00,2024-01-01,1,1,1,2024-01-01,,1",
        product_item="2024-01-01 10:00:00,2024-01-01,1,1,3,0.10",
        purchase_extra_info="2024-01-01 10:00:00,2024-01-01,1,nacional",
    )

    assert daily_gmv(name, tmp_path / "landing", tmp_path / "out") == ("0.00 0\n", "")


def test_a_cent_of_difference_ends_the_benchmark() -> None:
    rows = {("2024-01-01", "nacional"): Decimal("1.10"), ("2024-01-02", "nacional"): Decimal("2.00")}
    measure.check_same({"pyspark": rows, "gmv": dict(rows), "duckdb": dict(rows)})

    cent_more = rows | {("2024-01-02", "nacional"): Decimal("2.01")}
    disagree = r"pyspark and duckdb disagree in 1 rows, the first being 2024-01-02 nacional: 2\.00 and 2\.01"
    with pytest.raises(RuntimeError, match=disagree):
        measure.check_same({"pyspark": rows, "gmv": dict(rows), "duckdb": cent_more})
    with pytest.raises(RuntimeError, match=r"2024-01-02 nacional: 2\.00 and None"):
        measure.check_same({"pyspark": rows, "gmv": {("2024-01-01", "nacional"): Decimal("1.10")}})


def test_a_command_that_fails_ends_the_benchmark_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no such luck'); sys.exit(3)"]
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno such luck"):
        measure.cost_of(command, tmp_path)


BUSY = "import time; a = b'x' * 2**28; until = time.monotonic() + 2\nwhile time.monotonic() < until: pass"


def test_time_and_memory_of_a_command(tmp_path: Path) -> None:
    cost = measure.cost_of([sys.executable, "-c", BUSY], tmp_path)
    assert cost.wall >= 2
    assert cost.cpu > 0.5
    assert 2**28 < cost.others < 2**29
    assert cost.java == 0


def test_children_count_also_those_that_it_leaves_behind(tmp_path: Path) -> None:
    parent = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {BUSY!r}]); time.sleep(1)"
    )
    cost = measure.cost_of([sys.executable, "-c", parent], tmp_path)
    assert cost.wall < 5
    assert cost.cpu > 0.3
    assert cost.others > 2**28
