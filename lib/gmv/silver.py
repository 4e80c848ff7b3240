"""Silver: raw records become typed versions, versions become the latest of each purchase.

DataFrame in, DataFrame out; nothing is read or written here. This is the one place where strings become types.
"""

from __future__ import annotations

from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from gmv import tables
from gmv.tables import QUARANTINE, STRIPPED, EventTable

# Java's `$` matches before a final line break, `\z` doesn't; `\d` is ASCII only.
# A year 0000 is a placeholder of sources; Spark would read it, and Python can't show such a day.
_DATE = r"\A(?!0000)\d{4}-\d{2}-\d{2}\z"
_TIMESTAMP = r"\A(?!0000)\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?\z"
_INTEGER = r"\A-?\d+\z"
_AMOUNT = r"\A-?\d{1,16}(\.\d+)?\z"
_AMOUNT_IN_CENTS = r"\A-?\d{1,16}(\.\d{1,2}0*)?\z"

_PATTERN_AND_PROBLEM = {
    "date": (_DATE, "not a date"),
    "timestamp_ntz": (_TIMESTAMP, "not a timestamp"),
    "bigint": (_INTEGER, "not an integer"),
    "int": (_INTEGER, "not an integer"),
    "decimal(18,2)": (_AMOUNT, "not an amount"),
}


def read_values(records: DataFrame, event: EventTable) -> DataFrame:
    """Each raw record with its typed values and the reasons why it is rejected.

    Args:
        records: rows of `event.bronze`.

    Returns:
        `reasons` (array<string>, empty for a valid record), `typed` (struct of the event's columns, only
        meaningful where `reasons` is empty), `values` (the raw values by column), and raw, line, file,
        sha256, run, ingested_at as they were.

    A value is read exactly or not at all (design: the three event tables): Spark's own casts would round
    `19.999`, take `2023` for January 1st and drop a zone, so a pattern comes first.
    """
    texts = {column.name: _text(column.name) for column in event.columns}
    exact = {column.name: _value(texts[column.name], column) for column in event.columns}
    problems = [
        problem
        for column in event.columns
        for problem in _problems(texts[column.name], exact[column.name], column)
    ]
    is_readable, is_plain = F.col("defect").isNull(), F.col("is_plain")
    found = F.when(is_readable, F.array_compact(F.array(*problems))).otherwise(F.array(F.col("defect")))
    return records.withColumn("is_plain", _is_plain(event)).select(
        F.when(is_plain, F.array().cast("array<string>")).otherwise(found).alias("reasons"),
        F.struct(
            *(
                F.when(is_plain, _cast(column)).otherwise(exact[column.name]).alias(column.name)
                for column in event.columns
            )
        ).alias("typed"),
        F.map_from_arrays(
            F.array(*(F.lit(name) for name in event.column_names)), F.array(*event.column_names)
        ).alias("values"),
        "raw",
        "line",
        "file",
        "sha256",
        "run",
        "ingested_at",
    )


def versions(read: DataFrame, event: EventTable) -> DataFrame:
    """The distinct valid events among records: one row per version, with the file that brought it first.

    Args:
        read: what `read_values` returns.

    Returns:
        Rows of `event.versions`. Exact copies are one version; the first is the one of the smallest run,
        file and sha256, so that the order of rows does not matter.
    """
    valid = read.where(F.size("reasons") == 0).select("typed.*", "file", "sha256", "run")
    # By purchase first: its versions are then side by side, and one sort is enough.
    by_purchase = [event.key, *(name for name in event.column_names if name != event.key)]
    first_to_bring = Window.partitionBy(*by_purchase).orderBy("run", "file", "sha256")
    return (
        valid.repartition(event.key)
        .withColumn("copy", F.row_number().over(first_to_bring))
        .where(F.col("copy") == 1)
        .select(*event.versions.column_names)
    )


def absent_from(versions: DataFrame, existing: DataFrame, event: EventTable) -> DataFrame:
    """The versions whose typed values no existing version has. Lineage is not compared."""
    left, right = versions.alias("version"), existing.alias("existing")
    is_same = reduce(
        and_,
        (F.col(f"version.{name}").eqNullSafe(F.col(f"existing.{name}")) for name in event.column_names),
    )
    return left.join(right, is_same, how="left_anti").select(*event.versions.column_names)


