"""The ledger's rules on frames: what each change of a purchase's standing posts, and what it doesn't."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import frames
import model
import pytest
import strategies
from gmv import gold, ledger, silver
from gmv.lake import lake as lake_of_spark
from gmv.lake.lake import Lake, Touched
from gmv.lake.unfinished import Unfinished
from gmv.tables import EVENT_TABLES, GMV_LEDGER
from model import Event, ProductItem, Purchase, PurchaseExtraInfo
from pyspark.sql import functions as F

# --- Cases: the events of one purchase in March 2023, and the postings that they give ----------------


def day(text: str) -> date:
    return date.fromisoformat(f"2023-{text}")


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2023-{text}")


def paid(when: str, on: str | None = None, release_date: str = "03-01") -> Purchase:
    """A purchase version with a payment, on the day of its event unless `on` says another."""
    return Purchase(at(when), day(on or when[:5]), "?", release_date=day(release_date))


def unpaid(when: str, on: str | None = None) -> Purchase:
    return Purchase(at(when), day(on or when[:5]), "?")


def item(when: str, value: str, quantity: int = 1) -> ProductItem:
    return ProductItem(at(when), day(when[:5]), "?", 9, quantity, Decimal(value))


def info(when: str, subsidiary: str) -> PurchaseExtraInfo:
    return PurchaseExtraInfo(at(when), day(when[:5]), "?", subsidiary)


# A posting as a line: day, subsidiary, amount/purchases, known_on, reason.
CASES: dict[str, tuple[list[Event], list[str]]] = {
    "paid": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.05", 2), info("03-10 09:00", "nac")],
        ["03-10 nac +100.10/+1 03-10 paid"],
    ),
    "not paid": (
        [unpaid("03-10 08:00"), item("03-10 08:00", "50.00"), info("03-10 09:00", "nac")],
        [],
    ),
    "paid later": (
        [unpaid("03-10 08:00"), item("03-10 08:00", "50.00"), paid("03-12 08:00")],
        ["03-12 unknown +50.00/+1 03-12 paid"],
    ),
    "paid on a day other than its event's": (
        [paid("03-10 08:00", on="03-07"), item("03-08 08:00", "50.00")],
        ["03-07 unknown +50.00/+1 03-10 paid"],
    ),
    "without item": ([paid("03-10 08:00"), info("03-10 09:00", "nac")], []),
    "item without purchase": ([item("03-10 08:00", "50.00"), info("03-10 09:00", "nac")], []),
    "item arrived": (
        [paid("03-10 08:00"), item("03-11 08:00", "50.00")],
        ["03-10 unknown +50.00/+1 03-11 item_arrived"],
    ),
    "item arrived after the payment was withdrawn": (
        [paid("03-10 08:00"), unpaid("03-11 08:00"), item("03-12 08:00", "50.00")],
        [],
    ),
    "item arrived when it was paid again": (
        [
            paid("03-10 08:00"),
            unpaid("03-11 08:00"),
            item("03-12 08:00", "50.00"),
            paid("03-13 08:00"),
        ],
        ["03-13 unknown +50.00/+1 03-13 paid"],
    ),
    "item and subsidiary arrived on one day": (
        [paid("03-10 08:00"), item("03-11 08:00", "50.00"), info("03-11 09:00", "nac")],
        ["03-10 nac +50.00/+1 03-11 item_arrived"],
    ),
    "withdrawn": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.00"), unpaid("03-20 08:00")],
        ["03-10 unknown +50.00/+1 03-10 paid", "03-10 unknown -50.00/-1 03-20 withdrawn"],
    ),
    "withdrawn with another price and day": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            unpaid("03-20 08:00"),
            item("03-20 08:00", "70.00"),
        ],
        ["03-10 unknown +50.00/+1 03-10 paid", "03-10 unknown -50.00/-1 03-20 withdrawn"],
    ),
    "paid, withdrawn, paid again": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            unpaid("03-12 08:00"),
            paid("03-14 08:00", on="03-10"),
        ],
        [
            "03-10 unknown +50.00/+1 03-10 paid",
            "03-10 unknown -50.00/-1 03-12 withdrawn",
            "03-10 unknown +50.00/+1 03-14 paid",
        ],
    ),
    "paid, withdrawn and paid again on one day": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            unpaid("03-10 09:00"),
            paid("03-10 10:00"),
        ],
        ["03-10 unknown +50.00/+1 03-10 paid"],
    ),
    "paid and withdrawn on one day": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.00"), unpaid("03-10 09:00")],
        [],
    ),
    "repriced": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.00"), item("03-11 08:00", "49.99")],
        ["03-10 unknown +50.00/+1 03-10 paid", "03-10 unknown -0.01/+0 03-11 repriced"],
    ),
    "another quantity and value of the same amount": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.00", 2), item("03-11 08:00", "100.00", 1)],
        ["03-10 unknown +100.00/+1 03-10 paid"],
    ),
    "another version that changes nothing": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.00"), paid("03-15 08:00", "03-10", "03-02")],
        ["03-10 unknown +50.00/+1 03-10 paid"],
    ),
    "moved day": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.00"), paid("03-25 08:00")],
        [
            "03-10 unknown +50.00/+1 03-10 paid",
            "03-10 unknown -50.00/-1 03-25 moved_day",
            "03-25 unknown +50.00/+1 03-25 moved_day",
        ],
    ),
    "moved day and back": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            paid("03-25 08:00"),
            paid("03-26 08:00", on="03-10"),
        ],
        [
            "03-10 unknown +50.00/+1 03-10 paid",
            "03-10 unknown -50.00/-1 03-25 moved_day",
            "03-25 unknown +50.00/+1 03-25 moved_day",
            "03-10 unknown +50.00/+1 03-26 moved_day",
            "03-25 unknown -50.00/-1 03-26 moved_day",
        ],
    ),
    "moved day and back on one day": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            paid("03-25 08:00"),
            paid("03-25 09:00", on="03-10"),
        ],
        ["03-10 unknown +50.00/+1 03-10 paid"],
    ),
    "subsidiary known": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.00"), info("03-12 08:00", "nac")],
        [
            "03-10 unknown +50.00/+1 03-10 paid",
            "03-10 nac +50.00/+1 03-12 subsidiary_known",
            "03-10 unknown -50.00/-1 03-12 subsidiary_known",
        ],
    ),
    "subsidiary that is called unknown": (
        [paid("03-10 08:00"), item("03-10 08:00", "50.00"), info("03-12 08:00", "unknown")],
        ["03-10 unknown +50.00/+1 03-10 paid"],
    ),
    "moved subsidiary": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            info("03-10 08:00", "nac"),
            info("03-12 08:00", "int"),
        ],
        [
            "03-10 nac +50.00/+1 03-10 paid",
            "03-10 int +50.00/+1 03-12 moved_subsidiary",
            "03-10 nac -50.00/-1 03-12 moved_subsidiary",
        ],
    ),
    "moved subsidiary by its letters' case": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            info("03-10 08:00", "nac"),
            info("03-12 08:00", "Nac"),
        ],
        [
            "03-10 nac +50.00/+1 03-10 paid",
            "03-10 Nac +50.00/+1 03-12 moved_subsidiary",
            "03-10 nac -50.00/-1 03-12 moved_subsidiary",
        ],
    ),
    "moved and repriced at once": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "100.00"),
            item("03-12 09:00", "80.00"),
            info("03-12 10:00", "nac"),
        ],
        [
            "03-10 unknown +100.00/+1 03-10 paid",
            "03-10 nac +100.00/+1 03-12 subsidiary_known",
            "03-10 nac -20.00/+0 03-12 repriced",
            "03-10 unknown -100.00/-1 03-12 subsidiary_known",
        ],
    ),
    "day and subsidiary moved at once": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            paid("03-12 08:00"),
            info("03-12 08:00", "nac"),
        ],
        [
            "03-10 unknown +50.00/+1 03-10 paid",
            "03-10 unknown -50.00/-1 03-12 moved_day",
            "03-12 nac +50.00/+1 03-12 moved_day",
        ],
    ),
    "all three tables change on one day": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "50.00"),
            info("03-10 08:00", "nac"),
            paid("03-12 08:00"),
            item("03-12 09:00", "60.00"),
            info("03-12 10:00", "int"),
        ],
        [
            "03-10 nac +50.00/+1 03-10 paid",
            "03-10 nac -50.00/-1 03-12 moved_day",
            "03-12 int +10.00/+0 03-12 repriced",
            "03-12 int +50.00/+1 03-12 moved_day",
        ],
    ),
    "paid at zero": (
        [paid("03-10 08:00"), item("03-10 08:00", "0.00", 5)],
        ["03-10 unknown +0.00/+1 03-10 paid"],
    ),
    "zero of something, then moved, then withdrawn": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "5.00", 0),
            paid("03-12 08:00"),
            unpaid("03-13 08:00"),
        ],
        [
            "03-10 unknown +0.00/+1 03-10 paid",
            "03-10 unknown +0.00/-1 03-12 moved_day",
            "03-12 unknown +0.00/+1 03-12 moved_day",
            "03-12 unknown +0.00/-1 03-13 withdrawn",
        ],
    ),
    "repriced to zero and back": (
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "5.00"),
            item("03-11 08:00", "0.00"),
            item("03-12 08:00", "5.00"),
        ],
        [
            "03-10 unknown +5.00/+1 03-10 paid",
            "03-10 unknown -5.00/+0 03-11 repriced",
            "03-10 unknown +5.00/+0 03-12 repriced",
        ],
    ),
    "last microsecond of a day": (
        [paid("03-10 23:59:59.999999"), item("03-10 00:00", "5.00"), info("03-11 00:00", "nac")],
        [
            "03-10 unknown +5.00/+1 03-10 paid",
            "03-10 nac +5.00/+1 03-11 subsidiary_known",
            "03-10 unknown -5.00/-1 03-11 subsidiary_known",
        ],
    ),
    "payment and none at one time": (  # a date of release is above none, whatever their order
        [unpaid("03-10 08:00"), paid("03-10 08:00"), unpaid("03-10 08:00"), item("03-10 08:00", "5.00")],
        ["03-10 unknown +5.00/+1 03-10 paid"],
    ),
    "greatest amount": (
        [paid("03-10 08:00"), item("03-10 08:00", "9999999999999999.99", 2**31 - 1)],
        ["03-10 unknown +21474836469999999978525163.53/+1 03-10 paid"],
    ),
}


def events_of(case: str) -> list[Event]:
    return [replace(event, purchase_id=case) for event in CASES[case][0]]


def line(key, amount: Decimal, purchases: int) -> str:
    where = f"{key.transaction_date:%m-%d} {key.subsidiary}"
    return f"{where} {amount:+}/{purchases:+} {key.known_on:%m-%d} {key.reason}"


def lines(rows) -> dict[str, list[str]]:
    """Postings as lines, by purchase."""
    told = defaultdict(list)
    for row in rows:
        told[row.purchase_id].append(line(row, row.amount, row.purchases))
    return told


@pytest.fixture(scope="module")
def posted(spark):
    """What the ledger should hold, by case: one job for all cases."""
    events = [event for case in CASES for event in events_of(case)]
    found = ledger.postings(ledger.standings(frames.all_versions(spark, events)))
    assert found.columns == [
        "purchase_id",
        "transaction_date",
        "subsidiary",
        "amount",
        "purchases",
        "known_on",
        "reason",
    ]
    assert dict(found.dtypes)["amount"] == "decimal(38,2)"
    return lines(found.collect())


@pytest.mark.parametrize("case", CASES)
def test_a_change_of_standing_posts(posted, case):
    assert sorted(posted[case]) == sorted(CASES[case][1])


@pytest.mark.parametrize("case", CASES)
def test_the_model_posts_the_same(case):
    """So that a case that is wrong in itself is seen without Spark."""
    told = [line(key, *amount) for key, amount in model.postings(events_of(case)).items()]
    assert sorted(told) == sorted(CASES[case][1])


# --- Difference: what is new -------------------------------------------------------------------------


@dataclass(frozen=True)
class Again:
    """A purchase that was posted before, and the events that come then."""

    before: list[Event]
    then: list[Event]
    expected: list[str]


LATE = {
    "the same step again": Again([paid("03-10 08:00"), item("03-10 08:00", "5.00")], [], []),
    "the same step again at zero": Again([paid("03-10 08:00"), item("03-10 08:00", "0.00")], [], []),
    "for the first time": Again(
        [],
        [paid("03-10 08:00"), item("03-10 08:00", "5.00")],
        ["03-10 unknown +5.00/+1 03-10 paid"],
    ),
    "for the first time at zero": Again(  # no money, but a row
        [],
        [paid("03-10 08:00"), item("03-10 08:00", "0.00")],
        ["03-10 unknown +0.00/+1 03-10 paid"],
    ),
    "withdrawn at zero": Again(
        [paid("03-10 08:00"), item("03-10 08:00", "0.00")],
        [unpaid("03-11 08:00")],
        ["03-10 unknown +0.00/-1 03-11 withdrawn"],
    ),
    "late withdrawal between two payments": Again(  # the example of the design
        [
            paid("03-10 08:00"),
            item("03-10 08:00", "80.00"),
            info("03-10 08:00", "nac"),
            paid("03-25 08:00"),
        ],
        [unpaid("03-20 08:00")],
        [
            "03-10 nac +80.00/+1 03-25 moved_day",
            "03-10 nac -80.00/-1 03-20 withdrawn",
            "03-25 nac +80.00/+1 03-25 paid",
            "03-25 nac -80.00/-1 03-25 moved_day",
        ],
    ),
    "late subsidiary of the first day": Again(
        [paid("03-10 08:00"), item("03-10 08:00", "5.00"), info("03-12 08:00", "nac")],
        [info("03-10 08:00", "nac")],
        [
            "03-10 nac +5.00/+1 03-10 paid",
            "03-10 unknown -5.00/-1 03-10 paid",
            "03-10 nac -5.00/-1 03-12 subsidiary_known",
            "03-10 unknown +5.00/+1 03-12 subsidiary_known",
        ],
    ),
    "late price of a day that has one already": Again(
        [paid("03-10 08:00"), item("03-10 08:00", "5.00"), item("03-12 08:00", "9.00")],
        [item("03-12 09:00", "7.00")],
        ["03-10 unknown -2.00/+0 03-12 repriced"],
    ),
    "late price below a newer one": Again(
        [paid("03-10 08:00"), item("03-10 08:00", "5.00"), item("03-12 08:00", "9.00")],
        [item("03-11 08:00", "6.00")],
        ["03-10 unknown +1.00/+0 03-11 repriced", "03-10 unknown -1.00/+0 03-12 repriced"],
    ),
    "late item of the day of payment": Again(
        [paid("03-10 08:00"), item("03-12 08:00", "5.00")],
        [item("03-10 09:00", "5.00")],
        ["03-10 unknown +5.00/+1 03-10 paid", "03-10 unknown -5.00/-1 03-12 item_arrived"],
    ),
    "retracted whole": Again(  # `then` lists nothing, and what was before is gone
        [paid("03-10 08:00"), item("03-10 08:00", "5.00")],
        [],
        ["03-10 unknown -5.00/-1 03-10 paid"],
    ),
}
RETRACTED = {"retracted whole"}


@pytest.fixture(scope="module")
def corrected(spark):
    """What the ledger lacks after the late events, by case: one job for all cases."""
    before = [replace(event, purchase_id=case) for case, again in LATE.items() for event in again.before]
    late = [replace(event, purchase_id=case) for case, again in LATE.items() for event in again.then]
    held = frames.frame(
        spark,
        GMV_LEDGER,
        [
            key._asdict() | {"amount": amount, "purchases": purchases, "cause": "rule", "ledger_seq": 1}
            for key, (amount, purchases) in model.postings(before).items()
        ],
    )
    in_force = [event for event in before if event.purchase_id not in RETRACTED]
    should_hold = ledger.postings(ledger.standings(frames.all_versions(spark, in_force + late)))
    return lines(ledger.difference(should_hold, held).collect())


@pytest.mark.parametrize("case", LATE)
def test_only_the_difference_to_what_the_ledger_holds_is_posted(corrected, case):
    assert sorted(corrected[case]) == sorted(LATE[case].expected)


def test_postings_that_were_corrected_are_summed_before_they_are_compared(spark):
    """The ledger holds a wrong posting and its correction: together they are right, so nothing is new."""
    key = model.PostingKey("1", day("03-10"), day("03-10"), "nac", "paid")._asdict()
    should_hold = frames.frame(spark, GMV_LEDGER, [key | {"amount": Decimal("5.00"), "purchases": 1}])
    wrong = key | {"amount": Decimal("6.00"), "purchases": 1, "ledger_seq": 1, "cause": "event"}
    correction = key | {"amount": Decimal("-1.00"), "purchases": 0, "ledger_seq": 2, "cause": "retraction"}
    assert ledger.difference(should_hold, frames.frame(spark, GMV_LEDGER, [wrong, correction])).isEmpty()
    (row,) = ledger.difference(should_hold, frames.frame(spark, GMV_LEDGER, [wrong])).collect()
    assert (row.amount, row.purchases) == (Decimal("-1.00"), 0)


def test_each_posting_tells_whether_a_retraction_or_an_event_caused_it(spark):
    """What the retraction changes, and what events add to it; a key without difference stays out."""

    def rows(*of: tuple[str, str, int]) -> list[dict]:
        key = model.PostingKey("", day("03-10"), day("03-10"), "nac", "paid")._asdict()
        return [
            key | {"purchase_id": one, "amount": Decimal(amount), "purchases": count}
            for one, amount, count in of
        ]

    difference = frames.frame(
        spark, GMV_LEDGER, rows(("taken", "-5", -1), ("free", "0", -1), ("both", "-2", 0), ("new", "7", 1))
    )
    by_retraction = frames.frame(
        spark,
        GMV_LEDGER,
        [
            row | {"cause": "retraction"}
            for row in rows(
                ("taken", "-5", -1), ("free", "0", -1), ("both", "-10", -1), ("replaced", "-3", -1)
            )
        ],
    )
    columns = [*GMV_LEDGER.key, "amount", "purchases"]
    caused = ledger.with_cause(difference.select(*columns), by_retraction.select(*columns, "cause"))
    assert sorted(
        f"{row.purchase_id} {row.amount}/{row.purchases} {row.cause}" for row in caused.collect()
    ) == [
        "both -10.00/-1 retraction",
        "both 8.00/1 event",
        "free 0.00/-1 retraction",
        "new 7.00/1 event",
        "taken -5.00/-1 retraction",
    ]


# --- Several hundred purchases, against the model -----------------------------------------------------


def lives(count: int, chance: random.Random) -> list[Event]:
    """Events of many purchases, in any order: few days, times and values, so that most of them collide."""

    def when() -> datetime:
        return datetime.combine(chance.choice(strategies.DAYS), chance.choice(strategies.TIMES))

    def number() -> int | None:
        return chance.choice((None, -1, 0, 7, 2**63 - 1))

    def maybe_day() -> date | None:
        return chance.choice((None, None, *strategies.DAYS))

    events: list[Event] = []
    for n in range(count):
        one = f"p{n}"
        events += [
            Purchase(
                when(),
                chance.choice(strategies.DAYS),
                one,
                number(),
                number(),
                maybe_day(),
                maybe_day(),
                number(),
            )
            for _ in range(chance.randint(0, 5))
        ]
        events += [
            ProductItem(
                when(),
                chance.choice(strategies.DAYS),
                one,
                number(),
                chance.choice(strategies.QUANTITIES),
                chance.choice(strategies.VALUES),
            )
            for _ in range(chance.randint(0, 4))
        ]
        events += [
            PurchaseExtraInfo(
                when(), chance.choice(strategies.DAYS), one, chance.choice(strategies.SUBSIDIARIES)
            )
            for _ in range(chance.randint(0, 3))
        ]
    chance.shuffle(events)
    return events


@pytest.fixture(scope="module")
def random_lives():
    """Events by purchase; TEST_SEED in the environment chooses others."""
    by_purchase = defaultdict(list)
    for event in lives(600, random.Random(os.environ.get("TEST_SEED", "29 February"))):
        by_purchase[event.purchase_id].append(event)
    return dict(by_purchase)


def test_postings_of_random_lives_are_those_of_the_model(spark, random_lives):
    events = [event for own in random_lives.values() for event in own]
    found = ledger.postings(ledger.standings(frames.all_versions(spark, events))).collect()
    by_spark = {
        model.PostingKey(row.purchase_id, row.known_on, row.transaction_date, row.subsidiary, row.reason): (
            row.amount,
            row.purchases,
        )
        for row in found
    }
    assert len(by_spark) == len(found), "a key of the ledger came twice"
    expected = {}
    for own in random_lives.values():
        expected |= model.postings(own)
    assert by_spark == expected
    assert {key.reason for key in by_spark} == {
        "paid",
        "item_arrived",
        "withdrawn",
        "repriced",
        "moved_day",
        "moved_subsidiary",
        "subsidiary_known",
    }

    for on in {known_on + timedelta(days) for known_on in strategies.DAYS for days in (-1, 0)}:
        sums: dict = defaultdict(lambda: [Decimal(0), 0])
        for key, (amount, purchases) in by_spark.items():
            if key.known_on <= on:
                total = sums[key.transaction_date, key.subsidiary]
                total[0], total[1] = model.EXACT.add(total[0], amount), total[1] + purchases
        assert {place: amount for place, (amount, purchases) in sums.items() if purchases} == as_known(
            random_lives, on
        )


def test_daily_gmv_of_random_lives_is_that_of_the_model(spark, random_lives):
    events = [event for own in random_lives.values() for event in own]
    latest = [silver.latest(frames.versions(spark, event, events), event) for event in EVENT_TABLES]
    found = gold.daily_gmv(*latest).collect()
    by_spark = {(row.transaction_date, row.subsidiary): row.gmv for row in found}
    assert len(by_spark) == len(found)
    assert by_spark == as_known(random_lives, date.max)


def as_known(by_purchase: dict[str, list[Event]], on: date) -> dict[tuple[date, str], Decimal]:
    """The model's GMV, purchase by purchase: it would look through all events for each."""
    gmv: dict[tuple[date, str], Decimal] = {}
    for own in by_purchase.values():
        for place, amount in model.as_known(own, on).items():
            gmv[place] = model.EXACT.add(gmv.get(place, Decimal("0.00")), amount)
    return gmv


