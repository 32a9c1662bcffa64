"""Lines between one client and one server that break at an exact instant, or fall silent.

`tests.proxy` freezes and cuts whole streams of bytes. A `Line` lies in wait for one answer: the
server has done its work and has said so, and the client will never hear it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

__all__ = ["COMMITTED", "Ambush", "Blow", "Line", "stored_in"]

Blow = Literal["cut", "silence"]

_CHUNK_BYTES = 1 << 16

# CommandComplete of Postgres: type, length, tag. The server says it after the commit is on disk.
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


def stored_in(stream: str) -> bytes:
    """Return how a nats-server begins its acknowledgement of what it stored in a stream."""
    return b'{"stream":"%s"' % stream.encode()


@dataclass
class Ambush:
    """Waits for an answer; `struck` counts those that were withheld, 1 at most."""

    answer: bytes
    blow: Blow
    struck: int = 0


class _Pair:
    """A client's connection and the one that leads on to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.deaf: set[asyncio.StreamWriter] = set()  # what is for them gets lost

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()

    def silence(self) -> None:
        self.deaf = {self.client, self.server}


class Line:
    """Leads every connection on to one loopback port."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._ambush: Ambush | None = None

    async def start(self) -> int:
        """Listen on a free port and return it."""
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def ambush(self, answer: bytes, blow: Blow) -> Ambush:
        """Withhold the next answer that contains these bytes, and strike its connection.

        `cut` resets both sides. `silence` leaves both of them open, and nothing passes any more: a
        half-open connection, as after a router's death.
        """
        self._ambush = Ambush(answer, blow)
        return self._ambush

    def silence(self, *, to_server: bool, to_client: bool) -> int:
        """Let nothing pass any more on the connections there are; returns how many that is."""
        for pair in self._pairs:
            pair.deaf |= {pair.server} if to_server else set()
            pair.deaf |= {pair.client} if to_client else set()
        return len(self._pairs)

    async def close(self) -> None:
        """Stop listening and break what is left."""
        if self._server is not None:
            self._server.close()
        pairs = tuple(self._pairs)
        for pair in pairs:
            pair.abort()
        for pump in tuple(self._pumps):
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        ends = [writer.wait_closed() for pair in pairs for writer in (pair.client, pair.server)]
        await asyncio.gather(*ends, return_exceptions=True)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, far_writer)
        self._pairs.add(pair)
        self._pump(self._forward(pair, reader, far_writer, lambda data: False))
        self._pump(self._forward(pair, far_reader, writer, lambda data: self._strikes(pair, data)))

    def _pump(self, forwarding: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(forwarding)
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _forward(
        self,
        pair: _Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        strikes: Callable[[bytes], bool],
    ) -> None:
        """Pass on what comes, until either side ends or is struck."""
        try:
            with suppress(OSError):
                while data := await reader.read(_CHUNK_BYTES):
                    if writer in pair.deaf or strikes(data):
                        continue
                    writer.write(data)
                    await writer.drain()
        finally:
            self._pairs.discard(pair)
            pair.abort()

    def _strikes(self, pair: _Pair, data: bytes) -> bool:
        """Whether this is the answer that is waited for; then its connection is struck."""
        ambush = self._ambush
        if ambush is None or ambush.answer not in data:
            return False
        self._ambush = None
        ambush.struck += 1
        if ambush.blow == "cut":
            pair.abort()
        else:
            pair.silence()
        return True
