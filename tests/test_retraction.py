"""Retraction: a file's events leave every number as if they had not arrived, and come back by an undo."""

from __future__ import annotations

import datetime as dt
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from command import GMV
from deltalake import DeltaTable
from gmv import progress, retraction
from gmv.errors import UsageError
from gmv.lake import location
from gmv.lake.reader import Reader
from gmv.run import runner
from gmv.tables import EVENT_TABLES, FILES, PROGRESS, PURCHASE, QUARANTINE
from gmv.verify import verify
from pipeline import TestLake
from small_lake import at, write

TODAY = dt.date(2030, 1, 1)

# --- One lake: retracted, with an arrival in the same run, and undone ---------------------------------------

FIRST = """
    purchase 03-10T08:00 priced  paid
    item     03-10T08:00 priced  1 10.00
    purchase 03-10T08:00 shared  paid 03-11
    item     03-10T08:00 shared  1 20.00
    purchase 03-10T08:00 alone   paid 03-12
    item     03-10T08:00 alone   1 30.00
    purchase 03-10T08:00 spared  paid 03-13
    info     03-10T08:00 priced  nac
    """
SECOND = """
    transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
    2023-03-11 08:00:00,2023-03-11,priced,,1,11.00
    2023-03-10 08:00:00,2023-03-10,shared,,1,20.00
    2023-03-10 08:00:00,2023-03-10,spared,,1,40.00
    2023-03-10 08:00:00,2023-03-10,spared,,1,40.001
    """
QUARANTINED = """
    transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
    2023-03-10 08:00:00,2023-03-10,alone,,1,30.00
    2023-03-10 09:00:00,2023-03-10,alone,,1,-30.00
    """


def test_a_retracted_file_leaves_every_number_and_an_undo_brings_it_back(lake):
    lake.arrive("1", FIRST)
    lake.put("product_item-2.csv", SECOND)
    lake.put("product_item-3.csv", QUARANTINED)
    lake.run()
    whole = contents(lake)
    assert lake.published() == [
        "2023-03-10 nac 11.00",
        "2023-03-11 unknown 20.00",
        "2023-03-12 unknown 30.00",
        "2023-03-13 unknown 40.00",
    ]

    run = lake.retract("product_item-1.csv", "in another currency")
    (row,) = lake.reader.rows("select * from bronze.files where run = $run", run=run)
    assert (row["path"], row["outcome"], row["reason"], row["records"]) == (
        "product_item-1.csv",
        "retracted",
        "in another currency",
        3,
    )
    lake.run(notebooks=("01_bronze",))
    silver = lake.run(notebooks=("02_silver",))
    assert silver["retractions"] == [
        {"path": "product_item-1.csv", "outcome": "retracted", "records": 3, "versions": 0, "quarantined": 0}
    ]
    assert silver["accounts"] == [], "a retracted file is accounted apart"
    gold = lake.run(notebooks=("03_gold",))
    assert lake.published() == [
        "2023-03-10 nac 11.00",
        "2023-03-11 unknown 20.00",
        "2023-03-12 unknown 30.00",
        "2023-03-13 unknown 40.00",
    ], "each item but the first price is in another file in force too"
    assert posted(lake, 2) == [
        "priced 2023-03-10 nac -10.00/-1 2023-03-10 paid retraction",
        "priced 2023-03-10 nac -1.00/+0 2023-03-11 repriced retraction",
        "priced 2023-03-10 nac +11.00/+1 2023-03-11 item_arrived retraction",
    ]
    assert gold["results"] == {}, "what was known changed, but no number that is published"
    assert lineage(lake, "product_item") == Counter({"product_item-2.csv": 3, "product_item-3.csv": 1})
    assert verify(lake.reader, TODAY).agrees

    lake.retract("product_item-3.csv")
    lake.arrive("4", "item 03-14T08:00 alone 1 31.00\n info 03-14T08:00 spared nac")
    changed = lake.run()
    assert lake.published() == [
        "2023-03-10 nac 11.00",
        "2023-03-11 unknown 20.00",
        "2023-03-12 unknown 31.00",
        "2023-03-13 nac 40.00",
    ]
    assert posted(lake, 3) == [
        "alone 2023-03-12 unknown -30.00/-1 2023-03-10 paid retraction",
        "alone 2023-03-12 unknown +31.00/+1 2023-03-14 item_arrived event",
        "spared 2023-03-13 unknown -40.00/-1 2023-03-14 subsidiary_known event",
        "spared 2023-03-13 nac +40.00/+1 2023-03-14 subsidiary_known event",
    ]
    assert changed["results"] == {"2023-03-12": "published", "2023-03-13": "published"}
    assert lake.reader.rows("select file from silver.quarantine") == [{"file": "product_item-2.csv"}]
    assert verify(lake.reader, TODAY).agrees

    lake.retract("product_item-2.csv")
    lake.retract("purchase_extra_info-1.csv")
    lake.run()
    assert lake.published() == ["2023-03-12 unknown 31.00"]
    assert {row["purchase_id"] for row in lake.reader.rows("select * from silver.product_item")} == {"alone"}
    assert verify(lake.reader, TODAY).agrees

    for name in (
        "product_item-1.csv",
        "product_item-2.csv",
        "product_item-3.csv",
        "purchase_extra_info-1.csv",
    ):
        lake.retract(name, undo=True)
    for name in ("product_item-4.csv", "purchase_extra_info-4.csv"):
        lake.retract(name)
    lake.run()
    assert contents(lake) == whole
    assert {
        row["cause"] for row in lake.reader.rows("select cause from gold.gmv_ledger where ledger_seq = 5")
    } == {
        "undo",
        "retraction",
    }
    (unchanged,) = lake.reader.rows(
        "select count(*) as n from (select purchase_id, known_on, transaction_date, subsidiary, reason, "
        "sum(amount) filter (ledger_seq > 1) as later from gold.gmv_ledger group by all) where later <> 0"
    )
    assert unchanged["n"] == 0, "retract then undo leaves the ledger's sums as they were"
    assert verify(lake.reader, TODAY).agrees


