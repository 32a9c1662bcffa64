"""A store that keeps minutes only: no ticks in it, everything else exactly once, no false alarm."""

from __future__ import annotations

import asyncio

import pytest

from cli.servers.nats import NatsServer
from libs.common.bus.link import bare_client
from tests.databases import Database, connected
from tests.integration.writer.stage import Feed, Writer, feed, read_rows, wait_written
from tests.integration.writer.test_reconciler import FAST, mismatches, stands, swept
from tests.waiting import eventually_async

TICK_TABLES = ("equity_data", "indicators")


def writer_of(server: NatsServer, database: Database, kept: str, partitions: int = 1) -> Writer:
    """A writer that keeps ticks, or minutes only."""
    settings = {**FAST, "store": kept}
    return Writer(server.url("writer"), database.owner, partitions=partitions, **settings)


async def assert_minutes(database: Database, source: Feed) -> None:
    """Everything but ticks is as it must be, and of those there is none."""
    rows, wanted = await read_rows(database.superuser), source.expected.rows()
    assert wanted["equity_data"]
    assert rows == {**wanted, **{table: [] for table in TICK_TABLES}}


@pytest.mark.parametrize("partitions", [1, 2])
def test_positions_move_and_no_tick_is_stored(
    fresh_nats: NatsServer, migrated_database: Database, partitions: int
) -> None:
    """Candles, gaps and signals are those of the other way; how fresh the data are is known."""

    async def scenario() -> None:
        async with feed(fresh_nats, partitions) as source:
            await source.send_some(20)
            async with writer_of(fresh_nats, migrated_database, "minutes", partitions) as writer:
                await wait_written(migrated_database.superuser, source, writer)
                await swept(writer, partitions)
                assert mismatches(writer) == {}
                assert writer.metric("writer_rows_total", table="equity_data") == 0
                assert writer.metric("writer_freshness_seconds", stream="MARKET") < 60
            await assert_minutes(migrated_database, source)

    asyncio.run(scenario())


def test_a_writer_that_dies_again_and_again_repeats_nothing(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Frames without rows move the position as the others do."""

    async def scenario() -> None:
        async with feed(fresh_nats) as source:
            for _ in range(4):
                writer = writer_of(fresh_nats, migrated_database, "minutes")
                writer.start()
                before = writer.metric("writer_batches_total", stream="MARKET", partition="0")
                await source.send_some(5)

                def moved(writer: Writer = writer, before: float = before) -> bool:
                    lane = {"stream": "MARKET", "partition": "0"}
                    return writer.metric("writer_batches_total", **lane) > before

                await eventually_async(moved, 30, "it writes")
                await writer.crash()
            async with writer_of(fresh_nats, migrated_database, "minutes") as writer:
                await wait_written(migrated_database.superuser, source, writer)
            await assert_minutes(migrated_database, source)

    asyncio.run(scenario())


def test_a_damaged_stream_is_still_found(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Frames are compared, though their ticks are not: one that is gone stands as missing."""

    async def scenario() -> None:
        async with feed(fresh_nats) as source:
            await source.send_some(10)
            async with writer_of(fresh_nats, migrated_database, "minutes") as writer:
                await wait_written(migrated_database.superuser, source, writer)
                await swept(writer)
                client = await bare_client(fresh_nats.url("admin"))
                await client.jetstream().delete_msg("MARKET", 5)
                await client.close()
                await eventually_async(
                    lambda: any(stream == "MARKET" for _, stream, _ in mismatches(writer)),
                    30,
                    "the hole is found",
                )

    asyncio.run(scenario())


def test_it_may_be_changed_while_there_are_rows(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Ticks, then minutes only, then ticks again: what was passed over is no difference."""

    async def scenario() -> None:
        async with feed(fresh_nats) as source:
            counts = []
            for kept in ("ticks", "minutes", "ticks"):
                # A minute later: the first minute after a change is not known as a whole.
                source.advance(120_000)
                await source.send_some(10)
                async with writer_of(fresh_nats, migrated_database, kept) as writer:
                    await wait_written(migrated_database.superuser, source, writer)
                    source.advance(120_000)
                    await source.send_some(10)
                    await wait_written(migrated_database.superuser, source, writer)
                    await swept(writer)
                    assert mismatches(writer) == {}
                    counts.append(len((await read_rows(migrated_database.superuser))[
                        "equity_data"]))  # fmt: skip
                    if kept == "ticks" and len(counts) > 1:
                        await damage(migrated_database)
                        await stands(writer, {("rows", "MARKET", "0"): 1}, "a changed row is found")
            assert counts[0] == 400
            assert counts[1] == 400
            assert counts[2] == 800

    asyncio.run(scenario())


async def damage(database: Database) -> None:
    """Change the newest price."""
    async with connected(database.superuser) as connection:
        await connection.execute(
            "update equity_data set price = price + 1"
            " where timestamp = (select max(timestamp) from equity_data)"
        )
