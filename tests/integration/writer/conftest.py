"""Both sinks, for the tests that ask for one: each of those runs with either."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.servers.postgres import PostgresServer
from tests.databases import Database
from tests.integration.writer.sinks import SINKS, Sink, opened


@pytest.fixture(params=SINKS)
def sink(
    request: pytest.FixtureRequest, postgres: PostgresServer, migrated_database: Database
) -> Iterator[Sink]:
    """The way into `migrated_database`."""
    with opened(request.param, postgres, migrated_database) as found:
        yield found
