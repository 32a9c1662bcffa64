"""What a market is to the rest of the simulator: minute bars per ticker and day, and nothing else.

Everything that goes over the wire (price history, quotes, minute bars, ticks) is derived from
`Market.bars`, so the same minute reads the same wherever it is asked for, and at any time. A market
is a pure function of its seed or its file: no clock, no state that changes answers.
"""

from __future__ import annotations

import datetime as dt
from array import array
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from libs.common import calendar
from libs.common.calendar import Session

__all__ = ["MINUTE_MS", "DayBars", "Market", "MinuteBar", "previous_trading_day", "session_of"]

MINUTE_MS = 60_000


class MinuteBar(NamedTuple):
    """One minute of trades; `ts_ms` is its start, prices are dollars, volume is shares."""

    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: int


class DayBars:
    """The minute bars of one ticker and day, ascending, in columns: 48 bytes a bar."""

    __slots__ = ("close", "high", "low", "open", "ts_ms", "volume")

    def __init__(self) -> None:
        self.ts_ms = array("q")
        self.open = array("d")
        self.high = array("d")
        self.low = array("d")
        self.close = array("d")
        self.volume = array("q")

    def append(self, bar: MinuteBar) -> None:
        """Add the next minute; it must lie after the last one (ValueError)."""
        if self.ts_ms and bar.ts_ms <= self.ts_ms[-1]:
            raise ValueError(f"bar {bar.ts_ms} does not follow {self.ts_ms[-1]}")
        self.ts_ms.append(bar.ts_ms)
        self.open.append(bar.open)
        self.high.append(bar.high)
        self.low.append(bar.low)
        self.close.append(bar.close)
        self.volume.append(bar.volume)

    def __len__(self) -> int:
        return len(self.ts_ms)

    def __getitem__(self, index: int) -> MinuteBar:
        return MinuteBar(
            self.ts_ms[index],
            self.open[index],
            self.high[index],
            self.low[index],
            self.close[index],
            self.volume[index],
        )

    def __iter__(self) -> Iterator[MinuteBar]:
        return map(MinuteBar, self.ts_ms, self.open, self.high, self.low, self.close, self.volume)


class Market(Protocol):
    """A source of prices; all days are New York dates."""

    @property
    def name(self) -> str:
        """Say which market this is; a clock belongs to one market."""
        ...

    @property
    def seed(self) -> str:
        """Return what every random choice about this market starts from."""
        ...

    def knows(self, ticker: str) -> bool:
        """Tell whether the ticker is listed at all."""
        ...

    def bars(self, ticker: str, day: dt.date) -> DayBars:
        """Return the whole day, also the part that is still to come; empty without trades."""
        ...

    def day_before(self, ticker: str, day: dt.date) -> dt.date | None:
        """Return the last day earlier than `day` on which the ticker traded."""
        ...

    def bars_before(self, ticker: str, day: dt.date) -> int:
        """Return where the numbering of the ticker's bars starts on that day."""
        ...

    def next_open_ms(self, after_ms: int) -> int | None:
        """Return the pre-market open of the first day with data later than `after_ms`'s day."""
        ...

    def first_open_ms(self) -> int | None:
        """Return the pre-market open of the first day; None when the market has no beginning."""
        ...

    def description(self, ticker: str) -> str:
        """Return the name of the instrument."""
        ...

    def updates_per_minute(self, ticker: str, bar: MinuteBar) -> int:
        """Return into how many level-one updates at most a minute is cut (1 to 60)."""
        ...

    def day_volume(self, volume: int) -> int:
        """Return by how much level one's day volume grows in a minute with that bar volume."""
        ...


def session_of(day: dt.date) -> Session:
    """Return the session of a day that is known to have one (LookupError)."""
    found = calendar.session(day)
    if found is None:
        raise LookupError(f"{day} has no session")
    return found


def previous_trading_day(day: dt.date) -> dt.date:
    """Return the last day with a session earlier than `day`."""
    return calendar.previous_session(day).day
