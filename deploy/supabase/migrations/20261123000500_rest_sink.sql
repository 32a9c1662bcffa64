-- The writer's second way in: functions for Supabase's REST interface, each one transaction.
--
-- The writer reaches them with the service key, so as `service_role`, which may call them and is
-- granted no table at all. They run with their owner's rights, because rows need partitions and only
-- the owner of a table makes those; each does one thing, names everything it touches by its schema,
-- and trusts no search_path. What a request may hold is bounded.
--
-- SQLSTATE PT409 and PT413 become HTTP 409 (another writer was faster) and 413 (too large).

-- Callable with the service key now: with its owner's rights, every name in full.
create or replace function public.kite_ensure_partition(parent text, day date) returns boolean
language plpgsql security definer
set search_path = ''
set datestyle = 'ISO'
set timezone = 'UTC'
as $$
declare
    unit text := case
        when parent in ('equity_data', 'indicators') then 'day'
        when parent in ('candles', 'option_prices') then 'month'
    end;
    first_day timestamp := pg_catalog.date_trunc(unit, day::timestamp);
    name text := parent || to_char(first_day, case unit when 'day' then '_YYYYMMDD' else '_YYYYMM' end);
    attached boolean;
begin
    if unit is null then
        raise exception '% is not a partitioned table of this schema', parent
            using errcode = 'invalid_parameter_value';
    end if;

    -- Two writers that reach midnight together: the second waits, then finds the work done. Nobody looks
    -- before that: a commit can be seen a moment before other sessions are told of the new partition,
    -- and only its locks are held until then.
    perform pg_advisory_xact_lock(hashtextextended('kite_parts.' || name, 0));
    select relispartition into attached
    from pg_catalog.pg_class where oid = to_regclass(format('kite_parts.%I', name));
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

-- Rows come as one array per column: {"ticker": ["QQQ", ...], "timestamp": [...], ...}. Candles come
-- as an array of such objects, in which no key appears twice.
create function public.kite_commit(
    stream text,
    partition integer,
    stream_created_ms bigint,
    before_seq bigint,
    seq bigint,
    frame_n bigint,
    equity_data json default null,
    indicators json default null,
    candles json default null,
    gaps json default null,
    signals json default null,
    session_checks json default null
) returns jsonb
language plpgsql security definer
set search_path = ''
set datestyle = 'ISO'
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
#variable_conflict use_column
declare
    bytes_max constant bigint := 16777216;
    bytes bigint;
    moved bigint := 0;
    wave json;
