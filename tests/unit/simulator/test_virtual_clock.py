"""Virtual time runs, jumps over closed hours, and survives its process."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.errors import SettingsError
from services.simulator import clock_file
from services.simulator.csv_bars import load
from services.simulator.market import Market, session_of
from services.simulator.synthetic import SyntheticMarket
from services.simulator.virtual_clock import Anchor, VirtualClock, mid_session_ms, resume

DATA = Path(__file__).resolve().parents[2] / "data"
FRIDAY = session_of(dt.date(2026, 11, 20))
MONDAY = session_of(dt.date(2026, 11, 23))
SYNTHETIC = SyntheticMarket("1")
WALL_MS = 1_800_000_000_000
END_MS = FRIDAY.post_close_ms + 20_000


def anchor(virtual_ms: int, speed: float = 1.0) -> Anchor:
    """A line that starts at WALL_MS."""
    return Anchor("m", WALL_MS, virtual_ms, WALL_MS, speed, WALL_MS)


def running(virtual_ms: int, speed: float = 1.0, market: Market = SYNTHETIC) -> VirtualClock:
    """A clock that skips closed hours."""
    return VirtualClock(anchor(virtual_ms, speed), market, skip_closed=True)


def fxy() -> Market:
    """The recorded November, which ends on the 24th."""
    return load({"FXY": DATA / "FXY-1min-2023-11.csv"}, "1", 12)[0]


def test_time_runs_at_its_speed() -> None:
    """A second of wall time is `speed` seconds of virtual time."""
    clock = running(FRIDAY.open_ms, speed=60)
    assert clock.now_ms(WALL_MS) == FRIDAY.open_ms
    assert clock.now_ms(WALL_MS + 1_500) == FRIDAY.open_ms + 90_000
    assert clock.wall_ms_until(FRIDAY.open_ms + 120_000, WALL_MS + 1_500) == 500


def test_a_waiting_clock_stands_until_it_is_started() -> None:
    """Nothing passes before the first subscription, and starting twice changes nothing."""
    waiting = msgspec.structs.replace(anchor(FRIDAY.open_ms), started=False)
    clock = VirtualClock(waiting, SYNTHETIC, skip_closed=True)
    assert clock.now_ms(WALL_MS + 99_000) == FRIDAY.open_ms
    clock.start(WALL_MS + 99_000)
    clock.start(WALL_MS + 100_000)
    assert clock.now_ms(WALL_MS + 101_000) == FRIDAY.open_ms + 2_000


def test_the_night_is_jumped_over_at_the_exact_instant() -> None:
    """Whoever asks late gets the same time as whoever asks all the time."""
    asleep, awake = running(FRIDAY.post_close_ms), running(FRIDAY.post_close_ms)
    for wall_ms in range(WALL_MS, WALL_MS + 60_000, 7):
        awake.now_ms(wall_ms)
    assert awake.now_ms(WALL_MS + 60_000) == asleep.now_ms(WALL_MS + 60_000)
    assert asleep.now_ms(WALL_MS + 60_000) == MONDAY.pre_open_ms + 40_000
    assert asleep.jumped_to_ms == MONDAY.pre_open_ms


def test_a_lagging_reader_holds_the_jump_back() -> None:
    """Time stands at the end of the session, and goes on from the open once all is sent."""
    clock = running(FRIDAY.post_close_ms)
    clock.may_jump = lambda at_ms: False
    assert clock.now_ms(WALL_MS + 90_000) == END_MS
    clock.may_jump = lambda at_ms: True
    assert clock.now_ms(WALL_MS + 90_000) == MONDAY.pre_open_ms
    assert clock.now_ms(WALL_MS + 91_000) == MONDAY.pre_open_ms + 1_000


def test_tokens_do_not_age_over_a_jump() -> None:
    """What a client counts in wall seconds is what the simulator counts."""
    clock = running(FRIDAY.post_close_ms, speed=10)
    clock.now_ms(WALL_MS + 60_000)
    assert clock.token_ms(WALL_MS + 60_000) == WALL_MS + 600_000


def test_after_the_last_recorded_day_time_goes_on_at_its_own_pace() -> None:
    """No further jump, speed 1, whatever the speed was."""
    last = session_of(dt.date(2023, 11, 24))
    clock = running(last.post_close_ms, speed=1_000, market=fxy())
    assert clock.now_ms(WALL_MS + 20) == last.post_close_ms + 20_000
    assert clock.now_ms(WALL_MS + 3_020) == last.post_close_ms + 23_000
    again = resume(clock.anchor, fxy(), WALL_MS + 5_020, speed=1_000, skip_closed=True)
    assert again.now_ms(WALL_MS + 6_020) == last.post_close_ms + 26_000


def test_recorded_days_follow_each_other() -> None:
    """From the 9th to the 20th of November there are no rows, so there is no time."""
    before, after = session_of(dt.date(2023, 11, 9)), session_of(dt.date(2023, 11, 20))
    clock = running(before.post_close_ms, market=fxy())
    assert clock.now_ms(WALL_MS + 21_000) == after.pre_open_ms + 1_000


@given(
    start_s=st.integers(0, 40_000),
    speed=st.sampled_from([1.0, 7.5, 60.0, 900.0]),
    down_at_ms=st.integers(0, 50_000),
    down_for_ms=st.integers(0, 59_000),
)
def test_a_killed_clock_comes_back_as_if_it_had_never_stopped(
    start_s: int, speed: float, down_at_ms: int, down_for_ms: int
) -> None:
    """Whatever the instant of the kill, the line is the same afterwards."""
    start_ms = FRIDAY.pre_open_ms + start_s * 1000
    steady, killed = running(start_ms, speed), running(start_ms, speed)
    killed.now_ms(WALL_MS + down_at_ms)
    stored = msgspec.structs.replace(killed.anchor, alive_wall_ms=WALL_MS + down_at_ms)
    back_ms = WALL_MS + down_at_ms + down_for_ms
    again = resume(stored, SYNTHETIC, back_ms, speed=speed, skip_closed=True)
    for later_ms in (0, 1, 999, 60_000, 300_000):
        assert abs(again.now_ms(back_ms + later_ms) - steady.now_ms(back_ms + later_ms)) <= speed
        assert (
            abs(again.token_ms(back_ms + later_ms) - steady.token_ms(back_ms + later_ms)) <= speed
        )


@given(days=st.integers(0, 400), hours=st.integers(0, 24))
def test_a_demo_started_days_later_opens_mid_session_and_never_earlier(
    days: int, hours: int
) -> None:
    """Outside the regular session it goes to 10:30 of the next one; time never runs backwards."""
    stored = anchor(FRIDAY.open_ms)
    wall_ms = WALL_MS + days * 86_400_000 + hours * 3_600_000 + 60_001
    straight = running(FRIDAY.open_ms).now_ms(wall_ms)
    clock = resume(stored, SYNTHETIC, wall_ms, speed=1, skip_closed=True)
    now_ms = clock.now_ms(wall_ms)
    assert now_ms >= straight
    assert calendar.is_open(now_ms)
    if not calendar.is_open(straight):
        assert now_ms == mid_session_ms(now_ms)


@pytest.mark.parametrize(
    ("market", "speed", "away_ms", "stopped", "resumed_after_ms"),
    [
        (fxy(), 600, 59_999, False, 59_999),
        (fxy(), 600, 60_000, False, 2_000),
        (fxy(), 1, 60_000, False, 6_000),
        (fxy(), 600, 150_000, True, 0),
        (fxy(), 600, 10, True, 0),
        (SYNTHETIC, 600, 60_000, False, 2_000),
        (SYNTHETIC, 600, 150_000, True, 0),
        (SYNTHETIC, 1, 150_000, True, 150_000),
        (SYNTHETIC, 1, 150_000, False, 150_000),
    ],
)
def test_what_was_away_for_longer_goes_on_from_where_it_was(
    market: Market, speed: float, away_ms: int, stopped: bool, resumed_after_ms: int
) -> None:
    """A recording and a fast market rest when they are away; a killed one sends nothing twice."""
    start_ms = session_of(dt.date(2023, 11, 20)).pre_open_ms
    if market is SYNTHETIC:
        start_ms = FRIDAY.open_ms
    steady = running(start_ms, speed, market)
    mark = running(start_ms, speed, market).mark(WALL_MS + 9_000, stopped=stopped)
    back_ms = WALL_MS + 9_000 + away_ms
    again = resume(mark, market, back_ms, speed=speed, skip_closed=True)
    assert again.now_ms(back_ms) == steady.now_ms(WALL_MS + 9_000 + resumed_after_ms)
    assert again.now_ms(back_ms + 10) == again.now_ms(back_ms) + 10 * speed
    # The client's tokens aged meanwhile.
    assert again.token_ms(back_ms) == running(start_ms, speed, market).token_ms(back_ms)
    assert not again.anchor.stopped


def test_a_mark_on_a_held_jump_is_where_time_stands() -> None:
    """What a lagging reader held back is not skipped by a restart."""
    clock = running(FRIDAY.post_close_ms, speed=600)
    clock.may_jump = lambda at_ms: False
    assert clock.now_ms(WALL_MS + 9_000) == END_MS
    mark = clock.mark(WALL_MS + 9_000, stopped=True)
    back_ms = WALL_MS + 99_000
    again = resume(mark, SYNTHETIC, back_ms, speed=600, skip_closed=True)
    assert again.now_ms(back_ms) == MONDAY.pre_open_ms


def test_a_new_demo_opens_in_the_middle_of_the_latest_session() -> None:
    """On a Sunday and before 10:30 that is the session before."""
    assert mid_session_ms(FRIDAY.open_ms + 3_600_000) == FRIDAY.open_ms + 3_600_000
    assert mid_session_ms(MONDAY.open_ms) == FRIDAY.open_ms + 3_600_000
    assert mid_session_ms(FRIDAY.close_ms + 86_400_000) == FRIDAY.open_ms + 3_600_000


def test_the_file_keeps_the_line_and_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    """What was saved is loaded; another market's clock and rubbish are settings errors."""
    path = tmp_path / "clock.json"
    assert clock_file.load(path, "m") is None
    clock_file.save(path, anchor(5))
    assert clock_file.load(path, "m") == anchor(5)
    with pytest.raises(SettingsError, match="is the clock of m, not of other"):
        clock_file.load(path, "other")
    path.write_bytes(b"{")
    with pytest.raises(SettingsError, match="remove it to start anew"):
        clock_file.load(path, "m")
