"""SQL for the analysts' engines, generated from `gmv.tables`: `python -m gmv.warehouse` writes `sql/`.

What the tables are is one template per engine; what is asked is one template for all of them, in words that
each of them understands. `tests/test_warehouse.py` parses every file in its engine's dialect, runs the
questions, and compares `sql/` with what is generated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from gmv import tables
from gmv.settings import PROJECT
from gmv.tables import Table

FOR_ANALYSTS: tuple[Table, ...] = (
    tables.DAILY_GMV,
    tables.DAILY_GMV_HISTORY,
    tables.GMV_LEDGER,
    *(event.latest for event in tables.EVENT_TABLES),
)
"""The tables that analysts ask; their names differ, so one schema holds them."""


@dataclass(frozen=True)
class Engine:
    """One analysts' engine.

    Attributes:
        name: of its folder in `sql/` and of its template.
        dialect: sqlglot's name of its SQL.
        types: the engine's type by Spark's.
        amount: its type of sums of money, with two decimals.
    """

    name: str
    dialect: str
    types: dict[str, str]
    amount: str = "decimal(38, 2)"


_PLAIN = {
    "string": "string",
    "int": "int",
    "bigint": "bigint",
    "date": "date",
    "timestamp_ntz": "timestamp",
    "decimal(18,2)": "decimal(18, 2)",
    "decimal(38,2)": "decimal(38, 2)",
}
ENGINES = (
    Engine("athena", "athena", _PLAIN),
    Engine("redshift_spectrum", "redshift", {**_PLAIN, "string": "varchar(65535)"}),
    Engine(
        "bigquery",
        "bigquery",
        {
            **_PLAIN,
            "int": "int64",
            "bigint": "int64",
            "timestamp_ntz": "datetime",
            "decimal(18,2)": "numeric(18, 2)",
            "decimal(38,2)": "bignumeric(38, 2)",
        },
        amount="bignumeric(38, 2)",
    ),
    Engine(
        "snowflake",
        "snowflake",
        {
            **_PLAIN,
            "string": "varchar",
            "timestamp_ntz": "timestamp_ntz",
            "decimal(18,2)": "number(18, 2)",
            "decimal(38,2)": "number(38, 2)",
        },
        amount="number(38, 2)",
    ),
    Engine("databricks", "databricks", {**_PLAIN, "timestamp_ntz": "timestamp_ntz"}),
)

QUESTIONS = (
    "daily_gmv",
    "gmv_as_known_on",
    "restatement_of_a_month",
    "latest_purchases",
    "rows_per_day",
)


def files() -> Iterator[tuple[str, str]]:
    """Each generated file: its path below `sql/`, and its text."""
    templates = Environment(
        loader=PackageLoader("gmv.warehouse", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for engine in ENGINES:
        known = {"engine": engine, "tables": FOR_ANALYSTS, "daily_gmv": tables.DAILY_GMV}
        yield (
            f"{engine.name}/tables.sql",
            templates.get_template(f"tables_{engine.name}.sql.j2").render(known),
        )
        for name in QUESTIONS:
            yield f"{engine.name}/{name}.sql", templates.get_template(f"{name}.sql.j2").render(known)


def write(folder: Path = PROJECT / "sql") -> None:
    """Write every generated file."""
    for name, text in files():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
