-- From bronze's strings to typed events: the design's rules of values, written a second time, by hand.
-- Takes arrived_<name>: the rows of bronze/<name> to read, all of them or those of some files; and out_of_force:
-- the sha256 of retracted files.
-- Makes per event table <name>_records (one row per record of a file in force, with is_valid) and
-- <name>_events (distinct valid events); and arrived_files, valid_records (by file), rejected.

-- DuckDB's casts are too kind (2023-2-03; 24:00:00; 55.595 as 55.60), so a pattern decides before them.
-- Around a value go spaces, no-break spaces (U+00A0, U+202F) and byte-order marks (U+FEFF); empty is null.
create temp macro filled(v) as nullif(trim(v, ' ' || chr(160) || chr(8239) || chr(65279)), '');
create temp macro read_date(v) as
    case when regexp_full_match(v, '\d{4}-\d{2}-\d{2}') and v not like '0000%' then try_cast(v as date) end;
create temp macro read_time(v) as
    case when regexp_full_match(v, '\d{4}-\d{2}-\d{2}[ T]([01]\d|2[0-3]):\d{2}:\d{2}(\.\d{1,6})?')
    then try_cast(v as timestamp) end;
create temp macro read_bigint(v) as case when regexp_full_match(v, '-?\d+') then try_cast(v as bigint) end;
create temp macro read_int(v) as case when regexp_full_match(v, '-?\d+') then try_cast(v as integer) end;
create temp macro read_amount(v) as
    case when regexp_full_match(v, '-?\d{1,16}(\.\d{1,2}0*)?') then try_cast(v as decimal(18, 2)) end;

-- Empty or readable; filled and readable; and for times, plausible as well.
create temp macro may_be(text, value) as text is null or value is not null;
create temp macro must_be(value) as value is not null;
create temp macro must_be_plausible(value, ingested_at) as
    coalesce(value >= timestamp '2000-01-01' and value <= ingested_at + interval 1 day, false);
-- U+FFFD stands for bytes that were lost.
create temp macro must_be_text(value) as coalesce(not contains(value, chr(65533)), false);

create temp table arrived_files as
select row_number() over () as file_number, *, coalesce(sha256 in (from out_of_force), false) as is_retracted
from (
    select 'purchase' as "table", file, sha256, count(*) as records from arrived_purchase group by all
    union all
    select 'product_item', file, sha256, count(*) from arrived_product_item group by all
    union all
    select 'purchase_extra_info', file, sha256, count(*) from arrived_purchase_extra_info group by all
);

create temp table purchase_records as
with texts as (
    select file_number, line, ingested_at, defect,
        filled(transaction_datetime) as transaction_datetime_text,
        filled(transaction_date) as transaction_date_text,
        filled(purchase_id) as purchase_id,
        filled(buyer_id) as buyer_id_text,
        filled(prod_item_id) as prod_item_id_text,
        filled(order_date) as order_date_text,
        filled(release_date) as release_date_text,
        filled(producer_id) as producer_id_text
    from arrived_purchase
    join arrived_files using (file, sha256)
    where "table" = 'purchase' and not is_retracted
)
select file_number, line,
    read_time(transaction_datetime_text) as transaction_datetime,
    read_date(transaction_date_text) as transaction_date,
    purchase_id,
    read_bigint(buyer_id_text) as buyer_id,
    read_bigint(prod_item_id_text) as prod_item_id,
    read_date(order_date_text) as order_date,
    read_date(release_date_text) as release_date,
    read_bigint(producer_id_text) as producer_id,
    defect is null
        and must_be_plausible(transaction_datetime, ingested_at)
        and must_be_plausible(transaction_date, ingested_at)
        and must_be_text(purchase_id)
        and may_be(buyer_id_text, buyer_id)
        and may_be(prod_item_id_text, prod_item_id)
        and may_be(order_date_text, order_date)
        and may_be(release_date_text, release_date)
        and may_be(producer_id_text, producer_id) as is_valid
from texts;

create temp table product_item_records as
with texts as (
    select file_number, line, ingested_at, defect,
        filled(transaction_datetime) as transaction_datetime_text,
        filled(transaction_date) as transaction_date_text,
        filled(purchase_id) as purchase_id,
        filled(product_id) as product_id_text,
        filled(item_quantity) as item_quantity_text,
        filled(purchase_value) as purchase_value_text
    from arrived_product_item
    join arrived_files using (file, sha256)
    where "table" = 'product_item' and not is_retracted
)
select file_number, line,
    read_time(transaction_datetime_text) as transaction_datetime,
    read_date(transaction_date_text) as transaction_date,
    purchase_id,
    read_bigint(product_id_text) as product_id,
    read_int(item_quantity_text) as item_quantity,
    read_amount(purchase_value_text) as purchase_value,
    defect is null
        and must_be_plausible(transaction_datetime, ingested_at)
        and must_be_plausible(transaction_date, ingested_at)
        and must_be_text(purchase_id)
        and may_be(product_id_text, product_id)
        and must_be(item_quantity) and item_quantity >= 0
        and must_be(purchase_value) and purchase_value >= 0 as is_valid
from texts;

create temp table purchase_extra_info_records as
with texts as (
    select file_number, line, ingested_at, defect,
        filled(transaction_datetime) as transaction_datetime_text,
        filled(transaction_date) as transaction_date_text,
        filled(purchase_id) as purchase_id,
        filled(subsidiary) as subsidiary
    from arrived_purchase_extra_info
    join arrived_files using (file, sha256)
    where "table" = 'purchase_extra_info' and not is_retracted
)
select file_number, line,
    read_time(transaction_datetime_text) as transaction_datetime,
    read_date(transaction_date_text) as transaction_date,
    purchase_id,
    subsidiary,
    defect is null
        and must_be_plausible(transaction_datetime, ingested_at)
        and must_be_plausible(transaction_date, ingested_at)
        and must_be_text(purchase_id)
        and must_be_text(subsidiary) as is_valid
from texts;

create temp table purchase_events as
select distinct * exclude (file_number, line, is_valid) from purchase_records where is_valid;

create temp table product_item_events as
select distinct * exclude (file_number, line, is_valid) from product_item_records where is_valid;

create temp table purchase_extra_info_events as
select distinct * exclude (file_number, line, is_valid) from purchase_extra_info_records where is_valid;

create temp table valid_records as
select file_number, count(*) filter (is_valid) as valid_records
from (
    select file_number, is_valid from purchase_records
    union all
    select file_number, is_valid from product_item_records
    union all
    select file_number, is_valid from purchase_extra_info_records
)
group by file_number;

create temp table rejected as
select "table" as event_table, file, sha256, line
from (
    select file_number, line from purchase_records where not is_valid
    union all
    select file_number, line from product_item_records where not is_valid
    union all
    select file_number, line from purchase_extra_info_records where not is_valid
)
join arrived_files using (file_number);
