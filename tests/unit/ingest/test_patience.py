"""How long the broker is left alone: longer after an eviction, without hurry at night."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.hours import Hours
from services.ingest.patience import Cause, Patience
from tests.unit.ingest.test_hours import at

DAY = dt.date(2026, 11, 18)
NOON_MS, NIGHT_MS = at(DAY, 12), at(DAY, 23)
MINUTE_S = 60.0


def patience() -> Patience:
    """As it is in production."""
    return Patience(Hours(), first_s=1, evicted_s=300, idle_s=1_800)


def waits(one: Patience, cause: Cause, times: int, up_s: float = 0.0) -> list[float]:
    """The pauses after so many connections at noon."""
    return [one.pause(cause, up_s, NOON_MS, 1.0).wall_s for _ in range(times)]


def test_failures_in_a_row_are_met_with_longer_pauses() -> None:
    """1, 2, 5, 10, 30, 60 s and then every minute, a quarter more or less."""
    found = waits(patience(), "reconnect", 8)
    for wait_s, ratio in zip(found, (1, 2, 5, 10, 30, 60, 60, 60), strict=True):
        assert 0.75 * ratio <= wait_s <= 1.25 * ratio


def test_five_good_minutes_begin_anew() -> None:
    """Not four."""
    one = patience()
    waits(one, "reconnect", 6)
    assert one.pause("reconnect", 299, NOON_MS, 1.0).wall_s >= 45
    assert one.pause("reconnect", 300, NOON_MS, 1.0).wall_s <= 1.25


def test_evictions_are_met_with_minutes_that_double_up_to_an_hour() -> None:
    """Whoever came stays longer each time; a good hour later all is forgotten."""
    one = patience()
    found = waits(one, "evicted", 6, up_s=600)
    assert [wait_s / MINUTE_S for wait_s in found] == [5, 10, 20, 40, 60, 60]
    assert one.pause("evicted", 3_600, NOON_MS, 1.0).wall_s == 5 * MINUTE_S


def test_an_eviction_is_waited_for_at_night_too_and_is_never_idle() -> None:
    """Somebody has to look at it."""
    found = patience().pause("evicted", 0, NIGHT_MS, 1.0)
    assert (found.wall_s, found.idle) == (300, False)


def test_at_night_one_try_in_half_an_hour() -> None:
    """Whatever ended the connection; the count of failures begins anew in the morning."""
    one = patience()
    waits(one, "reconnect", 6)
    for cause in ("reconnect", "silence", "stopped", "token", "denied", "refused"):
        found = one.pause(cause, 0, NIGHT_MS, 1.0)
        assert (found.wall_s, found.idle) == (1_800, True)
    assert one.pause("reconnect", 0, NOON_MS, 1.0).wall_s <= 1.25


def test_the_last_wait_of_a_night_ends_shortly_before_the_session() -> None:
    """At 06:55, five minutes before the pre-market."""
    assert patience().pause("reconnect", 0, at(DAY, 6, 45), 1.0).wall_s == 10 * MINUTE_S


def test_in_a_replay_the_night_is_shorter() -> None:
    """Half an hour of the broker's time."""
    assert patience().pause("reconnect", 0, NIGHT_MS, 600.0).wall_s == 3
    # A clock that has just been seen to stand still is no reason to wait for ever.
    assert patience().pause("reconnect", 0, NIGHT_MS, 0.0).wall_s == 1_800


def test_where_the_time_of_day_means_nothing_there_are_no_nights() -> None:
    """A simulated clock may leap from evening to morning."""
    found = patience().pause("reconnect", 0, None, 1.0)
    assert not found.idle
    assert found.wall_s <= 1.25


@given(
    st.lists(st.sampled_from(["reconnect", "evicted", "token"]), min_size=1, max_size=30),
    st.integers(1_700_000_000_000, 1_900_000_000_000),
)
def test_nobody_waits_longer_than_an_hour_or_less_than_a_moment(
    causes: list[Cause], now_ms: int
) -> None:
    """Whatever happens, in whatever order, at whatever time."""
    one = patience()
    for cause in causes:
        assert 0 < one.pause(cause, 0, now_ms, 1.0).wall_s <= 3_600


def test_a_weekend_sees_few_tries() -> None:
    """Friday 20:02 to Monday 06:55: one in half an hour at most, not one in a minute."""
    one, hours = patience(), Hours()
    now_ms, tries = at(dt.date(2026, 11, 20), 20, 2), 0
    while not hours.awake(now_ms):
        now_ms += round(one.pause("reconnect", 0, now_ms, 1.0).wall_s * 1_000)
        tries += 1
    assert now_ms == pytest.approx(at(dt.date(2026, 11, 23), 6, 55))
    assert tries == 118
