"""Average true range after Wilder, seeded as TA-Lib does: with the mean of the first ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.indicators.catalog import Ohlcv, chosen_period

__all__ = ["Atr", "make"]


class Atr:
    """Wilder's mean of the true range, which counts from the close before."""

    __slots__ = ("_close", "_count", "_level", "_period", "warm_up")
    outputs = ("",)

    def __init__(self, period: int) -> None:
        self._period = period
        self.warm_up = period + 1  # the first candle has no close before it
        self._close: float | None = None
        self._count = 0  # ranges seen, counted up to the period only
        self._level = 0.0  # their sum until then, the mean from then on

    @property
    def ready(self) -> bool:
        """Whether the seed is complete."""
        return self._count == self._period

    def update(self, bar: Ohlcv) -> None:
        """Take the next candle."""
        previous, self._close = self._close, bar.close
        if previous is None:
            return
        reach = max(bar.high - bar.low, abs(previous - bar.high), abs(previous - bar.low))
        if self._count == self._period:
            self._level = (self._level * (self._period - 1) + reach) / self._period
            return
        self._level += reach
        self._count += 1
        if self._count == self._period:
            self._level /= self._period

    def values(self) -> tuple[float | None, ...]:
        """Return the mean range in dollars."""
        return (self._level if self.ready else None,)

    def snapshot(self) -> Sequence[Any]:
        """Return the last close, the count and the level."""
        return [self._close, self._count, self._level]

    def restore(self, state: Sequence[Any]) -> None:
        """Take them up."""
        self._close, self._count, self._level = state


def make(period: int | None) -> Atr:
    """Build `atr14`, or another period."""
    return Atr(chosen_period(period, default=14))
