"""Minute bars: published once and in order; what is missing is named and filled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.events import Bar, Gap, HistoryBar
from services.ingest.minutes import (
    CLOSE_GRACE_MS,
    HISTORY_DAYS_MAX,
    MINUTE_MS,
    RECENT_BARS_MAX,
    SETTLED_MS,
    Minutes,
)
from services.ingest.wire import ChartItem, chart_item
from tests.unit.ingest.builders import OPEN_MS, bar

DAY_MS = calendar.day_start_ms(OPEN_MS)
BEFORE = calendar.previous_session(calendar.day_of(OPEN_MS))
PRE_OPEN_MS = OPEN_MS - 150 * MINUTE_MS


def chart(minute: int, close: float = 10.0, *, seq: int | None = None) -> ChartItem:
    """The bar of a minute after the open."""
    return chart_item(bar("QQQ", OPEN_MS + minute * MINUTE_MS, close, seq=seq))


def sent(minute: int, late_ms: int = 2_500) -> int:
    """When the bar of a minute is usually sent."""
    return OPEN_MS + (minute + 1) * MINUTE_MS + late_ms


def candles(*minutes: int, close: float = 10.0) -> list[HistoryBar]:
    """What price history says about some minutes."""
    return [
        HistoryBar(OPEN_MS + m * MINUTE_MS, 10.0, max(close, 10.0), min(close, 10.0), close, 100)
        for m in minutes
    ]


def starts(bars: tuple[HistoryBar, ...] | None) -> list[int]:
    """The minutes of a merged day."""
    assert bars is not None
    return [(each.ts_ms - OPEN_MS) // MINUTE_MS for each in bars]


class TestStream:
    def test_a_bar_is_published_once(self) -> None:
        """An equal repeat is dropped without a word to price history."""
        minutes = Minutes("QQQ")
        events, word = minutes.take(chart(0), sent(0))
        assert [type(event) for event in events] == [Bar]
        assert word == ""
        assert minutes.take(chart(0), sent(0)) == ([], "duplicate_bar")

    def test_minutes_without_trades_are_no_gap(self) -> None:
        """A jump in time proves nothing as long as the broker's count goes on."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0, seq=7), sent(0))
        events, word = minutes.take(chart(5, seq=8), sent(5))
        assert [type(event) for event in events] == [Bar]
        assert word == ""

    def test_a_jump_of_the_count_is_a_lost_bar(self) -> None:
        """The gap stands before the bar that revealed it."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0, seq=7), sent(0))
        events, word = minutes.take(chart(2, seq=9), sent(2))
        assert word == "missing_bar"
        gap, published = events
        assert isinstance(gap, Gap)
        assert isinstance(published, Bar)
        assert (gap.from_ms, gap.to_ms) == (OPEN_MS + MINUTE_MS, OPEN_MS + 2 * MINUTE_MS)

    def test_a_different_repeat_needs_history(self) -> None:
        """The stream never takes a bar back."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0), sent(0))
        assert minutes.take(chart(0, close=11.0), sent(0)) == ([], "different_bar")

    def test_an_older_bar_needs_history(self) -> None:
        """Bars only ever go forward."""
        minutes = Minutes("QQQ")
        minutes.take(chart(3), sent(3))
        assert minutes.take(chart(1), sent(3)) == ([], "older_bar")

    def test_a_late_bar_is_published_and_needs_history(self) -> None:
        """Its larger candles may be closed already."""
        late_ms = CLOSE_GRACE_MS + 1
        events, word = Minutes("QQQ").take(chart(0), sent(0, late_ms))
        assert (len(events), word) == (1, "late_bar")

    def test_a_minute_with_trades_and_without_a_bar_is_overdue_once(self) -> None:
        """Fifteen seconds after its end it is asked for, and not again."""
        minutes = Minutes("QQQ")
        minutes.interrupted(OPEN_MS, "restart")
        minutes.flows(OPEN_MS, "restart")
        minutes.closed(DAY_MS, "filled")
        minutes.take(chart(0), sent(0))
        minutes.traded(OPEN_MS + MINUTE_MS + 5)
        due_ms = OPEN_MS + 2 * MINUTE_MS + CLOSE_GRACE_MS
        assert not minutes.overdue(due_ms - 1)
        assert minutes.overdue(due_ms)
        assert not minutes.overdue(due_ms + 10_000)
        assert starts(minutes.merge(DAY_MS, candles(0, 1), due_ms)) == [0, 1]

    def test_a_bar_in_time_is_not_overdue(self) -> None:
        """The expectation ends with the bar."""
        minutes = Minutes("QQQ")
        minutes.interrupted(OPEN_MS, "restart")
        minutes.flows(OPEN_MS, "restart")
        minutes.traded(OPEN_MS + 5)
        minutes.take(chart(0), sent(0))
        assert not minutes.overdue(OPEN_MS + 10 * MINUTE_MS)

    def test_nothing_is_expected_while_bars_do_not_flow(self) -> None:
        """Between two connections level one may be faster than the subscription of bars."""
        minutes = Minutes("QQQ")
        minutes.interrupted(OPEN_MS, "restart")
        minutes.flows(OPEN_MS, "restart")
        minutes.stopped()
        minutes.traded(OPEN_MS + 5)
        assert not minutes.overdue(OPEN_MS + 10 * MINUTE_MS)


