"""Signals out of candles and ticks, and what a correction does to them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal

import pytest

from libs.common.events import (
    TIMEFRAME_MS,
    Candle,
    Correction,
    Event,
    Gap,
    Signal,
    TickIndicator,
    Timeframe,
)
from services.indicators import core as indicators
from services.signals.core import Operator
from services.signals.track import DAYS_MAX
from tests.e2e import oracle
from tests.markets import (
    FULL_DAY,
    HALF_DAY,
    MINUTE_MS,
    by_day,
    clock_at,
    day_ms,
    frame,
    history,
    only,
    real_bars,
    real_table,
    run,
    with_clocks,
)

OPEN_MS = clock_at(FULL_DAY, 9, 30)
Found = list[tuple[int, str]]


def candle(
    ts_ms: int,
    sma9: float | None,
    vwap: float | None = 100.0,
    timeframe: Timeframe = "1m",
    correction: int = 0,
    ticker: str = "QQQ",
) -> Candle:
    """Return a candle of which only the averages matter."""
    close = 50.25
    return Candle(
        ticker, timeframe, ts_ms, close, close, close, close, 1, sma9, vwap, {},
        "history" if correction else "stream", correction,
    )  # fmt: skip


def day(*smas: float | None, opening_ms: int = OPEN_MS, correction: int = 0) -> list[Candle]:
    """Return minutes from the open on; vwap is 100 throughout."""
    return [
        candle(opening_ms + n * MINUTE_MS, sma9, correction=correction)
        for n, sma9 in enumerate(smas)
    ]


def corrected(
    operator: Operator, number: int, *smas: float | None, date: dt.date = FULL_DAY
) -> list[Signal]:
    """Send a whole day anew and return the answer."""
    opening_ms = clock_at(date, 9, 30)
    marker = Correction("QQQ", day_ms(date), number)
    candles = day(*smas, opening_ms=opening_ms, correction=number)
    return only(Signal, operator.step(frame([marker, *candles])))


def brief(signals: Iterable[Event]) -> Found:
    """Return minute after the open and direction of each signal."""
    return [((s.ts_ms - OPEN_MS) // MINUTE_MS, s.direction) for s in only(Signal, signals)]


def told(signals: Iterable[Signal]) -> list[tuple[int, str, str, int, bool]]:
    """Return minute, direction, state, revision and lateness of each signal."""
    return [
        ((s.ts_ms - OPEN_MS) // MINUTE_MS, s.direction, s.state, s.revision, s.late)
        for s in signals
    ]


# -- live -----------------------------------------------------------------------------------------


def test_a_cross_makes_one_signal_with_all_its_values() -> None:
    """Id, kind, direction, the candle's close, and the averages that crossed."""
    found = run(Operator(), day(99.0, 101.5))
    assert found == [
        Signal(
            id=f"QQQ:1m:{OPEN_MS + MINUTE_MS}", revision=0, state="active", late=False,
            ticker="QQQ", timeframe="1m", ts_ms=OPEN_MS + MINUTE_MS, kind="cross",
            direction="up", price=50.25, sma9=101.5, vwap=100.0,
        )
    ]  # fmt: skip


def test_candles_without_averages_are_passed_over() -> None:
    """Before the ninth close, or without volume, there is no relation and none is lost."""
    events = [*day(99.0, None), candle(OPEN_MS + 2 * MINUTE_MS, 99.0, None), candle(OPEN_MS, 99.0)]
    operator = Operator()
    assert run(operator, events) == []
    assert brief(run(operator, [candle(OPEN_MS + 5 * MINUTE_MS, 101.0)])) == [(5, "up")]


@pytest.mark.parametrize(
    ("date", "last_minute"), [(FULL_DAY, (15, 59)), (HALF_DAY, (12, 59))], ids=["full", "half"]
)
def test_only_the_regular_session_counts(date: dt.date, last_minute: tuple[int, int]) -> None:
    """Crosses before the open and after the close are none, and set no baseline."""
    opening_ms, last_ms = clock_at(date, 9, 30), clock_at(date, *last_minute)
    before = [candle(opening_ms - 2 * MINUTE_MS, 99.0), candle(opening_ms - MINUTE_MS, 101.0)]
    first = [candle(opening_ms, 99.0), candle(last_ms, 101.0)]
    after = [candle(last_ms + MINUTE_MS, 99.0), candle(last_ms + 2 * MINUTE_MS, 101.0)]
    found = only(Signal, run(Operator(), [*before, *first, *after]))
    assert [(s.ts_ms, s.direction) for s in found] == [(last_ms, "up")]


def test_each_day_has_its_own_baseline() -> None:
    """The relation of yesterday's close does not make a signal of this morning's."""
    tomorrow_ms = clock_at(FULL_DAY + dt.timedelta(days=1), 9, 30)
    events = [*day(99.0, 101.0), *day(99.0, 98.0, opening_ms=tomorrow_ms)]
    assert brief(run(Operator(), events)) == [(1, "up")]


