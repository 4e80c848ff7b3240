"""What is odd is listed with its amount, and leaves its list when it is resolved; without Spark."""

from __future__ import annotations

import datetime as dt
import itertools
import random
import re
from decimal import Decimal

import pytest
from gmv.checks import BY_NAME
from gmv.lake.reader import Reader
from gmv.quality import anomalies, days, lists, oddities
from gmv.quality.findings import Finding
from gmv.report import health
from gmv.settings import settings
from gmv.tables import (
    DAILY_GMV,
    DAILY_GMV_HISTORY,
    EVENT_TABLES,
    FILES,
    PARTITION_STATS,
    PRODUCT_ITEM,
    PROGRESS,
    PURCHASE,
    PURCHASE_EXTRA_INFO,
    QUARANTINE,
    RUNS,
)
from small_lake import at, day, rows_of, write

EVENTS = {event.name: event for event in EVENT_TABLES}
NAMES = {"purchase": "purchase", "item": "product_item", "info": "purchase_extra_info"}


class SmallLake:
    """A lake whose silver tables hold what the arrived events give, as the notebooks would leave it."""

    def __init__(self, path) -> None:
        self.path = path
        self.arrived: dict[str, list[dict]] = {name: [] for name in EVENTS}

    def arrive(self, text: str, file: str = "events.csv", run: str = "r1") -> None:
        """Events as `kind time purchase values`, in one file; silver and progress follow."""
        moment = at("2023-05-01") + dt.timedelta(hours=int(run[1:]))
        brought = {"file": file, "sha256": f"{file} of {run}", "run": run}
        for line in text.strip().splitlines():
            kind, when, purchase_id, *values = line.split()
            common = {"transaction_datetime": at(f"2023-{when}"), "purchase_id": purchase_id}
            common["transaction_date"] = common["transaction_datetime"].date()
            match kind, values:
                case "purchase", (state, *on):
                    own = {"release_date": common["transaction_date"] if state == "paid" else None}
                    own |= {"transaction_date": day(f"2023-{on[0]}")} if on else {}
                case "item", (product, quantity, value):
                    own = {
                        "product_id": int(product),
                        "item_quantity": int(quantity),
                        "purchase_value": Decimal(value),
                    }
                case "info", (subsidiary,):
                    own = {"subsidiary": subsidiary}
            self.arrived[NAMES[kind]].append({**common, **own, **brought})
        self._rewrite()
        write(
            self.path,
            FILES,
            [{"path": file, "table": "purchase", "sha256": brought["sha256"], "outcome": "ingested", "run": run,
              "records": 100, "recorded_at": moment}],
        )  # fmt: skip
        write(
            self.path,
            PROGRESS,
            [
                {
                    "step": "ledger",
                    "bronze_run": run,
                    "run": run,
                    "recorded_at": dt.datetime(2023, 6, int(run[1:])),
                }
            ],
        )

    def reject(self, table: str, purchase_id: str, when: str, *reasons: str, run: str = "r1") -> None:
        moment = at("2023-05-01") + dt.timedelta(hours=int(run[1:]))
        values = {"purchase_id": purchase_id, "transaction_datetime": when}
        row = {"table": table, "reasons": list(reasons), "values": list(values.items()), "file": "bad.csv",
               "sha256": "bad", "line": 2, "run": run, "ingested_at": moment}  # fmt: skip
        write(self.path, QUARANTINE, [row])

    def succeed(self, run: str) -> None:
        """A run published what had come up to then."""
        moment = dt.datetime(2023, 6, int(run[1:]), 12)
        write(
            self.path,
            RUNS,
            [{"run": run, "event": "ended", "kind": "run", "outcome": "succeeded", "at": moment}],
        )

    def _rewrite(self) -> None:
        from deltalake import write_deltalake
        from gmv.lake import records

        for name, rows in self.arrived.items():
            event = EVENTS[name]
            newest: dict[str, dict] = {}
            for row in rows:
                best = newest.get(row["purchase_id"])
                if best is None or precedence(event, row) > precedence(event, best):
                    newest[row["purchase_id"]] = row
            for table, of_table in ((event.versions, rows), (event.latest, list(newest.values()))):
                columns = [{name: row.get(name) for name in table.column_names} for row in of_table]
                frame = records.pa.Table.from_pylist(columns, records.arrow_schema(table))
                write_deltalake(self.path / table.path, frame, mode="overwrite")

    def listed(self, name: str) -> list[tuple]:
        """The rows of a list, without the columns that these tests give no values."""
        listing = lists.LISTS[name]
        return [tuple(row[column] for column in listing.columns) for row in listing.rows(Reader(self.path))]

    def found(self, name: str, *runs: str) -> tuple | None:
        """What a run that took in these bronze runs says: value and amount."""
        (finding,) = oddities.found(Reader(self.path), runs)[BY_NAME[name]] or [None]
        return finding and (finding.value, finding.amount)


def precedence(event, row: dict) -> tuple:
    return tuple((row.get(name) is not None, row.get(name)) for name in event.precedence)


@pytest.fixture
def lake(tmp_path):
    return SmallLake(tmp_path)


D10 = day("2023-03-10")
AMOUNT = Decimal("20.00")


