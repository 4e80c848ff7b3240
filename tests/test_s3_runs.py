"""Whole runs in S3, by `make s3-test`: the sample to the cent, a correction, two drivers, a server that goes away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import polars
import pytest
from gmv.lake import location, spark
from gmv.lake.reader import Reader
from gmv.settings import PROJECT

GMV = Path(sys.executable).with_name("gmv")
EXPECTED = """transaction_date,subsidiary,gmv
2023-02-08,internacional,554.50
2023-02-18,nacional,778.55
2023-02-23,internacional,505.50
"""
is_long = pytest.mark.skipif("GMV_CLOUD_TESTS" not in os.environ, reason="make s3-test runs it")
pytestmark = [
    pytest.mark.skipif(not list(spark.S3_JARS.glob("*.jar")), reason="make setup-s3 brings Spark's S3 jars"),
    pytest.mark.timeout(1800),
]


class Place:
    """A lake over three buckets, with landing and runs, and `gmv` on it."""

    def __init__(self, store) -> None:
        self.store = store
        for bucket in ("acme-raw", "acme-curated", "acme-analytics"):
            store.make_bucket(bucket)
        self.lake = location.location("s3://acme-{zone}/lake")
        self.environment = {
            **os.environ,
            "GMV_LAKE": str(self.lake),
            "GMV_LANDING": "s3://acme-raw/landing",
            "GMV_RUNS_DIR": "s3://acme-analytics/runs",
            "GMV_SPARK_MEMORY_MIB": "1024",
        }

    def put_sample(self) -> None:
        for file in (PROJECT / "data_lake" / "landing").iterdir():
            location.filesystem().put_file(str(file), f"s3://acme-raw/landing/{file.name}")

    def gmv(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [GMV, *arguments],
            env={**self.environment, **changed},
            capture_output=True,
            text=True,
            cwd=self.store.folder,
        )


@pytest.fixture
def place(store):
    return Place(store)


@is_long
def test_the_sample_runs_in_s3_to_the_cent(place):
    place.put_sample()
    ran = place.gmv("run")
    assert ran.returncode == 0, ran.stderr
    assert "Report: s3://acme-analytics/runs/" in ran.stdout
    assert place.gmv("show", "daily_gmv", "--format", "csv").stdout == EXPECTED
    (record,) = location.filesystem().glob("acme-analytics/runs/*/run.json")
    assert json.loads(location.filesystem().cat_file(record))["outcome"] == "succeeded"
    (report,) = location.filesystem().glob("acme-analytics/runs/*/report.html")
    assert b"778.55" in location.filesystem().cat_file(report)
    of_polars = polars.read_delta(str(place.lake / "gold/daily_gmv"))
    assert sorted(of_polars["gmv"]) == [Decimal("505.50"), Decimal("554.50"), Decimal("778.55")]
    assert Reader(place.lake).rows("select count(*) as purchases from silver.purchase") == [{"purchases": 6}]
    assert not location.filesystem().glob("acme-*/**/_staged/**")
    secret = place.store.secret.encode()
    for file in (place.store.folder / "data").rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes(), file


@is_long
def test_a_correction_and_a_server_that_goes_away_in_the_middle(place):
    place.put_sample()
    assert place.gmv("run").returncode == 0
    correction = (
        "transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value\n"
        "2023-03-05 00:00:00,2023-03-05,56,81426,10,50.00\n"
    )
    location.filesystem().pipe_file("s3://acme-raw/landing/product_item-5.csv", correction.encode())
    running = subprocess.Popen(
        [GMV, "run"], env={**place.environment, "GMV_LEASE_SECONDS": "20"}, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    assert running.stderr.readline().startswith("01_bronze")
    place.store.stop()
    told = running.communicate(timeout=1200)[1]
    assert running.returncode == 1
    said = [line for line in told.splitlines() if line.startswith("gmv: ")]
    assert said and "Traceback" not in told, told
    place.store.start()
    assert place.gmv("show", "daily_gmv", "--format", "csv").stdout == EXPECTED
    import time

    time.sleep(25)  # the lease of the run that lost its store
    ran = place.gmv("run")
    assert ran.returncode == 0, ran.stderr
    assert place.gmv("show", "daily_gmv", "--format", "csv").stdout == EXPECTED.replace("554.50", "500.00")


APPEND = """
import json, os, sys
from pathlib import Path
from gmv.lake import lock, spark
from gmv.lake.location import location
lake, name = location(sys.argv[1]), sys.argv[2]
acknowledged = []
with spark.SparkServer(None, Path(sys.argv[4], name + ".log")) as server:
    server.wait()
    os.environ.update(server.environment())
    session = spark.connect()
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        held = lock.acquire(lake, name, wait_seconds=600) if sys.argv[3] == "lease" else None
        one = session.createDataFrame([(f"{name} {number}",)], "id string")
        one.write.format("delta").mode("append").save(str(lake / "gold/appended"))
        acknowledged.append(f"{name} {number}")
        if held:
            held.release()
    print(json.dumps(acknowledged), flush=True)
"""


def _append_by_two_drivers(place, lake, how: str) -> tuple[set[str], set[str]]:
    """Two Spark drivers append 20 rows each; what they were told is committed, and what is there."""
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    write_deltalake(str(lake / "gold/appended"), pa.table({"id": ["first"]}))
    drivers = []
    for name in ("one", "two"):
        cache = place.store.folder / f"cache-{name}"  # each as if on a machine of its own
        drivers.append(
            subprocess.Popen(
                [sys.executable, "-c", APPEND, str(lake), name, how, str(place.store.folder)],
                env={**place.environment, "XDG_CACHE_HOME": str(cache)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for driver in drivers:
        assert driver.stdout.readline() == "ready\n"
    for driver in drivers:
        driver.stdin.write("\n")
        driver.stdin.flush()
    acknowledged = {one for driver in drivers for one in json.loads(driver.stdout.readline())}
    assert [driver.wait() for driver in drivers] == [0, 0]
    there = set(DeltaTable(str(lake / "gold/appended")).to_pyarrow_table()["id"].to_pylist()) - {"first"}
    return acknowledged, there


@is_long
def test_two_drivers_lose_commits_without_the_lease_and_none_with_it(place):
    acknowledged, there = _append_by_two_drivers(place, location.location("s3://acme-raw/with"), "lease")
    assert len(acknowledged) == 40 and there == acknowledged
    # What the lease is for. Should this ever pass without it, Delta's log store has learnt conditional writes.
    for attempt in range(3):
        lake = location.location(f"s3://acme-raw/without-{attempt}")
        acknowledged, there = _append_by_two_drivers(place, lake, "none")
        print(f"without the lease, {len(acknowledged - there)} of {len(acknowledged)} commits are lost")
        if acknowledged - there:
            return
    raise AssertionError("no commit was lost without the lease; is it still needed?")