def test_a_day_without_a_session_has_no_signals() -> None:
    """On a Saturday nothing crosses."""
    saturday_ms = clock_at(dt.date(2023, 7, 15), 10)
    assert run(Operator(), day(99.0, 101.0, 99.0, opening_ms=saturday_ms)) == []


def test_timeframes_are_looked_at_as_asked_and_apart() -> None:
    """Each has its own relation; those not asked for are passed over."""
    events: list[Event] = []
    for n, sma9 in enumerate((99.0, 101.0, 99.0)):
        for timeframe, length_ms in TIMEFRAME_MS.items():
            events.append(candle(OPEN_MS + n * length_ms, sma9, timeframe=timeframe))
    found = only(Signal, run(Operator(["5m", "1h"]), events))
    assert [(s.timeframe, s.direction) for s in found] == [
        ("5m", "up"), ("1h", "up"), ("5m", "down"), ("1h", "down"),
    ]  # fmt: skip
    assert [s.timeframe for s in only(Signal, run(Operator(), events))] == ["1m", "1m"]


def test_ticks_can_cross_too() -> None:
    """With the timeframe `tick` the averages over ticks make signals at the tick's own price."""
    ticks = [
        TickIndicator("QQQ", OPEN_MS + n, price, sma9, 100.0)
        for n, (price, sma9) in enumerate([(9.0, 99.0), (9.5, 101.0), (9.25, None)])
    ]
    found = only(Signal, run(Operator(["tick"]), ticks))
    assert [(s.id, s.price) for s in found] == [(f"QQQ:tick:{OPEN_MS + 1}", 9.5)]
    assert run(Operator(), ticks) == []


def test_events_of_other_kinds_are_passed_over() -> None:
    """A Gap that the owner of the indicators announced says nothing about signals."""
    lost = Gap("*:bars:1", "*", "bars", 1, OPEN_MS, "state_lost", "unfillable")
    assert run(Operator(), [lost]) == []


# -- corrections ----------------------------------------------------------------------------------


def test_a_correction_that_changes_nothing_says_nothing() -> None:
    """The same candles again leave the signals as they are, and the run goes on."""
    operator = Operator()
    run(operator, day(99.0, 101.0))
    assert corrected(operator, 1, 99.0, 101.0) == []
    assert brief(run(operator, [candle(OPEN_MS + 2 * MINUTE_MS, 99.0)])) == [(2, "down")]


def test_a_vanished_signal_is_superseded() -> None:
    """It comes again with the next revision, its old values, and as no longer active."""
    operator = Operator()
    run(operator, day(99.0, 101.0, 99.0))
    found = corrected(operator, 1, 99.0, 99.5, 99.0)
    assert told(found) == [(1, "up", "superseded", 1, True), (2, "down", "superseded", 1, True)]
    assert [(s.price, s.sma9) for s in found] == [(50.25, 101.0), (50.25, 99.0)]


def test_a_new_signal_is_late() -> None:
    """What a correction finds where nothing was is active, and never to be traded."""
    operator = Operator()
    run(operator, day(99.0, 99.0, 99.0))
    assert told(corrected(operator, 1, 99.0, 101.0, 101.0)) == [(1, "up", "active", 1, True)]


def test_a_changed_signal_is_published_again() -> None:
    """The same minute with other values, or the other direction, has the next revision."""
    operator = Operator()
    run(operator, day(99.0, 101.0))
    assert told(corrected(operator, 1, 99.0, 101.5)) == [(1, "up", "active", 1, True)]
    assert told(corrected(operator, 2, 101.0, 99.0)) == [(1, "down", "active", 2, True)]


def test_a_signal_may_come_back() -> None:
    """Superseded by one correction, active again by the next: each time a higher revision."""
    operator = Operator()
    run(operator, day(99.0, 101.0))
    assert told(corrected(operator, 1, 99.0, 99.0)) == [(1, "up", "superseded", 1, True)]
    assert corrected(operator, 2, 99.0, 99.0) == []
    assert told(corrected(operator, 3, 99.0, 101.0)) == [(1, "up", "active", 2, True)]


def test_a_new_signal_outranks_whatever_was_forgotten() -> None:
    """Its revision is the number of the correction, which no earlier revision can exceed."""
    assert told(corrected(Operator(), 7, 99.0, 101.0)) == [(1, "up", "active", 7, True)]


def test_the_relation_goes_on_from_the_correction() -> None:
    """The next live candle is compared with the last corrected one."""
    operator = Operator()
    run(operator, day(99.0, 99.0))
    corrected(operator, 1, 99.0, 101.0)
    assert run(operator, [candle(OPEN_MS + 2 * MINUTE_MS, 101.0)]) == []
    assert brief(run(operator, [candle(OPEN_MS + 3 * MINUTE_MS, 99.0)])) == [(3, "down")]


