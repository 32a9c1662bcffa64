"""Minute bars of one ticker: each published once, in order, and whatever is missing named.

The rules:

- a bar later than the last published one is published; an equal repeat is dropped; anything else
  (different, older, late, or known to be lost by the broker's own numbering) needs price history;
- minutes that may be missing are open gaps, one for each trading day, until a history that covers
  them was published: those of a time without a connection, those that the broker's numbering
  skips, and a minute with trades whose bar does not come. Minutes without a trade have no bar: a
  covered gap in which nothing was traded has nothing to be filled with, and says so. In minutes
  that are closed by the broker's word none is missing (`closures`);
- a session that is over is held against the broker's history once more, and nothing is published
  that says what was published already, see `differs`;
- a history never takes back a minute that was published, unless the broker's own history shows
  another value for it, and never says less than what was published for the day.

The last few published bars are kept, because price history lags behind the stream; of the last days
only a digest is, by which a history that says nothing new is recognised (`days.Days`).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from libs.common import calendar
from libs.common.events import SESSION_CHECK, Bar, Gap, GapReason, GapState, History, HistoryBar
from services.ingest.checked import CheckedDays
from services.ingest.closures import ClosedMinutes, Closures
from services.ingest.days import Days
from services.ingest.level_one import FUTURE_MS_MAX
from services.ingest.wire import BadItem, ChartItem

__all__ = ["CLOSE_GRACE_MS", "HISTORY_DAYS_MAX", "MINUTE_MS", "Minutes"]

MINUTE_MS = 60_000
CLOSE_GRACE_MS = 15_000  # a bar this long after its minute is late
HISTORY_DAYS_MAX = 45  # how far back the broker keeps minutes
SETTLED_MS = 120_000  # older minutes in the broker's history are final
RECENT_BARS_MAX = 6


class Minutes:
    """What was published for one ticker, and what is still missing."""

    __slots__ = (
        "_asked_ms",
        "_closures",
        "_empty",
        "_first",
        "_recent",
        "_seq",
        "_until_ms",
        "checked",
        "day_count",
        "day_ms",
        "days",
        "expected_ms",
        "flowing",
        "gaps",
        "last_ms",
        "shut",
        "ticker",
    )

    def __init__(self, ticker: str, closures: Closures | None = None) -> None:
        self.ticker = ticker
        self._closures = closures or Closures()
        self.shut = ClosedMinutes(ticker, self._closures)  # what was said of them for this ticker
        self.last_ms = 0  # start of the last published minute
        self.day_ms = 0  # New York midnight of that minute
        self.day_count = 0  # minutes published of that day
        self.checked = CheckedDays()
        self.expected_ms = 0  # end of a minute that should have a bar, by its ticks
        self.gaps: dict[int, Gap] = {}  # open, by New York midnight
        self.days = Days()  # what was published of the last days
        self.flowing = False  # whether the stream brings bars at the moment
        self._recent: list[HistoryBar] = []
        self._empty: dict[int, Gap] = {}  # closed as empty by a history that may have lagged
        self._asked_ms = 0
        self._seq: int | None = None
        self._until_ms = 0  # end of what the last interruption covers
        self._first = False  # whether no bar has come since then

    @property
    def recent(self) -> tuple[HistoryBar, ...]:
        """The last published bars, ascending."""
        return tuple(self._recent)

    # -- the stream --

    def take(self, item: ChartItem, sent_ms: int) -> tuple[list[Bar | Gap], str]:
        """Judge one bar: what to publish, and a word for what it was ("" for an ordinary bar).

        Every word but "duplicate_bar" calls for a history of the bar's day. Raises BadItem when
        the minute is not over yet at `sent_ms`.
        """
        end_ms = item.ts_ms + MINUTE_MS
        if end_ms > sent_ms + FUTURE_MS_MAX:
            raise BadItem("future_time")
        bar = HistoryBar(item.ts_ms, item.open, item.high, item.low, item.close, item.volume)
        lost = self._count(item.seq) or self._is_late_first(item)
        if item.ts_ms <= self.last_ms:
            if bar in self._recent:
                return [], "duplicate_bar"
            known = any(other.ts_ms == item.ts_ms for other in self._recent)
            return [], "different_bar" if known else "older_bar"
        events: list[Bar | Gap] = []
        if lost and self.last_ms:
            from_ms = self.last_ms + MINUTE_MS
            if self._first:
                from_ms = max(from_ms, self._until_ms)
            events += self._missing(from_ms, item.ts_ms, "missing_bar")
        self._first = False
        self._publish(bar)
        events.append(
            Bar(self.ticker, "1m", bar.ts_ms, bar.open, bar.high, bar.low, bar.close, bar.volume)
        )
        late = self._is_late(bar, sent_ms)
        return events, "missing_bar" if lost else "late_bar" if late else ""

    def traded(self, ts_ms: int) -> None:
        """Expect a bar for the minute of a trade, unless an earlier one is still expected."""
        end_ms = ts_ms - ts_ms % MINUTE_MS + MINUTE_MS
        if self.flowing and self.expected_ms <= self.last_ms + MINUTE_MS < end_ms:
            self.expected_ms = end_ms

    def overdue(self, broker_ms: int) -> list[Gap]:
        """Open a gap, once, for a minute with trades that has no bar although its time is over."""
        if not self.expected_ms or broker_ms < self.expected_ms + CLOSE_GRACE_MS:
            return []
        if self.expected_ms <= self.last_ms + MINUTE_MS:
            self.expected_ms = 0
            return []
        if self.expected_ms == self._asked_ms:
            return []
        self._asked_ms = self.expected_ms
        return self._missing(self.expected_ms - MINUTE_MS, self.expected_ms, "overdue_bar")

    # -- gaps --

    def stopped(self) -> None:
        """The connection is gone: until bars flow again, none is to be expected."""
        self.flowing = False
        self.expected_ms = 0

    def left(self, broker_ms: int) -> list[Gap]:
        """Nobody asks for bars any more: that of the running minute does not come."""
        if not self.flowing:
            return []
        end_ms = broker_ms - broker_ms % MINUTE_MS + MINUTE_MS
        return self._missing(
            max(self.last_ms + MINUTE_MS, end_ms - 2 * MINUTE_MS), end_ms, "removed"
        )

    def flows(self, broker_ms: int, cause: str) -> list[Gap]:
        """Bars flow from now on: the minutes since `interrupted` may be missing too.

        Returns the gaps that this opens or widens, even if some of these minutes came already:
        before the broker said so, nobody knows which.
        """
        self.flowing = True
        from_ms, self._until_ms = self._until_ms, broker_ms - broker_ms % MINUTE_MS
        return self._missing(from_ms, self._until_ms, cause)

    def interrupted(self, broker_ms: int, cause: str) -> list[Gap]:
        """Open a gap for every trading day from the last published minute up to now.

        The first time of all that is the session before today's, for its close and for something to
        look at when markets are closed, and the day so far. Returns all gaps that are open, also
        those of earlier interruptions, plus what lies too far back ever to be filled, and
        what is closed.
        """
        self._seq = None
        self._first = True
        now_ms = self._until_ms = broker_ms - broker_ms % MINUTE_MS
        start_ms = self.last_ms + MINUTE_MS if self.last_ms else _session_before_ms(now_ms)
        horizon_ms = now_ms - HISTORY_DAYS_MAX * 86_400_000
        lost = []
        if start_ms < horizon_ms:
            gap_id = f"{self.ticker}:bars:{start_ms}"
            lost = [
                Gap(gap_id, self.ticker, "bars", start_ms, horizon_ms, cause, "unfillable",
                    "beyond_history")
            ]  # fmt: skip
            start_ms = horizon_ms - horizon_ms % MINUTE_MS
        self._missing(start_ms, now_ms, cause)
        return lost + self.shut.news(start_ms) + list(self.gaps.values())

    def reopen(self, gap: Gap) -> None:
        """Take up an open gap again, as it was published."""
        self.gaps[calendar.day_start_ms(gap.from_ms)] = gap

    def closed(self, day_ms: int, state: GapState, reason: GapReason = "") -> list[Gap]:
        """Close the day's gap, if any, as filled or unfillable; returns what to publish."""
        gap = self.gaps.pop(day_ms, None)
        if (
            gap is not None
            and state == "unfillable"
            and self._closures.cover(gap.from_ms, gap.to_ms)
        ):
            reason = "closed"
        return [] if gap is None else [structs.replace(gap, state=state, reason=reason)]

    def covered(
        self, day_ms: int, bars: tuple[HistoryBar, ...], reason: GapReason, *, doubtful: bool
    ) -> list[Gap]:
        """Close the day's gap by a history that covers it; `reason` is for one without any bar.

        A history that is `doubtful` may still get bars there; when they come, the gap is filled.
        """
        gap = self.gaps.get(day_ms) or self._empty.get(day_ms)
        if gap is None:
            return []
        if any(gap.from_ms <= bar.ts_ms < gap.to_ms for bar in bars):
            self._empty.pop(day_ms, None)
            self.gaps[day_ms] = gap
            return self.closed(day_ms, "filled")
        if doubtful:
            self._empty[day_ms] = gap
        else:
            self._empty.pop(day_ms, None)
        return self.closed(day_ms, "unfillable", reason)

    def withdraw(self, bar: Bar) -> None:
        """Forget a bar that could not be published; the next interruption will miss it."""
        self._recent = [known for known in self._recent if known.ts_ms < bar.ts_ms]
        if bar.ts_ms <= self.last_ms:
            self.last_ms = bar.ts_ms - MINUTE_MS
            self.day_count = max(0, self.day_count - 1)
            self.days.withdraw(calendar.day_start_ms(bar.ts_ms), _plain(bar))

    def withdraw_history(self, history: History, cause: str) -> None:
        """Open a gap for a history that could not be published."""
        self.days.forget(history.day_ms)
        first_ms, end_ms = history.bars[0].ts_ms, history.bars[-1].ts_ms + MINUTE_MS
        if history.day_ms not in self.gaps:
            gap_id = f"{self.ticker}:bars:{first_ms}"
            self.reopen(Gap(gap_id, self.ticker, "bars", first_ms, end_ms, cause, "open"))

    # -- history --

    def merge(
        self, day_ms: int, candles: list[HistoryBar], asked_ms: int
    ) -> tuple[HistoryBar, ...] | None:
        """Return the complete day so far, or None when the broker's history is not there yet.

        `candles` ascend and belong to the day; `asked_ms` is broker time when they were requested.
        """
        end_ms = self._reach_ms(day_ms, asked_ms)
        bars = {candle.ts_ms: candle for candle in candles if candle.ts_ms < end_ms}
        gap = self.gaps.get(day_ms)
        if gap is not None and asked_ms < gap.to_ms + CLOSE_GRACE_MS and not _reaches(gap, candles):
            return None
        for bar in self._recent:
            settled = asked_ms - bar.ts_ms >= SETTLED_MS and bar.ts_ms in bars
            if not settled and calendar.day_start_ms(bar.ts_ms) == day_ms:
                bars[bar.ts_ms] = bar
        if day_ms == self.day_ms and len(bars) < self.day_count:
            return None
        return tuple(bars[ts_ms] for ts_ms in sorted(bars))

    def doubtful_until_ms(self, day_ms: int, candles: list[HistoryBar], asked_ms: int) -> int:
        """Return when to look once more, because the end of the gap was empty; 0 for never.

        Nothing was traded there, or the broker's history lags.
        """
        gap = self.gaps.get(day_ms)
        if gap is None or _reaches(gap, candles) or asked_ms >= gap.to_ms + SETTLED_MS:
            return 0
        return gap.to_ms + SETTLED_MS

    def published(self, day_ms: int, bars: tuple[HistoryBar, ...]) -> None:
        """Note that a history of the day was published."""
        self.days.replace(day_ms, bars)
        if not bars or day_ms < self.day_ms:
            return
        self.day_ms, self.day_count = day_ms, len(bars)
        self.last_ms = max(self.last_ms, bars[-1].ts_ms)
        self._recent = list(bars[-RECENT_BARS_MAX:])
        self.expected_ms = 0

    def recall(
        self,
        last_ms: int,
        day_ms: int,
        day_count: int,
        recent: tuple[HistoryBar, ...],
        gaps: tuple[Gap, ...],
        days: Sequence[int] = (),
        checked: CheckedDays | None = None,
    ) -> None:
        """Take up what an earlier life had published and what it missed."""
        self.last_ms, self.day_ms, self.day_count = last_ms, day_ms, day_count
        self.days.unpack(days)
        self.checked = checked or CheckedDays()
        self._recent = list(recent)
        for gap in gaps:
            self.reopen(gap)

    def repeat(self, bar: Bar, broker_ms: int) -> None:
        """Note a bar that an earlier life published; knowing it already is no harm."""
        if bar.ts_ms > self.last_ms:
            self._publish(_plain(bar))
            self._is_late(_plain(bar), broker_ms)

    # -- sessions that are over --

    def differs(self, day_ms: int, bars: tuple[HistoryBar, ...]) -> bool:
        """Whether these minutes are others than those published for the day.

        Of a day that is too old to be known any minute counts as different.
        """
        return bool(bars) and not self.days.equal(day_ms, bars)

    def unnoticed(self, day_ms: int, bars: tuple[HistoryBar, ...]) -> list[Gap]:
        """Name minutes that history has, that never came, and that nobody had missed until now.

        Behind the last published one they are known. Before it only their number is, so that the
        whole stretch is named.
        """
        if day_ms != self.day_ms or day_ms in self.gaps or not bars:
            return []
        known = [bar.ts_ms for bar in bars if bar.ts_ms <= self.last_ms]
        behind = [bar.ts_ms for bar in bars if bar.ts_ms > self.last_ms]
        stretches = [known] if len(known) > self.day_count else []
        stretches += [behind] if behind else []
        return [
            Gap(f"{self.ticker}:unnoticed:{times[0]}", self.ticker, "bars", times[0],
                times[-1] + MINUTE_MS, "unnoticed", "filled")
            for times in stretches
        ]  # fmt: skip

    def check(self, session: calendar.Session, bars: tuple[HistoryBar, ...] | None) -> Gap:
        """Note that a session was held against these bars; returns what to publish.

        None: there is no history of it, and never will be.
        """
        self.checked.add(session.day)
        start_ms, end_ms = session.pre_open_ms, session.post_close_ms
        check = Gap(
            f"{self.ticker}:session:{start_ms}", self.ticker, "bars", start_ms, end_ms,
            SESSION_CHECK, "filled",
        )  # fmt: skip
        if bars is None:
            return structs.replace(check, state="unfillable", reason="no_history")
        count = sum(start_ms <= bar.ts_ms < end_ms for bar in bars)
        return structs.replace(check, bars=count)

    def _reach_ms(self, day_ms: int, asked_ms: int) -> int:
        """Return where a history of the day ends: behind what was published and what is missing.

        Fresh minutes beyond that are left to the stream, so that their candles come out live.
        """
        next_day_ms = calendar.day_bounds_ms(calendar.day_of(day_ms))[1]
        session = calendar.session_at(day_ms)
        trading_ends_ms = next_day_ms if session is None else session.post_close_ms
        if asked_ms >= min(next_day_ms, trading_ends_ms + SETTLED_MS):
            return next_day_ms
        gap = self.gaps.get(day_ms) or self._empty.get(day_ms)
        is_overdue = asked_ms >= self.expected_ms + CLOSE_GRACE_MS
        ends = [
            self.last_ms + MINUTE_MS,
            self.expected_ms if is_overdue else 0,
            gap.to_ms if gap is not None else 0,
        ]
        return min(max(ends), next_day_ms)

    def _is_late_first(self, item: ChartItem) -> bool:
        """Whether the first bar after an interruption leaves minutes out.

        The broker's count has no beginning then, so it cannot say whether one was lost.
        """
        return self._first and item.ts_ms > max(self._until_ms, self.last_ms + MINUTE_MS)

    def _is_late(self, bar: HistoryBar, at_ms: int) -> bool:
        """Whether a bar comes after its longer candles may have been closed by the clock.

        Only a History brings it into those. So the day counts as unknown, and the next history is
        published although it holds the same minutes.
        """
        late = at_ms > bar.ts_ms + MINUTE_MS + CLOSE_GRACE_MS
        if late:
            self.days.forget(calendar.day_start_ms(bar.ts_ms))
        return late

    def _count(self, seq: int | None) -> bool:
        """Follow the broker's count of bars; True when it skipped one."""
        before, self._seq = self._seq, seq if seq is not None else self._seq
        if seq is None or before is None:
            return False
        self._seq = max(before, seq)
        return seq > before + 1

    def _publish(self, bar: HistoryBar) -> None:
        day_ms = calendar.day_start_ms(bar.ts_ms)
        if day_ms != self.day_ms:
            self.day_ms, self.day_count = day_ms, 0
        self.days.append(day_ms, bar)
        self.day_count += 1
        self.last_ms = bar.ts_ms
        self._recent.append(bar)
        del self._recent[:-RECENT_BARS_MAX]

    def _missing(self, from_ms: int, to_ms: int, cause: str) -> list[Gap]:
        """Open or widen one gap for each trading day of [from, to); returns those it touched."""
        touched = []
        for session in calendar.sessions(calendar.day_of(from_ms), calendar.day_of(to_ms)):
            start_ms = max(from_ms, session.pre_open_ms)
            end_ms = min(to_ms, session.post_close_ms)
            start_ms, end_ms = self._closures.open_part(start_ms, end_ms)
            if start_ms < end_ms:
                day_ms = calendar.day_start_ms(start_ms)
                gap = self.gaps[day_ms] = self._widened(day_ms, start_ms, end_ms, cause)
                touched.append(gap)
        return touched

    def _widened(self, day_ms: int, from_ms: int, to_ms: int, cause: str) -> Gap:
        known = self.gaps.get(day_ms)
        if known is not None:
            start_ms, end_ms = known.from_ms, max(known.to_ms, to_ms)
            return Gap(known.id, self.ticker, "bars", start_ms, end_ms, known.cause, "open")
        return Gap(
            f"{self.ticker}:bars:{from_ms}", self.ticker, "bars", from_ms, to_ms, cause, "open"
        )


def _session_before_ms(now_ms: int) -> int:
    return calendar.previous_session(calendar.day_of(now_ms)).pre_open_ms


def _reaches(gap: Gap, candles: list[HistoryBar]) -> bool:
    """Whether the gap's last minute is there: then nothing before it is still to come."""
    return bool(candles) and candles[-1].ts_ms >= gap.to_ms - MINUTE_MS


def _plain(bar: Bar) -> HistoryBar:
    return HistoryBar(bar.ts_ms, bar.open, bar.high, bar.low, bar.close, bar.volume)
