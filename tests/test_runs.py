"""Runs on real Delta tables, by the notebooks' own code: what arrives, what is published, what is repaired."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import crash
import gmv.lake.lake
import model
import psutil
import pytest
from deltalake import DeltaTable, write_deltalake
from gmv import bronze, notebook, problems, publication, show, status
from gmv.errors import GmvError, LakeLocked, PublicationRefused, UsageError
from gmv.lake import location, lock, pruning, records, spark
from gmv.report import health
from gmv.settings import settings
from gmv.tables import DAILY_GMV, DAILY_GMV_HISTORY, FILES, PRODUCT_ITEM
from pipeline import Died, TestLake, dying, execute

GOLD = ("03_gold",)

# --- A story in four runs ------------------------------------------------------------------------------

FIRST = """
    purchase 03-10T08:00 stays      paid
    purchase 03-10T08:00 withdrawn  paid 03-11
    purchase 03-10T08:00 moves      paid 03-12
    purchase 03-10T08:00 renamed    paid 03-13
    purchase 03-10T08:00 unnamed    paid 03-14
    purchase 03-10T08:00 itemless   paid 03-15
    purchase 02-29T08:00 leap       unpaid
    purchase 03-10T08:00 cheaper    paid 03-17
    item     03-10T08:00 stays      2 50.05
    item     03-10T08:00 withdrawn  1 11.00
    item     03-10T08:00 moves      1 12.00
    item     03-10T08:00 renamed    1 13.00
    item     03-10T08:00 unnamed    1 14.00
    item     02-29T08:00 leap       1 29.02
    item     03-10T08:00 cheaper    1 17.00
    item     03-10T08:00 orphan     1 1000.00
    info     03-10T08:00 stays      nac
    info     03-10T08:00 withdrawn  nac
    info     03-10T08:00 moves      nac
    info     03-10T08:00 renamed    nac
    info     03-10T08:00 itemless   nac
    info     02-29T08:00 leap       nac
    info     03-10T08:00 cheaper    nac
    """.replace("02-29", "2024-02-29")
SECOND = """
    purchase 03-20T08:00 withdrawn  unpaid 03-11
    purchase 03-20T08:00 moves      paid 03-16
    info     03-20T08:00 renamed    int
    info     03-20T08:00 unnamed    nac
    item     03-20T08:00 itemless   3 5.00
    purchase 2024-03-01T08:00 leap  paid 2024-02-29
    item     03-20T08:00 cheaper    1 16.00
    item     03-09T08:00 stays      9 999.99
    purchase 03-09T08:00 stays      unpaid 03-08
    """
AFTER_FIRST = [
    "2023-03-10 nac 100.10",
    "2023-03-11 nac 11.00",
    "2023-03-12 nac 12.00",
    "2023-03-13 nac 13.00",
    "2023-03-14 unknown 14.00",
    "2023-03-17 nac 17.00",
]
AFTER_SECOND = [
    "2023-03-10 nac 100.10",
    "2023-03-13 int 13.00",
    "2023-03-14 nac 14.00",
    "2023-03-15 nac 15.00",
    "2023-03-16 nac 12.00",
    "2023-03-17 nac 16.00",
    "2024-02-29 nac 29.02",
]
AFTER_THIRD = [*AFTER_SECOND[:-1], "2023-03-18 nac 18.00", AFTER_SECOND[-1]]
QUARANTINED = """
    transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
    2023-03-18 08:00:00,2023-03-18,new,,1,18.00
    2023-03-18 08:00:00,2023-03-18,bad,,1,19.999
    2023-03-18 08:00:00,2023-03-18,bad,,-1,19.99
    2023-03-18 08:00:00,2023-03-18,bad,,1,19,99
    """


@pytest.fixture(scope="module")
def story(tmp_path_factory, spark):
    """A lake after four runs, and what was seen after each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GMV_CLOSED_UNTIL", raising=False)
        settings.cache_clear()
        lake = TestLake(tmp_path_factory.mktemp("story"))
        seen = []

        def run() -> None:
            notebooks = {name: lake.run(notebooks=(name,)) for name in ("01_bronze", "02_silver", "03_gold")}
            now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
            seen.append(SimpleNamespace(**notebooks["03_gold"], published_then=lake.published(), now=now))
            seen[-1].outcomes = {
                row["path"]: row["outcome"] for row in notebooks["01_bronze"]["arrivals"].outcomes
            }
            seen[-1].accounts = {row["file"]: row for row in notebooks["02_silver"]["accounts"]}

        first = lake.arrive("1", FIRST)
        run()
        second = lake.arrive("2", SECOND)
        run()
        third = lake.arrive("1", FIRST + "purchase 03-18T08:00 new paid\n")  # exported whole, with one more
        third += lake.arrive("1-more", "info 03-18T09:00 new nac")
        shutil.copy(lake.landing / "purchase-2.csv", lake.landing / "purchase-2-renamed.csv")
        lake.put("product_item-3.csv", QUARANTINED)
        run()
        run()
        events = [*first, *second, *third, *_new_item()]
        return SimpleNamespace(lake=lake, first=first, events=events, runs=seen)


def _new_item() -> list[model.Event]:
    at = dt.datetime(2023, 3, 18, 8)
    return [model.ProductItem(at, at.date(), "new", None, 1, Decimal("18.00"))]


def test_paid_purchases_with_an_item_are_published(story):
    assert story.runs[0].published_then == AFTER_FIRST
    assert lines(model.daily_gmv(story.first)) == AFTER_FIRST


