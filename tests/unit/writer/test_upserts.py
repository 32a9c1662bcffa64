"""Stretches: what is asked for instead of single candles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from libs.common.events import Candle
from services.writer.upserts import Stretch, stretches
from tests.writer_frames import TS_MS, candle

DAY_MS = 86_400_000

candles = st.lists(
    st.builds(
        candle,
        st.integers(TS_MS - 2 * DAY_MS, TS_MS + 2 * DAY_MS),
        ticker=st.sampled_from(["QQQ", "SPY"]),
        timeframe=st.sampled_from(["1m", "1h"]),
    )
)


@given(candles)
def test_every_candle_lies_in_one_stretch_of_its_series(made: list[Candle]) -> None:
    """Each candle lies in exactly one stretch, and the bounds are candles themselves."""
    found = stretches(made)
    for each in made:
        holding = [s for s in found if _holds(s, each)]
        assert len(holding) == 1
    times = {(c.ticker, c.timeframe, c.ts_ms) for c in made}
    for stretch in found:
        for bound_ms in (stretch.first_ms, stretch.last_ms):
            assert (stretch.ticker, stretch.timeframe, bound_ms) in times


@given(candles)
def test_a_stretch_is_bounded(made: list[Candle]) -> None:
    """A stretch never leaves its day, so what lies between its bounds is bounded too."""
    for stretch in stretches(made):
        assert stretch.first_ms // DAY_MS == stretch.last_ms // DAY_MS


def test_a_day_is_one_stretch() -> None:
    """However many minutes a series has in a day, they are asked for at once."""
    minutes = [candle(TS_MS + minute * 60_000) for minute in range(120)]
    assert stretches(minutes) == [Stretch("QQQ", "1m", TS_MS, TS_MS + 119 * 60_000)]


def _holds(stretch: Stretch, each: Candle) -> bool:
    return (stretch.ticker, stretch.timeframe) == (each.ticker, each.timeframe) and (
        stretch.first_ms <= each.ts_ms <= stretch.last_ms
    )
