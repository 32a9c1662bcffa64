"""SMA9 and session VWAP over ticks."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from libs.common.events import Clock, Event, TickIndicator
from services.indicators.core import Operator
from services.indicators.exact import quotient
from services.indicators.settings import Definition
from tests.markets import FULL_DAY, clock_at, only, run, tick

OPEN_MS = clock_at(FULL_DAY, 9, 30)
NEXT_DAY = FULL_DAY + dt.timedelta(days=1)
TRADES = st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**9)), max_size=60)


@given(TRADES)
def test_every_tick_has_the_values_of_the_definition(trades: list[tuple[int, int]]) -> None:
    """sma9 is the mean of the last nine prices, vwap that of all, weighted, since the open."""
    ticks = [
        tick(OPEN_MS + number, units / 10_000, volume)
        for number, (units, volume) in enumerate(trades)
    ]
    found = only(TickIndicator, run(Operator(), ticks))
    assert len(found) == len(ticks)
    for number, value in enumerate(found):
        last_nine = [units for units, _ in trades[max(0, number - 8) : number + 1]]
        money = sum(units * volume for units, volume in trades[: number + 1])
        shares = sum(volume for _, volume in trades[: number + 1])
        assert value.sma9 == (quotient(sum(last_nine), 9) if len(last_nine) == 9 else None)
        assert value.vwap == (quotient(money, shares) if shares else None)
        assert (value.ts_ms, value.price) == (ticks[number].ts_ms, ticks[number].price)


def values_at(*moments: tuple[int, float]) -> list[tuple[float | None, float | None]]:
    """Return sma9 and vwap of ticks of 100 shares at these times and prices."""
    found = run(Operator(), [tick(ts_ms, price) for ts_ms, price in moments])
    return [(v.sma9, v.vwap) for v in only(TickIndicator, found)]


def test_the_open_restarts_vwap_but_not_sma() -> None:
    """At 09:30 vwap forgets the pre-market, sma9 does not."""
    before = [(clock_at(FULL_DAY, 9, 29) + n, 10.0) for n in range(8)]
    assert values_at(*before, (OPEN_MS, 19.0))[-1] == (11.0, 19.0)


def test_the_close_restarts_nothing() -> None:
    """Post-market trades go on with the sums of the regular session."""
    before = [(clock_at(FULL_DAY, 15, 59) + n, 10.0) for n in range(9)]
    assert values_at(*before, (clock_at(FULL_DAY, 16), 20.0))[-1] == (11.111111, 11.0)


def test_a_new_day_restarts_both() -> None:
    """The first tick after midnight in New York has an empty past."""
    before = [(clock_at(FULL_DAY, 19, 59) + n, 10.0) for n in range(9)]
    assert values_at(*before, (clock_at(NEXT_DAY, 0, 1), 20.0))[-1] == (None, 20.0)


def test_averages_over_ticks_carry_over_if_asked_for() -> None:
    """`continuous` takes the last closes into the new day; vwap begins anew all the same."""
    before = [tick(clock_at(FULL_DAY, 19, 59) + n, 10.0) for n in range(9)]
    events = [*before, tick(clock_at(NEXT_DAY, 7), 19.0)]
    last = only(TickIndicator, run(Operator(Definition(sma_continuous=True)), events))[-1]
    assert (last.sma9, last.vwap) == (11.0, 19.0)


def test_a_weekend_is_a_day_of_its_own() -> None:
    """On a Saturday there is no session and no reset at half past nine."""
    saturday = dt.date(2023, 7, 15)
    found = values_at((clock_at(saturday, 9), 10.0), (clock_at(saturday, 10), 20.0))
    assert found == [(None, 10.0), (None, 15.0)]


def test_a_time_outside_the_calendar_has_no_values() -> None:
    """Such a tick is answered without values, reported, and changes nothing."""
    anomalies: list[str] = []
    operator = Operator(report=anomalies.append)
    year_2050_ms = 2_524_608_000_000
    odd, good = run(operator, [tick(year_2050_ms, 5.0), tick(OPEN_MS, 10.0)])
    assert isinstance(odd, TickIndicator)
    assert isinstance(good, TickIndicator)
    assert (odd.sma9, odd.vwap, good.vwap) == (None, None, 10.0)
    assert anomalies == ["outside_calendar"]


def test_sums_beyond_64_bits_stay_exact_through_a_checkpoint() -> None:
    """Money of absurd days is carried whole."""
    operator = Operator()
    run(operator, [tick(OPEN_MS + n, 900_000.0, 10**12) for n in range(20)])
    copy = Operator()
    copy.restore(operator.snapshot())
    following: list[Event] = [tick(OPEN_MS + 100, 0.0001, 1), Clock(OPEN_MS)]
    assert run(copy, following) == run(operator, following)
