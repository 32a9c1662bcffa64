"""What all tests share: how hypothesis searches, and the fixtures that start real servers.

Servers start once a session, only if a test asks for them, on free ports, in a home of their own:

- `nats_server`: a running `NatsServer` for `NATS_PARTITIONS` partitions; `url(user)` connects.
- `fresh_nats`: the same, without any stream in it.
- `postgres`: a running `PostgresServer` 18; `postgres_15`: Debian's 15, or skipped.
- `empty_database`, `migrated_database`: a `Database` for this test alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cli.servers.binaries import postgres_programs_in
from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate
from libs.common.bus.link import bare_client
from tests.databases import Database, throw_away_database
from tests.servers import Running, temporary_home

# The same examples in every run: a failure in CI is a failure at home, a slow machine is no bug.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")

NATS_PARTITIONS = 8
# No test cuts the power, and making and dropping databases mostly waits for the disk.
NO_FSYNC = ("-c", "fsync=off")
DEBIAN_POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A data home for the session's servers."""
    with temporary_home() as home:
        yield home


@pytest.fixture(scope="session")
def nats_server(server_home: Path) -> Iterator[NatsServer]:
    """A running nats-server with the real permissions."""
    server = NatsServer(server_home, partitions=NATS_PARTITIONS)
    with Running(server, server_home / "nats.log"):
        yield server


@pytest.fixture
def fresh_nats(nats_server: NatsServer) -> NatsServer:
    """The running nats-server, emptied of what earlier tests left."""

    async def clear() -> None:
        client = await bare_client(nats_server.url("admin"))
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
        await client.close()

    asyncio.run(clear())
    return nats_server


@pytest.fixture(scope="session")
def postgres(server_home: Path) -> Iterator[PostgresServer]:
    """A running Postgres 18 from the wheel."""
    server = PostgresServer(server_home)
    with Running(server, server_home / "postgres.log", extra=NO_FSYNC):
        yield server


@pytest.fixture(scope="session")
def postgres_15() -> Iterator[PostgresServer]:
    """A running Postgres 15, the oldest version that the migrations promise to fit."""
    if not DEBIAN_POSTGRES_15.is_dir():
        pytest.skip(f"no Postgres 15 in {DEBIAN_POSTGRES_15} (Debian: apt install postgresql-15)")
    with temporary_home() as home:
        server = PostgresServer(home, programs=postgres_programs_in(DEBIAN_POSTGRES_15))
        with Running(server, home / "postgres.log", extra=NO_FSYNC):
            yield server


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[Database]:
    """A database without tables."""
    with throw_away_database(postgres) as database:
        yield database


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database with the whole schema and no rows, to copy from."""
    with throw_away_database(postgres) as database:
        asyncio.run(migrate(database.owner))
        yield database.name


@pytest.fixture
def migrated_database(postgres: PostgresServer, migrated_template: str) -> Iterator[Database]:
    """A database with the whole schema."""
    with throw_away_database(postgres, template=migrated_template) as database:
        yield database
