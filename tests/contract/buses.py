"""The buses under one contract: worlds with a server, clients, and things that break.

`MemoryWorld` and `NatsWorld` offer the same; a client's bus is what the suite tests, the rest is
how the suite makes trouble from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
import nats as nats_py
from nats.aio.client import Client as NatsClient

from cli.servers.nats import NatsServer
from libs.common.bus import Bus, nats, topology
from libs.common.bus.link import bare_client
from libs.common.bus.memory import MemoryBus, MemoryServer
from libs.common.bus.pull import OWNER_GROUP
from tests.proxy import Proxy
from tests.servers import Running
from tests.waiting import eventually_async

__all__ = [
    "BUSES",
    "DEADLINE_S",
    "PARTITIONS",
    "PLAN",
    "Client",
    "MemoryWorld",
    "NatsWorld",
    "Scenario",
    "Within",
    "World",
    "publish_many",
]

BUSES = ("memory", "nats")
PARTITIONS = 2
PLAN = topology.plan(PARTITIONS, "demo")
# How long a failover may take at most, with a slow machine in mind.
DEADLINE_S = 20.0


class Client(Protocol):
    """One process's connection, and ways to break it."""

    @property
    def bus(self) -> Bus:
        """What is tested."""
        ...

    async def kill(self) -> None:
        """Die without a goodbye and never come back."""
        ...

    async def drop(self) -> None:
        """Lose the connection without a goodbye, and be allowed to connect again."""
        ...

    @asynccontextmanager
    def answers_lost(self, *, stored: bool) -> AsyncIterator[None]:
        """Let the one publish inside get no answer, after it was stored or before."""
        ...


class World(Protocol):
    """A server with the streams of `topology.plan(2, "demo")`, and its clients."""

    async def connect(self, user: str) -> Client:
        """Return a new client."""
        ...

    async def unpin(self, stream: str, consumer: str) -> None:
        """Take the pin away from whoever has it."""
        ...

    async def rewind(self, stream: str, consumer: str, start_seq: int) -> None:
        """Reset a consumer as somebody else."""
        ...

    async def redelivered(self, stream: str, consumer: str) -> None:
        """Return when the server has delivered something again that nobody acknowledged."""
        ...

    async def acknowledged(self, stream: str, consumer: str) -> None:
        """Return when the server knows that nothing is left to deliver or to acknowledge."""
        ...

    async def restart(self) -> None:
        """Let the server die as with kill -9 and come back."""
        ...

    @asynccontextmanager
    def listener(self, pattern: str) -> AsyncIterator[Callable[[], Awaitable[tuple[str, bytes]]]]:
        """Listen to live messages from outside; yields how to take the next one."""
        ...


Scenario = Callable[[World], Awaitable[None]]
# Runs a scenario in a fresh world, by default one of PLAN.
Within = Callable[..., None]


async def publish_many(bus: Bus, subject: str, count: int, expected: int = 0) -> list[int]:
    """Publish `count` numbered messages, return their sequences."""
    seqs = []
    for number in range(count):
        expected = await bus.publish(subject, b"%d" % number, expected_last_seq=expected)
        seqs.append(expected)
    return seqs


# -- in memory -------------------------------------------------------------------------------------


class _MemoryClient:
    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus

    async def kill(self) -> None:
        self.bus.kill()

    async def drop(self) -> None:
        self.bus.drop_connection("dropped")
        self.bus.restore_connection()

    @asynccontextmanager
    async def answers_lost(self, *, stored: bool) -> AsyncIterator[None]:
        self.bus.lose_next_answer(stored=stored)
        yield


class MemoryWorld:
    """Everything in this event loop."""

    def __init__(self, plan: topology.Topology) -> None:
        self._server = MemoryServer(plan)

    @classmethod
    @asynccontextmanager
    async def open(cls, plan: topology.Topology) -> AsyncIterator[MemoryWorld]:
        yield cls(plan)

    async def connect(self, user: str) -> _MemoryClient:
        return _MemoryClient(self._server.connect())

    async def unpin(self, stream: str, consumer: str) -> None:
        self._server.unpin(stream, consumer)

    async def rewind(self, stream: str, consumer: str, start_seq: int) -> None:
        self._server.rewind(stream, consumer, start_seq)

    async def redelivered(self, stream: str, consumer: str) -> None:
        await asyncio.sleep(0)  # the owner is never given anything twice here

    async def acknowledged(self, stream: str, consumer: str) -> None:
        await asyncio.sleep(0)  # it knows at once

    async def restart(self) -> None:
        self._server.stop()
        await asyncio.sleep(0)
        self._server.start()

    @asynccontextmanager
    async def listener(
        self, pattern: str
    ) -> AsyncIterator[Callable[[], Awaitable[tuple[str, bytes]]]]:
        with self._server.subscribe(pattern) as messages:
            yield messages.take


# -- on NATS ---------------------------------------------------------------------------------------


