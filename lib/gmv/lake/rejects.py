"""Which files hold rejected records, noticed while their versions are made.

Most deliveries have none; so their records need not be read a second time to look for some.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from gmv.tables import EventTable


class Rejects:
    """What was noticed of the records that some queries read."""

    def __init__(self) -> None:
        self._seen: dict[EventTable, Observation] = {}

    def noticed(self, read: DataFrame, event: EventTable) -> DataFrame:
        """The same rows; once a query has read them, `among` can be asked.

        Args:
            read: what `silver.read_values` returns.
        """
        self._seen[event] = Observation(f"rejects_{event.name}")
        is_rejected = F.size("reasons") > 0
        held = F.collect_set(F.when(is_rejected, F.col("sha256")))
        return read.observe(self._seen[event], held.alias("files"))

    def among(self, rejected: Mapping[EventTable, DataFrame]) -> list[DataFrame]:
        """The records for quarantine, asked for in files that hold some; nothing of a table without such.

        Args:
            rejected: by event table, what `silver.quarantine` returns.
        """
        found = []
        for event, rows in rejected.items():
            files = self._seen[event].get.get("files")
            # Spark's adaptive execution drops what was noticed of a query that gives no row.
            if files is None:
                found.append(rows)
            elif files:
                found.append(rows.where(F.col("sha256").isin(sorted(files))))
        return found
