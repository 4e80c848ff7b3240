-- By how much February 2023 has changed since its end, and why: one row per reason. The changes and what was
-- known at the month's end (reason 'known at the end') add up to what the ledger holds now.
select
  case when known_on <= date '2023-02-28' then 'known at the end' else reason end as reason,
  cast(sum(amount) as decimal(38, 2)) as gmv,
  sum(purchases) as purchases
from gmv.gmv_ledger
where transaction_date between date '2023-02-01' and date '2023-02-28'
group by case when known_on <= date '2023-02-28' then 'known at the end' else reason end
order by reason
