"""A stage for the writer: a bus with streams, frames that fill them, and what the rows must be.

The expectation is worked out from the events with dictionaries, apart from everything that the
writer does: what was sent, what the database must hold, compare.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import asyncpg

from cli.servers.nats import NatsServer
from libs.common import codec
from libs.common.bus import Bus, nats, topology
from libs.common.bus.memory import MemoryServer
from libs.common.clock import SystemClock
from libs.common.events import Bar, Candle, Clock, Event, Gap, Signal, Tick, TickIndicator
from libs.common.runner import Runtime, connect_bus
from libs.common.subjects import DURABLE_STREAMS, frame_subject, partition_of
from libs.common.telemetry import Health, Metrics, get_logger
from services.writer.service import run
from services.writer.settings import Settings
from services.writer.sinks import open_store
from tests.waiting import eventually_async
from tests.writer_frames import TS_MS, candle, frame, gap, signal, tick, tick_indicator

__all__ = [
    "Expected",
    "Feed",
    "Writer",
    "feed",
    "make_streams",
    "memory_feed",
    "read_rows",
    "wait_written",
]

WRITTEN_DEADLINE_S = 40.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = tuple[Any, ...]
Rows = dict[str, list[Row]]

_QUERIES = {
    "equity_data": "ticker, timestamp, price, volume, total_volume, bid, ask",
    "indicators": "ticker, timestamp, sma9, vwap",
    "candles": "ticker, timeframe, timestamp, close, volume, sma9, vwap, revision",
    "candle_revisions": "ticker, timeframe, timestamp, close, volume, sma9, vwap, revision",
    "gaps": "id, state",
    "signals": "id, revision, state, price",
}


def _moment(ts_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ts_ms)


def _number(value: float | None, decimals: int) -> Decimal | None:
    return None if value is None else Decimal(f"{value:.{decimals}f}")


class Expected:
    """What the tables must hold after the events it was shown, in stream order."""

    def __init__(self) -> None:
        self._ticks: list[Row] = []
        self._indicators: list[Row] = []
        self._candles: dict[Row, list[Row]] = defaultdict(list)
        self._gaps: dict[str, str] = {}
        self._signals: dict[str, Row] = {}

    def see(self, event: Event) -> None:
        """Take one event into account."""
        if isinstance(event, Tick):
            prices = [_number(value, 4) for value in (event.price, event.bid, event.ask)]
            self._ticks.append(
                (event.ticker, _moment(event.ts_ms), prices[0], event.volume, event.total_volume,
                 *prices[1:])
            )  # fmt: skip
        elif isinstance(event, TickIndicator):
            self._indicators.append(
                (event.ticker, _moment(event.ts_ms), _number(event.sma9, 6), _number(event.vwap, 6))
            )
        elif isinstance(event, Candle):
            versions = self._candles[(event.ticker, event.timeframe, _moment(event.ts_ms))]
            values = (
                _number(event.close, 4), event.volume, _number(event.sma9, 6),
                _number(event.vwap, 6),
            )  # fmt: skip
            if not versions or versions[-1] != values:
                versions.append(values)
        elif isinstance(event, Gap):
            self._gaps[event.id] = event.state
        elif isinstance(event, Signal):
            known = self._signals.get(event.id)
            if known is None or event.revision > known[1]:
                price = _number(event.price, 4)
                self._signals[event.id] = (event.id, event.revision, event.state, price)

    def rows(self) -> Rows:
        """Return every table's rows, sorted."""
        candles, revisions = [], []
        for key, versions in self._candles.items():
            *old, newest = [(*key, *values, n) for n, values in enumerate(versions)]
            candles.append(newest)
            revisions += old
        return {
            "equity_data": sorted(self._ticks, key=repr),
            "indicators": sorted(self._indicators, key=repr),
            "candles": sorted(candles, key=repr),
            "candle_revisions": sorted(revisions, key=repr),
            "gaps": sorted(self._gaps.items()),
            "signals": sorted(self._signals.values()),
        }


async def read_rows(dsn: str) -> Rows:
    """Return what the tables hold, in the form of `Expected.rows`."""
    connection = await asyncpg.connect(dsn)
    try:
        found = {}
        for table, columns in _QUERIES.items():
            query = f"SELECT {columns} FROM {table}"  # noqa: S608 - both are constants above
            found[table] = sorted((tuple(row) for row in await connection.fetch(query)), key=repr)
        return found
    finally:
        connection.terminate()


