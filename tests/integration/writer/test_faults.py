"""Whatever breaks in between: no row is lost, none is doubled."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate
from libs.common.errors import RowsRefused
from tests.databases import Database, connected
from tests.integration.writer.proxy import Cut, proxied
from tests.integration.writer.sinks import Sink
from tests.integration.writer.stage import (
    Feed,
    Writer,
    feed,
    memory_feed,
    read_rows,
    wait_written,
)
from tests.servers import Running
from tests.waiting import eventually_async
from tests.writer_frames import TS_MS, tick

CUTS_MAX = 12  # a lane waits longer after each

TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'kite-writer' AND datname = current_database()
        AND ($1 = '' OR query ~ $1)"""


def written_through(server: NatsServer, sink: Sink) -> Writer:
    """Return a writer whose every frame is a commit."""
    return Writer(server.url("writer"), sink.dsn, writer_rows_max=1, **sink.settings)


async def feed_until_written(source: Feed, rounds: int, dsn: str, writer: Writer) -> None:
    """Publish while the trouble goes on, and wait until all is written."""
    for _ in range(rounds):
        await source.send_some(1)
    await wait_written(dsn, source, writer)


class TestConnectionsToTheDatabase:
    """Cut at any moment, also when nobody can tell whether a commit happened."""

    def test_backends_killed_again_and_again(
        self, fresh_nats: NatsServer, migrated_database: Database
    ) -> None:
        """Killing the writer's backends in the middle of their work changes no row."""

        async def scenario() -> None:
            killed = 0
            done = asyncio.Event()

            async def kill() -> None:
                nonlocal killed
                rng = random.Random(7)
                async with connected(migrated_database.superuser) as connection:
                    while not done.is_set() and killed < CUTS_MAX:
                        # Sometimes whatever runs, mostly what is in the middle of something.
                        wanted = rng.choice(["", "COPY", "UPDATE", "INSERT", "COMMIT"])
                        killed += await connection.fetchval(TERMINATE, wanted)
                        await connection.execute("SELECT pg_sleep(0.005)")

            async with (
                feed(fresh_nats) as source,
                Writer(fresh_nats.url("writer"), migrated_database.owner) as writer,
            ):
                killer = asyncio.create_task(kill())
                await feed_until_written(source, 60, migrated_database.superuser, writer)
                done.set()
                await killer
                assert await read_rows(migrated_database.superuser) == source.expected.rows()
                assert killed > 0
                assert writer.metric("writer_errors_total", kind="StoreUnavailable") > 0

        asyncio.run(scenario())

    def test_cut_around_commit(
        self, fresh_nats: NatsServer, migrated_database: Database, sink: Sink
    ) -> None:
        """A commit whose answer never comes, or that never arrives, is settled by the position."""

        async def scenario() -> None:
            rng = random.Random(3)

            def judge(data: bytes) -> Cut:
                if sink.commit_bytes not in data or proxy.cuts >= CUTS_MAX:
                    return Cut.NEVER
                return rng.choice([Cut.NEVER, Cut.BEFORE, Cut.AFTER_ANSWER])

            async with (
                feed(fresh_nats) as source,
                proxied(sink.address, judge) as (proxy, address),
                written_through(fresh_nats, sink.at(address)) as writer,
            ):
                await feed_until_written(source, 15, migrated_database.superuser, writer)
                assert proxy.cuts > 3
                assert await read_rows(migrated_database.superuser) == source.expected.rows()
                assert writer.metric("writer_errors_total", kind="StoreUnavailable") > 0

        asyncio.run(scenario())

    def test_cut_anywhere(
        self, fresh_nats: NatsServer, migrated_database: Database, sink: Sink
    ) -> None:
        """A connection that breaks after any piece of any statement changes no row."""

        async def scenario() -> None:
            rng = random.Random(11)

            def judge(_: bytes) -> Cut:
                if proxy.cuts >= CUTS_MAX:
                    return Cut.NEVER
                return rng.choices([Cut.NEVER, Cut.BEFORE, Cut.AFTER_ANSWER], [60, 1, 1])[0]

            async with (
                feed(fresh_nats) as source,
                proxied(sink.address, judge) as (proxy, address),
                written_through(fresh_nats, sink.at(address)) as writer,
            ):
                await feed_until_written(source, 15, migrated_database.superuser, writer)
                assert proxy.cuts > 3
                assert await read_rows(migrated_database.superuser) == source.expected.rows()

        asyncio.run(scenario())


