"""The WebSocket at /api/v1/live: lets clients in, hears what they want, sends what the hub has.

Each connection has one reader, which answers, and one writer, which flushes at the client's rate;
a message is handed over whole. Nothing is queued here: a send that the client does not take blocks
its own writer alone, and what comes meanwhile waits in the rings that all share.

A connection ends with 1001 when the gateway stops, 1008 when a client talks too much or its login
has ended, 1013 when it missed what it must not miss; one that takes nothing for `SEND_TIMEOUT_S` is
cut.

The handler finds in the application's state: `hub`, `admission`, `live_metrics` and `wall` (a
clock).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, get_args

from litestar import WebSocket, websocket
from litestar.types import Scope
from msgspec import Struct
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from libs.common.clock import Clock
from libs.common.telemetry import Metrics
from services.gateway import messages
from services.gateway.answers import Refusal, error_body
from services.gateway.hub import Batch, Client, CutOff, DeliveryClass, Hub
from services.gateway.messages import (
    Error,
    Heartbeat,
    Hello,
    Misunderstood,
    Pong,
    Rate,
    Subscribe,
    Subscribed,
    Unsubscribe,
)

__all__ = ["Admission", "CuttingProtocol", "LiveMetrics", "endpoint"]

HEARTBEAT_S = 5.0
SEND_TIMEOUT_S = 10.0
CUT_AFTER_S = 10.0
_LOOK_S = 1.0
# What a client may say in one period; more is a fault or an attack.
REQUESTS_MAX = 200
_PERIOD_S = 10.0

GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER = 1001, 1008, 1013


class Admission(Protocol):
    """Who may connect, and who may see more than the market."""

    def admit(self, scope: Scope) -> Refusal | None:
        """Return why this connection is refused, or None."""
        ...

    def may_stay(self, scope: Scope) -> bool:
        """Tell whether what a connection was admitted with still holds; asked at heartbeats."""
        ...

    def trusts(self, scope: Scope) -> bool:
        """Tell whether a connection that was admitted may see how the services stand."""
        ...


class LiveMetrics:
    """What is counted over all connections."""

    def __init__(self, metrics: Metrics) -> None:
        self.clients = metrics.gauge("gateway_clients", "Live connections")
        messages_sent = metrics.counter("gateway_messages", "Live messages sent", ("class",))
        self._messages = {kind: messages_sent.labels(kind) for kind in get_args(DeliveryClass)}
        self.bytes = metrics.counter("gateway_bytes", "Characters of live messages sent")
        self.resyncs = metrics.counter(
            "gateway_resyncs", "Subscriptions that had to take a new snapshot", ("reason",)
        )
        self.dropped = metrics.counter(
            "gateway_dropped_clients", "Connections that the gateway ended", ("reason",)
        )
        self._latency = metrics.latency(
            "gateway_received_to_sent_seconds",
            "From the wire frame's receipt until its news went to a client",
        )

    def sent(self, batch: Batch, wall_ms: int) -> None:
        """Count a message."""
        self._messages[batch.kind].inc()
        self.bytes.inc(len(batch.text))
        if batch.resync is not None:
            self.resyncs.labels(batch.resync).inc()
        if batch.received_ms:
            self._latency.observe(max(0, wall_ms - batch.received_ms) / 1000)


class CuttingProtocol(WebSocketsSansIOProtocol):
    """Uvicorn's protocol, but the peer has only so long to read what is left when we are through.

    Otherwise who never reads keeps its connection for ever, long after it was given up.
    """

    async def run_asgi(self) -> None:
        """Serve, then close, and cut what does not close."""
        await super().run_asgi()
        self.loop.call_later(CUT_AFTER_S, self.transport.abort)


@websocket("/api/v1/live")
async def endpoint(socket: WebSocket[Any, Any, Any]) -> None:
    """Serve one client until it leaves or has to."""
    state = socket.app.state
    refusal = state.admission.admit(socket.scope)
    if refusal is not None:
        await _refuse(socket, refusal)
        return
    session = _Session(socket, state.hub, state.live_metrics, state.wall, state.admission)
    client = state.hub.join(session.wake)
    state.live_metrics.clients.inc()
    try:
        await session.serve(client)
    except OSError:  # the client is gone
        return
    finally:
        state.live_metrics.clients.dec()
        state.hub.leave(client)


async def _refuse(socket: WebSocket[Any, Any, Any], refusal: Refusal) -> None:
    """Answer the upgrade as an HTTP request."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    await socket.receive()
    start = {"type": "websocket.http.response.start", "status": refusal.status, "headers": headers}
    await socket.send(start)  # type: ignore[arg-type]  # an extension that Litestar does not know
    body = {"type": "websocket.http.response.body", "body": error_body(refusal)}
    await socket.send(body)  # type: ignore[arg-type]  # the same


class _End(Struct, frozen=True):
    """Why a connection ends: a close code, or 0 to cut it, and what to count."""

    code: int
    text: str = ""
    dropped: str = ""


