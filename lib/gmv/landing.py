"""The landing folder, without Spark: which CSV files are there, and what exactly they hold.

A file becomes a parquet file of its table's bronze columns, so that what is appended to bronze is what was
hashed. The pipeline reads landing and never changes it.

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

import contextlib
import csv
import gzip
import hashlib
import io
import os
import re
import stat
import string
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from gmv.errors import GmvError, UsageError
from gmv.lake import location
from gmv.lake.records import arrow_schema
from gmv.tables import EVENT_TABLES, HARDLY_REPEATED, EventTable

SUFFIXES = (".csv", ".csv.gz")

LONGEST_RECORD = 131_072
"""Bytes of a record, with its ends of line. A longer one refuses its file, so memory stays bounded. Not
above csv.field_size_limit(), so that the csv module's own limit is never met."""

CHUNK_BYTES = 2 * 2**20
"""Bytes that are split at once, in one way."""

ROW_GROUP_BYTES = 64 * 2**20
"""Bytes in memory that become one row group."""

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


class Unreadable(Refused):
    """A file whose bytes can't be had now: it may not be read, or the disk fails."""


class Changed(GmvError):
    """A file that could not be read as it was found, since it changed or is gone."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}. It waits for the next run.")


@dataclass(frozen=True)
class LandingFile:
    """A CSV file below landing, as it was found."""

    path: str
    """Below landing, with forward slashes; bytes of a name that are not UTF-8 as \\xNN."""
    location: Path
    table: str | None
    """Name of the event table that it belongs to; None when there is none."""
    size: int
    """Bytes."""
    modified_at: datetime
    """UTC without zone, to the microsecond."""


@dataclass(frozen=True)
class Staged:
    """What became of a file: `records` rows in `parquet`, read from bytes that hash to `sha256`."""

    sha256: str
    records: int
    parquet: Path


# --- Finding files ----------------------------------------------------------------------------------


def find(landing: Path) -> list[LandingFile]:
    """All CSV files below landing, by path: with a table, without one, and links that lead nowhere.

    Files and folders whose names begin with `.` or `_` are left alone. Linked folders are not entered.

    Raises:
        UsageError: landing is no folder.
        GmvError: a folder below it can't be listed.
    """
    if location.is_remote(landing):
        return sorted(_stored(landing), key=lambda file: file.path)
    if not landing.is_dir():
        raise UsageError(f"{landing}: there is no such landing folder. Create it, or set GMV_LANDING.")

    def fail(error: OSError) -> None:
        raise GmvError(f"{error.filename}: this folder of landing can't be listed ({error.strerror}).")

    found = []
    for folder, subfolders, names in os.walk(landing, onerror=fail):
        linked = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "_"))]
        for name in names + linked:
            if name.lower().endswith(SUFFIXES) and not name.startswith((".", "_")):
                file = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # gone since the folder was listed
                    found.append(_as_found(file, landing))
    return sorted(found, key=lambda file: file.path)


def _stored(landing: Path) -> Iterator[LandingFile]:
    """The CSV objects below a place in an object store; a link or an empty folder is nothing there."""
    for found in location.objects(landing):
        *folders, name = PurePosixPath(found.path).parts
        is_left_alone = any(part.startswith((".", "_")) for part in [*folders, name])
        if name.lower().endswith(SUFFIXES) and not is_left_alone:
            table = _table_of(found.path)
            yield LandingFile(found.path, found.location, table, found.size, found.modified_at)


def _as_found(file: Path, landing: Path) -> LandingFile:
    path = os.fsencode(file.relative_to(landing).as_posix()).decode("utf-8", "backslashreplace")
    try:
        status = file.stat()
    except OSError:
        status = file.lstat()
    return LandingFile(path, file, _table_of(path), status.st_size, _modified_at(status))


def _table_of(path: str) -> str | None:
    """The table with the longest name that begins the file's own, else that of the nearest folder."""
    *folders, name = PurePosixPath(path.lower()).parts
    tables = sorted((table.name for table in EVENT_TABLES), key=len, reverse=True)
    for table in tables:
        if name.startswith(tuple(table + end for end in ".-_")):
            return table
    return next((folder for folder in reversed(folders) if folder in tables), None)


def _modified_at(status: os.stat_result) -> datetime:
    try:
        return datetime(1970, 1, 1) + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:  # a time that no calendar has
        return datetime.max if status.st_mtime_ns > 0 else datetime.min