def test_a_paid_purchase_without_item_is_listed_until_the_item_comes(lake):
    lake.arrive("purchase 03-10T08:00 1 paid\n purchase 03-10T08:00 2 unpaid\n info 03-10T08:00 1 nac")
    assert lake.listed("awaiting_item") == [("1", D10, "nac", D10)]
    assert lake.found("awaiting_item", "r1") == ("1", None)
    lake.arrive("item 03-11T08:00 1 5 2 10.00", run="r2")
    assert lake.listed("awaiting_item") == []
    assert lake.found("awaiting_item", "r2") is None
    lake.arrive("purchase 03-11T08:00 2 paid", run="r3")
    assert [row[2] for row in lake.listed("awaiting_item")] == ["unknown"]


def test_a_counted_purchase_without_subsidiary_is_listed_until_it_comes(lake):
    lake.arrive("purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 5 2 10.00\n purchase 03-10T08:00 2 paid")
    assert lake.listed("unknown_subsidiary") == [("1", D10, AMOUNT)]
    assert lake.found("unknown_subsidiary", "r1") == ("1", AMOUNT)
    lake.arrive("info 03-11T08:00 1 unknown", run="r2")
    assert lake.listed("unknown_subsidiary") == [], "a subsidiary may be called so"


def test_items_and_extra_information_without_purchase_are_listed_until_it_comes(lake):
    lake.arrive("item 03-10T08:00 1 5 2 10.00\n info 03-10T08:00 1 nac")
    assert lake.listed("orphans") == [
        ("1", "product_item", D10, AMOUNT),
        ("1", "purchase_extra_info", D10, None),
    ]
    assert lake.found("orphans", "r1") == ("2", AMOUNT)
    lake.arrive("purchase 03-11T08:00 1 unpaid", run="r2")
    assert lake.listed("orphans") == []


@pytest.mark.parametrize("seed", range(6))
def test_the_report_counts_what_waits_as_the_lists_name_it(lake, seed):
    chance = random.Random(seed)
    ids = [str(number) for number in range(1, 5_000, 13)] + ["7", "0007", "B-7", "b-7"]
    kinds = ("purchase {} paid", "item {} 5 1 1.00", "info {} nac")
    complete = chance.sample(ids, 350)
    # The same number lacks a purchase and an item, so that to count does not find them.
    lacks = {kind: set(chance.sample(sorted(set(ids) - set(complete)), 5)) for kind in kinds}
    lake.arrive(
        "\n".join(
            kind.format("03-10T08:00 " + one) for kind in kinds for one in ids if one not in lacks[kind]
        )
    )
    awaiting = lake.listed("awaiting_item")
    orphans = {row[0] for row in lake.listed("orphans")}

    points = health.open_points(Reader(lake.path), []).set_index("what")["count"]

    assert awaiting and orphans
    assert (points["Awaiting item"], points["Orphans"]) == (len(awaiting), len(orphans))


def test_several_products_tell_what_one_item_per_purchase_leaves_out(lake):
    lake.arrive(
        """
        purchase 03-10T08:00 1 paid
        item     03-10T08:00 1 5 9 99.00
        item     03-10T09:00 1 5 1 30.00
        item     03-10T10:00 1 6 2 10.00
        purchase 03-10T08:00 2 paid
        item     03-10T08:00 2 5 1 1.00
        item     03-10T09:00 2 5 1 2.00
        """
    )
    assert lake.listed("several_products") == [("1", D10, "unknown", AMOUNT, 2, Decimal("30.00"))]
    assert lake.found("several_products", "r1") == ("1", Decimal("30.00"))


def test_a_day_that_is_not_that_of_its_time_is_listed_until_an_event_puts_it_right(lake):
    lake.arrive("purchase 03-10T08:00 1 paid 03-09\n item 03-10T08:00 1 5 2 10.00")
    assert lake.listed("other_day") == [("1", "purchase", at("2023-03-10T08:00"), day("2023-03-09"), AMOUNT)]
    lake.arrive("purchase 03-11T08:00 1 paid", run="r2")
    assert lake.listed("other_day") == []


def test_the_money_of_a_day_that_is_not_that_of_its_time_is_told_once(lake):
    lake.arrive("purchase 03-10T08:00 1 paid 03-09\n item 03-10T08:00 1 5 2 10.00")
    lake.arrived[NAMES["item"]][0]["transaction_date"] = day("2023-03-09")
    lake._rewrite()
    told = [(table, amount) for _, table, _, _, amount in lake.listed("other_day")]
    assert told == [("product_item", None), ("purchase", AMOUNT)]


def test_ties_are_listed_and_those_that_change_gmv_are_findings(lake):
    lake.arrive(
        """
        purchase 03-10T08:00 1 paid
        item     03-10T08:00 1 5 2 10.00
        item     03-10T08:00 1 5 2 9.00
        purchase 03-10T08:00 2 paid
        item     03-10T08:00 2 5 2 10.00
        item     03-10T08:00 2 5 1 20.00
        purchase 03-10T08:00 3 paid
        purchase 03-10T08:00 3 unpaid
        item     03-10T07:00 3 5 1 7.00
        """
    )
    assert lake.listed("ties") == [
        ("1", True, D10, "unknown", AMOUNT, "2023-03-10 unknown 18.00", AMOUNT),
        ("3", True, D10, "unknown", Decimal("7.00"), "nowhere", Decimal("7.00")),
        ("2", False, D10, "unknown", AMOUNT, None, AMOUNT),
    ]
    assert lake.found("ties", "r1") == ("2", Decimal("27.00"))
    (finding,) = oddities.found(Reader(lake.path), ["r1"])[BY_NAME["ties"]]
    assert finding.message.endswith("the greater values count: 1, 3 (gmv show ties).")
    lake.arrive("item 03-11T08:00 1 5 2 9.00\n purchase 03-11T08:00 3 paid", run="r2")
    assert [row[0] for row in lake.listed("ties")] == ["2"]
    assert lake.found("ties", "r2") is None


