-- Databricks. Replace the buckets; they need an external location each. Read only: the pipeline writes.
create schema if not exists gmv;

create table if not exists gmv.daily_gmv (
  transaction_date date,
  subsidiary string,
  gmv decimal(38, 2)
)
using delta
location 's3://acme-gmv-analytics/lake/gold/daily_gmv';

create table if not exists gmv.daily_gmv_history (
  transaction_date date,
  subsidiary string,
  previous_gmv decimal(38, 2),
  gmv decimal(38, 2),
  ledger_seq bigint,
  run string,
  published_at timestamp_ntz
)
using delta
location 's3://acme-gmv-analytics/lake/gold/daily_gmv_history';

create table if not exists gmv.gmv_ledger (
  purchase_id string,
  transaction_date date,
  subsidiary string,
  amount decimal(38, 2),
  purchases int,
  known_on date,
  reason string,
  cause string,
  ledger_seq bigint,
  run string,
  recorded_at timestamp_ntz
)
using delta
location 's3://acme-gmv-analytics/lake/gold/gmv_ledger';

create table if not exists gmv.purchase (
  transaction_datetime timestamp_ntz,
  transaction_date date,
  purchase_id string,
  buyer_id bigint,
  prod_item_id bigint,
  order_date date,
  release_date date,
  producer_id bigint
)
using delta
location 's3://acme-gmv-curated/lake/silver/purchase';

create table if not exists gmv.product_item (
  transaction_datetime timestamp_ntz,
  transaction_date date,
  purchase_id string,
  product_id bigint,
  item_quantity int,
  purchase_value decimal(18, 2)
)
using delta
location 's3://acme-gmv-curated/lake/silver/product_item';

create table if not exists gmv.purchase_extra_info (
  transaction_datetime timestamp_ntz,
  transaction_date date,
  purchase_id string,
  subsidiary string
)
using delta
location 's3://acme-gmv-curated/lake/silver/purchase_extra_info';

-- The same number as plain parquet, where `gmv export` has put it.
create table if not exists gmv.daily_gmv_export (
  transaction_date date,
  subsidiary string,
  gmv decimal(38, 2)
)
using parquet
partitioned by (transaction_date)
location 's3://acme-gmv-analytics/export/daily_gmv';

-- Once after each export, so that new days are found:
msck repair table gmv.daily_gmv_export;
