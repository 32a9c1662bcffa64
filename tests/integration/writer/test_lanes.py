"""Lanes over a bus in memory and a real database: leases, positions, order, readiness."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from libs.common.bus.memory import MemoryServer
from libs.common.errors import PositionError, SchemaError, StoreMismatch
from libs.common.subjects import frame_subject
from tests.databases import Database, connected
from tests.integration.writer.stage import Feed, Writer, memory_feed, read_rows, wait_written
from tests.waiting import eventually_async
from tests.writer_frames import tick

ENDS_WITHIN_S = 10.0


async def _waits(database: Database) -> bool:
    """Whether somebody waits for a lock in the database."""
    async with connected(database.superuser) as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return bool(await connection.fetchval(waiting))


class TestLeases:
    """A lease can be lost at any time; the position cannot."""

    def test_taken_away_and_rewound(self, migrated_database: Database) -> None:
        """Losing the pin, or being rewound by somebody else, changes no row."""

        async def scenario() -> None:
            rng = random.Random(5)
            async with (
                memory_feed() as (source, server),
                Writer("", migrated_database.owner, memory=server) as writer,
            ):
                for _ in range(40):
                    await source.send_some(2)
                    stream = rng.choice(["MARKET", "INDICATORS", "SIGNALS"])
                    if rng.random() < 0.5:
                        server.unpin(stream, "writer-0")
                    else:
                        server.rewind(stream, "writer-0", 1)
                await wait_written(migrated_database.superuser, source, writer)
                assert await read_rows(migrated_database.superuser) == source.expected.rows()

        asyncio.run(scenario())

    def test_a_refused_batch_counts_after_the_lease(self, migrated_database: Database) -> None:
        """Of a batch that another writer was faster with, the metric tells without a lease, too."""

        async def scenario() -> None:
            async with (
                memory_feed() as (source, server),
                Writer("", migrated_database.owner, memory=server) as writer,
            ):
                await source.send_some(1)
                await wait_written(migrated_database.superuser, source, writer)
                lease = server.consumer("MARKET", "writer-0").pinned
                assert lease is not None
                async with connected(migrated_database.superuser) as other, other.transaction():
                    await other.execute(
                        "UPDATE stream_positions SET seq = seq + 1, frame_n = frame_n + 1 "
                        "WHERE stream = 'MARKET'"
                    )
                    await source.send("MARKET", 0, [])
                    await eventually_async(lambda: _waits(migrated_database), 10, "it commits")
                    server.unpin("MARKET", "writer-0")
                    await eventually_async(lambda: lease.failure, 10, "the lease is over")
                await eventually_async(
                    lambda: writer.metric("writer_fenced_total") == 1, 10, "it is counted"
                )

        asyncio.run(scenario())

    def test_ready_while_standing_by(self, migrated_database: Database) -> None:
        """A lane without a message to own is ready: its position is loaded and fits."""

        async def scenario() -> None:
            async with (
                memory_feed() as (_, server),
                Writer("", migrated_database.owner, memory=server) as writer,
            ):
                health = writer.runtime.health
                health.met("bus")
                await eventually_async(lambda: health.ready, ENDS_WITHIN_S, "ready")

        asyncio.run(scenario())


class TestBatches:
    """When a batch is written."""

    @pytest.mark.parametrize(
        "limits",
        [{"writer_rows_max": 1}, {"writer_input_bytes_max": 1}, {"writer_flush_ms": 1}, {}],
        ids=str,
    )
    def test_any_limits_give_the_same_rows(
        self, migrated_database: Database, limits: dict[str, int]
    ) -> None:
        """How frames are batched changes nothing but the number of commits."""

        async def scenario() -> None:
            async with memory_feed() as (source, server):
                await source.send_some(10)
                async with Writer("", migrated_database.owner, memory=server, **limits) as writer:
                    await wait_written(migrated_database.superuser, source, writer)
                assert await read_rows(migrated_database.superuser) == source.expected.rows()

        asyncio.run(scenario())

    def test_stopping_writes_what_was_read(self, migrated_database: Database) -> None:
        """A writer that is told to stop commits the batch it holds, however young."""

        async def scenario() -> None:
            async with memory_feed() as (source, server):
                await source.send_some(3)
                writer = Writer("", migrated_database.owner, memory=server, writer_flush_ms=60_000)
                writer.start()
                consumer = server.consumer("INDICATORS", "writer-0")
                await eventually_async(
                    lambda: consumer.next_seq > 3, ENDS_WITHIN_S, "the frames are read"
                )
                await writer.stop()
                rows = await read_rows(migrated_database.superuser)
                assert rows["indicators"] == source.expected.rows()["indicators"]

        asyncio.run(scenario())

    def test_reports_soon_and_at_the_end(self, migrated_database: Database) -> None:
        """streaming_metrics has a row soon after the first commit, and one for the stop."""

        async def scenario() -> None:
            async with memory_feed() as (source, server):
                await source.send_some(2)
                async with (
                    connected(migrated_database.superuser) as connection,
                    Writer("", migrated_database.owner, memory=server) as writer,
                ):
                    await eventually_async(
                        lambda: connection.fetchval("SELECT count(*) FROM streaming_metrics"),
                        ENDS_WITHIN_S,
                        "a report",
                    )
                    await wait_written(migrated_database.superuser, source, writer)
                async with connected(migrated_database.superuser) as connection:
                    rows = await connection.fetch(
                        "SELECT * FROM streaming_metrics ORDER BY timestamp"
                    )
                expected = sum(
                    writer.metric("writer_rows_total", table=table)
                    for table in ("equity_data", "indicators", "candles", "gaps", "signals")
                )
                assert sum(row["records_processed"] for row in rows) == expected
                assert (rows[0]["status"], rows[-1]["status"]) == ("running", "stopped")
                assert rows[0]["broker_timestamp"] is not None

        asyncio.run(scenario())

    def test_reports_keep_up_with_a_fast_broker(self, migrated_database: Database) -> None:
        """A minute of the broker's time makes a row, however long the next one is away."""

        async def scenario() -> None:
            async with (
                memory_feed() as (source, server),
                connected(migrated_database.superuser) as connection,
                Writer("", migrated_database.owner, memory=server, writer_report_s=3600),
            ):
                for rows in (1, 2):
                    await source.send_some(1)

                    async def reported(rows: int = rows) -> bool:
                        found = await connection.fetchval(
                            "SELECT count(DISTINCT broker_timestamp) FROM streaming_metrics"
                        )
                        return int(found) >= rows

                    await eventually_async(reported, ENDS_WITHIN_S, "a report of that time")
                    source.advance(60_000)

        asyncio.run(scenario())


