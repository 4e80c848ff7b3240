"""Landing: which files are found, and what exactly is staged of them. No Spark here."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import tracemalloc
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gmv import csv_records, landing
from gmv.csv_records import Refused
from gmv.errors import GmvError, UsageError
from gmv.lake.records import arrow_schema
from gmv.landing import Changed, Unreadable
from gmv.tables import EVENT_TABLES, PRODUCT_ITEM, PURCHASE, PURCHASE_EXTRA_INFO, event_table
from hypothesis import example, given, settings
from hypothesis import strategies as st

SAMPLE = Path(__file__).resolve().parents[1] / "data_lake" / "landing"
INGESTED_AT = datetime(2023, 3, 1, 6, 0, 0, 123456)
HEADER = b"transaction_datetime,transaction_date,purchase_id,subsidiary\n"
NARROW = HEADER.rstrip()


def found(folder: Path, name: str, content: bytes) -> landing.LandingFile:
    location = folder / "landing" / name
    location.parent.mkdir(parents=True, exist_ok=True)
    location.write_bytes(content)
    return next(file for file in landing.find(folder / "landing") if file.location == location)


def stage(file: landing.LandingFile, folder: Path) -> landing.Staged:
    table = event_table(file.table or "purchase_extra_info")
    return landing.stage(file, table, "run-1", INGESTED_AT, folder / "staged")


def rows_of(folder: Path, content: bytes, name: str = "purchase_extra_info.csv") -> list[tuple]:
    """(line, values of the table's columns or None, defect, raw, extra) of each staged row."""
    file = found(folder, name, content)
    staged = stage(file, folder)
    rows = pq.read_table(staged.parquet).to_pylist()
    assert staged.records == len(rows)
    names = event_table(file.table).column_names
    result = []
    for row in rows:
        values: tuple | None = tuple(row[name] for name in names)
        if row["defect"]:
            assert values == (None,) * len(names)
            values = None
        extra = None if row["extra"] is None else dict(row["extra"])
        result.append((row["line"], values, row["defect"], row["raw"], extra))
    return result


def good(line: int, *values: str, **extra: str) -> tuple:
    return line, values, None, None, extra or None


def bad(line: int, defect: str, raw: str) -> tuple:
    return line, None, defect, raw, None


@pytest.fixture(
    params=["at once", "record by record", "in small pieces", "in small pieces, record by record"]
)
def way(request, monkeypatch) -> str:
    """Each way in which a file may be split; the result must be the same."""
    if "record by record" in request.param:
        monkeypatch.setattr(csv_records, "_read_regular", lambda lines, header: None)
    if "small pieces" in request.param:
        monkeypatch.setattr(csv_records, "CHUNK_BYTES", 7)
    return request.param


# --- What is accepted ---------------------------------------------------------------------------------

ACCEPTED = {
    "plain": (
        HEADER + b"t,d,56,nac\nt,d,57,int\n",
        [good(2, "t", "d", "56", "nac"), good(3, "t", "d", "57", "int")],
    ),
    "header only": (HEADER, []),
    "header only, without an end of line": (NARROW, []),
    "no end of line at the end": (HEADER + b"t,d,56,nac", [good(2, "t", "d", "56", "nac")]),
    "no end of line after quotes": (HEADER + b't,d,56,"nac"', [good(2, "t", "d", "56", "nac")]),
    "CRLF": (
        HEADER.replace(b"\n", b"\r\n") + b"t,d,56,nac\r\nt,d,57,int\r\n",
        [good(2, "t", "d", "56", "nac"), good(3, "t", "d", "57", "int")],
    ),
    "CR alone ends a line": (
        HEADER.replace(b"\n", b"\r") + b"t,d,56,nac\rt,d,57,int\r",
        [good(2, "t", "d", "56", "nac"), good(3, "t", "d", "57", "int")],
    ),
    "CR inside a value splits the record": (
        HEADER + b"t,d,5\r6,nac\n",
        [bad(2, "field_count", "t,d,5"), bad(3, "field_count", "6,nac")],
    ),
    "all ends of line in one file": (
        HEADER + b"t,d,1,a\r\nt,d,2,b\rt,d,3,c\nt,d,4,d",
        [
            good(2, "t", "d", "1", "a"),
            good(3, "t", "d", "2", "b"),
            good(4, "t", "d", "3", "c"),
            good(5, "t", "d", "4", "d"),
        ],
    ),
    "other separators of lines are text": (
        HEADER + "t,d,56,a\u2028b\x0bc\x85d\x1ce\n".encode(),
        [good(2, "t", "d", "56", "a\u2028b\x0bc\x85d\x1ce")],
    ),
    "byte-order mark": (b"\xef\xbb\xbf" + HEADER + b"t,d,56,nac\n", [good(2, "t", "d", "56", "nac")]),
    "byte-order mark before quotes": (
        b'\xef\xbb\xbf"transaction_datetime",transaction_date,purchase_id,subsidiary\nt,d,56,nac\n',
        [good(2, "t", "d", "56", "nac")],
    ),
    "two byte-order marks": (
        b"\xef\xbb\xbf" * 2 + HEADER + b"t,d,56,nac\n",
        [good(2, "t", "d", "56", "nac")],
    ),
    "byte-order mark in front of a record stays": (
        HEADER + b"\xef\xbb\xbft,d,56,nac\n",
        [good(2, "\ufefft", "d", "56", "nac")],
    ),
    "columns in another order": (
        b"subsidiary,purchase_id,transaction_date,transaction_datetime\nnac,56,d,t\n",
        [good(2, "t", "d", "56", "nac")],
    ),
    "column names in another case": (HEADER.upper() + b"t,d,56,nac\n", [good(2, "t", "d", "56", "nac")]),
    "spaces around column names": (
        b" transaction_datetime,transaction_date\t,\xc2\xa0purchase_id , subsidiary \nt,d,56,nac\n",
        [good(2, "t", "d", "56", "nac")],
    ),
    "quoted column names": (
        b'"transaction_datetime","transaction_date","purchase_id","subsidiary"\nt,d,56,nac\n',
        [good(2, "t", "d", "56", "nac")],
    ),
    "column name with an end of line": (
        NARROW + b',"a\nb"\nt,d,56,nac,x\n',
        [good(3, "t", "d", "56", "nac", **{"a\nb": "x"})],
    ),
    "empty lines before the header": (
        b"\n\r\n  \n" + HEADER + b"t,d,56,nac\n",
        [good(5, "t", "d", "56", "nac")],
    ),
    "extra column": (NARROW + b",Note\nt,d,56,nac,hello\n", [good(2, "t", "d", "56", "nac", Note="hello")]),
    "extra columns between the others": (
        b"a,subsidiary,b,purchase_id,transaction_date,c,transaction_datetime\n1,nac,2,56,d,3,t\n4,int,5,57,d,6,t\n",
        [
            good(2, "t", "d", "56", "nac", a="1", b="2", c="3"),
            good(3, "t", "d", "57", "int", a="4", b="5", c="6"),
        ],
    ),
    "empty extra value stays empty text": (
        NARROW + b",x\nt,d,56,nac,\n",
        [good(2, "t", "d", "56", "nac", x="")],
    ),
    "extra column without a name, as pandas writes its index": (
        b"," + NARROW + b"\n0,t,d,56,nac\n",
        [good(2, "t", "d", "56", "nac", **{"": "0"})],
    ),
    "extra columns beside a defect": (
        NARROW + b",x\nt,d,1,a,p\nt,d,2\nt,d,3,c,q\n",
        [
            good(2, "t", "d", "1", "a", x="p"),
            bad(3, "field_count", "t,d,2"),
            good(4, "t", "d", "3", "c", x="q"),
        ],
    ),
    "spaces around values stay": (HEADER + b" t , d,\t56,nac \n", [good(2, " t ", " d", "\t56", "nac ")]),
    "empty values stay empty text": (HEADER + b",,,\n", [good(2, "", "", "", "")]),
    "quoted empty value": (HEADER + b't,d,"",""\n', [good(2, "t", "d", "", "")]),
    "words for null are text": (HEADER + b"NULL,NaN,#N/A,null\n", [good(2, "NULL", "NaN", "#N/A", "null")]),
    "comma in quotes": (HEADER + b't,d,56,"nac,ional"\n', [good(2, "t", "d", "56", "nac,ional")]),
    "doubled quotes": (HEADER + b't,d,56,"na""c"\n', [good(2, "t", "d", "56", 'na"c')]),
    "only doubled quotes": (HEADER + b't,d,56,""""\n', [good(2, "t", "d", "56", '"')]),
    "quote inside an unquoted value is text": (
        HEADER + b't,d,5"6,na"c"\n',
        [good(2, "t", "d", '5"6', 'na"c"')],
    ),
    "quote after a space is text": (HEADER + b't,d,56, "nac"\n', [good(2, "t", "d", "56", ' "nac"')]),
    "backslash escapes nothing": (HEADER + b't,d,5\\,"na\\"\n', [good(2, "t", "d", "5\\", "na\\")]),
    "single quotes are text": (HEADER + b"t,d,'56','nac'\n", [good(2, "t", "d", "'56'", "'nac'")]),
    "end of line in quotes": (
        HEADER + b't,d,56,"na\nc"\nt,d,57,int\n',
        [good(2, "t", "d", "56", "na\nc"), good(4, "t", "d", "57", "int")],
    ),
    "CRLF in quotes stays": (
        HEADER + b't,d,56,"na\r\n\r\nc"\r\nt,d,57,int\r\n',
        [good(2, "t", "d", "56", "na\r\n\r\nc"), good(5, "t", "d", "57", "int")],
    ),
    "CR in quotes stays, and counts as a line": (
        HEADER + b't,d,56,"na\rc"\nt,d,57,int\n',
        [good(2, "t", "d", "56", "na\rc"), good(4, "t", "d", "57", "int")],
    ),
    "record after record with ends of line in quotes": (
        HEADER + b'"\nt",d,1,a\n"\n\nt",d,2,b\nt,d,3,c\n',
        [good(2, "\nt", "d", "1", "a"), good(4, "\n\nt", "d", "2", "b"), good(7, "t", "d", "3", "c")],
    ),
    "empty lines are skipped and counted": (
        HEADER + b"\nt,d,56,nac\n\r\n\n\nt,d,57,int\n\n",
        [good(3, "t", "d", "56", "nac"), good(7, "t", "d", "57", "int")],
    ),
    "nothing but empty lines": (HEADER + b"\n\n\n", []),
    "a line of spaces is a record": (HEADER + b"   \n", [bad(2, "field_count", "   ")]),
    "an empty pair of quotes is a record": (HEADER + b'""\n', [bad(2, "field_count", '""')]),
    "a field too many": (
        HEADER + b"t,d,56,nac,09\nt,d,57,int\n",
        [bad(2, "field_count", "t,d,56,nac,09"), good(3, "t", "d", "57", "int")],
    ),
    "a comma at the end is a field too many": (
        HEADER + b"t,d,56,nac,\n",
        [bad(2, "field_count", "t,d,56,nac,")],
    ),
    "a field too few": (HEADER + b"t,d,56\r\n", [bad(2, "field_count", "t,d,56")]),
    "a file cut off in its last record": (
        HEADER + b"t,d,56,nac\nt,d,5",
        [good(2, "t", "d", "56", "nac"), bad(3, "field_count", "t,d,5")],
    ),
    "field count of a record over two lines": (
        HEADER + b't,d,"5\r\n6",nac,x\r\nt,d,57,int\r\n',
        [bad(2, "field_count", 't,d,"5\r\n6",nac,x'), good(4, "t", "d", "57", "int")],
    ),
    "the header again in the middle": (
        HEADER + HEADER,
        [good(2, "transaction_datetime", "transaction_date", "purchase_id", "subsidiary")],
    ),
    "UTF-8": (
        HEADER + "t,d,56,São Paulo €\U0001f600\n".encode(),
        [good(2, "t", "d", "56", "São Paulo €\U0001f600")],
    ),
    "Latin-1 bytes": (
        HEADER + b"t,d,56,S\xe3o\nt,d,57,int\n",
        [bad(2, "encoding", "t,d,56,S\\xe3o"), good(3, "t", "d", "57", "int")],
    ),
    "a character cut off by a comma": (
        HEADER + b"t,d,56\xe2\x82,nac\n",
        [bad(2, "encoding", "t,d,56\\xe2\\x82,nac")],
    ),
    "a surrogate in UTF-8": (
        HEADER + b"t,d,56,\xed\xa0\x80\n",
        [bad(2, "encoding", "t,d,56,\\xed\\xa0\\x80")],
    ),
    "an overlong comma": (HEADER + b"t,d,56\xc0\xacnac\n", [bad(2, "encoding", "t,d,56\\xc0\\xacnac")]),
    "bad bytes in quotes over two lines": (
        HEADER + b't,d,56,"\xff\n\xfe"\nt,d,57,int\n',
        [bad(2, "encoding", 't,d,56,"\\xff\n\\xfe"'), good(4, "t", "d", "57", "int")],
    ),
    "bad bytes in the first of two lines": (
        HEADER + b't,d,56,"\xff\nx"\nt,d,57,int\n',
        [bad(2, "encoding", 't,d,56,"\\xff\nx"'), good(4, "t", "d", "57", "int")],
    ),
    "U+FFFD in the first of two lines": (
        HEADER + 't,d,56,"\ufffd\nx"\n'.encode(),
        [bad(2, "encoding", 't,d,56,"\ufffd\nx"')],
    ),
    "bad bytes in an extra column": (
        NARROW + b",x\nt,d,56,nac,\xff\n",
        [bad(2, "encoding", "t,d,56,nac,\\xff")],
    ),
    "U+FFFD": (
        HEADER + "t,d,56,S\ufffdo\nt,d,57,int\n".encode(),
        [bad(2, "encoding", "t,d,56,S\ufffdo"), good(3, "t", "d", "57", "int")],
    ),
    "encoding goes before field count": (
        HEADER + b"t,d,56,\xff,09\n",
        [bad(2, "encoding", "t,d,56,\\xff,09")],
    ),
    "a defect in every record": (
        HEADER + b"x\nt,d,\xff,nac\n",
        [bad(2, "field_count", "x"), bad(3, "encoding", "t,d,\\xff,nac")],
    ),
    "control characters are text": (
        HEADER + b"t,d,\x1b[31m56,\x01\n",
        [good(2, "t", "d", "\x1b[31m56", "\x01")],
    ),
    "a formula is text": (HEADER + b"t,d,56,=1+1\n", [good(2, "t", "d", "56", "=1+1")]),
    "a long value": (HEADER + b"t,d,56," + b"x" * 131_000 + b"\n", [good(2, "t", "d", "56", "x" * 131_000)]),
}


@pytest.mark.parametrize(("content", "rows"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_file_is_staged_as(content, rows, way, tmp_path):
    assert rows_of(tmp_path, content) == rows
    assert rows_of(tmp_path, gzip.compress(content), "purchase_extra_info.csv.gz") == rows


# --- What is refused ------------------------------------------------------------------------------------

REFUSED = {
    "no byte": (b"", "is empty"),
    "only ends of line": (b"\n\r\n\n", "is empty"),
    "only spaces": (b"  \n \t ", "is empty"),
    "only a byte-order mark": (b"\xef\xbb\xbf", "is empty"),
    "missing column": (
        b"transaction_datetime,transaction_date,purchase_id\nt,d,56\n",
        "column 'subsidiary' is missing"
        " (found: 'transaction_datetime', 'transaction_date', 'purchase_id'). Nothing of this file",
    ),
    "records without a header": (
        b"t,d,56,nac\n",
        "column 'transaction_datetime' is missing (found: 't', 'd', '56', 'nac')",
    ),
    "column name in two parts": (
        HEADER.replace(b"_id", b" id") + b"t,d,56,nac\n",
        "column 'purchase_id' is missing",
    ),
    "header of another table": (
        b"transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value\n",
        "column 'subsidiary' is missing",
    ),
    "repeated column": (
        NARROW + b",subsidiary\nt,d,56,nac,int\n",
        "column 'subsidiary' is there more than once",
    ),
    "column repeated in another case": (
        NARROW + b", Subsidiary\nt,d,56,nac,int\n",
        "column 'subsidiary' is there more than once",
    ),
    "repeated extra column": (NARROW + b",x,X\nt,d,56,nac,1,2\n", "column 'x' is there more than once"),
    "two columns without a name": (NARROW + b",,\nt,d,56,nac,,\n", "column '' is there more than once"),
    "semicolons": (
        HEADER.replace(b",", b";") + b"t;d;56;nac\n",
        "columns are separated by ';', not by a comma",
    ),
    "tabs": (
        HEADER.replace(b",", b"\t") + b"t\td\t56\tnac\n",
        "columns are separated by '\\t', not by a comma",
    ),
    "bars": (HEADER.replace(b",", b"|") + b"t|d|56|nac\n", "columns are separated by '|', not by a comma"),
    "quoted semicolons": (
        b'"transaction_datetime";"transaction_date";"purchase_id";"subsidiary"\n',
        "a closing quote is not followed by a comma",
    ),
    "header in Latin-1": (NARROW + b",regi\xe3o\nt,d,56,nac,x\n", "the header at line 1 is not UTF-8 text"),
    "header with U+FFFD": (NARROW + ",regi\ufffdo\n".encode(), "the header at line 1 is not UTF-8 text"),
    "UTF-16 LE": ((HEADER + b"t,d,56,nac\n").decode().encode("utf-16"), "has a UTF-16 byte-order mark"),
    "UTF-16 BE": (b"\xfe\xff" + HEADER.decode().encode("utf-16-be"), "has a UTF-16 byte-order mark"),
    "UTF-32 LE": (HEADER.decode().encode("utf-32"), "has a UTF-32 byte-order mark"),
    "UTF-32 BE": (b"\x00\x00\xfe\xff" + HEADER.decode().encode("utf-32-be"), "has a UTF-32 byte-order mark"),
    "UTF-16 without a mark": (HEADER.decode().encode("utf-16-le"), "line 1 holds a NUL byte"),
    "NUL in a value": (HEADER + b"t,d,56,nac\nt,d,5\x007,int\n", "line 3 holds a NUL byte"),
    "NUL at the beginning of a line": (HEADER + b"t,d,56,nac\r\n\x00", "line 3 holds a NUL byte"),
    "NUL in quotes": (HEADER + b't,d,56,"\n\x00"\n', "line 3 holds a NUL byte"),
    "a disk that was full: NULs at the end": (
        HEADER + b"t,d,56,nac\n" + b"\x00" * 50,
        "line 3 holds a NUL byte",
    ),
    "gzip under the name of a CSV": (
        gzip.compress(HEADER),
        "is compressed by gzip, but its name does not end with .csv.gz",
    ),
    "quote never closed": (
        HEADER + b't,d,56,nac\nt,d,57,"int\nt,d,58,nac\n',
        "in the record at line 3 a quote is not closed",
    ),
    "quote at the very end": (HEADER + b't,d,56,"', "in the record at line 2 a quote is not closed"),
    "quote in the header never closed": (
        b'"' + HEADER + b"t,d,56,nac\n",
        "in the record at line 1 a quote is not closed",
    ),
    "quote that swallows the next ones": (
        HEADER + b't,d,56,"nac\nt,d,57,"int"\n',
        "in the record at line 2 a closing quote is not followed by a comma",
    ),
    "text after a closing quote": (
        HEADER + b't,d,56,nac\nt,d,"57"x,int\n',
        "in the record at line 3 a closing quote is not followed by a comma",
    ),
    "space after a closing quote": (
        HEADER + b't,d,"57" ,int\n',
        "a closing quote is not followed by a comma",
    ),
    "quote escaped by a backslash": (
        HEADER + b't,d,57,"a\\"b"\n',
        "a closing quote is not followed by a comma",
    ),
    "quote that swallows more than a record may hold": (
        HEADER + b't,d,56,"nac\n' + b"t,d,57,nac\n" * 20_000,
        "the record at line 2 is longer than 131,072 bytes",
    ),
    "line that is too long": (
        HEADER + b"t,d,56,nac\nt,d,57," + b"x" * 200_000 + b"\n",
        "the record at line 3 is longer than 131,072 bytes",
    ),
    "line just too long": (HEADER + b"t,d,56," + b"x" * (131_072 - 7) + b"\n", "longer than 131,072 bytes"),
    "header that is too long": (b"x" * 200_000, "the record at line 1 is longer than 131,072 bytes"),
}


@pytest.mark.parametrize(("content", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_file_is_refused_whole(content, problem, way, tmp_path):
    for name, data in [
        ("purchase_extra_info.csv", content),
        ("purchase_extra_info.csv.gz", gzip.compress(content) if content else b""),
    ]:
        file = found(tmp_path, name, data)
        with pytest.raises(Refused) as refusal:
            stage(file, tmp_path)
        message = str(refusal.value)
        assert message.startswith(f"{name}: ")
        assert problem in message
        assert message.endswith(". Nothing of this file was loaded.")
        assert len(message) < 800
        assert list((tmp_path / "staged").iterdir()) == []


COMPRESSED = gzip.compress(HEADER + b"t,d,56,nac\n" * 1000, mtime=0)
BAD_GZIP = {
    "cut off in its data": (COMPRESSED[: len(COMPRESSED) // 2], "is a gzip file whose end is missing"),
    "cut off in its checksum": (COMPRESSED[:-3], "is a gzip file whose end is missing"),
    "cut off in its header": (COMPRESSED[:5], "is a gzip file whose end is missing"),
    "no gzip at all": (HEADER, "is no sound gzip file (Not a gzipped file"),
    "text after the end": (COMPRESSED + b"t,d,57,nac\n", "is no sound gzip file (Not a gzipped file"),
    "wrong checksum": (
        COMPRESSED[:-8] + b"\x01\x02\x03\x04" + COMPRESSED[-4:],
        "is no sound gzip file (CRC check failed",
    ),
    "wrong data": (COMPRESSED[:10] + b"\xff" * 20 + COMPRESSED[30:], "is no sound gzip file (Error -3"),
}


@pytest.mark.parametrize(("content", "problem"), BAD_GZIP.values(), ids=BAD_GZIP.keys())
def test_bad_gzip_is_refused_whole(content, problem, tmp_path):
    with pytest.raises(Refused) as refusal:
        stage(found(tmp_path, "purchase_extra_info.csv.gz", content), tmp_path)
    assert problem in str(refusal.value)
    assert list((tmp_path / "staged").iterdir()) == []


def test_gzip_of_several_members_is_read_to_its_end(tmp_path):
    content = gzip.compress(HEADER + b"t,d,56,nac\n") + gzip.compress(b"t,d,57,int\n")
    rows = rows_of(tmp_path, content, "purchase_extra_info.csv.gz")
    assert rows == [good(2, "t", "d", "56", "nac"), good(3, "t", "d", "57", "int")]


# --- Properties -----------------------------------------------------------------------------------------

_pieces = st.sampled_from(
    [
        *b't,d,56,nac|t|d|,|,,,|"|""|"a"|\n|\r|\r\n| |\xef\xbb\xbf|\xff|\xe2\x82|\xef\xbf\xbd|\0|\\|\''.split(
            b"|"
        ),
        "é\u2028\x85".encode(),
        b"t,d,1,a\n" * 5,
    ]
)
_contents = st.lists(_pieces, max_size=25).map(b"".join).map(lambda body: HEADER + body)
_texts = st.lists(
    st.text(st.sampled_from('ab,"\n\r \ufeffé'), max_size=4).map(
        lambda value: '"' + value.replace('"', '""') + '"'
    )
    | st.text(st.sampled_from("ab. é'"), max_size=4),
    min_size=4,
    max_size=4,
).map(",".join)
_files = st.lists(st.tuples(_texts, st.sampled_from(["\n", "\r\n", "\r", "\n\n"])).map("".join), max_size=12)


def outcome(folder: Path, content: bytes, chunk_bytes: int, exactly: bool) -> list[tuple] | str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_records, "CHUNK_BYTES", chunk_bytes)
        if exactly:
            patch.setattr(csv_records, "_read_regular", lambda lines, header: None)
        try:
            return rows_of(folder, content)
        except Refused as refusal:
            return str(refusal)


@given(_contents, st.integers(1, 60))
@example(HEADER + b't,d,"\n",a\n' * 9, 5)
@settings(max_examples=400, deadline=None)
def test_splitting_at_once_gives_what_splitting_record_by_record_gives(
    tmp_path_factory, content, chunk_bytes
):
    folder = tmp_path_factory.mktemp("ways")
    exact = outcome(folder, content, 10**6, exactly=True)
    assert outcome(folder, content, 10**6, exactly=False) == exact
    # Pieces may only change which one of several reasons a file is refused for.
    for exactly in (True, False):
        in_pieces = outcome(folder, content, chunk_bytes, exactly)
        assert in_pieces == exact or (isinstance(in_pieces, str) and isinstance(exact, str))


@given(_files)
@settings(max_examples=300, deadline=None)
def test_values_are_those_of_the_csv_module(tmp_path_factory, records):
    text = HEADER.decode() + "".join(records)
    expected = [fields for fields in csv.reader(io.StringIO(text, newline=""), strict=True) if fields][1:]
    rows = rows_of(tmp_path_factory.mktemp("values"), text.encode())
    assert [list(values) for _, values, *_ in rows] == expected
    lines = io.StringIO(text, newline="").readlines()
    for line, values, *_ in rows:
        assert next(csv.reader(iter(lines[line - 1 :]))) == list(values)


@pytest.fixture(scope="module")
def sample_bytes() -> dict[str, bytes]:
    return {table.name: (SAMPLE / f"{table.name}.csv").read_bytes() for table in EVENT_TABLES}


_edits = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.integers(0, 3),
        st.binary(max_size=3) | st.sampled_from([b'"', b"\n", b"\r", b","]),
    ),
    min_size=1,
    max_size=6,
)


@given(st.sampled_from(EVENT_TABLES), _edits)
@settings(max_examples=400, deadline=None)
def test_damaged_samples_are_refused_or_accounted_for(tmp_path_factory, sample_bytes, table, edits):
    content = sample_bytes[table.name]
    for at, removed, inserted in edits:
        at %= len(content) + 1
        content = content[:at] + inserted + content[at + removed :]
    folder = tmp_path_factory.mktemp("damaged")
    file = found(folder, f"{table.name}.csv", content)
    try:
        staged = stage(file, folder)
    except Refused:
        assert list((folder / "staged").iterdir()) == []
        return
    rows = pq.read_table(staged.parquet).to_pylist()
    assert staged.records == len(rows)
    assert staged.sha256 == hashlib.sha256(content).hexdigest()
    lines = [row["line"] for row in rows]
    assert lines == sorted(set(lines))
    for row in rows:
        assert (row["defect"] is None) == (row["raw"] is None) == (row["purchase_id"] is not None)


# --- What is staged -------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", EVENT_TABLES, ids=lambda table: table.name)
def test_sample_is_staged_with_the_schema_of_bronze(table, tmp_path):
    file = next(file for file in landing.find(SAMPLE) if file.path == f"{table.name}.csv")
    staged = landing.stage(file, table, "run-1", INGESTED_AT, tmp_path / "new" / "folder")
    rows = pq.read_table(staged.parquet)
    assert rows.schema.equals(arrow_schema(table.bronze))
    assert rows.column_names == table.bronze.column_names
    assert pa.types.is_timestamp(rows.schema.field("ingested_at").type)
    assert rows.schema.field("ingested_at").type == pa.timestamp("us")
    with file.location.open(newline="") as lines:
        expected = [tuple(record[name] for name in table.column_names) for record in csv.DictReader(lines)]
    assert list(zip(*(rows[name].to_pylist() for name in table.column_names), strict=True)) == expected
    assert (staged.sha256, staged.records) == (landing.sha256(file), len(expected))
    assert list((tmp_path / "new" / "folder").iterdir()) == [staged.parquet]
    assert rows["line"].to_pylist() == list(range(2, len(expected) + 2))


def test_each_row_says_where_it_came_from(tmp_path):
    content = HEADER + b"t,d,56,nac\nx\n"
    staged = stage(found(tmp_path, "purchase_extra_info/2023/part.csv", content), tmp_path)
    where = pq.read_table(staged.parquet).select(["file", "sha256", "run", "ingested_at"]).to_pylist()
    assert where == 2 * [
        {
            "file": "purchase_extra_info/2023/part.csv",
            "sha256": hashlib.sha256(content).hexdigest(),
            "run": "run-1",
            "ingested_at": INGESTED_AT,
        }
    ]


def test_staging_again_replaces_the_staged_file(tmp_path):
    rows_of(tmp_path, HEADER + b"t,d,56,nac\nt,d,57,nac\n")
    assert rows_of(tmp_path, HEADER + b"t,d,58,nac\n") == [good(2, "t", "d", "58", "nac")]
    assert len(list((tmp_path / "staged").iterdir())) == 1


def test_files_of_one_table_and_even_of_one_content_are_staged_apart(tmp_path):
    content = HEADER + b"t,d,56,nac\n"
    found(tmp_path, "a/purchase_extra_info.csv", content)
    found(tmp_path, "b/purchase_extra_info.csv", content)
    found(tmp_path, "purchase_extra_info-2.csv", HEADER + b"t,d,57,nac\n")
    staged = [stage(file, tmp_path) for file in landing.find(tmp_path / "landing")]
    rows = [row for file in staged for row in pq.read_table(file.parquet).to_pylist()]
    assert [(row["file"], row["purchase_id"]) for row in rows] == [
        ("a/purchase_extra_info.csv", "56"),
        ("b/purchase_extra_info.csv", "56"),
        ("purchase_extra_info-2.csv", "57"),
    ]


def test_many_row_groups_hold_all_records_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_records, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(landing, "ROW_GROUP_BYTES", 50_000)
    body = b"".join(b"t,d,%d,nac\n" % number for number in range(5000))
    staged = stage(found(tmp_path, "purchase_extra_info.csv", HEADER + body), tmp_path)
    parquet = pq.ParquetFile(staged.parquet)
    assert parquet.num_row_groups > 5
    rows = parquet.read(["purchase_id", "line"])
    assert rows["purchase_id"].to_pylist() == [str(number) for number in range(5000)]
    assert rows["line"].to_pylist() == list(range(2, 5002))


def test_end_of_line_that_two_chunks_share_is_one_end_of_line(tmp_path, monkeypatch):
    content = HEADER.replace(b"\n", b"\r\n") + b't,d,56,"n\r\nac"\r\nt,d,57,nac\r\n'
    whole = [good(2, "t", "d", "56", "n\r\nac"), good(4, "t", "d", "57", "nac")]
    for number in range(1, len(content)):
        monkeypatch.setattr(csv_records, "CHUNK_BYTES", number)
        assert rows_of(tmp_path, content) == whole


def test_records_that_each_reach_into_the_next_chunk_come_in_row_groups_too(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_records, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(landing, "ROW_GROUP_BYTES", 50_000)
    body = b"".join(b't,d,%d,"%s"\n' % (number, b"\n" * 990) for number in range(200))
    staged = stage(found(tmp_path, "purchase_extra_info.csv", HEADER + body), tmp_path)
    parquet = pq.ParquetFile(staged.parquet)
    assert parquet.num_row_groups > 3
    assert parquet.read()["line"].to_pylist() == [2 + 991 * number for number in range(200)]


def test_narrow_records_below_a_wide_header_take_little_memory(tmp_path):
    header = NARROW + b"".join(b",c%d" % at for at in range(15_000)) + b"\n"
    file = found(tmp_path, "purchase_extra_info.csv", header + b"x\n" * 30_000)
    tracemalloc.start()
    staged = stage(file, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert staged.records == 30_000
    assert peak < 200 * 2**20


# --- Files that change, or can't be read ----------------------------------------------------------------


def test_file_that_grew_since_it_was_found_waits(tmp_path):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER)
    file.location.write_bytes(HEADER + b"t,d,56,nac\n")
    with pytest.raises(Changed, match=r"changed while it was read\. It waits for the next run"):
        stage(file, tmp_path)
    with pytest.raises(Changed, match="changed while it was read"):
        landing.sha256(file)


def test_file_of_another_time_waits(tmp_path):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER)
    os.utime(file.location, (1, 1))
    with pytest.raises(Changed, match="changed while it was read"):
        stage(file, tmp_path)


def test_file_of_another_size_waits_though_its_time_is_the_same(tmp_path):
    """As where a mount keeps times to the second, or a copy brings the old time along."""
    file = found(tmp_path, "purchase_extra_info.csv", HEADER)
    times = file.location.stat()
    file.location.write_bytes(HEADER + b"t,d,56,nac\n")
    os.utime(file.location, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(Changed, match="changed while it was read"):
        stage(file, tmp_path)


def test_compressed_file_is_read_whatever_the_case_of_its_name(tmp_path):
    assert rows_of(tmp_path, COMPRESSED, "PURCHASE_EXTRA_INFO.CSV.GZ")[0] == good(2, "t", "d", "56", "nac")


def test_commas_alone_are_a_header_that_names_nothing(tmp_path):
    file = found(tmp_path, "purchase_extra_info.csv", b",,,\n" + HEADER)
    with pytest.raises(Refused, match="column 'transaction_datetime' is missing"):
        stage(file, tmp_path)


def test_record_of_exactly_the_longest_length_is_read(tmp_path, way):
    record = b"t,d,56," + b"x" * (csv_records.LONGEST_RECORD - 8) + b"\n"
    assert [row[2] for row in rows_of(tmp_path, HEADER + record)] == [None]
    with pytest.raises(Refused, match="longer than 131,072 bytes"):
        rows_of(tmp_path, HEADER + b"x" + record)


def test_file_that_was_removed_waits(tmp_path):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER)
    file.location.unlink()
    with pytest.raises(Changed, match=r"purchase_extra_info\.csv: was removed before it was read"):
        stage(file, tmp_path)
    assert not landing.can_be_read(file)


@pytest.mark.parametrize("rest", [b"", b'"'], ids=["sound so far", "unsound so far"])
def test_file_that_grows_while_it_is_read_waits(tmp_path, monkeypatch, rest):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER + rest)
    write = landing._write

    def write_while_it_grows(*args):
        with file.location.open("ab") as more:
            more.write(b"t,d,56,nac\n")
        return write(*args)

    monkeypatch.setattr(landing, "_write", write_while_it_grows)
    with pytest.raises(Changed, match="changed while it was read"):
        stage(file, tmp_path)
    assert list((tmp_path / "staged").iterdir()) == []


def test_file_that_grows_after_its_last_byte_was_read_waits(tmp_path, monkeypatch):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER)
    write = landing._write

    def write_before_it_grows(*args):
        count = write(*args)
        file.location.write_bytes(HEADER + b"t,d,56,nac\n")
        return count

    monkeypatch.setattr(landing, "_write", write_before_it_grows)
    with pytest.raises(Changed, match="changed while it was read"):
        stage(file, tmp_path)
    assert list((tmp_path / "staged").iterdir()) == []


def test_content_that_changes_behind_the_same_size_and_time_waits(tmp_path, monkeypatch):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER + b"t,d,56,nac\n")
    times = file.location.stat()
    hash_first = landing.sha256

    def hash_then_rewrite(file):
        digest = hash_first(file)
        file.location.write_bytes(HEADER + b"t,d,57,nac\n")
        os.utime(file.location, ns=(times.st_atime_ns, times.st_mtime_ns))
        return digest

    monkeypatch.setattr(landing, "sha256", hash_then_rewrite)
    with pytest.raises(Changed, match="changed while it was read"):
        stage(file, tmp_path)
    assert list((tmp_path / "staged").iterdir()) == []


def test_file_without_permission_is_refused(tmp_path):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER)
    file.location.chmod(0)
    user, nobody = os.geteuid(), 65534
    if user == 0:  # who may read everything
        os.seteuid(nobody)
    try:
        with pytest.raises(Unreadable, match="can't be read \\(Permission denied\\)"):
            stage(file, tmp_path)
    finally:
        os.seteuid(user)


