"""A real S3 server for tests: versitygw on the loopback address, on a folder of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

GATEWAY = shutil.which("versitygw") or str(Path(sys.executable).with_name("versitygw"))


class ObjectStore:
    """The server, until `stop`; it can be stopped and started again, with what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.access, self.secret = "test-" + secrets.token_hex(4), secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for part in ("data", "meta"):
            (folder / part).mkdir()
        self.start()

    def start(self) -> None:
        command = [GATEWAY, "--port", f"127.0.0.1:{self.port}", "--quiet", "posix"]
        command += ["--sidecar", str(self.folder / "meta"), str(self.folder / "data")]
        with (self.folder / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "ROOT_ACCESS_KEY": self.access, "ROOT_SECRET_KEY": self.secret},
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._process.poll() is None, (self.folder / "gateway.log").read_text()
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def environment(self) -> dict[str, str]:
        """What AWS's standard chain needs to find it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self, name: str) -> str:
        from gmv.lake import location

        location.filesystem().call_s3("create_bucket", Bucket=name)
        return name


@contextmanager
def running(folder: Path):
    """A server that is stopped at the end; the test is skipped where it can't be had."""
    pytest.importorskip("s3fs", reason="S3 needs more packages: make setup-s3")
    if not Path(GATEWAY).exists():
        pytest.skip("versitygw, the S3 server for tests, is missing: make gateway (needs Go)")
    store = ObjectStore(folder)
    try:
        yield store
    finally:
        store.stop()


def forget_connections() -> None:
    """Let the next request look at the environment anew."""
    from fsspec import AbstractFileSystem
    from s3fs import S3FileSystem

    for cache in (AbstractFileSystem, S3FileSystem):
        cache.clear_instance_cache()
