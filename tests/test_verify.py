"""verify: a lake that is right agrees, and one cent in any table is found and named."""

import datetime as dt
import hashlib
import json
import subprocess
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path

import pytest
from command import GMV
from gmv.lake import ledger_days, lock, records
from gmv.lake.reader import Reader
from gmv.lake.unfinished import Unfinished
from gmv.tables import (
    DAILY_GMV,
    DAILY_GMV_HISTORY,
    EVENT_TABLES,
    FILES,
    GMV_LEDGER,
    LEDGER_DAYS,
    PRODUCT_ITEM,
    PURCHASE,
    PURCHASE_EXTRA_INFO,
    QUARANTINE,
    TABLES,
    Table,
    event_table,
)
from gmv.verify import Certificate, verify, verify_run
from hypothesis import HealthCheck, given, settings
from model import Event, ProductItem, Purchase, PurchaseExtraInfo, daily_gmv, latest, postings
from small_lake import at, day, write
from strategies import event_arrivals

TODAY = day("2023-04-02")
INGESTED_AT = at("2023-04-02 06:00:00")

# Purchase 1 is paid, gets its subsidiary, is repriced and moves; 2 is withdrawn; 3 has no item; 4 is free.
EVENTS: list[Event] = [
    Purchase(at("2023-03-10 08:00:00"), day("2023-03-10"), "1", release_date=day("2023-03-10")),
    ProductItem(at("2023-03-10 08:00:00"), day("2023-03-10"), "1", 9, 2, Decimal("50.00")),
    ProductItem(at("2023-03-12 09:00:00"), day("2023-03-12"), "1", 9, 2, Decimal("40.00")),
    PurchaseExtraInfo(at("2023-03-12 09:00:00"), day("2023-03-12"), "1", "nac"),
    Purchase(at("2023-03-25 10:00:00"), day("2023-03-25"), "1", release_date=day("2023-03-25")),
    Purchase(at("2023-03-10 08:00:00"), day("2023-03-10"), "2", 7, release_date=day("2023-03-10")),
    ProductItem(at("2023-03-10 08:00:00"), day("2023-03-10"), "2", None, 1, Decimal("3.00")),
    Purchase(at("2023-03-20 10:00:00"), day("2023-03-20"), "2", 7),
    Purchase(at("2023-03-11 10:00:00"), day("2023-03-11"), "3", release_date=day("2023-03-11")),
    Purchase(at("2023-03-11 10:00:00"), day("2023-03-11"), "4", release_date=day("2023-03-11")),
    ProductItem(at("2023-03-11 10:00:00"), day("2023-03-11"), "4", 9, 0, Decimal("5.00")),
]

Rows = dict[str, list[dict]]
"""The rows of a lake's tables, by path."""


def sha256_of(file: str) -> str:
    return hashlib.sha256(file.encode()).hexdigest()


def files_of(events: list[Event], name: str = "1") -> dict[str, list[Event]]:
    """The events in one file per table: `purchase-1.csv`, …"""
    files: dict[str, list[Event]] = {}
    for event in events:
        files.setdefault(f"{event.table}-{name}.csv", []).append(event)
    return files


def bronze_record(event: Event, file: str, line: int, **texts: str | None) -> dict:
    as_text = {name: None if value is None else str(value) for name, value in asdict(event).items()}
    return {
        **as_text,
        **texts,
        "line": line,
        "file": file,
        "sha256": sha256_of(file),
        "run": "run1",
        "ingested_at": INGESTED_AT,
    }


def outcome(file: str, table: str, records: int | None, outcome: str, recorded_at: str) -> dict:
    return {
        "path": file,
        "table": table,
        "sha256": sha256_of(file),
        "records": records,
        "outcome": outcome,
        "run": "run1",
        "recorded_at": at(recorded_at),
    }


def quarantined(record: dict, table: str) -> dict:
    return {"table": table, **{name: record[name] for name in ("line", "file", "sha256", "run")}}


def rows_of_lake(files: dict[str, list[Event]], ingested_at: dt.datetime = INGESTED_AT) -> Rows:
    """What a lake holds, by the model, after these files arrived in this order and all was published."""
    rows: Rows = {table.path: [] for table in (FILES, QUARANTINE, GMV_LEDGER, DAILY_GMV, DAILY_GMV_HISTORY)}
    seen: set[Event] = set()
    for file, events in files.items():
        table = event_table(events[0].table)
        rows[FILES.path].append(outcome(file, table.name, len(events), "ingested", "2023-04-02 06:00:01"))
        for line, event in enumerate(events, start=2):
            rows.setdefault(table.bronze.path, []).append(
                {**bronze_record(event, file, line), "ingested_at": ingested_at}
            )
            if event not in seen:
                seen.add(event)
                rows.setdefault(table.versions.path, []).append(
                    {**asdict(event), "file": file, "sha256": sha256_of(file), "run": "run1"}
                )
    for event in latest(seen).values():
        rows.setdefault(event_table(event.table).latest.path, []).append(asdict(event))
    rows[GMV_LEDGER.path] = [
        {**key._asdict(), "amount": amount, "purchases": purchases, "ledger_seq": 1}
        for key, (amount, purchases) in postings(seen).items()
    ]
    for (on, subsidiary), gmv in daily_gmv(seen).items():
        published = {"transaction_date": on, "subsidiary": subsidiary, "gmv": gmv}
        rows[DAILY_GMV.path].append(published)
        rows[DAILY_GMV_HISTORY.path].append(
            {**published, "ledger_seq": 1, "published_at": at("2023-04-02 06:10:00")}
        )
    return rows


def verified(tmp_path, rows: Rows, today: dt.date = TODAY) -> Certificate:
    for table in TABLES:
        if rows.get(table.path):
            write(tmp_path / "lake", table, rows[table.path])
    return verify(Reader(tmp_path / "lake"), today)


def disagreeing(certificate: Certificate) -> list[str]:
    return [comparison.name for comparison in certificate.comparisons if not comparison.agrees]


def differences(certificate: Certificate, name: str) -> list[dict]:
    (comparison,) = (comparison for comparison in certificate.comparisons if comparison.name == name)
    return comparison.differences