begin
    bytes := coalesce(octet_length(kite_commit.equity_data::text), 0)
        + coalesce(octet_length(kite_commit.indicators::text), 0)
        + coalesce(octet_length(kite_commit.candles::text), 0)
        + coalesce(octet_length(kite_commit.gaps::text), 0)
        + coalesce(octet_length(kite_commit.signals::text), 0)
        + coalesce(octet_length(kite_commit.session_checks::text), 0);
    if bytes > bytes_max then
        raise sqlstate 'PT413' using
            message = format('%s bytes of rows in one request, at most %s are taken', bytes, bytes_max),
            hint = 'Lower KITE_WRITER_ROWS_MAX or KITE_WRITER_INPUT_BYTES_MAX.';
    end if;
    if not coalesce(kite_commit.seq > kite_commit.before_seq and kite_commit.before_seq >= 0, false) then
        raise exception 'a position moves forward: from % to % it does not',
            kite_commit.before_seq, kite_commit.seq using errcode = 'invalid_parameter_value';
    end if;

    -- The position first: its row lock makes a second writer wait, then find the position moved.
    if kite_commit.before_seq = 0 then
        insert into public.stream_positions (stream, partition, seq, frame_n, stream_created_ms)
        values (kite_commit.stream, kite_commit.partition, kite_commit.seq, kite_commit.frame_n,
            kite_commit.stream_created_ms)
        on conflict do nothing;
        get diagnostics moved = row_count;
    end if;
    if moved = 0 then
        update public.stream_positions as p
        set seq = kite_commit.seq, frame_n = kite_commit.frame_n, updated_at = now()
        where p.stream = kite_commit.stream and p.partition = kite_commit.partition
            and p.stream_created_ms = kite_commit.stream_created_ms
            and p.seq = kite_commit.before_seq;
        get diagnostics moved = row_count;
    end if;
    if moved = 0 then
        raise sqlstate 'PT409' using message = format(
            '%s partition %s is no longer at message %s: another writer moved it',
            kite_commit.stream, kite_commit.partition, kite_commit.before_seq);
    end if;

    if kite_commit.equity_data is not null then
        insert into public.equity_data (ticker, "timestamp", price, volume, total_volume, bid, ask)
        select r.*
        from json_to_record(kite_commit.equity_data) as c(
                ticker text[], "timestamp" timestamptz[], price numeric[], volume bigint[],
                total_volume bigint[], bid numeric[], ask numeric[]),
            unnest(c.ticker, c."timestamp", c.price, c.volume, c.total_volume, c.bid, c.ask) as r;
    end if;

    if kite_commit.indicators is not null then
        insert into public.indicators (ticker, "timestamp", sma9, vwap)
        select r.*
        from json_to_record(kite_commit.indicators) as c(
                ticker text[], "timestamp" timestamptz[], sma9 numeric[], vwap numeric[]),
            unnest(c.ticker, c."timestamp", c.sma9, c.vwap) as r;
    end if;

    -- A candle equal to the stored one changes nothing; what a different one replaces is kept. The
    -- look-up stands in a subquery with OFFSET 0: always one probe of the key per candle.
    for wave in select value from json_array_elements(kite_commit.candles) loop
        with incoming as materialized (
            select r.ticker, r.timeframe, r."timestamp", r.open::numeric(12, 4) as open,
                r.high::numeric(12, 4) as high, r.low::numeric(12, 4) as low,
                r.close::numeric(12, 4) as close, r.volume, r.sma9::numeric(18, 6) as sma9,
                r.vwap::numeric(18, 6) as vwap, r.extras::jsonb as extras, r.source
            from json_to_record(wave) as c(
                    ticker text[], timeframe text[], "timestamp" timestamptz[], open numeric[],
                    high numeric[], low numeric[], close numeric[], volume bigint[], sma9 numeric[],
                    vwap numeric[], extras text[], source text[]),
                unnest(c.ticker, c.timeframe, c."timestamp", c.open, c.high, c.low, c.close,
                    c.volume, c.sma9, c.vwap, c.extras, c.source) as r(
                    ticker, timeframe, "timestamp", open, high, low, close, volume, sma9, vwap,
                    extras, source)
        ), kept as (
            insert into public.candle_revisions (ticker, timeframe, "timestamp", open, high, low,
                close, volume, sma9, vwap, extras, source, revision)
            select stored.ticker, stored.timeframe, stored."timestamp", stored.open, stored.high,
                stored.low, stored.close, stored.volume, stored.sma9, stored.vwap, stored.extras,
                stored.source, stored.revision
            from incoming as i, lateral (
                select * from public.candles as c
                where c.ticker = i.ticker and c.timeframe = i.timeframe
                    and c."timestamp" = i."timestamp"
                offset 0
            ) as stored
            where (stored.open, stored.high, stored.low, stored.close, stored.volume, stored.sma9,
                    stored.vwap, stored.extras)
                is distinct from (i.open, i.high, i.low, i.close, i.volume, i.sma9, i.vwap, i.extras)
        )
        insert into public.candles as c (ticker, timeframe, "timestamp", open, high, low, close,
            volume, sma9, vwap, extras, source)
        select * from incoming
        on conflict (ticker, timeframe, "timestamp") do update set
            open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
            volume = excluded.volume, sma9 = excluded.sma9, vwap = excluded.vwap,
            extras = excluded.extras, source = excluded.source, revision = c.revision + 1
        where (c.open, c.high, c.low, c.close, c.volume, c.sma9, c.vwap, c.extras)
            is distinct from (excluded.open, excluded.high, excluded.low, excluded.close,
                excluded.volume, excluded.sma9, excluded.vwap, excluded.extras);
    end loop;

    if kite_commit.gaps is not null then
        insert into public.gaps (id, ticker, series, started_at, ended_at, cause, state, reason)
        select r.*
        from json_to_record(kite_commit.gaps) as c(
                id text[], ticker text[], series text[], started_at timestamptz[],
                ended_at timestamptz[], cause text[], state text[], reason text[]),
            unnest(c.id, c.ticker, c.series, c.started_at, c.ended_at, c.cause, c.state,
                c.reason) as r
        on conflict (id) do update set
            ticker = excluded.ticker, series = excluded.series, started_at = excluded.started_at,
            ended_at = excluded.ended_at, cause = excluded.cause, state = excluded.state,
            reason = excluded.reason;
    end if;

    if kite_commit.session_checks is not null then
        insert into public.session_checks (ticker, started_at, ended_at, bars)
        select r.*
        from json_to_record(kite_commit.session_checks) as c(
                ticker text[], started_at timestamptz[], ended_at timestamptz[], bars integer[]),
            unnest(c.ticker, c.started_at, c.ended_at, c.bars) as r
        on conflict (started_at, ticker) do update set
            ended_at = excluded.ended_at, bars = excluded.bars, checked_at = now();
    end if;

    if kite_commit.signals is not null then
        insert into public.signals as s (id, revision, state, late, ticker, timeframe, "timestamp", kind,
            direction, price, sma9, vwap)
        select r.*
        from json_to_record(kite_commit.signals) as c(
                id text[], revision integer[], state text[], late boolean[], ticker text[],
                timeframe text[], "timestamp" timestamptz[], kind text[], direction text[],
                price numeric[], sma9 numeric[], vwap numeric[]),
            unnest(c.id, c.revision, c.state, c.late, c.ticker, c.timeframe, c."timestamp", c.kind,
                c.direction, c.price, c.sma9, c.vwap) as r
        on conflict (id) do update set
            revision = excluded.revision, state = excluded.state, late = excluded.late,
            ticker = excluded.ticker, timeframe = excluded.timeframe,
            "timestamp" = excluded."timestamp", kind = excluded.kind, direction = excluded.direction,
            price = excluded.price, sma9 = excluded.sma9, vwap = excluded.vwap
        where excluded.revision > s.revision;
    end if;

    return jsonb_build_object('seq', kite_commit.seq);
