"""Gold: the published number, by the architecture's own flow. DataFrame in, DataFrame out."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gmv.tables import AMOUNT, UNKNOWN_SUBSIDIARY


def daily_gmv(purchase: DataFrame, product_item: DataFrame, purchase_extra_info: DataFrame) -> DataFrame:
    """GMV per day and subsidiary: join the latest versions, keep what is paid, sum (rules 2 to 5).

    Args:
        purchase, product_item, purchase_extra_info: rows of the silver tables, one per purchase_id each.

    Returns:
        transaction_date, subsidiary (`unknown` until its event comes), gmv, purchases (how many count there). A row
        exactly where at least one purchase counts, even at 0.00.
    """
    is_paid = F.col("release_date").isNotNull()
    subsidiary = F.coalesce(F.col("subsidiary"), F.lit(UNKNOWN_SUBSIDIARY))
    return (
        purchase.where(is_paid)
        .select("purchase_id", "transaction_date")
        .join(
            product_item.select("purchase_id", "purchase_value", "item_quantity"), "purchase_id", how="inner"
        )
        .join(purchase_extra_info.select("purchase_id", "subsidiary"), "purchase_id", how="left")
        .groupBy("transaction_date", subsidiary.alias("subsidiary"))
        .agg(
            F.sum(F.col("purchase_value") * F.col("item_quantity")).cast(AMOUNT).alias("gmv"),
            F.count("*").alias("purchases"),
        )
    )


def change(before: DataFrame, after: DataFrame) -> DataFrame:
    """What some purchases change of daily_gmv: they leave with what they were, and come in with what they are.

    Args:
        before, after: what `daily_gmv` gives of these purchases at two times.

    Returns:
        The same columns: the differences, a row where there is one.
    """
    left = before.withColumns({"gmv": -F.col("gmv"), "purchases": -F.col("purchases")})
    return (
        after.unionByName(left)
        .groupBy("transaction_date", "subsidiary")
        .agg(F.sum("gmv").cast(AMOUNT).alias("gmv"), F.sum("purchases").alias("purchases"))
        .where((F.col("gmv") != 0) | (F.col("purchases") != 0))
    )
