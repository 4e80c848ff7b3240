"""`gmv doctor`: what a machine or a lake lacks is said before a run finds it out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import small_lake
from gmv import doctor
from gmv.lake import lock, spark
from gmv.lake.reader import Reader
from gmv.settings import PROJECT
from gmv.tables import DAILY_GMV


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Where a first run would begin: a landing folder, and nothing else yet."""
    (tmp_path / "landing").mkdir()
    return {"lake": tmp_path / "lake", "landing": tmp_path / "landing", "runs_dir": tmp_path / "runs"}


def unfit(**places: Path) -> dict[str, str]:
    return {finding.what: finding.found for finding in doctor.examine(**places) if not finding.fit}


def test_what_is_not_there_yet_is_no_fault_and_is_not_made(places, tmp_path):
    found = {finding.what: finding.found for finding in doctor.examine(**places) if finding.fit}
    assert unfit(**places) == {}
    assert found["Lake"] == f"{tmp_path}/lake (will be made by the first run)"
    assert (found["Lock"], found["gold/daily_gmv"]) == ("free", "not there yet")
    assert [path.name for path in tmp_path.iterdir()] == ["landing"]


def test_the_rows_of_each_table_are_told(places):
    small_lake.write_sample(places["lake"])
    found = {finding.what: finding.found for finding in doctor.examine(**places)}
    assert found["gold/daily_gmv"] == f"version {Reader(places['lake']).version(DAILY_GMV)}, 3 rows"
    assert found["Lake"] == str(places["lake"])


def test_a_landing_folder_is_not_made_by_a_run(places, tmp_path):
    places["landing"].rmdir()
    assert unfit(**places) == {
        "Landing folder": f"{tmp_path}/landing does not exist. Make it, or name another."
    }


def test_a_file_is_no_folder_and_none_can_be_made_in_it(places, tmp_path):
    (tmp_path / "file").touch()
    places |= {"lake": tmp_path / "file" / "lake", "runs_dir": tmp_path / "file"}
    said = f"{tmp_path}/file is not a folder. Name another."
    assert unfit(**places) == {"Lake": said, "Runs folder": said}


@pytest.mark.parametrize(("denied", "said"), [(os.R_OK, "read"), (os.W_OK, "written")])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_that_may_not_be_used_or_made_is_named(
    places, tmp_path, monkeypatch, denied, said, is_there
):
    """Root may do all, so what the system answers is put in its mouth."""
    for name in ("lake", "landing"):
        places[name] = tmp_path / "closed" / name
        places[name].mkdir(parents=True)
    if not is_there:
        places["lake"].rmdir()
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: (
            not (Path(path).is_relative_to(tmp_path / "closed") and mode & denied) and access(path, mode)
        ),
    )
    closed = places["lake"] if is_there else tmp_path / "closed"
    expected = {"Lake": f"{closed} can't be written. Change its permissions."}
    if denied == os.R_OK:
        expected["Landing folder"] = f"{places['landing']} can't be {said}. Change its permissions."
    assert unfit(**places) == expected


def test_a_folder_in_one_that_may_not_be_entered_is_told_of_as_a_folder(places, tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    places |= {"lake": tmp_path / "closed" / "lake", "landing": tmp_path / "closed" / "landing"}
    stat, access = os.stat, os.access

    def refusing(path: Any, *given: Any, **options: Any) -> os.stat_result:
        if Path(path).parent == tmp_path / "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refusing)
        patch.setattr(os, "access", lambda path, mode: path != tmp_path / "closed" and access(path, mode))
        assert unfit(**places) == {
            "Lake": f"{tmp_path}/closed can't be written. Change its permissions.",
            "Landing folder": f"{tmp_path}/closed can't be read. Change its permissions.",
        }


def test_a_lake_that_a_run_holds_is_not_free(places):
    held = lock.acquire(places["lake"], "the run")
    assert "is being written by the run" in unfit(**places)["Lock"]
    held.release()
    assert unfit(**places) == {}


def test_a_disk_with_less_than_two_gib_is_told_of(places, monkeypatch):
    used = shutil.disk_usage(places["landing"])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: used._replace(free=2 * 2**30))
    assert unfit(**places) == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: used._replace(free=2 * 2**30 - 1))
    assert unfit(**places)["Disk"].startswith("Only 2.0 GiB are free at ")


def test_a_folder_without_one_of_the_notebooks_is_no_checkout(places, tmp_path, monkeypatch):
    shutil.copytree(PROJECT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "notebooks" / "02_silver.ipynb").unlink()
    monkeypatch.setattr(doctor, "PROJECT", tmp_path)
    assert unfit(**places) == {
        "Notebooks": f"{tmp_path}/notebooks lacks notebooks: work in a checkout of the project."
    }


def test_of_a_server_elsewhere_the_address_is_shown_and_not_its_token(places, monkeypatch):
    monkeypatch.setenv("SPARK_REMOTE", "sc://elsewhere:15002/;token=secret;use_ssl=true")
    monkeypatch.setattr(spark, "require_remote", lambda: None)
    (found,) = [finding.found for finding in doctor.examine(**places) if finding.what == "Spark"]
    assert "on the server sc://elsewhere:15002/, " in found and "secret" not in found
