"""Eyes on a running stack: the ends of the streams, the committed positions, the live subjects.

Connections break with what they look at; each look then says None, and the next one connects anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from cli.state import StackState
from libs.common import codec, subjects

__all__ = ["Head", "LiveTick", "Watch"]

_ANSWER_WITHIN_S = 2.0
_READ_WITHIN_S = 60.0
_READ = ("MARKET", "INDICATORS", "SIGNALS")
_POSITIONS = "SELECT stream, partition, frame_n FROM stream_positions"

Committed = Mapping[tuple[str, int], int]


@dataclass(frozen=True)
class Head:
    """The ends of MARKET: the number of each partition's last frame, and the oldest stamps."""

    frame_ns: tuple[int, ...]
    sent_ms: int
    received_ms: int

    def within(self, committed: Committed) -> bool:
        """Whether these frames, and both answers to each, are in rows."""
        return all(
            committed.get((stream, partition), 0) >= n
            for partition, n in enumerate(self.frame_ns)
            for stream in _READ
        )


class LiveTick(msgspec.Struct, frozen=True):
    """What `live.tick` says, as far as it is compared."""

    ticker: str
    ts_ms: int
    price: float
    total_volume: int
    sma9: float | None
    vwap: float | None


@dataclass
class Watch:
    """Connections of an observer who may read everything and change nothing.

    `live` takes up what is said live, and `contradictions` what is said twice in different words;
    both belong to the caller and outlast the connections.
    """

    state: Callable[[], StackState]
    partitions: int
    live: dict[tuple[str, int], LiveTick]
    contradictions: list[str]
    _bus: Client | None = None
    _database: asyncpg.Connection | None = None

    async def start(self) -> None:
        """Connect and listen to the live ticks."""
        url = self.state().nats
        assert url is not None, "the stack is not up"
        self._bus = await nats.connect(
            url,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,
            error_cb=_ignore,
        )
        await self._bus.subscribe("live.tick.>", cb=self._on_live)

    async def stop(self) -> None:
        """Disconnect."""
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()
        self._drop_database()

    async def head(self) -> Head | None:
        """Return the ends of MARKET, or None while a partition has none or NATS is away."""
        assert self._bus is not None, "not started"
        frames = []
        for partition in range(self.partitions):
            subject = subjects.frame_subject("MARKET", partition)
            try:
                answer = await self._bus.request(
                    f"$JS.API.DIRECT.GET.MARKET.{subject}", b"", timeout=_ANSWER_WITHIN_S
                )
            except (nats.errors.Error, ConnectionError):
                return None
            if not answer.data:
                return None
            frames.append(codec.decode_frame(answer.data))
        return Head(
            tuple(frame.n for frame in frames),
            min(frame.sent_ms for frame in frames),
            min(frame.received_ms for frame in frames),
        )

    async def committed(self) -> Committed | None:
        """Return the number of the last frame in rows by stream and partition."""
        rows = await self._ask(_ANSWER_WITHIN_S, _POSITIONS)
        return None if rows is None else {(row[0], row[1]): row[2] for row in rows}

    async def read(self, sql: str, *arguments: object) -> list[Any]:
        """Read as much as it takes; raises AssertionError if the database is away."""
        rows = await self._ask(_READ_WITHIN_S, sql, *arguments)
        assert rows is not None, "the database is away"
        return rows

    async def _ask(self, within_s: float, sql: str, *arguments: object) -> list[Any] | None:
        """Ask the database, or return None while it is away."""
        try:
            async with asyncio.timeout(within_s):
                if self._database is None:
                    self._database = await asyncpg.connect(self.state().postgres)
                rows: list[Any] = await self._database.fetch(sql, *arguments)
                return rows
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._drop_database()
            return None

    def _drop_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.terminate()

    async def _on_live(self, message: Msg) -> None:
        tick = msgspec.json.decode(message.data, type=LiveTick)
        before = self.live.setdefault((tick.ticker, tick.ts_ms), tick)
        if before != tick:
            self.contradictions.append(f"live said {before} and then {tick}")


async def _ignore(error: Exception) -> None:
    """Connections break here on purpose; what that does to the stack is seen elsewhere."""
