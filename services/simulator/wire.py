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
from services.simulator.fault_filter import Drop, FaultFilter, Hold, Later
from services.simulator.ledger import Ledger
from services.simulator.rest import SIMULATION
from services.simulator.simulation import Simulation
from services.simulator.streamer import Breathe, Close, Output, Send, StreamSession

__all__ = ["HUB", "Connection", "Hub", "websocket"]

_INBOX_FRAMES_MAX = 64
_MESSAGE_BYTES_MAX = 1 << 20
_IDLE_WAIT_S_MAX = 1.0
_WAIT_S_MIN = 0.001
_BURST_FRAMES_MAX = 16


class Hub:
    """All connections; keeps to the number that one user may have."""

    def __init__(self, simulation: Simulation, metrics: Metrics, log: Any, ledger: Ledger) -> None:
        self.simulation = simulation
        self.ledger = ledger
        self.log = log
        self.connections: list[Connection] = []
        self.frames = metrics.counter(
            "sim_frames_sent", "Frames written to streamer sockets.", ["service"]
        )
        self.items = metrics.counter(
            "sim_items_sent", "Data items written to streamer sockets.", ["service"]
        )
        self.login_count = 0
        self._logins = metrics.counter("sim_logins", "Streamer logins that were accepted.")
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

    def note_login(self) -> None:
        """Count a login."""
        self.login_count += 1
        self._logins.inc()

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
    # Pings are answered by hand, because a fault may forbid it.
    socket = web.WebSocketResponse(max_msg_size=_MESSAGE_BYTES_MAX, autoping=False)
    await socket.prepare(request)
    hub = request.app[HUB]
    connection = Connection(hub, request.app[SIMULATION], socket, request.transport)
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

    def __init__(
        self,
        hub: Hub,
        simulation: Simulation,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
    ) -> None:
        self.socket = socket
        self.session = simulation.session()
        self._jumped_to_ms = simulation.clock.jumped_to_ms
        self._hub = hub
        self._simulation = simulation
        self._inbox: asyncio.Queue[str | bytes] = asyncio.Queue(_INBOX_FRAMES_MAX)
        self._transport = transport
        self._filter = FaultFilter(simulation.faults, simulation.rules.close_code)
        self._later: list[tuple[int, Send]] = []
        self._evicted = False
        self._dropped = False
        self._wake = asyncio.Event()

    def evict(self) -> None:
        """Ask the writer to send the notice and close."""
        self._evicted = True
        self._wake.set()

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._dropped or self.socket.closed

    async def read(self) -> None:
        """Pass on what the client sends until the socket ends."""
        async for message in self.socket:
            if message.type is WSMsgType.PING and not self._simulation.faults.current.no_pongs:
                await self.socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._inbox.put(message.data)
                self._wake.set()

    async def write(self) -> None:
        """Send frames when they are due, and answers in between."""
        try:
            while not self.over:
                await self._catch_up()
                await self._pause()
        except ConnectionError:
            self._hub.log.info("streamer.connection_lost")
        except Exception:
            self._hub.log.exception("streamer.failed")
            await self.socket.close(code=1011)
            raise

    async def _catch_up(self) -> None:
        await self._send_later_frames()
        simulation, session = self._simulation, self.session
        now_ms, wall_ms = simulation.now_ms(), simulation.wall.now_ms()
        if self._jumped_to_ms != simulation.clock.jumped_to_ms:
            self._jumped_to_ms = simulation.clock.jumped_to_ms
            session.skip_to(self._jumped_to_ms)
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
                    self._hub.note_login()
                    self._hub.evict_older(self)
                await self._send(output)
            if self.session.subscribed:
                self._simulation.clock.start(self._simulation.wall.now_ms())

    async def _pause(self) -> None:
        """Wait for the next frame, a request or an eviction."""
        clock = self._simulation.clock
        due_ms = self.session.due_ms()
        wall_ms = self._simulation.wall.now_ms()
        wait_s = clock.wall_ms_until(due_ms, wall_ms) / 1000
        if self._later:
            wait_s = min(wait_s, (self._later[0][0] - wall_ms) / 1000)
        try:
            async with asyncio.timeout(min(max(wait_s, _WAIT_S_MIN), _IDLE_WAIT_S_MAX)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _send(self, output: Output) -> None:
        """Send one output of the session, or what the faults make of it."""
        for result in self._filter.apply(output, self.session.position_ms):
            if self.over:
                return
            await self._perform(result)

    async def _perform(self, result: Output | Drop | Hold | Later) -> None:
        match result:
            case Send():
                await self._send_frame(result)
            case Close():
                await self.socket.close(code=result.code, message=result.reason.encode())
            case Breathe():
                await asyncio.sleep(0)
            case Later():
                due_ms = self._simulation.wall.now_ms() + int(result.wall_s * 1000)
                self._later.append((due_ms, result.frame))
            case Hold():
                await asyncio.sleep(result.wall_s)
            case Drop():
                self._dropped = True
                if self._transport is not None:
                    self._transport.abort()

    async def _send_later_frames(self) -> None:
        wall_ms = self._simulation.wall.now_ms()
        while self._later and self._later[0][0] <= wall_ms and not self.over:
            await self._send_frame(self._later.pop(0)[1])

    async def _send_frame(self, frame: Send) -> None:
        await self.socket.send_str(frame.text.decode())
        self._hub.frames.labels(frame.service or "ADMIN").inc()
        if frame.items:
            self._hub.items.labels(frame.service).inc(len(frame.items))
        self._hub.ledger.sent(frame, self.session.position_ms, self._simulation.wall.now_ms())
