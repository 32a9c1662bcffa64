"""Volume-weighted average price since the last reset: two exact sums, rounded once.

The owner of the indicator resets it, because a session is not an indicator's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.indicators.catalog import Ohlcv
from services.indicators.exact import quotient, ten_thousandths

__all__ = ["Vwap", "make"]

# A day's sum of price x volume may pass 64 bits in theory; MessagePack integers may not.
_LIMB = 1 << 62


class Vwap:
    """The mean price, each weighted by its volume; None while there is no volume.

    `typical` takes a candle's (high + low + close) / 3 instead of its close.
    """

    __slots__ = ("_money", "_per_share", "_shares", "typical", "value")
    outputs = ("",)
    warm_up = 1

    def __init__(self, *, typical: bool = False) -> None:
        self.typical = typical
        self._per_share = (
            3 if typical else 1
        )  # (h + l + c) stays whole when the divisor takes the 3
        self._money = 0
        self._shares = 0
        self.value: float | None = None

    @property
    def ready(self) -> bool:
        """Whether there is volume."""
        return self.value is not None

    def update(self, bar: Ohlcv) -> None:
        """Take the next candle."""
        units = ten_thousandths(bar.close)
        if self.typical:
            units += ten_thousandths(bar.high) + ten_thousandths(bar.low)
        self.push(units, bar.volume)

    def push(self, units: int, shares: int) -> float | None:
        """Take a price in ten-thousandths (three summed ones if `typical`) and return the mean."""
        self._money += units * shares
        self._shares = total = self._shares + shares
        if total:
            self.value = value = quotient(self._money, total * self._per_share)
            return value
        return None

    def reset(self) -> None:
        """Begin a session."""
        self._money = self._shares = 0
        self.value = None

    def values(self) -> tuple[float | None, ...]:
        """Return the mean."""
        return (self.value,)

    def snapshot(self) -> Sequence[Any]:
        """Return the sums."""
        return [*divmod(self._money, _LIMB), self._shares]

    def restore(self, state: Sequence[Any]) -> None:
        """Take up the sums."""
        high, low, self._shares = state
        self._money = high * _LIMB + low
        shares = self._shares
        self.value = quotient(self._money, shares * self._per_share) if shares else None


def make(period: int | None) -> Vwap:
    """Build `vwap`; raises ValueError when a period is given."""
    if period is not None:
        raise ValueError("vwap has no period")
    return Vwap()
