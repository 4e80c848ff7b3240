"""A CSV file's bytes, split into records; bytes that can't be, refuse the file.

How a file is split into records:

- Lines end with LF, CRLF or a lone CR, as for Python's csv module. An end of line inside quotes belongs
  to its value, and counts as a line. `line` is the number of a record's first line; the header's is 1.
- Empty lines are no records and are skipped. A line of spaces is a record, with one field. Before the
  header, lines of spaces are skipped too.
- Values stay as they are in the file: nothing is trimmed, and an empty field is '' (not null).
- A record that can't be read has a defect, its text in `raw` (without the end of line), and null in every
  column and in `extra`. `encoding` (bytes that are not UTF-8, shown as \\xNN, or U+FFFD, which says that
  someone lost characters before) goes before `field_count` (another number of fields than the header).
- A quote that is never closed, or is followed by something else than a comma, refuses the whole file:
  from there on nobody knows where records begin.

A chunk whose every line is one sound record is split at once, by Arrow; any other record by record, by
Python's csv module. The result is the same, the speed is not.
"""

from __future__ import annotations

import csv
import io
import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv

from gmv.errors import GmvError
from gmv.tables import EventTable

LONGEST_RECORD = 131_072
"""Bytes of a record, with its ends of line. A longer one refuses its file, so memory stays bounded. Not
above csv.field_size_limit(), so that the csv module's own limit is never met."""

CHUNK_BYTES = 2 * 2**20
"""Bytes that are split at once, in one way."""

_BOM = b"\xef\xbb\xbf"
_LOST_CHARACTER = "\ufffd"
_AROUND_NAMES = string.whitespace + "\u00a0\ufeff"
_OTHER_MARKS = {
    b"\xff\xfe\x00\x00": "has a UTF-32 byte-order mark; UTF-8 is expected",
    b"\x00\x00\xfe\xff": "has a UTF-32 byte-order mark; UTF-8 is expected",
    b"\xff\xfe": "has a UTF-16 byte-order mark; UTF-8 is expected",
    b"\xfe\xff": "has a UTF-16 byte-order mark; UTF-8 is expected",
    b"\x1f\x8b": "is compressed by gzip, but its name does not end with .csv.gz",
}
_SOUND_QUOTES = re.compile(rb'(?:(?:"[^"\r\n]*+(?:""[^"\r\n]*+)*+"|[^",\r\n]*+)[,\r\n])*+')
"""Lines whose quotes enclose whole fields and no ends of line: every reader of CSV splits these alike."""


class Refused(GmvError):
    """A file that is refused whole: what is wrong with it, in one sentence."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}. Nothing of this file was loaded.")


def _chunks(content: io.BufferedIOBase) -> Iterator[bytes]:
    """The content in pieces that end where a line ends. A line that is too long may come in parts."""
    rest = b""
    while block := content.read(CHUNK_BYTES):
        block = rest + block
        # A CR in last place may be the first half of a CRLF.
        end = max(block.rfind(b"\n"), block.rfind(b"\r", 0, len(block) - 1)) + 1
        if end == 0 and len(block) > LONGEST_RECORD:
            end = len(block)
        if end:
            yield block[:end]
        rest = block[end:]
    if rest:
        yield rest


class Lines:
    """The lines of a file: one by one for csv.reader, or as the unread rest of a chunk.

    Raises `Refused` while being read: for NUL bytes, marks of other encodings, too long records.
    """

    def __init__(self, path: str, content: io.BufferedIOBase) -> None:
        self.path = path
        self.number = 1
        """Number of the next line."""
        self._chunks = _chunks(content)
        self._lines: list[bytes] = []
        self._next = 0
        self.chunks_read = 0
        self.begin_record()

    def begin_record(self) -> None:
        """What is read from here on belongs to a new record."""
        self.record_number = self.number
        self._record: list[str] = []
        self._record_bytes = 0
        self.is_damaged = False
        """The record's text is not UTF-8, or lost characters before it came here."""

    @property
    def raw(self) -> str:
        """The text of the record, without its end of line."""
        return "".join(self._record).removesuffix("\n").removesuffix("\r")

    def chunk_has_more(self) -> bool:
        return self._next < len(self._lines)

    def has_more(self) -> bool:
        """Whether there is another line; the next chunk is loaded when the last one is used up."""
        if self.chunk_has_more():
            return True
        chunk = next(self._chunks, b"")
        if self.chunks_read == 0:
            chunk = self._without_mark(chunk)
        self.chunks_read += 1
        self._lines, self._next = chunk.splitlines(keepends=True), 0
        if (nul := chunk.find(b"\0")) >= 0:
            number = self.number + len((chunk[:nul] + b"-").splitlines()) - 1
            raise Refused(self.path, f"line {number} holds a NUL byte, so this is no UTF-8 text")
        return bool(self._lines)

    def _without_mark(self, chunk: bytes) -> bytes:
        for mark, problem in _OTHER_MARKS.items():
            if chunk.startswith(mark):
                raise Refused(self.path, problem)
        return chunk.removeprefix(_BOM)

    def rest_of_chunk(self) -> list[bytes]:
        return self._lines[self._next :]

    def skip(self, count: int) -> None:
        self._next += count
        self.number += count

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        if not self.has_more():
            raise StopIteration
        line = self._lines[self._next]
        self._next += 1
        self.number += 1
        self._record_bytes += len(line)
        if self._record_bytes > LONGEST_RECORD:
            raise Refused(
                self.path,
                f"the record at line {self.record_number} is longer than {LONGEST_RECORD:,} bytes"
                " (is there a quote that is not closed?)",
            )
        try:
            text = line.decode("utf-8")
            self.is_damaged |= _LOST_CHARACTER in text
        except UnicodeDecodeError:
            text = line.decode("utf-8", "backslashreplace")
            self.is_damaged = True
        self._record.append(text)
        return text

    def records(self) -> Iterator[list[str]]:
        """The fields of one record after the other. An empty line has none.

        Between two of them, `record_number`, `raw` and `is_damaged` tell about the one just read.
        """
        reader = csv.reader(self, strict=True)
        try:
            self.begin_record()
            for fields in reader:
                yield fields
                self.begin_record()
        except csv.Error as error:
            never_closed = "unexpected end of data" in str(error)
            raise Refused(
                self.path,
                f"in the record at line {self.record_number} "
                + ("a quote is not closed" if never_closed else "a closing quote is not followed by a comma"),
            ) from error


