"""Sessions that are over: each held against price history once, also over restarts."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from libs.common import calendar
from libs.common.events import SESSION_CHECK, Bar, Event, Gap, History, HistoryBar
from services.ingest.checked import CheckedDays
from services.ingest.core import SESSION_SETTLED_MS, Core, DayAnswer, DayWanted, Step
from services.ingest.minutes import HISTORY_DAYS_MAX, MINUTE_MS
from tests.unit.ingest.builders import OPEN_MS, bar, chart, data, heartbeat

TODAY = calendar.next_session(calendar.day_of(OPEN_MS - 86_400_000))
DAY_MS = calendar.day_start_ms(OPEN_MS)
BEFORE = calendar.previous_session(TODAY.day)
BEFORE_DAY_MS = calendar.day_start_ms(BEFORE.pre_open_ms)
DUE_MS = TODAY.post_close_ms + SESSION_SETTLED_MS
MINUTES = (0, 1, 2, 7)


def candles(*minutes: int, close: float = 10.0) -> list[HistoryBar]:
    """Price history's minutes after the open."""
    low, high = min(10.0, close), max(10.0, close)
    return [HistoryBar(OPEN_MS + m * MINUTE_MS, 10.0, high, low, close, 100) for m in minutes]


def lived_through(*minutes: int, seq: bool = False) -> Core:
    """A core that got these minutes of today, and whose session before is checked."""
    core = Core(["QQQ"])
    core.login(TODAY.pre_open_ms)
    core.connected("restart")
    core.interrupted(["QQQ"], "restart")
    core.flowing(["QQQ"], "restart")
    before = [structs.replace(each, ts_ms=BEFORE.open_ms) for each in candles(0)]
    step = core.history(DayAnswer("QQQ", BEFORE_DAY_MS, core.broker_ms, before), last_try=False)
    assert step is not None
    assert step.checked == ["corrected"]
    pass_time(core, OPEN_MS)
    for index, minute in enumerate(minutes):
        item = bar("QQQ", OPEN_MS + minute * MINUTE_MS, seq=minute if seq else None)
        core.step(chart(OPEN_MS + (minute + 1) * MINUTE_MS + 2_500, item))
        if not index:  # it came hours after the connection; history says that nothing was before
            quiet = DayAnswer("QQQ", DAY_MS, core.broker_ms, candles(minute))
            assert core.history(quiet, last_try=False) is not None
            assert core.gaps_open == 0
    return core


def pass_time(core: Core, to_ms: int) -> Step:
    """Let heartbeats say that it is so late; returns the last one's step."""
    step = core.step(heartbeat(to_ms))
    for late_ms in (1, 2):
        if core.broker_ms < to_ms:
            step = core.step(heartbeat(to_ms + late_ms))
    return step


def answer(core: Core, found: list[HistoryBar] | None, *, last_try: bool = False) -> Step | None:
    """Let price history say what today had."""
    return core.history(DayAnswer("QQQ", DAY_MS, core.broker_ms, found), last_try=last_try)


