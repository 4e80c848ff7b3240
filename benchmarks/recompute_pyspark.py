"""Daily GMV from the CSV files, all of it again each time, as one would write it in plain PySpark.

Usage: python recompute_pyspark.py LANDING OUT
"""

import sys
from decimal import Decimal
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

EVENT = "transaction_datetime timestamp_ntz, transaction_date date, purchase_id string"
PURCHASE = (
    f"{EVENT}, buyer_id bigint, prod_item_id bigint, order_date date, release_date date, producer_id bigint"
)
PRODUCT_ITEM = f"{EVENT}, product_id bigint, item_quantity int, purchase_value decimal(18,2)"
PURCHASE_EXTRA_INFO = f"{EVENT}, subsidiary string"

landing, out = Path(sys.argv[1]), Path(sys.argv[2])
spark = (
    SparkSession.builder.master("local[*]")
    .appName("recompute")
    .config("spark.driver.memory", "4g")
    .config("spark.ui.enabled", "false")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")


def latest(table: str, schema: str) -> DataFrame:
    files = [str(file) for file in sorted(landing.glob(f"{table}[.-]*"))]
    events = spark.read.csv(files, schema=schema, header=True, mode="FAILFAST")
    others = [name for name in events.columns if name not in ("transaction_datetime", "purchase_id")]
    newest_first = Window.partitionBy("purchase_id").orderBy(
        *(F.col(name).desc_nulls_last() for name in ["transaction_datetime", *others])
    )
    return events.withColumn("rank", F.row_number().over(newest_first)).where("rank = 1").drop("rank")


paid = (
    latest("purchase", PURCHASE).where("release_date is not null").select("purchase_id", "transaction_date")
)
items = latest("product_item", PRODUCT_ITEM).select("purchase_id", "item_quantity", "purchase_value")
subsidiaries = latest("purchase_extra_info", PURCHASE_EXTRA_INFO).select("purchase_id", "subsidiary")

daily_gmv = (
    paid.join(items, "purchase_id", "inner")
    .join(subsidiaries, "purchase_id", "left")
    .groupBy("transaction_date", F.coalesce("subsidiary", F.lit("unknown")).alias("subsidiary"))
    .agg(F.sum(F.col("purchase_value") * F.col("item_quantity")).cast("decimal(38,2)").alias("gmv"))
)
daily_gmv.write.mode("overwrite").parquet(str(out / "daily_gmv.parquet"))

written = spark.read.parquet(str(out / "daily_gmv.parquet"))
total, rows = written.agg(F.sum("gmv"), F.count("*")).first()
print(f"{total or Decimal(0):.2f} {rows}")
spark.stop()
