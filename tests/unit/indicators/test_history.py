"""Days that come again as History, and minutes that wait for them behind a gap."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from libs.common.events import Bar, Candle, Clock, Correction, Event, GapState, History
from services.indicators.candles import CLOSE_GRACE_MS, OPENINGS_MAX
from services.indicators.core import ROUNDS_MAX, Operator
from services.indicators.settings import Definition
from services.indicators.withheld import PATIENCE_MS, WITHHELD_BARS_MAX
from tests.markets import (
    FULL_DAY,
    MINUTE_MS,
    bar,
    clock_at,
    day_ms,
    gap,
    history,
    newest,
    only,
    run,
)

OPEN_MS = clock_at(FULL_DAY, 9, 30)
NEXT_DAY = FULL_DAY + dt.timedelta(days=1)
NEXT_OPEN_MS = clock_at(NEXT_DAY, 9, 30)


def minutes(*offsets: int, opening_ms: int = OPEN_MS) -> list[Bar]:
    """Return bars at these minutes after the open; the close tells which minute it was."""
    return [bar(opening_ms + n * MINUTE_MS, close=100 + n, volume=10 + n) for n in offsets]


def span(first: int, last: int) -> list[Bar]:
    """Return the bars from one minute to another, both included."""
    return minutes(*range(first, last + 1))


def hole(first: int, last: int, opening_ms: int = OPEN_MS) -> tuple[int, int]:
    """Return the bounds of a gap that holds these minutes."""
    return opening_ms + first * MINUTE_MS, opening_ms + (last + 1) * MINUTE_MS


def ones(events: Iterable[Event]) -> list[int]:
    """Return which minutes have a candle, in order of appearance."""
    return [(c.ts_ms - OPEN_MS) // MINUTE_MS for c in only(Candle, events) if c.timeframe == "1m"]


def watched() -> tuple[Operator, list[str]]:
    """Return an operator and where it reports anomalies."""
    anomalies: list[str] = []
    return Operator(report=anomalies.append), anomalies


# -- corrections ----------------------------------------------------------------------------------


def test_a_history_is_answered_by_a_correction_and_all_candles() -> None:
    """The marker first, then every candle of the day with its number and `history` as source."""
    operator = Operator()
    run(operator, [*span(0, 3), *span(6, 9)])
    marker, *candles = run(operator, [history(FULL_DAY, span(0, 9))])
    assert marker == Correction("QQQ", day_ms(FULL_DAY), 1)
    assert ones(candles) == list(range(10))
    assert [c.ts_ms for c in only(Candle, candles) if c.timeframe == "5m"] == [
        OPEN_MS,
        OPEN_MS + 5 * MINUTE_MS,
    ]
    assert {(c.source, c.revision) for c in only(Candle, candles)} == {("history", 1)}


def test_the_run_goes_on_from_the_corrected_day() -> None:
    """After a History the next bars give what they give in a run that missed nothing."""
    whole, patched = Operator(), Operator()
    run(whole, span(0, 12))
    run(patched, [*span(0, 3), *span(8, 12), history(FULL_DAY, span(0, 12))])
    assert run(patched, span(13, 40)) == run(whole, span(13, 40))


def test_corrections_of_a_day_are_counted() -> None:
    """The third History of a day carries revision 3, another day and ticker begin with 1."""
    operator = Operator()
    days = [history(FULL_DAY, span(0, 1))] * 3
    later = history(NEXT_DAY, minutes(0, opening_ms=NEXT_OPEN_MS))
    other = History("SPY", day_ms(FULL_DAY), ())
    markers = only(Correction, run(operator, [*days, later, other, days[0]]))
    assert [marker.revision for marker in markers] == [1, 2, 3, 1, 1, 4]


def test_an_earlier_day_leaves_the_current_one_alone() -> None:
    """A History of yesterday closes all of yesterday's candles and nothing of today's state."""
    straight, corrected = Operator(), Operator()
    today = minutes(*range(7), opening_ms=NEXT_OPEN_MS)
    run(straight, today)
    run(corrected, today)
    answer = only(Candle, run(corrected, [history(FULL_DAY, span(0, 2))]))
    assert [c.timeframe for c in answer] == ["1m", "1m", "1m", "5m", "15m", "1h"]
    following = minutes(*range(7, 20), opening_ms=NEXT_OPEN_MS)
    assert run(corrected, following) == run(straight, following)


def test_a_later_day_closes_what_the_old_one_left_open() -> None:
    """A History of a new day comes after the old day's last candles, which stay live ones."""
    operator = Operator()
    run(operator, span(0, 2))
    later = history(NEXT_DAY, minutes(0, opening_ms=NEXT_OPEN_MS))
    events = run(operator, [later])
    marker = events.index(Correction("QQQ", day_ms(NEXT_DAY), 1))
    before = only(Candle, events[:marker])
    assert [(c.timeframe, c.close, c.source) for c in before] == [
        ("5m", 102, "stream"),
        ("15m", 102, "stream"),
        ("1h", 102, "stream"),
    ]