def test_live_candles_behind_the_corrected_ones_are_live() -> None:
    """What the indicators computed after the corrected day, in the same frame, is not late."""
    operator = Operator()
    marker = Correction("QQQ", day_ms(FULL_DAY), 1)
    corrected_ones = day(99.0, correction=1)
    behind = candle(OPEN_MS + MINUTE_MS, 101.0)
    found = only(Signal, operator.step(frame([marker, *corrected_ones, behind])))
    assert told(found) == [(1, "up", "active", 0, False)]


def test_a_correction_of_another_day_leaves_today_alone() -> None:
    """Yesterday's signals change, today's relation and session do not."""
    operator = Operator()
    yesterday = FULL_DAY - dt.timedelta(days=1)
    run(operator, day(99.0, 101.0, opening_ms=clock_at(yesterday, 9, 30)))
    run(operator, day(99.0))
    found = corrected(operator, 1, 101.0, 101.0, date=yesterday)
    assert [(s.state, s.revision) for s in found] == [("superseded", 1)]
    assert brief(run(operator, [candle(OPEN_MS + MINUTE_MS, 101.0)])) == [(1, "up")]


def test_a_correction_of_a_new_day_begins_it() -> None:
    """History of today before any live candle of today sets today's relation."""
    operator = Operator()
    run(operator, day(101.0, opening_ms=clock_at(FULL_DAY - dt.timedelta(days=1), 9, 30)))
    assert corrected(operator, 1, 99.0, 99.0) == []
    assert brief(run(operator, [candle(OPEN_MS + 2 * MINUTE_MS, 101.0)])) == [(2, "up")]


def test_an_empty_day_supersedes_all_its_signals() -> None:
    """A day corrected to no candles at all has no signals."""
    operator = Operator()
    run(operator, day(99.0, 101.0))
    assert told(corrected(operator, 1)) == [(1, "up", "superseded", 1, True)]


def test_a_forgotten_day_is_told_again() -> None:
    """Of a day longer ago than is remembered, every signal comes again, late."""
    operator = Operator()
    dates = sorted(by_day(real_bars("INDA")))[: DAYS_MAX + 1]
    for date in dates:
        run(operator, day(99.0, 101.0, opening_ms=clock_at(date, 9, 30)))
    remembered = corrected(operator, 1, 99.0, 101.0, date=dates[1])
    forgotten = corrected(operator, 2, 99.0, 101.0, date=dates[0])
    assert remembered == []
    assert [(s.state, s.revision, s.late) for s in forgotten] == [("active", 2, True)]


def test_what_is_remembered_is_bounded() -> None:
    """Days full of crosses do not pile up: of those before today few signals are known."""
    operator = Operator()
    full = [99.0, 101.0] * 195
    dates = sorted(by_day(real_bars("INDA")))
    for date in dates:
        run(operator, day(*full, opening_ms=clock_at(date, 9, 30)))
    assert corrected(operator, 1, *full, date=dates[-1]) == []
    assert len(corrected(operator, 1, *full, date=dates[-2])) == 389
    assert len(operator.snapshot()) < 8_000


def test_another_tickers_candles_do_not_join_a_correction() -> None:
    """Corrected candles are those right behind the marker, of its ticker and number."""
    operator = Operator()
    run(operator, day(99.0))
    marker = Correction("QQQ", day_ms(FULL_DAY), 1)
    other = [candle(OPEN_MS, 99.0, ticker="SPY"), candle(OPEN_MS + MINUTE_MS, 101.0, ticker="SPY")]
    found = only(Signal, operator.step(frame([marker, *day(99.0, correction=1), *other])))
    assert [(s.ticker, s.late) for s in found] == [("SPY", False)]


# -- real bars ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ticker", ["INDA", "FXY"])
@pytest.mark.parametrize("whole_days", [False, True], ids=["live", "history"])
def test_crosses_equal_the_independent_ones(ticker: str, whole_days: bool) -> None:
    """On every real bar and in every timeframe: the same minutes, directions and values."""
    bars = real_bars(ticker)
    days = [history(date, its, ticker) for date, its in by_day(bars).items()]
    market: list[Event] = [*days] if whole_days else with_clocks(bars)
    operator, signals = indicators.Operator(), Operator(TIMEFRAME_MS)
    frames = [frame(operator.step(frame([event]))) for event in market]
    found = only(Signal, [signal for each in frames for signal in signals.step(each)])
    assert {s.late for s in found} == {whole_days}
    table = oracle.candles(real_table(ticker))
    for timeframe in TIMEFRAME_MS:
        ours = [
            (s.ts_ms, s.direction, Decimal(f"{s.price:.4f}"), f"{s.sma9:.6f}", f"{s.vwap:.6f}")
            for s in found
            if s.timeframe == timeframe
        ]
        theirs = [
            (round(r.timestamp.timestamp() * 1000), r.direction, r.price, str(r.sma9), str(r.vwap))
            for r in oracle.crosses(table, timeframe).itertuples()
        ]
        assert ours == theirs
        assert ours or timeframe == "1h"
