"""One suite for every indicator of the catalogue; a new file is held to it by being there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import talib

from libs.common.events import HistoryBar
from services.indicators import catalog
from services.indicators.catalog import Indicator
from tests.markets import by_day, real_bars

NAMES = catalog.known()
# The state of an indicator, in bytes; it may hold a window of closes, not a day.
STATE_BYTES_MAX = 200


def minutes(count: int, seed: int = 1) -> list[HistoryBar]:
    """Return a random walk in cents."""
    chance = random.Random(seed)
    close, bars = 100.0, []
    for number in range(count):
        opened, close = close, round(close + chance.choice((-0.05, -0.01, 0, 0, 0.01, 0.05)), 2)
        high, low = max(opened, close), round(min(opened, close) - 0.01, 2)
        bars.append(HistoryBar(number * 60_000, opened, high, low, close, chance.randrange(500)))
    return bars


def feed(indicator: Indicator, bars: Sequence[HistoryBar]) -> list[tuple[float | None, ...]]:
    """Return the values after each bar."""
    rows = []
    for bar in bars:
        indicator.update(bar)
        rows.append(indicator.values())
    return rows


def carried(state: Sequence[Any]) -> Any:
    """Return a state as it comes back from a checkpoint."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Each name of the catalogue."""
    found: str = request.param
    return found


def test_it_is_ready_after_its_warm_up_and_not_before(name: str) -> None:
    """Values are None until `warm_up` candles are in, and numbers from then on."""
    indicator = catalog.make(name)
    assert not indicator.ready
    for number, bar in enumerate(minutes(indicator.warm_up + 50), 1):
        indicator.update(msgspec.structs.replace(bar, volume=bar.volume + 1))
        assert indicator.ready == (number >= indicator.warm_up)
        defined = [value is not None for value in indicator.values()]
        assert defined == [indicator.ready] * len(indicator.outputs)


def test_a_state_taken_up_anywhere_changes_nothing(name: str) -> None:
    """After snapshot and restore, at any candle, the values go on as if nothing had been."""
    bars = minutes(60)
    straight = feed(catalog.make(name), bars)
    for cut in range(0, 60, 3):
        before = catalog.make(name)
        feed(before, bars[:cut])
        after = catalog.make(name)
        after.restore(carried(before.snapshot()))
        assert after.values() == before.values()
        assert feed(after, bars[cut:]) == straight[cut:]


def test_the_state_of_a_new_one_resets_it(name: str) -> None:
    """Restoring the state with which it was made begins anew."""
    indicator = catalog.make(name)
    blank = carried(indicator.snapshot())
    feed(indicator, minutes(50, seed=2))
    indicator.restore(blank)
    assert not indicator.ready
    assert feed(indicator, minutes(50)) == feed(catalog.make(name), minutes(50))


def test_the_same_candles_give_the_same_bytes(name: str) -> None:
    """Two runs end with equal values and equal states."""
    first, second = catalog.make(name), catalog.make(name)
    assert feed(first, minutes(80)) == feed(second, minutes(80))
    assert msgspec.msgpack.encode(first.snapshot()) == msgspec.msgpack.encode(second.snapshot())


def test_its_state_does_not_grow(name: str) -> None:
    """A state after a long day is no larger than what a window takes."""
    indicator = catalog.make(name)
    feed(indicator, minutes(2_000))
    assert len(msgspec.msgpack.encode(indicator.snapshot())) <= STATE_BYTES_MAX


def test_a_snapshot_is_not_touched_by_what_comes_later(name: str) -> None:
    """Updating an indicator, or one restored from it, leaves the snapshot as it was."""
    indicator = catalog.make(name)
    feed(indicator, minutes(30))
    snapshot = indicator.snapshot()
    kept = carried(snapshot)
    other = catalog.make(name)
    other.restore(snapshot)
    feed(indicator, minutes(30, seed=3))
    feed(other, minutes(30, seed=4))
    assert carried(snapshot) == kept


def test_output_names_are_its_own(name: str) -> None:
    """The keys in `extras` begin with the name and differ from each other."""
    names = catalog.output_names(name, catalog.make(name))
    assert len(set(names)) == len(names) > 0
    assert all(key == name or key.startswith(f"{name}_") for key in names)


# -- against TA-Lib -------------------------------------------------------------------------------

REAL_DAYS = [
    pytest.param(bars, id=f"{ticker}-{day}")
    for ticker in ("INDA", "FXY")
    for day, bars in by_day(real_bars(ticker)).items()
]


def columns(bars: Sequence[Any]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return high, low and close as TA-Lib wants them."""
    return {
        key: np.array([getattr(bar, key) for bar in bars], dtype=np.float64)
        for key in ("high", "low", "close")
    }


def reference(name: str, bars: Sequence[Any]) -> list[Any]:
    """Return TA-Lib's outputs, one array each.

    Its standard deviation subtracts two large running sums. Bands move with the prices, so it is
    given prices less a constant, which leaves it all of its digits.
    """
    data = columns(bars)
    if name == "bollinger20":
        base = data["close"][0]
        return [band + base for band in talib.BBANDS(data["close"] - base, 20, 2, 2)]
    if name == "atr14":
        return [talib.ATR(data["high"], data["low"], data["close"], 14)]
    function = {"ema9": talib.EMA, "rsi14": talib.RSI, "sma9": talib.SMA}[name]
    return [function(data["close"], 14 if name == "rsi14" else 9)]


@pytest.mark.parametrize("name", ["ema9", "rsi14", "atr14", "bollinger20", "sma9"])
@pytest.mark.parametrize("bars", [*REAL_DAYS, pytest.param(minutes(500), id="random")])
def test_it_equals_ta_lib(name: str, bars: Sequence[Any]) -> None:
    """The same values from the same candle on, to a billionth (sma9 is published rounded)."""
    rows = feed(catalog.make(name), bars)
    ours = [[np.nan if v is None else v for v in output] for output in zip(*rows, strict=True)]
    tolerance = 5.1e-7 if name == "sma9" else 1e-9
    for mine, theirs in zip(ours, reference(name, bars), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance, equal_nan=True)


def test_flat_prices_have_no_spread() -> None:
    """Bollinger bands of prices that do not move lie on each other, exactly."""
    bands = catalog.make("bollinger20")
    rows = feed(bands, [HistoryBar(0, 43.58, 43.58, 43.58, 43.58, 1)] * 40)
    assert rows[-1] == (43.58, 43.58, 43.58)


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["macd", "ema0", "ema401", "EMA9", "9", "", "vwap9", "rsi1"])
def test_a_wrong_name_says_what_would_be_right(name: str) -> None:
    """An unknown name lists the known ones, a wrong period its bounds."""
    with pytest.raises(ValueError, match=r"known are atr, bollinger, ema|between|no period"):
        catalog.make(name)


def test_a_period_in_the_name_counts() -> None:
    """`ema21` is warm after 21 candles, `ema` after its default."""
    assert catalog.make("ema21").warm_up == 21
    assert catalog.make("ema").warm_up == 9
