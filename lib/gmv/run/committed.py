"""The committed notebooks: executed on the sample, on a lake of their own, never on the user's.

`python -m gmv.run.committed` executes them anew and writes them back with their outputs; nbval compares with these.
"""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from gmv.lake import spark
from gmv.notebook import REPORT, WRITERS
from gmv.run import example
from gmv.run.kernels import NOTEBOOKS, KernelManager
from gmv.settings import PROJECT, settings

IN_ORDER = (*WRITERS, REPORT, "explore")

EXAMPLE_RUNS_ON = (dt.date(2023, 2, 1), dt.date(2023, 2, 15), dt.date(2023, 4, 5))
"""Mornings on which the example's lake is run for these notebooks: few, to be cheap."""


@contextmanager
def own_lake() -> Iterator[None]:
    """An environment in which notebooks see the sample, an empty lake, and a Spark server that they share.

    And the example's lake, made by three runs instead of eight.
    """
    with tempfile.TemporaryDirectory(prefix="gmv-notebooks-") as folder:
        chosen = {
            "GMV_LAKE": f"{folder}/lake",
            "GMV_RUNS_DIR": f"{folder}/runs",
            "GMV_LANDING": str(PROJECT / "data_lake" / "landing"),
            "GMV_EXAMPLE": f"{folder}/example",
        }
        before = dict(os.environ)
        os.environ.update(chosen)
        try:
            with spark.SparkServer(None, Path(folder, "spark.log")) as server, server.in_use():
                for _ in example.make(Path(folder, "example"), lambda _: nullcontext(), EXAMPLE_RUNS_ON):
                    pass
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def main() -> None:
    """Execute the committed notebooks in order and write them back."""
    with own_lake():
        for name in IN_ORDER:
            path = NOTEBOOKS / f"{name}.ipynb"
            notebook = nbformat.read(path, as_version=4)
            NotebookClient(
                notebook,
                kernel_manager_class=KernelManager,
                kernel_name="python3",
                timeout=settings().cell_seconds,
                record_timing=False,
                resources={"metadata": {"path": str(NOTEBOOKS)}},
            ).execute()
            notebook.metadata.pop("widgets", None)
            nbformat.write(notebook, path)
            print(f"{path.relative_to(PROJECT)}: executed")


if __name__ == "__main__":
    main()
