"""The live part of the gateway in this process, on a real bus, and WebSocket clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from litestar import Litestar
from litestar.datastructures import State
from litestar.types import Scope
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cli.servers.nats import NatsServer
from libs.common import codec, subjects
from libs.common.bus import nats, topology
from libs.common.bus.nats import NatsBus
from libs.common.clock import SystemClock
from libs.common.events import Event
from libs.common.runner import Runtime
from libs.common.settings import ServiceSettings
from libs.common.telemetry import Health, Metrics, get_logger
from services.gateway.answers import Refusal
from services.gateway.feed import Feed
from services.gateway.hub import Hub, Limits
from services.gateway.live import CuttingProtocol, LiveMetrics, endpoint
from tests.live_frames import OPEN_MS, frame
from tests.waiting import eventually_async

__all__ = ["DEADLINE_S", "Publisher", "Stage", "Watcher", "seconds", "staged", "sub"]

DEADLINE_S = 20.0


def sub(channel: str, epoch_ms: int, from_seq: Any = 0, **more: Any) -> dict[str, Any]:
    """Return the fields of a subscription to QQQ."""
    wanted = {"id": 1, "channel": channel, "ticker": "QQQ", "epoch_ms": epoch_ms}
    return {**wanted, "from_seq": from_seq, **more}


def seconds(messages: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of all ticks in messages."""
    return [(ts_ms - OPEN_MS) // 1000 for message in messages for ts_ms in message["ts_ms"]]


class Server(uvicorn.Server):
    """Leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install nothing."""
        yield


class Door:
    """Lets everybody in, or nobody."""

    refusal: Refusal | None = None

    def admit(self, _: Scope) -> Refusal | None:
        """Answer as told."""
        return self.refusal

    def may_stay(self, _: Scope) -> bool:
        """Nobody logs out here."""
        return True

    def trusts(self, _: Scope) -> bool:
        """Trust everybody."""
        return True


class Publisher:
    """Publishes the frames of one partition as their service does."""

    def __init__(self, bus: NatsBus, stream: str, partition: int) -> None:
        self.bus = bus
        self.last_seq = 0
        self.n = 0
        self._subject = subjects.frame_subject(stream, partition)

    async def publish(self, events: Iterable[Event] = ()) -> int:
        """Publish the next frame, received just now, and return its sequence."""
        self.n += 1
        now_ms = SystemClock().now_ms()
        data = codec.encode_frame(frame(self.n, events, sent_ms=now_ms, received_ms=now_ms))
        self.last_seq = await self.bus.publish(self._subject, data, expected_last_seq=self.last_seq)
        return self.last_seq


class Watcher:
    """One live connection: what the gateway said, by operation."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard: list[dict[str, Any]] = []
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.connection:
                assert isinstance(text, str)
                self.heard.append(json.loads(text))

    def all(self, op: str) -> list[dict[str, Any]]:
        """Return all messages of an operation so far."""
        return [message for message in self.heard if message["op"] == op]

    async def say(self, op: str, **fields: Any) -> None:
        """Send a request."""
        await self.connection.send(json.dumps({"op": op, **fields}))

    async def hears(self, op: str, count: int = 1) -> dict[str, Any]:
        """Wait for so many messages of an operation and return the last of them."""
        found = await eventually_async(
            lambda: self.all(op)[count - 1 : count], DEADLINE_S, f"{count} times {op}"
        )
        return found[0]

    async def ends(self) -> int | None:
        """Wait for the connection's end and return the close code."""
        await eventually_async(self._listening.done, DEADLINE_S, "the end")
        return self.connection.close_code

    def break_off(self) -> None:
        """Lose the connection, as when a cable is pulled."""
        self.connection.transport.abort()


class Stage:
    """A running gateway without its database."""

    def __init__(self, server: NatsServer, partitions: int, hub: Hub) -> None:
        self.nats = server
        self.partitions = partitions
        self.hub = hub
        self.door = Door()
        settings = ServiceSettings(nats_url=server.url("gateway"), partitions=partitions)
        self.runtime = Runtime(
            "gateway", settings, Metrics(), Health(), SystemClock(), get_logger(), asyncio.Event()
        )
        self.url = ""
        self.http: Server | None = None
        self._buses: list[NatsBus] = []

    async def epoch_ms(self, stream: str = subjects.INDICATORS) -> int:
        """Return the stream's incarnation, as a snapshot would."""
        ring = self.hub.ring(stream, 0)
        await eventually_async(lambda: ring.begun, DEADLINE_S, "the feed has begun")
        return ring.epoch_ms

    async def bus(self, user: str) -> NatsBus:
        """Connect as a user until the stage ends."""
        bus = await nats.connect(self.nats.url(user), name=user)
        self._buses.append(bus)
        return bus

    async def publisher(self, stream: str = subjects.INDICATORS, partition: int = 0) -> Publisher:
        """Return who publishes one partition."""
        return Publisher(await self.bus(stream.lower()), stream, partition)

    def count(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.runtime.metrics.registry.get_sample_value(f"kite_gateway_{name}", labels) or 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        """Open a live connection."""
        async with connect(self.url, compression=None, close_timeout=0.5) as connection:
            yield Watcher(connection)

    async def close(self) -> None:
        """Disconnect everybody who publishes."""
        for bus in self._buses:
            await bus.close()


@asynccontextmanager
async def staged(
    server: NatsServer, *, partitions: int = 1, limits: Limits | None = None
) -> AsyncIterator[Stage]:
    """Make the streams, start the gateway's feed and its WebSocket, and stop them at the end."""
    admin = await nats.connect(server.url("admin"), name="init")
    await topology.apply(admin, topology.plan(partitions, "demo"))
    await admin.close()
    stage = Stage(server, partitions, Hub(partitions, "demo", limits))
    bus = await stage.bus("gateway")
    feed = asyncio.create_task(Feed(stage.runtime, bus, partitions, stage.hub).run())
    state = {
        "hub": stage.hub, "admission": stage.door, "wall": SystemClock(),
        "live_metrics": LiveMetrics(stage.runtime.metrics),
    }  # fmt: skip
    app = Litestar([endpoint], state=State(state), openapi_config=None, logging_config=None)
    listener = socket.create_server(("127.0.0.1", 0))
    stage.url = f"ws://127.0.0.1:{listener.getsockname()[1]}/api/v1/live"
    stage.http = Server(
        uvicorn.Config(
            app, loop="none", ws=CuttingProtocol, lifespan="off", log_config=None,
            ws_max_size=64 * 1024, ws_per_message_deflate=False, timeout_graceful_shutdown=3,
        )
    )  # fmt: skip
    serving = asyncio.create_task(stage.http.serve([listener]))
    http = stage.http
    try:
        await eventually_async(lambda: http.started, DEADLINE_S, "listening")
        yield stage
    finally:
        stage.runtime.stop.set()
        stage.hub.stop()
        await eventually_async(lambda: not stage.hub.clients, DEADLINE_S, "goodbyes")
        http.should_exit = True
        await asyncio.gather(serving, feed)
        await stage.close()
        listener.close()