# --- Computed once ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("few", "records_brought", "is_once"),
    [
        (["1"], 7, True),
        (["1"], 100_001, True),
        ("everything", 7, True),
        ("everything", 100_001, False),
        (None, 7, False),
        (["as many rows as are too many"], 7, False),
    ],
)
def test_rows_of_few_purchases_are_computed_once(tmp_path, spark, monkeypatch, few, records_brought, is_once):
    monkeypatch.setattr(lake_of_spark, "MOST_ROWS_AT_HAND", 2)
    lake = Lake(tmp_path, spark)
    everything = few == "everything"
    touched = Touched(None) if everything else Touched(spark.range(1).select("id"), few=few)
    unfinished = Unfinished("ledger", ["a run"], records_brought, is_everything=everything)
    rows = spark.range(3 if few and "as many" in few[0] else 2).select(
        F.col("id").cast("string").alias("purchase_id"),
        F.lit(Decimal("0.10")).cast("decimal(38,2)").alias("amount"),
        F.lit(day("02-01")).alias("known_on"),
        F.lit(None).cast("string").alias("subsidiary"),
        F.lit(True).alias("is_awaiting_item"),
    )

    here = lake.at_hand(rows, touched, unfinished)

    assert (here is rows) == (not is_once)
    assert (here.dtypes, here.collect()) == (rows.dtypes, rows.collect())
