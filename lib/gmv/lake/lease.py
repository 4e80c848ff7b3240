"""One writer per lake in an object store: a lease, held by conditional writes of one object.

An OS lock ends at its machine. So whoever writes to a lake in S3 also holds `_lease` there: written only if
nobody holds it (`If-None-Match`, `If-Match`), and renewed while its holder lives. Ages are told by the
store's clock alone. A holder that could not renew for half of the lease ends itself and its Spark server;
others take the lease over when all of it has passed. What remains: a holder, with its server, that is frozen
for longer than the lease and thaws, may finish one commit before it notices.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from gmv.errors import GmvError, LakeLocked
from gmv.lake import location
from gmv.settings import settings

_Answer = TypeVar("_Answer")
LEASE_OBJECT = "_lease"
_RENEWALS_PER_LEASE = 10
_GO_ON = "What was committed stays; run again."


class Lease:
    """The right to write to a lake in an object store, until `release`, or until it could not be renewed."""

    def __init__(self, place: Path, content: dict[str, Any], etag: str) -> None:
        self._place = place
        self._content = content
        self._etag = etag
        self._renewed = time.monotonic()
        self._ends = threading.Event()
        self.loss = ""
        """Why the lease was lost, in one sentence; empty while it is held."""
        self._keeper = threading.Thread(target=self._keep, name="gmv-lease", daemon=True)
        self._keeper.start()

    def stop_renewing(self) -> bool:
        """Renew once more, and then neither renew nor end anything when it has passed.

        Returns:
            Whether it could be renewed: the lake is this holder's, and can be written.
        """
        self._ends.set()
        self._keeper.join()
        if not self.loss:
            with contextlib.suppress(Exception):  # whatever it is: the answer is no
                self._etag = self._renew(within=10) or ""
                return bool(self._etag)
        return False

    def release(self) -> None:
        """Let go, so that the next holder need not wait; where the store is gone, the lease ends by itself."""
        self._ends.set()
        self._keeper.join()  # a renewal on its way changes the ETag
        if not self.loss:
            with contextlib.suppress(Exception):
                _put(self._place, {**self._content, "released": True}, IfMatch=self._etag)

    def _renew(self, within: float) -> str | None:
        """The renewed lease's ETag; None where it is another's now."""
        # Another content each time, so that each renewal has another ETag.
        self._content = {**self._content, "renewal": self._content["renewal"] + 1}
        return _put(self._place, self._content, within, IfMatch=self._etag)

    def _keep(self) -> None:
        seconds = self._content["seconds"]
        while not self._ends.wait(seconds / _RENEWALS_PER_LEASE):
            asked = time.monotonic()
            why = ""
            try:
                etag = self._renew(within=seconds / 4)
                if etag is None:
                    why = f"it is {_holder(_read(self._place))} now. {_GO_ON}"
            except Exception as error:  # whatever it is: without an answer there is no lease
                etag, why = "", location.explanation(location.chained(error)) or f"{error}. {_GO_ON}"
            if etag:
                self._etag, self._renewed = etag, asked
            elif self._ends.is_set():
                return
            elif etag is None or time.monotonic() - self._renewed > seconds / 2:
                self.loss = f"The lease on the lake was lost: {why.splitlines()[0]}"
                _end_this_process(self.loss)
                return


@dataclass(frozen=True)
class _Seen:
    content: dict[str, Any]
    etag: str
    age_seconds: float

    @property
    def is_over(self) -> bool:
        return self.content.get("released") or self.age_seconds > self.content["seconds"]


def acquire(lake: Path, holder: str, wait_seconds: float = 0) -> Lease:
    """Take the lake's lease.

    Args:
        holder: who takes it, for the message that others get.
        wait_seconds: how long to wait for another holder to end.

    Raises:
        LakeLocked: naming who holds it, and how long it stays theirs without a renewal.
        GmvError: the store ignores conditions, so that nothing could be held there.
    """
    place = lake / LEASE_OBJECT
    content = {
        "holder": holder,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "seconds": settings().lease_seconds,
        "token": secrets.token_hex(8),
        "renewal": 0,
    }
    deadline = time.monotonic() + wait_seconds
    with location.explained(place):
        while True:
            seen = _read(place)
            if seen is None:
                etag = _put(place, content, IfNoneMatch="*")
            elif seen.is_over:
                etag = _put(place, content, IfMatch=seen.etag)
            elif time.monotonic() >= deadline:
                raise _locked(lake, seen)
            else:
                time.sleep(0.2)
                continue
            if etag:
                _refuse_store_without_conditions(place, content)
                return Lease(place, content, etag)


def ensure_free(lake: Path) -> None:
    """Return if nobody holds the lake's lease at this moment.

    Raises:
        LakeLocked: naming who holds it.
    """
    place = lake / LEASE_OBJECT
    with location.explained(place):
        seen = _read(place)
    if seen and not seen.is_over:
        raise _locked(lake, seen)


def _locked(lake: Path, seen: _Seen) -> LakeLocked:
    left = seen.content["seconds"] - seen.age_seconds
    return LakeLocked(
        f"The lake {lake} is being written by {_holder(seen)}. Nothing was changed; run again when "
        f"it has ended. If it was killed, its lease ends in {left:.0f} seconds."
    )


def check_conditions(lake: Path) -> str:
    """Find out whether the lake's buckets honour conditional writes, by objects that are removed again.

    Raises:
        GmvError: one does not.
    """
    for place in location.over_buckets(lake):
        _check_conditions(location.location(place) / f"_probe-{secrets.token_hex(8)}")
    return "honoured"


def _check_conditions(place: Path) -> None:
    with location.explained(place):
        try:
            _put(place, {}, IfNoneMatch="*")
            _refuse_store_without_conditions(place, {})
            if _put(place, {"probe": 2}, IfMatch='"0123456789abcdef0123456789abcdef"'):
                raise _ignored(place)
        finally:
            location.filesystem().rm_file(str(place))


def _end_this_process(why: str) -> None:
    """As a polite kill or Ctrl-C does; with it end its notebooks and its Spark server."""
    is_kernel = "ipykernel" in sys.modules and "gmv.cli" not in sys.modules
    is_told = callable(signal.getsignal(signal.SIGTERM))  # a run that is interrupted says why by itself
    if not is_told:
        print(f"gmv: {why}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM if is_kernel or is_told else signal.SIGINT)


def _refuse_store_without_conditions(place: Path, content: dict[str, Any]) -> None:
    if _put(place, {**content, "probe": True}, IfNoneMatch="*"):
        raise _ignored(place)


def _ignored(place: Path) -> GmvError:
    return GmvError(
        f"{place}: this store ignores conditional writes (If-None-Match, If-Match), so two writers could "
        "overwrite each other's commits. Nothing was changed; keep the lake in a store that honours them."
    )


def _put(place: Path, content: dict[str, Any], within: float = 60, **condition: str) -> str | None:
    """Write the object if the condition holds; its ETag, or None where it did not hold.

    Args:
        within: seconds that the store has for its answer, retries included.
    """
    bucket, _, key = str(place).removeprefix("s3://").partition("/")
    body = json.dumps(content).encode()
    try:
        told = location.filesystem().call_s3(
            "put_object", timeout=within, Bucket=bucket, Key=key, Body=body, **condition
        )
        return told["ETag"]
    except OSError as error:
        if not _is_unmet(error):
            raise
    # A repeated request finds its own first attempt, whose answer was lost.
    seen = _read(place)
    return seen.etag if seen and seen.content == content else None


def _is_unmet(error: BaseException) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in (
        "PreconditionFailed",
        "ConditionalRequestConflict",
        "412",
    )


def _read(place: Path) -> _Seen | None:
    bucket, _, key = str(place).removeprefix("s3://").partition("/")
    from fsspec.asyn import sync

    store = location.filesystem()

    async def get() -> tuple[dict[str, Any], bytes]:
        told = await store._call_s3("get_object", Bucket=bucket, Key=key)
        async with told["Body"] as body:
            return told, await body.read()

    try:
        told, body = _unmixed(lambda: sync(store.loop, get))
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error.__cause__):
            raise
        return None
    now = parsedate_to_datetime(told["ResponseMetadata"]["HTTPHeaders"]["date"])
    return _Seen(json.loads(body), told["ETag"], (now - told["LastModified"]).total_seconds())


def _unmixed(ask: Callable[[], _Answer]) -> _Answer:
    """The answer; asked for again where one mixes what two writers wrote, as some stores' do."""
    from botocore.exceptions import FlexibleChecksumError

    for _ in range(4):
        with contextlib.suppress(FlexibleChecksumError):
            return ask()
        time.sleep(0.1)
    return ask()


def _holder(seen: _Seen | None) -> str:
    if seen is None:
        return "another run"
    return f"{seen.content['holder']} (process {seen.content['pid']} on {seen.content['host']})"
