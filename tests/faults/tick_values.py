"""What follows from stored ticks alone: sma9 and vwap of each, calculated here in other words.

Exact fractions of integers, rounded once, half to even, to six decimals. Ticks may be missing; what
is stored must still follow from what is stored, since both come from the same stream.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Sequence
from decimal import Decimal, localcontext

from libs.common.calendar import NEW_YORK
from tests.faults.watch import LiveTick

__all__ = ["wrong_values"]

_PERIOD = 9
_OPEN = dt.time(9, 30)
_MICRO = Decimal("0.000001")
_DIGITS = 40


def wrong_values(ticks: Sequence[LiveTick], volumes: Sequence[int]) -> list[LiveTick]:
    """Return the ticks of one ticker, ascending, whose sma9 or vwap does not follow."""
    wrong = []
    day: dt.date | None = None
    opened = False
    window: deque[int] = deque(maxlen=_PERIOD)
    money = shares = 0
    for tick, volume in zip(ticks, volumes, strict=True):
        at = dt.datetime.fromtimestamp(tick.ts_ms / 1000, NEW_YORK)
        if at.date() != day:
            window.clear()
        if (at.date(), at.time() >= _OPEN) != (day, opened):
            money = shares = 0
        day, opened = at.date(), at.time() >= _OPEN
        units = round(tick.price * 10_000)
        window.append(units)
        money += units * volume
        shares += volume
        sma9 = _price(sum(window), _PERIOD) if len(window) == _PERIOD else None
        if (tick.sma9, tick.vwap) != (sma9, _price(money, shares) if shares else None):
            wrong.append(tick)
    return wrong


def _price(units: int, divisor: int) -> float:
    with localcontext(prec=_DIGITS):
        return float((Decimal(units) / (divisor * 10_000)).quantize(_MICRO))