# --- Reading bytes ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise Changed(path, "was removed before it was read") from None
    except OSError as error:
        raise Unreadable(path, f"can't be read ({error.strerror or error})") from error


class _HashedReader(io.BufferedIOBase):
    """A file's bytes, hashed as they are read."""

    def __init__(self, path: str, file: io.BufferedReader) -> None:
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        with _reading(self._path):
            data = self._file.read(size)
        self._hash.update(data)
        return data

    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def _opened(file: LandingFile) -> Iterator[_HashedReader]:
    """The file's bytes, if it is a plain file that stays as it was found until the end.

    Raises:
        Refused: it is no plain file, can't be read, or is a link that leads nowhere or out of landing.
        Changed: its size or time differs, before or after; or it is gone.
    """
    if location.is_remote(file.location):
        with _opened_object(file) as reader:
            yield reader
        return
    with _reading(file.path):
        _refuse_bad_links(file)
        opened = file.location.open("rb")
    with opened:
        _check_unchanged(file, os.fstat(opened.fileno()))
        try:
            yield _HashedReader(file.path, opened)
        except Refused:  # what is wrong may be that it is not complete yet
            _check_unchanged_by_name(file)
            raise
        _check_unchanged_by_name(file)


@contextlib.contextmanager
def _opened_object(file: LandingFile) -> Iterator[_HashedReader]:
    """As `_opened`. The store gives the bytes of one version only, or an error."""
    with _reading(file.path), location.explained(file.location):
        opened = location.filesystem().open(str(file.location), "rb", block_size=CHUNK_BYTES)
    with opened:
        found = opened.details
        modified_at = found["LastModified"].astimezone(UTC).replace(tzinfo=None)
        if (found["size"], modified_at) != (file.size, file.modified_at):
            raise Changed(file.path, "changed while it was read")
        yield _HashedReader(file.path, opened)


def _refuse_bad_links(file: LandingFile) -> None:
    if file.location.is_symlink():
        landing = file.location.parents[len(PurePosixPath(file.path).parts) - 1]
        try:
            target = file.location.resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a circle of links, before Python 3.13
            raise Refused(file.path, "is a link that leads nowhere") from None
        if not target.is_relative_to(landing.resolve()):
            raise Refused(file.path, "is a link that leads out of the landing folder")
    if not stat.S_ISREG(file.location.stat().st_mode):
        raise Refused(file.path, "is not a regular file")


def _check_unchanged(file: LandingFile, status: os.stat_result) -> None:
    if (status.st_size, _modified_at(status)) != (file.size, file.modified_at):
        raise Changed(file.path, "changed while it was read")


def _check_unchanged_by_name(file: LandingFile) -> None:
    with _reading(file.path):
        status = file.location.stat()
    _check_unchanged(file, status)


def can_be_read(file: LandingFile) -> bool:
    """Whether a file can be opened and read now; one that no run would read can't."""
    try:
        with _opened(file) as reader:
            reader.read(1)
    except (Refused, Changed):
        return False
    return True


def sha256(file: LandingFile) -> str:
    """The hash of the file's bytes as they lie there (of a .gz file: compressed), in hexadecimal.

    Raises:
        Refused, Changed: as `stage`.
    """
    with _opened(file) as reader:
        while reader.read(CHUNK_BYTES):
            pass
        return reader.sha256()


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


# --- Splitting into records ---------------------------------------------------------------------------


class _Lines:
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

    def __iter__(self) -> _Lines:
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
class _Header:
    """Where a file has which column."""

    names: list[str]
    positions: list[int]
    """Of the table's columns, in the table's order."""
    extra: list[int]


def _header(lines: _Lines, table: EventTable) -> _Header:
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
    return _Header(names, positions, [at for at in range(len(names)) if at not in positions])


@dataclass(frozen=True)
class _Records:
    """Records of one chunk: the fields of those that could be read, and what is wrong with the others."""

    columns: list[pa.Array]
    """By position in the file; only of records without a defect."""
    lines: pa.Array
    defects: list[str | None]
    raws: list[str | None]


def _read_regular(lines: _Lines, header: _Header) -> _Records | None:
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
    return _Records(columns, pa.array(np.arange(first, first + len(rest))), defects=[], raws=[])


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


def _read_exactly(lines: _Lines, header: _Header) -> _Records:
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
    return _Records(
        columns or [pa.array([], pa.string())] * width, pa.array(numbers, pa.int64()), defects, raws
    )


# --- Staging --------------------------------------------------------------------------------------------


