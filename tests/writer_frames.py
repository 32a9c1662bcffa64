"""Events, frames and batches for the writer's tests, with defaults for what a test does not say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from libs.common.events import (
    SCHEMA_VERSION,
    Candle,
    Event,
    Frame,
    Gap,
    Signal,
    Tick,
    TickIndicator,
)
from services.writer.core import Batch, Batcher, Limits, Position

__all__ = [
    "CREATED_MS",
    "LIMITS",
    "TS_MS",
    "batch_of",
    "candle",
    "frame",
    "gap",
    "signal",
    "tick",
    "tick_indicator",
]

CREATED_MS = 1_700_000_000_000
TS_MS = 1_700_836_200_000  # 2023-11-24 09:30 in New York
LIMITS = Limits(flush_ms=250, rows_max=1_000_000, input_bytes_max=1 << 30)


def tick(ts_ms: int = TS_MS, **fields: Any) -> Tick:
    """Return a tick of QQQ."""
    values: dict[str, Any] = {
        "ticker": "QQQ", "price": 389.5125, "volume": 100, "total_volume": 5000,
        "bid": 389.51, "ask": None,
    }  # fmt: skip
    return Tick(ts_ms=ts_ms, **(values | fields))


def tick_indicator(ts_ms: int = TS_MS, **fields: Any) -> TickIndicator:
    """Return SMA9 and VWAP at a tick of QQQ."""
    values: dict[str, Any] = {"ticker": "QQQ", "price": 389.5125, "sma9": None, "vwap": 389.123457}
    return TickIndicator(ts_ms=ts_ms, **(values | fields))


def candle(ts_ms: int = TS_MS, **fields: Any) -> Candle:
    """Return a minute candle of QQQ."""
    values: dict[str, Any] = {
        "ticker": "QQQ", "timeframe": "1m", "open": 389.5, "high": 390.0, "low": 389.0,
        "close": 389.75, "volume": 1200, "sma9": 389.123456, "vwap": None, "extras": {},
        "source": "stream",
    }  # fmt: skip
    return Candle(ts_ms=ts_ms, **(values | fields))


def gap(from_ms: int = TS_MS, **fields: Any) -> Gap:
    """Return an open gap of five minute bars of QQQ."""
    values: dict[str, Any] = {
        "id": f"QQQ:bars:{from_ms}", "ticker": "QQQ", "series": "bars", "to_ms": from_ms + 300_000,
        "cause": "restart", "state": "open",
    }  # fmt: skip
    return Gap(from_ms=from_ms, **(values | fields))


def signal(ts_ms: int = TS_MS, **fields: Any) -> Signal:
    """Return an upward cross of QQQ."""
    values: dict[str, Any] = {
        "id": f"QQQ:1m:{ts_ms}", "revision": 0, "state": "active", "late": False, "ticker": "QQQ",
        "timeframe": "1m", "kind": "sma9_vwap", "direction": "up", "price": 389.75,
        "sma9": 389.5, "vwap": 389.4,
    }  # fmt: skip
    return Signal(ts_ms=ts_ms, **(values | fields))


def frame(n: int, *events: Event, sent_ms: int = TS_MS, received_ms: int = TS_MS) -> Frame:
    """Return the frame numbered `n`."""
    return Frame(SCHEMA_VERSION, 1, n, 0, 0, sent_ms, received_ms, events)


def batch_of(
    *frames: Iterable[Event],
    stream: str = "MARKET",
    partition: int = 0,
    before: Position | None = None,
) -> Batch:
    """Return the batch of frames with these events, behind the position `before`."""
    before = before or Position(CREATED_MS)
    batcher = Batcher(stream, partition, before, LIMITS)
    for count, events in enumerate(frames, 1):
        batcher.add(before.seq + count, frame(before.n + count, *events), 100, 0.0)
    return batcher.take()
