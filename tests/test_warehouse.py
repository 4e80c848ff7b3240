"""The analysts' SQL: up to date, parsed in each engine's dialect, and run on a real lake."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
import small_lake
import sqlglot
from gmv import tables, warehouse
from gmv.lake.reader import Reader
from gmv.settings import PROJECT
from sqlglot import exp

FILES = dict(warehouse.files())
NOT_KNOWN_TO_THE_PARSER = ("create external schema", "msck repair", "alter external table")
"""Statements that sqlglot keeps as text, so that no test here has read them."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """The sample; then, in March, purchase 56 of 8 February was repriced and 78 withdrawn."""
    folder = tmp_path_factory.mktemp("lake")
    small_lake.write_sample(folder)
    later = {"known_on": dt.date(2023, 3, 5), "ledger_seq": 2, "cause": "event", "run": "later"}
    small_lake.write(
        folder,
        tables.GMV_LEDGER,
        [
            {**later, **row}
            for row in small_lake.rows_of(
                "purchase_id transaction_date subsidiary amount purchases reason",
                ("56", dt.date(2023, 2, 8), "internacional", Decimal("-54.49"), 0, "repriced"),
                ("78", dt.date(2023, 2, 18), "nacional", Decimal("-500.90"), -1, "withdrawn"),
            )
        ],
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
    ],
    "gmv_as_known_on": [
        (_day(8), "internacional", Decimal("554.50")),
        (_day(18), "nacional", Decimal("778.55")),
        (_day(23), "internacional", Decimal("505.50")),
    ],
    "restatement_of_a_month": [
        ("known at the end", Decimal("1838.55"), 4),
        ("repriced", Decimal("-54.49"), 0),
        ("withdrawn", Decimal("-500.90"), -1),
    ],
    "latest_purchases": [
        ("56", _day(8), "internacional", Decimal("554.50")),
        ("202", _day(18), "nacional", Decimal("277.65")),
        ("78", _day(18), "nacional", Decimal("500.90")),
        ("29", _day(23), "internacional", Decimal("505.50")),
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
        ("gmv_ledger", _day(18), 3),
        ("gmv_ledger", _day(23), 1),
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
