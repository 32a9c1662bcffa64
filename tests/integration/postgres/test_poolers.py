"""Everything that talks to the database, through a pooler in both of its modes."""

from __future__ import annotations

import asyncio
from datetime import date

import asyncpg
import pytest

from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate, read
from libs.common.errors import RowsRefused, StoreFenced, StoreUnavailable
from services.gateway.store import Store as GatewayStore
from services.writer.store import PostgresStore
from tests.databases import Database, connected
from tests.integration.postgres.pgbouncer import pgbouncer
from tests.integration.writer.stage import Writer, feed, read_rows, wait_written
from tests.writer_frames import batch_of, candle, tick

MODES = ("session", "transaction")


@pytest.mark.parametrize("mode", MODES)
def test_migrations(empty_database: Database, mode: str) -> None:
    """Applied once between two runs that meet: the advisory lock holds in a transaction."""

    async def both(dsn: str) -> list[str]:
        runs = await asyncio.gather(migrate(dsn), migrate(dsn))
        return sorted(step.label for run in runs for step in run)

    with pgbouncer(empty_database.owner, mode=mode) as (dsn,):
        assert asyncio.run(both(dsn)) == [migration.label for migration in read()]


@pytest.mark.parametrize("mode", MODES)
def test_the_whole_writer(fresh_nats: NatsServer, migrated_database: Database, mode: str) -> None:
    """Many lanes over few connections: every row once, partitions made, nothing compared wrong."""

    async def scenario(dsn: str) -> None:
        async with (
            feed(fresh_nats, partitions=3) as source,
            Writer(
                fresh_nats.url("writer"), dsn, partitions=3, pg_pooler=mode,
                writer_reconcile_interval_s=1,
            ) as writer,
        ):  # fmt: skip
            for _ in range(10):
                await source.send_some(2)
            await wait_written(migrated_database.superuser, source, writer)
            assert await read_rows(migrated_database.superuser) == source.expected.rows()
            for kind in ("StoreUnavailable", "StoreFenced"):
                assert writer.metric("writer_errors_total", kind=kind) == 0
            found = writer.runtime.metrics.registry.collect()
            assert not [
                sample
                for family in found
                for sample in family.samples
                if sample.name == "kite_writer_reconcile_mismatches"
            ]

    size = 3 if mode == "transaction" else 10
    with pgbouncer(migrated_database.owner, mode=mode, size=size) as (dsn,):
        asyncio.run(scenario(dsn))


def test_the_promises_of_a_commit(migrated_database: Database) -> None:
    """Fenced, refused and limited through the transaction pooler as without it."""

    async def scenario(dsn: str) -> None:
        async with PostgresStore(
            dsn, connections_max=4, statement_timeout_s=3, by_transaction=True
        ) as store:
            first = batch_of([tick(), candle()])
            await store.commit(first)
            results = await asyncio.gather(
                *(store.commit(batch_of([candle()], before=first.after)) for _ in range(6)),
                return_exceptions=True,
            )
            fenced = [result for result in results if isinstance(result, StoreFenced)]
            assert len(fenced) == 5
            position = await store.position("MARKET", 0)
            assert position is not None
            with pytest.raises(RowsRefused, match="QQQ"):
                await store.commit(batch_of([tick()], before=position))
            async with store._connection() as connection:
                found = await connection.fetchval("SELECT current_setting('statement_timeout')")
                assert found == "3s"
                assert await connection.fetchval("SELECT current_setting('lock_timeout')") == "2s"

    with pgbouncer(migrated_database.owner, mode="transaction") as (dsn,):
        asyncio.run(scenario(dsn))


def test_settings_do_not_stay_behind(migrated_database: Database) -> None:
    """What a transaction was told is over with it: others share the connection."""

    async def scenario(dsn: str) -> None:
        async with PostgresStore(
            dsn, connections_max=1, statement_timeout_s=3, by_transaction=True
        ) as store:
            await store.ping()
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
        try:
            async with connection.transaction():
                found = await connection.fetchval("SELECT current_setting('statement_timeout')")
        finally:
            await connection.close()
        assert found != "3s"

    with pgbouncer(migrated_database.owner, mode="transaction", size=1) as (dsn,):
        asyncio.run(scenario(dsn))


@pytest.mark.parametrize("mode", MODES)
def test_the_gateway_reads(migrated_database: Database, mode: str) -> None:
    """Its snapshots see one moment, and nothing it does can write."""

    async def scenario(owner: str, reader: str) -> None:
        pooled = mode == "transaction"
        async with PostgresStore(
            owner, connections_max=2, statement_timeout_s=5, by_transaction=pooled
        ) as writer:
            await writer.commit(batch_of([tick(), candle()]))
        async with GatewayStore(reader, by_transaction=pooled) as store:
            for _ in range(5):
                await store.ping()
                assert await store.tickers(date(2023, 11, 20), date(2023, 11, 24)) == ["QQQ"]
                await store.candles("QQQ", 0, "1m", date(2023, 11, 24))
                await store.gaps(date(2023, 11, 24), None)
            with pytest.raises(StoreUnavailable, match="read-only"):
                async with store._connection() as connection:
                    await connection.execute("CREATE TABLE mine ()")

    with pgbouncer(migrated_database.owner, migrated_database.gateway, mode=mode) as dsns:
        asyncio.run(scenario(*dsns))


def test_an_undeclared_one_is_named(postgres: PostgresServer, migrated_database: Database) -> None:
    """Whoever leaves the setting out is told which it is, and no row is doubled meanwhile."""

    async def scenario(dsn: str) -> list[str]:
        said: list[str] = []
        async with PostgresStore(dsn, connections_max=4, statement_timeout_s=3) as store:

            async def ask() -> None:
                for _ in range(20):
                    try:
                        await store.position("MARKET", 0)
                    except StoreUnavailable as error:
                        said.append(str(error))

            await asyncio.gather(*(ask() for _ in range(4)))
        return said

    with pgbouncer(migrated_database.owner, mode="transaction", size=2) as (dsn,):
        said = asyncio.run(scenario(dsn))
    assert any("transaction pooler: set KITE_PG_POOLER=transaction" in line for line in said)

    async def nothing() -> int:
        async with connected(migrated_database.superuser) as connection:
            return int(await connection.fetchval("SELECT count(*) FROM stream_positions"))

    assert asyncio.run(nothing()) == 0
