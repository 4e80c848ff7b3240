"""The model itself: against the sample, the design's worked example, and identities that must hold."""

import csv
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from model import (
    EVENT_CLASSES,
    ProductItem,
    Purchase,
    PurchaseExtraInfo,
    as_known,
    daily_gmv,
    latest,
    postings,
    standing,
)
from strategies import DAYS, arrivals, column_names, event_lists, write_csv

PROJECT = Path(__file__).resolve().parents[1]


def day(text: str) -> date:
    """`03-10` is 10 March 2023."""
    return date.fromisoformat(f"2023-{text}")


def at(text: str) -> datetime:
    """`03-10 12:00` is noon of 10 March 2023; a day alone is its first moment."""
    return datetime.fromisoformat(f"2023-{text}")


def bought(
    when: str, on: str, paid: str | None, purchase_id: str = "1", buyer_id: int | None = 5
) -> Purchase:
    release_date = day(paid) if paid else None
    return Purchase(at(when), day(on), purchase_id, buyer_id=buyer_id, release_date=release_date)


def item(when: str, value: str, quantity: int = 1, purchase_id: str = "1") -> ProductItem:
    return ProductItem(at(when), at(when).date(), purchase_id, 9, quantity, Decimal(value))


def extra(when: str, subsidiary: str, purchase_id: str = "1") -> PurchaseExtraInfo:
    return PurchaseExtraInfo(at(when), at(when).date(), purchase_id, subsidiary)


def rows(gmv: dict) -> list[str]:
    return sorted(f"{on:%m-%d} {subsidiary} {amount}" for (on, subsidiary), amount in gmv.items())


def posted(events: list) -> list[str]:
    """`known_on: day subsidiary amount/purchases reason`, in order of known_on."""
    return sorted(
        f"{key.known_on:%m-%d}: {key.transaction_date:%m-%d} {key.subsidiary} "
        f"{amount:+}/{purchases:+} {key.reason}"
        for key, (amount, purchases) in postings(events).items()
    )


def read_csv(path: Path, table: str) -> list:
    """The events of a flawless CSV file."""
    parsers = {
        "transaction_datetime": datetime.fromisoformat,
        "transaction_date": date.fromisoformat,
        "order_date": date.fromisoformat,
        "release_date": date.fromisoformat,
        "purchase_id": str,
        "subsidiary": str,
        "purchase_value": Decimal,
    }
    with path.open(encoding="utf-8", newline="") as file:
        return [
            EVENT_CLASSES[table](
                **{name: parsers.get(name, int)(text) if text else None for name, text in record.items()}
            )
            for record in csv.DictReader(file)
        ]


# --- The sample ----------------------------------------------------------------------------------------


def sample_events() -> list:
    landing = PROJECT / "data_lake" / "landing"
    return [event for table in EVENT_CLASSES for event in read_csv(landing / f"{table}.csv", table)]


def test_sample_gives_its_expected_daily_gmv():
    with (PROJECT / "tests" / "sample" / "expected_daily_gmv.csv").open(newline="") as file:
        expected = {
            (date.fromisoformat(row["transaction_date"]), row["subsidiary"]): Decimal(row["gmv"])
            for row in csv.DictReader(file)
        }
    assert len(expected) == 3
    assert daily_gmv(sample_events()) == expected


def test_sample_gives_another_number_when_one_event_is_missing():
    without_last = [event for event in sample_events() if event.transaction_datetime < datetime(2023, 2, 23)]
    assert rows(daily_gmv(without_last)) == ["02-08 internacional 554.50", "02-18 nacional 778.55"]


# --- Rule 1 --------------------------------------------------------------------------------------------


def test_tie_in_time_goes_to_the_greater_value_and_empty_is_below_every_value():
    lowest = bought("03-10", "03-10", None, buyer_id=None)
    middle = bought("03-10", "03-10", None, buyer_id=-1)
    greatest = bought("03-10", "03-10", "03-10", buyer_id=-1)
    assert latest([middle, lowest]) == {("purchase", "1"): middle}
    assert latest([middle, greatest, lowest]) == {("purchase", "1"): greatest}


def test_tie_is_decided_by_the_first_column_that_differs():
    earlier_date, later_date = bought("03-10", "03-09", "03-10"), bought("03-10", "03-10", None)
    assert latest([earlier_date, later_date]) == {("purchase", "1"): later_date}


def test_strings_tie_by_their_utf8_bytes():
    upper, lower = extra("03-10", "Z"), extra("03-10", "a")
    ligature, trolley = extra("03-10", "\ufb01lial"), extra("03-10", "🛒")
    assert latest([lower, upper]) == {("purchase_extra_info", "1"): lower}
    assert latest([trolley, ligature]) == {("purchase_extra_info", "1"): trolley}