def test_a_correction_leaves_its_old_day_and_subsidiary(story):
    """Withdrawn, moved to another day, to another subsidiary, to a known one; item and payment arrived."""
    assert story.runs[1].published_then == AFTER_SECOND
    assert {day for day, told in story.runs[1].results.items() if told == "published"} == {
        "2023-03-11",
        "2023-03-12",
        "2023-03-13",
        "2023-03-14",
        "2023-03-15",
        "2023-03-16",
        "2023-03-17",
        "2024-02-29",
    }
    assert story.lake.postings("renamed") == [
        "1 renamed 2023-03-13 nac +13.00/+1 2023-03-10 paid",
        "2 renamed 2023-03-13 nac -13.00/-1 2023-03-20 moved_subsidiary",
        "2 renamed 2023-03-13 int +13.00/+1 2023-03-20 moved_subsidiary",
    ]
    assert [line.split()[-1] for line in story.lake.postings("itemless")] == ["item_arrived"]


def test_an_older_version_changes_neither_the_latest_one_nor_gmv(story):
    assert story.lake.reader.rows(
        "select p.transaction_date, release_date, item_quantity, purchase_value "
        "from silver.purchase as p join silver.product_item using (purchase_id) where purchase_id = 'stays'"
    ) == [
        {
            "transaction_date": dt.date(2023, 3, 10),
            "release_date": dt.date(2023, 3, 10),
            "item_quantity": 2,
            "purchase_value": Decimal("50.05"),
        }
    ]
    versions = story.lake.reader.rows(
        "select 1 from silver.product_item_versions where purchase_id = 'stays'"
    )
    assert len(versions) == 2
    assert story.lake.postings("stays") == ["1 stays 2023-03-10 nac +100.10/+1 2023-03-10 paid"]


def test_a_file_exported_whole_again_touches_only_its_new_rows(story):
    third = story.runs[2]
    assert third.published_then == AFTER_THIRD
    assert third.accounts["purchase-1.csv"] | {"sha256": ""} == {
        "table": "purchase",
        "file": "purchase-1.csv",
        "records": 9,
        "new_versions": 1,
        "copies": 8,
        "quarantined": 0,
        "sha256": "",
    }
    assert third.touched.ids.collect() == [("new",)]
    assert third.posted == {"postings": 1, "ledger_seq": 3}
    assert [row["transaction_date"] for row in third.changes] == [dt.date(2023, 3, 18)]


def test_a_renamed_copy_of_a_file_is_repeated(story):
    assert story.runs[2].outcomes == {
        "purchase-1.csv": "ingested",
        "product_item-1.csv": "repeated",  # written again: the same bytes
        "purchase_extra_info-1.csv": "repeated",
        "purchase-2-renamed.csv": "repeated",
        "product_item-3.csv": "ingested",
        "purchase_extra_info-1-more.csv": "ingested",
    }
    assert "purchase-2-renamed.csv" not in story.runs[2].accounts


def test_quarantined_records_are_counted_and_the_others_published(story):
    account = story.runs[2].accounts["product_item-3.csv"]
    counted = {name: account[name] for name in ("records", "new_versions", "copies", "quarantined")}
    assert counted == {"records": 4, "new_versions": 1, "copies": 0, "quarantined": 3}
    assert "2023-03-18 nac 18.00" in story.lake.published()
    assert [
        (row["line"], row["reasons"])
        for row in story.lake.reader.rows("select * from silver.quarantine order by line")
    ] == [
        (3, ["purchase_value: more than 2 decimals"]),
        (4, ["item_quantity: negative"]),
        (5, ["field_count"]),
    ]


def test_a_run_with_nothing_new_changes_nothing(story):
    last = story.runs[3]
    assert last.outcomes == {}
    assert last.posted == {"postings": 0, "ledger_seq": 3}
    assert last.changes == []
    written = "select run from gold.gmv_ledger union select run from gold.daily_gmv_history"
    runs = {row["run"] for row in story.lake.reader.rows(written)}
    assert runs == {run.step.run for run in story.runs[:3]}
    assert last.published_then == AFTER_THIRD


def test_the_story_ends_as_the_model_says(story):
    assert story.lake.published() == lines(model.daily_gmv(story.events))
    posted = story.lake.reader.rows(
        "select purchase_id, known_on, transaction_date, subsidiary, reason, sum(amount) as amount, "
        "cast(sum(purchases) as int) as purchases from gold.gmv_ledger group by all "
        "having sum(amount) <> 0 or sum(purchases) <> 0"
    )
    assert {
        model.PostingKey(*(row[name] for name in model.PostingKey._fields)): (row["amount"], row["purchases"])
        for row in posted
    } == model.postings(story.events)


def test_show_tells_what_the_sources_knew_and_what_was_published(story):
    reader, (first, second, *_) = story.lake.reader, story.runs

    def shown(**points) -> list[str]:
        rows = show.rows(reader, show.table_named("daily_gmv"), **points)
        return [f"{row['transaction_date']} {row['subsidiary']} {row['gmv']}" for row in rows]

    assert shown() == AFTER_THIRD
    assert shown(start_date=dt.date(2023, 3, 17), end_date=dt.date(2023, 3, 18)) == AFTER_THIRD[5:7]
    assert shown(recorded_by=first.now) == AFTER_FIRST
    assert shown(recorded_by=second.now) == AFTER_SECOND
    assert shown(recorded_by=dt.datetime(2020, 1, 1)) == []
    for on in (dt.date(2023, 3, 9), dt.date(2023, 3, 10), dt.date(2023, 3, 18), dt.date(2023, 3, 20)):
        assert shown(known_on=on) == lines(model.as_known(story.events, on))
        assert shown(known_on=on, recorded_by=first.now) == lines(model.as_known(story.first, on))
    assert shown(known_on=dt.date(2023, 3, 10)) == AFTER_FIRST
    with pytest.raises(UsageError, match="daily_gmv only"):
        show.rows(reader, show.table_named("gmv_ledger"), known_on=dt.date(2023, 3, 10))
    csv = show.as_csv(DAILY_GMV.column_names, show.rows(reader, DAILY_GMV))
    assert csv.splitlines()[:2] == ["transaction_date,subsidiary,gmv", "2023-03-10,nac,100.10"]


