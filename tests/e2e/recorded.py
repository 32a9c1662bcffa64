"""Recorded days through a whole stack: which days, how fast, and what is in the tables then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pandas as pd

from tests.e2e import oracle
from tests.e2e.stack import REPOSITORY, Stack
from tests.waiting import eventually

__all__ = [
    "FXY",
    "FXY_DAYS",
    "INDA",
    "INDA_DAYS",
    "count_candles",
    "cut",
    "played",
    "query",
    "wait_until_played",
]

DATA = Path(__file__).resolve().parent.parent / "data"
INDA = DATA / "INDA-1min-2023-07.csv"
FXY = DATA / "FXY-1min-2023-11.csv"
# Eight full days with a weekend among them. The rest of the month would tell nothing new.
INDA_DAYS = [f"2023-07-{day}" for day in (10, 11, 12, 13, 14, 17, 18, 19)]
# Both sides of the clock change on the 5th, and of Thanksgiving with its half day.
FXY_DAYS = [f"2023-11-{day}" for day in ("03", "06", "07", "22", "24")]
# As fast as two cores follow: open, high, low and close of each minute, a day in seven seconds.
_SPEED = 7200
_TICKS_PER_BAR = "4"
_PLAYED_WITHIN_S = 240


def cut(source: Path, days: Sequence[str], folder: Path) -> Path:
    """Write some days of a recording, line by line as they are, under the recording's name.

    The days are those of UTC, on which no bar of the files belongs to another New York day.
    """
    header, *rows = source.read_text().splitlines(keepends=True)
    chosen = [row for row in rows if row.startswith(tuple(days))]
    assert {row[:10] for row in chosen} == set(days)
    target = folder / source.name
    target.write_text(header + "".join(chosen))
    return target


def query(stack: Stack, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Ask the stack's database with the credentials that `kite status` hands out."""

    async def ask() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(stack.postgres)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]
        finally:
            await connection.close()

    # In a thread of its own, because a browser's driver keeps a loop in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()


def count_candles(stack: Stack) -> int:
    """Count the candles that are stored by now."""
    ((count,),) = query(stack, "SELECT count(*) FROM candles")
    return int(count)


def wait_until_played(stack: Stack, ticker: str, candles: pd.DataFrame) -> None:
    """Wait for the last candle of the file, in every timeframe, and for the last signal."""
    wanted = candles.groupby("timeframe").size().to_dict()
    sql = "SELECT timeframe, count(*) FROM candles WHERE ticker = $1 GROUP BY timeframe"
    eventually(
        lambda: dict(query(stack, sql, ticker)) == wanted,
        _PLAYED_WITHIN_S,
        f"all candles of {ticker}: {wanted}",
    )
    signals = len(oracle.crosses(candles))
    count = "SELECT count(*) FROM signals WHERE ticker = $1 AND state = 'active'"
    eventually(lambda: query(stack, count, ticker) == [(signals,)], 30, f"{signals} signals")


def played(home: Path, recording: Path, speed: int = _SPEED, /, **settings: str) -> Stack:
    """Return a stack that plays a recording, to be entered."""
    options = ("--csv", str(recording), "--speed", str(speed))
    settings["KITE_SIM_TICKS_PER_BAR"] = _TICKS_PER_BAR
    return Stack(home, *options, repository=REPOSITORY, **settings)
