"""Which days a run publishes, and what a killed or damaged publication leaves: without Spark."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from gmv import publication
from gmv.errors import GmvError, UsageError
from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.tables import DAILY_GMV, DAILY_GMV_HISTORY, GMV_LEDGER

TODAY = date(2023, 3, 15)


def day(number: int) -> date:
    """A day of March 2023."""
    return date(2023, 3, number)


def post(lake, *postings: tuple[int, str, str, int], seq: int = 1, purchase: str = "") -> None:
    """Post to the ledger: day, subsidiary, amount, purchases; of this purchase, or of one each."""
    rows = [
        {
            "purchase_id": purchase or str(n),
            "transaction_date": day(on),
            "subsidiary": subsidiary,
            "amount": Decimal(amount),
            "purchases": purchases,
            "known_on": day(on),
            "reason": "paid",
            "cause": "event",
            "ledger_seq": seq,
            "run": f"r{seq}",
            "recorded_at": records.now(),
        }
        for n, (on, subsidiary, amount, purchases) in enumerate(postings)
    ]
    records.append(lake, GMV_LEDGER, rows)


def publish(lake, run: str, days=range(1, 32)) -> list[dict]:
    """Publish the ledger's sums of these days of March."""
    coming = {
        place: gmv for place, gmv in publication.ledger_sums(Reader(lake)).items() if place[0].day in days
    }
    return publication.publish(lake, Reader(lake), coming, map(day, days), run, recomputed=[], checks=[])


def numbers(lake) -> list[str]:
    return sorted(
        f"{on:%m-%d} {subsidiary} {gmv}"
        for (on, subsidiary), gmv in publication.published(Reader(lake)).items()
    )


def history(lake) -> list[str]:
    """`seq run day subsidiary previous -> new`, in order."""
    return [
        f"{row['ledger_seq']} {row['run']} {row['transaction_date']:%m-%d} {row['subsidiary']} "
        f"{row['previous_gmv']} -> {row['gmv']}"
        for row in Reader(lake).rows(
            "select * from gold.daily_gmv_history order by published_at, transaction_date, subsidiary"
        )
    ]


@pytest.fixture
def lake(tmp_path):
    """3 and 10 March are published, 10 has changed since; 5, 12 and 14 March are new; 15 and 16 not over."""
    post(tmp_path, (3, "nac", "30.00", 1), (10, "nac", "100.00", 1), (10, "int", "10.00", 1))
    publish(tmp_path, "r1")
    post(
        tmp_path,
        (10, "nac", "-20.00", 0),
        (5, "nac", "0.00", 1),
        (7, "nac", "0.00", -1),  # back to nothing: no row and no pending day
        (7, "nac", "0.00", 1),
        (12, "nac", "12.00", 1),
        (14, "nac", "14.00", 1),
        (15, "nac", "15.00", 1),
        (16, "nac", "16.00", 1),
        seq=2,
    )
    return tmp_path


def plan(
    lake, first: int | None = None, last: int | None = None, closed_until: int | None = None, today=TODAY
):
    window = Window(first and day(first), last and day(last))
    found = publication.plan(Reader(lake), window, today, closed_until and day(closed_until))
    return {
        name: [on.day for on in getattr(found, name)]
        for name in ("publish", "recompute", "pending", "in_progress")
    }


# --- Windows ------------------------------------------------------------------------------------------


def test_a_window_holds_its_first_and_last_day():
    window = Window(date(2024, 2, 28), date(2024, 3, 1))
    assert window.days() == [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
    assert all(on in window for on in window.days())
    assert date(2024, 2, 27) not in window
    assert date(2024, 3, 2) not in window
    assert len(Window(date(2023, 2, 28), date(2023, 3, 1)).days()) == 2
    assert Window(day(2), day(2)).days() == [day(2)]


def test_a_window_without_end_names_only_days_that_events_can_have_by_now(monkeypatch):
    monkeypatch.setattr(records, "now", lambda: datetime(2024, 2, 28, 23, 59, 59))
    window = Window(date(1, 1, 1), date(9999, 12, 31))
    named = window.days()
    assert [named[0], named[-1]] == [date(2000, 1, 1), date(2024, 2, 29)]
    assert date(1999, 12, 31) in window and Window(date(9000, 1, 1), date(9999, 12, 31)).days() == []


def test_no_window_has_every_day_but_names_none():
    assert date(1999, 1, 1) in Window()
    assert Window().days() == []


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (day(2), None, "needs both"),
        (None, day(2), "needs both"),
        (day(2), day(1), "The start date 2023-03-02 is after the end date 2023-03-01"),
    ],
)
def test_half_a_window_or_one_turned_round_is_refused(start, end, message):
    with pytest.raises(UsageError, match=message):
        Window(start, end)