def cents_apart(certificate: Certificate, name: str) -> int | None:
    (comparison,) = (comparison for comparison in certificate.comparisons if comparison.name == name)
    return comparison.cents_apart


def the_row(rows: Rows, of: Table, **wanted: object) -> dict:
    """The one row with these values."""
    (row,) = (row for row in rows[of.path] if all(row[name] == value for name, value in wanted.items()))
    return row


def name_of(value: object) -> str:
    """For the names of parametrized tests."""
    return value.path if isinstance(value, Table) else getattr(value, "name", repr(value))


# --- A lake that is right -----------------------------------------------------------------------------------


def test_a_lake_that_follows_the_rules_agrees(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    assert {(row["subsidiary"], row["gmv"]) for row in rows[DAILY_GMV.path]} == {
        ("nac", Decimal("80.00")),
        ("unknown", Decimal("0.00")),
    }

    certificate = verified(tmp_path, rows)

    assert disagreeing(certificate) == []
    assert certificate.agrees
    assert certificate.pending_days == []
    assert certificate.versions == {
        table.path: 0 if rows.get(table.path) else None
        for table in (*(table for table in TABLES if table.layer != "monitoring"), LEDGER_DAYS)
    }
    assert certificate.unfinished == ["run1"], "no step has noted that it took it in"
    assert {comparison.name: comparison.rows for comparison in certificate.comparisons} == {
        "row_accounting": 3,
        "quarantine": 0,
        "purchase_versions": 12,
        "product_item_versions": 8,
        "purchase_extra_info_versions": 2,
        "purchase": 8,
        "product_item": 6,
        "purchase_extra_info": 2,
        "ledger_by_day": 4,
        "ledger_as_known": 17,
        "daily_gmv": 4,
        "published": 4,
        "history": 2,
        "ledger_days": 7,
    }


def test_an_empty_lake_agrees_over_no_rows(tmp_path):
    certificate = verify(Reader(tmp_path), TODAY)
    assert certificate.agrees
    assert {comparison.rows for comparison in certificate.comparisons} == {0}
    assert certificate.versions["gold/daily_gmv"] is None


def test_a_reader_can_be_verified_twice_and_keeps_none_of_the_work(tmp_path):
    verified(tmp_path, rows_of_lake(files_of(EVENTS)))
    reader = Reader(tmp_path / "lake")
    first, second = verify(reader, TODAY), verify(reader, TODAY)
    assert (first.agrees, first.comparisons) == (True, second.comparisons)
    assert reader.rows("select table_name from duckdb_tables() where temporary") == []


def test_certificate_is_json_with_amounts_as_text(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, DAILY_GMV, subsidiary="nac")["gmv"] = Decimal("80.01")
    told = json.loads(json.dumps(verified(tmp_path, rows).as_dict()))
    assert (told["agrees"], told["today"], told["pending_days"]) == (False, "2023-04-02", ["2023-03-25"])
    assert [comparison for comparison in told["comparisons"] if not comparison["agrees"]] == [
        {
            "agrees": False,
            "name": "published",
            "what": "gold/daily_gmv is what the newest rows of gold/daily_gmv_history say was published, "
            "on all days.",
            "rows": 4,
            "different": 1,
            "cents_apart": 1,
            "differences": [
                {
                    "table": "gold/daily_gmv",
                    "transaction_date": "2023-03-25",
                    "subsidiary": "nac",
                    "recomputed": "80.00",
                    "stored": "80.01",
                }
            ],
        }
    ]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(event_arrivals())
def test_any_lake_that_follows_the_model_agrees(tmp_path_factory, arrived):
    _, runs = arrived
    files = {file.name: list(file.events) for run in runs for file in run}
    rows = rows_of_lake(files, ingested_at=at("2025-03-02 00:00:00"))
    certificate = verified(tmp_path_factory.mktemp("any"), rows, today=day("2025-03-02"))
    assert disagreeing(certificate) == []
    assert certificate.pending_days == []


# --- One cent ---------------------------------------------------------------------------------------------------


def test_cent_in_a_version_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, PRODUCT_ITEM.versions, purchase_value=Decimal("40.00"))["purchase_value"] = Decimal("40.01")
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["product_item_versions"]
    assert differences(certificate, "product_item_versions") == [
        {
            "table": "silver/product_item_versions",
            "purchase_id": "1",
            "transaction_datetime": at("2023-03-12 09:00:00"),
            "recomputed": {"purchase_value": Decimal("40.00")},
            "stored": {"purchase_value": Decimal("40.01")},
        }
    ]


def test_cent_in_a_latest_version_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, PRODUCT_ITEM.latest, purchase_id="1")["purchase_value"] = Decimal("39.99")
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["product_item"]
    assert differences(certificate, "product_item") == [
        {
            "table": "silver/product_item",
            "purchase_id": "1",
            "recomputed": {"purchase_value": Decimal("40.00")},
            "stored": {"purchase_value": Decimal("39.99")},
        }
    ]


def test_cent_in_the_ledger_is_found_with_its_purchase_and_the_day_it_became_known(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, GMV_LEDGER, purchase_id="2", reason="withdrawn")["amount"] = Decimal("-2.99")
    certificate = verified(tmp_path, rows)
    # Nothing is published for a place where no purchase counts, whatever amount is left there.
    assert disagreeing(certificate) == ["ledger_as_known", "ledger_by_day"]
    assert certificate.pending_days == []
    assert cents_apart(certificate, "ledger_by_day") == 1
    assert differences(certificate, "ledger_as_known") == [
        {
            "table": "gold/gmv_ledger",
            "purchase_id": "2",
            "known_on": day("2023-03-20"),
            "transaction_date": day("2023-03-10"),
            "subsidiary": "unknown",
            "recomputed": {"amount": Decimal("-3.00")},
            "stored": {"amount": Decimal("-2.99")},
        }
    ]


def test_purchase_that_the_ledger_counts_twice_is_found_though_it_is_free(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, GMV_LEDGER, purchase_id="4")["purchases"] = 2
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["ledger_as_known", "ledger_by_day"]
    assert cents_apart(certificate, "ledger_as_known") == cents_apart(certificate, "ledger_by_day") == 0


