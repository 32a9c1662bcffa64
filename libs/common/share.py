"""Sharing partitions between the instances of a service.

Theory of operation. Pins elect the owner of a partition, and fences make sure of it; neither cares
how many partitions an owner has, so the first instance would keep all of them. Here it is only
decided who lets one go. Each instance says twice a second on `live.status.<service>` who it is and
how many partitions it holds. Whoever holds at least two more than another lets go of one, as if it
were stopped for that partition alone, and does not stand by for it for a moment; the others stand
by already. At most one a second goes, so that two instances do not swing past the middle. An
instance that could take nothing, because its database is away, says nothing.

Nothing depends on these messages. One that is lost, late or untrue costs a handover or an uneven
share, never a frame; who hears nobody keeps what it has.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import msgspec
from msgspec import Struct

from libs.common import subjects
from libs.common.bus import Bus
from libs.common.runner import Runtime

__all__ = ["Share", "Status", "announced"]

ANNOUNCE_EVERY_S = 0.5
# Three announcements may get lost before an instance no longer counts.
PEER_GONE_S = 2.0
LET_GO_EVERY_S = 1.0
REST_S = 1.5
PEERS_MAX = 64


class Status(Struct, frozen=True):
    """What an instance says of itself; JSON on `live.status.<service>`."""

    service: str
    instance: str
    partitions: int


class Share:
    """What this instance holds, at first `held` partitions, and what it heard of the others."""

    def __init__(
        self, on_change: Callable[[int], None] = lambda held: None, *, held: int = 0
    ) -> None:
        self.instance = secrets.token_hex(4)
        self.held = held
        self._on_change = on_change
        self._peers: dict[str, tuple[int, float]] = {}  # partitions held, and when that was heard
        self._next_s = 0.0

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Count a partition while it is held."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def heard(self, status: Status, now_s: float) -> None:
        """Note what an instance says of itself; our own voice is ignored."""
        if status.instance == self.instance:
            return
        self._peers[status.instance] = (status.partitions, now_s)
        if len(self._peers) > PEERS_MAX:
            del self._peers[min(self._peers, key=lambda peer: self._peers[peer][1])]

    def lets_go(self, now_s: float) -> bool:
        """Whether the partition of the caller is one too many; it has to be let go then."""
        if self.held < 2 or now_s < self._next_s:
            return False
        there = [held for held, heard_s in self._peers.values() if now_s - heard_s < PEER_GONE_S]
        if not there or self.held - min(there) < 2:
            return False
        self._next_s = now_s + LET_GO_EVERY_S
        return True

    async def rest(self, stop: asyncio.Event) -> None:
        """Leave a partition that was let go to the others for a moment, or until `stop`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                await stop.wait()

    def _change(self, step: int) -> None:
        self.held += step
        self._on_change(self.held)


@asynccontextmanager
async def announced(runtime: Runtime[Any], bus: Bus, share: Share) -> AsyncIterator[None]:
    """Say what we hold, while we are ready to hold more, and listen to the others."""
    saying = asyncio.create_task(_announce(runtime, bus, share))
    try:
        yield
    finally:
        saying.cancel()
        await asyncio.wait({saying})


async def _announce(runtime: Runtime[Any], bus: Bus, share: Share) -> None:
    now_s = asyncio.get_running_loop().time
    subject = subjects.live_status(runtime.name)

    def take(data: bytes) -> None:
        try:
            share.heard(msgspec.json.decode(data, type=Status), now_s())
        except msgspec.MsgspecError:
            return  # somebody else's words; nothing depends on them

    await bus.listen(subject, take)
    while True:
        if runtime.health.ready:
            status = Status(runtime.name, share.instance, share.held)
            await bus.publish_live(subject, msgspec.json.encode(status))
        await asyncio.sleep(ANNOUNCE_EVERY_S)
