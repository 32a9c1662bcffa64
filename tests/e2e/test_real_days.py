"""Real days through the whole stack: rows equal an independent calculation, also after kills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.e2e import oracle
from tests.e2e.recorded import (
    FXY,
    FXY_DAYS,
    INDA,
    INDA_DAYS,
    count_candles,
    cut,
    played,
    query,
    wait_until_played,
)
from tests.e2e.stack import Stack
from tests.servers import temporary_home

CORE_SERVICES = ("ingest", "indicators", "signals", "writer")

CANDLES = """
    SELECT timeframe, timestamp, open, high, low, close, volume, sma9, vwap
    FROM candles WHERE ticker = $1 ORDER BY timeframe, timestamp
"""
CROSSES = """
    SELECT timestamp, direction, price, sma9, vwap
    FROM signals WHERE ticker = $1 AND state = 'active' AND timeframe = '1m' ORDER BY timestamp
"""
TICKS = """
    SELECT e.timestamp, e.price, e.volume, i.sma9, i.vwap
    FROM equity_data e FULL JOIN indicators i USING (ticker, timestamp)
    WHERE ticker = $1 ORDER BY timestamp
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A data home that the database's account can reach."""
    with temporary_home() as path:
        yield path


def as_rows(frame: pd.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Turn a data frame into the tuples that the database gives for the same values."""
    return [
        tuple(None if pd.isna(value) else value for value in row)
        for row in frame[list(columns)].itertuples(index=False)
    ]


def assert_rows_equal(stack: Stack, ticker: str, candles: pd.DataFrame) -> None:
    """Compare candles, sma9, vwap and crosses with the independent calculation."""
    columns = "timeframe timestamp open high low close volume sma9 vwap".split()
    expected = as_rows(candles.sort_values(["timeframe", "timestamp"]), columns)
    assert query(stack, CANDLES, ticker) == expected
    crosses = as_rows(oracle.crosses(candles), "timestamp direction price sma9 vwap".split())
    assert query(stack, CROSSES, ticker) == crosses


def assert_ticks_consistent(stack: Stack, ticker: str) -> None:
    """Every tick has its indicator row, and the values follow from the stored prices alone."""
    rows = pd.DataFrame(
        query(stack, TICKS, ticker), columns=["timestamp", "price", "volume", "sma9", "vwap"]
    )
    assert not rows.empty
    assert not rows["price"].isna().any(), "an indicator without its tick"
    rows["day"] = rows["timestamp"].dt.tz_convert(oracle.NEW_YORK).dt.normalize()
    opened = rows["timestamp"] >= rows["day"] + pd.Timedelta(hours=9, minutes=30)
    rows["ten_thousandths"] = [int(price * 10_000) for price in rows["price"]]
    for _, part in rows.groupby("day"):
        window = part["ten_thousandths"].rolling(9).sum()
        assert [_micro(total, 9) for total in window] == [_value(v) for v in part["sma9"]]
    for _, part in rows.groupby(["day", opened]):
        money = (part["ten_thousandths"] * part["volume"]).cumsum()
        shares = part["volume"].cumsum()
        expected = [_micro(m, s) for m, s in zip(money, shares, strict=True)]
        assert expected == [_value(v) for v in part["vwap"]]


def _micro(total: float, divisor: int) -> Decimal | None:
    if pd.isna(total) or not divisor:
        return None
    exact = Decimal(int(total)) / (Decimal(int(divisor)) * 10_000)
    return exact.quantize(Decimal("0.000001"))


def _value(stored: Any) -> Decimal | None:
    return None if pd.isna(stored) else stored


@pytest.mark.timeout(600)
def test_days_of_minutes_equal_the_independent_calculation(home: Path, tmp_path: Path) -> None:
    """Candles, sma9, vwap and crosses of eight INDA days are equal, and so is each tick's pair."""
    recording = cut(INDA, INDA_DAYS, tmp_path)
    expected = oracle.candles(oracle.minute_bars(recording))
    with played(home, recording) as stack:
        wait_until_played(stack, "INDA", expected)
        assert_rows_equal(stack, "INDA", expected)
        assert_ticks_consistent(stack, "INDA")


@pytest.mark.timeout(600)
def test_killing_each_core_service_makes_no_difference(home: Path, tmp_path: Path) -> None:
    """Days with many empty minutes, a clock change and a half day survive kill -9 of everybody."""
    recording = cut(FXY, FXY_DAYS, tmp_path)
    expected = oracle.candles(oracle.minute_bars(recording))
    # Slow enough for four kills, each with its wait, before the last minute on a busy machine.
    with played(home, recording, 2400) as stack:
        for service in CORE_SERVICES:
            stack.kill(service)
        assert count_candles(stack) < len(expected), "the kills came when all was over"
        wait_until_played(stack, "FXY", expected)
        assert_rows_equal(stack, "FXY", expected)
        restarts = {name: stack.status()["services"][name]["restarts"] for name in CORE_SERVICES}
        assert all(count >= 1 for count in restarts.values()), restarts
