"""Every real bar of the test data, against a calculation that shares no code with ours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

import pandas as pd
import pytest

from libs.common import calendar
from libs.common.events import Candle, Clock
from services.indicators.core import Operator
from services.indicators.settings import Definition
from tests.e2e import oracle
from tests.markets import (
    HALF_DAY,
    MINUTE_MS,
    by_day,
    history,
    newest,
    only,
    real_bars,
    real_table,
    run,
    with_clocks,
)

TICKERS = ("INDA", "FXY")
Row = tuple[object, ...]


def stored(value: float | None, decimals: int) -> Decimal | None:
    """Return a number as its column keeps it."""
    return None if value is None else Decimal(f"{value:.{decimals}f}")


def rows(candles: Iterable[Candle]) -> dict[tuple[str, int], Row]:
    """Return candles as the database would hold them."""
    return {
        (c.timeframe, c.ts_ms): (
            *(stored(price, 4) for price in (c.open, c.high, c.low, c.close)),
            c.volume,
            stored(c.sma9, 6),
            stored(c.vwap, 6),
        )
        for c in candles
    }


@lru_cache
def expected(ticker: str) -> dict[tuple[str, int], Row]:
    """Return what the independent calculation finds."""
    return {
        (row.timeframe, round(row.timestamp.timestamp() * 1000)): (
            row.open, row.high, row.low, row.close, row.volume, row.sma9, row.vwap,
        )
        for row in oracle.candles(real_table(ticker)).itertuples()
    }  # fmt: skip


@pytest.fixture(params=TICKERS)
def ticker(request: pytest.FixtureRequest) -> str:
    """Each file of real bars."""
    found: str = request.param
    return found


def test_live_candles_equal_the_independent_ones(ticker: str) -> None:
    """Bars as they come, with heartbeats: every candle of every timeframe, once, and equal."""
    candles = only(Candle, run(Operator(), with_clocks(real_bars(ticker))))
    assert rows(candles) == expected(ticker)
    assert len(candles) == len(expected(ticker))


def test_bars_alone_close_the_same_candles(ticker: str) -> None:
    """Without heartbeats until the end, the next minute closes what it leaves behind."""
    bars = real_bars(ticker)
    candles = only(Candle, run(Operator(), [*bars, Clock(bars[-1].ts_ms + 120 * MINUTE_MS)]))
    assert rows(candles) == expected(ticker)
    assert len(candles) == len(expected(ticker))


def test_history_gives_the_same_candles(ticker: str) -> None:
    """Days that come whole, as History, have the same candles, all of revision 1."""
    days = by_day(real_bars(ticker))
    last_ms = real_bars(ticker)[-1].ts_ms + 120 * MINUTE_MS
    events = [history(day, bars, ticker) for day, bars in days.items()]
    candles = only(Candle, run(Operator(), [Clock(last_ms), *events]))
    assert rows(candles) == expected(ticker)
    assert {(c.source, c.revision) for c in candles} == {("history", 1)}


def test_days_in_any_order_give_the_same_candles() -> None:
    """History of earlier days, after a later one, changes those days alone."""
    days = by_day(real_bars("INDA"))
    clock = Clock(real_bars("INDA")[-1].ts_ms + 120 * MINUTE_MS)
    events = [history(day, days[day], "INDA") for day in sorted(days, reverse=True)]
    assert rows(only(Candle, run(Operator(), [clock, *events]))) == expected("INDA")


def test_typical_prices_weigh_the_vwap_if_asked_for(ticker: str) -> None:
    """`hlc3` puts (high + low + close) / 3 in the place of the close, in every timeframe."""
    table = oracle.candles(real_table(ticker))
    candles = only(Candle, run(Operator(Definition(vwap_price="hlc3")), real_bars(ticker)))
    ours = {(c.timeframe, c.ts_ms): c.vwap for c in candles}
    for (_, timeframe, _), group in table.groupby(["day", "timeframe", table["segment"] == "pre"]):
        typical = (group["high"] + group["low"] + group["close"]).astype(float) / 3
        shares = group["volume"].cumsum()
        reference = (typical * group["volume"]).cumsum() / shares.where(shares > 0)
        for moment, value in zip(group["timestamp"], reference, strict=True):
            key = (str(timeframe), round(moment.timestamp() * 1000))
            if key in ours:
                assert ours[key] == (None if pd.isna(value) else pytest.approx(value, abs=6e-7))


def test_averages_carry_over_if_asked_for(ticker: str) -> None:
    """`continuous` lets sma9 run on over the nights; vwap still begins with the day."""
    table = oracle.candles(real_table(ticker))
    bars = real_bars(ticker)
    operator = Operator(Definition(sma_continuous=True))
    candles = only(Candle, run(operator, [*bars, Clock(bars[-1].ts_ms + 120 * MINUTE_MS)]))
    assert rows(candles).keys() == expected(ticker).keys()
    vwaps = {key: row[-1] for key, row in expected(ticker).items()}
    assert {key: row[-1] for key, row in rows(candles).items()} == vwaps
    ours = {(str(c.timeframe), c.ts_ms): c.sma9 for c in candles}
    for timeframe, group in table.groupby("timeframe"):
        means = group["close"].astype(float).rolling(9).mean()
        for moment, mean in zip(group["timestamp"], means, strict=True):
            value = ours[str(timeframe), round(moment.timestamp() * 1000)]
            assert value == (None if pd.isna(mean) else pytest.approx(mean, abs=6e-7))


def test_carried_averages_survive_whole_days() -> None:
    """With `continuous`, days that come again as History, oldest first, change no candle."""
    operator = Operator(Definition(sma_continuous=True))
    days = by_day(real_bars("INDA"))
    last_two = sorted(days)[-2:]
    live = only(Candle, run(operator, [*with_clocks(real_bars("INDA"))]))
    again = only(Candle, run(operator, [history(day, days[day], "INDA") for day in last_two]))
    assert again
    assert newest(live) == newest([*live, *again])


def test_carried_averages_follow_a_corrected_day() -> None:
    """With `continuous`, two days with holes, healed oldest first, end as if nothing was lost."""
    definition = Definition(sma_continuous=True, extras=("ema9",))
    days = by_day(real_bars("INDA"))
    first, second = sorted(days)[:2]
    evening = Clock(days[second][-1].ts_ms + 120 * MINUTE_MS)
    whole = only(Candle, run(Operator(definition), [*days[first], *days[second], evening]))
    holed = [*days[first][:200], *days[first][-3:-1], days[first][-1], *days[second][50:]]
    healing = [history(day, days[day], "INDA") for day in (first, second)]
    healed = only(Candle, run(Operator(definition), [*holed, evening, *healing]))
    assert newest(healed) == newest(whole)


def test_the_clock_change_moves_the_open_not_the_day() -> None:
    """The hour of 09:30 begins at 13:30 UTC in summer time and at 14:30 after it ends."""
    candles = only(Candle, run(Operator(), with_clocks(real_bars("FXY"))))
    for day, utc_hour in ((dt.date(2023, 11, 3), 13), (dt.date(2023, 11, 6), 14)):
        session = calendar.session(day)
        assert session is not None
        opening = dt.datetime.fromtimestamp(session.open_ms / 1000, dt.UTC)
        assert (opening.hour, opening.minute) == (utc_hour, 30)
        hours = [
            c.ts_ms
            for c in candles
            if c.timeframe == "1h" and session.open_ms <= c.ts_ms < session.close_ms
        ]
        assert hours
        assert all((ts_ms - session.open_ms) % (60 * MINUTE_MS) == 0 for ts_ms in hours)


def test_a_half_day_ends_its_hours_at_one_o_clock() -> None:
    """On the day after Thanksgiving nothing of 13:00 joins the hour of 12:30."""
    candles = only(Candle, run(Operator(), with_clocks(real_bars("FXY"))))
    session = calendar.session(HALF_DAY)
    assert session is not None
    assert session.half_day
    today = [c for c in candles if c.timeframe == "1h" and calendar.day_of(c.ts_ms) == HALF_DAY]
    regular = [c for c in today if session.open_ms <= c.ts_ms < session.close_ms]
    assert regular
    minutes = [b for b in real_bars("FXY") if session.open_ms <= b.ts_ms < session.close_ms]
    assert sum(c.volume for c in regular) == sum(b.volume for b in minutes)
    assert max(c.ts_ms for c in regular) == session.close_ms - 30 * MINUTE_MS
