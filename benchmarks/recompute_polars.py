"""Daily GMV from the CSV files, all of it again each time, as one would write it in Polars.

Usage: python recompute_polars.py LANDING OUT
"""

import sys
from decimal import Decimal
from pathlib import Path

import polars as pl

EVENT = {"transaction_datetime": pl.Datetime("us"), "transaction_date": pl.Date, "purchase_id": pl.String}
PURCHASE = EVENT | {
    "buyer_id": pl.Int64,
    "prod_item_id": pl.Int64,
    "order_date": pl.Date,
    "release_date": pl.Date,
    "producer_id": pl.Int64,
}
PRODUCT_ITEM = EVENT | {
    "product_id": pl.Int64,
    "item_quantity": pl.Int64,
    "purchase_value": pl.Decimal(18, 2),
}
PURCHASE_EXTRA_INFO = EVENT | {"subsidiary": pl.String}

landing, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)


def latest(table: str, schema: dict[str, pl.DataType]) -> pl.LazyFrame:
    others = [name for name in schema if name not in ("transaction_datetime", "purchase_id")]
    return (
        pl.scan_csv(sorted(landing.glob(f"{table}[.-]*")), schema=schema)
        .sort(["transaction_datetime", *others], descending=True, nulls_last=True)
        .unique("purchase_id", keep="first", maintain_order=True)
    )


paid = latest("purchase", PURCHASE).filter(pl.col("release_date").is_not_null())
items = latest("product_item", PRODUCT_ITEM)
subsidiaries = latest("purchase_extra_info", PURCHASE_EXTRA_INFO)
amount = pl.col("purchase_value").cast(pl.Decimal(38, 2)) * pl.col("item_quantity")

daily_gmv = (
    paid.select("purchase_id", "transaction_date")
    .join(items.select("purchase_id", "item_quantity", "purchase_value"), on="purchase_id", how="inner")
    .join(subsidiaries.select("purchase_id", "subsidiary"), on="purchase_id", how="left")
    .group_by("transaction_date", pl.col("subsidiary").fill_null("unknown"))
    .agg(amount.sum().cast(pl.Decimal(38, 2)).alias("gmv"))
    .sort("transaction_date", "subsidiary")
    .collect()
)
daily_gmv.write_parquet(out / "daily_gmv.parquet")
print(f"{daily_gmv['gmv'].sum() or Decimal(0):.2f} {daily_gmv.height}")
