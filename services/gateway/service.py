"""Wiring: the feed fills the hub, HTTP and WebSocket answer out of hub and rows.

The gateway listens from its first moment on, and says 503 for what needs something that is away. It
is ready when the bus and the database answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from libs.common.addresses import url_here
from libs.common.bus import Bus, Stored
from libs.common.errors import BusUnavailable, SettingsError, StoreUnavailable
from libs.common.market_metrics import export_market_open
from libs.common.runner import Runtime, connect_bus
from libs.common.telemetry import Metrics
from services.gateway import access, api, broker_login, live, pages
from services.gateway.auth import Password
from services.gateway.broker_login import BrokerDesk
from services.gateway.desk import Desk
from services.gateway.feed import Feed
from services.gateway.http import failure, only_known_parameters
from services.gateway.hub import Hub, Limits
from services.gateway.impatient import ImpatientProtocol
from services.gateway.live import CuttingProtocol, LiveMetrics
from services.gateway.pages import Page
from services.gateway.security import API, Gate
from services.gateway.settings import Settings
from services.gateway.store import Store

__all__ = ["application", "listen", "run", "serve", "url_of"]

_PING_EVERY_S = 2.0
_GOODBYE_S = 2.0
_GOODBYE_POLL_S = 0.02
_GRACE_S = 3
_HEAD_BYTES_MAX = 16 * 1024
# Idle connections of browsers, on top of the live ones.
_IDLE_CONNECTIONS_MAX = 300

_DESCRIPTION = (
    "Market data, signals and health of one Alpha Kite Max stack. Times are epoch milliseconds "
    "UTC, dates are New York trading days. Live data: WebSocket /api/v1/live."
)


class LateBus:
    """The bus, which may connect long after there is somebody to ask it."""

    def __init__(self) -> None:
        self.bus: Bus | None = None

    def _connected(self) -> Bus:
        if self.bus is None:
            raise BusUnavailable("not connected yet")
        return self.bus

    async def last(self, stream: str, subject: str) -> Stored | None:
        """See Bus."""
        return await self._connected().last(stream, subject)

    async def append(self, subject: str, data: bytes, *, message_id: str = "") -> int:
        """See Bus."""
        return await self._connected().append(subject, data, message_id=message_id)


class HttpMetrics:
    """Counts requests by route; wraps the gate, so that refusals count too."""

    def __init__(self, app: Callable[..., Any], metrics: Metrics, routes: frozenset[str]) -> None:
        self._app = app
        self._routes = routes
        self._requests = metrics.counter(
            "gateway_requests", "Requests answered", ["route", "status"]
        )
        self._seconds = metrics.latency(
            "gateway_request_seconds", "From a request until its answer is sent", ["route"]
        )
        self._bytes = metrics.counter(
            "gateway_response_bytes", "Bytes of answers' bodies", ["route"]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve and count; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._route(scope["path"])
        began_s = asyncio.get_running_loop().time()
        status = 0
        sent_bytes = self._bytes.labels(route)

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent_bytes.inc(len(message.get("body", b"")))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._requests.labels(route, str(status)).inc()
            self._seconds.labels(route).observe(asyncio.get_running_loop().time() - began_s)

    def _route(self, path: str) -> str:
        if path in self._routes:
            return path
        if path.startswith(f"{API}/commands/"):
            return f"{API}/commands"
        return "other" if path.startswith("/api/") else "page"


class _Server(uvicorn.Server):
    """Leaves signals to the runner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install nothing."""
        yield


async def serve(runtime: Runtime[Settings]) -> None:
    """Listen, then answer until stopped; raises SettingsError when the port is taken."""
    await run(runtime, listen(runtime.settings))


async def run(runtime: Runtime[Settings], listener: socket.socket) -> None:
    """Answer on a socket until stopped, and close it."""
    settings = runtime.settings
    runtime.health.require("database", "connecting")
    runtime.health.require("bus", "connecting")
    limits = Limits(message_bytes_max=settings.gateway_message_bytes_max)
    hub = Hub(settings.partitions, settings.source, limits)
    export_market_open(
        runtime.metrics, runtime.clock, settings.source, lambda wall_ms: hub.clock.now_ms(wall_ms)
    )
    bus = LateBus()
    try:
        dsn = settings.secured(settings.pg_dsn)
        async with Store(dsn, by_transaction=settings.by_transaction(dsn)) as store:
            app = application(runtime, hub, bus, store)
            async with asyncio.TaskGroup() as group:
                group.create_task(_feed(runtime, hub, bus))
                group.create_task(_watch_database(runtime, store))
                await _answer(runtime, hub, app, listener)
    finally:
        listener.close()


def application(
    runtime: Runtime[Settings], hub: Hub, bus: LateBus, store: Store
) -> Callable[..., Any]:
    """Return the whole gateway as one ASGI application."""
    settings, metrics = runtime.settings, runtime.metrics
    state = State(
        {
            "settings": settings,
            "wall": runtime.clock,
            "hub": hub,
            "live_metrics": LiveMetrics(metrics),
            "bus": bus,
            "desk": Desk(settings, store, hub, bus, runtime.clock),
            "broker_desk": BrokerDesk(bus, runtime.clock),
            "page": Page(Path(settings.gateway_dashboard_dir)),
            "logins": metrics.counter("gateway_logins", "Tries to log in", ["outcome"]),
            "commands": metrics.counter("gateway_commands", "Commands stored", ["service"]),
        }
    )
    if settings.gateway_auth == "password":
        state["password"] = Password(
            password=settings.gateway_password, password_hash=settings.gateway_password_hash
        )
    app = _litestar(state)
    refusals = metrics.counter("gateway_refusals", "What the gate refused", ["code"])
    gate = Gate(app, settings, runtime.clock, lambda code: refusals.labels(code).inc())
    app.state["admission"] = gate
    routes = frozenset(route.path for route in app.routes if route.path.startswith(f"{API}/"))
    return HttpMetrics(gate, metrics, routes)


def _litestar(state: State) -> Litestar:
    # What changes, and what the gate lets pass once, is no business of the parameters' check.
    rest = Router(
        API, route_handlers=[*api.HANDLERS, *access.HANDLERS], before_request=only_known_parameters
    )
    return Litestar(
        [rest, live.endpoint, *broker_login.HANDLERS, *pages.HANDLERS],
        state=state,
        exception_handlers={Exception: failure},
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Alpha Kite Max", version=access.VERSION, description=_DESCRIPTION,
            use_handler_docstrings=True, path="/api",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        ),
    )  # fmt: skip


# -- listening ------------------------------------------------------------------------------------


def listen(settings: Settings) -> socket.socket:
    """Take the address of the settings; raises SettingsError when that cannot be."""
    host, port = settings.gateway_host, settings.gateway_port
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise SettingsError(
            [
                f"KITE_GATEWAY_PORT: cannot listen on {host}:{port}: {error.strerror or error}; "
                "choose another host or port, or 0 for any free port"
            ]
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the address for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    return url_here(host, port)


async def _answer(
    runtime: Runtime[Settings], hub: Hub, app: Callable[..., Any], listener: socket.socket
) -> None:
    """Serve until stopped; live connections are told before the server goes."""
    settings = runtime.settings
    server = _Server(
        uvicorn.Config(
            app,
            loop="none",
            http=ImpatientProtocol,
            ws=CuttingProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            # Wider than what is read, so that a message a little too big gets a clear answer.
            ws_max_size=4 * settings.gateway_message_bytes_max,
            ws_max_queue=16,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=_GRACE_S,
            limit_concurrency=settings.gateway_connections_max + _IDLE_CONNECTIONS_MAX,
            h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
        )
    )  # fmt: skip
    work = asyncio.create_task(server.serve([listener]))
    stopped = asyncio.create_task(runtime.stop.wait())
    runtime.log.info("gateway.listening", url=url_of(listener), auth=settings.gateway_auth)
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        hub.stop()
        await _goodbyes(hub)
        server.should_exit = True
        await work
    finally:
        stopped.cancel()
        work.cancel()


async def _goodbyes(hub: Hub) -> None:
    """Wait a moment until live connections have closed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GOODBYE_S):
            while hub.clients:  # noqa: ASYNC110 - there is no event for it, and this is the end
                await asyncio.sleep(_GOODBYE_POLL_S)


# -- what answers are made of ---------------------------------------------------------------------


async def _feed(runtime: Runtime[Settings], hub: Hub, late: LateBus) -> None:
    async with connect_bus(runtime) as bus:
        late.bus = bus
        await Feed(runtime, bus, runtime.settings.partitions, hub).run()


async def _watch_database(runtime: Runtime[Settings], store: Store) -> None:
    """Keep readiness true to the database until stopped."""
    away = False
    while not runtime.stop.is_set():
        try:
            await store.ping()
        except StoreUnavailable as error:
            runtime.health.require("database", str(error))
            if not away:
                runtime.log.warning("gateway.database_away", error=str(error))
            away = True
        else:
            runtime.health.met("database")
            away = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PING_EVERY_S):
                await runtime.stop.wait()
