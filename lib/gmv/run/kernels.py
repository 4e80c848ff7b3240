"""Notebooks executed by papermill, in kernels that inherit the lake's lock."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import math
import os
import queue
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import zmq
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from jupyter_core.utils import ensure_event_loop, run_sync

from gmv import errors, notebook
from gmv.errors import GmvError
from gmv.lake import location
from gmv.lake.lock import Lock
from gmv.lake.spark import SparkServer
from gmv.run import signals
from gmv.run.forking import Forked, Origin
from gmv.settings import PROJECT, SECRET_VARIABLES, settings

NOTEBOOKS = PROJECT / "notebooks"
LOG = "kernels.log"
"""File in a run's folder for what kernels say beside their notebooks."""

_MOST_BYTES_OF_FOLDER = 70
"""Of a temporary folder in which sockets may lie."""
_RETRY_MILLISECONDS = 10
"""How soon a connection to a kernel is tried again that does not listen yet; by default, after 100."""

_CANCELLED_WITHIN_SECONDS = 1

_USES_SPARK = ("02_silver", "03_gold")

_BY_NAME = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, GmvError)
}


class Kernels:
    """The kernels of a run's notebooks, one each. Use as a context manager: it ends those that are left.

    A kernel whose notebook has succeeded is killed: all that it had to do is done.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        lock: Lock | None = None,
        server: SparkServer | None = None,
    ) -> None:
        """No kernel is started yet.

        Args:
            folder: where the notebooks are at work; what kernels say beside them goes to its LOG.
            environment: variables for them, beside those of this process.
            lock, server: for the notebooks that write; the report neither writes nor needs Spark.
        """
        self._folder, self._environment, self._lock, self._server = folder, environment, lock, server
        self._origin: Origin | None = None
        if sys.platform == "linux":
            with (folder / LOG).open("ab") as log:
                self._origin = Origin(_own_environment(), [lock.fd] if lock else [], log)

    def execute(self, name: str, output: Path, parameters: Mapping[str, Any], then: str = "") -> None:
        """Run a notebook in a kernel of its own, and save it with its outputs, also when it fails.

        Args:
            name: such as `02_silver`.
            output: the executed notebook.
            parameters: those of the notebook; empty texts mean their defaults.
            then: the next notebook: what it imports is imported meanwhile; without it, this is the last one.

        Raises:
            GmvError: what the notebook raised, or that its kernel died or did not answer in time.
        """
        with _signals_between_callbacks():
            self._execute(name, output, parameters, then)

    def _execute(self, name: str, output: Path, parameters: Mapping[str, Any], then: str) -> None:
        is_report = name == notebook.REPORT
        lock, server = (None, None) if is_report else (self._lock, self._server)
        kernel = KernelManager(
            kernel_name="python3",
            environment={**self._environment, **(server.environment() if server else {})},
            lock=lock,
            server=server,
            log=self._folder / LOG,
            fork=partial(self._origin.fork, _imports_of(name), is_last=not then) if self._origin else None,
        )
        try:
            run_sync(kernel.start_kernel)(
                cwd=str(self._folder), extra_arguments=["--HistoryManager.hist_file=:memory:"]
            )
            if self._origin and then:
                self._origin.prepare(_imports_of(then))
            if server and name in _USES_SPARK:
                server.wait()  # Spark's client, when it comes too early, tries again only after a second
            _execute(name, output, parameters, kernel)
            run_sync(kernel.end)(now=True)
        except BaseException:
            _drop_tasks()
            run_sync(kernel.end)()
            raise

    def __enter__(self) -> Kernels:
        return self

    def __exit__(self, *_: object) -> None:
        if self._origin:
            self._origin.close()


class KernelManager(AsyncKernelManager):
    """A kernel that holds the lock and sees the environment; its sockets are files, not ports."""

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        lock: Lock | None = None,
        server: SparkServer | None = None,
        log: Path | None = None,
        fork: Callable[..., Forked] | None = None,
        **options: Any,
    ) -> None:
        """Nothing is started yet.

        Args:
            environment: variables beside those of this process.
            server: the Spark server that the kernel uses; when it has ended the kernel counts as dead, since
                its client would go on asking for many minutes.
            log: file for what the kernel says beside its notebook, such as that it was interrupted; without
                it, it says it to the user.
            fork: gives the process, as `Origin.fork` does after its first argument; without it, it is started
                anew.
            options: those of AsyncKernelManager.
        """
        # Jupyter's own folder is below HOME, which need not be there, and the path of a socket has 107 bytes at most.
        is_short = len(tempfile.gettempdir()) < _MOST_BYTES_OF_FOLDER
        self._sockets = tempfile.mkdtemp(prefix="gmv-kernel-", dir=None if is_short else "/tmp")
        where = {
            "transport": "ipc",
            "ip": f"{self._sockets}/at",
            "connection_file": f"{self._sockets}/kernel.json",
            "client_factory": ServedClient,
        }
        super().__init__(**{**options, **where})
        self._environment, self._lock, self._server, self._log = environment or {}, lock, server, log
        self._clients: list[AsyncKernelClient] = []
        if fork:
            self.provisioner = _ForkedProvisioner(fork, parent=self, kernel_spec=self.kernel_spec)

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        lock = self._lock
        holding = {"pass_fds": (lock.fd,)} if lock else {}
        options["env"] = {**_own_environment(), **(lock.environment() if lock else {}), **self._environment}
        with self._log.open("ab") if self._log else contextlib.nullcontext() as said:
            await super().start_kernel(**{**options, **holding, "stderr": said})

    def client(self, **options: Any) -> AsyncKernelClient:  # type: ignore[override]
        client = super().client(**options, served_by=self._server)
        client.context.setsockopt(zmq.RECONNECT_IVL, _RETRY_MILLISECONDS)
        self._clients.append(client)
        return client

    async def end(self, now: bool = False) -> None:
        """End the kernel, if it lives, and let go of what it had.

        Args:
            now: kill it; otherwise it is interrupted and asked first.
        """
        try:
            if self.has_kernel and await self.is_alive():
                await self.shutdown_kernel(now=now)
        finally:
            await self.cleanup_resources()
            for client in self._clients:
                client.stop_channels()
            shutil.rmtree(self._sockets, ignore_errors=True)


class _ForkedProvisioner(LocalProvisioner):
    """Has the kernel forked where jupyter_client's own would start it."""

    def __init__(self, fork: Callable[..., Forked], **options: Any) -> None:
        super().__init__(**options)
        self._fork = fork

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        forked = self._fork(
            cmd[cmd.index("ipykernel_launcher") + 1 :],
            options["env"],
            options["cwd"],
            holds=options.get("pass_fds", ()),
        )
        self.process = forked  # type: ignore[assignment]
        self.pid = forked.pid
        self.cwd = options["cwd"]
        return self.connection_info


