"""The schema tests run on the newest and the oldest Postgres that the migrations promise to fit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest

from cli.servers.host import choose_port
from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate
from tests.databases import Database, throw_away_database


@pytest.fixture(scope="session", params=["postgres", "postgres_15"])
def any_postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """Postgres 18, then 15 (skipped where it is not installed)."""
    return cast(PostgresServer, request.getfixturevalue(request.param))


@pytest.fixture
def blank(any_postgres: PostgresServer) -> Iterator[Database]:
    """A database without tables."""
    with throw_away_database(any_postgres) as database:
        yield database


@pytest.fixture(scope="session")
def schema(any_postgres: PostgresServer) -> Iterator[Database]:
    """A migrated database for tests that roll back what they do."""
    with throw_away_database(any_postgres) as database:
        asyncio.run(migrate(database.owner))
        yield database


@pytest.fixture
def own_schema(any_postgres: PostgresServer, schema: Database) -> Iterator[Database]:
    """A migrated database for this test alone."""
    with throw_away_database(any_postgres, template=schema.name) as database:
        yield database


@pytest.fixture
def unused_port() -> int:
    """A loopback port that nobody listens on."""
    return choose_port()
