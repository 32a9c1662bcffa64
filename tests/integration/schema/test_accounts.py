"""Roles and database made on a running server, as the containers' Postgres needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from cli.servers.postgres import PostgresServer
from deploy.postgres.accounts import make_accounts
from deploy.supabase.migrate import migrate
from deploy.supabase.roles import LOGIN_ROLES, OWNER, READER, SUPERUSER
from tests.servers import Running, temporary_home


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of this test alone: its passwords change."""
    with temporary_home() as home:
        found = PostgresServer(home)
        with Running(found, home / "postgres.log", extra=("-c", "fsync=off")):
            yield found


def test_accounts_can_be_made_again_and_again(server: PostgresServer) -> None:
    """The second run finds all of it; the passwords are those given last; migrations follow."""
    # The superuser's stays, or the second run could not log in.
    passwords = {role: f"new-{role}" for role in LOGIN_ROLES}
    passwords[SUPERUSER] = server.dsn(SUPERUSER).partition("@")[0].rpartition(":")[2]

    def superuser(database: str) -> str:
        return server.dsn(SUPERUSER, database)

    def login(role: str) -> str:
        return f"postgresql://{role}:new-{role}@127.0.0.1:{server.port}/kite"

    async def twice() -> int:
        for _ in range(2):
            await make_accounts(superuser, passwords)
        await migrate(login(OWNER))
        reader = await asyncpg.connect(login(READER))
        try:
            return int(await reader.fetchval("SELECT count(*) FROM candles"))
        finally:
            await reader.close()

    assert asyncio.run(twice()) == 0
