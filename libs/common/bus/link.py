"""One life of one connection to a nats-server.

A `Link` is made connected and is lost once, for good: the client library's own reconnecting is not
used. It would carry unsent publishes and old subscriptions into the next connection, where nobody
knows about them any more. Who wants to go on opens a new link and starts from the streams.

Requests go through one inbox of this link. Whatever waits for an answer when the link is lost gets
`Doubt` at once instead of after its time-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from libs.common import failpoints
from libs.common.bus import nkey
from libs.common.bus.hooks import BusHooks
from libs.common.codec import FRAME_BYTES_MAX
from libs.common.errors import BusUnavailable, Doubt, SettingsError
from libs.common.telemetry import get_logger

__all__ = ["Address", "Link", "bare_client", "status_of"]

MessageHandler = Callable[[Msg], Awaitable[None]]

CONNECT_TIMEOUT_S = 5.0
# Two pings without an answer end the link: a frozen server is noticed after this long, times three.
PING_INTERVAL_S = 2
FLUSH_TIMEOUT_S = 5.0
UNSENT_BYTES_MAX = 4 << 20
# Headers, subject and protocol around a frame of the largest size.
MESSAGE_OVERHEAD_BYTES = 4096
_LOST_POLL_S = 1.0
_NEVER_S = 86_400.0
_NO_RESPONDERS = "503"
_STATUS_HEADER = "Status"


class Address(Struct, frozen=True):
    """Where the server is and who we are there; `server` holds no credentials.

    The password may be a key's seed (see `nkey`), which is never sent.
    """

    server: str
    user: str | None
    password: str | None
    token: str | None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take apart `nats://user:password@host:port`; raises SettingsError without showing it."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 4222
        except ValueError:
            host, port, parts = None, 0, urlsplit("")
        if host is None or parts.scheme not in ("nats", "tls"):
            raise SettingsError(
                ["KITE_NATS_URL: its value is not valid: expected nats://user:password@host:port"]
            )
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password is not None else None
        host = f"[{host}]" if ":" in host else host
        server = f"{parts.scheme}://{host}:{port}"
        if user is not None and password is None:
            return cls(server, None, None, user)
        return cls(server, user, password, None)

    @property
    def has_key(self) -> bool:
        """Whether a key stands where a password would."""
        return self.password is not None and nkey.is_seed(self.password)

    def client(self) -> Client:
        """Return a client that can connect as this user, by `options`; it is not connected yet."""
        client = Client()
        if self.has_key:
            assert self.password is not None
            # The library sets it when it signs by itself, with a package that has no wheel.
            client._public_nkey = nkey.public_key(self.password)
        return client

    def options(self) -> dict[str, Any]:
        """Return what the client's `connect` takes to get in as this user."""
        if self.has_key and (seed := self.password):
            return {
                "servers": self.server,
                "user": self.user,  # not sent beside a signature; without it nobody would sign
                "signature_cb": lambda nonce: nkey.sign(seed, nonce),
            }
        return {
            "servers": self.server,
            "user": self.user,
            "password": self.password,
            "token": self.token,
        }

    @property
    def inbox_prefix(self) -> str:
        """Where answers to this user go; nobody else may listen there."""
        return f"_INBOX_{self.user}" if self.user else "_INBOX"


async def bare_client(url: str, **options: Any) -> Client:
    """Connect as the user of an address, by the client library alone; raises what that raises.

    For tools that need no bus. `options` are the library's own.
    """
    address = Address.parse(url)
    client = address.client()
    await client.connect(**address.options(), **options)
    return client


def status_of(message: Msg) -> str:
    """Return a message's inline status, e.g. "404", or nothing when it is an ordinary one."""
    headers = message.headers
    return headers.get(_STATUS_HEADER, "") if headers else ""


