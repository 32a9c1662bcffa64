"""Relative strength index after Wilder, seeded as TA-Lib does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.indicators.catalog import Ohlcv, chosen_period

__all__ = ["Rsi", "make"]

_NO_MOVE = 1e-14  # below this TA-Lib takes the sum of gain and loss for zero


class Rsi:
    """100 x mean gain / (mean gain + mean loss); 0 when nothing moved."""

    __slots__ = ("_close", "_count", "_gain", "_loss", "_period", "warm_up")
    outputs = ("",)

    def __init__(self, period: int) -> None:
        self._period = period
        self.warm_up = period + 1  # that many closes make `period` changes
        self._close: float | None = None
        self._count = 0  # changes seen, counted up to the period only
        self._gain = 0.0  # sums until then, Wilder's means from then on
        self._loss = 0.0

    @property
    def ready(self) -> bool:
        """Whether the seed is complete."""
        return self._count == self._period

    def update(self, bar: Ohlcv) -> None:
        """Take the next close."""
        previous, self._close = self._close, bar.close
        if previous is None:
            return
        change = bar.close - previous
        period = self._period
        if self._count == period:
            self._gain *= period - 1
            self._loss *= period - 1
        else:
            self._count += 1
        if change < 0:
            self._loss -= change
        else:
            self._gain += change
        if self._count == period:
            self._gain /= period
            self._loss /= period

    def values(self) -> tuple[float | None, ...]:
        """Return the index, 0 to 100."""
        if not self.ready:
            return (None,)
        moved = self._gain + self._loss
        return (100.0 * (self._gain / moved) if moved >= _NO_MOVE else 0.0,)

    def snapshot(self) -> Sequence[Any]:
        """Return the last close, the count and both means."""
        return [self._close, self._count, self._gain, self._loss]

    def restore(self, state: Sequence[Any]) -> None:
        """Take them up."""
        self._close, self._count, self._gain, self._loss = state


def make(period: int | None) -> Rsi:
    """Build `rsi14`, or another period."""
    return Rsi(chosen_period(period, default=14, least=2))
