"""Whole runs in S3, by `make s3-test`: the sample to the cent, a correction, two drivers, a server that goes away."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import crash
import object_store
import polars
import psutil
import pytest
import test_crash
from command import GMV, own_environment
from gmv.lake import faults, location, lock, spark
from gmv.lake.reader import Reader
from gmv.settings import PROJECT, settings

EXPECTED = """transaction_date,subsidiary,gmv
2023-02-08,internacional,554.50
2023-02-18,nacional,778.55
2023-02-23,internacional,505.50
"""
# What docs/cloud.md and terraform/ give the pipeline's role, by bucket.
WRITES = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
MAY = {
    "acme-raw": {"": ["s3:ListBucket"], "landing/*": ["s3:GetObject"], "lake/*": WRITES},
    "acme-curated": {"": ["s3:ListBucket"], "lake/*": WRITES},
    "acme-analytics": {"": ["s3:ListBucket"], "lake/*": WRITES, "runs/*": WRITES, "export/*": WRITES},
}
BUCKETS = tuple(MAY)
is_long = pytest.mark.skipif("GMV_CLOUD_TESTS" not in os.environ, reason="make s3-test runs it")
pytestmark = [
    pytest.mark.skipif(not list(spark.S3_JARS.glob("*.jar")), reason="make setup-s3 brings Spark's S3 jars"),
    pytest.mark.timeout(1800),
]


class Place:
    """A lake over three buckets, with landing and runs, and `gmv` on it, by a role that may do what it must."""

    def __init__(self, store) -> None:
        self.store = store
        self.role = store.make_user("pipeline")
        for bucket in BUCKETS:
            store.make_bucket(bucket)
            store.allow("pipeline", bucket, MAY[bucket])
        self.lake = location.location("s3://acme-{zone}/lake")
        self.environment = {
            **own_environment(),
            **self.role,
            "GMV_LAKE": str(self.lake),
            "GMV_LANDING": "s3://acme-raw/landing",
            "GMV_RUNS_DIR": "s3://acme-analytics/runs",
            "GMV_SPARK_MEMORY_MIB": "1024",
        }

    def put_sample(self) -> None:
        for file in (PROJECT / "data_lake" / "landing").iterdir():
            location.filesystem().put_file(str(file), f"s3://acme-raw/landing/{file.name}")

    def start(self, *arguments: str, **changed: str) -> subprocess.Popen:
        return subprocess.Popen(
            [GMV, *arguments],
            env={**self.environment, **changed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.store.folder,
        )

    def gmv(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess:
        running = self.start(*arguments, **changed)
        said, told = running.communicate()
        return subprocess.CompletedProcess(arguments, running.returncode, said, told)

    def published(self) -> str:
        return self.gmv("show", "daily_gmv", "--format", "csv").stdout


@pytest.fixture
def place(store):
    return Place(store)


@pytest.fixture
def gate(store):
    """The door by which `gmv` reaches the store, where it is given as AWS_ENDPOINT_URL."""
    opened = object_store.Gate(store.port)
    yield opened
    opened.close()


def test_the_sample_runs_in_s3_to_the_cent_and_keeps_its_secrets(place, store):
    place.put_sample()
    running = place.start("run")
    command_lines: set[str] = set()
    while running.poll() is None:
        for process in psutil.Process(running.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # nor has a zombie a command line
                command_lines.add(" ".join(process.cmdline()))
        time.sleep(0.1)
    said, told = running.communicate()
    assert running.returncode == 0, told
    assert "Report: s3://acme-analytics/runs/" in said
    assert place.published() == EXPECTED

    (record,) = location.filesystem().glob("acme-analytics/runs/*/run.json")
    assert json.loads(location.filesystem().cat_file(record))["outcome"] == "succeeded"
    (report,) = location.filesystem().glob("acme-analytics/runs/*/report.html")
    assert b"778.55" in location.filesystem().cat_file(report)
    of_polars = polars.read_delta(str(place.lake / "gold/daily_gmv"))
    assert sorted(of_polars["gmv"]) == [Decimal("505.50"), Decimal("554.50"), Decimal("778.55")]
    assert Reader(place.lake).rows("select count(*) as purchases from silver.purchase") == [{"purchases": 6}]
    assert not list((store.folder / "data").rglob("_staged"))

    secret = place.role["AWS_SECRET_ACCESS_KEY"]
    assert any("SparkConnectServer" in one for one in command_lines)
    assert any("gmv.run.forking" in one for one in command_lines)
    assert secret not in "".join([*command_lines, said, told])
    files = [file for file in [*_files(store.folder / "data"), *_files(Path(os.environ["XDG_CACHE_HOME"]))]]
    names = {file.name for file in files}
    assert {"run.json", "spark.log", "kernels.log", "02_silver.ipynb", "report.html"} <= names
    for file in files:
        assert secret.encode() not in file.read_bytes(), file


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


@is_long
@pytest.mark.parametrize("way", object_store.WAYS)
def test_the_sample_runs_in_s3_by_a_profile_or_role(place, tmp_path, way):
    place.put_sample()
    with object_store.given_by(way, place.role, tmp_path) as variables:
        for name in place.role:
            del place.environment[name]
        place.environment |= variables
        ran = place.gmv("run")
        assert ran.returncode == 0, ran.stderr
        assert place.published() == EXPECTED


CORRECTION = b"""transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
2023-03-05 00:00:00,2023-03-05,56,81426,10,50.00
"""


def _expire(place: Place, gate: object_store.Gate) -> None:
    gate.answer("400 Bad Request", "ExpiredToken", "The provided token has expired.")


def _deny(place: Place, gate: object_store.Gate) -> None:
    place.store.allow("pipeline", "acme-analytics", {"": ["s3:ListBucket"], "*": ["s3:GetObject"]})


def _stop(place: Place, gate: object_store.Gate) -> None:
    place.store.stop()


def _repair(place: Place, gate: object_store.Gate) -> None:
    gate.pass_on()
    if not place.store.is_alive():
        place.store.start()
    place.store.allow("pipeline", "acme-analytics", MAY["acme-analytics"])


IN_THE_MIDDLE = [
    ("01_bronze after bronze/product_item", _stop, "does not answer"),
    ("02_silver before silver/product_item_versions", _expire, "credentials have expired"),
    ("03_gold before gold/daily_gmv", _deny, "permission is missing"),
]


@is_long
def test_each_failure_in_the_middle_of_a_run_is_told_in_one_sentence_and_the_last_numbers_stay(
    place, gate, tmp_path
):
    place.environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{gate.port}"
    place.put_sample()
    assert place.gmv("run").returncode == 0
    location.filesystem().pipe_file("s3://acme-raw/landing/product_item-5.csv", CORRECTION)
    for position, (point, break_off, sentence) in enumerate(IN_THE_MIDDLE):
        paused = tmp_path / f"paused-{position}"
        pausing = {faults.PAUSE_AT: point, faults.PAUSE_FILE: str(paused), "GMV_LEASE_SECONDS": "20"}
        running = place.start("run", **pausing)
        while not paused.exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.1)
        break_off(place, gate)
        paused.write_text("go")
        _, told = running.communicate(timeout=600)
        assert running.returncode == 1, told
        said = [line for line in told.splitlines() if not re.match(r"0\d_\w+ ", line)]
        assert len(said) == 1 and sentence in said[0], told
        _repair(place, gate)
        assert place.published() == EXPECTED
        lock.acquire(
            place.lake, "the test", wait_seconds=60
        ).release()  # the lease of the run that lost its store
    ran = place.gmv("run")
    assert ran.returncode == 0, ran.stderr
    assert place.published() == EXPECTED.replace("554.50", "500.00")


@is_long
@pytest.mark.timeout(3600)
def test_a_run_killed_at_any_commit_in_s3_ends_as_one_that_was_never_killed(store, tmp_path, monkeypatch):
    monkeypatch.setenv("GMV_LEASE_SECONDS", "10")
    settings.cache_clear()
    scene = crash.Scene(tmp_path / "first", location.location(f"s3://{store.make_bucket('crash')}/first"))
    crash.first_run(scene)
    crash.deliver_corrections(scene)
    test_crash.end_as_if_never_killed(scene, tmp_path)


APPEND = """
import json, sys
from pathlib import Path
from gmv.lake import lock, spark
from gmv.lake.location import location
lake, name = location(sys.argv[1]), sys.argv[2]
acknowledged = []
with spark.SparkServer(None, Path(sys.argv[4], name + ".log")) as server, server.in_use():
    session = spark.connect()
    try:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(20):
            held = lock.acquire(lake, name, wait_seconds=600) if sys.argv[3] == "lease" else None
            one = session.createDataFrame([(f"{name} {number}",)], "id string")
            one.write.format("delta").mode("append").save(str(lake / "gold/appended"))
            acknowledged.append(f"{name} {number}")
            if held:
                held.release()
    finally:
        session.stop()  # else its client looks for the server for minutes
    print(json.dumps(acknowledged), flush=True)
