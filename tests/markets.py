"""Market events for tests: builders, the real bars of the test data, and random sessions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import pandas as pd
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.events import (
    SCHEMA_VERSION,
    Bar,
    Candle,
    Clock,
    Event,
    Frame,
    Gap,
    GapSeries,
    GapState,
    History,
    HistoryBar,
    Tick,
)
from tests.e2e import oracle

MINUTE_MS = 60_000
DATA = Path(__file__).parent / "data"
FILES = {"INDA": "INDA-1min-2023-07.csv", "FXY": "FXY-1min-2023-11.csv"}
# A day in the middle of a summer week, its half-day cousin, and the last one of summer time.
FULL_DAY = dt.date(2023, 7, 12)
HALF_DAY = dt.date(2023, 11, 24)

E = TypeVar("E", bound=Event)


class Steps(Protocol):
    """What both operators can do."""

    def step(self, frame: Frame) -> tuple[Event, ...]:
        """Answer one frame."""
        ...


def frame(events: Iterable[Event], n: int = 1) -> Frame:
    """Put events into one frame."""
    return Frame(SCHEMA_VERSION, 1, n, 0, 0, 0, 0, tuple(events))


def run(operator: Steps, events: Iterable[Event]) -> list[Event]:
    """Give each event a frame of its own and return all answers."""
    return [out for event in events for out in operator.step(frame([event]))]


def only(kind: type[E], events: Iterable[Event]) -> list[E]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def clock_at(day: dt.date, hour: int, minute: int = 0, second: int = 0) -> int:
    """Return a New York time of day as epoch milliseconds."""
    time = dt.time(hour, minute, second)
    return int(dt.datetime.combine(day, time, calendar.NEW_YORK).timestamp() * 1000)


def day_ms(day: dt.date) -> int:
    """Return New York midnight."""
    return calendar.day_bounds_ms(day)[0]


def bar(ts_ms: int, close: float = 100.0, volume: int = 100, ticker: str = "QQQ") -> Bar:
    """Return a minute that traded a little around its close."""
    low, high = round(close - 0.02, 4), round(close + 0.01, 4)
    return Bar(ticker, "1m", ts_ms, close, high, low, close, volume)


def tick(ts_ms: int, price: float = 100.0, volume: int = 100, ticker: str = "QQQ") -> Tick:
    """Return a tick without quotes."""
    return Tick(ticker, ts_ms, price, volume, volume, None, None)


def gap(
    from_ms: int,
    to_ms: int,
    state: GapState = "open",
    ticker: str = "QQQ",
    series: GapSeries = "bars",
) -> Gap:
    """Return a gap as ingest announces it."""
    return Gap(f"{ticker}:{series}:{from_ms}", ticker, series, from_ms, to_ms, "restart", state)


def history(day: dt.date, bars: Iterable[Bar], ticker: str = "QQQ") -> History:
    """Return a day as History."""
    minutes = [HistoryBar(b.ts_ms, b.open, b.high, b.low, b.close, b.volume) for b in bars]
    return History(ticker, day_ms(day), tuple(minutes))


def newest(candles: Iterable[Candle]) -> dict[tuple[str, str, int], Candle]:
    """Return what a database would hold: the last candle of each key, without its origin."""
    rows: dict[tuple[str, str, int], Candle] = {}
    for c in candles:
        rows[c.ticker, c.timeframe, c.ts_ms] = Candle(
            c.ticker, c.timeframe, c.ts_ms, c.open, c.high, c.low, c.close, c.volume, c.sma9,
            c.vwap, c.extras, "stream", 0,
        )  # fmt: skip
    return rows


# -- real bars ------------------------------------------------------------------------------------


@lru_cache
def real_table(ticker: str) -> pd.DataFrame:
    """Return the bars of a file as the independent calculation reads them."""
    return oracle.minute_bars(DATA / FILES[ticker])


@lru_cache
def real_bars(ticker: str) -> tuple[Bar, ...]:
    """Return the bars of a file as events."""
    rows = real_table(ticker)
    names = ("open", "high", "low", "close", "volume")
    columns = [rows[name].tolist() for name in names]
    times = (rows["timestamp"].astype("int64") // _ns_per_ms(rows)).tolist()
    return tuple(
        Bar(ticker, "1m", ts_ms, o / 10_000, h / 10_000, low / 10_000, c / 10_000, v)
        for ts_ms, o, h, low, c, v in zip(times, *columns, strict=True)
    )


def _ns_per_ms(rows: pd.DataFrame) -> int:
    units = {"s": 1, "ms": 1, "us": 1_000, "ns": 1_000_000}
    return units[rows["timestamp"].dt.unit]


def by_day(bars: Iterable[Bar]) -> dict[dt.date, list[Bar]]:
    """Group bars by New York day."""
    days: dict[dt.date, list[Bar]] = {}
    for item in bars:
        days.setdefault(calendar.day_of(item.ts_ms), []).append(item)
    return days


def with_clocks(bars: Sequence[Bar], *, every_ms: int = 10_000) -> list[Event]:
    """Send each bar 3 s after its minute, with the heartbeats between the bars and after them.

    Between minutes far apart there are only the heartbeats that matter: those after a bar.
    """
    events: list[Event] = []
    for index, item in enumerate(bars):
        arrival_ms = item.ts_ms + MINUTE_MS + 3_000
        events.append(Clock(arrival_ms - 3_000))
        events.append(item)
        following = bars[index + 1].ts_ms + MINUTE_MS if index + 1 < len(bars) else arrival_ms * 2
        quiet_until_ms = min(following, arrival_ms + 75 * MINUTE_MS)
        step_ms = every_ms if quiet_until_ms - arrival_ms <= 2 * MINUTE_MS else MINUTE_MS
        events += [Clock(ts_ms) for ts_ms in range(arrival_ms + 1, quiet_until_ms, step_ms)]
    return events


# -- random sessions ------------------------------------------------------------------------------


@st.composite
def random_bars(
    draw: st.DrawFn,
    *,
    ticker: str = "QQQ",
    days: Sequence[dt.date] = (FULL_DAY,),
    minutes_max: int = 60,
) -> list[Bar]:
    """Draw minutes around the open of some days, many of them missing, prices of four decimals."""
    bars = []
    for day in days:
        opening_ms = clock_at(day, 9, 30)
        offsets = draw(
            st.lists(st.integers(-25, 60), unique=True, max_size=minutes_max).map(sorted)
        )
        for offset in offsets:
            low = draw(st.integers(999_000, 1_001_000))
            high = low + draw(st.integers(0, 500))
            first, last = draw(st.tuples(*[st.integers(low, high)] * 2))
            o, h, lowest, c = (units / 10_000 for units in (first, high, low, last))
            volume = draw(st.sampled_from((0, 1, 7, 100, 12_345)))
            bars.append(Bar(ticker, "1m", opening_ms + offset * MINUTE_MS, o, h, lowest, c, volume))
    return bars


@st.composite
def frames_of(draw: st.DrawFn, events: Sequence[Event]) -> list[Frame]:
    """Draw a way to cut events into frames; a History keeps a frame to itself."""
    frames: list[Frame] = []
    waiting: list[Event] = []
    for event in events:
        if isinstance(event, History) or (waiting and draw(st.booleans())):
            frames.append(frame(waiting, len(frames) + 1))
            waiting = []
        waiting.append(event)
        if isinstance(event, History):
            frames.append(frame(waiting, len(frames) + 1))
            waiting = []
    frames.append(frame(waiting, len(frames) + 1))
    return frames