def test_an_empty_history_of_a_day_without_bars_is_fine() -> None:
    """Before the first trade a day is complete without any: a Correction and no candle."""
    operator, anomalies = watched()
    assert run(operator, [history(FULL_DAY, [])]) == [Correction("QQQ", day_ms(FULL_DAY), 1)]
    assert ones(run(operator, span(0, 1))) == [0, 1]
    assert not anomalies


def test_bars_of_yesterday_do_not_follow_todays_history() -> None:
    """After an empty History of today, a bar of yesterday is out of order."""
    operator, anomalies = watched()
    run(operator, [*span(0, 0), history(NEXT_DAY, [])])
    assert run(operator, span(1, 1)) == []
    assert anomalies == ["repeated_bar"]


def test_a_history_that_ends_too_early_is_refused() -> None:
    """It would take back known minutes: no answer, no harm, and a report."""
    operator, anomalies = watched()
    twin = Operator()
    run(operator, span(0, 7))
    run(twin, span(0, 7))
    assert run(operator, [history(FULL_DAY, span(0, 6)), history(FULL_DAY, [])]) == []
    assert anomalies == ["refused_history"] * 2
    assert operator.snapshot() == twin.snapshot()
    assert run(operator, span(8, 20)) == run(twin, span(8, 20))


def test_a_history_out_of_order_is_refused() -> None:
    """Bars that do not ascend, lie in another day, or a day that is no midnight: ignored."""
    operator, anomalies = watched()
    wrong = [
        history(FULL_DAY, minutes(1, 0)),
        history(FULL_DAY, minutes(1, 1)),
        history(FULL_DAY, minutes(0, opening_ms=NEXT_OPEN_MS)),
        history(NEXT_DAY, span(0, 0)),
        History("QQQ", OPEN_MS, ()),
    ]
    assert run(operator, wrong) == []
    assert anomalies == ["refused_history"] * len(wrong)


def test_the_clock_counts_in_a_history_too() -> None:
    """A bucket that the clock has closed is closed in the correction, one that it has not, open."""
    for late_ms, frames in ((-1, ["1m"] * 4), (0, [*["1m"] * 4, "5m"])):
        operator = Operator()
        run(operator, [Clock(OPEN_MS + 5 * MINUTE_MS + CLOSE_GRACE_MS + late_ms)])
        candles = only(Candle, run(operator, [history(FULL_DAY, span(0, 3))]))
        assert [c.timeframe for c in candles] == frames


def test_late_minutes_join_their_candles_by_history() -> None:
    """A minute that came too late for its bucket is in the corrected one."""
    operator = Operator()
    late = Clock(OPEN_MS + 5 * MINUTE_MS + CLOSE_GRACE_MS)
    live = run(operator, [*span(0, 3), late, *span(4, 4)])
    fixed = run(operator, [history(FULL_DAY, span(0, 4))])
    five = ("QQQ", "5m", OPEN_MS)
    assert newest(only(Candle, live))[five].close == 103
    assert newest(only(Candle, fixed))[five].close == 104


