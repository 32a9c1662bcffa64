"""The invented market looks like one, and is the same whenever it is asked."""

from __future__ import annotations

import datetime as dt
import itertools
import statistics
import time

import pytest

from libs.common import calendar
from services.simulator.market import DayBars, MinuteBar, session_of
from services.simulator.synthetic import SyntheticMarket

DAY = dt.date(2026, 11, 20)
HALF_DAY = dt.date(2026, 11, 27)


def regular(bars: DayBars, day: dt.date) -> list[MinuteBar]:
    """The bars of the regular session."""
    session = session_of(day)
    return [bar for bar in bars if session.open_ms <= bar.ts_ms < session.close_ms]


def crosses(bars: DayBars, day: dt.date) -> int:
    """How often the mean of nine closes passes the session's volume-weighted mean."""
    session = session_of(day)
    closes: list[float] = []
    value = volume = count = 0.0
    above: bool | None = None
    for bar in bars:
        closes.append(bar.close)
        if bar.ts_ms == session.open_ms:
            value = volume = 0.0
        value, volume = value + bar.close * bar.volume, volume + bar.volume
        if session.open_ms <= bar.ts_ms < session.close_ms:
            now = sum(closes[-9:]) / 9 > value / volume
            count += above is not None and now != above
            above = now
    return int(count)


@pytest.mark.parametrize("ticker", ["QQQ", "FXY", "NEVERHEARD"])
def test_bars_are_consistent_and_within_the_extended_session(ticker: str) -> None:
    """Low and high enclose open and close; prices are positive; minutes ascend."""
    session = session_of(HALF_DAY)
    bars = list(SyntheticMarket("1").bars(ticker, HALF_DAY))
    assert bars
    for bar in bars:
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert bar.volume > 0
        assert session.pre_open_ms <= bar.ts_ms < session.post_close_ms
        assert all(round(price, 4) == price for price in bar[1:5])


def test_a_day_does_not_depend_on_what_was_asked_before() -> None:
    """Two markets of one seed agree on a day, in whatever order days are computed."""
    first, second = SyntheticMarket("7"), SyntheticMarket("7", days_cached_max=1)
    second.bars("SPY", DAY)
    second.bars("SPY", calendar.previous_session(DAY).day)
    assert list(first.bars("SPY", DAY)) == list(second.bars("SPY", DAY))
    assert list(SyntheticMarket("8").bars("SPY", DAY)) != list(first.bars("SPY", DAY))


def test_the_cache_is_bounded() -> None:
    """Old days are dropped, however many are asked for."""
    market = SyntheticMarket("1", days_cached_max=3)
    for session in calendar.sessions(DAY - dt.timedelta(days=14), DAY):
        market.bars("QQQ", session.day)
    assert len(market._days) == 3


def test_volume_is_high_at_the_open_and_the_close() -> None:
    """The first and the last half hour trade much more than midday."""
    bars = regular(SyntheticMarket("1").bars("SPY", DAY), DAY)
    first, middle, last = (
        statistics.mean(bar.volume for bar in bars[place : place + 30]) for place in (0, 180, 360)
    )
    assert first > 1.5 * middle
    assert last > 1.5 * middle


def test_volatility_comes_in_clusters() -> None:
    """The size of a move says something about the size of the next one."""
    market = SyntheticMarket("1")
    pairs: list[tuple[float, float]] = []
    for session in calendar.sessions(DAY - dt.timedelta(days=14), DAY):
        bars = regular(market.bars("QQQ", session.day), session.day)[60:330]
        moves = [abs(b.close / a.close - 1) for a, b in itertools.pairwise(bars)]
        pairs += itertools.pairwise(moves)
    assert statistics.correlation(*zip(*pairs, strict=True)) > 0.05


def test_averages_cross_several_times_a_day() -> None:
    """A demo shows signals: on average at least three a day for each of the usual tickers."""
    market = SyntheticMarket("1")
    days = [item.day for item in calendar.sessions(DAY - dt.timedelta(days=14), DAY)]
    for ticker in ("QQQ", "SPY", "IWM", "AAPL"):
        assert statistics.mean(crosses(market.bars(ticker, day), day) for day in days) >= 3


def test_prices_go_on_from_day_to_day_and_return_to_their_base() -> None:
    """No day opens far from where the last one ended, and years do not carry the price away."""
    market = SyntheticMarket("1")
    days = [item.day for item in calendar.sessions(DAY - dt.timedelta(days=30), DAY)]
    for before, day in itertools.pairwise(days):
        assert 0.9 < market.bars("QQQ", day)[0].open / market.bars("QQQ", before)[-1].close < 1.1
    far = [market.daily_close("QQQ", dt.date(year, 6, 1)) for year in range(1995, 2035)]
    assert all(300 < close < 1_300 for close in far)


def test_a_day_without_a_session_is_empty() -> None:
    """Weekends and holidays have no bars."""
    market = SyntheticMarket("1")
    assert len(market.bars("QQQ", dt.date(2026, 11, 22))) == 0
    assert len(market.bars("QQQ", dt.date(2026, 11, 26))) == 0


def test_a_day_is_made_quickly() -> None:
    """Less than 50 ms each, so that history over weeks stays cheap."""
    market = SyntheticMarket("1")
    days = [item.day for item in calendar.sessions(DAY - dt.timedelta(days=30), DAY)]
    started = time.process_time()
    for day in days:
        market.bars("QQQ", day)
    assert (time.process_time() - started) / len(days) < 0.05


def test_level_one_counts_more_volume_than_bars() -> None:
    """Bars carry the share of the day's volume that was set."""
    assert SyntheticMarket("1", volume_share=0.5).day_volume(100) == 200
