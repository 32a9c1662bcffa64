"""Real bus, real database: the rows are what was sent, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from cli.servers.nats import NatsServer
from libs.common.errors import StoreUnavailable
from services.writer.store import PostgresStore
from services.writer.stored import PostgresRows
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


def test_an_old_schema_is_named_with_what_mends_it(empty_database: Database) -> None:
    """Whoever updates the program and not the database is told so, by writer and reconciler."""

    async def ask() -> list[str]:
        dsn, said = empty_database.owner, []
        async with (
            PostgresStore(dsn, connections_max=1, statement_timeout_s=5) as store,
            PostgresRows(dsn, statement_timeout_s=5) as rows,
        ):
            questions: list[Awaitable[Any]] = [store.position("MARKET", 0), rows.first_gap_ms()]
            for question in questions:
                with pytest.raises(StoreUnavailable) as caught:
                    await question
                said.append(str(caught.value))
        return said

    for line in asyncio.run(ask()):
        assert line.endswith("(bring the schema up to date: ./kite db migrate)")
