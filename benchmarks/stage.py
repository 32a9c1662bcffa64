"""What benchmarks of rows stand on: streams, databases, service processes, and the bare COPY.

The bare COPY is the yardstick: one asyncpg connection that sends text made beforehand into tables
whose partitions exist. It sends a frame's rows of one table at a time, each a transaction of its
own; `batched` makes it as kind as can be, by joining frames up to what the writer puts into one.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import asyncpg

from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate
from libs.common import calendar, codec
from libs.common.bus import nats, topology
from libs.common.events import Candle, Frame, Tick, TickIndicator
from tests.databases import throw_away_database

__all__ = [
    "Copy",
    "bare_copy_s",
    "batched",
    "database",
    "days_of",
    "fill_streams",
    "frames_written",
    "make_partitions",
    "make_streams",
    "pause",
    "service",
]

Copy = tuple[str, tuple[str, ...], bytes]

BATCH_ROWS = 20_000  # the default of KITE_WRITER_ROWS_MAX

_POLL_S = 0.005


async def make_streams(url: str) -> None:
    """Make all streams anew."""
    bus = await nats.connect(url, name="bench")
    try:
        wanted = topology.plan(1, "demo")
        for stream in wanted.streams:
            await bus.ask(f"$JS.API.STREAM.DELETE.{stream.name}", b"")
        await topology.apply(bus, wanted)
    finally:
        await bus.close()


async def fill_streams(url: str, frames: Mapping[str, Sequence[Frame]]) -> None:
    """Put all frames, given by subject, into new streams."""
    await make_streams(url)
    bus = await nats.connect(url, name="bench")
    try:
        for subject, ordered in frames.items():
            last = 0
            for each in ordered:
                data = codec.encode_frame(each)
                last = await bus.publish(subject, data, expected_last_seq=last)
    finally:
        await bus.close()


def days_of(frames: Mapping[str, Sequence[Frame]]) -> set[Any]:
    """Return the New York days of the rows that frames give."""
    return {
        calendar.day_of(event.ts_ms)
        for ordered in frames.values()
        for each in ordered
        for event in (each.events[0], each.events[-1])
        if isinstance(event, Tick | TickIndicator | Candle)
    }


async def make_partitions(connection: Any, tables: set[str], days: set[Any]) -> None:
    """Make the partitions that rows of these days need."""
    for table in sorted(tables & {"equity_data", "indicators", "candles"}):
        for day in sorted(days):
            await connection.execute("SELECT public.kite_ensure_partition($1, $2)", table, day)


async def bare_copy_s(dsn: str, copies: Sequence[Copy], days: set[Any]) -> float:
    """Return how long one connection takes to COPY everything, text in hand."""
    connection = await asyncpg.connect(dsn)
    try:
        await make_partitions(connection, {table for table, _, _ in copies}, days)
        begin_s = time.perf_counter()
        for table, columns, text in copies:
            await connection.copy_to_table(
                table, columns=columns, source=BytesIO(text), format="text"
            )
        return time.perf_counter() - begin_s
    finally:
        await connection.close()


def batched(copies: Sequence[Copy]) -> list[Copy]:
    """Return the same rows in far fewer COPYs, each as long as a batch of the writer."""
    open_ones: dict[str, tuple[tuple[str, ...], list[bytes], int]] = {}
    joined: list[Copy] = []
    for table, columns, text in copies:
        _, texts, rows = open_ones.get(table, (columns, list[bytes](), 0))
        texts.append(text)
        rows += text.count(b"\n")
        open_ones[table] = (columns, texts, rows)
        if rows >= BATCH_ROWS:
            joined.append((table, columns, b"".join(texts)))
            del open_ones[table]
    joined += [
        (table, columns, b"".join(texts)) for table, (columns, texts, _) in open_ones.items()
    ]
    return joined


@contextmanager
def service(name: str, nats_url: str, dsn: str = "", **settings: str) -> Iterator[int]:
    """Run a service as a process of its own and yield its pid; `settings` are its environment."""
    environ = {
        **os.environ, "KITE_NATS_URL": nats_url, "KITE_PG_DSN": dsn, "KITE_LOG_LEVEL": "warning",
        **settings,
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", f"services.{name}"], env=environ)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(15)


async def frames_written(connection: Any) -> int:
    """Return how many frames the writer has committed, all streams together."""
    total = await connection.fetchval("SELECT sum(seq) FROM stream_positions")
    return int(total or 0)


async def pause(deadline_s: float) -> None:
    """Wait a moment; raises TimeoutError once the deadline, on `perf_counter`, is over."""
    if time.perf_counter() > deadline_s:
        raise TimeoutError("the services did not catch up in time")
    await asyncio.sleep(_POLL_S)


@contextmanager
def database(server: PostgresServer) -> Iterator[str]:
    """Yield the address of a database with the schema and without rows."""
    with throw_away_database(server) as made:
        asyncio.run(migrate(made.owner))
        yield made.owner