def test_later_event_wins_over_greater_values():
    assert latest([item("03-10 00:00:01", "1.00"), item("03-10", "9.00")]) == {
        ("product_item", "1"): item("03-10 00:00:01", "1.00")
    }


def test_purchase_ids_keep_case_and_leading_zeros():
    alike = [bought("03-10", "03-10", None, purchase_id) for purchase_id in ("7", "07", "A1", "a1")]
    assert len(latest(alike)) == 4


# --- Rules 2 to 6 --------------------------------------------------------------------------------------


def test_purchase_counts_when_paid_with_an_item_on_the_date_of_its_latest_purchase_version():
    unpaid, paid = bought("03-10", "03-10", None), bought("03-11", "03-11", "03-11")
    events = [unpaid, item("03-10", "55.50", 3), extra("03-10", "nac")]
    assert daily_gmv(events) == {}
    assert rows(daily_gmv([*events, paid])) == ["03-11 nac 166.50"]


def test_paid_purchase_without_item_does_not_count_and_item_without_purchase_neither():
    assert daily_gmv([bought("03-10", "03-10", "03-10"), extra("03-10", "nac")]) == {}
    assert daily_gmv([item("03-10", "5.00"), extra("03-10", "nac")]) == {}


def test_subsidiary_is_unknown_until_extra_info_comes():
    events = [bought("03-10", "03-10", "03-10"), item("03-10", "5.00")]
    assert rows(daily_gmv(events)) == ["03-10 unknown 5.00"]
    assert rows(daily_gmv([*events, extra("03-10", "nac")])) == ["03-10 nac 5.00"]


def test_purchase_of_zero_gives_a_row_and_none_gives_no_row():
    events = [bought("03-10", "03-10", "03-10"), item("03-10", "5.00", 0)]
    assert rows(daily_gmv(events)) == ["03-10 unknown 0.00"]
    assert daily_gmv([*events, bought("03-11", "03-10", None)]) == {}


def test_sums_do_not_round_at_any_size():
    largest = "9999999999999999.99"
    events = [
        event
        for purchase_id in ("1", "2")
        for event in (
            bought("03-10", "03-10", "03-10", purchase_id),
            item("03-10", largest, 2**31 - 1, purchase_id),
        )
    ]
    assert rows(daily_gmv(events)) == ["03-10 unknown 42949672939999999957050327.06"]


def test_january_closes_at_100_and_becomes_80_in_february():
    events = [
        bought("01-31 10:00", "01-31", "01-31"),
        item("01-31 10:00", "100.00"),
        extra("01-31 10:00", "nac"),
        item("02-15 09:00", "80.00"),
    ]
    assert rows(as_known(events, day("01-31"))) == ["01-31 nac 100.00"]
    assert rows(as_known(events, day("02-14"))) == ["01-31 nac 100.00"]
    assert rows(as_known(events, day("02-15"))) == ["01-31 nac 80.00"]
    assert rows(daily_gmv(events)) == ["01-31 nac 80.00"]
    assert as_known(events, day("01-30")) == {}


def test_event_of_the_last_moment_of_a_day_is_known_on_it_and_of_the_next_moment_is_not():
    paid = [bought("03-10", "03-10", "03-10"), extra("03-10", "nac")]
    last, next_ = item("03-10 23:59:59.999999", "1.00"), item("03-11 00:00:00", "1.00")
    assert rows(as_known([*paid, last], day("03-10"))) == ["03-10 nac 1.00"]
    assert as_known([*paid, next_], day("03-10")) == {}


# --- The ledger ----------------------------------------------------------------------------------------

UNTIL_12_MARCH = [
    bought("03-10 08:00", "03-10", "03-10"),
    item("03-10 08:00", "100.00"),
    item("03-12 09:00", "80.00"),
    extra("03-12 09:00", "nac"),
]
WITHDRAWN = bought("03-20 10:00", "03-20", None)
PAID_AGAIN = bought("03-25 10:00", "03-25", "03-25")


def test_worked_example_run_of_11_march():
    assert posted(UNTIL_12_MARCH[:2]) == ["03-10: 03-10 unknown +100.00/+1 paid"]


