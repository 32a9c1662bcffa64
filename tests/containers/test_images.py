"""A part of the integration suite, run against the images of NATS and Postgres.

The very same tests as against the servers that come with the packages; only the servers differ.
What they say is in their own files. Needs a Docker daemon (`make containers`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import asyncpg
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from deploy.credentials import load_credentials
from deploy.nats.config import MAX_FILE_STORE_BYTES, ServerOptions, server_config
from deploy.nats.policy import USERS, permissions
from deploy.postgres.accounts import make_accounts
from deploy.supabase.roles import DATABASE, LOGIN_ROLES, OWNER, SUPERUSER
from libs.common.bus import topology
from tests.containers.definitions import define
from tests.contract.buses import PARTITIONS, PLAN, NatsWorld, Scenario, Within
from tests.contract.test_bus import TestDoubt, TestPublish, TestStreams
from tests.integration.schema.conftest import own_schema, schema
from tests.integration.schema.test_access import (
    filled,
    test_every_role_on_every_function_and_schema,
    test_every_role_on_every_table_by_every_verb,
    test_the_catalog_breaks_no_rule,
)
from tests.integration.schema.test_tables import (
    test_a_partition_spans_new_york_days,
    test_the_queries_of_the_specification_run,
    test_two_writers_may_need_the_same_partition_at_once,
)
from tests.integration.writer.test_copy import test_candles_come_back, test_ticks_come_back
from tests.waiting import eventually

# Theirs, collected here once more.
__all__ = [
    "TestDoubt",
    "TestPublish",
    "TestStreams",
    "filled",
    "own_schema",
    "schema",
    "test_a_partition_spans_new_york_days",
    "test_candles_come_back",
    "test_every_role_on_every_function_and_schema",
    "test_every_role_on_every_table_by_every_verb",
    "test_the_catalog_breaks_no_rule",
    "test_the_queries_of_the_specification_run",
    "test_ticks_come_back",
    "test_two_writers_may_need_the_same_partition_at_once",
]

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

ANSWERS_WITHIN_S = 60
CONFIG = "/etc/kite/nats-server.json"

# Its helper that removes what a killed run leaves is one more image; our fixtures clean up.
testcontainers_config.ryuk_disabled = True


@dataclass(frozen=True)
class Published:
    """A server in a container, at a port of this machine."""

    host: str
    port: int
    passwords: dict[str, str]

    def url(self, user: str) -> str:
        """How to reach NATS as a user."""
        return f"nats://{user}:{self.passwords[user]}@{self.host}:{self.port}"

    def dsn(self, role: str = OWNER, database: str = DATABASE) -> str:
        """How to reach Postgres as a role."""
        login = f"{role}:{self.passwords[role]}"
        return f"postgresql://{login}@{self.host}:{self.port}/{database}"


def published(container: DockerContainer, port: int, passwords: dict[str, str]) -> Published:
    """Where a started container's port is found."""
    return Published(
        container.get_container_host_ip(), int(container.get_exposed_port(port)), passwords
    )


@pytest.fixture(scope="session")
def nats_server(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The image of NATS, with the real permissions."""
    folder = tmp_path_factory.mktemp("nats")
    passwords = load_credentials(folder, nats_users=USERS).nats
    options = ServerOptions(
        name="image",
        listen="0.0.0.0:4222",
        monitor="0.0.0.0:8222",
        store_dir="/data",
        max_file_store_bytes=MAX_FILE_STORE_BYTES,
    )
    file = folder / Path(CONFIG).name
    file.write_text(server_config(options, permissions(PARTITIONS), passwords))
    image = define().services["nats"]["image"]
    container = (
        DockerContainer(image)
        .with_command(f"nats-server --config {CONFIG}")
        .with_volume_mapping(str(file), CONFIG, "ro")
        .with_exposed_ports(4222)
    )
    with container:
        eventually(
            lambda: b"Server is ready" in b"".join(container.get_logs()),
            ANSWERS_WITHIN_S,
            "NATS is ready",
        )
        yield cast(NatsServer, published(container, 4222, passwords))


@pytest.fixture
def bus_within(nats_server: NatsServer) -> Within:
    """Run a scenario on the image of NATS, emptied before."""

    def run(scenario: Scenario, plan: topology.Topology = PLAN) -> None:
        async def main() -> None:
            async with NatsWorld.open(plan, nats_server) as world:
                await scenario(world)

        asyncio.run(main())

    return run


@pytest.fixture(scope="session")
def postgres(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The image of Postgres, with our roles."""
    folder = tmp_path_factory.mktemp("postgres")
    passwords = load_credentials(folder, postgres_users=LOGIN_ROLES).postgres
    container = (
        DockerContainer(define().services["postgres"]["image"])
        .with_env("POSTGRES_PASSWORD", passwords[SUPERUSER])
        .with_exposed_ports(5432)
    )
    with container, pytest.MonkeyPatch.context() as patched:
        server = published(container, 5432, passwords)
        # The bridge of this machine, and without TLS, as in compose.
        patched.setenv("KITE_PG_PRIVATE_HOST", server.host)
        eventually(lambda: answers(server), ANSWERS_WITHIN_S, "Postgres answers")
        asyncio.run(make_accounts(lambda name: server.dsn(SUPERUSER, name), passwords))
        yield cast(PostgresServer, server)


def answers(server: Published) -> bool:
    """Whether one can log in."""

    async def log_in() -> bool:
        try:
            connection = await asyncpg.connect(server.dsn(SUPERUSER, "postgres"))
        except (OSError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    return asyncio.run(log_in())


@pytest.fixture(scope="session")
def any_postgres(postgres: PostgresServer) -> PostgresServer:
    """The one that there is."""
    return postgres
