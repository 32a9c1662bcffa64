"""How fast the writer catches up, against a bare COPY of the same rows, and how far it lags live.

Both sides of a catch-up do the same work on the same machine in one run: the same rows, in the same
frames, into the same tables of the same server, whose partitions exist. The baseline is one asyncpg
connection that COPYs text made beforehand, one frame after the other. The writer is the real
process: it reads from a real nats-server, makes the text itself, and moves its positions in each
transaction.

- `writer_catch_up`: ticks and tick indicators, 250 in a frame;
- `writer_catch_up_candles`: nothing but candles, a day of minutes in a frame, as a backfill gives
  them. Which of them are stored already has to be asked first;
- `writer_catch_up_rest`: the ticks again, by the writer's other sink, a REST interface, against the
  writer that COPYs. Between writer and database stands our stand-in for PostgREST, so the figure
  is of the writer and of the function, not of Supabase;
- `..._batched`: against a COPY that joins frames to 20,000 rows, as the writer does;
- `writer_commit_lag_p99`: from publishing a frame to its rows being visible to others, at ten
  frames of 250 ticks a second; the target is the 250 ms within which rows shall be written.

Run it as `python -m benchmarks.bench_writer [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import asyncpg

from benchmarks.report import report
from benchmarks.stage import (
    Copy,
    bare_copy_s,
    batched,
    database,
    days_of,
    fill_streams,
    frames_written,
    make_partitions,
    make_streams,
    pause,
    service,
)
from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from libs.common import codec
from libs.common.bus import nats
from libs.common.events import SCHEMA_VERSION, Candle, Event, Frame, Tick, TickIndicator
from services.writer.rows import (
    CANDLE_COLUMNS,
    INDICATOR_COLUMNS,
    TICK_COLUMNS,
    TickRows,
    candle_line,
    copy_text,
)
from tests.postgrest import postgrest, service_key
from tests.servers import Running, temporary_home
from tests.supabase import authenticator

TICKERS = 250
FRAME_EVENTS = 250
FRAMES, FRAMES_SHORT = 2000, 400
DAYS, DAYS_SHORT = 800, 200
LIVE_FRAMES, LIVE_FRAMES_SHORT = 200, 50
LIVE_EVERY_S = 0.1
OPEN_MS = 1_700_836_200_000  # 2023-11-24 09:30 in New York
DAY_MS = 86_400_000
MINUTES = 390
DEADLINE_S = 300.0
LAG_TARGET_MS = 250.0


@dataclass(frozen=True)
class Workload:
    """Frames by subject, and the COPYs that write the same rows."""

    name: str
    frames: dict[str, list[Frame]]
    copies: list[Copy]

    @property
    def count(self) -> int:
        """How many frames there are."""
        return sum(len(frames) for frames in self.frames.values())

    @property
    def rows(self) -> int:
        """How many rows they give."""
        return sum(len(frame.events) for frames in self.frames.values() for frame in frames)

    @property
    def tables(self) -> set[str]:
        """Which tables they go to."""
        return {table for table, _, _ in self.copies}


def frame(n: int, events: Sequence[Event]) -> Frame:
    """Put events into the frame numbered `n`."""
    return Frame(SCHEMA_VERSION, 1, n, 0, 0, OPEN_MS, OPEN_MS, tuple(events))


def ticks_of(n: int) -> tuple[list[Tick], list[TickIndicator]]:
    """Return the ticks of frame `n`, one for every ticker, and what is computed from them."""
    ticks, indicators = [], []
    for item in range(FRAME_EVENTS):
        number = n * FRAME_EVENTS + item
        name, ts_ms = f"T{item % TICKERS:03d}", OPEN_MS + n * 1000 + item
        price = round(50 + item + (number % 977) * 0.0173, 4)
        bid, ask = round(price - 0.01, 4), round(price + 0.01, 4)
        ticks.append(Tick(name, ts_ms, price, 100 + item, number * 10, bid, ask))
        average = round(price * 1.000123, 6)
        indicators.append(TickIndicator(name, ts_ms, price, average, average))
    return ticks, indicators


def tick_workload(count: int) -> Workload:
    """Return ticks and tick indicators: every ticker once in a second."""
    market, indicators = [], []
    copies: list[Copy] = []
    for n in range(1, count + 1):
        ticks, averages = ticks_of(n)
        market.append(frame(n, ticks))
        indicators.append(frame(n, averages))
        rows = TickRows()
        for tick in ticks:
            rows.tick(tick)
        for average in averages:
            rows.indicator(average)
        copies.append(("equity_data", TICK_COLUMNS, copy_text(rows.ticks)))
        copies.append(("indicators", INDICATOR_COLUMNS, copy_text(rows.indicators)))
    return Workload("writer_catch_up", {"market.0": market, "indicators.0": indicators}, copies)


def candle_workload(days: int) -> Workload:
    """Return days of minute candles, a frame for each ticker and day."""
    frames, copies = [], list[Copy]()
    for n in range(1, days + 1):
        candles = []
        for minute in range(MINUTES):
            price = round(50 + n + (minute % 97) * 0.0173, 4)
            candles.append(
                Candle(
                    f"T{n % 10}", "1m", OPEN_MS - n // 10 * DAY_MS + minute * 60_000, price,
                    price + 1, price - 1, price, 1000 + minute, price, price, {}, "history", 1,
                )
            )  # fmt: skip
        frames.append(frame(n, candles))
        lines = [candle_line(candle) for candle in candles]
        copies.append(("candles", CANDLE_COLUMNS, "".join(lines).encode()))
    return Workload("writer_catch_up_candles", {"indicators.0": frames}, copies)


async def catch_up_rate(nats_url: str, dsn: str, work: Workload, **settings: str) -> float:
    """Return how many rows a second the writer writes, from its first commit on."""
    connection = await asyncpg.connect(dsn)
    try:
        await make_partitions(connection, work.tables, days_of(work.frames))
        with service("writer", nats_url, dsn, **settings):
            deadline_s = time.perf_counter() + DEADLINE_S
            while (first := await frames_written(connection)) == 0:
                await pause(deadline_s)
            begin_s = time.perf_counter()
            while (last := await frames_written(connection)) < work.count:
                await pause(deadline_s)
            rows = work.rows * (last - first) / work.count
            return rows / (time.perf_counter() - begin_s)
    finally:
        await connection.close()


async def commit_lags_s(bus_urls: tuple[str, str], dsn: str, count: int) -> list[float]:
    """Return for each frame how long it took from publishing it to seeing it committed."""
    admin_url, writer_url = bus_urls
    await make_streams(admin_url)
    bus = await nats.connect(admin_url, name="bench")
    connection = await asyncpg.connect(dsn)
    published_s: dict[int, float] = {}
    lags_s: list[float] = []

    async def publish() -> None:
        last, begin_s = 0, time.perf_counter()
        for n in range(1, count + 1):
            await asyncio.sleep(max(0.0, begin_s + n * LIVE_EVERY_S - time.perf_counter()))
            data = codec.encode_frame(frame(n, ticks_of(n)[0]))
            now_s = time.perf_counter()
            last = await bus.publish("market.0", data, expected_last_seq=last)
            published_s[last] = now_s

    try:
        with service("writer", writer_url, dsn):
            publisher = asyncio.create_task(publish())
            seen, deadline_s = 0, time.perf_counter() + DEADLINE_S
            while seen < count:
                written = await frames_written(connection)
                now_s = time.perf_counter()
                lags_s += [now_s - published_s[seq] for seq in range(seen + 1, written + 1)]
                seen = written
                await pause(deadline_s)
            await publisher
    finally:
        await connection.close()
        await bus.close()
    return lags_s


def measure_catch_up(bus: NatsServer, postgres: PostgresServer, work: Workload) -> None:
    """Measure one workload and print it."""
    asyncio.run(fill_streams(bus.url("admin"), work.frames))
    with database(postgres) as dsn:
        baseline = work.rows / asyncio.run(bare_copy_s(dsn, work.copies, days_of(work.frames)))
    with database(postgres) as dsn:
        rate = asyncio.run(catch_up_rate(bus.url("writer"), dsn, work))
    with database(postgres) as dsn:
        batched_s = asyncio.run(bare_copy_s(dsn, batched(work.copies), days_of(work.frames)))
    report(work.name, "rows/s", rate, baseline)
    report(f"{work.name}_batched", "rows/s", rate, work.rows / batched_s)


def measure_rest(bus: NatsServer, postgres: PostgresServer, work: Workload) -> None:
    """Measure one workload by both sinks and print how they compare."""
    asyncio.run(fill_streams(bus.url("admin"), work.frames))
    with database(postgres) as dsn:
        copied = asyncio.run(catch_up_rate(bus.url("writer"), dsn, work))
    asyncio.run(fill_streams(bus.url("admin"), work.frames))
    with database(postgres) as dsn:
        login = authenticator(postgres, dsn.rpartition("/")[2])
        with postgrest(login) as url:
            settings = {
                "KITE_WRITER_SINK": "rest",
                "KITE_SUPABASE_URL": url,
                "KITE_SUPABASE_SERVICE_KEY": service_key(),
            }
            rate = asyncio.run(catch_up_rate(bus.url("writer"), dsn, work, **settings))
    report(f"{work.name}_rest", "rows/s", rate, copied)


def measure_lag(bus: NatsServer, postgres: PostgresServer, count: int) -> None:
    """Measure the lag behind live frames and print it beside the target."""
    urls = (bus.url("admin"), bus.url("writer"))
    with database(postgres) as dsn:
        lags_s = asyncio.run(commit_lags_s(urls, dsn, count))
    # The first frames wait for the writer to start.
    steady_s = sorted(lags_s[len(lags_s) // 4 :])
    p99_ms = steady_s[int(len(steady_s) * 0.99)] * 1000
    report("writer_commit_lag_p99", "ms", p99_ms, LAG_TARGET_MS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the writer.")
    parser.add_argument("--short", action="store_true", help="fewer rows")
    short = parser.parse_args().short
    with ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        bus, postgres = NatsServer(home, partitions=1), PostgresServer(home)
        stack.enter_context(Running(bus, home / "nats.log"))
        stack.enter_context(Running(postgres, home / "postgres.log"))
        measure_catch_up(bus, postgres, tick_workload(FRAMES_SHORT if short else FRAMES))
        measure_catch_up(bus, postgres, candle_workload(DAYS_SHORT if short else DAYS))
        measure_rest(bus, postgres, tick_workload(FRAMES_SHORT if short else FRAMES))
        measure_lag(bus, postgres, LIVE_FRAMES_SHORT if short else LIVE_FRAMES)


if __name__ == "__main__":
    main()
