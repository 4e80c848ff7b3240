"""The hostile corpus, as one suite in one session: every file has the outcome that is declared beside it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import model
import pytest
from corpus.cases import CASES, Case, purchase
from gmv.lake.reader import Reader
from gmv.tables import EVENT_TABLES
from model import EVENT_CLASSES, Event
from pipeline import TestLake
from strategies import write_csv


@dataclass(frozen=True)
class Landed:
    """The corpus after one run.

    Attributes:
        files: the row of `bronze/files` by path.
        events: silver's versions by the path that brought them.
        rejected: the reasons of each line in quarantine, by path.
        accounts: silver's row account by path.
        was, unchanged: what lay in landing before, and after.
    """

    lake: TestLake
    files: dict[str, dict]
    events: dict[str, list[Event]]
    rejected: dict[str, dict[int, list[str]]]
    accounts: dict[str, dict]
    paid: list[Event]
    was: dict[str, bytes]
    is_now: dict[str, bytes]


@pytest.fixture(scope="module")
def landed(tmp_path_factory, spark):
    lake = TestLake(tmp_path_factory.mktemp("corpus"))
    for case in CASES:
        case.write(lake.landing)
    accepted = [event for case in CASES for event in case.accepted]
    items = sorted({event.purchase_id for event in accepted if event.table == "product_item"})
    days = (date(2023, 2, 8), date(2023, 2, 9))
    paid: list[Event] = [purchase(one, transaction_date=days[n % 2]) for n, one in enumerate(items)]
    write_csv(lake.landing, "purchase-of-all-items.csv", "purchase", paid)
    was = contents(lake.landing)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GMV_CLOSED_UNTIL", raising=False)
        lake.run(notebooks=("01_bronze",))
        silver = lake.run(notebooks=("02_silver",))
        lake.run(notebooks=("03_gold",), accept="all", because="the corpus is meant to be like this")
    reader = lake.reader
    return Landed(
        lake,
        {row["path"]: row for row in reader.rows("select * from bronze.files")},
        events_by_file(reader),
        rejected_by_file(reader),
        {account["file"]: account for account in silver["accounts"]},
        paid,
        was,
        contents(lake.landing),
    )


def contents(landing: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in sorted(landing.rglob("*"))
    }


def events_by_file(reader: Reader) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in EVENT_TABLES:
        for row in reader.rows(f"select * from silver.{event.versions.name}"):
            values = {name: row[name] for name in event.column_names}
            found[row["file"]].append(EVENT_CLASSES[event.name](**values))
    return found


def rejected_by_file(reader: Reader) -> dict[str, dict[int, list[str]]]:
    found: dict[str, dict[int, list[str]]] = defaultdict(dict)
    for row in reader.rows("select file, line, reasons from silver.quarantine"):
        found[row["file"]][row["line"]] = row["reasons"]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_file_has_the_outcome_that_is_declared(landed, case: Case):
    file = landed.files.get(case.path)
    if case.is_left:
        assert file is None
        return
    assert file is not None
    assert landed.events.get(case.path, []) == sorted_like(case.accepted, landed.events.get(case.path, []))
    assert landed.rejected.get(case.path, {}) == case.rejected
    if case.refused:
        assert file["outcome"] == "refused"
        assert case.refused in file["reason"]
        assert file["reason"].startswith(f"{case.path}: ")
        assert file["reason"].endswith(("Nothing of this file was loaded.", "It was left alone."))
        assert case.path not in landed.accounts
    else:
        assert (file["outcome"], file["reason"]) == ("ingested", None)
        account = landed.accounts[case.path]
        assert account["quarantined"] == len(case.rejected)
        assert account["new_versions"] == len(case.accepted)
        assert account["copies"] == account["records"] - len(case.accepted) - len(case.rejected)
        assert account["copies"] == (2 if case.name == "copies" else 0)


def sorted_like(expected, found) -> list[Event]:
    """The expected events in the order in which they were found; others behind, so that they are seen."""
    return sorted(expected, key=lambda event: found.index(event) if event in found else len(found))


def test_the_numbers_are_those_of_the_accepted_records(landed):
    events = [event for case in CASES for event in case.accepted] + landed.paid
    assert landed.lake.daily_gmv() == model.daily_gmv(events)
    assert len({day for day, _ in landed.lake.daily_gmv()}) > 1


def test_nothing_in_landing_was_changed(landed):
    assert landed.is_now == landed.was


def test_every_refused_file_was_a_finding_that_a_person_accepted(landed):
    rows = landed.lake.reader.rows(
        "select subject, accepted from monitoring.check_results where \"check\" = 'refused_file' and not passed"
    )
    refused = {case.path for case in CASES if case.refused and case.name != "no-table"}
    assert {row["subject"]: row["accepted"] for row in rows} == dict.fromkeys(refused, True)


def test_the_corpus_is_large_and_its_names_are_distinct():
    assert len({case.path for case in CASES}) == len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