class TestTheDatabaseItself:
    """Away at the start, killed, restarted, out of room, tidied up."""

    @pytest.mark.parametrize(
        "state",
        ["53100", "40001", "40P01", "57014", "25006", "42P01"],
        ids=["disk-full", "serialization", "deadlock", "timeout", "read-only", "no-table"],
    )
    def test_refuses_for_a_while(self, migrated_database: Database, sink: Sink, state: str) -> None:
        """A failure that may pass is waited out: the rows come when it is over."""

        async def scenario() -> None:
            async with connected(migrated_database.superuser) as connection:
                await connection.execute(
                    "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
                    f"$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$;"
                    "CREATE TRIGGER fail BEFORE INSERT ON gaps EXECUTE FUNCTION fail()"
                )
                async with (
                    memory_feed() as (source, server),
                    Writer("", sink.dsn, memory=server, **sink.settings) as writer,
                ):
                    await source.send_some(3)
                    await eventually_async(
                        lambda: writer.metric("writer_errors_total", kind="StoreUnavailable"),
                        10,
                        "the failure is counted",
                    )
                    assert "market-0" in writer.runtime.health.reasons
                    assert (await read_rows(migrated_database.superuser))["equity_data"] == []
                    await connection.execute("DROP TRIGGER fail ON gaps")
                    await wait_written(migrated_database.superuser, source, writer)
                    assert await read_rows(migrated_database.superuser) == source.expected.rows()

        asyncio.run(scenario())

    def test_partition_removed_meanwhile(self, migrated_database: Database, sink: Sink) -> None:
        """A partition that was there and is gone is made again."""

        async def scenario() -> None:
            async with (
                memory_feed() as (source, server),
                Writer("", sink.dsn, memory=server, **sink.settings) as writer,
            ):
                await source.send("MARKET", 0, [tick()])
                await wait_written(migrated_database.superuser, source, writer)
                async with connected(migrated_database.owner) as connection:
                    await connection.execute("DROP TABLE kite_parts.equity_data_20231124")
                await source.send("MARKET", 0, [tick(TS_MS + 1)])
                await wait_written(migrated_database.superuser, source, writer)
                rows = await read_rows(migrated_database.superuser)
                assert len(rows["equity_data"]) == 1

        asyncio.run(scenario())

    def test_killed_and_started_again(self, fresh_nats: NatsServer, server_home: Path) -> None:
        """The writer waits for a database that is away, is not ready meanwhile, and goes on."""
        home = server_home / "own"
        server = PostgresServer(home)
        with Running(server, server_home / "own.log") as running:
            asyncio.run(migrate(server.dsn()))
            running.kill()

            async def scenario() -> None:
                async with (
                    feed(fresh_nats) as source,
                    Writer(fresh_nats.url("writer"), server.dsn()) as writer,
                ):
                    await source.send_some(5)
                    health = writer.runtime.health
                    await eventually_async(
                        lambda: "Connect" in health.reasons.get("database", ""), 10, "not ready"
                    )
                    for _ in range(2):
                        await asyncio.to_thread(running.start)
                        await source.send_some(5)
                        await wait_written(server.dsn(), source, writer)
                        await eventually_async(lambda: health.ready, 10, "ready")
                        running.kill()
                        await source.send_some(5)
                        await eventually_async(lambda: not health.ready, 10, "not ready")
                    await asyncio.to_thread(running.start)
                    await wait_written(server.dsn(), source, writer)
                    assert await read_rows(server.dsn()) == source.expected.rows()

            asyncio.run(scenario())


