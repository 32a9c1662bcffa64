"""Which sessions of a ticker were held against price history.

`CheckedDays` is a set of days, none older than the newest by two months, in two numbers. What was
published of a day, to hold it against, is in `days`.
"""

from __future__ import annotations

import datetime as dt

from libs.common import calendar

__all__ = ["CheckedDays"]

_DAYS_MAX = 64
_MASK = (1 << _DAYS_MAX) - 1


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
            self.newest, self.mask = ordinal, (grown & _MASK) | 1
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
