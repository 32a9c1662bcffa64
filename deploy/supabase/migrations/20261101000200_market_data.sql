-- What the market did and what was computed from it: readable by everybody, written by the owner.
--
-- Prices keep four decimals and averages six, as the services compute them. Keys are natural; tickers
-- and time frames compare byte by byte, which is fast and the same on every system. Row-level security
-- is on everywhere and forced nowhere: COPY refuses to write to a table whose policies bind the writer.

create table public.equity_data (
    ticker text collate "C" not null,
    "timestamp" timestamptz not null,
    price numeric(12, 4) not null check (price > 0 and price <> 'NaN'),
    volume bigint not null check (volume >= 0),
    total_volume bigint not null check (total_volume >= 0),
    bid numeric(12, 4),
    ask numeric(12, 4),
    primary key (ticker, "timestamp")
) partition by range ("timestamp");
comment on table public.equity_data is
    'Ticks: one row for every change of last price, day volume or trade time. Partitioned by New York day.';
comment on column public.equity_data.volume is
    'Growth of the day''s volume since the tick before.';

create table public.indicators (
    ticker text collate "C" not null,
    "timestamp" timestamptz not null,
    sma9 numeric(18, 6),
    vwap numeric(18, 6),
    primary key (ticker, "timestamp")
) partition by range ("timestamp");
comment on table public.indicators is
    'SMA9 and session VWAP at every tick; null until defined. Partitioned by New York day.';

create table public.candles (
    ticker text collate "C" not null,
    timeframe text collate "C" not null,
    "timestamp" timestamptz not null,
    open numeric(12, 4) not null,
    high numeric(12, 4) not null,
    low numeric(12, 4) not null,
    close numeric(12, 4) not null,
    volume bigint not null check (volume >= 0),
    sma9 numeric(18, 6),
    vwap numeric(18, 6),
    extras jsonb not null default '{}',
    source text not null check (source in ('stream', 'history')),
    revision integer not null default 0 check (revision >= 0),
    primary key (ticker, timeframe, "timestamp"),
    check (low > 0 and high <> 'NaN' and low <= least(open, close) and high >= greatest(open, close))
) partition by range ("timestamp");
comment on table public.candles is
    'Closed candles with their indicators, latest revision. timestamp is the start. Partitioned by month.';
comment on column public.candles.revision is
    'How often the values changed since the candle was first stored; earlier ones: candle_revisions.';

create table public.candle_revisions (
    ticker text collate "C" not null,
    timeframe text collate "C" not null,
    "timestamp" timestamptz not null,
    open numeric(12, 4) not null,
    high numeric(12, 4) not null,
    low numeric(12, 4) not null,
    close numeric(12, 4) not null,
    volume bigint not null,
    sma9 numeric(18, 6),
    vwap numeric(18, 6),
    extras jsonb not null default '{}',
    source text not null,
    revision integer not null,
    superseded_at timestamptz not null default now(),
    primary key (ticker, timeframe, "timestamp", revision)
);
comment on table public.candle_revisions is 'What candles held before a correction.';

create table public.signals (
    id text collate "C" primary key,
    revision integer not null check (revision >= 0),
    state text not null check (state in ('active', 'superseded')),
    late boolean not null,
    ticker text collate "C" not null,
    timeframe text collate "C" not null,
    "timestamp" timestamptz not null,
    kind text not null,
    direction text not null check (direction in ('up', 'down')),
    price numeric(12, 4) not null,
    sma9 numeric(18, 6) not null,
    vwap numeric(18, 6) not null
);
create index signals_ticker_timestamp on public.signals (ticker, "timestamp");
comment on table public.signals is 'Crosses of SMA9 and VWAP; id is TICKER:TIMEFRAME:EPOCH_MS.';
comment on column public.signals.late is 'Came out of a correction, after the fact; never traded.';

create table public.gaps (
    id text collate "C" primary key,
    ticker text collate "C" not null,
    series text not null check (series in ('bars', 'ticks')),
    started_at timestamptz not null,
    ended_at timestamptz not null,
    cause text not null,
    state text not null check (state in ('open', 'filled', 'unfillable')),
    check (started_at <= ended_at)
);
create index gaps_ticker_started_at on public.gaps (ticker, started_at);
comment on table public.gaps is
    'What is or was missing, from started_at up to but without ended_at; id is TICKER:SERIES:EPOCH_MS.';

create table public.option_prices (
    symbol text collate "C" not null,
    "timestamp" timestamptz not null,
    underlying text collate "C" not null,
    expiry date not null,
    strike numeric(12, 4) not null check (strike > 0),
    "right" text not null check ("right" in ('C', 'P')),
    bid numeric(12, 4),
    ask numeric(12, 4),
    last numeric(12, 4),
    bid_size bigint,
    ask_size bigint,
    volume bigint,
    open_interest bigint,
    implied_volatility numeric(18, 6),
    delta numeric(18, 6),
    gamma numeric(18, 6),
    theta numeric(18, 6),
    vega numeric(18, 6),
    rho numeric(18, 6),
    primary key (symbol, "timestamp")
) partition by range ("timestamp");
create index option_prices_underlying on public.option_prices (underlying, expiry, "timestamp");
comment on table public.option_prices is
    'Option quotes by OSI symbol; implied volatility in percent. Partitioned by month.';

-- Supabase grants everything in public to the web roles by default: take it back, then give.
do $$
declare
    name text;
begin
    foreach name in array array[
        'equity_data', 'indicators', 'candles', 'candle_revisions', 'signals', 'gaps', 'option_prices'
    ] loop
        execute format('alter table public.%I enable row level security', name);
        execute format(
            'revoke all on public.%I from public, anon, authenticated, service_role', name);
        execute format('grant select on public.%I to anon, authenticated', name);
        execute format(
            'create policy "Public read access" on public.%I '
            'for select to anon, authenticated using (true)', name);
    end loop;
end
$$;