class TestGaps:
    def test_the_first_start_misses_the_session_before_and_the_day_so_far(self) -> None:
        """From pre-market's open to the minute that is under way; what came before is no gap."""
        before, gap = Minutes("QQQ").interrupted(OPEN_MS + 90_500, "restart")
        assert (before.from_ms, before.to_ms) == (BEFORE.pre_open_ms, BEFORE.post_close_ms)
        assert (gap.from_ms, gap.to_ms) == (PRE_OPEN_MS, OPEN_MS + MINUTE_MS)
        assert (gap.id, gap.state) == (f"QQQ:bars:{PRE_OPEN_MS}", "open")

    def test_within_the_minute_nothing_is_missing(self) -> None:
        """A reconnect that is fast enough leaves no gap."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0), sent(0))
        assert minutes.interrupted(sent(0) + 5_000, "reconnect") == []

    def test_a_second_interruption_widens_the_same_gap(self) -> None:
        """One gap a day, with one id."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0), sent(0))
        (first,) = minutes.interrupted(sent(2), "reconnect")
        (second,) = minutes.interrupted(sent(4), "silence")
        assert first.id == second.id
        assert second.to_ms == OPEN_MS + 5 * MINUTE_MS

    def test_an_outage_over_days_has_a_gap_for_each_session(self) -> None:
        """Friday's rest, no weekend, Monday so far: within the sessions."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0), sent(0))
        monday_ms = OPEN_MS + 3 * 86_400_000
        gaps = minutes.interrupted(monday_ms, "restart")
        assert [(gap.from_ms, gap.to_ms) for gap in gaps] == [
            (OPEN_MS + MINUTE_MS, OPEN_MS + 630 * MINUTE_MS),
            (monday_ms - 150 * MINUTE_MS, monday_ms),
        ]

    def test_what_history_cannot_reach_is_unfillable(self) -> None:
        """Months of absence end in one gap that says so, and the days that can be filled."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0), sent(0))
        gaps = minutes.interrupted(OPEN_MS + 100 * 86_400_000, "restart")
        assert [gap.state for gap in gaps].count("unfillable") == 1
        assert gaps[0].from_ms == OPEN_MS + MINUTE_MS
        assert 20 < len(gaps) < HISTORY_DAYS_MAX

    def test_a_withdrawn_bar_is_missed_by_the_next_interruption(self) -> None:
        """What could not be published is published as history later."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0), sent(0))
        events, _ = minutes.take(chart(1), sent(1))
        withdrawn = events[0]
        assert isinstance(withdrawn, Bar)
        minutes.withdraw(withdrawn)
        (gap,) = minutes.interrupted(sent(2), "spool_full")
        assert gap.from_ms == OPEN_MS + MINUTE_MS


class TestHistory:
    def test_fills_the_day_up_to_the_gap(self) -> None:
        """Fresh minutes behind the gap are left to the stream."""
        minutes = Minutes("QQQ")
        minutes.interrupted(OPEN_MS + 3 * MINUTE_MS + 500, "restart")
        merged = minutes.merge(DAY_MS, candles(0, 1, 2, 3), OPEN_MS + 3 * MINUTE_MS + 900)
        assert starts(merged) == [0, 1, 2]

    def test_waits_for_the_last_minute_of_the_gap(self) -> None:
        """History lags: until the minute's grace has passed, a missing end means not yet."""
        minutes = Minutes("QQQ")
        minutes.interrupted(OPEN_MS + 3 * MINUTE_MS + 500, "restart")
        end_ms = OPEN_MS + 3 * MINUTE_MS
        assert minutes.merge(DAY_MS, candles(0, 1), end_ms + CLOSE_GRACE_MS - 1) is None
        assert starts(minutes.merge(DAY_MS, candles(0, 1), end_ms + CLOSE_GRACE_MS)) == [0, 1]

    def test_reaches_the_last_bar_published(self) -> None:
        """What the stream brought meanwhile is part of the day, even if history lags."""
        minutes = Minutes("QQQ")
        minutes.interrupted(OPEN_MS + 2 * MINUTE_MS + 500, "restart")
        minutes.take(chart(2), sent(2))
        minutes.take(chart(3), sent(3))
        assert starts(minutes.merge(DAY_MS, candles(0, 1, 2), sent(3))) == [0, 1, 2, 3]

    def test_never_says_less_than_was_published(self) -> None:
        """An answer with fewer minutes than the stream brought is not complete."""
        minutes = Minutes("QQQ")
        for minute in range(RECENT_BARS_MAX + 3):
            minutes.take(chart(minute), sent(minute))
        last = RECENT_BARS_MAX + 2
        assert minutes.merge(DAY_MS, [], sent(last)) is None
        assert minutes.merge(DAY_MS, candles(*range(last + 1)), sent(last)) is not None

    def test_overrules_a_settled_minute_but_not_a_fresh_one(self) -> None:
        """The broker's own history corrects what is old enough to be final there."""
        minutes = Minutes("QQQ")
        minutes.take(chart(0), sent(0))
        corrected = candles(0, close=11.0)
        fresh = minutes.merge(DAY_MS, corrected, OPEN_MS + SETTLED_MS - 1)
        settled = minutes.merge(DAY_MS, corrected, OPEN_MS + SETTLED_MS)
        assert fresh is not None
        assert settled is not None
        assert (fresh[0].close, settled[0].close) == (10.0, 11.0)

    def test_what_it_published_is_not_published_again(self) -> None:
        """The same minute on the stream is a duplicate then, a different one a correction."""
        minutes = Minutes("QQQ")
        minutes.interrupted(OPEN_MS + 2 * MINUTE_MS + 500, "restart")
        merged = minutes.merge(DAY_MS, candles(0, 1), OPEN_MS + 2 * MINUTE_MS + 900)
        assert merged is not None
        minutes.published(DAY_MS, merged)
        assert minutes.take(chart(1), sent(1)) == ([], "duplicate_bar")
        assert minutes.take(chart(1, close=12.0), sent(1))[1] == "different_bar"

    def test_an_earlier_day_is_whole(self) -> None:
        """Once a day is over its history goes to the end."""
        minutes = Minutes("QQQ")
        next_day_ms = DAY_MS + 86_400_000
        assert starts(minutes.merge(DAY_MS, candles(0, 389), next_day_ms)) == [0, 389]


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from([10.0, 11.0]), st.none() | st.integers(0, 9)),
        max_size=30,
    )
)
def test_published_bars_always_rise(arrivals: list[tuple[int, float, int | None]]) -> None:
    """Whatever arrives in whatever order: each minute at most once, and only forward."""
    minutes = Minutes("QQQ")
    published = []
    for minute, close, seq in arrivals:
        events, _ = minutes.take(chart(minute, close, seq=seq), sent(9))
        published += [event.ts_ms for event in events if isinstance(event, Bar)]
    assert published == sorted(set(published))
    assert minutes.day_count == len(published)