class TestRefusals:
    """What no repetition can heal ends the writer, with the position where it was."""

    @staticmethod
    def _ends_with(
        database: Database,
        error: type[Exception],
        match: str,
        prepare: Callable[[Feed, MemoryServer], Awaitable[None]],
        partitions: int = 1,
        **settings: str,
    ) -> None:
        async def scenario() -> None:
            async with memory_feed(partitions) as (source, server):
                async with Writer("", database.owner, partitions, memory=server) as writer:
                    await source.send_some(3)
                    await wait_written(database.superuser, source, writer)
                rows = await read_rows(database.superuser)
                await prepare(source, server)
                writer = Writer("", database.owner, partitions, memory=server, **settings)
                writer.start()
                with pytest.raises(error, match=match):
                    await asyncio.wait_for(writer.task, ENDS_WITHIN_S)
                assert await read_rows(database.superuser) == rows

        asyncio.run(scenario())

    def test_position_of_a_stream_made_anew(self, migrated_database: Database) -> None:
        """A stream of another incarnation is refused, even if its numbers would fit."""

        async def prepare(source: Feed, server: MemoryServer) -> None:
            server.recreate("INDICATORS")

        self._ends_with(
            migrated_database, PositionError, "INDICATORS partition 0.*made anew", prepare
        )

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ("seq = seq + 5", "the stream ends at 3"),
            ("seq = 1, frame_n = 7", "messages after 1 and before [23] left the stream"),
        ],
    )
    def test_position_that_does_not_fit(
        self, migrated_database: Database, change: str, match: str
    ) -> None:
        """A position ahead of its stream, or one that frames are missing after, is refused."""

        async def prepare(source: Feed, server: MemoryServer) -> None:
            async with connected(migrated_database.superuser) as connection:
                move = f"UPDATE stream_positions SET {change}"  # noqa: S608 - see the parameters
                await connection.execute(f"{move} WHERE stream = 'MARKET'")
            if "frame_n" in change:
                await source.send("MARKET", 0, [])

        self._ends_with(migrated_database, PositionError, match, prepare)

    def test_frames_that_left_the_stream(self, migrated_database: Database) -> None:
        """With several partitions the frame's number tells that one was never written."""

        async def prepare(source: Feed, server: MemoryServer) -> None:
            source.n["MARKET", 1] += 1
            await source.send("MARKET", 1, [tick()])

        self._ends_with(
            migrated_database, PositionError, "MARKET partition 1.*frame_n = 0", prepare, 2
        )

    def test_frame_of_an_unknown_version(self, migrated_database: Database) -> None:
        """A frame of a later schema stops the writer."""

        async def prepare(source: Feed, server: MemoryServer) -> None:
            await source.bus.append(frame_subject("MARKET", 0), b"\x98\x63" + b"\x00" * 7)

        self._ends_with(migrated_database, SchemaError, "version 99", prepare)

    def test_number_that_is_none(self, migrated_database: Database) -> None:
        """NaN never becomes a row."""

        async def prepare(source: Feed, server: MemoryServer) -> None:
            await source.send("MARKET", 0, [tick(price=float("nan"), ticker="nan")])

        self._ends_with(migrated_database, SchemaError, "number that is none", prepare)

    def test_database_of_another_source(self, migrated_database: Database) -> None:
        """A database that belongs to another source is not touched."""

        async def prepare(source: Feed, server: MemoryServer) -> None:
            return

        self._ends_with(
            migrated_database, StoreMismatch, "KITE_SOURCE=demo", prepare, source="schwab"
        )

    def test_accepting_a_hole(self, migrated_database: Database) -> None:
        """What the refusal says to do lets the writer go on behind the hole."""

        async def scenario() -> None:
            async with memory_feed(2) as (source, server):
                await source.send("MARKET", 0, [])
                source.n["MARKET", 1] = 41
                await source.send("MARKET", 1, [tick()])
                writer = Writer("", migrated_database.owner, 2, memory=server)
                writer.start()
                with pytest.raises(PositionError, match="seq = 1 and frame_n = 0"):
                    await asyncio.wait_for(writer.task, ENDS_WITHIN_S)
                created_ms = (await source.bus.stream("MARKET")).created_ms
                async with connected(migrated_database.superuser) as connection:
                    await connection.execute(
                        "INSERT INTO stream_positions (stream, partition, seq, frame_n, "
                        "stream_created_ms) VALUES ('MARKET', 1, 1, 0, $1)",
                        created_ms,
                    )
                async with Writer("", migrated_database.owner, 2, memory=server) as writer:
                    await wait_written(migrated_database.superuser, source, writer)

        asyncio.run(scenario())
