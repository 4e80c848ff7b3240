"""Which run writes to a lake, and by which version of the code: both are noted with what it writes."""

from __future__ import annotations

import re
import secrets

from gmv.errors import UsageError
from gmv.lake import records
from gmv.settings import PROJECT


def new_run_id() -> str:
    """An id that sorts by time: the moment in UTC, and four random digits."""
    return f"{records.now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def check_run_id(text: str) -> str:
    """The run id, if it is one: letters, digits, `-`, `_` and `.`, so that it can't leave the runs folder.

    Raises:
        UsageError: when it isn't.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise UsageError(f"run_id: {text!r} is no run id (letters, digits, '-', '_' and '.').")
    return text


def code_version() -> str:
    """The checkout's commit, with `+` when files differ from it; the package's version outside of one."""
    import importlib.metadata
    import subprocess

    told = subprocess.run(
        ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=+", "--exclude=*"],
        capture_output=True,
        text=True,
    )
    return told.stdout.strip() if told.returncode == 0 else importlib.metadata.version("gmv-pipeline")
