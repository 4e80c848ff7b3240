"""A lake that lives through random steps, beside the model: files, runs, windows, crashes,
retractions, maintenance, rebuilds.

After every step the published table is what the rules say of what has been published; in the end all of it is.
Hypothesis prints a failure as the shortest list of steps that shows it. TEST_EXAMPLES sets how many lives are tried.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from datetime import timedelta
from pathlib import Path

import model
from gmv import maintain, rebuild, silver_sums
from gmv.identity import new_run_id
from gmv.lake import spark
from gmv.lake.lake import Lake
from gmv.lake.reader import Reader
from gmv.recovery import finish_killed_run
from gmv.tables import EVENT_TABLES
from gmv.verify import verify
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import Event
from pipeline import LAYERS, Died, TestLake, dying, joined
from strategies import DAYS, event_lists, write_csv

LIVES = int(os.environ.get("TEST_EXAMPLES", "2"))
STEPS = int(os.environ.get("TEST_STEPS", "7"))
MOST_POINTS = 24
"""Just before and after each of a notebook's commits; some have fewer, and live on."""
AFTER_ALL = max(DAYS) + timedelta(1)

windows = st.none() | st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)).map(sorted)


class Life(RuleBasedStateMachine):
    """A lake and what it should hold: the events of each content that was taken in, and the published days."""

    files = Bundle("files")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.lake = TestLake(Path(self._folder.name))
        self.landed: dict[str, tuple[str, list[Event]]] = {}
        """By file name: table and events, as the landing folder holds them."""
        self.taken_in: dict[str, list[Event]] = {}
        """By content: the events that bronze has."""
        self.out_of_force: set[str] = set()
        """Contents that were retracted, and not restored since."""
        self.published: dict = {}
        self.today = AFTER_ALL

    def teardown(self) -> None:
        self._folder.cleanup()

    # --- Files -------------------------------------------------------------------------------------------

    @initialize(target=files, events=event_lists())
    def first_files(self, events):
        return self._deliver(events)

    @rule(target=files, events=event_lists(max_purchases=2, max_versions=2))
    def files_arrive(self, events):
        return self._deliver(events)

    @rule(names=files, more=event_lists(max_purchases=1, max_versions=2))
    def files_are_exported_again_with_more_rows(self, names, more):
        for name in names:
            table, before = self.landed[name]
            self._write(name, table, before + [event for event in more if event.table == table])

    @rule(names=files)
    def files_arrive_again_under_other_names(self, names):
        for name in names:
            self._write(name.replace(".csv", "-copy.csv"), *self.landed[name])

    def _deliver(self, events: list[Event]) -> list[str]:
        names = []
        for table in sorted({event.table for event in events}):
            names.append(f"{table}-{len(self.landed)}.csv")
            self._write(names[-1], table, [event for event in events if event.table == table])
        return names

    def _write(self, name: str, table: str, events: list[Event]) -> None:
        write_csv(self.lake.landing, name, table, events)
        self.landed[name] = (table, events)

    @rule(names=files)
    def a_file_is_retracted_or_put_back(self, names):
        for name in names[:1]:
            content = _sha256(self.lake.landing / name)
            if content in self.taken_in:
                finish_killed_run(self.lake.path)
                self.lake.retract(content, undo=content in self.out_of_force)
                self.out_of_force ^= {content}

    # --- Upkeep ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.taken_in)
    @rule()
    def the_tables_are_maintained(self):
        maintain.maintain(self.lake.path)

    @precondition(lambda self: self.taken_in)
    @rule()
    def silver_is_rebuilt(self):
        finish_killed_run(self.lake.path)
        lake = Lake(self.lake.path, spark.connect())
        rebuild.rebuild(lake, new_run_id(), lambda _: contextlib.nullcontext())

    # --- Time and runs -----------------------------------------------------------------------------------

    @rule(today=st.sampled_from([*DAYS, AFTER_ALL]))
    def the_clock_moves(self, today):
        self.today = today

    @rule(window=windows)
    def a_run(self, window):
        self.lake.run(as_of_date=str(self.today), **_bounds(window))
        self._all_is_taken_in()
        self.published = self._expected(window)

    @rule(window=windows, notebook=st.sampled_from(LAYERS), at=st.integers(1, MOST_POINTS))
    def a_run_that_dies_at_some_commit(self, window, notebook, at):
        before = LAYERS[: LAYERS.index(notebook)]
        self.lake.run(as_of_date=str(self.today), notebooks=before, **_bounds(window))
        try:
            with dying(at):
                self.lake.run(as_of_date=str(self.today), notebooks=(notebook,), **_bounds(window))
            has_died = False
        except Died:
            has_died = True
        if notebook != "01_bronze" or not has_died:
            self._all_is_taken_in()
        else:
            # What the dead notebook had taken in, a next one takes in as well: ask the lake.
            held = {row["sha256"] for row in self.lake.reader.rows(_IN_BRONZE)}
            self._take_in(held)
        if notebook == "03_gold" and self.lake.daily_gmv() == self._expected(window):
            self.published = self._expected(window)

    @invariant()
    def readers_get_what_was_published_last(self):
        assert self.lake.daily_gmv() == self.published

    @invariant()
    def kept_sums_are_the_join_of_the_tables_that_they_are_of(self):
        sums = silver_sums.kept(self.lake.reader)
        versions = {event.latest.path: sums.versions[event.name] for event in EVENT_TABLES}
        if sums.by_place:
            assert sums.by_place == joined(Reader(self.lake.path, versions))

    def _all_is_taken_in(self) -> None:
        self._take_in({_sha256(self.lake.landing / name) for name in self.landed})

    def _take_in(self, contents: set[str]) -> None:
        for name, (_, events) in self.landed.items():
            content = _sha256(self.lake.landing / name)
            if content in contents:
                self.taken_in[content] = events

    def _expected(self, window) -> dict:
        """What a run publishes: closed days of the window (of all, without one) by the rules, others as before."""
        due = model.daily_gmv(self._events_in_force())

        def is_due(place) -> bool:
            return place[0] < self.today and (window is None or window[0] <= place[0] <= window[1])

        kept = {place: gmv for place, gmv in self.published.items() if not is_due(place)}
        return kept | {place: gmv for place, gmv in due.items() if is_due(place)}

    def _events_in_force(self) -> list[Event]:
        in_force = self.taken_in.keys() - self.out_of_force
        return [event for content in in_force for event in self.taken_in[content]]

    def end_well(self) -> None:
        """A last run without a window: everything is by the rules, and another one changes nothing."""
        self.today = AFTER_ALL
        self.a_run(None)
        assert self.published == model.daily_gmv(self._events_in_force())
        assert verify(self.lake.reader, self.today).agrees
        self.readers_get_what_was_published_last()
        self.a_run(None)
        self.readers_get_what_was_published_last()


_IN_BRONZE = " union ".join(f"select sha256 from bronze.{event.name}" for event in EVENT_TABLES)


def _bounds(window) -> dict[str, str]:
    return {"start_date": str(window[0]), "end_date": str(window[1])} if window else {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_lake_lives_by_the_rules_whatever_happens_to_it(server):
    class LifeToItsEnd(Life):
        def teardown(self) -> None:
            try:
                self.end_well()
            finally:
                super().teardown()

    run_state_machine_as_test(
        LifeToItsEnd,
        settings=settings(
            max_examples=LIVES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
