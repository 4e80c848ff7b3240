-- Snowflake. Replace the storage integration and the buckets.
create schema if not exists gmv;

create stage gmv.curated
  url = 's3://acme-gmv-curated/lake/'
  storage_integration = gmv;

create stage gmv.analytics
  url = 's3://acme-gmv-analytics/lake/'
  storage_integration = gmv;

create stage gmv.export
  url = 's3://acme-gmv-analytics/export/'
  storage_integration = gmv;

create external table gmv.daily_gmv (
  transaction_date date as (cast(value:transaction_date as date)),
  subsidiary varchar as (cast(value:subsidiary as varchar)),
  gmv number(38, 2) as (cast(value:gmv as number(38, 2)))
)
location = @gmv.analytics/gold/daily_gmv/
auto_refresh = false
refresh_on_create = false
file_format = (type = parquet)
table_format = delta;

alter external table gmv.daily_gmv refresh;

create external table gmv.daily_gmv_history (
  transaction_date date as (cast(value:transaction_date as date)),
  subsidiary varchar as (cast(value:subsidiary as varchar)),
  previous_gmv number(38, 2) as (cast(value:previous_gmv as number(38, 2))),
  gmv number(38, 2) as (cast(value:gmv as number(38, 2))),
  ledger_seq bigint as (cast(value:ledger_seq as bigint)),
  run varchar as (cast(value:run as varchar)),
  published_at timestamp_ntz as (cast(value:published_at as timestamp_ntz))
)
location = @gmv.analytics/gold/daily_gmv_history/
auto_refresh = false
refresh_on_create = false
file_format = (type = parquet)
table_format = delta;

alter external table gmv.daily_gmv_history refresh;

create external table gmv.gmv_ledger (
  purchase_id varchar as (cast(value:purchase_id as varchar)),
  transaction_date date as (cast(value:transaction_date as date)),
  subsidiary varchar as (cast(value:subsidiary as varchar)),
  amount number(38, 2) as (cast(value:amount as number(38, 2))),
  purchases int as (cast(value:purchases as int)),
  known_on date as (cast(value:known_on as date)),
  reason varchar as (cast(value:reason as varchar)),
  cause varchar as (cast(value:cause as varchar)),
  ledger_seq bigint as (cast(value:ledger_seq as bigint)),
  run varchar as (cast(value:run as varchar)),
  recorded_at timestamp_ntz as (cast(value:recorded_at as timestamp_ntz))
)
location = @gmv.analytics/gold/gmv_ledger/
auto_refresh = false
refresh_on_create = false
file_format = (type = parquet)
table_format = delta;

alter external table gmv.gmv_ledger refresh;

create external table gmv.purchase (
  transaction_datetime timestamp_ntz as (cast(value:transaction_datetime as timestamp_ntz)),
  transaction_date date as (cast(value:transaction_date as date)),
  purchase_id varchar as (cast(value:purchase_id as varchar)),
  buyer_id bigint as (cast(value:buyer_id as bigint)),
  prod_item_id bigint as (cast(value:prod_item_id as bigint)),
  order_date date as (cast(value:order_date as date)),
  release_date date as (cast(value:release_date as date)),
  producer_id bigint as (cast(value:producer_id as bigint))
)
location = @gmv.curated/silver/purchase/
auto_refresh = false
refresh_on_create = false
file_format = (type = parquet)
table_format = delta;

alter external table gmv.purchase refresh;

create external table gmv.product_item (
  transaction_datetime timestamp_ntz as (cast(value:transaction_datetime as timestamp_ntz)),
  transaction_date date as (cast(value:transaction_date as date)),
  purchase_id varchar as (cast(value:purchase_id as varchar)),
  product_id bigint as (cast(value:product_id as bigint)),
  item_quantity int as (cast(value:item_quantity as int)),
  purchase_value number(18, 2) as (cast(value:purchase_value as number(18, 2)))
)
location = @gmv.curated/silver/product_item/
auto_refresh = false
refresh_on_create = false
file_format = (type = parquet)
table_format = delta;

alter external table gmv.product_item refresh;

create external table gmv.purchase_extra_info (
  transaction_datetime timestamp_ntz as (cast(value:transaction_datetime as timestamp_ntz)),
  transaction_date date as (cast(value:transaction_date as date)),
  purchase_id varchar as (cast(value:purchase_id as varchar)),
  subsidiary varchar as (cast(value:subsidiary as varchar))
)
location = @gmv.curated/silver/purchase_extra_info/
auto_refresh = false
refresh_on_create = false
file_format = (type = parquet)
table_format = delta;

alter external table gmv.purchase_extra_info refresh;

-- The same number as plain parquet, where `gmv export` has put it.
create external table gmv.daily_gmv_export (
  transaction_date date as (cast(split_part(split_part(metadata$filename, 'transaction_date=', 2), '/', 1) as date)),
  subsidiary varchar as (cast(value:subsidiary as varchar)),
  gmv number(38, 2) as (cast(value:gmv as number(38, 2)))
)
partition by (transaction_date)
location = @gmv.export/daily_gmv/
pattern = '.*[.]parquet'
file_format = (type = parquet);
