-- From events to GMV: the rules of the design, written a second time, in plain SQL.
-- Takes <name>_events: distinct valid events of all purchases, or of some; like all that is large here, they are
-- dropped once they have been used, since memory and disk would have to hold them to the end.
-- Makes <name>_latest, gmv_by_day (rules 1 to 5) and changes (rule 6: what became known on which day).

-- Rule 1. The version that stands at the end of each day on which a purchase has one; the last is the latest.
create temp table purchase_at_day_end as
select *, transaction_datetime::date as known_on
from purchase_events
qualify row_number() over (
    partition by purchase_id, transaction_datetime::date
    order by transaction_datetime desc, transaction_date desc, buyer_id desc nulls last,
        prod_item_id desc nulls last, order_date desc nulls last, release_date desc nulls last,
        producer_id desc nulls last
) = 1;
drop table purchase_events;

create temp table product_item_at_day_end as
select *, transaction_datetime::date as known_on
from product_item_events
qualify row_number() over (
    partition by purchase_id, transaction_datetime::date
    order by transaction_datetime desc, transaction_date desc, product_id desc nulls last,
        item_quantity desc, purchase_value desc
) = 1;
drop table product_item_events;

create temp table purchase_extra_info_at_day_end as
select *, transaction_datetime::date as known_on
from purchase_extra_info_events
qualify row_number() over (
    partition by purchase_id, transaction_datetime::date
    order by transaction_datetime desc, transaction_date desc, subsidiary desc
) = 1;
drop table purchase_extra_info_events;

create temp table purchase_latest as
select * exclude (known_on) from purchase_at_day_end
qualify row_number() over (partition by purchase_id order by known_on desc) = 1;

create temp table product_item_latest as
select * exclude (known_on) from product_item_at_day_end
qualify row_number() over (partition by purchase_id order by known_on desc) = 1;

create temp table purchase_extra_info_latest as
select * exclude (known_on) from purchase_extra_info_at_day_end
qualify row_number() over (partition by purchase_id order by known_on desc) = 1;

-- Rules 2 to 5.
create temp table gmv_by_day as
select
    purchase.transaction_date,
    coalesce(extra_info.subsidiary, 'unknown') as subsidiary,
    sum(item.purchase_value::decimal(38, 2) * item.item_quantity)::decimal(38, 2) as gmv,
    count(*) as purchases
from purchase_latest as purchase
join product_item_latest as item using (purchase_id)
left join purchase_extra_info_latest as extra_info using (purchase_id)
where purchase.release_date is not null
group by all;

-- Rule 6. Where each purchase stood from the end of one of its days until the end of its next.
create temp table standings as
with days as (
    select purchase_id, known_on from purchase_at_day_end
    union
    select purchase_id, known_on from product_item_at_day_end
    union
    select purchase_id, known_on from purchase_extra_info_at_day_end
),
spans as (
    select *, lead(known_on) over (partition by purchase_id order by known_on) as known_until from days
)
select
    spans.*,
    purchase.transaction_date,
    coalesce(extra_info.subsidiary, 'unknown') as subsidiary,
    (item.purchase_value::decimal(38, 2) * item.item_quantity)::decimal(38, 2) as amount
from spans
asof join purchase_at_day_end as purchase
    on spans.purchase_id = purchase.purchase_id and spans.known_on >= purchase.known_on
asof join product_item_at_day_end as item
    on spans.purchase_id = item.purchase_id and spans.known_on >= item.known_on
asof left join purchase_extra_info_at_day_end as extra_info
    on spans.purchase_id = extra_info.purchase_id and spans.known_on >= extra_info.known_on
where purchase.release_date is not null;
drop table purchase_at_day_end;
drop table product_item_at_day_end;
drop table purchase_extra_info_at_day_end;

-- It enters its place at the end of the one day and leaves it at the end of the other.
create temp table changes as
select
    purchase_id, known_on, transaction_date, subsidiary,
    sum(amount)::decimal(38, 2) as amount,
    sum(purchases)::bigint as purchases
from (
    select purchase_id, known_on, transaction_date, subsidiary, amount, 1 as purchases from standings
    union all
    select purchase_id, known_until, transaction_date, subsidiary, -amount, -1 from standings
    where known_until is not null
)
group by all
having sum(amount) <> 0 or sum(purchases) <> 0;
drop table standings;
