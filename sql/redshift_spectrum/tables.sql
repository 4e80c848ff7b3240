-- Redshift Spectrum. Replace the role and the buckets. Spectrum reads plain parquet: `gmv export` writes
-- daily_gmv so. The other tables are found through the schema gmv of the Glue catalog, as Athena declares them.
create external schema gmv
from data catalog database 'gmv'
iam_role 'arn:aws:iam::123456789012:role/gmv-reader';

create external table gmv.daily_gmv_export (
  subsidiary varchar(65535),
  gmv decimal(38, 2)
)
partitioned by (transaction_date date)
stored as parquet
location 's3://acme-gmv-analytics/export/daily_gmv/';

-- Once per day that the export's _manifest.json names:
alter table gmv.daily_gmv_export add if not exists partition (transaction_date = '2023-02-08')
location 's3://acme-gmv-analytics/export/daily_gmv/transaction_date=2023-02-08/';
