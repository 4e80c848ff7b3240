"""Daily GMV from the CSV files, all of it again each time, as one would write it in pandas.

pandas has no fast decimals, so amounts are whole cents until the end.

Usage: python recompute_pandas.py LANDING OUT
"""

import sys
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa

EXACT = pd.ArrowDtype(pa.decimal128(18, 2))

landing, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)


def latest(table: str, dates: list[str], **types: str) -> pd.DataFrame:
    dates = ["transaction_datetime", "transaction_date", *dates]
    types = {"purchase_id": "string[pyarrow]", **types}
    files = sorted(landing.glob(f"{table}[.-]*"))
    events = pd.concat(pd.read_csv(file, dtype=types, parse_dates=dates) for file in files)
    if "purchase_value" in types:
        cents = events["purchase_value"].astype(EXACT) * 100
        events["purchase_value"] = cents.astype("int64[pyarrow]").astype("int64")
    others = [name for name in events.columns if name not in ("transaction_datetime", "purchase_id")]
    oldest_first = events.sort_values(["transaction_datetime", *others], na_position="first")
    return oldest_first.drop_duplicates("purchase_id", keep="last")


purchases = latest(
    "purchase", ["order_date", "release_date"], buyer_id="Int64", prod_item_id="Int64", producer_id="Int64"
)
items = latest(
    "product_item", [], product_id="Int64", item_quantity="int64", purchase_value="string[pyarrow]"
)
subsidiaries = latest("purchase_extra_info", [], subsidiary="string[pyarrow]")

items["amount_cents"] = items["purchase_value"] * items["item_quantity"]
paid = purchases.loc[purchases["release_date"].notna(), ["purchase_id", "transaction_date"]]
counted = paid.merge(items[["purchase_id", "amount_cents"]], on="purchase_id", how="inner").merge(
    subsidiaries[["purchase_id", "subsidiary"]], on="purchase_id", how="left"
)
counted["subsidiary"] = counted["subsidiary"].fillna("unknown")
daily_cents = counted.groupby(["transaction_date", "subsidiary"])["amount_cents"].sum().reset_index()

daily_gmv = pd.DataFrame(
    {
        "transaction_date": daily_cents["transaction_date"].dt.date,
        "subsidiary": daily_cents["subsidiary"],
        "gmv": pd.Series(
            [Decimal(int(cents)).scaleb(-2) for cents in daily_cents["amount_cents"]], dtype=object
        ),
    }
)
schema = pa.schema({"transaction_date": pa.date32(), "subsidiary": pa.string(), "gmv": pa.decimal128(38, 2)})
daily_gmv.to_parquet(out / "daily_gmv.parquet", index=False, schema=schema)
print(f"{sum(daily_gmv['gmv'], Decimal(0)):.2f} {len(daily_gmv)}")