def test_ties_of_day_or_subsidiary_are_told_with_every_other_outcome_and_the_greatest_amount(lake):
    lake.arrive(
        """
        purchase 03-10T08:00 1 paid 03-09
        purchase 03-10T08:00 1 paid 03-08
        item     03-10T08:00 1 5 2 10.00
        purchase 03-10T08:00 2 paid
        item     03-10T08:00 2 5 2 10.00
        info     03-10T08:00 2 nac
        info     03-10T08:00 2 int
        purchase 03-10T08:00 3 paid
        item     03-10T08:00 3 5 2 10.00
        item     03-10T08:00 3 5 1 30.00
        item     03-10T08:00 3 5 1 25.00
        """
    )
    told = [(row[0], row[5], row[6]) for row in lake.listed("ties")]
    assert told == [
        ("1", "2023-03-08 unknown 20.00", AMOUNT),
        ("2", "2023-03-10 int 20.00", AMOUNT),
        ("3", "2023-03-10 unknown 25.00; 2023-03-10 unknown 30.00", Decimal("30.00")),
    ]


def test_ties_of_a_purchase_that_counts_nowhere_change_no_gmv(lake):
    lake.arrive("purchase 03-10T08:00 1 paid\n purchase 03-10T08:00 1 paid 03-09")
    assert [row[:2] for row in lake.listed("ties")] == [("1", False)]
    assert lake.found("ties", "r1") is None


def test_a_payment_that_was_taken_back_in_place_is_worth_nothing_now(lake):
    lake.arrive("purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 5 2 10.00")
    lake.arrive("purchase 03-10T08:00 1 unpaid", run="r2")
    ((*_, old, new, old_amount, new_amount, amount),) = lake.listed("changed_in_place")
    assert (old, new) == ("2023-03-10, paid", "2023-03-10, unpaid")
    assert (old_amount, new_amount, amount) == (AMOUNT, Decimal("0.00"), AMOUNT)


def test_records_of_a_retracted_file_make_no_purchase_doubtful(lake):
    lake.arrive("purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 5 2 10.00")
    lake.reject("product_item", "1", "2023-03-11 08:00:00", BAD)
    assert len(lake.listed("doubtful")) == 1
    write(lake.path, FILES, [{"sha256": "bad", "outcome": "retracted", "recorded_at": at("2023-06-01")}])
    assert lake.listed("doubtful") == []


def test_what_was_changed_in_place_is_listed_with_both_amounts_until_a_later_event_comes(lake):
    lake.arrive("purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 5 2 10.00\n info 03-10T08:00 1 nac")
    lake.arrive("item 03-10T08:00 1 5 2 11.00\n info 03-10T08:00 1 int", run="r2")
    lake.arrive("purchase 03-10T08:00 1 unpaid", file="other.csv", run="r3")
    assert lake.listed("changed_in_place") == [
        ("1", "product_item", at("2023-03-10T08:00"), "events.csv", "2 x 10.00", "2 x 11.00",
         AMOUNT, Decimal("22.00"), Decimal("2.00")),
        ("1", "purchase_extra_info", at("2023-03-10T08:00"), "events.csv", "nac", "int",
         Decimal("22.00"), Decimal("22.00"), Decimal("0.00")),
    ]  # fmt: skip
    assert lake.found("changed_in_place", "r2") == ("2", Decimal("2.00"))
    lake.arrive("item 03-11T08:00 1 5 2 12.00\n info 03-11T08:00 1 int", run="r4")
    assert lake.listed("changed_in_place") == []


def test_each_change_in_place_is_listed_once_beside_the_one_before(lake):
    for run, value in (("r1", "10.00"), ("r2", "11.00"), ("r3", "13.00")):
        lake.arrive(f"item 03-10T08:00 1 5 1 {value}", run=run)
    assert [row[4:6] for row in lake.listed("changed_in_place")] == [
        ("1 x 10.00", "1 x 11.00"),
        ("1 x 11.00", "1 x 13.00"),
    ]
    assert lake.found("changed_in_place", "r3") == ("2", Decimal("3.00"))


BAD = "purchase_value: more than 2 decimals"


@pytest.mark.parametrize(
    ("when", "reason", "is_doubtful"),
    [
        ("2023-03-10 08:00:00.000001", BAD, True),
        ("2023-03-10 08:00:00", BAD, True),
        ("2023-03-10 07:59:59", BAD, False),
        ("2023-03-09 08:00:00Z", "transaction_datetime: not a timestamp", True),
        ("9999-12-31 00:00:00", "transaction_datetime: implausible_date", True),
    ],
)
def test_a_rejected_record_that_is_not_older_makes_its_purchase_doubtful(lake, when, reason, is_doubtful):
    lake.arrive("purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 5 2 10.00")
    lake.reject("product_item", "\u00a01 ", when, reason)
    listed = [("1", "product_item", D10, "unknown", AMOUNT, [reason], "bad.csv", 2)]
    assert lake.listed("doubtful") == (listed if is_doubtful else [])
    assert lake.found("doubtful", "r1") == (("1", AMOUNT) if is_doubtful else None)