class Link:
    """A connection that was made, until it is lost."""

    def __init__(self, client: Client, inbox: str, hooks: BusHooks) -> None:
        self._client = client
        self._hooks = hooks
        self._inbox = inbox
        self._subscriptions: set[Subscription] = set()
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._requests = 0
        self._lost = asyncio.Event()
        self._closing = False
        self.lost_reason = "connection lost"
        self._on_lost: set[Callable[[str], None]] = set()

    @classmethod
    async def open(cls, address: Address, name: str, inbox_prefix: str, hooks: BusHooks) -> Link:
        """Connect once; raises BusUnavailable with the reason, without credentials."""
        client = address.client()
        link = cls(client, "", hooks)
        failures: list[str] = []
        connected = False

        async def on_error(error: Exception) -> None:
            failures.append(_reason(error))
            if connected:
                link._report(error)

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    **address.options(),
                    name=name,
                    inbox_prefix=inbox_prefix.encode(),
                    error_cb=on_error,
                    disconnected_cb=link._on_disconnected,
                    closed_cb=link._on_disconnected,
                    reconnect_to_server_handler=_never_reconnect,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=2,
                    pending_size=UNSENT_BYTES_MAX,
                    flush_timeout=FLUSH_TIMEOUT_S,
                )
                connected = True
                link._inbox = client.new_inbox()
                await link.subscribe(f"{link._inbox}.*", link._on_answer)
        except (OSError, nats.errors.Error, TimeoutError) as error:
            await link.close()
            reason = _most_telling(failures) or _reason(error)
            raise BusUnavailable(f"no connection to {address.server}: {reason}") from None
        except BaseException:
            await link.close()
            raise
        await link._require_room_for_frames(address)
        return link

    @property
    def up(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        return not self._lost.is_set() and self._client.is_connected

    @property
    def unsent_bytes(self) -> int:
        """How much was handed over and is not yet on its way."""
        return int(self._client.pending_data_size)

    def new_inbox(self) -> str:
        """Return a subject that nobody has listened on before."""
        return str(self._client.new_inbox())

    def watch(self, on_lost: Callable[[str], None]) -> Callable[[], None]:
        """Call `on_lost` with the reason when the link is lost; returns how to stop watching."""
        self._on_lost.add(on_lost)
        return lambda: self._on_lost.discard(on_lost)

    async def wait_lost(self) -> None:
        """Return when the link is lost."""
        while not self._lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOST_POLL_S):
                    await self._lost.wait()
            if self._client.is_closed:
                # The library may close a connection without saying so, for example when the
                # server breaks off while something is unsent.
                self._lose("connection closed")

    async def send(
        self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Hand a message over to the connection; raises BusUnavailable when there is none."""
        if not self.up:
            raise BusUnavailable("not connected")
        try:
            await self._client.publish(subject, data, reply=reply, headers=headers)
        except nats.errors.MaxPayloadError:
            raise ValueError(f"{len(data)} bytes for {subject}: too large") from None
        except (OSError, nats.errors.Error) as error:
            raise BusUnavailable(f"not connected: {_reason(error)}") from error

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        timeout_s: float,
        headers: dict[str, str] | None = None,
        failpoint: str | None = None,
    ) -> Msg:
        """Send and return the answer; `failpoint` is passed when the server has the request.

        Raises BusUnavailable when nothing was sent or nobody is there to answer, Doubt when the
        answer does not come.
        """
        loop = asyncio.get_running_loop()
        self._requests += 1
        token = str(self._requests)
        answer: asyncio.Future[Msg] = loop.create_future()
        self._answers[token] = answer
        timer = loop.call_later(timeout_s, _give_up, answer, subject, timeout_s)
        try:
            await self.send(subject, data, reply=f"{self._inbox}.{token}", headers=headers)
            if failpoint is not None:
                await self._pass(failpoint)
            message = await answer
        finally:
            timer.cancel()
            del self._answers[token]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also when `send` itself has failed
        if status_of(message) == _NO_RESPONDERS:
            raise BusUnavailable(f"nobody answers on {subject}: no such stream, or it is starting")
        return message

    async def subscribe(self, subject: str, handler: MessageHandler) -> Subscription:
        """Listen, one message after another; raises BusUnavailable."""
        try:
            subscription = await self._client.subscribe(subject, cb=handler)
        except (OSError, nats.errors.Error) as error:
            raise BusUnavailable(f"not connected: {_reason(error)}") from error
        self._subscriptions.add(subscription)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening; what has arrived and is not handled yet is dropped."""
        self._subscriptions.discard(subscription)
        with suppress(OSError, nats.errors.Error):
            await subscription.unsubscribe()

    async def close(self) -> None:
        """Send what is unsent and end the connection; can be repeated."""
        self._closing = True
        if self.up:
            with suppress(OSError, nats.errors.Error):
                await self._client.flush(timeout=1)
        for subscription in tuple(self._subscriptions):
            await self.unsubscribe(subscription)
        with suppress(OSError, RuntimeError, nats.errors.Error):
            await self._client.close()
        self._lose("closed")

    async def _require_room_for_frames(self, address: Address) -> None:
        needed = FRAME_BYTES_MAX + MESSAGE_OVERHEAD_BYTES
        allowed = int(self._client.max_payload)
        if allowed >= needed:
            return
        await self.close()
        raise SettingsError(
            [
                f"KITE_NATS_URL: the server at {address.server} takes messages of at most "
                f"{allowed} bytes, frames need {needed}: raise its max_payload"
            ]
        )

    async def _pass(self, failpoint: str) -> None:
        """Die with everything sent and no answer read, if that is wanted.

        What was handed over may still be in this process; a pong proves that it is not.
        """
        if not failpoints.is_armed(failpoint):
            return
        with suppress(OSError, nats.errors.Error):
            await self._client.flush()
            failpoints.reach(failpoint)

    async def _on_answer(self, message: Msg) -> None:
        answer = self._answers.get(message.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _on_disconnected(self) -> None:
        last_error = self._client.last_error
        self._lose(_reason(last_error) if last_error is not None else self.lost_reason)

    def _lose(self, reason: str) -> None:
        if self._lost.is_set():
            return
        self._lost.set()
        self.lost_reason = reason
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(
                    Doubt(f"connection lost while waiting for an answer: {reason}")
                )
        for on_lost in tuple(self._on_lost):
            on_lost(reason)

    def _report(self, error: Exception) -> None:
        """Count and log what the library reports on the side; the end of the link is no error."""
        if self._closing or isinstance(error, (OSError, nats.errors.UnexpectedEOF)):
            self.lost_reason = _reason(error)
            return
        self._hooks.error(type(error).__name__)
        get_logger().warning("bus.error", error=_reason(error))


def _never_reconnect(*_: Any) -> tuple[None, float]:
    return None, _NEVER_S


def _give_up(answer: asyncio.Future[Msg], subject: str, timeout_s: float) -> None:
    if not answer.done():
        answer.set_exception(Doubt(f"no answer on {subject} within {timeout_s} s"))


def _most_telling(failures: list[str]) -> str:
    """Choose among the reasons of a few attempts: a refusal says more than a closed socket."""
    refusals = [failure for failure in failures if "authorization" in failure.lower()]
    return next(iter([*refusals, *failures[-1:]]), "")


def _reason(error: BaseException) -> str:
    text = str(error).removeprefix("nats: ").strip("'")
    return text or type(error).__name__
