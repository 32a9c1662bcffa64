"""Bodies of the quote and market-hours endpoints, from snapshots and the calendar. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Any

from libs.common.calendar import NEW_YORK, Session
from services.simulator.level_one import Snapshot, fields, statics
from services.simulator.market import Market
from services.simulator.tape import Tape

__all__ = ["SYMBOLS_MAX", "market_hours", "quote"]

SYMBOLS_MAX = 500
_DATE_PAST_DAYS = 7
_DATE_AHEAD_DAYS = 365
_SECTIONS = ("quote", "reference", "regular", "fundamental", "extended")
_PRODUCTS = {"equity": {"EQ": "equity"}, "option": {"EQO": "equity option", "IND": "index option"}}


def quote(market: Market, symbol: str, sections: list[str], now_ms: int) -> dict[str, Any]:
    """Return one symbol's quote with the sections asked for (all when none are named)."""
    state = Tape(market, symbol, now_ms).snapshot
    wanted = [name for name in _SECTIONS if name in sections] or _SECTIONS
    parts = {
        "quote": _quote(state),
        "reference": _reference(market, symbol),
        "regular": _regular(state),
        "fundamental": {"peRatio": 0, "divYield": 0, "divAmount": 0, "eps": 0},
        "extended": _extended(state),
    }
    return {
        "assetMainType": "EQUITY",
        "assetSubType": "ETF",
        "quoteType": "NBBO",
        "realtime": True,
        "ssid": sum(map(ord, symbol)) * 7919,
        "symbol": symbol,
        **{name: parts[name] for name in wanted},
    }


def _quote(state: Snapshot) -> dict[str, Any]:
    wire = fields(state) | statics("", state.close or state.last)
    numbers = {
        "52WeekHigh": 19,
        "52WeekLow": 20,
        "askMICId": 39,
        "askPrice": 2,
        "askSize": 5,
        "askTime": 38,
        "bidMICId": 40,
        "bidPrice": 1,
        "bidSize": 4,
        "bidTime": 37,
        "closePrice": 12,
        "highPrice": 10,
        "lastMICId": 41,
        "lastPrice": 3,
        "lastSize": 9,
        "lowPrice": 11,
        "mark": 33,
        "markChange": 44,
        "markPercentChange": 45,
        "netChange": 18,
        "netPercentChange": 42,
        "openPrice": 17,
        "postMarketChange": 50,
        "postMarketPercentChange": 51,
        "quoteTime": 34,
        "securityStatus": 32,
        "totalVolume": 8,
        "tradeTime": 35,
    }
    return {name: wire[number] for name, number in numbers.items()}


def _reference(market: Market, symbol: str) -> dict[str, Any]:
    return {
        "description": market.description(symbol),
        "exchange": "Q",
        "exchangeName": "NASDAQ",
        "isHardToBorrow": False,
        "isShortable": True,
        "htbRate": 0,
    }


def _regular(state: Snapshot) -> dict[str, Any]:
    wire = fields(state)
    return {
        "regularMarketLastPrice": wire[29],
        "regularMarketLastSize": wire[30],
        "regularMarketNetChange": wire[31],
        "regularMarketPercentChange": wire[43],
        "regularMarketTradeTime": wire[36],
    }


def _extended(state: Snapshot) -> dict[str, Any]:
    return {
        "askPrice": state.ask,
        "askSize": state.ask_size,
        "bidPrice": state.bid,
        "bidSize": state.bid_size,
        "lastPrice": state.last,
        "lastSize": state.print_size,
        "mark": state.mark,
        "quoteTime": state.quote_ms,
        "totalVolume": state.volume,
        "tradeTime": state.trade_ms,
    }


def market_hours(
    markets: list[str], day: dt.date, today: dt.date, session: Session | None
) -> dict[str, Any] | str:
    """Return the hours of a day with that session, or the broker's reason why it does not say."""
    if (today - day).days > _DATE_PAST_DAYS:
        return "Date cannot be more than 7 days in the past."
    if (day - today).days > _DATE_AHEAD_DAYS:
        return "Date cannot be more than 1 year in the future."
    unknown = [name for name in markets if name not in _PRODUCTS]
    if unknown or not markets:
        return f"Unknown market: {', '.join(unknown) or 'none given'}"
    return {name: _hours(name, day, session) for name in markets}


def _hours(market: str, day: dt.date, session: Session | None) -> dict[str, Any]:
    common = {"date": day.isoformat(), "marketType": market.upper()}
    if session is None:
        return {market: {**common, "product": market, "isOpen": False}}
    return {
        product: {
            **common,
            "product": product,
            "productName": name,
            "isOpen": True,
            "sessionHours": _session_hours(product, session),
        }
        for product, name in _PRODUCTS[market].items()
    }


def _session_hours(product: str, session: Session) -> dict[str, list[dict[str, str]]]:
    if product == "EQ":
        return {
            "preMarket": [_span(session.pre_open_ms, session.open_ms)],
            "regularMarket": [_span(session.open_ms, session.close_ms)],
            "postMarket": [_span(session.close_ms, session.post_close_ms)],
        }
    index_extra_ms = 900_000 if product == "IND" else 0
    return {"regularMarket": [_span(session.open_ms, session.close_ms + index_extra_ms)]}


def _span(start_ms: int, end_ms: int) -> dict[str, str]:
    return {"start": _iso(start_ms), "end": _iso(end_ms)}


def _iso(ts_ms: int) -> str:
    return dt.datetime.fromtimestamp(ts_ms // 1000, NEW_YORK).isoformat()