@pytest.mark.parametrize(
    ("when", "later", "is_resolved"),
    [
        ("2023-03-12 08:00:00", "03-12T08:00", True),
        ("2023-03-12 08:00:00", "03-12T08:01", True),
        ("2023-03-12 08:00:00", "03-12T07:59", False),
        ("", "03-01T08:00", True),
    ],
)
def test_a_valid_event_of_that_time_or_later_resolves_the_doubt(lake, when, later, is_resolved):
    lake.arrive("purchase 03-10T08:00 1 paid\n item 03-10T08:00 1 5 2 10.00")
    lake.reject("product_item", "1", when, *([BAD] if when else ["transaction_datetime: empty"]))
    assert len(lake.listed("doubtful")) == 1
    lake.arrive(f"purchase {later} 1 paid", run="r2")
    assert len(lake.listed("doubtful")) == 1, "an event of another table says nothing about it"
    lake.arrive(f"item {later} 1 5 2 10.00", run="r3")
    assert len(lake.listed("doubtful")) == (0 if is_resolved else 1)


def test_a_run_looks_only_at_what_its_events_touched(lake):
    lake.arrive("purchase 03-10T08:00 1 paid")
    lake.arrive("purchase 03-10T08:00 2 paid", run="r2")
    assert lake.found("awaiting_item", "r2") == ("1", None)
    assert lake.found("awaiting_item", "r1", "r2") == ("2", None)
    assert lake.found("awaiting_item") is None
    assert len(lake.listed("awaiting_item")) == 2


def test_what_a_blocked_run_took_in_is_looked_at_again_until_a_run_succeeds(lake):
    lake.arrive("purchase 03-10T08:00 1 paid")
    lake.succeed("r1")
    assert oddities.since_last_publication(Reader(lake.path)) == []
    lake.arrive("purchase 03-10T08:00 2 paid", run="r2")
    lake.arrive("purchase 03-10T08:00 3 paid", run="r3")
    assert oddities.since_last_publication(Reader(lake.path)) == ["r2", "r3"]
    lake.succeed("r3")
    assert oddities.since_last_publication(Reader(lake.path)) == []


@pytest.mark.parametrize(
    ("values", "publishes"),
    [
        ({"event": "ended", "kind": "run", "outcome": "succeeded"}, True),
        ({"event": "ended", "kind": "run", "outcome": "refused"}, False),
        ({"event": "ended", "kind": "maintain", "outcome": "succeeded"}, False),
        ({"event": "ended", "kind": "notebook", "outcome": "succeeded", "details": '["03_gold"]'}, True),
        ({"event": "ended", "kind": "notebook", "outcome": "succeeded", "details": '["02_silver"]'}, False),
    ],
)
def test_what_ended_without_publishing_leaves_what_came_before_to_be_looked_at(lake, values, publishes):
    lake.arrive("purchase 03-10T08:00 1 paid")
    write(lake.path, RUNS, [{"run": "r1", "at": at("2023-06-02"), **values}])
    silver = {"step": "silver", "bronze_run": "r9", "recorded_at": at("2023-06-03")}
    write(lake.path, PROGRESS, [silver])
    assert oddities.since_last_publication(Reader(lake.path)) == ([] if publishes else ["r1"])


def test_a_finding_names_its_first_five_purchases_once_each(lake):
    lake.arrive(
        "\n".join(f"item 03-10T08:00 {n} 5 1 1.00\n info 03-10T08:00 {n} nac" for n in (5, 3, 1, 4, 2))
    )
    (finding,) = oddities.found(Reader(lake.path), ["r1"])[BY_NAME["orphans"]]
    assert finding.message.endswith("not counted: 1, 2, 3, 4, 5, … (gmv show orphans).")
    lake.arrive("item 03-10T08:00 6 5 1 1.00", run="r2")
    (finding,) = oddities.found(Reader(lake.path), ["r1", "r2"])[BY_NAME["orphans"]]
    assert finding.message.endswith("not counted: 1, 2, 3, 4, 5, … (gmv show orphans).")


def test_a_check_that_is_switched_off_is_not_looked_at(lake, monkeypatch):
    monkeypatch.setenv("GMV_SEVERITIES", '{"orphans": "off"}')
    settings.cache_clear()
    lake.arrive("item 03-10T08:00 1 5 1 1.00")
    assert BY_NAME["orphans"] not in oddities.found(Reader(lake.path), ["r1"])


def test_problems_name_the_lists_that_are_not_empty(lake):
    lake.arrive("purchase 03-10T08:00 1 paid\n item 03-10T08:00 2 5 2 10.00")
    assert lake.listed("problems") == [("awaiting_item", 1, None), ("orphans", 1, AMOUNT)]
    write(
        lake.path, QUARANTINE, [{"table": "purchase", "reasons": ["field_count"], "raw": raw} for raw in "ab"]
    )
    assert lake.listed("problems")[0] == ("quarantine", 2, None)


