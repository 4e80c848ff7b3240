"""A lake, landing and runs in S3, on a real server, without Spark: reading, writing, the lease."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from email.utils import format_datetime, parsedate_to_datetime

import object_store
import pytest
from command import GMV
from gmv import doctor, landing, show, tables
from gmv.errors import GmvError, LakeLocked, UsageError
from gmv.lake import lease, location, lock, records
from gmv.lake.reader import Reader
from gmv.settings import PROJECT, settings

SAMPLE = PROJECT / "data_lake" / "landing"


@pytest.fixture
def place(store):
    """A place in a bucket of its own."""
    return location.location(f"s3://{store.make_bucket('gmv')}/test")


def test_published_days_are_written_and_read_to_the_cent_over_three_buckets(store):
    for bucket in ("acme-raw", "acme-curated", "acme-analytics"):
        store.make_bucket(bucket)
    lake = location.location("s3://acme-{zone}/lake")
    day = dt.date(2023, 2, 8)
    rows = [{"transaction_date": day, "subsidiary": "a%20b=c", "gmv": Decimal("9999999999999999999999.99")}]
    records.replace_days(lake, [day], rows, {"run": "one"})
    records.append(lake, tables.PROGRESS, [{"step": "silver", "bronze_run": "one", "run": "one"}])
    reader = Reader(lake)
    assert show.as_csv(["transaction_date", "subsidiary", "gmv"], show.rows(reader, tables.DAILY_GMV)) == (
        "transaction_date,subsidiary,gmv\n2023-02-08,a%20b=c,9999999999999999999999.99\n"
    )
    assert reader.rows("select bronze_run from monitoring.progress") == [{"bronze_run": "one"}]
    assert records.last_marks(lake, tables.DAILY_GMV) == {"run": "one"}
    assert (store.folder / "data" / "acme-analytics" / "lake" / "gold" / "daily_gmv").is_dir()
    assert not any((store.folder / "data" / "acme-raw").iterdir())


@pytest.mark.parametrize("name", ["my lake", "Größe", "50%", "a+b&c='d'"])
def test_a_lake_may_have_any_name_in_s3_that_a_uri_may_hold(place, name):
    rows = [{"step": "silver", "bronze_run": "one", "run": "one"}]
    records.append(place / name, tables.PROGRESS, rows)
    assert Reader(place / name).rows("select bronze_run from monitoring.progress") == [{"bronze_run": "one"}]
    listed = {found.path.split("/")[0] for found in location.objects(place)}
    assert listed == {name}


@pytest.mark.parametrize(
    "name, unfit", [("a#b", "#"), ("what?", "?"), ("50%25", "%25"), ("my [own] lake", "[ ]")]
)
def test_a_name_that_a_uri_takes_for_something_else_is_refused_before_anything_is_written(place, name, unfit):
    with pytest.raises(UsageError, match=re.escape(f"can't write below a folder with {unfit} in its name")):
        lock.acquire(place / name, "the test")
    assert location.objects(place) == []


def test_what_a_data_file_is_like_is_asked_once(place, store):
    rows = [{"step": "silver", "bronze_run": "one", "run": "one"}]
    records.append(place, tables.PROGRESS, rows)
    records.append(place, tables.PROGRESS, rows)
    before = store.requests()["HeadObject"]
    for _ in range(3):
        assert len(Reader(place).rows("select * from monitoring.progress")) == 2
    assert store.requests()["HeadObject"] - before == 2, "two files"


def test_objects_of_landing_are_found_and_staged_as_files_are(place, tmp_path):
    for file in SAMPLE.iterdir():
        location.filesystem().put_file(str(file), str(place / "in" / file.name))
    location.filesystem().pipe_file(str(place / "in" / "_hidden" / "purchase.csv"), b"x")
    found, expected = landing.find(place / "in"), landing.find(SAMPLE)
    assert [(file.path, file.table, file.size) for file in found] == [
        (file.path, file.table, file.size) for file in expected
    ]
    now = dt.datetime(2023, 3, 1)
    for stored, local in zip(found, expected, strict=True):
        event = tables.event_table(stored.table)
        one = landing.stage(stored, event, "run", now, tmp_path / "one")
        other = landing.stage(local, event, "run", now, tmp_path / "other")
        assert (one.sha256, one.records) == (other.sha256, other.records)
        assert one.parquet.read_bytes() == other.parquet.read_bytes()


def test_an_object_that_was_replaced_since_it_was_listed_waits(place):
    put = location.filesystem().pipe_file
    put(str(place / "purchase.csv"), b"transaction_datetime\n")
    (file,) = landing.find(place)
    put(str(place / "purchase.csv"), b"transaction_datetime,transaction_date\n")
    with pytest.raises(landing.Changed, match=r"changed while it was read\. It waits for the next run"):
        landing.sha256(file)


@pytest.mark.parametrize("way", object_store.WAYS)
def test_credentials_of_a_profile_or_role_are_found_by_each_library(place, store, tmp_path, monkeypatch, way):
    user = store.make_user("pipeline")
    store.allow("pipeline", "gmv", {"": ["s3:ListBucket"], "*": ["s3:GetObject", "s3:PutObject"]})
    for name in user:
        monkeypatch.delenv(name)
    with object_store.given_by(way, user, tmp_path) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        object_store.forget_connections()
        lake = location.location(str(place))
        lock.acquire(lake, "the test").release()
        records.append(lake, tables.PROGRESS, [{"step": "silver", "bronze_run": "one", "run": "one"}])
        assert Reader(lake).rows("select bronze_run from monitoring.progress") == [{"bronze_run": "one"}]


@pytest.mark.parametrize("failure", ["wrong bucket", "missing permission", "expired credential", "no server"])
def test_each_failure_ends_in_one_sentence_with_the_last_numbers_in_place(store, failure, tmp_path):
    for bucket in ("acme-raw", "acme-curated", "acme-analytics"):
        store.make_bucket(bucket)
    lake = location.location("s3://acme-{zone}/lake")
    day = dt.date(2023, 2, 8)
    rows = [{"transaction_date": day, "subsidiary": "nac", "gmv": Decimal("1.00")}]
    records.replace_days(lake, [day], rows, {"run": "one"})
    gate = object_store.Gate(store.port)
    gate.answer("400 Bad Request", "ExpiredToken", "The provided token has expired.")
    broken, sentence = {
        "wrong bucket": (
            {"GMV_LAKE": "s3://nobody-{zone}/lake"},
            r"s3://nobody-\w+/lake: there is no such bucket",
        ),
        "missing permission": (store.make_user("nobody"), r"s3://acme-\w+/lake: permission is missing"),
        "expired credential": (
            {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}"},
            r"s3://acme-\w+/lake: the credentials have expired",
        ),
        "no server": (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            r"s3://acme-\w+/lake: the object store does not answer",
        ),
    }[failure]
    environment = {"GMV_LAKE": str(lake), "GMV_LANDING": str(SAMPLE), "GMV_RUNS_DIR": str(tmp_path)}
    for command in ("run", "show daily_gmv", "status"):
        told = subprocess.run(
            [GMV, *command.split()],
            env={**os.environ, **environment, **broken},
            capture_output=True,
            text=True,
        )
        assert (told.returncode, told.stdout) == (1, "")
        assert re.fullmatch(f"gmv: {sentence}.*\n", told.stderr), f"{command}: {told.stderr}"
    gate.close()
    assert Reader(lake).rows("select * from gold.daily_gmv") == rows


def test_a_missing_bucket_and_a_wrong_secret_are_told_in_one_sentence(store, monkeypatch):
    with pytest.raises(GmvError, match=r"^s3://nowhere/lake: there is no such bucket"):
        location.check(location.location("s3://nowhere/lake"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    object_store.forget_connections()
    with pytest.raises(GmvError, match="does not accept these credentials") as told:
        location.check(location.location("s3://nowhere/lake"))
    assert "wrong" not in str(told.value)


def test_a_role_that_may_list_below_a_prefix_only_is_enough(place, monkeypatch):
    ask = location.filesystem().call_s3

    def below_only(method, **request):  # as s3:prefix in a role's condition does: test/*
        if method == "list_objects_v2" and not request["Prefix"].startswith("test/"):
            raise PermissionError("Access Denied")
        return ask(method, **request)

    monkeypatch.setattr(location.filesystem(), "call_s3", below_only)
    location.check(place)
    assert location.objects(place) == []
    with pytest.raises(GmvError, match="permission is missing"):
        location.check(place.parent / "tests")


def test_a_server_that_is_gone_is_told_in_one_sentence(place, store):
    store.stop()
    with pytest.raises(GmvError, match="the object store does not answer"):
        location.check(place)


def test_a_folders_files_are_copied_when_they_are_new_or_have_changed(place, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    newest = location.upload(tmp_path, place)
    location.filesystem().rm(str(place / "run.json"))
    (tmp_path / "report.html").write_text("page")
    os.utime(tmp_path / "report.html", (newest + 1, newest + 1))
    location.upload(tmp_path, place, newest + 0.5)
    assert [found.path for found in location.objects(place)] == ["report.html"]


# --- The lease ----------------------------------------------------------------------------------------


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setenv("GMV_LEASE_SECONDS", "2")
    settings.cache_clear()
    yield 2
    settings.cache_clear()


def test_a_lake_has_one_holder_who_keeps_it_beyond_a_lease_by_renewing(place, short_lease):
    held = lease.acquire(place, "run one")
    time.sleep(short_lease + 2)
    with pytest.raises(LakeLocked, match="is being written by run one"):
        lease.acquire(place, "run two")
    held.release()
    lease.acquire(place, "run two").release()


def test_a_lake_that_another_machine_writes_is_not_free(place):
    lock.ensure_free(place)
    held = lease.acquire(place, "run one")  # without the lock of this machine
    with pytest.raises(LakeLocked, match="is being written by run one"):
        lock.ensure_free(place)
    held.release()
    lock.ensure_free(place)


def test_who_stops_renewing_has_the_lake_for_one_lease_more(place, short_lease):
    held = lock.acquire(place, "run one")
    time.sleep(short_lease / 2)
    assert held.stop_renewing()
    with pytest.raises(LakeLocked, match="is being written by run one"):
        lease.ensure_free(place)
    time.sleep(short_lease + 1.5)  # the store's clock tells whole seconds
    lease.ensure_free(place)
    assert held.loss == ""
    held.release()


def test_who_can_not_renew_once_more_is_told_that_nothing_can_be_written(place, store):
    held = lock.acquire(place, "run one")
    store.stop()
    assert not held.stop_renewing()
    held.release()


def test_a_lake_whose_lease_is_anothers_is_not_locked_on_this_machine_either(place):
    other = lease.acquire(place, "a run elsewhere")
    with pytest.raises(LakeLocked, match="by a run elsewhere"):
        lock.acquire(place, "run two")
    other.release()
    lock.acquire(place, "run two").release()
    lease.ensure_free(place)


@pytest.mark.parametrize("was_held", [False, True])
def test_many_that_ask_at_once_give_one_holder(place, was_held):
    if was_held:
        lease.acquire(place, "a run before").release()
    won, lost = [], []

    def ask(number: int) -> None:
        try:
            won.append(lease.acquire(place, f"run {number}"))
        except LakeLocked:
            lost.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].release()


def _is_aged(store, place, seconds: int) -> None:
    """Let the lease on a place have been renewed for the last time so many seconds ago."""
    then = time.time() - seconds
    os.utime(store.folder / "data" / str(place / lease.LEASE_OBJECT).removeprefix("s3://"), (then, then))


def test_a_lease_is_over_when_all_of_it_has_passed(place, store):
    first = lease.acquire(place, "run one")
    _is_aged(store, place, 280)
    with pytest.raises(
        LakeLocked, match=r"is being written by run one .* its lease ends in (20|19|18) seconds"
    ):
        lease.acquire(place, "run two")
    _is_aged(store, place, 303)
    lease.ensure_free(place)
    lease.acquire(place, "run two").release()
    first.release()


def test_a_lease_is_as_old_as_the_stores_clock_says_whatever_the_clock_here_says(place, monkeypatch):
    held = lease.acquire(place, "run one")
    ask, hour = location.filesystem()._call_s3, dt.timedelta(hours=1)

    async def behind(method, **request):
        told = await ask(method, **request)
        if method == "get_object":
            headers = told["ResponseMetadata"]["HTTPHeaders"]
            headers["date"] = format_datetime(parsedate_to_datetime(headers["date"]) - hour)
            told["LastModified"] -= hour
        return told

    with monkeypatch.context() as patch:
        patch.setattr(location.filesystem(), "_call_s3", behind)
        with pytest.raises(LakeLocked, match="is being written by run one"):
            lease.ensure_free(place)
    held.release()


def test_who_lost_the_lake_before_noticing_it_does_not_let_go_of_the_others_lease(place, store):
    slow = lease.acquire(place, "run one")
    _is_aged(store, place, 303)
    frozen = lease.acquire(place, "run two")
    assert not slow.stop_renewing()
    slow.release()
    _is_aged(store, place, 303)
    other = lease.acquire(place, "run three")
    frozen.release()
    with pytest.raises(LakeLocked, match="is being written by run three"):
        lease.ensure_free(place)
    other.release()


def test_a_lease_is_renewed_several_times_before_half_of_it_has_passed(place, monkeypatch):
    monkeypatch.setenv("GMV_LEASE_SECONDS", "10")
    settings.cache_clear()
    held, renewals = lease.acquire(place, "run one"), []
    renew = held._renew
    monkeypatch.setattr(held, "_renew", lambda within: renewals.append(within) or renew(within))
    time.sleep(4.5)
    assert len(renewals) >= 2
    held.release()


@pytest.mark.parametrize("store_hangs", [False, True])
def test_a_lease_that_can_not_be_renewed_is_given_up_after_half_of_it_and_before_its_end(
    place, monkeypatch, store_hangs
):
    monkeypatch.setenv("GMV_LEASE_SECONDS", "4")
    settings.cache_clear()
    given_up = threading.Event()
    monkeypatch.setattr(lease, "_end_this_process", lambda why: given_up.set())

    def without_an_answer(place, content, within, **condition):
        time.sleep(within if store_hangs else 0)
        raise ConnectionError("no answer")

    held, since = lease.acquire(place, "run one"), time.monotonic()
    monkeypatch.setattr(lease, "_put", without_an_answer)
    assert not given_up.wait(1.5) and given_up.wait(10)
    assert time.monotonic() - since < 4
    assert "the object store does not answer" in held.loss


def test_a_first_attempt_whose_answer_was_lost_is_found_by_the_second(place, monkeypatch):
    ask = location.filesystem().call_s3

    def twice(method, **request):
        if method == "put_object":
            ask(method, **request)
        return ask(method, **request)

    with monkeypatch.context() as patch:
        patch.setattr(location.filesystem(), "call_s3", twice)
        held = lease.acquire(place, "run one")
    assert held.stop_renewing()
    held.release()


HOLD = """
import sys, time
from gmv.lake import location, lock
held = lock.acquire(location.location(sys.argv[1]), "run one")
print("held", flush=True)
time.sleep(60)
"""


def _hold(place, store) -> subprocess.Popen:
    environment = {
        **os.environ,
        **store.environment(),
        "XDG_CACHE_HOME": str(store.folder),
    }  # as another machine
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], env=environment, stdout=-1, stderr=-1, text=True
    )
    assert holder.stdout.readline() == "held\n"
    return holder


def test_the_lease_of_a_killed_holder_is_taken_over_when_it_has_passed_and_not_before(
    place, store, short_lease
):
    holder = _hold(place, store)
    holder.kill()
    holder.wait()
    killed = time.monotonic()
    with pytest.raises(LakeLocked, match="If it was killed, its lease ends in"):
        lock.acquire(place, "run two")
    lock.acquire(place, "run two", wait_seconds=20).release()
    assert time.monotonic() - killed > short_lease - 1.2  # the store's clock tells whole seconds


def test_a_holder_that_was_frozen_for_too_long_ends_itself_when_it_thaws(place, store, short_lease):
    holder = _hold(place, store)
    holder.send_signal(signal.SIGSTOP)
    held = lock.acquire(place, "run two", wait_seconds=20)
    holder.send_signal(signal.SIGCONT)
    _, told = holder.communicate(timeout=30)
    assert holder.returncode != 0
    assert "The lease on the lake was lost: it is run two" in told
    assert not held.loss
    held.release()


def test_a_holder_that_can_not_reach_the_store_ends_itself(place, store, short_lease):
    holder = _hold(place, store)
    store.stop()
    _, told = holder.communicate(timeout=60)
    assert holder.returncode != 0
    assert "The lease on the lake was lost: the object store does not answer." in told


def test_a_holder_whose_store_hangs_ends_itself(place, store, short_lease):
    holder = _hold(place, store)
    store.freeze()
    _, told = holder.communicate(timeout=30)
    store.thaw()
    assert holder.returncode != 0
    assert "The lease on the lake was lost: the object store does not answer." in told


def test_a_store_that_honours_conditions_is_told_from_one_that_does_not(place, monkeypatch):
    assert lease.check_conditions(place) == "honoured"
    assert location.objects(place) == []
    heedless = location.filesystem().call_s3

    def ignoring(method, IfNoneMatch=None, IfMatch=None, **request):  # as S3 was before 2024
        return heedless(method, **request)

    monkeypatch.setattr(location.filesystem(), "call_s3", ignoring)
    with pytest.raises(GmvError, match="ignores conditional writes"):
        lease.acquire(place, "run one")
    unfit = {
        finding.what: finding.found for finding in doctor.examine(place, place, place) if not finding.fit
    }
    assert "this store ignores conditional writes" in unfit["Conditional writes"]
    nowhere = location.location("s3://nowhere/lake")
    unfit = {
        finding.what: finding.found for finding in doctor.examine(nowhere, place, place) if not finding.fit
    }
    assert unfit == {"Lake": "s3://nowhere/lake: there is no such bucket. Make it, or name another."}


def test_doctor_only_looks_at_the_lease_so_that_no_run_is_refused(place, monkeypatch):
    def lock_of(lake) -> doctor.Finding:
        return next(found for found in doctor.examine(lake, place, place) if found.what == "Lock")

    held = lease.acquire(place, "run one")
    assert not lock_of(place).fit and "being written by run one" in lock_of(place).found
    held.release()
    monkeypatch.setattr(lease, "acquire", None)
    assert lock_of(place).fit
    assert "can't write below a folder with #" in lock_of(place.with_name("a#b")).found


def test_a_day_that_is_published_again_leaves_with_its_old_object(place):
    day = dt.date(2023, 2, 8)
    for amount in ("1.00", "2.00"):
        row = {"transaction_date": day, "subsidiary": "nacional", "gmv": Decimal(amount)}
        records.replace_days(place, [day], [row], {"run": "r"})
        assert Reader(place).rows("select gmv from gold.daily_gmv") == [{"gmv": Decimal(amount)}]