end
$$;
comment on function public.kite_commit(
    text, integer, bigint, bigint, bigint, bigint, json, json, json, json, json, json) is
    'Moves a position and stores the rows that it stands for, or does neither.';

create function public.kite_claim(meta jsonb) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
#variable_conflict use_column
begin
    insert into public.kite_meta (key, value)
    select wanted.key, wanted.value
    from jsonb_each_text(kite_claim.meta) as wanted
    where not exists (
        select from jsonb_each_text(kite_claim.meta) as other
        join public.kite_meta as stored on stored.key = other.key and stored.value <> other.value)
    on conflict do nothing;
    return (
        select coalesce(jsonb_object_agg(stored.key, stored.value), '{}')
        from public.kite_meta as stored
        where kite_claim.meta ? stored.key);
end
$$;
comment on function public.kite_claim(jsonb) is
    'Makes the store belong to whoever comes first, and says to whom it belongs.';

create function public.kite_positions() returns jsonb
language sql stable security definer
set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_array(
        p.stream, p.partition, p.stream_created_ms, p.seq, p.frame_n)), '[]')
    from public.stream_positions as p
$$;
comment on function public.kite_positions() is
    'Every position: stream, partition, incarnation, sequence, frame number.';

create function public.kite_report(report jsonb) returns jsonb
language sql security definer
set search_path = ''
as $$
    insert into public.streaming_metrics (service, instance, "timestamp", broker_timestamp,
        market_open, status, batches, records_processed, errors, processing_ms)
    select 'writer', r.instance, to_timestamp(r.now_ms / 1000.0), to_timestamp(r.broker_ms / 1000.0),
        r.market_open, r.status, r.batches, r.records, r.errors, r.processing_ms
    from jsonb_to_record(report) as r(instance text, now_ms bigint, broker_ms bigint,
        market_open boolean, status text, batches integer, records bigint, errors bigint,
        processing_ms double precision)
    on conflict do nothing;
    select to_jsonb(true)
$$;
comment on function public.kite_report(jsonb) is 'Keeps what one instance of the writer did.';

