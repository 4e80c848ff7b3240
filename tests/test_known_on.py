"""The number as the sources knew it on a day, and as this lake had it at a moment: alone and together."""

from __future__ import annotations

import csv
import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path

import model
import pytest
from gmv import explore, show
from gmv.errors import UsageError
from gmv.lake.reader import Reader
from gmv.run import example
from gmv.tables import DAILY_GMV, DAILY_GMV_HISTORY, GMV_LEDGER
from hypothesis import given, settings
from hypothesis import strategies as st
from model import EVENT_CLASSES, Event
from model_lake import ModelLake
from small_lake import day, write
from strategies import DAYS, event_arrivals

_READERS = {
    "int": int,
    "date": dt.date.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
    "Decimal": Decimal,
}


def numbers(reader: Reader, **at: object) -> dict:
    rows = show.rows(reader, DAILY_GMV, **at)
    return {(row["transaction_date"], row["subsidiary"]): row["gmv"] for row in rows}


def delivered(morning: dt.date) -> dict[str, list[Event]]:
    """The example's files of a morning, read by the model's own types."""
    files = {}
    for file in sorted((example.DELIVERIES / morning.isoformat()).glob("*.csv")):
        event = EVENT_CLASSES[file.stem]
        with file.open(newline="") as text:
            files[f"{morning}/{file.name}"] = [event(*_values(event, row)) for row in csv.DictReader(text)]
    return files


def _values(event: type, row: dict[str, str]) -> list:
    kinds = {name: str(kind).split(" ")[0] for name, kind in event.__annotations__.items()}
    return [_READERS.get(kinds[name], str)(text) if text else None for name, text in row.items()]


def test_january_closes_at_100_and_is_80_in_february_for_ever(tmp_path):
    lake, seen = ModelLake(), {}
    for morning in example.mornings():
        lake.now = dt.datetime.combine(morning - dt.timedelta(days=1), dt.time(6))
        lake.run(delivered(morning))
        reader = lake.save(tmp_path / morning.isoformat())
        for on in ("2023-01-31", "2023-02-28", "2023-03-31", "2023-04-04"):
            if day(on) < morning:
                january = show.rows(reader, DAILY_GMV, day("2023-01-01"), day("2023-01-31"), day(on))
                seen.setdefault(on, []).append(sum(row["gmv"] for row in january))
    assert seen == {
        "2023-01-31": [Decimal("100.00")] * 8,
        "2023-02-28": [Decimal("80.00")] * 6,
        "2023-03-31": [Decimal("80.00")] * 2,
        "2023-04-04": [Decimal("95.00")],
    }
    frame = explore.known_on(reader, "2023-03-31", "2023-01-01", "2023-01-31")
    assert frame[["gmv_then", "gmv_now"]].sum().tolist() == [Decimal("80.00"), Decimal("95.00")]


def test_what_was_believed_then_needs_both_times(tmp_path):
    """The payment of purchase 110 was withdrawn on 20 March, which was learned on 2 April."""
    lake = ModelLake()
    for morning in example.mornings():
        lake.now = dt.datetime.combine(morning - dt.timedelta(days=1), dt.time(6))
        lake.run(delivered(morning))
    reader = lake.save(tmp_path)
    tenth = day("2023-03-10"), "nacional"
    first_of_april = dt.datetime(2023, 4, 1)
    assert tenth not in numbers(reader, known_on=day("2023-03-22"))
    assert numbers(reader, known_on=day("2023-03-22"), recorded_by=first_of_april)[tenth] == Decimal("80.00")
    assert tenth not in numbers(reader, recorded_by=first_of_april)
    assert numbers(reader, recorded_by=dt.datetime(2023, 3, 14))[tenth] == Decimal("80.00")


@settings(deadline=None, max_examples=40, derandomize=True)
@given(event_arrivals(max_runs=3), st.data())
def test_each_point_in_time_gives_the_models_numbers_for_any_arrival(life, data):
    events, runs = life
    lake = ModelLake()
    moments = [(lake.now, [], {})]
    for files in runs:
        published_days = data.draw(st.sets(st.sampled_from(DAYS)))
        lake.run({file.name: file.events for file in files}, publishes=published_days.__contains__)
        moments.append((lake.now + dt.timedelta(hours=1), list(lake.events), dict(lake.published)))
    with tempfile.TemporaryDirectory() as folder:
        reader = lake.save(Path(folder))
        assert numbers(reader) == lake.published
        for on in DAYS:
            assert numbers(reader, known_on=on) == model.as_known(events, on)
        for moment, arrived, published in moments:
            assert numbers(reader, recorded_by=moment) == published
            for on in DAYS:
                assert numbers(reader, known_on=on, recorded_by=moment) == model.as_known(arrived, on)


def test_a_moment_and_the_days_of_a_window_are_inclusive(tmp_path):
    tenth, moment = day("2023-03-10"), dt.datetime(2023, 3, 11, 6)
    place = {"transaction_date": tenth, "subsidiary": "nac"}
    posting = {"purchase_id": "1", "amount": Decimal("80.00"), "purchases": 1, "known_on": tenth}
    write(tmp_path, GMV_LEDGER, [{**place, **posting, "recorded_at": moment}])
    write(tmp_path, DAILY_GMV_HISTORY, [{**place, "gmv": Decimal("80.00"), "published_at": moment}])
    reader, before = Reader(tmp_path), moment - dt.timedelta(microseconds=1)
    of_that_day = {"start_date": tenth, "end_date": tenth}
    for points in ({}, {"known_on": tenth}, of_that_day):
        assert numbers(reader, recorded_by=moment, **points) == {(tenth, "nac"): Decimal("80.00")}
        assert numbers(reader, recorded_by=before, **points) == {}


def test_points_in_time_are_of_daily_gmv_only(tmp_path):
    with pytest.raises(UsageError, match="daily_gmv only"):
        show.rows(Reader(tmp_path), GMV_LEDGER, known_on=day("2023-03-22"))
