"""When candles close, and what is in them."""

from __future__ import annotations

import datetime as dt

import pytest

from libs.common.events import Bar, Candle, Clock, Event
from services.indicators.candles import CLOSE_GRACE_MS
from services.indicators.core import Operator
from services.indicators.settings import Definition
from tests.markets import FULL_DAY, HALF_DAY, MINUTE_MS, bar, clock_at, only, run

OPEN_MS = clock_at(FULL_DAY, 9, 30)
GRACE_S = CLOSE_GRACE_MS // 1000


def minutes(*offsets: int, opening_ms: int = OPEN_MS) -> list[Bar]:
    """Return bars at these minutes after the open; the close tells which minute it was."""
    return [bar(opening_ms + n * MINUTE_MS, close=100 + n, volume=10) for n in offsets]


def closed(*events: Event, operator: Operator | None = None) -> list[tuple[str, int, float]]:
    """Return timeframe, minute after the open, and close of every candle in order."""
    candles = only(Candle, run(operator or Operator(), events))
    return [(c.timeframe, (c.ts_ms - OPEN_MS) // MINUTE_MS, c.close) for c in candles]


def test_the_last_minute_closes_its_bucket() -> None:
    """The bar of 09:34 gives its minute and the five minutes from 09:30."""
    assert closed(*minutes(0, 4)) == [("1m", 0, 100), ("1m", 4, 104), ("5m", 0, 104)]


def test_a_later_minute_closes_what_it_leaves_behind() -> None:
    """Without a bar of 09:34, that of 09:36 closes the bucket of 09:30 first."""
    assert closed(*minutes(3, 6)) == [("1m", 3, 103), ("5m", 0, 103), ("1m", 6, 106)]


def test_the_clock_closes_a_bucket_a_grace_after_its_end() -> None:
    """Fourteen seconds after 09:35 nothing happens, at fifteen the bucket closes."""
    end_ms = OPEN_MS + 5 * MINUTE_MS
    too_early = Clock(end_ms + CLOSE_GRACE_MS - 1)
    assert closed(*minutes(3), too_early) == [("1m", 3, 103)]
    assert closed(*minutes(3), too_early, Clock(end_ms + CLOSE_GRACE_MS))[1:] == [("5m", 0, 103)]


def test_a_minute_that_comes_too_late_is_a_minute_only() -> None:
    """After the clock closed its buckets, a late bar is not added to them, and it is reported."""
    anomalies: list[str] = []
    late = Clock(OPEN_MS + 5 * MINUTE_MS + CLOSE_GRACE_MS)
    events: list[Event] = [*minutes(3), late, *minutes(4, 5)]
    found = closed(*events, operator=Operator(report=anomalies.append))
    assert found == [("1m", 3, 103), ("5m", 0, 103), ("1m", 4, 104), ("1m", 5, 105)]
    assert anomalies == ["late_minute"]


@pytest.mark.parametrize("again", [3, 2])
def test_a_bar_that_does_not_follow_is_ignored(again: int) -> None:
    """A minute that was there, or one before it, changes nothing and is reported."""
    anomalies: list[str] = []
    found = closed(*minutes(3, again, 4), operator=Operator(report=anomalies.append))
    assert found == [("1m", 3, 103), ("1m", 4, 104), ("5m", 0, 104)]
    assert anomalies == ["repeated_bar"]


def test_a_candle_holds_its_minutes() -> None:
    """Open of the first, extremes of all, close of the last, volumes added."""
    bars = [
        Bar("QQQ", "1m", OPEN_MS, 10.0, 12.0, 9.5, 11.0, 100),
        Bar("QQQ", "1m", OPEN_MS + 4 * MINUTE_MS, 11.0, 11.5, 8.25, 9.0, 50),
    ]
    five = only(Candle, run(Operator(), bars))[-1]
    assert (five.timeframe, five.ts_ms) == ("5m", OPEN_MS)
    assert (five.open, five.high, five.low, five.close, five.volume) == (10, 12, 8.25, 9, 150)
    assert (five.source, five.revision, five.extras) == ("stream", 0, {})


def test_every_timeframe_averages_its_own_closes() -> None:
    """sma9 of five minutes is the mean of nine five-minute closes, null before the ninth."""
    candles = only(Candle, run(Operator(), minutes(*range(45))))
    fives = [c for c in candles if c.timeframe == "5m"]
    assert [c.sma9 for c in fives[:8]] == [None] * 8
    assert fives[8].sma9 == sum(104 + 5 * n for n in range(9)) / 9


def test_vwap_is_null_while_nothing_traded() -> None:
    """A day that begins with minutes of no volume has no vwap until there is some."""
    bars = [bar(OPEN_MS, 10, volume=0), bar(OPEN_MS + MINUTE_MS, 20, volume=5)]
    assert [c.vwap for c in only(Candle, run(Operator(), bars))] == [None, 20.0]


def test_the_last_hour_of_a_day_ends_with_the_session() -> None:
    """15:59 closes the hour of 15:30; 16:00 belongs to the post-market."""
    three_thirty = clock_at(FULL_DAY, 15, 30)
    events = [bar(three_thirty), bar(three_thirty + 29 * MINUTE_MS)]
    hours = [c for c in only(Candle, run(Operator(), events)) if c.timeframe == "1h"]
    assert [c.ts_ms for c in hours] == [three_thirty]


def test_the_last_hour_of_a_half_day_ends_at_one() -> None:
    """12:59 on a half day closes the hour of 12:30."""
    half_past_twelve = clock_at(HALF_DAY, 12, 30)
    events = [bar(half_past_twelve), bar(half_past_twelve + 29 * MINUTE_MS)]
    hours = [c for c in only(Candle, run(Operator(), events)) if c.timeframe == "1h"]
    assert [c.ts_ms for c in hours] == [half_past_twelve]


def test_a_new_day_closes_the_old_one_with_its_own_averages() -> None:
    """What the day before left open closes with its sma9 and vwap; the new day begins empty."""
    next_open_ms = clock_at(FULL_DAY + dt.timedelta(days=1), 9, 30)
    evening = [bar(clock_at(FULL_DAY, 19, 50) + n * MINUTE_MS, 10 + n, 10) for n in range(10)]
    candles = only(Candle, run(Operator(), [*evening[:-1], bar(next_open_ms, 50, 10)]))
    left_open = [c for c in candles if c.timeframe == "5m"][-1]
    assert (left_open.close, left_open.vwap) == (18.0, 15.777778)  # (14 × 50 + 18 × 40) / 90
    assert [(c.sma9, c.vwap) for c in candles if c.ts_ms == next_open_ms] == [(None, 50.0)]


def test_a_clock_at_night_closes_the_day() -> None:
    """After the last trade the heartbeats close all that is open, once."""
    night = [Clock(clock_at(FULL_DAY, 20, 1)), Clock(clock_at(FULL_DAY, 20, 2))]
    found = closed(*minutes(600), *night)
    assert [timeframe for timeframe, _, _ in found] == ["1m", "5m", "15m", "1h"]


def test_tickers_do_not_meet() -> None:
    """Bars of one ticker neither close nor change candles of another."""
    alone = run(Operator(), minutes(0, 3))
    mixed = [minutes(0)[0], bar(OPEN_MS + 30 * MINUTE_MS, 5, ticker="SPY"), minutes(3)[0]]
    found = [c for c in only(Candle, run(Operator(), mixed)) if c.ticker == "QQQ"]
    assert found == alone


def test_extras_appear_when_they_are_named() -> None:
    """Each output of each indicator has its key, null until it is warm, six decimals then."""
    operator = Operator(Definition(extras=("ema9", "bollinger20")))
    candles = only(Candle, run(operator, minutes(*range(25))))
    first, last = candles[0], [c for c in candles if c.timeframe == "1m"][-1]
    keys = ["ema9", "bollinger20_upper", "bollinger20_middle", "bollinger20_lower"]
    assert list(first.extras) == keys
    assert set(first.extras.values()) == {None}
    assert last.extras["bollinger20_middle"] == 114.5
    assert all(value == round(value or 0, 6) for value in last.extras.values())


def test_extras_start_anew_each_day() -> None:
    """An EMA of yesterday does not reach into today."""
    operator = Operator(Definition(extras=("ema2",)))
    next_open_ms = clock_at(FULL_DAY + dt.timedelta(days=1), 9, 30)
    events = [*minutes(0, 1, 2), *minutes(0, 1, opening_ms=next_open_ms)]
    ones = [c for c in only(Candle, run(operator, events)) if c.timeframe == "1m"]
    assert [c.extras["ema2"] is None for c in ones] == [True, False, False, True, False]


def test_a_bar_outside_the_calendar_is_reported_and_nothing_else() -> None:
    """A bar of the year 2050 is ignored; the candles that are open stay open."""
    anomalies: list[str] = []
    operator = Operator(report=anomalies.append)
    events = [*minutes(0), bar(2_524_608_000_000), *minutes(4)]
    assert closed(*events, operator=operator)[-1] == ("5m", 0, 104)
    assert anomalies == ["outside_calendar"]
