"""Quotes and market hours as the broker words them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from libs.common import calendar
from services.simulator.market import session_of
from services.simulator.quotes import market_hours, quote
from services.simulator.synthetic import SyntheticMarket
from services.simulator.tape import Tape

MARKET = SyntheticMarket("1")
FRIDAY = dt.date(2026, 11, 20)
AT_MS = session_of(FRIDAY).open_ms + 3_600_000


def hours(day: dt.date, *markets: str) -> Any:
    """The hours as of Friday."""
    return market_hours(list(markets), day, FRIDAY, calendar.session(day))


def test_a_quote_says_what_the_stream_says() -> None:
    """Price, volume and times are those of level one at that instant."""
    body = quote(MARKET, "QQQ", [], AT_MS)
    state = Tape(MARKET, "QQQ", AT_MS).snapshot
    assert body["quote"]["lastPrice"] == state.last
    assert body["quote"]["totalVolume"] == state.volume
    assert body["quote"]["tradeTime"] == state.trade_ms
    assert body["regular"]["regularMarketLastPrice"] == state.regular_last
    assert body["reference"]["description"] == "Invesco QQQ Trust"


def test_sections_can_be_chosen() -> None:
    """Only what was asked for comes, beside the frame of the answer."""
    body = quote(MARKET, "QQQ", ["regular"], AT_MS)
    assert "regular" in body
    assert not {"quote", "reference", "fundamental", "extended"} & set(body)


def test_a_full_day_has_three_sessions() -> None:
    """Seven to half past nine, to four, to eight, with New York's offset."""
    found = hours(FRIDAY, "equity")["equity"]["EQ"]
    assert found["isOpen"]
    assert found["sessionHours"] == {
        "preMarket": [{"start": "2026-11-20T07:00:00-05:00", "end": "2026-11-20T09:30:00-05:00"}],
        "regularMarket": [
            {"start": "2026-11-20T09:30:00-05:00", "end": "2026-11-20T16:00:00-05:00"}
        ],
        "postMarket": [{"start": "2026-11-20T16:00:00-05:00", "end": "2026-11-20T20:00:00-05:00"}],
    }


def test_a_half_day_closes_early() -> None:
    """Regular to one, after hours to five, index options a quarter of an hour longer."""
    found = hours(dt.date(2026, 11, 27), "equity", "option")
    sessions = found["equity"]["EQ"]["sessionHours"]
    assert sessions["regularMarket"][0]["end"] == "2026-11-27T13:00:00-05:00"
    assert sessions["postMarket"][0]["end"] == "2026-11-27T17:00:00-05:00"
    index = found["option"]["IND"]["sessionHours"]
    assert index == {
        "regularMarket": [
            {"start": "2026-11-27T09:30:00-05:00", "end": "2026-11-27T13:15:00-05:00"}
        ]
    }


def test_a_closed_day_has_no_hours() -> None:
    """The inner name is then that of the market."""
    found = hours(dt.date(2026, 11, 26), "equity")
    assert found == {
        "equity": {
            "equity": {
                "date": "2026-11-26",
                "marketType": "EQUITY",
                "product": "equity",
                "isOpen": False,
            }
        }
    }


@pytest.mark.parametrize(
    ("day", "market", "reason"),
    [
        (dt.date(2026, 11, 12), "equity", "Date cannot be more than 7 days in the past."),
        (dt.date(2027, 11, 21), "equity", "Date cannot be more than 1 year in the future."),
        (FRIDAY, "cheese", "Unknown market: cheese"),
    ],
)
def test_what_the_broker_does_not_say(day: dt.date, market: str, reason: str) -> None:
    """Too early, too late, unknown."""
    assert hours(day, market) == reason
