"""One symbol's level one over time: where it stands at an instant, and what happens next.

Theory of operation. A trading day of level one begins at 03:30 New York, when open, high and low
are cleared and yesterday's close is set; the day's volume keeps counting on top of yesterday's
until it is reset at 07:28. The state at any instant is therefore yesterday's end, plus whole bars
up to the current minute, plus the updates of that minute: computed in a millisecond, without a
history of its own. From there a tape goes forward event by event.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right

from libs.common import calendar
from services.simulator.level_one import Snapshot
from services.simulator.market import MINUTE_MS, Market, MinuteBar, session_of
from services.simulator.ticks import Update, updates_in_bar

__all__ = ["NEVER_MS", "Tape", "next_reset_ms"]

NEVER_MS = 1 << 62
_ROLL_MS = 12_600_000  # 03:30
_VOLUME_RESET_MS = 28 * MINUTE_MS  # after the pre-market open: 07:28


def _roll_ms(day: dt.date) -> int:
    """Return when level one turns to that session day."""
    return session_of(day).pre_open_ms - (7 * 3_600_000 - _ROLL_MS)


def _volume_reset_ms(day: dt.date) -> int:
    return session_of(day).pre_open_ms + _VOLUME_RESET_MS


def next_reset_ms(after_ms: int) -> int:
    """Return the first volume reset later than an instant."""
    found = calendar.session_at(after_ms)
    if found is None or _volume_reset_ms(found.day) <= after_ms:
        found = calendar.next_session(calendar.day_of(after_ms))
    return _volume_reset_ms(found.day)


class Tape:
    """Level one of `ticker` from `at_ms` on.

    `snapshot` is the state after everything up to the last `advance`; `next_ms` is when it changes
    next (`NEVER_MS` when it never will).
    """

    def __init__(self, market: Market, ticker: str, at_ms: int) -> None:
        self._market = market
        self._ticker = ticker
        self.snapshot = Snapshot()
        self.next_ms = NEVER_MS
        self._seek(at_ms)

    def advance(self, to_ms: int) -> bool:
        """Apply all that happens up to and including `to_ms`; tell whether anything did."""
        moved = False
        while self.next_ms <= to_ms:
            moved = True
            self._step()
        return moved

    def _seek(self, at_ms: int) -> None:
        day = calendar.day_of(at_ms)
        if calendar.session(day) is None or _roll_ms(day) > at_ms:
            day = calendar.previous_session(day).day
        self._begin(day)
        stamps_ms = self._bars.ts_ms
        done = bisect_right(stamps_ms, at_ms - MINUTE_MS)
        regular_end = bisect_left(stamps_ms, self._session.close_ms)
        for index in range(done - 1):
            self._fold(self._bars[index])
            if index == regular_end - 1:
                self._note_regular_close(self._bars[index])
        # Of the last whole minute only the updates know when it traded and how it was quoted.
        self._index = max(0, done - 1)
        if at_ms >= self._reset_ms:
            self._reset_volume()
        self._load()
        self.advance(at_ms)

    def _begin(self, day: dt.date) -> None:
        """Stand at 03:30 of a session day."""
        self._day = day
        self._session = session_of(day)
        self._bars = self._market.bars(self._ticker, day)
        self._index = 0
        self._updates: list[Update] = []
        self._place = 0
        self._reset_ms = _volume_reset_ms(day)
        self._grown = 0
        self.snapshot = self._yesterday(day)

    def _yesterday(self, day: dt.date) -> Snapshot:
        """Return how the last day with trades ended, as it reads in the morning of `day`."""
        state = Snapshot()
        before = self._market.day_before(self._ticker, day)
        if before is None:
            return state
        bars = self._market.bars(self._ticker, before)
        session = session_of(before)
        regular = [bar for bar in bars if session.open_ms <= bar.ts_ms < session.close_ms]
        closing = regular[-1] if regular else bars[-1]
        for place, update in enumerate(self._cut(closing)):
            state.apply(update, regular=True, requote=place == 0)
        if bars[-1] != closing:
            for place, update in enumerate(self._cut(bars[-1])):
                state.apply(update, regular=False, requote=place == 0)
        state.open = state.high = state.low = 0.0
        state.close = state.regular_last
        is_eve = before == calendar.previous_session(day).day
        day_volume = self._market.day_volume
        state.volume = sum(map(day_volume, bars.volume)) if is_eve else 0
        return state

    def _fold(self, bar: MinuteBar) -> None:
        """Take in a whole minute at once."""
        grown = self._market.day_volume(bar.volume)
        self._grown += grown
        self.snapshot.volume += grown
        if self._is_regular(bar.ts_ms):
            self.snapshot.extend(bar.open, bar.high, bar.low)

    def _note_regular_close(self, bar: MinuteBar) -> None:
        """Set the last regular trade, which only the minute's updates know."""
        trade = next(update for update in reversed(self._cut(bar)) if update.price is not None)
        state = self.snapshot
        state.regular_last, state.regular_size = bar.close, trade.print_size
        state.regular_trade_ms = trade.ts_ms

    def _step(self) -> None:
        if self.next_ms == self._reset_ms:
            self._reset_volume()
        elif self._place < len(self._updates):
            update = self._updates[self._place]
            regular = self._is_regular(update.ts_ms)
            # Each minute is quoted anew, so that its state does not depend on the one before.
            self.snapshot.apply(update, regular=regular, requote=self._place == 0)
            self._place += 1
            self._grown += update.size
        else:
            self._begin(calendar.next_session(self._day).day)
        self._load()

    def _reset_volume(self) -> None:
        self._reset_ms = NEVER_MS
        self.snapshot.volume = self._grown

    def _load(self) -> None:
        """Find the next event: an update, the volume reset or the next day."""
        while self._place >= len(self._updates) and self._index < len(self._bars):
            self._updates = self._cut(self._bars[self._index])
            self._index += 1
            self._place = 0
        if self._place < len(self._updates):
            following_ms = self._updates[self._place].ts_ms
        elif calendar.day_of(self._session.post_close_ms).year >= calendar.LAST_DAY.year:
            following_ms = NEVER_MS
        else:
            following_ms = _roll_ms(calendar.next_session(self._day).day)
        self.next_ms = min(following_ms, self._reset_ms)

    def _cut(self, bar: MinuteBar) -> list[Update]:
        market = self._market
        return updates_in_bar(
            bar,
            market.day_volume(bar.volume),
            market.updates_per_minute(self._ticker, bar),
            market.seed,
            self._ticker,
        )

    def _is_regular(self, ts_ms: int) -> bool:
        return self._session.open_ms <= ts_ms < self._session.close_ms
