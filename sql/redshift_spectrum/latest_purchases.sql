-- The paid purchases of February 2023 by their latest events, with what each counts: the published number's
-- other way, which adds up to it for days that are published.
select
  purchase.purchase_id,
  purchase.transaction_date,
  coalesce(purchase_extra_info.subsidiary, 'unknown') as subsidiary,
  cast(product_item.purchase_value * product_item.item_quantity as decimal(38, 2)) as gmv
from gmv.purchase
join gmv.product_item on product_item.purchase_id = purchase.purchase_id
left join gmv.purchase_extra_info on purchase_extra_info.purchase_id = purchase.purchase_id
where purchase.release_date is not null
  and purchase.transaction_date between date '2023-02-01' and date '2023-02-28'
order by purchase.transaction_date, purchase.purchase_id
