"""Streams compared with rows, on a real nats-server and a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.servers.nats import NatsServer, streams_directory
from libs.common.errors import PositionError
from libs.common.events import Bar
from tests.databases import Database, connected
from tests.integration.writer.sinks import Sink
from tests.integration.writer.stage import Feed, Writer, feed, wait_written
from tests.servers import Running, temporary_home
from tests.waiting import eventually_async
from tests.writer_frames import TS_MS, tick

DEADLINE_S = 30.0
# MARKET begins a new file after a quarter of that.
SMALL_STREAM_BYTES = 16 << 20
FAST: dict[str, Any] = {
    "writer_reconcile_interval_s": 1,
    "writer_reconcile_bytes_per_s_max": 1 << 30,
}


@asynccontextmanager
async def compared(
    server: NatsServer,
    database: Database,
    partitions: int = 1,
    sink: Sink | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Feed, Writer]]:
    """Yield a feed whose first rows are written and were found right by a writer."""
    async with feed(server, partitions) as source:
        await source.send_some(30)
        dsn, way = (sink.dsn, sink.settings) if sink else (database.owner, {})
        writer = Writer(server.url("writer"), dsn, partitions=partitions, **(FAST | settings | way))
        async with writer:
            await wait_written(database.superuser, source, writer)
            await swept(writer, partitions)
            assert mismatches(writer) == {}
            yield source, writer


def mismatches(writer: Writer) -> dict[tuple[str, str, str], float]:
    """Return what stands: kind, stream and partition, and how often."""
    families = writer.runtime.metrics.registry.collect()
    return {
        (sample.labels["kind"], sample.labels["stream"], sample.labels["partition"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "kite_writer_reconcile_mismatches"
    }


async def stands(writer: Writer, wanted: dict[tuple[str, str, str], float], what: str) -> None:
    """Return when these mismatches stand and no others."""
    await eventually_async(lambda: mismatches(writer) == wanted, DEADLINE_S, what)


async def swept(writer: Writer, partitions: int = 1) -> None:
    """Return when every lane was compared as a whole once more."""
    lanes = [
        {"stream": stream, "partition": str(partition)}
        for stream in ("MARKET", "INDICATORS", "SIGNALS")
        for partition in range(partitions)
    ]

    def times() -> list[float]:
        return [writer.metric("writer_reconcile_sweep_timestamp_seconds", **lane) for lane in lanes]

    # A sweep that is under way may have passed already what the caller has just changed.
    for _ in range(2):
        before = times()

        def all_later(before: list[float] = before) -> bool:
            return all(now > then for now, then in zip(times(), before, strict=True))

        await eventually_async(all_later, DEADLINE_S, "every lane is compared")


@pytest.mark.parametrize(
    ("sink", "partitions"), [("copy", 1), ("copy", 3), ("rest", 1)], indirect=["sink"]
)
def test_equal_streams_and_rows_are_silent(
    fresh_nats: NatsServer, migrated_database: Database, sink: Sink, partitions: int
) -> None:
    """While frames come and are written, no comparison finds anything."""

    async def scenario() -> None:
        async with compared(fresh_nats, migrated_database, partitions, sink) as (source, writer):
            for _ in range(3):
                source.advance(45_000)
                await source.send_some(20)
                await swept(writer, partitions)
            assert mismatches(writer) == {}
            compared_minutes = [
                writer.metric("writer_reconcile_minutes_total", stream="MARKET", partition=str(p))
                for p in range(partitions)
            ]
            assert min(compared_minutes) > 3
            await eventually_async(
                lambda: writer.metric("writer_unexplained_sessions") > 0,
                DEADLINE_S,
                "its own database counts unexplained minutes",
            )

    asyncio.run(scenario())


KEEP = """
    CREATE TEMP TABLE kept_ticks AS SELECT * FROM equity_data;
    CREATE TEMP TABLE kept_indicators AS SELECT * FROM indicators"""
MEND = """
    DELETE FROM equity_data; INSERT INTO equity_data SELECT * FROM kept_ticks;
    DELETE FROM indicators; INSERT INTO indicators SELECT * FROM kept_indicators"""
DAMAGE = {
    "a row is deleted":
        "DELETE FROM equity_data WHERE ctid = (SELECT max(ctid) FROM equity_data)",
    "a price is changed":
        "UPDATE equity_data SET price = price + 0.0001 "
        "WHERE ctid = (SELECT min(ctid) FROM equity_data)",
    "a value is erased":
        "UPDATE equity_data SET bid = NULL WHERE ctid = (SELECT min(ctid) FROM equity_data)",
    "a row is copied":
        "INSERT INTO equity_data SELECT ticker, timestamp + interval '1 microsecond', price, "
        "volume, total_volume FROM equity_data LIMIT 1",
    "a ticker is made up":
        "INSERT INTO equity_data SELECT 'NOBODY', timestamp, price, volume, total_volume "
        "FROM equity_data LIMIT 1",
    "a row lies in the future":
        "INSERT INTO equity_data SELECT ticker, max(timestamp) + interval '1 hour', 1, 1, 1 "
        "FROM equity_data GROUP BY ticker",
    "an average is changed":
        "UPDATE indicators SET vwap = 0 WHERE ctid = (SELECT min(ctid) FROM indicators)",
}  # fmt: skip


def test_a_changed_table_is_reported_until_it_is_mended(
    fresh_nats: NatsServer, migrated_database: Database, sink: Sink
) -> None:
    """Whatever row is missing, changed or too many stands as a mismatch, while the writer works."""

    async def scenario() -> None:
        async with (
            compared(fresh_nats, migrated_database, sink=sink) as (_, writer),
            connected(migrated_database.owner) as connection,
        ):
            await connection.execute(KEEP)
            for what, statement in DAMAGE.items():
                lane = "INDICATORS" if "indicators" in statement else "MARKET"
                await connection.execute(statement)
                await stands(writer, {("rows", lane, "0"): 1.0}, what)
                assert writer.runtime.health.ready
                await connection.execute(MEND)
                await stands(writer, {}, f"{what}, and that is mended")
            assert not writer.task.done()

    asyncio.run(scenario())


def test_the_minute_that_is_still_open_is_compared(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """A row lost right after it was written does not wait for the minute's end."""

    async def scenario() -> None:
        async with (
            compared(fresh_nats, migrated_database) as (source, writer),
            connected(migrated_database.owner) as connection,
        ):
            source.advance(60_000)
            await source.send("MARKET", 0, [tick(TS_MS + 120_000, ticker="T0")])
            await wait_written(migrated_database.superuser, source, writer)
            await connection.execute(
                "DELETE FROM equity_data WHERE timestamp = (SELECT max(timestamp) FROM equity_data)"
            )
            await stands(writer, {("rows", "MARKET", "0"): 1.0}, "the row is missed")

    asyncio.run(scenario())


