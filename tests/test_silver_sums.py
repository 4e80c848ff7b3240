"""The sums of silver's join go on from run to run, and a day is joined as a whole only where they may not hold."""

import datetime as dt
from decimal import Decimal

import model
import pytest
from deltalake import DeltaTable
from gmv import gold, maintain, silver_sums
from gmv.errors import PublicationRefused
from gmv.lake import faults, records
from gmv.lake.reader import Reader
from gmv.silver_sums import SilverSums, Sum
from gmv.tables import PRODUCT_ITEM, SILVER_SUMS
from pipeline import Died, events, joined

FIRST = """
    purchase 03-10T08:00 1 paid
    purchase 03-10T08:00 2 paid
    purchase 03-11T08:00 3 paid
    purchase 03-12T08:00 4 paid
    purchase 03-12T08:00 5 unpaid
    item     03-10T08:00 1 2 50.05
    item     03-10T08:00 2 1 11.00
    item     03-11T08:00 3 1 12.00
    item     03-12T08:00 5 1 14.00
    info     03-10T08:00 1 nac
    info     03-10T08:00 2 nac
"""


@pytest.fixture
def after_first(lake):
    """A lake with a first load: 10 March nac 111.10, 11 March unknown 12.00."""
    lake.arrive("first", FIRST)
    assert lake.run()["to_join"] == [dt.date(2023, 3, 10), dt.date(2023, 3, 11)]
    assert lake.published() == ["2023-03-10 nac 111.10", "2023-03-11 unknown 12.00"]
    return lake


def kept(lake) -> dict:
    return dict(silver_sums.kept(lake.reader).by_place)


def test_what_runs_bring_is_added_and_no_day_is_joined_as_a_whole(after_first):
    arrived = events(FIRST)
    for number, arrives in enumerate(
        (
            "item 03-20T08:00 1 2 40.00",  # another price
            "info 03-20T08:00 3 nac",  # a subsidiary gets known: the old place is gone
            "purchase 03-20T08:00 3 paid 03-10",  # another day
            "purchase 03-21T08:00 2 unpaid 03-10\ninfo 03-21T08:00 1 int",  # one withdrawn, one in another place
            "item 03-20T08:00 4 1 0.00",  # the item that was awaited, at nothing
            "purchase 03-09T08:00 1 unpaid 03-09",  # too late to count
            "purchase 03-13T08:00 9 paid\nitem 03-13T08:00 9 3 5.00",  # new
            "item 03-20T08:00 1 2 40.00",  # a copy
            "purchase 03-22T08:00 4 unpaid 03-12",  # the last that counted there
        )
    ):
        arrived += after_first.arrive(f"later-{number}", arrives)
        assert after_first.run()["to_join"] == []
        assert after_first.daily_gmv() == model.daily_gmv(arrived)
        assert kept(after_first) == joined(after_first.reader)


def test_a_window_is_joined_as_a_whole_where_it_names_days(after_first):
    after_first.arrive("second", "item 03-20T08:00 1 2 40.00\nitem 03-20T08:00 3 1 13.00")
    did = after_first.run(start_date="2023-03-10", end_date="2023-03-10")
    assert did["to_join"] == [dt.date(2023, 3, 10)]
    assert after_first.published() == ["2023-03-10 nac 91.00", "2023-03-11 unknown 12.00"]
    assert kept(after_first) == joined(after_first.reader)
    assert after_first.run()["to_join"] == []
    assert after_first.published() == ["2023-03-10 nac 91.00", "2023-03-11 unknown 13.00"]


def test_days_in_progress_are_summed_as_well(lake):
    lake.arrive("first", FIRST)
    lake.run(as_of_date="2023-03-11")
    assert lake.published() == ["2023-03-10 nac 111.10"]
    assert lake.run(as_of_date="2023-03-12")["to_join"] == []
    assert lake.published() == ["2023-03-10 nac 111.10", "2023-03-11 unknown 12.00"]