class TestSeveralWriters:
    """Instances compete; the position decides."""

    def test_crashing_in_turns(
        self, fresh_nats: NatsServer, migrated_database: Database, sink: Sink
    ) -> None:
        """Two writers, one of which dies again and again, write every row once."""

        async def scenario() -> None:
            url = fresh_nats.url("writer")
            async with feed(fresh_nats) as source:
                writers = [
                    Writer(url, sink.dsn, **sink.settings),
                    Writer(url, sink.dsn, **sink.settings),
                ]
                for writer in writers:
                    writer.start()
                for turn in range(6):
                    await source.send_some(8)
                    await writers[turn % 2].crash()
                    writers[turn % 2] = Writer(url, sink.dsn, **sink.settings)
                    writers[turn % 2].start()
                await wait_written(migrated_database.superuser, source)
                assert await read_rows(migrated_database.superuser) == source.expected.rows()
                for writer in writers:
                    await writer.stop()

        asyncio.run(scenario())

    def test_written_behind_its_back(
        self, fresh_nats: NatsServer, migrated_database: Database, sink: Sink
    ) -> None:
        """A writer that finds its position moved drops its batch and goes on from there."""

        async def scenario() -> None:
            async with (
                feed(fresh_nats) as source,
                Writer(fresh_nats.url("writer"), sink.dsn, **sink.settings) as writer,
            ):
                await source.send_some(3)
                await wait_written(migrated_database.superuser, source, writer)
                # Somebody else writes the next frame of MARKET: here, by moving past it.
                async with connected(migrated_database.superuser) as other, other.transaction():
                    await other.execute(
                        "UPDATE stream_positions SET seq = seq + 1, frame_n = frame_n + 1 "
                        "WHERE stream = 'MARKET'"
                    )
                    rows_before = await read_rows(migrated_database.superuser)
                    await source.send_some(1)
                    await eventually_async(
                        lambda: writer.metric("writer_rows_total", table="indicators") == 80,
                        10,
                        "the other lanes go on",
                    )
                await source.send("MARKET", 0, [])
                await wait_written(migrated_database.superuser, source, writer)
                assert writer.metric("writer_fenced_total") == 1
                rows = await read_rows(migrated_database.superuser)
                assert rows["equity_data"] == rows_before["equity_data"]

        asyncio.run(scenario())


def test_bus_away_for_a_while(migrated_database: Database, server_home: Path) -> None:
    """When the bus is killed and comes back, the lanes take up where their positions are."""
    server = NatsServer(server_home / "bus", partitions=1)
    with Running(server, server_home / "bus.log") as running:

        async def scenario() -> None:
            async with (
                Writer(server.url("writer"), migrated_database.owner) as writer,
                feed(server) as source,
            ):
                await source.send_some(5)
                await wait_written(migrated_database.superuser, source, writer)
                running.kill()
                health = writer.runtime.health
                await eventually_async(lambda: not health.ready, 10, "not ready")
                await asyncio.to_thread(running.start)
                await eventually_async(lambda: source.bus.connected, 10, "the feed is back")
                await source.send_some(5)
                await wait_written(migrated_database.superuser, source, writer)
                await eventually_async(lambda: health.ready, 10, "ready")
                assert await read_rows(migrated_database.superuser) == source.expected.rows()

        asyncio.run(scenario())


def test_a_connection_that_refuses_the_password(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """A wrong password is waited out, with a reason that does not show it."""

    async def scenario() -> None:
        user, _, rest = migrated_database.owner.partition("@")
        dsn = f"{user.rpartition(':')[0]}:wrong-secret@{rest}"
        async with (
            feed(fresh_nats),
            Writer(fresh_nats.url("writer"), dsn) as writer,
        ):
            await eventually_async(
                lambda: "password" in writer.runtime.health.reasons.get("database", ""),
                10,
                "the reason is told",
            )
            reasons = writer.runtime.health.reasons
            assert "wrong-secret" not in str(reasons)

    asyncio.run(scenario())


def test_twice_the_same_row_ends_the_writer(
    fresh_nats: NatsServer, migrated_database: Database, sink: Sink
) -> None:
    """A tick that is stored already is reported and final, and the position stays."""

    async def scenario() -> None:
        async with feed(fresh_nats) as source:
            writer = Writer(fresh_nats.url("writer"), sink.dsn, **sink.settings)
            writer.start()
            await source.send("MARKET", 0, [tick()])
            await wait_written(migrated_database.superuser, source, writer)
            written = dict(source.last_seq)
            await source.send("MARKET", 0, [tick()])
            with pytest.raises(RowsRefused, match="QQQ"):
                await asyncio.wait_for(writer.task, 10)
            assert writer.metric("writer_errors_total", kind="RowsRefused") == 1
            assert "market-0" in writer.runtime.health.reasons
            async with connected(migrated_database.superuser) as connection:
                seq = await connection.fetchval("SELECT seq FROM stream_positions")
                status = await connection.fetchval(
                    "SELECT status FROM streaming_metrics ORDER BY timestamp DESC LIMIT 1"
                )
            assert seq == written["MARKET", 0]
            assert status == "refused"

    asyncio.run(scenario())
