"""The bus inside one process: a server with streams, fences and pinned consumers, and its clients.

Same promises as on NATS, tested by the same contract suite, with time-outs a hundred times shorter.
Tests and replays use it. What differs, on purpose: nothing survives the process, and messages do
not age.

Faults are part of it, because recovery is what most needs testing: a server stops and starts
(`MemoryServer.stop`, `start`), a client dies without a goodbye (`MemoryBus.kill`), an answer to a
publish gets lost (`MemoryBus.lose_next_answer`), a pin or a position is taken away (`unpin`,
`rewind`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from libs.common.bus import Lease, Message, Stored, StreamState
from libs.common.bus.memory_stream import MemoryStream, matches
from libs.common.bus.topology import ACK_PENDING_MAX, ConsumerPlan, Topology
from libs.common.clock import Clock, SystemClock
from libs.common.codec import FRAME_BYTES_MAX
from libs.common.errors import BusError, BusUnavailable, Doubt, LeaseLost

__all__ = ["LIVE_MESSAGES_MAX", "LiveMessages", "MemoryBus", "MemoryServer"]

# A subscriber that does not read loses its oldest messages beyond this many.
LIVE_MESSAGES_MAX = 100_000
PIN_TIMEOUT_S = 0.02
ACK_WAIT_S = 0.03


class _Consumer:
    """Who is pinned, what was delivered, what was acknowledged."""

    def __init__(self, plan: ConsumerPlan, stream: MemoryStream, server: MemoryServer) -> None:
        self.plan = plan
        self.stream = stream
        self.pinned: _MemoryLease | None = None
        self.waiting: deque[_MemoryLease] = deque()
        self.generation = 0  # counts resets: whoever reads on from before one has a hole
        self.next_seq = 1
        self.pending: dict[int, float] = {}  # sequence -> when it is to be delivered again
        self._server = server

    def reset(self, start_seq: int) -> None:
        self.generation += 1
        self.next_seq = start_seq
        self.pending.clear()

    def deliver(self, count_max: int) -> Sequence[Stored]:
        room = ACK_PENDING_MAX - len(self.pending)
        found = self.stream.from_seq(self.plan.subject, self.next_seq, min(count_max, room))
        redeliver_s = asyncio.get_running_loop().time() + self._server.ack_wait_s
        for stored in found:
            self.pending[stored.seq] = redeliver_s
            self.next_seq = stored.seq + 1
        return found

    def ack(self, seq: int) -> None:
        for pending_seq in [each for each in self.pending if each <= seq]:
            del self.pending[pending_seq]

    def hand_over(self) -> None:
        """Make what is not acknowledged deliverable again, and free the pin."""
        if self.pending:
            self.reset(min(self.pending))
        self.unpin()

    def unpin(self) -> None:
        self.pinned = None
        self.pump()

    def pump(self) -> None:
        """Wake the owner, or pin a stand-by if there is something to deliver."""
        if self.pinned is not None:
            self.pinned.wake()
            return
        while self.waiting and self._has_work():
            lease = self.waiting.popleft()
            if lease.failure is None:
                self.pinned = lease
                self.deliver(1)  # thrown away, as on NATS; the reset brings it back
                lease.wake()
                return

    def _has_work(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        if any(due_s <= now_s for due_s in self.pending.values()):
            return True
        return bool(self.stream.from_seq(self.plan.subject, self.next_seq, 1))

    def owner_vanished(self) -> None:
        """Notice by time-outs, as the server would: first the pin, then the acknowledgements."""
        loop = asyncio.get_running_loop()
        gone = self.pinned
        loop.call_later(self._server.pin_timeout_s, self._pin_expired, gone)
        overdue_s = self._server.pin_timeout_s + self._server.ack_wait_s
        loop.call_later(overdue_s, self.pump)

    def _pin_expired(self, lease: _MemoryLease | None) -> None:
        if self.pinned is lease:
            self.unpin()


class LiveMessages:
    """What a subscriber received and has not taken yet, oldest first."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._messages: deque[tuple[str, bytes]] = deque(maxlen=LIVE_MESSAGES_MAX)
        self._arrived = asyncio.Event()

    def add(self, subject: str, data: bytes) -> None:
        """Take a message in."""
        self._messages.append((subject, data))
        self._arrived.set()

    def take_all(self) -> list[tuple[str, bytes]]:
        """Return and forget all subjects and payloads so far."""
        taken = list(self._messages)
        self._messages.clear()
        self._arrived.clear()
        return taken

    async def take(self) -> tuple[str, bytes]:
        """Wait for the next subject and payload."""
        while not self._messages:
            self._arrived.clear()
            await self._arrived.wait()
        return self._messages.popleft()


