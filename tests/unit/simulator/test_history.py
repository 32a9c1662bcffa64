"""Price history: which queries are valid, and which candles they bring."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from libs.common import calendar
from services.simulator import history
from services.simulator.history import BadRequest, Query
from services.simulator.market import MINUTE_MS, MinuteBar, session_of
from services.simulator.synthetic import SyntheticMarket

MARKET = SyntheticMarket("1")
FRIDAY = session_of(dt.date(2026, 11, 20))
THURSDAY = session_of(dt.date(2026, 11, 19))
NOW_MS = FRIDAY.open_ms + 3_600_000
DAY_MS = 86_400_000


def ask(now_ms: int = NOW_MS, *, whole_days: bool = True, **params: object) -> Query:
    """Parse a query."""
    texts = {"symbol": "QQQ", **{name: str(value) for name, value in params.items()}}
    return history.parse(texts, now_ms, minute_depth_days=48, whole_days=whole_days)


def candles(now_ms: int = NOW_MS, **params: Any) -> list[dict[str, Any]]:
    """The candles that a query brings."""
    query = ask(now_ms, **params)
    parts = (
        candle
        for day in history.days_of(query)
        for candle in history.candles_of(MARKET, query, day, now_ms)
    )
    found: list[dict[str, Any]] = history.envelope("QQQ", parts)["candles"]
    return found


@pytest.mark.parametrize(
    ("params", "parameter"),
    [
        ({"symbol": ""}, "symbol"),
        ({"periodType": "week"}, "periodType"),
        ({"period": 7}, "period"),
        ({"period": "x"}, "period"),
        ({"frequencyType": "daily"}, "frequencyType"),
        ({"periodType": "month", "frequencyType": "minute"}, "frequencyType"),
        ({"frequency": 2}, "frequency"),
        ({"periodType": "year", "frequencyType": "daily", "frequency": 5}, "frequency"),
        ({"startDate": 2, "endDate": 1}, "startDate"),
        ({"endDate": 10**40}, "endDate"),
        ({"needExtendedHoursData": "maybe"}, "needExtendedHoursData"),
    ],
)
def test_an_invalid_query_names_the_parameter(params: dict[str, Any], parameter: str) -> None:
    """The broker answers 400 and says which one."""
    with pytest.raises(BadRequest) as caught:
        ask(**params)
    assert caught.value.parameter == parameter


def test_without_dates_it_ends_with_the_previous_day() -> None:
    """Today is missing unless endDate asks for it: ten sessions, the last one yesterday."""
    days = history.days_of(ask())
    assert len(days) == 10
    assert days[-1] == THURSDAY.day
    assert history.days_of(ask(endDate=NOW_MS, period=1)) == [FRIDAY.day]


def test_minutes_go_from_seven_to_now() -> None:
    """Extended hours are the default; a minute appears once it ended."""
    found = candles(endDate=NOW_MS + 7 * DAY_MS, startDate=FRIDAY.pre_open_ms)
    assert found[0]["datetime"] == FRIDAY.pre_open_ms
    assert found[-1]["datetime"] == NOW_MS - MINUTE_MS
    a_second_before = candles(NOW_MS - 1_000, endDate=NOW_MS, startDate=FRIDAY.pre_open_ms)
    assert a_second_before == found[:-1]


def test_without_extended_hours_there_is_the_regular_session() -> None:
    """390 minutes of a liquid ticker."""
    found = candles(period=1, needExtendedHoursData="false")
    assert found[0]["datetime"] == THURSDAY.open_ms
    assert found[-1]["datetime"] == THURSDAY.close_ms - MINUTE_MS
    assert len(found) == 390


def test_minutes_without_trades_have_no_candle() -> None:
    """An illiquid ticker's pre-market is full of holes."""
    query = ask(symbol="FXY", period=1)
    found = list(history.candles_of(MARKET, query, THURSDAY.day, NOW_MS))
    assert len(found) == len(MARKET.bars("FXY", THURSDAY.day)) < 600
    assert all(candle["volume"] > 0 for candle in found)


def test_a_part_of_a_day_is_answered_with_all_of_it() -> None:
    """Unless the switch says otherwise: clients must filter for themselves."""
    params = {"startDate": THURSDAY.open_ms, "endDate": THURSDAY.open_ms + 10 * MINUTE_MS}
    assert len(candles(**params)) == 780
    assert [candle["datetime"] for candle in candles(whole_days=False, **params)] == [
        THURSDAY.open_ms + number * MINUTE_MS for number in range(11)
    ]


def test_minutes_reach_back_48_days() -> None:
    """Older ones are not there, whatever was asked for; coarser ones reach further."""
    assert history.days_of(ask(startDate=0, endDate=NOW_MS))[0] >= dt.date(2026, 10, 3)
    assert history.days_of(ask(startDate=0, endDate=NOW_MS))[0] <= dt.date(2026, 10, 5)
    assert history.days_of(ask(startDate=0, frequency=30))[0] < dt.date(2026, 3, 1)


@pytest.mark.parametrize("minutes", [5, 10, 15, 30])
def test_longer_candles_are_made_of_minutes(minutes: int) -> None:
    """First open, highest high, lowest low, last close, all of the volume."""
    ones, many = candles(period=1), candles(period=1, frequency=minutes)
    assert len(many) == 780 // minutes
    for number, candle in enumerate(many):
        part = ones[number * minutes : (number + 1) * minutes]
        assert candle == {
            "open": part[0]["open"],
            "high": max(one["high"] for one in part),
            "low": min(one["low"] for one in part),
            "close": part[-1]["close"],
            "volume": sum(one["volume"] for one in part),
            "datetime": part[0]["datetime"],
        }


def test_daily_candles_are_the_regular_session() -> None:
    """One a day, stamped at midnight in Chicago, today's as far as it has come."""
    found = candles(
        periodType="month", frequencyType="daily", startDate=NOW_MS - 10 * DAY_MS, endDate=NOW_MS
    )
    assert len(found) == 9
    regular: list[MinuteBar] = [
        bar
        for bar in MARKET.bars("QQQ", THURSDAY.day)
        if THURSDAY.open_ms <= bar.ts_ms < THURSDAY.close_ms
    ]
    assert found[-2]["open"] == regular[0].open
    assert found[-2]["close"] == regular[-1].close
    assert found[-2]["volume"] == sum(bar.volume for bar in regular)
    assert found[-2]["datetime"] == 1_795_068_000_000
    assert found[-1]["volume"] < found[-2]["volume"]


@pytest.mark.parametrize(("kind", "count"), [("weekly", 5), ("monthly", 2)])
def test_weeks_and_months_merge_days(kind: str, count: int) -> None:
    """Their volume is the sum of their days."""
    dates: dict[str, Any] = {
        "startDate": NOW_MS - 31 * DAY_MS,
        "endDate": NOW_MS,
        "periodType": "year",
    }
    days = candles(frequencyType="daily", **dates)
    merged = candles(frequencyType=kind, **dates)
    assert len(merged) == count
    assert sum(one["volume"] for one in merged) == sum(one["volume"] for one in days)
    assert merged[-1]["close"] == days[-1]["close"]


def test_the_previous_close_is_the_regular_one_before_the_range() -> None:
    """With its day beside it."""
    found = history.previous_close(MARKET, ask(period=1, needPreviousClose="true"))
    before = calendar.previous_session(THURSDAY.day)
    assert found is not None
    assert found[0] == MARKET.daily_close("QQQ", before.day)
    body = history.envelope("QQQ", [], found)
    assert body["empty"]
    assert body["previousClose"] == found[0]
