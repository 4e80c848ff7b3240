"""The landing folder, without Spark: which CSV files are there, and what exactly they hold.

A file becomes a parquet file of its table's bronze columns, so that what is appended to bronze is what was
hashed. The pipeline reads landing and never changes it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from gmv import csv_records
from gmv.csv_records import CHUNK_BYTES, Header, Lines, Records, Refused
from gmv.errors import GmvError, UsageError
from gmv.lake import location
from gmv.lake.records import arrow_schema
from gmv.tables import EVENT_TABLES, HARDLY_REPEATED, EventTable

SUFFIXES = (".csv", ".csv.gz")

ROW_GROUP_BYTES = 64 * 2**20
"""Bytes in memory that become one row group."""


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
            records = _write(Lines(file.path, content), table, arrival, partial)
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


def _write(lines: Lines, table: EventTable, arrival: dict[str, object], parquet: Path) -> int:
    """Write all records that the lines hold; return their number."""
    schema = arrow_schema(table.bronze)
    header = csv_records.header_of(lines, table)
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
        for records in csv_records.records(lines, header):
            waiting.append(_bronze_rows(records, header, arrival, schema))
            size += waiting[-1].nbytes
            count += len(records.lines)
            if size >= ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(waiting))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return count


def _bronze_rows(records: Records, header: Header, arrival: dict[str, object], schema: pa.Schema) -> pa.Table:
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


def _extra(records: Records, header: Header, is_whole: np.ndarray) -> pa.Array:
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