class MemoryServer:
    """The streams and consumers of a topology, for any number of clients in one event loop."""

    def __init__(
        self,
        topology: Topology,
        *,
        clock: Clock | None = None,
        pin_timeout_s: float = PIN_TIMEOUT_S,
        ack_wait_s: float = ACK_WAIT_S,
    ) -> None:
        self.pin_timeout_s = pin_timeout_s
        self.ack_wait_s = ack_wait_s
        self.up = True
        self._clock = clock or SystemClock()
        self._metadata = dict(topology.metadata)
        self._plans = {plan.name: plan for plan in topology.streams}
        self._streams: dict[str, MemoryStream] = {}
        self._consumers: dict[tuple[str, str], _Consumer] = {}
        self._consumer_plans = topology.consumers
        self._clients: set[MemoryBus] = set()
        self._subscribers: list[LiveMessages] = []
        for name in self._plans:
            self.recreate(name)

    def connect(self) -> MemoryBus:
        """Return a new client."""
        bus = MemoryBus(self)
        self._clients.add(bus)
        return bus

    @contextmanager
    def subscribe(self, pattern: str) -> Iterator[LiveMessages]:
        """Listen to live messages, as someone outside would."""
        messages = LiveMessages(pattern)
        self._subscribers.append(messages)
        try:
            yield messages
        finally:
            self._subscribers.remove(messages)

    # -- what may happen to a server --------------------------------------------------------------

    def stop(self) -> None:
        """Go away; what was stored stays, pins and connections do not."""
        self.up = False
        for client in self._clients:
            client.drop_connection("the server stopped")
        for consumer in self._consumers.values():
            consumer.pinned = None
            consumer.waiting.clear()

    def start(self) -> None:
        """Come back; what was delivered and not acknowledged is deliverable again."""
        self.up = True
        for consumer in self._consumers.values():
            consumer.hand_over()
        for client in self._clients:
            client.restore_connection()

    def recreate(self, name: str) -> None:
        """Make a stream anew, and empty; its consumers begin again."""
        older = self._streams.get(name)
        created_ms = self._clock.now_ms()
        if older is not None:
            created_ms = max(created_ms, older.created_ms + 1)
        stream = MemoryStream(self._plans[name], self._metadata, created_ms)
        self._streams[name] = stream
        for plan in self._consumer_plans:
            if plan.stream == name:
                self._consumers[name, plan.name] = _Consumer(plan, stream, self)

    def unpin(self, stream: str, consumer: str) -> None:
        """Take a consumer's pin away from its owner, as when the owner had been silent."""
        self.consumer(stream, consumer).unpin()

    def rewind(self, stream: str, consumer: str, start_seq: int) -> None:
        """Reset a consumer behind its owner's back."""
        found = self.consumer(stream, consumer)
        found.reset(start_seq)
        found.pump()

    # -- what clients ask for ---------------------------------------------------------------------

    def stream(self, name: str) -> MemoryStream:
        """Return a stream; raises BusUnavailable."""
        if name not in self._streams:
            raise BusUnavailable(f"stream {name}: stream not found")
        return self._streams[name]

    def state(self, name: str) -> StreamState:
        """Describe a stream; raises BusUnavailable."""
        stream = self.stream(name)
        return StreamState(
            name, stream.created_ms, stream.first_seq, stream.last_seq, stream.metadata
        )

    def store(self, subject: str, data: bytes, expected_last_seq: int | None) -> int:
        """Store and wake whoever waits for it; raises as `Bus.publish` does."""
        for stream in self._streams.values():
            if stream.takes(subject):
                seq = stream.store(subject, data, expected_last_seq)
                for consumer in self._consumers.values():
                    if consumer.stream is stream and consumer.plan.subject == subject:
                        consumer.pump()
                return seq
        raise BusUnavailable(f"nobody answers on {subject}: no such stream")

    def consumer(self, stream: str, name: str) -> _Consumer:
        """Return a consumer; raises BusUnavailable."""
        if (stream, name) not in self._consumers:
            raise BusUnavailable(f"no consumer {name} on {stream}")
        return self._consumers[stream, name]

    def fan_out(self, subject: str, data: bytes) -> None:
        """Hand a live message to whoever listens."""
        for subscriber in self._subscribers:
            if matches(subscriber.pattern, subject):
                subscriber.add(subject, data)

    def forget(self, bus: MemoryBus) -> None:
        """Drop a client."""
        self._clients.discard(bus)