create function public.kite_prune_reports(before_ms bigint) returns jsonb
language sql security definer
set search_path = ''
as $$
    delete from public.streaming_metrics where ctid = any (array(
        select m.ctid from public.streaming_metrics as m
        where m."timestamp" < to_timestamp(before_ms / 1000.0)
        order by m."timestamp" limit 100000 for update skip locked));
    select to_jsonb(true)
$$;
comment on function public.kite_prune_reports(bigint) is 'Drops old reports, a bite at a time.';

create function public.kite_database_bytes() returns bigint
language sql stable security definer
set search_path = ''
as $$ select pg_database_size(current_database()) $$;
comment on function public.kite_database_bytes() is 'How big the whole database is.';

-- Notes what is stored from now on; when ticks are kept again, up to where there are none.
create function public.kite_keep(what text) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
begin
    if kite_keep.what not in ('ticks', 'minutes') then
        raise exception '% is not kept: ticks or minutes are', kite_keep.what
            using errcode = 'invalid_parameter_value';
    end if;
    if kite_keep.what = 'ticks' and exists (
            select from public.kite_meta as k where k.key = 'store' and k.value = 'minutes') then
        insert into public.kite_meta (key, value)
        select 'ticks_since', coalesce(json_agg(json_build_array(
            p.stream, p.partition, p.stream_created_ms, p.seq, p.frame_n)), '[]')::text
        from public.stream_positions as p
        on conflict (key) do update set value = excluded.value, updated_at = now();
    end if;
    insert into public.kite_meta as kept (key, value) values ('store', kite_keep.what)
    on conflict (key) do update set value = excluded.value, updated_at = now()
    where kept.value <> excluded.value;
    return to_jsonb(true);
end
$$;
comment on function public.kite_keep(text) is 'Notes whether ticks are stored, or minutes only.';

create function public.kite_ticks_since() returns jsonb
language sql stable security definer
set search_path = ''
as $$
    select coalesce((select k.value::jsonb from public.kite_meta as k where k.key = 'ticks_since'), '[]')
$$;
comment on function public.kite_ticks_since() is
    'Up to which positions frames left no ticks, because minutes only were kept.';

create function public.kite_usage(tables text[]) returns jsonb
language sql stable security definer
set search_path = ''
as $$
    select jsonb_build_object(
        'table_bytes', (
            select coalesce(jsonb_object_agg(name, coalesce((
                select sum(pg_total_relation_size(part.oid)) from (
                    select to_regclass(format('public.%I', name))::oid as oid
                    union all
                    select i.inhrelid from pg_catalog.pg_inherits as i
                    where i.inhparent = to_regclass(format('public.%I', name))) as part), 0)), '{}')
            from unnest(tables) as name),
        'connections', (
            select sum(d.numbackends) from pg_catalog.pg_stat_database as d
            where d.datname is not null),
        'connections_max', current_setting('max_connections')::integer
            - current_setting('superuser_reserved_connections')::integer)
$$;
comment on function public.kite_usage(text[]) is
    'Bytes of tables with their partitions and indexes, and connections of anybody.';

-- Counts rows and adds up their fingerprints, per ticker and minute, and reads the position at the
-- same moment: stable, so all of it sees one snapshot. The text of a row is that of the reconciler.
create function public.kite_tally(
    stream text,
    partition integer,
    tickers text[],
    since_ms bigint[],
    until_ms bigint[],
    strangers_from_ms bigint default null,
    strangers_max integer default 100
) returns jsonb
language plpgsql stable security definer
set search_path = ''
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
    source text := case kite_tally.stream
        when 'MARKET' then 'equity_data' when 'INDICATORS' then 'indicators' end;
    row_text text := case kite_tally.stream
        when 'MARKET' then 'concat_ws(''|'', (extract(epoch from e."timestamp") * 1000000)::bigint, '
            'e.price, e.volume, e.total_volume, coalesce(e.bid::text, ''-''), '
            'coalesce(e.ask::text, ''-''), e.ticker)'
        else 'concat_ws(''|'', (extract(epoch from e."timestamp") * 1000000)::bigint, '
            'coalesce(e.sma9::text, ''-''), coalesce(e.vwap::text, ''-''), e.ticker)' end;
    tally text;
    strange text[] := '{}';
    found_position jsonb;
    found_groups jsonb;
    found_strangers jsonb := '[]';
