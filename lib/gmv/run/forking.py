"""Kernels that are forked from one process, which has imported what their notebooks import.

To import it anew costs each kernel more than a second of a core and a hundred megabytes; forked, it has the
modules at once and shares their memory. Linux only: elsewhere a fork may not be used like that.

This module is both sides: `Origin` for the run, and the program for the process itself, which must have no
thread when it forks, so that it opens nothing and connects to nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from gmv.errors import GmvError
from gmv.settings import settings

KERNEL = "gmv-kernel"
"""What a forked kernel is called in a list of processes."""
_ENDS_WITHIN_SECONDS = 1
_SET_NAME, _SIGNAL_AT_PARENTS_END = 15, 1  # of prctl
_ENVIRONMENT = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as ipykernel sets it; matplotlib reads it once
    # The libraries that start threads when they are imported, which a fork would leave behind: numpy, pyarrow's
    # allocator, delta-rs's allocator.
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "_RJEM_MALLOC_CONF": "background_thread:false",
    # What is freed is given back: pyarrow's own allocator keeps a hundred megabytes of a day's merge.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}


class Origin:
    """The process that kernels are forked from. It ends when it is closed, or when its owner ends."""

    def __init__(self, environment: Mapping[str, str], inherited: Sequence[int], log: IO[bytes]) -> None:
        """Start it; it has imported nothing yet.

        Args:
            environment: all of its variables; kernels have others.
            inherited: open files that kernels may get.
            log: takes what kernels say on their standard error.
        """
        self._inherited = inherited
        self._line, its_end = socket.socketpair()
        with its_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gmv.run.forking", str(its_end.fileno())],
                stdin=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[its_end.fileno(), *inherited],
                start_new_session=True,
                env={**environment, **_ENVIRONMENT},
            )
        self._line.settimeout(settings().kernel_start_seconds)
        self._answers = self._line.makefile("r")

    def prepare(self, imports: Sequence[str]) -> None:
        """Let it execute import statements, and don't wait for it."""
        self._ask({"imports": list(imports)})

    def fork(
        self,
        imports: Sequence[str],
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        holds: Sequence[int] = (),
        is_last: bool = False,
    ) -> Forked:
        """A kernel, once the import statements are executed.

        Args:
            arguments: of ipykernel's command line.
            environment: all of the kernel's variables.
            folder: where it works.
            holds: the inherited files that it keeps open.
            is_last: no kernel follows; this process itself becomes this one, rather than being there twice.

        Raises:
            GmvError: the process has ended, or does not answer.
        """
        self._ask(
            {
                "imports": list(imports),
                "arguments": list(arguments),
                "environment": dict(environment),
                "folder": folder,
                "closed": [fd for fd in self._inherited if fd not in holds],
                "is_last": is_last,
            }
        )
        answer = ""
        with contextlib.suppress(OSError):  # also where it ended before it had read what was asked
            answer = self._answers.readline()
        if not answer:
            raise GmvError(
                "The process that notebooks' kernels are forked from has ended or does not answer, perhaps for "
                "want of memory. What was committed stays; run again to go on."
            )
        return Forked(int(answer))

    def close(self) -> None:
        """End it; kernels that still live end, too."""
        self._answers.close()
        self._line.close()
        self._process.kill()  # whatever it is importing
        self._process.wait()

    def _ask(self, request: dict) -> None:
        with contextlib.suppress(OSError):  # it has ended, which `fork` tells
            self._line.sendall(json.dumps(request).encode() + b"\n")


class Forked:
    """A process that is not this one's child, with what jupyter_client asks of a `Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self._handle = -1

    def poll(self) -> int | None:
        """None while it lives, then -1: how it ended is not known here."""
        if self._handle < 0 or select.select([self._handle], [], [], 0)[0]:
            return -1
        return None

    def wait(self) -> int:
        if self._handle >= 0:
            select.select([self._handle], [], [])
            os.close(self._handle)
            self._handle = -1
        return -1

    def send_signal(self, number: int) -> None:
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                signal.pidfd_send_signal(self._handle, number)
            if number == signal.SIGKILL:  # it ends now; jupyter_client would look a tenth of a second later
                select.select([self._handle], [], [], _ENDS_WITHIN_SECONDS)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _serve(line: socket.socket) -> dict | None:
    """Do what is asked; in a process that is to be a kernel, the request for it, and None at the end."""
    signal.signal(signal.SIGCHLD, _let_go_of_ended)
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # nobody steps through a run: 7 MiB
    from ipykernel import kernelapp  # noqa: F401  # for all kernels, as what their notebooks import

    for text in line.makefile("r"):
        request = json.loads(text)
        for statement in request["imports"]:
            with contextlib.suppress(Exception):  # the notebook's own import will tell
                exec(statement, {})
        if "arguments" not in request:
            continue
        if request["is_last"]:
            line.sendall(f"{os.getpid()}\n".encode())
            return request
        gc.freeze()  # no page is written only because the collector looks at it
        pid = os.fork()
        if not pid:
            return request
        line.sendall(f"{pid}\n".encode())
    return None


def _let_go_of_ended(*_: object) -> None:
    """Nobody waits for kernels, but what they took of a processor shall count as this process's children's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become_kernel(request: dict, parent: int) -> None:
    prctl = ctypes.CDLL(None).prctl
    prctl(_SIGNAL_AT_PARENTS_END, signal.SIGKILL)  # it may hold the lake's lock
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getsid(0) != os.getpid():  # a process that leads a session can begin no other
        os.setsid()
    prctl(_SET_NAME, KERNEL.encode())
    for fd in request["closed"]:
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["environment"], JPY_PARENT_PID=str(parent))
    os.chdir(request["folder"])
    from ipykernel import kernelapp

    # ipykernel asked JPY_PARENT_PID when it was imported, and would greet a user at a terminal.
    kernelapp.launch_new_instance(argv=[*request["arguments"], f"--IPKernelApp.parent_handle={parent}"])


if __name__ == "__main__":
    if sys.path[0] == str(Path.cwd()):  # as ipykernel_launcher does; the kernel adds its own
        del sys.path[0]
    owner, origin = os.getppid(), os.getpid()
    with socket.socket(fileno=int(sys.argv[1])) as line:
        request = _serve(line)
    if not request:
        os._exit(0)  # what is imported has nothing to say at its end
    _become_kernel(request, parent=owner if request["is_last"] else origin)
