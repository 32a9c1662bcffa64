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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from libs.common.bus import Lease, Stored, StreamState
from libs.common.bus.memory_consumer import MemoryConsumer, MemoryLease, TimeOuts
from libs.common.bus.memory_stream import MemoryStream, matches
from libs.common.bus.topology import Topology
from libs.common.clock import Clock, SystemClock
from libs.common.codec import FRAME_BYTES_MAX
from libs.common.errors import BusError, BusUnavailable, Doubt

__all__ = ["LIVE_MESSAGES_MAX", "LiveMessages", "MemoryBus", "MemoryServer"]

# A subscriber that does not read loses its oldest messages beyond this many.
LIVE_MESSAGES_MAX = 100_000
PIN_TIMEOUT_S = 0.02
ACK_WAIT_S = 0.03


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
        self._time_outs = TimeOuts(pin_timeout_s, ack_wait_s)
        self.up = True
        self._clock = clock or SystemClock()
        self._metadata = dict(topology.metadata)
        self._plans = {plan.name: plan for plan in topology.streams}
        self._streams: dict[str, MemoryStream] = {}
        self._consumers: dict[tuple[str, str], MemoryConsumer] = {}
        self._consumer_plans = topology.consumers
        self._clients: set[MemoryBus] = set()
        self._subscribers: list[LiveMessages] = []
        self._listeners: list[tuple[MemoryBus, str, Callable[[bytes], None]]] = []
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
                self._consumers[name, plan.name] = MemoryConsumer(plan, stream, self._time_outs)

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
            name,
            stream.created_ms,
            stream.first_seq,
            stream.last_seq,
            stream.messages,
            stream.bytes_held,
            stream.plan.bytes_max,
            stream.plan.age_ms_max,
            stream.metadata,
        )

    def store(
        self, subject: str, data: bytes, expected_last_seq: int | None, message_id: str = ""
    ) -> int:
        """Store and wake whoever waits for it; raises as `Bus.publish` does."""
        for stream in self._streams.values():
            if stream.takes(subject):
                seq = stream.store(subject, data, expected_last_seq, message_id)
                for consumer in self._consumers.values():
                    if consumer.stream is stream and consumer.plan.subject == subject:
                        consumer.pump()
                return seq
        raise BusUnavailable(f"nobody answers on {subject}: no such stream")

    def consumer(self, stream: str, name: str) -> MemoryConsumer:
        """Return a consumer; raises BusUnavailable."""
        if (stream, name) not in self._consumers:
            raise BusUnavailable(f"no consumer {name} on {stream}")
        return self._consumers[stream, name]

    def fan_out(self, subject: str, data: bytes) -> None:
        """Hand a live message to whoever listens."""
        for subscriber in self._subscribers:
            if matches(subscriber.pattern, subject):
                subscriber.add(subject, data)
        for bus, wanted, take in tuple(self._listeners):
            if bus.connected and matches(wanted, subject):
                take(data)

    def listen(self, bus: MemoryBus, subject: str, take: Callable[[bytes], None]) -> None:
        """Hand live messages to a client."""
        self._listeners.append((bus, subject, take))

    def forget(self, bus: MemoryBus) -> None:
        """Drop a client."""
        self._clients.discard(bus)
        self._listeners = [each for each in self._listeners if each[0] is not bus]


class MemoryBus:
    """A client of a `MemoryServer`; implements `bus.Bus`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._gone = False
        self._leases: set[MemoryLease] = set()
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

    async def read_many(
        self, stream: str, subject: str, *, start_seq: int, messages_max: int, bytes_max: int
    ) -> Sequence[Stored]:
        """Return the next messages of `subject` from `start_seq` on; see `bus.Bus`."""
        await self._cross()
        found: list[Stored] = []
        for stored in self._server.stream(stream).from_seq(subject, start_seq, messages_max):
            found.append(stored)
            bytes_max -= len(stored.data)
            if bytes_max <= 0:
                break
        return found

    async def publish(self, subject: str, data: bytes, *, expected_last_seq: int) -> int:
        """Store `data` if the subject's last sequence is the expected one; see `bus.Bus`."""
        return await self._store(subject, data, expected_last_seq)

    async def append(self, subject: str, data: bytes, *, message_id: str = "") -> int:
        """Store `data` without a fence; see `bus.Bus`."""
        return await self._store(subject, data, None, message_id)

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

    async def listen(self, subject: str, take: Callable[[bytes], None]) -> None:
        """Call `take` with each live message from now on; see `bus.Bus`."""
        self._server.listen(self, subject, take)

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

    async def _store(
        self, subject: str, data: bytes, expected_last_seq: int | None, message_id: str = ""
    ) -> int:
        if len(data) > FRAME_BYTES_MAX:
            raise ValueError(
                f"{len(data)} bytes for {subject}: a message holds at most {FRAME_BYTES_MAX}"
            )
        await self._cross()
        if self._answers_to_lose:
            if self._answers_to_lose.popleft():
                with suppress(BusError):  # the answer that gets lost may be a refusal
                    self._server.store(subject, data, expected_last_seq, message_id)
            raise Doubt(f"no answer on {subject}")
        seq = self._server.store(subject, data, expected_last_seq, message_id)
        await asyncio.sleep(0)
        if not self.connected:
            raise Doubt(f"connection lost while waiting for an answer on {subject}")
        return seq

    async def _stand_by(self, stream: str, consumer: str) -> MemoryLease:
        while True:
            await self._up.wait()
            await asyncio.sleep(0)
            if not self.connected:
                continue
            try:
                lease = MemoryLease(self._server.consumer(stream, consumer), self._leases)
            except BusUnavailable:
                await asyncio.sleep(PIN_TIMEOUT_S)
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