def test_file_on_a_failing_disk_is_refused_and_says_why(tmp_path, monkeypatch):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER)
    monkeypatch.setattr(landing.os, "fstat", lambda descriptor: file.location.stat())

    class Failing(io.BytesIO):
        def fileno(self):
            return 0

        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda *args: Failing())
    with pytest.raises(Unreadable, match="can't be read \\(Input/output error\\)"):
        landing.sha256(file)


def test_full_disk_under_the_staged_file_is_not_blamed_on_landing(tmp_path, monkeypatch):
    file = found(tmp_path, "purchase_extra_info.csv", HEADER)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(landing, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        stage(file, tmp_path)


# --- Finding files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("purchase.csv", "purchase"),
        ("purchase_2023.csv.gz", "purchase"),
        ("purchase-2023-02-01.csv", "purchase"),
        ("purchase.2023.csv", "purchase"),
        ("PURCHASE_2023.CSV.GZ", "purchase"),
        ("purchase_extra_info.csv", "purchase_extra_info"),
        ("purchase_extra_info-2023.csv", "purchase_extra_info"),
        ("purchase_extra_2023.csv", "purchase"),
        ("product_item_1.Csv", "product_item"),
        ("2023/02/product_item.csv", "product_item"),
        ("purchase/product_item.csv", "product_item"),
        ("product_item/part-0001.csv", "product_item"),
        ("product_item/2023/02/part.csv", "product_item"),
        ("purchase/product_item/part.csv", "product_item"),
        ("Purchase/part.csv", "purchase"),
        ("purchase.csv/part.csv", None),
        ("purchases.csv", None),
        ("purchase2023.csv", None),
        ("my_purchase.csv", None),
        ("purchase_items/part.csv", None),
        ("2023/part.csv", None),
    ],
)
def test_file_belongs_to_table(path, table, tmp_path):
    file = found(tmp_path, path, b"content")
    assert (file.path, file.table, file.size) == (path, table, 7)