class Damage:
    """A nats-server of this test's own, and its hand on MARKET's newest file."""

    def __init__(self, home: Path, running: Running) -> None:
        self.running = running
        self.files = streams_directory(home)

    @property
    def newest(self) -> Path:
        """The newest of MARKET's files."""
        return max(self.files.glob("MARKET/msgs/*.blk"), key=lambda each: int(each.stem))

    def flip(self, number: int, offset: int) -> Callable[[], None]:
        """Flip one bit of record `number` (-1: the last); returns how to flip it back."""
        path = self.newest
        data = path.read_bytes()
        begins = [0]
        while begins[-1] < len(data):
            length = int.from_bytes(data[begins[-1] : begins[-1] + 4], "little")
            begins.append(begins[-1] + (length & 0x7FFFFFFF))
        place = begins[:-1][number] + offset

        def flip() -> None:
            with path.open("r+b") as file:
                file.seek(place)
                (byte,) = file.read(1)
                file.seek(place)
                file.write(bytes([byte ^ 0x10]))

        flip()
        return flip


@pytest.fixture
def own_nats() -> Iterator[tuple[NatsServer, Damage]]:
    """A nats-server whose files a test may damage."""
    with temporary_home() as home:
        server = NatsServer(home)
        with Running(server, home / "nats.log") as running:
            yield server, Damage(home, running)


LENGTH, SEQUENCE, TIME, PAYLOAD = 0, 5, 15, 250


