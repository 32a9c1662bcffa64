"""Where the server is: addresses, and what is told of them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from libs.common.bus import nats
from libs.common.bus.link import Address
from libs.common.errors import BusUnavailable, SettingsError


@pytest.mark.parametrize(
    ("url", "server", "user", "password", "token", "inbox"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222", None, None, None, "_INBOX"),
        ("nats://localhost", "nats://localhost:4222", None, None, None, "_INBOX"),
        (
            "nats://writer:pass@127.0.0.1:1",
            "nats://127.0.0.1:1", "writer", "pass", None, "_INBOX_writer",
        ),
        (
            "nats://writer:p%40%3A%2F@[::1]:1",
            "nats://[::1]:1", "writer", "p@:/", None, "_INBOX_writer",
        ),
        ("tls://s3cret@a.example:4443", "tls://a.example:4443", None, None, "s3cret", "_INBOX"),
    ],
)  # fmt: skip
def test_addresses_are_taken_apart(
    url: str,
    server: str,
    user: str | None,
    password: str | None,
    token: str | None,
    inbox: str,
) -> None:
    """Credentials go apart from the server, and the inbox is named after the user."""
    address = Address.parse(url)
    assert address == Address(server, user, password, token)
    assert address.inbox_prefix == inbox


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:4222", "http://x:hunter2@h:1", "nats://x:hunter2@h:port", "nats://:1"]
)
def test_a_wrong_address_is_not_shown(url: str) -> None:
    """It may hold a password."""
    with pytest.raises(SettingsError, match=r"^KITE_NATS_URL: .* expected nats://") as refusal:
        Address.parse(url)
    assert "hunter2" not in str(refusal.value)


def test_nobody_there_is_unavailable_and_names_no_password() -> None:
    """The reason and the server are told, at once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        with pytest.raises(BusUnavailable, match=f"127.0.0.1:{port}") as refusal:
            asyncio.run(nats.connect(f"nats://writer:hunter2@127.0.0.1:{port}", name="test"))
    assert "hunter2" not in str(refusal.value)


def test_something_else_there_is_unavailable() -> None:
    """A server that speaks another protocol is no nats-server."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BusUnavailable):
            await nats.connect(f"nats://127.0.0.1:{port}", name="test")
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_a_server_that_takes_no_frames_is_the_operators_to_mend() -> None:
    """Its largest message is smaller than ours: waiting will not help."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":65536}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SettingsError, match="max_payload"):
            await nats.connect(f"nats://127.0.0.1:{port}", name="test")
        server.close()
        await server.wait_closed()

    asyncio.run(main())
