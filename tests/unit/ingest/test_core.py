"""The core: lists of wire frames in, lists of events out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.events import Bar, Clock, Event, Gap, History, HistoryBar, Tick
from services.ingest.core import Core, DayAnswer, DayWanted, Step
from services.ingest.minutes import CLOSE_GRACE_MS, MINUTE_MS, SETTLED_MS
from services.ingest.steps import REJECTS_PER_FRAME_MAX
from tests.unit.ingest.builders import OPEN_MS, bar, chart, data, heartbeat, image, level_one

DAY_MS = calendar.day_start_ms(OPEN_MS)
BEFORE = calendar.previous_session(calendar.day_of(OPEN_MS))
BEFORE_DAY_MS = calendar.day_start_ms(BEFORE.pre_open_ms)
ONE_DAY_MS = 86_400_000
TICKERS = ("QQQ", "SPY")


def running(at_ms: int = OPEN_MS + 5 * MINUTE_MS) -> Core:
    """A core that is connected, subscribed, and has its images and a first tick of each."""
    core = Core(TICKERS)
    assert core.login(at_ms)
    core.connected("restart")
    core.interrupted(TICKERS, "restart")
    core.flowing(TICKERS, "restart")
    core.step(level_one(at_ms, *(image(t, last=10.0, volume=100, at_ms=at_ms) for t in TICKERS)))
    core.step(level_one(at_ms, *(delta(t, 10.0, 100, at_ms + 1) for t in TICKERS)))
    return core


def delta(ticker: str, last: float, volume: int, at_ms: int) -> dict[str, Any]:
    """A trade."""
    return {"key": ticker, "3": last, "8": volume, "34": at_ms, "35": at_ms}


def kinds(step: Step | None) -> list[str]:
    """The names of a step's events."""
    assert step is not None
    return [type(event).__name__ for event in step.events]


def reasons(step: Step) -> list[str]:
    """Why things were refused."""
    return [reject.reason for reject in step.rejects]