# -- gaps -----------------------------------------------------------------------------------------


def test_candles_wait_while_a_gap_is_open() -> None:
    """Bars behind an open gap give nothing until History comes; then everything is there once."""
    operator = Operator()
    run(operator, span(0, 3))
    assert run(operator, [gap(*hole(4, 6)), *span(7, 8)]) == []
    answer = run(operator, [history(FULL_DAY, span(0, 8))])
    assert ones(answer) == list(range(9))
    twin = Operator()
    run(twin, span(0, 8))
    assert run(operator, span(9, 20)) == run(twin, span(9, 20))


def test_minutes_newer_than_the_history_follow_it_live() -> None:
    """What waited and is not in the History is computed behind it, as a live candle."""
    operator = Operator()
    run(operator, [*span(0, 3), gap(*hole(4, 7)), *span(8, 9)])
    candles = only(Candle, run(operator, [history(FULL_DAY, span(0, 8))]))
    assert ones(candles) == list(range(10))
    assert [(c.timeframe, c.source, c.revision) for c in candles[-2:]] == [
        ("1m", "stream", 0),
        ("5m", "stream", 0),
    ]


def test_the_clock_waits_for_the_minutes_that_wait() -> None:
    """A bucket whose time is over closes after the waiting minutes have joined it, not before."""
    operator = Operator()
    run(operator, [*span(0, 1), gap(*hole(2, 2)), *span(3, 3)])
    run(operator, [Clock(OPEN_MS + 5 * MINUTE_MS + CLOSE_GRACE_MS)])
    candles = only(Candle, run(operator, [history(FULL_DAY, span(0, 2))]))
    fives = [c for c in candles if c.timeframe == "5m"]
    assert [(c.ts_ms, c.close, c.revision) for c in fives] == [(OPEN_MS, 103, 0)]


def test_a_settled_gap_lets_the_minutes_go() -> None:
    """Filled or unfillable: what waited is computed with what is there."""
    states: tuple[GapState, ...] = ("filled", "unfillable")
    for state in states:
        operator = Operator()
        run(operator, [*span(0, 3), gap(*hole(4, 6)), *span(7, 8)])
        assert ones(run(operator, [gap(*hole(4, 6), state=state)])) == [7, 8]


def test_patience_ends_by_the_clock() -> None:
    """90 s of broker time after the first heartbeat behind the gap, the run goes on without it."""
    operator, anomalies = watched()
    start_ms = OPEN_MS + 8 * MINUTE_MS
    run(operator, [*span(0, 3), gap(*hole(4, 6)), Clock(start_ms), *span(7, 7)])
    assert run(operator, [Clock(start_ms + PATIENCE_MS - 1)]) == []
    assert ones(run(operator, [Clock(start_ms + PATIENCE_MS)])) == [7]
    assert anomalies == ["lost_patience"]


def test_patience_ends_by_the_bars() -> None:
    """Without heartbeats the bars' own ends are the time."""
    operator, _ = watched()
    run(operator, [*span(0, 3), gap(*hole(4, 6)), *span(7, 8)])
    assert ones(run(operator, span(9, 9))) == [7, 8, 9]


def test_an_old_clock_does_not_use_up_the_patience() -> None:
    """Time that passed before the gap was announced does not count."""
    operator, anomalies = watched()
    run(operator, [*span(0, 3), Clock(OPEN_MS + 4 * MINUTE_MS)])
    much_later = OPEN_MS + 90 * MINUTE_MS
    run(operator, [gap(OPEN_MS + 4 * MINUTE_MS, much_later), Clock(much_later)])
    assert run(operator, minutes(90)) == []
    assert not anomalies


