"""Reading the lake without Spark: DuckDB over the parquet files of pinned Delta versions.

Every table is a view named `<layer>.<table>`. A reader pins each table's version when it first needs it,
so that all its answers come from the same state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from gmv.errors import GmvError
from gmv.lake import location
from gmv.tables import TABLES, Table

if TYPE_CHECKING:
    import pandas as pd

_DUCKDB_TYPES = {
    "timestamp_ntz": "TIMESTAMP",
    "string": "VARCHAR",
    "int": "INTEGER",
    "array<string>": "VARCHAR[]",
    "map<string,string>": "MAP(VARCHAR, VARCHAR)",
}


class Damaged(GmvError):
    """A table whose bytes can't be read: which one, what is wrong, and what brings it back."""

    def __init__(self, table: Table, problem: str) -> None:
        self.problem = problem
        remedy = "`gmv rebuild` makes it anew from bronze"
        if table.layer not in ("silver", "gold"):
            remedy = "bring it back from a backup"
        super().__init__(f"{table.path} can't be read: {problem} Nothing was changed; {remedy}.")


def data_files(delta: DeltaTable) -> list[str]:
    """Where the table's parquet files are: paths of a folder, URIs of an object store."""
    # delta-rs writes a folder's path as a URI would be, a space as %20.
    return [unquote(file) if file.startswith("/") else file for file in delta.file_uris()]


class Reader:
    """A lake's tables for SQL, without a JVM. A table that does not exist yet is an empty one.

    Args:
        lake: folder of the Delta tables, or their place in an object store.
        versions: Delta version to read by table path (`gold/daily_gmv`); the newest for all others.
        of_runs: only what these bronze runs brought is asked for, so files without a row of theirs are not opened.
    """

    def __init__(
        self, lake: Path, versions: Mapping[str, int | None] | None = None, of_runs: Sequence[str] = ()
    ) -> None:
        self.lake = lake
        self._of_runs = of_runs
        self.versions: dict[str, int | None] = dict(versions or {})
        self._views: set[str] = set()
        self.connection = duckdb.connect()
        self.connection.execute("set timezone = 'UTC'; set enable_progress_bar = false")
        if location.is_remote(lake):
            self.connection.register_filesystem(location.filesystem_of_data())

    def of_runs(self, runs: Sequence[str]) -> Reader:
        """The same tables, for questions about what these bronze runs brought, whatever else the tables hold.

        Queries must still choose the rows by `run`: a file may hold those of several runs.
        """
        return Reader(self.lake, self.versions, runs)

    def sql(self, query: str, **parameters: object) -> duckdb.DuckDBPyRelation:
        """A query over the lake's views, with `$name` parameters."""
        for table in _tables_of(query):
            self._make_view(table)
        return self.connection.sql(query, params=parameters or None)

    def frame(self, query: str, **parameters: object) -> pd.DataFrame:
        """The query's rows; amounts as Decimal objects, never floats."""
        table = self.arrow(query, **parameters)
        return table.to_pandas(date_as_object=False, integer_object_nulls=False)

    def rows(self, query: str, **parameters: object) -> list[dict]:
        """The query's rows as dictionaries of Python values (Decimal, date, datetime, str, int)."""
        return self.arrow(query, **parameters).to_pylist()

    def arrow(self, query: str, **parameters: object) -> pa.Table:
        """The query's rows as columns."""
        with self._naming_what_is_damaged(query):
            return self.sql(query, **parameters).to_arrow_table()

    @contextmanager
    def _naming_what_is_damaged(self, query: str) -> Iterator[None]:
        try:
            yield
        except (duckdb.IOException, duckdb.InvalidInputException, duckdb.HTTPException) as error:
            for table in _tables_of(query):
                self.check(table)
            raise GmvError(f"The lake {self.lake} can't be read: {_first_line(error)}") from error

    def check(self, table: Table) -> int:
        """Read every value of a table; how many rows it has.

        Raises:
            Damaged: naming the table and the file at fault.
        """
        self._make_view(table)
        columns = ", ".join(f'count("{name}")' for name in table.column_names)
        try:
            counted = self.connection.execute(f'select count(*), {columns} from {table.layer}."{table.name}"')
            return counted.fetchall()[0][0]
        except duckdb.Error as error:
            raise Damaged(table, _first_line(error)) from error

    def version(self, table: Table) -> int | None:
        """The pinned Delta version of a table; None while the table does not exist."""
        self._make_view(table)
        return self.versions[table.path]

    def exists(self, table: Table) -> bool:
        """Whether the table is there, though its files may be damaged."""
        return self._pinned(table) is not None

    def _pinned(self, table: Table) -> DeltaTable | None:
        if self.versions.get(table.path, 0) is None:  # it did not exist when it was looked at before
            return None
        try:
            delta = DeltaTable(str(self.lake / table.path), version=self.versions.get(table.path))
        except TableNotFoundError:
            self.versions[table.path] = None
            return None
        except DeltaError as error:
            raise Damaged(table, _first_line(error)) from error
        self.versions[table.path] = delta.version()
        return delta

    def _files(self, delta: DeltaTable, table: Table) -> list[str]:
        files = data_files(delta)
        if not self._of_runs or "run" not in table.column_names:
            return files
        actions = pa.table(delta.get_add_actions(flatten=True)).to_pydict()
        lows, highs = (actions.get(f"{end}.run", [None] * len(files)) for end in ("min", "max"))
        may_hold = {
            path
            for path, low, high in zip(actions["path"], lows, highs, strict=True)
            if low is None or high is None or any(low <= run <= high for run in self._of_runs)
        }
        chosen = [file for file in files if file.endswith(tuple(may_hold))] if may_hold else []
        return chosen if len(chosen) == len(may_hold) else files

    def _make_view(self, table: Table) -> None:
        if table.path in self._views:
            return
        columns = ", ".join(
            f'"{column.name}" {_DUCKDB_TYPES.get(column.type, column.type)}' for column in table.columns
        )
        name = f'{table.layer}."{table.name}"'
        self.connection.execute(f"create schema if not exists {table.layer}")
        delta = self._pinned(table)
        files = self._files(delta, table) if delta else []
        if files:
            types = ", ".join(
                f"'{column.name}': {column.type}"
                for column in table.columns
                if column.name in table.partition_by
            )
            hive = (
                f", hive_partitioning = true, hive_types = {{{types}}}"
                if types
                else ", hive_partitioning = false"
            )
            listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            selected = ", ".join(f'"{column.name}"' for column in table.columns)
            source = f"from read_parquet([{listed}]{hive})"
            if table.layer == "monitoring":  # an older lake's may lack a column that has been added since
                typed = ", ".join(
                    f'null::{_DUCKDB_TYPES.get(column.type, column.type)} as "{column.name}"'
                    for column in table.columns
                )
                source = (
                    f"from (select {typed} where false union all by name "
                    f"from read_parquet([{listed}]{hive}, union_by_name = true))"
                )
            view = f"create view {name} as select {selected} {source}"
            try:
                self.connection.execute(view)
            except duckdb.Error as error:
                raise Damaged(table, _first_line(error)) from error
        else:
            self.connection.execute(f"create table {name} ({columns})")
        self._views.add(table.path)


def _tables_of(query: str) -> list[Table]:
    return [table for table in TABLES if re.search(rf'\b{table.layer}\."?{table.name}\b', query)]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."
