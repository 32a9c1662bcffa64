"""The core when people ask for something: other tickers, days of the past once more."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.common.events import Gap, HistoryBar
from services.ingest.core import Core, DayAnswer, Step
from services.ingest.minutes import CLOSE_GRACE_MS, MINUTE_MS
from tests.unit.ingest.builders import OPEN_MS, bar, chart, heartbeat, image, level_one
from tests.unit.ingest.test_core import (
    BEFORE,
    BEFORE_DAY_MS,
    TICKERS,
    answer,
    delta,
    kinds,
    reasons,
    running,
)

BARS = tuple(HistoryBar(BEFORE.open_ms + n * MINUTE_MS, 10.0, 11.0, 9.0, 10.5, 7) for n in range(5))


class TestWatching:
    def test_a_ticker_that_comes_later_begins_with_an_image(self) -> None:
        """Its items are taken from then on, and what was missed before is named."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        stranger = image("NVDA", last=10.0, volume=100, at_ms=now)
        assert reasons(core.step(level_one(now, stranger))) == ["unknown_ticker"]
        core.watch((*TICKERS, "NVDA"), TICKERS)
        assert core.step(level_one(now, stranger)).notes == ["image"]
        step = core.step(level_one(now, delta("NVDA", 10.1, 101, now + 1)))
        assert kinds(step) == ["Gap", "Tick"]
        assert isinstance(step.events[0], Gap)
        assert (step.events[0].cause, step.events[0].state) == ("added", "unfillable")
        gaps = core.interrupted(["NVDA"], "added").events
        assert {gap.cause for gap in gaps if isinstance(gap, Gap)} == {"added"}

    def test_a_ticker_that_goes_is_not_expected_any_more(self) -> None:
        """Its items are strangers', no bar of it is overdue, and what was published is kept."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        core.step(level_one(now, delta("SPY", 10.1, 101, now)))
        core.watch(["QQQ"], ["QQQ"])
        late = core.step(heartbeat(now + 10 * MINUTE_MS))
        assert "overdue_bar" not in late.notes
        assert reasons(core.step(level_one(now, delta("SPY", 10.2, 102, now)))) == [
            "unknown_ticker"
        ]
        assert core.active == {"QQQ"}
        assert core.known == set(TICKERS)

    def test_the_last_minute_of_a_ticker_that_goes_is_missing(self) -> None:
        """Its bar was to come; history brings it once it is over."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS + 20_000
        core.history(answer(OPEN_MS + 5 * MINUTE_MS, *range(5)), last_try=True)
        core.step(chart(now, bar("QQQ", OPEN_MS + 5 * MINUTE_MS, volume=5)))
        step = core.watch(["SPY"], ["SPY"])
        (gap,) = step.events
        assert isinstance(gap, Gap)
        minute_ms = OPEN_MS + 6 * MINUTE_MS
        assert (gap.cause, gap.from_ms, gap.to_ms) == ("removed", minute_ms, minute_ms + MINUTE_MS)
        (wanted,) = step.wanted
        assert wanted.after_ms == gap.to_ms + CLOSE_GRACE_MS
        filled = core.history(answer(wanted.after_ms, *range(7)), last_try=False)
        assert kinds(filled) == ["History", "Gap"]
        assert core.watch(["SPY"], ["SPY"]).events == []

    def test_a_ticker_whose_bars_are_dropped_waits_for_none(self) -> None:
        """Its quotes go on."""
        core, now = running(), OPEN_MS + 6 * MINUTE_MS
        core.watch(TICKERS, ["QQQ"])
        assert kinds(core.step(level_one(now, delta("SPY", 10.1, 101, now)))) == ["Tick"]
        late = core.step(heartbeat(now + 10 * MINUTE_MS))
        assert "overdue_bar" not in late.notes


class TestDaysAgain:
    def again(self, core: Core, bars: list[HistoryBar] | None, ticker: str = "NVDA") -> Step:
        """Answer a request that somebody made for the day before."""
        brought = DayAnswer(ticker, BEFORE_DAY_MS, OPEN_MS, bars)
        step = core.history(brought, last_try=True, changes_only=True)
        assert step is not None
        return step

    def test_a_day_that_says_nothing_new_is_not_published_again(self) -> None:
        """By a ticker on the list or by another one; a change is published."""
        core = running()
        assert kinds(self.again(core, list(BARS))) == ["History"]
        step = self.again(core, list(BARS))
        assert (step.events, step.notes) == ([], ["history_unchanged"])
        other = [*BARS[:-1], replace(BARS[-1], volume=8)]
        assert kinds(self.again(core, other)) == ["History"]
        assert kinds(self.again(core, list(BARS))) == ["History"]
        assert self.again(core, list(BARS[:-1])).events == [], "minutes are not taken back"

    def test_a_restart_remembers_the_day(self) -> None:
        """From the checkpoint, and from the frames since."""
        core = running()
        step = self.again(core, list(BARS))
        by_state, by_frames = Core(TICKERS), Core(TICKERS)
        by_frames.login(OPEN_MS)
        by_state.restore(core.snapshot(0, 1, 1))
        for event in step.events:
            by_frames.replay(event)
        for life in (by_state, by_frames):
            assert self.again(life, list(BARS)).notes == ["history_unchanged"]

    def test_a_day_that_found_no_room_is_published_again(self) -> None:
        """What was taken back is not there."""
        core = running()
        step = self.again(core, list(BARS))
        core.refused(step.events, "spool_full")
        assert "History" in kinds(self.again(core, list(BARS)))

    @pytest.mark.parametrize("minutes_late", [0, 1])
    @pytest.mark.parametrize("restarted", [False, True])
    def test_a_day_with_a_late_minute_is_published_again(
        self, *, minutes_late: int, restarted: bool
    ) -> None:
        """It is known by then, and only a History brings it into closed candles."""
        core = running()
        first = core.history(answer(OPEN_MS + 6 * MINUTE_MS, *range(5)), last_try=True)
        assert kinds(first) == ["History", "Gap"]
        state = core.snapshot(0, 1, 1)
        now = OPEN_MS + (6 + minutes_late) * MINUTE_MS + 2_500
        live = bar("QQQ", OPEN_MS + 5 * MINUTE_MS, volume=5)
        events = core.step(heartbeat(now)).events
        events += core.step(chart(now, live)).events
        assert kinds(Step(now, events)) == ["Clock", "Bar"]
        if restarted:
            core = Core(TICKERS)
            core.restore(state)
            for event in events:
                core.replay(event)
        again = core.history(answer(now + 200_000, *range(6)), last_try=True)
        assert kinds(again) == ["History"] * minutes_late

    def test_an_empty_or_refused_day_publishes_nothing(self) -> None:
        """There is nothing to say about it."""
        core = running()
        assert self.again(core, []).events == []
        assert self.again(core, None).events == []