class _NatsClient:
    def __init__(self, bus: nats.NatsBus, proxy: Proxy, admin: NatsClient) -> None:
        self.bus = bus
        self._proxy = proxy
        self._admin = admin

    async def kill(self) -> None:
        self._proxy.cut()

    async def drop(self) -> None:
        self._proxy.cut(refuse=False)

    @asynccontextmanager
    async def answers_lost(self, *, stored: bool) -> AsyncIterator[None]:
        """Hold one direction back, and break the connection once the server has done its part."""
        if not stored:
            self._proxy.freeze(to_client=False)
            cutter = asyncio.create_task(self._cut_now())
        else:
            before = await self._messages()
            self._proxy.freeze(to_server=False)
            cutter = asyncio.create_task(self._cut_after(before))
        yield
        await cutter
        self._proxy.thaw()
        await eventually_async(lambda: self.bus.connected, DEADLINE_S, "reconnected")

    async def _cut_now(self) -> None:
        # The publish runs until it waits for its answer before this task gets a turn, and the
        # proxy holds it back: so it is sent and never arrives.
        for _ in range(5):
            await asyncio.sleep(0)
        self._proxy.cut(refuse=False)

    async def _cut_after(self, before: int) -> None:
        async def more() -> bool:
            return await self._messages() > before

        await eventually_async(more, DEADLINE_S, "the server stored it")
        self._proxy.cut(refuse=False)

    async def _messages(self) -> int:
        info = await self._admin.jetstream().account_info()
        streams = await self._admin.jetstream().streams_info()
        assert info.streams == len(streams)
        return sum(stream.state.last_seq for stream in streams)

    async def close(self) -> None:
        await self.bus.close()
        await self._proxy.close()


class NatsWorld:
    """A real server; every client behind a proxy of its own."""

    def __init__(self, server: NatsServer, admin: NatsClient, running: Running | None) -> None:
        self._server = server
        self._running = running
        self._admin = admin
        self._clients: list[_NatsClient] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls, plan: topology.Topology, server: NatsServer, running: Running | None = None
    ) -> AsyncIterator[NatsWorld]:
        """Make the streams on an emptied server; `running` is needed to restart it."""
        admin = await bare_client(
            server.url("admin"),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,
            error_cb=_ignore,
        )
        for stream in await admin.jetstream().streams_info():
            await admin.jetstream().delete_stream(str(stream.config.name))
        maker = await nats.connect(server.url("admin"), name="init")
        await topology.apply(maker, plan)
        await maker.close()
        world = cls(server, admin, running)
        try:
            yield world
        finally:
            for client in world._clients:
                await client.close()
            await admin.close()

    async def connect(self, user: str) -> _NatsClient:
        url = urlsplit(self._server.url(user))
        proxy = Proxy(url.port or 0)
        port = await proxy.start()
        bus = await nats.connect(
            f"nats://{url.username}:{url.password}@127.0.0.1:{port}", name=user
        )
        client = _NatsClient(bus, proxy, self._admin)
        self._clients.append(client)
        return client

    async def unpin(self, stream: str, consumer: str) -> None:
        await self._api(f"CONSUMER.UNPIN.{stream}.{consumer}", {"group": OWNER_GROUP})

    async def rewind(self, stream: str, consumer: str, start_seq: int) -> None:
        await self._api(f"CONSUMER.RESET.{stream}.{consumer}", {"seq": start_seq})

    async def redelivered(self, stream: str, consumer: str) -> None:
        async def some() -> bool:
            return bool((await self._api(f"CONSUMER.INFO.{stream}.{consumer}"))["num_redelivered"])

        await eventually_async(some, DEADLINE_S, "something is delivered again")

    async def acknowledged(self, stream: str, consumer: str) -> None:
        async def all_done() -> bool:
            info = await self._api(f"CONSUMER.INFO.{stream}.{consumer}")
            return bool(info["num_pending"] == info["num_ack_pending"] == 0)

        await eventually_async(all_done, DEADLINE_S, "everything is acknowledged")

    async def restart(self) -> None:
        assert self._running is not None, "this world's server is shared"
        await asyncio.to_thread(self._running.kill)
        await asyncio.to_thread(self._running.start)

    @asynccontextmanager
    async def listener(
        self, pattern: str
    ) -> AsyncIterator[Callable[[], Awaitable[tuple[str, bytes]]]]:
        outsider = await nats_py.connect(self._server.url("public"))
        try:
            subscription = await outsider.subscribe(pattern)
            await outsider.flush()

            async def take() -> tuple[str, bytes]:
                message = await subscription.next_msg(timeout=DEADLINE_S)
                return message.subject, message.data

            yield take
        finally:
            await outsider.close()

    async def _api(self, subject: str, request: object = None) -> dict[str, Any]:
        data = b"" if request is None else msgspec.json.encode(request)
        answer = await self._admin.request(f"$JS.API.{subject}", data, timeout=5)
        return msgspec.json.decode(answer.data, type=dict[str, Any])


async def _ignore(_: Exception) -> None:
    """A restart of the server is meant."""
