"""Keeping tables quick to read: fewer files, purchases side by side, what nobody reads any more removed.

No row and no number changes. Each table is arranged in one commit, so a kill leaves it as it was or as it shall be.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from gmv.errors import GmvError
from gmv.lake import faults, pruning
from gmv.lake.reader import Reader
from gmv.lake.records import KEPT_DAYS, parquet
from gmv.settings import settings
from gmv.tables import EVENT_TABLES, LOOKED_UP, TABLES, Table

FILE_BYTES = 16 * 2**20
"""Size of a clustered file: a look-up of purchases reads whole files."""

LATEST_FILE_BYTES = 4 * 2**20
"""The same where rows change: a file is written anew for each purchase that changes in it."""

MOST_UNCLUSTERED = 0.2
"""A table is clustered anew when more than this share of its rows lies in files that overlap others."""

AT_THE_SAME_TIME = 2
"""Tables that are maintained at the same time: to sort one keeps a core and a half busy."""

LEAST_SORTING_MIB = 1024
"""With less, a sort of many rows may fail, since it merges what it put on disk in memory."""

LATEST = tuple(event.latest for event in EVENT_TABLES)


def maintain(lake: Path) -> list[dict]:
    """Maintain each table of a lake that this process holds the lock of.

    Returns:
        table, files_before, files, bytes_before, bytes, rows; one entry per table that exists.

    Raises:
        GmvError: naming the table, when it can't be read, or has other rows afterwards.
    """
    pool = ThreadPoolExecutor(AT_THE_SAME_TIME)
    try:
        done = list(pool.map(partial(_maintained, lake), TABLES))
    finally:
        pool.shutdown(cancel_futures=True)
    return [told for told in done if told]


def _maintained(lake: Path, table: Table) -> dict | None:
    """Maintain a table; what became of it, None where there is none."""
    try:
        return _tended(DeltaTable(str(lake / table.path)), table)
    except TableNotFoundError:
        return None
    except DeltaError:
        Reader(lake).check(table)  # says which file is damaged, and what to do
        raise


def _tended(delta: DeltaTable, table: Table) -> dict:
    before = pruning.described(delta)
    with faults.commit(table.path):
        _arrange(delta, table, before)
    delta.update_incremental()
    after = pruning.described(delta)
    if _rows(after) != _rows(before):
        raise GmvError(
            f"{table.path}: {_rows(before)} rows became {_rows(after)} while it was maintained. "
            "`gmv verify` tells what is wrong."
        )
    delta.vacuum(retention_hours=KEPT_DAYS * 24, dry_run=False, full=True)
    delta.create_checkpoint()
    return {
        "table": table.path,
        "files_before": len(before),
        "files": len(after),
        "bytes_before": sum(file["size_bytes"] for file in before),
        "bytes": sum(file["size_bytes"] for file in after),
        "rows": _rows(after),
    }


def is_due(reader: Reader) -> bool:
    """Whether so many runs have ended well since the last maintenance as `maintain_every` says.

    One that finds nothing new counts, too: it leaves as many files in `monitoring/runs` as any other.
    """
    (row,) = reader.rows(
        """
        select count(*) as runs from monitoring.runs
        where event = 'ended' and kind = 'run' and outcome in ('succeeded', 'nothing_new') and "at" > coalesce(
            (select max("at") from monitoring.runs where kind = 'maintain' and outcome = 'succeeded'),
            timestamp '0001-01-01')
        """
    )
    every = settings().maintain_every
    return every > 0 and row["runs"] >= every


def unclustered_share(files: Sequence[dict]) -> float:
    """The share of rows in files whose ids overlap those of a file with more rows.

    Args:
        files: num_records, min.purchase_id and max.purchase_id of each file.
    """
    kept: list[tuple[str, str]] = []
    apart = 0
    for file in sorted(files, key=lambda file: -file["num_records"]):
        low, high = file.get("min.purchase_id"), file.get("max.purchase_id")
        if low is None or high is None or any(low <= last and first <= high for first, last in kept):
            apart += file["num_records"]
        else:
            kept.append((low, high))
    return apart / max(1, _rows(files))


def _arrange(delta: DeltaTable, table: Table, files: Sequence[dict]) -> None:
    if len(files) < 2:
        return
    size = LATEST_FILE_BYTES if table in LATEST else FILE_BYTES
    if table in LOOKED_UP and unclustered_share(files) > MOST_UNCLUSTERED:
        try:
            delta.optimize.z_order(
                ["purchase_id"],
                target_size=size,
                max_spill_size=sorting_bytes(),
                writer_properties=parquet(table),
            )
        except DeltaError as error:
            if "Resources exhausted" not in str(error):
                raise
            raise GmvError(
                f"{table.path} is as it was: to sort it takes more than the {sorting_bytes() >> 20} MiB that it may. "
                "Set GMV_SPARK_MEMORY_MIB higher and run `gmv maintain`."
            ) from error
    elif table in LOOKED_UP:
        delta.optimize.compact(target_size=size, writer_properties=parquet(table))
    else:
        delta.optimize.compact(writer_properties=parquet(table))


def sorting_bytes() -> int:
    """The memory that sorting one table may take before it goes on on disk: all that are sorted together, Spark's.

    37 million versions take 7 GiB without a bound, and as long with one.
    """
    return max(LEAST_SORTING_MIB, settings().spark_memory_mib // AT_THE_SAME_TIME) * 2**20


def _rows(files: Sequence[dict]) -> int:
    return sum(file["num_records"] for file in files)
