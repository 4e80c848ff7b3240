"""Where a process can be stopped on purpose: just before and just after each commit.

With `GMV_PAUSE_AT="02_silver after silver/purchase"` and `GMV_PAUSE_FILE=…` in the environment, that notebook
makes the file when it gets to that point, and waits there until the file says `go`. Whoever wants to know
what a kill, a second writer or a reader meets at this point has all the time to look. Without the two, nothing happens.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAUSE_AT, PAUSE_FILE = "GMV_PAUSE_AT", "GMV_PAUSE_FILE"

where = "runner"
"""Which part of a run this process is: `runner`, or a notebook's name."""


@contextmanager
def commit(point: str) -> Iterator[None]:
    """Around a commit to `point`: a table's path, or the name of a file or process."""
    reach(f"before {point}")
    yield
    reach(f"after {point}")


def reach(moment: str) -> None:
    """Wait here, once, if this is the point to pause at."""
    if os.environ.get(PAUSE_AT) != f"{where} {moment}":
        return
    file = Path(os.environ[PAUSE_FILE])
    try:
        file.touch(exist_ok=False)
    except FileExistsError:  # it has paused before
        return
    while file.read_text() != "go":
        time.sleep(0.01)
