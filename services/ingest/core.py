"""Wire frames in, market events out: what ingest knows, without any input or output.

`Core` holds the state of every ticker and answers each input with a `Step`: the events to publish
in this order, what was refused, which days of price history are wanted, and what to count. It asks
no clock: broker time is learned from what the broker sends.

Inputs: a parsed frame (`step`), the stages of a connection (`connected`, `interrupted` before bars
are asked for, `flowing` when they come), an answer of price history (`history`), what the broker
says of a day's hours (`hours`). If a step's events could not be published, `refused` takes them
back, so that what is lost is listed as a gap later.

Its durable state (`snapshot`) is small: per ticker the last tick time, the last minutes, the open
gaps. `restore` plus `replay` of the frames published since give it back after a restart.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from msgspec import structs

from libs.common import calendar
from libs.common.events import (
    MARKET_CLOSED,
    SESSION_CHECK,
    Bar,
    Clock,
    Event,
    Gap,
    GapReason,
    History,
    Tick,
)
from libs.common.subjects import partition_of
from services.ingest import wire
from services.ingest.closures import Closures, closed_spans
from services.ingest.level_one import TICK_MOVED, TICK_OUT_OF_SESSION, TICK_RESET
from services.ingest.minutes import CLOSE_GRACE_MS, HISTORY_DAYS_MAX
from services.ingest.sessions import (
    SESSION_SETTLED_MS,
    is_known,
    last_over,
    session_over,
    trading_since_ms,
)
from services.ingest.steps import REJECTS_PER_FRAME_MAX, DayAnswer, DayWanted, Step
from services.ingest.tickers import Ticker, pack_memory, unpack_memory
from services.ingest.wire import BadItem

__all__ = [
    "SESSION_SETTLED_MS",
    "TICK_MOVED",
    "TICK_OUT_OF_SESSION",
    "TICK_RESET",
    "Core",
    "DayAnswer",
    "DayWanted",
    "Step",
]

_LEAP_MS_MAX = 3_600_000
_LEAPS_BELIEVED = 3
_DAY_MS = 86_400_000
_OLD_MS_MAX = 10 * _DAY_MS
_BACK_MS_MAX = 60_000


class Core:
    """The state of all tickers; see the module for what it promises."""

    def __init__(self, tickers: Iterable[str]) -> None:
        self.broker_ms = 0
        self.epoch = 0  # of the last life whose state this is
        self._clock_ms = 0
        self._leaping: list[dict[str, Any]] = []  # frames whose stamps are far ahead, held back
        self._leap_ms = 0  # the newest stamp among them
        self._closures = Closures()
        self._tickers: dict[str, Ticker] = {}
        self._active: frozenset[str] = frozenset()  # the others only remember what was published
        self.begin(tickers)
        self._unknown_seen: set[str] = set()
        self._checks_wanted: dt.date | None = None  # the last session whose checks were asked for

    # -- inputs --

    def begin(self, tickers: Iterable[str]) -> None:
        """Take items of these tickers from now on, and of no others."""
        self._active = frozenset(tickers)
        for name in self._active:
            self._ticker(name)

    def watch(self, tickers: Iterable[str], bars: Iterable[str]) -> Step:
        """Do as `begin` does while a connection lives; bars flow of those in `bars` at most."""
        before, step = self._active, Step(self.broker_ms)
        self.begin(tickers)
        for name in sorted(before - self._active):
            for gap in self._tickers[name].minutes.left(self.broker_ms):
                day_ms, over_ms = calendar.day_start_ms(gap.from_ms), gap.to_ms + CLOSE_GRACE_MS
                step.events.append(gap)
                step.wanted.append(DayWanted(name, day_ms, over_ms))
        since_ms = trading_since_ms(self.broker_ms)
        for name in self._active - before:
            self._tickers[name].level_one.interrupted("added", since_ms)
            self._checks_wanted = None  # it may have been away over sessions
        for name in before.union(self._active).difference(bars):
            self._tickers[name].minutes.stopped()
        return step

    @property
    def active(self) -> frozenset[str]:
        """The tickers of which items are taken."""
        return self._active

    @property
    def known(self) -> frozenset[str]:
        """All tickers that are remembered, also those that are not taken any more."""
        return frozenset(self._tickers)

    def imaged(self, ticker: str) -> bool:
        """Whether this connection has brought an image of the ticker."""
        return ticker in self._tickers and self._tickers[ticker].level_one.imaged

    def step(self, message: dict[str, Any]) -> Step:
        """Take one parsed frame of the streamer."""
        step = Step(self.broker_ms)
        for ready in self._believable(message, step):
            self._take(ready, step)
        return step

    def login(self, broker_ms: int) -> bool:
        """Learn broker time; False when it lies before what is stored, so nothing would fit."""
        if not is_known(broker_ms) or broker_ms < self.broker_ms - _BACK_MS_MAX:
            return False
        self.broker_ms = max(self.broker_ms, broker_ms)
        return True

    def connected(self, cause: str) -> None:
        """Begin anew: the next item of each ticker is an image, bars do not flow yet."""
        since_ms = trading_since_ms(self.broker_ms)
        for name in self._active:
            self._tickers[name].level_one.interrupted(cause, since_ms)
            self._tickers[name].minutes.stopped()

    @property
    def gaps_open(self) -> int:
        """How many days of tickers miss minutes that price history may still bring."""
        # A copy, because metrics are read on another thread.
        return sum(len(ticker.minutes.gaps) for ticker in list(self._tickers.values()))

    @property
    def sessions_unchecked(self) -> int:
        """How many sessions of tickers are over and not yet held against price history."""
        if not self.broker_ms:
            return 0
        return len(self._due(last_over(self.broker_ms).day))

    def interrupted(self, tickers: Iterable[str], cause: str) -> Step:
        """Name the minutes that may be missing up to now, and want their history, newest first.

        Comes before bars are asked for, so that the gap stands before the first of them.
        """
        step = Step(self.broker_ms)
        for name in tickers:
            minutes = self._tickers[name].minutes
            step.events += minutes.interrupted(self.broker_ms, cause)
            step.wanted += [DayWanted(name, day_ms) for day_ms in minutes.gaps]
        step.wanted.sort(key=lambda wanted: -wanted.day_ms)
        return step

    def flowing(self, tickers: Iterable[str], cause: str) -> Step:
        """Bars come from now on; what was missed since they were asked for is missing too."""
        step = Step(self.broker_ms)
        for name in tickers:
            minutes = self._tickers[name].minutes
            gaps = minutes.flows(self.broker_ms, cause)
            step.events += gaps
            step.wanted += [DayWanted(name, calendar.day_start_ms(gap.from_ms)) for gap in gaps]
        return step

    def history(
        self, answer: DayAnswer, *, last_try: bool, changes_only: bool = False
    ) -> Step | None:
        """Turn price history into a History; None: ask again later, unless it is the last try."""
        minutes, day_ms = self._ticker(answer.ticker).minutes, answer.day_ms
        # A day that somebody asked for is no check: days before the first start are nobody's debt.
        over = None if changes_only else session_over(day_ms, answer.asked_ms)
        bars = None
        if answer.candles is not None:
            bars = minutes.merge(day_ms, answer.candles, answer.asked_ms)
            if bars is None and not last_try:
                return None
        step = Step(self.broker_ms)
        is_past = day_ms < calendar.day_start_ms(self.broker_ms)
        if bars is None or (is_past and not bars):
            self._without_history(answer, over, step)
            return step
        differs = minutes.differs(day_ms, bars)
        if changes_only and day_ms not in minutes.gaps and not differs:
            step.notes.append("history_unchanged")
            return step
        step.notes.append("history")
        again_ms = minutes.doubtful_until_ms(day_ms, answer.candles or [], answer.asked_ms)
        if again_ms:
            step.wanted.append(DayWanted(answer.ticker, day_ms, again_ms))
        if over is not None:
            step.events += minutes.unnoticed(day_ms, bars)
        if bars and differs:  # else it would correct nothing
            step.events.append(History(answer.ticker, day_ms, bars))
            minutes.published(day_ms, bars)
        step.events += minutes.covered(
            day_ms, bars, self._empty_because(answer), doubtful=bool(again_ms)
        )
        if over is not None:
            step.events.append(minutes.check(over, bars))
            step.checked.append("corrected" if differs else "equal")
        return step

    def _without_history(
        self, answer: DayAnswer, over: calendar.Session | None, step: Step
    ) -> None:
        """Give up a day that price history has nothing of, or less than was published."""
        minutes, day_ms = self._tickers[answer.ticker].minutes, answer.day_ms
        short = bool(answer.candles)
        reason: GapReason = "incomplete" if short else "no_history"
        if not short and day_ms < self.broker_ms - HISTORY_DAYS_MAX * _DAY_MS:
            reason = "beyond_history"
        step.notes.append("history_unfillable")
        step.events += minutes.closed(day_ms, "unfillable", reason)
        if over is not None:
            step.events.append(minutes.check(over, None))
            step.checked.append("short" if short else "unknown")

    def _empty_because(self, answer: DayAnswer) -> GapReason:
        ticker = self._tickers[answer.ticker]
        gap = ticker.minutes.gaps.get(answer.day_ms)
        if gap is not None and ticker.level_one.halted(gap.from_ms, gap.to_ms):
            return "halted"
        return "no_trade"

    def hours(self, day: dt.date, told: calendar.Session | None) -> Step:
        """Publish, once, what is closed of a day by the broker's word (None: all day)."""
        self._closures.tell(day, closed_spans(day, told))
        step = Step(self.broker_ms)
        for name in sorted(self._active):
            shut = self._tickers[name].minutes.shut
            step.events += shut.taken_back(day) + shut.news(calendar.day_bounds_ms(day)[0])
        return step

    def refused(self, events: Iterable[Event], cause: str) -> None:
        """Take back events that could not be published; `interrupted` then lists them as gaps."""
        for event in events:
            if isinstance(event, Tick):
                self._tickers[event.ticker].level_one.missed(cause, event.ts_ms)
            elif isinstance(event, Bar):
                self._tickers[event.ticker].minutes.withdraw(event)
            elif isinstance(event, History):
                self._tickers[event.ticker].minutes.withdraw_history(event, cause)
            elif isinstance(event, Gap):
                self._refused_gap(event)

    def unlisted(self, events: Iterable[Event]) -> None:
        """Take back a list of `interrupted` that could not be published; the next has all again."""
        for event in events:
            if isinstance(event, Gap) and event.cause == MARKET_CLOSED:
                self._refused_gap(event)

    def _refused_gap(self, gap: Gap) -> None:
        ticker = self._tickers[gap.ticker]
        if gap.cause == SESSION_CHECK:
            ticker.minutes.checked.discard(calendar.day_of(gap.from_ms))
            self._checks_wanted = None
        elif gap.cause == MARKET_CLOSED:
            ticker.minutes.shut.refused(gap)
        elif gap.series == "ticks":
            ticker.level_one.missed(gap.cause, gap.from_ms)
        elif gap.state != "open":
            ticker.minutes.reopen(structs.replace(gap, state="open", reason=""))

    # -- state --

    def snapshot(self, partition: int, partitions: int, epoch: int) -> bytes:
        """Return the durable state of a partition's tickers."""
        mine = [
            ticker
            for name, ticker in sorted(self._tickers.items())
            if partition_of(name, partitions) == partition
        ]
        return pack_memory(self.broker_ms, epoch, mine)

    def restore(self, state: bytes) -> None:
        """Take up a partition's snapshot, also of tickers that are no longer asked for."""
        memory = unpack_memory(state)
        self.broker_ms = max(self.broker_ms, memory.broker_ms)
        self.epoch = max(self.epoch, memory.epoch)
        for known in memory.tickers:
            self._ticker(known.ticker).recall(known)

    def replay(self, event: Event) -> None:
        """Take up one event that was published after the snapshot."""
        if isinstance(event, Tick):
            level_one = self._ticker(event.ticker).level_one
            level_one.last_tick_ms = event.ts_ms
        elif isinstance(event, Bar):
            self._ticker(event.ticker).minutes.repeat(event, self.broker_ms)
        elif isinstance(event, History):
            self._ticker(event.ticker).minutes.published(event.day_ms, event.bars)
        elif isinstance(event, Clock):
            self.broker_ms = max(self.broker_ms, event.ts_ms)
        elif isinstance(event, Gap):
            ticker = self._ticker(event.ticker)
            if event.cause == SESSION_CHECK:
                ticker.minutes.checked.add(calendar.day_of(event.from_ms))
            elif event.cause == MARKET_CLOSED:
                ticker.minutes.shut.note(event)
            elif event.series == "ticks":
                ticker.level_one.gap_until(event.to_ms)
            elif event.state == "open":
                ticker.minutes.reopen(event)
            else:
                ticker.minutes.closed(calendar.day_start_ms(event.from_ms), event.state)

    # -- frames --

    def _believable(self, message: dict[str, Any], step: Step) -> list[dict[str, Any]]:
        """Return the frames to take now: those that are far ahead wait for others to agree.

        Broker time only goes forward, so one wrong stamp must not move it. A leap that several
        stamps in a row agree on is real (a recording jumps over a night), and none of its frames
        may be lost.
        """
        stamp_ms = wire.newest_stamp_ms(message)
        if not self.broker_ms or stamp_ms <= self.broker_ms + _LEAP_MS_MAX:
            self._disbelieve(step)
            return [message]
        if not is_known(stamp_ms):
            step.reject("bad_timestamp", message)
            return []
        if abs(stamp_ms - self._leap_ms) > _LEAP_MS_MAX:
            self._disbelieve(step)
        self._leaping.append(message)
        self._leap_ms = stamp_ms
        if len(self._leaping) < _LEAPS_BELIEVED:
            return []
        believed, self._leaping = self._leaping, []
        return believed

    def _disbelieve(self, step: Step) -> None:
        for message in self._leaping:
            step.reject("bad_timestamp", message)
        self._leaping = []

    def _take(self, message: dict[str, Any], step: Step) -> None:
        known = False
        for name, take in (("notify", self._notify), ("data", self._data)):
            parts = message.get(name)
            if parts is None:
                continue
            known = True
            for part in parts if isinstance(parts, list) else [parts]:
                try:
                    take(part, step)
                except BadItem as bad:
                    step.reject(bad.reason, part)
        if not known and "response" not in message:
            step.reject("unknown_frame", message)

    def _notify(self, part: Any, step: Step) -> None:
        if not isinstance(part, dict):
            raise BadItem("bad_notify")
        if "heartbeat" not in part:
            step.notes.append("admin_notify")
            return
        self._advance(wire.time_ms(part["heartbeat"]), step)
        if self.broker_ms <= self._clock_ms:
            step.notes.append("old_heartbeat")
            return
        self._clock_ms = self.broker_ms
        step.events.append(Clock(self.broker_ms))
        for name, ticker in self._tickers.items():
            for gap in ticker.minutes.overdue(self.broker_ms):
                step.notes.append("overdue_bar")
                step.events.append(gap)
                step.wanted.append(DayWanted(name, calendar.day_start_ms(gap.from_ms)))
        self._want_checks(step)

    def _want_checks(self, step: Step) -> None:
        """Once after each session, and for those that were over while nobody was there.

        A day with an open gap is checked when that is closed; it is asked for anyway, of a ticker
        whose bars do not flow from here.
        """
        last = last_over(self.broker_ms).day
        if last == self._checks_wanted:
            return
        self._checks_wanted = last
        for name, ticker in sorted(self._tickers.items()):
            if not ticker.minutes.flowing:
                step.wanted += [DayWanted(name, day_ms) for day_ms in ticker.minutes.gaps]
        for name, session in self._due(last):
            day_ms = calendar.day_start_ms(session.pre_open_ms)
            if day_ms not in self._tickers[name].minutes.gaps:
                step.wanted.append(DayWanted(name, day_ms))

    def _due(self, last: dt.date) -> list[tuple[str, calendar.Session]]:
        """Return the sessions up to `last` that are to be checked.

        Of a ticker that was taken once these are the ones up to the last that it was; of one that
        never was, and of which somebody asked for past days, there are none.
        """
        found, horizon_ms = [], self.broker_ms - HISTORY_DAYS_MAX * _DAY_MS
        for name in sorted(self.known):
            minutes, until = self._tickers[name].minutes, last
            if name not in self._active:
                seen_ms = max(self._tickers[name].level_one.last_tick_ms, minutes.last_ms)
                if not minutes.checked.mask or seen_ms < horizon_ms:
                    continue
                until = min(last, calendar.day_of(seen_ms))
            if minutes.last_ms:
                sessions = minutes.checked.due(until, HISTORY_DAYS_MAX)
                found += [(name, session) for session in sessions]
        return found

    def _data(self, part: Any, step: Step) -> None:
        if not isinstance(part, dict):
            raise BadItem("bad_part")
        content = part.get("content")
        if not isinstance(content, list):
            raise BadItem("bad_content")
        service = part.get("service")
        if service == wire.LEVEL_ONE:
            take = self._level_one
        elif service == wire.CHART:
            take = self._chart
        else:
            raise BadItem("unknown_service")
        sent_ms = wire.time_ms(part.get("timestamp"))
        self._advance(sent_ms, step)
        step.items += len(content)
        for item in content:
            try:
                take(item, sent_ms, step)
            except BadItem as bad:
                step.reject(bad.reason, item)

    def _level_one(self, raw: Any, sent_ms: int, step: Step) -> None:
        item = wire.level_one_item(raw)
        ticker = self._subscribed(item.ticker)
        if item.unknown:
            self._report_unknown(raw, wire.LEVEL_ONE, step)
        found = ticker.level_one.take(item, sent_ms)
        if isinstance(found, Tick):
            gap = ticker.level_one.gap_until(found.ts_ms)
            if gap is not None:
                step.events.append(gap)
            step.events.append(found)
            if found.volume and not found.flags & TICK_OUT_OF_SESSION:
                ticker.minutes.traded(found.ts_ms)
        elif found is not None:
            step.notes.append(found)

    def _chart(self, raw: Any, sent_ms: int, step: Step) -> None:
        item = wire.chart_item(raw)
        ticker = self._subscribed(item.ticker)
        if item.ts_ms < sent_ms - HISTORY_DAYS_MAX * _DAY_MS:
            raise BadItem("old_time")  # no history reaches there, and each such day would be wanted
        if item.unknown:
            self._report_unknown(raw, wire.CHART, step)
        events, found = ticker.minutes.take(item, sent_ms)
        step.events += events
        if found:
            step.notes.append(found)
        if found and found != "duplicate_bar":
            step.wanted.append(DayWanted(item.ticker, calendar.day_start_ms(item.ts_ms)))

    def _advance(self, sent_ms: int, step: Step) -> None:
        """Move broker time; raises BadItem for a stamp older than any queue could be."""
        if sent_ms < self.broker_ms - _OLD_MS_MAX:
            raise BadItem("bad_timestamp")
        self.broker_ms = max(self.broker_ms, sent_ms)
        step.sent_ms = self.broker_ms

    def _subscribed(self, name: str) -> Ticker:
        if name not in self._active:
            raise BadItem("unknown_ticker")
        return self._tickers[name]

    def _report_unknown(self, raw: dict[str, Any], service: str, step: Step) -> None:
        """Report a field that nobody knows once; the item itself is used."""
        step.notes.append("unknown_field")
        new = wire.unknown_fields(raw, service) - self._unknown_seen
        if new and len(self._unknown_seen) < REJECTS_PER_FRAME_MAX:
            self._unknown_seen |= new
            step.reject("unknown_field", raw)

    def _ticker(self, name: str) -> Ticker:
        return self._tickers.setdefault(name, Ticker(name, self._closures))