def test_all_csv_files_are_found_in_order_and_others_left_alone(tmp_path):
    for path in [
        "b.csv", "a.csv", "a/z.csv.gz", "a/y.CSV", "folder.csv/x.csv", "with space é\n.csv",
        ".hidden.csv", "_temporary.csv", "_temporary/a.csv", ".git/a.csv", "a/_SUCCESS/a.csv", ".csv",
        "a.csv.tmp", "a.txt", "a.csv.zip", "a.gz", "acsv", "empty.csv/nothing",
    ]:  # fmt: skip
        location = tmp_path / path
        location.parent.mkdir(parents=True, exist_ok=True)
        location.touch()
    files = landing.find(tmp_path)
    assert [file.path for file in files] == [
        "a.csv", "a/y.CSV", "a/z.csv.gz", "b.csv", "folder.csv/x.csv", "with space é\n.csv",
    ]  # fmt: skip
    assert [file.location.is_file() for file in files] == [True] * 6


def test_time_of_a_file_is_utc_to_the_microsecond(tmp_path):
    location = tmp_path / "purchase.csv"
    location.write_bytes(b"")
    os.utime(location, ns=(0, 1_675_382_400_123_456_789))
    assert landing.find(tmp_path)[0].modified_at == datetime(2023, 2, 3, 0, 0, 0, 123456)


