"""A real S3 server for tests: versitygw on the loopback address, on a folder of its own, with users and policies."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from gmv.lake import spark

GATEWAY = shutil.which("versitygw") or str(Path(sys.executable).with_name("versitygw"))


BY_GMV = ("AWS_ALLOW_HTTP", "AWS_CONDITIONAL_PUT", "AWS_FORCE_CREDENTIAL_LOAD")
"""Variables that gmv sets for delta-rs by itself."""


class ObjectStore:
    """The server, until `stop`; it can be stopped and started again, with what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.access, self.secret = "test-" + secrets.token_hex(4), secrets.token_hex(16)
        self.port = spark.free_port()
        for part in ("data", "meta", "iam"):
            (folder / part).mkdir()
        self.start()

    def start(self) -> None:
        command = [GATEWAY, "--port", f"127.0.0.1:{self.port}", "--quiet"]
        command += ["--access-log", str(self.folder / "access.log")]
        command += ["--iam-dir", str(self.folder / "iam"), "--iam-cache-disable", "posix"]
        if not _has_attributes(self.folder):  # then an object and what is known of it are not replaced as one
            command += ["--sidecar", str(self.folder / "meta")]
        command += [str(self.folder / "data")]
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

    def freeze(self) -> None:
        """Let connections come and requests hang."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def is_alive(self) -> bool:
        return self._process.poll() is None

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

    def requests(self) -> Counter[str]:
        """How many requests of each kind it has answered, by S3's names such as HeadObject."""
        return Counter(re.findall(r" s3_(\w+) ", (self.folder / "access.log").read_text()))

    def make_bucket(self, name: str) -> str:
        from gmv.lake import location

        location.filesystem().call_s3("create_bucket", Bucket=name)
        return name

    def make_user(self, name: str) -> dict[str, str]:
        """A user who may do nothing yet; what the standard chain needs to be that user."""
        secret = secrets.token_hex(16)
        by_root = {"ADMIN_ACCESS_KEY_ID": self.access, "ADMIN_SECRET_ACCESS_KEY": self.secret}
        command = [GATEWAY, "admin", "--region", "us-east-1", "--endpoint-url"]
        command += [f"http://127.0.0.1:{self.port}", "create-user", "--role", "user"]
        command += ["--access", name, "--secret", secret]
        subprocess.run(command, env={**os.environ, **by_root}, check=True, capture_output=True)
        return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret}

    def allow(self, user: str, bucket: str, actions: Mapping[str, Sequence[str]]) -> None:
        """Let a user do this in a bucket, and nothing else there.

        Args:
            actions: by what they are done to: the empty text for the bucket, else keys such as `lake/*`.
        """
        from gmv.lake import location

        statements = [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [user]},
                "Action": list(allowed),
                "Resource": [f"arn:aws:s3:::{bucket}" + (f"/{keys}" if keys else "")],
            }
            for keys, allowed in actions.items()
        ]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        location.filesystem().call_s3("put_bucket_policy", Bucket=bucket, Policy=policy)


class Gate:
    """A door before the server: it passes bytes through, until it is told to give one answer to everybody.

    Args:
        port: the server's.
        delay: seconds that requests take longer, as on the way to a store that is far away.
    """

    def __init__(self, port: int, delay: float = 0) -> None:
        self._behind, self._delay = port, delay
        self._answer = b""
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def answer(self, status: str, code: str, message: str) -> None:
        """From now on, each request gets this error, in the words of S3."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        self._answer = head.encode() + b"Connection: close\r\n\r\n" + body
        self._break_off()

    def pass_on(self) -> None:
        """Pass bytes through again."""
        self._answer = b""

    def close(self) -> None:
        self._listener.close()
        self._break_off()

    def _break_off(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._attend, args=(client,), daemon=True).start()

    def _attend(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._answer:
                _read_request(client)
                client.sendall(self._answer)
                return
            with socket.create_connection(("127.0.0.1", self._behind)) as server:
                self._open |= {client, server}
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server, self._delay)
                back.join()
                self._open -= {client, server}


class _InstanceMetadata(BaseHTTPRequestHandler):
    """What a machine in AWS is told about its role: a name, then credentials for an hour."""

    user: ClassVar[Mapping[str, str]]

    def do_PUT(self) -> None:
        self._tell("a session", "x-aws-ec2-metadata-token-ttl-seconds", "3600")

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("security-credentials"):
            self._tell("the-role")
            return
        until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        self._tell(
            json.dumps(
                {
                    "Code": "Success",
                    "Type": "AWS-HMAC",
                    "AccessKeyId": self.user["AWS_ACCESS_KEY_ID"],
                    "SecretAccessKey": self.user["AWS_SECRET_ACCESS_KEY"],
                    "Token": "",  # the tests' server knows no sessions
                    "LastUpdated": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
                    "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}",
                }
            )
        )

    def _tell(self, text: str, *header: str) -> None:
        self.send_response(200)
        if header:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


WAYS = ("profile", "role of a machine", "role of a container")
"""How AWS's standard chain finds credentials that are not in the environment."""


@contextmanager
def given_by(way: str, user: Mapping[str, str], folder: Path) -> Iterator[dict[str, str]]:
    """While this is open, one of `WAYS` gives a user's credentials; the variables that lead the chain there."""
    home = folder / "home"
    (home / ".aws").mkdir(parents=True)
    secrets_of_profile = "".join(f"{name.lower()} = {value}\n" for name, value in user.items())
    (home / ".aws" / "credentials").write_text(f"[pipeline]\n{secrets_of_profile}")
    handler = type("Handler", (_InstanceMetadata,), {"user": user})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = f"http://127.0.0.1:{server.server_port}"
    yield {
        "profile": {"HOME": str(home), "AWS_PROFILE": "pipeline"},
        "role of a machine": {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": told,
            "AWS_EC2_METADATA_DISABLED": "false",
        },
        "role of a container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{told}/credentials"},
    }[way]
    server.shutdown()


def _has_attributes(folder: Path) -> bool:
    """Whether files may have attributes here, in which the server keeps what it knows of an object."""
    try:
        os.setxattr(folder, "user.test", b"yes")
    except (AttributeError, OSError):
        return False
    return True


def _read_request(client: socket.socket) -> None:
    """Read a request to its end: an answer to half of one may get lost."""
    with client.makefile("rb") as lines:
        length = 0
        while (line := lines.readline().strip()) != b"":
            name, _, value = line.lower().partition(b":")
            if name == b"content-length":
                length = int(value)
            if name == b"expect":
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        lines.read(length)


def _pump(source: socket.socket, target: socket.socket, delay: float = 0) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            time.sleep(delay)
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextmanager
def running(folder: Path) -> Iterator[ObjectStore]:
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
    from gmv.lake import location
    from s3fs import S3FileSystem

    for cache in (AbstractFileSystem, S3FileSystem):
        cache.clear_instance_cache()
    location.filesystem_of_data.cache_clear()