class TestFrames:
    def test_one_frame_gives_the_events_of_all_its_parts_in_order(self) -> None:
        """Ticks and bars of one wire frame leave together."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS + 2_500
        frame = level_one(now, delta("SPY", 10.1, 101, now), delta("QQQ", 9.9, 105, now))
        frame["data"] += chart(now, bar("QQQ", OPEN_MS + 5 * MINUTE_MS))["data"]
        step = core.step(frame)
        assert kinds(step) == ["Tick", "Tick", "Bar"]
        assert (step.sent_ms, step.items) == (now, 3)

    def test_a_heartbeat_is_a_clock(self) -> None:
        """Broker time goes forward only; an old heartbeat says nothing new."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        assert core.step(heartbeat(now)).events == [Clock(now)]
        assert core.step(heartbeat(now - 5_000)).events == []
        assert core.broker_ms == now

    def test_a_leap_is_believed_once_several_stamps_in_a_row_agree(self) -> None:
        """A recording may jump over nights and weeks, and no frame of the jump is lost."""
        core, weeks = running(), OPEN_MS + 20 * ONE_DAY_MS
        for at_ms in (weeks, weeks + 1_000):
            assert core.step(heartbeat(at_ms)) == Step(core.broker_ms)
        step = core.step(heartbeat(weeks + 2_000))
        assert step.events == [Clock(weeks), Clock(weeks + 1_000), Clock(weeks + 2_000)]
        assert step.rejects == []

    def test_one_wrong_stamp_alone_moves_nothing(self) -> None:
        """A heartbeat hours ahead would stop the clock for hours; it ends as a dead letter."""
        core = running()
        before = core.broker_ms
        assert core.step(heartbeat(before + 9 * ONE_DAY_MS)).events == []
        step = core.step(heartbeat(before + 10_000))
        assert step.events == [Clock(before + 10_000)]
        assert reasons(step) == ["bad_timestamp"]

    def test_leaps_that_disagree_and_leaps_back_are_never_believed(self) -> None:
        """Nonsense stays nonsense however often it is said."""
        core = running()
        before = core.broker_ms
        for days in (20, 60, 100, 140, -20, -20, -20, -20):
            assert core.step(heartbeat(OPEN_MS + days * ONE_DAY_MS)).events == []
        assert core.broker_ms == before

    def test_a_bar_from_before_all_history_asks_for_none(self) -> None:
        """Else each such bar would cost a request, and their days are without number."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        step = core.step(chart(now, bar("QQQ", OPEN_MS - 60 * ONE_DAY_MS)))
        assert (reasons(step), step.wanted) == (["old_time"], [])

    @pytest.mark.parametrize(
        ("frame", "reason"),
        [
            ({"what": 1}, "unknown_frame"),
            ({}, "unknown_frame"),
            ({"data": 3}, "bad_part"),
            ({"data": [{"service": "LEVELONE_EQUITIES"}]}, "bad_content"),
            ({"data": [{"service": "NEWS", "content": []}]}, "unknown_service"),
            ({"data": [{"service": {}, "content": []}]}, "unknown_service"),
            (data("LEVELONE_EQUITIES", [], "soon"), "bad_time"),
            (data("LEVELONE_EQUITIES", [], 1 << 50), "bad_timestamp"),
            ({"notify": [7]}, "bad_notify"),
            ({"notify": [{"heartbeat": "tomorrow"}]}, "bad_time"),
            (heartbeat(1 << 42), "bad_timestamp"),
            (level_one(OPEN_MS, 5), "bad_item"),
            (level_one(OPEN_MS, {"key": 5}), "bad_key"),
            (level_one(OPEN_MS, {"key": "EVIL", "3": 1.0}), "unknown_ticker"),
            (level_one(OPEN_MS, {"key": "QQQ", "3": 1e308}), "bad_price"),
            (level_one(OPEN_MS, {"key": "QQQ", "8": "many"}), "bad_volume"),
            (level_one(OPEN_MS, {"key": "QQQ", "35": OPEN_MS + 5_001}), "future_time"),
            (chart(OPEN_MS, {"key": "QQQ"}), "bad_time"),
            (chart(OPEN_MS, bar("QQQ", OPEN_MS)), "future_time"),
        ],
    )
    def test_what_is_wrong_is_refused_by_name(self, frame: dict[str, Any], reason: str) -> None:
        """Each kind of nonsense has a reason, and leaves no event and no trace in broker time."""
        core = running()
        before = core.broker_ms
        step = core.step(frame)
        assert reasons(step) == [reason]
        assert step.events == []
        assert core.broker_ms == before

    def test_a_bad_item_does_not_cost_its_neighbours(self) -> None:
        """The rest of the frame survives."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        bad = {"key": "QQQ", "3": float("nan")}
        step = core.step(level_one(now, bad, delta("SPY", 10.1, 101, now)))
        assert reasons(step) == ["bad_price"]
        assert kinds(step) == ["Tick"]

    def test_an_unknown_field_is_reported_once_and_the_item_used(self) -> None:
        """The broker may add fields any day."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        steps = [
            core.step(level_one(now + n, {**delta("QQQ", 10.0, 101 + n, now + n), "77": 1}))
            for n in range(3)
        ]
        assert [reasons(step) for step in steps] == [["unknown_field"], [], []]
        assert [kinds(step) for step in steps] == [["Tick"]] * 3

    def test_a_flood_of_nonsense_is_bounded(self) -> None:
        """Beyond a bound rejects are counted, not kept."""
        step = running().step(level_one(OPEN_MS, *[None] * 5_000))
        assert len(step.rejects) == REJECTS_PER_FRAME_MAX
        assert len(step.further_rejects) == 5_000 - REJECTS_PER_FRAME_MAX

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["data", "notify", "heartbeat", "service", "content", "key", "7"]
                    ),
                    inner,
                )
            ),
            max_leaves=15,
        ).filter(lambda value: isinstance(value, dict))
    )
    def test_nothing_hostile_raises(self, frame: dict[str, Any]) -> None:
        """Any object at all is either understood or refused."""
        running().step(frame)

    def test_broker_time_before_the_store_is_refused(self) -> None:
        """Another market's clock would repeat keys; a few seconds are forgiven."""
        core = running()
        assert core.login(core.broker_ms - 30_000)
        assert not core.login(core.broker_ms - 3_600_000)
        assert not core.login(1 << 50)


ITEMS = st.lists(
    st.builds(
        lambda ticker, last, volume, at: delta(ticker, last, volume, OPEN_MS + 400_000 + at),
        st.sampled_from(TICKERS),
        st.sampled_from([9.9, 10.0, 10.1]),
        st.integers(90, 200),
        st.integers(0, 2_000),
    ),
    max_size=25,
)


