"""Unexplained minutes: those without a stored candle of which nobody can say why.

The number that this counts is 0 when every minute of every session since the first start is
accounted for. A minute of a ticker's session counts when it has no stored 1m candle and

- its session was held against price history (`session_checks`), which has a bar for it. Compared
  are numbers, price history's and the table's, so a row that vanishes later is found, too;
- or its session has been over for hours and was never held against price history, and no gap
  covers the minute;
- or ticks with volume are stored for it, it is some minutes old, its session has not been checked
  yet, and no gap covers it. This is what can be known while the market is open: whether minutes
  without a tick had no trade is said by price history afterwards.

Gaps count as explanation whatever became of them. Nothing is counted before a ticker's first gap,
which its first start lists. Each round looks at the running session, at the last one that is over,
and at one more; each minute once, and again as long as it stands open.

What is asked of the database are functions of its own, the same for every way in.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable

from libs.common import calendar
from libs.common.runner import Runtime
from services.writer.settings import Settings
from services.writer.stored import Minute, StoredRows, moment

__all__ = ["UnexplainedMinutes"]

UNCHECKED_MS_MAX = 2 * 3_600_000  # so long after its end a session should have been checked
LIVE_GRACE_MS = 300_000  # bars, their gap, and the candles that wait for it take less
_LIVE_REACH_MS = 3_600_000
_MINUTE_MS = 60_000
_TOLD_MAX = 10


class UnexplainedMinutes:
    """Counts them, round by round; `broker_now` turns the wall clock's time into the broker's."""

    def __init__(self, runtime: Runtime[Settings], broker_now: Callable[[int], int | None]) -> None:
        self._clock = runtime.clock
        self._log = runtime.log
        self._broker_now = broker_now
        self._gauge = runtime.metrics.gauge(
            "writer_unexplained_minutes", "Minutes of tickers without a candle and without a reason"
        )
        self._looked_at = runtime.metrics.gauge(
            "writer_unexplained_sessions", "Sessions that were looked through for such minutes"
        )
        self.forget()

    def forget(self) -> None:
        """Begin anew: somebody else counts."""
        self._first_ms: int | None = None
        self._sessions: dict[dt.date, Counter[str]] = {}
        self._open: set[Minute] = set()
        self._seen_ms = 0
        self._round_ms: int | None = None
        self._told: Counter[str] = Counter()
        self._gauge.set(0)
        self._looked_at.set(0)

    @property
    def found(self) -> Counter[str]:
        """How many minutes of each ticker are unexplained."""
        total = Counter(ticker for ticker, _ in self._open)
        for each in self._sessions.values():
            total += each
        return total

    async def round(self, stored: StoredRows) -> None:
        """Look once more; raises StoreUnavailable."""
        broker_ms = self._broker_now(self._clock.now_ms())
        if broker_ms is None:
            return
        if self._first_ms is None:
            self._first_ms = await stored.first_gap_ms()
            if self._first_ms is None:
                return  # nothing was ever subscribed
        for session in self._next(self._first_ms, broker_ms):
            over = broker_ms >= session.post_close_ms + UNCHECKED_MS_MAX
            self._sessions[session.day] = await stored.session_minutes(
                session.pre_open_ms, session.post_close_ms, over=over
            )
        await self._look_at_trades(stored, broker_ms)
        self._looked_at.set(len(self._sessions))
        self._gauge.set(self.found.total())
        self._tell()

    def _next(self, first_ms: int, broker_ms: int) -> list[calendar.Session]:
        """Return the newest two sessions, and the one that was not looked at for the longest."""
        known = calendar.sessions(calendar.day_of(first_ms), calendar.day_of(broker_ms))
        begun = [each for each in known if each.pre_open_ms <= broker_ms]
        newest, older = begun[-2:], begun[:-2]
        if older:
            turn = {day: place for place, day in enumerate(self._sessions)}
            oldest = min(older, key=lambda each: turn.get(each.day, -1))
            self._sessions[oldest.day] = self._sessions.pop(oldest.day, Counter())  # to the end
            newest = [oldest, *newest]
        return newest

    async def _look_at_trades(self, stored: StoredRows, broker_ms: int) -> None:
        """What is judged was old enough in the round before, however fast the market's time is."""
        before_ms, self._round_ms = self._round_ms, broker_ms
        if before_ms is None:
            return
        until_ms = (before_ms - LIVE_GRACE_MS) // _MINUTE_MS * _MINUTE_MS
        if self._open:
            self._open = await stored.open_minutes(self._open)
        since_ms = max(self._seen_ms, until_ms - _LIVE_REACH_MS)
        if since_ms < until_ms:
            found = await stored.traded_minutes(since_ms, until_ms)
            closed = calendar.Segment.CLOSED
            self._open |= {each for each in found if calendar.segment_at(each[1]) is not closed}
            self._seen_ms = until_ms

    def _tell(self) -> None:
        found = self.found
        if found == self._told:
            return
        self._told = found
        if not found:
            self._log.info("minutes.explained", sessions=len(self._sessions))
            return
        places = {
            f"{day:%Y-%m-%d}": dict(each.most_common(_TOLD_MAX))
            for day, each in sorted(self._sessions.items())
            if each
        }
        traded = [f"{ticker} {moment(ts_ms):%Y-%m-%d %H:%M}Z" for ticker, ts_ms in self._open]
        self._log.error(
            "minutes.unexplained",
            minutes=found.total(),
            sessions=dict(list(places.items())[-_TOLD_MAX:]),
            traded=sorted(traded)[:_TOLD_MAX],
        )
