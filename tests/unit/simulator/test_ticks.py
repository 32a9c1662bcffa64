"""Trades and quotes within a minute respect its bar."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.simulator.market import MINUTE_MS, MinuteBar
from services.simulator.ticks import Update, round_lot, updates_in_bar

START_MS = 1_795_188_600_000
cents = st.integers(1, 100_000)


@st.composite
def bars(draw: st.DrawFn) -> MinuteBar:
    """Any bar: also flat ones, sub-penny ones, and ones without volume."""
    scale = draw(st.sampled_from([100, 10_000]))
    low, opening, close, high = (value / scale for value in sorted(draw(st.tuples(*[cents] * 4))))
    if draw(st.booleans()):
        opening, close = close, opening
    volume = draw(st.one_of(st.integers(0, 5), st.integers(0, 10_000_000)))
    return MinuteBar(START_MS, opening, high, low, close, volume)


def trades_of(updates: list[Update]) -> list[Update]:
    """Only those that trade."""
    return [update for update in updates if update.price is not None]


@given(bar=bars(), most=st.integers(1, 60), ticker=st.sampled_from(["QQQ", "BRK.B", "X"]))
def test_any_bar_is_cut_into_trades_that_make_it_again(
    bar: MinuteBar, most: int, ticker: str
) -> None:
    """Open, high, low, close and volume of the trades are those of the bar."""
    trades = trades_of(updates_in_bar(bar, bar.volume, most, "1", ticker))
    prices = [trade.price for trade in trades if trade.price is not None]
    assert prices[0] == bar.open
    assert prices[-1] == bar.close
    assert max(prices) == bar.high
    assert min(prices) == bar.low
    assert sum(trade.size for trade in trades) == bar.volume
    assert all(trade.size >= 0 for trade in trades)


@given(bar=bars(), most=st.integers(1, 60), ticker=st.sampled_from(["QQQ", "BRK.B", "X"]))
def test_updates_lie_within_their_minute_a_second_apart(
    bar: MinuteBar, most: int, ticker: str
) -> None:
    """Conflation in cycles below a second can then never hide one of them."""
    times = [update.ts_ms for update in updates_in_bar(bar, bar.volume, most, "1", ticker)]
    assert bar.ts_ms < times[0]
    assert times[-1] < bar.ts_ms + MINUTE_MS
    assert all(later - earlier >= 1000 for earlier, later in itertools.pairwise(times))
    assert len(times) <= max(most, 4)


@given(bar=bars(), most=st.integers(1, 60))
def test_the_last_update_of_a_minute_keeps_its_distance_to_the_next_minute(
    bar: MinuteBar, most: int
) -> None:
    """The close of one minute and the open of the next are never conflated."""
    following = bar._replace(ts_ms=bar.ts_ms + MINUTE_MS)
    last = updates_in_bar(bar, bar.volume, most, "1", "QQQ")[-1]
    first = updates_in_bar(following, bar.volume, 60, "1", "QQQ")[0]
    assert first.ts_ms - last.ts_ms >= 1000


@given(bar=bars(), most=st.integers(1, 60))
def test_quotes_stand_around_the_trade_in_whole_lots(bar: MinuteBar, most: int) -> None:
    """Bid is not above the trade, ask not below, both positive and apart."""
    for update in updates_in_bar(bar, bar.volume, most, "1", "QQQ"):
        assert 0 < update.bid < update.ask
        assert update.bid_size % round_lot(bar.open) == 0
        assert update.ask_size % round_lot(bar.open) == 0
        if update.price is not None and update.price >= 0.02:
            assert update.bid - 1e-9 <= update.price <= update.ask + 1e-9


def test_the_same_minute_is_always_cut_the_same_way() -> None:
    """A restart continues where the tape was; another seed gives another tape."""
    bar = MinuteBar(START_MS, 100.0, 101.0, 99.0, 100.5, 5_000)
    first = updates_in_bar(bar, 5_000, 40, "1", "QQQ")
    assert updates_in_bar(bar, 5_000, 40, "1", "QQQ") == first
    assert updates_in_bar(bar, 5_000, 40, "2", "QQQ") != first