class ServedClient(AsyncKernelClient):
    """A kernel's client, to which the kernel is dead when its Spark server is."""

    def __init__(self, *, served_by: SparkServer | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._served_by = served_by

    # Only to whoever waits for a cell: the manager must know that the process lives, to end it.
    async def is_alive(self) -> bool:  # type: ignore[override]
        return (self._served_by is None or self._served_by.is_alive()) and await self._async_is_alive()

    # jupyter_client's own waits at the end until nothing has come for a fifth of a second, so that no message is
    # left over. Of what is, nbclient sees that it answers no cell.
    async def wait_for_ready(self, timeout: float | None = None) -> None:  # type: ignore[override]
        deadline = time.monotonic() + (timeout or math.inf)
        while not await self._has_answered():
            if not await self._async_is_alive():
                raise RuntimeError("it ended before it answered")
            if time.monotonic() > deadline:
                raise RuntimeError(f"it did not answer within {timeout} seconds")

    async def _has_answered(self) -> bool:
        """Whether the kernel answers, and what it says of cells will be heard, too."""
        self.kernel_info()
        try:
            reply = await self.get_shell_msg(timeout=1)
            await self.get_iopub_msg(timeout=0.2)
        except queue.Empty:
            return False
        return reply["msg_type"] == "kernel_info_reply"


@contextlib.contextmanager
def _signals_between_callbacks() -> Iterator[None]:
    """While this is open, Ctrl-C and a polite kill come between two callbacks of this thread's event loop.

    In the midst of one, or just before, KeyboardInterrupt may leave a task that nothing wakes any more, not even to
    be cancelled.
    """
    loop = ensure_event_loop()
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))
    }

    def hear(number: int, frame: FrameType | None) -> None:
        handler = handlers[signal.Signals(number)]
        if loop.is_running():
            loop.call_soon_threadsafe(handler, number, None)
        else:
            handler(number, frame)

    with signals.handled(dict.fromkeys(handlers, hear)):
        yield


def _drop_tasks() -> None:
    """Cancel what is under way in this thread's event loop, and take what it raises.

    Ctrl-C leaves it in the middle of a cell, whose tasks would go on, find their kernel dead, and have a
    traceback printed since nobody waits for them. Kernels of a thread come one after another.
    """
    loop = ensure_event_loop()
    loop.call_soon(loop.stop)
    loop.run_forever()  # what was due: the end of what was waited for would end the next wait
    if tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        ended, _ = loop.run_until_complete(asyncio.wait(tasks, timeout=_CANCELLED_WITHIN_SECONDS))
        for task in ended:
            _ = task.cancelled() or task.exception()


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}


def _imports_of(name: str) -> list[str]:
    """The import statements of a notebook, and that of Spark's client where it uses it."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [
        *(ast.unparse(node) for node in imports),
        *(["import gmv.lake.lake"] if name in _USES_SPARK else []),
    ]


def _execute(name: str, output: Path, parameters: Mapping[str, Any], kernel: KernelManager) -> None:
    # Imported while the kernel and perhaps a server start. jsonschema, if it can, compiles grammars of
    # addresses then, one of them for more than a second; notebooks have no such addresses to check.
    for grammar in ("rfc3987_syntax", "uri_template"):
        sys.modules.setdefault(grammar, None)  # type: ignore[arg-type]
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from gmv.run import engine

    try:
        papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            output,
            parameters=dict(parameters),
            cwd=str(output.parent),
            engine_name=engine.NAME,
            kernel_name="python3",
            progress_bar=False,
            start_timeout=settings().kernel_start_seconds,
            execution_timeout=settings().cell_seconds,
            km=kernel,
        )
    except PapermillExecutionError as error:
        if error.ename in _BY_NAME:
            raise _BY_NAME[error.ename](error.evalue) from error
        if location.is_remote(parameters["lake"]):
            told = location.explanation(f"{error.ename}: {error.evalue} {error}")
            if told:
                raise GmvError(f"{name}: {told} ({parameters['lake']}; see {output})") from error
        raise GmvError(
            f"{name} failed: {error.ename}: {error.evalue.splitlines()[0][:300]} (see {output})."
        ) from error
    except CellTimeoutError as error:
        raise GmvError(
            f"{name}: a cell took longer than {settings().cell_seconds} seconds (GMV_CELL_SECONDS); see {output}."
        ) from error
    except DeadKernelError as error:
        raise GmvError(
            f"{name}: its kernel or its Spark server died, perhaps for want of memory "
            "(spark.log and kernels.log may tell). What was committed stays; run again to go on."
        ) from error
    except RuntimeError as error:
        raise GmvError(f"{name}: its kernel did not start: {error}") from error