def test_a_file_may_be_retracted_some_of_whose_records_name_no_purchase(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid")
    lake.put(
        "product_item-1.csv",  # what stays has spaces around its purchase, too
        """transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
           2023-03-10 08:00:00,2023-03-10, 1 ,,1,10.00""",
    )
    lake.put(
        "product_item-2.csv",
        """transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
           2023-03-11 08:00:00,2023-03-11,1,,1,11.00
           2023-03-11 08:00:00,2023-03-11, ,,1,11.00
           2023-03-11 08:00:00,2023-03-11,1,,1,11,00""",
    )
    lake.run()
    assert lake.published() == ["2023-03-10 unknown 11.00"]
    lake.retract("product_item-2.csv")
    lake.run()
    assert lake.published() == ["2023-03-10 unknown 10.00"]
    assert verify(lake.reader, TODAY).agrees


def contents(lake: TestLake) -> dict[str, list[str]]:
    """All rows of silver, with the file that brought each, and the published numbers."""
    tables = (
        [event.versions for event in EVENT_TABLES] + [event.latest for event in EVENT_TABLES] + [QUARANTINE]
    )
    rows = {table.path: lake.reader.rows(f"select * from silver.{table.name}") for table in tables}
    return {path: sorted(map(str, found)) for path, found in rows.items()} | {"published": lake.published()}


def posted(lake: TestLake, seq: int) -> list[str]:
    rows = lake.reader.rows("select * from gold.gmv_ledger where ledger_seq = $seq", seq=seq)
    lines = sorted((row["purchase_id"], row["known_on"], row["amount"], row) for row in rows)
    return [
        f"{row['purchase_id']} {row['transaction_date']} {row['subsidiary']} {row['amount']:+}/"
        f"{row['purchases']:+} {row['known_on']} {row['reason']} {row['cause']}"
        for *_, row in lines
    ]


def lineage(lake: TestLake, table: str) -> Counter:
    return Counter(row["file"] for row in lake.reader.rows(f"select file from silver.{table}_versions"))


# --- Killed, repeated, arriving again ------------------------------------------------------------------------


def test_a_killed_retraction_is_finished_by_the_next_run_and_each_step_may_be_repeated(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.run()
    lake.retract("product_item-1.csv")  # and killed at once
    assert progress.unfinished(lake.reader, "silver").changed_files
    lake.run(notebooks=("02_silver",))
    forget_progress(lake)
    before = contents(lake)
    lake.run(notebooks=("02_silver",))  # killed before its progress was noted
    assert contents(lake) == before
    lake.run(notebooks=("03_gold",))
    assert lake.published() == []
    lake.arrive("2", "item 03-11T08:00 1 1 11.00\n purchase 03-11T08:00 2 paid\n item 03-11T08:00 2 1 5.00")
    lake.run()
    assert lake.published() == ["2023-03-10 unknown 11.00", "2023-03-11 unknown 5.00"]
    assert posted(lake, 3) == [
        "1 2023-03-10 unknown +11.00/+1 2023-03-11 item_arrived event",
        "2 2023-03-11 unknown +5.00/+1 2023-03-11 paid event",
    ]
    forget_progress(lake)
    lake.run(notebooks=("03_gold",))  # killed between its postings and its progress
    assert len(lake.postings()) == 4

    lake.put("product_item-again.csv", (lake.landing / "product_item-1.csv").read_bytes())
    again = lake.run()
    assert [
        row["outcome"]
        for row in again["step"].reader.rows(
            "select outcome from bronze.files where path = 'product_item-again.csv'"
        )
    ] == ["repeated"]
    assert lake.published() == ["2023-03-10 unknown 11.00", "2023-03-11 unknown 5.00"]
    assert verify(lake.reader, TODAY).agrees


def test_a_file_that_is_retracted_before_silver_saw_it_never_counts(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.run(notebooks=("01_bronze",))
    lake.retract("product_item-1.csv")
    lake.run()
    assert lake.published() == []
    assert lake.postings() == []
    assert verify(lake.reader, TODAY).agrees


@pytest.mark.parametrize("undo", [False, True])
def test_gold_goes_by_what_silver_has_taken_in_of_retractions(lake, undo):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.run()
    lake.arrive("2", "item 03-11T08:00 1 1 30.00")
    lake.run(notebooks=("01_bronze", "02_silver"))
    if undo:
        lake.retract("product_item-2.csv")
        lake.run(notebooks=("02_silver",))
    lake.retract("product_item-2.csv", undo=undo)
    lake.run(notebooks=("03_gold",))
    by_silver, by_now = ("10.00", "30.00") if undo else ("30.00", "10.00")
    assert lake.published() == [f"2023-03-10 unknown {by_silver}"]
    lake.run()
    assert lake.published() == [f"2023-03-10 unknown {by_now}"]
    assert verify(lake.reader, TODAY).agrees


def forget_progress(lake: TestLake) -> None:
    """As if the last step had been killed between its last commit and its note."""
    delta = DeltaTable(str(lake.path / PROGRESS.path))
    delta.restore(delta.version() - 1)


# --- Naming a file ---------------------------------------------------------------------------------------------


def file_row(path: str, sha256: str, outcome: str = "ingested", on: str = "2023-03-01 06:00:00") -> dict:
    return {
        "path": path,
        "table": "purchase",
        "size": 10,
        "modified_at": at("2023-03-01 05:00:00"),
        "sha256": sha256 * 32,
        "records": None if outcome == "repeated" else 7,
        "outcome": outcome,
        "reason": "why",
        "run": on,
        "recorded_at": at(on),
    }


@pytest.fixture
def known(tmp_path) -> Reader:
    files_ingested = 4
    write(tmp_path, PURCHASE.bronze, [{"purchase_id": "1"}] * 7 * files_ingested)
    write(
        tmp_path,
        FILES,
        [
            file_row("in/purchase-1.csv", "ab"),
            file_row("purchase-copy.csv", "ab", "repeated"),
            file_row("purchase.csv", "cd"),
            file_row("purchase.csv", "ce", on="2023-03-02 06:00:00"),
            file_row("purchase.csv", "ce", "retracted", on="2023-03-03 06:00:00"),
            file_row("back.csv", "de"),
            file_row("back.csv", "de", "retracted", on="2023-03-03 06:00:00"),
            file_row("back.csv", "de", "restored", on="2023-03-04 06:00:00"),
            file_row("wrong.csv", "ff", "refused"),
            file_row("notes.csv", "ee", "refused") | {"table": None},
        ],
    )
    return Reader(tmp_path)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("in/purchase-1.csv", "ab"),
        ("/somewhere/landing/in/purchase-1.csv", "ab"),
        ("purchase-copy.csv", "ab"),
        ("cdcdcdcd", "cd"),
        ("CE" * 32, "ce"),
        ("back.csv", "de"),
    ],
)
def test_a_file_is_named_by_its_path_or_its_sha256(known, name, sha256):
    found = retraction.named(known, name, Path("/somewhere/landing"))
    assert found.sha256 == sha256 * 32
    assert found.is_retracted == (sha256 == "ce")


@pytest.mark.parametrize("name", ["in/purchase-1.csv", "s3://bucket/landing/in/purchase-1.csv"])
def test_a_file_of_a_landing_in_an_object_store_is_named_in_the_same_way(known, name):
    pytest.importorskip("s3fs", reason="make setup-s3 brings it")
    found = retraction.named(known, name, location.location("s3://bucket/landing/"))
    assert found.sha256 == "ab" * 32


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("purchase.csv", rf"several contents; .*{'cd' * 32} \(7 records, .*{'ce' * 32} .*retracted\)"),
        ("wrong.csv", "was refused: nothing of it was loaded .* gmv run --accept refused_file"),
        ("notes.csv", "no ingested file"),
        ("cdcdcdc", "no ingested file"),
        ("purchase", "no ingested file"),
        ("", "no ingested file"),
    ],
)
def test_a_name_that_is_not_one_file_is_refused(known, name, said):
    with pytest.raises(UsageError, match=said):
        retraction.named(known, name, Path("/somewhere/landing"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["in/purchase-1.csv"], "--because is missing"),
        (["in/purchase-1.csv", "--undo"], "was never retracted"),
        (["nothing.csv", "--because", "so"], "no ingested file"),
    ],
)
def test_wrong_use_ends_with_2_and_notes_nothing(known, tmp_path, arguments, said):
    before = DeltaTable(tmp_path / FILES.path).version()
    command = [GMV, "retract", *arguments]
    folders = ["--lake", str(tmp_path), "--landing", str(tmp_path)]
    wrong = subprocess.run([*command, *folders], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert said in wrong.stderr
    assert DeltaTable(tmp_path / FILES.path).version() == before


def test_retracting_twice_notes_it_once(known, tmp_path):
    told: list[str] = []
    request = runner.Request(tmp_path, tmp_path, tmp_path / "runs")
    for _ in range(2):
        runner.retract(request, "purchase-copy.csv", "sent twice", None, told.append, undo=False, run=False)
    assert told[0] == "in/purchase-1.csv: its 7 records count no longer."
    assert told[1].startswith("in/purchase-1.csv is retracted since ") and told[1].endswith(": sent twice")
    rows = Reader(tmp_path).rows("select outcome, reason, run from bronze.files where reason = 'sent twice'")
    assert [row["outcome"] for row in rows] == ["retracted"]
    noted = Reader(tmp_path).rows("select run, kind, event, outcome, message from monitoring.runs")
    assert {row["run"] for row in noted} == {rows[0]["run"]}
    assert {(row["kind"], row["event"], row["outcome"]) for row in noted} == {
        ("retract", "started", None),
        ("retract", "ended", "succeeded"),
    }
