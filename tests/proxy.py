"""A TCP proxy that breaks on demand, between a client and a real server."""

from __future__ import annotations

import asyncio
from contextlib import suppress

__all__ = ["Proxy"]

_CHUNK_BYTES = 1 << 16


class Proxy:
    """Forwards every connection to one loopback port, unless told to freeze or to cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._to_server = asyncio.Event()
        self._to_client = asyncio.Event()
        self.thaw()

    async def start(self) -> int:
        """Listen on a free port and return it."""
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def freeze(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Hold back what comes from now on, in one direction or both; connections stay."""
        if to_server:
            self._to_server.clear()
        if to_client:
            self._to_client.clear()

    def thaw(self) -> None:
        """Forward again, beginning with what was held back."""
        self._to_server.set()
        self._to_client.set()

    def cut(self, *, refuse: bool = True) -> None:
        """Break every connection without a goodbye, and let no new one through if `refuse`."""
        self._refusing = refuse
        for writer in tuple(self._writers):
            writer.transport.abort()
        for pump in tuple(self._pumps):
            pump.cancel()

    async def close(self) -> None:
        """Stop listening and break what is left."""
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        self._pump(reader, far_writer, self._to_server)
        self._pump(far_reader, writer, self._to_client)

    def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        task = asyncio.create_task(self._forward(reader, writer, flowing))
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(_CHUNK_BYTES):
                    await flowing.wait()
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
