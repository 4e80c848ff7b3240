"""A lake to try something on: it begins as the real one is, and everything written to it is thrown away."""

from __future__ import annotations

import shutil
from pathlib import Path

from deltalake import DeltaTable

from gmv.errors import UsageError
from gmv.lake import location, lock
from gmv.lake.reader import data_files
from gmv.tables import TABLES


def copy(lake: Path, to: Path) -> None:
    """Make a lake with the same tables, at a cost that follows the number of files, not their size.

    Delta never changes a file that it has written. So the logs are copied, and the data files that they name are
    links to those of the real lake; what is written to the copy, or deleted from it, stays there.

    Args:
        lake: is only read.
        to: a folder; made if it is missing.

    Raises:
        UsageError: the lake is in an object store, where files can't be linked.
        LakeLocked: a run is writing to the lake, so that its tables do not belong together now.
    """
    if location.is_remote(lake):
        raise UsageError(
            f"{lake}: a plan needs a lake in a folder; of one in an object store it can't be made."
        )
    lock.ensure_free(lake)
    to.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        if DeltaTable.is_deltatable(str(lake / table.path)):
            _copy_table(lake / table.path, to / table.path)
    lock.ensure_free(lake)


def _copy_table(table: Path, to: Path) -> None:
    shutil.copytree(table / "_delta_log", to / "_delta_log")
    (to / "_delta_log").chmod(0o700)  # that of a lake which may only be read can't be written
    for copied in map(Path, data_files(DeltaTable(to))):
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.symlink_to(table.absolute() / copied.relative_to(to))
