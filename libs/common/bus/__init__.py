"""The bus as the services see it; `nats` and `memory` implement it and pass one contract suite.

What every implementation promises:

- `publish` stores a message only if the subject's last sequence is the expected one, and returns
  the new sequence once the message is durable. A conflict is `Fenced`; an answer that does not
  come is `Doubt`, because the message may have been stored. The caller then reloads from the
  streams: there is no other recovery.
- `last` returns the newest message of a subject, including one acknowledged a moment ago; `read`
  goes through what is stored one by one, for who needs its own few messages again, and `read_many`
  does so in batches.
- A `Lease` is one partition of one durable consumer, owned by at most one instance as long as all
  goes well. It delivers in stream order, from where it was reset to, without a hole, or raises. It
  is no proof of exclusivity: the fence in `publish` is.
- `publish_live` is at most once and never blocks on a subscriber.

Concurrency: one task uses one lease; everything else may be used from any task of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

__all__ = ["Bus", "Lease", "Message", "Stored", "StreamState"]


class Stored(Struct, frozen=True):
    """A message as the stream holds it."""

    seq: int
    data: bytes


class Message(Struct, frozen=True):
    """A delivered message; `reply` is what acknowledges it and concerns only the bus."""

    seq: int
    subject: str
    data: bytes
    reply: str = ""


class StreamState(Struct, frozen=True):
    """A stream's incarnation and bounds; an empty stream has `first_seq == last_seq + 1`.

    `messages` is how many there are by the server's books: fewer than the bounds say if some in
    between are gone. No message grows older than `age_ms_max`; 0 means that age takes none. When
    `bytes_held` reaches `bytes_max` the stream refuses, or drops its oldest; 0 means no bound.
    """

    name: str
    created_ms: int
    first_seq: int
    last_seq: int
    messages: int
    bytes_held: int
    bytes_max: int
    age_ms_max: int
    metadata: Mapping[str, str]


class Lease(Protocol):
    """A partition that this instance owns for now."""

    async def reset(self, start_seq: int) -> None:
        """Deliver from `start_seq` on; what was in flight before is dropped.

        Raises LeaseLost or BusUnavailable.
        """
        ...

    async def receive(self, *, frames_max: int, wait_s: float) -> Sequence[Message]:
        """Return the next messages in order, at least one unless `wait_s` passes without any.

        Raises LeaseLost when the server gave the partition away or a message is missing in between,
        BusUnavailable when the server went silent.
        """
        ...

    async def ack(self, message: Message) -> None:
        """Confirm this message and all before it; needs no answer from the server."""
        ...


class Bus(Protocol):
    """A connection to the bus."""

    @property
    def connected(self) -> bool:
        """Whether the server answered last time."""
        ...

    async def stream(self, name: str) -> StreamState:
        """Return a stream's state; raises BusUnavailable when it or the server is not there."""
        ...

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message of `subject` or None; raises BusUnavailable."""
        ...

    async def read(self, stream: str, subject: str, *, start_seq: int) -> Stored | None:
        """Return the first message of `subject` from `start_seq` on; raises BusUnavailable."""
        ...

    async def read_many(
        self, stream: str, subject: str, *, start_seq: int, messages_max: int, bytes_max: int
    ) -> Sequence[Stored]:
        """Return the next messages of `subject` from `start_seq` on, in order; none at the end.

        There are at most `messages_max`, and no more once `bytes_max` is reached. A message that
        the server has and cannot read is left out in silence. Raises BusUnavailable.
        """
        ...

    async def publish(self, subject: str, data: bytes, *, expected_last_seq: int) -> int:
        """Store `data` durably if `subject`'s last sequence is `expected_last_seq` (0: none yet).

        Returns its sequence. Raises Fenced, Doubt, StreamFull, or BusUnavailable when nothing was
        sent.
        """
        ...

    async def append(self, subject: str, data: bytes, *, message_id: str = "") -> int:
        """Store `data` durably without a fence; raises as `publish` does.

        A `message_id` that the stream got before, two minutes ago at most, stores nothing: the
        sequence of then is returned.
        """
        ...

    def lease(self, stream: str, consumer: str) -> AbstractAsyncContextManager[Lease]:
        """Stand by until the server makes this instance the owner, then hold the partition."""
        ...

    async def publish_live(self, subject: str, data: bytes) -> None:
        """Send to whoever listens now; dropped while disconnected."""
        ...

    async def listen(self, subject: str, take: Callable[[bytes], None]) -> None:
        """Call `take` with each live message on `subject` from now on, until closed.

        At most once: what is sent while disconnected is not heard. `take` must return at once and
        raise nothing.
        """
        ...

    async def close(self) -> None:
        """Flush what was sent and disconnect."""
        ...
