"""A line withholds the one answer it waits for, and then breaks its connection or lets it stand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

from tests.faults.lines import COMMITTED, Line, stored_in
from tests.waiting import eventually_async

ANSWER_WITHIN_S = 5.0


class Far:
    """A line to a server that repeats what it hears, and what it has heard."""

    def __init__(self, line: Line, port: int) -> None:
        self.line = line
        self._port = port
        self.heard: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection over the line."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.writers.append(writer)
        return reader, writer


def over_a_line(test: Callable[[Far], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Run a test with a line to an echoing server."""

    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far.writers.append(writer)
            while data := await reader.read(1024):
                far.heard.append(data)
                writer.write(data)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        line = Line(server.sockets[0].getsockname()[1])
        far = Far(line, await line.start())
        try:
            await test(far)
        finally:
            await line.close()
            server.close()
            for writer in far.writers:
                writer.transport.abort()
            closing = (writer.wait_closed() for writer in far.writers)
            await asyncio.gather(*closing, return_exceptions=True)

    def main() -> None:
        asyncio.run(run())

    main.__doc__ = test.__doc__
    return main


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes) -> bytes:
    """Say something and return what comes back."""
    writer.write(words)
    async with asyncio.timeout(ANSWER_WITHIN_S):
        return await reader.read(1024)


@over_a_line
async def test_the_server_did_it_and_the_client_never_hears_it(far: Far) -> None:
    """Other answers pass, the one that is waited for is withheld, its connection is reset."""
    reader, writer = await far.connect()
    ambush = far.line.ambush(COMMITTED, "cut")
    assert await ask(reader, writer, b"BEGIN") == b"BEGIN"
    with suppress(ConnectionError):  # a reset, or an end: both are a connection that is gone
        assert await ask(reader, writer, COMMITTED) == b""
    assert ambush.struck == 1
    assert far.heard == [b"BEGIN", COMMITTED]


@over_a_line
async def test_only_one_answer_is_withheld(far: Far) -> None:
    """The next connection is well, also for the same answer."""
    answer = stored_in("MARKET")
    ambush = far.line.ambush(answer, "cut")
    _, writer = await far.connect()
    writer.write(answer)
    await eventually_async(lambda: ambush.struck, ANSWER_WITHIN_S, "it is withheld")
    assert await ask(*await far.connect(), answer) == answer
    assert ambush.struck == 1


@over_a_line
async def test_a_silent_connection_stands(far: Far) -> None:
    """What the client says goes nowhere, and nobody tells it; a new connection is well."""
    reader, writer = await far.connect()
    assert await ask(reader, writer, b"one") == b"one"
    assert far.line.silence(to_server=True, to_client=False) == 1
    writer.write(b"two")
    fresh = await far.connect()
    assert await ask(*fresh, b"three") == b"three"
    assert far.heard == [b"one", b"three"]
    assert not reader.at_eof()
