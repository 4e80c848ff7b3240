"""The corpus: files as they really arrive, and worse. Each says what must become of it.

A file is either refused, with a sentence, or every record of it is accepted or rejected, with all reasons.
Most files differ from a sound one in one thing. Purchase ids are made of the case's name, so that no case
meets another's; `{id}` stands for it in texts.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

from model import Event, ProductItem, Purchase, PurchaseExtraInfo

HEADERS = {
    "purchase": "transaction_datetime,transaction_date,purchase_id,"
    "buyer_id,prod_item_id,order_date,release_date,producer_id",
    "product_item": "transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value",
    "purchase_extra_info": "transaction_datetime,transaction_date,purchase_id,subsidiary",
}
SOUND = {
    "purchase": "2023-02-08 07:00:00,2023-02-08,{id},1,2,2023-02-07,2023-02-08,3",
    "product_item": "2023-02-08 07:00:00,2023-02-08,{id},5,2,10.00",
    "purchase_extra_info": "2023-02-08 07:00:00,2023-02-08,{id},nac",
}
AT = datetime(2023, 2, 8, 7)

ITEM, INFO, PURCHASE = HEADERS["product_item"], HEADERS["purchase_extra_info"], HEADERS["purchase"]
ROW, INFO_ROW = SOUND["product_item"], SOUND["purchase_extra_info"]


@dataclass(frozen=True)
class Case:
    """A file and what must become of it.

    Attributes:
        content: bytes or text of the file, or what makes it in its place.
        accepted: the events that must be in silver, and no others of this file.
        rejected: the reasons of each rejected record, by the line that it begins on.
        refused: a part of the sentence that refuses the whole file.
        is_left: there is nothing to be said about it: it is no file of a table.
    """

    name: str
    content: bytes | str | Callable[[Path], None]
    accepted: Sequence[Event] = ()
    rejected: dict[int, list[str]] = field(default_factory=dict)
    refused: str = ""
    is_left: bool = False
    table: str = "product_item"
    file: str = ""

    @property
    def path(self) -> str:
        return self.file or f"{self.table}-{self.name}.csv"

    def write(self, landing: Path) -> None:
        path = landing / self.path
        if callable(self.content):
            self.content(path)
        else:
            text = self.content
            path.write_bytes(text.replace("{id}", self.name).encode() if isinstance(text, str) else text)


def item(
    purchase_id: str, value: str = "10.00", quantity: int = 2, product: int | None = 5, **more
) -> ProductItem:
    times = {"transaction_datetime": AT, "transaction_date": AT.date()} | more
    return ProductItem(
        **times,
        purchase_id=purchase_id,
        product_id=product,
        item_quantity=quantity,
        purchase_value=Decimal(value),
    )


def info(purchase_id: str, subsidiary: str = "nac") -> PurchaseExtraInfo:
    return PurchaseExtraInfo(AT, AT.date(), purchase_id, subsidiary)


def purchase(purchase_id: str, **more) -> Purchase:
    values = {
        "transaction_datetime": AT,
        "transaction_date": AT.date(),
        "buyer_id": 1,
        "prod_item_id": 2,
        "order_date": date(2023, 2, 7),
        "release_date": date(2023, 2, 8),
        "producer_id": 3,
    }
    return Purchase(purchase_id=purchase_id, **(values | more))


# --- Files that are read, and what is in them ---------------------------------------------------------------


def _text(name: str, *lines: str, end: str = "\n", **outcome) -> Case:
    return Case(name, end.join(lines) + end, **outcome)


READ = [
    _text("sound", ITEM, ROW, accepted=[item("sound")]),
    Case("bom", b"\xef\xbb\xbf" + f"{ITEM}\n{ROW}\n".replace("{id}", "bom").encode(), [item("bom")]),
    Case("bom-twice", f"\ufeff\ufeff{ITEM}\n{ROW}\n", [item("bom-twice")]),
    _text("crlf", ITEM, ROW, end="\r\n", accepted=[item("crlf")]),
    _text("lone-cr", ITEM, ROW, end="\r", accepted=[item("lone-cr")]),
    Case("mixed-ends", f"{ITEM}\r\n{ROW}\n\r\n{ROW}1\r", [item("mixed-ends")],
         {4: ["purchase_value: more than 2 decimals"]}),
    Case("no-last-end", f"{ITEM}\n{ROW}", [item("no-last-end")]),
    _text("blank-lines", "", "  ", ITEM, "", ROW, "", accepted=[item("blank-lines")]),
    _text("line-of-spaces", ITEM, "   ", ROW, accepted=[item("line-of-spaces")], rejected={2: ["field_count"]}),
    _text("quoted", '"' + ITEM.replace(",", '","') + '"', '"' + ROW.replace(",", '","') + '"',
          accepted=[item("quoted")]),
    _text("quoted-newline", INFO, '2023-02-08 07:00:00,2023-02-08,{id},"na\nc"', INFO_ROW + "2",
          accepted=[info("quoted-newline", "na\nc"), info("quoted-newline", "nac2")], table="purchase_extra_info"),
    _text("quoted-crlf", INFO, '2023-02-08 07:00:00,2023-02-08,{id},"na\r\nc"',
          accepted=[info("quoted-crlf", "na\r\nc")], table="purchase_extra_info"),
    _text("doubled-quote", INFO, '2023-02-08 07:00:00,2023-02-08,{id},"the ""best"", of all"',
          accepted=[info("doubled-quote", 'the "best", of all')], table="purchase_extra_info"),
    _text("quote-inside", INFO, '2023-02-08 07:00:00,2023-02-08,{id},na"c',
          accepted=[info("quote-inside", 'na"c')], table="purchase_extra_info"),
    _text("backslash", INFO, "2023-02-08 07:00:00,2023-02-08,{id},na\\,c", INFO_ROW,
          accepted=[info("backslash")], rejected={2: ["field_count"]}, table="purchase_extra_info"),
    _text("backslash-kept", INFO, "2023-02-08 07:00:00,2023-02-08,{id},na\\c\\",
          accepted=[info("backslash-kept", "na\\c\\")], table="purchase_extra_info"),
    _text("ragged-short", ITEM, "2023-02-08 07:00:00,2023-02-08,{id},5,2", ROW,
          accepted=[item("ragged-short")], rejected={2: ["field_count"]}),
    _text("ragged-long", ITEM, ROW + ",surplus", ROW, accepted=[item("ragged-long")], rejected={2: ["field_count"]}),
    _text("trailing-comma", ITEM, ROW + ",", ROW, accepted=[item("trailing-comma")], rejected={2: ["field_count"]}),
    _text("decimal-comma", ITEM, "2023-02-08 07:00:00,2023-02-08,{id},5,10,50,09", ROW,
          accepted=[item("decimal-comma")], rejected={2: ["field_count"]}),
    _text("truncated-last-line", ITEM, ROW, "2023-02-08 07:0", accepted=[item("truncated-last-line")],
          rejected={3: ["field_count"]}),
    _text("permuted", "purchase_value,item_quantity,product_id,purchase_id,transaction_date,transaction_datetime",
          "10.00,2,5,{id},2023-02-08,2023-02-08 07:00:00", accepted=[item("permuted")]),
    _text("other-case", ITEM.title(), ROW, accepted=[item("other-case")]),
    _text("spaced-header", ITEM.replace(",", " , "), ROW, accepted=[item("spaced-header")]),
    _text("extra-column", ITEM + ",note", ROW + ",anything", accepted=[item("extra-column")]),
    _text("header-only", ITEM),
    _text("copies", ITEM, ROW, ROW, ROW, accepted=[item("copies")]),
    Case("latin-1", f"{INFO}\n".encode() + b"2023-02-08 07:00:00,2023-02-08,latin-1,S\xe3o\n"
         + b"2023-02-08 07:00:00,2023-02-08,latin-1,nac\n", [info("latin-1")], {2: ["encoding"]},
         table="purchase_extra_info"),
    Case("cut-in-a-character", f"{INFO}\n2023-02-08 07:00:00,2023-02-08,cut,S".encode() + b"\xc3\n", [],
         {2: ["encoding"]}, table="purchase_extra_info"),
    _text("lost-character", INFO, "2023-02-08 07:00:00,2023-02-08,{id},S\ufffdo", rejected={2: ["encoding"]},
          table="purchase_extra_info"),
    _text("form-feed", ITEM, ROW.replace(",5,", ",\x0c5,"), rejected={2: ["product_id: not an integer"]}),
    Case("gz", gzip.compress(f"{ITEM}\n{ROW}\n".replace("{id}", "gz").encode()), [item("gz")],
         file="product_item-gz.csv.gz"),
    _text("odd-name", ITEM, ROW, accepted=[item("odd-name")],
          file="product_item- it's \"..\\..\" ; $(touch x) `id` -- drop.csv"),
    _text("upper-case-name", ITEM, ROW, accepted=[item("upper-case-name")], file="PRODUCT_ITEM-UPPER.CSV"),
]  # fmt: skip

# --- Files that are refused whole ----------------------------------------------------------------------------


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("no csv")


READ_ITEM = f"{ITEM}\n{ROW}\n"
REFUSED = [
    Case("utf-16", READ_ITEM.encode("utf-16"), refused="has a UTF-16 byte-order mark"),
    Case("utf-16-be", b"\xfe\xff" + READ_ITEM.encode("utf-16-be"), refused="has a UTF-16 byte-order mark"),
    Case("utf-32", READ_ITEM.encode("utf-32"), refused="has a UTF-32 byte-order mark"),
    Case("utf-16-unmarked", READ_ITEM.encode("utf-16-le"), refused="holds a NUL byte"),
    Case("nul", READ_ITEM.replace("10.00", "10\0.00").encode(), refused="line 2 holds a NUL byte"),
    Case("nul-at-the-end", READ_ITEM.encode() + b"\0" * 512, refused="line 3 holds a NUL byte"),
    Case("empty", b"", refused="is empty, without even a header"),
    Case("only-blank", b"\n  \n\n", refused="is empty, without even a header"),
    Case("no-header", f"{ROW}\n{ROW}\n", refused="column 'transaction_datetime' is missing (found: '2023-02-08"),
    _text("missing-column", ITEM.replace(",item_quantity", ""), ROW.replace(",2,", ","),
          refused="column 'item_quantity' is missing"),
    _text("header-of-another-table", ITEM, ROW, refused="column 'buyer_id' is missing", table="purchase"),
    _text("column-twice", ITEM + ",product_id", ROW + ",6", refused="column 'product_id' is there more than once"),
    _text("column-twice-in-other-case", ITEM + ",Product_ID", ROW + ",6", refused="is there more than once"),
    _text("semicolons", ITEM.replace(",", ";"), ROW.replace(",", ";"), refused="columns are separated by ';'"),
    _text("tabs", ITEM.replace(",", "\t"), ROW.replace(",", "\t"), refused="columns are separated by '\\t'"),
    Case("bad-header", f"{ITEM},t\xedtulo\n{ROW},x\n".encode("latin-1"), refused="the header at line 1 is not UTF-8"),
    _text("unclosed-quote", INFO, '2023-02-08 07:00:00,2023-02-08,{id},"nac', INFO_ROW, INFO_ROW,
          refused="in the record at line 2 a quote is not closed", table="purchase_extra_info"),
    _text("backslash-quote", INFO, '2023-02-08 07:00:00,2023-02-08,{id},"a\\"b"',
          refused="a closing quote is not followed by a comma", table="purchase_extra_info"),
    _text("huge-field", INFO, "2023-02-08 07:00:00,2023-02-08,{id}," + "x" * 200_000,
          refused="the record at line 2 is longer than 131,072 bytes", table="purchase_extra_info"),
    Case("truncated-gz", gzip.compress(READ_ITEM.encode() * 50)[:-9], refused="is a gzip file whose end is missing",
         file="product_item-truncated.csv.gz"),
    Case("damaged-gz", gzip.compress(os.urandom(9) + READ_ITEM.encode())[:-6] + b"\1\2\3\4\5\6",
         refused="is no sound gzip file", file="product_item-damaged.csv.gz"),
    Case("no-gz", READ_ITEM, refused="is no sound gzip file", file="product_item-no.csv.gz"),
    Case("gz-in-csv", gzip.compress(READ_ITEM.encode()), refused="is compressed by gzip, but its name does not end"),
    Case("broken-link", lambda path: path.symlink_to("gone.csv"), refused="is a link that leads nowhere"),
    Case("link-to-itself", lambda path: path.symlink_to(path.name), refused="is a link that leads nowhere"),
    Case("link-out", lambda path: path.symlink_to("/etc/hostname"), refused="leads out of the landing folder"),
    Case("pipe", lambda path: os.mkfifo(path), refused="is not a regular file"),
    Case("no-table", READ_ITEM, refused="neither its name nor a folder of its path names a table", file="items.csv"),
]  # fmt: skip

LEFT = [
    Case("folder", _folder, is_left=True),
    Case("hidden", "x", is_left=True, file=".product_item-hidden.csv"),
    Case("underscore", "x", is_left=True, file="_product_item-x.csv"),
    Case("other-suffix", "x", is_left=True, file="product_item-x.csv.part"),
]

# --- One value in a sound record: its event, or the reasons --------------------------------------------------


def _value(name: str, column: str, text: str, *outcome: object, table: str = "product_item") -> Case:
    """A file whose record has `text` in a column: accepted as a value of the model, or rejected for reasons."""
    columns = HEADERS[table].split(",")
    values = SOUND[table].replace("{id}", f"v-{name}").split(",")
    values[columns.index(column)] = '"' + text.replace('"', '""') + '"' if set(text) & set('",\n') else text
    content = f"{HEADERS[table]}\n{','.join(values)}\n"
    if outcome and all(isinstance(one, str) and ": " in one for one in outcome):
        return Case(f"v-{name}", content, rejected={2: list(map(str, outcome))}, table=table)
    make = {"product_item": item, "purchase": purchase, "purchase_extra_info": info}[table]
    event = make(f"v-{name}")
    (value,) = outcome
    return Case(f"v-{name}", content, [type(event)(**(vars(event) | {column: value}))], table=table)


NO_AMOUNT, DECIMALS = "purchase_value: not an amount", "purchase_value: more than 2 decimals"
NO_DATE, NO_TIME = "transaction_date: not a date", "transaction_datetime: not a timestamp"
IMPLAUSIBLE = "implausible_date"
VALUES = [
    _value("three-decimals", "purchase_value", "19.999", DECIMALS),
    _value("half-a-cent", "purchase_value", "55.595", DECIMALS),
    _value("zeros-at-the-end", "purchase_value", "55.590", Decimal("55.59")),
    _value("many-zeros", "purchase_value", "55.5900000000000000000000000", Decimal("55.59")),
    _value("no-decimals", "purchase_value", "55", Decimal("55.00")),
    _value("a-point-at-the-end", "purchase_value", "55.", NO_AMOUNT),
    _value("a-point-first", "purchase_value", ".55", NO_AMOUNT),
    _value("leading-zeros-of-a-value", "purchase_value", "0055.50", Decimal("55.50")),
    _value("sixteen-digits", "purchase_value", "9999999999999999.99", Decimal("9999999999999999.99")),
    _value("seventeen-digits", "purchase_value", "10000000000000000.00", NO_AMOUNT),
    _value("38-digits", "purchase_value", "9" * 38, NO_AMOUNT),
    _value("exponent", "purchase_value", "1e3", NO_AMOUNT),
    _value("nan", "purchase_value", "NaN", NO_AMOUNT),
    _value("infinity", "purchase_value", "Infinity", NO_AMOUNT),
    _value("null", "purchase_value", "NULL", NO_AMOUNT),
    _value("backslash-n", "purchase_value", "\\N", NO_AMOUNT),
    _value("thousands", "purchase_value", "1,234.50", NO_AMOUNT),
    _value("quoted-decimal-comma", "purchase_value", "10,50", NO_AMOUNT),
    _value("currency", "purchase_value", "R$ 10.00", NO_AMOUNT),
    _value("minus-zero", "purchase_value", "-0", Decimal("0.00")),
    _value("plus", "purchase_value", "+5", NO_AMOUNT),
    _value("negative", "purchase_value", "-0.01", "purchase_value: negative"),
    _value("hexadecimal", "purchase_value", "0x10", NO_AMOUNT),
    _value("unicode-digits", "purchase_value", "\uff11\uff12", NO_AMOUNT),
    _value("arabic-digits", "item_quantity", "\u0661\u0662", "item_quantity: not an integer"),
    _value("no-value", "purchase_value", "", "purchase_value: empty"),
    _value("spaces-alone", "purchase_value", " \u00a0 ", "purchase_value: empty"),
    _value("a-space-before", "purchase_value", " 10.00", Decimal("10.00")),
    _value("a-no-break-space", "purchase_value", "\u00a010.00\u202f", Decimal("10.00")),
    _value("a-mark-before", "purchase_value", "\ufeff10.00", Decimal("10.00")),
    _value("an-ideographic-space", "purchase_value", "\u300010.00", NO_AMOUNT),
    _value("a-tab", "purchase_value", "\t10.00", NO_AMOUNT),
    _value("a-newline-in-a-number", "purchase_value", "10.00\n", NO_AMOUNT),
    _value("quantity-0", "item_quantity", "0", 0),
    _value("quantity-negative", "item_quantity", "-1", "item_quantity: negative"),
    _value("quantity-too-large", "item_quantity", "2147483648", "item_quantity: out of range"),
    _value("quantity-largest", "item_quantity", "2147483647", 2147483647),
    _value("quantity-decimal", "item_quantity", "1.0", "item_quantity: not an integer"),
    _value("quantity-text", "item_quantity", "two", "item_quantity: not an integer"),
    _value("product-38-digits", "product_id", "9" * 38, "product_id: out of range"),
    _value("product-smallest", "product_id", str(-(2**63)), -(2**63)),
    _value("product-empty", "product_id", "", None),
    _value("no-such-day", "transaction_date", "2023-02-30", NO_DATE),
    _value("short-day", "transaction_date", "2023-2-8", NO_DATE),
    _value("year-alone", "transaction_date", "2023", NO_DATE),
    _value("other-order", "transaction_date", "02/03/2023", NO_DATE),
    _value("day-with-a-time", "transaction_date", "2023-02-08 00:00:00", NO_DATE),
    _value("leap-day", "transaction_date", "2024-02-29", date(2024, 2, 29)),
    _value("no-leap-day", "transaction_date", "2023-02-29", NO_DATE),
    _value("no-day", "transaction_date", "", "transaction_date: empty"),
    _value("year-0000", "transaction_date", "0000-01-01", NO_DATE),
    _value("year-0001", "transaction_date", "0001-01-01", f"transaction_date: {IMPLAUSIBLE}"),
    _value("year-1999", "transaction_date", "1999-12-31", f"transaction_date: {IMPLAUSIBLE}"),
    _value("year-2000", "transaction_date", "2000-01-01", date(2000, 1, 1)),
    _value("year-2203", "transaction_date", "2203-02-08", f"transaction_date: {IMPLAUSIBLE}"),
    _value("year-9999", "transaction_date", "9999-12-31", f"transaction_date: {IMPLAUSIBLE}"),
    _value("year-of-five-digits", "transaction_date", "12023-02-08", NO_DATE),
    _value("time-with-t", "transaction_datetime", "2023-02-08T07:00:00.5", AT.replace(microsecond=500_000)),
    _value("time-zone", "transaction_datetime", "2023-02-08T07:00:00Z", NO_TIME),
    _value("time-offset", "transaction_datetime", "2023-02-08 07:00:00+01:00", NO_TIME),
    _value("six-decimals", "transaction_datetime", "2023-02-08 07:00:00.123456", AT.replace(microsecond=123_456)),
    _value("seven-decimals", "transaction_datetime", "2023-02-08 07:00:00.1234567", NO_TIME),
    _value("no-seconds", "transaction_datetime", "2023-02-08 07:00", NO_TIME),
    _value("hour-24", "transaction_datetime", "2023-02-08 24:00:00", NO_TIME),
    _value("second-60", "transaction_datetime", "2023-02-08 07:00:60", NO_TIME),
    _value("epoch", "transaction_datetime", "1675839600", NO_TIME),
    _value("time-of-9999", "transaction_datetime", "9999-12-31 00:00:00", f"transaction_datetime: {IMPLAUSIBLE}"),
    _value("release-in-2203", "release_date", "2203-01-01", date(2203, 1, 1), table="purchase"),
    _value("release-no-date", "release_date", "08.02.2023", "release_date: not a date", table="purchase"),
    _value("release-empty", "release_date", " ", None, table="purchase"),
    _value("buyer-text", "buyer_id", "anna", "buyer_id: not an integer", table="purchase"),
    _value("id-empty", "purchase_id", "", "purchase_id: empty", table="purchase"),
    _value("id-of-zeros", "purchase_id", "0007", "0007"),
    _value("id-without-zeros", "purchase_id", "7", "7"),
    _value("id-in-small", "purchase_id", "ab-1", "ab-1"),
    _value("id-in-capitals", "purchase_id", "AB-1", "AB-1"),
    _value("id-with-space", "purchase_id", " ab-2 ", "ab-2"),
    _value("id-with-space-inside", "purchase_id", "ab 3", "ab 3"),
    _value("subsidiary-empty", "subsidiary", "  ", "subsidiary: empty", table="purchase_extra_info"),
    _value("subsidiary-formula", "subsidiary", "=1+1", "=1+1", table="purchase_extra_info"),
    _value("subsidiary-html", "subsidiary", "<script>alert(1)</script>", "<script>alert(1)</script>",
           table="purchase_extra_info"),
    _value("subsidiary-sql", "subsidiary", "'; drop table gold.daily_gmv; --", "'; drop table gold.daily_gmv; --",
           table="purchase_extra_info"),
    _value("subsidiary-accents", "subsidiary", "Sa\u0303o Paulo \U0001f6d2", "Sa\u0303o Paulo \U0001f6d2",
           table="purchase_extra_info"),
]  # fmt: skip

SEVERAL = [
    _text("all-reasons", ITEM, "2023-02-08,08/02/2023,,x,-1,1e3", rejected={
        2: [NO_TIME, NO_DATE, "purchase_id: empty", "product_id: not an integer", "item_quantity: negative", NO_AMOUNT]
    }),
]  # fmt: skip

CASES = [*READ, *REFUSED, *LEFT, *VALUES, *SEVERAL]
