"""Simple moving average of the last closes: an exact sum, rounded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from services.indicators.catalog import Ohlcv, chosen_period
from services.indicators.exact import quotient, ten_thousandths

__all__ = ["Sma", "make"]


class Sma:
    """The mean of the last `warm_up` closes; None before there are that many."""

    __slots__ = ("_closes", "_total", "value", "warm_up")
    outputs = ("",)

    def __init__(self, period: int) -> None:
        self.warm_up = period
        self._closes: deque[int] = deque(maxlen=period)
        self._total = 0
        self.value: float | None = None

    @property
    def ready(self) -> bool:
        """Whether there are enough closes."""
        return self.value is not None

    def update(self, bar: Ohlcv) -> None:
        """Take the next close."""
        self.push(ten_thousandths(bar.close))

    def push(self, units: int) -> float | None:
        """Take the next price in ten-thousandths and return the mean."""
        closes = self._closes
        if len(closes) == self.warm_up:
            self._total += units - closes[0]
            closes.append(units)
        else:
            self._total += units
            closes.append(units)
            if len(closes) < self.warm_up:
                return None
        self.value = value = quotient(self._total, self.warm_up)
        return value

    def peek(self, further: Sequence[int]) -> float | None:
        """Return the mean as it would be after these prices, without taking them."""
        closes = [*self._closes, *further][-self.warm_up :]
        return quotient(sum(closes), self.warm_up) if len(closes) == self.warm_up else None

    def values(self) -> tuple[float | None, ...]:
        """Return the mean."""
        return (self.value,)

    def snapshot(self) -> Sequence[Any]:
        """Return the closes, oldest first."""
        return list(self._closes)

    def restore(self, state: Sequence[Any]) -> None:
        """Take up the closes."""
        self._closes = deque(state, maxlen=self.warm_up)
        self._total = sum(self._closes)
        full = len(self._closes) == self.warm_up
        self.value = quotient(self._total, self.warm_up) if full else None


def make(period: int | None) -> Sma:
    """Build `sma9`, or another period."""
    return Sma(chosen_period(period, default=9))