begin
    if source is null then
        raise exception 'no table holds the rows of % one for one', kite_tally.stream
            using errcode = 'invalid_parameter_value';
    end if;
    tally := format(
        'select coalesce(jsonb_agg(jsonb_build_array(ticker, minute_ms, rows, digest)), ''[]'') from ('
        '    select i.ticker, '
        '        (extract(epoch from date_trunc(''minute'', e."timestamp")) * 1000)::bigint '
        '            as minute_ms, '
        '        count(*) as rows, '
        '        sum((''x'' || left(md5(%s), 15))::bit(60)::bigint)::text as digest '
        '    from unnest($1, $2, $3) as i (ticker, since_ms, until_ms), lateral ('
        '        select * from public.%I as s'
        '        where s.ticker = i.ticker and s."timestamp" >= to_timestamp(i.since_ms / 1000.0)'
        '            and s."timestamp" < coalesce('
        '                to_timestamp(i.until_ms / 1000.0), ''9999-12-31''::timestamptz)'
        '        offset 0'
        '    ) as e'
        '    group by 1, 2) as tallied', row_text, source);
    execute tally into found_groups
        using kite_tally.tickers, kite_tally.since_ms, kite_tally.until_ms;

    select jsonb_build_array(p.stream_created_ms, p.seq, p.frame_n) into found_position
    from public.stream_positions as p
    where p.stream = kite_tally.stream and p.partition = kite_tally.partition;

    if kite_tally.strangers_from_ms is not null then
        -- Steps from ticker to ticker along the key instead of reading all rows.
        execute format(
            'with recursive found as ('
            '    (select ticker from public.%1$I where "timestamp" >= $1 order by ticker limit 1)'
            '    union all'
            '    select (select s.ticker from public.%1$I as s'
            '        where s.ticker > found.ticker and s."timestamp" >= $1'
            '        order by s.ticker limit 1)'
            '    from found where found.ticker is not null'
            ') select coalesce(array_agg(ticker), ''{}'') from ('
            '    select ticker from found'
            '    where ticker is not null and ticker <> all ($2) limit $3) as strangers', source)
        into strange
        using to_timestamp(kite_tally.strangers_from_ms / 1000.0), kite_tally.tickers,
            least(kite_tally.strangers_max, 1000);
        execute tally into found_strangers using strange,
            array_fill(kite_tally.strangers_from_ms, array[cardinality(strange)]),
            array_fill(null::bigint, array[cardinality(strange)]);
    end if;
    return jsonb_build_object(
        'position', found_position, 'groups', found_groups, 'strangers', found_strangers);
end
$$;
comment on function public.kite_tally(
    text, integer, text[], bigint[], bigint[], bigint, integer) is
    'What the reconciler compares: position, rows per ticker and minute, and tickers not asked for.';

create function public.kite_first_day(parent text) returns date
language sql stable security definer
set search_path = ''
as $$
    select min(to_date(right(c.relname, 8), 'YYYYMMDD'))
    from pg_catalog.pg_inherits as i
    join pg_catalog.pg_class as c on c.oid = i.inhrelid
    where i.inhparent = to_regclass(format('public.%I', parent)) and c.relname ~ '_\d{8}$'
$$;
comment on function public.kite_first_day(text) is
    'The oldest New York day that a table has a partition for.';

-- By default everybody may call what is made in public. Who shall is granted after every migration.
do $$
declare
    signature text;
begin
    foreach signature in array array[
        'kite_commit(text, integer, bigint, bigint, bigint, bigint, json, json, json, json, json, json)',
        'kite_claim(jsonb)', 'kite_positions()', 'kite_report(jsonb)', 'kite_prune_reports(bigint)',
        'kite_database_bytes()', 'kite_keep(text)', 'kite_ticks_since()', 'kite_usage(text[])',
        'kite_tally(text, integer, text[], bigint[], bigint[], bigint, integer)',
        'kite_first_day(text)', 'kite_ensure_partition(text, date)'
    ] loop
        execute format(
            'revoke all on function public.%s from public, anon, authenticated, service_role',
            signature);
        execute format('grant execute on function public.%s to service_role', signature);
    end loop;
end
$$;

-- PostgREST learns of new functions by this; elsewhere nobody listens.
notify pgrst, 'reload schema';
