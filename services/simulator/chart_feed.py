"""CHART_EQUITY: every minute bar once, shortly after its minute ended."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from libs.common import calendar
from services.simulator.feeds import Item, mixed
from services.simulator.level_one import Value, changed
from services.simulator.market import MINUTE_MS, DayBars, Market, MinuteBar
from services.simulator.tape import NEVER_MS

__all__ = ["ChartFeed", "bar_sent_ms"]

_BAR_DELAY_MIN_MS = 2_000
_BAR_DELAY_SPREAD_MS = 1_400
_SEVEN_MS = 7 * 3_600_000


def bar_sent_ms(bar_ts_ms: int) -> int:
    """Return when the bars of a minute are sent: 2.0 to 3.4 s after its end, mostly about 2.5 s."""
    minute = bar_ts_ms // MINUTE_MS
    spread = (mixed(minute, 2) & 0xFFFF) / 65_536
    late = (mixed(minute, 3) & 0xFFFF) / 65_536
    return bar_ts_ms + MINUTE_MS + _BAR_DELAY_MIN_MS + int(_BAR_DELAY_SPREAD_MS * spread * late)


class ChartFeed:
    """Implements `Feed`; with `image` a subscription is answered with the last bar sent."""

    fields_max = 8

    def __init__(self, market: Market, *, image: bool = False) -> None:
        self._market = market
        self._cursors: dict[str, _BarCursor | None] = {}
        self._wanted: tuple[int, ...] = ()
        self._with_image = image

    @property
    def keys(self) -> Iterable[str]:
        """The subscribed symbols."""
        return self._cursors.keys()

    def subscribe(self, keys: list[str], fields: tuple[int, ...], at_ms: int) -> list[Item]:
        """Add symbols; bars sent before `at_ms` are past."""
        self._wanted = fields
        images = []
        for key in keys:
            cursor = _BarCursor(self._market, key, at_ms) if self._market.knows(key) else None
            self._cursors[key] = cursor
            if self._with_image and cursor is not None and cursor.last is not None:
                images.append(self._item(key, *cursor.last))
        return images

    def unsubscribe(self, keys: Iterable[str]) -> None:
        """Remove symbols."""
        for key in keys:
            self._cursors.pop(key, None)

    def view(self, fields: tuple[int, ...]) -> None:
        """Change the fields."""
        self._wanted = fields

    def due_ms(self, position_ms: int) -> int:
        """Return when the next bar is sent."""
        return min(
            (cursor.next_ms for cursor in self._cursors.values() if cursor is not None),
            default=NEVER_MS,
        )

    def emit(self, at_ms: int) -> list[Item]:
        """Return the bars that are due."""
        return [
            self._item(key, number, bar)
            for key, cursor in self._cursors.items()
            if cursor is not None
            for number, bar in cursor.take(at_ms)
        ]

    def _item(self, key: str, number: int, bar: MinuteBar) -> Item:
        since_seven = (bar.ts_ms - calendar.day_start_ms(bar.ts_ms) - _SEVEN_MS) // MINUTE_MS
        day = calendar.day_of(bar.ts_ms) - dt.date(1970, 1, 1)
        values: dict[int, Value] = {
            1: since_seven,
            2: bar.open,
            3: bar.high,
            4: bar.low,
            5: bar.close,
            6: bar.volume,
            7: bar.ts_ms,
            8: day.days,
        }
        return {"seq": number, "key": key, **changed({}, values, self._wanted)}


class _BarCursor:
    """Where one symbol's bars stand; `last` is the bar that was sent last that day."""

    def __init__(self, market: Market, ticker: str, at_ms: int) -> None:
        self._market = market
        self._ticker = ticker
        self.last: tuple[int, MinuteBar] | None = None
        day = calendar.day_of(at_ms)
        if calendar.session(day) is None:
            day = calendar.previous_session(day).day
        self._open(day)
        for _ in self.take(at_ms):
            pass

    def take(self, at_ms: int) -> list[tuple[int, MinuteBar]]:
        """Return the bars due by `at_ms` with their numbers, and go on behind them."""
        taken = []
        while self.next_ms <= at_ms:
            if self._index < len(self._bars):
                self.last = (self._number + self._index, self._bars[self._index])
                taken.append(self.last)
                self._index += 1
            else:
                self._open(calendar.next_session(self._day).day)
            self._find()
        return taken

    def _open(self, day: dt.date) -> None:
        self._day = day
        self._bars: DayBars = self._market.bars(self._ticker, day)
        self._number = self._market.bars_before(self._ticker, day)
        self._index = 0
        self._find()

    def _find(self) -> None:
        if self._index < len(self._bars):
            self.next_ms = bar_sent_ms(self._bars.ts_ms[self._index])
        elif self._day.year >= calendar.LAST_DAY.year:
            self.next_ms = NEVER_MS
        else:
            self.next_ms = calendar.next_session(self._day).pre_open_ms