def test_worked_example_run_of_13_march():
    assert posted(UNTIL_12_MARCH) == [
        "03-10: 03-10 unknown +100.00/+1 paid",
        "03-12: 03-10 nac +100.00/+1 subsidiary_known",
        "03-12: 03-10 nac -20.00/+0 repriced",
        "03-12: 03-10 unknown -100.00/-1 subsidiary_known",
    ]
    assert rows(daily_gmv(UNTIL_12_MARCH)) == ["03-10 nac 80.00"]


def test_worked_example_run_of_26_march():
    before, events = postings(UNTIL_12_MARCH), [*UNTIL_12_MARCH, PAID_AGAIN]
    assert before.items() <= postings(events).items()
    assert posted(events)[4:] == [
        "03-25: 03-10 nac -80.00/-1 moved_day",
        "03-25: 03-25 nac +80.00/+1 moved_day",
    ]
    assert rows(daily_gmv(events)) == ["03-25 nac 80.00"]


def test_worked_example_run_of_2_april():
    before = postings([*UNTIL_12_MARCH, PAID_AGAIN])
    after = postings([*UNTIL_12_MARCH, PAID_AGAIN, WITHDRAWN])
    nothing = (Decimal(0), 0)
    difference = {
        (f"{key.transaction_date:%m-%d}", f"{key.known_on:%m-%d}", key.reason): (
            after.get(key, nothing)[0] - before.get(key, nothing)[0],
            after.get(key, nothing)[1] - before.get(key, nothing)[1],
        )
        for key in before.keys() | after.keys()
        if after.get(key) != before.get(key)
    }
    assert difference == {
        ("03-10", "03-20", "withdrawn"): (Decimal("-80.00"), -1),
        ("03-10", "03-25", "moved_day"): (Decimal("80.00"), 1),
        ("03-25", "03-25", "moved_day"): (Decimal("-80.00"), -1),
        ("03-25", "03-25", "paid"): (Decimal("80.00"), 1),
    }
    assert daily_gmv([*UNTIL_12_MARCH, PAID_AGAIN, WITHDRAWN]) == daily_gmv([*UNTIL_12_MARCH, PAID_AGAIN])


def test_item_that_comes_after_payment_posts_item_arrived_and_with_it_paid():
    paid = bought("03-10 08:00", "03-10", "03-10")
    assert posted([paid, item("03-11", "5.00")]) == ["03-11: 03-10 unknown +5.00/+1 item_arrived"]
    assert posted([paid, item("03-10 09:00", "5.00")]) == ["03-10: 03-10 unknown +5.00/+1 paid"]
    assert posted([bought("03-09", "03-09", None), item("03-10", "5.00"), paid]) == [
        "03-10: 03-10 unknown +5.00/+1 paid"
    ]


def test_paid_withdrawn_and_paid_again_posts_all_three():
    events = [bought("03-10", "03-10", "03-10"), item("03-10", "5.00"), extra("03-10", "nac")]
    again = [*events, bought("03-12", "03-10", None), bought("03-14", "03-10", "03-14")]
    assert posted(again) == [
        "03-10: 03-10 nac +5.00/+1 paid",
        "03-12: 03-10 nac -5.00/-1 withdrawn",
        "03-14: 03-10 nac +5.00/+1 paid",
    ]
    assert as_known(again, day("03-13")) == {}
    assert rows(daily_gmv(again)) == ["03-10 nac 5.00"]


def test_change_within_one_day_posts_only_what_stands_at_its_end():
    events = [bought("03-10 08:00", "03-10", "03-10"), item("03-10 08:00", "5.00"), extra("03-10", "nac")]
    assert posted([*events, bought("03-10 20:00", "03-10", None)]) == []
    assert posted([*events, item("03-10 20:00", "6.00")]) == ["03-10: 03-10 nac +6.00/+1 paid"]


def test_purchase_that_moves_day_and_back_leaves_only_its_first_place():
    events = [
        bought("03-10", "03-10", "03-10"),
        item("03-10", "5.00"),
        extra("03-10", "nac"),
        bought("03-11", "03-11", "03-10"),
        bought("03-12", "03-10", "03-10"),
    ]
    assert posted(events) == [
        "03-10: 03-10 nac +5.00/+1 paid",
        "03-11: 03-10 nac -5.00/-1 moved_day",
        "03-11: 03-11 nac +5.00/+1 moved_day",
        "03-12: 03-10 nac +5.00/+1 moved_day",
        "03-12: 03-11 nac -5.00/-1 moved_day",
    ]
    assert rows(daily_gmv(events)) == ["03-10 nac 5.00"]


