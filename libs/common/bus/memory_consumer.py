"""One pinned consumer of the in-memory bus, and the leases that wait for it or hold it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from libs.common.bus import Message, Stored
from libs.common.bus.memory_stream import MemoryStream
from libs.common.bus.topology import ACK_PENDING_MAX, ConsumerPlan
from libs.common.errors import BusError, LeaseLost

__all__ = ["MemoryConsumer", "MemoryLease", "TimeOuts"]


class TimeOuts(Struct, frozen=True):
    """How long the server waits for an owner that is gone, and for an acknowledgement."""

    pin_s: float
    ack_wait_s: float


class MemoryConsumer:
    """Who is pinned, what was delivered, what was acknowledged."""

    def __init__(self, plan: ConsumerPlan, stream: MemoryStream, time_outs: TimeOuts) -> None:
        self.plan = plan
        self.stream = stream
        self.pinned: MemoryLease | None = None
        self.waiting: deque[MemoryLease] = deque()
        self.generation = 0  # counts resets: whoever reads on from before one has a hole
        self.next_seq = 1
        self.pending: dict[int, float] = {}  # sequence -> when it is to be delivered again
        self.time_outs = time_outs

    def reset(self, start_seq: int) -> None:
        """Deliver from `start_seq` on, and forget what was delivered."""
        self.generation += 1
        self.next_seq = start_seq
        self.pending.clear()

    def deliver(self, count_max: int) -> Sequence[Stored]:
        """Return the next messages, which are pending from then on."""
        room = ACK_PENDING_MAX - len(self.pending)
        found = self.stream.from_seq(self.plan.subject, self.next_seq, min(count_max, room))
        redeliver_s = asyncio.get_running_loop().time() + self.time_outs.ack_wait_s
        for stored in found:
            self.pending[stored.seq] = redeliver_s
            self.next_seq = stored.seq + 1
        return found

    def ack(self, seq: int) -> None:
        """Take a message and all before it as done."""
        for pending_seq in [each for each in self.pending if each <= seq]:
            del self.pending[pending_seq]

    def hand_over(self) -> None:
        """Make what is not acknowledged deliverable again, and free the pin."""
        if self.pending:
            self.reset(min(self.pending))
        self.unpin()

    def unpin(self) -> None:
        """Free the pin for whoever stands by."""
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

    def claim_if_idle(self) -> None:
        """Let a stand-by have a partition without owner and without work, as on NATS."""
        last = self.stream.last(self.plan.subject)
        if self.pinned is None and not self.pending and last is not None and not self._has_work():
            self.reset(last.seq)
            self.pump()

    def owner_vanished(self) -> None:
        """Notice by time-outs, as the server would: first the pin, then the acknowledgements."""
        loop = asyncio.get_running_loop()
        gone = self.pinned
        loop.call_later(self.time_outs.pin_s, self._pin_expired, gone)
        overdue_s = self.time_outs.pin_s + self.time_outs.ack_wait_s
        loop.call_later(overdue_s, self.pump)

    def _pin_expired(self, lease: MemoryLease | None) -> None:
        if self.pinned is lease:
            self.unpin()


class MemoryLease:
    """One partition held by one client; implements `bus.Lease`."""

    def __init__(self, consumer: MemoryConsumer, held: set[MemoryLease]) -> None:
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
            with suppress(TimeoutError):
                async with asyncio.timeout(self._consumer.time_outs.pin_s):
                    await self._wake.wait()
            self._wake.clear()
            if self.failure is not None:
                raise self.failure
            self._consumer.claim_if_idle()

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