def test_maintenance_changes_no_sum(after_first):
    after_first.arrive(
        "second", "item 03-20T08:00 1 2 40.00\npurchase 03-13T08:00 9 paid\nitem 03-13T08:00 9 3 5.00"
    )
    after_first.run()
    maintain.maintain(after_first.path)
    assert DeltaTable(after_first.path / PRODUCT_ITEM.latest.path).history(1)[0]["operation"] == "OPTIMIZE"
    after_first.arrive("third", "item 03-21T08:00 1 2 30.00")
    assert after_first.run()["to_join"] == []
    assert after_first.published()[0] == "2023-03-10 nac 71.00"


@pytest.mark.parametrize(
    ("notebook", "moment"),
    [
        ("02_silver", "after silver/product_item"),
        ("03_gold", "before monitoring/silver_sums"),
        ("03_gold", "after monitoring/silver_sums"),
        ("03_gold", "after monitoring/progress"),
    ],
)
def test_a_killed_run_leaves_sums_that_the_next_one_goes_on_from(after_first, monkeypatch, notebook, moment):
    """Though more has arrived when the next one begins."""
    after_first.arrive("second", "item 03-20T08:00 1 2 40.00\npurchase 03-20T08:00 3 unpaid 03-11")

    def reach(point: str) -> None:
        if (faults.where, point) == (notebook, moment):
            raise Died(point)

    with monkeypatch.context() as patch:
        patch.setattr(faults, "reach", reach)
        with pytest.raises(Died):
            after_first.run()
    after_first.arrive("third", "item 03-21T08:00 2 1 10.00")
    assert after_first.run()["to_join"] == []
    assert after_first.published() == ["2023-03-10 nac 90.00"]
    assert kept(after_first) == joined(after_first.reader)


def test_sums_that_are_wrong_are_found_by_the_ledger_and_put_right(after_first):
    sums = silver_sums.kept(after_first.reader)
    place = (dt.date(2023, 3, 10), "nac")
    wrong = SilverSums({**sums.by_place, place: Sum(Decimal("1.00"), 2)}, {})
    silver_sums.keep(after_first.reader, wrong, instead_of=sums)
    after_first.arrive("second", "item 03-20T08:00 1 2 40.00\nitem 03-20T08:00 3 1 13.00")
    assert after_first.run()["to_join"] == [dt.date(2023, 3, 10)]
    assert after_first.published() == ["2023-03-10 nac 91.00", "2023-03-11 unknown 13.00"]
    assert kept(after_first) == joined(after_first.reader)


def test_a_table_that_was_written_in_another_way_is_joined_where_the_ledger_says_that_it_changed(after_first):
    table = PRODUCT_ITEM.latest
    rows = Reader(after_first.path).arrow("select * from silver.product_item")
    records.replace_columns(after_first.path, table, rows.cast(records.arrow_schema(table)))
    after_first.arrive("second", "item 03-20T08:00 1 2 40.00")
    assert after_first.run()["to_join"] == [dt.date(2023, 3, 10)]
    assert after_first.published() == ["2023-03-10 nac 91.00", "2023-03-11 unknown 12.00"]
    after_first.arrive("third", "item 03-21T08:00 1 2 30.00")
    assert after_first.run()["to_join"] == []
    assert kept(after_first) == joined(after_first.reader)


def test_silver_that_does_not_give_the_ledgers_sum_is_not_published(after_first):
    """A purchase that no run touched has another value in silver than in the ledger, on a day that changes."""
    table = DeltaTable(after_first.path / PRODUCT_ITEM.latest.path)
    table.update(updates={"item_quantity": "7"}, predicate="purchase_id = '2'")
    after_first.arrive("second", "item 03-20T08:00 1 2 40.00")
    with pytest.raises(
        PublicationRefused, match=r"silver gives 157\.00, the ledger 91\.00; purchases: 2 \(77"
    ):
        after_first.run()
    assert after_first.published() == ["2023-03-10 nac 111.10", "2023-03-11 unknown 12.00"]


