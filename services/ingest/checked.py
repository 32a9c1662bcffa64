"""Which sessions of a ticker were held against price history, and a fingerprint to hold them with.

`CheckedDays` is a set of days, none older than the newest by two months, in two numbers.
`fingerprint` is the same for the same bars, in whatever order they came; that of a day is the sum.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Iterable
from hashlib import blake2b

from libs.common import calendar
from libs.common.events import HistoryBar

__all__ = ["SUM_MASK", "CheckedDays", "fingerprint"]

SUM_MASK = (1 << 64) - 1
_DAYS_MAX = 64
_pack = struct.Struct("<qddddq").pack


class CheckedDays:
    """Days that are checked; `newest` is a date's ordinal, bit n of `mask` the n-th day before."""

    __slots__ = ("mask", "newest")

    def __init__(self, newest: int = 0, mask: int = 0) -> None:
        self.newest = newest
        self.mask = mask

    def add(self, day: dt.date) -> None:
        """Note a day; one that is too old to be kept is forgotten at once."""
        ordinal = day.toordinal()
        if ordinal > self.newest:
            grown = self.mask << min(ordinal - self.newest, _DAYS_MAX)
            self.newest, self.mask = ordinal, (grown & SUM_MASK) | 1
        elif self.newest - ordinal < _DAYS_MAX:
            self.mask |= 1 << (self.newest - ordinal)

    def discard(self, day: dt.date) -> None:
        """Forget a day."""
        age = self.newest - day.toordinal()
        if 0 <= age < _DAYS_MAX:
            self.mask &= ~(1 << age)

    def __contains__(self, day: dt.date) -> bool:
        age = self.newest - day.toordinal()
        return 0 <= age < _DAYS_MAX and bool(self.mask >> age & 1)

    def due(self, last: dt.date, days_max: int) -> list[calendar.Session]:
        """Return the sessions up to `last` that are not checked yet, since the first that is.

        Before any is checked, only the last one is due: what was before the first start is nobody's
        business.
        """
        if not self.mask:
            return calendar.sessions(last, last)
        first = dt.date.fromordinal(self.newest - self.mask.bit_length() + 1)
        first = max(first, last - dt.timedelta(days=days_max))
        if first > last:
            return []
        return [each for each in calendar.sessions(first, last) if each.day not in self]


def fingerprint(bars: Iterable[HistoryBar]) -> int:
    """Return the sum of what each bar is, modulo 2 to the 64."""
    total = 0
    for bar in bars:
        text = _pack(bar.ts_ms, bar.open, bar.high, bar.low, bar.close, bar.volume)
        total += int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
    return total & SUM_MASK
