"""Streams compared with rows, on a real nats-server and a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cli.servers.nats import NatsServer
from tests.databases import Database, connected
from tests.integration.writer.stage import Feed, Writer, feed, wait_written
from tests.waiting import eventually_async
from tests.writer_frames import TS_MS, tick

DEADLINE_S = 30.0
FAST = {"writer_reconcile_interval_s": 1, "writer_reconcile_bytes_per_s_max": 1 << 30}


@asynccontextmanager
async def compared(
    server: NatsServer, database: Database, partitions: int = 1, **settings: Any
) -> AsyncIterator[tuple[Feed, Writer]]:
    """Yield a feed whose first rows are written and were found right by a writer."""
    async with feed(server, partitions) as source:
        await source.send_some(30)
        writer = Writer(
            server.url("writer"), database.owner, partitions=partitions, **(FAST | settings)
        )
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


@pytest.mark.parametrize("partitions", [1, 3])
def test_equal_streams_and_rows_are_silent(
    fresh_nats: NatsServer, migrated_database: Database, partitions: int
) -> None:
    """While frames come and are written, no comparison finds anything."""

    async def scenario() -> None:
        async with compared(fresh_nats, migrated_database, partitions) as (source, writer):
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
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Whatever row is missing, changed or too many stands as a mismatch, while the writer works."""

    async def scenario() -> None:
        async with (
            compared(fresh_nats, migrated_database) as (_, writer),
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