@given(ITEMS, st.data())
def test_any_split_into_frames_gives_the_same_events(items: list[Any], draw: st.DataObject) -> None:
    """Frames are the broker's business; what happened does not depend on them."""
    now = OPEN_MS + 410_000
    whole = running().step(level_one(now, *items)).events
    core, parts, rest = running(), [], items
    while rest:
        size = draw.draw(st.integers(1, len(rest)))
        parts += core.step(level_one(now, *rest[:size])).events
        rest = rest[size:]
    assert parts == whole


class TestSubscribing:
    def test_names_what_may_be_missing_and_wants_its_history(self) -> None:
        """The session before and the day so far are open gaps before any bar; newest first."""
        core = Core(TICKERS)
        core.login(OPEN_MS + 500)
        step = core.interrupted(["QQQ"], "restart")
        gaps = [event for event in step.events if isinstance(event, Gap)]
        assert [(gap.ticker, gap.state, gap.to_ms) for gap in gaps] == [
            ("QQQ", "open", BEFORE.post_close_ms),
            ("QQQ", "open", OPEN_MS),
        ]
        assert step.wanted == [DayWanted("QQQ", DAY_MS), DayWanted("QQQ", BEFORE_DAY_MS)]

    def test_bars_that_come_before_the_answer_hide_no_gap(self) -> None:
        """The broker may begin to send before it says so: the day so far is still asked for."""
        core = Core(["QQQ"])
        core.login(OPEN_MS + 500)
        core.connected("restart")
        said = core.interrupted(["QQQ"], "restart").events
        now = OPEN_MS + 3 * MINUTE_MS + 2_500
        said += core.step(chart(now, bar("QQQ", OPEN_MS + 2 * MINUTE_MS))).events
        step = core.flowing(["QQQ"], "restart")
        said += step.events
        assert kinds(Step(0, said)) == ["Gap", "Gap", "Bar", "Gap"]
        _, first, _, last = said
        assert isinstance(first, Gap)
        assert isinstance(last, Gap)
        assert first.id == last.id
        assert last.to_ms == OPEN_MS + 3 * MINUTE_MS
        assert step.wanted == [DayWanted("QQQ", DAY_MS)]

    def test_the_tick_gap_stands_before_the_first_new_tick(self) -> None:
        """After the last tick known up to the first new one, never to be filled."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        core.step(level_one(now, delta("QQQ", 10.1, 101, now)))
        core.connected("silence")
        later = now + MINUTE_MS
        core.step(level_one(later, image("QQQ", last=10.5, volume=900, at_ms=later)))
        step = core.step(level_one(later + 900, delta("QQQ", 10.6, 903, later + 800)))
        gap, made = step.events
        assert isinstance(gap, Gap)
        assert isinstance(made, Tick)
        assert (gap.series, gap.state, gap.cause) == ("ticks", "unfillable", "silence")
        assert (gap.from_ms, gap.to_ms) == (now + 1, later + 800)
        assert made.volume == 3


def answer(asked_ms: int, *minutes: int) -> DayAnswer:
    """Price history's word on QQQ's minutes after the open."""
    candles = [HistoryBar(OPEN_MS + m * MINUTE_MS, 10.0, 10.0, 10.0, 10.0, 5) for m in minutes]
    return DayAnswer("QQQ", DAY_MS, asked_ms, candles)


class TestHistory:
    def test_fills_the_gap_after_it_was_published(self) -> None:
        """The History first, then the word that the gap is filled."""
        core = running()
        step = core.history(answer(core.broker_ms, 0, 1, 2, 3, 4), last_try=False)
        assert kinds(step) == ["History", "Gap"]
        assert step is not None
        history, gap = step.events
        assert isinstance(history, History)
        assert isinstance(gap, Gap)
        assert (len(history.bars), gap.state) == (5, "filled")

    def test_asks_again_as_long_as_it_is_incomplete(self) -> None:
        """Nothing leaves until history reaches the gap's end, or its grace has passed."""
        core = running()
        assert core.history(answer(core.broker_ms, 0, 1), last_try=False) is None
        later = OPEN_MS + 5 * MINUTE_MS + CLOSE_GRACE_MS
        step = core.history(answer(later, 0, 1), last_try=False)
        assert kinds(step) == ["History", "Gap"]
        assert step is not None
        assert step.wanted == [DayWanted("QQQ", DAY_MS, OPEN_MS + 5 * MINUTE_MS + SETTLED_MS)]

    def test_a_day_without_any_trade_closes_its_gap(self) -> None:
        """Nothing to publish, nothing missing."""
        step = running().history(answer(OPEN_MS + 10 * MINUTE_MS), last_try=False)
        assert kinds(step) == ["Gap"]

    def test_the_last_try_gives_up_in_words(self) -> None:
        """What never becomes complete is unfillable."""
        core = running()
        step = core.history(answer(core.broker_ms, 0), last_try=True)
        assert step is not None
        (gap,) = step.events
        assert isinstance(gap, Gap)
        assert gap.state == "unfillable"

    def test_a_refusal_of_the_broker_is_final(self) -> None:
        """No such history: unfillable at once."""
        step = running().history(DayAnswer("QQQ", DAY_MS, OPEN_MS, None), last_try=False)
        assert step is not None
        (gap,) = step.events
        assert isinstance(gap, Gap)
        assert gap.state == "unfillable"

    def test_a_late_bar_wants_its_day(self) -> None:
        """Published at once, corrected behind."""
        core, now = running(), OPEN_MS + 8 * MINUTE_MS
        step = core.step(chart(now, bar("QQQ", OPEN_MS + 5 * MINUTE_MS)))
        assert kinds(step) == ["Bar"]
        assert step.wanted == [DayWanted("QQQ", DAY_MS)]

    def test_an_overdue_bar_wants_its_day(self) -> None:
        """Trades without a bar are noticed by the clock."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        core.step(level_one(now, delta("QQQ", 10.1, 150, now)))
        assert core.step(heartbeat(now + 70_000)).wanted == []
        assert core.step(heartbeat(now + 80_000)).wanted == [DayWanted("QQQ", DAY_MS)]


class TestMemory:
    def run_for_a_while(self) -> tuple[Core, list[Event]]:
        """A core with ticks, bars, a filled and an open gap, and all that it said."""
        core = running()
        said: list[Event] = []
        step = core.history(answer(core.broker_ms, 0, 1, 2, 3, 4), last_try=False)
        assert step is not None
        said += step.events
        for minute in range(5, 8):
            now = OPEN_MS + (minute + 1) * MINUTE_MS + 2_500
            said += core.step(level_one(now, delta("QQQ", 10.1, 100 + minute, now))).events
            said += core.step(chart(now, bar("QQQ", OPEN_MS + minute * MINUTE_MS))).events
            said += core.step(heartbeat(now)).events
        return core, said

    def test_a_restart_repeats_no_key(self) -> None:
        """The same input after checkpoint and replay gives no second tick or bar of any time."""
        core, said = self.run_for_a_while()
        born = Core(TICKERS)
        born.restore(Core(TICKERS).snapshot(0, 1, 3))
        for event in said:
            born.replay(event)
        now = core.broker_ms
        assert born.login(now)
        assert born.epoch == 3
        born.connected("restart")
        again: list[Event] = list(born.interrupted(TICKERS, "restart").events)
        again += born.step(level_one(now, image("QQQ", last=10.1, volume=107, at_ms=now))).events
        again += born.step(level_one(now, delta("QQQ", 10.2, 108, now))).events
        again += born.step(chart(now, bar("QQQ", OPEN_MS + 7 * MINUTE_MS))).events
        old = {event.ts_ms for event in said if isinstance(event, Tick | Bar)}
        new = {event.ts_ms for event in again if isinstance(event, Tick | Bar)}
        assert new
        assert not old & new

    @given(st.integers(0, 12))
    def test_checkpoint_and_frames_since_are_the_whole_memory(self, cut: int) -> None:
        """Taking the snapshot earlier and replaying the rest ends in the same state."""
        core, said = self.run_for_a_while()
        whole, parts = Core(TICKERS), Core(TICKERS)
        for event in said[:cut]:
            parts.replay(event)
        later = Core(TICKERS)
        later.restore(parts.snapshot(0, 1, 1))
        for event in said[cut:]:
            later.replay(event)
        for event in said:
            whole.replay(event)
        assert later.snapshot(0, 1, 1) == whole.snapshot(0, 1, 1)
        assert later.broker_ms == core.broker_ms

    def test_replaying_too_much_is_no_harm(self) -> None:
        """Frames that the snapshot already knows change nothing."""
        _, said = self.run_for_a_while()
        once, twice = Core(TICKERS), Core(TICKERS)
        for event in said:
            once.replay(event)
        for event in said + said[-4:]:
            twice.replay(event)
        assert once.snapshot(0, 1, 1) == twice.snapshot(0, 1, 1)

    def test_tickers_no_longer_asked_for_are_remembered(self) -> None:
        """Who takes SPY off the list and on again must not repeat its keys."""
        core, _ = self.run_for_a_while()
        shorter = Core(["SPY"])
        shorter.restore(core.snapshot(0, 1, 1))
        assert shorter.snapshot(0, 1, 1) == core.snapshot(0, 1, 1)
        step = shorter.step(level_one(core.broker_ms, delta("QQQ", 1.0, 1, core.broker_ms)))
        assert reasons(step) == ["unknown_ticker"]

    def test_partitions_share_nothing(self) -> None:
        """Each ticker is in exactly one partition's checkpoint."""
        core, _ = self.run_for_a_while()
        both = Core(TICKERS)
        for partition in range(2):
            both.restore(core.snapshot(partition, 2, 1))
        assert both.snapshot(0, 1, 1) == core.snapshot(0, 1, 1)


