"""Settings that can't be read: a sentence with the variable, exit code 2, and nothing else."""

from __future__ import annotations

import os
import subprocess

import pytest
from command import GMV
from gmv.errors import UsageError
from gmv.lake import location
from gmv.settings import PROJECT, settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GMV_SEVERITIES", "abc", "GMV_SEVERITIES is no JSON"),
        ("GMV_SEVERITIES", '{"day_dorp": "warn"}', "no such check: 'day_dorp'"),
        ("GMV_SEVERITIES", '{"recomputed": "warn"}', "recomputed always blocks"),
        ("GMV_TIMEZONE", "America", "no such time zone: 'America'"),
        ("GMV_TIMEZONE", "Mars/Base", "no such time zone: 'Mars/Base'"),
        ("GMV_CLOSED_UNTIL", "1675123200", "write it as YYYY-MM-DD"),
        ("GMV_CLOSED_UNTIL", "2023-02-30", "GMV_CLOSED_UNTIL: Input should be a valid date"),
        (
            "GMV_SPARK_MASTER",
            "localhost:7077",
            "GMV_SPARK_MASTER: Value error, write it as spark://host:port, or yarn",
        ),
        ("GMV_LATE_AFTER_DAYS", "99999999", "GMV_LATE_AFTER_DAYS: Input should be less than or equal to"),
        (
            "GMV_QUARANTINED_PERCENT",
            "101",
            "GMV_QUARANTINED_PERCENT: Input should be less than or equal to 100",
        ),
    ],
)
def test_a_value_that_can_not_be_read_is_named(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    settings.cache_clear()
    with pytest.raises(UsageError, match="Settings can't be read: ") as wrong:
        settings()
    assert said in str(wrong.value) and wrong.value.exit_code == 2


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    for name in ("GMV_LAKE", "GMV_SEVERITIES", "GMV_CLOSED_UNTIL"):
        monkeypatch.setenv(name, "")
    settings.cache_clear()
    assert location.location(settings().lake) == PROJECT / "data_lake"


def test_a_file_of_settings_that_is_no_text_is_named(tmp_path, monkeypatch):
    broken = tmp_path / ".env"
    broken.write_bytes(b"GMV_REPORT_LINK=caf\xe9")
    monkeypatch.setitem(type(settings()).model_config, "env_file", broken)
    settings.cache_clear()
    with pytest.raises(UsageError, match=r"Settings can't be read: the file \.env"):
        settings()


def test_a_file_of_settings_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    secret = tmp_path / ".env"
    secret.write_text("GMV_CLOSED_UNTIL=2023-01-31")
    monkeypatch.setitem(type(settings()).model_config, "env_file", secret)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(secret))

    monkeypatch.setattr("dotenv.main.open", refuse, raising=False)
    settings.cache_clear()
    with pytest.raises(UsageError, match=r"the file \.env: .*Permission denied"):
        settings()


@pytest.mark.parametrize(("machine_mib", "spark_mib"), [(512, 1024), (6000, 3000), (64_000, 4096)])
def test_spark_takes_half_of_the_memory_from_1_to_4_gib(monkeypatch, machine_mib, spark_mib):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": machine_mib * 256}.get)
    settings.cache_clear()
    assert settings().spark_memory_mib == spark_mib


@pytest.mark.parametrize("in_file", [False, True])
def test_a_misspelt_setting_is_refused_as_it_would_be_kept_to_by_nobody(tmp_path, monkeypatch, in_file):
    if in_file:
        (tmp_path / ".env").write_text("gmv_closed_untill=2023-01-31\n")
        monkeypatch.setitem(type(settings()).model_config, "env_file", tmp_path / ".env")
    else:
        monkeypatch.setenv("GMV_CLOSED_UNTILL", "2023-01-31")
    settings.cache_clear()
    with pytest.raises(
        UsageError, match=r"^GMV_CLOSED_UNTILL: there is no such setting\. Is GMV_CLOSED_UNTIL meant"
    ):
        settings()


@pytest.mark.parametrize(
    ("given", "meant"),
    [("GMV_LAK", "GMV_LAKE"), ("GMV_LAKES", "GMV_LAKE"), ("GMV_CLOSED_UNITL", "GMV_CLOSED_UNTIL")],
)
def test_a_letter_too_few_too_many_or_in_another_place_is_misspelt(monkeypatch, given, meant):
    monkeypatch.setenv(given, "x")
    settings.cache_clear()
    with pytest.raises(UsageError, match=f"^{given}: there is no such setting. Is {meant} meant"):
        settings()


def test_names_of_others_that_begin_like_settings_are_left_alone(monkeypatch):
    for name in ("GMV_COMMAND", "GMV_LATE_SECONDS", "GMV_LAKE_SERVICE_HOST", "GMV_HISTORY"):
        monkeypatch.setenv(name, "x")
    settings.cache_clear()
    assert settings().closed_until is None


def gmv(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(
        [str(GMV), *arguments], capture_output=True, text=True, env=environment, timeout=300
    )


def test_the_command_says_it_in_one_line():
    told = gmv("status", GMV_SEVERITIES="abc")
    assert (told.returncode, told.stderr) == (2, "gmv: Settings can't be read: GMV_SEVERITIES is no JSON.\n")


@pytest.mark.parametrize("option", ["--lake", "--runs-dir"])
def test_an_empty_place_is_not_the_current_folder(option, tmp_path):
    told = gmv("status", option, "")
    assert told.returncode == 2 and "it is empty" in told.stderr


def test_a_terminal_without_a_character_ends_nothing(tmp_path):
    place = tmp_path / "caf\u00e9"
    place.mkdir()
    told = gmv("show", "daily_gmv", "--lake", str(place), PYTHONIOENCODING="ascii")
    assert told.returncode == 0, told.stderr