def test_status_tells_the_last_run_and_what_is_in_quarantine(story):
    told = status.status(story.lake.reader, dt.date(2030, 1, 1))
    assert told.pending == []
    assert told.unfinished == {"silver": [], "ledger": []}
    assert told.last_run["outcome"] == "succeeded"
    assert told.freshness.newest_event == dt.datetime(2024, 3, 1, 8)
    assert told.freshness.newest_published_day == dt.date(2024, 2, 29)
    told_of = [str(problem) for problem in told.problems if problem.kind == "quarantine"]
    assert told_of == [
        "3 record(s) of 1 file(s) are in quarantine. "
        "Look at `gmv show quarantine`, and have right records delivered in a new file."
    ]


# --- Which days are published ---------------------------------------------------------------------------


def test_days_outside_of_the_window_stay_pending_until_a_run_without_one(lake):
    lake.arrive(
        "1",
        """
        purchase 03-10T08:00 moves  paid
        purchase 03-10T08:00 stays  paid
        purchase 03-10T08:00 today  paid 03-15
        purchase 03-10T08:00 before paid 03-14
        item     03-10T08:00 moves  1 10.00
        item     03-10T08:00 stays  1 1.00
        item     03-10T08:00 today  1 15.00
        item     03-10T08:00 before 1 14.00
        """,
    )
    first = lake.run(as_of_date="2023-03-15")
    assert first["results"] == {
        "2023-03-10": "published",
        "2023-03-14": "published",
        "2023-03-15": "in progress",
    }
    assert lake.published() == ["2023-03-10 unknown 11.00", "2023-03-14 unknown 14.00"]

    lake.arrive("2", "purchase 03-13T08:00 moves paid 03-12")
    narrow = lake.run(as_of_date="2023-03-15", start_date="2023-03-12", end_date="2023-03-14")
    assert narrow["results"] == {
        "2023-03-10": "pending",
        "2023-03-12": "published",
        "2023-03-13": "empty",
        "2023-03-14": "unchanged",
    }
    assert lake.published() == [
        "2023-03-10 unknown 11.00",
        "2023-03-12 unknown 10.00",
        "2023-03-14 unknown 14.00",
    ]
    meanwhile = publication.counted_meanwhile(lake.reader, narrow["plan"])
    assert meanwhile == {"twice": Decimal("10.00"), "nowhere": Decimal("0.00")}
    told = status.status(lake.reader, dt.date(2023, 3, 15))
    assert told.pending == [
        {"day": dt.date(2023, 3, 10), "published": Decimal("11.00"), "coming": Decimal("1.00")}
    ]

    repaired = lake.run(as_of_date="2023-03-16", notebooks=GOLD)
    assert repaired["results"] == {"2023-03-10": "published", "2023-03-15": "published"}
    assert lake.published() == [
        "2023-03-10 unknown 1.00",
        "2023-03-12 unknown 10.00",
        "2023-03-14 unknown 14.00",
        "2023-03-15 unknown 15.00",
    ]


def meanwhile(run: dict, lake: TestLake) -> dict[str, Decimal]:
    return publication.counted_meanwhile(lake.reader, run["plan"])


def test_money_counts_nowhere_until_the_day_that_it_moved_to_is_published(lake):
    lake.arrive("1", "purchase 03-25T08:00 moves paid\n item 03-25T08:00 moves 1 80.00")
    lake.run(as_of_date="2023-04-01")
    lake.arrive(
        "2",
        "purchase 03-26T08:00 moves paid 03-10\n purchase 03-10T08:00 new paid\n item 03-10T08:00 new 1 7.00",
    )
    narrow = lake.run(as_of_date="2023-04-01", start_date="2023-03-25", end_date="2023-03-31")
    assert lake.published() == []
    assert meanwhile(narrow, lake) == {"twice": 0, "nowhere": Decimal("80.00")}

    repaired = lake.run(as_of_date="2023-04-01", notebooks=GOLD)
    assert lake.published() == ["2023-03-10 unknown 87.00"]
    assert meanwhile(repaired, lake) == {"twice": 0, "nowhere": 0}


def test_money_counts_nowhere_though_it_moved_on_between_pending_days(lake):
    lake.arrive("1", "purchase 03-25T08:00 moves paid\n item 03-25T08:00 moves 1 80.00")
    lake.run(as_of_date="2023-04-01")
    window = {"as_of_date": "2023-04-01", "start_date": "2023-03-25", "end_date": "2023-03-31"}
    lake.arrive("2", "purchase 03-26T08:00 moves paid 03-10")
    lake.run(**window)
    lake.arrive("3", "purchase 03-27T08:00 moves paid 03-11")
    assert meanwhile(lake.run(**window), lake) == {"twice": 0, "nowhere": Decimal("80.00")}