def test_sums_are_made_anew_when_there_are_none(after_first):
    after_first.arrive("second", "item 03-20T08:00 1 2 40.00")
    (after_first.path / SILVER_SUMS.path).rename(after_first.path.parent / "gone")
    assert after_first.run()["to_join"] == [dt.date(2023, 3, 10), dt.date(2023, 3, 11)]
    assert after_first.published() == ["2023-03-10 nac 91.00", "2023-03-11 unknown 12.00"]
    assert kept(after_first) == joined(after_first.reader)


def test_a_retraction_leaves_sums_to_go_on_from(after_first):
    after_first.arrive("second", "item 03-20T08:00 1 2 40.00\nitem 03-20T08:00 3 1 13.00")
    after_first.run()
    after_first.retract("product_item-second.csv")
    assert after_first.run()["to_join"] == [dt.date(2023, 3, 10), dt.date(2023, 3, 11)]
    assert after_first.published() == ["2023-03-10 nac 111.10", "2023-03-11 unknown 12.00"]
    assert kept(after_first) == joined(after_first.reader)
    after_first.arrive("third", "item 03-21T08:00 1 2 30.00")
    assert after_first.run()["to_join"] == []
    assert kept(after_first) == joined(after_first.reader)


def test_a_table_that_has_no_rows_yet_is_no_change(lake):
    """No subsidiary has ever come."""
    lake.arrive("first", "purchase 03-10T08:00 1 paid\nitem 03-10T08:00 1 2 50.05")
    lake.run()
    lake.arrive("second", "item 03-20T08:00 1 2 40.00")
    assert lake.run()["to_join"] == []
    assert lake.published() == ["2023-03-10 unknown 80.00"]


def test_nothing_new_writes_nothing(after_first):
    version = DeltaTable(after_first.path / SILVER_SUMS.path).version()
    after_first.run()
    assert DeltaTable(after_first.path / SILVER_SUMS.path).version() == version


def test_a_lake_where_nothing_counts_keeps_no_sums(lake):
    lake.arrive("first", "purchase 03-10T08:00 1 unpaid\nitem 03-10T08:00 1 2 50.05")
    for _ in range(2):
        assert lake.run()["to_join"] == []
        assert not DeltaTable.is_deltatable(str(lake.path / SILVER_SUMS.path))


def test_amounts_of_38_digits_are_added_exactly(spark):
    place = (dt.date(2023, 3, 10), "nac")
    schema = "transaction_date date, subsidiary string, gmv decimal(38,2), purchases bigint"
    much, cent = Decimal("9" * 36 + ".98"), Decimal("0.01")
    sums = SilverSums({place: Sum(much, 5)}, {})
    change = spark.createDataFrame([(*place, cent, 1)], schema)
    assert sums.changed_by(change).by_place == {place: Sum(Decimal("9" * 36 + ".99"), 6)}


def test_a_change_is_what_purchases_are_less_what_they_were(spark):
    schema = "transaction_date date, subsidiary string, gmv decimal(38,2), purchases bigint"
    day, next_day = dt.date(2023, 3, 10), dt.date(2023, 3, 11)
    then = spark.createDataFrame(
        [(day, "nac", Decimal("5.00"), 1), (day, "int", Decimal("7.00"), 2), (day, "x", Decimal("0.00"), 1)],
        schema,
    )
    now = spark.createDataFrame(
        [(day, "int", Decimal("7.00"), 2), (next_day, "nac", Decimal("6.50"), 1)], schema
    )
    assert sorted(map(tuple, gold.change(then, now).collect())) == [
        (day, "nac", Decimal("-5.00"), -1),
        (day, "x", Decimal("0.00"), -1),
        (next_day, "nac", Decimal("6.50"), 1),
    ]
