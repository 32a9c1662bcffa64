"""What must hold for any input: cut it, interrupt it, correct it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.events import Bar, Candle, Correction, Event, Frame, Signal
from services.indicators import core as indicators
from services.signals.core import Operator
from tests.markets import (
    FULL_DAY,
    MINUTE_MS,
    by_day,
    clock_at,
    frame,
    history,
    newest,
    only,
    random_bars,
    run,
    tick,
    with_clocks,
)

OPEN_MS = clock_at(FULL_DAY, 9, 30)
DAYS = (FULL_DAY, FULL_DAY + dt.timedelta(days=1))
EVERYTHING = ("tick", "1m", "5m", "15m", "1h")


@st.composite
def indicator_frames(draw: st.DrawFn) -> list[Frame]:
    """Draw what the indicators make of random bars and ticks, and of days that come again."""
    market: list[Event] = []
    for event in with_clocks(draw(random_bars(days=DAYS, minutes_max=50))):
        if isinstance(event, Bar):
            market += [tick(event.ts_ms, event.low, 100), tick(event.ts_ms + 1, event.high, 100)]
        market.append(event)
    for _ in range(draw(st.integers(0, 3))):
        cut = draw(st.integers(0, len(market)))
        for date, bars in sorted(by_day(only(Bar, market[:cut])).items()):
            lost = draw(st.sets(st.integers(0, len(bars)), max_size=3))
            known = [bar for n, bar in enumerate(bars) if n not in lost or bar is bars[-1]]
            market.insert(cut, history(date, known))
    operator = indicators.Operator()
    return [frame(operator.step(frame([event]))) for event in market]


def answers(operator: Operator, frames: Iterable[Frame]) -> list[Signal]:
    """Return all signals in order."""
    return [signal for each in frames for signal in only(Signal, operator.step(each))]


def truth(signals: Iterable[Signal]) -> list[Signal]:
    """Return what a database holds in the end: the highest revision of each id, if active."""
    rows: dict[str, Signal] = {}
    for signal in signals:
        assert signal.id not in rows or signal.revision > rows[signal.id].revision
        rows[signal.id] = signal
    return sorted(
        (signal for signal in rows.values() if signal.state == "active"), key=lambda s: s.ts_ms
    )


def crosses(candles: Sequence[Candle]) -> list[tuple[int, str, float, float, float]]:
    """Return the changes of relation among candles of one timeframe and day, the plain way."""
    known = [
        (c.ts_ms, "up" if c.sma9 > c.vwap else "down", c.close, c.sma9, c.vwap)
        for c in candles
        if c.sma9 is not None and c.vwap is not None and c.sma9 != c.vwap
    ]
    return [now for before, now in pairwise(known) if before[1] != now[1]]


@given(indicator_frames(), st.data())
def test_how_events_are_cut_into_frames_does_not_matter(
    frames: list[Frame], data: st.DataObject
) -> None:
    """Frames joined in any way (a corrected day stays whole) give the same signals and state."""
    joined: list[Frame] = []
    for each in frames:
        if joined and not only(Correction, each.events) and data.draw(st.booleans()):
            joined[-1] = frame([*joined[-1].events, *each.events])
        else:
            joined.append(each)
    one, other = Operator(EVERYTHING), Operator(EVERYTHING)
    assert answers(other, joined) == answers(one, frames)
    assert other.snapshot() == one.snapshot()


@given(indicator_frames(), st.data())
def test_a_checkpoint_anywhere_changes_nothing(frames: list[Frame], data: st.DataObject) -> None:
    """A new operator that takes up the state goes on as the old one would have."""
    cut = data.draw(st.integers(0, len(frames)))
    straight, before, after = (Operator(EVERYTHING) for _ in range(3))
    first = answers(before, frames[:cut])
    after.restore(before.snapshot())
    assert after.snapshot() == before.snapshot()
    assert first + answers(after, frames[cut:]) == answers(straight, frames)
    assert after.snapshot() == straight.snapshot()


@given(indicator_frames())
def test_what_holds_in_the_end_follows_from_the_newest_candles(frames: list[Frame]) -> None:
    """However often a day was corrected, the active signals are those of its newest candles."""
    timeframes = ("1m", "5m", "15m", "1h")
    found = truth(answers(Operator(timeframes), frames))
    candles = newest(c for each in frames for c in only(Candle, each.events))
    current = _held(frames)
    for timeframe in timeframes:
        for date in DAYS:
            session = calendar.session(date)
            assert session is not None
            regular = [
                candle
                for key, candle in sorted(candles.items())
                if key in current
                and candle.timeframe == timeframe
                and session.open_ms <= candle.ts_ms < session.close_ms
            ]
            ours = [
                (s.ts_ms, s.direction, s.price, s.sma9, s.vwap)
                for s in found
                if s.timeframe == timeframe and session.open_ms <= s.ts_ms < session.close_ms
            ]
            assert ours == crosses(regular)


def _held(frames: Iterable[Frame]) -> set[tuple[str, str, int]]:
    """Return the candles that still hold: a correction ends those it does not repeat."""
    held: set[tuple[str, str, int]] = set()
    for each in frames:
        for event in each.events:
            if isinstance(event, Correction):
                date = calendar.day_of(event.day_ms)
                held = {key for key in held if calendar.day_of(key[2]) != date}
            elif isinstance(event, Candle):
                held.add((event.ticker, event.timeframe, event.ts_ms))
    return held


@given(indicator_frames())
def test_active_signals_alternate(frames: list[Frame]) -> None:
    """In one session and timeframe, two active signals in a row never have one direction."""
    found = truth(answers(Operator(EVERYTHING), frames))
    for timeframe in EVERYTHING:
        for date in DAYS:
            directions = [
                s.direction
                for s in found
                if s.timeframe == timeframe and calendar.day_of(s.ts_ms) == date
            ]
            assert directions == [
                d for n, d in enumerate(directions) if n == 0 or d != directions[n - 1]
            ]


@given(
    st.integers(1, 10**8),
    st.lists(st.integers(0, 10**6), min_size=20, max_size=60),
    st.sampled_from((EVERYTHING, ("1m",))),
)
def test_flat_prices_never_cross(
    units: int, volumes: list[int], timeframes: tuple[str, ...]
) -> None:
    """When the price does not move there is no signal, whatever the volumes."""
    price = units / 10_000
    market: list[Event] = []
    for n, volume in enumerate(volumes):
        ts_ms = OPEN_MS + n * MINUTE_MS
        market += [
            tick(ts_ms, price, volume),
            Bar("QQQ", "1m", ts_ms, price, price, price, price, volume),
        ]
    assert run(Operator(timeframes), run(indicators.Operator(), market)) == []