# --- Plan ---------------------------------------------------------------------------------------------


def test_without_a_window_all_pending_days_are_published(lake):
    assert plan(lake) == {
        "publish": [5, 10, 12, 14],
        "recompute": [],
        "pending": [],
        "in_progress": [15, 16],
    }


def test_a_window_publishes_its_pending_days_and_recomputes_its_other_closed_ones(lake):
    assert plan(lake, 9, 12) == {
        "publish": [10, 12],
        "recompute": [9, 11],
        "pending": [5, 14],
        "in_progress": [15, 16],
    }


def test_today_is_in_progress_and_yesterday_is_closed(lake):
    assert plan(lake, 14, 16)["publish"] == [14]
    assert plan(lake, 14, 16)["recompute"] == []
    assert plan(lake, 14, 16, today=day(16)) == {
        "publish": [14, 15],
        "recompute": [],
        "pending": [5, 10, 12],
        "in_progress": [16],
    }
    assert plan(lake, today=day(5))["publish"] == []
    assert publication.plan(Reader(lake), Window(), day(5)).today == day(5)


def test_closed_books_wait_for_a_window_that_ends_in_them(lake):
    without, wider = plan(lake, closed_until=12), plan(lake, 1, 13, closed_until=12)
    assert (without["publish"], without["pending"]) == ([14], [5, 10, 12])
    assert (wider["publish"], wider["pending"]) == ([], [5, 10, 12, 14])
    assert 3 in wider["recompute"]
    inside = plan(lake, 1, 12, closed_until=12)
    assert (inside["publish"], inside["pending"]) == ([5, 10, 12], [14])
    assert plan(lake, 6, 10, closed_until=12)["publish"] == [10]
    assert plan(lake, closed_until=4)["publish"] == [5, 10, 12, 14]


def test_days_that_wait_in_closed_books_are_told_with_the_window_that_publishes_them():
    assert publication.closed_books([day(14), day(10), day(12)], day(12)) == (
        "Books are closed up to 2023-03-12: 2 pending day(s) wait for a window that ends by then "
        "(gmv run --start-date 2023-03-10 --end-date 2023-03-12)."
    )
    assert publication.closed_books([day(13)], day(12)) == ""
    assert publication.closed_books([day(13)], None) == ""


def test_an_empty_lake_has_nothing_to_publish(tmp_path):
    nothing = {"publish": [], "recompute": [], "pending": [], "in_progress": []}
    assert plan(tmp_path) == nothing
    assert plan(tmp_path, 13, 16) == nothing | {"recompute": [13, 14]}


def test_every_planned_day_gets_a_result(lake):
    window = Window(day(3), day(15))
    the_plan = publication.plan(Reader(lake), window, TODAY)
    changes = publish(lake, "r2", days=range(3, 15))
    told = publication.results(the_plan, window, changes, Reader(lake))
    assert {text[-2:]: told[text] for text in told} == {
        "03": "unchanged",
        "04": "empty",
        "05": "published",
        "06": "empty",
        "07": "empty",
        "08": "empty",
        "09": "empty",
        "10": "published",
        "11": "empty",
        "12": "published",
        "13": "empty",
        "14": "published",
        "15": "in progress",
    }


def test_days_of_the_window_that_are_still_to_come_are_in_progress(lake):
    window = Window(day(14), day(18))  # nothing is in the ledger of 17 and 18 March
    told = publication.results(publication.plan(Reader(lake), window, TODAY), window, [], Reader(lake))
    assert [told[f"2023-03-{on}"] for on in (15, 16, 17, 18)] == ["in progress"] * 4


