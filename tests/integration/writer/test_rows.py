"""Real bus, real database: the rows are what was sent, whatever happens on the way."""

from __future__ import annotations

import asyncio

from cli.servers.nats import NatsServer
from tests.databases import Database
from tests.integration.writer.sinks import Sink
from tests.integration.writer.stage import Writer, feed, read_rows, wait_written


def test_every_stream_and_partition_becomes_rows(
    fresh_nats: NatsServer, migrated_database: Database, sink: Sink
) -> None:
    """Frames of all streams and partitions give exactly the rows that their events describe."""

    async def scenario() -> None:
        async with feed(fresh_nats, partitions=3) as source:
            await source.send_some(20)
            url = fresh_nats.url("writer")
            async with Writer(url, sink.dsn, partitions=3, **sink.settings) as writer:
                await source.send_some(20)
                await wait_written(migrated_database.superuser, source, writer)
                assert writer.runtime.health.ready, writer.runtime.health.reasons
            assert await read_rows(migrated_database.superuser) == source.expected.rows()

    asyncio.run(scenario())
