"""Connections that do nothing are closed; those that wait for an answer are not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from services.gateway.impatient import ImpatientProtocol
from tests.waiting import eventually_async

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Hasty(ImpatientProtocol):
    """Looks often, so that a test needs no patience either."""

    look_s = 0.1
    answer_s = 0.5


async def _served(app: Any, talk: Callable[[int, list[Hasty]], Awaitable[None]]) -> None:
    """Serve for as long as `talk` takes, which is given the port and the connections so far."""
    config = uvicorn.Config(app, http=Hasty, ws="none", lifespan="off", log_config=None)
    config.load()
    server, made = uvicorn.Server(config), list[Hasty]()

    def protocol() -> Hasty:
        made.append(Hasty(config, server.server_state, {}))
        return made[-1]

    listener = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        await talk(listener.sockets[0].getsockname()[1], made)
    finally:
        listener.close()


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the other side closes, in good order or not."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def test_who_says_nothing_or_half_a_word_is_cut() -> None:
    """No byte, half a head, and half a head after a good request: all are closed soon."""

    async def talk(port: int, _: list[Hasty]) -> None:
        for said in (b"", REQUEST[:10], REQUEST + REQUEST[:10]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            got = await _until_closed(reader)
            assert got.count(b"200 OK") == said.count(b"\r\n\r\n")
            writer.close()

    asyncio.run(_served(_answer, talk))


def test_a_slow_answer_is_waited_for() -> None:
    """As long as the application works, its client may wait over several looks."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        # Three looks of the protocol, without a sleep of our own.
        loop = asyncio.get_running_loop()
        looked = asyncio.Event()
        loop.call_later(3 * Hasty.look_s, looked.set)
        await looked.wait()
        await _answer(scope, receive, send)

    async def talk(port: int, _: list[Hasty]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"ok"), 10)
        writer.close()

    asyncio.run(_served(slow, talk))


def test_who_does_not_read_is_cut() -> None:
    """An answer that nobody takes ends."""

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            piece = b"x" * 65_536
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def talk(port: int, made: list[Hasty]) -> None:
        # The stream stops reading once its small buffer is full.
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(REQUEST)
        await eventually_async(
            lambda: made and made[0].transport.is_closing(), 10, "the connection is cut"
        )
        writer.close()

    asyncio.run(_served(large, talk))