def test_money_that_was_withdrawn_and_paid_again_counts_twice_until_its_old_day_is_published(lake):
    lake.arrive("1", "purchase 03-10T08:00 again paid\n item 03-10T08:00 again 1 80.00")
    lake.run(as_of_date="2023-04-01")
    lake.arrive("2", "purchase 03-20T08:00 again unpaid\n purchase 03-25T08:00 again paid")
    narrow = lake.run(as_of_date="2023-04-01", start_date="2023-03-25", end_date="2023-03-25")
    assert lake.published() == ["2023-03-10 unknown 80.00", "2023-03-25 unknown 80.00"]
    assert meanwhile(narrow, lake) == {"twice": Decimal("80.00"), "nowhere": 0}


def test_money_that_is_back_where_it_was_is_neither_twice_nor_nowhere(lake):
    """One delivery moves a purchase to a day that waits, and back; another purchase makes that day wait."""
    lake.arrive("1", "purchase 03-25T08:00 moves paid\n item 03-25T08:00 moves 1 80.00")
    lake.run(as_of_date="2023-04-01")
    lake.arrive(
        "2",
        """
        purchase 03-26T08:00 moves  paid 03-10
        purchase 03-27T08:00 moves  unpaid
        purchase 03-28T08:00 moves  paid 03-25
        purchase 03-10T08:00 new    paid
        item     03-10T08:00 new    1 7.00
        """,
    )
    narrow = lake.run(as_of_date="2023-04-01", start_date="2023-03-25", end_date="2023-03-31")
    assert lake.published() == ["2023-03-25 unknown 80.00"]
    assert meanwhile(narrow, lake) == {"twice": 0, "nowhere": 0}


def test_a_purchase_that_is_only_new_on_a_waiting_day_has_not_moved(lake):
    lake.arrive("1", "purchase 03-25T08:00 1 paid\n item 03-25T08:00 1 1 80.00")
    lake.run(as_of_date="2023-04-01")
    lake.arrive(
        "2", "purchase 03-26T08:00 1 unpaid\n purchase 03-10T08:00 new paid\n item 03-10T08:00 new 1 7.00"
    )
    window = {"as_of_date": "2023-04-01", "start_date": "2023-03-25", "end_date": "2023-03-31"}
    lake.run(**window)
    assert lake.published() == []
    lake.arrive("3", "purchase 03-27T08:00 1 paid 03-10")  # it was withdrawn before, and rightly so
    assert meanwhile(lake.run(**window), lake) == {"twice": 0, "nowhere": 0}


@pytest.mark.parametrize("first_run", [True, False])
def test_money_that_no_published_day_ever_had_has_not_moved(lake, first_run):
    """On a day of the window it came and went: in one delivery, or in two of which none was published."""
    window = {"as_of_date": "2023-04-01", "start_date": "2023-03-25", "end_date": "2023-03-31"}
    came = "purchase 03-25T08:00 1 paid\n item 03-25T08:00 1 1 80.00"
    went = "purchase 03-27T08:00 1 paid 03-10"
    if first_run:
        lake.arrive("1", f"{came}\n {went}")
    else:
        lake.arrive("1", came)
        lake.run(as_of_date="2023-04-01", start_date="2023-03-20", end_date="2023-03-20")
        lake.arrive("2", went)
    assert meanwhile(lake.run(**window), lake) == {"twice": 0, "nowhere": 0}
    assert lake.published() == []


def test_an_anomaly_is_over_when_its_day_is_judged_anew_and_passes(lake):
    def odd(check: str) -> list[str]:
        found = problems.open_problems(lake.reader, today)
        return [one.subject.removeprefix(f"{check}:") for one in found if one.subject.startswith(f"{check}:")]

    today = dt.date(2023, 3, 12)
    lake.arrive(
        "1",
        """
        purchase 03-10T08:00 1 paid
        item     03-10T08:00 1 1 100.00
        purchase 03-11T08:00 2 paid
        item     03-11T08:00 2 1 10.00
        purchase 03-09T08:00 4 paid
        item     03-09T08:00 4 1 900.00
        """,
    )
    lake.run(as_of_date="2023-03-12")
    assert odd("day_drop") == ["2023-03-11", "2023-03-10"]
    assert "2023-03-11 purchase_extra_info" in odd("feed_missing")

    lake.arrive("2", "purchase 03-11T09:00 3 paid\n item 03-11T09:00 3 1 95.00\n info 03-11T09:00 3 nac")
    lake.run(as_of_date="2023-03-12")
    assert odd("day_drop") == ["2023-03-10"]  # which was not judged anew
    assert odd("feed_missing") == ["2023-03-10 purchase_extra_info", "2023-03-09 purchase_extra_info"]
    shown = health.anomalies(lake.reader)
    assert shown[shown["check"] == "day_drop"]["day"].dt.day.tolist() == [10]

    lake.arrive("3", "item 03-11T10:00 3 1 1.00")
    lake.run(as_of_date="2023-03-12")
    assert odd("day_drop") == ["2023-03-11", "2023-03-10"]


# --- Content is ingested once, and read again where that is asked for ----------------------------------


def outcomes(lake: TestLake) -> list[str]:
    rows = lake.reader.rows("select path, outcome from bronze.files order by recorded_at, path")
    return [f"{row['path']} {row['outcome']}" for row in rows]


