"""What is looked after before anything is written: a clock that is behind, and tables that are gone."""

from __future__ import annotations

import datetime as dt
import re
import shutil
from pathlib import Path

import pytest
import small_lake
from gmv import recovery
from gmv.errors import GmvError
from gmv.lake import records
from gmv.lake.reader import remedy
from gmv.tables import DAILY_GMV, DAILY_GMV_HISTORY, EVENT_TABLES, GMV_LEDGER, RUNS, Table
from small_lake import at

NOON = at("2023-03-10T12:00:00")
OF_SILVER = [table for event in EVENT_TABLES for table in (event.versions, event.latest)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's clock that says noon."""
    monkeypatch.setenv("GMV_CLOCK_AHEAD", "0")
    monkeypatch.setattr(records, "_by_the_clock", lambda: NOON)


@pytest.mark.parametrize(
    ("newest", "behind", "is_told"),
    [
        ("2023-03-10T11:59:59", dt.timedelta(), False),
        ("2023-03-10T12:00:59.999999", dt.timedelta(seconds=59, microseconds=999999), False),
        ("2023-03-10T12:01:00", dt.timedelta(minutes=1), True),
    ],
)
def test_what_is_noted_is_dated_after_the_lakes_newest_record(
    tmp_path, clock, capsys, newest, behind, is_told
):
    for moment in ("2023-03-01", newest, "2023-03-02"):
        small_lake.write(tmp_path, RUNS, [{"run": "r1", "event": "ended", "at": at(moment)}])
    recovery.follow_clock(tmp_path)
    assert records.now() == NOON + behind + dt.timedelta(seconds=bool(behind))
    assert (f"this machine's clock is {behind} behind" in capsys.readouterr().err) is is_told


def test_a_clock_that_was_put_right_is_gone_by_again(tmp_path, clock):
    assert records.follow(NOON + dt.timedelta(days=2)) == dt.timedelta(days=2)
    assert records.now() == NOON + dt.timedelta(days=2, seconds=1)
    assert records.follow(NOON + dt.timedelta(hours=1)) == dt.timedelta(hours=1)
    recovery.follow_clock(tmp_path)  # of a lake without a record
    assert records.now() == NOON


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    small_lake.write_sample(tmp_path)
    return tmp_path


@pytest.mark.parametrize("table", [GMV_LEDGER, DAILY_GMV, *OF_SILVER], ids=lambda table: table.path)
def test_a_table_that_runs_have_written_and_that_is_gone_is_named(lake: Path, table: Table):
    shutil.rmtree(lake / table.path)
    said = (
        f"The lake lacks {table.path}, though runs have written that. Nothing was changed; {remedy(table)}."
    )
    with pytest.raises(GmvError, match=f"^{re.escape(said)}$"):
        recovery.finish_killed_run(lake)


def test_of_several_tables_that_are_gone_the_gravest_loss_is_what_is_to_be_done_about(lake: Path):
    for table in (GMV_LEDGER, OF_SILVER[-1]):
        shutil.rmtree(lake / table.path)
    with pytest.raises(GmvError, match=rf"lacks gold/gmv_ledger, {OF_SILVER[-1].path}, .*; bring it back"):
        recovery.finish_killed_run(lake)


def test_tables_that_no_run_has_come_to_are_not_missed(lake: Path):
    for table in (GMV_LEDGER, DAILY_GMV, DAILY_GMV_HISTORY):
        shutil.rmtree(lake / table.path)
    recovery.finish_killed_run(lake)
    shutil.rmtree(lake / "monitoring")
    shutil.rmtree(lake / "silver")
    recovery.finish_killed_run(lake)
