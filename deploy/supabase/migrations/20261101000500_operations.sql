-- How far the writer is, whose store this is, and how well the stream runs.

create table public.stream_positions (
    stream text collate "C" not null,
    partition integer not null check (partition >= 0),
    seq bigint not null check (seq >= 0),
    frame_n bigint not null check (frame_n >= 0),
    stream_created_ms bigint not null,
    updated_at timestamptz not null default now(),
    primary key (stream, partition)
) with (fillfactor = 50);
comment on table public.stream_positions is
    'Last frame whose rows are stored, moved in the transaction that stores them.';
comment on column public.stream_positions.frame_n is
    'Number of that frame in its partition, counted without a hole; 0: do not check the next one.';
comment on column public.stream_positions.stream_created_ms is
    'Which incarnation of the stream seq counts in; a stream made anew starts over.';

create table public.kite_meta (
    key text collate "C" primary key,
    value text not null,
    updated_at timestamptz not null default now()
);
comment on table public.kite_meta is
    'What the store belongs to: source (demo, csv or schwab), partitions, settings_hash.';

create table public.streaming_metrics (
    service text collate "C" not null,
    instance text collate "C" not null,
    "timestamp" timestamptz not null,
    broker_timestamp timestamptz,
    market_open boolean,
    status text not null,
    batches integer not null check (batches >= 0),
    records_processed bigint not null check (records_processed >= 0),
    errors bigint not null check (errors >= 0),
    processing_ms double precision not null check (processing_ms >= 0),
    primary key (service, instance, "timestamp")
);
create index streaming_metrics_timestamp on public.streaming_metrics ("timestamp");
comment on table public.streaming_metrics is
    'What a service did since its row before; timestamp is the wall clock, broker_timestamp the broker''s.';

create index streaming_metrics_broker_timestamp on public.streaming_metrics (broker_timestamp);

-- A demo or a replay runs on the broker's time, which may be another year. So what counts is how far
-- the last tick is behind the broker's clock: where that stood last, plus how long it has stood
-- there. A clock that stands is a fault in itself; the broker's ticks on when the market is closed.
create function public.get_streaming_health(for_ticker text) returns table (
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

    -- Almost always among the last days' partitions; the others are looked at only if not.
    select max(e."timestamp") into newest
    from public.equity_data as e
    where e.ticker = for_ticker and e."timestamp" >= broker_now - interval '7 days';
    if newest is null then
        select max(e."timestamp") into newest from public.equity_data as e where e.ticker = for_ticker;
    end if;

    select count(*) into rows_found
    from public.equity_data as e
    where e.ticker = for_ticker and e."timestamp" > broker_now - recently;

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
        when behind > 60 then 'stale'
        else 'healthy'
    end;
    return query select for_ticker, verdict, newest, round(behind, 3), rows_found,
        coalesce(failed, 0), report.market_open, report.status;
end
$$;
comment on function public.get_streaming_health(text) is
    'healthy, stale (nothing for a minute), closed, error (over 5 % failed in 5 minutes) or no_data.';

do $$
declare
    name text;
begin
    foreach name in array array['stream_positions', 'kite_meta', 'streaming_metrics'] loop
        execute format('alter table public.%I enable row level security', name);
        execute format(
            'revoke all on public.%I from public, anon, authenticated, service_role', name);
    end loop;
end
$$;
revoke all on function public.get_streaming_health(text)
    from public, anon, authenticated, service_role;
