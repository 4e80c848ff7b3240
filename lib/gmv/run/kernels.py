"""Notebooks executed by papermill, in kernels that inherit the lake's lock and can be started ahead."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from jupyter_core.utils import run_sync

from gmv import errors
from gmv.errors import GmvError
from gmv.lake import location
from gmv.lake.lock import Lock
from gmv.lake.spark import SparkServer
from gmv.settings import PROJECT, settings

_SECRET = ("GMV_ALERT_URLS",)
"""Variables that a notebook has no use for, and must not be able to show."""

NOTEBOOKS = PROJECT / "notebooks"
LOG = "kernels.log"
"""File in a run's folder for what kernels say beside their notebooks."""

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
        """Nothing is started yet.

        Args:
            folder: where the notebooks are at work; what kernels say beside them goes to its LOG.
            environment, lock, server: see `KernelManager`.
        """
        self._folder = folder
        self._options: dict[str, Any] = {
            "environment": environment,
            "lock": lock,
            "server": server,
            "log": folder / LOG,
        }
        self._started: dict[str, KernelManager] = {}

    def start(self, name: str) -> None:
        """Start a notebook's kernel, which imports what the notebook will; others may be at work meanwhile."""
        kernel = KernelManager(kernel_name="python3", **self._options)
        # In a namespace of their own: no name is left that the notebook has not imported itself.
        lines = [f"exec({statement!r}, {{}})" for statement in _imports_of(name)]
        self._started[name] = kernel
        run_sync(kernel.start_kernel)(
            cwd=str(self._folder),
            extra_arguments=[
                "--HistoryManager.hist_file=:memory:",
                *(f"--IPKernelApp.exec_lines={line}" for line in lines),
            ],
        )

    def execute(self, name: str, output: Path, parameters: Mapping[str, str]) -> None:
        """Run a notebook in its kernel, and save it with its outputs, also when it fails.

        Args:
            name: such as `02_silver`.
            output: the executed notebook.
            parameters: those of the notebook; empty texts mean their defaults.

        Raises:
            GmvError: what the notebook raised, or that its kernel died or did not answer in time.
        """
        if name not in self._started:
            self.start(name)
        _execute(name, output, parameters, self._started[name])
        run_sync(self._started.pop(name).end)(now=True)

    def __enter__(self) -> Kernels:
        return self

    def __exit__(self, *_: object) -> None:
        while self._started:
            run_sync(self._started.popitem()[1].end)()


class KernelManager(AsyncKernelManager):
    """A kernel that holds the lock and sees the environment; its sockets are files, not ports."""

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        lock: Lock | None = None,
        server: SparkServer | None = None,
        log: Path | None = None,
        **options: Any,
    ) -> None:
        """Nothing is started yet.

        Args:
            environment: variables beside those of this process.
            server: the Spark server that the kernel uses; when it has ended the kernel counts as dead, since
                its client would go on asking for many minutes.
            log: file for what the kernel says beside its notebook, such as that it was interrupted; without
                it, it says it to the user.
            options: those of AsyncKernelManager.
        """
        # Without an absolute path the sockets would lie in the working folder, which kernel and runner need
        # not share.
        sockets = Path(jupyter_runtime_dir()) / f"gmv-{uuid.uuid4().hex[:12]}"
        sockets.parent.mkdir(parents=True, exist_ok=True)
        where = {"transport": "ipc", "ip": str(sockets), "client_factory": ServedClient}
        super().__init__(**{**options, **where})
        self._environment, self._lock, self._server, self._log = environment or {}, lock, server, log
        self._clients: list[AsyncKernelClient] = []

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        lock = self._lock
        holding = {"pass_fds": (lock.fd,)} if lock else {}
        own = {name: value for name, value in os.environ.items() if name not in _SECRET}
        options["env"] = {**own, **(lock.environment() if lock else {}), **self._environment}
        with self._log.open("ab") if self._log else contextlib.nullcontext() as said:
            await super().start_kernel(**{**options, **holding, "stderr": said})

    def client(self, **options: Any) -> AsyncKernelClient:  # type: ignore[override]
        client = super().client(**options, served_by=self._server)
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


class ServedClient(AsyncKernelClient):
    """A kernel's client, to which the kernel is dead when its Spark server is."""

    def __init__(self, *, served_by: SparkServer | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._served_by = served_by

    # Only to whoever waits for a cell: the manager must know that the process lives, to end it.
    async def is_alive(self) -> bool:  # type: ignore[override]
        return (self._served_by is None or self._served_by.is_alive()) and await self._async_is_alive()


def _imports_of(name: str) -> list[str]:
    """The import statements of a notebook, and that of Spark's client where it uses it."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [
        *(ast.unparse(node) for node in imports),
        *(["import gmv.lake.lake"] if name in _USES_SPARK else []),
    ]


def _execute(name: str, output: Path, parameters: Mapping[str, str], kernel: KernelManager) -> None:
    # Imported while the kernel and perhaps a server start. jsonschema, if it can, compiles a grammar of
    # internationalized addresses then, for more than a second; notebooks have no such addresses to check.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            output,
            parameters=dict(parameters),
            cwd=str(output.parent),
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
