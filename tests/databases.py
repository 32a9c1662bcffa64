"""Throw-away databases on a running Postgres, cheap because they are copies of a template."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import asyncpg

from cli.servers.postgres import PostgresServer
from deploy.supabase.roles import (
    BACKUP_ROLE,
    GATEWAY_ROLE,
    OWNER,
    READER,
    SUPERUSER,
    database_sql,
)

__all__ = ["Database", "as_superuser", "connected", "rolled_back", "throw_away_database"]

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """How to connect to one database as each login role."""

    name: str
    owner: str
    reader: str
    superuser: str
    gateway: str
    backup: str


def as_superuser(server: PostgresServer, *statements: str, database: str = "postgres") -> None:
    """Run statements, unless another is named outside any test's database."""

    async def run() -> None:
        connection = await asyncpg.connect(server.dsn(SUPERUSER, database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@contextlib.contextmanager
def throw_away_database(
    server: PostgresServer, *, template: str = "template1"
) -> Iterator[Database]:
    """Yield a new database that belongs to the owner role; it is dropped at the end."""
    name = f"test_{next(_numbers)}"
    create, *admit = database_sql(name)
    as_superuser(server, f"{create} TEMPLATE {template}", *admit)
    try:
        yield Database(
            name,
            owner=server.dsn(OWNER, name),
            reader=server.dsn(READER, name),
            superuser=server.dsn(SUPERUSER, name),
            gateway=server.dsn(GATEWAY_ROLE, name),
            backup=server.dsn(BACKUP_ROLE, name),
        )
    finally:
        as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection that is closed at the end, whatever happened to it."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


@contextlib.asynccontextmanager
async def rolled_back(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection in a transaction that is never committed: nobody sees what it did."""
    async with connected(dsn) as connection:
        await connection.transaction().start()
        yield connection