"""


def _append_by_two_drivers(place, lake, how: str, port: int) -> tuple[set[str], set[str]]:
    """Two Spark drivers append 20 rows each; what they were told is committed, and what is there.

    Args:
        how: `lease`, or `none`.
        port: of the store.
    """
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    write_deltalake(str(lake / "gold/appended"), pa.table({"id": ["first"]}))
    own = {**place.environment, **place.store.environment(), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(lake), name, how, str(place.store.folder)],
            env={**own, "XDG_CACHE_HOME": str(place.store.folder / f"cache-{name}")},  # as on another machine
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
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
    far_away = object_store.Gate(place.store.port, delay=0.05)  # as S3 is
    lake = location.location("s3://acme-raw/with")
    acknowledged, there = _append_by_two_drivers(place, lake, "lease", far_away.port)
    assert len(acknowledged) == 40 and there == acknowledged
    # What the lease is for. Should none be lost any more, Delta's log store has learnt conditional writes.
    for attempt in range(3):
        lake = location.location(f"s3://acme-raw/without-{attempt}")
        acknowledged, there = _append_by_two_drivers(place, lake, "none", far_away.port)
        print(f"without the lease, {len(acknowledged - there)} of {len(acknowledged)} commits are lost")
        if acknowledged - there:
            break
    far_away.close()
    assert acknowledged - there, "no commit was lost without the lease; is it still needed?"
