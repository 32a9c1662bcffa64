"""The streamer's socket: moves frames between a connection and its `StreamSession`.

One task reads, one task writes. All frames of a connection are written by that one task, so their
order is the order in which the session made them, and a slow reader holds nobody up but itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiohttp import WSMsgType, web

from libs.common.telemetry import Metrics
from services.simulator.rest import SIMULATION
from services.simulator.simulation import Simulation
from services.simulator.streamer import Close, Output, Send, StreamSession

__all__ = ["HUB", "Connection", "Hub", "websocket"]

_INBOX_FRAMES_MAX = 64
_MESSAGE_BYTES_MAX = 1 << 20
_IDLE_WAIT_S_MAX = 1.0
_WAIT_S_MIN = 0.001
_BURST_FRAMES_MAX = 16


class Hub:
    """All connections; keeps to the number that one user may have."""

    def __init__(self, simulation: Simulation, metrics: Metrics, log: Any) -> None:
        self.simulation = simulation
        self.log = log
        self.connections: list[Connection] = []
        self.frames = metrics.counter(
            "sim_frames_sent", "Frames written to streamer sockets.", ["service"]
        )
        self.items = metrics.counter(
            "sim_items_sent", "Data items written to streamer sockets.", ["service"]
        )
        self._connected = metrics.gauge("sim_connections", "Open streamer connections.")
        self._lag = metrics.gauge("sim_lag_seconds", "Virtual time the slowest reader is behind.")
        self._time = metrics.gauge("sim_virtual_time_seconds", "Virtual time since the epoch.")
        simulation.clock.may_jump = self._all_sent

    def evict_older(self, newest: Connection) -> None:
        """Disconnect the oldest logged-in connections beyond the limit."""
        others = [
            item for item in self.connections if item is not newest and item.session.logged_in
        ]
        room = self.simulation.settings.sim_connections_max - 1
        for connection in others[: max(0, len(others) - room)]:
            self.log.info("streamer.evicted")
            connection.evict()

    def observe(self) -> None:
        """Set the gauges."""
        now_ms = self.simulation.now_ms()
        lag_ms = max((now_ms - item.position_ms for item in self._live()), default=0)
        self._connected.set(len(self.connections))
        self._lag.set(lag_ms / 1000)
        self._time.set(now_ms / 1000)

    async def close(self) -> None:
        """Close every connection: the simulator stops."""
        for connection in list(self.connections):
            await connection.socket.close(code=1001)

    def _live(self) -> Iterable[StreamSession]:
        return (
            item.session
            for item in self.connections
            if item.session.logged_in and not item.session.closed
        )

    def _all_sent(self, at_ms: int) -> bool:
        return all(session.position_ms >= at_ms for session in self._live())


HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """Serve one streamer connection until either side ends it."""
    socket = web.WebSocketResponse(max_msg_size=_MESSAGE_BYTES_MAX)
    await socket.prepare(request)
    hub = request.app[HUB]
    connection = Connection(hub, request.app[SIMULATION], socket)
    hub.connections.append(connection)
    writer = asyncio.create_task(connection.write())
    try:
        await connection.read()
    finally:
        hub.connections.remove(connection)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    return socket


class Connection:
    """One socket and its session."""

    def __init__(self, hub: Hub, simulation: Simulation, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.session = simulation.session()
        self._hub = hub
        self._simulation = simulation
        self._inbox: asyncio.Queue[str | bytes] = asyncio.Queue(_INBOX_FRAMES_MAX)
        self._evicted = False
        self._wake = asyncio.Event()

    def evict(self) -> None:
        """Ask the writer to send the notice and close."""
        self._evicted = True
        self._wake.set()

    async def read(self) -> None:
        """Pass on what the client sends until the socket ends; pings are answered by aiohttp."""
        async for message in self.socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._inbox.put(message.data)
                self._wake.set()

    async def write(self) -> None:
        """Send frames when they are due, and answers in between."""
        try:
            while not self.socket.closed:
                await self._catch_up()
                await self._pause()
        except ConnectionError:
            self._hub.log.info("streamer.connection_lost")
        except Exception:
            self._hub.log.exception("streamer.failed")
            await self.socket.close(code=1011)
            raise

    async def _catch_up(self) -> None:
        simulation, session = self._simulation, self.session
        now_ms, wall_ms = simulation.now_ms(), simulation.wall.now_ms()
        if session.position_ms < simulation.clock.jumped_to_ms:
            session.skip_to(simulation.clock.jumped_to_ms)
        for burst, output in enumerate(session.advance(now_ms, wall_ms)):
            await self._send(output)
            await self._answer_all()
            if burst % _BURST_FRAMES_MAX == 0:
                await asyncio.sleep(0)
        await self._answer_all()

    async def _answer_all(self) -> None:
        if self._evicted and not self.session.closed:
            for output in self.session.evict():
                await self._send(output)
        while not self._inbox.empty():
            was_logged_in = self.session.logged_in
            outputs = self.session.on_text(self._inbox.get_nowait(), self._simulation.wall.now_ms())
            for output in outputs:
                if self.session.logged_in and not was_logged_in:
                    was_logged_in = True
                    self._hub.evict_older(self)
                await self._send(output)
            if self.session.subscribed:
                self._simulation.clock.start(self._simulation.wall.now_ms())

    async def _pause(self) -> None:
        """Wait for the next frame, a request or an eviction."""
        clock = self._simulation.clock
        due_ms = self.session.due_ms()
        wait_s = clock.wall_ms_until(due_ms, self._simulation.wall.now_ms()) / 1000
        try:
            async with asyncio.timeout(min(max(wait_s, _WAIT_S_MIN), _IDLE_WAIT_S_MAX)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _send(self, output: Output) -> None:
        if self.socket.closed:
            return
        if isinstance(output, Close):
            await self.socket.close(code=output.code, message=output.reason.encode())
        else:
            await self._send_frame(output)

    async def _send_frame(self, frame: Send) -> None:
        await self.socket.send_str(frame.text.decode())
        self._hub.frames.labels(frame.service or "ADMIN").inc()
        if frame.items:
            self._hub.items.labels(frame.service).inc(len(frame.items))
