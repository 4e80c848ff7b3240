"""The analysts' SQL: up to date, parsed in each engine's dialect, and run on a real lake."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
import small_lake
import sqlglot
from gmv import tables, warehouse
from gmv.lake import location
from gmv.lake.reader import Reader
from gmv.settings import PROJECT
from sqlglot import exp

FILES = dict(warehouse.files())
NOT_KNOWN_TO_THE_PARSER = ("create external schema", "msck repair", "alter external table")
"""Statements that sqlglot keeps as text, so that no test here has read them."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """The sample and, of other purchases:

    1 and 2 on the days before and after February, 3 paid on its last day without a subsidiary, 4 paid without an
    item, 5 withdrawn in February; then, in March, purchase 56 of 8 February was repriced and 78 withdrawn.
    """
    folder = tmp_path_factory.mktemp("lake")
    small_lake.write_sample(folder)
    january, march, last = dt.date(2023, 1, 31), dt.date(2023, 3, 1), _day(28)
    common = {"ledger_seq": 2, "cause": "event", "run": "later"}
    small_lake.write(
        folder,
        tables.GMV_LEDGER,
        [
            {**common, **row}
            for row in small_lake.rows_of(
                "purchase_id transaction_date subsidiary amount purchases known_on reason",
                ("1", january, "nacional", Decimal("1.00"), 1, january, "paid"),
                ("2", march, "nacional", Decimal("2.00"), 1, march, "paid"),
                ("3", last, "unknown", Decimal("10.00"), 1, last, "paid"),
                ("5", _day(9), "nacional", Decimal("5.00"), 1, _day(9), "paid"),
                ("5", _day(9), "nacional", Decimal("-5.00"), -1, _day(20), "withdrawn"),
                ("56", _day(8), "internacional", Decimal("-54.49"), 0, dt.date(2023, 3, 5), "repriced"),
                ("78", _day(18), "nacional", Decimal("-500.90"), -1, dt.date(2023, 3, 5), "withdrawn"),
            )
        ],
    )
    small_lake.write(
        folder,
        tables.DAILY_GMV,
        small_lake.rows_of(
            "transaction_date subsidiary gmv",
            (january, "nacional", Decimal("1.00")),
            (last, "unknown", Decimal("10.00")),
            (march, "nacional", Decimal("2.00")),
        ),
    )
    small_lake.write(
        folder,
        tables.PURCHASE.latest,
        small_lake.rows_of(
            "purchase_id transaction_date release_date",
            ("1", january, january),
            ("2", march, march),
            ("3", last, last),
            ("4", _day(20), _day(20)),
            ("5", _day(9), None),
        ),
    )
    small_lake.write(
        folder,
        tables.PRODUCT_ITEM.latest,
        small_lake.rows_of(
            "purchase_id item_quantity purchase_value",
            ("1", 1, Decimal("1.00")),
            ("2", 1, Decimal("2.00")),
            ("3", 4, Decimal("2.50")),
            ("5", 1, Decimal("5.00")),
        ),
    )
    return folder


def _ask(lake, engine: warehouse.Engine, question: str) -> list[tuple]:
    reader = Reader(lake)
    reader.connection.execute("create schema gmv")
    for table in warehouse.FOR_ANALYSTS:
        reader.view(table)
        reader.connection.execute(f"create view gmv.{table.name} as select * from {table.layer}.{table.name}")
    (query,) = sqlglot.transpile(
        FILES[f"{engine.name}/{question}.sql"],
        read=engine.dialect,
        write="duckdb",
        unsupported_level=sqlglot.ErrorLevel.RAISE,
    )
    return reader.connection.execute(query).fetchall()


def _day(number: int) -> dt.date:
    return dt.date(2023, 2, number)


ANSWERS = {
    "daily_gmv": [
        (_day(8), "internacional", Decimal("554.50")),
        (_day(18), "nacional", Decimal("778.55")),
        (_day(23), "internacional", Decimal("505.50")),
        (_day(28), "unknown", Decimal("10.00")),
    ],
    "gmv_as_known_on": [
        (_day(8), "internacional", Decimal("554.50")),
        (_day(18), "nacional", Decimal("778.55")),
        (_day(23), "internacional", Decimal("505.50")),
        (_day(28), "unknown", Decimal("10.00")),
    ],
    "restatement_of_a_month": [
        ("known at the end", Decimal("1848.55"), 5),
        ("repriced", Decimal("-54.49"), 0),
        ("withdrawn", Decimal("-500.90"), -1),
    ],
    "latest_purchases": [
        ("56", _day(8), "internacional", Decimal("554.50")),
        ("202", _day(18), "nacional", Decimal("277.65")),
        ("78", _day(18), "nacional", Decimal("500.90")),
        ("29", _day(23), "internacional", Decimal("505.50")),
        ("3", _day(28), "unknown", Decimal("10.00")),
    ],
}


@pytest.mark.parametrize("engine", warehouse.ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("question", ANSWERS)
def test_each_engines_question_has_the_exact_answer(lake, engine, question):
    assert _ask(lake, engine, question) == ANSWERS[question]


@pytest.mark.parametrize("engine", warehouse.ENGINES, ids=lambda engine: engine.name)
def test_rows_are_counted_per_table_and_day(lake, engine):
    told = _ask(lake, engine, "rows_per_day")
    assert [row for row in told if row[0] == "gmv_ledger"] == [
        ("gmv_ledger", _day(8), 2),
        ("gmv_ledger", _day(9), 2),
        ("gmv_ledger", _day(18), 3),
        ("gmv_ledger", _day(23), 1),
        ("gmv_ledger", _day(28), 1),
    ]
    assert {row[0] for row in told} == {table.name for table in warehouse.FOR_ANALYSTS}


@pytest.mark.parametrize("engine", warehouse.ENGINES, ids=lambda engine: engine.name)
def test_what_an_engine_is_told_of_a_table_is_what_tables_py_declares(engine):
    declared = {}
    for statement in sqlglot.parse(FILES[f"{engine.name}/tables.sql"], read=engine.dialect):
        if isinstance(statement, exp.Create) and statement.kind == "TABLE":
            name = statement.find(exp.Table).name
            columns = [column.name for column in statement.this.find_all(exp.ColumnDef)]
            partitions = statement.find(exp.PartitionedByProperty)
            if name == "daily_gmv_export" and partitions:
                columns += [column.name for column in partitions.find_all(exp.ColumnDef)]
            declared[name] = columns
    expected = {table.name: sorted(table.column_names) for table in warehouse.FOR_ANALYSTS}
    expected["daily_gmv_export"] = sorted(tables.DAILY_GMV.column_names)
    for name, columns in declared.items():
        assert sorted(columns) in ([], expected[name]), f"{engine.name}: {name}"
    if engine.name != "bigquery":
        assert "daily_gmv_export" in declared


IN_DUCKDB = {"string": "TEXT", "timestamp_ntz": "TIMESTAMP"}
"""What sqlglot calls a type in DuckDB, where that is not Spark's name."""


