-- GMV of February 2023 as the sources knew it at the end of 28 February: later events don't count.
select transaction_date, subsidiary, cast(sum(amount) as decimal(38, 2)) as gmv
from gmv.gmv_ledger
where known_on <= date '2023-02-28'
  and transaction_date between date '2023-02-01' and date '2023-02-28'
group by transaction_date, subsidiary
having sum(purchases) > 0
order by transaction_date, subsidiary
