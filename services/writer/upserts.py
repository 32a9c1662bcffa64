"""The statements for rows that change, each of which takes a whole batch as one array per column.

A row is compared as the database keeps it, so that a value which rounds to the stored one is no
change. Rows come sorted by key, or one lane owns their tickers, so two lanes never wait for each
other in a circle.

Most candles are new. STORED tells which are not; the others can go by COPY, which is twice as fast.
Nobody adds one in between: a ticker belongs to one lane, and its position is locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.common.events import Candle, Gap, Signal
from services.writer.rows import extras_text

__all__ = [
    "CANDLES",
    "CHECKS",
    "GAPS",
    "SIGNALS",
    "STORED",
    "candle_columns",
    "check_columns",
    "gap_columns",
    "signal_columns",
    "stretch_columns",
    "stretches",
]

_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Gives what is stored in each stretch of a series: the place of the stretch, from 1, and the time.
# One probe of the key for a stretch, not for a candle, which would take as long as storing it.
STORED = """
SELECT i.place, (extract(epoch FROM stored."timestamp") * 1000)::int8
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
    WITH ORDINALITY AS i (ticker, timeframe, first, last, place), LATERAL (
    SELECT "timestamp" FROM public.candles AS c
    WHERE c.ticker = i.ticker AND c.timeframe = i.timeframe
        AND c."timestamp" BETWEEN i.first AND i.last
    OFFSET 0
) AS stored
"""

# Candles are unique within one call. The look-up stands in a subquery with OFFSET 0, which keeps
# the planner from joining with whole partitions: it is always one probe of the key per candle.
CANDLES = """
WITH incoming AS MATERIALIZED (
    SELECT ticker, timeframe, "timestamp", open::numeric(12, 4), high::numeric(12, 4),
        low::numeric(12, 4), close::numeric(12, 4), volume, sma9::numeric(18, 6),
        vwap::numeric(18, 6), extras::jsonb, source
    FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::float8[], $5::float8[],
        $6::float8[], $7::float8[], $8::int8[], $9::float8[], $10::float8[], $11::text[],
        $12::text[])
        AS _ (ticker, timeframe, "timestamp", open, high, low, close, volume, sma9, vwap, extras,
            source)
), superseded AS (
    SELECT stored.*
    FROM incoming AS i, LATERAL (
        SELECT * FROM public.candles AS c
        WHERE c.ticker = i.ticker AND c.timeframe = i.timeframe AND c."timestamp" = i."timestamp"
        OFFSET 0
    ) AS stored
    WHERE (stored.open, stored.high, stored.low, stored.close, stored.volume, stored.sma9,
            stored.vwap, stored.extras)
        IS DISTINCT FROM (i.open, i.high, i.low, i.close, i.volume, i.sma9, i.vwap, i.extras)
), kept AS (
    INSERT INTO public.candle_revisions (ticker, timeframe, "timestamp", open, high, low, close,
        volume, sma9, vwap, extras, source, revision)
    SELECT ticker, timeframe, "timestamp", open, high, low, close, volume, sma9, vwap, extras,
        source, revision
    FROM superseded
)
INSERT INTO public.candles AS c (ticker, timeframe, "timestamp", open, high, low, close, volume,
    sma9, vwap, extras, source)
SELECT * FROM incoming
ON CONFLICT (ticker, timeframe, "timestamp") DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, sma9 = excluded.sma9, vwap = excluded.vwap,
    extras = excluded.extras, source = excluded.source, revision = c.revision + 1
WHERE (c.open, c.high, c.low, c.close, c.volume, c.sma9, c.vwap, c.extras)
    IS DISTINCT FROM (excluded.open, excluded.high, excluded.low, excluded.close,
        excluded.volume, excluded.sma9, excluded.vwap, excluded.extras)
"""

GAPS = """
INSERT INTO public.gaps (id, ticker, series, started_at, ended_at, cause, state, reason)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[],
    $6::text[], $7::text[], $8::text[])
ON CONFLICT (id) DO UPDATE SET
    ticker = excluded.ticker, series = excluded.series, started_at = excluded.started_at,
    ended_at = excluded.ended_at, cause = excluded.cause, state = excluded.state,
    reason = excluded.reason
"""

CHECKS = """
INSERT INTO public.session_checks (ticker, started_at, ended_at, bars)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::int4[])
ON CONFLICT (started_at, ticker) DO UPDATE SET
    ended_at = excluded.ended_at, bars = excluded.bars, checked_at = now()
