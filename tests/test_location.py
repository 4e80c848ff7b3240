"""Where things are: folders stay folders, places in S3 act as paths, and errors become sentences."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest
from gmv.errors import GmvError, UsageError
from gmv.lake import location


def test_a_folder_is_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert location.location("lake") == tmp_path / "lake"
    assert location.location(Path("~/lake")) == Path("/home/someone/lake")
    assert location.location("2023-02-01T06:00/lake") == tmp_path / "2023-02-01T06:00" / "lake"


@pytest.mark.parametrize(
    "given",
    ["gs://bucket/lake", Path("gs://bucket/lake"), Path("abfss://c@a.dfs/lake"), Path("s3://"), "S3://b"],
)
def test_another_scheme_is_refused_and_not_taken_for_a_folder(given):
    with pytest.raises(UsageError, match=f"^{given}: this is neither a folder nor a place in S3"):
        location.location(given)


@pytest.mark.parametrize("text", ["s3://bucket/gmv/", "s3a://bucket/gmv", Path("s3://bucket/gmv")])
def test_a_place_in_s3_keeps_its_scheme_however_it_is_written(text):
    pytest.importorskip("s3fs", reason="make setup-s3 brings it")
    place = location.location(text)
    assert str(place / "gold/daily_gmv") == "s3://bucket/gmv/gold/daily_gmv"
    assert location.is_remote(place)


def test_a_split_lake_puts_each_layer_into_its_bucket():
    pytest.importorskip("s3fs", reason="make setup-s3 brings it")
    lake = location.location("s3://acme-{zone}/gmv")
    tables = ["bronze/purchase", "silver/quarantine", "gold/daily_gmv", "monitoring/runs"]
    assert [str(lake / table) for table in tables] == [
        "s3://acme-raw/gmv/bronze/purchase",
        "s3://acme-curated/gmv/silver/quarantine",
        "s3://acme-analytics/gmv/gold/daily_gmv",
        "s3://acme-analytics/gmv/monitoring/runs",
    ]


def test_the_newest_file_of_a_name_is_the_one_written_last_in_the_folders_asked_for(tmp_path):
    for folder, written in (("report-a", 300), ("20230301T06", 200), ("20230302T06", 100)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "report.html").touch()
        os.utime(tmp_path / folder / "report.html", (written, written))
    (tmp_path / "20230303T06").mkdir()
    at = dt.datetime(1970, 1, 1)
    assert location.newest(tmp_path, "report.html") == (
        tmp_path / "report-a" / "report.html",
        at + dt.timedelta(seconds=300),
    )
    assert location.newest(tmp_path, "report.html", within="2023") == (
        tmp_path / "20230301T06" / "report.html",
        at + dt.timedelta(seconds=200),
    )
    assert location.newest(tmp_path, "report.html", within="2024") is None


def test_who_reads_a_file_while_its_text_is_replaced_reads_the_old_one_to_its_end(tmp_path):
    (tmp_path / "run.json").write_text("old")
    with (tmp_path / "run.json").open() as reading:
        location.replace_text(tmp_path / "run.json", "new é")
        assert reading.read() == "old"
    assert [(file.name, file.read_text("utf-8")) for file in tmp_path.iterdir()] == [("run.json", "new é")]


@pytest.mark.parametrize(
    "said, told",
    [
        ("ClientError: An error occurred (NoSuchBucket) when calling ListObjectsV2", "no such bucket"),
        ("ClientError: An error occurred (AccessDenied) when calling PutObject", "permission is missing"),
        ("An error occurred (ExpiredToken): The provided token has expired", "have expired"),
        ("NoCredentialsError: Unable to locate credentials", "no credentials were found"),
        ("ClientError: An error occurred (InvalidBucketName) when calling PutObject", "no such bucket"),
        (
            'ParamValidationError: Parameter validation failed: Invalid bucket name "My_Bucket!"',
            "no such bucket",
        ),
        (
            "PermissionError: The difference between …; ClientError: An error occurred (RequestTimeTooSkewed)",
            "clock and the store's differ too much",
        ),
        ("OSError: Generic S3 error: error sending request for url (http://…)", "does not answer"),
    ],
)
def test_what_an_object_store_says_becomes_one_sentence(said, told):
    with pytest.raises(GmvError, match=f"^s3://bucket/gmv: .*{told}"), location.explained("s3://bucket/gmv"):
        raise OSError(said)


def test_what_is_explained_once_stays_as_it_was_told():
    with (
        pytest.raises(GmvError, match=r"^s3://bucket/gmv/_lease: there is no such bucket"),
        location.explained("s3://bucket/gmv"),
        location.explained("s3://bucket/gmv/_lease"),
    ):
        raise OSError("NoSuchBucket")


def test_other_errors_are_not_explained_away():
    with pytest.raises(ZeroDivisionError), location.explained("s3://bucket/gmv"):
        1 / 0  # noqa: B018