class TestBeforeTheFirstTick:
    @staticmethod
    def first_events(at_ms: int) -> list[Event]:
        """What the first tick of all leads to, when the connection was made at that time."""
        core, now = Core(["QQQ"]), at_ms + 60_000
        assert core.login(at_ms)
        core.connected("restart")
        core.step(level_one(now, image("QQQ", last=10.0, volume=100, at_ms=at_ms)))
        return core.step(level_one(now, delta("QQQ", 10.1, 101, now))).events

    def test_ticks_are_missing_since_the_session_began(self) -> None:
        """An earlier life may have heard some and died before it could store one."""
        gap, made = self.first_events(BEFORE.pre_open_ms + 1_000)
        assert isinstance(gap, Gap)
        assert isinstance(made, Tick)
        assert (gap.from_ms, gap.to_ms) == (BEFORE.pre_open_ms, made.ts_ms)
        assert (gap.series, gap.cause, gap.state) == ("ticks", "restart", "unfillable")

    @pytest.mark.parametrize("at_ms", [BEFORE.pre_open_ms, BEFORE.post_close_ms])
    def test_none_is_missing_of_a_session_that_was_not_going_on(self, at_ms: int) -> None:
        """Who is there before it begins hears all of it."""
        assert [type(event) for event in self.first_events(at_ms)] == [Tick]