def test_every_gap_has_to_be_met() -> None:
    """Two gaps in two days: yesterday's History does not release today's minutes."""
    operator = Operator()
    run(operator, [*span(0, 3), gap(*hole(4, 389)), gap(*hole(-30, 1, NEXT_OPEN_MS))])
    today = minutes(2, 3, opening_ms=NEXT_OPEN_MS)
    assert run(operator, today) == []
    yesterday = only(Candle, run(operator, [history(FULL_DAY, span(0, 20))]))
    assert {c.ts_ms < NEXT_OPEN_MS for c in yesterday} == {True}
    full = minutes(*range(4), opening_ms=NEXT_OPEN_MS)
    candles = only(Candle, run(operator, [history(NEXT_DAY, full)]))
    assert [c.close for c in candles if c.ts_ms >= NEXT_OPEN_MS and c.timeframe == "1m"] == [
        100, 101, 102, 103,
    ]  # fmt: skip


def test_a_gap_over_the_night_is_met_by_its_last_day() -> None:
    """One gap from yesterday to today: only today's History ends the waiting."""
    operator = Operator()
    run(operator, [*span(0, 3), gap(OPEN_MS + 4 * MINUTE_MS, NEXT_OPEN_MS)])
    first = minutes(0, opening_ms=NEXT_OPEN_MS)
    assert run(operator, first) == []
    assert max(ones(run(operator, [history(FULL_DAY, span(0, 9))]))) == 9
    after = only(Candle, run(operator, [history(NEXT_DAY, first)]))
    assert [c.ts_ms for c in after if c.timeframe == "1m"] == [NEXT_OPEN_MS]


def test_a_gap_up_to_midnight_belongs_to_the_day_before() -> None:
    """A gap that ends when the next day begins is met by the History of its own day."""
    operator = Operator()
    run(operator, [*span(0, 3), gap(OPEN_MS + 4 * MINUTE_MS, day_ms(NEXT_DAY))])
    run(operator, [history(FULL_DAY, span(0, 9))])
    assert ones(run(operator, span(10, 10))) == [10]


def test_a_bar_that_waits_already_is_not_kept_twice() -> None:
    """Behind a gap, too, bars that do not follow are ignored and reported."""
    operator, anomalies = watched()
    run(operator, [*span(0, 3), gap(*hole(4, 6)), *span(7, 7), *span(7, 7)])
    assert anomalies == ["repeated_bar"]
    assert ones(run(operator, [gap(*hole(4, 6), state="filled")])) == [7]


def test_ticks_do_not_wait() -> None:
    """A gap in the ticks holds nothing back, and no gap holds ticks back."""
    operator = Operator()
    run(operator, [gap(*hole(0, 3), series="ticks")])
    assert ones(run(operator, span(4, 5))) == [4, 5]


def test_other_tickers_do_not_wait() -> None:
    """A gap concerns its ticker alone."""
    operator = Operator()
    run(operator, [gap(*hole(0, 3), ticker="SPY")])
    assert ones(run(operator, span(4, 5))) == [4, 5]


def test_what_waits_is_bounded() -> None:
    """Past the bound nothing waits any more, though patience has not ended; it is reported."""
    operator, anomalies = watched()
    run(operator, [gap(*hole(0, 3))])
    # Seconds apart, as only a broken feed would send them: time stands still, room does not.
    flood = [bar(OPEN_MS + 5 * MINUTE_MS + n, ticker="QQQ") for n in range(WITHHELD_BARS_MAX + 1)]
    assert run(operator, flood[:-1]) == []
    assert only(Candle, run(operator, flood[-1:]))
    assert "withheld_full" in anomalies
    run(operator, [gap(*hole(n, n)) for n in range(100)])
    state = operator.ticker("QQQ")
    assert state is not None
    assert len(state.withheld.snapshot()[0]) <= 16


def test_what_is_kept_of_past_days_is_bounded() -> None:
    """After eighty days, few of them are counted and fewer have their opening averages kept."""
    operator = Operator(Definition(sma_continuous=True))
    run(operator, [history(FULL_DAY + dt.timedelta(days=n), []) for n in range(80)])
    state = operator.ticker("QQQ")
    assert state is not None
    assert sorted(state.rounds) == [
        day_ms(FULL_DAY + dt.timedelta(days=n)) for n in range(80 - ROUNDS_MAX, 80)
    ]
    assert len(state.book.openings) == OPENINGS_MAX