def test_a_day_that_loses_its_last_row_was_published(lake):
    post(lake, (3, "nac", "-30.00", -1), seq=3)
    window = Window(day(3), day(4))
    the_plan = publication.plan(Reader(lake), window, TODAY)
    changes = publish(lake, "r3", days=range(3, 5))
    told = publication.results(the_plan, window, changes, Reader(lake))
    assert told == {
        "2023-03-03": "published",
        "2023-03-04": "empty",
        "2023-03-05": "pending",
        "2023-03-10": "pending",
        "2023-03-12": "pending",
        "2023-03-14": "pending",
    }
    assert numbers(lake) == ["03-10 int 10.00", "03-10 nac 100.00"]


# --- Publishing ---------------------------------------------------------------------------------------


def test_publishing_replaces_the_days_that_change_and_notes_each_number(lake):
    before = DeltaTable(lake / DAILY_GMV.path).version()
    publish(lake, "r2", days=range(5, 11))
    assert numbers(lake) == ["03-03 nac 30.00", "03-05 nac 0.00", "03-10 int 10.00", "03-10 nac 80.00"]
    assert history(lake) == [
        "1 r1 03-03 nac None -> 30.00",
        "1 r1 03-10 int None -> 10.00",
        "1 r1 03-10 nac None -> 100.00",
        "2 r2 03-05 nac None -> 0.00",
        "2 r2 03-10 nac 100.00 -> 80.00",
    ]
    assert DeltaTable(lake / DAILY_GMV.path).version() == before + 1, "all days are one commit"


def test_publishing_what_is_published_makes_no_commit(lake):
    publish(lake, "r2")
    before = DeltaTable(lake / DAILY_GMV.path).version(), history(lake)
    assert publish(lake, "r3") == []
    assert (DeltaTable(lake / DAILY_GMV.path).version(), history(lake)) == before


def test_history_names_rows_that_are_gone_and_rows_that_are_new(lake):
    post(lake, (10, "int", "-10.00", -1), (10, "Int", "10.00", 1), seq=3)
    publish(lake, "r3", days=[10])
    assert history(lake)[3:] == [
        "3 r3 03-10 Int None -> 10.00",
        "3 r3 03-10 int 10.00 -> None",
        "3 r3 03-10 nac 100.00 -> 80.00",
    ]


def test_each_change_of_a_number_is_the_sum_of_its_postings_since_the_one_before(lake):
    publish(lake, "r2")
    post(lake, (10, "nac", "5.00", 1), seq=3)
    post(lake, (10, "nac", "-1.00", 0), (3, "nac", "-30.00", -1), seq=4)
    publish(lake, "r4")
    unexplained = Reader(lake).rows(
        """
        with history as (
            select *, lag(ledger_seq, 1, 0) over (
                partition by transaction_date, subsidiary order by ledger_seq) as since
            from gold.daily_gmv_history
        )
        select transaction_date, subsidiary, gmv, previous_gmv, sum(amount) as posted
        from history join gold.gmv_ledger as posting using (transaction_date, subsidiary)
        where posting.ledger_seq > since and posting.ledger_seq <= history.ledger_seq
        group by all having coalesce(gmv, 0) - coalesce(previous_gmv, 0) <> sum(amount)
        """
    )
    assert unexplained == []
    assert "4 r4 03-10 nac 80.00 -> 84.00" in history(lake)
    assert "4 r4 03-03 nac 30.00 -> None" in history(lake)


def test_one_run_may_publish_twice(lake):
    """`run_id` can be given to a notebook, so the same one may come again."""
    publish(lake, "r1", days=range(1, 13))
    assert numbers(lake)[-1] == "03-12 nac 12.00"
    assert len(history(lake)) == 6
    assert publish(lake, "r1", days=[14]) != []
    assert publication.write_missing_history(lake) == []


def test_the_newest_number_is_that_of_the_greatest_seq_though_the_clock_was_put_back(lake, monkeypatch):
    monkeypatch.setattr(records, "now", lambda: datetime(2020, 1, 1))
    publish(lake, "r2", days=[10])
    assert publication.write_missing_history(lake) == []
    assert publication.restore_published(lake) == 3
    assert numbers(lake) == ["03-03 nac 30.00", "03-10 int 10.00", "03-10 nac 80.00"]


# --- Money that pending days count twice or nowhere ------------------------------------------------------


