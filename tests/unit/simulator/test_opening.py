"""A demo opens shortly before a cross, by the market's own bars."""

from __future__ import annotations

import datetime as dt

import pytest

from libs.common import calendar
from libs.common.events import Bar, Signal
from services.indicators.core import Operator as Indicators
from services.signals.core import Operator as Signals
from services.simulator.opening import SHOWN_TICKERS, before_a_cross_ms
from services.simulator.synthetic import SyntheticMarket
from tests.markets import clock_at, only, run

DAYS = [dt.date(2026, 11, day) for day in (16, 17, 18, 19, 20)]


def crosses_ms(market: SyntheticMarket, ticker: str, day: dt.date) -> list[int]:
    """Return the minutes that cross, as the services see them."""
    bars = [Bar(ticker, "1m", *minute) for minute in market.bars(ticker, day)]
    signals = run(Signals(), run(Indicators(), bars))
    return [signal.ts_ms for signal in only(Signal, signals)]


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_services_signal_within_the_first_minute(seed: str, day: dt.date) -> None:
    """The minute under way at the opening is the first in which the real services see a cross."""
    market = SyntheticMarket(seed)
    from_ms, last_ms = clock_at(day, 10, 30), clock_at(day, 15)
    opens_ms = before_a_cross_ms(market, from_ms)
    found = [ts_ms for ticker in SHOWN_TICKERS for ts_ms in crosses_ms(market, ticker, day)]
    expected = [ts_ms for ts_ms in found if from_ms - 15_000 <= ts_ms <= last_ms - 15_000]
    assert opens_ms == (min(expected) + 15_000 if expected else from_ms)


def test_most_days_have_one() -> None:
    """Else the search would be of no use."""
    starts = [clock_at(day, 10, 30) for day in DAYS]
    moved = [start for start in starts if before_a_cross_ms(SyntheticMarket("1"), start) != start]
    assert len(moved) >= 4


def test_a_closed_day_opens_as_asked() -> None:
    """There is nothing to look for."""
    sunday_ms = clock_at(dt.date(2026, 11, 22), 12)
    assert calendar.session_at(sunday_ms) is None
    assert before_a_cross_ms(SyntheticMarket("1"), sunday_ms) == sunday_ms
