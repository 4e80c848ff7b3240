"""CSV bytes read by the rules of docs/files.md and docs/rules.md, once more and by hand: character by character.

Shares nothing with the pipeline, so that the two can be compared on any bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from decimal import Decimal

from model import EVENT_CLASSES, Event

LONGEST_RECORD = 131_072
AROUND_VALUES = " \u00a0\u202f\ufeff"
AROUND_NAMES = " \t\n\r\x0b\x0c\u00a0\ufeff"
FILLED = {
    "purchase": {"transaction_datetime", "transaction_date", "purchase_id"},
    "product_item": {
        "transaction_datetime",
        "transaction_date",
        "purchase_id",
        "item_quantity",
        "purchase_value",
    },
    "purchase_extra_info": {"transaction_datetime", "transaction_date", "purchase_id", "subsidiary"},
}
WHOLE_NUMBERS = {"buyer_id": 64, "prod_item_id": 64, "producer_id": 64, "product_id": 64, "item_quantity": 32}


class Unreadable(Exception):
    """The file is refused whole."""


@dataclass(frozen=True)
class Record:
    """One record: the number of its first line, its fields, and whether its text is damaged."""

    line: int
    fields: list[str]
    is_damaged: bool


def records(content: bytes) -> Iterator[Record]:
    """The records of a file, its header among them; empty lines are none.

    Raises:
        Unreadable: where nobody can tell what the records are.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff", b"\x1f\x8b")) or b"\0" in content:
        raise Unreadable
    content = content.removeprefix(b"\xef\xbb\xbf")
    position, line = 0, 1
    while position < len(content):
        begin, first_line = position, line
        fields_, field, state = (
            [],
            bytearray(),
            "start",
        )  # start of a field, plain, quoted, or just after a quote
        while True:
            byte = content[position : position + 1]
            if state == "quoted":
                if not byte:
                    raise Unreadable
                if byte == b'"':
                    state = "after"
                else:
                    field += byte
                    if byte == b"\n" or (byte == b"\r" and content[position + 1 : position + 2] != b"\n"):
                        line += 1
                position += 1
                if position - begin > LONGEST_RECORD:
                    raise Unreadable
                continue
            if byte in (b"", b"\n", b"\r"):
                if byte:
                    position += 2 if content[position : position + 2] == b"\r\n" else 1
                    line += 1
                break
            if byte == b",":
                fields_.append(bytes(field))
                field, state = bytearray(), "start"
            elif byte == b'"' and state == "start":
                state = "quoted"
            elif byte == b'"' and state == "after":
                field += byte
                state = "quoted"
            elif state == "after":
                raise Unreadable
            else:
                field += byte
                state = "plain"
            position += 1
        text = content[begin:position]
        if len(text) > LONGEST_RECORD:
            raise Unreadable
        if text.strip(b"\r\n") == b"" and not fields_ and state == "start":
            continue
        fields_.append(bytes(field))
        try:
            is_damaged = "\ufffd" in text.decode()
        except UnicodeDecodeError:
            is_damaged = True
        yield Record(first_line, [one.decode("utf-8", "replace") for one in fields_], is_damaged)


def read(content: bytes, table: str, ingested_at: datetime) -> dict[int, Event | None]:
    """The event of each record by its line; None where it is rejected.

    Raises:
        Unreadable: the file is refused.
    """
    found: dict[int, Event | None] = {}
    header: list[str] | None = None
    columns = [field.name for field in fields(EVENT_CLASSES[table])]
    for record in records(content):
        if header is None:
            names = [name.strip(AROUND_NAMES) for name in record.fields]
            if not any(names) and len(names) == 1:
                continue
            header = [name.lower() for name in names]
            if record.is_damaged or len(set(header)) < len(header) or not set(columns) <= set(header):
                raise Unreadable
        elif record.is_damaged or len(record.fields) != len(header):
            found[record.line] = None
        else:
            texts = dict(zip(header, record.fields, strict=True))
            found[record.line] = event({name: texts[name] for name in columns}, table, ingested_at)
    if header is None:
        raise Unreadable
    return found


def event(texts: dict[str, str], table: str, ingested_at: datetime) -> Event | None:
    """The event of these texts; None when one of them breaks a rule."""
    values: dict[str, object] = {}
    for name, raw in texts.items():
        text = raw.strip(AROUND_VALUES)
        if not text:
            if name in FILLED[table]:
                return None
            values[name] = None
            continue
        try:
            values[name] = value(name, text)
        except ValueError:
            return None
    latest = ingested_at + timedelta(days=1)
    day, at = values["transaction_date"], values["transaction_datetime"]
    assert isinstance(day, date) and isinstance(at, datetime)
    if not date(2000, 1, 1) <= day or datetime(day.year, day.month, day.day) > latest:
        return None
    if not datetime(2000, 1, 1) <= at <= latest:
        return None
    return EVENT_CLASSES[table](**values)  # type: ignore[arg-type]


def value(name: str, text: str) -> object:
    """A text as the type of its column.

    Raises:
        ValueError: when it isn't one.
    """
    if name in ("purchase_id", "subsidiary"):
        return text
    if name == "purchase_value":
        if not re.fullmatch(r"-?[0-9]{1,16}(\.[0-9]{1,2}0*)?", text):
            raise ValueError(text)
        amount = Decimal(text).quantize(Decimal("0.01"))
        if amount < 0:
            raise ValueError(text)
        return amount.copy_abs()
    if name in WHOLE_NUMBERS:
        if not re.fullmatch("-?[0-9]+", text):
            raise ValueError(text)
        number, half = int(text), 2 ** (WHOLE_NUMBERS[name] - 1)
        if not -half <= number < half or (name == "item_quantity" and number < 0):
            raise ValueError(text)
        return number
    if name == "transaction_datetime":
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?", text):
            raise ValueError(text)
        seconds, _, part = text.partition(".")
        return datetime.fromisoformat(seconds.replace("T", " ")) + timedelta(
            microseconds=int(part.ljust(6, "0"))
        )
    if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError(text)
    return date.fromisoformat(text)
