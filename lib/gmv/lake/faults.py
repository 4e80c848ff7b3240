"""Where a process can be stopped on purpose: just before and just after each commit.

With `GMV_PAUSE_AT="02_silver after silver/purchase"` and `GMV_PAUSE_FILE=…` in the environment, that notebook
makes the file when it gets to that point, and waits there until the file says `go`. Whoever wants to know
what a kill, a second writer or a reader meets at this point has all the time to look. With `GMV_POINTS_FILE=…` each
point that is reached is added to that file. Without these, nothing happens.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAUSE_AT, PAUSE_FILE, POINTS_FILE = "GMV_PAUSE_AT", "GMV_PAUSE_FILE", "GMV_POINTS_FILE"

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
    if points := os.environ.get(POINTS_FILE):
        with open(points, "a") as file:
            file.write(f"{where} {moment}\n")
    if os.environ.get(PAUSE_AT) != f"{where} {moment}":
        return
    pause = Path(os.environ[PAUSE_FILE])
    try:
        pause.touch(exist_ok=False)
    except FileExistsError:  # it has paused before
        return
    while pause.read_text() != "go":
        time.sleep(0.01)
