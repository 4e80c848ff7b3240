-- BigQuery (with BigQuery Omni over S3). Replace the connection and the buckets.
create schema if not exists gmv;

create external table gmv.daily_gmv
with connection `aws-us-east-1.gmv`
options (
  format = 'DELTA_LAKE',
  uris = ['s3://acme-gmv-analytics/lake/gold/daily_gmv']
);

create external table gmv.daily_gmv_history
with connection `aws-us-east-1.gmv`
options (
  format = 'DELTA_LAKE',
  uris = ['s3://acme-gmv-analytics/lake/gold/daily_gmv_history']
);

create external table gmv.gmv_ledger
with connection `aws-us-east-1.gmv`
options (
  format = 'DELTA_LAKE',
  uris = ['s3://acme-gmv-analytics/lake/gold/gmv_ledger']
);

create external table gmv.purchase
with connection `aws-us-east-1.gmv`
options (
  format = 'DELTA_LAKE',
  uris = ['s3://acme-gmv-curated/lake/silver/purchase']
);

create external table gmv.product_item
with connection `aws-us-east-1.gmv`
options (
  format = 'DELTA_LAKE',
  uris = ['s3://acme-gmv-curated/lake/silver/product_item']
);

create external table gmv.purchase_extra_info
with connection `aws-us-east-1.gmv`
options (
  format = 'DELTA_LAKE',
  uris = ['s3://acme-gmv-curated/lake/silver/purchase_extra_info']
);

-- The same number as plain parquet, where `gmv export` has put it.
create external table gmv.daily_gmv_export (
  subsidiary string,
  gmv bignumeric(38, 2)
)
with connection `aws-us-east-1.gmv`
with partition columns (transaction_date date)
options (
  format = 'PARQUET',
  uris = ['s3://acme-gmv-analytics/export/daily_gmv/*.parquet'],
  hive_partition_uri_prefix = 's3://acme-gmv-analytics/export/daily_gmv'
);
