"""The ledger: GMV in double entry. What each purchase's life posts, and what the ledger still lacks.

DataFrame in, DataFrame out; nothing is read or written here. docs/ledger.md tells the rules with an example.
"""

from __future__ import annotations

from functools import partial, reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from gmv.tables import (
    AMOUNT,
    EVENT_TABLES,
    GMV_LEDGER,
    UNKNOWN_SUBSIDIARY,
    EventTable,
)


def standings(versions: dict[str, DataFrame]) -> DataFrame:
    """Where each purchase counts at the end of each day on which it has a version.

    Args:
        versions: by event table name, all versions of the purchases to judge.

    Returns:
        purchase_id, known_on (the day), transaction_date, subsidiary and amount (all three empty where it
        counts nowhere), is_awaiting_item (paid, but no item yet). Rules 2 and 3 as known on that day.
    """
    events = reduce(
        partial(DataFrame.unionByName, allowMissingColumns=True),
        (_in_one_column(versions[event.name], event) for event in EVENT_TABLES),
    )
    # One sort serves all: on each day, an event table's versions are in the order of its precedence, newest last.
    in_order = Window.partitionBy("purchase_id").orderBy(
        "known_on", *(F.col(event.name).asc_nulls_first() for event in EVENT_TABLES)
    )
    until_then = in_order.rowsBetween(Window.unboundedPreceding, 0)
    next_day = F.lead("known_on").over(in_order)
    as_known = (
        events.select(
            "purchase_id",
            "known_on",
            *(
                F.last(event.name, ignorenulls=True).over(until_then).alias(event.name)
                for event in EVENT_TABLES
            ),
            F.coalesce(next_day != F.col("known_on"), F.lit(True)).alias("is_day_end"),
        )
        .where("is_day_end")
        .drop("is_day_end")
    )
    is_paid = F.col("purchase.release_date").isNotNull()
    has_item = F.col("product_item").isNotNull()
    counts = is_paid & has_item
    amount = F.col("product_item.purchase_value") * F.col("product_item.item_quantity")
    subsidiary = F.coalesce(F.col("purchase_extra_info.subsidiary"), F.lit(UNKNOWN_SUBSIDIARY))
    return as_known.select(
        "purchase_id",
        "known_on",
        F.when(counts, F.col("purchase.transaction_date")).alias("transaction_date"),
        F.when(counts, subsidiary).alias("subsidiary"),
        F.when(counts, amount.cast(AMOUNT)).alias("amount"),
        F.coalesce(is_paid & ~has_item, F.lit(False)).alias("is_awaiting_item"),
    )


def postings(standings: DataFrame) -> DataFrame:
    """What the ledger should hold: the change from each standing of a purchase to its next.

    Args:
        standings: what `standings` returns.

    Returns:
        purchase_id, transaction_date, subsidiary, amount, purchases, known_on, reason; at most one row per
        key of `gold/gmv_ledger`.
    """
    by_day = Window.partitionBy("purchase_id").orderBy("known_on")
    changes = standings.select(
        "*",
        *(
            F.lag(name).over(by_day).alias(f"previous_{name}")
            for name in ("transaction_date", "subsidiary", "amount")
        ),
        F.lag("is_awaiting_item", 1, False).over(by_day).alias("was_awaiting_item"),
    )
    old_day, old_subsidiary, old_amount = (
        F.col(f"previous_{name}") for name in ("transaction_date", "subsidiary", "amount")
    )
    day, subsidiary, amount = F.col("transaction_date"), F.col("subsidiary"), F.col("amount")
    counted, counts = old_day.isNotNull(), day.isNotNull()
    has_moved = counted & counts & ((day != old_day) | (subsidiary != old_subsidiary))
    moved = (
        F.when(day != old_day, F.lit("moved_day"))
        .when(old_subsidiary == UNKNOWN_SUBSIDIARY, F.lit("subsidiary_known"))
        .otherwise(F.lit("moved_subsidiary"))
    )
    entered = F.when(F.col("was_awaiting_item"), F.lit("item_arrived")).otherwise(F.lit("paid"))
    entries = F.array_compact(
        F.array(
            F.when(~counted & counts, _entry(day, subsidiary, amount, 1, entered)),
            F.when(counted & ~counts, _entry(old_day, old_subsidiary, -old_amount, -1, F.lit("withdrawn"))),
            F.when(has_moved, _entry(old_day, old_subsidiary, -old_amount, -1, moved)),
            F.when(has_moved, _entry(day, subsidiary, old_amount, 1, moved)),
            F.when(
                counted & counts & (amount != old_amount),
                _entry(day, subsidiary, amount - old_amount, 0, F.lit("repriced")),
            ),
        )
    )
    return changes.select("purchase_id", "known_on", F.explode(entries).alias("entry")).select(
        "purchase_id",
        "entry.transaction_date",
        "entry.subsidiary",
        "entry.amount",
        "entry.purchases",
        "known_on",
        "entry.reason",
    )