def test_content_that_was_also_refused_under_another_name_is_ingested_once(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    shutil.copy(lake.landing / "purchase-1.csv", lake.landing / "Copy of 1.csv")
    lake.run(notebooks=("01_bronze",))
    assert outcomes(lake) == [
        "Copy of 1.csv refused",
        "product_item-1.csv ingested",
        "purchase-1.csv ingested",
    ]

    shutil.copy(lake.landing / "purchase-1.csv", lake.landing / "purchase-2.csv")
    os.utime(lake.landing / "purchase-1.csv", (1, 1))
    lake.run(notebooks=("01_bronze",))
    assert outcomes(lake)[3:] == ["purchase-1.csv repeated", "purchase-2.csv repeated"]
    assert len(lake.reader.rows("select 1 from bronze.purchase")) == 1


def test_a_copy_that_writes_its_purchase_with_spaces_is_no_new_version(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.run()
    lake.put(
        "product_item-2.csv",
        """transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value
           2023-03-10 08:00:00,2023-03-10,\u00a01 ,,1,10.00""",
    )
    silver = lake.run(notebooks=("01_bronze", "02_silver"))
    (account,) = silver["accounts"]
    assert (account["new_versions"], account["copies"]) == (0, 1)
    assert len(lake.reader.rows("select 1 from silver.product_item_versions")) == 1


def test_a_file_that_can_not_be_read_holds_publication_back_until_it_can(lake, monkeypatch):
    """Its time and size stay when a person lets it be read."""
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00\n info 03-10T08:00 1 nac")
    real, closed = Path.open, lake.landing / "purchase_extra_info-1.csv"

    def open_unless_closed(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_unless_closed)
    for _ in range(2):
        with pytest.raises(PublicationRefused, match=r"info-1\.csv: can't be read \(Permission denied\)"):
            lake.run()
        assert bronze.unread(lake.reader, lake.landing) == [], "there is nothing new in it for a run"
    assert outcomes(lake).count("purchase_extra_info-1.csv refused") == 1
    assert [problem.kind for problem in problems.open_problems(lake.reader, dt.date(2023, 3, 12))][:1] == [
        problems.REFUSED_FILE
    ]

    monkeypatch.setattr(Path, "open", real)
    lake.run()
    assert lake.published() == ["2023-03-10 nac 10.00"]


def test_a_file_that_changes_while_it_is_read_is_told_of(lake, monkeypatch):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    files = bronze.unread(lake.reader, lake.landing)
    (lake.landing / "purchase-1.csv").write_text("and")
    arrivals = bronze.take_in(lake.reader, files, "r1", lake.path / "staged")
    (told,) = [one for one in bronze.summary(arrivals) if one["outcome"] == "waiting"]
    assert told["reason"] == "purchase-1.csv: changed while it was read. It waits for the next run."


def test_a_clock_that_was_ahead_does_not_keep_old_news_the_newest(lake, monkeypatch, capsys):
    """A file is refused by a run of the day after tomorrow; corrected, it is taken in today."""
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.put("product_item-2.csv", "no header of ours\n1")
    ahead = dt.timedelta(days=2)
    by_the_clock = records._by_the_clock
    with monkeypatch.context() as patched, pytest.raises(PublicationRefused):
        patched.setattr(records, "_by_the_clock", lambda: by_the_clock() + ahead)
        lake.run()
    assert "clock" not in capsys.readouterr().err
    newest = 'select max("at") as moment from monitoring.runs'
    (refused,) = lake.reader.rows(newest)
    lake.arrive("2", "item 03-11T08:00 1 1 20.00")
    lake.run()
    assert lake.published() == ["2023-03-10 unknown 20.00"]
    assert "this machine's clock is 1 day, 23:5" in capsys.readouterr().err
    (ended,) = lake.reader.rows(newest)
    assert ended["moment"] > refused["moment"] and outcomes(lake)[-1] == "product_item-2.csv ingested"
    records.follow(None)


def replaced_in_place(file: Path, old: str, new: str) -> None:
    """Other content of the same size and time."""
    before = file.stat()
    assert file.read_text().count(old) == 1 and len(old) == len(new)
    file.write_text(file.read_text().replace(old, new))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_was_replaced_in_place_is_found_by_reading_all_again(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.put("notes.csv", "of no table")
    lake.run(notebooks=("01_bronze", "02_silver"))
    told = outcomes(lake)
    replaced_in_place(lake.landing / "product_item-1.csv", "10.00", "12.00")
    lake.run(notebooks=("01_bronze", "02_silver"))
    assert outcomes(lake) == told

    lake.run(reread=True)
    assert outcomes(lake) == [*told, "product_item-1.csv ingested"]
    assert lake.published() == ["2023-03-10 unknown 12.00"]

    lake.run(notebooks=("01_bronze",), reread="True")  # as papermill's -r brings it
    assert outcomes(lake) == [*told, "product_item-1.csv ingested"]  # what is as it was is not noted again
    with pytest.raises(UsageError, match="reread: 'yes' is neither True nor False"):
        lake.run(notebooks=("01_bronze",), reread="yes")


def test_today_is_that_of_the_zone_that_was_set(monkeypatch):
    """Between these two zones lie 26 hours, so their dates are never the same."""
    days = []
    for zone in ("Etc/GMT+12", "Pacific/Kiritimati"):
        monkeypatch.setenv("GMV_TIMEZONE", zone)
        settings.cache_clear()
        days.append(settings().today())
    assert dt.timedelta(1) <= days[1] - days[0] <= dt.timedelta(2)


def test_closed_books_wait_for_a_window_that_ends_in_them(lake, monkeypatch):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.run()
    monkeypatch.setenv("GMV_CLOSED_UNTIL", "2023-03-12")
    settings.cache_clear()
    lake.arrive(
        "2",
        """
        item     03-11T08:00 1 1 11.00
        purchase 03-16T08:00 2 paid
        item     03-16T08:00 2 1 16.00
        """,
    )
    assert lake.run()["results"] == {"2023-03-10": "pending", "2023-03-16": "published"}
    wider = lake.run(notebooks=GOLD, start_date="2023-03-09", end_date="2023-03-13")
    assert wider["results"]["2023-03-10"] == "pending"
    assert lake.published() == ["2023-03-10 unknown 10.00", "2023-03-16 unknown 16.00"]
    inside = lake.run(notebooks=GOLD, start_date="2023-03-10", end_date="2023-03-10")
    assert inside["results"] == {"2023-03-10": "published"}
    assert lake.published() == ["2023-03-10 unknown 11.00", "2023-03-16 unknown 16.00"]


def test_an_empty_landing_and_files_without_records_publish_nothing(lake):
    assert lake.run()["results"] == {}
    assert lake.published() == []
    lake.put("notes.csv", "a,b")
    lake.put("purchase-1.csv", "transaction_datetime,transaction_date")
    lake.arrive("2", "item 03-10T08:00 1 1 5.00")
    with pytest.raises(PublicationRefused, match=r"purchase-1\.csv: column"):
        lake.run()
    assert lake.published() == []
    assert {
        row["path"]: row["outcome"] for row in lake.reader.rows("select path, outcome from bronze.files")
    } == {"notes.csv": "refused", "purchase-1.csv": "refused", "product_item-2.csv": "ingested"}
    assert len(status.status(lake.reader, dt.date(2030, 1, 1)).problems) == 2


# --- Killed, damaged, refused ---------------------------------------------------------------------------


def test_a_run_that_ended_between_two_steps_is_finished_by_the_next(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.run(notebooks=("01_bronze",))
    assert lake.run(notebooks=GOLD)["results"] == {}, "gold must wait for silver"
    lake.arrive("2", "purchase 03-11T08:00 2 paid\n item 03-11T08:00 2 1 20.00")
    lake.run(notebooks=("01_bronze", "02_silver"))
    lake.arrive("3", "item 03-12T08:00 2 1 21.00\n info 03-12T08:00 2 nac")
    ended = lake.run()
    assert lake.published() == ["2023-03-10 unknown 10.00", "2023-03-11 nac 21.00"]
    assert ended["posted"] == {"postings": 5, "ledger_seq": 1}
    assert status.status(lake.reader, dt.date(2030, 1, 1)).unfinished == {"silver": [], "ledger": []}


def test_a_run_killed_between_its_commits_and_its_notes_is_repaired(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.run(notebooks=("01_bronze",))
    location.remove(lake.path / FILES.path)  # killed before the files of the very first run were noted
    lake.run()
    assert lake.published() == ["2023-03-10 unknown 10.00"]
    history = lake.reader.rows("select * from gold.daily_gmv_history")
    assert len(history) == 1

    lake.arrive("2", "purchase 03-11T08:00 2 paid\n item 03-11T08:00 2 1 20.00\n item 03-11T08:00 1 1 12.00")
    killed = lake.run(notebooks=("01_bronze",))
    undo_last_commit(lake, FILES)
    lake.run()
    assert lake.reader.rows("select count(*) as n from bronze.product_item") == [{"n": 3}]
    assert {
        (row["path"], row["run"])
        for row in lake.reader.rows("select path, run from bronze.files where path like '%-2.csv'")
    } == {("purchase-2.csv", killed["step"].run), ("product_item-2.csv", killed["step"].run)}
    assert lake.published() == ["2023-03-10 unknown 12.00", "2023-03-11 unknown 20.00"]

    complete = sorted(map(str, lake.reader.rows("select * from gold.daily_gmv_history")))
    assert len(complete) == 3
    undo_last_commit(lake, DAILY_GMV_HISTORY)
    lake.run(notebooks=GOLD)
    assert sorted(map(str, lake.reader.rows("select * from gold.daily_gmv_history"))) == complete
    assert lake.published() == ["2023-03-10 unknown 12.00", "2023-03-11 unknown 20.00"]


def test_a_file_of_a_killed_notebook_is_not_taken_in_twice_though_its_run_was_given_before(lake):
    again = {"run_id": "20230401T000000-aaaa", "notebooks": ("01_bronze",)}
    lake.arrive("1", "purchase 03-10T08:00 1 paid")
    lake.run(**again)
    lake.arrive("2", "purchase 03-10T08:00 2 paid")
    after_the_records = 3  # of this notebook's points: its start, before and after them
    with pytest.raises(Died, match="after bronze/purchase"), dying(after_the_records):
        lake.run(**again)
    lake.run()
    assert lake.reader.rows(
        "select purchase_id, count(*) as n from bronze.purchase group by all order by all"
    ) == [
        {"purchase_id": "1", "n": 1},
        {"purchase_id": "2", "n": 1},
    ]


def test_a_cent_in_silver_refuses_publication_until_it_is_gone(lake):
    lake.arrive(
        "1",
        """
        purchase 03-10T08:00 right paid
        item     03-10T08:00 right 1 10.00
        purchase 03-11T08:00 wrong paid
        item     03-11T08:00 wrong 1 20.00
        """,
    )
    lake.run()
    before = lake.published(), DeltaTable(str(lake.path / DAILY_GMV.path)).version()
    change_item(lake, "wrong", "20.01")
    lake.arrive("2", "purchase 03-12T08:00 new paid\n item 03-12T08:00 new 1 30.00")
    window = {"start_date": "2023-03-10", "end_date": "2023-03-12"}
    with pytest.raises(PublicationRefused) as refused:
        lake.run(**window)
    assert refused.value.exit_code == 3
    assert str(refused.value).startswith(
        "Nothing was published; the last good numbers stay.\nledger_equals_silver: On 2023-03-11 (unknown) "
        "silver gives 20.01, the ledger 20.00; purchases: wrong (20.01 / 20.00). "
    )
    assert (lake.published(), DeltaTable(str(lake.path / DAILY_GMV.path)).version()) == before
    (failed,) = lake.reader.rows(
        "select * from monitoring.check_results where not passed and severity = 'block'"
    )
    assert (failed["check"], failed["severity"]) == ("ledger_equals_silver", "block")
    assert failed["subject"] == "2023-03-11 unknown"

    change_item(lake, "wrong", "20.00")
    lake.run(notebooks=GOLD, **window)  # without anything new
    assert lake.published() == [*before[0], "2023-03-12 unknown 30.00"]

    undo = [row for row in lake.reader.rows("select * from gold.daily_gmv order by all")]
    undo[0]["gmv"] += Decimal("0.01")
    damaged = records.pa.Table.from_pylist(undo, records.arrow_schema(DAILY_GMV))
    write_deltalake(str(lake.path / DAILY_GMV.path), damaged, mode="overwrite")
    with pytest.raises(GmvError, match=r"2023-03-10 \(unknown\) holds 10\.01, but 10\.00 was published"):
        lake.run()


def test_a_blocked_run_keeps_the_last_good_numbers_until_a_person_accepts(lake):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 10.00")
    lake.run()
    before = lake.published(), DeltaTable(str(lake.path / DAILY_GMV.path)).version()
    lake.arrive("2", "purchase 03-11T08:00 2 paid\n item 03-11T08:00 2 1 20.00")
    lake.put("purchase-3.csv", "purchase_id;release_date\n3;2023-03-11")
    with pytest.raises(PublicationRefused, match=r"purchase-3\.csv: column"):
        lake.run()
    with pytest.raises(PublicationRefused, match=r"purchase-3\.csv: column"):
        lake.run(notebooks=GOLD)  # nothing new has come, and it is still open
    assert (lake.published(), DeltaTable(str(lake.path / DAILY_GMV.path)).version()) == before

    ended = lake.run(notebooks=GOLD, accept="refused_file", because="the day is whole without it")
    assert lake.published() == ["2023-03-10 unknown 10.00", "2023-03-11 unknown 20.00"]
    assert ended["results"] == {"2023-03-11": "published"}
    lake.arrive("4", "item 03-12T08:00 2 1 21.00")
    lake.run()
    assert lake.published() == ["2023-03-10 unknown 10.00", "2023-03-11 unknown 21.00"]


# --- Parameters and the lock -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"start_dat": "2023-03-01"}, "start_dat: no such parameter"),
        ({"start_date": "2023-02-30", "end_date": "2023-03-01"}, "start_date: '2023-02-30' is no date"),
        ({"as_of_date": "1 March"}, "as_of_date: '1 March' is no date"),
        ({"start_date": "2023-03-01"}, "needs both"),
        ({"start_date": "2023-03-02", "end_date": "2023-03-01"}, "is after"),
        ({"run_id": "../elsewhere"}, "is no run id"),
    ],
)
@pytest.mark.parametrize("name", ["01_bronze", "02_silver", "03_gold", "04_report"])
def test_a_parameter_that_is_not_understood_is_refused_before_anything_is_written(
    tmp_path, name, parameters, message
):
    with pytest.raises(UsageError, match=message):
        execute(name, lake=str(tmp_path / "lake"), **parameters)
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(("name", "parameter"), [("01_bronze", "accept"), ("03_gold", "reread")])
def test_a_parameter_of_another_notebook_is_refused(tmp_path, name, parameter):
    with pytest.raises(UsageError, match=f"{parameter}: no such parameter of {name}"):
        execute(name, lake=str(tmp_path / "lake"), **{parameter: True})


def test_a_ticket_number_is_a_reason_to_accept(tmp_path):
    with pytest.raises(UsageError, match="name the check"):
        execute("03_gold", lake=str(tmp_path / "lake"), because=4711)


@pytest.mark.parametrize("place", ["a_file", "a_file/lake"])
def test_a_lake_that_is_a_file_is_wrong_use_and_named(tmp_path, place):
    (tmp_path / "a_file").touch()
    with pytest.raises(UsageError, match=f"{place} is no folder"):
        execute("01_bronze", lake=str(tmp_path / place))


def test_a_notebook_run_again_in_its_kernel_takes_its_lock_again(tmp_path):
    kernel = {"lake": str(tmp_path / "lake")}
    kernel["step"] = notebook.start("03_gold", kernel)
    another = {"lake": str(tmp_path / "lake")}
    with pytest.raises(LakeLocked, match="notebook 03_gold"):
        notebook.start("03_gold", another)
    kernel["step"] = notebook.start("03_gold", kernel)
    kernel["step"].finish()
    notebook.start("03_gold", another).release()


def test_a_notebook_run_again_ends_the_server_that_may_be_at_work_for_an_interrupted_cell(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    monkeypatch.setattr(spark.SparkServer, "_command", lambda *_: ["/bin/sleep", "600"])
    monkeypatch.setattr(spark.SparkServer, "wait", lambda _: None)
    monkeypatch.setattr(spark, "connect", lambda: SimpleNamespace(stop=lambda: None))
    of_others = set(psutil.Process().children())
    kernel = {"lake": str(tmp_path / "lake"), "runs_dir": str(tmp_path / "runs")}
    began = []
    for _ in range(2):
        kernel["step"] = notebook.start("02_silver", kernel)
        assert kernel["step"].lake.path == tmp_path / "lake"
        (server,) = set(psutil.Process().children()) - of_others
        began.append((server, os.environ["SPARK_REMOTE"]))
    (first, _), (second, _) = began
    assert first != second and len({remote for _, remote in began}) == 2

    held = kernel["step"]._lock
    os.close(held.fd)  # as when the kernel dies: a server that is at work then holds the lake on
    held.fd = -1
    with pytest.raises(LakeLocked, match="which ends with its last cell or its kernel"):
        lock.acquire(tmp_path / "lake", "too early")
    kernel["step"].end_server()
    lock.acquire(tmp_path / "lake", "the next one").release()


ROWS_OF_TWO_FILES = {
    "bronze.purchase": 1,
    "bronze.product_item": 1,
    "bronze.files": 2,
    "silver.purchase_versions": 1,
    "silver.product_item_versions": 1,
    "gold.gmv_ledger": 1,
}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("01_bronze", "bronze.save("),
        ("02_silver", "step.lake.save_versions("),
        ("03_gold", "step.lake.post("),
    ],
)
def test_a_cell_that_is_run_again_saves_nothing_twice(lake, name, call):
    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 12.00")
    for notebook_name in ("01_bronze", "02_silver", "03_gold"):
        lake.run(notebooks=(notebook_name,), twice=call if notebook_name == name else "")
    assert lake.published() == ["2023-03-10 unknown 12.00"]
    held = {table: len(lake.reader.rows(f"select 1 from {table}")) for table in ROWS_OF_TWO_FILES}
    assert held == ROWS_OF_TWO_FILES


def test_a_notebook_that_has_let_go_of_the_lake_writes_nothing(lake):
    step = lake.run(notebooks=("03_gold",))["step"]
    for write in (lambda: step.lake_path, lambda: step.lake, step.finish):
        with pytest.raises(UsageError, match="from its first cell"):
            write()
    assert step.reader.rows("select event from monitoring.runs order by event desc") == [
        {"event": "started"},
        {"event": "ended"},
    ]


@pytest.mark.parametrize("passed", [(None, []), ([], None)])
def test_numbers_that_no_check_has_passed_are_not_published(lake, passed):
    coming = {(dt.date(2023, 3, 10), "nac"): Decimal("12.00")}
    with pytest.raises(UsageError, match="nothing was published"):
        publication.publish(lake.path, lake.reader, coming, [dt.date(2023, 3, 10)], "r1", *passed)
    assert lake.published() == []


def test_numbers_that_are_computed_again_have_passed_no_check(lake):
    def again_without_their_check(cells: list) -> list:
        plan, check, save = (
            next(number for number, cell in enumerate(cells) if call in cell.source)
            for call in ("publication.plan(", "quality.check_gold(", "publication.publish(")
        )
        return [*cells[:save], *cells[plan:check], cells[save]]

    lake.arrive("1", "purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 1 12.00")
    lake.run(notebooks=("01_bronze", "02_silver"))
    with pytest.raises(UsageError, match="have not passed every check"):
        lake.run(notebooks=GOLD, order=again_without_their_check)
    assert lake.published() == []


def test_a_finished_notebook_lets_go_although_its_server_idles_on(tmp_path):
    held = lock.acquire(tmp_path, "a notebook")
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held.fd]
    ) as server:
        with pytest.raises(LakeLocked):
            lock.acquire(tmp_path, "another")
        held.release(for_all=True)  # as a notebook that ends does
        lock.acquire(tmp_path, "another").release()
        assert server.poll() is None
        server.communicate(b"\n")