@pytest.mark.parametrize("engine", warehouse.ENGINES, ids=lambda engine: engine.name)
def test_each_column_has_a_type_that_holds_its_values_exactly(engine):
    for table in warehouse.FOR_ANALYSTS:
        for column in table.columns:
            declared = exp.DataType.build(engine.types[column.type], dialect=engine.dialect).sql("duckdb")
            expected = IN_DUCKDB.get(column.type, column.type.upper()).replace(",", ", ")
            if column.type == "int" and engine.name == "bigquery":
                expected = "BIGINT"
            assert declared.removesuffix("(65535)") == expected, f"{engine.name}: {table.name}.{column.name}"
    sums = exp.DataType.build(engine.amount, dialect=engine.dialect).sql("duckdb")
    assert sums.replace(" ", "").lower() == tables.AMOUNT


@pytest.mark.parametrize("engine", ["athena", "bigquery", "databricks", "snowflake"])
def test_each_table_is_looked_for_in_the_bucket_of_its_layer(engine):
    for table in warehouse.FOR_ANALYSTS:
        zone = location.ZONES[table.layer]
        place = (
            f"@gmv.{zone}/{table.path}/" if engine == "snowflake" else f"acme-gmv-{zone}/lake/{table.path}"
        )
        assert place in FILES[f"{engine}/tables.sql"]


@pytest.mark.parametrize("engine", warehouse.ENGINES, ids=lambda engine: engine.name)
def test_only_known_statements_escape_the_parser(engine):
    escaped = [
        f"{statement.this} {str(statement.expression).strip()}".lower()
        for statement in sqlglot.parse(FILES[f"{engine.name}/tables.sql"], read=engine.dialect)
        if isinstance(statement, exp.Command)
    ]
    known = NOT_KNOWN_TO_THE_PARSER + (("create external table",) if engine.name == "bigquery" else ())
    assert [text for text in escaped if not text.startswith(known)] == []


def test_the_committed_files_are_those_that_tables_py_gives():
    committed = {
        str(file.relative_to(PROJECT / "sql")): file.read_text() for file in (PROJECT / "sql").rglob("*.sql")
    }
    assert committed == FILES, "make sql writes them anew"