class _Session:
    """One connection.

    The writer sleeps until `_go` is called: there is news and the client's next period has come
    (`_open`), or it is time for a heartbeat, or the gateway stops. Timers open the gate, call for
    heartbeats and look for sends that are stuck: time-outs around each wait would cost more than
    what is sent. So would an asyncio.Event, which looks up the running loop, and with it the
    process, each time.
    """

    def __init__(
        self,
        socket: WebSocket[Any, Any, Any],
        hub: Hub,
        metrics: LiveMetrics,
        wall: Clock,
        admission: Admission,
    ) -> None:
        self._socket = socket
        self._admission = admission
        self._hub = hub
        self._metrics = metrics
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._called = False
        self._news = False
        self._open = True
        self._opening: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[_End]] = []
        self._sending = 0  # messages being handed over
        self._took_s = 0.0  # when the client last took one, or the first of these began
        self._stalled = False
        self._beat = 0
        self._beat_sent_s = 0.0
        self._rtt_ms: float | None = None

    def wake(self) -> None:
        """There may be something to send."""
        self._news = True
        if self._open or self._hub.stopped:
            self._go()

    async def serve(self, client: Client) -> None:
        """Read and write until one of them ends; raises OSError when the client is gone."""
        hub = self._hub
        await self._socket.accept()
        await self._say(Hello(round(HEARTBEAT_S * 1000), hub.hz, hub.source, hub.simulated))
        self._tasks = [
            asyncio.create_task(self._read(client)),
            asyncio.create_task(self._write(client)),
        ]
        self._look()
        try:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for timer in (self._opening, self._beating, self._looking):
                if timer is not None:
                    timer.cancel()
        end = _End(0, dropped="stalled") if self._stalled else done.pop().result()
        if end.dropped:
            self._metrics.dropped.labels(end.dropped).inc()
        if end.code:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._socket.close(end.code, end.text)

    # -- reading ----------------------------------------------------------------------------------

    async def _read(self, client: Client) -> _End:
        """Answer what the client says until it leaves."""
        now_s = self._loop.time
        begin_s, heard = now_s(), 0
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                return _End(0)
            if now_s() - begin_s > _PERIOD_S:
                begin_s, heard = now_s(), 0
            heard += 1
            if heard > REQUESTS_MAX:
                text = f"more than {REQUESTS_MAX} messages in {_PERIOD_S:.0f} s"
                return _End(POLICY_VIOLATION, text, "talkative")
            await self._answer(client, event)

    async def _answer(self, client: Client, event: Any) -> None:
        try:
            await self._obey(client, messages.parse(self._text_of(event)))
        except Misunderstood as error:
            await self._say(Error(str(error), error.request_id))

    def _text_of(self, event: Any) -> str:
        text = event.get("text")
        if text is None:
            raise Misunderstood("binary message: send JSON as text")
        most = self._hub.limits.message_bytes_max
        if len(text) > most or len(text.encode()) > most:
            raise Misunderstood(f"message too big: at most {most} bytes are read")
        return str(text)

    async def _obey(self, client: Client, request: messages.Request) -> None:
        if isinstance(request, Subscribe):
            if request.channel == "status" and not self._admission.trusts(self._socket.scope):
                raise Misunderstood("status: log in first", request.id)
            client.check(request)
            await self._say(Subscribed(request.id))
            client.subscribe(request)
        elif isinstance(request, Unsubscribe):
            client.unsubscribe(request.id)
        elif isinstance(request, Rate):
            client.asked_hz = request.hz
            self._open_at(client.due_s)
        else:
            self._heard_beat(request)

    def _heard_beat(self, pong: Pong) -> None:
        if pong.n == self._beat:
            passed_s = self._loop.time() - self._beat_sent_s
            self._rtt_ms = round(passed_s * 1000, 1)

    # -- writing ----------------------------------------------------------------------------------

    async def _write(self, client: Client) -> _End:
        """Send what the hub has, as often as the client wants, and heartbeats in between."""
        try:
            while not self._hub.stopped:
                if self._beating is None:
                    if not self._admission.may_stay(self._socket.scope):
                        return _End(POLICY_VIOLATION, "logged out", "logged_out")
                    await self._send_beat()
                if self._news and self._open:
                    self._news = self._open = False
                    for batch in client.collect(self._loop.time()):
                        await self._send(batch)
                    self._open_at(client.due_s)
                await self._until_called()
        except CutOff as error:
            return _End(TRY_AGAIN_LATER, str(error), "missed")
        return _End(GOING_AWAY, "the gateway stops")

    def _go(self) -> None:
        """Let the writer look again; from the event loop only."""
        self._called = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _until_called(self) -> None:
        """Return at the next call, or at once for one that came since the last return."""
        if not self._called:
            self._waiting = self._loop.create_future()
            await self._waiting
        self._called = False

    def _open_at(self, when_s: float) -> None:
        """Let the next batch leave then."""
        if self._opening is not None:
            self._opening.cancel()
        self._opening = self._loop.call_at(when_s, self._open_now)

    def _open_now(self) -> None:
        self._open = True
        if self._news:
            self._go()

    def _beat_now(self) -> None:
        self._beating = None
        self._go()

    def _look(self) -> None:
        """End it all when the client took nothing for too long, else look again soon."""
        if self._sending and self._loop.time() - self._took_s > SEND_TIMEOUT_S:
            self._stalled = True
            for task in self._tasks:
                task.cancel()
            return
        self._looking = self._loop.call_later(_LOOK_S, self._look)

    async def _send_beat(self) -> None:
        wall_ms = self._wall.now_ms()
        clock = self._hub.clock
        self._beat += 1
        self._beat_sent_s = self._loop.time()
        self._beating = self._loop.call_later(HEARTBEAT_S, self._beat_now)
        broker_ms = clock.now_ms(wall_ms)
        await self._say(Heartbeat(self._beat, wall_ms, broker_ms, clock.speed, self._rtt_ms))

    async def _say(self, message: messages.Said) -> None:
        await self._send(Batch(messages.encode(message), "control"))

    async def _send(self, batch: Batch) -> None:
        """Hand a message over; raises OSError when the client is gone."""
        if not self._sending:
            self._took_s = self._loop.time()
        self._sending += 1
        try:
            await self._socket.send({"type": "websocket.send", "bytes": None, "text": batch.text})
        finally:
            self._sending -= 1
        if self._sending:
            self._took_s = self._loop.time()
        self._metrics.sent(batch, self._wall.now_ms())
