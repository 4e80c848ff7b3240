"""GMV by silver's join: rows of the latest versions in, rows of daily_gmv out."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import frames
import pytest
from gmv import gold
from gmv.tables import PRODUCT_ITEM, PURCHASE, PURCHASE_EXTRA_INFO

AT, ANY_DAY = datetime(2023, 1, 1), date(2023, 1, 1)  # an event's own day decides for purchases only

# Purchases: transaction_date, purchase_id, is paid.
PURCHASES = """
    2023-03-01 one        paid
    2023-03-01 other      paid
    2023-03-01 unpaid     -
    2023-03-01 abroad     paid
    2023-03-02 awaiting   paid
    2023-03-03 unplaced   paid
    2023-03-03 named      paid
    2023-03-04 withdrawn  -
    2023-03-05 free       paid
    2023-03-06 nothing    paid
    2023-03-07 07         paid
    2023-03-07 7          paid
    2023-03-08 upper      paid
    2023-03-08 lower      paid
    2023-03-09 great      paid
    2023-03-09 small      paid
    2024-02-29 leap       paid
"""
# Items: purchase_id, quantity, value.
ITEMS = """
    one        3           19.99
    other      1           0.01
    unpaid     1           1000.00
    abroad     2           5.50
    unplaced   1           7.50
    named      1           7.50
    withdrawn  1           9.00
    free       0           9.00
    nothing    5           0.00
    07         1           1.00
    7          1           20.00
    upper      1           1.00
    lower      1           1.00
    great      2147483647  9999999999999999.99
    small      1           0.01
    leap       1           29.02
    orphan     1           5000.00
"""
SUBSIDIARIES = """
    one        nac
    other      nac
    unpaid     nac
    abroad     int
    awaiting   nac
    named      unknown
    withdrawn  nac
    free       nac
    nothing    nac
    07         nac
    7          nac
    upper      Nac
    lower      nac
    great      nac
    small      nac
    leap       nac
    orphan     nac
"""
# Of each day and subsidiary: gmv, purchases.
EXPECTED = """
    2023-03-01 int     11.00 1
    2023-03-01 nac     59.98 2
    2023-03-03 unknown 15.00 2
    2023-03-05 nac     0.00 1
    2023-03-06 nac     0.00 1
    2023-03-07 nac     21.00 2
    2023-03-08 Nac     1.00 1
    2023-03-08 nac     1.00 1
    2023-03-09 nac     21474836469999999978525163.54 2
    2024-02-29 nac     29.02 1
"""


def fields(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


@pytest.fixture(scope="module")
def silver_tables(spark):
    common = {"transaction_datetime": AT, "transaction_date": ANY_DAY}
    purchases = [
        common
        | {"transaction_date": date.fromisoformat(on), "purchase_id": one, "order_date": ANY_DAY}
        | {"release_date": ANY_DAY if state == "paid" else None}
        for on, one, state in fields(PURCHASES)
    ]
    items = [
        common | {"purchase_id": one, "item_quantity": int(quantity), "purchase_value": Decimal(value)}
        for one, quantity, value in fields(ITEMS)
    ]
    infos = [common | {"purchase_id": one, "subsidiary": name} for one, name in fields(SUBSIDIARIES)]
    return (
        frames.frame(spark, PURCHASE.latest, purchases),
        frames.frame(spark, PRODUCT_ITEM.latest, items),
        frames.frame(spark, PURCHASE_EXTRA_INFO.latest, infos),
    )


def test_a_day_and_subsidiary_has_a_row_exactly_when_a_purchase_counts_there(silver_tables):
    found = gold.daily_gmv(*silver_tables)
    assert found.dtypes == [
        ("transaction_date", "date"),
        ("subsidiary", "string"),
        ("gmv", "decimal(38,2)"),
        ("purchases", "bigint"),
    ]
    assert sorted([*map(str, row)] for row in found.collect()) == fields(EXPECTED)


def test_no_events_give_no_rows(silver_tables):
    purchase, product_item, purchase_extra_info = silver_tables
    assert gold.daily_gmv(purchase.limit(0), product_item, purchase_extra_info).isEmpty()
