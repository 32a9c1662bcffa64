"""What must hold for any input: cut it, interrupt it, correct it, mix it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.events import (
    Bar,
    Candle,
    Clock,
    Event,
    Frame,
    HistoryBar,
    Tick,
    TickIndicator,
)
from services.indicators.core import Operator
from services.indicators.provisional import provisional_candles
from services.indicators.settings import Definition
from tests.markets import (
    FULL_DAY,
    MINUTE_MS,
    bar,
    by_day,
    clock_at,
    frames_of,
    gap,
    history,
    newest,
    only,
    random_bars,
    run,
    tick,
    with_clocks,
)

OPEN_MS = clock_at(FULL_DAY, 9, 30)
THURSDAY, FRIDAY = FULL_DAY + dt.timedelta(days=1), FULL_DAY + dt.timedelta(days=2)
TICKERS = ("QQQ", "SPY")
DEFINITIONS = st.builds(
    Definition,
    sma_continuous=st.booleans(),
    vwap_price=st.sampled_from(("close", "hlc3")),
    extras=st.sampled_from(((), ("ema3", "rsi2", "atr2", "bollinger3"))),
)


@st.composite
def any_events(draw: st.DrawFn) -> list[Event]:
    """Draw anything ingest may send, in an order of time that is right most of the time."""
    events: list[Event] = []
    now_ms = OPEN_MS - 20 * MINUTE_MS
    for _ in range(draw(st.integers(0, 40))):
        now_ms += draw(st.sampled_from((0, 1_000, 15_000, MINUTE_MS, 7 * MINUTE_MS, 86_400_000)))
        minute_ms = now_ms - now_ms % MINUTE_MS
        ticker = draw(st.sampled_from(TICKERS))
        price = draw(st.integers(99_000, 101_000)) / 1_000
        kind = draw(st.sampled_from("tttbbbbbcccgfh"))
        if kind == "t":
            events.append(tick(now_ms, price, draw(st.integers(0, 500)), ticker))
        elif kind == "b":
            events.append(bar(minute_ms, price, draw(st.integers(0, 500)), ticker))
        elif kind == "c":
            events.append(Clock(now_ms))
        elif kind in "gf":
            from_ms = minute_ms - draw(st.sampled_from((1, 2, 3))) * MINUTE_MS
            events.append(gap(from_ms, minute_ms, "open" if kind == "g" else "filled", ticker))
        else:
            count = draw(st.integers(0, 12))
            day = [bar(minute_ms - n * MINUTE_MS, price, 100 + n, ticker) for n in range(count)]
            events += [history(date, bars, ticker) for date, bars in by_day(day[::-1]).items()]
    return events


def answers(operator: Operator, frames: Sequence[Frame]) -> list[Event]:
    """Return all answers in order."""
    return [event for frame in frames for event in operator.step(frame)]


@given(any_events(), DEFINITIONS, st.data())
def test_how_events_are_cut_into_frames_does_not_matter(
    events: list[Event], definition: Definition, data: st.DataObject
) -> None:
    """Any split of the input gives the same output and the same state."""
    one_each, cut = Operator(definition), Operator(definition)
    assert answers(cut, data.draw(frames_of(events))) == run(one_each, events)
    assert cut.snapshot() == one_each.snapshot()


@given(any_events(), DEFINITIONS, st.data())
def test_a_checkpoint_anywhere_changes_nothing(
    events: list[Event], definition: Definition, data: st.DataObject
) -> None:
    """A new operator that takes up the state goes on as the old one would have."""
    cut = data.draw(st.integers(0, len(events)))
    straight, before, after = (Operator(definition) for _ in range(3))
    run(before, events[:cut])
    after.restore(before.snapshot())
    assert after.snapshot() == before.snapshot()
    assert run(straight, events)[len(run(Operator(definition), events[:cut])) :] == run(
        after, events[cut:]
    )
    assert after.snapshot() == straight.snapshot()


@given(any_events(), DEFINITIONS)
def test_a_ticker_does_not_depend_on_the_others(
    events: list[Event], definition: Definition
) -> None:
    """The output of one ticker is that of a run which never saw the other one."""
    together = run(Operator(definition), events)
    for ticker in TICKERS:
        own = [event for event in events if getattr(event, "ticker", ticker) == ticker]
        assert run(Operator(definition), own) == [
            event for event in together if getattr(event, "ticker", None) == ticker
        ]


@given(any_events())
def test_every_tick_has_an_answer(events: list[Event]) -> None:
    """One TickIndicator for each Tick, in order, whatever else happens."""
    out = run(Operator(), events)
    asked = [(event.ticker, event.ts_ms) for event in only(Tick, events)]
    assert [(event.ticker, event.ts_ms) for event in only(TickIndicator, out)] == asked


@given(random_bars(days=(FULL_DAY, THURSDAY), minutes_max=40), st.booleans(), st.data())
def test_history_at_any_point_ends_in_the_same_candles(
    bars: list[Bar], continuous: bool, data: st.DataObject
) -> None:
    """A day so far, sent again at any moment, leaves the newest candles as the live run's are."""
    definition = Definition(sma_continuous=continuous, extras=("ema3",))
    events = with_clocks(bars)
    live = run(Operator(definition), events)
    cut = data.draw(st.integers(0, len(events)))
    seen = by_day(only(Bar, events[:cut]))
    again = [history(day, seen[day]) for day in sorted(seen)]
    corrected = run(Operator(definition), [*events[:cut], *again, *events[cut:]])
    assert newest(only(Candle, corrected)) == newest(only(Candle, live))