# --- Days and subsidiaries --------------------------------------------------------------------------------


def publish(path, *rows: tuple, run: str, on: str) -> None:
    published = rows_of("transaction_date subsidiary gmv", *rows)
    write(path, DAILY_GMV, published)
    write(path, DAILY_GMV_HISTORY, [{**row, "run": run, "published_at": at(on)} for row in published])


def found_in(path, sums, coming, of):
    """What is odd about these days of a lake."""
    reader = Reader(path)
    return days.found(reader, sums, coming, days.judged(reader, coming, of, fed=()), flagged=())


def test_a_new_subsidiary_names_the_one_that_it_is_like(tmp_path):
    coming = {(D10, "nacional"): AMOUNT, (D10, "São Paulo"): AMOUNT, (D10, "unknown"): AMOUNT}
    check = BY_NAME["new_subsidiary"]
    assert found_in(tmp_path, coming, coming, {D10})[check] == [], "everything is new at first"
    publish(tmp_path, *((*place, gmv) for place, gmv in coming.items()), run="r1", on="2023-03-11")
    assert found_in(tmp_path, coming, coming, {D10})[check] == []
    assert lists.LISTS["new_subsidiary"].rows(Reader(tmp_path)) == []
    D11 = day("2023-03-11")
    more = {(D11, "SAO paulo"): AMOUNT, (D11, "asia"): Decimal("1.00"), (D11, "nacional"): AMOUNT}
    found = found_in(tmp_path, coming | more, more, {D11})[check]
    assert [(one.subject, one.value, one.amount) for one in found] == [
        ("SAO paulo", "like São Paulo", AMOUNT),
        ("asia", "new", Decimal("1.00")),
    ]
    publish(tmp_path, *((*place, gmv) for place, gmv in more.items()), run="r2", on="2023-03-12")
    assert [
        (row["subsidiary"], row["alike"]) for row in lists.LISTS["new_subsidiary"].rows(Reader(tmp_path))
    ] == [
        ("SAO paulo", "São Paulo"),
        ("São Paulo", "SAO paulo"),
        ("asia", None),
    ]


def test_a_table_without_records_on_a_day_that_another_has_is_told(tmp_path, monkeypatch):
    counts = rows_of(
        "day table records recorded_at",
        (D10, "purchase", 7, at("2023-03-11")),
        (D10, "product_item", 5, at("2023-03-11")),
        (D10, "product_item", 0, at("2023-03-12")),
        (day("2023-03-11"), "purchase", 1, at("2023-03-12")),
        (day("2023-03-11"), "product_item", 1, at("2023-03-12")),
        (day("2023-03-11"), "purchase_extra_info", 1, at("2023-03-12")),
        (day("2999-01-01"), "purchase", 9, at("2023-03-12")),  # days that no source means
        (day("1999-12-31"), "purchase", 9, at("2023-03-12")),
    )
    write(tmp_path, PARTITION_STATS, [{**row, "layer": "bronze", "run": "r1"} for row in counts])
    assert days.feed_missing(Reader(tmp_path)) == [
        {"day": D10, "table": "product_item", "others": "purchase 7"},
        {"day": D10, "table": "purchase_extra_info", "others": "purchase 7"},
    ]
    found = found_in(tmp_path, {}, {}, {D10})[BY_NAME["feed_missing"]]
    assert found[0].message == (
        "On 2023-03-10 nothing came for product_item; other tables have records: purchase 7."
    )
    assert found_in(tmp_path, {}, {}, {day("2023-03-11")})[BY_NAME["feed_missing"]] == []
    for least, told in (("7", 2), ("8", 0)):
        monkeypatch.setenv("GMV_FEED_MISSING_RECORDS", least)
        settings.cache_clear()
        assert len(days.feed_missing(Reader(tmp_path))) == told


def test_records_of_a_retracted_file_feed_no_day(tmp_path):
    """Of 10 March the items' only file is retracted; of 11 March, purchases that should have had another day."""
    records = rows_of(
        "table sha256 transaction_date",
        (PURCHASE, "aa", "2023-03-10"),
        (PRODUCT_ITEM, "bb", " 2023-03-10"),
        (PURCHASE_EXTRA_INFO, "cc", "2023-03-10"),
        (PURCHASE, "dd", "2023-03-11"),
    )
    for row in records:
        event = row.pop("table")
        write(tmp_path, event.bronze, [{**row, "run": row["sha256"]}])
        file = {"table": event.name, "sha256": row["sha256"], "outcome": "ingested", "run": row["sha256"]}
        write(tmp_path, FILES, [{**file, "recorded_at": at("2023-03-11")}])
        counted = {
            "layer": "bronze",
            "table": event.name,
            "day": day(row["transaction_date"].strip()),
            "records": 1,
        }
        write(tmp_path, PARTITION_STATS, [{**counted, "run": "r1", "recorded_at": at("2023-03-11")}])
    assert [row["day"] for row in days.feed_missing(Reader(tmp_path))] == [day("2023-03-11")] * 2

    retracted = [{"sha256": sha256, "outcome": "retracted", "run": f"r{sha256}"} for sha256 in ("bb", "dd")]
    write(tmp_path, FILES, [{**row, "recorded_at": at("2023-03-12")} for row in retracted])
    assert days.feed_missing(Reader(tmp_path)) == [
        {"day": D10, "table": "product_item", "others": "purchase 1, purchase_extra_info 1"}
    ]


