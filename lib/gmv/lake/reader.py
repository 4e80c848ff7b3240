"""Reading the lake without Spark: DuckDB over the parquet files of pinned Delta versions.

Every table is a view named `<layer>.<table>`. A reader pins each table's version when it first needs it, or all
`at_one_moment`: while a run may be at work, only then all its answers come from the same state.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import re
import tempfile
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from gmv.errors import GmvError
from gmv.lake import location, pruning
from gmv.lake.pruning import Range, quoted
from gmv.settings import settings
from gmv.tables import (
    DAILY_GMV,
    DAILY_GMV_HISTORY,
    EVENT_TABLES,
    GMV_LEDGER,
    LEDGER_DAYS,
    SILVER_SUMS,
    TABLES,
    Table,
)

if TYPE_CHECKING:
    import pandas as pd

_DUCKDB_TYPES = {
    "timestamp_ntz": "TIMESTAMP",
    "string": "VARCHAR",
    "int": "INTEGER",
    "array<string>": "VARCHAR[]",
    "map<string,string>": "MAP(VARCHAR, VARCHAR)",
}

BROUGHT = " union all ".join(
    f"select purchase_id from silver.{event.versions.name} where list_contains($runs, run)"
    for event in EVENT_TABLES
)
"""SQL: the purchase_id of each version that bronze runs brought, given as the parameter `runs`."""

NEWEST_COUNTS = """
    select layer, "table", day, records, recorded_at from monitoring.partition_stats
    qualify row_number() over (partition by layer, "table", day order by recorded_at desc, run desc) = 1"""
"""SQL: how many rows each table has of each day, as they were counted last."""

# DuckDB knows a year 0; Python doesn't, nor is it a day of ours.
_READABLE_DAY = """case when regexp_full_match(trim(transaction_date), '\\d{4}-\\d{2}-\\d{2}')
    and trim(transaction_date) not like '0000%'
    then try_cast(trim(transaction_date) as date) end"""


def records_by_day(table: Table, chosen: str) -> str:
    """SQL: how many of a bronze table's records each bronze run brought of each day, as far as that can be read.

    A day's text is read once, and not once a record.

    Args:
        chosen: SQL, which records are counted.

    Returns:
        A query for run, day (empty: it can't be read), records.
    """
    return f"""
        select run, {_READABLE_DAY} as day, cast(sum(records) as bigint) as records from (
            select run, transaction_date, count(*) as records from {table.layer}.{table.name}
            where {chosen} group by all
        ) group by all"""


_OF_FILES = (duckdb.Error, duckdb.IOException, duckdb.InvalidInputException, duckdb.HTTPException)
"""What DuckDB raises when it can't read a file; where a page of it makes no sense, an error without a kind."""
_ROWS_IN_BATCH = 10_000
_NUMBERS = itertools.count()
_OPENED: dict[Path, tuple[DeltaTable, tuple[int, ...]]] = {}
"""The tables that this process has opened last, with the commits that made them what they are."""


def remedy(table: Table) -> str:
    """What brings a table back that is damaged or gone."""
    if table in (GMV_LEDGER, DAILY_GMV_HISTORY):
        return "bring it back from a backup; without one, `gmv rebuild` goes on without what is lost"
    if table in (SILVER_SUMS, LEDGER_DAYS):
        return "delete its folder: the next run makes it anew"
    if table == DAILY_GMV:
        return f"`gmv rebuild` makes it anew from {DAILY_GMV_HISTORY.path}"
    if table.layer == "silver":
        return "`gmv rebuild` makes it anew from bronze"
    return "bring it back from a backup"


class Damaged(GmvError):
    """A table whose bytes can't be read: which one, what is wrong, and what brings it back."""

    def __init__(self, table: Table, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{table.path} can't be read: {problem} Nothing was changed; {remedy(table)}.")


class NotEnoughMemory(GmvError):
    """A question about so many rows that neither memory nor what can be put on disk meanwhile is enough."""

    def __init__(self) -> None:
        super().__init__(
            f"DuckDB needs more memory for this than the {settings().spark_memory_mib} MiB that it may take. "
            "What was committed stays; set GMV_SPARK_MEMORY_MIB higher and run again."
        )


def at_one_moment(lake: Path) -> Reader:
    """A reader for questions about several tables, each at the version that was its newest at the same moment.

    A run writes one table after the other. Who opens them one by one meanwhile has some from before it, and some after.
    """
    seen, again = _newest_of_all(lake), _newest_of_all(lake)
    while again.versions != seen.versions:
        seen, again = again, _newest_of_all(lake)
    return again


def _newest_of_all(lake: Path) -> Reader:
    reader = Reader(lake)

    def look(table: Table) -> None:
        with contextlib.suppress(Damaged):  # who asks for it is told
            reader.version(table)

    with ThreadPoolExecutor() as pool:
        list(pool.map(look, TABLES))
    return reader


def data_files(delta: DeltaTable) -> list[str]:
    """Where the table's parquet files are: paths of a folder, URIs of an object store."""
    # delta-rs writes a place as a URI would be, a space as %20.
    return [unquote(file) for file in delta.file_uris()]


class Reader:
    """A lake's tables for SQL, without a JVM. A table that does not exist yet is an empty one.

    Args:
        lake: folder of the Delta tables, or their place in an object store.
        versions: Delta version to read by table path (`gold/daily_gmv`); the newest for all others.
        wanted: only rows within these ranges are asked for, by column; files without such are not opened.
    """

    def __init__(
        self,
        lake: Path,
        versions: Mapping[str, int | None] | None = None,
        wanted: Mapping[str, Sequence[Range]] | None = None,
    ) -> None:
        self.lake = lake
        self._wanted = wanted or {}
        self.versions: dict[str, int | None] = dict(versions or {})
        self._opened: dict[str, DeltaTable] = {}
        self._views: set[str] = set()
        self._database = f"reader_{next(_NUMBERS)}"

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The session that has the views; it ends with this reader."""
        given = settings().spark_memory_mib, tempfile.gettempdir()
        if location.is_remote(self.lake):  # where it is, and who may read it, can change
            instance = _instance(*given)
            instance.register_filesystem(location.filesystem_of_data())
        else:
            instance = _shared_instance(*given)
        connection = instance.cursor()
        connection.execute(f"attach ':memory:' as {self._database}")
        self._in_database(connection)
        weakref.finalize(self, _let_go, instance, connection, self._database).atexit = False
        return connection

    def session(self) -> duckdb.DuckDBPyConnection:
        """Another session with the same views, and temporary tables of its own. Close it."""
        return self._in_database(self.connection.cursor())

    def _in_database(self, session: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        return session.execute(f"use {self._database}; set enable_progress_bar = false")

    def of_runs(self, runs: Sequence[str]) -> Reader:
        """The same tables, for questions about what these bronze runs brought, whatever else the tables hold.

        Queries must still choose the rows by `run`: a file may hold those of several runs.
        """
        return Reader(self.lake, self.versions, {**self._wanted, "run": pruning.exactly(runs)})

    def near(self, ranges: Sequence[Range]) -> Reader:
        """The same tables, for questions about purchases whose ids are in these ranges; all without ranges.

        Queries must still choose the rows by `purchase_id`: a file may hold others.
        """
        return Reader(self.lake, self.versions, {**self._wanted, "purchase_id": ranges})

    def select(
        self, table: Table, wanted: Mapping[str, Sequence[Range]], among: Collection[str] | None = None
    ) -> str:
        """A query for all rows of the table's files that may hold one within some ranges, as `wanted` says.

        Queries must still choose the rows, as with `near` and `of_runs`.

        Args:
            among: of these files alone, which are some of those that `files` gives.
        """
        delta = self._pinned(table)
        files = _only(data_files(delta), pruning.may_hold(delta, wanted)) if delta else []
        return self._query(table, [file for file in files if among is None or file in among])

    def sql(self, query: str, **parameters: object) -> duckdb.DuckDBPyRelation:
        """A query over the lake's views, with `$name` parameters. It keeps this reader, whose session it needs."""
        for table in _tables_of(query):
            self.view(table)
        asked = self.connection.sql(query, params=parameters or None)
        weakref.finalize(asked, _nothing_more_of, self).atexit = False
        return asked

    def few_ids(self, query: str, **parameters: object) -> list[str] | None:
        """The purchase ids that a query finds; None where they are too many to be looked up by them."""
        limited = (
            f"select purchase_id from ({query}) where purchase_id is not null limit {pruning.MOST_IDS + 1}"
        )
        found = self.arrow(limited, **parameters)["purchase_id"]
        return found.to_pylist() if len(found) <= pruning.MOST_IDS else None

    def touched_by(self, runs: Sequence[str]) -> list[str] | None:
        """The purchases with a version that one of these bronze runs brought; None where they are many."""
        if not runs:
            return []
        return self.of_runs(runs).few_ids(f"select distinct purchase_id from ({BROUGHT})", runs=list(runs))

    def frame(self, query: str, **parameters: object) -> pd.DataFrame:
        """The query's rows; amounts as Decimal objects, never floats."""
        table = self.arrow(query, **parameters)
        return table.to_pandas(date_as_object=False, integer_object_nulls=False)

    def rows(self, query: str, **parameters: object) -> list[dict]:
        """The query's rows as dictionaries of Python values (Decimal, date, datetime, str, int)."""
        return self.arrow(query, **parameters).to_pylist()

    def batches(self, query: str, **parameters: object) -> Iterator[list[dict]]:
        """The query's rows as `rows` gives them, some at a time."""
        with self.naming_what_is_damaged(_tables_of(query)):
            for batch in self.sql(query, **parameters).to_arrow_reader(_ROWS_IN_BATCH):
                yield batch.to_pylist()

    def arrow(self, query: str, **parameters: object) -> pa.Table:
        """The query's rows as columns."""
        with self.naming_what_is_damaged(_tables_of(query)):
            return self.sql(query, **parameters).to_arrow_table()

    @contextlib.contextmanager
    def naming_what_is_damaged(self, tables: Iterable[Table]) -> Iterator[None]:
        """Around queries over some tables: turn DuckDB's errors into what a user can act on.

        Raises:
            Damaged: naming the first of the tables that can't be read.
            NotEnoughMemory, GmvError: what else keeps DuckDB from reading.
        """
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise NotEnoughMemory() from error
        except duckdb.Error as error:
            if type(error) not in _OF_FILES:
                raise
            for table in tables:
                self.check(table)
            if isinstance(error, duckdb.InvalidInputException):  # not of the files, then: of the question
                raise
            raise GmvError(f"The lake {self.lake} can't be read: {_first_line(error)}") from error

    def check(self, table: Table) -> int:
        """Read every value of a table; how many rows it has.

        Raises:
            Damaged: naming the table and the file at fault.
            GmvError: the files of the pinned version are not kept any more.
        """
        columns = ", ".join(f'"{name}"' for name in table.column_names)
        query = self._query(table, self._files(table))
        try:
            self.require_commit(table)
            # Counts, minima and maxima would be taken from the files' ends, without a look at the values.
            counted = self.connection.execute(f"select count(*), max(hash({columns})) from ({query})")
            return counted.fetchall()[0][0]
        except duckdb.Error as error:
            raise self._unreadable(table, error) from error

    def require_commit(self, table: Table) -> None:
        """Make sure that the table's newest commit says what it did.

        Raises:
            Damaged: naming the table whose newest commit is empty. To Delta that is one without a change.
        """
        if empty := empty_commit(self.lake / table.path):
            raise Damaged(table, f"{empty} is empty, so what this commit changed is lost.")

    def version(self, table: Table) -> int | None:
        """The pinned Delta version of a table; None while the table does not exist."""
        if table.path not in self.versions:
            self._pinned(table)
        return self.versions[table.path]

    def exists(self, table: Table) -> bool:
        """Whether the table is there, though its files may be damaged."""
        return self._pinned(table) is not None

    def _pinned(self, table: Table) -> DeltaTable | None:
        if self.versions.get(table.path, 0) is None:  # it did not exist when it was looked at before
            return None
        if table.path in self._opened:
            return self._opened[table.path]
        try:
            delta = _open(self.lake / table.path, self.versions.get(table.path))
        except TableNotFoundError:
            self.versions[table.path] = None
            return None
        except DeltaError as error:
            raise Damaged(table, _first_line(error)) from error
        self.versions[table.path] = delta.version()
        self._opened[table.path] = delta
        return delta

    def files(self, table: Table, near: Sequence[Range] = ()) -> list[str]:
        """Where the parquet files of the pinned version are; near some purchases: those that may hold them."""
        delta = self._pinned(table)
        if not delta:
            return []
        files = data_files(delta)
        return _only(files, pruning.may_hold(delta, {"purchase_id": near})) if near else files

    def newest(self, table: Table, column: str) -> dt.datetime | None:
        """The greatest moment in a column; only files are opened that may hold it."""
        delta = self._pinned(table)
        files = _only(data_files(delta), pruning.may_hold_greatest(delta, column)) if delta else []
        query = self._query(table, files)
        try:
            found = self.connection.execute(f'select max("{column}") from ({query})')
            return found.fetchall()[0][0]
        except duckdb.Error as error:
            raise self._unreadable(table, error) from error

    def _files(self, table: Table) -> list[str]:
        delta = self._pinned(table)
        if not delta:
            return []
        files = data_files(delta)
        wanted = {
            column: ranges
            for column, ranges in self._wanted.items()
            if ranges and column in table.column_names
        }
        return _only(files, pruning.may_hold(delta, wanted)) if wanted else files

    def view(self, table: Table) -> None:
        """Make the view that a query over `connection` needs, at the pinned version."""
        if table.path in self._views:
            return
        name = f'{table.layer}."{table.name}"'
        self.connection.execute(f"create schema if not exists {table.layer}")
        files = self._files(table)
        try:
            self.connection.execute(f"create view {name} as {self._query(table, files)}")
        except duckdb.Error as error:
            raise self._unreadable(table, error) from error
        self._views.add(table.path)

    def add(self, table: Table, rows: pa.Table) -> None:
        """Let the table have these rows, too, for this reader."""
        self.view(table)
        self.connection.register("added", rows)
        self.connection.execute(
            f"""
            create table {table.layer}."{table.name}_added" as from added;
            create or replace view {table.layer}."{table.name}" as
                {self._query(table, self._files(table))} union all by name from {table.layer}."{table.name}_added"
            """
        )
        self.connection.unregister("added")

    def hold(self, table: Table, rows: pa.Table) -> None:
        """Let these be all rows that the table has, for this reader; its files are not opened."""
        self.connection.execute(f"create schema if not exists {table.layer}")
        self.connection.register("held", rows)
        self.connection.execute(f'create table {table.layer}."{table.name}" as from held')
        self.connection.unregister("held")
        self._views.add(table.path)

    def _unreadable(self, table: Table, error: duckdb.Error) -> GmvError:
        """What it means that files of a table can't be read: damage, if they are those that count now."""
        pinned = self.version(table)
        if pinned == Reader(self.lake).version(table):
            return Damaged(table, _first_line(error))
        return GmvError(
            f"{table.path} has been written since, and version {pinned}, which was looked at first, is not kept any "
            "more. Look at the lake anew; in a notebook, from its first cell."
        )

    def _query(self, table: Table, files: Sequence[str]) -> str:
        """A query for all rows of these files of a table."""
        typed = ", ".join(
            f'null::{_DUCKDB_TYPES.get(column.type, column.type)} as "{column.name}"'
            for column in table.columns
        )
        if not files:
            return f"select {typed} where false"
        selected = ", ".join(f'"{column.name}"' for column in table.columns)
        listed = ", ".join(quoted(file) for file in files)
        hive = self._partitions(table)
        if table.layer == "monitoring":  # an older lake's may lack a column that has been added since
            return (
                f"select {selected} from (select {typed} where false union all by name "
                f"from read_parquet([{listed}], {hive}, union_by_name = true))"
            )
        return f"select {selected} from read_parquet([{listed}], {hive})"

    def _partitions(self, table: Table) -> str:
        """Where DuckDB finds a value: in the files, or in their paths: an older lake's published days."""
        delta = self._pinned(table)
        in_paths = delta.metadata().partition_columns if delta else []
        types = ", ".join(
            f"'{column.name}': {column.type}" for column in table.columns if column.name in in_paths
        )
        return f"hive_partitioning = true, hive_types = {{{types}}}" if types else "hive_partitioning = false"


def _open(place: Path, version: int | None) -> DeltaTable:
    """A table at a version; at its newest, as it was opened before, while no commit has come since."""
    if version is not None or location.is_remote(place):
        return DeltaTable(str(place), version=version)
    if known := _OPENED.get(place):
        opened, made_by = known
        if made_by == _commit(place, opened.version()) and not _commit(place, opened.version() + 1):
            return opened
    opened = DeltaTable(str(place))
    if commit := _commit(place, opened.version()):
        _OPENED[place] = opened, commit
    return opened


def _commit(place: Path, version: int) -> tuple[int, ...] | None:
    """Which file a table's commit is; None where there is none, or not any more."""
    try:
        found = place.joinpath("_delta_log", f"{version:020}.json").stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def empty_commit(place: Path) -> Path | None:
    """A table's newest commit, if its file is empty: what the machine wrote last, when it lost its power.

    None where a checkpoint says what it did.
    """
    if location.is_remote(place):  # an object is written whole
        return None
    newest = max(place.glob("_delta_log/*.json"), default=None)
    if not newest or newest.stat().st_size or any(newest.parent.glob(f"{newest.stem}.checkpoint*")):
        return None
    return newest


def _instance(memory_mib: int, spill_below: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB that takes no more memory than the Spark server may, and spills to disk beyond that.

    It spills outside of the working folder. The folder is the same for all processes of a user, and no one else's:
    DuckDB knows its own files there by process, and removes those of processes that were killed.
    """
    instance = duckdb.connect()
    spilled = Path(spill_below, f"gmv-spilled-{os.getuid()}")
    with contextlib.suppress(OSError):  # DuckDB says so if it needs it
        spilled.mkdir(mode=0o700, exist_ok=True)
    instance.execute("set global timezone = 'UTC'")
    instance.execute(f"set memory_limit = '{memory_mib}MiB'; set temp_directory = {quoted(str(spilled))}")
    return instance


_shared_instance = lru_cache(_instance)
"""What all readers of this process share, each with a database of its own in it: to begin a new one takes longer than
most questions."""


def _nothing_more_of(_: Reader) -> None:
    """A query is gone, and with it what held its reader."""


def _let_go(
    instance: duckdb.DuckDBPyConnection, connection: duckdb.DuckDBPyConnection, database: str
) -> None:
    connection.close()  # also where a result is still open, which nobody has read to its end
    with instance.cursor() as another:
        another.execute(f"detach {database}")


def _only(files: Sequence[str], paths: Iterable[str]) -> list[str]:
    """The files at these paths, which are relative to the table; all files where they can't be told apart."""
    endings = {f"/{unquote(path)}" for path in paths}
    chosen = [file for file in files if unquote(file).endswith(tuple(endings))]
    return chosen if len(chosen) == len(endings) else list(files)


def _tables_of(query: str) -> Iterator[Table]:
    return (table for table in TABLES if re.search(rf'\b{table.layer}\."?{table.name}\b', query))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."