def meanwhile(lake, first: int, last: int) -> dict[str, Decimal]:
    """What counts twice and nowhere after a run with this window of March."""
    window = Window(day(first), day(last))
    the_plan = publication.plan(Reader(lake), window, TODAY)
    publish(lake, "narrow", days=range(first, last + 1))
    return publication.counted_meanwhile(Reader(lake), the_plan)


@pytest.mark.parametrize(("there", "twice"), [(12, "80.00"), (16, "0.00")])
def test_money_counts_twice_only_where_its_new_day_is_published(tmp_path, there, twice):
    post(tmp_path, (10, "nac", "80.00", 1), seq=1, purchase="p")
    publish(tmp_path, "r1")
    post(tmp_path, (10, "nac", "-80.00", -1), (there, "nac", "80.00", 1), seq=2, purchase="p")
    assert meanwhile(tmp_path, 12, 14) == {"twice": Decimal(twice), "nowhere": 0}


def test_money_that_was_withdrawn_from_its_second_day_counts_once_until_that_is_published(tmp_path):
    post(tmp_path, (12, "nac", "80.00", 1), seq=1, purchase="p")
    publish(tmp_path, "r1")
    post(tmp_path, (12, "nac", "-80.00", -1), (10, "nac", "80.00", 1), seq=2, purchase="p")
    publish(tmp_path, "r2")
    post(tmp_path, (10, "nac", "-80.00", -1), seq=3, purchase="p")
    assert meanwhile(tmp_path, 12, 14) == {"twice": 0, "nowhere": 0}


# --- What a killed run leaves, and what is damage --------------------------------------------------------


def test_history_that_a_killed_run_did_not_write_is_added_with_its_own_marks(lake):
    publish(lake, "r2")
    complete = history(lake)
    DeltaTable(lake / DAILY_GMV_HISTORY.path).restore(0)
    assert len(history(lake)) == 3
    assert len(publication.write_missing_history(lake)) == 6
    assert history(lake) == complete
    assert publication.write_missing_history(lake) == []


def test_a_publication_is_found_however_many_commits_came_since(lake):
    table = DeltaTable(lake / DAILY_GMV.path)
    marks = records.last_marks(lake, DAILY_GMV)
    assert marks["run"] == "r1"
    for number in range(21):
        table.alter.set_table_properties({"delta.checkpointInterval": str(100 + number)})
    assert records.last_marks(lake, DAILY_GMV) == marks


def test_history_of_the_first_publication_is_added_too(tmp_path):
    post(tmp_path, (3, "nac", "30.00", 1))
    publish(tmp_path, "r1")
    complete = history(tmp_path)
    DeltaTable(tmp_path / DAILY_GMV_HISTORY.path).delete()
    assert history(tmp_path) == []
    publication.write_missing_history(tmp_path)
    assert history(tmp_path) == complete == ["1 r1 03-03 nac None -> 30.00"]


def test_a_number_that_nobody_published_is_damage_and_named(lake):
    rows = Reader(lake).sql("select transaction_date, subsidiary, gmv from gold.daily_gmv").to_arrow_table()
    changed = rows.to_pylist()
    for row in changed:
        if row["subsidiary"] == "int":
            row["gmv"] += Decimal("0.01")
    schema = records.arrow_schema(DAILY_GMV)
    write_deltalake(lake / DAILY_GMV.path, rows.from_pylist(changed, schema), mode="overwrite")
    with pytest.raises(GmvError, match=r"2023-03-10 \(int\) holds 10\.01, but 10\.00 was published"):
        publication.write_missing_history(lake)
    assert len(history(lake)) == 3


def test_a_number_that_is_gone_is_damage_and_named(lake):
    DeltaTable(lake / DAILY_GMV.path).delete("subsidiary = 'int'")
    with pytest.raises(GmvError, match=r"2023-03-10 \(int\) holds None, but 10\.00 was published"):
        publication.write_missing_history(lake)


def test_numbers_that_no_run_published_at_all_are_damage_too(tmp_path):
    row = {"transaction_date": day(3), "subsidiary": "nac", "gmv": Decimal("1.00")}
    write_deltalake(tmp_path / DAILY_GMV.path, pa.Table.from_pylist([row], records.arrow_schema(DAILY_GMV)))
    with pytest.raises(GmvError, match=r"2023-03-03 \(nac\) holds 1\.00, but None was published"):
        publication.write_missing_history(tmp_path)