# --- Anomalies --------------------------------------------------------------------------------------------

LAST = day("2024-03-29")
SUBSIDIARY = "nac"


def regular(weeks: int = 30, growth: str = "0") -> dict[dt.date, Decimal]:
    """Every day about 1000.00, with a weekday's own share and a little noise of its own; it may grow."""
    noise = [Decimal(one) for one in ("1", "1.03", "0.98", "1.01", "0.96", "1.02", "0.99", "1.04", "0.97")]
    numbers = {}
    for number in range(7 * weeks + 1):
        on = LAST - dt.timedelta(number)
        share = (1 + Decimal(on.weekday()) / 10) * (1 - Decimal(growth) * number)
        numbers[on] = (1000 * share * noise[(number * 7 + number // 7) % 9]).quantize(Decimal("0.01"))
    return numbers


def spoke(numbers: dict, on: dt.date = LAST, flagged: tuple = ()) -> list[str]:
    check = BY_NAME["weekday_gmv"]
    found = anomalies.unlike_weekday(check, {SUBSIDIARY: numbers}, [on], flagged)
    return [finding.check.name for finding in found]


@pytest.mark.parametrize(("percent", "is_drop"), [("80.00", False), ("79.99", True)])
def test_a_day_may_fall_twenty_percent_below_the_day_before(percent, is_drop):
    totals = {LAST - dt.timedelta(1): Decimal(100), LAST: Decimal(percent)}
    found = anomalies.drops(totals, [LAST])
    assert [(finding.subject, finding.value, finding.amount) for finding in found] == (
        [("2024-03-29", "79.99", Decimal("20.01"))] if is_drop else []
    )
    assert anomalies.drops({LAST: Decimal(1)}, [LAST]) == [], "there is no day before"
    assert len(anomalies.drops({LAST - dt.timedelta(1): Decimal(100)}, [LAST])) == 1, "nothing at all"
    (nearly_all,) = anomalies.drops({LAST - dt.timedelta(1): Decimal(250_000), LAST: Decimal(1)}, [LAST])
    assert "99.9 % less" in nearly_all.message


def test_a_day_like_its_weekday_is_no_anomaly_and_one_unlike_it_is():
    numbers = regular()
    assert spoke(numbers) == []
    for share in ("0.5", "2", "100"):
        assert spoke(numbers | {LAST: numbers[LAST] * Decimal(share)}) == ["weekday_gmv"]
    # A Friday's number would be one on a Monday: a weekday is compared with itself.
    monday = day("2024-03-25")
    assert spoke(numbers | {monday: Decimal(1500)}, monday) == ["weekday_gmv"]
    assert spoke(numbers | {LAST: Decimal(1500)}) == []


@pytest.mark.parametrize(
    ("weeks", "limits"),
    [
        (["100"] * 26, ("86.96", "115.00")),  # never narrower than by 15 % above, as far below in logarithms
        (["80", "125"] * 13, ("19.13", "522.87")),  # 5 deviations, which are 1.4826 times the median one
        (["80", "125"] * 4, ("5.07", "1972.89")),  # with 8 weeks, wider by the root of 26/8
        (["0", "100"] * 13, None),  # half of them are empty
        (["100"] * 2 + ["0", "100"] * 12, ("86.96", "115.00")),
    ],
)
def test_the_band_is_of_robust_deviations_and_wider_where_weeks_are_few(weeks, limits):
    numbers = {LAST - dt.timedelta(weeks=ago): Decimal(one) for ago, one in enumerate(weeks, 1)}
    found = anomalies.expected(numbers, LAST, ())
    assert limits == (found and (f"{found.low:.2f}", f"{found.high:.2f}"))


@pytest.mark.parametrize(("check", "amount"), [("weekday_gmv", "75.00"), ("weekday_records", None)])
def test_the_money_concerned_is_how_far_a_number_is_from_what_is_likely(check, amount):
    numbers = {LAST - dt.timedelta(weeks=week): Decimal("100.00") for week in range(1, 27)}
    for number in ("25.00", "175.00"):  # below and above
        (found,) = anomalies.unlike_weekday(
            BY_NAME[check], {SUBSIDIARY: numbers | {LAST: Decimal(number)}}, [LAST]
        )
        assert str(found.amount) == str(amount)


def test_growth_is_no_anomaly():
    numbers = regular(growth="0.004")
    assert spoke(numbers) == []
    assert spoke(numbers | {LAST: numbers[LAST - dt.timedelta(weeks=20)]}) == ["weekday_gmv"]


@pytest.mark.parametrize(("weeks", "speaks"), [(7, False), (8, True)])
def test_a_thin_history_keeps_silent(weeks, speaks):
    numbers = regular(weeks)
    assert bool(spoke(numbers | {LAST: numbers[LAST] * 100})) is speaks


def test_the_fewer_weeks_the_wider_the_band():
    numbers = {LAST - dt.timedelta(weeks=n): Decimal(100 + 50 * (n % 2)) for n in range(1, 27)}
    few = {on: number for on, number in numbers.items() if on >= LAST - dt.timedelta(weeks=8)}
    of_many, of_few = anomalies.expected(numbers, LAST, ()), anomalies.expected(few, LAST, ())
    assert of_many and of_few and of_many.middle == of_few.middle
    assert of_few.low < of_many.low and of_many.high < of_few.high


@pytest.mark.parametrize(("empty", "speaks"), [(8, True), (9, False)])
def test_a_history_that_is_mostly_empty_keeps_silent(empty, speaks):
    numbers = regular(17)
    for week in range(1, empty + 1):
        numbers[LAST - dt.timedelta(weeks=2 * week - 1)] = Decimal(0)
    assert bool(spoke(numbers | {LAST: numbers[LAST] * 100})) is speaks


def test_a_subsidiary_that_counts_nothing_any_more_has_vanished():
    numbers = regular()
    del numbers[LAST]
    assert spoke(numbers) == ["subsidiary_vanished"]
    numbers.pop(LAST - dt.timedelta(weeks=3))
    assert spoke(numbers) != ["subsidiary_vanished"], "it has been away before"


def test_days_that_were_flagged_do_not_become_what_is_normal():
    numbers = regular(9)
    faults = [LAST - dt.timedelta(weeks=week) for week in (1, 2, 3, 4, 5)]
    for one in faults:
        numbers[one] = numbers[one] * 3
    faulty = numbers | {LAST: numbers[LAST] * 3}
    assert spoke(faulty) == [], "more than half of the history says so"
    flagged = tuple((f"{one} {SUBSIDIARY}", f"{numbers[one]:.2f}") for one in faults)
    assert spoke(faulty, flagged=flagged) == [], "four weeks are left: too thin"
    longer = regular(20) | faulty
    assert spoke(longer, flagged=flagged) == ["weekday_gmv"]
    corrected = longer | {one: numbers[one] / 3 for one in faults}
    before = anomalies.expected(corrected, LAST, ())
    assert before is not None and before.weeks == 20, "a corrected day is not the one that was flagged"


def test_what_is_odd_now_is_not_normal_for_the_weeks_after_it():
    odd = [LAST - dt.timedelta(weeks=number) for number in range(14)]
    numbers = regular()
    numbers |= {on: numbers[on] * 2 for on in odd}
    found = anomalies.unlike_weekday(BY_NAME["weekday_gmv"], {SUBSIDIARY: numbers}, odd)
    assert [finding.subject for finding in found] == [f"{on} {SUBSIDIARY}" for on in sorted(odd)]


def test_the_judged_day_is_not_its_own_baseline():
    numbers = regular()
    assert anomalies.expected(numbers, LAST, ()) == anomalies.expected(numbers | {LAST: Decimal(1)}, LAST, ())


def test_nothing_is_no_anomaly_where_nothing_is_likely():
    """Of a small subsidiary: some weeks nothing, some weeks a lot, so that the band reaches below 1."""
    often = itertools.cycle(map(Decimal, (0, 0, 5, 500, 50_000)))
    numbers = {LAST - dt.timedelta(weeks=week): next(often) for week in range(1, 27)}
    before = anomalies.expected(numbers, LAST, ())
    assert before is not None and before.low < 1
    assert spoke(numbers | {LAST: Decimal(0)}) == []


def test_what_is_odd_lies_outside_of_the_band_that_is_told():
    numbers = {LAST - dt.timedelta(weeks=week): Decimal(15 + week % 2) for week in range(1, 27)}
    check = BY_NAME["weekday_records"]
    told = {
        int(count): [int(limit) for limit in re.findall(r"\((\d+) to (\d+)\)", finding.message)[0]]
        for count in map(Decimal, range(1, 40))
        for finding in anomalies.unlike_weekday(check, {"p": numbers | {LAST: count}}, [LAST], decimals=0)
    }
    assert told and not [count for count, (low, high) in told.items() if low <= count <= high]
    low, high = next(iter(told.values()))
    assert {*told} == {*range(1, low), *range(high + 1, 40)}


def test_numbers_of_rows_are_judged_like_amounts():
    numbers = {on: amount.quantize(Decimal(1)) for on, amount in regular().items()}
    check = BY_NAME["weekday_records"]
    assert anomalies.unlike_weekday(check, {"purchase": numbers}, [LAST], decimals=0) == []
    (found,) = anomalies.unlike_weekday(
        check, {"purchase": numbers | {LAST: Decimal(10)}}, [LAST], decimals=0
    )
    assert (found.check.name, found.subject, found.value) == ("weekday_records", f"{LAST} purchase", "10")
    assert found.message.startswith("On 2024-03-29 purchase has 10; by the 26 Fridays before, about 1,")


@pytest.mark.parametrize(
    ("published", "is_judged"), [("49.51", False), ("49.50", True), ("50.49", False), (None, True)]
)
def test_a_published_day_is_judged_again_when_it_moves_by_a_percent(tmp_path, published, is_judged):
    the_day_before = {(day("2023-03-09"), "nac"): Decimal("100.00")}
    coming = {(D10, "nac"): Decimal("50.00")}
    if published:
        publish(tmp_path, (D10, "nac", Decimal(published)), run="r1", on="2023-03-11")
    found = found_in(tmp_path, the_day_before | coming, coming, {D10})
    assert [finding.subject for finding in found[BY_NAME["day_drop"]]] == ["2023-03-10"] * is_judged


def test_a_percent_exactly_is_a_move(tmp_path):
    publish(tmp_path, (D10, "nac", Decimal("50.00")), run="r1", on="2023-03-11")
    coming = {(D10, "nac"): Decimal("49.50")}
    found = found_in(tmp_path, {(day("2023-03-09"), "nac"): Decimal("100.00")} | coming, coming, {D10})
    assert len(found[BY_NAME["day_drop"]]) == 1


def test_a_day_that_lost_a_subsidiary_has_moved(tmp_path):
    publish(
        tmp_path, (D10, "nac", Decimal("50.00")), (D10, "int", Decimal("50.00")), run="r1", on="2023-03-11"
    )
    coming = {(D10, "nac"): Decimal("50.00")}
    found = found_in(tmp_path, {(day("2023-03-09"), "nac"): Decimal("100.00")} | coming, coming, {D10})
    assert len(found[BY_NAME["day_drop"]]) == 1


def week_before(name: str, value: Decimal) -> Finding:
    """What an earlier run flagged a week before the last day."""
    check = BY_NAME["weekday_records" if name == "purchase" else "weekday_gmv"]
    return Finding(check, f"{LAST - dt.timedelta(weeks=1)} {name}", f"{value}", "It was odd.")


def test_what_an_earlier_run_flagged_is_no_evidence_for_a_number_nor_for_rows(tmp_path):
    """Eight weeks are evidence enough; without the one that was flagged they are too few."""
    numbers = regular(8) | {LAST: Decimal("9.00")}
    rows = {on: Decimal(int(gmv)) for on, gmv in numbers.items()}
    counted = {"run": "r1", "layer": "silver", "table": "purchase", "recorded_at": at("2024-03-30")}
    write(tmp_path, PARTITION_STATS, [{**counted, "day": on, "records": int(n)} for on, n in rows.items()])
    sums = {(on, "nac"): gmv for on, gmv in numbers.items()}
    coming = {place: gmv for place, gmv in sums.items() if place[0] == LAST}

    def spoke_of(*flagged: Finding) -> list[str]:
        reader = Reader(tmp_path)
        found = days.found(reader, sums, coming, days.judged(reader, coming, {LAST}, fed=()), flagged)
        weekday = [found[BY_NAME[name]] for name in ("weekday_gmv", "weekday_records")]
        return [one.subject.split()[1] for findings in weekday for one in findings]

    of_week_before = LAST - dt.timedelta(weeks=1)
    odd = [week_before("nac", numbers[of_week_before]), week_before("purchase", rows[of_week_before])]
    assert spoke_of() == ["nac", "purchase"]
    assert spoke_of(odd[0]) == ["purchase"]
    assert spoke_of(odd[1]) == ["nac"]


@pytest.mark.parametrize(("name", "has_vanished"), [("int", True), ("unknown", False)])
def test_purchases_whose_subsidiary_became_known_have_not_vanished(tmp_path, name, has_vanished):
    numbers = regular()
    sums = {(on, "nac"): gmv for on, gmv in numbers.items()}
    sums |= {(on, name): gmv for on, gmv in numbers.items() if on != LAST}
    coming = {(LAST, "nac"): numbers[LAST]}
    found = found_in(tmp_path, sums, coming, {LAST})
    told = [one.subject for one in found[BY_NAME["subsidiary_vanished"]]]
    assert told == [f"{LAST} {name}"] * has_vanished


def test_new_subsidiaries_are_told_with_all_their_money_from_their_first_day_on(tmp_path):
    publish(tmp_path, (D10, "nac", AMOUNT), run="r1", on="2023-03-11")
    coming = {(day(f"2023-03-1{n}"), name): AMOUNT for n in (1, 2) for name in ("Asia", "asia")}
    found = found_in(tmp_path, coming, coming, {on for on, _ in coming})[BY_NAME["new_subsidiary"]]
    assert [one.message for one in found] == [
        f"'{name}' has never been published; it has 40.00 from 2023-03-11 on, "
        f"and equals '{other}' but for case, accents or spaces."
        for name, other in (("Asia", "asia"), ("asia", "Asia"))
    ]
    publish(tmp_path, *((*place, gmv) for place, gmv in coming.items()), run="r2", on="2023-03-13")
    listed = lists.LISTS["new_subsidiary"].rows(Reader(tmp_path))
    assert [(row["subsidiary"], row["days"], row["amount"]) for row in listed] == [
        ("Asia", 2, Decimal("40.00")),
        ("asia", 2, Decimal("40.00")),
    ]
    told = {row["list"]: (row["count"], row["amount"]) for row in lists.problems(Reader(tmp_path))}
    assert told == {"new_subsidiary": (2, Decimal("80.00"))}


def test_only_the_newest_publication_brings_new_subsidiaries(tmp_path):
    for number, name in ((10, "nac"), (11, "asia"), (12, "int")):
        publish(tmp_path, (D10, name, AMOUNT), run=f"r{number}", on=f"2023-03-{number}")
    listed = lists.LISTS["new_subsidiary"].rows(Reader(tmp_path))
    assert [row["subsidiary"] for row in listed] == ["int"]
    publish(tmp_path, (day("2023-03-11"), "nac", AMOUNT), run="r13", on="2023-03-13")
    assert lists.LISTS["new_subsidiary"].rows(Reader(tmp_path)) == []
