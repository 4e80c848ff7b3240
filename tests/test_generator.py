"""The generator of benchmark data: the same bytes for a seed, and the rates that it states."""

from __future__ import annotations

import hashlib
import importlib
import math
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
generator = importlib.import_module("generate")

PURCHASES = 20_000
END_DATE = date(2024, 3, 31)
DAYS = ("2024-04-01", "2024-04-02", "2024-04-03")


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first load and three days after it."""
    out = tmp_path_factory.mktemp("generated") / "landing"
    generator.generate(out, PURCHASES, increments=len(DAYS), seed=7, end_date=END_DATE, per_day=1_000)
    return out


@pytest.fixture(scope="module")
def db(landing: Path) -> duckdb.DuckDBPyConnection:
    """The three tables as they arrived, with `file`; and `versions`, all of them without copies."""
    connection = duckdb.connect()
    for table in ("purchase", "product_item", "purchase_extra_info"):
        files = [str(file) for file in landing.glob(f"{table}[.-]*")]
        events = connection.read_csv(files, header=True, all_varchar=True, filename="file")
        events.project(
            """* replace (
                transaction_datetime::timestamp as transaction_datetime,
                transaction_date::date as transaction_date,
                purchase_id::bigint as purchase_id
            )"""
        ).create(table)
    connection.execute(
        """create view versions as
           select distinct 'purchase' as kind, transaction_datetime, purchase_id, release_date as content
           from purchase
           union all select distinct 'product_item', transaction_datetime, purchase_id, purchase_value
           from product_item
           union all select distinct 'purchase_extra_info', transaction_datetime, purchase_id, subsidiary
           from purchase_extra_info"""
    )
    return connection


def is_plausible(found: int, trials: int, share: float) -> bool:
    """Whether a count is within five standard deviations of what a share of the trials gives."""
    return abs(found - trials * share) <= 5 * math.sqrt(trials * share * (1 - share))


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def one(db: duckdb.DuckDBPyConnection, query: str) -> tuple:
    row = db.execute(query).fetchone()
    assert row is not None
    return row


# --- Files ---------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        generator.generate(tmp_path / name, 300, increments=1, seed=seed, per_day=50)

    assert hashes(tmp_path / "one") == hashes(tmp_path / "again")
    one_, other = hashes(tmp_path / "one"), hashes(tmp_path / "other")
    assert one_.keys() == other.keys()
    assert not set(one_.values()) & set(other.values())


def test_more_increments_only_add_files(tmp_path: Path) -> None:
    generator.generate(tmp_path / "few", 300, increments=1, per_day=50)
    generator.generate(tmp_path / "more", 300, increments=2, per_day=50)

    few, more = hashes(tmp_path / "few"), hashes(tmp_path / "more")
    assert few.items() < more.items()
    assert sorted(more.keys() - few.keys()) == [
        "product_item-2025-01-02.csv",
        "purchase-2025-01-02.csv",
        "purchase_extra_info-2025-01-02.csv",
    ]


def test_parts_hold_the_rows_of_the_one_file_in_their_order(tmp_path: Path) -> None:
    generator.generate(tmp_path / "whole", 300)
    generator.generate(tmp_path / "parts", 300, parts=3)

    parts = [(tmp_path / "parts" / f"purchase-part-00{part}.csv").read_text() for part in (1, 2, 3)]
    header, rows = (tmp_path / "whole" / "purchase.csv").read_text().split("\n", 1)
    assert "".join(part.removeprefix(header + "\n") for part in parts) == rows
    assert len(list((tmp_path / "parts").iterdir())) == 9


def test_rows_and_bytes_are_told_as_they_lie_there(tmp_path: Path) -> None:
    for file in generator.generate(tmp_path / "out", 300, increments=1, per_day=50):
        content = file.path.read_bytes()
        assert (file.rows, file.bytes) == (content.count(b"\n") - 1, len(content))


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    command = [sys.executable, str(BENCHMARKS / "generate.py")]

    refused = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=60)
    made = subprocess.run(
        [*command, str(tmp_path / "new"), "--purchases", "10"], capture_output=True, text=True, timeout=60
    )

    assert refused.returncode == 2
    assert "exists. Remove it, or name another folder." in refused.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.txt"]
    assert made.returncode == 0, made.stderr
    assert "purchase_extra_info.csv" in made.stdout


def test_columns_are_those_of_the_tables(landing: Path) -> None:
    tables = importlib.import_module("gmv.tables")
    for table in tables.EVENT_TABLES:
        for name in (table.name, f"{table.name}-{DAYS[0]}"):
            with (landing / f"{name}.csv").open() as file:
                assert file.readline().rstrip("\n").split(",") == table.column_names


# --- Purchases ----------------------------------------------------------------------------------------


def test_purchase_ids_rise_with_the_time_of_purchase(db: duckdb.DuckDBPyConnection) -> None:
    first = "select purchase_id, min(transaction_datetime) as made_at from {} group by all"
    falls = (
        "select count(*) from (select made_at < lag(made_at) over (order by purchase_id) as fell from ({})) \
        where fell"
    )
    assert one(db, falls.format(first.format("product_item"))) == (0,)
    # Payments come in any order, so the query does see a fall.
    paid = first.format("(from purchase where release_date is not null)")
    assert one(db, falls.format(paid)) > (0,)


def test_the_first_load_has_the_purchases_asked_for_in_two_years(db: duckdb.DuckDBPyConnection) -> None:
    made = "select count(distinct purchase_id), min(transaction_date), max(transaction_date) from versions \
        join purchase using (purchase_id, transaction_datetime) where file like '%/purchase.csv'"
    count, first, last = one(db, made)
    assert PURCHASES - 10 <= count <= PURCHASES  # a few arrive late
    assert (last - first).days in range(generator.HISTORY_DAYS - 3, generator.HISTORY_DAYS)
    assert last == END_DATE


def test_a_steady_history_is_longer_instead_of_fuller(tmp_path: Path) -> None:
    for purchases in (1_000, 4_000):
        out = tmp_path / str(purchases)
        generator.generate(out, purchases, increments=1, end_date=END_DATE, per_day=100, steady=True)
        first, last, count, newest = one(
            duckdb.connect(),
            f"""select min(transaction_date)::date, max(transaction_date)::date, count(distinct purchase_id),
                       max(purchase_id::bigint)
                from read_csv('{out / "product_item.csv"}', all_varchar = true)""",
        )
        assert (last, newest) == (END_DATE, purchases)
        assert (last - first).days + 1 == purchases // 100
        assert count > 0.99 * purchases  # a few arrive late
        after = (out / f"product_item-{DAYS[0]}.csv").read_text().splitlines()[1:]
        assert 100 * 0.95 * 0.7 < len(after) < 100 * 0.95 * 1.4


@pytest.mark.parametrize("size", [0, 300])
def test_a_day_after_the_first_load_has_its_purchases_whatever_the_history(tmp_path: Path, size: int) -> None:
    generator.generate(tmp_path / "out", size, increments=1, seed=3, end_date=date(2024, 2, 4), per_day=2_000)

    items = (tmp_path / "out" / "product_item-2024-02-05.csv").read_text().splitlines()[1:]
    # A Monday brings 0.95 of an average day, which varies by 5 %.
    assert 2_000 * 0.95 * 0.8 < len(items) < 2_000 * 0.95 * 1.2


def test_transaction_date_is_the_day_of_the_time(db: duckdb.DuckDBPyConnection) -> None:
    for table in ("purchase", "product_item", "purchase_extra_info"):
        same = f"select bool_and(transaction_date = transaction_datetime::date), count(*) > 0 from {table}"
        assert one(db, same) == (True, True)


def test_increments_hold_what_arrived_on_their_day_also_for_old_purchases(
    db: duckdb.DuckDBPyConnection,
) -> None:
    # Made at the history's last rate; of those not yet paid, a day brings what the exponential says.
    last_rate = PURCHASES / generator.HISTORY_DAYS * generator.GROWTH[1] * generator.PAID
    lag = generator.PAYMENT_LAG_DAYS
    for number, day in enumerate(DAYS):
        payments = last_rate * lag * (math.exp(-number / lag) - math.exp(-(number + 1) / lag))
        later, of_the_day, of_old_purchases = one(
            db,
            f"""select count(*) filter (transaction_date > date '{day}'),
                       count(*) filter (transaction_date = date '{day}'),
                       count(*) filter (purchase_id <= {PURCHASES})
                from purchase where file like '%-{day}.csv'""",
        )
        assert later == 0
        assert of_the_day > 1_000
        assert payments / 2 < of_old_purchases < payments * 2


# --- Rates --------------------------------------------------------------------------------------------


def test_payments_come_at_the_stated_rate_three_days_later_on_average(db: duckdb.DuckDBPyConnection) -> None:
    # Only purchases whose payment can have arrived by the end.
    purchases, paid, mean_days = one(
        db,
        """with lives as (
               select min(transaction_datetime) as made_at,
                      min(transaction_datetime) filter (release_date is not null) as paid_at
               from purchase group by purchase_id
           )
           select count(*), count(paid_at), avg(epoch(paid_at - made_at)) / 86400
           from lives where made_at < date '2024-03-01'""",
    )
    assert is_plausible(paid, purchases, generator.PAID)
    # The standard deviation of an exponential is its mean.
    assert abs(mean_days - 3) < 5 * 3 / math.sqrt(paid)


def test_corrections_come_at_the_stated_rate_within_ninety_days(db: duckdb.DuckDBPyConnection) -> None:
    # The first item, the first extra information and the first payment are no corrections.
    purchases, corrected, later_than_90_days = one(
        db,
        """with ordered as (
               select *, row_number() over (partition by kind, purchase_id order by transaction_datetime) as nth,
                      max(transaction_datetime) filter (content is not null)
                          over (partition by purchase_id order by transaction_datetime
                                rows between unbounded preceding and 1 preceding) as before
               from versions where purchase_id in (
                   select purchase_id from product_item
                   group by all having min(transaction_date) < date '2023-12-15')
           ), corrections as (
               select * from ordered where nth > if(kind = 'purchase', 2, 1)
           )
           select (select count(distinct purchase_id) from ordered), count(distinct purchase_id),
                  count(*) filter (transaction_datetime - before > interval 90 days)
           from corrections""",
    )
    assert is_plausible(corrected, purchases, generator.CORRECTED)
    assert later_than_90_days == 0


def test_corrections_are_a_mix_of_all_kinds(db: duckdb.DuckDBPyConnection) -> None:
    changed = (
        "select purchase_id from versions where kind = '{}' group by all having count(distinct content) > 1"
    )
    withdrawn = "select purchase_id from purchase group by all having arg_max_null(release_date, \
        transaction_datetime) is null and count(release_date) > 0"
    moved = "select purchase_id from purchase group by all having count(distinct release_date) > 1"
    corrections = PURCHASES * generator.CORRECTED
    for kind, query in {
        "repriced": changed.format("product_item"),
        "moved_subsidiary": changed.format("purchase_extra_info"),
        "moved_day": moved,
        "withdrawn": withdrawn,
    }.items():
        (found,) = one(db, f"select count(*) from ({query})")
        assert found > corrections * generator.CORRECTIONS[kind] / 2, kind


def test_copies_are_exact_and_come_at_the_stated_rate(db: duckdb.DuckDBPyConnection) -> None:
    for table in ("purchase", "product_item", "purchase_extra_info"):
        columns = "columns(* exclude file)"
        records, distinct = one(
            db,
            f"select (select count(*) from {table}), "
            f"(select count(*) from (select distinct {columns} from {table}))",
        )
        assert is_plausible(records - distinct, distinct, generator.REPEATED)


def test_late_events_come_at_the_stated_rate_up_to_a_year_later() -> None:
    np = importlib.import_module("numpy")
    events = np.zeros(1_000_000, generator._PURCHASE_EXTRA_INFO)
    events["purchase_id"] = np.arange(len(events))

    sent = generator._sent(events, np.random.default_rng(5))[: len(events)]
    days = (sent["arrives"] - sent["happens"]).astype("i8") / 86_400

    late = days[days > 0]
    assert is_plausible(len(late), len(events), generator.LATE)
    assert not is_plausible(len(late), len(events), generator.LATE * 3)
    assert late.min() >= 1
    assert 300 < late.max() <= 365


def test_extra_information_takes_minutes_to_days(db: duckdb.DuckDBPyConnection) -> None:
    median_minutes, longer_than_a_day = one(
        db,
        """select median(minutes), avg((minutes > 1440)::int)
           from (select date_diff('second', min(item.transaction_datetime), min(info.transaction_datetime)) / 60
                     as minutes
                 from product_item item join purchase_extra_info info using (purchase_id) group by purchase_id)""",
    )
    assert 27 < median_minutes < 33
    assert 0.01 < longer_than_a_day < 0.05


def test_versions_with_the_same_time_are_rare(db: duckdb.DuckDBPyConnection) -> None:
    ties = "select count(*) from (select 1 from versions group by kind, purchase_id, {} having count(*) > 1)"
    assert one(db, ties.format("transaction_datetime")) < (10,)
    # Without the time there are many, so the query does see versions of the same purchase.
    assert one(db, ties.format("1 + 1")) > (10_000,)


def test_a_share_that_is_off_by_a_third_is_not_plausible() -> None:
    assert is_plausible(1_000, 20_000, 0.05)
    assert not is_plausible(1_333, 20_000, 0.05)
    assert not is_plausible(667, 20_000, 0.05)


def test_a_day_brings_the_late_company_of_its_own_purchases_however_full_the_history(tmp_path: Path) -> None:
    rows = {}
    for purchases in (20_000, 200_000):
        # At its end, the history has 50 purchases a day, or 500.
        out = tmp_path / str(purchases)
        files = generator.generate(out, purchases, increments=1, end_date=END_DATE, per_day=50)
        rows[purchases] = sum(file.rows for file in files if DAYS[0] in file.path.name)

    assert 0.8 <= rows[200_000] / rows[20_000] <= 1.2
