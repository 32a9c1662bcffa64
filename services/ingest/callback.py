"""Waits on this machine for the browser to come back from a login: a page of one line, over TLS.

It listens on loopback only, while somebody waits, under a certificate made for this one time, which
no browser knows: it warns, as with every tool that registers https://127.0.0.1 with Schwab. Only
the callback's path with a query is taken; whatever else comes gets a refusal, and the wait goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common.clock import Clock

__all__ = ["CannotListen", "listening"]

_HERE = ("127.0.0.1", "localhost")
_HTTPS_PORT = 443
_REQUEST_BYTES_MAX = 16 << 10
_REQUEST_S_MAX = 10.0
_CERTIFICATE_LIFE = dt.timedelta(days=1)

Verdict = Callable[[str], str]


class CannotListen(Exception):
    """Nobody can come back to this machine at that address; the text says why."""


@contextlib.asynccontextmanager
async def listening(callback: str, clock: Clock, judge: Verdict) -> AsyncIterator[None]:
    """Listen at the callback while the context lasts; raises CannotListen.

    `judge` gets each address at which a browser comes back, and returns what to show there.
    """
    parts = urlsplit(callback)
    host, port = parts.hostname or "", parts.port or _HTTPS_PORT
    if host not in _HERE:
        raise CannotListen(f"{callback} does not lead to this machine")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S_MAX):
                writer.write(await _answer(reader, callback, judge))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # a browser tries more than once, and leaves as it likes

    try:
        server = await asyncio.start_server(
            serve, "127.0.0.1", port, ssl=_tls(host, clock), limit=_REQUEST_BYTES_MAX
        )
    except OSError as error:
        raise CannotListen(f"cannot listen at {callback}: {error.strerror}") from None
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def _answer(reader: asyncio.StreamReader, callback: str, judge: Verdict) -> bytes:
    """Read one request and return what to answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    line = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    wanted = urlsplit(callback)
    if len(line) != 3 or line[0] != "GET" or not line[1].startswith("/"):
        return _page("400 Bad Request", "This is only for a browser that comes back from a login.")
    path, _, query = line[1].partition("?")
    if path != (wanted.path or "/") or not query:
        return _page("404 Not Found", "Nothing is here.")
    return _page("200 OK", judge(f"{wanted.scheme}://{wanted.netloc}{path}?{query}"))


def _page(status: str, text: str) -> bytes:
    """Return a page; `text` is ours, never what came."""
    body = f"<!doctype html><meta charset=utf-8><title>Alpha Kite Max</title><p>{text}\n".encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
        "Referrer-Policy: no-referrer\r\n"
        "Content-Security-Policy: default-src 'none'\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _tls(host: str, clock: Clock) -> ssl.SSLContext:
    """Make a key and a certificate for this one time; both are gone from the disk at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CERTIFICATE_LIFE)
        .not_valid_after(now + _CERTIFICATE_LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    # mkstemp gives mode 0600.
    descriptor, place = tempfile.mkstemp(prefix="kite-", suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        context.load_cert_chain(place)
    finally:
        Path(place).unlink()
    return context