class MemoryBus:
    """A client of a `MemoryServer`; implements `bus.Bus`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._gone = False
        self._leases: set[_MemoryLease] = set()
        self._answers_to_lose: deque[bool] = deque()
        self._up = asyncio.Event()
        self.restore_connection()

    @property
    def connected(self) -> bool:
        """Whether the server is there for this client."""
        return self._server.up and not self._gone

    async def stream(self, name: str) -> StreamState:
        """Return a stream's state; see `bus.Bus`."""
        await self._cross()
        return self._server.state(name)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message of `subject` or None; see `bus.Bus`."""
        await self._cross()
        return self._server.stream(stream).last(subject)

    async def read(self, stream: str, subject: str, *, start_seq: int) -> Stored | None:
        """Return the first message of `subject` from `start_seq` on; see `bus.Bus`."""
        await self._cross()
        found = self._server.stream(stream).from_seq(subject, start_seq, 1)
        return found[0] if found else None

    async def publish(self, subject: str, data: bytes, *, expected_last_seq: int) -> int:
        """Store `data` if the subject's last sequence is the expected one; see `bus.Bus`."""
        return await self._store(subject, data, expected_last_seq)

    async def append(self, subject: str, data: bytes) -> int:
        """Store `data` without a fence; see `bus.Bus`."""
        return await self._store(subject, data, None)

    @asynccontextmanager
    async def lease(self, stream: str, consumer: str) -> AsyncIterator[Lease]:
        """Stand by until this client is pinned, then hold the partition."""
        lease = await self._stand_by(stream, consumer)
        try:
            yield lease
        finally:
            lease.release()

    async def publish_live(self, subject: str, data: bytes) -> None:
        """Send to whoever listens now; dropped while disconnected."""
        if self.connected:
            self._server.fan_out(subject, data)

    async def close(self) -> None:
        """Disconnect, giving back what is held."""
        for lease in tuple(self._leases):
            lease.release()
        self.kill()

    # -- what may happen to a client --------------------------------------------------------------

    def kill(self) -> None:
        """Die without a goodbye: the server learns of it by time-outs only."""
        self._gone = True
        self._server.forget(self)
        self.drop_connection("killed")

    def lose_next_answer(self, *, stored: bool) -> None:
        """Let a publish end in Doubt, with the message stored or not; one call per publish."""
        self._answers_to_lose.append(stored)

    def drop_connection(self, reason: str) -> None:
        """Fail every lease; the bus comes back with the server unless it was killed."""
        self._up.clear()
        for lease in tuple(self._leases):
            lease.vanish(BusUnavailable(f"connection lost: {reason}"))

    def restore_connection(self) -> None:
        """Connect again."""
        if self.connected:
            self._up.set()

    # -- plumbing ---------------------------------------------------------------------------------

    async def _cross(self) -> None:
        """Let others run, as any call over a network does; raises BusUnavailable."""
        if not self.connected:
            raise BusUnavailable("not connected")
        await asyncio.sleep(0)
        if not self.connected:
            raise BusUnavailable("connection lost")

    async def _store(self, subject: str, data: bytes, expected_last_seq: int | None) -> int:
        if len(data) > FRAME_BYTES_MAX:
            raise ValueError(
                f"{len(data)} bytes for {subject}: a message holds at most {FRAME_BYTES_MAX}"
            )
        await self._cross()
        if self._answers_to_lose:
            if self._answers_to_lose.popleft():
                with suppress(BusError):  # the answer that gets lost may be a refusal
                    self._server.store(subject, data, expected_last_seq)
            raise Doubt(f"no answer on {subject}")
        seq = self._server.store(subject, data, expected_last_seq)
        await asyncio.sleep(0)
        if not self.connected:
            raise Doubt(f"connection lost while waiting for an answer on {subject}")
        return seq

    async def _stand_by(self, stream: str, consumer: str) -> _MemoryLease:
        while True:
            await self._up.wait()
            await asyncio.sleep(0)
            if not self.connected:
                continue
            try:
                lease = _MemoryLease(self._server.consumer(stream, consumer), self._leases)
            except BusUnavailable:
                await asyncio.sleep(self._server.pin_timeout_s)
                continue
            try:
                await lease.stand_by()
            except BusError:
                lease.release()
            except BaseException:
                lease.release()
                raise
            else:
                return lease