def test_cents_in_the_ledger_that_cancel_out_are_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, GMV_LEDGER, purchase_id="1", reason="paid")["amount"] += Decimal("0.01")
    the_row(rows, GMV_LEDGER, purchase_id="2", reason="paid")["amount"] -= Decimal("0.01")
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["ledger_as_known"]
    assert cents_apart(certificate, "ledger_as_known") == 2
    assert [found["purchase_id"] for found in differences(certificate, "ledger_as_known")] == ["1", "2"]


def test_cent_in_a_new_posting_under_a_known_key_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    correction = {**the_row(rows, GMV_LEDGER, purchase_id="4"), "amount": Decimal("0.01"), "purchases": 0}
    rows[GMV_LEDGER.path].append({**correction, "ledger_seq": 2})
    assert "ledger_as_known" in disagreeing(verified(tmp_path, rows))


def test_cent_in_daily_gmv_and_its_history_alike_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, DAILY_GMV, subsidiary="nac")["gmv"] = Decimal("80.01")
    the_row(rows, DAILY_GMV_HISTORY, subsidiary="nac")["gmv"] = Decimal("80.01")
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["history"]
    assert differences(certificate, "history") == [
        {
            "table": "gold/daily_gmv_history",
            "transaction_date": day("2023-03-25"),
            "subsidiary": "nac",
            "ledger_seq": 1,
            "recomputed": {"gmv": Decimal("80.00")},
            "stored": {"gmv": Decimal("80.01")},
        }
    ]


def test_cent_in_a_previous_number_of_the_history_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, DAILY_GMV_HISTORY, subsidiary="nac")["previous_gmv"] = Decimal("0.01")
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["history"]
    assert cents_apart(certificate, "history") == 1


def test_cent_that_ledger_daily_gmv_and_history_share_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, GMV_LEDGER, purchase_id="1", transaction_date=day("2023-03-25"))["amount"] += Decimal(
        "0.01"
    )
    the_row(rows, DAILY_GMV, subsidiary="nac")["gmv"] = Decimal("80.01")
    the_row(rows, DAILY_GMV_HISTORY, subsidiary="nac")["gmv"] = Decimal("80.01")
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["ledger_as_known", "ledger_by_day", "daily_gmv"]
    assert differences(certificate, "daily_gmv") == [
        {
            "table": "gold/daily_gmv",
            "transaction_date": day("2023-03-25"),
            "subsidiary": "nac",
            "recomputed": Decimal("80.00"),
            "stored": Decimal("80.01"),
        }
    ]


def test_cent_in_bronze_is_found_everywhere(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, PRODUCT_ITEM.bronze, purchase_value="40.00")["purchase_value"] = "40.01"
    assert disagreeing(verified(tmp_path, rows)) == [
        "product_item_versions",
        "product_item",
        "ledger_as_known",
        "ledger_by_day",
        "daily_gmv",
    ]


# --- Rows that are missing, doubled or elsewhere ------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "found_by"),
    [
        (PURCHASE.versions, "purchase_versions"),
        (PRODUCT_ITEM.versions, "product_item_versions"),
        (PURCHASE_EXTRA_INFO.versions, "purchase_extra_info_versions"),
        (PURCHASE.latest, "purchase"),
        (PRODUCT_ITEM.latest, "product_item"),
        (PURCHASE_EXTRA_INFO.latest, "purchase_extra_info"),
        (GMV_LEDGER, "ledger_as_known"),
        (DAILY_GMV, "published"),
        (DAILY_GMV_HISTORY, "history"),
    ],
    ids=name_of,
)
def test_row_that_is_stored_twice_is_found(tmp_path, table, found_by):
    rows = rows_of_lake(files_of(EVENTS))
    rows[table.path].append(rows[table.path][0])
    assert found_by in disagreeing(verified(tmp_path, rows))


@pytest.mark.parametrize(
    ("table", "found_by"),
    [
        (PURCHASE.versions, "purchase_versions"),
        (PRODUCT_ITEM.latest, "product_item"),
        (GMV_LEDGER, "ledger_as_known"),
        (DAILY_GMV, "published"),
        (DAILY_GMV_HISTORY, "published"),
        (FILES, "row_accounting"),
    ],
    ids=name_of,
)
def test_row_that_is_missing_is_found(tmp_path, table, found_by):
    rows = rows_of_lake(files_of(EVENTS))
    del rows[table.path][0]
    assert found_by in disagreeing(verified(tmp_path, rows))


def test_free_row_of_daily_gmv_that_is_stored_twice_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    rows[DAILY_GMV.path].append(the_row(rows, DAILY_GMV, gmv=Decimal("0.00")))
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["daily_gmv", "published"]
    assert [found["note"] for found in differences(certificate, "daily_gmv")] == ["stored more than once"]


def test_version_under_a_file_that_does_not_hold_it_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS[:2]) | files_of(EVENTS[5:7], "2"))
    moved = the_row(rows, PURCHASE.versions, purchase_id="1")
    moved["file"], moved["sha256"] = "purchase-2.csv", sha256_of("purchase-2.csv")
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["row_accounting", "purchase_versions"]
    (found,) = differences(certificate, "purchase_versions")
    assert (found["purchase_id"], found["note"]) == (
        "1",
        "stored under a file that does not hold it, or is not in force",
    )


def test_version_that_is_stored_under_each_file_that_holds_it_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS) | files_of(EVENTS[:1], "2"))
    version = the_row(rows, PURCHASE.versions, transaction_date=day("2023-03-10"), purchase_id="1")
    of_copy = {"file": "purchase-2.csv", "sha256": sha256_of("purchase-2.csv")}
    rows[PURCHASE.versions.path].append(version | of_copy)
    (found,) = differences(verified(tmp_path, rows), "purchase_versions")
    assert (len(found["recomputed"]), len(found["stored"])) == (1, 2)


