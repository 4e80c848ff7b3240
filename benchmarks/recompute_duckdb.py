"""Daily GMV from the CSV files, all of it again each time, as one would write it in DuckDB.

Usage: python recompute_duckdb.py LANDING OUT
"""

import sys
from decimal import Decimal
from pathlib import Path

import duckdb

EVENT = {"transaction_datetime": "TIMESTAMP", "transaction_date": "DATE", "purchase_id": "VARCHAR"}
COLUMNS = {
    "purchase": EVENT
    | {
        "buyer_id": "BIGINT",
        "prod_item_id": "BIGINT",
        "order_date": "DATE",
        "release_date": "DATE",
        "producer_id": "BIGINT",
    },
    "product_item": EVENT
    | {"product_id": "BIGINT", "item_quantity": "INTEGER", "purchase_value": "DECIMAL(18,2)"},
    "purchase_extra_info": EVENT | {"subsidiary": "VARCHAR"},
}

landing, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
result = str(out / "daily_gmv.parquet")
db = duckdb.connect()

for table, columns in COLUMNS.items():
    files = [str(file) for file in sorted(landing.glob(f"{table}[.-]*"))]
    events = db.read_csv(files, columns=columns, header=True)
    others = [name for name in columns if name not in ("transaction_datetime", "purchase_id")]
    newest_first = ", ".join(f"{name} desc nulls last" for name in ["transaction_datetime", *others])
    db.execute(
        f"""
        create table {table} as
        from events
        qualify row_number() over (partition by purchase_id order by {newest_first}) = 1
        """
    )

daily_gmv = db.sql(
    """
    select
        transaction_date,
        coalesce(subsidiary, 'unknown') as subsidiary,
        sum(purchase_value * item_quantity)::decimal(38,2) as gmv
    from (select purchase_id, transaction_date from purchase where release_date is not null)
    join (select purchase_id, item_quantity, purchase_value from product_item) using (purchase_id)
    left join (select purchase_id, subsidiary from purchase_extra_info) using (purchase_id)
    group by all
    order by all
    """
)
daily_gmv.write_parquet(result)

total, rows = db.execute("select sum(gmv), count(*) from read_parquet(?)", [result]).fetchone()
print(f"{total or Decimal(0):.2f} {rows}")
