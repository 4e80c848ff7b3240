"""The examples of docs/engines.md, run on a folder and in S3."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal

import pytest
import small_lake
from gmv import tables
from gmv.lake import location, records
from gmv.settings import PROJECT
from object_store import BY_GMV

PAGE = (PROJECT / "docs" / "engines.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
VARIABLES = dict(re.findall(r"`(AWS_\w+)=(true)`", PAGE))
OF_THE_NEWEST_VERSION = [example for example in EXAMPLES if "version=" not in example]
PUBLISHED = [
    (dt.date(2023, 2, 8), "internacional", Decimal("554.50")),
    (dt.date(2023, 2, 18), "nacional", Decimal("778.55")),
    (dt.date(2023, 2, 23), "internacional", Decimal("505.50")),
]


def answer(example: str, lake: str) -> list[tuple]:
    """The rows that an example finds, in order."""
    known: dict = {"lake": lake}
    exec(example, known)
    return sorted(tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in known["rows"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split("\n")[0])
def test_each_reader_reads_a_folder_to_the_cent(example, tmp_path):
    small_lake.write_sample(tmp_path)
    assert answer(example, str(tmp_path)) == PUBLISHED


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split("\n")[0])
def test_each_reader_reads_s3_to_the_cent_by_what_the_page_says(example, store, monkeypatch):
    lake = location.location(f"s3://{store.make_bucket('gmv')}/lake")
    rows = [dict(zip(tables.DAILY_GMV.column_names, row, strict=True)) for row in PUBLISHED]
    records.append(lake, tables.DAILY_GMV, rows)
    for name in BY_GMV:
        monkeypatch.delenv(name)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert answer(example, str(lake)) == PUBLISHED


def test_there_is_an_example_for_each_reader():
    assert (len(EXAMPLES), len(OF_THE_NEWEST_VERSION)) == (4, 3)
