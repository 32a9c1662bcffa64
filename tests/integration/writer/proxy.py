"""A TCP proxy that cuts connections where a test wants them cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Cut", "Proxy", "proxied"]


class Cut(Enum):
    """When to cut, seen from the bytes that a client has just sent."""

    NEVER = auto()
    BEFORE = auto()  # the server never sees them
    AFTER_ANSWER = auto()  # the server has answered, the client never sees it


class Proxy:
    """Passes bytes on between clients and one server; `judge` decides about each piece sent."""

    def __init__(self, host: str, port: int, judge: Callable[[bytes], Cut]) -> None:
        self._host = host
        self._port = port
        self._judge = judge
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one client until either side closes or it is cut."""
        try:
            server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        deaf = asyncio.Event()
        up = asyncio.create_task(self._upstream(reader, server_writer, deaf))
        down = asyncio.create_task(self._downstream(server_reader, writer, deaf))
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down):
            task.cancel()
        await asyncio.wait({up, down})
        writer.transport.abort()
        server_writer.transport.abort()

    async def _upstream(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, deaf: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            cut = self._judge(data)
            if cut is not Cut.NEVER:
                self.cuts += 1
            if cut is Cut.BEFORE:
                return
            if cut is Cut.AFTER_ANSWER:
                deaf.set()
            server.write(data)
            await server.drain()

    async def _downstream(
        self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event
    ) -> None:
        while data := await server.read(65_536):
            if deaf.is_set():
                return
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxied(dsn: str, judge: Callable[[bytes], Cut]) -> AsyncIterator[tuple[Proxy, str]]:
    """Yield a proxy before the server of `dsn`, and the dsn that goes through it."""
    parts = urlsplit(dsn)
    proxy = Proxy(parts.hostname or "", parts.port or 0, judge)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    netloc = parts.netloc.rpartition(":")[0] + f":{port}"
    try:
        yield proxy, urlunsplit(parts._replace(netloc=netloc))
    finally:
        server.close()
