"""Minutes that the broker closes and our calendar has: explained once, and never missed."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.calendar import Session
from libs.common.events import MARKET_CLOSED, Event, Gap
from services.ingest.closures import Closures, closed_spans
from services.ingest.core import SESSION_SETTLED_MS, Core, DayAnswer
from tests.unit.ingest.builders import OPEN_MS, heartbeat

DAY = calendar.day_of(OPEN_MS)
DAY_MS = calendar.day_start_ms(OPEN_MS)
FOUND = calendar.session(DAY)
assert FOUND is not None
TODAY: Session = FOUND
TOMORROW = calendar.next_session(DAY)
WHOLE = (TODAY.pre_open_ms, TODAY.post_close_ms)
HOUR_MS = 3_600_000
DAY_LENGTH_MS = 24 * HOUR_MS
EARLY = dataclasses.replace(
    TODAY, close_ms=TODAY.close_ms - 3 * HOUR_MS, post_close_ms=TODAY.post_close_ms - 3 * HOUR_MS
)
EVENING = (EARLY.post_close_ms, TODAY.post_close_ms)
LATE = dataclasses.replace(TODAY, pre_open_ms=OPEN_MS - HOUR_MS, open_ms=OPEN_MS + HOUR_MS)
TICKERS = ["QQQ", "SPY"]


def closed(events: Iterable[Event]) -> list[tuple[str, str, int, int]]:
    """What was published as closed, or no longer."""
    return [
        (event.ticker, event.state, event.from_ms, event.to_ms)
        for event in events
        if isinstance(event, Gap) and event.cause == MARKET_CLOSED
    ]


def begun(at_ms: int = TODAY.pre_open_ms) -> Core:
    """A core that is connected and has filled the session before."""
    core = Core(TICKERS)
    core.login(at_ms)
    core.connected("restart")
    core.interrupted(TICKERS, "restart")
    core.flowing(TICKERS, "restart")
    return core


def said(state: str, from_ms: int, to_ms: int) -> list[tuple[str, str, int, int]]:
    """What `closed` returns when it is said for each ticker."""
    return [(ticker, state, from_ms, to_ms) for ticker in TICKERS]


def missed(core: Core, tickers: list[str]) -> list[Gap]:
    """The gaps that are open when a connection begins."""
    listed = core.interrupted(tickers, "restart").events
    return [gap for gap in listed if isinstance(gap, Gap) and gap.state == "open"]


class TestSpans:
    def test_what_is_closed_of_a_day(self) -> None:
        """All of it, the evening, the morning, or nothing."""
        assert closed_spans(DAY, None) == [WHOLE]
        assert closed_spans(DAY, EARLY) == [EVENING]
        assert closed_spans(DAY, LATE) == [(TODAY.pre_open_ms, LATE.pre_open_ms)]
        assert closed_spans(DAY, TODAY) == []
        assert closed_spans(DAY + dt.timedelta(days=1), None) == []  # a Saturday

    def test_another_extended_session_closes_nothing(self) -> None:
        """Brokers differ in it, on every day."""
        shorter = dataclasses.replace(
            TODAY, pre_open_ms=TODAY.open_ms, post_close_ms=TODAY.close_ms
        )
        assert closed_spans(DAY, shorter) == []

    @given(st.integers(0, 960), st.integers(1, 960))
    def test_what_is_open_and_what_is_closed_make_the_whole(self, start: int, length: int) -> None:
        """Each minute of a stretch of an early day is one of them."""
        closures = Closures()
        closures.tell(DAY, closed_spans(DAY, EARLY))
        from_ms = TODAY.pre_open_ms + start * 60_000
        to_ms = min(from_ms + length * 60_000, TODAY.post_close_ms)
        left = {ms for ms in range(from_ms, to_ms, 60_000) if not EVENING[0] <= ms < EVENING[1]}
        assert set(range(*closures.open_part(from_ms, to_ms), 60_000)) == left
        assert closures.cover(from_ms, to_ms) == (not left)


class TestOnce:
    def test_said_for_each_ticker_once(self) -> None:
        """However often the broker says it, and however often the connection breaks."""
        core = begun()
        assert closed(core.hours(DAY, None).events) == said("unfillable", *WHOLE)
        assert core.hours(DAY, None).events == []
        core.step(heartbeat(TODAY.close_ms))
        assert closed(core.interrupted(TICKERS, "restart").events) == []

    @pytest.mark.parametrize("replayed", [False, True])
    def test_also_over_restarts(self, replayed: bool) -> None:
        """By the checkpoint, or by the frames behind it."""
        core = begun()
        before = core.snapshot(0, 1, 1)
        events = core.hours(DAY, EARLY).events
        born = Core([*TICKERS, "IWM"])
        born.restore(before if replayed else core.snapshot(0, 1, 1))
        for event in events if replayed else []:
            born.replay(event)
        born.login(OPEN_MS)
        listed = born.interrupted([*TICKERS, "IWM"], "restart").events
        # A ticker that is new is told what the others know.
        assert closed(listed) == [("IWM", "unfillable", *EVENING)]
        assert closed(born.hours(DAY, EARLY).events) == []

    def test_a_ticker_that_is_new_is_told_nothing_of_before_its_time(self) -> None:
        """Else minutes that are nobody's debt would be accounted for."""
        core = begun()
        core.hours(DAY, None)
        later = calendar.next_session(TOMORROW.day)
        core.login(later.open_ms)
        core.begin([*TICKERS, "IWM"])
        assert closed(core.interrupted(["IWM"], "restart").events) == []

    def test_what_could_not_be_published_is_said_again(self) -> None:
        """With the next answer of the broker, or with the list after a full spool."""
        core = begun()
        core.refused(core.hours(DAY, None).events, "spool_full")
        assert closed(core.hours(DAY, None).events) == said("unfillable", *WHOLE)
        core.refused(core.hours(DAY, EARLY).events, "spool_full")
        listed = core.interrupted(TICKERS, "spool_full").events
        assert closed(listed) == said("unfillable", *EVENING)
        core.unlisted(listed)
        assert closed(core.interrupted(TICKERS, "spool_full").events) == said(
            "unfillable", *EVENING
        )

    def test_what_holds_no_longer_is_taken_back(self) -> None:
        """The broker says first that it closes, then early, then that all is as ever."""
        core = begun()
        core.hours(DAY, None)
        step = core.hours(DAY, EARLY)
        assert sorted(closed(step.events)) == sorted(
            said("filled", *WHOLE) + said("unfillable", *EVENING)
        )
        assert closed(core.hours(DAY, TODAY).events) == said("filled", *EVENING)
        assert core.hours(DAY, TODAY).events == []
        born = Core(TICKERS)
        born.restore(core.snapshot(0, 1, 1))
        born.login(TOMORROW.open_ms)
        assert WHOLE in {(gap.from_ms, gap.to_ms) for gap in missed(born, TICKERS)}


