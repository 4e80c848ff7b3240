"""Before anything is written to a lake: what a killed run left is finished, and a clock that is behind is noticed."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

from gmv import bronze, progress, publication
from gmv.errors import GmvError
from gmv.lake import records
from gmv.lake.reader import Reader, remedy
from gmv.tables import DAILY_GMV, EVENT_TABLES, GMV_LEDGER, SILVER, Table


def follow_clock(lake_path: Path) -> None:
    """Date what is noted from now on after what the lake holds, also where this machine's clock is behind that."""
    (newest,) = Reader(lake_path).rows('select max("at") as moment from monitoring.runs')
    behind = records.follow(newest["moment"])
    if behind >= dt.timedelta(minutes=1):
        print(
            f"gmv: this machine's clock is {behind} behind the lake's newest record, so what is noted now is dated "
            "after that. See whether the clock is right.",
            file=sys.stderr,
        )


def finish_killed_run(lake_path: Path) -> None:
    """Write what a killed run left unwritten beside its commits; call it with the lock held.

    Raises:
        GmvError: when tables are damaged or do not fit together, or a rebuild was killed while it swapped them.
    """
    _require_whole(lake_path)
    bronze.finish_killed_run(lake_path)
    publication.write_missing_history(lake_path)


def missing(reader: Reader) -> list[Table]:
    """The tables that are not there although runs have written them; the gravest loss comes first."""
    has_silver = reader.rows(
        "select 1 from monitoring.progress where step = $step limit 1", step=progress.SILVER
    )
    has_gold = reader.rows("select 1 from gold.daily_gmv_history limit 1")
    needed = [GMV_LEDGER, DAILY_GMV] if has_gold else []
    needed += [table for event in EVENT_TABLES for table in (event.versions, event.latest) if has_silver]
    return [table for table in needed if not reader.exists(table)]


def _require_whole(lake_path: Path) -> None:
    reader = Reader(lake_path)
    if progress.unfinished_rebuilds(reader):
        raise GmvError(
            "A rebuild of this lake was killed. `gmv run` or `gmv rebuild` finishes it; do that first."
        )
    if lacking := missing(reader):
        raise GmvError(
            f"The lake lacks {', '.join(table.path for table in lacking)}, though runs have written that. "
            f"Nothing was changed; {remedy(lacking[0])}."
        )
    for table in (GMV_LEDGER, *SILVER):  # what other tables lost is seen, and written again, without this
        reader.require_commit(table)
    if older := progress.gone_back(reader):
        raise GmvError(
            f"{', '.join(table.path for table in older)}: older than what monitoring/progress tells of, or gone. "
            "Nothing was changed; bring back from the backup what is of the same moment, or let "
            "`gmv rebuild` make up for what it lacks."
        )
