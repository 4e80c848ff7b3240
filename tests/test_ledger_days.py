"""The ledger added up by day is kept, and used only as long as it is the ledger."""

import datetime as dt
import shutil
from decimal import Decimal

import pytest
from deltalake import DeltaTable, write_deltalake
from gmv import maintain, publication
from gmv.lake import ledger_days, pruning, records
from gmv.lake.reader import Reader
from gmv.tables import GMV_LEDGER, LEDGER_DAYS
from gmv.verify import verify

TODAY = dt.date(2024, 6, 1)
ADDED_UP = (
    "select transaction_date, subsidiary, known_on, cause, ledger_seq, run, sum(amount) as amount, "
    "sum(purchases) as purchases, {} as postings from {} group by all order by all"
)


def post(lake, seq: int, *amounts: str, day: int = 1) -> None:
    """One more batch of the ledger: a payment per amount."""
    date = dt.date(2024, 3, day)
    common = {
        "transaction_date": date,
        "subsidiary": "nac",
        "purchases": 1,
        "known_on": date,
        "reason": "paid",
        "cause": "event",
    }
    rows = [
        {
            **common,
            "purchase_id": f"{seq}-{number}",
            "amount": Decimal(amount),
            "ledger_seq": seq,
            "run": f"r{seq}",
        }
        for number, amount in enumerate(amounts)
    ]
    records.append(lake, GMV_LEDGER, rows)


def keep(lake) -> None:
    ledger_days.keep(Reader(lake))


def opened(lake) -> bool:
    """Whether the ledger itself has to be looked at."""
    return "gmv_ledger" in ledger_days.by_day(Reader(lake))


def is_right(lake, version: int | None = None) -> bool:
    """Whether the sums are those of the ledger, of the newest version or an older one."""
    reader = Reader(lake, {} if version is None else {GMV_LEDGER.path: version})
    sums = reader.rows(ADDED_UP.format("sum(postings)", f"({ledger_days.by_day(reader)})"))
    return sums == reader.rows(ADDED_UP.format("count(*)", "gold.gmv_ledger"))


@pytest.fixture
def lake(tmp_path):
    """Two batches, of which the sums are kept."""
    post(tmp_path, 1, "10.00", "0.05")
    post(tmp_path, 2, "7.50", day=2)
    keep(tmp_path)
    return tmp_path


def test_kept_sums_are_used_and_only_new_batches_are_added_up(lake):
    assert not opened(lake)
    assert is_right(lake)
    before = pruning.described(DeltaTable(lake / LEDGER_DAYS.path))
    post(lake, 3, "1.00", "2.00")
    assert opened(lake)
    assert is_right(lake)
    assert "where ledger_seq > 2 " in ledger_days.by_day(Reader(lake))
    keep(lake)
    assert not opened(lake)
    assert is_right(lake)
    after = pruning.described(DeltaTable(lake / LEDGER_DAYS.path))
    assert [file for file in after if file in before] == before, "what is kept is not written again"
    assert sum(file["num_records"] for file in after) == 3


def test_nothing_is_committed_where_nothing_is_new(lake):
    version = DeltaTable(lake / LEDGER_DAYS.path).version()
    keep(lake)
    maintain.maintain(lake)
    maintained = DeltaTable(lake / LEDGER_DAYS.path).version()
    keep(lake)
    assert version == 0
    assert DeltaTable(lake / LEDGER_DAYS.path).version() == maintained


def test_a_lake_without_a_ledger_or_sums_has_its_own(tmp_path):
    keep(tmp_path)
    assert not (tmp_path / LEDGER_DAYS.path).exists()
    assert publication.ledger_sums(Reader(tmp_path)) == {}
    post(tmp_path, 1, "10.00")
    assert is_right(tmp_path)
    assert publication.ledger_sums(Reader(tmp_path)) == {(dt.date(2024, 3, 1), "nac"): Decimal("10.00")}


def test_a_ledger_that_is_gone_has_no_sums(lake):
    shutil.rmtree(lake / GMV_LEDGER.path)
    assert ledger_days.newest_seq(Reader(lake)) == 0


