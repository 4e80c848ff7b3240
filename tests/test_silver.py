"""Silver's rules on frames: a value is read exactly or not at all, copies are one, ties are decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from itertools import permutations

import frames
import pytest
from gmv import silver
from gmv.tables import PRODUCT_ITEM, PURCHASE, PURCHASE_EXTRA_INFO, QUARANTINE
from model import ProductItem, Purchase, PurchaseExtraInfo

INGESTED_AT = datetime(2024, 3, 10, 12, 0)
EVENTS = {event.name: event for event in (PURCHASE, PRODUCT_ITEM, PURCHASE_EXTRA_INFO)}
VALID = {
    "purchase": {
        "transaction_datetime": "2024-03-01 10:00:00",
        "transaction_date": "2024-03-01",
        "purchase_id": "1",
        "buyer_id": "2",
        "prod_item_id": "3",
        "order_date": "2024-02-28",
        "release_date": "2024-03-01",
        "producer_id": "4",
    },
    "product_item": {
        "transaction_datetime": "2024-03-01 10:00:00",
        "transaction_date": "2024-03-01",
        "purchase_id": "1",
        "product_id": "3",
        "item_quantity": "2",
        "purchase_value": "55.59",
    },
    "purchase_extra_info": {
        "transaction_datetime": "2024-03-01 10:00:00",
        "transaction_date": "2024-03-01",
        "purchase_id": "1",
        "subsidiary": "nacional",
    },
}

# A value as it arrived, and what it is read as: a typed value, or the reason why its record is rejected.
NOT_A_TIMESTAMP, NOT_A_DATE, IMPLAUSIBLE = ["not a timestamp"], ["not a date"], ["implausible_date"]
NOT_AN_INTEGER, NOT_AN_AMOUNT, OUT_OF_RANGE = ["not an integer"], ["not an amount"], ["out of range"]
TOO_FINE, NEGATIVE, EMPTY = ["more than 2 decimals"], ["negative"], ["empty"]
# Texts as long as a well-formed one, some of which Spark's own casts would read.
AS_LONG_AS_A_TIMESTAMP = [
    "2024-03-01 10:00:0Z",
    "2024-03-01 10:00:0 ",
    " 2024-03-01 10:00:0",
    "2024-03-01 10:00+01",
    "2024-03-01 10:00-01",
    "2024-03-01 1:00:00Z",
    "2024-03-01 1:0:0.25",
    "2024-03-1 10:00:0.5",
    "2024-3-01 10:0:00.1",
    "+2024-03-01 10:00:0",
    "-2024-03-01 10:00:0",
    "0000-03-01 10:00:00",
    "2024/03/01 10:00:00",
    "2024-03-01 10.00.00",
    "2024-03-01_10:00:00",
    "2024-03-01 10:00:6٠",
    "2024-03-01 10: 0:00",
    "2024-03-01 10:00:-5",
]
AS_LONG_AS_A_DATE = [
    "2024-03-1 ",
    " 2024-03-1",
    "2024-03-1T",
    "2024-3-01T",
    "2024-3-1T0",
    "2024-3-1 0",
    "+2024-03-1",
    "-2024-03-1",
    "12024-03-1",
    "2024-03- 1",
    "2024/03/01",
    "2024-03-٠1",
]
READINGS = {
    ("purchase", "transaction_datetime"): [
        ("2024-02-29 23:59:59", datetime(2024, 2, 29, 23, 59, 59)),
        ("2024-02-29T23:59:59", datetime(2024, 2, 29, 23, 59, 59)),
        ("2024-03-01 10:00:00.5", datetime(2024, 3, 1, 10, 0, 0, 500000)),
        ("2024-03-01 10:00:00.123456", datetime(2024, 3, 1, 10, 0, 0, 123456)),
        ("2024-03-01 10:00:00.1234567", NOT_A_TIMESTAMP),
        ("2024-03-01 10:00:00.", NOT_A_TIMESTAMP),
        ("2024-03-01 10:00:00Z", NOT_A_TIMESTAMP),
        ("2024-03-01T10:00:00+01:00", NOT_A_TIMESTAMP),
        ("2024-03-01 10:00:00 UTC", NOT_A_TIMESTAMP),
        ("2024-03-01t10:00:00", NOT_A_TIMESTAMP),
        ("2024-03-01  10:00:00", NOT_A_TIMESTAMP),
        ("2024-03-01 10:00", NOT_A_TIMESTAMP),
        ("2024-03-01", NOT_A_TIMESTAMP),
        ("2024-03-01 00:00:00", datetime(2024, 3, 1)),
        ("2024-03-01 24:00:00", NOT_A_TIMESTAMP),
        ("2024-03-01 10:60:00", NOT_A_TIMESTAMP),
        ("2024-03-01 10:00:60", NOT_A_TIMESTAMP),
        ("2023-02-30 10:00:00", NOT_A_TIMESTAMP),
        ("2024-03-01 10:00:00\n", NOT_A_TIMESTAMP),
        ("2٠24-03-01 10:00:00", NOT_A_TIMESTAMP),
        *((text, NOT_A_TIMESTAMP) for text in AS_LONG_AS_A_TIMESTAMP),
        ("2000-01-01 00:00:00", datetime(2000, 1, 1)),
        ("1999-12-31 23:59:59.999999", IMPLAUSIBLE),
        ("2024-03-11 12:00:00", datetime(2024, 3, 11, 12)),  # a day after ingestion, to the microsecond
        ("2024-03-11 12:00:00.000001", IMPLAUSIBLE),
        ("9999-12-31 23:59:59", IMPLAUSIBLE),
        (" \ufeff2024-03-01 10:00:00\u00a0", datetime(2024, 3, 1, 10)),
        ("", EMPTY),
        (None, EMPTY),
        (" \u00a0\ufeff\u202f", EMPTY),
    ],
    ("purchase", "transaction_date"): [
        ("2024-02-29", date(2024, 2, 29)),
        ("2023-02-29", NOT_A_DATE),
        ("2023-02-30", NOT_A_DATE),
        ("2023-00-10", NOT_A_DATE),
        ("0000-00-00", NOT_A_DATE),
        ("2023", NOT_A_DATE),
        ("2023-03", NOT_A_DATE),
        ("2023-3-1", NOT_A_DATE),
        ("01/03/2023", NOT_A_DATE),
        ("20230301", NOT_A_DATE),
        ("2023-03-01 00:00:00", NOT_A_DATE),
        ("2023-03-01T", NOT_A_DATE),
        ("-2023-03-01", NOT_A_DATE),
        ("2023-03-01\n", NOT_A_DATE),
        ("2023-03-0１", NOT_A_DATE),
        ("today", NOT_A_DATE),
        *((text, NOT_A_DATE) for text in AS_LONG_AS_A_DATE),
        ("2000-01-01", date(2000, 1, 1)),
        ("1999-12-31", IMPLAUSIBLE),
        ("0000-01-01", NOT_A_DATE),
        ("2024-03-11", date(2024, 3, 11)),
        ("2024-03-12", IMPLAUSIBLE),
        ("\u00a02024-03-01 ", date(2024, 3, 1)),
        ("", EMPTY),
    ],
    ("purchase", "purchase_id"): [
        ("A1", "A1"),
        ("a1", "a1"),
        ("07", "07"),
        ("7", "7"),
        (" \ufeff7\u202f\u00a0", "7"),
        ("7 ", "7"),
        ("7\u00a0", "7"),
        (" 7", "7"),
        ("A  1", "A  1"),
        ("日本-🛒", "日本-🛒"),
        ("null", "null"),
        ("", EMPTY),
        ("\u00a0", EMPTY),
    ],
    ("purchase", "release_date"): [
        ("2024-03-01", date(2024, 3, 1)),
        ("1999-12-31", date(1999, 12, 31)),  # only transaction dates and times must be plausible
        ("2030-01-01", date(2030, 1, 1)),
        ("", None),
        (" ", None),
        ("2023-02-30", NOT_A_DATE),
        ("0001-01-01", date(1, 1, 1)),
        ("0000-01-01", NOT_A_DATE),  # Spark knows a year 0, the calendar doesn't
        ("+10000-01-01", NOT_A_DATE),  # as Spark itself writes and reads such years
        ("-0001-01-01", NOT_A_DATE),
        ("no", NOT_A_DATE),
    ],
    ("purchase", "buyer_id"): [
        ("7", 7),
        ("007", 7),
        ("-1", -1),
        ("-0", 0),
        ("\ufeff 12\u00a0", 12),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", OUT_OF_RANGE),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", OUT_OF_RANGE),
        ("", None),
        ("+5", NOT_AN_INTEGER),
        ("٣", NOT_AN_INTEGER),
        ("１２", NOT_AN_INTEGER),
        ("1.0", NOT_AN_INTEGER),
        ("1e3", NOT_AN_INTEGER),
        ("1_000", NOT_AN_INTEGER),
        ("1,000", NOT_AN_INTEGER),
        ("1 000", NOT_AN_INTEGER),
        ("0x10", NOT_AN_INTEGER),
        ("12L", NOT_AN_INTEGER),
        ("--1", NOT_AN_INTEGER),
        ("-", NOT_AN_INTEGER),
        ("\u22125", NOT_AN_INTEGER),  # a minus sign that is no hyphen
        ("7\n", NOT_AN_INTEGER),
        ("\t7", NOT_AN_INTEGER),
        ("7\n8", NOT_AN_INTEGER),
    ],
    ("product_item", "item_quantity"): [
        ("2", 2),
        ("0", 0),
        ("-1", NEGATIVE),
        ("2147483647", 2**31 - 1),
        ("2147483648", OUT_OF_RANGE),
        ("-2147483649", OUT_OF_RANGE),
        ("1.5", NOT_AN_INTEGER),
        ("+5", NOT_AN_INTEGER),
        ("", EMPTY),
    ],
    ("product_item", "purchase_value"): [
        ("55.59", Decimal("55.59")),
        ("55.590", Decimal("55.59")),
        ("55.5900000000000000000000000000000000000000000", Decimal("55.59")),
        ("55.595", TOO_FINE),
        ("55.5900000000000000000000000000000000000000001", TOO_FINE),
        ("19.999", TOO_FINE),
        ("-5.001", TOO_FINE),
        ("100", Decimal("100.00")),
        ("100.5", Decimal("100.50")),
        ("0", Decimal("0.00")),
        ("-0", Decimal("0.00")),
        ("-0.00", Decimal("0.00")),
        ("-0.01", NEGATIVE),
        ("007.50", Decimal("7.50")),
        ("9999999999999999.99", Decimal("9999999999999999.99")),
        ("99999999999999999", NOT_AN_AMOUNT),
        ("99999999999999999999999999999999999999", NOT_AN_AMOUNT),
        ("1e3", NOT_AN_AMOUNT),
        ("NaN", NOT_AN_AMOUNT),
        ("Infinity", NOT_AN_AMOUNT),
        ("1,234.50", NOT_AN_AMOUNT),
        ("12,50", NOT_AN_AMOUNT),
        ("1 234.50", NOT_AN_AMOUNT),
        ("1\u00a0234.50", NOT_AN_AMOUNT),
        ("\u00a01234.50 ", Decimal("1234.50")),
        ("+5", NOT_AN_AMOUNT),
        (".5", NOT_AN_AMOUNT),
        ("5.", NOT_AN_AMOUNT),
        ("5.5.5", NOT_AN_AMOUNT),
        ("5-", NOT_AN_AMOUNT),
        ("$5", NOT_AN_AMOUNT),
        ("5d", NOT_AN_AMOUNT),
        ("٥.٥٠", NOT_AN_AMOUNT),
        ("5.00\n", NOT_AN_AMOUNT),
        ("", EMPTY),
    ],
    ("purchase_extra_info", "subsidiary"): [
        ("nacional", "nacional"),
        ("  São Paulo ", "São Paulo"),
        ("nacional ", "nacional"),
        ("Nacional", "Nacional"),
        ('a "b", c', 'a "b", c'),
        ("two\nlines", "two\nlines"),
        ("unknown", "unknown"),
        ("", EMPTY),
        ("\ufeff", EMPTY),
    ],
}


def bronze_rows(spark, table: str, *rows: dict):
    """Bronze rows: those of a valid record, with the given columns replaced."""
    common = {"line": 2, "file": "a.csv", "sha256": "aa", "run": "r1", "ingested_at": INGESTED_AT}
    return frames.frame(spark, EVENTS[table].bronze, [VALID[table] | common | row for row in rows])


@pytest.fixture(scope="module")
def read(spark):
    """By table and column, what each text was read as: the value or the reasons; one job for each table."""
    found: dict[tuple[str, str], list] = {of: [] for of in READINGS}
    for table, event in EVENTS.items():
        cases = [
            (column, text)
            for owner, column in READINGS
            if owner == table
            for text, _ in READINGS[owner, column]
        ]
        rows = bronze_rows(
            spark, table, *({column: text, "line": n} for n, (column, text) in enumerate(cases))
        )
        for row in silver.read_values(rows, event).orderBy("line").collect():
            column, text = cases[row.line]
            found[table, column].append((text, row.reasons or row.typed[column]))
    return found


@pytest.mark.parametrize(("table", "column"), READINGS)
def test_a_value_is_read_exactly_or_not_at_all(read, table, column):
    expected = [
        (text, [f"{column}: {problem}" for problem in value] if isinstance(value, list) else value)
        for text, value in READINGS[table, column]
    ]
    # As texts, since Decimals that are equal may differ in their decimals.
    assert list(map(str, read[table, column])) == list(map(str, expected))


def test_a_rejected_record_names_every_rule_that_it_breaks(spark):
    rows = bronze_rows(
        spark,
        "product_item",
        {"transaction_datetime": "1999-01-01 00:00:00", "purchase_id": "", "item_quantity": "-1"},
        {"transaction_date": "2023-02-30", "product_id": "x", "purchase_value": "19.999", "line": 3},
        {"line": 4},
    )
    rejected = silver.quarantine(silver.read_values(rows, PRODUCT_ITEM), PRODUCT_ITEM)
    assert rejected.columns == QUARANTINE.column_names
    assert [(row.table, row.line, row.reasons) for row in rejected.orderBy("line").collect()] == [
        (
            "product_item",
            2,
            ["transaction_datetime: implausible_date", "purchase_id: empty", "item_quantity: negative"],
        ),
        (
            "product_item",
            3,
            [
                "transaction_date: not a date",
                "product_id: not an integer",
                "purchase_value: more than 2 decimals",
            ],
        ),
    ]


def test_a_record_that_could_not_be_split_or_decoded_is_rejected_whatever_its_values(spark):
    unread = dict.fromkeys(VALID["purchase_extra_info"])
    rows = bronze_rows(
        spark,
        "purchase_extra_info",
        {**unread, "defect": "field_count", "raw": "2024-03-01,1,a,b", "line": 2},
        {**unread, "defect": "encoding", "raw": "2024-03-01,1,\ufffd", "line": 3},
        {"defect": "encoding", "line": 4},
        {"line": 5},
    )
    read = silver.read_values(rows, PURCHASE_EXTRA_INFO)
    assert sorted(
        (row.line, row.reasons, row.raw, row["values"]["subsidiary"])
        for row in silver.quarantine(read, PURCHASE_EXTRA_INFO).collect()
    ) == [
        (2, ["field_count"], "2024-03-01,1,a,b", None),
        (3, ["encoding"], "2024-03-01,1,\ufffd", None),
        (4, ["encoding"], None, "nacional"),
    ]
    assert silver.versions(read, PURCHASE_EXTRA_INFO).count() == 1


def test_exact_copies_are_one_version_brought_by_the_first_run_and_file(spark):
    copies = [
        {"purchase_value": "55.59", "file": "b.csv", "sha256": "bb", "run": "r2"},
        {"purchase_value": "55.59", "file": "b.csv", "sha256": "bb", "run": "r2", "line": 3},  # in one file
        {"purchase_value": "55.590", "file": "c.csv", "sha256": "cc", "run": "r1"},  # same typed value
        {"purchase_value": " 55.59", "file": "a.csv", "sha256": "dd", "run": "r2"},
        {"purchase_value": "55.59", "file": "c.csv", "sha256": "ab", "run": "r1"},
        {"purchase_value": "55.59", "file": "d.csv", "sha256": "aa", "run": "r1"},
        {"purchase_value": "55.60", "file": "z.csv", "sha256": "zz", "run": "r9"},  # no copy: another value
        {"purchase_id": "01", "file": "y.csv", "sha256": "yy", "run": "r9"},  # no copy: another purchase
        {"product_id": "", "file": "x.csv", "sha256": "xx", "run": "r9"},  # no copies of the others,
        {"product_id": " ", "file": "w.csv", "sha256": "ww", "run": "r9"},  # but of each other: empty
    ]

    def found(rows):
        read = silver.read_values(bronze_rows(spark, "product_item", *rows), PRODUCT_ITEM)
        versions = silver.versions(read, PRODUCT_ITEM)
        assert versions.columns == PRODUCT_ITEM.versions.column_names
        return sorted(
            (row.purchase_id, row.product_id or 0, str(row.purchase_value), row.file, row.sha256, row.run)
            for row in versions.collect()
        )

    assert found(copies) == [
        ("01", 3, "55.59", "y.csv", "yy", "r9"),
        ("1", 0, "55.59", "w.csv", "ww", "r9"),
        ("1", 3, "55.59", "c.csv", "ab", "r1"),
        ("1", 3, "55.60", "z.csv", "zz", "r9"),
    ]
    assert found(copies) == found(copies[::-1])


def test_a_version_is_absent_when_no_existing_one_has_all_its_values(spark):
    known = Purchase(datetime(2024, 3, 1, 10), date(2024, 3, 1), "1", buyer_id=2)  # three empty values
    existing = frames.versions(spark, PURCHASE, [known])
    arrived = frames.frame(
        spark,
        PURCHASE.versions,
        [
            vars(known) | {"file": "another.csv", "sha256": "bb", "run": "r2"},  # a copy by another file
            vars(replace(known, buyer_id=None)) | frames.BROUGHT_BY,
            vars(replace(known, release_date=date(2024, 3, 1))) | frames.BROUGHT_BY,
            vars(replace(known, purchase_id="2")) | frames.BROUGHT_BY,
        ],
    )
    absent = silver.absent_from(arrived, existing, PURCHASE)
    assert absent.columns == PURCHASE.versions.column_names
    assert {(row.purchase_id, row.buyer_id, row.release_date) for row in absent.collect()} == {
        ("1", None, None),
        ("1", 2, date(2024, 3, 1)),
        ("2", 2, None),
    }
    assert silver.absent_from(arrived, arrived, PURCHASE).isEmpty()


# One version, and what makes another at the same time greater: the first column that differs decides.
PURCHASE_TIE = Purchase(datetime(2024, 3, 1, 10), date(2024, 3, 1), "?", 2, 3, date(2024, 3, 1), None, 4)
GREATER_PURCHASES = [
    {"transaction_datetime": datetime(2024, 3, 1, 10, 0, 0, 1), "transaction_date": date(2024, 2, 1)},
    {"transaction_date": date(2024, 3, 2), "buyer_id": None},
    {"buyer_id": 10, "prod_item_id": None},  # as a number: as a text, 10 is below 2
    {"prod_item_id": 4, "order_date": None},
    {"order_date": date(2024, 3, 2), "producer_id": None},
    {"release_date": date(2000, 1, 1), "producer_id": None},  # empty is below every value
    {"producer_id": 5},
]
ITEM_TIE = ProductItem(datetime(2024, 3, 1, 10), date(2024, 3, 1), "?", None, 2, Decimal("9.99"))
GREATER_ITEMS = [
    {"product_id": -1, "item_quantity": 0},
    {"item_quantity": 10, "purchase_value": Decimal("0.00")},
    {"purchase_value": Decimal("10.00")},
]
SUBSIDIARIES_IN_ORDER = ["A", "Z", "a", "aa", "b", "é", "\ufb01lial", "🛒"]  # by UTF-8 bytes


@pytest.mark.parametrize(
    ("event", "lesser", "differences"),
    [(PURCHASE, PURCHASE_TIE, GREATER_PURCHASES), (PRODUCT_ITEM, ITEM_TIE, GREATER_ITEMS)],
    ids=["purchase", "product_item"],
)
def test_ties_go_to_the_first_column_that_differs_in_either_order_of_rows(spark, event, lesser, differences):
    rows, expected = [], {}
    for n, difference in enumerate(differences):
        for order in ("before", "after"):
            one = replace(lesser, purchase_id=f"{n} {order}")
            greater = replace(one, **difference)
            rows += [one, greater] if order == "before" else [greater, one]
            expected[one.purchase_id] = greater
    found = silver.latest(frames.versions(spark, event, rows), event)
    assert found.columns == event.column_names
    assert {row.purchase_id: row.asDict() for row in found.collect()} == {
        purchase_id: vars(greater) for purchase_id, greater in expected.items()
    }


def test_the_order_of_strings_is_that_of_their_utf8_bytes(spark):
    at, on = datetime(2024, 3, 1, 10), date(2024, 3, 1)
    rows, expected = [], {}
    for lesser in range(len(SUBSIDIARIES_IN_ORDER) - 1):
        for greater in range(lesser + 1, len(SUBSIDIARIES_IN_ORDER)):
            pair = [SUBSIDIARIES_IN_ORDER[lesser], SUBSIDIARIES_IN_ORDER[greater]]
            rows += [PurchaseExtraInfo(at, on, f"{lesser} {greater}", name) for name in pair]
            expected[f"{lesser} {greater}"] = pair[1]
    found = silver.latest(frames.versions(spark, PURCHASE_EXTRA_INFO, rows), PURCHASE_EXTRA_INFO)
    assert {row.purchase_id: row.subsidiary for row in found.collect()} == expected


def test_the_latest_version_is_the_same_in_every_order_of_rows(spark):
    """Four versions that only the right precedence puts right: later columns say the opposite."""
    at, on = datetime(2024, 3, 1, 10), date(2024, 3, 1)
    four = [
        ProductItem(at, on, "?", None, 99, Decimal("99.00")),
        ProductItem(at, on, "?", 1, 5, Decimal("1.00")),
        ProductItem(at, on, "?", 1, 5, Decimal("2.00")),
        ProductItem(datetime(2024, 2, 1), date(2024, 3, 9), "?", 9, 9, Decimal("9.00")),
    ]
    rows = [
        replace(one, purchase_id=f"order {n}") for n, order in enumerate(permutations(four)) for one in order
    ]
    found = silver.latest(frames.versions(spark, PRODUCT_ITEM, rows), PRODUCT_ITEM).collect()
    assert len(found) == 24
    assert {(row.product_id, row.item_quantity, row.purchase_value) for row in found} == {
        (1, 5, Decimal("2.00"))
    }
