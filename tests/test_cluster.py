"""A Spark cluster of a master and two workers on this machine, made of PySpark's own classes; its lake in S3.

`make cluster-test` runs it: it takes minutes.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gmv.lake import spark
from gmv.lake.location import location
from gmv.lake.reader import Reader
from test_s3_runs import EXPECTED, GMV, Place

pytestmark = [
    pytest.mark.skipif("GMV_CLOUD_TESTS" not in os.environ, reason="make cluster-test runs it"),
    pytest.mark.skipif(not list(spark.S3_JARS.glob("*.jar")), reason="make setup-s3 brings Spark's S3 jars"),
    pytest.mark.timeout(3000),
]


class Cluster:
    """A standalone master and two workers, each worker with an address of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._processes: list[subprocess.Popen] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.master = f"spark://127.0.0.1:{port}"
        self._start("master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0")
        self.workers = [self._worker(f"127.0.0.{number}") for number in (2, 3)]

    def _worker(self, address: str) -> subprocess.Popen:
        return self._start(
            "worker", "--host", address, "--webui-port", "0", "--cores", "1", "--memory", "1g",
            "--work-dir", str(self._folder / address), self.master,
        )  # fmt: skip

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen:
        log = self._folder / f"{kind}-{len(self._processes)}.log"
        process = subprocess.Popen(
            [
                str(spark.java()),
                "-Xmx512m",
                "--add-modules=jdk.incubator.vector",
                *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in spark._OPENED_PACKAGES),
                "-cp",
                f"{spark._pyspark_home()}/jars/*",
                f"org.apache.spark.deploy.{kind}.{kind.capitalize()}",
                *arguments,
            ],
            env={**self._environment, "SPARK_HOME": str(spark._pyspark_home())},
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
    return Place(store)


@pytest.fixture
def cluster(place, tmp_path):
    running = Cluster(tmp_path, place.environment)
    yield running
    running.stop()


def test_the_sample_and_a_load_whose_worker_is_killed_give_the_same_cents(place, cluster, tmp_path):
    on_cluster = {"GMV_SPARK_MASTER": cluster.master}
    place.put_sample()
    ran = place.gmv("run", **on_cluster)
    assert ran.returncode == 0, ran.stderr
    assert place.gmv("show", "daily_gmv", "--format", "csv").stdout == EXPECTED
    assert len(re.findall("Launched executor|Launching executor", _logs(tmp_path))) >= 2

    purchases = int(os.environ.get("GMV_CLUSTER_PURCHASES", "200000"))
    landing = tmp_path / "generated"
    _generate(landing, purchases)
    settings = {
        "GMV_LANDING": str(landing),
        "GMV_LAKE": "s3://acme-{zone}/big",
        "GMV_RUNS_DIR": str(tmp_path / "runs"),
    }
    running = subprocess.Popen(
        [GMV, "run"],
        env={**place.environment, **settings, **on_cluster},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None and running.stderr.readline().startswith("01_bronze")
    time.sleep(5)  # silver is at work
    cluster.kill(cluster.workers[0])
    _, told = running.communicate(timeout=2400)
    assert running.returncode == 0, told
    local = {**settings, "GMV_LAKE": str(tmp_path / "local"), "GMV_RUNS_DIR": str(tmp_path / "runs2")}
    assert place.gmv("run", **local).returncode == 0
    question = "select transaction_date, subsidiary, gmv from gold.daily_gmv order by all"
    rows = Reader(location("s3://acme-{zone}/big")).rows(question)
    assert rows and rows == Reader(tmp_path / "local").rows(question)


def _logs(folder: Path) -> str:
    return "".join(log.read_text(errors="replace") for log in folder.glob("*.log"))


def _generate(folder: Path, purchases: int) -> None:
    benchmarks = Path(__file__).resolve().parents[1] / "benchmarks"
    subprocess.run(
        [sys.executable, str(benchmarks / "generate.py"), str(folder), "--purchases", str(purchases)],
        check=True,
    )
