"""Price history: the query's rules, and candles from the market's minute bars.

Pure and in steps: `days_of` says which days a query touches, `candles_of` makes those of one of
them, so a caller can let others work in between. A bar is there once its period began and its
minutes ended; minutes without trades have none.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from libs.common import calendar
from services.simulator.market import MINUTE_MS, DayBars, Market, MinuteBar, session_of

__all__ = ["BadRequest", "Query", "candles_of", "days_of", "envelope", "parse", "previous_close"]

_DAY_MS = 86_400_000
_PERIODS = {
    "day": (1, 2, 3, 4, 5, 10),
    "month": (1, 2, 3, 6),
    "year": (1, 2, 3, 5, 10, 15, 20),
    "ytd": (1,),
}
_PERIOD_DEFAULT = {"day": 10, "month": 1, "year": 1, "ytd": 1}
_FREQUENCY_TYPES = {
    "day": ("minute",),
    "month": ("daily", "weekly"),
    "year": ("daily", "weekly", "monthly"),
    "ytd": ("daily", "weekly"),
}
_MINUTE_FREQUENCIES = (1, 5, 10, 15, 30)
_FIVE_MINUTE_DEPTH_DAYS = 270
# The broker has decades; here each daily candle is made from its minutes: two years are enough.
_DAILY_DEPTH_DAYS = 2 * 366
# The broker stamps daily candles with midnight in Chicago.
_CHICAGO = ZoneInfo("America/Chicago")


class BadRequest(Exception):
    """A query that the broker answers with 400; `parameter` is the one to blame."""

    def __init__(self, detail: str, parameter: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Query:
    """A valid query; `start_ms` and `end_ms` are inclusive."""

    symbol: str
    frequency_type: str
    frequency: int
    start_ms: int
    end_ms: int
    extended: bool
    previous_close: bool
    whole_days: bool


def parse(
    params: Mapping[str, str], now_ms: int, *, minute_depth_days: int, whole_days: bool
) -> Query:
    """Read the parameters of a request made at `now_ms`; raises BadRequest."""
    symbol = params.get("symbol", "").strip().upper()
    if not symbol:
        raise BadRequest("symbol is required", "symbol")
    period_type = _choice(params, "periodType", tuple(_PERIODS), "day")
    period = _integer(params, "period", _PERIOD_DEFAULT[period_type])
    if period not in _PERIODS[period_type]:
        raise BadRequest(f"period {period} is not valid for periodType {period_type}", "period")
    allowed = _FREQUENCY_TYPES[period_type]
    frequency_type = _choice(params, "frequencyType", allowed, allowed[-1])
    frequency = _integer(params, "frequency", 1)
    if frequency not in (_MINUTE_FREQUENCIES if frequency_type == "minute" else (1,)):
        raise BadRequest(f"frequency {frequency} is not valid for {frequency_type}", "frequency")
    end_ms = _integer(params, "endDate", _previous_close_ms(now_ms))
    # Nothing is that old; the bound keeps the default within the calendar.
    oldest_ms = now_ms - 2 * _DAILY_DEPTH_DAYS * _DAY_MS
    default_ms = _start_ms(period_type, period, min(max(end_ms, oldest_ms), now_ms))
    start_ms = _integer(params, "startDate", min(default_ms, end_ms))
    if start_ms > end_ms:
        raise BadRequest("startDate must not be after endDate", "startDate")
    depth_days = minute_depth_days if frequency == 1 else _FIVE_MINUTE_DEPTH_DAYS
    if frequency_type != "minute":
        depth_days = _DAILY_DEPTH_DAYS
    return Query(
        symbol=symbol,
        frequency_type=frequency_type,
        frequency=frequency,
        start_ms=max(start_ms, calendar.day_start_ms(now_ms) - depth_days * _DAY_MS),
        end_ms=min(end_ms, now_ms),
        extended=_boolean(params, "needExtendedHoursData", True),
        previous_close=_boolean(params, "needPreviousClose", False),
        whole_days=whole_days,
    )


def days_of(query: Query) -> list[dt.date]:
    """Return the session days that the query touches, ascending."""
    if query.start_ms > query.end_ms:
        return []
    first, last = calendar.day_of(query.start_ms), calendar.day_of(query.end_ms)
    return [item.day for item in calendar.sessions(max(first, calendar.FIRST_DAY), last)]


def candles_of(
    market: Market, query: Query, day: dt.date, now_ms: int
) -> Iterator[dict[str, float | int]]:
    """Yield the candles of one day, ascending; of weeks and months the day's part, to be merged."""
    session = session_of(day)
    daily = query.frequency_type != "minute"
    regular_only = daily or not query.extended
    from_ms = session.open_ms if regular_only else session.pre_open_ms
    to_ms = session.close_ms if regular_only else session.post_close_ms
    # Asked for a part of a day, the broker tends to send all of it.
    if not query.whole_days and not daily:
        from_ms, to_ms = max(from_ms, query.start_ms), min(to_ms, query.end_ms + 1)
    length_ms = to_ms - from_ms if daily else query.frequency * MINUTE_MS
    if length_ms <= 0:
        return
    bars = _between(market.bars(query.symbol, day), from_ms, min(to_ms, now_ms - MINUTE_MS + 1))
    stamp_ms = _period_ms(query.frequency_type, day) if daily else None
    yield from _merged(bars, length_ms, session.pre_open_ms if not daily else from_ms, stamp_ms)


