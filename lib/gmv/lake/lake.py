"""The event tables and the ledger, read and written through Spark."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import Column, DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from gmv.errors import UsageError
from gmv.lake import faults, ledger_days, lookups, merging, pruning, records
from gmv.lake.pruning import Range, id_ranges
from gmv.lake.reader import Reader
from gmv.lake.rejects import Rejects
from gmv.lake.unfinished import Unfinished
from gmv.settings import settings
from gmv.tables import EVENT_TABLES, GMV_LEDGER, PURCHASE, QUARANTINE, STRIPPED, EventTable, Table

MOST_ROWS_TO_COLLECT = lookups.MOST_ROWS
"""What bronze runs of up to so many records bring is written by delta-rs, at once; more is written by Spark."""
MOST_ROWS_AT_HAND = 4 * MOST_ROWS_TO_COLLECT
"""So many standings or postings are computed once and kept in this process: a purchase has a few, of seven values."""
MANY_ROWS = 500_000
"""A table of more rows is not scanned by queries that are interpreted."""
T = TypeVar("T")
Latest = tuple[DataFrame, DataFrame, DataFrame]
"""Rows of the silver tables purchase, product_item and purchase_extra_info."""
_IDS = StructType().add("purchase_id", "string")


@dataclass(frozen=True)
class Touched:
    """The purchases that a step works on.

    Attributes:
        ids: purchase_id, one row per purchase; None: all purchases.
        ranges: lower and upper ids that enclose them all, to skip files by; empty: look everywhere.
        few: the same ids, here in this process; None where they are many.
    """

    ids: DataFrame | None
    ranges: Sequence[Range] = ()
    few: Sequence[str] | None = None

    def and_also(self, others: Touched) -> Touched:
        """These purchases and the others."""
        if self.ids is None or others.ids is None:
            return Touched(None)
        return Touched(self.ids.union(others.ids).distinct())


class Lake:
    """A lake's tables as Spark DataFrames."""

    def __init__(self, path: Path, spark: SparkSession) -> None:
        self.path = path
        self.spark = spark
        self._reads_little = True
        self._read_at: dict[Table, int | None] = {}

    def exists(self, table: Table) -> bool:
        return DeltaTable.is_deltatable(str(self.path / table.path))

    def read(self, table: Table, near: Sequence[Range] = ()) -> DataFrame:
        """The table's rows; none while it does not exist.

        Spark is given the files of the newest version, found by delta-rs: to replay a table's log by itself
        takes Spark several jobs, and seconds, whatever is read then.

        Args:
            near: ranges of purchase_id; files that can't hold such are left out. Empty: all rows.
        """
        files = Reader(self.path).files(table, near)
        if not files:
            return self.spark.createDataFrame([], _struct(table))
        if self._reads_little and records.count(self.path, table) > MANY_ROWS:
            self._expect_many_rows()
        as_paths = [re.sub(r"([\\\[\]{}*?])", r"\\\1", file) for file in files]  # Spark would expand patterns
        rows = self.spark.read.schema(_struct(table)).parquet(*as_paths).select(*table.column_names)
        return rows.where(_within(F.col("purchase_id"), near)) if near else rows

    def _few(
        self, reader: Reader, table: Table, condition: str = "true", **parameters: object
    ) -> DataFrame | None:
        """The table's rows that satisfy a condition, found without Spark; None where they are too many for that.

        Spark would replay the table's log in jobs of its own and plan a scan of it, for a handful of rows.

        Args:
            reader: of the table's version, and of the files, that are asked.
            condition: SQL, with `$name` parameters.
        """
        columns = ", ".join(f'"{name}"' for name in table.column_names)
        rows = reader.arrow(
            f'select {columns} from {table.layer}."{table.name}" where {condition} '
            f"limit {MOST_ROWS_TO_COLLECT + 1}",
            **parameters,
        )
        if rows.num_rows > MOST_ROWS_TO_COLLECT:
            return None
        return self.spark.createDataFrame(rows.cast(records.arrow_schema(table)), _struct(table))

    def held(self, touched: Touched) -> DataFrame:
        """What the ledger holds of the touched purchases; `post` adds to the ledger as it is now, and to no other."""
        self._read_at[GMV_LEDGER] = self._version(GMV_LEDGER)
        return self.rows_of(GMV_LEDGER, touched)

    def _version(self, table: Table) -> int | None:
        return Reader(self.path).version(table)

    def _require_as_read(self, table: Table) -> None:
        if table in self._read_at and self._read_at[table] != self._version(table):
            raise UsageError(
                f"{table.path} has changed since these rows were compared with it, so nothing was written. "
                "Run this notebook again from its first cell."
            )

    def rows_of(self, table: Table, touched: Touched) -> DataFrame:
        """The table's rows of the touched purchases, found at a cost that follows how many they are."""
        if touched.ids is None or touched.few is not None:
            few = self._few_rows_of(table, touched)
            if few is not None:
                return few
        rows = self.read(table, touched.ranges)
        if touched.ids is None or not self.exists(table):
            return rows
        return rows.join(touched.ids.select("purchase_id"), "purchase_id", how="left_semi").select(
            *table.column_names
        )

    def _few_rows_of(self, table: Table, touched: Touched, version: int | None = None) -> DataFrame | None:
        reader = Reader(self.path, {} if version is None else {table.path: version})
        if touched.few is None:
            return self._few(reader, table)
        rows = lookups.rows_of(reader, table, touched.few)
        return None if rows is None else self.spark.createDataFrame(rows, _struct(table))

    def at_hand(self, rows: DataFrame, touched: Touched, unfinished: Unfinished) -> DataFrame:
        """Rows that several queries ask for, computed once and kept here; as they are where they may be many.

        Args:
            touched, unfinished: the purchases that they are of, and the bronze runs that touched these.
        """
        are_many = unfinished.records > MOST_ROWS_TO_COLLECT if touched.ids is None else touched.few is None
        if are_many:
            return rows
        limited = rows.limit(MOST_ROWS_AT_HAND + 1)
        here = limited.toArrow()
        return rows if here.num_rows > MOST_ROWS_AT_HAND else self.spark.createDataFrame(here, limited.schema)

    def versions_of(self, touched: Touched) -> dict[str, DataFrame]:
        """All versions of the touched purchases, by event table name."""
        found = of_each_event(lambda event: self.rows_of(event.versions, touched))
        return {event.name: rows for event, rows in found.items()}

    def records_of(self, unfinished: Unfinished) -> dict[EventTable, DataFrame]:
        """The bronze records that these bronze runs brought in files that are in force, by event table."""
        return of_each_event(lambda event: in_force(self._brought(event.bronze, unfinished), unfinished))

    def _brought(self, table: Table, unfinished: Unfinished) -> DataFrame:
        runs = list(unfinished.runs)
        few = None
        if runs and unfinished.records <= MOST_ROWS_TO_COLLECT:
            few = self._few(Reader(self.path).of_runs(runs), table, "list_contains($runs, run)", runs=runs)
        return self.read(table).where(F.col("run").isin(runs)) if few is None else few

    def records_naming(self, event: EventTable, touched: Touched) -> DataFrame:
        """The bronze records that name the touched purchases, whatever run brought them; a scan of the table."""
        rows = self.read(event.bronze)
        if touched.ids is None:
            return rows
        named = rows.withColumn("named", F.btrim("purchase_id", F.lit(STRIPPED)))
        ids = touched.ids.select(F.col("purchase_id").alias("named"))
        return named.join(ids, "named", how="left_semi").select(*event.bronze.column_names)

    def versions_near(self, unfinished: Unfinished) -> dict[EventTable, DataFrame]:
        """The versions that the records of these bronze runs may be copies of, by event table."""
        arrived = of_each_event(lambda event: self._arrived(event, unfinished))
        of_all = {one for few in arrived.values() for one in few or ()}
        are_few = None not in arrived.values() and len(of_all) <= pruning.MOST_IDS
        return of_each_event(
            lambda event: self._versions_near(event, arrived[event], of_all if are_few else ())
        )

    def _arrived(self, event: EventTable, unfinished: Unfinished) -> list[str] | None:
        """The purchases that these bronze runs' records of an event name; None where they are many."""
        if unfinished.is_everything:
            return None
        runs = list(unfinished.runs)
        named = (
            f"select distinct trim(purchase_id, $stripped) as purchase_id from bronze.{event.name} "
            "where list_contains($runs, run)"
        )
        return Reader(self.path).of_runs(runs).few_ids(named, runs=runs, stripped=STRIPPED)

    def _versions_near(
        self, event: EventTable, few: Sequence[str] | None, of_all: Collection[str]
    ) -> DataFrame:
        self._read_at[event.versions] = self._version(event.versions)
        if few is None:
            return self.read(event.versions)
        if of_all:  # the latest of each purchase is made next, of all versions of all of them
            lookups.rows_of(Reader(self.path), event.versions, of_all)
        return self.rows_of(event.versions, Touched(self._ids(few), id_ranges(few), few))

    def touched_by(self, unfinished: Unfinished) -> Touched:
        """The purchases with a version that one of these bronze runs brought, or may have taken out."""
        if unfinished.is_everything:
            return Touched(None)
        runs = list(unfinished.runs)
        touched = self._touched(
            Reader(self.path).touched_by(runs),
            lambda event: self.read(event.versions).where(F.col("run").isin(runs)),
        )
        if not unfinished.changed_files:
            return touched
        return touched.and_also(self.touched_by_files(unfinished.changed_files))

    def touched_by_files(self, files: Sequence[str], events: Sequence[EventTable] = EVENT_TABLES) -> Touched:
        """The purchases that the records of these files name.

        Args:
            files: sha256 of files in bronze.
            events: the tables to look in.
        """
        named = " union ".join(
            f"select nullif(trim(purchase_id, $stripped), '') as purchase_id from bronze.{event.name} "
            "where list_contains($files, sha256)"
            for event in events
        )
        return self._touched(
            Reader(self.path).few_ids(named, files=list(files), stripped=STRIPPED),
            lambda event: (
                self.read(event.bronze)
                .where(F.col("sha256").isin(list(files)))
                .select(F.btrim("purchase_id", F.lit(STRIPPED)).alias("purchase_id"))
            ),
            events,
        )

    def _touched(
        self,
        few: Sequence[str] | None,
        rows_of: Callable[[EventTable], DataFrame],
        events: Sequence[EventTable] = EVENT_TABLES,
    ) -> Touched:
        """The purchases with these ids; where they are too many, by Spark: those in `rows_of` the events."""
        if few is not None:
            return Touched(self._ids(few), id_ranges(few), few)
        ids = reduce(DataFrame.union, (rows_of(event).select("purchase_id") for event in events))
        return Touched(ids.where("purchase_id is not null").distinct())

    def latest_before_and_after(
        self, versions: Mapping[str, int | None], unfinished: Unfinished, touched: Touched
    ) -> tuple[Latest, Latest] | None:
        """The silver tables' rows of the purchases that have changed since some versions of them: then, and now.

        Args:
            versions: by event table name; None: it did not exist.
            unfinished, touched: bronze runs, and the purchases that they touched.

        Returns:
            None where it can't be told that nothing but these purchases has changed, or where they are too many to
            be looked up.
        """
        since = merging.since_each(Reader(self.path), {event: versions[event.name] for event in EVENT_TABLES})
        if since is None or touched.few is None:
            return None
        if any(not one.bronze_runs <= set(unfinished.runs) for one in since.values()):
            return None
        wanted = [(event.latest, one.version) for event, one in since.items()]
        wanted += [(event.latest, None) for event in EVENT_TABLES]
        rows = at_the_same_time([(self._few_rows_of, table, touched, version) for table, version in wanted])
        if any(one is None for one in rows):
            return None
        return tuple(rows[: len(EVENT_TABLES)]), tuple(rows[len(EVENT_TABLES) :])

    def latest_on(self, days: Sequence[dt.date]) -> Latest:
        """The silver tables' rows of the purchases on some days; of the other two tables, maybe rows of others, too.

        A purchase is on the day of its row in silver/purchase (rule 3), so that table alone is asked for days.
        """
        listed = ", ".join(f"date '{day}'" for day in days)
        on_days = f"transaction_date in ({listed})" if days else "false"
        near, are_few = self._purchases_on(on_days)
        of_these = f"purchase_id in (select purchase_id from silver.purchase where {on_days})"

        def found(event: EventTable) -> DataFrame:
            condition = on_days if event is PURCHASE else of_these
            few = self._few(Reader(self.path).near(near), event.latest, condition) if are_few else None
            return self.read(event.latest, near) if few is None else few

        purchase, product_item, purchase_extra_info = of_each_event(found).values()
        return purchase.where(F.col("transaction_date").isin(list(days))), product_item, purchase_extra_info

    def _purchases_on(self, on_days: str) -> tuple[list[Range], bool]:
        """The ranges of the ids of the purchases on some days, and whether they are few enough for this process."""
        groups = Reader(self.path).rows(
            f"""
            select min(purchase_id) as low, max(purchase_id) as high, count(*) as purchases
            from silver.purchase where {on_days}
            group by length(purchase_id), try_cast(purchase_id as bigint) // {pruning.GAP}
            """
        )
        ends = [end for group in groups for end in (group["low"], group["high"])]
        are_few = sum(group["purchases"] for group in groups) <= MOST_ROWS_TO_COLLECT
        return id_ranges(ends), are_few

    def _ids(self, few: Sequence[str]) -> DataFrame:
        return self.spark.createDataFrame(pa.table({"purchase_id": pa.array(few, pa.string())}), _IDS)

    def _expect_many_rows(self) -> None:
        """Let a server that was started for little data compile queries: a large table is about to be scanned."""
        self._reads_little = False
        if self.spark.conf.get("spark.sql.codegen.wholeStage") == "false":
            self.spark.conf.set("spark.sql.codegen.wholeStage", "true")
            self.spark.conf.set("spark.sql.codegen.factoryMode", "FALLBACK")
            self.spark.conf.set("spark.sql.adaptive.enabled", "true")
            self.spark.conf.set("spark.sql.shuffle.partitions", str(2 * settings().spark_cores))

    def save_versions(
        self,
        new: Mapping[EventTable, DataFrame],
        rejected: Mapping[EventTable, DataFrame],
        rejects: Rejects,
        unfinished: Unfinished,
    ) -> None:
        """Append new versions, all tables at the same time; then replace what these bronze runs have in quarantine.

        Args:
            rejected: the records for quarantine, by event table.
            rejects: what was noticed while the new versions were made.

        Raises:
            UsageError: the versions have changed since `versions_near`: these may be among them.
        """
        if not unfinished.runs:
            return
        for event in new:
            self._require_as_read(event.versions)
        is_few = unfinished.records <= MOST_ROWS_TO_COLLECT
        at_the_same_time([(self.append, event.versions, frame, is_few) for event, frame in new.items()])
        held = rejects.among(rejected)
        none = self.spark.createDataFrame([], _struct(QUARANTINE))
        quarantined = reduce(DataFrame.unionByName, held, none)
        self.replace(QUARANTINE, quarantined, "run", unfinished.runs, is_few or not held)

    def correct_versions(self, event: EventTable, should: DataFrame, touched: Touched) -> None:
        """Bring the versions of the touched purchases to what they should be, in one commit; none if they are.

        Args:
            should: rows of `event.versions`: all that the touched purchases should have.
        """
        table = event.versions
        if not self.exists(table):
            self.append(table, should)
            return
        both = should.withColumn("copies", F.lit(1)).unionByName(
            self.rows_of(table, touched).withColumn("copies", F.lit(-1))
        )
        change = both.groupBy(*table.column_names).agg(F.sum("copies").alias("copies")).where("copies <> 0")
        change = change.persist()
        if not change.isEmpty():
            change.createOrReplaceTempView(f"change_{event.name}")
            is_same = " and ".join(f"target.{name} <=> source.{name}" for name in table.column_names)
            columns = ", ".join(table.column_names)
            values = ", ".join(f"source.{name}" for name in table.column_names)
            ranges = " and ".join(["source.copies < 0", pruning.within("target.purchase_id", touched.ranges)])
            with faults.commit(table.path):
                self.spark.sql(
                    f"merge into delta.`{self.path / table.path}` as target using change_{event.name} as source "
                    f"on target.purchase_id = source.purchase_id and {is_same} and {ranges} "
                    f"when matched then delete "
                    f"when not matched and source.copies > 0 then insert ({columns}) values ({values})"
                ).collect()
        change.unpersist()

    def post(self, postings: DataFrame, unfinished: Unfinished, run: str) -> dict[str, int]:
        """Append postings to the ledger under the next ledger_seq; no commit when there are none.

        Args:
            postings: what `ledger.with_cause` returns.

        Returns:
            postings (how many) and ledger_seq (the greatest in the ledger now).

        Raises:
            UsageError: the ledger has changed since `held`: these postings may be in it.
        """
        if not unfinished.runs:
            return {"postings": 0, "ledger_seq": self._greatest_seq()}
        self._require_as_read(GMV_LEDGER)
        return self.append_postings(postings, run, unfinished.records <= MOST_ROWS_TO_COLLECT)

    def append_postings(self, postings: DataFrame, run: str, is_few: bool = False) -> dict[str, int]:
        """As `post`, whatever bronze runs the postings come from.

        Args:
            is_few: they are expected to fit in this process.
        """
        seq = self._greatest_seq()
        batch = postings.withColumns(
            {
                "ledger_seq": F.lit(seq + 1).cast("bigint"),
                "run": F.lit(run),
                "recorded_at": F.lit(records.now().isoformat()).cast("timestamp_ntz"),
            }
        )
        if is_few:
            few = self._collected(GMV_LEDGER, batch.limit(MOST_ROWS_TO_COLLECT + 1))
            if few.num_rows <= MOST_ROWS_TO_COLLECT:
                if few.num_rows:
                    records.append_columns(self.path, GMV_LEDGER, few)
                return {"postings": few.num_rows, "ledger_seq": seq + 1 if few.num_rows else seq}
        batch = batch.persist()
        count = batch.count()
        if count:
            self.append(GMV_LEDGER, batch)
        batch.unpersist()
        return {"postings": count, "ledger_seq": seq + 1 if count else seq}

    def _greatest_seq(self) -> int:
        """The greatest ledger_seq so far, also where only the history still tells of it."""
        reader = Reader(self.path)
        (row,) = reader.rows("select coalesce(max(ledger_seq), 0) as seq from gold.daily_gmv_history")
        return max(ledger_days.newest_seq(reader), int(row["seq"]))

    def append(self, table: Table, rows: DataFrame, is_few: bool = False) -> None:
        """Append rows in one commit.

        Args:
            is_few: they fit in this process; then no commit is made for no rows.
        """
        if is_few:
            few = self._collected(table, rows)
            if few.num_rows or not self.exists(table):
                records.append_columns(self.path, table, few)
            return
        with faults.commit(table.path):
            self._new(table, rows).mode("append").save(str(self.path / table.path))

    def swap_in(self, table: Table, rows: DataFrame) -> None:
        """Let these rows be all of the table, in one commit, whatever it holds."""
        writer = rows.select(*table.column_names).write.format("delta").mode("overwrite")
        with faults.commit(table.path):
            writer.option("overwriteSchema", "true").save(str(self.path / table.path))

    def replace(
        self, table: Table, rows: DataFrame, column: str, values: Sequence[str], is_few: bool = False
    ) -> None:
        """Replace the rows whose `column` has one of `values` by `rows`, in one commit.

        Args:
            is_few: they fit in this process; then no commit is made where there is nothing to replace.
        """
        listed = ", ".join(map(pruning.quoted, values))
        if is_few:
            few = self._collected(table, rows)
            old = f"select 1 from {table.layer}.{table.name} where {column} in ({listed}) limit 1"
            if few.num_rows or not self.exists(table) or Reader(self.path).rows(old):
                records.replace_columns(self.path, table, few, f"{column} in ({listed})")
            return
        writer = self._new(table, rows)
        if self.exists(table):
            writer = writer.mode("overwrite").option("replaceWhere", f"`{column}` in ({listed})")
        with faults.commit(table.path):
            writer.save(str(self.path / table.path))

    def _new(self, table: Table, rows: DataFrame) -> DataFrameWriter:
        return rows.select(*table.column_names).write.format("delta").options(**records.properties(table))

    def _collected(self, table: Table, rows: DataFrame) -> pa.Table:
        # With the types known here, the server isn't asked for them first, which takes it half as long as the rows.
        return rows.select(*table.column_names).to(_struct(table)).toArrow().cast(records.arrow_schema(table))

    def merge_latest(
        self, latest: Mapping[EventTable, DataFrame], touched: Touched, unfinished: Unfinished
    ) -> None:
        """Bring each silver table to the latest version of the touched purchases, at the same time.

        Args:
            latest: by event table, the latest version of each touched purchase that has one.
            touched: all that were looked at; those without a latest version leave the table.
        """
        if unfinished.runs:
            at_the_same_time(
                [(self._merge_latest, event, frame, touched, unfinished) for event, frame in latest.items()]
            )

    def _merge_latest(
        self, event: EventTable, latest: DataFrame, touched: Touched, unfinished: Unfinished
    ) -> None:
        table, is_few = event.latest, unfinished.records <= MOST_ROWS_TO_COLLECT
        if touched.ids is None and is_few:
            records.replace_columns(self.path, table, self._collected(table, latest))
        elif touched.ids is None:
            with faults.commit(table.path):
                self._new(table, latest).mode("overwrite").save(str(self.path / table.path))
        elif not self.exists(table):
            self.append(table, latest, touched.few is not None)
        elif touched.few is not None:
            rows = self._collected(table, latest)
            merging.merge_latest(self.path, table, rows, touched.few, unfinished.runs)
        else:
            with faults.commit(table.path):
                self._merge(event, latest, touched.ids, touched.ranges)

    def _merge(
        self, event: EventTable, latest: DataFrame, touched: DataFrame, ranges: Sequence[Range]
    ) -> None:
        judged = touched.select(F.col("purchase_id").alias("touched_id"))
        source = judged.join(latest, F.col("touched_id") == F.col("purchase_id"), how="left")
        source.createOrReplaceTempView(f"latest_{event.name}")
        is_changed = " or ".join(f"not (target.{name} <=> source.{name})" for name in event.column_names)
        assignments = ", ".join(f"target.{name} = source.{name}" for name in event.column_names)
        columns = ", ".join(event.column_names)
        values = ", ".join(f"source.{name}" for name in event.column_names)
        skipping = " and ".join(
            ["target.purchase_id = source.touched_id", pruning.within("target.purchase_id", ranges)]
        )
        self.spark.sql(
            f"merge into delta.`{self.path / event.latest.path}` as target using latest_{event.name} as source "
            f"on {skipping} "
            f"when matched and source.purchase_id is null then delete "
            f"when matched and ({is_changed}) then update set {assignments} "
            f"when not matched and source.purchase_id is not null then insert ({columns}) values ({values})"
        ).collect()


def in_force(records: DataFrame, unfinished: Unfinished) -> DataFrame:
    """The bronze records of files that are not retracted."""
    retracted = list(unfinished.out_of_force)
    return records.where(~F.col("sha256").isin(retracted)) if retracted else records


def _within(column: Column, ranges: Sequence[Range]) -> Column:
    return reduce(or_, (column.between(low, high) for low, high in ranges))


def _struct(table: Table) -> StructType:
    return from_arrow_schema(records.arrow_schema(table), prefer_timestamp_ntz=True)


def of_each_event(make: Callable[[EventTable], T]) -> dict[EventTable, T]:
    """What a function makes of each event table, of all at the same time."""
    made = at_the_same_time([(make, event) for event in EVENT_TABLES])
    return dict(zip(EVENT_TABLES, made, strict=True))


def at_the_same_time(calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Make several calls, each a function and its arguments, in threads; Spark works on all of them.

    Returns:
        what each of them returned.

    Raises:
        whatever the first of them raised, when all have ended.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(calls))) as pool:
        return [done.result() for done in [pool.submit(call, *arguments) for call, *arguments in calls]]
