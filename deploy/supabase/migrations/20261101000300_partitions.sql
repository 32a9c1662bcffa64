-- Partitions are made just in time, by whoever is about to write rows of a day.
--
-- Days and months are New York's: a trading session, with its pre-market and after hours, lies in one
-- partition, although it ends after midnight UTC in winter. Bounds are stored as instants.

create function public.kite_ensure_partition(parent text, day date) returns boolean
language plpgsql
set search_path = ''
set datestyle = 'ISO'
set timezone = 'UTC'
as $$
declare
    unit text := case
        when parent in ('equity_data', 'indicators') then 'day'
        when parent in ('candles', 'option_prices') then 'month'
    end;
    first_day timestamp := date_trunc(unit, day::timestamp);
    name text := parent || to_char(first_day, case unit when 'day' then '_YYYYMMDD' else '_YYYYMM' end);
    attached boolean;
begin
    if unit is null then
        raise exception '% is not a partitioned table of this schema', parent
            using errcode = 'invalid_parameter_value';
    end if;

    select relispartition into attached
    from pg_class where oid = to_regclass(format('kite_parts.%I', name));
    if attached then
        return false;
    end if;

    -- Two writers that reach midnight together: the second waits, then finds the work done.
    perform pg_advisory_xact_lock(hashtextextended('kite_parts.' || name, 0));
    select relispartition into attached
    from pg_class where oid = to_regclass(format('kite_parts.%I', name));
    if attached then
        return false;
    elsif attached is not null then
        raise exception 'the partition kite_parts.% exists, but is detached', name
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Its export or removal was not finished: attach it again or drop it.';
    end if;

    -- Attaching an empty table lets readers and writers of the parent go on; CREATE ... PARTITION OF
    -- would wait for all of them and make all others wait.
    execute format('create table kite_parts.%I (like public.%I including all)', name, parent);
    execute format('alter table kite_parts.%I enable row level security', name);
    execute format(
        'revoke all on kite_parts.%I from public, anon, authenticated, service_role', name);
    execute format(
        'alter table public.%I attach partition kite_parts.%I for values from (%L) to (%L)',
        parent, name,
        first_day at time zone 'America/New_York',
        (first_day + ('1 ' || unit)::interval) at time zone 'America/New_York');
    return true;
end
$$;
comment on function public.kite_ensure_partition(text, date) is
    'Makes the partition of a table for a New York day (or its month) unless it exists; true if it made it.';
revoke all on function public.kite_ensure_partition(text, date)
    from public, anon, authenticated, service_role;
