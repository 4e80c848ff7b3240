-- The published number: GMV per day and subsidiary, of February 2023.
select transaction_date, subsidiary, gmv
from gmv.daily_gmv
where transaction_date between date '2023-02-01' and date '2023-02-28'
order by transaction_date, subsidiary