def envelope(
    symbol: str,
    candles: Iterable[dict[str, float | int]],
    previous: tuple[float, int] | None = None,
) -> dict[str, Any]:
    """Return the reply's body; candles of one week or month are merged here."""
    out: list[dict[str, float | int]] = []
    for candle in candles:
        if out and out[-1]["datetime"] == candle["datetime"]:
            _absorb(out[-1], candle)
        else:
            out.append(candle)
    body: dict[str, Any] = {"symbol": symbol, "empty": not out, "candles": out}
    if previous is not None:
        body["previousClose"], body["previousCloseDate"] = previous
    return body


def previous_close(market: Market, query: Query) -> tuple[float, int] | None:
    """Return the regular close before the query's range, and its day's stamp in epoch ms."""
    first = calendar.day_of(query.start_ms)
    before = market.day_before(query.symbol, max(first, calendar.FIRST_DAY + dt.timedelta(days=7)))
    if before is None:
        return None
    session = session_of(before)
    bars = list(_between(market.bars(query.symbol, before), session.open_ms, session.close_ms))
    return (bars[-1].close, _period_ms("daily", before)) if bars else None


def _between(bars: DayBars, from_ms: int, to_ms: int) -> Iterator[MinuteBar]:
    return (bar for bar in bars if from_ms <= bar.ts_ms < to_ms)


def _merged(
    bars: Iterable[MinuteBar], length_ms: int, origin_ms: int, stamp_ms: int | None
) -> Iterator[dict[str, float | int]]:
    """Group ascending bars into buckets that count from `origin_ms`."""
    candle: dict[str, float | int] = {}
    for bar in bars:
        start_ms = bar.ts_ms - (bar.ts_ms - origin_ms) % length_ms
        one = {
            "open": bar.open,
            "high": bar.high,
            "low": bar.low,
            "close": bar.close,
            "volume": bar.volume,
            "datetime": start_ms if stamp_ms is None else stamp_ms,
        }
        if candle and candle["datetime"] == one["datetime"]:
            _absorb(candle, one)
            continue
        if candle:
            yield candle
        candle = one
    if candle:
        yield candle


def _absorb(candle: dict[str, float | int], later: dict[str, float | int]) -> None:
    candle["high"] = max(candle["high"], later["high"])
    candle["low"] = min(candle["low"], later["low"])
    candle["close"] = later["close"]
    candle["volume"] += later["volume"]


def _period_ms(frequency_type: str, day: dt.date) -> int:
    if frequency_type == "weekly":
        day -= dt.timedelta(days=day.weekday())
    elif frequency_type == "monthly":
        day = day.replace(day=1)
    return int(dt.datetime.combine(day, dt.time.min, _CHICAGO).timestamp()) * 1000


def _previous_close_ms(now_ms: int) -> int:
    return calendar.previous_session(calendar.day_of(now_ms)).post_close_ms


def _start_ms(period_type: str, period: int, end_ms: int) -> int:
    last = calendar.day_of(end_ms)
    if period_type == "day":
        first = last + dt.timedelta(days=1)
        for _ in range(period):
            first = calendar.previous_session(first).day
    elif period_type == "ytd":
        first = last.replace(month=1, day=1)
    else:
        first = last - dt.timedelta(days=(30 if period_type == "month" else 365) * period)
    return calendar.day_bounds_ms(first)[0]


def _choice(params: Mapping[str, str], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = params.get(name, default)
    if value not in allowed:
        raise BadRequest(f"{name} {value} is not valid; use {', '.join(allowed)}", name)
    return value


def _integer(params: Mapping[str, str], name: str, default: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        raise BadRequest(f"{name} must be a whole number", name) from None
    if abs(value) > 1 << 50:
        raise BadRequest(f"{name} is out of range", name)
    return value


def _boolean(params: Mapping[str, str], name: str, default: bool) -> bool:
    text = params.get(name)
    if text is None:
        return default
    if text.lower() not in ("true", "false"):
        raise BadRequest(f"{name} must be true or false", name)
    return text.lower() == "true"
