"""Frames as indicators and signals publish them, for tests of the gateway."""

from __future__ import annotations

from collections.abc import Iterable

from libs.common.events import (
    SCHEMA_VERSION,
    Candle,
    Correction,
    Event,
    Frame,
    Signal,
    Source,
    TickIndicator,
    Timeframe,
)

__all__ = ["OPEN_MS", "candle", "correction", "frame", "signal", "tick"]

OPEN_MS = 1_700_836_200_000  # 2023-11-24 09:30 in New York
DAY_MS = 1_700_802_000_000  # its midnight there


def frame(
    n: int, events: Iterable[Event], *, sent_ms: int = OPEN_MS, received_ms: int = 1
) -> Frame:
    """Put events into the frame numbered `n`."""
    return Frame(SCHEMA_VERSION, 1, n, n, n, sent_ms, received_ms, tuple(events))


def tick(number: int, ticker: str = "QQQ") -> TickIndicator:
    """Return the tick of a second; its price tells which one it is."""
    return TickIndicator(ticker, OPEN_MS + number * 1000, 100.0 + number, None, 99.5)


def candle(
    minute: int,
    ticker: str = "QQQ",
    timeframe: Timeframe = "1m",
    *,
    source: Source = "stream",
    revision: int = 0,
) -> Candle:
    """Return the candle of a minute."""
    return Candle(
        ticker, timeframe, OPEN_MS + minute * 60_000, 1.0, 2.0, 0.5, 1.5 + minute, 100, None, 1.25,
        {"ema9": 1.5}, source, revision,
    )  # fmt: skip


def correction(ticker: str = "QQQ", revision: int = 1) -> Correction:
    """Return what stands before the candles of the day computed anew."""
    return Correction(ticker, DAY_MS, revision)


def signal(minute: int, ticker: str = "QQQ") -> Signal:
    """Return the signal of a minute."""
    ts_ms = OPEN_MS + minute * 60_000
    return Signal(
        f"{ticker}:1m:{ts_ms}", 0, "active", False, ticker, "1m", ts_ms, "cross",
        "up" if minute % 2 else "down", 100.0 + minute, 99.0, 98.0,
    )  # fmt: skip
