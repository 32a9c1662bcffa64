"""Broker time between frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.market_clock import SILENCE_MS_MAX, MarketClock

WALL_MS = 1_700_000_000_000
BROKER_MS = 1_600_000_000_000


def ran(speed: float, *, every_ms: int = 100, for_ms: int = 5_000, late: int = 0) -> MarketClock:
    """Return a clock that saw frames at a speed, each other one `late` milliseconds late."""
    clock = MarketClock()
    for at_ms in range(0, for_ms + 1, every_ms):
        delay_ms = late if at_ms // every_ms % 2 else 0
        clock.observe(BROKER_MS + round(at_ms * speed), WALL_MS + at_ms + delay_ms)
    return clock


def test_nothing_is_known_before_the_first_frame() -> None:
    """And frames without a time teach nothing."""
    clock = MarketClock()
    clock.observe(0, WALL_MS)
    assert clock.now_ms(WALL_MS) is None
    assert clock.speed == 1


@pytest.mark.parametrize("speed", [1.0, 5.0, 150.0])
def test_time_goes_on_at_the_speed_seen(speed: float) -> None:
    """Between frames it is extrapolated."""
    clock = ran(speed)
    assert clock.speed == pytest.approx(speed, rel=0.01)
    assert clock.fast == (speed > 1)
    now_ms = clock.now_ms(WALL_MS + 6_000)
    assert now_ms == pytest.approx(BROKER_MS + 6_000 * speed, abs=100 * speed)


def test_a_market_that_jitters_runs_at_its_pace() -> None:
    """Delays of a fraction of a second are no replay."""
    assert ran(1.0, late=80).speed == 1.0


def test_a_replay_that_ended_does_not_run_away() -> None:
    """After a silence, time passes as on the wall."""
    clock = ran(100.0)
    end_ms = WALL_MS + 5_000 + SILENCE_MS_MAX
    later_ms = clock.now_ms(end_ms + 60_000)
    assert later_ms is not None
    assert later_ms - (clock.now_ms(end_ms) or 0) == 60_000


def test_a_market_that_was_moved_is_believed() -> None:
    """The new time holds at once, the new speed after a second of it."""
    clock = ran(100.0)
    moved_ms = BROKER_MS + 86_400_000
    for at_ms in range(0, 3_001, 100):
        clock.observe(moved_ms + at_ms, WALL_MS + 6_000 + at_ms)
        now_ms = clock.now_ms(WALL_MS + 6_000 + at_ms)
        assert now_ms == moved_ms + at_ms
    assert clock.speed == 1.0


def test_older_frames_are_ignored() -> None:
    """They come when a partition catches up."""
    clock = ran(1.0)
    clock.observe(BROKER_MS, WALL_MS + 1)
    assert clock.now_ms(WALL_MS + 5_000) == BROKER_MS + 5_000


@given(
    st.lists(st.tuples(st.integers(0, 2**45), st.integers(0, 2**45)), max_size=50),
    st.integers(0, 2**45),
)
def test_whatever_frames_say_the_clock_answers(frames: list[tuple[int, int]], wall_ms: int) -> None:
    """No input breaks it, and time does not run backwards while nothing comes."""
    clock = MarketClock()
    for sent_ms, received_ms in frames:
        clock.observe(sent_ms, received_ms)
    assert clock.speed >= 0
    now_ms, later_ms = clock.now_ms(wall_ms), clock.now_ms(wall_ms + 1000)
    assert (now_ms is None and later_ms is None) or (
        now_ms is not None and later_ms is not None and now_ms <= later_ms
    )