class TestNothingIsMissing:
    def test_no_gap_opens_on_a_closed_day(self) -> None:
        """The day after, only the session that was is missed."""
        core = begun()
        core.hours(DAY, None)
        core.login(TOMORROW.open_ms)
        assert {calendar.day_of(gap.from_ms) for gap in missed(core, ["QQQ"])} == {
            calendar.previous_session(DAY).day, TOMORROW.day,
        }  # fmt: skip

    def test_a_gap_ends_where_the_market_does(self) -> None:
        """An early close: the evening is not missed."""
        core = begun()
        core.hours(DAY, EARLY)
        core.login(TOMORROW.open_ms)
        gaps = [gap for gap in missed(core, ["QQQ"]) if calendar.day_of(gap.from_ms) == DAY]
        assert [(gap.from_ms, gap.to_ms) for gap in gaps] == [
            (TODAY.pre_open_ms, EARLY.post_close_ms)
        ]

    def test_a_gap_that_was_open_already_says_why_it_is_empty(self) -> None:
        """A start in the middle of a closed day: the hours come after the gap."""
        core = begun(TODAY.close_ms)
        core.hours(DAY, None)
        core.login(TODAY.post_close_ms + SESSION_SETTLED_MS + DAY_LENGTH_MS)
        step = core.history(DayAnswer("QQQ", DAY_MS, core.broker_ms, []), last_try=False)
        assert step is not None
        (gap,) = [gap for gap in step.events if isinstance(gap, Gap) and ":bars:" in gap.id]
        assert (gap.state, gap.reason) == ("unfillable", "closed")
