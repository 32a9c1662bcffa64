"""A stretch of a market session: its MARKET frames, and all rows that must come of them.

Every ticker trades once a second, its minute bar comes with the first frame of the next minute, and
a heartbeat every ten seconds: what ingest makes of a busy feed. The rows are computed here with the
services' own cores, one answer to a frame, so that the very same can be given to a bare COPY.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.stage import Copy
from libs.common.events import SCHEMA_VERSION, Bar, Candle, Clock, Event, Frame, Signal, Tick
from services.indicators.core import Operator
from services.signals.core import Operator as SignalOperator
from services.writer.rows import (
    CANDLE_COLUMNS,
    INDICATOR_COLUMNS,
    TICK_COLUMNS,
    TickRows,
    candle_line,
    copy_text,
)

__all__ = ["OPEN_MS", "TICKERS", "copies_of", "market_frames"]

OPEN_MS = 1_700_836_200_000  # Friday 24 November 2023, 09:30 in New York
TICKERS = 250
HEARTBEAT_S = 10
MINUTE_S = 60
SIGNAL_COLUMNS = (
    "id", "revision", "state", "late", "ticker", "timeframe", "timestamp", "kind", "direction",
    "price", "sma9", "vwap",
)  # fmt: skip


def market_frames(seconds: int) -> list[Frame]:
    """Return one frame for each second from the open on."""
    chance = random.Random(5)
    cents = [chance.randrange(5_000, 50_000) for _ in range(TICKERS)]
    totals = [0] * TICKERS
    minutes: list[list[tuple[float, int]]] = [[] for _ in range(TICKERS)]
    frames = []
    for second in range(seconds):
        now_ms = OPEN_MS + second * 1000
        events: list[Event] = [Clock(now_ms)] if second % HEARTBEAT_S == 0 else []
        if second and second % MINUTE_S == 0:
            for ticker, trades in enumerate(minutes):
                events.append(bar(ticker, now_ms - MINUTE_S * 1000, trades))
                trades.clear()
        for ticker in range(TICKERS):
            cents[ticker] += chance.choice((-2, -1, 0, 1, 2))
            price, volume = cents[ticker] / 100, chance.randrange(1, 500)
            totals[ticker] += volume
            minutes[ticker].append((price, volume))
            events.append(
                Tick(
                    name(ticker), now_ms + ticker, price, volume, totals[ticker],
                    round(price - 0.01, 4), round(price + 0.01, 4),
                )
            )  # fmt: skip
        n = second + 1
        frames.append(Frame(SCHEMA_VERSION, 1, n, 0, 0, now_ms, now_ms, tuple(events)))
    return frames


def name(ticker: int) -> str:
    """Return the symbol of a ticker given by its number."""
    return f"T{ticker:03d}"


def bar(ticker: int, ts_ms: int, trades: Sequence[tuple[float, int]]) -> Bar:
    """Return the minute bar of some trades, prices with volumes."""
    prices = [price for price, _ in trades]
    volume = sum(volume for _, volume in trades)
    return Bar(name(ticker), "1m", ts_ms, prices[0], max(prices), min(prices), prices[-1], volume)


def copies_of(frames: Sequence[Frame]) -> list[Copy]:
    """Return the COPYs of all rows, a frame's rows of one table in one of them."""
    indicators, signals = Operator(), SignalOperator()
    copies: list[Copy] = []
    for frame in frames:
        values = indicators.step(frame)
        answer = Frame(
            SCHEMA_VERSION, 0, frame.n, frame.n, frame.n, frame.sent_ms, frame.sent_ms, values
        )
        found = [event for event in signals.step(answer) if isinstance(event, Signal)]
        copies += _frame_copies(frame.events, values, found)
    return copies


def _frame_copies(
    market: Sequence[Event], values: Sequence[Event], signals: Sequence[Signal]
) -> list[Copy]:
    rows = TickRows()
    candles = [candle_line(event) for event in values if isinstance(event, Candle)]
    for event in market:
        if isinstance(event, Tick):
            rows.tick(event)
    for event in values:
        if not isinstance(event, Candle):
            rows.indicator(event)  # type: ignore[arg-type] # ticks give nothing else
    copies: list[Copy] = [
        ("equity_data", TICK_COLUMNS, copy_text(rows.ticks)),
        ("indicators", INDICATOR_COLUMNS, copy_text(rows.indicators)),
        ("candles", CANDLE_COLUMNS, "".join(candles).encode()),
        ("signals", SIGNAL_COLUMNS, "".join(map(_signal_line, signals)).encode()),
    ]
    return [copy for copy in copies if copy[2]]


def _signal_line(signal: Signal) -> str:
    moment = datetime.fromtimestamp(signal.ts_ms / 1000, UTC).isoformat()
    return (
        f"{signal.id}\t{signal.revision}\t{signal.state}\t{signal.late}\t{signal.ticker}"
        f"\t{signal.timeframe}\t{moment}\t{signal.kind}\t{signal.direction}"
        f"\t{signal.price:.4f}\t{signal.sma9:.6f}\t{signal.vwap:.6f}\n"
    )
