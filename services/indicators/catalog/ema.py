"""Exponential moving average, seeded as TA-Lib does: with the mean of the first closes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.indicators.catalog import Ohlcv, chosen_period

__all__ = ["Ema", "make"]


class Ema:
    """`value += (close - value) * 2 / (period + 1)`."""

    __slots__ = ("_count", "_level", "_weight", "warm_up")
    outputs = ("",)

    def __init__(self, period: int) -> None:
        self.warm_up = period
        self._weight = 2.0 / (period + 1)
        self._count = 0  # closes seen, counted up to the period only
        self._level = 0.0  # their sum until then, the average from then on

    @property
    def ready(self) -> bool:
        """Whether the seed is complete."""
        return self._count == self.warm_up

    def update(self, bar: Ohlcv) -> None:
        """Take the next close."""
        if self._count == self.warm_up:
            self._level += (bar.close - self._level) * self._weight
            return
        self._level += bar.close
        self._count += 1
        if self._count == self.warm_up:
            self._level /= self.warm_up

    def values(self) -> tuple[float | None, ...]:
        """Return the average."""
        return (self._level if self.ready else None,)

    def snapshot(self) -> Sequence[Any]:
        """Return how many closes are in, and the level."""
        return [self._count, self._level]

    def restore(self, state: Sequence[Any]) -> None:
        """Take up count and level."""
        self._count, self._level = state


def make(period: int | None) -> Ema:
    """Build `ema9`, or another period."""
    return Ema(chosen_period(period, default=9))
