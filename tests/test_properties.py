"""Any events, in any files, order and runs, give the model's numbers: on real lakes, by Hypothesis.

TEST_EXAMPLES in the environment sets how many lakes are tried.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import model
from gmv.verify import verify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model import Event
from pipeline import LAYERS, TestLake
from strategies import DAYS, event_arrivals

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "4"))
AFTER_ALL = max(DAYS) + timedelta(1)

windows = st.none() | st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)).map(sorted)
ends = st.sampled_from([LAYERS[:1], LAYERS[:2], LAYERS, LAYERS])
todays = st.sampled_from([*DAYS, AFTER_ALL])
choices = st.none() | st.integers(0, 20)


@st.composite
def lives_of_a_lake(draw) -> tuple[list[Event], list[tuple]]:
    """Events; and runs: the files that arrive, the window, today, and the notebooks that the run gets to.

    With each run goes a number that chooses a file to retract before it, or to put back; or none.
    """
    events, arrivals = draw(event_arrivals(max_runs=2))
    return events, [(files, draw(windows), draw(todays), draw(ends), draw(choices)) for files in arrivals]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(lives_of_a_lake())
def test_any_order_of_files_and_runs_gives_the_same_cents(spark, life):
    all_events, runs = life
    with tempfile.TemporaryDirectory() as folder:
        lake = TestLake(Path(folder))
        arrived: dict[str, tuple[Event, ...]] = {}
        retracted: set[str] = set()
        for files, window, today, notebooks, choice in [*runs, ([], None, AFTER_ALL, LAYERS, runs[0][-1])]:
            toggle(lake, choice, retracted)
            for file in files:
                content = file.write(lake.landing).read_bytes()
                arrived[hashlib.sha256(content).hexdigest()] = file.events
            bounds = {"start_date": str(window[0]), "end_date": str(window[1])} if window else {}
            lake.run(as_of_date=str(today), notebooks=notebooks, **bounds)
        events = [
            event for sha256, of_file in arrived.items() if sha256 not in retracted for event in of_file
        ]

        assert set(events) <= set(all_events) and (retracted or set(events) == set(all_events))
        assert lake.daily_gmv() == model.daily_gmv(events)
        assert sums(lake) == expected_sums(events)
        for on in DAYS:
            assert known_on(lake, on) == model.as_known(events, on)
        assert unexplained_changes(lake) == []
        assert [one for one in verify(lake.reader, AFTER_ALL).comparisons if not one.agrees] == []


def toggle(lake: TestLake, choice: int | None, retracted: set[str]) -> None:
    """Retract one of the files that are in bronze, or put it back."""
    ingested = lake.reader.rows("select sha256 from bronze.files where outcome = 'ingested' order by path")
    if choice is not None and ingested:
        sha256 = ingested[choice % len(ingested)]["sha256"]
        lake.retract(sha256, undo=sha256 in retracted)
        retracted ^= {sha256}


def known_on(lake: TestLake, on: date) -> dict[tuple, Decimal]:
    rows = lake.reader.rows(
        "select transaction_date, subsidiary, cast(sum(amount) as decimal(38, 2)) as gmv from gold.gmv_ledger "
        "where known_on <= $on group by all having sum(purchases) > 0",
        on=on,
    )
    return {(row["transaction_date"], row["subsidiary"]): row["gmv"] for row in rows}


def sums(lake: TestLake) -> dict[tuple, tuple]:
    """The ledger by known_on, day, subsidiary and reason; what sums up to nothing is left out."""
    return {
        (row["known_on"], row["transaction_date"], row["subsidiary"], row["reason"]): (
            row["amount"],
            row["purchases"],
        )
        for row in lake.reader.rows(
            "select known_on, transaction_date, subsidiary, reason, sum(amount) as amount, "
            "cast(sum(purchases) as int) as purchases from gold.gmv_ledger group by all "
            "having sum(amount) <> 0 or sum(purchases) <> 0"
        )
    }


def expected_sums(events: list[Event]) -> dict[tuple, tuple]:
    expected: dict[tuple, tuple] = {}
    for key, (amount, purchases) in model.postings(events).items():
        known_on, day, subsidiary, reason = key[1:]
        before = expected.get((known_on, day, subsidiary, reason), (0, 0))
        total = model.EXACT.add(before[0], amount), before[1] + purchases
        expected[known_on, day, subsidiary, reason] = total
    return {key: total for key, total in expected.items() if any(total)}


def unexplained_changes(lake: TestLake) -> list[dict]:
    """Rows of the history that are not the sum of their postings since the row before."""
    return lake.reader.rows(
        """
        with history as (
            select *, lag(ledger_seq, 1, 0) over numbers as since, lag(gmv, 1) over numbers as before
            from gold.daily_gmv_history
            window numbers as (partition by transaction_date, subsidiary order by ledger_seq, published_at)
        ), explained as (
            select history.*, (
                select coalesce(sum(amount), 0) from gold.gmv_ledger as posting
                where posting.transaction_date = history.transaction_date
                  and posting.subsidiary = history.subsidiary
                  and posting.ledger_seq > since and posting.ledger_seq <= history.ledger_seq) as posted
            from history
        )
        select * from explained
        where previous_gmv is distinct from before or coalesce(gmv, 0) - coalesce(previous_gmv, 0) <> posted
        """
    )