def latest(versions: DataFrame, event: EventTable) -> DataFrame:
    """The latest version of each purchase: one row per purchase_id, with the event's columns.

    Ties in `transaction_datetime` go to the greater values of the other columns, in column order, empty
    below every value, so the result does not depend on the order of files or rows (rule 1).
    """
    newest_first = Window.partitionBy(event.key).orderBy(
        *(F.col(name).desc_nulls_last() for name in event.precedence)
    )
    return (
        versions.withColumn("version_rank", F.row_number().over(newest_first))
        .where(F.col("version_rank") == 1)
        .select(*event.column_names)
    )


def quarantine(read: DataFrame, event: EventTable) -> DataFrame:
    """The rejected records, with every rule that each breaks: rows of `silver/quarantine`.

    Args:
        read: what `read_values` returns.
    """
    return (
        read.where(F.size("reasons") > 0)
        .withColumn("table", F.lit(event.name))
        .select(*QUARANTINE.column_names)
    )


def _is_plain(event: EventTable) -> Column:
    """Whether a record is valid as it stands: each text is how Spark itself writes the value that it reads.

    Patterns and stripping cost ten times as much as casts; this spares them to nearly every record, and
    decides nothing: a record that isn't plain is read by the rules.
    """
    judged = [F.col("defect").isNull()]
    for column in event.columns:
        text, value = F.col(column.name), _cast(column)
        if column.type == "string":
            is_same = _is_visible(F.ascii(text)) & _is_visible(F.ascii(F.right(text, F.lit(1))))
        else:
            is_same = value.cast("string") == text
            if column.type == "date":  # Spark also knows a year 0, and years of five digits
                is_same &= (F.length(text) == 10) & (text >= "0001")
        judged.append(is_same if column.required else text.isNull() | (text == "") | is_same)
        judged += [~is_broken for is_broken in _out_of_range(value, column).values()]
    return F.coalesce(reduce(and_, judged), F.lit(False))


def _is_visible(code: Column) -> Column:
    return code.between(ord("!"), ord("~"))


def _cast(column: tables.Column) -> Column:
    text = F.col(column.name)
    return F.when(text != "", text) if column.type == "string" else text.try_cast(column.type)


def _out_of_range(value: Column, column: tables.Column) -> dict[str, Column]:
    """By problem, whether a value breaks one of the column's ranges."""
    broken = {}
    if column.minimum is not None:
        broken["negative"] = value < column.minimum
    if column.plausible:
        is_early = value < F.lit(tables.EARLIEST_PLAUSIBLE).cast(column.type)
        is_future = value.cast("timestamp_ntz") > F.col("ingested_at") + F.expr("interval 1 day")
        broken["implausible_date"] = is_early | is_future
    return broken


def _text(name: str) -> Column:
    stripped = F.btrim(F.col(name), F.lit(STRIPPED))
    return F.when(stripped != "", stripped)


def _value(text: Column, column: tables.Column) -> Column:
    if column.type == "string":
        return text
    pattern = _AMOUNT_IN_CENTS if column.type.startswith("decimal") else _PATTERN_AND_PROBLEM[column.type][0]
    return F.when(text.rlike(pattern), text.try_cast(column.type))


def _problems(text: Column, value: Column, column: tables.Column) -> list[Column]:
    def reason(problem: str) -> Column:
        return F.lit(f"{column.name}: {problem}")

    problems = []
    if column.required:
        problems.append(F.when(text.isNull(), reason("empty")))
    if column.type != "string":
        pattern, not_of_type = _PATTERN_AND_PROBLEM[column.type]
        is_malformed = ~text.rlike(pattern)
        finer = F.when(is_malformed, reason(not_of_type))
        if column.type.startswith("decimal"):
            finer = finer.when(~text.rlike(_AMOUNT_IN_CENTS), reason("more than 2 decimals"))
        unreadable = not_of_type if column.type in ("date", "timestamp_ntz") else "out of range"
        problems.append(finer.when(text.isNotNull() & value.isNull(), reason(unreadable)))
    problems += [F.when(is_broken, reason(said)) for said, is_broken in _out_of_range(value, column).items()]
    return problems