"""

SIGNALS = """
INSERT INTO public.signals AS s (id, revision, state, late, ticker, timeframe, "timestamp", kind,
    direction, price, sma9, vwap)
SELECT id, revision, state, late, ticker, timeframe, "timestamp", kind, direction,
    price::numeric(12, 4), sma9::numeric(18, 6), vwap::numeric(18, 6)
FROM unnest($1::text[], $2::int4[], $3::text[], $4::bool[], $5::text[], $6::text[],
    $7::timestamptz[], $8::text[], $9::text[], $10::float8[], $11::float8[], $12::float8[])
    AS _ (id, revision, state, late, ticker, timeframe, "timestamp", kind, direction, price, sma9,
        vwap)
ON CONFLICT (id) DO UPDATE SET
    revision = excluded.revision, state = excluded.state, late = excluded.late,
    ticker = excluded.ticker, timeframe = excluded.timeframe,
    "timestamp" = excluded."timestamp", kind = excluded.kind, direction = excluded.direction,
    price = excluded.price, sma9 = excluded.sma9, vwap = excluded.vwap
WHERE excluded.revision > s.revision
"""

Columns = list[list[Any]]


@dataclass(slots=True)
class Stretch:
    """Times of one series within one day (UTC), which bounds how much lies between them."""

    ticker: str
    timeframe: str
    first_ms: int
    last_ms: int


def stretches(candles: Sequence[Candle]) -> list[Stretch]:
    """Return the stretches that hold all candles."""
    found: dict[tuple[str, str, int], Stretch] = {}
    for candle in candles:
        ts_ms = candle.ts_ms
        key = (candle.ticker, candle.timeframe, ts_ms // _DAY_MS)
        stretch = found.get(key)
        if stretch is None:
            found[key] = Stretch(candle.ticker, candle.timeframe, ts_ms, ts_ms)
        elif ts_ms > stretch.last_ms:
            stretch.last_ms = ts_ms
        elif ts_ms < stretch.first_ms:
            stretch.first_ms = ts_ms
    return list(found.values())


def stretch_columns(wanted: Sequence[Stretch]) -> Columns:
    """Return the arrays that STORED takes."""
    return [
        [s.ticker for s in wanted],
        [s.timeframe for s in wanted],
        [_moment(s.first_ms) for s in wanted],
        [_moment(s.last_ms) for s in wanted],
    ]


def candle_columns(candles: Sequence[Candle]) -> Columns:
    """Return the arrays that CANDLES takes."""
    return [
        [c.ticker for c in candles],
        [c.timeframe for c in candles],
        [_moment(c.ts_ms) for c in candles],
        [c.open for c in candles],
        [c.high for c in candles],
        [c.low for c in candles],
        [c.close for c in candles],
        [c.volume for c in candles],
        [c.sma9 for c in candles],
        [c.vwap for c in candles],
        [extras_text(c.extras) for c in candles],
        [c.source for c in candles],
    ]


def gap_columns(gaps: Sequence[Gap]) -> Columns:
    """Return the arrays that GAPS takes."""
    return [
        [g.id for g in gaps],
        [g.ticker for g in gaps],
        [g.series for g in gaps],
        [_moment(g.from_ms) for g in gaps],
        [_moment(g.to_ms) for g in gaps],
        [g.cause for g in gaps],
        [g.state for g in gaps],
        [g.reason for g in gaps],
    ]


def check_columns(checks: Sequence[Gap]) -> Columns:
    """Return the arrays that CHECKS takes."""
    return [
        [c.ticker for c in checks],
        [_moment(c.from_ms) for c in checks],
        [_moment(c.to_ms) for c in checks],
        [c.bars if c.state == "filled" else None for c in checks],
    ]


def signal_columns(signals: Sequence[Signal]) -> Columns:
    """Return the arrays that SIGNALS takes."""
    return [
        [s.id for s in signals],
        [s.revision for s in signals],
        [s.state for s in signals],
        [s.late for s in signals],
        [s.ticker for s in signals],
        [s.timeframe for s in signals],
        [_moment(s.ts_ms) for s in signals],
        [s.kind for s in signals],
        [s.direction for s in signals],
        [s.price for s in signals],
        [s.sma9 for s in signals],
        [s.vwap for s in signals],
    ]


def _moment(ts_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ts_ms)
