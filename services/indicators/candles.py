"""One ticker's candles: minutes in, closed candles of every timeframe with their indicators out.

A `Series` is one timeframe: its open bucket and what runs over its closed candles. A `Book` holds
the four of them and their day. A bucket closes with its last minute, with a minute beyond it, or by
the clock a grace after its end; a minute that comes later than that is not added to it any more,
only a History can. The same minutes give the same candles, whether they come live or as History.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from libs.common import calendar
from libs.common.events import TIMEFRAME_MS, Bar, Candle, HistoryBar, Source, Timeframe
from services.indicators import catalog
from services.indicators.catalog import Indicator
from services.indicators.catalog.sma import Sma
from services.indicators.catalog.vwap import Vwap
from services.indicators.days import Anchor, anchor_at
from services.indicators.exact import rounded, ten_thousandths
from services.indicators.settings import Definition

__all__ = ["CLOSE_GRACE_MS", "OPENINGS_MAX", "SMA_PERIOD", "Book", "Bucket", "Series"]

CLOSE_GRACE_MS = 15_000
SMA_PERIOD = 9

_MINUTE_MS = 60_000
OPENINGS_MAX = 3  # days whose opening averages are kept, if they are carried over


class Bucket(Struct):
    """A candle in the making; times in epoch milliseconds, `end_ms` excluded."""

    start_ms: int
    end_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: int

    def merge(self, bar: Bar | HistoryBar | Bucket) -> None:
        """Add what traded after everything that is in."""
        self.high = max(self.high, bar.high)
        self.low = min(self.low, bar.low)
        self.close = bar.close
        self.volume += bar.volume


class Series:
    """One timeframe of one ticker."""

    __slots__ = (
        "_blank", "_keys", "_ticker", "bucket", "closed_ms", "extras", "length_ms", "sma",
        "timeframe", "vwap",
    )  # fmt: skip

    def __init__(self, ticker: str, timeframe: Timeframe, definition: Definition) -> None:
        self._ticker = ticker
        self.timeframe: Timeframe = timeframe
        self.length_ms = TIMEFRAME_MS[timeframe]
        self.bucket: Bucket | None = None
        self.closed_ms = 0  # end of the last closed bucket
        self.sma = Sma(SMA_PERIOD)
        self.vwap = Vwap(typical=definition.vwap_price == "hlc3")
        self.extras = {name: catalog.make(name) for name in definition.extras}
        self._keys = {n: catalog.output_names(n, made) for n, made in self.extras.items()}
        self._blank = self.averages()

    def add(self, bar: Bar | HistoryBar) -> bool:
        """Put a minute into its bucket, which was not closed before; tell whether that worked."""
        if self.bucket is not None:
            self.bucket.merge(bar)
        elif bar.ts_ms < self.closed_ms:
            return False
        else:
            start_ms, end_ms = calendar.bucket(bar.ts_ms, self.length_ms)
            self.bucket = Bucket(
                start_ms, end_ms, bar.open, bar.high, bar.low, bar.close, bar.volume
            )
        return True

    def close(self, source: Source, revision: int) -> Candle:
        """Close the open bucket, of which there must be one."""
        bucket = self.bucket
        assert bucket is not None
        self.bucket = None
        self.closed_ms = bucket.end_ms
        self.sma.update(bucket)
        self.vwap.update(bucket)
        for extra in self.extras.values():
            extra.update(bucket)
        return Candle(
            self._ticker, self.timeframe, bucket.start_ms, bucket.open, bucket.high, bucket.low,
            bucket.close, bucket.volume, self.sma.value, self.vwap.value,
            self._values(self.extras), source, revision,
        )  # fmt: skip

    def preview(self, buckets: Sequence[Bucket], vwap: float | None, *, anew: bool) -> Candle:
        """Return the candle of the last bucket as if it and those before it closed now.

        Nothing changes. `anew` says that they are the first ones of a day.
        """
        sma9 = self.sma.peek([ten_thousandths(bucket.close) for bucket in buckets])
        extras = {name: catalog.make(name) for name in self.extras}
        for name, extra in extras.items():
            extra.restore(self._blank[1][name] if anew else self.extras[name].snapshot())
            for bucket in buckets:
                extra.update(bucket)
        last = buckets[-1]
        return Candle(
            self._ticker, self.timeframe, last.start_ms, last.open, last.high, last.low,
            last.close, last.volume, None if anew else sma9, vwap, self._values(extras),
            "stream", 0,
        )  # fmt: skip

    def averages(self) -> list[Any]:
        """Return the state of what starts anew with the day: sma9 and the extras."""
        return [
            self.sma.snapshot(),
            {name: extra.snapshot() for name, extra in self.extras.items()},
        ]

    def set_averages(self, state: Sequence[Any] | None) -> None:
        """Take up such a state; None starts anew. An extra it does not know starts anew too."""
        closes, extras = state or self._blank
        self.sma.restore(closes)
        for name, extra in self.extras.items():
            extra.restore(extras.get(name, self._blank[1][name]))

    def snapshot(self) -> list[Any]:
        """Return the whole state."""
        bucket = None if self.bucket is None else msgspec.structs.astuple(self.bucket)
        return [bucket, self.closed_ms, self.vwap.snapshot(), self.averages()]

    def restore(self, state: Sequence[Any]) -> None:
        """Take up a state that `snapshot` gave; nothing mutable is shared with it."""
        bucket, self.closed_ms, vwap, averages = state
        self.bucket = None if bucket is None else Bucket(*bucket)
        self.vwap.restore(vwap)
        self.set_averages(averages)

    def _values(self, extras: Mapping[str, Indicator]) -> dict[str, float | None]:
        return {
            key: rounded(value)
            for name, extra in extras.items()
            for key, value in zip(self._keys[name], extra.values(), strict=True)
        }


class Book:
    """The four series of one ticker, and the day they are in."""

    __slots__ = (
        "_report", "continuous", "day_ms", "last_ms", "openings", "reset_ms", "revision",
        "series", "source",
    )  # fmt: skip

    def __init__(self, ticker: str, definition: Definition, report: Callable[[str], None]) -> None:
        self.continuous = definition.sma_continuous
        self._report = report
        self.series = tuple(Series(ticker, name, definition) for name in TIMEFRAME_MS)
        self.day_ms = -1  # New York midnight of the current day
        self.reset_ms = 0  # when the day or the segment turns
        self.last_ms = -1  # start of the last minute
        self.openings: dict[int, list[Any]] = {}  # day -> averages with which it began
        self.source: Source = "stream"
        self.revision = 0

    def add(self, bar: Bar | HistoryBar) -> list[Candle]:
        """Take the next minute, later than all before; return the candles that closed by it.

        Raises CalendarError, unchanged, outside the calendar.
        """
        ts_ms = bar.ts_ms
        anchor = anchor_at(ts_ms) if ts_ms >= self.reset_ms else None
        closed = self._close(bucket_end_ms_max=ts_ms)
        if anchor is not None:
            self._turn(anchor)
        self.last_ms = ts_ms
        for series in self.series:
            if not series.add(bar):
                self._report("late_minute")
        return closed + self._close(bucket_end_ms_max=ts_ms + _MINUTE_MS)

    def close_by_clock(self, clock_ms: int) -> list[Candle]:
        """Close the buckets whose end lies a grace behind the broker's time."""
        return self._close(bucket_end_ms_max=clock_ms - CLOSE_GRACE_MS)

    def close_all(self) -> list[Candle]:
        """Close every bucket: the day is over."""
        return [s.close(self.source, self.revision) for s in self.series if s.bucket is not None]

    def turn(self, day_ms: int) -> None:
        """Enter a New York day, given by its midnight."""
        self._turn(anchor_at(day_ms))
        self.last_ms = max(self.last_ms, day_ms - 1)

    def begin(self, day_ms: int, openings: dict[int, list[Any]]) -> None:
        """Start a day on a new book, with the averages that the day began with if they are known.

        `openings` are those of the ticker; this book goes on keeping them.
        """
        self.openings = openings
        if self.continuous and day_ms in openings:
            for series, state in zip(self.series, openings[day_ms], strict=True):
                series.set_averages(state)
        self.turn(day_ms)

    def hand_on(self) -> None:
        """Let the next known day begin with what this one ends with."""
        later = [day_ms for day_ms in self.openings if day_ms > self.day_ms]
        if later:
            self.openings[min(later)] = self.averages()

    def averages(self) -> list[Any]:
        """Return the averages of all series."""
        return [series.averages() for series in self.series]

    def snapshot(self) -> list[Any]:
        """Return the whole state; a book is kept between History frames only, when it is live."""
        return [
            self.day_ms, self.reset_ms, self.last_ms,
            [series.snapshot() for series in self.series], sorted(self.openings.items()),
        ]  # fmt: skip

    def restore(self, state: Sequence[Any]) -> None:
        """Take up a state that `snapshot` gave; nothing mutable is shared with it."""
        self.day_ms, self.reset_ms, self.last_ms, series, openings = state
        for mine, its in zip(self.series, series, strict=True):
            mine.restore(its)
        self.openings = dict(openings)

    def _turn(self, anchor: Anchor) -> None:
        """Enter a day or a segment: averages and VWAP start anew as defined."""
        new_day = anchor.day_ms != self.day_ms
        self.day_ms, self.reset_ms = anchor
        for series in self.series:
            series.vwap.reset()
            if new_day and not self.continuous:
                series.set_averages(None)
        if new_day and self.continuous:
            self._remember_opening(anchor.day_ms, self.averages())

    def _close(self, *, bucket_end_ms_max: int) -> list[Candle]:
        return [
            series.close(self.source, self.revision)
            for series in self.series
            if series.bucket is not None and series.bucket.end_ms <= bucket_end_ms_max
        ]

    def _remember_opening(self, day_ms: int, averages: list[Any]) -> None:
        self.openings[day_ms] = averages
        while len(self.openings) > OPENINGS_MAX:
            del self.openings[min(self.openings)]