class TestWhen:
    def test_once_a_session_after_it_has_settled(self) -> None:
        """Not before the broker's history is final, and not again with the next heartbeat."""
        core = lived_through(*MINUTES)
        assert pass_time(core, DUE_MS - 10_000).wanted == []
        assert core.sessions_unchecked == 0
        assert pass_time(core, DUE_MS).wanted == [DayWanted("QQQ", DAY_MS)]
        assert core.sessions_unchecked == 1
        assert pass_time(core, DUE_MS + 10_000).wanted == []
        assert answer(core, candles(*MINUTES)) is not None
        assert core.sessions_unchecked == 0
        assert pass_time(core, DUE_MS + 20_000).wanted == []

    def test_a_restart_goes_on_with_what_is_not_checked(self) -> None:
        """Ingest died before the answer came: the next life asks, and the one after it does not."""
        core = lived_through(*MINUTES)
        core.step(heartbeat(DUE_MS))
        born = Core(["QQQ"])
        born.restore(core.snapshot(0, 1, 1))
        assert pass_time(born, DUE_MS + 30_000).wanted == [DayWanted("QQQ", DAY_MS)]
        step = answer(born, candles(*MINUTES))
        assert step is not None
        again = Core(["QQQ"])
        again.restore(core.snapshot(0, 1, 1))
        for event in step.events:
            again.replay(event)
        assert pass_time(again, DUE_MS + 60_000).wanted == []

    def test_down_at_the_close_it_is_checked_at_the_next_start(self) -> None:
        """Days later: the rest of that day and the days between are gaps, whose fill checks them.

        The session before was checked, so it is not asked for again.
        """
        core = lived_through(*MINUTES)
        later = calendar.next_session(calendar.next_session(TODAY.day).day)
        born = Core(["QQQ"])
        born.restore(core.snapshot(0, 1, 1))
        born.login(later.open_ms)
        born.connected("restart")
        wanted = born.interrupted(["QQQ"], "restart").wanted
        wanted += born.flowing(["QQQ"], "restart").wanted
        wanted += pass_time(born, later.open_ms + 10_000).wanted
        days = {calendar.day_of(each.day_ms) for each in wanted}
        assert days == {TODAY.day, calendar.next_session(TODAY.day).day, later.day}
        step = answer(born, candles(*MINUTES, 8, 9))
        assert step is not None
        assert step.checked == ["corrected"]

    def test_an_old_day_that_was_missed_is_not_forgotten(self) -> None:
        """Also when a later one was checked first."""
        core = lived_through(*MINUTES)
        following = calendar.next_session(TODAY.day)
        later_ms = calendar.day_start_ms(following.pre_open_ms)
        late_ms = following.post_close_ms + SESSION_SETTLED_MS
        assert {w.day_ms for w in pass_time(core, late_ms).wanted} == {DAY_MS, later_ms}
        bars = [structs.replace(each, ts_ms=following.open_ms) for each in candles(0)]
        core.history(DayAnswer("QQQ", later_ms, core.broker_ms, bars), last_try=False)
        born = Core(["QQQ"])
        born.restore(core.snapshot(0, 1, 1))
        assert pass_time(born, late_ms + 30_000).wanted == [DayWanted("QQQ", DAY_MS)]

    def test_what_had_no_room_is_asked_for_again(self) -> None:
        """A full spool takes neither the correction nor the word that the day was checked."""
        core = lived_through(*MINUTES)
        pass_time(core, DUE_MS)
        step = answer(core, candles(*MINUTES))
        assert step is not None
        core.refused(step.events, "spool_full")
        assert core.sessions_unchecked == 1
        assert pass_time(core, DUE_MS + 10_000).wanted == [DayWanted("QQQ", DAY_MS)]

    def test_a_ticker_that_was_removed_is_checked_up_to_its_last_session(self) -> None:
        """What came of it until then is accounted for, and no later session is asked for."""
        core = lived_through(*MINUTES)
        core.watch(["SPY"], ["SPY"])
        assert pass_time(core, DUE_MS).wanted == [DayWanted("QQQ", DAY_MS)]
        assert core.sessions_unchecked == 1
        step = answer(core, candles(*MINUTES))
        assert step is not None
        assert step.checked == ["equal"]
        assert core.sessions_unchecked == 0
        later = calendar.next_session(TODAY.day)
        assert pass_time(core, later.post_close_ms + SESSION_SETTLED_MS).wanted == []

    def test_a_ticker_that_comes_back_is_checked_for_the_time_between(self) -> None:
        """Its days are asked for at once, not only after the next session."""
        core = lived_through(*MINUTES)
        core.watch(["SPY"], ["SPY"])
        pass_time(core, DUE_MS)
        assert answer(core, candles(*MINUTES)) is not None
        later = calendar.next_session(TODAY.day)
        pass_time(core, later.post_close_ms + SESSION_SETTLED_MS)
        core.watch(["SPY", "QQQ"], ["SPY"])
        step = pass_time(core, core.broker_ms + 10_000)
        assert step.wanted == [DayWanted("QQQ", calendar.day_start_ms(later.open_ms))]

    def test_days_that_somebody_asked_for_are_no_debt(self) -> None:
        """They are published, and neither they nor the days after them are checked."""
        core = lived_through(*MINUTES)
        old_ms = calendar.day_start_ms(BEFORE.pre_open_ms - 7 * 86_400_000)
        old = [structs.replace(each, ts_ms=each.ts_ms - 8 * 86_400_000) for each in candles(0, 1)]
        for ticker in ("QQQ", "IWM"):
            asked = DayAnswer(ticker, old_ms, core.broker_ms, old)
            step = core.history(asked, last_try=True, changes_only=True)
            assert step is not None
            assert step.checked == []
            assert [type(event) for event in step.events] == [History]
        assert pass_time(core, DUE_MS).wanted == [DayWanted("QQQ", DAY_MS)]


