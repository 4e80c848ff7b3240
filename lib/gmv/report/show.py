"""Tables and sentences as a notebook and the page show them: escaped, aligned, in plain words."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from html import escape
from numbers import Integral
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from gmv.report.headline import Headline

_TEMPLATES = Environment(loader=PackageLoader("gmv.report", "template"), autoescape=True)

_LABELS = {
    "transaction_date": "Day",
    "day": "Day",
    "gmv": "GMV",
    "previous_gmv": "GMV before",
    "difference": "Change",
    "change_from": "Change expected, from",
    "change_to": "to",
    "started_at": "Started (UTC)",
    "published_at": "Published (UTC)",
    "counted_at": "Counted (UTC)",
}
_SIGNED = ("difference", "of_which", "change_from", "change_to")
_NOTHING = "—"


class Sentence:
    """A sentence that a cell shows."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.text)}</p>" if self.text else ""


class Top:
    """The headline that a cell shows: the number large, its facts beside it, the sentence below."""

    def __init__(self, headline: Headline) -> None:
        self.headline = headline

    def __repr__(self) -> str:
        facts = [f"{fact.what}: {fact.value} ({fact.note})" for fact in self.headline.facts]
        return "\n".join([self.headline.title, f"{self.headline.gmv:,.2f}", *facts, self.headline.in_words])

    def _repr_html_(self) -> str:
        return _TEMPLATES.get_template("headline.html.j2").render(
            headline=self.headline, gmv=f"{self.headline.gmv:,.2f}"
        )


class Table:
    """A table that a cell shows; `note` stands below it. With a `summary` it is folded away under that."""

    def __init__(self, frame: pd.DataFrame, note: str, summary: str = "") -> None:
        self.frame = frame
        self.note = note
        self.summary = summary

    def __repr__(self) -> str:
        text = self._in_words().to_string(index=False)
        return f"{text}\n{self.note}" if self.note else text

    def _repr_html_(self) -> str:
        words = self._in_words()
        return _TEMPLATES.get_template("table.html.j2").render(
            headers=list(words.columns),
            are_numbers=[_holds_numbers(self.frame[name]) for name in self.frame.columns],
            rows=words.to_numpy().tolist(),
            note=self.note,
            summary=self.summary,
        )

    def _in_words(self) -> pd.DataFrame:
        words = {
            _label(name): [_value_in_words(value, signed=name in _SIGNED) for value in self.frame[name]]
            for name in self.frame.columns
        }
        return pd.DataFrame(words, dtype=object)


def headline(found: Headline | None) -> Top | Sentence:
    """The headline, or a sentence where nothing has been published."""
    return Top(found) if found else Sentence("No GMV has been published yet.")


def sentence(text: str) -> Sentence:
    """A sentence, shown as one."""
    return Sentence(text)


def table(
    frame: pd.DataFrame,
    empty: str,
    first: int | None = None,
    last: int | None = None,
    behind: str = "",
) -> Table | Sentence:
    """A frame as a table: amounts with thousands separators and two decimals, differences with their sign.

    Args:
        frame: what to show; its column names become headers.
        empty: the sentence to show when there are no rows; may be empty.
        first: at most so many rows, from the top.
        last: at most so many rows, from the end.
        behind: folded away, under these words: the numbers behind a chart.
    """
    if frame.empty:
        return Sentence(empty)
    if first is not None and len(frame) > first:
        return Table(frame.head(first), f"The first {first:,} of {len(frame):,} rows.", behind)
    if last is not None and len(frame) > last:
        return Table(frame.tail(last), f"The last {last:,} of {len(frame):,} rows.", behind)
    return Table(frame, "", behind)


def _label(name: str) -> str:
    return _LABELS.get(name) or (name[:1].upper() + name[1:]).replace("_", " ")


def _holds_numbers(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) or all(
        value is None or isinstance(value, Decimal) for value in column
    )


def _value_in_words(value: Any, signed: bool) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return _NOTHING
    if isinstance(value, Decimal):
        return f"{value:+,.2f}" if signed else f"{value:,.2f}"
    if isinstance(value, dt.datetime):  # pandas' Timestamp is one
        return f"{value:%Y-%m-%d}" if value.time() == dt.time() else f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Integral):  # int, or one of numpy's
        return f"{int(value):,}"
    if isinstance(value, float):  # a duration; amounts are Decimals
        return f"{value:,.1f}"
    return str(value)
