"""The gateway's SQL. Every time bound is a parameter, so that only its partitions are touched.

`date_part` gives a float, which holds milliseconds exactly until long after the calendar's end and
is several times faster than `extract`, which gives a numeric.
"""

from __future__ import annotations

__all__ = [
    "BROKER_TIME",
    "CANDLES",
    "CLOSES",
    "DAYS",
    "GAPS",
    "LAST_PRICES",
    "POSITION",
    "POSITIONS",
    "POSITIONS_OF",
    "SERVICES",
    "SIGNALS",
    "TICKERS",
    "TICKS",
    "TICK_PARTITIONS",
    "VERSION",
]

POSITION = """
    SELECT stream_created_ms AS epoch_ms, seq FROM public.stream_positions
    WHERE stream = $1 AND partition = $2"""
# What changes when something stored before is corrected or filled, or the store is another one.
VERSION = """
    SELECT (SELECT coalesce(max(stream_created_ms), 0) FROM public.stream_positions) AS epoch_ms,
        (SELECT count(*) FROM public.candle_revisions) AS revisions,
        (SELECT count(*) FROM public.gaps WHERE state <> 'open') AS gaps"""
POSITIONS_OF = """
    SELECT partition, stream_created_ms AS epoch_ms, seq FROM public.stream_positions
    WHERE stream = $1"""
POSITIONS = """
    SELECT stream, partition, stream_created_ms AS epoch_ms, seq FROM public.stream_positions
    ORDER BY stream, partition"""

# Ticks are those that have averages: live messages carry the others when these come.
TICKS = """
    SELECT array_agg(ts_ms), array_agg(price), array_agg(volume), array_agg(sma9), array_agg(vwap)
    FROM (
        SELECT (date_part('epoch', i."timestamp") * 1000)::bigint AS ts_ms,
            e.price::float8 AS price, e.volume, i.sma9::float8 AS sma9, i.vwap::float8 AS vwap
        FROM public.indicators AS i
        LEFT JOIN public.equity_data AS e ON e.ticker = i.ticker AND e."timestamp" = i."timestamp"
            AND e.ticker = $1 AND e."timestamp" >= $2 AND e."timestamp" < $3
        WHERE i.ticker = $1 AND i."timestamp" >= $2 AND i."timestamp" < $3
        ORDER BY i."timestamp" LIMIT $4
    ) AS ticks"""

CANDLES = """
    SELECT array_agg(ts_ms), array_agg(open), array_agg(high), array_agg(low), array_agg(close),
        array_agg(volume), array_agg(sma9), array_agg(vwap), array_agg(extras), array_agg(revision)
    FROM (
        SELECT (date_part('epoch', "timestamp") * 1000)::bigint AS ts_ms, open::float8 AS open,
            high::float8 AS high, low::float8 AS low, close::float8 AS close, volume,
            sma9::float8 AS sma9, vwap::float8 AS vwap, extras::text AS extras, revision
        FROM public.candles
        WHERE ticker = $1 AND timeframe = $2 AND "timestamp" >= $3 AND "timestamp" < $4
        ORDER BY "timestamp" LIMIT $5
    ) AS candles"""

# Without a ticker: every ticker in turn by the index, instead of the whole table.
SIGNALS = """
    WITH RECURSIVE every(ticker) AS (
        SELECT min(ticker) FROM public.signals WHERE $1::text[] IS NULL
        UNION ALL
        SELECT (SELECT min(s.ticker) FROM public.signals AS s WHERE s.ticker > every.ticker)
        FROM every WHERE every.ticker IS NOT NULL
    ), wanted AS (
        SELECT unnest($1::text[]) AS ticker
        UNION ALL SELECT ticker FROM every WHERE ticker IS NOT NULL
    )
    SELECT s.id, s.revision, s.state, s.late, s.ticker, s.timeframe,
        (date_part('epoch', s."timestamp") * 1000)::bigint AS ts_ms, s.kind, s.direction,
        s.price::float8 AS price, s.sma9::float8 AS sma9, s.vwap::float8 AS vwap
    FROM wanted JOIN LATERAL (
        SELECT * FROM public.signals AS one
        WHERE one.ticker = wanted.ticker AND one."timestamp" >= $2 AND one."timestamp" < $3
    ) AS s ON $4::text IS NULL OR s.timeframe = $4
    ORDER BY s."timestamp", s.id LIMIT $5"""

# A gap that began in the week before may still reach into the day.
GAPS = """
    WITH RECURSIVE every(ticker) AS (
        SELECT min(ticker) FROM public.gaps WHERE $1::text[] IS NULL
        UNION ALL
        SELECT (SELECT min(g.ticker) FROM public.gaps AS g WHERE g.ticker > every.ticker)
        FROM every WHERE every.ticker IS NOT NULL
    ), wanted AS (
        SELECT unnest($1::text[]) AS ticker
        UNION ALL SELECT ticker FROM every WHERE ticker IS NOT NULL
    )
    SELECT g.id, g.ticker, g.series,
        (date_part('epoch', g.started_at) * 1000)::bigint AS from_ms,
        (date_part('epoch', g.ended_at) * 1000)::bigint AS to_ms, g.cause, g.state, g.reason
    FROM wanted JOIN LATERAL (
        SELECT * FROM public.gaps AS one
        WHERE one.ticker = wanted.ticker AND one.started_at >= $2::timestamptz - interval '7 days'
            AND one.started_at < $3 AND one.ended_at > $2
    ) AS g ON true
    ORDER BY g.started_at, g.id LIMIT $4"""

