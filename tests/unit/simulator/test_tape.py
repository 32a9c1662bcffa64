"""One symbol's level one: the same from wherever it is started, and true to the bars."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import calendar
from services.simulator.csv_bars import load
from services.simulator.level_one import Snapshot
from services.simulator.market import MINUTE_MS, Market, session_of
from services.simulator.synthetic import SyntheticMarket
from services.simulator.tape import Tape, next_reset_ms

DATA = Path(__file__).resolve().parents[2] / "data"
SYNTHETIC = SyntheticMarket("1")
CSV, _ = load({"FXY": DATA / "FXY-1min-2023-11.csv"}, "1", 12)
THURSDAY = session_of(dt.date(2026, 11, 19))
FRIDAY = session_of(dt.date(2026, 11, 20))
DAY_S = 86_400


def played(market: Market, ticker: str, from_ms: int, to_ms: int) -> Iterator[Snapshot]:
    """The states of a tape after each of its events."""
    tape = Tape(market, ticker, from_ms)
    while tape.next_ms <= to_ms:
        tape.advance(tape.next_ms)
        yield tape.snapshot


@settings(max_examples=60)
@given(start_s=st.integers(0, 2 * DAY_S), length_s=st.integers(0, 2 * DAY_S))
def test_it_does_not_matter_when_a_tape_was_started(start_s: int, length_s: int) -> None:
    """A state that was reached by playing equals the one that is looked up: restarts are exact."""
    from_ms = calendar.day_start_ms(THURSDAY.open_ms) + start_s * 1000
    to_ms = from_ms + length_s * 1000
    for market, ticker, shift_ms in (
        (SYNTHETIC, "FXY", 0),
        (CSV, "FXY", session_of(dt.date(2023, 11, 2)).open_ms - THURSDAY.open_ms),
    ):
        tape = Tape(market, ticker, from_ms + shift_ms)
        tape.advance(to_ms + shift_ms)
        fresh = Tape(market, ticker, to_ms + shift_ms)
        assert tape.snapshot == fresh.snapshot
        assert tape.next_ms == fresh.next_ms > to_ms + shift_ms


def test_day_volume_grows_by_what_the_bars_carry() -> None:
    """Over each recorded day, level one's growth is the sum of the bars' volume."""
    for day in (dt.date(2023, 11, 1), dt.date(2023, 11, 6), dt.date(2023, 11, 24)):
        session = session_of(day)
        grown, last = 0, Tape(CSV, "FXY", session.pre_open_ms).snapshot.volume
        for state in played(CSV, "FXY", session.pre_open_ms, session.post_close_ms):
            grown += max(0, state.volume - last)
            last = state.volume
        assert grown == sum(CSV.bars("FXY", day).volume)
        assert last == grown


def test_trades_of_every_minute_make_its_bar() -> None:
    """Also as level one sees them: first, highest, lowest and last price of each minute."""
    prices: dict[int, list[float]] = {}
    tape = Tape(SYNTHETIC, "QQQ", FRIDAY.pre_open_ms)
    while tape.next_ms <= FRIDAY.open_ms + 30 * MINUTE_MS:
        at_ms, before = tape.next_ms, tape.snapshot.trade_ms
        tape.advance(at_ms)
        if tape.snapshot.trade_ms != before:
            prices.setdefault(at_ms - at_ms % MINUTE_MS, []).append(tape.snapshot.last)
    bars = {bar.ts_ms: bar for bar in SYNTHETIC.bars("QQQ", FRIDAY.day)}
    for ts_ms, seen in prices.items():
        bar = bars[ts_ms]
        assert (seen[0], max(seen), min(seen), seen[-1]) == bar[1:5]
    assert len(prices) > 100


def test_open_high_and_low_belong_to_the_regular_session() -> None:
    """They are 0 before the first regular trade, and then those of the regular bars."""
    early = Tape(SYNTHETIC, "QQQ", FRIDAY.open_ms - 1).snapshot
    assert (early.open, early.high, early.low) == (0, 0, 0)
    assert early.last > 0
    late = Tape(SYNTHETIC, "QQQ", FRIDAY.post_close_ms).snapshot
    bars = [
        bar
        for bar in SYNTHETIC.bars("QQQ", FRIDAY.day)
        if FRIDAY.open_ms <= bar.ts_ms < FRIDAY.close_ms
    ]
    assert late.open == bars[0].open
    assert late.high == max(bar.high for bar in bars)
    assert late.low == min(bar.low for bar in bars)
    assert late.regular_last == bars[-1].close


def test_a_day_begins_at_half_past_three_and_its_volume_at_seven_twenty_eight() -> None:
    """Until then volume counts on top of yesterday's; at the reset it becomes today's."""
    roll_ms = FRIDAY.pre_open_ms - 3 * 3_600_000 - 30 * MINUTE_MS
    night = Tape(SYNTHETIC, "QQQ", roll_ms - 1).snapshot
    morning = Tape(SYNTHETIC, "QQQ", roll_ms).snapshot
    assert night.open > 0 == morning.open
    assert morning.close == night.regular_last
    assert morning.volume == night.volume > 1_000_000
    reset_ms = next_reset_ms(FRIDAY.pre_open_ms)
    assert reset_ms == FRIDAY.pre_open_ms + 28 * MINUTE_MS
    before = Tape(SYNTHETIC, "QQQ", reset_ms - 1).snapshot.volume
    after = Tape(SYNTHETIC, "QQQ", reset_ms).snapshot.volume
    assert after == before - morning.volume > 0


@pytest.mark.parametrize("day", [dt.date(2023, 11, 23), dt.date(2023, 11, 25)])
def test_days_without_trades_keep_the_last_price(day: dt.date) -> None:
    """A holiday or weekend shows the end of the last session."""
    noon_ms = calendar.day_bounds_ms(day)[0] + 12 * 3_600_000
    before = CSV.day_before("FXY", day)
    assert before is not None
    assert Tape(CSV, "FXY", noon_ms).snapshot.last == CSV.bars("FXY", before)[-1].close


def test_before_the_first_recorded_trade_there_is_nothing() -> None:
    """Zeros, as for a symbol that never traded."""
    assert Tape(CSV, "FXY", session_of(dt.date(2023, 11, 1)).pre_open_ms).snapshot == Snapshot()
