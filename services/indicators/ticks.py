"""One ticker's ticks: SMA9 and session VWAP over them, and the minute that they are making.

This is the hot path: every tick of every ticker passes here, twice after a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import astuple

from libs.common.events import Tick, TickIndicator
from services.indicators.candles import SMA_PERIOD, Bucket
from services.indicators.catalog.sma import Sma
from services.indicators.catalog.vwap import Vwap
from services.indicators.days import anchor_at
from services.indicators.exact import ten_thousandths

__all__ = ["Ticks"]

_MINUTE_MS = 60_000


class Ticks:
    """The running values over one ticker's ticks."""

    __slots__ = ("_continuous", "_day_ms", "_reset_ms", "_sma", "_vwap", "before", "minute")

    def __init__(self, *, continuous: bool) -> None:
        self._continuous = continuous
        self._day_ms = -1
        self._reset_ms = 0  # when the day or the segment turns
        self._sma = Sma(SMA_PERIOD)
        self._vwap = Vwap()
        # The minute that ticks are making and the one before it, whose bar takes some seconds to
        # come: provisional candles are made of both.
        self.minute = Bucket(-1, -1, 0.0, 0.0, 0.0, 0.0, 0)
        self.before = self.minute

    def step(self, tick: Tick) -> TickIndicator:
        """Take the next tick; raises CalendarError, unchanged, outside the calendar."""
        ts_ms = tick.ts_ms
        if ts_ms >= self._reset_ms:
            self._turn(ts_ms)
        price = tick.price
        volume = tick.volume
        units = ten_thousandths(price)
        minute = self.minute
        if ts_ms >= minute.end_ms:
            start_ms = ts_ms - ts_ms % _MINUTE_MS
            self.before = minute
            self.minute = Bucket(
                start_ms, start_ms + _MINUTE_MS, price, price, price, price, volume
            )
        elif ts_ms >= minute.start_ms:
            if price > minute.high:
                minute.high = price
            elif price < minute.low:
                minute.low = price
            minute.close = price
            minute.volume += volume
        return TickIndicator(
            tick.ticker, ts_ms, price, self._sma.push(units), self._vwap.push(units, volume)
        )

    def _turn(self, ts_ms: int) -> None:
        anchor = anchor_at(ts_ms)
        if anchor.day_ms != self._day_ms and not self._continuous:
            self._sma.restore(())
        self._day_ms, self._reset_ms = anchor
        self._vwap.reset()

    def snapshot(self) -> list[Any]:
        """Return the whole state."""
        return [
            self._day_ms, self._reset_ms, self._sma.snapshot(), self._vwap.snapshot(),
            astuple(self.minute), astuple(self.before),
        ]  # fmt: skip

    def restore(self, state: Sequence[Any]) -> None:
        """Take up a state that `snapshot` gave and MessagePack carried."""
        self._day_ms, self._reset_ms, closes, sums, minute, before = state
        self._sma.restore(closes)
        self._vwap.restore(sums)
        self.minute = Bucket(*minute)
        self.before = Bucket(*before)
