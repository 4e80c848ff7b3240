"""Notebooks executed by papermill, in kernels that inherit the lake's lock."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

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

_BY_NAME = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, GmvError)
}


def kernel_manager(
    lock: Lock | None,
    environment: Mapping[str, str],
    server: SparkServer | None = None,
    log: Path | None = None,
) -> type[AsyncKernelManager]:
    """A kernel manager whose kernels hold the lock and see the environment; sockets are files, not ports.

    Args:
        server: the Spark server that the kernels use; when it has ended they count as dead, since its client
            would go on asking for many minutes.
        log: file for what kernels say beside their notebooks, such as that they were interrupted; without it,
            they say it to the user.
    """

    class ServedClient(AsyncKernelClient):
        # Only to whoever waits for a cell: the manager must know that the process lives, to end it.
        async def is_alive(self) -> bool:  # type: ignore[override]
            return (server is None or server.is_alive()) and await self._async_is_alive()

    class HoldingKernelManager(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            # Without an absolute path the sockets would lie in the working folder, which kernel and runner need
            # not share.
            sockets = Path(jupyter_runtime_dir()) / f"gmv-{uuid.uuid4().hex[:12]}"
            sockets.parent.mkdir(parents=True, exist_ok=True)
            where = {"transport": "ipc", "ip": str(sockets), "client_factory": ServedClient}
            super().__init__(**{**options, **where})

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            holding = {"pass_fds": (lock.fd,)} if lock else {}
            own = {name: value for name, value in os.environ.items() if name not in _SECRET}
            options["env"] = {**own, **(lock.environment() if lock else {}), **environment}
            with log.open("ab") if log else contextlib.nullcontext() as said:
                await super().start_kernel(**{**options, **holding, "stderr": said})

    return HoldingKernelManager


def execute(
    name: str, output: Path, parameters: Mapping[str, str], managers: type[AsyncKernelManager]
) -> None:
    """Run a notebook and save it with its outputs, also when it fails.

    Args:
        name: such as `02_silver`.
        output: the executed notebook.
        parameters: those of the notebook; empty texts mean their defaults.
        managers: what starts its kernel, from `kernel_manager`.

    Raises:
        GmvError: what the notebook raised, or that its kernel died or did not answer in time.
    """
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
            kernel_manager_class=managers,
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
