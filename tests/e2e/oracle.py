"""An independent calculation of what the tables must hold after a CSV of minute bars was played.

Nothing here comes from the code under test: sessions are those of the exchange-calendars package,
grouping and windows are pandas', sums are exact (prices as whole ten-thousandths, Python integers),
and division is rounded once, half to even, by the decimal module.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import exchange_calendars
import pandas as pd

NEW_YORK = "America/New_York"
TIMEFRAMES = {"1m": "1min", "5m": "5min", "15m": "15min", "1h": "1h"}
_MICRO = Decimal("0.000001")
_PRICES = ["open", "high", "low", "close"]


def minute_bars(path: Path) -> pd.DataFrame:
    """Read a CSV and keep what trades between the pre-market's open and the post-market's close.

    The index is the bar's start (UTC); `day`, `segment_open` and `segment` say where it belongs.
    """
    bars = pd.read_csv(path, parse_dates=["timestamp"])
    bars["timestamp"] = bars["timestamp"].dt.tz_localize("UTC")
    local = bars["timestamp"].dt.tz_convert(NEW_YORK)
    bars["day"] = local.dt.normalize()
    first, last = bars["day"].min(), bars["day"].max()
    exchange = exchange_calendars.get_calendar("XNYS", start=first.date(), end=last.date())
    schedule = exchange.schedule
    day_key = bars["day"].dt.tz_localize(None)
    opens = day_key.map(schedule["open"])
    closes = day_key.map(schedule["close"])
    full_day = closes.dt.tz_convert(NEW_YORK).dt.hour == 16
    pre_open = bars["day"] + pd.Timedelta(hours=7)
    post_close = bars["day"] + pd.to_timedelta(full_day.map({True: 20, False: 17}), unit="h")
    stamp = bars["timestamp"]
    bars["segment"] = "regular"
    bars.loc[stamp < opens, "segment"] = "pre"
    bars.loc[stamp >= closes, "segment"] = "post"
    bars["segment_open"] = opens
    bars.loc[stamp < opens, "segment_open"] = pre_open.dt.tz_convert("UTC")
    bars.loc[stamp >= closes, "segment_open"] = closes
    kept = bars[(local >= pre_open) & (local < post_close)].copy()
    kept["volume"] = kept["volume"].round().astype("int64")
    for name in _PRICES:
        kept[name] = (kept[name] * 10_000).round().astype("int64")
    return kept


def candles(bars: pd.DataFrame) -> pd.DataFrame:
    """Return every candle of every timeframe with sma9 and vwap as they must be stored."""
    parts = [_candles(bars, name, width) for name, width in TIMEFRAMES.items()]
    return pd.concat(parts, ignore_index=True)


def crosses(all_candles: pd.DataFrame, timeframe: str = "1m") -> pd.DataFrame:
    """Return the changes of relation between sma9 and vwap in the regular segment of each day."""
    chosen = all_candles[
        (all_candles["timeframe"] == timeframe) & (all_candles["segment"] == "regular")
    ]
    found = []
    for _, day in chosen.groupby("day"):
        relation = None
        for row in day.itertuples():
            if row.sma9 is None or row.vwap is None or row.sma9 == row.vwap:
                continue
            now = "up" if row.sma9 > row.vwap else "down"
            if relation is not None and now != relation:
                found.append((row.timestamp, now, row.close, row.sma9, row.vwap))
            relation = now
    return pd.DataFrame(found, columns=["timestamp", "direction", "price", "sma9", "vwap"])


def _candles(bars: pd.DataFrame, timeframe: str, width: str) -> pd.DataFrame:
    step = pd.Timedelta(width)
    since_open = (bars["timestamp"] - bars["segment_open"]) // step
    start = bars["segment_open"] + since_open * step
    keyed = bars.assign(timestamp=start).groupby("timestamp", sort=True)
    made = keyed.agg(
        open=("open", "first"),
        high=("high", "max"),
        low=("low", "min"),
        close=("close", "last"),
        volume=("volume", "sum"),
        day=("day", "first"),
        segment=("segment", "first"),
    ).reset_index()
    made["sma9"] = _sma9(made)
    made["vwap"] = _vwap(made)
    for name in _PRICES:
        made[name] = [Decimal(int(price)) / 10_000 for price in made[name]]
    made.insert(0, "timeframe", timeframe)
    return made


def _sma9(made: pd.DataFrame) -> list[Decimal | None]:
    sums = made.groupby("day")["close"].transform(lambda closes: closes.rolling(9).sum())
    return [None if pd.isna(total) else _quotient(int(total), 9) for total in sums]


def _vwap(made: pd.DataFrame) -> list[Decimal | None]:
    opened = made["segment"] != "pre"
    groups = [made["day"], opened]
    traded = (made["close"] * made["volume"]).groupby(groups).cumsum()
    volume = made["volume"].groupby(groups).cumsum()
    return [
        _quotient(int(money), int(shares)) if shares else None
        for money, shares in zip(traded, volume, strict=True)
    ]


def _quotient(ten_thousandths: int, divisor: int) -> Decimal:
    exact = Decimal(ten_thousandths) / (Decimal(divisor) * 10_000)
    return exact.quantize(_MICRO, rounding=ROUND_HALF_EVEN)
