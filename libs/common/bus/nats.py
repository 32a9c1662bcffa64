"""The bus on a real nats-server with JetStream.

`connect` makes the first connection or says why it cannot; from then on the bus reconnects by
itself, for ever, with back-off and jitter. What was under way when a connection broke has failed by
then: nothing is repeated on the next one (see `link`).

Which error says what about a publish:

- BusUnavailable: nothing was stored. Not connected, or no stream takes this subject;
- Fenced, StreamFull: the server refused, nothing was stored;
- Doubt: sent, and no answer or an unclear one. It may have been stored, even later: the fence
  sorts that out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from libs.common import failpoints, subjects
from libs.common.bus import Lease, Stored, StreamState
from libs.common.bus.batch import read_batch
from libs.common.bus.hooks import BusHooks, NoHooks, PublishOutcome
from libs.common.bus.link import Address, Link, status_of
from libs.common.bus.pull import PullLease
from libs.common.codec import FRAME_BYTES_MAX
from libs.common.errors import BusUnavailable, Doubt, Fenced, LeaseLost, StreamFull
from libs.common.telemetry import get_logger

__all__ = ["CREATED_META", "NatsBus", "connect", "created_ms"]

CREATED_META: Final = "kite.created_ms"

PUBLISH_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
# Live messages are dropped when more than this is waiting to leave: they are worth nothing later.
LIVE_UNSENT_BYTES_MAX = 1 << 20
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 2.0

_EXPECTED_HEADER = "Nats-Expected-Last-Subject-Sequence"
_ID_HEADER = "Nats-Msg-Id"
_NOT_FOUND = "404"
_NS_PER_MS = 1_000_000

# The server's error codes, see `nats errors list`.
_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_STORE_FAILED = 10077
_FULL_PREFIX = "maximum "
_NO_ROOM = frozenset({10023, 10028, 10047})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ApiError(Struct):
    """What the server says when it refuses."""

    code: int
    err_code: int = 0
    description: str = ""


class _Ack(Struct):
    seq: int = 0
    error: ApiError | None = None


class _StreamCounts(Struct):
    messages: int
    bytes: int
    first_seq: int
    last_seq: int


class _StreamConfig(Struct):
    name: str
    max_bytes: int = -1
    max_age: int = 0
    metadata: dict[str, str] = {}


class _StreamInfo(Struct):
    config: _StreamConfig | None = None
    created: datetime | None = None
    state: _StreamCounts | None = None
    error: ApiError | None = None


_ack_decoder = msgspec.json.Decoder(_Ack)
_stream_info_decoder = msgspec.json.Decoder(_StreamInfo)


async def connect(
    url: str, *, name: str, inbox_prefix: str | None = None, hooks: BusHooks | None = None
) -> NatsBus:
    """Connect to `nats://user:password@host:port` under a `name` for the server's lists.

    `inbox_prefix` is by default the user's own, `_INBOX_<user>`. Raises BusUnavailable, or
    SettingsError for what waiting will not mend.
    """
    address = Address.parse(url)
    bus = NatsBus(address, name, inbox_prefix or address.inbox_prefix, hooks or NoHooks())
    await bus.start()
    return bus


def created_ms(created: datetime, metadata: Mapping[str, str]) -> int:
    """Return when a stream was first made, in epoch milliseconds, given when the server made it.

    Restoring a stream makes it anew for the server, although its sequences go on; so a restored one
    carries in its metadata when the original was made, which positions refer to.
    """
    original = metadata.get(CREATED_META, "")
    if original.isdecimal():
        return int(original)
    return (created - _EPOCH) // timedelta(milliseconds=1)


class NatsBus:
    """A connection to a nats-server that comes back; implements `bus.Bus`."""

    def __init__(self, address: Address, name: str, inbox_prefix: str, hooks: BusHooks) -> None:
        self._address = address
        self._name = name
        self._inbox_prefix = inbox_prefix
        self._hooks = hooks
        self._link: Link | None = None
        self._listeners: list[tuple[str, Callable[[bytes], None]]] = []
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect for the first time and keep connected from then on; raises BusUnavailable."""
        await self._open()
        self._keeper = asyncio.create_task(self._keep())

    @property
    def connected(self) -> bool:
        """Whether the server answered last time."""
        return self._link is not None and self._link.up

    async def stream(self, name: str) -> StreamState:
        """Return a stream's state; see `bus.Bus`."""
        data = await self.ask(f"$JS.API.STREAM.INFO.{name}", b"")
        info = _stream_info_decoder.decode(data)
        if info.config is None or info.created is None or info.state is None:
            reason = info.error.description if info.error is not None else "unclear answer"
            raise BusUnavailable(f"stream {name}: {reason}")
        counts = info.state
        return StreamState(
            name=name,
            created_ms=created_ms(info.created, info.config.metadata),
            first_seq=counts.first_seq if counts.messages else counts.last_seq + 1,
            last_seq=counts.last_seq,
            messages=counts.messages,
            bytes_held=counts.bytes,
            bytes_max=max(0, info.config.max_bytes),
            age_ms_max=info.config.max_age // _NS_PER_MS,
            metadata=info.config.metadata,
        )

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message of `subject` or None; see `bus.Bus`."""
        return await self._get(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")

    async def read(self, stream: str, subject: str, *, start_seq: int) -> Stored | None:
        """Return the first message of `subject` from `start_seq` on; see `bus.Bus`."""
        wanted = msgspec.json.encode({"seq": max(start_seq, 1), "next_by_subj": subject})
        return await self._get(f"$JS.API.DIRECT.GET.{stream}", wanted)

    async def read_many(
        self, stream: str, subject: str, *, start_seq: int, messages_max: int, bytes_max: int
    ) -> Sequence[Stored]:
        """Return the next messages of `subject` from `start_seq` on; see `bus.Bus`."""
        wanted = {
            "seq": max(start_seq, 1),
            "next_by_subj": subject,
            "batch": messages_max,
            "max_bytes": bytes_max,
        }
        return await read_batch(self._connection(), stream, wanted, timeout_s=READ_TIMEOUT_S)

    async def publish(self, subject: str, data: bytes, *, expected_last_seq: int) -> int:
        """Store `data` if the subject's last sequence is the expected one; see `bus.Bus`."""
        fence = {_EXPECTED_HEADER: str(expected_last_seq)}
        return await self._store(subject, data, fence, self._failpoint(subject))

    async def append(self, subject: str, data: bytes, *, message_id: str = "") -> int:
        """Store `data` without a fence; see `bus.Bus`."""
        return await self._store(subject, data, {_ID_HEADER: message_id} if message_id else None)

    @asynccontextmanager
    async def lease(self, stream: str, consumer: str) -> AsyncIterator[Lease]:
        """Stand by until the server makes this instance the owner, then hold the partition."""
        lease = await self._stand_by(stream, consumer)
        try:
            yield lease
        finally:
            await lease.release()

    async def publish_live(self, subject: str, data: bytes) -> None:
        """Send to whoever listens now; dropped while disconnected or far behind."""
        link = self._link
        if link is None or not link.up or link.unsent_bytes > LIVE_UNSENT_BYTES_MAX:
            self._hooks.live_dropped()
            return
        try:
            await link.send(subject, data)
        except (BusUnavailable, ValueError):
            self._hooks.live_dropped()

    async def listen(self, subject: str, take: Callable[[bytes], None]) -> None:
        """Call `take` with each live message from now on; see `bus.Bus`."""
        self._listeners.append((subject, take))
        link = self._link
        if link is not None and link.up:
            with suppress(BusUnavailable):  # then the next link listens
                await _listen(link, subject, take)

    async def close(self) -> None:
        """Flush what was sent and disconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._link is not None:
            await self._link.close()
        self._up.clear()

    async def ask(self, subject: str, data: bytes) -> bytes:
        """Ask the server's JSON API a question that changes nothing when it is asked twice.

        Raises BusUnavailable when no answer comes.
        """
        try:
            answer = await self._connection().request(subject, data, timeout_s=READ_TIMEOUT_S)
        except Doubt as error:
            raise BusUnavailable(str(error)) from error
        return answer.data

    async def _get(self, api_subject: str, wanted: bytes) -> Stored | None:
        try:
            message = await self._connection().request(
                api_subject, wanted, timeout_s=READ_TIMEOUT_S
            )
        except Doubt as error:
            raise BusUnavailable(str(error)) from error
        status = status_of(message)
        if status == _NOT_FOUND:
            return None
        headers = message.headers or {}
        if status or "Nats-Sequence" not in headers:
            raise BusUnavailable(f"{api_subject}: unclear answer {status}")
        return Stored(int(headers["Nats-Sequence"]), message.data)

    # -- publishing -------------------------------------------------------------------------------

    def _failpoint(self, subject: str) -> str | None:
        """Name the moment between this publish and its answer, if we can be told to die there."""
        if not failpoints.ENABLED:
            return None
        is_state = subject.startswith(f"{subjects.STATE.lower()}.")
        name = f"{self._name}.checkpoint.sent" if is_state else f"{self._name}.publish.sent"
        return name if name in failpoints.FAILPOINTS else None

    async def _store(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        failpoint: str | None = None,
    ) -> int:
        if len(data) > FRAME_BYTES_MAX:
            raise ValueError(
                f"{len(data)} bytes for {subject}: a message holds at most {FRAME_BYTES_MAX}"
            )
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        outcome: PublishOutcome = "doubt"
        try:
            message = await self._connection().request(
                subject,
                data,
                headers=headers,
                timeout_s=PUBLISH_TIMEOUT_S,
                failpoint=failpoint,
            )
            ack = _decode_ack(subject, message.data)
            if ack.error is not None:
                _refuse(subject, ack.error)
            outcome = "stored"
        except Fenced:
            outcome = "fenced"
            raise
        except StreamFull:
            outcome = "full"
            raise
        except BusUnavailable:
            outcome = "unavailable"
            raise
        finally:
            self._hooks.published(outcome, loop.time() - begin_s)
        return ack.seq

    # -- connecting -------------------------------------------------------------------------------

    def _connection(self) -> Link:
        if self._link is None or not self._link.up:
            raise BusUnavailable(f"not connected to {self._address.server}")
        return self._link

    async def _open(self) -> None:
        link = await Link.open(self._address, self._name, self._inbox_prefix, self._hooks)
        try:
            for subject, take in self._listeners:
                await _listen(link, subject, take)
        except BaseException:
            await link.close()
            raise
        self._link = link
        self._up.set()
        self._hooks.connection(up=True)

    async def _keep(self) -> None:
        """Replace each link that is lost, until cancelled."""
        while self._link is not None:
            await self._link.wait_lost()
            self._up.clear()
            self._hooks.connection(up=False)
            get_logger().warning(
                "bus.disconnected", server=self._address.server, reason=self._link.lost_reason
            )
            await self._link.close()
            await self._reconnect()
            get_logger().info("bus.reconnected", server=self._address.server)

    async def _reconnect(self) -> None:
        pauses = _Pauses()
        while True:
            await asyncio.sleep(pauses.next_s())
            try:
                await self._open()
            except BusUnavailable as error:
                get_logger().info("bus.reconnect_failed", reason=str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the bus must come back
                get_logger().error("bus.reconnect_failed", reason=str(error), exc_info=error)
            else:
                return

    async def _stand_by(self, stream: str, consumer: str) -> PullLease:
        pauses = _Pauses()
        while True:
            await self._up.wait()
            if self._link is None or not self._link.up:
                await asyncio.sleep(pauses.next_s())
                continue
            lease = PullLease(self._link, stream, consumer, self._hooks)
            try:
                await lease.stand_by()
            except (BusUnavailable, LeaseLost) as error:
                get_logger().info("bus.standing_by", consumer=consumer, reason=str(error))
                await lease.release()
                await asyncio.sleep(pauses.next_s())
            except BaseException:
                await lease.release()
                raise
            else:
                return lease


async def _listen(link: Link, subject: str, take: Callable[[bytes], None]) -> None:
    async def on_message(message: Msg) -> None:
        take(message.data)

    await link.subscribe(subject, on_message)


class _Pauses:
    """Waiting times that double up to a bound, each shortened by up to half."""

    def __init__(self) -> None:
        self._next_s = _BACKOFF_FIRST_S

    def next_s(self) -> float:
        wait_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, _BACKOFF_MAX_S)
        return wait_s


def _decode_ack(subject: str, data: bytes) -> _Ack:
    with suppress(msgspec.MsgspecError):
        ack = _ack_decoder.decode(data)
        if ack.seq > 0 or ack.error is not None:
            return ack
    raise Doubt(f"unclear answer to a publish on {subject}: {data[:80]!r}")


def _refuse(subject: str, error: ApiError) -> NoReturn:
    text = f"{subject}: {error.description} ({error.err_code})"
    if error.err_code in _WRONG_LAST_SEQUENCE:
        raise Fenced(text)
    full = error.err_code == _STORE_FAILED and error.description.startswith(_FULL_PREFIX)
    if full or error.err_code in _NO_ROOM:
        raise StreamFull(text)
    raise Doubt(text)
