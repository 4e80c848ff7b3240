"""One Spark server for each worker of the suite; every test has a lake of its own."""

from __future__ import annotations

import os
from pathlib import Path

import object_store
import pipeline
import pytest
from gmv.lake import location
from gmv.lake import spark as spark_server

LONGEST = (
    "test_crash",
    "test_run_command",
    "test_cluster",
    "test_fuzz",
    "test_readme",
    "test_stateful",
    "test_airflow",
    "test_prefect",
)
"""Files that begin first, so that no worker is left alone with them in the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def _s3_of_suite(tmp_path_factory):
    """With TEST_LAKES_IN=s3: the S3 server that holds every `TestLake`, for the Spark server to find."""
    if not pipeline.IN_S3:
        yield
        return
    with (
        object_store.running(tmp_path_factory.mktemp("s3")) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name, value in running.environment().items():
            patch.setenv(name, value)
        for zone in sorted(set(location.ZONES.values())):
            running.make_bucket(f"tests-{zone}")
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory, _s3_of_suite):
    """A local Spark server that the tests and the notebooks they execute share."""
    log = tmp_path_factory.mktemp("spark") / "spark.log"
    with spark_server.SparkServer(None, log) as running, running.in_use():
        yield running


@pytest.fixture(scope="session")
def spark(server):
    """A session on the suite's server."""
    session = spark_server.connect()
    yield session
    session.stop()


@pytest.fixture
def lake(tmp_path, spark):
    """An empty lake with its landing folder, driven by the notebooks' own code."""
    return pipeline.TestLake(tmp_path)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch, tmp_path: Path):
    """A test sees no GMV_… variable of the machine that it runs on."""
    for name in [name for name in os.environ if name.startswith("GMV_")]:
        monkeypatch.delenv(name)
    from gmv.settings import settings

    settings.cache_clear()
    yield
    settings.cache_clear()  # else what lives longer than a test, made for the next one, would see this one's


@pytest.fixture
def receiver():
    """A webhook's other side, for alerts."""
    from receiver import Receiver

    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()


@pytest.fixture
def store(tmp_path_factory, monkeypatch):
    """An S3 server of the test's own, which AWS's standard chain finds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with object_store.running(tmp_path_factory.mktemp("s3")) as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        object_store.forget_connections()
        yield running
        object_store.forget_connections()
        for name in object_store.BY_GMV:
            os.environ.pop(name, None)
