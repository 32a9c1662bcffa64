"""The local servers start, survive kill -9, answer as themselves, and refuse in one clear line."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from tests.databases import Database


def test_postgres_refuses_a_wrong_password(postgres: PostgresServer) -> None:
    """A login without the right password fails."""
    password = postgres.dsn().split(":")[2].split("@")[0]
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(asyncpg.connect(postgres.dsn().replace(password, "guess")))


def test_the_reader_reads_and_writes_nothing(empty_database: Database) -> None:
    """`kite_reader` sees tables made after it, even under row-level security, and cannot write."""

    async def use() -> int:
        owner = await asyncpg.connect(empty_database.owner)
        await owner.execute("CREATE TABLE secret (n int); INSERT INTO secret VALUES (7)")
        await owner.execute("ALTER TABLE secret ENABLE ROW LEVEL SECURITY")
        await owner.close()
        reader = await asyncpg.connect(empty_database.reader)
        seen: int = await reader.fetchval("SELECT n FROM secret")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await reader.execute("INSERT INTO secret VALUES (8)")
        await reader.execute("SET default_transaction_read_only = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute("INSERT INTO secret VALUES (8)")
        await reader.close()
        return seen

    assert asyncio.run(use()) == 7


def test_nats_answers_as_itself(fresh_nats: NatsServer) -> None:
    """Readiness checks the server's own name, not merely that somebody answers on the port."""
    asyncio.run(fresh_nats.wait_ready(deadline_s=5))