class TestRefused:
    def test_what_had_no_room_is_listed_as_gaps(self) -> None:
        """A refused tick opens a tick gap, a refused bar a bar gap, and both follow later."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS + 2_500
        core.history(answer(core.broker_ms, 0, 1, 2, 3, 4), last_try=False)
        lost = core.step(level_one(now, delta("QQQ", 10.1, 101, now)))
        lost_bar = core.step(chart(now, bar("QQQ", OPEN_MS + 5 * MINUTE_MS)))
        core.refused(lost.events + lost_bar.events, "spool_full")
        step = core.interrupted(["QQQ"], "spool_full")
        gap = step.events[-1]
        assert isinstance(gap, Gap)
        assert (gap.from_ms, gap.cause) == (OPEN_MS + 5 * MINUTE_MS, "spool_full")
        resumed = core.step(level_one(now + 900, delta("QQQ", 10.2, 108, now + 900)))
        tick_gap, made = resumed.events
        assert isinstance(tick_gap, Gap)
        assert isinstance(made, Tick)
        assert (tick_gap.from_ms, tick_gap.cause) == (now, "spool_full")
        assert made.volume == 7, "level one itself was never interrupted"

    def test_a_refused_history_is_wanted_again(self) -> None:
        """Its gap is open again."""
        core = running()
        step = core.history(answer(core.broker_ms, 0, 1, 2, 3, 4), last_try=False)
        assert step is not None
        core.refused(step.events, "spool_full")
        again = core.interrupted(["QQQ"], "spool_full")
        assert DayWanted("QQQ", DAY_MS) in again.wanted
        assert {event.state for event in again.events if isinstance(event, Gap)} == {"open"}