@pytest.mark.parametrize(("seconds", "moment"), [(10**12, datetime.max), (-(10**12), datetime.min)])
def test_time_that_no_calendar_has_is_the_last_or_first_of_one(seconds, moment):
    assert landing._modified_at(SimpleNamespace(st_mtime_ns=seconds * 10**9)) == moment


def test_name_that_is_not_utf8_is_found_and_staged(tmp_path):
    folder = tmp_path / "landing"
    folder.mkdir()
    (folder / os.fsdecode(b"purchase_extra_info-\xff.csv")).write_bytes(HEADER + b"t,d,56,nac\n")
    [file] = landing.find(folder)
    assert file.path == "purchase_extra_info-\\xff.csv"
    assert pq.read_table(stage(file, tmp_path).parquet)["file"].to_pylist() == [file.path]


def test_missing_landing_folder_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="there is no such landing folder"):
        landing.find(tmp_path / "nowhere")
    assert landing.find(tmp_path) == []


def test_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        GmvError, match="secret: this folder of landing can't be listed \\(Permission denied\\)"
    ):
        landing.find(tmp_path)


def test_link_within_landing_is_followed(tmp_path):
    found(tmp_path, "purchase_extra_info.csv", HEADER + b"t,d,56,nac\n")
    (tmp_path / "landing" / "purchase_extra_info-2.csv").symlink_to("purchase_extra_info.csv")
    linked, _ = landing.find(tmp_path / "landing")
    assert (linked.path, stage(linked, tmp_path).records) == ("purchase_extra_info-2.csv", 1)