def test_purchase_that_moves_subsidiary_day_and_price_at_once_is_moved_day_and_repriced():
    events = [bought("03-10", "03-10", "03-10"), item("03-10", "5.00"), extra("03-10", "nac")]
    assert posted([*events, extra("03-11", "int")])[1:] == [
        "03-11: 03-10 int +5.00/+1 moved_subsidiary",
        "03-11: 03-10 nac -5.00/-1 moved_subsidiary",
    ]
    assert posted([*events, extra("03-11", "int"), bought("03-11", "03-11", "03-10"), item("03-11", "7.00")])[
        1:
    ] == [
        "03-11: 03-10 nac -5.00/-1 moved_day",
        "03-11: 03-11 int +2.00/+0 repriced",
        "03-11: 03-11 int +5.00/+1 moved_day",
    ]


def test_version_that_changes_no_standing_posts_nothing():
    events = [bought("03-10", "03-10", "03-10"), item("03-10", "5.00", 2), extra("03-10", "nac")]
    same_amount = [bought("03-11", "03-10", "03-11"), item("03-11", "10.00", 1), extra("03-11", "nac")]
    assert posted([*events, *same_amount]) == posted(events)
    assert posted([*events, item("03-11", "10.01", 1)]) != posted(events)


def test_purchase_of_zero_is_posted_too():
    events = [bought("03-10", "03-10", "03-10"), item("03-10", "0.00")]
    assert posted([*events, extra("03-11", "nac")]) == [
        "03-10: 03-10 unknown +0.00/+1 paid",
        "03-11: 03-10 nac +0.00/+1 subsidiary_known",
        "03-11: 03-10 unknown +0.00/-1 subsidiary_known",
    ]


# --- Identities ----------------------------------------------------------------------------------------


@given(event_lists(), st.sampled_from(DAYS))
def test_postings_known_by_a_day_sum_to_gmv_as_known_on_it(events, on):
    amounts: dict[tuple[date, str], Decimal] = {}
    purchases: dict[tuple[date, str], int] = {}
    for key, (amount, count) in postings(events).items():
        if key.known_on <= on:
            place = (key.transaction_date, key.subsidiary)
            amounts[place] = amounts.get(place, Decimal(0)) + amount
            purchases[place] = purchases.get(place, 0) + count
    assert {place: amounts[place] for place in amounts if purchases[place] > 0} == as_known(events, on)
    assert {amounts[place] for place in amounts if purchases[place] == 0} <= {Decimal(0)}
    assert min(purchases.values(), default=0) >= 0


@given(event_lists(), st.sampled_from(DAYS))
def test_later_events_never_change_gmv_as_known_on_a_day(events, on):
    assert as_known([event for event in events if event.transaction_datetime.date() <= on], on) == as_known(
        events, on
    )


@given(st.data(), event_lists())
def test_order_and_copies_change_nothing(data, events):
    shuffled = data.draw(st.permutations(events + events[:3]))
    assert latest(shuffled) == latest(events)
    assert daily_gmv(shuffled) == daily_gmv(events)
    assert postings(shuffled) == postings(events)


@given(event_lists())
def test_gmv_is_the_sum_of_standings(events):
    places = [standing(events, purchase_id) for purchase_id in {event.purchase_id for event in events}]
    assert sum(daily_gmv(events).values()) == sum(place.amount for place in places if place)


# --- Files ---------------------------------------------------------------------------------------------


def test_csv_is_written_as_a_source_would(tmp_path):
    paid = bought("03-10 08:00:00.5", "03-10", "03-11")
    path = write_csv(tmp_path, "sub/purchase-1.csv", "purchase", [paid])
    assert path.read_text("utf-8") == (
        "transaction_datetime,transaction_date,purchase_id,buyer_id,prod_item_id,order_date,release_date,"
        "producer_id\n2023-03-10 08:00:00.500000,2023-03-10,1,5,,,2023-03-11,\n"
    )


def test_csv_columns_can_come_in_another_order(tmp_path):
    reverse = column_names("purchase_extra_info")[::-1]
    path = write_csv(tmp_path, "x.csv", "purchase_extra_info", [extra("03-10", 'a "b", c')], reverse)
    assert path.read_text("utf-8") == (
        'subsidiary,purchase_id,transaction_date,transaction_datetime\n"a ""b"", c",1,2023-03-10,'
        "2023-03-10 00:00:00\n"
    )


@given(st.data(), event_lists())
def test_files_of_all_runs_hold_every_event(tmp_path_factory, data, events):
    folder = tmp_path_factory.mktemp("landing")
    files = [file for run in data.draw(arrivals(events)) for file in run]
    assert len({file.name for file in files}) == len(files)
    assert {event for file in files for event in read_csv(file.write(folder), file.table)} == set(events)