# Each step looks for the next name behind the last one: a few reads of an index for each ticker.
TICKERS = """
    WITH RECURSIVE with_candles(ticker) AS (
        (SELECT ticker FROM public.candles
         WHERE "timestamp" >= $1 AND "timestamp" < $2 ORDER BY ticker LIMIT 1)
        UNION ALL
        SELECT (SELECT c.ticker FROM public.candles AS c
                WHERE c.ticker > n.ticker AND c."timestamp" >= $1 AND c."timestamp" < $2
                ORDER BY c.ticker LIMIT 1)
        FROM with_candles AS n WHERE n.ticker IS NOT NULL
    ), with_ticks(ticker) AS (
        (SELECT ticker FROM public.equity_data
         WHERE "timestamp" >= $3 AND "timestamp" < $2 ORDER BY ticker LIMIT 1)
        UNION ALL
        SELECT (SELECT e.ticker FROM public.equity_data AS e
                WHERE e.ticker > n.ticker AND e."timestamp" >= $3 AND e."timestamp" < $2
                ORDER BY e.ticker LIMIT 1)
        FROM with_ticks AS n WHERE n.ticker IS NOT NULL
    )
    SELECT ticker FROM with_candles WHERE ticker IS NOT NULL
    UNION SELECT ticker FROM with_ticks WHERE ticker IS NOT NULL
    LIMIT $4"""

# A minute's close is the price at its end.
LAST_PRICES = """
    SELECT wanted.ticker, newest.ts_ms, newest.price
    FROM unnest($1::text[]) AS wanted(ticker) JOIN LATERAL (
        (SELECT (date_part('epoch', e."timestamp") * 1000)::bigint AS ts_ms,
            e.price::float8 AS price
         FROM public.equity_data AS e
         WHERE e.ticker = wanted.ticker AND e."timestamp" >= $2 AND e."timestamp" < $4
         ORDER BY e."timestamp" DESC LIMIT 1)
        UNION ALL
        (SELECT (date_part('epoch', c."timestamp") * 1000)::bigint + 59999, c.close::float8
         FROM public.candles AS c
         WHERE c.ticker = wanted.ticker AND c.timeframe = '1m'
            AND c."timestamp" >= $3 AND c."timestamp" < $4
         ORDER BY c."timestamp" DESC LIMIT 1)
        ORDER BY ts_ms DESC LIMIT 1
    ) AS newest ON true"""

CLOSES = """
    SELECT wanted.ticker, (
            SELECT c.close::float8 FROM public.candles AS c
            WHERE c.ticker = wanted.ticker AND c.timeframe = '1m'
                AND c."timestamp" >= $2 AND c."timestamp" < $3
            ORDER BY c."timestamp" DESC LIMIT 1
        ) AS previous, (
            SELECT array_agg(c.close::float8 ORDER BY c."timestamp") FROM public.candles AS c
            WHERE c.ticker = wanted.ticker AND c.timeframe = '15m'
                AND c."timestamp" >= $4 AND c."timestamp" < $5
        ) AS closes
    FROM unnest($1::text[]) AS wanted(ticker)"""

TICK_PARTITIONS = r"""
    SELECT right(relname, 8) FROM pg_catalog.pg_class
    WHERE relnamespace = 'kite_parts'::regnamespace AND relispartition
        AND relname ~ '^equity_data_\d{8}$'"""

DAYS = """
    SELECT day FROM unnest($1::date[], $2::timestamptz[], $3::timestamptz[]) AS d(day, begins, ends)
    WHERE EXISTS (
        SELECT FROM unnest($4::text[]) AS wanted(ticker) JOIN LATERAL (
            SELECT FROM public.candles AS c
            WHERE c.ticker = wanted.ticker AND c.timeframe = '1h'
                AND c."timestamp" >= d.begins AND c."timestamp" < d.ends LIMIT 1
        ) AS found ON true
    )"""

SERVICES = """
    SELECT DISTINCT ON (service, instance) service, instance, status,
        (date_part('epoch', "timestamp") * 1000)::bigint AS at_ms, batches,
        records_processed AS records, errors, processing_ms
    FROM public.streaming_metrics WHERE "timestamp" >= now() - interval '2 minutes'
    ORDER BY service, instance, "timestamp" DESC LIMIT 100"""

BROKER_TIME = """
    SELECT (date_part('epoch', max(broker_timestamp)) * 1000)::bigint
    FROM public.streaming_metrics"""
