-- What the writer asks to count unexplained minutes, as functions, so that both of its ways in ask
-- the same. They answer with JSON, because a REST interface cuts rows off, and run with their owner's
-- rights, because the service key reads no table.
--
-- Planned for each call: how many minutes are asked for is known only then.

create function public.kite_first_gap() returns bigint
language sql stable security definer
set search_path = ''
as $$
    select (extract(epoch from min(g.started_at)) * 1000)::bigint
    from public.gaps as g where g.series = 'bars' and g.ticker <> '*'
$$;
comment on function public.kite_first_gap() is
    'When the first gap of bars of any ticker begins, which its first start lists: in milliseconds.';

create function public.kite_known_tickers() returns setof text
language sql stable
set search_path = ''
as $$
    -- Steps from ticker to ticker along the index instead of reading all gaps.
    with recursive every(ticker) as (
        select min(g.ticker) from public.gaps as g
        union all
        select (select min(g.ticker) from public.gaps as g where g.ticker > every.ticker)
        from every where every.ticker is not null
    )
    select every.ticker from every where every.ticker <> '*'
$$;
comment on function public.kite_known_tickers() is 'Tickers that have gaps: all that ever started.';

create function public.kite_open_minutes(tickers text[], minutes_ms bigint[]) returns jsonb
language plpgsql stable security definer
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
#variable_conflict use_column
declare
    since timestamptz;
    until timestamptz;
    answer jsonb;
begin
    select to_timestamp(min(ms) / 1000.0), to_timestamp(max(ms) / 1000.0) + interval '1 minute'
    into since, until from unnest(kite_open_minutes.minutes_ms) as ms;

    with asked as (
        select ticker, ms, to_timestamp(ms / 1000.0) as minute
        from unnest(kite_open_minutes.tickers, kite_open_minutes.minutes_ms) as _ (ticker, ms)
    ), near as materialized (
        select g.ticker, g.started_at, g.ended_at from public.gaps as g
        where g.series = 'bars' and g.started_at < until and g.ended_at > since
    )
    select coalesce(jsonb_agg(jsonb_build_array(asked.ticker, asked.ms)), '[]') into answer
    from asked
    where not exists (
        select from public.candles as c
        where c.ticker = asked.ticker and c.timeframe = '1m' and c."timestamp" = asked.minute
            and c."timestamp" >= since and c."timestamp" < until
    ) and not exists (
        select from near where near.ticker = asked.ticker
            and near.started_at <= asked.minute and near.ended_at > asked.minute
    ) and not exists (
        select from near where near.ticker = '*'
            and near.started_at <= asked.minute and near.ended_at > asked.minute
    ) and not exists (
        select from public.session_checks as s
        where s.ticker = asked.ticker and s.started_at <= asked.minute and s.ended_at > asked.minute
    );
    return answer;
end
$$;
comment on function public.kite_open_minutes(text[], bigint[]) is
    'Which of these minutes have no candle, no gap and no check of their session: [ticker, minute].';

create function public.kite_traded_minutes(since_ms bigint, until_ms bigint) returns jsonb
language plpgsql stable security definer
set search_path = ''
set timezone = 'UTC'
set plan_cache_mode = 'force_custom_plan'
as $$
#variable_conflict use_column
declare
    since timestamptz := to_timestamp(kite_traded_minutes.since_ms / 1000.0);
    until timestamptz := to_timestamp(kite_traded_minutes.until_ms / 1000.0);
    tickers text[];
    minutes_ms bigint[];
begin
    select array_agg(known.ticker), array_agg((extract(epoch from traded.minute) * 1000)::bigint)
    into tickers, minutes_ms
    from public.kite_known_tickers() as known (ticker), lateral (
        select distinct date_trunc('minute', e."timestamp") as minute
        from public.equity_data as e
        where e.ticker = known.ticker and e.volume > 0
            and e."timestamp" >= since and e."timestamp" < until
        offset 0
    ) as traded;
    return public.kite_open_minutes(tickers, minutes_ms);
end
$$;
comment on function public.kite_traded_minutes(bigint, bigint) is
    'Minutes with stored ticks that have volume, and nothing that explains them: [ticker, minute].';

create function public.kite_session_minutes(since_ms bigint, until_ms bigint, is_over boolean)
returns jsonb
language plpgsql stable security definer
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
#variable_conflict use_column
declare
    since timestamptz := to_timestamp(kite_session_minutes.since_ms / 1000.0);
    until timestamptz := to_timestamp(kite_session_minutes.until_ms / 1000.0);
    missing jsonb;
    tickers text[];
    minutes_ms bigint[];
begin
    select coalesce(jsonb_object_agg(checked.ticker, checked.bars - checked.candles), '{}')
    into missing
    from (
        select s.ticker, s.bars, (
            select count(*) from public.candles as c
            where c.ticker = s.ticker and c.timeframe = '1m'
                and c."timestamp" >= since and c."timestamp" < until
        ) as candles
        from public.session_checks as s where s.started_at = since
    ) as checked
    where checked.bars > checked.candles;
    if not kite_session_minutes.is_over then
        return missing;
    end if;

    -- Tickers that were there, by a gap or a candle, and whose session was never checked.
    select array_agg(known.ticker), array_agg((extract(epoch from m.minute) * 1000)::bigint)
    into tickers, minutes_ms
    from public.kite_known_tickers() as known (ticker),
        generate_series(since, until - interval '1 minute', interval '1 minute') as m (minute)
    where not exists (
        select from public.session_checks as s
        where s.started_at = since and s.ticker = known.ticker
    ) and since >= (
        select min(g.started_at) from public.gaps as g
        where g.ticker = known.ticker and g.series = 'bars'
    ) and (exists (
        select from public.gaps as g
        where g.ticker = known.ticker and g.series = 'bars'
            and g.started_at < until and g.ended_at > since
    ) or exists (
        select from public.candles as c
        where c.ticker = known.ticker and c.timeframe = '1m'
            and c."timestamp" >= since and c."timestamp" < until
    ));
    return missing || (
        select coalesce(jsonb_object_agg(forgotten.ticker, forgotten.minutes), '{}')
        from (
            select entry ->> 0 as ticker, count(*) as minutes
            from jsonb_array_elements(public.kite_open_minutes(tickers, minutes_ms)) as entry
            group by 1
        ) as forgotten);
end
$$;
comment on function public.kite_session_minutes(bigint, bigint, boolean) is
    'How many minutes of a session are unexplained, by ticker: fewer candles than bars, or unchecked.';

comment on column public.gaps.reason is
    'Why it is unfillable: no_trade, halted, closed, beyond_history, no_history, incomplete, tick_series.';

-- By default everybody may call what is made in public. Who shall is granted after every migration.
do $$
declare
    signature text;
begin
    foreach signature in array array[
        'kite_first_gap()', 'kite_known_tickers()', 'kite_open_minutes(text[], bigint[])',
        'kite_traded_minutes(bigint, bigint)', 'kite_session_minutes(bigint, bigint, boolean)'
    ] loop
        execute format(
            'revoke all on function public.%s from public, anon, authenticated, service_role',
            signature);
        if signature <> 'kite_known_tickers()' then
            execute format('grant execute on function public.%s to service_role', signature);
        end if;
    end loop;
end
$$;

notify pgrst, 'reload schema';
