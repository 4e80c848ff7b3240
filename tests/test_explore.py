"""The guided look: one line for each question, on the sample."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import small_lake
from gmv import explore, tables
from gmv.errors import UsageError
from gmv.lake.reader import Reader
from gmv.settings import PROJECT
from small_lake import at, day, rows_of


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("sample")
    small_lake.write_sample(lake)
    return lake


@pytest.fixture
def sample(lake: Path) -> Reader:
    return Reader(lake)


def tuples(frame: pd.DataFrame, *columns: str) -> list[tuple]:
    """Rows as plain values, times as text, empty ones as None."""
    plain = frame[list(columns)] if columns else frame
    return [
        tuple(
            None if pd.isna(value) else str(value) if isinstance(value, pd.Timestamp) else value
            for value in row
        )
        for row in plain.itertuples(index=False)
    ]


def test_current_numbers_are_the_published_ones(sample: Reader) -> None:
    assert explore.daily_gmv(sample)["gmv"].tolist() == [
        Decimal("554.50"),
        Decimal("778.55"),
        Decimal("505.50"),
    ]
    assert len(explore.daily_gmv(sample, "2023-02-18", "2023-02-18")) == 1


def test_a_day_lists_each_purchase_that_counts_there(sample: Reader) -> None:
    assert tuples(explore.day(sample, "2023-02-18")) == [
        ("78", "nacional", Decimal("500.90"), 10, Decimal("50.09")),
        ("202", "nacional", Decimal("277.65"), 5, Decimal("55.53")),
    ]
    assert explore.day(sample, day("2023-02-19")).empty


def test_a_day_that_is_no_date_is_named(sample: Reader) -> None:
    with pytest.raises(UsageError, match="'18 February' is not a date: write it as YYYY-MM-DD"):
        explore.day(sample, "18 February")


def test_of_a_time_its_day_counts(sample: Reader) -> None:
    evening = pd.Timestamp("2023-02-18 20:00")
    for look in (explore.day, explore.daily_gmv, explore.known_on, explore.explain):
        assert look(sample, evening).equals(look(sample, "2023-02-18"))


def test_a_number_is_no_day_and_no_range_goes_backwards(sample: Reader) -> None:
    with pytest.raises(UsageError, match="5 is not a date"):
        explore.day(sample, 5)
    for look in (explore.daily_gmv, explore.what_changed, explore.explain):
        with pytest.raises(UsageError, match="The first day, 2023-02-18, is after the last, 2023-02-01"):
            look(sample, "2023-02-18", "2023-02-01")


@pytest.mark.parametrize("purchase", [56, np.int64(56)])
def test_a_purchase_may_be_given_as_a_number(sample: Reader, purchase: int) -> None:
    for look in (explore.arrived, explore.versions, explore.latest, explore.postings, explore.counts_on):
        assert look(sample, purchase).equals(look(sample, "56"))


def test_a_number_finds_the_purchase_that_is_written_like_it(tmp_path: Path) -> None:
    paid = (day("2023-02-18"), "nac", Decimal("1.00"), 1, day("2023-02-18"), "paid", 1)
    columns = "purchase_id transaction_date subsidiary amount purchases known_on reason ledger_seq"
    small_lake.write(tmp_path, tables.GMV_LEDGER, rows_of(columns, ("007", *paid), ("A1", *paid)))
    assert explore.postings(Reader(tmp_path), 7).empty


def test_a_purchase_can_be_followed_through_the_layers(sample: Reader) -> None:
    assert tuples(
        explore.arrived(sample, "56"), "table", "line", "transaction_datetime", "release_date", "subsidiary"
    ) == [
        ("product_item", 2, "2023-02-03 00:00:00", None, None),
        ("purchase", 2, "2023-02-03 00:00:00", "", None),
        ("purchase_extra_info", 2, "2023-02-03 01:00:00", None, "internacional"),
        ("purchase", 5, "2023-02-08 00:00:00", "2023-02-08", None),
    ]
    assert str(explore.versions(sample, "56")["buyer_id"].dtype) == "Int64"  # 1223, not 1223.0
    assert tuples(explore.versions(sample, "56"), "table", "transaction_datetime", "purchase_value") == [
        ("product_item", "2023-02-03 00:00:00", Decimal("55.45")),
        ("purchase", "2023-02-03 00:00:00", None),
        ("purchase_extra_info", "2023-02-03 01:00:00", None),
        ("purchase", "2023-02-08 00:00:00", None),
    ]
    assert tuples(explore.latest(sample, "56"), "table", "transaction_datetime") == [
        ("product_item", "2023-02-03 00:00:00"),
        ("purchase", "2023-02-08 00:00:00"),
        ("purchase_extra_info", "2023-02-03 01:00:00"),
    ]
    assert tuples(explore.postings(sample, "56"), "known_on", "amount", "purchases", "reason") == [
        ("2023-02-08 00:00:00", Decimal("554.50"), 1, "paid")
    ]
    assert tuples(explore.counts_on(sample, "56")) == [
        ("2023-02-08 00:00:00", "internacional", Decimal("554.50"))
    ]


def test_an_unpaid_purchase_arrived_but_counts_nowhere(sample: Reader) -> None:
    assert len(explore.arrived(sample, "70")) == 3
    assert explore.postings(sample, "70").empty
    assert explore.counts_on(sample, "70").empty


def test_a_purchase_is_found_in_bronze_with_spaces_around_its_id(tmp_path: Path) -> None:
    records = rows_of("purchase_id line", ("\u00a0 56\u202f", 2), ("056", 3))
    small_lake.write(tmp_path, tables.PURCHASE.bronze, records)
    assert explore.arrived(Reader(tmp_path), "56")["line"].tolist() == [2]


def test_whole_numbers_are_shown_to_the_last_digit(tmp_path: Path) -> None:
    greatest = 2**63 - 1
    versions = [
        {"purchase_id": "1", "transaction_datetime": at("2023-01-01"), "buyer_id": buyer}
        for buyer in (greatest, 2**53 + 1)
    ]
    small_lake.write(tmp_path, tables.PURCHASE.versions, versions)
    small_lake.write(
        tmp_path,
        tables.PRODUCT_ITEM.versions,
        [{"purchase_id": "1", "transaction_datetime": at("2023-01-02"), "item_quantity": 3}],
    )
    shown = explore.versions(Reader(tmp_path), "1")
    assert sorted(shown["buyer_id"].dropna()) == [2**53 + 1, greatest]
    assert shown["item_quantity"].dropna().tolist() == [3]


def test_gmv_as_known_on_a_day_leaves_out_later_events(sample: Reader) -> None:
    assert tuples(explore.known_on(sample, "2023-02-20")) == [
        (
            *("2023-02-08 00:00:00", "internacional"),
            *(Decimal("554.50"), Decimal("554.50"), Decimal("0.00")),
        ),
        ("2023-02-18 00:00:00", "nacional", Decimal("778.55"), Decimal("778.55"), Decimal("0.00")),
        ("2023-02-23 00:00:00", "internacional", None, Decimal("505.50"), Decimal("505.50")),
    ]
    assert explore.known_on(sample, "2023-02-07")["gmv_then"].isna().all()


def test_a_withdrawn_payment_was_known_then_and_is_gone_now(tmp_path: Path) -> None:
    ten = day("2023-03-10")
    small_lake.write(
        tmp_path,
        tables.GMV_LEDGER,
        rows_of(
            "purchase_id transaction_date subsidiary amount purchases known_on reason",
            ("1", ten, "nac", Decimal("80.00"), 1, ten, "paid"),
            ("1", ten, "nac", Decimal("-80.00"), -1, day("2023-03-20"), "withdrawn"),
        ),
    )
    reader = Reader(tmp_path)
    assert tuples(explore.known_on(reader, "2023-03-19"), "gmv_then", "gmv_now", "difference") == [
        (Decimal("80.00"), None, Decimal("-80.00"))
    ]
    assert explore.known_on(reader, "2023-03-20").empty
    assert explore.known_on(reader, ten)["gmv_then"].tolist() == [Decimal("80.00")]
    assert explore.day(reader, ten).empty and explore.counts_on(reader, "1").empty


def test_postings_come_in_the_order_in_which_they_were_recorded(tmp_path: Path) -> None:
    """The late one comes last, though it was known first; until silver has the item, the day tells the amount."""
    posted = rows_of("ledger_seq known_on amount", (1, "2023-03-12", "80.00"), (2, "2023-03-10", "-20.00"))
    place = {"purchase_id": "1", "transaction_date": day("2023-03-10"), "subsidiary": "nac", "purchases": 1}
    small_lake.write(
        tmp_path,
        tables.GMV_LEDGER,
        [
            {**place, **row, "known_on": day(row["known_on"]), "amount": Decimal(row["amount"])}
            for row in posted
        ],
    )
    assert explore.postings(Reader(tmp_path), "1")["ledger_seq"].tolist() == [1, 2]
    assert tuples(explore.day(Reader(tmp_path), "2023-03-10"), "purchase_id", "amount") == [
        ("1", Decimal("60.00"))
    ]


def test_nothing_changed_in_the_sample(sample: Reader) -> None:
    assert explore.what_changed(sample).empty


def test_a_day_is_explained_by_its_postings(sample: Reader) -> None:
    assert tuples(explore.explain(sample, "2023-02-18"), "amount", "why", "purchase_id", "event_file") == [
        (Decimal("500.90"), "Payment received", "78", "purchase.csv"),
        (Decimal("277.65"), "Payment received", "202", "purchase.csv"),
    ]


def test_an_empty_lake_gives_empty_frames(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    by_purchase = [explore.arrived, explore.versions, explore.latest, explore.postings, explore.counts_on]
    frames = [
        explore.daily_gmv(reader),
        explore.day(reader, "2023-02-18"),
        explore.known_on(reader, "2023-02-18"),
        explore.what_changed(reader),
        explore.explain(reader, "2023-02-18"),
        *(question(reader, "56") for question in by_purchase),
    ]
    assert [len(frame) for frame in frames] == [0] * len(frames)


def test_the_notebook_runs_on_the_sample_and_writes_nothing(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMV_EXAMPLE", str(tmp_path / "not made"))
    before = sorted(lake.rglob("*"))
    output = tmp_path / "explore.ipynb"
    papermill.execute_notebook(
        PROJECT / "notebooks" / "explore.ipynb",
        output,
        parameters={"lake": str(lake)},
        kernel_name="python3",
        progress_bar=False,
    )
    outputs = [cell.outputs for cell in nbformat.read(output, as_version=4).cells if cell.get("outputs")]
    assert len(outputs) == 14
    assert "505.50" in outputs[0][0].data["text/plain"]
    assert sorted(lake.rglob("*")) == before
