"""How fast the writer catches up, against a bare COPY of the same rows.

Both sides do the same work on the same machine in one run: ticks and tick indicators, in frames of
250, into the same tables of the same server, whose partitions exist. The baseline is one asyncpg
connection that COPYs text made beforehand, one frame after the other. The writer is the real
process: it reads both streams from a real nats-server, makes the text itself, and moves its
positions in each transaction.

Run it as `python -m benchmarks.bench_writer [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import Any

import asyncpg

from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate
from libs.common import calendar, codec
from libs.common.bus import nats, topology
from libs.common.events import SCHEMA_VERSION, Frame, Tick, TickIndicator
from services.writer.rows import INDICATOR_COLUMNS, TICK_COLUMNS, TickRows, copy_text
from tests.databases import Database, throw_away_database
from tests.servers import Running, temporary_home

TICKERS = 250
FRAME_EVENTS = 250
FRAMES, FRAMES_SHORT = 2000, 400
OPEN_MS = 1_700_836_200_000  # 2023-11-24 09:30 in New York
DEADLINE_S = 300.0
STREAMS = ("MARKET", "INDICATORS")


def frames(count: int) -> Iterator[tuple[Frame, Frame]]:
    """Yield frames of MARKET and INDICATORS: every ticker about once in a second."""
    for n in range(1, count + 1):
        ticks, indicators = [], []
        for item in range(FRAME_EVENTS):
            number = n * FRAME_EVENTS + item
            name, ts_ms = f"T{item % TICKERS:03d}", OPEN_MS + n * 1000 + item
            price = round(50 + item + (number % 977) * 0.0173, 4)
            ticks.append(
                Tick(name, ts_ms, price, 100 + item, number * 10, price - 0.01, price + 0.01)
            )
            average = round(price * 1.000123, 6)
            indicators.append(TickIndicator(name, ts_ms, price, average, average))
        yield (
            Frame(SCHEMA_VERSION, 1, n, 0, 0, OPEN_MS, OPEN_MS, tuple(ticks)),
            Frame(SCHEMA_VERSION, 0, n, n, n, OPEN_MS, OPEN_MS, tuple(indicators)),
        )


async def fill_streams(url: str, count: int) -> None:
    """Put all frames into new streams."""
    bus = await nats.connect(url, name="bench")
    try:
        await topology.apply(bus, topology.plan(1, "demo"))
        last = [0, 0]
        for pair in frames(count):
            for at, subject in enumerate(("market.0", "indicators.0")):
                data = codec.encode_frame(pair[at])
                last[at] = await bus.publish(subject, data, expected_last_seq=last[at])
    finally:
        await bus.close()


async def make_partitions(connection: Any) -> None:
    """Make the partitions that the rows need."""
    for table in ("equity_data", "indicators"):
        day = calendar.day_of(OPEN_MS)
        await connection.execute("SELECT public.kite_ensure_partition($1, $2)", table, day)


async def bare_copy_s(dsn: str, count: int) -> float:
    """Return how long one connection takes to COPY all frames, text in hand."""
    texts = []
    for market, indicators in frames(count):
        rows = TickRows()
        for tick in market.events:
            assert isinstance(tick, Tick)
            rows.tick(tick)
        for indicator in indicators.events:
            assert isinstance(indicator, TickIndicator)
            rows.indicator(indicator)
        texts.append((copy_text(rows.ticks), copy_text(rows.indicators)))
    connection = await asyncpg.connect(dsn)
    try:
        await make_partitions(connection)
        begin_s = time.perf_counter()
        for ticks, averages in texts:
            await connection.copy_to_table(
                "equity_data", columns=TICK_COLUMNS, source=BytesIO(ticks), format="text"
            )
            await connection.copy_to_table(
                "indicators", columns=INDICATOR_COLUMNS, source=BytesIO(averages), format="text"
            )
        return time.perf_counter() - begin_s
    finally:
        await connection.close()


@contextmanager
def writer(nats_url: str, dsn: str) -> Iterator[None]:
    """Run the writer as a process of its own."""
    environ = {
        **os.environ, "KITE_NATS_URL": nats_url, "KITE_PG_DSN": dsn, "KITE_LOG_LEVEL": "warning",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "services.writer"], env=environ)
    try:
        yield
    finally:
        process.terminate()
        process.wait(15)


async def catch_up(nats_url: str, dsn: str, count: int) -> tuple[int, float]:
    """Return how many rows the writer wrote in how many seconds, from its first commit on."""
    connection = await asyncpg.connect(dsn)
    try:
        await make_partitions(connection)

        async def written() -> int:
            total = await connection.fetchval("SELECT sum(seq) FROM stream_positions")
            return int(total or 0)

        with writer(nats_url, dsn):
            deadline_s = time.perf_counter() + DEADLINE_S
            while (first := await written()) == 0:
                await _pause(deadline_s)
            begin_s = time.perf_counter()
            while (last := await written()) < count * len(STREAMS):
                await _pause(deadline_s)
            return (last - first) * FRAME_EVENTS, time.perf_counter() - begin_s
    finally:
        await connection.close()


async def _pause(deadline_s: float) -> None:
    if time.perf_counter() > deadline_s:
        raise TimeoutError(f"the writer did not catch up within {DEADLINE_S} s")
    await asyncio.sleep(0.005)


@contextmanager
def databases(server: PostgresServer) -> Iterator[tuple[Database, Database]]:
    """Yield two databases with the schema."""
    with ExitStack() as stack:
        first = stack.enter_context(throw_away_database(server))
        second = stack.enter_context(throw_away_database(server))
        for database in (first, second):
            asyncio.run(migrate(database.owner))
        yield first, second


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the writer.")
    parser.add_argument("--short", action="store_true", help="fewer rows")
    count = FRAMES_SHORT if parser.parse_args().short else FRAMES
    with ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        bus, postgres = NatsServer(home, partitions=1), PostgresServer(home)
        stack.enter_context(Running(bus, home / "nats.log"))
        stack.enter_context(Running(postgres, home / "postgres.log"))
        bare, written = stack.enter_context(databases(postgres))
        asyncio.run(fill_streams(bus.url("admin"), count))
        rows = count * FRAME_EVENTS * len(STREAMS)
        baseline = rows / asyncio.run(bare_copy_s(bare.owner, count))
        rows_written, seconds = asyncio.run(catch_up(bus.url("writer"), written.owner, count))
    rate = rows_written / seconds
    figure = {
        "name": "writer_catch_up", "value": round(rate), "unit": "rows/s",
        "baseline": round(baseline), "ratio": round(rate / baseline, 3),
    }  # fmt: skip
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