def stage(file: LandingFile, table: EventTable, run: str, ingested_at: datetime, target: Path) -> Staged:
    """Write a file's records to a parquet file of its bronze table's columns, one row per record.

    Args:
        file: as `find` gave it.
        table: the event table that the header must agree with.
        run: the bronze run, for the column `run`.
        ingested_at: UTC without zone.
        target: the folder of the staged file, made if need be. The file is named after the location of
            what it holds, so no two files of landing share one. It appears whole, or not at all.

    Raises:
        Refused: nothing of the file can be trusted; says why.
        Unreadable: its bytes can't be had now.
        Changed: it is not as it was found.
    """
    digest = sha256(file)
    target.mkdir(parents=True, exist_ok=True)
    parquet = target / f"{hashlib.sha256(os.fsencode(str(file.location))).hexdigest()}.parquet"
    partial = parquet.with_name(f".{parquet.name}.partial")
    arrival = {"file": file.path, "sha256": digest, "run": run, "ingested_at": ingested_at}
    try:
        with _opened(file) as reader, _refusing_bad_gzip(file.path):
            is_compressed = file.path.lower().endswith(".gz")
            content = gzip.GzipFile(fileobj=reader) if is_compressed else reader
            records = _write(_Lines(file.path, content), table, arrival, partial)
            if reader.sha256() != digest:
                raise Changed(file.path, "changed while it was read")
        partial.replace(parquet)
    finally:
        partial.unlink(missing_ok=True)
    return Staged(digest, records, parquet)


@contextlib.contextmanager
def _refusing_bad_gzip(path: str) -> Iterator[None]:
    try:
        yield
    except EOFError as error:
        raise Refused(path, "is a gzip file whose end is missing") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Refused(path, f"is no sound gzip file ({error})") from error


def _write(lines: _Lines, table: EventTable, arrival: dict[str, object], parquet: Path) -> int:
    """Write all records that the lines hold; return their number."""
    schema = arrow_schema(table.bronze)
    header = _header(lines, table)
    count = 0
    with pa.parquet.ParquetWriter(
        parquet,
        schema,
        compression="zstd",
        compression_level=1,
        store_schema=False,
        use_dictionary=[name for name in schema.names if name not in HARDLY_REPEATED],
    ) as writer:
        waiting: list[pa.Table] = []
        size = 0
        while lines.has_more():
            records = _read_regular(lines, header) or _read_exactly(lines, header)
            waiting.append(_bronze_rows(records, header, arrival, schema))
            size += waiting[-1].nbytes
            count += len(records.lines)
            if size >= ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(waiting))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return count


def _bronze_rows(
    records: _Records, header: _Header, arrival: dict[str, object], schema: pa.Schema
) -> pa.Table:
    count = len(records.lines)
    is_whole = np.array([defect is None for defect in records.defects or [None] * count], dtype=bool)
    columns = [records.columns[position] for position in header.positions]
    if not is_whole.all():
        source = pa.array(np.cumsum(is_whole) - 1, mask=~is_whole)
        columns = [column.take(source) for column in columns]
    columns += [
        _extra(records, header, is_whole),
        pa.array(records.raws, pa.string()) if records.raws else pa.nulls(count, pa.string()),
        pa.array(records.defects, pa.string()) if records.defects else pa.nulls(count, pa.string()),
        records.lines,
    ]
    for name in schema.names[len(columns) :]:
        columns.append(pa.repeat(pa.scalar(arrival[name], schema.field(name).type), count))
    return pa.table(columns, schema=schema)


def _extra(records: _Records, header: _Header, is_whole: np.ndarray) -> pa.Array:
    """The columns that the table does not know, as one map per record; null where it has a defect."""
    width, count = len(header.extra), int(is_whole.sum())
    if width == 0:
        return pa.nulls(len(is_whole), pa.map_(pa.string(), pa.string()))
    by_record = np.arange(width * count).reshape(width, count).T.ravel()
    values = pa.concat_arrays([records.columns[position] for position in header.extra]).take(
        pa.array(by_record)
    )
    names = pa.array([header.names[position] for position in header.extra], pa.string())
    keys = names.take(pa.array(np.tile(np.arange(width), count)))
    ends = np.concatenate([[0], np.cumsum(is_whole * width)]).astype(np.int32)
    offsets = pa.array(ends, mask=np.concatenate([~is_whole, [False]]))
    return pa.MapArray.from_arrays(offsets, keys, values)
