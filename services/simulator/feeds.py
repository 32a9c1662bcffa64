"""The data services of the streamer: subscriptions in, items out, at instants that depend on
virtual time alone.

A `Feed` serves one connection and one service. `due_ms` says when it has something to say next,
`emit` says it; nothing is ever skipped when the caller is late. To add a service, write its feed
and put it into the table that `service` hands to the streamer.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Protocol

from libs.common import calendar
from services.simulator.level_one import (
    FIELD_NUMBERS,
    IMAGE_EXTRAS,
    Value,
    changed,
    fields,
    statics,
)
from services.simulator.market import MINUTE_MS, DayBars, Market, MinuteBar, session_of
from services.simulator.tape import NEVER_MS, Tape, next_reset_ms

__all__ = ["ChartFeed", "Feed", "Item", "LevelOneFeed", "bar_sent_ms", "flush_after_ms"]

Item = dict[str, Value]

_CYCLE_MS = 875
_CYCLE_JITTER_MS = 62
_CLOSED_IMAGE_MS = 183_000
_BAR_DELAY_MIN_MS = 2_000
_BAR_DELAY_SPREAD_MS = 1_400
_SEVEN_MS = 7 * 3_600_000
_DAY_MS = 86_400_000


class Feed(Protocol):
    """One service for one connection; times are virtual epoch milliseconds."""

    @property
    def keys(self) -> Iterable[str]:
        """The subscribed symbols, in the order they came."""
        ...

    @property
    def fields_max(self) -> int:
        """The highest field number of the service."""
        ...

    def subscribe(self, keys: list[str], fields: tuple[int, ...], at_ms: int) -> list[Item]:
        """Add symbols and choose the fields of the whole service; return the images."""
        ...

    def unsubscribe(self, keys: Iterable[str]) -> None:
        """Remove symbols; unknown ones are no error."""
        ...

    def view(self, fields: tuple[int, ...]) -> None:
        """Change the fields of the whole service."""
        ...

    def due_ms(self, position_ms: int) -> int:
        """Return when `emit` wants to be called next."""
        ...

    def emit(self, at_ms: int) -> list[Item]:
        """Return everything that happened up to `at_ms` and was not emitted yet."""
        ...


def _noise(number: int, salt: int) -> int:
    """Return a well-mixed 32-bit number for a number."""
    mixed = (number * 0x9E3779B97F4A7C15 + salt * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed ^= mixed >> 31
    return (mixed * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF) >> 32


def _cycle_end_ms(number: int) -> int:
    jitter_ms = _noise(number, 1) % (2 * _CYCLE_JITTER_MS + 1) - _CYCLE_JITTER_MS
    return number * _CYCLE_MS + jitter_ms


def flush_after_ms(ts_ms: int) -> int:
    """Return the first end of a conflation cycle (751 to 999 ms long) at or after an instant.

    The volume reset has cycles of its own, so that it never shares a delta with a trade.
    """
    number = ts_ms // _CYCLE_MS
    end_ms = next(end for n in range(number, number + 3) if (end := _cycle_end_ms(n)) >= ts_ms)
    reset_ms = next_reset_ms(ts_ms - 1)
    return min(end_ms, reset_ms - 1 if ts_ms < reset_ms else reset_ms)


def bar_sent_ms(bar_ts_ms: int) -> int:
    """Return when the bars of a minute are sent: 2.0 to 3.4 s after its end, mostly about 2.5 s."""
    minute = bar_ts_ms // MINUTE_MS
    spread = (_noise(minute, 2) & 0xFFFF) / 65_536
    late = (_noise(minute, 3) & 0xFFFF) / 65_536
    return bar_ts_ms + MINUTE_MS + _BAR_DELAY_MIN_MS + int(_BAR_DELAY_SPREAD_MS * spread * late)


class LevelOneFeed:
    """LEVELONE_EQUITIES: a full image first, then what changed, conflated over a cycle.

    While the market is closed the images come again every three minutes, unasked.
    """

    fields_max = FIELD_NUMBERS[-1]

    def __init__(self, market: Market) -> None:
        self._market = market
        self._tapes: dict[str, Tape | None] = {}
        self._sent: dict[str, dict[int, Value]] = {}
        self._wanted: tuple[int, ...] = ()
        self._image_ms = NEVER_MS

    @property
    def keys(self) -> Iterable[str]:
        """The subscribed symbols."""
        return self._tapes.keys()

    def subscribe(self, keys: list[str], fields: tuple[int, ...], at_ms: int) -> list[Item]:
        """Add symbols; unknown ones count, but never say anything."""
        self._wanted = fields
        for key in keys:
            known = self._market.knows(key)
            self._tapes[key] = Tape(self._market, key, at_ms) if known else None
            if not known:
                continue
            self._sent[key] = {}
        self._image_ms = _closed_image_ms(at_ms)
        return [self._image(key) for key in keys if key in self._sent]

    def unsubscribe(self, keys: Iterable[str]) -> None:
        """Remove symbols."""
        for key in keys:
            self._tapes.pop(key, None)
            self._sent.pop(key, None)

    def view(self, fields: tuple[int, ...]) -> None:
        """Change the fields; values of new ones follow as they change."""
        self._wanted = fields

    def due_ms(self, position_ms: int) -> int:
        """Return the end of the cycle in which the next symbol changes."""
        first_ms = min(
            (tape.next_ms for tape in self._tapes.values() if tape is not None), default=NEVER_MS
        )
        if first_ms == NEVER_MS:
            return NEVER_MS
        if self._image_ms < position_ms:
            self._image_ms = _closed_image_ms(position_ms)
        return min(flush_after_ms(max(first_ms, position_ms)), self._image_ms)

    def emit(self, at_ms: int) -> list[Item]:
        """Return the changes of all symbols, or images when it is time for them."""
        moved = [
            key for key, tape in self._tapes.items() if tape is not None and tape.advance(at_ms)
        ]
        if at_ms == self._image_ms:
            self._image_ms = _closed_image_ms(at_ms + 1)
            return [self._image(key) for key in self._sent]
        return [item for key in moved if len(item := self._delta(key)) > 1]

    def _image(self, key: str) -> Item:
        state = self._now(key)
        self._sent[key] = state
        return {
            "key": key,
            **IMAGE_EXTRAS,
            "cusip": _cusip(key),
            **changed({}, state, self._wanted),
        }

    def _delta(self, key: str) -> Item:
        state = self._now(key)
        item: Item = {"key": key, **changed(self._sent[key], state, self._wanted)}
        self._sent[key] = state
        return item

    def _now(self, key: str) -> dict[int, Value]:
        tape = self._tapes[key]
        assert tape is not None
        still = statics(self._market.description(key), tape.snapshot.close or tape.snapshot.last)
        return still | fields(tape.snapshot)


class ChartFeed:
    """CHART_EQUITY: every minute bar once, shortly after its minute ended.

    With `image` a subscription is answered with the last bar sent, as an image.
    """

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


def _closed_image_ms(from_ms: int) -> int:
    """Return the next instant at which images are sent because the market is closed."""
    candidate_ms = -(-from_ms // _CLOSED_IMAGE_MS) * _CLOSED_IMAGE_MS
    if calendar.segment_at(candidate_ms) is calendar.Segment.CLOSED:
        return candidate_ms
    found = session_of(calendar.day_of(candidate_ms))
    return -(-found.post_close_ms // _CLOSED_IMAGE_MS) * _CLOSED_IMAGE_MS


def _cusip(key: str) -> str:
    return f"{_noise(sum(map(ord, key)) * 131 + len(key), 4) % 1_000_000_000:09d}"
