"""The desk: what many ask for at once is made once, also when it cannot be made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from libs.common.clock import ManualClock
from libs.common.errors import StoreUnavailable
from services.gateway.desk import Desk
from services.gateway.hub import Hub
from services.gateway.settings import Settings


class Frozen:
    """A database that answers nobody until it is let go, and then with what it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.answer: str | Exception = StoreUnavailable("too slow")

    async def version(self) -> str:
        """Wait, then answer."""
        self.asked += 1
        self.reached.set()
        await self.release.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def broker_ms(self) -> int | None:
        """Know nothing."""
        return None


def test_who_waits_for_the_same_waits_together() -> None:
    """A failure is everybody's, and the next one tries again; an answer is kept a while."""

    async def scene() -> None:
        store, clock = Frozen(), ManualClock(1_700_000_000_000)
        settings = Settings(nats_url="nats://x", pg_dsn="postgresql://x/y")
        unused: Any = None
        many: Any = store
        desk = Desk(settings, many, Hub(1, "demo"), unused, clock)
        waiting = [asyncio.create_task(desk.version()) for _ in range(20)]
        impatient = asyncio.create_task(desk.version())
        await store.reached.wait()
        impatient.cancel()
        store.release.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable] * 20
        assert store.asked == 1
        with pytest.raises(StoreUnavailable):
            await desk.version()
        store.answer = "7.1"
        assert [await desk.version() for _ in range(3)] == ["7.1"] * 3
        assert store.asked == 3
        clock.advance(60_000)
        store.answer = "7.2"
        assert await desk.version() == "7.2"

    asyncio.run(scene())
