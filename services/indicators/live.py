"""What leaves on `live.>` after a frame's answer is durable: flat JSON objects for anyone.

Every message carries `epoch`, `seq` and `index` of the durable event it shows, so that a
subscriber can drop repeats. Provisional candles stand in no durable frame; they take the indexes
after its last event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from libs.common import subjects
from libs.common.codec import encode_json
from libs.common.events import Candle, Frame, Tick, TickIndicator
from libs.common.owner import Answer
from services.indicators.core import Operator
from services.indicators.provisional import provisional_candles

__all__ = ["LiveFeed", "LiveTick"]

_PROVISIONAL_EVERY_MS = 1_000
_TICKERS_MAX = 10_000  # far above any symbol cap; bounds what is remembered for throttling


class LiveTick(Struct):
    """A tick with the indicators over it; prices in dollars, volumes in shares."""

    ticker: str
    ts_ms: int
    price: float
    volume: int
    total_volume: int
    bid: float | None
    ask: float | None
    sma9: float | None
    vwap: float | None
    epoch: int
    seq: int
    index: int


class LiveFeed:
    """Makes the live messages of one partition; remembers only what it sent last, to throttle."""

    def __init__(self) -> None:
        self._shown_at: dict[str, int] = {}  # ticker -> second of its last provisional candles

    def __call__(
        self, operator: Operator, frame: Frame, answer: Answer
    ) -> Iterator[tuple[str, bytes]]:
        """Yield subject and payload of all that the answer shows, then the provisional candles."""
        ticks = iter([event for event in frame.events if type(event) is Tick])
        touched: dict[str, int] = {}
        for index, event in enumerate(answer.frame.events):
            if type(event) is TickIndicator:
                tick = next(ticks)
                touched[tick.ticker] = tick.ts_ms
                yield subjects.live_tick(tick.ticker), _tick(tick, event, answer, index)
            elif type(event) is Candle:
                yield _candle(event, answer, index, final=True)
        yield from self._provisional(operator, touched.items(), answer)

    def _provisional(
        self, operator: Operator, touched: Iterable[tuple[str, int]], answer: Answer
    ) -> Iterator[tuple[str, bytes]]:
        index = len(answer.frame.events)
        for name, ts_ms in touched:
            second = ts_ms // _PROVISIONAL_EVERY_MS
            state = operator.ticker(name)
            if state is None or second <= self._shown_at.get(name, -1):
                continue
            if len(self._shown_at) >= _TICKERS_MAX:
                self._shown_at.clear()
            self._shown_at[name] = second
            for candle in provisional_candles(state):
                yield _candle(candle, answer, index, final=False)
                index += 1


def _tick(tick: Tick, indicator: TickIndicator, answer: Answer, index: int) -> bytes:
    return encode_json(
        LiveTick(
            tick.ticker, tick.ts_ms, tick.price, tick.volume, tick.total_volume, tick.bid,
            tick.ask, indicator.sma9, indicator.vwap, answer.epoch_ms, answer.seq, index,
        )
    )  # fmt: skip


def _candle(candle: Candle, answer: Answer, index: int, *, final: bool) -> tuple[str, bytes]:
    message: dict[str, Any] = {
        "ticker": candle.ticker,
        "timeframe": candle.timeframe,
        "ts_ms": candle.ts_ms,
        "open": candle.open,
        "high": candle.high,
        "low": candle.low,
        "close": candle.close,
        "volume": candle.volume,
        "sma9": candle.sma9,
        "vwap": candle.vwap,
        **candle.extras,
        "final": final,
        "source": candle.source,
        "revision": candle.revision,
        "epoch": answer.epoch_ms,
        "seq": answer.seq,
        "index": index,
    }
    return subjects.live_candle(candle.timeframe, candle.ticker), encode_json(message)
