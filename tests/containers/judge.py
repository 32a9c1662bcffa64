"""Judges the rows of a recording that was played in containers, without a run to compare with.

Candles and signals must equal an independent calculation from the recorded bars. Of ticks, every
one that went over the wire is stored or lies in a listed gap, none is stored that was not sent,
and each one's figures follow from the stored ones and the wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg
import pandas as pd

from tests.e2e import oracle
from tests.faults.ledger import Sent
from tests.faults.oracle import Book, same_day
from tests.faults.watch import LiveTick

__all__ = ["wrong_candles", "wrong_ticks"]

_CANDLE = "timeframe timestamp open high low close volume sma9 vwap"
_CANDLES = f"""
    SELECT {_CANDLE.replace(" ", ", ")} FROM candles WHERE ticker = $1 ORDER BY timeframe, timestamp
"""  # noqa: S608 - the names stand above
_CROSS = "timestamp direction price sma9 vwap"
_CROSSES = f"""
    SELECT {_CROSS.replace(" ", ", ")} FROM signals
    WHERE ticker = $1 AND state = 'active' AND timeframe = '1m' ORDER BY timestamp
"""  # noqa: S608 - the names stand above
_NEVER_MS = 1 << 62


async def wrong_candles(connection: asyncpg.Connection, ticker: str, recording: Path) -> list[str]:
    """Return how the stored candles and signals of a ticker differ from what they must be."""
    candles = oracle.candles(oracle.minute_bars(recording))
    expected = {
        "candles": (_CANDLES, _rows(candles.sort_values(["timeframe", "timestamp"]), _CANDLE)),
        "signals": (_CROSSES, _rows(oracle.crosses(candles), _CROSS)),
    }
    found = []
    for name, (sql, rows) in expected.items():
        stored = [tuple(row) for row in await connection.fetch(sql, ticker)]
        if stored != rows:
            missing = [row for row in rows if row not in stored]
            more = [row for row in stored if row not in rows]
            found.append(
                f"{len(stored)} {name} of {ticker} instead of {len(rows)}: "
                f"{len(missing)} missing, such as {missing[:2]}, {len(more)} more: {more[:2]}"
            )
    return found


def _rows(frame: pd.DataFrame, columns: str) -> list[tuple[Any, ...]]:
    return [
        tuple(None if pd.isna(value) else value for value in row)
        for row in frame[columns.split()].itertuples(index=False)
    ]


def wrong_ticks(book: Book, sent: Sent, live: Iterable[LiveTick]) -> list[str]:
    """Return what the stored ticks lack, made up or got wrong, by the broker's own ledger."""
    wire = {
        ticker: [
            LiveTick(ticker, ts_ms, tick.price, tick.total_volume, None, None)
            for ts_ms, tick in sorted(ticks.items())
            if not tick.image
        ]
        for ticker, ticks in sent.items()
    }
    # Candles and signals are judged by `wrong_candles`; here they are compared with themselves.
    return same_day(book, Book(book.lines, wire, [], []), sent, live, _NEVER_MS)