def test_copy_in_another_file_is_no_version_of_its_own(tmp_path):
    rows = rows_of_lake(files_of(EVENTS) | files_of([*EVENTS, EVENTS[0]], "2"))
    assert len(rows[PURCHASE.versions.path]) == 6
    assert len(rows[PURCHASE.bronze.path]) == 13
    assert disagreeing(verified(tmp_path, rows)) == []


def test_at_most_20_differences_are_named_and_all_are_counted(tmp_path):
    events = [
        PurchaseExtraInfo(at("2023-03-10 08:00:00"), day("2023-03-10"), str(number), "nac")
        for number in range(30)
    ]
    rows = rows_of_lake(files_of(events))
    rows[PURCHASE_EXTRA_INFO.latest.path] = rows[PURCHASE_EXTRA_INFO.latest.path][:5]
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["purchase_extra_info"]
    assert len(differences(certificate, "purchase_extra_info")) == 20
    assert [comparison.different for comparison in certificate.comparisons if not comparison.agrees] == [25]


# Two events of one time, and what makes the second the latest: the first column that differs, whatever the others say.
TIES: list[tuple[Event, dict]] = [
    (tied, greater)
    for tied, several in (
        (
            Purchase(at("2023-03-10 08:00:00"), day("2023-03-10"), "?", 2, 3, day("2023-03-10"), None, 4),
            [
                {"transaction_date": day("2023-03-11"), "buyer_id": None},
                {"buyer_id": 10, "prod_item_id": None},
                {"prod_item_id": 4, "order_date": None},
                {"order_date": day("2023-03-11"), "producer_id": None},
                {"release_date": day("2001-01-01"), "producer_id": None},
                {"producer_id": 5},
            ],
        ),
        (
            Purchase(at("2023-03-10 08:00:00"), day("2023-03-10"), "?"),
            [{"buyer_id": -1}, {"prod_item_id": -1}, {"order_date": day("2001-01-01")}, {"producer_id": -1}],
        ),
        (
            Purchase(
                at("2023-03-10 08:00:00"),
                day("2023-03-10"),
                "?",
                None,
                None,
                day("2023-03-10"),
                day("2023-03-10"),
            ),
            [{"order_date": day("2023-03-11"), "release_date": None}],
        ),
        (
            ProductItem(at("2023-03-10 08:00:00"), day("2023-03-10"), "?", None, 2, Decimal("9.99")),
            [
                {"transaction_date": day("2023-03-11"), "item_quantity": 0},
                {"product_id": -1, "item_quantity": 0},
                {"item_quantity": 10, "purchase_value": Decimal("0.00")},
                {"purchase_value": Decimal("10.00")},
            ],
        ),
        (
            PurchaseExtraInfo(at("2023-03-10 08:00:00"), day("2023-03-10"), "?", "b"),
            [{"transaction_date": day("2023-03-11"), "subsidiary": "a"}, {"subsidiary": "\u00e9"}],
        ),
    )
    for greater in several
]


def test_ties_are_decided_by_the_columns_in_their_order(tmp_path):
    events, expected = [], {}
    for number, (tied, greater) in enumerate(TIES):
        for order in ("before", "after"):
            one = replace(tied, purchase_id=f"{number} {order}")
            expected[one.purchase_id] = asdict(replace(one, **greater))
            events += [one, replace(one, **greater)][:: 1 if order == "before" else -1]
    rows = rows_of_lake(files_of(events))
    for event in EVENT_TABLES:
        assert rows[event.latest.path] == [expected[row["purchase_id"]] for row in rows[event.latest.path]]
    assert disagreeing(verified(tmp_path, rows)) == []


# --- Published, pending, in progress ------------------------------------------------------------------------


