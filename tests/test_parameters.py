"""Parameters of notebooks and of the command line: read as they are meant, or refused by name."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from gmv import parameters
from gmv.errors import UsageError


@pytest.mark.parametrize(("given", "meant"), [("2023-02-28", dt.date(2023, 2, 28)), ("", None), (None, None)])
def test_a_date_is_that_of_the_text_and_an_empty_one_is_none(given, meant):
    assert parameters.parse_date("start_date", given) == meant


@pytest.mark.parametrize("given", ["2023-02-29", "20230228", 20230228, "2023-2-28", "2023-02-28\n", 0, False])
def test_what_is_no_date_is_refused_by_name(given):
    with pytest.raises(UsageError, match=f"^start_date: {re.escape(repr(given))} is no date; write it as"):
        parameters.parse_date("start_date", given)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (True, True),
        ("True", True),
        ("true", True),
        (False, False),
        ("False", False),
        ("", False),
        (None, False),
    ],
)
def test_a_flag_may_come_as_a_text(given, meant):
    assert parameters.parse_flag("reread", given) is meant


def test_a_ticket_of_digits_stays_the_text_that_it_is():
    assert [parameters.parse_text(value) for value in (4711, "4711", "", None)] == ["4711", "4711", "", ""]


def test_the_cell_that_was_injected_last_is_what_is_looked_at():
    def injected(*cells: str) -> dict:
        return {"In": ["", "start_dat = 1", *(f"# Parameters\n{cell}" for cell in cells)]}

    for known in (injected(), injected("start_dat = ''", "start_date = ''\nreread = True"), {}):
        parameters.reject_unknown("01_bronze", known)
    with pytest.raises(UsageError, match=r"^reread: no such parameter of 03_gold; there are start_date, "):
        parameters.reject_unknown("03_gold", injected("accept = ''\nreread = True"))