@given(random_bars(minutes_max=50), st.data())
def test_an_outage_healed_by_history_ends_in_the_same_candles(
    bars: list[Bar], data: st.DataObject
) -> None:
    """Bars lost at any point, a gap, and the day as History: as if nothing had been lost."""
    events, night = with_clocks(bars), Clock(clock_at(FULL_DAY, 21))
    whole = newest(only(Candle, run(Operator(), [*events, night])))
    lost_from = data.draw(st.integers(0, len(events)))
    lost_to = data.draw(st.integers(lost_from, len(events)))
    back = data.draw(st.integers(lost_to, len(events)))
    missed = only(Bar, events[lost_from:lost_to])
    up_to_now = only(Bar, events[:back])
    healing: list[Event] = [history(FULL_DAY, up_to_now)] if missed else []
    announced = [gap(missed[0].ts_ms, missed[-1].ts_ms + MINUTE_MS)] if missed else []
    outage = [*events[:lost_from], *announced, *events[lost_to:back], *healing, *events[back:]]
    outage.append(night)
    assert newest(only(Candle, run(Operator(), outage))) == whole


@given(
    random_bars(days=(FULL_DAY, THURSDAY), minutes_max=40),
    st.booleans(),
    st.lists(st.integers(990_000, 1_010_000), min_size=2, max_size=4),
    st.data(),
)
def test_the_open_candle_is_what_closing_it_now_would_give(
    bars: list[Bar], continuous: bool, prices: list[int], data: st.DataObject
) -> None:
    """Ticks of two minutes, sent as bars to a copy of the run, make the candles that are shown."""
    definition = Definition(sma_continuous=continuous, extras=("ema3", "atr2"))
    operator, copy = Operator(definition), Operator(definition)
    events = with_clocks(bars)
    run(operator, events[: data.draw(st.integers(0, len(events)))])
    first_ms = data.draw(st.sampled_from(bars)).ts_ms if bars else OPEN_MS
    second_ms = first_ms + data.draw(st.sampled_from((1, 2, 9, 1440))) * MINUTE_MS
    for n, units in enumerate(prices):
        run(operator, [tick((second_ms if n else first_ms) + n, units / 10_000, n)])
    state = operator.ticker("QQQ")
    assert state is not None
    shown = {candle.timeframe: candle for candle in provisional_candles(state)}
    if state.ticks.minute.start_ms <= state.book.last_ms:
        assert not shown
        return
    copy.restore(operator.snapshot())
    twin = copy.ticker("QQQ")
    assert twin is not None
    closed: dict[str, Candle] = {}
    for made in (state.ticks.before, state.ticks.minute):
        if made.start_ms > twin.book.last_ms:
            o, h, low, c = made.open, made.high, made.low, made.close
            closed = {
                candle.timeframe: candle
                for candle in twin.book.add(HistoryBar(made.start_ms, o, h, low, c, made.volume))
            }
    closed |= {candle.timeframe: candle for candle in twin.book.close_all()}
    assert {k: replace(c, vwap=None) for k, c in shown.items()} == {
        k: replace(c, vwap=None) for k, c in closed.items()
    }


@given(st.integers(1, 10**7), st.integers(0, 10**6), st.integers(9, 40))
def test_flat_prices_have_flat_averages(units: int, volume: int, count: int) -> None:
    """When the price does not move, sma9 and vwap are that price, to the last digit."""
    price = units / 10_000
    events: list[Event] = [
        Bar("QQQ", "1m", OPEN_MS + n * MINUTE_MS, price, price, price, price, volume + n)
        for n in range(count)
    ]
    ones = [c for c in only(Candle, run(Operator(), events)) if c.timeframe == "1m"]
    assert {c.sma9 for c in ones[8:]} == {price}
    assert {c.vwap for c in ones[1:]} == {price}


@given(random_bars(days=(FULL_DAY, THURSDAY, FRIDAY), minutes_max=30))
def test_the_state_of_a_ticker_is_bounded(bars: list[Bar]) -> None:
    """However many days came and came again, a ticker's state stays within a kilobyte."""
    operator = Operator()
    events: list[Event] = list(with_clocks(bars))
    events += [history(day, its) for day, its in sorted(by_day(bars).items())]
    run(operator, events)
    assert len(operator.snapshot()) < 1_000
