-- A store that keeps minutes only (KITE_STORE) is judged by its minutes: it has no ticks.

create or replace function public.get_streaming_health(for_ticker text) returns table (
    ticker text,
    status text,
    last_tick timestamptz,
    freshness_seconds numeric,
    recent_rows bigint,
    error_rate numeric,
    market_open boolean,
    service_status text
)
language plpgsql stable
set search_path = ''
as $$
declare
    recently constant interval := interval '5 minutes';
    -- A minute is stored when it is over, and waits up to 90 seconds for one that is missing.
    minutes_only constant boolean := exists (
        select from public.kite_meta as k where k.key = 'store' and k.value = 'minutes');
    fresh_seconds constant integer := case when minutes_only then 180 else 60 end;
    report record;
    standing interval;
    broker_now timestamptz;
    newest timestamptz;
    behind numeric;
    rows_found bigint;
    failed numeric;
    verdict text;
begin
    -- Of several instances the one that is furthest tells the time.
    select m.broker_timestamp, m.market_open, m.status into report
    from public.streaming_metrics as m
    where m.broker_timestamp is not null and m."timestamp" >= (
        select max(latest."timestamp") - interval '1 minute'
        from public.streaming_metrics as latest where latest.broker_timestamp is not null)
    order by m.broker_timestamp desc, m."timestamp" desc
    limit 1;
    select greatest(now() - min(m."timestamp"), interval '0') into standing
    from public.streaming_metrics as m
    where m.broker_timestamp = report.broker_timestamp;
    broker_now := coalesce(report.broker_timestamp + standing, now());

    if minutes_only then
        select max(c."timestamp") + interval '1 minute' into newest
        from public.candles as c
        where c.ticker = for_ticker and c.timeframe = '1m'
            and c."timestamp" >= broker_now - interval '7 days';
        if newest is null then
            select max(c."timestamp") + interval '1 minute' into newest
            from public.candles as c where c.ticker = for_ticker and c.timeframe = '1m';
        end if;

        select count(*) into rows_found
        from public.candles as c
        where c.ticker = for_ticker and c.timeframe = '1m'
            and c."timestamp" > broker_now - recently - interval '1 minute';
    else
        -- Almost always among the last days' partitions; the others are looked at only if not.
        select max(e."timestamp") into newest
        from public.equity_data as e
        where e.ticker = for_ticker and e."timestamp" >= broker_now - interval '7 days';
        if newest is null then
            select max(e."timestamp") into newest
            from public.equity_data as e where e.ticker = for_ticker;
        end if;

        select count(*) into rows_found
        from public.equity_data as e
        where e.ticker = for_ticker and e."timestamp" > broker_now - recently;
    end if;

    select round(sum(m.errors) / nullif(sum(m.errors + m.records_processed), 0), 6) into failed
    from public.streaming_metrics as m
    where m."timestamp" > now() - recently;

    if newest is not null then
        behind := extract(epoch from greatest(broker_now - newest, interval '0'));
    end if;
    verdict := case
        when newest is null then 'no_data'
        when failed > 0.05 then 'error'
        when standing > interval '1 minute' then 'stale'
        when not report.market_open then 'closed'
        when behind > fresh_seconds then 'stale'
        else 'healthy'
    end;
    return query select for_ticker, verdict, newest, round(behind, 3), rows_found,
        coalesce(failed, 0), report.market_open, report.status;
end
$$;
comment on function public.get_streaming_health(text) is
    'healthy, stale (nothing for a minute, or three where minutes only are kept), closed, '
    'error (over 5 % failed in 5 minutes) or no_data.';
