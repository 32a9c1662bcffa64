"""Catching up through the whole chain: stream, indicators, signals, rows.

A stretch of a session lies in MARKET while the services are down; then the real processes start,
against a real nats-server that syncs every write and a real Postgres. Rates are rows per second.

- `chain_catch_up`: from the first answer of indicators to the last committed row, against one
  asyncpg connection that COPYs the same rows, frame by frame, into the same tables (the target is
  half of that);
- `chain_catch_up_with_start`: the same from the start of the processes on;
- `chain_catch_up_batched`: against a COPY that joins frames to 20,000 rows, as the writer does;
- `chain_specification`: against the specification's own way, which recomputes the day with pandas
  at each row and upserts row by row, measured on one ticker;
- `chain_stage_*`: one service at a time over the same backlog, against the bare COPY as above, so
  that one sees which of them is the narrow place;
- `chain_cpu_*`: processor time per MARKET event during the catch-up, against the sum of all.

All three ways must leave the same rows, or nothing is reported.

Run it as `python -m benchmarks.bench_chain [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import asyncpg
import psutil

from benchmarks.report import report
from benchmarks.session import copies_of, market_frames
from benchmarks.specification import upsert_day_s
from benchmarks.stage import (
    Copy,
    bare_copy_s,
    batched,
    database,
    days_of,
    fill_streams,
    frames_written,
    make_partitions,
    pause,
    service,
)
from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from libs.common import subjects
from libs.common.bus import nats
from libs.common.events import Frame, Tick
from tests.servers import Running, temporary_home

SECONDS, SECONDS_SHORT = 1_800, 400
SPECIFICATION_TICKS, SPECIFICATION_TICKS_SHORT = 1_000, 150
DEADLINE_S = 300.0
SERVICES = ("indicators", "signals", "writer")
TABLES = ("equity_data", "indicators", "candles", "candle_revisions", "signals")
SPECIFICATION_TICKER = "T000"
STREAMS = 3  # that the writer reads: one answer for each frame in each of them

Progress = Callable[[], Awaitable[int]]


@dataclass
class Spent:
    """Processor seconds by process, over one stretch."""

    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    def each_us(self, events: int) -> dict[str, float]:
        """Return microseconds per event."""
        return {
            name: (spent - self.before.get(name, 0.0)) / events * 1e6
            for name, spent in self.after.items()
        }


def cpu_s(pids: dict[str, int]) -> dict[str, float]:
    """Return the processor time of each process and its children, those that ended included."""
    spent = {}
    for name, pid in pids.items():
        top = psutil.Process(pid)
        times = [process.cpu_times() for process in (top, *top.children(recursive=True))]
        ended = times[0].children_user + times[0].children_system
        spent[name] = ended + sum(each.user + each.system for each in times)
    return spent


@dataclass(frozen=True)
class Backlog:
    """What is to be caught up, and the yardstick."""

    frames: list[Frame]
    copies: list[Copy]

    @property
    def events(self) -> int:
        """How many events MARKET holds."""
        return sum(len(frame.events) for frame in self.frames)

    @property
    def rows(self) -> int:
        """How many rows come of them."""
        return sum(text.count(b"\n") for _, _, text in self.copies)

    @property
    def by_subject(self) -> dict[str, list[Frame]]:
        """The frames as they lie in the stream."""
        return {"market.0": self.frames}


class Chain:
    """The servers with a backlog, and how long the services take for it."""

    def __init__(
        self, server: NatsServer, pids: dict[str, int], backlog: Backlog, dsn: str
    ) -> None:
        self._server = server
        self._pids = pids
        self._backlog = backlog
        self._dsn = dsn

    @contextmanager
    def running(self, names: Sequence[str]) -> Iterator[dict[str, int]]:
        """Run some services; yields the pids of all that work, servers included."""
        with ExitStack() as stack:
            pids = {
                each: stack.enter_context(service(each, self._server.url(each), self._dsn))
                for each in names
            }
            yield {**self._pids, **pids}

    async def catch_up(self, names: Sequence[str], spent: Spent) -> tuple[float, float]:
        """Return seconds from the first sign of work, and from the start, until all is done."""
        bus = await nats.connect(self._server.url("admin"), name="bench")
        connection = await asyncpg.connect(self._dsn)

        async def answered(stream: str) -> int:
            return (await bus.stream(stream)).last_seq

        frames = len(self._backlog.frames)
        goals: dict[str, tuple[Progress, int]] = {
            "indicators": (lambda: answered(subjects.INDICATORS), frames),
            "signals": (lambda: answered(subjects.SIGNALS), frames),
            "writer": (lambda: frames_written(connection), STREAMS * frames),
        }
        try:
            start_s = time.perf_counter()
            with self.running(names) as pids:
                deadline_s = start_s + DEADLINE_S
                first, _ = goals[names[0]]
                while await first() == 0:
                    await pause(deadline_s)
                spent.before, flow_s = cpu_s(pids), time.perf_counter()
                last, goal = goals[names[-1]]
                while await last() < goal:
                    await pause(deadline_s)
                end_s = time.perf_counter()
                spent.after = cpu_s(pids)
                return end_s - flow_s, end_s - start_s
        finally:
            await connection.close()
            await bus.close()


async def digests(dsn: str, tables: Sequence[str], where: str) -> dict[str, tuple[int, str]]:
    """Return the count and a digest of the rows of each table that fulfil a condition."""
    what = "count(*), md5(string_agg(t::text, '' ORDER BY t::text COLLATE \"C\"))"
    connection = await asyncpg.connect(dsn)
    try:
        found = {}
        for table in tables:
            query = f"SELECT {what} FROM {table} AS t WHERE {where}"  # noqa: S608 - names are ours
            row = await connection.fetchrow(query)
            assert row is not None, "an aggregate gives a row"
            found[table] = (row[0], row[1])
        return found
    finally:
        await connection.close()


def require_same(what: str, dsns: tuple[str, str], tables: Sequence[str], where: str) -> None:
    """Raise ValueError unless two databases hold the same rows."""
    ours, theirs = (asyncio.run(digests(dsn, tables, where)) for dsn in dsns)
    if ours != theirs:
        raise ValueError(f"{what} left other rows: {theirs}, ours {ours}")


async def partitions(dsn: str, backlog: Backlog) -> None:
    """Make the partitions of all rows."""
    connection = await asyncpg.connect(dsn)
    try:
        await make_partitions(connection, set(TABLES), days_of(backlog.by_subject))
    finally:
        await connection.close()


class Bench:
    """The servers, a backlog, and the rows a second of the bare COPY."""

    def __init__(self, bus: Running, postgres: Running, backlog: Backlog) -> None:
        assert isinstance(bus.server, NatsServer)
        assert isinstance(postgres.server, PostgresServer)
        self._bus, self._postgres = bus, postgres
        self._nats: NatsServer = bus.server
        self._database: PostgresServer = postgres.server
        self._backlog = backlog
        self._copy_rate = self._batched_rate = 0.0

    def run(self, specification_ticks: int) -> None:
        """Measure everything and print it."""
        with ExitStack() as stack:
            bare = stack.enter_context(database(self._database))
            days = days_of(self._backlog.by_subject)
            copy_s = asyncio.run(bare_copy_s(bare, self._backlog.copies, days))
            self._copy_rate = self._backlog.rows / copy_s
            with database(self._database) as dsn:
                copy_s = asyncio.run(bare_copy_s(dsn, batched(self._backlog.copies), days))
            self._batched_rate = self._backlog.rows / copy_s
            self.stages(bare)
            chained = stack.enter_context(database(self._database))
            rate = self.chain(bare, chained)
            self.specification(chained, rate, specification_ticks)

    def chain(self, bare: str, dsn: str) -> float:
        """Let all three catch up at the same time, and return their rate."""
        chain, spent = self._chain(dsn), Spent()
        asyncio.run(partitions(dsn, self._backlog))
        asyncio.run(fill_streams(self._nats.url("admin"), self._backlog.by_subject))
        flow_s, whole_s = asyncio.run(chain.catch_up(SERVICES, spent))
        require_same("the bare COPY", (dsn, bare), TABLES, "true")
        rows = self._backlog.rows
        report("chain_catch_up", "rows/s", rows / flow_s, self._copy_rate)
        report("chain_catch_up_batched", "rows/s", rows / flow_s, self._batched_rate)
        report("chain_catch_up_with_start", "rows/s", rows / whole_s, self._copy_rate)
        each_us = spent.each_us(self._backlog.events)
        for name, cost_us in each_us.items():
            report(f"chain_cpu_{name}", "us/event", cost_us, sum(each_us.values()))
        return rows / flow_s

    def stages(self, bare: str) -> None:
        """Let each catch up alone, one behind the other, so that it finds its whole input."""
        asyncio.run(fill_streams(self._nats.url("admin"), self._backlog.by_subject))
        with database(self._database) as dsn:
            asyncio.run(partitions(dsn, self._backlog))
            chain = self._chain(dsn)
            for name in SERVICES:
                flow_s, _ = asyncio.run(chain.catch_up((name,), Spent()))
                report(
                    f"chain_stage_{name}", "rows/s", self._backlog.rows / flow_s, self._copy_rate
                )
            require_same("the bare COPY", (dsn, bare), TABLES, "true")

    def specification(self, chained: str, rate: float, ticks_max: int) -> None:
        """Let the specification's way write the first ticks of one ticker."""
        ticks = [
            event
            for frame in self._backlog.frames[:ticks_max]
            for event in frame.events
            if isinstance(event, Tick) and event.ticker == SPECIFICATION_TICKER
        ]
        with database(self._database) as dsn:
            asyncio.run(partitions(dsn, self._backlog))
            spent_s = asyncio.run(upsert_day_s(dsn, ticks))
            last = f"to_timestamp({ticks[-1].ts_ms / 1000})"
            written = f"ticker = '{SPECIFICATION_TICKER}' AND \"timestamp\" <= {last}"
            require_same("the specification's way", (chained, dsn), TABLES[:2], written)
        report("chain_specification", "rows/s", rate, 2 * len(ticks) / spent_s)

    def _chain(self, dsn: str) -> Chain:
        return Chain(
            self._nats, {"nats": self._bus.pid, "postgres": self._postgres.pid}, self._backlog, dsn
        )


def main() -> None:
    """Start the servers and measure."""
    parser = argparse.ArgumentParser(description="Catch up through the whole chain.")
    parser.add_argument("--short", action="store_true", help="a shorter backlog")
    short = parser.parse_args().short
    frames = market_frames(SECONDS_SHORT if short else SECONDS)
    backlog = Backlog(frames, copies_of(frames))
    with ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        bus = Running(NatsServer(home, partitions=1), home / "nats.log")
        postgres = Running(PostgresServer(home), home / "postgres.log")
        stack.enter_context(bus)
        stack.enter_context(postgres)
        bench = Bench(bus, postgres, backlog)
        bench.run(SPECIFICATION_TICKS_SHORT if short else SPECIFICATION_TICKS)


if __name__ == "__main__":
    main()