def test_the_newest_batch_has_the_greatest_number_though_one_before_it_was_lost(lake):
    post(lake, 9, "1.00")
    for _ in ("added up", "kept"):
        assert ledger_days.newest_seq(Reader(lake)) == 9
        keep(lake)


def test_they_hold_through_maintenance_of_the_ledger(lake):
    post(lake, 3, "1.00")
    maintain.maintain(lake)
    assert "where ledger_seq > 2 " in ledger_days.by_day(Reader(lake))
    assert is_right(lake)
    keep(lake)
    maintain.maintain(lake)
    assert is_right(lake)


def test_an_older_version_of_the_ledger_has_its_own_sums(lake):
    for version in (0, 1):
        assert is_right(lake, version)
    post(lake, 3, "1.00")
    keep(lake)
    for version in (0, 1, 2):
        assert is_right(lake, version)


def changed(lake) -> None:
    table = DeltaTable(lake / GMV_LEDGER.path)
    table.update({"amount": "cast(9.99 as decimal(38, 2))"}, predicate="purchase_id = '1-0'")


def overwritten(lake) -> None:
    rows = Reader(lake).arrow(
        "select * replace (cast(9.99 as decimal(38, 2)) as amount) from gold.gmv_ledger"
    )
    write_deltalake(lake / GMV_LEDGER.path, rows, mode="overwrite")


def lost(lake) -> None:
    DeltaTable(lake / GMV_LEDGER.path).delete("ledger_seq = 2")


def joined(lake) -> None:
    """A posting that somebody adds to a batch of which the sums are kept, with a newer one."""
    post(lake, 1, "0.30")
    post(lake, 3, "0.04")


def made_anew(lake) -> None:
    """As many commits as there were, with the same numbers and other amounts."""
    shutil.rmtree(lake / GMV_LEDGER.path)
    post(lake, 1, "11.00", "0.05")
    post(lake, 2, "7.50", day=2)


def brought_back(lake) -> None:
    """From a backup, and then another batch under the same number."""
    shutil.rmtree(lake / GMV_LEDGER.path)
    shutil.copytree(lake / "backup", lake / GMV_LEDGER.path)
    post(lake, 2, "8.00", day=3)


def behind(lake) -> None:
    """From a backup that has less."""
    shutil.rmtree(lake / GMV_LEDGER.path)
    shutil.copytree(lake / "backup", lake / GMV_LEDGER.path)


def without_its_log(lake) -> None:
    """The commit by which the sums would be told to hold is not in the log any more."""
    table = DeltaTable(lake / GMV_LEDGER.path)
    changed(lake)
    table.update_incremental()
    table.create_checkpoint()
    for number in (0, 1):
        (lake / GMV_LEDGER.path / "_delta_log" / f"{number:020}.json").unlink()


@pytest.mark.parametrize(
    "harm", [changed, overwritten, lost, joined, made_anew, brought_back, behind, without_its_log]
)
def test_whatever_else_became_of_the_ledger_it_is_added_up_anew(tmp_path, harm):
    post(tmp_path, 1, "10.00", "0.05")
    shutil.copytree(tmp_path / GMV_LEDGER.path, tmp_path / "backup")
    post(tmp_path, 2, "7.50", day=2)
    keep(tmp_path)
    harm(tmp_path)
    assert opened(tmp_path)
    assert is_right(tmp_path)
    keep(tmp_path)
    assert not opened(tmp_path)
    assert is_right(tmp_path)


def test_verify_finds_sums_that_are_not_those_of_the_ledger(lake):
    (kept,) = [one for one in verify(Reader(lake), TODAY).comparisons if one.name == "ledger_days"]
    assert (kept.rows, kept.different, kept.cents_apart) == (2, 0, 0)
    DeltaTable(lake / LEDGER_DAYS.path).update(
        {"amount": "cast(10.06 as decimal(38, 2))"}, predicate="transaction_date = '2024-03-01'"
    )
    (kept,) = [one for one in verify(Reader(lake), TODAY).comparisons if one.name == "ledger_days"]
    assert (kept.different, kept.cents_apart) == (1, 1)
    assert kept.differences[0]["transaction_date"] == dt.date(2024, 3, 1)
