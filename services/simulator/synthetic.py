"""A believable invented market: any ticker, any session day, from a seed.

Theory of operation. A day is a bridge: it starts at the last price of the session before and ends
at a close that is known beforehand, because daily closes follow from a sum of per-day random shocks
that fade (so prices wander, yet return to the ticker's base price). In between, minute returns have
a volatility that clusters (GARCH) and follows the day (busy at the open and the close), and are
pulled towards a level that wanders itself, which makes a moving average cross the session's mean
several times a day. Volume has the same daily shape and rises with the size of the move.

Every random choice comes from (seed, ticker, day); days do not depend on each other's minutes, so
any of them is computed alone, in a few milliseconds.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from libs.common import calendar
from libs.common.calendar import Session
from services.simulator.market import (
    MINUTE_MS,
    DayBars,
    MinuteBar,
    previous_trading_day,
    session_of,
)
from services.simulator.ticks import SLOTS

__all__ = ["DAYS_CACHED_MAX", "Instrument", "SyntheticMarket"]

DAYS_CACHED_MAX = 320
_SHOCK_DAYS = 60
_SHOCK_FADE = 0.95
_CLOSE_DECIMALS = 2
_NORMALS = 4_096
_SUB_PENNY = 0.03
_BUSY_VOLUME = 60 * 100  # from this many shares a minute, level one changes every second


@dataclass(frozen=True, slots=True)
class Instrument:
    """What one ticker is like: price in dollars, usual daily volume, daily volatility."""

    name: str
    price: float
    shares_per_day: int
    volatility: float


_KNOWN = {
    "QQQ": Instrument("Invesco QQQ Trust", 610.0, 45_000_000, 0.012),
    "SPY": Instrument("SPDR S&P 500 ETF Trust", 680.0, 70_000_000, 0.009),
    "IWM": Instrument("iShares Russell 2000 ETF", 245.0, 32_000_000, 0.014),
    "DIA": Instrument("SPDR Dow Jones Industrial Average ETF Trust", 465.0, 3_500_000, 0.008),
    "TLT": Instrument("iShares 20+ Year Treasury Bond ETF", 90.0, 38_000_000, 0.009),
    "GLD": Instrument("SPDR Gold Shares", 370.0, 9_000_000, 0.010),
    "AAPL": Instrument("Apple Inc", 265.0, 50_000_000, 0.015),
    "MSFT": Instrument("Microsoft Corp", 510.0, 21_000_000, 0.014),
    "NVDA": Instrument("NVIDIA Corp", 185.0, 190_000_000, 0.026),
    "AMZN": Instrument("Amazon.com Inc", 225.0, 42_000_000, 0.018),
    "GOOGL": Instrument("Alphabet Inc Class A", 285.0, 30_000_000, 0.017),
    "META": Instrument("Meta Platforms Inc Class A", 650.0, 14_000_000, 0.019),
    "TSLA": Instrument("Tesla Inc", 410.0, 85_000_000, 0.034),
    "AMD": Instrument("Advanced Micro Devices Inc", 235.0, 45_000_000, 0.032),
    "NFLX": Instrument("Netflix Inc", 112.0, 35_000_000, 0.020),
    "INDA": Instrument("iShares MSCI India ETF", 54.0, 6_500_000, 0.008),
    "FXY": Instrument("Invesco CurrencyShares Japanese Yen Trust", 59.0, 250_000, 0.005),
}


class SyntheticMarket:
    """Implements `Market`. `volume_share` is the part of level one's volume that bars carry."""

    def __init__(
        self, seed: str, volume_share: float = 0.77, days_cached_max: int = DAYS_CACHED_MAX
    ) -> None:
        self.seed = seed
        self._volume_share = volume_share
        self._days_cached_max = days_cached_max
        self._days: OrderedDict[tuple[str, dt.date], DayBars] = OrderedDict()

    @property
    def name(self) -> str:
        """Say which market this is."""
        return f"synthetic:{self.seed}"

    def knows(self, ticker: str) -> bool:
        """Accept whatever looks like an equity symbol."""
        return 0 < len(ticker) <= 10 and ticker.replace(".", "").replace("/", "").isalnum()

    def description(self, ticker: str) -> str:
        """Return the name of the instrument."""
        return self._instrument(ticker).name

    def bars(self, ticker: str, day: dt.date) -> DayBars:
        """Return the day's bars; computed on first use, then cached within bounds."""
        key = (ticker, day)
        found = self._days.get(key)
        if found is not None:
            self._days.move_to_end(key)
            return found
        found = self._make(ticker, day)
        self._days[key] = found
        if len(self._days) > self._days_cached_max:
            self._days.popitem(last=False)
        return found

    def day_before(self, ticker: str, day: dt.date) -> dt.date | None:
        """Return the session before `day`: every session has trades."""
        return previous_trading_day(day)

    def bars_before(self, ticker: str, day: dt.date) -> int:
        """Count the minutes of the week's earlier sessions, as if each of them had traded."""
        monday = day - dt.timedelta(days=day.weekday())
        earlier = calendar.sessions(monday, day - dt.timedelta(days=1)) if day > monday else []
        return sum((item.post_close_ms - item.pre_open_ms) // MINUTE_MS for item in earlier)

    def next_open_ms(self, after_ms: int) -> int | None:
        """Return the pre-market open of the next session."""
        return calendar.next_session(calendar.day_of(after_ms)).pre_open_ms

    def first_open_ms(self) -> int | None:
        """Return None: this market always existed."""
        return None

    def updates_per_minute(self, ticker: str, bar: MinuteBar) -> int:
        """Return about one update a second for busy minutes, fewer for quiet ones."""
        return min(SLOTS, max(1, SLOTS * bar.volume // _BUSY_VOLUME))

    def day_volume(self, volume: int) -> int:
        """Level one also counts what bars leave out."""
        return round(volume / self._volume_share)

    def daily_close(self, ticker: str, day: dt.date) -> float:
        """Return the close of the regular session, in whole cents."""
        instrument = self._instrument(ticker)
        number = day.toordinal()
        phase = Random(f"{self.seed}/{ticker}/phase").random()
        swing = 0.05 * math.sin(2 * math.pi * (number / 173 + phase))
        shocks = sum(
            _SHOCK_FADE**age * Random(f"{self.seed}/{ticker}/{number - age}").gauss(0, 1)
            for age in range(_SHOCK_DAYS)
        )
        level = instrument.price * math.exp(swing + instrument.volatility * 0.8 * shocks)
        return max(0.05, round(level, _CLOSE_DECIMALS))

    def _instrument(self, ticker: str) -> Instrument:
        return _KNOWN.get(ticker) or _invented(self.seed, ticker)

    def _make(self, ticker: str, day: dt.date) -> DayBars:
        session = session_of(day) if calendar.session(day) else None
        if session is None:
            return DayBars()
        before = self._after_hours_close(ticker, previous_trading_day(day))
        close = self.daily_close(ticker, day)
        maker = _Day(self._instrument(ticker), Random(f"{self.seed}/{ticker}/{day}"), session)
        return maker.bars(before, close, self._after_hours_close(ticker, day))

    def _after_hours_close(self, ticker: str, day: dt.date) -> float:
        drift = Random(f"{self.seed}/{ticker}/{day}/post").gauss(0, 1)
        moved = self._instrument(ticker).volatility * 0.1 * drift
        return max(0.05, round(self.daily_close(ticker, day) * math.exp(moved), 2))


class _Day:
    """Makes the bars of one ticker and session."""

    def __init__(self, instrument: Instrument, rng: Random, session: Session) -> None:
        self._instrument = instrument
        self._rng = rng
        self._session = session
        # Volatility of a regular minute, leaving room for the gap and the extended session.
        self._minute_volatility = instrument.volatility * 0.75 / math.sqrt(390)
        self._variance = 1.0
        self._last = 0.0

    def bars(self, before: float, close: float, after: float) -> DayBars:
        """Bridge from the price before the day to its close, then to the one after hours."""
        volatility = self._instrument.volatility
        opening = before * (close / before) ** 0.4 * math.exp(self._rng.gauss(0, volatility * 0.2))
        pre_end = before + (opening - before) * self._rng.uniform(0.6, 1.1)
        day = DayBars()
        item = self._session
        self._last = before
        self._segment(day, item.pre_open_ms, item.open_ms, (before, pre_end), 0.45, _pre_shape)
        self._last = round(opening, 2)
        self._segment(day, item.open_ms, item.close_ms, (opening, close), 1.0, _regular_shape)
        self._segment(day, item.close_ms, item.post_close_ms, (close, after), 0.35, _post_shape)
        return day

    def _segment(
        self,
        day: DayBars,
        start_ms: int,
        end_ms: int,
        ends: tuple[float, float],
        calm: float,
        shape: Shape,
    ) -> None:
        minutes = (end_ms - start_ms) // MINUTE_MS
        shares, busy = shape.table(minutes)
        path, spreads = self._path(ends, [calm * factor for factor in busy])
        normal = iter(self._rng.choices(_normal_table(), k=4 * minutes)).__next__
        for minute in range(minutes):
            close, spread = path[minute], spreads[minute]
            move = abs(close / self._last - 1) / self._minute_volatility
            volume = self._volume(shares[minute], move, normal())
            bar = self._bar(
                start_ms + minute * MINUTE_MS, close, spread, volume, (normal(), normal(), normal())
            )
            if volume:
                day.append(bar)
                self._last = bar.close

    def _path(
        self, ends: tuple[float, float], calm: list[float]
    ) -> tuple[list[float], list[float]]:
        """Return the close of each minute, and the volatility it had."""
        normal = iter(self._rng.choices(_normal_table(), k=2 * len(calm))).__next__
        variance, level, pull, shock = self._variance, 0.0, 0.0, 0.0
        levels, spreads = [], []
        for factor in calm:
            variance = 0.06 + 0.12 * shock * shock + 0.82 * variance
            deviation = math.sqrt(variance)
            shock = deviation * normal()
            volatility = self._minute_volatility * factor
            pull += normal() * volatility * 0.5 - pull * 0.01
            level += shock * volatility + (pull - level) * 0.04
            levels.append(level)
            spreads.append(volatility * deviation)
        self._variance = variance
        start, end = ends
        slope = (math.log(end / start) - level) / len(calm)
        path = [
            start * math.exp(value + slope * minute) for minute, value in enumerate(levels, start=1)
        ]
        return path, spreads

    def _bar(
        self,
        ts_ms: int,
        target: float,
        spread: float,
        volume: int,
        draws: tuple[float, float, float],
    ) -> MinuteBar:
        decimals = 4 if self._rng.random() < _SUB_PENNY else 2
        close = max(0.01, round(target, decimals))
        opening = max(0.01, round(self._last * (1 + draws[0] * spread * 0.15), 2))
        reach = self._last * spread * 0.7
        top, bottom = (opening, close) if opening > close else (close, opening)
        high = max(top, round(top + abs(draws[1]) * reach, 2))
        low = max(0.01, min(bottom, round(bottom - abs(draws[2]) * reach, 2)))
        return MinuteBar(ts_ms, opening, high, low, close, volume)

    def _volume(self, share: float, move: float, draw: float) -> int:
        noise = math.exp(draw * 0.5 - 0.12)
        expected = self._instrument.shares_per_day * share * noise * (0.6 + 0.4 * min(move, 6.0))
        shares = int(expected)
        # A minute in which less than a round lot would trade is often silent.
        return shares if shares >= 100 or self._rng.random() < shares / 200 else 0


@lru_cache(maxsize=4_096)
def _invented(seed: str, ticker: str) -> Instrument:
    """Return what a ticker that nobody knows is like."""
    rng = Random(f"{seed}/{ticker}/instrument")
    price = round(math.exp(rng.uniform(math.log(8), math.log(600))), 2)
    shares = int(math.exp(rng.uniform(math.log(400_000), math.log(40_000_000))))
    return Instrument(f"{ticker} Inc", price, shares, rng.uniform(0.008, 0.03))


@lru_cache(maxsize=1)
def _normal_table() -> list[float]:
    """Return evenly likely values of the normal distribution: drawing one is ten times cheaper."""
    inverse = statistics.NormalDist().inv_cdf
    return [inverse((number + 0.5) / _NORMALS) for number in range(_NORMALS)]


@dataclass(frozen=True, slots=True)
class Shape:
    """The share of a day's volume that a minute of a segment has, and how busy it is."""

    per_minute: float
    early: float
    late: float

    @lru_cache(maxsize=16)  # noqa: B019 - there are three shapes, made once
    def table(self, minutes: int) -> tuple[list[float], list[float]]:
        """Return share and volatility factor (1 in the middle) of each minute."""
        shares = [self._at((minute + 0.5) / minutes) for minute in range(minutes)]
        middle = self._at(0.5)
        return shares, [min(math.sqrt(share / middle), 2.2) for share in shares]

    def _at(self, place: float) -> float:
        """Return the share at a place between 0 (segment opens) and 1 (it ends)."""
        early = self.early * math.exp(-place / 0.06)
        late = self.late * math.exp(-(1 - place) / 0.04)
        return self.per_minute * (1 + early + late)


_pre_shape = Shape(0.00008, 0.0, 3.0)
_regular_shape = Shape(0.0017, 3.5, 4.0)
_post_shape = Shape(0.00004, 12.0, 0.0)
