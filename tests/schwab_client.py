"""The real schwab-py, unpatched, against a simulator: how tests make one and talk to it.

Only the transport of its HTTP session is ours: it sends requests for the broker's host to the
simulator's address.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx

from libs.common.clock import SystemClock
from libs.common.telemetry import Metrics, get_logger
from services.simulator import simulation, wire
from services.simulator.ledger import Ledger
from services.simulator.service import make_app, serving
from services.simulator.settings import Settings

with warnings.catch_warnings(record=True):
    # Its dependencies say at import that they are old.
    warnings.simplefilter("ignore", DeprecationWarning)
    from authlib.common.errors import AuthlibBaseError
    from authlib.integrations.httpx_client import AsyncOAuth2Client
    from schwab.auth import TOKEN_ENDPOINT, TokenMetadata
    from schwab.client import AsyncClient
    from schwab.streaming import (
        StreamClient,
        UnexpectedResponse,
        UnexpectedResponseCode,
        UnparsableMessage,
    )

__all__ = [
    "API",
    "KEY",
    "SECRET",
    "AuthlibBaseError",
    "Broker",
    "Rewrite",
    "Stream",
    "StreamClient",
    "UnexpectedResponse",
    "UnexpectedResponseCode",
    "UnparsableMessage",
    "broker_at",
    "on_simulator",
    "simulator",
]

API = "https://api.schwabapi.com"
KEY, SECRET, CALLBACK = (
    "SimulatorAppKey0SimulatorAppKey0",
    "SimulatorSecret0",
    "https://127.0.0.1:8182",
)
CONTROL = "open"
_FRAME_S_MAX = 20.0


class Rewrite(httpx.AsyncBaseTransport):
    """Sends every request to another origin."""

    def __init__(self, origin: str) -> None:
        self._origin = httpx.URL(origin)
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Move the request and pass it on."""
        request.url = request.url.copy_with(
            scheme=self._origin.scheme, host=self._origin.host, port=self._origin.port
        )
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class Broker:
    """A running simulator, seen through HTTP and the real client."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.AsyncClient(base_url=url)
        self.tokens: list[dict[str, Any]] = []
        self.hub: wire.Hub | None = None
        self._clients: list[Any] = []

    async def login(self) -> dict[str, Any]:
        """Do what person and browser do; return the token."""
        query = {
            "response_type": "code", "client_id": KEY, "redirect_uri": CALLBACK, "state": "s p",
        }  # fmt: skip
        page = await self.http.get("/v1/oauth/authorize", params=query)
        assert page.status_code == 302, page.text
        back = parse_qs(urlsplit(page.headers["location"]).query)
        assert back["state"] == ["s p"]
        form = {
            "grant_type": "authorization_code", "code": back["code"][0], "redirect_uri": CALLBACK,
        }  # fmt: skip
        reply = await self.http.post("/v1/oauth/token", data=form, auth=(KEY, SECRET))
        assert reply.status_code == 200, reply.text
        token: dict[str, Any] = reply.json()
        return token

    async def client(self, token: dict[str, Any] | None = None, expires_in: int = 1_800) -> Any:
        """Make a REST client that takes its token to live for `expires_in` seconds."""
        token = dict(token or await self.login())
        token["expires_at"] = SystemClock().now_ms() // 1000 + expires_in
        metadata = TokenMetadata(token, 0, lambda wrapped, **_: self.tokens.append(wrapped))
        write = metadata.wrapped_token_write_func()

        async def update(fresh: dict[str, Any], *args: Any, **names: Any) -> None:
            write(fresh, *args, **names)

        session = AsyncOAuth2Client(
            KEY,
            client_secret=SECRET,
            token=token,
            token_endpoint=TOKEN_ENDPOINT,
            update_token=update,
            leeway=300,
            mounts={API: Rewrite(self.url)},
        )
        client = AsyncClient(KEY, session, token_metadata=metadata)
        self._clients.append(client)
        return client

    async def stream(self, token: dict[str, Any] | None = None, **connect: Any) -> Stream:
        """Make a logged-in streamer client."""
        stream = Stream(await self.client(token))
        await stream.login(**connect)
        return stream

    async def faults(self, method: str = "POST", **faults: Any) -> dict[str, Any]:
        """Change the faults in force; return what is."""
        headers = {"Authorization": f"Bearer {CONTROL}"}
        reply = await self.http.request(method, "/sim/faults", json=faults, headers=headers)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def lag_ms(self) -> int:
        """How far the slowest streamer connection of a simulator in this process is behind."""
        assert self.hub is not None
        now_ms = self.hub.simulation.now_ms()
        return max(now_ms - item.session.position_ms for item in self.hub.connections)

    async def ledger(self) -> dict[str, Any]:
        """What the simulator says it sent."""
        headers = {"Authorization": f"Bearer {CONTROL}"}
        found: dict[str, Any] = (await self.http.get("/sim/ledger", headers=headers)).json()
        return found

    async def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            await client.close_async_session()
        await self.http.aclose()


class Stream:
    """The real streamer client; every relabelled data element lands in `quotes` or `bars`."""

    def __init__(self, client: Any) -> None:
        self.raw = StreamClient(client)
        self.quotes: list[dict[str, Any]] = []
        self.bars: list[dict[str, Any]] = []
        self.stamps: list[int] = []
        self.raw.add_level_one_equity_handler(lambda data: self._take(self.quotes, data))
        self.raw.add_chart_equity_handler(lambda data: self._take(self.bars, data))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def login(self, **connect: Any) -> None:
        """Connect and log in; arguments go to the socket."""
        await self.raw.login({"max_size": None, "close_timeout": 1, **connect})

    async def next(self) -> None:
        """Handle one frame, whatever it is."""
        async with asyncio.timeout(_FRAME_S_MAX):
            await self.raw.handle_message()

    async def until(self, enough: Any) -> None:
        """Handle frames until `enough()` is true."""
        while not enough():
            await self.next()

    async def text(self) -> str:
        """Read one frame past the client: its raw text."""
        async with asyncio.timeout(_FRAME_S_MAX):
            found: str = await self.raw._socket.recv()
            return found

    async def close(self) -> None:
        """Close the socket, if there is one."""
        if self.raw._socket is not None:
            await self.raw._socket.close()

    def state(self, ticker: str) -> dict[str, Any]:
        """All fields of a symbol, merged in the order in which they came."""
        merged: dict[str, Any] = {}
        for item in self.quotes:
            if item["key"] == ticker:
                merged.update(item)
        return merged

    def _take(self, to: list[dict[str, Any]], data: dict[str, Any]) -> None:
        self.stamps.append(data["timestamp"])
        to.extend(data["content"])


@asynccontextmanager
async def broker_at(url: str) -> AsyncIterator[Broker]:
    """Talk to a simulator that runs elsewhere."""
    broker = Broker(url)
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def simulator(**settings: Any) -> AsyncIterator[Broker]:
    """Run a simulator in this process on a free port; settings go without their `sim_`."""
    named = {"control_token": CONTROL, "start": "2026-11-20T10:30", **settings}
    made = Settings(**{f"sim_{name}": value for name, value in named.items()})
    log = get_logger()
    built = simulation.build(made, SystemClock(), log)
    app = make_app(built, Metrics(), log, Ledger())
    async with serving(app, 0) as url, broker_at(url) as broker:
        broker.hub = app[wire.HUB]
        yield broker


def on_simulator(
    **settings: Any,
) -> Callable[[Callable[[Broker], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Run a test with a simulator of its own."""

    def decorate(test: Callable[[Broker], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        async def live() -> None:
            async with simulator(**settings) as broker:
                await test(broker)

        @wraps(test)
        def run() -> None:
            asyncio.run(live())

        # pytest would take the parameter for a fixture.
        del run.__wrapped__
        return run

    return decorate
