"""The world that the bus's contract is tested in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cli.servers.nats import NatsServer
from libs.common.bus import topology
from tests.contract.buses import BUSES, PARTITIONS, PLAN, MemoryWorld, NatsWorld, Scenario, Within
from tests.servers import Running, temporary_home


@pytest.fixture(params=BUSES)
def bus_within(request: pytest.FixtureRequest) -> Within:
    """Run a scenario in a fresh world of each kind."""

    server = request.getfixturevalue("nats_server") if request.param == "nats" else None

    def run(scenario: Scenario, plan: topology.Topology = PLAN) -> None:
        async def main() -> None:
            if server is None:
                async with MemoryWorld.open(plan) as world:
                    await scenario(world)
            else:
                async with NatsWorld.open(plan, server) as nats_world:
                    await scenario(nats_world)

        asyncio.run(main())

    return run


@pytest.fixture(scope="session")
def own_nats_server() -> Iterator[Running]:
    """A nats-server that a test may kill."""
    with temporary_home() as home:
        server = NatsServer(home, partitions=PARTITIONS)
        with Running(server, home / "nats.log") as running:
            yield running
