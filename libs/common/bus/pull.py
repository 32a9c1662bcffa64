"""One partition of one durable, pinned consumer, read by raw pull over one link.

Theory of operation. The consumer's priority policy is `pinned_client`: the server gives messages to
one client at a time and names it by a pin, which it takes back when that client has not asked for
anything for the consumer's priority time-out. A lease goes through three phases:

- STANDBY: a pull without a pin waits until the server hands over a first message. It carries the
  pin and is thrown away: where reading begins is the caller's business. The server pins nobody
  while there is nothing to deliver, so a stand-by that finds an idle partition without an owner
  makes its last message deliverable again.
- PINNED: the pin is renewed, nothing is read. The caller loads its state.
- READING: after `reset`, pulls carry the pin. The prefetch asks for the next batch while the
  last one is being worked on, and is bounded in messages and bytes.

Every delivery has a consumer sequence that begins at 1 after a reset. It must grow by one, and an
idle heartbeat must name the last one delivered; anything else means that messages went elsewhere
(another instance reset the consumer, the client dropped some), and the lease is over. Repeated
deliveries of what was not acknowledged in time keep that sequence, and are skipped by their stream
sequence.

A lease that is over stays over; its owner takes a new one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import msgspec
from nats.aio.msg import Msg

from libs.common.bus import Message
from libs.common.bus.hooks import BusHooks
from libs.common.bus.link import Link, status_of
from libs.common.codec import FRAME_BYTES_MAX
from libs.common.errors import BusError, BusUnavailable, Doubt, LeaseLost
from libs.common.telemetry import get_logger

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

__all__ = ["OWNER_GROUP", "PREFETCH_BYTES_MAX", "PREFETCH_MESSAGES_MAX", "PullLease"]

# The one priority group of every consumer.
OWNER_GROUP = "owner"

# What is asked for or waiting to be received, together. The bytes are exceeded by what the pulls
# on the way may still bring, at most about as much again.
PREFETCH_MESSAGES_MAX = 256
PREFETCH_BYTES_MAX = 4 << 20
_PULL_BYTES_MIN = 2 * FRAME_BYTES_MAX

_EXPIRES_NS = 4_000_000_000
_HEARTBEAT_NS = 500_000_000
_RENEW_EXPIRES_NS = 100_000_000
# The pin is renewed and silence is counted once a tick. Ticks are counted instead of seconds
# because a stalled loop ticks once, however long it stalled, and then reads what waited meanwhile.
_TICK_S = 0.5
_QUIET_TICKS_MAX = 5
_ASK_TIMEOUT_S = 5.0

_ACK = b"+ACK"
_ACK_PREFIX = "$JS.ACK."
_PIN_HEADER = "Nats-Pin-Id"
_SEQUENCE_HEADER = "Nats-Sequence"
_PENDING_HEADER = "Nats-Pending-Messages"
_LAST_CONSUMER_HEADER = "Nats-Last-Consumer"
_DESCRIPTION_HEADER = "Description"

# Status 409 says many things; with one of these only that pull is at its end.
_PULL_ENDS = ("batch completed", "message size exceeds maxbytes")


class _Phase(Enum):
    STANDBY = auto()
    PINNED = auto()
    READING = auto()


class PullLease:
    """A partition held, or waited for, over one link; implements `bus.Lease`."""

    def __init__(self, link: Link, stream: str, consumer: str, hooks: BusHooks) -> None:
        self._link = link
        self._stream = stream
        self._consumer = consumer
        self._hooks = hooks
        self._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._phase = _Phase.STANDBY
        self._pin = ""
        self._failure: BusError | None = None
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._buffer: deque[Message] = deque()
        self._buffered_bytes = 0
        self._credit = 0  # messages asked for that have not arrived
        self._delivered = 0  # consumer sequence of the last delivery
        self._seen_seq = 0  # stream sequence of the last message put into the buffer
        self._quiet_ticks = 0
        self._pulled = False  # whether a pull went out since the last tick
        self._wake = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None
        self._unwatch = link.watch(self._on_link_lost)

    # -- the life of a lease ----------------------------------------------------------------------

    async def stand_by(self) -> None:
        """Return when the server has pinned us; raises BusUnavailable or LeaseLost to try anew."""
        await self._listen()
        self._ticker = asyncio.create_task(self._tick())
        await self._ask_for_pin()
        while self._phase is _Phase.STANDBY:
            await self._wake.wait()
            self._wake.clear()
            self._raise_if_over()
        self._hooks.lease(self._consumer, held=True)

    async def reset(self, start_seq: int) -> None:
        """Deliver from `start_seq` on; see `bus.Lease`."""
        if start_seq < 1:
            raise ValueError(f"sequences begin at 1, not at {start_seq}")
        self._raise_if_over()
        self._phase = _Phase.PINNED
        await self._stop_listening()  # what was in flight before finds nobody
        self._buffer.clear()
        self._buffered_bytes = 0
        self._credit = 0
        await self._reset_consumer(start_seq)
        self._delivered = 0
        self._seen_seq = start_seq - 1
        await self._listen()
        self._raise_if_over()
        self._phase = _Phase.READING
        await self._prefetch()

    async def receive(self, *, frames_max: int, wait_s: float) -> Sequence[Message]:
        """Return the next messages in order; see `bus.Lease`."""
        if self._phase is not _Phase.READING:
            raise RuntimeError("reset the lease before receiving")
        if not self._buffer and self._failure is None:
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                return ()
        self._raise_if_over()
        buffer = self._buffer
        if len(buffer) <= frames_max:
            messages = list(buffer)
            buffer.clear()
            self._buffered_bytes = 0
        else:
            messages = [buffer.popleft() for _ in range(frames_max)]
            self._buffered_bytes -= sum(len(message.data) for message in messages)
        await self._prefetch()
        return messages

    async def ack(self, message: Message) -> None:
        """Confirm this message and all before it; a lost one is repaired by the next."""
        if self._failure is not None:
            return
        try:
            await self._link.send(message.reply, _ACK)
        except BusUnavailable as error:
            self._end(error)

    async def release(self) -> None:
        """Stop reading, and let a stand-by take over at once instead of after the time-out."""
        held = self._phase is not _Phase.STANDBY
        self._end(LeaseLost("released"))
        self._unwatch()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait({self._ticker})
        await self._stop_listening()
        if self._pin:
            await self._hand_over()
        if held:
            self._hooks.lease(self._consumer, held=False)

    # -- pulls ------------------------------------------------------------------------------------

    async def _ask_for_pin(self) -> None:
        await self._pull(1, _EXPIRES_NS, _HEARTBEAT_NS)

    async def _prefetch(self) -> None:
        """Ask for more once half of what may be under way has been taken."""
        under_way = self._credit + len(self._buffer)
        room = self._buffered_bytes < PREFETCH_BYTES_MAX
        if self._phase is _Phase.READING and room and under_way <= PREFETCH_MESSAGES_MAX // 2:
            batch = PREFETCH_MESSAGES_MAX - under_way
            await self._pull(
                batch,
                _EXPIRES_NS,
                _HEARTBEAT_NS,
                bytes_max=max(_PULL_BYTES_MIN, PREFETCH_BYTES_MAX * batch // PREFETCH_MESSAGES_MAX),
            )

    async def _renew_pin(self) -> None:
        """Show that we are there without taking a message: none fits into one byte."""
        await self._pull(1, _RENEW_EXPIRES_NS, 0, bytes_max=1)

    async def _pull(
        self, batch: int, expires_ns: int, heartbeat_ns: int, bytes_max: int = 0
    ) -> None:
        request: dict[str, int | str] = {
            "batch": batch,
            "expires": expires_ns,
            "group": OWNER_GROUP,
        }
        if heartbeat_ns:
            request["idle_heartbeat"] = heartbeat_ns
        if bytes_max:
            request["max_bytes"] = bytes_max
        if self._pin:
            request["id"] = self._pin
        self._credit += batch
        self._pulled = True
        await self._link.send(self._next_subject, msgspec.json.encode(request), reply=self._inbox)

    async def _tick(self) -> None:
        """Renew the pin and notice silence, until the lease is over."""
        while self._failure is None:
            await asyncio.sleep(_TICK_S)
            self._quiet_ticks += 1
            if self._quiet_ticks > _QUIET_TICKS_MAX:
                quiet_s = self._quiet_ticks * _TICK_S
                self._end(BusUnavailable(f"{self._consumer}: silent for {quiet_s} s"))
                return
            try:
                if self._phase is _Phase.STANDBY:
                    await self._claim_if_idle()
                else:
                    await self._renew()
            except BusUnavailable as error:
                self._end(error)

    async def _renew(self) -> None:
        pulled, self._pulled = self._pulled, False
        if pulled or not self._inbox:
            return
        if self._phase is _Phase.READING:
            await self._prefetch()
        if not self._pulled:
            await self._renew_pin()

    async def _claim_if_idle(self) -> None:
        """Ask for redelivery of the last message if nobody is pinned and nothing is to come.

        Two stand-bys may do it at once; the worst of it is that the one that was pinned first
        finds a hole and begins anew.
        """
        info = await self._ask(f"CONSUMER.INFO.{self._stream}.{self._consumer}", None)
        groups = info.get("priority_groups") or []
        idle = info.get("num_pending") == 0 and info.get("num_ack_pending") == 0
        if not idle or any(group.get("pinned_client_id") for group in groups):
            return
        subject = info["config"]["filter_subject"]
        last = await self._request(f"$JS.API.DIRECT.GET.{self._stream}.{subject}", b"")
        seq = (last.headers or {}).get(_SEQUENCE_HEADER)
        if seq is not None and self._phase is _Phase.STANDBY:
            await self._reset_consumer(int(seq))

    # -- arrivals ---------------------------------------------------------------------------------

    async def _on_message(self, message: Msg) -> None:
        self._quiet_ticks = 0
        reply = message.reply
        if not reply.startswith(_ACK_PREFIX):
            try:
                await self._on_status(status_of(message), message.headers or {})
            except BusUnavailable as error:
                self._end(error)
        elif self._phase is _Phase.READING:
            self._on_delivery(message, reply)
        elif self._phase is _Phase.STANDBY:
            self._on_pinned(message)

    def _on_pinned(self, message: Msg) -> None:
        pin = (message.headers or {}).get(_PIN_HEADER, "")
        if not pin:
            self._end(BusUnavailable(f"{self._consumer} is not a pinned consumer"))
            return
        self._pin = pin
        self._phase = _Phase.PINNED
        self._wake.set()

    def _on_delivery(self, message: Msg, reply: str) -> None:
        # From the end, because a newer server puts two more tokens before the stream's name.
        _, stream_seq, consumer_seq, _, _ = reply.rsplit(".", 4)
        self._credit -= 1
        if int(consumer_seq) != self._delivered + 1:
            self._lose(f"delivery {consumer_seq} follows {self._delivered}")
            return
        self._delivered += 1
        seq = int(stream_seq)
        if seq <= self._seen_seq:
            return  # repeated: it is in the buffer or being worked on
        self._seen_seq = seq
        self._buffer.append(Message(seq, message.subject, message.data, reply))
        self._buffered_bytes += len(message.data)
        self._wake.set()

    async def _on_status(self, status: str, headers: dict[str, str]) -> None:
        description = headers.get(_DESCRIPTION_HEADER, "")
        if status == "100":
            self._on_heartbeat(headers)
        elif status == "408" or (status == "409" and description.lower() in _PULL_ENDS):
            self._credit = max(0, self._credit - int(headers.get(_PENDING_HEADER, "0")))
            await self._pull_again()
        elif status == "404":
            self._credit = 0
            await self._pull_again()
        elif status == "423":
            self._pin = ""
            self._lose("another instance is pinned")
        elif status == "503":
            self._end(BusUnavailable(f"no consumer {self._consumer} on {self._stream}"))
        else:
            self._end(BusUnavailable(f"{self._consumer}: {status} {description}".strip()))

    def _on_heartbeat(self, headers: dict[str, str]) -> None:
        delivered = headers.get(_LAST_CONSUMER_HEADER)
        if self._phase is _Phase.READING and delivered and int(delivered) != self._delivered:
            self._lose(f"the server delivered up to {delivered}, here arrived {self._delivered}")

    async def _pull_again(self) -> None:
        if self._phase is _Phase.STANDBY:
            await self._ask_for_pin()
        else:
            await self._prefetch()

    # -- plumbing ---------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._inbox = self._link.new_inbox()
        self._subscription = await self._link.subscribe(self._inbox, self._on_message)

    async def _stop_listening(self) -> None:
        self._inbox = ""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._link.unsubscribe(subscription)

    async def _reset_consumer(self, start_seq: int) -> None:
        subject = f"CONSUMER.RESET.{self._stream}.{self._consumer}"
        refusal = (await self._ask(subject, {"seq": start_seq})).get("error")
        if refusal is not None:
            raise BusUnavailable(f"{self._consumer} cannot be reset: {refusal['description']}")

    async def _ask(self, subject: str, request: object) -> dict[str, Any]:
        """Ask the server's JSON API; raises BusUnavailable, also when no answer comes."""
        data = b"" if request is None else msgspec.json.encode(request)
        answer = await self._request(f"$JS.API.{subject}", data)
        return msgspec.json.decode(answer.data, type=dict[str, Any])

    async def _request(self, subject: str, data: bytes) -> Msg:
        try:
            return await self._link.request(subject, data, timeout_s=_ASK_TIMEOUT_S)
        except Doubt as error:
            raise BusUnavailable(str(error)) from error

    async def _hand_over(self) -> None:
        """Make what is not acknowledged deliverable again, and give the pin back.

        Nothing depends on it, so no answer is waited for: without it a stand-by takes over when
        the consumer's time-outs have passed.
        """
        consumer = f"{self._stream}.{self._consumer}"
        nobody = self._link.new_inbox()
        unpin = msgspec.json.encode({"group": OWNER_GROUP})
        try:
            await self._link.send(f"$JS.API.CONSUMER.RESET.{consumer}", b"", reply=nobody)
            await self._link.send(f"$JS.API.CONSUMER.UNPIN.{consumer}", unpin, reply=nobody)
        except BusUnavailable:
            get_logger().debug("bus.hand_over_skipped", consumer=self._consumer)

    def _on_link_lost(self, reason: str) -> None:
        self._end(BusUnavailable(f"connection lost: {reason}"))

    def _lose(self, why: str) -> None:
        self._end(LeaseLost(f"{self._consumer} on {self._stream}: {why}"))

    def _end(self, failure: BusError) -> None:
        if self._failure is None:
            self._failure = failure
        self._wake.set()

    def _raise_if_over(self) -> None:
        if self._failure is not None:
            raise self._failure
