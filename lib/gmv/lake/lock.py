"""One writer per lake: an OS lock on a file in it, inherited by every process that can commit.

The lock belongs to the open file, so it is held until the last process that inherited it has ended: a
Spark server can commit seconds after its runner was killed, and until then the lake stays locked. Nothing
is left for a human to remove: when the processes are gone, so is the lock. A lake in an object store is locked
in the same way among the processes of a machine, and by a lease among machines (`gmv.lake.lease`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gmv.errors import GmvError, LakeLocked, UsageError
from gmv.lake import location

if TYPE_CHECKING:
    from gmv.lake.lease import Lease

LOCK_FILE = "_lock"
_INHERITED = "GMV_LOCK_FD"
_UNFIT = re.compile(r"[\[\]^|\\*\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")
_UNFIT_IN_A_URI = re.compile(rf"{_UNFIT.pattern}|[?#]")
_LOOK_SECONDS = 0.5
"""Longer than anyone takes who only looks whether the lock is free."""


class Lock:
    """The right to write to a lake, until `release` or the end of the processes that hold it."""

    def __init__(self, fd: int, inherited: bool = False, lease: Lease | None = None) -> None:
        self.fd = fd
        self._inherited = inherited
        self._lease = lease

    @property
    def is_released(self) -> bool:
        return self.fd < 0

    @property
    def loss(self) -> str:
        """Why the lake was lost to others meanwhile (only a lease can be); empty while it is held."""
        return self._lease.loss if self._lease else ""

    def environment(self) -> dict[str, str]:
        """What a child process needs to know that it holds the lock too; give it `fd` by pass_fds."""
        return {_INHERITED: str(self.fd)}

    def stop_renewing(self) -> bool:
        """Before a failed run's end is noted: to lose the lake meanwhile shall not interrupt that.

        Returns:
            Whether the lake can still be written.
        """
        return self._lease.stop_renewing() if self._lease else True

    def release(self, *, for_all: bool = False) -> None:
        """Let go. Without effect where the lock was inherited: it is the parent's to release.

        Args:
            for_all: also for the processes that inherited it, such as a Spark server that idles on. Otherwise the
                lake stays locked until they have ended: one that was interrupted may still commit.
        """
        if not self._inherited and self.fd >= 0:
            if self._lease:
                self._lease.release()
            if for_all:
                os.ftruncate(self.fd, 0)
                fcntl.flock(self.fd, fcntl.LOCK_UN)
            os.close(self.fd)
            self.fd = -1


def acquire(lake: Path, holder: str, wait_seconds: float = 0) -> Lock:
    """Take the lake's lock, or find that this process has inherited it.

    Args:
        lake: folder of the Delta tables, made if it is missing; or their place in an object store.
        holder: who takes it, for the message that others get.
        wait_seconds: how long to wait for another holder to end.

    Raises:
        LakeLocked: naming who holds it.
        UsageError: no table can be written below a folder of that name, or it is none.
        GmvError: it can't be made or written.
    """
    require_fit(lake)
    folder = location.local_twin(lake)
    path = folder / LOCK_FILE
    if _is_inherited(path):
        return Lock(int(os.environ[_INHERITED]), inherited=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"The lake {lake} is no folder: {error.strerror}. Name another by --lake."
        ) from error
    except OSError as error:  # a disk that is full or read-only may be mended in a minute
        raise GmvError(f"The lake {lake} can't be made or written: {error.strerror}.") from error
    deadline = time.monotonic() + max(wait_seconds, _LOOK_SECONDS)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise _locked(lake) from None
            time.sleep(0.05)
    os.ftruncate(fd, 0)
    os.pwrite(
        fd,
        json.dumps({"holder": holder, "pid": os.getpid(), "host": socket.gethostname()}).encode(),
        0,
    )
    if not location.is_remote(lake):
        return Lock(fd)
    from gmv.lake import lease

    try:
        return Lock(fd, lease=lease.acquire(lake, holder, wait_seconds))
    except BaseException:
        Lock(fd).release()
        raise


def require_fit(lake: Path) -> None:
    """Return if tables can be written below a folder of that name.

    Raises:
        UsageError: naming what is unfit in it.
    """
    unfit = sorted(set((_UNFIT_IN_A_URI if location.is_remote(lake) else _UNFIT).findall(str(lake))))
    if unfit:
        named = " ".join(part if part.isprintable() else repr(part) for part in unfit)
        raise UsageError(f"The lake {lake}: delta-rs can't write below a folder with {named} in its name.")


def ensure_free(lake: Path) -> None:
    """Return if nobody holds the lake's lock at this moment. Nothing is written; it is held for that moment only.

    Raises:
        LakeLocked: naming who holds it.
    """
    path = location.local_twin(lake) / LOCK_FILE
    if path.exists():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _locked(lake) from None
    if location.is_remote(lake):
        from gmv.lake import lease

        lease.ensure_free(lake)


def _locked(lake: Path) -> LakeLocked:
    return LakeLocked(
        f"The lake {lake} is being written by {_holder(location.local_twin(lake) / LOCK_FILE)}. Nothing was changed; "
        "run again when it has ended."
    )


def _is_inherited(path: Path) -> bool:
    with contextlib.suppress(KeyError, ValueError, OSError):
        return os.path.samestat(os.fstat(int(os.environ[_INHERITED])), os.stat(path))
    return False


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text())
        return f"{who['holder']} (process {who['pid']} on {who['host']})"
    except (OSError, ValueError, KeyError):
        return "another run"