@dataclass
class Feed:
    """Publishes frames as the services would, and remembers what must come of them."""

    bus: Bus
    partitions: int
    random: random.Random
    expected: Expected = field(default_factory=Expected)
    last_seq: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    n: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    _ts_ms: int = TS_MS

    async def send(self, stream: str, partition: int, events: Iterable[Event]) -> None:
        """Publish one frame behind the partition's last."""
        events = tuple(events)
        lane = (stream, partition)
        self.n[lane] += 1
        received_ms = SystemClock().now_ms()
        data = codec.encode_frame(
            frame(self.n[lane], *events, sent_ms=self._ts_ms, received_ms=received_ms)
        )
        self.last_seq[lane] = await self.bus.publish(
            frame_subject(stream, partition), data, expected_last_seq=self.last_seq[lane]
        )
        for event in events:
            self.expected.see(event)

    def ticker(self, partition: int) -> str:
        """Return a ticker that belongs to a partition."""
        names = (f"T{number}" for number in count())
        return next(name for name in names if partition_of(name, self.partitions) == partition)

    def advance(self, by_ms: int) -> None:
        """Let the broker's time of what is sent next be later."""
        self._ts_ms += by_ms

    async def send_some(self, rounds: int, ticks_per_frame: int = 20) -> None:
        """Publish `rounds` of frames with events of all kinds to every stream and partition."""
        for _ in range(rounds):
            for partition in range(self.partitions):
                market, indicators, signals = self._round(self.ticker(partition), ticks_per_frame)
                await self.send("MARKET", partition, market)
                await self.send("INDICATORS", partition, indicators)
                await self.send("SIGNALS", partition, signals)

    def _round(self, ticker: str, ticks: int) -> tuple[list[Event], list[Event], list[Event]]:
        rng = self.random
        moments = [self._ts_ms + n for n in range(ticks)]
        self._ts_ms += ticks
        price = round(rng.uniform(1, 500), 4)
        average = round(rng.uniform(1, 500), 6)
        # Minutes repeat, so that candles, gaps and signals are written again and again.
        minute = TS_MS + 60_000 * rng.randrange(8)
        market: list[Event] = [tick(ts_ms, ticker=ticker, price=price) for ts_ms in moments]
        market += [
            Clock(self._ts_ms),
            Bar(ticker, "1m", minute, price, price, price, price, 100),
            gap(minute, id=f"{ticker}:bars:{minute}", state=rng.choice(["open", "filled"])),
        ]
        indicators: list[Event] = [
            tick_indicator(ts_ms, ticker=ticker, sma9=average, vwap=None) for ts_ms in moments
        ]
        indicators += [
            candle(minute, ticker=ticker, sma9=rng.choice([None, 1.5, average])) for _ in range(3)
        ]
        cross = signal(
            minute, id=f"{ticker}:1m:{minute}", ticker=ticker, price=price,
            revision=rng.randrange(5),
        )  # fmt: skip
        return market, indicators, [cross] if rng.random() < 0.5 else []


async def make_streams(
    server: NatsServer, partitions: int, stream_bytes_max: int = topology.STREAM_BYTES_MAX
) -> None:
    """Make streams and consumers as the init job does."""
    admin = await nats.connect(server.url("admin"), name="admin")
    try:
        await topology.apply(
            admin, topology.plan(partitions, "demo", stream_bytes_max=stream_bytes_max)
        )
    finally:
        await admin.close()


@asynccontextmanager
async def feed(
    server: NatsServer,
    partitions: int = 1,
    seed: int = 1,
    stream_bytes_max: int = topology.STREAM_BYTES_MAX,
) -> AsyncIterator[Feed]:
    """Yield a feed into streams made for it."""
    await make_streams(server, partitions, stream_bytes_max)
    bus = await nats.connect(server.url("admin"), name="feed")
    try:
        yield Feed(bus, partitions, random.Random(seed))
    finally:
        await bus.close()


@asynccontextmanager
async def memory_feed(
    partitions: int = 1, seed: int = 1
) -> AsyncIterator[tuple[Feed, MemoryServer]]:
    """Yield a feed into streams in memory, and the server that holds them."""
    server = MemoryServer(topology.plan(partitions, "demo"))
    bus = server.connect()
    try:
        yield Feed(bus, partitions, random.Random(seed)), server
    finally:
        await bus.close()


class Writer:
    """One writer within this process, wired as the service wires it.

    With `memory` it uses a bus in memory instead of `nats_url`.
    """

    def __init__(
        self,
        nats_url: str,
        dsn: str,
        partitions: int = 1,
        memory: MemoryServer | None = None,
        **settings: Any,
    ) -> None:
        self.memory = memory
        self.settings = Settings(
            nats_url=nats_url, pg_dsn=dsn, partitions=partitions,
            **({"writer_flush_ms": 20} | settings),
        )  # fmt: skip
        self.runtime = Runtime(
            "writer", self.settings, Metrics(), Health(), SystemClock(), get_logger(),
            asyncio.Event(),
        )  # fmt: skip
        self._task: asyncio.Task[None] | None = None

    async def _serve(self) -> None:
        async with open_store(self.settings) as store:
            if self.memory is not None:
                await run(self.runtime, self.memory.connect(), store)
            else:
                async with connect_bus(self.runtime) as bus:
                    await run(self.runtime, bus, store)

    def start(self) -> None:
        """Begin to run."""
        beat = asyncio.create_task(self.runtime.health.beat())
        self._task = asyncio.create_task(self._serve())
        self._task.add_done_callback(lambda _: beat.cancel())

    @property
    def task(self) -> asyncio.Task[None]:
        """The running writer; its exception is what the process would end with."""
        assert self._task is not None, "not started"
        return self._task

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of its metrics, 0 when there is none yet."""
        return self.runtime.metrics.registry.get_sample_value(f"kite_{name}", labels) or 0.0

    async def stop(self) -> None:
        """Stop in order and raise what it ended with."""
        self.runtime.stop.set()
        await self.task

    async def crash(self) -> None:
        """End at once, wherever it is."""
        self.task.cancel()
        await asyncio.wait({self.task})

    async def __aenter__(self) -> Writer:
        self.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self.stop()
        else:
            await self.crash()


async def wait_written(dsn: str, feed: Feed, writer: Writer | None = None) -> None:
    """Return when the positions say that every frame of the feed was written."""
    wanted = {lane: seq for lane, seq in feed.last_seq.items() if lane[0] in DURABLE_STREAMS}

    async def written() -> bool:
        if writer is not None and writer.task.done():
            writer.task.result()
        try:
            connection = await asyncpg.connect(dsn, timeout=5)
        except (OSError, asyncpg.PostgresError):
            return False
        try:
            rows = await connection.fetch("SELECT stream, partition, seq FROM stream_positions")
        finally:
            connection.terminate()
        return {(row[0], row[1]): row[2] for row in rows} == wanted

    await eventually_async(written, WRITTEN_DEADLINE_S, "all frames are written")