def test_day_that_waits_for_publication_is_pending_and_no_fault(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    rows[DAILY_GMV.path] = [row for row in rows[DAILY_GMV.path] if row["subsidiary"] != "nac"]
    rows[DAILY_GMV_HISTORY.path] = [r for r in rows[DAILY_GMV_HISTORY.path] if r["subsidiary"] != "nac"]
    certificate = verified(tmp_path, rows)
    assert certificate.agrees
    assert certificate.pending_days == [day("2023-03-25")]


def test_pending_day_whose_number_was_never_published_is_damage(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, DAILY_GMV, subsidiary="nac")["gmv"] = Decimal("70.00")
    certificate = verified(tmp_path, rows)
    assert certificate.pending_days == [day("2023-03-25")]
    assert disagreeing(certificate) == ["published"]
    assert cents_apart(certificate, "published") == 1000


def test_day_in_progress_is_neither_pending_nor_compared_with_daily_gmv(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    rows[DAILY_GMV.path] = [row for row in rows[DAILY_GMV.path] if row["subsidiary"] != "nac"]
    rows[DAILY_GMV_HISTORY.path] = [r for r in rows[DAILY_GMV_HISTORY.path] if r["subsidiary"] != "nac"]
    certificate = verified(tmp_path, rows, today=day("2023-03-25"))
    assert certificate.agrees
    assert certificate.pending_days == []


def history_of_the_worked_example() -> list[dict]:
    """`10 unknown` at 100.00, gone when the subsidiary is known; `10 nac` at 80.00, gone to the 25th."""
    names = ("transaction_date", "subsidiary", "previous_gmv", "gmv", "ledger_seq")
    changes = [
        (day("2023-03-10"), "unknown", None, Decimal("100.00"), 1),
        (day("2023-03-10"), "unknown", Decimal("100.00"), None, 2),
        (day("2023-03-10"), "nac", None, Decimal("80.00"), 2),
        (day("2023-03-10"), "nac", Decimal("80.00"), None, 3),
        (day("2023-03-25"), "nac", None, Decimal("80.00"), 3),
    ]
    published_at = at("2023-04-02 06:10:00")
    return [dict(zip(names, change, strict=True), published_at=published_at) for change in changes]


def lake_of_the_worked_example() -> Rows:
    rows = rows_of_lake(files_of(EVENTS[:5]))
    seq_of_day = {day("2023-03-10"): 1, day("2023-03-12"): 2, day("2023-03-25"): 3}
    for posting in rows[GMV_LEDGER.path]:
        posting["ledger_seq"] = seq_of_day[posting["known_on"]]
    rows[DAILY_GMV_HISTORY.path] = history_of_the_worked_example()
    return rows


def test_history_of_several_runs_agrees(tmp_path):
    assert disagreeing(verified(tmp_path, lake_of_the_worked_example())) == []


def test_cent_in_an_old_row_of_the_history_is_found(tmp_path):
    rows = lake_of_the_worked_example()
    the_row(rows, DAILY_GMV_HISTORY, subsidiary="unknown", ledger_seq=1)["gmv"] = Decimal("99.99")
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["history"]
    assert [
        (found["ledger_seq"], found["recomputed"], found["stored"])
        for found in differences(certificate, "history")
    ] == [
        (1, {"gmv": Decimal("100.00")}, {"gmv": Decimal("99.99")}),
        (2, {"previous_gmv": Decimal("99.99")}, {"previous_gmv": Decimal("100.00")}),
    ]


# --- Rules of values ------------------------------------------------------------------------------------------

READ = [
    (PURCHASE, "transaction_datetime", "2023-03-10T08:00:00.5", at("2023-03-10 08:00:00.500000")),
    (PURCHASE, "transaction_datetime", "2000-01-01 00:00:00", at("2000-01-01 00:00:00")),
    (PURCHASE, "transaction_datetime", "2023-04-03 06:00:00", at("2023-04-03 06:00:00")),
    (PURCHASE, "transaction_date", " \u00a02020-02-29\ufeff", day("2020-02-29")),
    (PURCHASE, "transaction_date", "2023-04-03", day("2023-04-03")),
    (PURCHASE, "purchase_id", "\ufeff 07\u202f", "07"),
    (PURCHASE, "buyer_id", "-9223372036854775808", -(2**63)),
    (PURCHASE, "buyer_id", " ", None),
    (PURCHASE, "producer_id", "0000000000000000000000012", 12),
    (PURCHASE, "order_date", "1999-12-31", day("1999-12-31")),
    (PURCHASE, "release_date", "", None),
    (PRODUCT_ITEM, "item_quantity", "2147483647", 2**31 - 1),
    (PRODUCT_ITEM, "item_quantity", "-0", 0),
    (PRODUCT_ITEM, "purchase_value", "55.590", Decimal("55.59")),
    (PRODUCT_ITEM, "purchase_value", "9999999999999999.99", Decimal("9999999999999999.99")),
    (PRODUCT_ITEM, "purchase_value", "7", Decimal("7.00")),
    (PRODUCT_ITEM, "purchase_value", "-0.00", Decimal("0.00")),
    (PURCHASE_EXTRA_INFO, "subsidiary", "São  Paulo ", "São  Paulo"),
]
REJECTED = [
    (PURCHASE, "transaction_datetime", None),
    (PURCHASE, "transaction_datetime", "2023-03-10"),
    (PURCHASE, "transaction_datetime", "2023-03-10 08:00:00Z"),
    (PURCHASE, "transaction_datetime", "2023-03-10 08:00:00.1234567"),
    (PURCHASE, "transaction_datetime", "2023-03-10 24:00:00"),
    (PURCHASE, "transaction_datetime", "2023-03-10 08:00"),
    (PURCHASE, "transaction_datetime", "1999-12-31 23:59:59"),
    (PURCHASE, "transaction_datetime", "2023-04-03 06:00:01"),
    (PURCHASE, "transaction_date", "2023-02-29"),
    (PURCHASE, "transaction_date", "2023-3-10"),
    (PURCHASE, "transaction_date", "1999-12-31"),
    (PURCHASE, "transaction_date", "2023-04-04"),
    (PURCHASE, "purchase_id", "\u202f"),
    (PURCHASE, "purchase_id", "1\ufffd"),
    (PURCHASE, "buyer_id", "9223372036854775808"),
    (PURCHASE, "buyer_id", "1.0"),
    (PURCHASE, "buyer_id", "+1"),
    (PURCHASE, "prod_item_id", "٣"),
    (PURCHASE, "order_date", "2023"),
    (PURCHASE, "order_date", "0000-01-01"),
    (PURCHASE, "release_date", "\t"),
    (PURCHASE, "producer_id", "NULL"),
    (PRODUCT_ITEM, "product_id", "1e3"),
    (PRODUCT_ITEM, "item_quantity", ""),
    (PRODUCT_ITEM, "item_quantity", "2147483648"),
    (PRODUCT_ITEM, "item_quantity", "-1"),
    (PRODUCT_ITEM, "purchase_value", None),
    (PRODUCT_ITEM, "purchase_value", "55.595"),
    (PRODUCT_ITEM, "purchase_value", "55,59"),
    (PRODUCT_ITEM, "purchase_value", "-0.01"),
    (PRODUCT_ITEM, "purchase_value", "10000000000000000"),
    (PRODUCT_ITEM, "purchase_value", "12345678901234567.00"),
    (PRODUCT_ITEM, "purchase_value", ".5"),
    (PRODUCT_ITEM, "purchase_value", "1e2"),
    (PURCHASE_EXTRA_INFO, "subsidiary", "  "),
    (PURCHASE_EXTRA_INFO, "subsidiary", "S\ufffdo Paulo"),
    *(
        (table, column, text)
        for table in (PRODUCT_ITEM, PURCHASE_EXTRA_INFO)
        for column, text in (
            ("transaction_datetime", "2023-04-03 06:00:01"),
            ("transaction_date", "1999-12-31"),
            ("purchase_id", " "),
        )
    ),
]
ONE_OF_EACH = {PURCHASE: EVENTS[0], PRODUCT_ITEM: EVENTS[1], PURCHASE_EXTRA_INFO: EVENTS[3]}


def lake_with_record(table, column: str, text: str | None) -> tuple[Rows, dict]:
    """Bronze with one record, whose column has this text; and the record. The rest is still empty."""
    file = f"{table.name}-1.csv"
    record = bronze_record(ONE_OF_EACH[table], file, 2, **{column: text})
    noted = outcome(file, table.name, 1, "ingested", "2023-04-02 06:00:01")
    return {table.bronze.path: [record], FILES.path: [noted]}, record


@pytest.mark.parametrize(("table", "column", "text", "value"), READ, ids=name_of)
def test_value_is_read_exactly(tmp_path, table, column, text, value):
    rows, record = lake_with_record(table, column, text)
    event = {**asdict(ONE_OF_EACH[table]), column: value}
    brought_by = {name: record[name] for name in ("file", "sha256", "run")}
    as_read = rows | {table.versions.path: [event | brought_by], table.latest.path: [event]}
    assert disagreeing(verified(tmp_path / "read", as_read)) == []

    as_rejected = rows | {QUARANTINE.path: [quarantined(record, table.name)]}
    assert disagreeing(verified(tmp_path / "rejected", as_rejected)) == [
        "row_accounting",
        "quarantine",
        f"{table.name}_versions",
        table.name,
    ]


@pytest.mark.parametrize(("table", "column", "text"), REJECTED, ids=name_of)
def test_value_that_can_not_be_read_exactly_rejects_its_record(tmp_path, table, column, text):
    rows, record = lake_with_record(table, column, text)
    as_rejected = rows | {QUARANTINE.path: [quarantined(record, table.name)]}
    assert disagreeing(verified(tmp_path / "rejected", as_rejected)) == []

    certificate = verified(tmp_path / "lost", rows)
    assert disagreeing(certificate) == ["row_accounting", "quarantine"]
    assert differences(certificate, "quarantine") == [
        {
            "table": "silver/quarantine",
            "event_table": table.name,
            "file": f"{table.name}-1.csv",
            "sha256": sha256_of(f"{table.name}-1.csv"),
            "line": 2,
            "recomputed": 1,
            "stored": 0,
        }
    ]


@pytest.mark.parametrize("table", EVENT_TABLES, ids=name_of)
def test_record_with_a_defect_is_rejected_whatever_it_holds(tmp_path, table):
    rows = rows_of_lake(files_of([ONE_OF_EACH[table]]))
    rows[table.bronze.path][0]["defect"] = "field_count"
    assert "quarantine" in disagreeing(verified(tmp_path, rows))


# --- Files ------------------------------------------------------------------------------------------------------


def test_file_that_noted_another_number_of_records_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, FILES, table="product_item")["records"] = 5
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["row_accounting"]
    assert differences(certificate, "row_accounting") == [
        {
            "table": "bronze/files",
            "event_table": "product_item",
            "file": "product_item-1.csv",
            "sha256": sha256_of("product_item-1.csv"),
            "recomputed": {"records": 4},
            "stored": {"records": 5, "new_versions": 4, "copies": 0, "quarantined": 0},
        }
    ]


def test_file_of_no_records_agrees_and_one_whose_records_are_not_in_bronze_does_not(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    rows[FILES.path].append(outcome("purchase-2.csv", "purchase", 0, "ingested", "2023-04-02 06:00:02"))
    assert disagreeing(verified(tmp_path / "none", rows)) == []
    rows[FILES.path][-1]["records"] = 1
    assert disagreeing(verified(tmp_path / "lost", rows)) == ["row_accounting"]


def retracted_lake(in_force: list[Event], retracted: list[Event]) -> Rows:
    """Two batches of files; the second is in bronze, and was retracted before it came into force."""
    rows = rows_of_lake(files_of(in_force))
    for file, events in files_of(retracted, "retracted").items():
        table = event_table(events[0].table)
        records = [bronze_record(event, file, line) for line, event in enumerate(events, start=2)]
        rows.setdefault(table.bronze.path, []).extend(records)
        rows[FILES.path] += [
            outcome(file, table.name, len(events), "ingested", "2023-04-02 06:00:01"),
            outcome(file, table.name, None, "retracted", "2023-04-02 07:00:00"),
        ]
    return rows


def test_retracted_file_counts_as_if_it_had_not_arrived(tmp_path):
    subsidiary = PurchaseExtraInfo(at("2023-03-13 09:00:00"), day("2023-03-13"), "1", "int")
    assert disagreeing(verified(tmp_path, retracted_lake(EVENTS[:5], [*EVENTS[5:], subsidiary]))) == []


def test_retracted_file_that_arrives_again_under_another_name_stays_retracted(tmp_path):
    rows = retracted_lake(EVENTS[:5], EVENTS[5:7])
    repeated = outcome("purchase-retracted.csv", "purchase", None, "repeated", "2023-04-02 08:00:00")
    rows[FILES.path].append({**repeated, "path": "purchase-again.csv"})
    assert disagreeing(verified(tmp_path, rows)) == []


def test_restored_file_counts_again(tmp_path):
    rows = retracted_lake(EVENTS[:5], EVENTS[5:7])
    for table in ("purchase", "product_item"):
        rows[FILES.path].append(
            outcome(f"{table}-retracted.csv", table, None, "restored", "2023-04-02 08:00:00")
        )
    certificate = verified(tmp_path, rows)
    assert [found["purchase_id"] for found in differences(certificate, "ledger_as_known")] == ["2"]


def test_version_that_stays_under_a_retracted_file_is_found(tmp_path):
    rows = rows_of_lake(files_of(EVENTS[:5], "retracted") | files_of(EVENTS[:5], "2"))
    retraction = outcome("purchase-retracted.csv", "purchase", None, "retracted", "2023-04-02 07:00:00")
    rows[FILES.path].append(retraction)
    assert disagreeing(verified(tmp_path, rows)) == ["purchase_versions"]


# --- What a run changed ---------------------------------------------------------------------------------------

# Purchase 5 arrives in a second run, with a copy of an event of 1, which is thereby not touched.
LATER: list[Event] = [
    EVENTS[0],
    Purchase(at("2023-03-30 10:00:00"), day("2023-03-30"), "5", release_date=day("2023-03-30")),
    ProductItem(at("2023-03-30 10:00:00"), day("2023-03-30"), "5", 9, 1, Decimal("5.00")),
    PurchaseExtraInfo(at("2023-03-30 10:00:00"), day("2023-03-30"), "5", "nac"),
]
LINEAGE = ("file", "sha256", "run")
SECOND_RUN = Unfinished("ledger", ["run2"], 4, is_everything=False)


def rows_after_two_runs() -> Rows:
    rows = rows_of_lake(files_of(EVENTS) | files_of(LATER, "2"))
    for of_table in rows.values():
        for row in of_table:
            if "-2.csv" in (row.get("file") or row.get("path") or ""):
                row["run"] = "run2"
    broken = bronze_record(LATER[2], "product_item-2.csv", 3, purchase_value="5.001") | {"run": "run2"}
    rows[PRODUCT_ITEM.bronze.path].append(broken)
    rows[QUARANTINE.path].append(quarantined(broken, "product_item"))
    the_row(rows, FILES, path="product_item-2.csv")["records"] = 2
    return rows


def run_verified(tmp_path, rows: Rows, unfinished: Unfinished = SECOND_RUN) -> Certificate:
    for table in TABLES:
        if rows.get(table.path):
            write(tmp_path / "lake", table, rows[table.path])
    return verify_run(Reader(tmp_path / "lake"), unfinished, TODAY)


def test_a_run_verifies_its_files_and_its_touched_purchases_only(tmp_path):
    certificate = run_verified(tmp_path, rows_after_two_runs())
    assert disagreeing(certificate) == []
    assert {comparison.name: comparison.rows for comparison in certificate.comparisons} == {
        "row_accounting": 3,
        "quarantine": 2,
        "purchase_versions": 4,
        "product_item_versions": 2,
        "purchase_extra_info_versions": 2,
        "purchase": 2,
        "product_item": 2,
        "purchase_extra_info": 2,
        "ledger_as_known": 2,
    }
    assert disagreeing(verify(Reader(tmp_path / "lake"), TODAY)) == []


def test_a_run_that_took_nothing_in_compares_nothing(tmp_path):
    certificate = run_verified(tmp_path, rows_after_two_runs(), Unfinished("ledger", [], 0, False))
    assert (certificate.agrees, certificate.comparisons) == (True, [])


def test_damage_elsewhere_is_left_to_the_whole_verification(tmp_path):
    rows = rows_after_two_runs()
    the_row(rows, PRODUCT_ITEM.latest, purchase_id="1")["purchase_value"] = Decimal("39.99")
    the_row(rows, GMV_LEDGER, purchase_id="2", reason="withdrawn")["amount"] = Decimal("-2.99")
    assert disagreeing(run_verified(tmp_path, rows)) == []
    assert {"product_item", "ledger_as_known"} <= set(disagreeing(verify(Reader(tmp_path / "lake"), TODAY)))


@pytest.mark.parametrize(
    ("table", "wanted", "column", "value", "found_by"),
    [
        (FILES, {"path": "purchase-2.csv"}, "records", 3, ["row_accounting"]),
        (QUARANTINE, {"run": "run2"}, "line", 9, ["quarantine"]),
        (
            PRODUCT_ITEM.versions,
            {"purchase_id": "5"},
            "purchase_value",
            Decimal("5.01"),
            ["product_item_versions", "product_item", "ledger_as_known"],
        ),
        (PRODUCT_ITEM.latest, {"purchase_id": "5"}, "purchase_value", Decimal("5.01"), ["product_item"]),
        (PURCHASE.latest, {"purchase_id": "5"}, "release_date", None, ["purchase"]),
        (GMV_LEDGER, {"purchase_id": "5"}, "amount", Decimal("5.01"), ["ledger_as_known"]),
        (GMV_LEDGER, {"purchase_id": "5"}, "known_on", day("2023-03-31"), ["ledger_as_known"]),
    ],
    ids=name_of,
)
@pytest.mark.parametrize("is_first_load", [False, True])
def test_cent_or_row_in_what_a_run_changed_is_found(
    tmp_path, table, wanted, column, value, found_by, is_first_load
):
    rows = rows_after_two_runs()
    the_row(rows, table, **wanted)[column] = value
    both = sorted({file["run"] for file in rows[FILES.path]})
    taken = Unfinished("ledger", both, 12, is_everything=True) if is_first_load else SECOND_RUN
    # A first load is recomputed from bronze alone, so that a wrong version is not followed by what comes of it.
    assert disagreeing(run_verified(tmp_path, rows, taken)) == (found_by[:1] if is_first_load else found_by)


def test_version_that_a_run_lost_or_invented_is_found(tmp_path):
    rows = rows_after_two_runs()
    version = the_row(rows, PURCHASE_EXTRA_INFO.versions, purchase_id="5")
    rows[PURCHASE_EXTRA_INFO.versions.path].append({**version, "subsidiary": "int"})
    assert "purchase_extra_info_versions" in disagreeing(run_verified(tmp_path / "invented", rows))
    rows[PURCHASE_EXTRA_INFO.versions.path].remove(version)
    rows[PURCHASE_EXTRA_INFO.versions.path].pop()
    found = differences(run_verified(tmp_path / "lost", rows), "purchase_extra_info_versions")
    assert [(one["purchase_id"], one["stored"]) for one in found] == [("5", [])]


def test_version_that_a_run_invented_of_a_purchase_far_from_its_own_is_found(tmp_path):
    rows = rows_after_two_runs()
    assert run_verified(tmp_path, rows).agrees
    far = {**the_row(rows, PURCHASE.versions, purchase_id="5"), "purchase_id": "900000000"}
    write(tmp_path / "lake", PURCHASE.versions, [far])
    assert "purchase_versions" in disagreeing(verify_run(Reader(tmp_path / "lake"), SECOND_RUN, TODAY))


def test_purchase_of_which_a_run_invented_a_version_is_verified_with_all_of_its_versions(tmp_path):
    rows = rows_after_two_runs()
    of_run = the_row(rows, PURCHASE.versions, purchase_id="5")
    invented = {
        **next(row for row in rows[PURCHASE.versions.path] if row["purchase_id"] == "2"),
        **{name: of_run[name] for name in LINEAGE},
    }
    rows[PURCHASE.versions.path].append(invented)
    assert disagreeing(run_verified(tmp_path, rows)) == ["purchase_versions"]


def test_a_retraction_is_verified_by_the_purchases_of_its_file(tmp_path):
    rows = retracted_lake(EVENTS[:5], EVENTS[5:])
    for record in [*rows[PURCHASE.bronze.path], *rows[PRODUCT_ITEM.bronze.path]]:
        record["purchase_id"] = f" {record['purchase_id']} "
    files = [sha256_of(f"{table}-retracted.csv") for table in ("purchase", "product_item")]
    taken_out = Unfinished("ledger", ["retraction"], 0, False, ["retraction"], files, files)
    certificate = run_verified(tmp_path / "right", rows, taken_out)
    assert disagreeing(certificate) == []
    assert differences(certificate, "row_accounting") == []
    posting = {**the_row(rows, GMV_LEDGER, reason="paid"), "purchase_id": "2", "amount": Decimal("3.00")}
    rows[GMV_LEDGER.path].append(posting)
    assert disagreeing(run_verified(tmp_path / "left", rows, taken_out)) == ["ledger_as_known"]


def test_a_fault_is_told_in_a_sentence(tmp_path):
    rows = rows_after_two_runs()
    the_row(rows, GMV_LEDGER, purchase_id="5")["amount"] = Decimal("5.01")
    assert run_verified(tmp_path, rows).faults() == [
        "ledger_as_known: 1 of 2 rows differ by 1 cents; the first: table gold/gmv_ledger, purchase_id 5, "
        "known_on 2023-03-30, transaction_date 2023-03-30, subsidiary nac, recomputed amount 5.00, "
        "stored amount 5.01"
    ]


# --- What to do about it ----------------------------------------------------------------------------------------


def advice_on(certificate: Certificate) -> str:
    """As of a lake whose steps have noted what they took in."""
    return replace(certificate, unfinished=[]).advice()


def test_what_is_unfinished_is_to_be_taken_in_by_a_run_before_anything_is_rebuilt(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    rows[PURCHASE.latest.path].pop()
    certificate = verified(tmp_path, rows)
    assert certificate.unfinished and certificate.advice().startswith("`gmv run` takes in what is unfinished")


def test_what_a_rebuild_can_not_bring_back_is_told_to_be_in_a_backup(tmp_path):
    """As after a ledger alone was brought back, too old, and a rebuild has posted anew what it lacked."""
    rows = rows_of_lake(files_of(EVENTS))
    for posting in rows[GMV_LEDGER.path]:
        posting["ledger_seq"] = 2
    certificate = verified(tmp_path, rows)
    assert disagreeing(certificate) == ["history"]
    assert "backup" in advice_on(certificate) and "rebuild" not in advice_on(certificate)


def test_a_ledger_that_is_too_old_is_to_be_brought_back_before_a_rebuild(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    (lost,) = [row for row in rows[GMV_LEDGER.path] if (row["reason"], row["purchases"]) == ("moved_day", 1)]
    rows[GMV_LEDGER.path].remove(lost)
    advice = advice_on(verified(tmp_path, rows))
    assert "from one, as they were at one moment. After that, or without one: `gmv rebuild`" in advice


def test_what_a_rebuild_repairs_needs_no_backup(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    rows[PURCHASE.latest.path].pop()
    certificate = verified(tmp_path, rows)
    assert "gmv rebuild" in advice_on(certificate) and "backup" not in advice_on(certificate)


def test_sums_that_are_kept_of_the_ledger_and_are_wrong_are_to_be_deleted(tmp_path):
    lake, rows = tmp_path / "lake", rows_of_lake(files_of(EVENTS))
    verified(tmp_path, rows)
    ledger_days.keep(Reader(lake))
    kept = Reader(lake).arrow("from monitoring.ledger_days")
    records.replace_columns(
        lake, LEDGER_DAYS, kept.set_column(6, "amount", kept["amount"].take([1, 0, *range(2, 7)]))
    )
    certificate = verify(Reader(lake), TODAY)
    assert disagreeing(certificate) == ["ledger_days"]
    assert (
        advice_on(certificate) == "For monitoring/ledger_days, delete its folder: the next run makes it anew."
    )


# --- The command -------------------------------------------------------------------------------------------------


def gmv_verify(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [GMV, "verify", "--as-of-date", str(TODAY), *options]
    folders = ["--lake", folder / "lake", "--runs-dir", folder / "runs"]
    return subprocess.run([*command, *folders], capture_output=True, text=True, timeout=60)


def test_command_prints_a_certificate_and_keeps_it(tmp_path):
    verified(tmp_path, rows_of_lake(files_of(EVENTS)))
    done = gmv_verify(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "every table agrees; 79 rows compared, 0 cents apart" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 100
    (kept,) = (tmp_path / "runs").glob("verify-*/certificate.json")
    assert str(kept) in done.stdout
    assert json.loads(kept.read_text())["agrees"] is True


def test_command_ends_with_1_and_names_table_purchase_and_cents(tmp_path):
    rows = rows_of_lake(files_of(EVENTS))
    the_row(rows, GMV_LEDGER, purchase_id="2", reason="withdrawn")["amount"] = Decimal("-2.99")
    verified(tmp_path, rows)
    found = gmv_verify(tmp_path, "--format", "json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["agrees"] is False
    assert (
        "ledger_as_known: 1 of 17 rows differ by 1 cents; the first: table gold/gmv_ledger, purchase_id 2"
        in (found.stderr)
    )
    assert "Traceback" not in found.stderr


def test_command_names_a_table_that_can_not_be_read(tmp_path):
    verified(tmp_path, rows_of_lake(files_of(EVENTS)))
    for file in (tmp_path / "lake" / PRODUCT_ITEM.versions.path).glob("*.parquet"):
        file.write_bytes(file.read_bytes()[:-50])
    found = gmv_verify(tmp_path)
    assert found.returncode == 1
    assert "silver/product_item_versions can't be read" in found.stderr and "gmv rebuild" in found.stderr


def test_command_waits_for_nobody_and_needs_a_lake(tmp_path):
    nothing = gmv_verify(tmp_path)
    assert (nothing.returncode, "There is no lake" in nothing.stderr) == (2, True)
    held = lock.acquire(tmp_path / "lake", "the test")
    refused = gmv_verify(tmp_path)
    held.release()
    assert (refused.returncode, "written by the test" in refused.stderr) == (4, True)
