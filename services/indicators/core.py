"""MARKET frame in, events of the INDICATORS frame out: the pure operator of one partition.

Promises:

- one TickIndicator for every Tick, one Candle for every bucket that closes, and for a History a
  Correction followed by all candles of its day;
- the output depends on the events and their order alone: not on how they were cut into frames, not
  on where the run was interrupted and taken up again, not on other tickers;
- the state of a ticker is bounded, whatever its day has seen.

Time is what the events say. Broker time comes with Clock events and with the bars' own ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from libs.common import calendar
from libs.common.errors import CalendarError
from libs.common.events import (
    Bar,
    Clock,
    Correction,
    Event,
    Frame,
    Gap,
    History,
    Tick,
    TickIndicator,
)
from libs.common.state import pack, unpack
from services.indicators.candles import Book
from services.indicators.settings import Definition
from services.indicators.ticks import Ticks
from services.indicators.withheld import Withheld

__all__ = ["ANOMALIES", "ROUNDS_MAX", "Operator", "Ticker"]

# What the input should not hold, and what is done about it; `report` gets these names.
ANOMALIES = (
    "repeated_bar",  # not later than the one before: ignored
    "late_minute",  # its 5m, 15m or 1h candle is closed already: not added to that one
    "refused_history",  # out of order, or ends before the last minute known: ignored
    "lost_patience",  # a gap stayed open too long: computed without its minutes
    "withheld_full",  # too many minutes behind a gap: computed without its minutes
    "outside_calendar",  # a time for which there is no calendar: no values
)

_STATE_VERSION = 1
_MINUTE_MS = 60_000
ROUNDS_MAX = 64  # days of a ticker whose corrections are counted; price history reaches less far


def ignore(_: str) -> None:
    """Report to nobody."""


class Ticker:
    """The state of one ticker."""

    __slots__ = ("book", "rounds", "ticks", "withheld")

    def __init__(self, book: Book, ticks: Ticks) -> None:
        self.book = book
        self.ticks = ticks
        self.withheld = Withheld()
        self.rounds: dict[int, int] = {}  # day -> corrections so far

    def next_round(self, day_ms: int) -> int:
        """Count a correction of a day, from 1."""
        number = self.rounds[day_ms] = self.rounds.get(day_ms, 0) + 1
        while len(self.rounds) > ROUNDS_MAX:
            del self.rounds[min(self.rounds)]
        return number

    def snapshot(self) -> list[Any]:
        """Return the whole state."""
        return [
            self.ticks.snapshot(), self.book.snapshot(), self.withheld.snapshot(),
            sorted(self.rounds.items()),
        ]  # fmt: skip

    def restore(self, state: Sequence[Any]) -> None:
        """Take up a state that `snapshot` gave and MessagePack carried."""
        ticks, book, withheld, rounds = state
        self.ticks.restore(ticks)
        self.book.restore(book)
        self.withheld.restore(withheld)
        self.rounds = dict(rounds)


class Operator:
    """All tickers of one partition. `report` is told the name of every anomaly."""

    def __init__(
        self, definition: Definition | None = None, report: Callable[[str], None] = ignore
    ) -> None:
        self._definition = definition or Definition()
        self._report = report
        self._clock_ms = 0  # broker time of the last Clock
        self._tickers: dict[str, Ticker] = {}

    def step(self, frame: Frame) -> tuple[Event, ...]:
        """Take one MARKET frame and return all that follows from it."""
        out: list[Event] = []
        tickers = self._tickers
        for event in frame.events:
            try:
                if type(event) is Tick:
                    state = tickers.get(event.ticker) or self._new(event.ticker)
                    out.append(state.ticks.step(event))
                elif type(event) is Bar:
                    self._bar(event, out)
                elif type(event) is Clock:
                    self._clock(event.ts_ms, out)
                elif type(event) is Gap:
                    self._gap(event, out)
                elif type(event) is History:
                    self._history(event, out)
            except CalendarError:
                self._report("outside_calendar")
                if type(event) is Tick:
                    out.append(TickIndicator(event.ticker, event.ts_ms, event.price, None, None))
        return tuple(out)

    def ticker(self, name: str) -> Ticker | None:
        """Return the state of a ticker; for reading only."""
        return self._tickers.get(name)

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        tickers = [[name, state.snapshot()] for name, state in self._tickers.items()]
        return pack(_STATE_VERSION, [self._clock_ms, tickers])

    def restore(self, state: bytes) -> None:
        """Take up a state that `snapshot` gave, or start fresh; raises SchemaError."""
        self._tickers = {}
        self._clock_ms = 0
        if not state:
            return
        self._clock_ms, tickers = unpack(_STATE_VERSION, state)
        for name, saved in tickers:
            self._new(name).restore(saved)

    def _new(self, name: str) -> Ticker:
        book = self._new_book(name)
        state = Ticker(book, Ticks(continuous=self._definition.sma_continuous))
        self._tickers[name] = state
        return state

    def _new_book(self, name: str) -> Book:
        return Book(name, self._definition, self._report)

    def _bar(self, bar: Bar, out: list[Event]) -> None:
        state = self._tickers.get(bar.ticker) or self._new(bar.ticker)
        withheld = state.withheld
        last_ms = withheld.bars[-1].ts_ms if withheld.bars else state.book.last_ms
        if bar.ts_ms <= last_ms:
            self._report("repeated_bar")
            return
        if withheld.waiting:
            self._pass_time(state, bar.ts_ms + _MINUTE_MS, out)
            if withheld.waiting:
                if withheld.keep(bar):
                    return
                self._report("withheld_full")
                self._go_on(state, out)
        out += state.book.add(bar)

    def _clock(self, now_ms: int, out: list[Event]) -> None:
        self._clock_ms = now_ms
        for state in self._tickers.values():
            if state.withheld.waiting:
                self._pass_time(state, now_ms, out)
            if not state.withheld.waiting:
                out += state.book.close_by_clock(now_ms)

    def _gap(self, gap: Gap, out: list[Event]) -> None:
        if gap.series != "bars":
            return
        state = self._tickers.get(gap.ticker) or self._new(gap.ticker)
        if gap.state == "open":
            state.withheld.open(gap)
        elif state.withheld.waiting:
            state.withheld.settle(gap.id)
            self._go_on(state, out)

    def _pass_time(self, state: Ticker, now_ms: int, out: list[Event]) -> None:
        if state.withheld.pass_time(now_ms):
            self._report("lost_patience")
            self._go_on(state, out)

    def _go_on(self, state: Ticker, out: list[Event]) -> None:
        """Compute the minutes that waited, unless there is still something to wait for."""
        if state.withheld.waiting:
            return
        for bar in state.withheld.release():
            out += state.book.add(bar)
        out += state.book.close_by_clock(self._clock_ms)

    def _history(self, history: History, out: list[Event]) -> None:
        """Compute a day anew; if it is the current one or a later one, go on from there."""
        state = self._tickers.get(history.ticker) or self._new(history.ticker)
        live = state.book
        day_ms = history.day_ms
        if not _is_sound(history) or (day_ms == live.day_ms and _last_ms(history) < live.last_ms):
            self._report("refused_history")
            return
        if day_ms > live.day_ms:
            out += live.close_all()
            live.turn(day_ms)
        fresh = self._new_book(history.ticker)
        fresh.source, fresh.revision = "history", state.next_round(day_ms)
        out.append(Correction(history.ticker, day_ms, fresh.revision))
        fresh.begin(day_ms, live.openings)
        for bar in history.bars:
            out += fresh.add(bar)
        state.withheld.meet(day_ms, _last_ms(history))
        if day_ms < live.day_ms:
            out += fresh.close_all()
            fresh.hand_on()
        else:
            if not state.withheld.bars:
                out += fresh.close_by_clock(self._clock_ms)
            fresh.source, fresh.revision = "stream", 0
            state.book = fresh
        self._go_on(state, out)


def _last_ms(history: History) -> int:
    return history.bars[-1].ts_ms if history.bars else history.day_ms - 1


def _is_sound(history: History) -> bool:
    """Whether the bars ascend and lie within the day; raises CalendarError outside the calendar."""
    start_ms, end_ms = calendar.day_bounds_ms(calendar.day_of(history.day_ms))
    times = [bar.ts_ms for bar in history.bars]
    return (
        history.day_ms == start_ms
        and all(earlier < later for earlier, later in pairwise(times))
        and (not times or (start_ms <= times[0] and times[-1] < end_ms))
    )