def lines(gmv: dict[tuple[dt.date, str], Decimal]) -> list[str]:
    return sorted(f"{day} {subsidiary} {amount}" for (day, subsidiary), amount in gmv.items())


def undo_last_commit(lake: TestLake, table) -> None:
    delta = DeltaTable(str(lake.path / table.path))
    delta.restore(delta.version() - 1)


def change_item(lake: TestLake, purchase_id: str, value: str) -> None:
    changed = DeltaTable(str(lake.path / PRODUCT_ITEM.latest.path)).update(
        updates={"purchase_value": f"cast({value} as decimal(18, 2))"},
        predicate=f"purchase_id = '{purchase_id}'",
    )
    assert changed["num_updated_rows"] == 1


def test_what_is_too_much_to_be_looked_up_comes_to_the_same_by_spark_alone(tmp_path, monkeypatch):
    found = []
    for at_most in (100_000, 0):
        monkeypatch.setattr(pruning, "MOST_IDS", at_most)
        monkeypatch.setattr(gmv.lake.lake, "MOST_ROWS_TO_COLLECT", at_most)
        (tmp_path / str(at_most)).mkdir()
        lake = TestLake(tmp_path / str(at_most))
        for number, arriving in enumerate((FIRST, SECOND, "item 03-19T08:00 stays 1 7.00")):
            lake.arrive(str(number), arriving)
            if number == 2:
                lake.put("product_item-bad.csv", QUARANTINED)
                lake.retract("purchase-0.csv")
            lake.run()
        found.append(crash.content(lake.path))
    few, many = found
    for table, rows in few.items():
        assert many[table] == rows, table


@pytest.mark.parametrize(("facts", "begins"), [("", "UsageError: nonsense: "), ("here", "Traceback")])
def test_a_person_reads_an_errors_sentence_and_a_runs_record_has_its_stack_trace(facts, begins, monkeypatch):
    monkeypatch.setattr(GmvError, "shows_stack_trace", False)
    if facts:
        monkeypatch.setenv(notebook.FACTS_FOLDER, facts)
    with pytest.raises(UsageError) as wrong:
        notebook.start("04_report", {"In": ["# Parameters\nnonsense = 1"]})
    assert wrong.value._render_traceback_()[0].startswith(begins)
