-- Rows per table and day of February 2023.
select 'daily_gmv' as table_name, transaction_date, count(*) as row_count
from gmv.daily_gmv
where transaction_date between date '2023-02-01' and date '2023-02-28'
group by transaction_date
union all
select 'daily_gmv_history' as table_name, transaction_date, count(*) as row_count
from gmv.daily_gmv_history
where transaction_date between date '2023-02-01' and date '2023-02-28'
group by transaction_date
union all
select 'gmv_ledger' as table_name, transaction_date, count(*) as row_count
from gmv.gmv_ledger
where transaction_date between date '2023-02-01' and date '2023-02-28'
group by transaction_date
union all
select 'purchase' as table_name, transaction_date, count(*) as row_count
from gmv.purchase
where transaction_date between date '2023-02-01' and date '2023-02-28'
group by transaction_date
union all
select 'product_item' as table_name, transaction_date, count(*) as row_count
from gmv.product_item
where transaction_date between date '2023-02-01' and date '2023-02-28'
group by transaction_date
union all
select 'purchase_extra_info' as table_name, transaction_date, count(*) as row_count
from gmv.purchase_extra_info
where transaction_date between date '2023-02-01' and date '2023-02-28'
group by transaction_date
order by table_name, transaction_date