class _MemoryLease:
    """One partition held by one client; implements `bus.Lease`."""

    def __init__(self, consumer: _Consumer, held: set[_MemoryLease]) -> None:
        self.failure: BusError | None = None
        self._consumer = consumer
        self._held = held
        self._wake = asyncio.Event()
        self._generation: int | None = None
        held.add(self)

    async def stand_by(self) -> None:
        """Return when pinned; raises BusUnavailable when the connection is lost."""
        self._consumer.waiting.append(self)
        self._consumer.pump()
        while self._consumer.pinned is not self:
            await self._wake.wait()
            self._wake.clear()
            if self.failure is not None:
                raise self.failure

    async def reset(self, start_seq: int) -> None:
        """Deliver from `start_seq` on; see `bus.Lease`."""
        if start_seq < 1:
            raise ValueError(f"sequences begin at 1, not at {start_seq}")
        self._raise_if_over()
        await asyncio.sleep(0)
        self._raise_if_over()
        self._consumer.reset(start_seq)
        self._generation = self._consumer.generation

    async def receive(self, *, frames_max: int, wait_s: float) -> Sequence[Message]:
        """Return the next messages in order; see `bus.Lease`."""
        if self._generation is None:
            raise RuntimeError("reset the lease before receiving")
        await asyncio.sleep(0)
        self._raise_if_over()
        messages = self._deliver(frames_max)
        if not messages:
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                return ()
            self._raise_if_over()
            messages = self._deliver(frames_max)
        return messages

    async def ack(self, message: Message) -> None:
        """Confirm this message and all before it."""
        if self.failure is None:
            self._consumer.ack(message.seq)

    def release(self) -> None:
        """Give the partition back to whoever stands by."""
        self.failure = self.failure or LeaseLost("released")
        # Cut off, it cannot say so: the server has to find out.
        if self in self._held and self._consumer.pinned is self:
            self._consumer.hand_over()
        self._held.discard(self)

    def vanish(self, failure: BusError) -> None:
        """Be cut off from the server, which has not noticed yet."""
        self._held.discard(self)
        if self.failure is None:
            self.failure = failure
            if self._consumer.pinned is self:
                self._consumer.owner_vanished()
        self._wake.set()

    def wake(self) -> None:
        """Look again: something may have arrived, or the pin is ours."""
        self._wake.set()

    def _deliver(self, count_max: int) -> list[Message]:
        consumer = self._consumer
        return [
            Message(stored.seq, consumer.plan.subject, stored.data)
            for stored in consumer.deliver(count_max)
        ]

    def _raise_if_over(self) -> None:
        if self.failure is not None:
            raise self.failure
        name = self._consumer.plan.name
        if self._consumer.pinned is not self:
            self.failure = LeaseLost(f"{name}: another instance is pinned")
        elif self._generation not in (None, self._consumer.generation):
            self.failure = LeaseLost(f"{name}: the consumer was reset by another instance")
        if self.failure is not None:
            raise self.failure
