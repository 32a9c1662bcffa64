"""A page that stays open through everything: what the gateway tells is held against the rows.

It does what a browser does: it loads the day, follows from where that ends, comes back after a
broken connection from the place it had reached, and loads the day anew when it is told to. At the
end it has every stored tick of its ticker, with the values of its row, and was told none twice.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from libs.common.errors import KiteError
from tests.faults.metrics import NO_TLS
from tests.faults.watch import LiveTick

__all__ = ["Page"]

_PAUSE_S = 0.2
_LOADED_WITHIN_S = 10.0
_EXAMPLES_MAX = 3
_LIVE = "/api/v1/live"

Figures = tuple[float, float | None, float | None]
"""Price, SMA9 and VWAP of a tick."""


class Page:
    """One client of the gateway for the ticks of one ticker and day.

    `address` is asked before each visit, because a new start may have a new port; it may raise
    KiteError while nothing runs. `contradictions` takes up what was told twice or out of order,
    `told` how many ticks came live.
    """

    def __init__(self, ticker: str, day: dt.date, address: Callable[[], str | None]) -> None:
        self.ticker = ticker
        self.ticks: dict[int, Figures] = {}
        self.contradictions: list[str] = []
        self.told = 0
        self._day = day
        self._address = address
        self._place: tuple[int, int] | None = None  # the incarnation and the sequence reached
        self._closed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to follow, unless it does so already."""
        if self._following is None:
            self._closed.clear()
            self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Follow no more; what was told is kept. Raises what a defect of this client raised."""
        self._closed.set()
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    def forget(self) -> None:
        """Begin with nothing, as after the store was emptied."""
        self.ticks.clear()
        self._place = None

    def differs(self, stored: Sequence[LiveTick], until_ms: int) -> list[str]:
        """Return how the page differs from the stored ticks of its ticker; empty when it agrees."""
        rows = {
            tick.ts_ms: (tick.price, tick.sma9, tick.vwap)
            for tick in stored
            if tick.ts_ms < until_ms
        }
        held = {ts_ms: figures for ts_ms, figures in self.ticks.items() if ts_ms < until_ms}
        found = []
        for what, wrong in (
            ("lacks", sorted(rows.keys() - held.keys())),
            ("shows, but no row has,", sorted(held.keys() - rows.keys())),
            ("shows with other values", [ts for ts in rows if held.get(ts, rows[ts]) != rows[ts]]),
        ):
            if wrong:
                few = ", ".join(map(str, wrong[:_EXAMPLES_MAX]))
                found.append(f"the page {what} {len(wrong)} ticks of {self.ticker}, such as {few}")
        return found

    async def _follow(self) -> None:
        while not self._closed.is_set():
            with suppress(KiteError, OSError, httpx.HTTPError, WebSocketException):
                await self._visit()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), _PAUSE_S)

    async def _visit(self) -> None:
        """Follow over one connection until it breaks or the place is no longer there."""
        address = await asyncio.to_thread(self._address)
        if address is None:
            return
        if self._place is None:
            await self._load(address)
        if self._place is None:
            return
        epoch_ms, from_seq = self._place
        wanted = {
            "op": "sub", "id": 1, "channel": "ticks", "ticker": self.ticker,
            "epoch_ms": epoch_ms, "from_seq": from_seq,
        }  # fmt: skip
        async with connect(address.replace("http", "ws", 1) + _LIVE, proxy=None) as connection:
            await connection.send(json.dumps(wanted))
            async for text in connection:
                if not self._take(json.loads(text)):
                    return

    async def _load(self, address: str) -> None:
        """Load the day so far, if its rows are whole; raises httpx.HTTPError without one."""
        query = {"ticker": self.ticker, "date": self._day.isoformat(), "timeframe": "tick"}
        async with httpx.AsyncClient(
            trust_env=False, verify=NO_TLS, timeout=_LOADED_WITHIN_S
        ) as client:
            answer = await client.get(f"{address}/api/v1/series", params=query)
        answer.raise_for_status()
        series = answer.json()
        if None in series["price"]:
            return  # the other half of a row, written from another stream, is still to come
        self.ticks = dict(_columns(series))
        self._place = series["epoch_ms"], series["last_seq"]

    def _take(self, message: dict[str, Any]) -> bool:
        """Take one message up; False when the day has to be loaded anew."""
        if message["op"] == "resync":
            self._place = None
            return False
        if message["op"] != "ticks":
            return True
        assert self._place is not None
        self._place = self._place[0], message["seq"]
        for ts_ms, figures in _columns(message):
            newest_ms = next(reversed(self.ticks), 0)
            if ts_ms <= newest_ms:
                self.contradictions.append(
                    f"the page was told tick {ts_ms} of {self.ticker} after {newest_ms}"
                )
            self.ticks[ts_ms] = figures
            self.told += 1
        return True


def _columns(of: dict[str, Any]) -> list[tuple[int, Figures]]:
    """Turn columns into rows, for snapshots and live messages alike."""
    figures = zip(of["price"], of["sma9"], of["vwap"], strict=True)
    return list(zip(of["ts_ms"], figures, strict=True))