class TestWhat:
    @staticmethod
    def checked(step: Step | None) -> Gap:
        """The check at the end of a step."""
        assert step is not None
        check = step.events[-1]
        assert isinstance(check, Gap)
        assert (check.cause, check.id) == (SESSION_CHECK, f"QQQ:session:{TODAY.pre_open_ms}")
        assert (check.from_ms, check.to_ms) == (TODAY.pre_open_ms, TODAY.post_close_ms)
        return check

    def test_equal_minutes_cost_no_history_frame(self) -> None:
        """A day of 300 tickers is 15 MB; only what differs is sent again."""
        core = lived_through(*MINUTES)
        pass_time(core, DUE_MS)
        step = answer(core, candles(*MINUTES))
        assert step is not None
        assert (step.events, step.checked) == ([self.checked(step)], ["equal"])
        assert (self.checked(step).bars, self.checked(step).state) == (4, "filled")

    def test_minutes_that_nobody_had_missed_are_named(self) -> None:
        """The last bars of the day were lost: no later one told, and nothing was traded meanwhile.

        Of those before the last one that came only the number is known.
        """
        core = lived_through(*MINUTES)
        pass_time(core, DUE_MS)
        step = answer(core, candles(0, 1, 2, 4, 7, 8, 9))
        assert step is not None
        gaps = [event for event in step.events if isinstance(event, Gap)][:-1]
        assert [(gap.cause, gap.state) for gap in gaps] == [("unnoticed", "filled")] * 2
        assert [
            ((g.from_ms - OPEN_MS) // MINUTE_MS, (g.to_ms - OPEN_MS) // MINUTE_MS) for g in gaps
        ] == [
            (0, 8),
            (8, 10),
        ]

    def test_a_price_that_was_another_is_no_missing_minute(self) -> None:
        """It is corrected, and nothing was missing."""
        core = lived_through(*MINUTES)
        pass_time(core, DUE_MS)
        step = answer(core, candles(0, 1, 2) + candles(7, close=10.5))
        assert step is not None
        assert [type(event) for event in step.events] == [History, Gap]

    @pytest.mark.parametrize(
        "found",
        [
            candles(*MINUTES, 8),
            candles(0, 1, 2, 3, 7),
            candles(0, 1, 2) + candles(7, close=10.5),
        ],
    )
    def test_any_difference_is_corrected(self, found: list[HistoryBar]) -> None:
        """A minute that never came, one in the middle, a price that was another."""
        core = lived_through(*MINUTES)
        pass_time(core, DUE_MS)
        step = answer(core, found)
        assert step is not None
        assert step.checked == ["corrected"]
        (history,) = [event for event in step.events if isinstance(event, History)]
        assert history.bars == tuple(found)
        assert self.checked(step).bars == len(found)
        pass_time(core, DUE_MS + 30_000)
        again = answer(core, found)
        assert again is not None
        assert again.checked == ["equal"]

    def test_history_that_says_less_takes_nothing_back(self) -> None:
        """It is asked for again and again, and in the end what came live stands."""
        core = lived_through(*range(12))
        pass_time(core, DUE_MS)
        assert answer(core, candles(0, 1)) is None
        step = answer(core, candles(0, 1), last_try=True)
        assert step is not None
        check = self.checked(step)
        assert (check.state, check.reason, step.checked) == ("unfillable", "no_history", ["short"])
        assert core.sessions_unchecked == 0

    def test_no_history_at_all_is_said(self) -> None:
        """A symbol that price history does not know."""
        core = lived_through(*MINUTES)
        pass_time(core, DUE_MS)
        step = answer(core, None)
        assert self.checked(step).reason == "no_history"
        assert step is not None
        assert step.checked == ["unknown"]

    def test_nothing_is_opened_or_closed_by_a_replayed_check(self) -> None:
        """A gap that is open on that day stays open: the check is no gap."""
        core = lived_through(*MINUTES)
        pass_time(core, DUE_MS)
        step = answer(core, candles(*MINUTES))
        assert step is not None
        open_gap = Gap("QQQ:bars:1", "QQQ", "bars", OPEN_MS, OPEN_MS + MINUTE_MS, "x", "open")
        core.replay(open_gap)
        core.replay(step.events[-1])
        assert core.gaps_open == 1


class TestWhyMinutesAreMissing:
    @staticmethod
    def after_a_break(**level_one: object) -> Core:
        """A core that was away for minutes 3 to 6 of today."""
        core = lived_through(0, 1, 2)
        now = OPEN_MS + 7 * MINUTE_MS
        if level_one:
            item = {"key": "QQQ", **level_one}
            core.step(data("LEVELONE_EQUITIES", [item], OPEN_MS + 4 * MINUTE_MS))
        core.login(now)
        core.connected("silence")
        core.interrupted(["QQQ"], "silence")
        core.flowing(["QQQ"], "silence")
        return core

    @staticmethod
    def closing(core: Core, *minutes: int, late_ms: int = 600_000) -> Gap:
        """What becomes of the gap."""
        asked_ms = OPEN_MS + 7 * MINUTE_MS + late_ms
        step = core.history(DayAnswer("QQQ", DAY_MS, asked_ms, candles(*minutes)), last_try=False)
        assert step is not None
        (gap,) = [event for event in step.events if isinstance(event, Gap)]
        return gap

    def test_bars_fill_it(self) -> None:
        """One is enough: in the other minutes nothing was traded."""
        gap = self.closing(self.after_a_break(), 0, 1, 2, 5)
        assert (gap.cause, gap.state, gap.reason) == ("silence", "filled", "")

    def test_without_any_trade_it_cannot_be_filled(self) -> None:
        """History covers it and has nothing there."""
        gap = self.closing(self.after_a_break(), 0, 1, 2)
        assert (gap.state, gap.reason) == ("unfillable", "no_trade")

    def test_a_halt_is_the_reason_if_there_was_one(self) -> None:
        """The broker's level one says so."""
        gap = self.closing(self.after_a_break(**{"32": "Halted"}), 0, 1, 2)
        assert (gap.state, gap.reason) == ("unfillable", "halted")

    def test_a_halt_that_was_over_is_no_reason(self) -> None:
        """Only what overlaps counts."""
        core = lived_through(0, 1, 2)
        for minute, status in ((-9, "Halted"), (-5, "Normal")):
            item = {"key": "QQQ", "32": status}
            core.step(data("LEVELONE_EQUITIES", [item], OPEN_MS + minute * MINUTE_MS))
        later = self.after_a_break()
        later._tickers["QQQ"].level_one = core._tickers["QQQ"].level_one
        assert self.closing(later, 0, 1, 2).reason == "no_trade"

    def test_bars_that_history_brings_later_fill_it_after_all(self) -> None:
        """Price history lags; the first look found nothing there."""
        core = self.after_a_break()
        assert self.closing(core, 0, 1, 2, late_ms=20_000).reason == "no_trade"
        gap = self.closing(core, 0, 1, 2, 5)
        assert (gap.state, gap.reason) == ("filled", "")

    def test_beyond_the_broker_s_history(self) -> None:
        """Ingest was away for longer than the broker keeps minutes."""
        core = lived_through(0, 1)
        core.broker_ms = OPEN_MS + (HISTORY_DAYS_MAX + 20) * 86_400_000
        lost = [
            event
            for event in core.interrupted(["QQQ"], "restart").events
            if isinstance(event, Gap) and event.state == "unfillable"
        ]
        assert [gap.reason for gap in lost] == ["beyond_history"]

    def test_the_first_bar_after_a_break_may_have_lost_ones_before_it(self) -> None:
        """The broker's count begins with it, so only history knows; the gap is closed at once."""
        core = self.after_a_break()
        self.closing(core, 0, 1, 2, 5)
        now = OPEN_MS + 10 * MINUTE_MS + 2_500
        step = core.step(chart(now, bar("QQQ", OPEN_MS + 9 * MINUTE_MS, seq=70)))
        gap = step.events[0]
        assert isinstance(gap, Gap)
        assert (gap.cause, gap.state) == ("missing_bar", "open")
        assert (gap.from_ms, gap.to_ms) == (OPEN_MS + 7 * MINUTE_MS, OPEN_MS + 9 * MINUTE_MS)
        assert step.wanted == [DayWanted("QQQ", DAY_MS)]
        said = core.history(
            DayAnswer("QQQ", DAY_MS, now + 600_000, candles(0, 1, 2, 5) + candles(9)),
            last_try=False,
        )
        assert said is not None
        assert [type(event) for event in said.events] == [Gap], "what is equal is not said again"
        quiet = core.step(chart(now + 3 * MINUTE_MS, bar("QQQ", OPEN_MS + 12 * MINUTE_MS, seq=71)))
        assert [type(event) for event in quiet.events] == [Bar]

    def test_a_minute_with_trades_whose_bar_stays_away_is_listed(self) -> None:
        """Not only asked for: it stands in the ledger until history has answered."""
        core = lived_through(0, 1)
        now = OPEN_MS + 2 * MINUTE_MS + 1_000
        image = {"key": "QQQ", "3": 10.0, "8": 100, "34": now - 10, "35": now - 10}
        trade = {"key": "QQQ", "3": 10.1, "8": 105, "34": now, "35": now}
        core.step(data("LEVELONE_EQUITIES", [image], now))
        core.step(data("LEVELONE_EQUITIES", [trade], now))
        step = core.step(heartbeat(OPEN_MS + 3 * MINUTE_MS + 20_000))
        (gap,) = [event for event in step.events if isinstance(event, Gap)]
        assert (gap.cause, gap.state) == ("overdue_bar", "open")
        assert (gap.from_ms, gap.to_ms) == (OPEN_MS + 2 * MINUTE_MS, OPEN_MS + 3 * MINUTE_MS)
        assert step.wanted == [DayWanted("QQQ", DAY_MS)]


DAYS = st.dates(dt.date(2026, 1, 1), dt.date(2026, 2, 20))


class TestCheckedDays:
    @given(st.lists(st.tuples(DAYS, st.booleans()), max_size=40))
    def test_is_a_set(self, steps: list[tuple[dt.date, bool]]) -> None:
        """Added in any order, taken out, packed into two numbers and back."""
        days, model = CheckedDays(), set[dt.date]()
        for day, there in steps:
            if there:
                days.add(day)
                model.add(day)
            else:
                days.discard(day)
                model.discard(day)
            days = CheckedDays(days.newest, days.mask)
        for day in {each for each, _ in steps}:
            assert (day in days) == (day in model)

    def test_what_is_old_is_forgotten(self) -> None:
        """Two months are enough: no history reaches farther back."""
        days = CheckedDays()
        days.add(dt.date(2026, 1, 5))
        days.add(dt.date(2026, 6, 5))
        days.add(dt.date(2026, 1, 6))
        assert dt.date(2026, 1, 5) not in days
        assert dt.date(2026, 1, 6) not in days
        assert days.mask < 1 << 64

    def test_due_are_the_sessions_since_the_first_checked_one(self) -> None:
        """Without a weekend, a holiday, or what was before the first start."""
        days = CheckedDays()
        friday, tuesday = dt.date(2026, 1, 16), dt.date(2026, 1, 20)
        assert [each.day for each in days.due(tuesday, 45)] == [tuesday]
        days.add(friday)
        assert [each.day for each in days.due(dt.date(2026, 1, 21), 45)] == [
            tuesday,
            dt.date(2026, 1, 21),
        ]  # Monday was a holiday
        days.add(dt.date(2026, 1, 21))
        assert [each.day for each in days.due(dt.date(2026, 1, 21), 45)] == [tuesday]
        assert days.due(dt.date(2026, 1, 2), 45) == []


def test_a_bar_withdrawn_leaves_no_trace_in_what_is_compared() -> None:
    """A full spool refused it, then history brought it."""
    core = lived_through(*MINUTES)
    lost: list[Event] = []
    now = OPEN_MS + 9 * MINUTE_MS + 2_500
    lost += core.step(chart(now, bar("QQQ", OPEN_MS + 8 * MINUTE_MS))).events
    assert isinstance(lost[0], Bar)
    core.refused(lost, "spool_full")
    pass_time(core, DUE_MS)
    step = answer(core, candles(*MINUTES))
    assert step is not None
    assert step.checked == ["equal"]