def test_landing_itself_may_be_a_link(tmp_path):
    found(tmp_path, "day/purchase_extra_info.csv", HEADER + b"t,d,56,nac\n")
    (tmp_path / "landing" / "day" / "purchase_extra_info-2.csv").symlink_to("purchase_extra_info.csv")
    (tmp_path / "other").symlink_to(tmp_path / "landing")
    assert [stage(file, tmp_path).records for file in landing.find(tmp_path / "other")] == [1, 1]


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("nowhere.csv", "is a link that leads nowhere"),
        ("purchase.csv", "is a link that leads nowhere"),
        ("../outside.csv", "is a link that leads out of the landing folder"),
        ("../landing-2/purchase.csv", "is a link that leads out of the landing folder"),
        ("folder", "is not a regular file"),
    ],
)
def test_link_is_found_and_refused(target, problem, tmp_path):
    folder = tmp_path / "landing"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "landing-2").mkdir()
    (tmp_path / "outside.csv").write_bytes(HEADER)
    (tmp_path / "landing-2" / "purchase.csv").write_bytes(HEADER)
    (folder / "purchase.csv").symlink_to(target)
    [file] = landing.find(folder)
    for read in (landing.sha256, lambda file: stage(file, tmp_path)):
        with pytest.raises(Refused, match=f"^purchase.csv: {problem}. Nothing of this file was loaded.$"):
            read(file)


def test_linked_folder_is_not_entered(tmp_path):
    found(tmp_path, "day/purchase.csv", HEADER)
    (tmp_path / "landing" / "day" / "circle").symlink_to("..")
    assert [file.path for file in landing.find(tmp_path / "landing")] == ["day/purchase.csv"]


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "purchase.csv")
    [file] = landing.find(tmp_path)
    with pytest.raises(Refused, match="is not a regular file"):
        landing.stage(file, PURCHASE, "run-1", INGESTED_AT, tmp_path / "staged")


def test_header_must_agree_with_the_table(tmp_path):
    file = next(file for file in landing.find(SAMPLE) if file.table == "purchase")
    for table in (PRODUCT_ITEM, PURCHASE_EXTRA_INFO):
        with pytest.raises(Refused, match="is missing"):
            landing.stage(file, table, "run-1", INGESTED_AT, tmp_path / "staged")
    assert landing.stage(file, PURCHASE, "run-1", INGESTED_AT, tmp_path / "staged").records > 0
