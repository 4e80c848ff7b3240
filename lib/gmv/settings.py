"""Every setting, once: its name in the environment, its default and its unit.

Each is read from the environment variable `GMV_<NAME>`, or from the file `.env` in the checkout.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
import zoneinfo
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from gmv.checks import BY_NAME, Severity
from gmv.errors import UsageError

DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
"""How a date is written, in settings as in parameters."""

MOST_DAYS = 36_500
"""A hundred years: with more, dates that are reckoned from it may be none."""

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout: notebooks/, data_lake/ and runs/ lie in it."""


SECRET_VARIABLES = ("GMV_ALERT_URLS",)
"""Only the run itself may see these: neither its kernels nor its Spark server."""


def _half_of_memory_up_to_4_gib() -> int:
    total_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return max(1024, min(4096, total_mib // 2))


_PREFIX = "GMV_"


class Settings(BaseSettings):
    """Where things are, and how much of the machine a run may take."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_file=PROJECT / ".env", env_ignore_empty=True, extra="ignore"
    )

    lake: Path = Field(PROJECT / "data_lake", description="Folder of the Delta tables")
    landing: Path = Field(PROJECT / "data_lake" / "landing", description="Folder where CSV files arrive")
    runs_dir: Path = Field(PROJECT / "runs", description="Folder of the run records and reports")
    example: Path = Field(
        PROJECT / "build" / "restated", description="Folder of the example that `make example` makes"
    )
    timezone: str = Field("UTC", description="Whose current date is today, where --as-of-date is not given")
    closed_until: dt.date | None = Field(None, description="Books are closed up to this day, inclusive")
    finality_days: int = Field(
        90, ge=1, le=MOST_DAYS, description="How many days ahead further changes are expected"
    )
    settled_share: Decimal = Field(
        Decimal("0.001"),
        gt=0,
        lt=1,
        description="A day is settled when less than this share may still change",
    )
    late_after_days: int = Field(
        1, ge=0, le=MOST_DAYS, description="How many days the newest published day may lie behind yesterday"
    )
    restatement_percent: Decimal = Field(
        Decimal(5), ge=0, description="A restatement above so many percent of a day is a problem to tell of"
    )
    alert_urls: SecretStr = Field(
        SecretStr(""), description="Where alerts go: addresses of apprise, with spaces or commas between them"
    )
    report_link: str | None = Field(
        None, description="Where people find the runs folder, for the link to a report"
    )
    spark_memory_mib: int = Field(
        default_factory=_half_of_memory_up_to_4_gib,
        ge=512,
        description="Heap of the Spark server, and memory of DuckDB in another process, in MiB",
    )
    spark_cores: int = Field(
        default_factory=lambda: os.cpu_count() or 2, ge=1, description="Cores that the Spark server uses"
    )
    spark_master: str | None = Field(
        None, description="Spark master of a cluster, spark://host:port or yarn; none: this machine alone"
    )
    spark_start_seconds: int = Field(120, ge=1, description="How long the Spark server may take to start")
    kernel_start_seconds: int = Field(120, ge=1, description="How long a notebook's kernel may take to start")
    lease_seconds: int = Field(
        300, ge=2, description="How long a run that died holds a lake in an object store"
    )
    maintain_every: int = Field(
        30, ge=0, description="Runs after which tables are maintained by the next one; 0: never"
    )
    cell_seconds: int = Field(4 * 3600, ge=1, description="How long one notebook cell may take")

    severities: dict[str, Severity] = Field(
        default_factory=dict, description="Severities (block, warn, off) of checks, as JSON by check name"
    )
    quarantined_percent: Decimal = Field(
        Decimal(5), ge=0, le=100, description="Records of a file that may be quarantined, in percent"
    )
    feed_missing_records: int = Field(
        1, ge=1, description="Records of a day from which on the other tables must have some, too"
    )
    day_drop_percent: Decimal = Field(
        Decimal(20), ge=0, le=100, description="How far a day may fall below the day before, in percent"
    )
    anomaly_weeks: int = Field(26, ge=8, description="How many weeks back a weekday is compared, in weeks")
    anomaly_least_weeks: int = Field(
        8, ge=4, description="Weeks with a number without which anomaly checks keep silent"
    )
    anomaly_deviations: Decimal = Field(
        Decimal(5), gt=0, description="Distance from the median that is normal, in robust standard deviations"
    )
    anomaly_least_percent: Decimal = Field(
        Decimal(15), ge=0, description="Distance from the median that is always normal, in percent of it"
    )

    @field_validator("severities")
    @classmethod
    def _known_checks(cls, value: dict[str, Severity]) -> dict[str, Severity]:
        for name in value:
            if name not in BY_NAME:
                raise ValueError(f"no such check: {name!r}; there are {', '.join(BY_NAME)}")
            if BY_NAME[name].is_integrity:
                raise ValueError(f"{name} always blocks: the lake would contradict itself")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a folder of zones
            raise ValueError(f"no such time zone: {value!r}") from error
        return value

    @field_validator("spark_master")
    @classmethod
    def _known_master(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"spark://[^/\s]+:\d+|yarn", value):
            raise ValueError("write it as spark://host:port, or yarn")
        return value

    @field_validator("closed_until", mode="before")
    @classmethod
    def _written_as_a_date(cls, value: object) -> object:
        if isinstance(value, str) and not DATE.fullmatch(value):
            raise ValueError("write it as YYYY-MM-DD")
        return value

    def today(self) -> dt.date:
        """The current date in `timezone`."""
        return dt.datetime.now(zoneinfo.ZoneInfo(self.timezone)).date()


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process.

    Raises:
        UsageError: naming the variable and the value that can't be read, one that is misspelt, or what is wrong
            with `.env`.
    """
    try:
        _require_well_spelt()
        return Settings()  # type: ignore[call-arg]
    except ValidationError as error:
        problems = "; ".join(
            f"GMV_{str(problem['loc'][0]).upper()}: {problem['msg']} (found {problem['input']!r})"
            for problem in error.errors()
        )
        raise UsageError(f"Settings can't be read: {problems}.") from None
    except SettingsError as error:  # JSON that is none
        name = re.search(r'field "(\w+)"', str(error))
        told = f"GMV_{name[1].upper()} is no JSON" if name else str(error)
        raise UsageError(f"Settings can't be read: {told}.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(f"Settings can't be read: the file .env: {error}.") from None


def _require_well_spelt() -> None:
    """Refuse a name that is nearly a setting's: books that nobody keeps closed are worse than a run that ends."""
    names = {f"{_PREFIX}{name}".upper() for name in Settings.model_fields}
    given = {
        name.upper()
        for source in (EnvSettingsSource, DotEnvSettingsSource)
        for name in source(Settings).env_vars
        if name.upper().startswith(_PREFIX)
    }
    for name in sorted(given - names):
        for meant in difflib.get_close_matches(name, names, n=1, cutoff=_NEARLY):
            raise UsageError(f"{name}: there is no such setting. Is {meant} meant?")


_NEARLY = 0.93
"""From this likeness on, a name is taken for another that is misspelt: one letter more or less in any of them."""
