"""Bollinger bands: the mean of the last closes, and two population deviations either side.

Both sums are exact integers. A running sum of squares in floats loses the digits that matter when
prices hardly move; here flat prices have a deviation of exactly zero.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from services.indicators.catalog import Ohlcv, chosen_period
from services.indicators.exact import ten_thousandths

__all__ = ["Bollinger", "make"]

_DEVIATIONS = 2
_UNITS_PER_DOLLAR = 10_000


class Bollinger:
    """Upper, middle and lower band over the last `warm_up` closes."""

    __slots__ = ("_closes", "_squares", "_total", "warm_up")
    outputs = ("upper", "middle", "lower")

    def __init__(self, period: int) -> None:
        self.warm_up = period
        self._closes: deque[int] = deque(maxlen=period)
        self._total = 0
        self._squares = 0

    @property
    def ready(self) -> bool:
        """Whether there are enough closes."""
        return len(self._closes) == self.warm_up

    def update(self, bar: Ohlcv) -> None:
        """Take the next close."""
        units = ten_thousandths(bar.close)
        if self.ready:
            oldest = self._closes[0]
            self._total -= oldest
            self._squares -= oldest * oldest
        self._closes.append(units)
        self._total += units
        self._squares += units * units

    def values(self) -> tuple[float | None, ...]:
        """Return the bands in dollars, in the order of `outputs`."""
        if not self.ready:
            return (None, None, None)
        scale = self.warm_up * _UNITS_PER_DOLLAR
        middle = self._total / scale
        spread = math.sqrt(self.warm_up * self._squares - self._total * self._total) / scale
        return (middle + _DEVIATIONS * spread, middle, middle - _DEVIATIONS * spread)

    def snapshot(self) -> Sequence[Any]:
        """Return the closes, oldest first."""
        return list(self._closes)

    def restore(self, state: Sequence[Any]) -> None:
        """Take up the closes."""
        self._closes = deque(state, maxlen=self.warm_up)
        self._total = sum(self._closes)
        self._squares = sum(units * units for units in self._closes)


def make(period: int | None) -> Bollinger:
    """Build `bollinger20`, or another period."""
    return Bollinger(chosen_period(period, default=20, least=2))
