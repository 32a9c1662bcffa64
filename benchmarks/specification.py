"""The specification's own way to keep the two tick tables: recompute the day, upsert row by row.

For each tick the day so far is computed anew with pandas and its newest row is upserted into
`equity_data` and `indicators`, over one connection. It is spared what else it would do: reading
from a bus, HTTP between it and the database, more than one ticker.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pandas as pd

from libs.common.events import Tick

__all__ = ["upsert_day_s"]

_TICK = """
    INSERT INTO equity_data (ticker, "timestamp", price, volume, total_volume, bid, ask)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (ticker, "timestamp") DO UPDATE SET
        price = excluded.price, volume = excluded.volume, total_volume = excluded.total_volume,
        bid = excluded.bid, ask = excluded.ask"""
_INDICATOR = """
    INSERT INTO indicators (ticker, "timestamp", sma9, vwap) VALUES ($1, $2, $3, $4)
    ON CONFLICT (ticker, "timestamp") DO UPDATE SET sma9 = excluded.sma9, vwap = excluded.vwap"""


async def upsert_day_s(dsn: str, ticks: Sequence[Tick]) -> float:
    """Return how long one ticker's ticks take; the partitions exist."""
    day = pd.DataFrame(
        {"price": [tick.price for tick in ticks], "volume": [tick.volume for tick in ticks]}
    )
    connection = await asyncpg.connect(dsn)
    try:
        begin_s = time.perf_counter()
        for count, tick in enumerate(ticks, 1):
            sma9, vwap = _last_values(day.iloc[:count].copy())
            at = datetime.fromtimestamp(tick.ts_ms / 1000, UTC)
            await connection.execute(
                _TICK, tick.ticker, at, _decimal(tick.price), tick.volume, tick.total_volume,
                _decimal(tick.bid), _decimal(tick.ask),
            )  # fmt: skip
            await connection.execute(_INDICATOR, tick.ticker, at, _decimal(sma9), _decimal(vwap))
        return time.perf_counter() - begin_s
    finally:
        await connection.close()


def _last_values(day: pd.DataFrame) -> tuple[float | None, float]:
    day["sma9"] = day["price"].rolling(window=9).mean()
    day["vwap"] = (day["price"] * day["volume"]).cumsum() / day["volume"].cumsum()
    last = day.iloc[-1]
    return None if pd.isna(last["sma9"]) else float(last["sma9"]), float(last["vwap"])


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(f"{value:.6f}")
