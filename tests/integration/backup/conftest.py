"""Servers to restore into, apart from those that are backed up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.servers.nats import NatsServer
from tests.integration.backup import stage


@pytest.fixture
def another_nats() -> Iterator[NatsServer]:
    """A second nats-server, empty."""
    with stage.other_nats() as server:
        yield server