@pytest.mark.parametrize("place", [LENGTH, SEQUENCE, TIME, PAYLOAD])
def test_a_flipped_bit_in_the_newest_file_is_found_while_the_server_runs(
    own_nats: tuple[NatsServer, Damage], migrated_database: Database, place: int
) -> None:
    """Although frames keep coming and the server itself gives out what it has in memory."""
    server, damage = own_nats

    async def scenario() -> None:
        async with compared(
            server, migrated_database, writer_stream_files_dir=str(damage.files)
        ) as (source, writer):
            flip_back = damage.flip(10, place)
            while not mismatches(writer):
                await source.send_some(1)
            assert mismatches(writer) == {("file", "MARKET", "all"): 1.0}
            assert writer.runtime.health.ready
            flip_back()
            await stands(writer, {}, "the bit is flipped back")

    asyncio.run(scenario())


def test_a_payload_damaged_before_anybody_looked_is_found(
    own_nats: tuple[NatsServer, Damage], migrated_database: Database
) -> None:
    """What is new in the file is held against what the server gives out."""
    server, damage = own_nats

    async def scenario() -> None:
        async with feed(server) as source:
            await source.send_some(30)
            damage.flip(10, PAYLOAD)
            writer = Writer(
                server.url("writer"), migrated_database.owner,
                **FAST, writer_stream_files_dir=str(damage.files),
            )  # fmt: skip
            async with writer:
                await stands(writer, {("file", "MARKET", "all"): 1.0}, "the damage is found")

    asyncio.run(scenario())


def test_a_quiet_server_s_damaged_message_is_missed(
    own_nats: tuple[NatsServer, Damage], migrated_database: Database
) -> None:
    """Without its files: the server reads its disk again and passes over the message in silence."""
    server, damage = own_nats

    async def scenario() -> None:
        async with feed(server) as source:
            await source.send_some(30)
            async with Writer(server.url("writer"), migrated_database.owner) as writer:
                await wait_written(migrated_database.superuser, source, writer)
            damage.running.stop()
            damage.flip(10, PAYLOAD)  # a clean stop: the server trusts its files at the start
            await asyncio.to_thread(damage.running.start)
            async with Writer(server.url("writer"), migrated_database.owner, **FAST) as writer:
                wanted = {("frames", "MARKET", "0"): 1.0, ("rows", "MARKET", "0"): 1.0}
                await stands(writer, wanted, "the message and its rows are missed")
                assert writer.runtime.health.ready

    asyncio.run(scenario())


def test_a_server_killed_on_a_damaged_file_comes_back_with_a_hole(
    own_nats: tuple[NatsServer, Damage], migrated_database: Database
) -> None:
    """What the server gave up in the middle of a stream is found by counting."""
    server, damage = own_nats

    async def scenario() -> None:
        async with (
            feed(server, stream_bytes_max=SMALL_STREAM_BYTES) as source,
            Writer(server.url("writer"), migrated_database.owner, **FAST) as writer,
        ):
            await source.send_some(20)
            damage.flip(10, PAYLOAD)
            first = damage.newest
            filler = [Bar("T0", "1m", TS_MS, 1.0, 1.0, 1.0, 1.0, 1)] * 4000
            while damage.newest == first:
                await source.send("MARKET", 0, filler)
            await wait_written(migrated_database.superuser, source, writer)
            damage.running.kill()
            await asyncio.to_thread(damage.running.start)
            await eventually_async(
                lambda: ("shape", "MARKET", "all") in mismatches(writer),
                DEADLINE_S, "the hole is found",
            )  # fmt: skip
            assert not writer.task.done()

    asyncio.run(scenario())


def test_a_stream_that_lost_its_end_stops_the_writer(
    own_nats: tuple[NatsServer, Damage], migrated_database: Database
) -> None:
    """No comparison needed: a position behind the end of its stream is refused."""
    server, damage = own_nats

    async def scenario() -> None:
        async with compared(server, migrated_database) as (_, writer):
            damage.running.kill()
            damage.flip(10, PAYLOAD)
            await asyncio.to_thread(damage.running.start)
            with pytest.raises(PositionError, match="lost its tail"):
                await asyncio.wait_for(writer.task, DEADLINE_S)
            writer.runtime.stop.set()

    with pytest.raises(PositionError):
        asyncio.run(scenario())
