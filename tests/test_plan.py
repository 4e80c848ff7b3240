"""plan: what a run would do is what it then does, and planning leaves everything as it was."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from gmv import explain, publication, tell
from gmv.errors import LakeLocked, UsageError
from gmv.evidence import Part
from gmv.explain import Change
from gmv.lake import lock, records, scratch
from gmv.lake.reader import Reader
from gmv.quality.acceptance import Acceptance
from gmv.run import plan as planning
from gmv.run.runner import Request
from gmv.settings import settings
from gmv.tables import FILES, GMV_LEDGER
from small_lake import day

FEBRUARY = {"start_date": "2023-02-01", "end_date": "2023-02-28"}


def everything(*folders: Path) -> dict[str, tuple]:
    """Each file with its content and time, each folder with its time."""
    return {
        str(path): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for folder in folders
        for path in [folder, *folder.rglob("*")]
        if path.exists()
    }


def plan(lake, today: str, accepting: Acceptance | None = None, **window: str) -> planning.Plan:
    dates = {name: day(text) for name, text in window.items()}
    request = Request(
        *(lake.path, lake.landing, lake.runs_dir, publication.Window(**dates), day(today)),
        accepting=accepting,
    )
    return planning.plan(request, lambda _: nullcontext())


def without_runs(changes: list[Change]) -> list[Change]:
    """Changes without what differs between two runs that do the same: their ids and times."""

    def plain(part: Part) -> Part:
        return replace(part, run=None, recorded_at=None)

    return [
        replace(change, run=None, published_at=None, parts=[plain(part) for part in change.parts])
        for change in changes
    ]


def test_a_run_does_exactly_what_was_planned(lake, monkeypatch):
    monkeypatch.setenv("GMV_QUARANTINED_PERCENT", "100")
    settings.cache_clear()
    lake.arrive(
        "january",
        """purchase 01-10T08:00 1 paid
           item     01-10T08:00 1 1 100.00
           info     01-10T08:00 1 nac
           purchase 02-03T08:00 2 paid
           item     02-03T08:00 2 2 10.00
           purchase 02-07T08:00 2 paid 02-07""",
    )
    lake.run(as_of_date="2023-02-10")
    # A price of January, a subsidiary, a withdrawal that came late, a new purchase, a day in progress;
    # a record that can't be read, a file of no table, a file that was there before.
    lake.arrive(
        "february",
        """item     02-08T08:00 1 1 80.00
           info     02-12T08:00 2 nac
           purchase 02-05T08:00 2 unpaid
           purchase 02-11T08:00 3 paid
           item     02-11T08:00 3 3 1.50
           purchase 03-01T08:00 4 paid
           item     03-01T08:00 4 1 7.00""",
    )
    lake.put("product_item-bad.csv", (lake.landing / "product_item-january.csv").read_text() + "x,,1,,1,1\n")
    lake.put("notes.csv", "a,b\n1,2")
    lake.put("purchase-again.csv", (lake.landing / "purchase-january.csv").read_bytes())
    before = everything(lake.path, lake.landing, lake.runs_dir)

    planned = plan(lake, "2023-03-01", **FEBRUARY)

    assert everything(lake.path, lake.landing, lake.runs_dir) == before
    assert planned.refused == ""
    assert [(file["path"], file["outcome"]) for file in planned.files] == [
        ("notes.csv", "refused"),
        ("product_item-bad.csv", "ingested"),
        ("product_item-february.csv", "ingested"),
        ("purchase-february.csv", "ingested"),
        ("purchase_extra_info-february.csv", "ingested"),
        ("purchase-again.csv", "repeated"),
    ]
    assert planned.touched_purchases == 4
    assert {on: planned.days[on] for on in ("2023-01-10", "2023-02-07", "2023-02-11", "2023-02-12")} == {
        "2023-01-10": "pending",
        "2023-02-07": "published",
        "2023-02-11": "published",
        "2023-02-12": "empty",
    }
    told = {
        (str(row["transaction_date"]), row["subsidiary"], row["reason"]): (
            row["result"],
            row["of_which"],
            row["files"],
        )
        for row in tell.plan_rows(planned.changes)
    }
    assert told["2023-01-10", "nac", "repriced"] == (
        "pending",
        Decimal("-20.00"),
        ["product_item-february.csv"],
    )
    assert told["2023-02-07", "unknown", "subsidiary_known"] == (
        *("published", Decimal("-20.00")),
        ["purchase_extra_info-february.csv"],
    )
    assert told["2023-02-03", "unknown", "withdrawn"] == (
        "unpublished",
        Decimal("-20.00"),
        ["purchase-february.csv"],
    )
    assert told["2023-03-01", "unknown", "paid"] == (
        "in_progress",
        Decimal("7.00"),
        ["purchase-february.csv"],
    )

    did = lake.run(as_of_date="2023-03-01", **FEBRUARY)
    today = day("2023-03-01")
    assert did["results"] == planned.days
    assert without_runs(explain.run_and_waiting(lake.reader, did["step"].run, today)) == without_runs(
        planned.changes
    )

    # What waits is still told when nothing is new, without Spark.
    monkeypatch.setenv("SPARK_REMOTE", "sc://nowhere.invalid:1")
    nothing_new = plan(lake, "2023-01-10")
    assert nothing_new.files == [] and nothing_new.days == {} and nothing_new.touched_purchases == 0
    assert {change.state for change in nothing_new.changes} == {"in_progress"}


def test_a_plan_tells_what_a_retraction_takes_out_and_what_would_count_twice(lake):
    lake.arrive("a", "purchase 01-10T08:00 1 paid\n item 01-10T08:00 1 1 100.00")
    lake.arrive("orphans", "item 01-10T08:00 7 1 5.00\n item 01-10T08:00 8 1 5.00")
    lake.run(as_of_date="2023-02-10")
    lake.retract("product_item-orphans.csv")
    taking_out = plan(lake, "2023-02-10")
    assert taking_out.touched_purchases == 2 and not taking_out.is_empty
    lake.arrive("b", "purchase 01-20T08:00 1 paid 01-20")
    moving = plan(lake, "2023-02-10", start_date="2023-01-20", end_date="2023-01-20")
    assert moving.meanwhile == {"twice": "100.00", "nowhere": "0.00"}
    assert [
        said
        for said in tell.plan_tables(moving)
        if "100.00 of purchases that moved day count twice" in str(said)
    ]


def test_a_plan_tells_that_checks_would_refuse(lake):
    lake.arrive("a", "purchase 01-10T08:00 1 paid\nitem 01-10T08:00 1 1 100.00")
    lake.run(as_of_date="2023-02-10")
    (posting,) = lake.reader.rows("select * from gold.gmv_ledger")
    records.append(
        lake.path, GMV_LEDGER, [posting | {"amount": Decimal("0.01"), "purchases": 0, "ledger_seq": 2}]
    )
    before = everything(lake.path)
    planned = plan(lake, "2023-02-10")
    assert "2023-01-10 (unknown) silver gives 100.00, the ledger 100.01" in planned.refused
    assert [(change.state, change.before, change.after) for change in planned.changes] == [
        ("pending", Decimal("100.00"), Decimal("100.01"))
    ]
    assert not [said for said in tell.plan_tables(planned) if "Days" in str(said)], "it came to none"
    assert everything(lake.path) == before


def test_a_plan_that_changes_no_number_says_so_without_an_empty_table(lake):
    lake.arrive("a", "purchase 01-10T08:00 1 unpaid\nitem 01-10T08:00 1 1 100.00")
    told = [line for line in tell.plan_tables(plan(lake, "2023-02-10")) if isinstance(line, str)]
    assert told == ["Purchases that it would work on: 1", "Days: none", "It would change no number."]


def test_files_that_are_known_already_come_after_those_that_change_something(tmp_path):
    outcomes = {"a.csv": "repeated", "b.csv": "ingested", "c.csv": "repeated", "d.csv": "refused"}
    records.append(
        tmp_path, FILES, [{"path": path, "outcome": one, "run": "r1"} for path, one in outcomes.items()]
    )
    found = planning._files(Reader(tmp_path), "r1")
    assert [file["path"] for file in found] == ["b.csv", "d.csv", "a.csv", "c.csv"]


def test_a_plan_may_accept_what_a_run_would(lake):
    lake.arrive("a", "purchase 01-10T08:00 1 paid\nitem 01-10T08:00 1 1 100.00")
    lake.put("purchase-b.csv", "purchase_id;release_date\n3;2023-03-11")
    before = everything(lake.path)
    planned = plan(lake, "2023-02-10", Acceptance("refused_file", "the day is whole without it"))
    assert planned.refused == "" and planned.days == {"2023-01-10": "published"}
    assert everything(lake.path) == before


def test_no_plan_is_made_while_a_run_writes(tmp_path):
    held = lock.acquire(tmp_path / "lake", "a run")
    try:
        with pytest.raises(LakeLocked, match="is being written by a run"):
            scratch.copy(tmp_path / "lake", tmp_path / "copy")
    finally:
        held.release()
    scratch.copy(tmp_path / "lake", tmp_path / "copy")
    assert Reader(tmp_path / "copy").rows("select * from gold.daily_gmv") == []


def test_a_lake_in_an_object_store_has_no_plan(tmp_path):
    with pytest.raises(UsageError, match="a plan needs a lake in a folder"):
        scratch.copy(Path("s3://bucket/lake"), tmp_path / "copy")


def test_what_is_written_to_a_copy_stays_there(tmp_path):
    posting = {"purchase_id": "1", "amount": Decimal("1.00")}
    records.append(tmp_path / "a folder" / "lake", GMV_LEDGER, [posting])
    scratch.copy(tmp_path / "a folder" / "lake", tmp_path / "copy")
    records.append(tmp_path / "copy", GMV_LEDGER, [posting])
    count = "select count(*) as postings from gold.gmv_ledger"
    assert Reader(tmp_path / "copy").rows(count) == [{"postings": 2}]
    assert Reader(tmp_path / "a folder" / "lake").rows(count) == [{"postings": 1}]