@dataclass(frozen=True)
class Header:
    """Where a file has which column."""

    names: list[str]
    positions: list[int]
    """Of the table's columns, in the table's order."""
    extra: list[int]


def header_of(lines: Lines, table: EventTable) -> Header:
    for fields in lines.records():
        names = [field.strip(_AROUND_NAMES) for field in fields]
        if any(names) or len(names) > 1:
            break
    else:
        raise Refused(lines.path, "is empty, without even a header")
    if lines.is_damaged:
        raise Refused(lines.path, f"the header at line {lines.record_number} is not UTF-8 text")
    known = [name.lower() for name in names]
    shown = ", ".join(map(repr, names))
    found = f"(found: {shown if len(shown) <= 500 else shown[:500] + '…'})"
    for column in table.column_names:
        if column not in known:
            for delimiter in ";\t|":
                others = [name.strip(_AROUND_NAMES + '"') for name in lines.raw.lower().split(delimiter)]
                if column in others:
                    raise Refused(
                        lines.path, f"columns are separated by {delimiter!r}, not by a comma {found}"
                    )
            raise Refused(lines.path, f"column {column!r} is missing {found}")
    for name, times in Counter(known).items():
        if times > 1:
            raise Refused(lines.path, f"column {name!r} is there more than once {found}")
    positions = [known.index(column) for column in table.column_names]
    return Header(names, positions, [at for at in range(len(names)) if at not in positions])


@dataclass(frozen=True)
class Records:
    """Records of one chunk: the fields of those that could be read, and what is wrong with the others."""

    columns: list[pa.Array]
    """By position in the file; only of records without a defect."""
    lines: pa.Array
    defects: list[str | None]
    raws: list[str | None]


def records(lines: Lines, header: Header) -> Iterator[Records]:
    """All records, those of a chunk at a time."""
    while lines.has_more():
        yield _read_regular(lines, header) or _read_exactly(lines, header)


def _read_regular(lines: Lines, header: Header) -> Records | None:
    """The rest of the chunk, at once, if each of its lines is one record without a defect; None if not."""
    rest = lines.rest_of_chunk()
    text = b"".join(rest)
    if max(map(len, rest)) > LONGEST_RECORD or not _is_whole_text(text):
        return None
    has_quotes = b'"' in text
    if has_quotes and not _SOUND_QUOTES.fullmatch(text):
        return None
    columns = _split(text, len(header.names), '"' if has_quotes else False)
    if len(columns[0]) != len(rest):
        return None
    first = lines.number
    lines.skip(len(rest))
    return Records(columns, pa.array(np.arange(first, first + len(rest))), defects=[], raws=[])


def _is_whole_text(text: bytes) -> bool:
    if text.startswith(_BOM):  # which Arrow would drop
        return False
    if text.isascii():
        return True
    try:
        return _LOST_CHARACTER not in text.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _split(text: bytes, width: int, quote: str | Literal[False]) -> list[pa.Array]:
    """The columns of all records of that width, by Arrow, which skips empty lines and other records."""
    names = [str(position) for position in range(width)]
    table = pa.csv.read_csv(
        pa.BufferReader(text),
        pa.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
        pa.csv.ParseOptions(quote_char=quote, invalid_row_handler=lambda row: "skip"),
        pa.csv.ConvertOptions(
            check_utf8=False, column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    return [column.combine_chunks() for column in table.columns]


def _read_exactly(lines: Lines, header: Header) -> Records:
    """The rest of the chunk, by Python's csv module, and what its last record has beyond the chunk."""
    width = len(header.names)
    chunk = lines.chunks_read
    rows, numbers, defects, raws = [], [], [], []
    for fields in lines.records():
        if fields:
            defect = "encoding" if lines.is_damaged else "field_count" if len(fields) != width else None
            if defect is None:
                rows.append(fields)
            numbers.append(lines.record_number)
            defects.append(defect)
            raws.append(lines.raw if defect else None)
        if lines.chunks_read > chunk or not lines.chunk_has_more():
            break
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return Records(
        columns or [pa.array([], pa.string())] * width, pa.array(numbers, pa.int64()), defects, raws
    )
