"""The steps of a start that are done once: streams, schema, a login at the simulator.

`./kite up` and the containers take the same ones. Each can be repeated, changes nothing that is
there already, and waits for its server as long as `WAIT_S`; who runs them decides in which order,
and what to tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from deploy.simulated_app import CALLBACK
from deploy.simulated_login import App, log_in
from deploy.supabase.migrate import Applied, migrate
from libs.common.bus import nats as nats_bus
from libs.common.bus import topology
from libs.common.errors import BusUnavailable, StoreUnavailable
from libs.common.runner import Backoff
from libs.common.token_file import TokenFile

__all__ = ["WAIT_S", "log_in_to_simulator", "make_schema", "make_streams", "patiently"]

WAIT_S = 60.0

_T = TypeVar("_T")


async def make_streams(nats_url: str, plan: topology.Topology) -> None:
    """Make streams and consumers as `plan` has them; raises StoreMismatch for another store."""

    async def apply() -> None:
        bus = await nats_bus.connect(nats_url, name="bootstrap")
        try:
            await topology.apply(bus, plan)
        finally:
            await bus.close()

    await patiently(apply)


async def make_schema(dsn: str) -> list[Applied]:
    """Bring the database's schema up to date and return what that took."""
    return await patiently(lambda: migrate(dsn))


async def log_in_to_simulator(base_url: str, key: str, secret: str, token_file: TokenFile) -> None:
    """Leave a token in `token_file` that the simulator accepts; raises LoginError."""
    app = App(base_url, key, secret, CALLBACK)
    await asyncio.to_thread(log_in, app, token_file, deadline_s=WAIT_S)


async def patiently(act: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat `act` while its server is away, for at most `WAIT_S`."""
    backoff = Backoff(first_s=0.05, max_s=0.5)
    loop = asyncio.get_running_loop()
    end_s = loop.time() + WAIT_S
    while True:
        try:
            return await act()
        except (BusUnavailable, StoreUnavailable):
            if loop.time() >= end_s:
                raise
            await asyncio.sleep(backoff.next_s())