def difference(should_hold: DataFrame, holds: DataFrame) -> DataFrame:
    """The postings that bring the ledger from what it holds to what it should hold, for the same purchases.

    Args:
        should_hold: what `postings` returns.
        holds: rows of `gold/gmv_ledger`.

    Returns:
        The columns of `postings`, one row per key whose amount or number of purchases differs. `cause` is
        not part of the key: a correction keeps the reason and day of what it corrects. Nothing for a
        repeated step.
    """
    measures = [*GMV_LEDGER.key, "amount", "purchases"]
    taken_back = holds.select(
        *GMV_LEDGER.key, (-F.col("amount")).alias("amount"), (-F.col("purchases")).alias("purchases")
    )
    return (
        should_hold.select(*measures)
        .unionByName(taken_back)
        .groupBy(*GMV_LEDGER.key)
        .agg(F.sum("amount").cast(AMOUNT).alias("amount"), F.sum("purchases").cast("int").alias("purchases"))
        .where((F.col("amount") != 0) | (F.col("purchases") != 0))
        .select("purchase_id", "transaction_date", "subsidiary", "amount", "purchases", "known_on", "reason")
    )


def with_cause(difference: DataFrame, by_retraction: DataFrame | None) -> DataFrame:
    """The postings of a difference, each with what caused it.

    Args:
        difference: what `difference` returns.
        by_retraction: what of it files caused that were retracted or put back: the columns of `difference`,
            and `cause`; None when there were no such files.

    Returns:
        The columns of `difference`, and `cause`. Where a retraction and an event both bear on one key, two
        rows that add up to its difference. A key without difference stays out, so that a repeated step
        posts nothing.
    """
    if by_retraction is None:
        return difference.withColumn("cause", F.lit("event"))
    own = by_retraction.select(
        *GMV_LEDGER.key,
        F.col("amount").alias("their_amount"),
        F.col("purchases").alias("their_purchases"),
        F.col("cause").alias("their_cause"),
    )
    split = difference.join(own, [*GMV_LEDGER.key], how="left")
    their_amount = F.coalesce("their_amount", F.lit(0).cast(AMOUNT))
    their_purchases = F.coalesce("their_purchases", F.lit(0))
    parts = F.array(
        _part(their_amount, their_purchases, F.col("their_cause")),
        _part(F.col("amount") - their_amount, F.col("purchases") - their_purchases, F.lit("event")),
    )
    return (
        split.select(*GMV_LEDGER.key, F.explode(parts).alias("part"))
        .where((F.col("part.amount") != 0) | (F.col("part.purchases") != 0))
        .select(*GMV_LEDGER.key, "part.amount", "part.purchases", "part.cause")
    )


def _part(amount: Column, purchases: Column, cause: Column) -> Column:
    return F.struct(
        amount.cast(AMOUNT).alias("amount"), purchases.cast("int").alias("purchases"), cause.alias("cause")
    )


def _in_one_column(versions: DataFrame, event: EventTable) -> DataFrame:
    """purchase_id, known_on, and the version as a struct named as the event table.

    The struct's fields are in the order of precedence, so structs compare as versions do (rule 1).
    """
    return versions.select(
        "purchase_id",
        F.to_date("transaction_datetime").alias("known_on"),
        F.struct(*event.precedence).alias(event.name),
    )


def _entry(day: Column, subsidiary: Column, amount: Column, purchases: int, reason: Column) -> Column:
    return F.struct(
        day.alias("transaction_date"),
        subsidiary.alias("subsidiary"),
        amount.cast(AMOUNT).alias("amount"),
        F.lit(purchases).alias("purchases"),
        reason.alias("reason"),
    )
