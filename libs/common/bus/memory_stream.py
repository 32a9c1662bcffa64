"""One stream of the in-memory bus: bounded, fenced, ordered; plain data without any waiting."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from libs.common.bus import Stored
from libs.common.bus.topology import StreamPlan
from libs.common.errors import Fenced, StreamFull

__all__ = ["MemoryStream", "matches"]

# What the store needs for a message besides its data and subject.
_OVERHEAD_BYTES = 34
_ONE: Final = "*"
_REST: Final = ">"


def matches(pattern: str, subject: str) -> bool:
    """Tell whether a subject fits a pattern with `*` for one token and `>` for all that follow."""
    wanted, given = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == _REST:
            return len(given) > place
        if place >= len(given) or token not in (_ONE, given[place]):
            return False
    return len(wanted) == len(given)


class MemoryStream:
    """Messages in order, and by subject."""

    def __init__(self, plan: StreamPlan, metadata: Mapping[str, str], created_ms: int) -> None:
        self.plan = plan
        self.metadata = metadata
        self.created_ms = created_ms
        self.last_seq = 0
        self._bytes = 0
        self._order: deque[tuple[int, str]] = deque()
        self._by_subject: dict[str, list[Stored]] = {}
        self._by_id: dict[str, int] = {}
        self._evicted: set[int] = set()  # sequences still in `_order` that are gone

    def takes(self, subject: str) -> bool:
        """Tell whether this stream stores what is published on `subject`."""
        return any(matches(pattern, subject) for pattern in self.plan.subjects)

    @property
    def first_seq(self) -> int:
        """The sequence of the oldest message, or of the next one when there is none."""
        return self._order[0][0] if self._order else self.last_seq + 1

    @property
    def messages(self) -> int:
        """How many messages there are."""
        return len(self._order) - len(self._evicted)

    @property
    def bytes_held(self) -> int:
        """How many bytes they are, with what each costs besides."""
        return self._bytes

    def last(self, subject: str) -> Stored | None:
        """Return the newest message of a subject."""
        messages = self._by_subject.get(subject)
        return messages[-1] if messages else None

    def from_seq(self, subject: str, seq: int, count_max: int) -> Sequence[Stored]:
        """Return the first messages of a subject from `seq` on."""
        messages = self._by_subject.get(subject, [])
        begin = bisect_left(messages, seq, key=lambda stored: stored.seq)
        return messages[begin : begin + count_max]

    def store(
        self, subject: str, data: bytes, expected_last_seq: int | None, message_id: str = ""
    ) -> int:
        """Store and return the sequence; raises Fenced or StreamFull.

        An id that was there before stores nothing, however long ago it was.
        """
        if message_id in self._by_id:
            return self._by_id[message_id]
        if expected_last_seq is not None:
            last = self.last(subject)
            last_seq = last.seq if last is not None else 0
            if last_seq != expected_last_seq:
                raise Fenced(f"{subject}: wrong last sequence: {last_seq}")
        size = _size(subject, data)
        if self.plan.discard == "new" and self._bytes + size > self.plan.bytes_max:
            raise StreamFull(f"{subject}: maximum bytes exceeded")
        self.last_seq += 1
        messages = self._by_subject.setdefault(subject, [])
        messages.append(Stored(self.last_seq, data))
        self._order.append((self.last_seq, subject))
        self._bytes += size
        if 0 < self.plan.per_subject_max < len(messages):
            self._evict(subject)
        while self._bytes > self.plan.bytes_max:
            self._evict(self._order[0][1])
        if message_id:
            self._by_id[message_id] = self.last_seq
        return self.last_seq

    # -- what may happen to a stream -------------------------------------------------------------

    def drop_oldest(self, subject: str) -> None:
        """Lose the oldest message of a subject, as by age."""
        self._evict(subject)

    def drop_newest(self, subject: str) -> None:
        """Lose the newest message of a subject, as by a damaged file."""
        gone = self._by_subject[subject].pop()
        self._bytes -= _size(subject, gone.data)
        self._order.remove((gone.seq, subject))

    def _evict(self, subject: str) -> None:
        """Drop the oldest message of a subject."""
        gone = self._by_subject[subject].pop(0)
        self._bytes -= _size(subject, gone.data)
        self._evicted.add(gone.seq)
        while self._order and self._order[0][0] in self._evicted:
            self._evicted.discard(self._order.popleft()[0])


def _size(subject: str, data: bytes) -> int:
    return len(subject) + len(data) + _OVERHEAD_BYTES
