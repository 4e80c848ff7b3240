-- Athena. Replace the buckets. The columns of a Delta table come from its log.
create schema if not exists gmv;

create external table gmv.daily_gmv
location 's3://acme-gmv-analytics/lake/gold/daily_gmv/'
tblproperties ('table_type' = 'DELTA');

create external table gmv.daily_gmv_history
location 's3://acme-gmv-analytics/lake/gold/daily_gmv_history/'
tblproperties ('table_type' = 'DELTA');

create external table gmv.gmv_ledger
location 's3://acme-gmv-analytics/lake/gold/gmv_ledger/'
tblproperties ('table_type' = 'DELTA');

create external table gmv.purchase
location 's3://acme-gmv-curated/lake/silver/purchase/'
tblproperties ('table_type' = 'DELTA');

create external table gmv.product_item
location 's3://acme-gmv-curated/lake/silver/product_item/'
tblproperties ('table_type' = 'DELTA');

create external table gmv.purchase_extra_info
location 's3://acme-gmv-curated/lake/silver/purchase_extra_info/'
tblproperties ('table_type' = 'DELTA');

-- The same number as plain parquet, where `gmv export` has put it; days need not be registered one by one.
create external table gmv.daily_gmv_export (
  subsidiary string,
  gmv decimal(38, 2)
)
partitioned by (transaction_date date)
stored as parquet
location 's3://acme-gmv-analytics/export/daily_gmv/'
tblproperties (
  'projection.enabled' = 'true',
  'projection.transaction_date.type' = 'date',
  'projection.transaction_date.format' = 'yyyy-MM-dd',
  'projection.transaction_date.range' = '2000-01-01,NOW',
  'storage.location.template' = 's3://acme-gmv-analytics/export/daily_gmv/transaction_date=${transaction_date}/'
);
