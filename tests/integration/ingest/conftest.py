"""A stage of its own for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cli.servers.nats import NatsServer
from tests.integration.ingest.stage import Stage, stage


@pytest.fixture
def play(fresh_nats: NatsServer, tmp_path: Path) -> Callable[..., None]:
    """Run a scenario on a stage of its own; names are settings of the simulator."""

    def run(scenario: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
        async def on_stage() -> None:
            async with stage(fresh_nats, tmp_path, **settings) as found:
                await scenario(found)

        asyncio.run(on_stage())

    return run
