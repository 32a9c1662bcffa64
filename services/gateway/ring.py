"""The newest events of one partition of one stream, so that whoever was away a moment finds them.

Promises:

- every event of this incarnation of the stream with a sequence of at least `oldest_seq` and at most
  `last_seq` is in the ring, once and in order;
- it is bounded by events and by bytes; the newest frame stays whatever its size.

Events are kept by topic, which is what somebody can ask for: ("ticks", "QQQ"), ("candles", "QQQ",
"1m"), ("signals", "QQQ") and ("signals", "*"). A Correction stands in the topics of all timeframes.
The candles that follow it are left out: whoever shows that day has to load it anew, because what is
not among them no longer holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import takewhile

from msgspec import Struct

from libs.common.events import (
    TIMEFRAME_MS,
    Candle,
    Correction,
    Event,
    Frame,
    Signal,
    TickIndicator,
)

__all__ = ["EVENTS_MAX", "EVERY", "Entry", "Ring", "Topic", "topics_of"]

EVENTS_MAX = 20_000
BYTES_MAX = 16 << 20
EVERY = "*"

Topic = tuple[str, ...]


class Entry(Struct, frozen=True, gc=False):
    """An event and the frame that brought it: its sequence, and when its wire frame arrived."""

    seq: int
    received_ms: int
    event: Event


class _Held(Struct, frozen=True, gc=False):
    """What a frame put into the ring, so that it can be taken out again."""

    seq: int
    size_bytes: int
    events: int
    topics: tuple[Topic, ...]


def topics_of(event: Event) -> tuple[Topic, ...]:
    """Return the topics that an event belongs to; none for what nobody can ask for."""
    if type(event) is TickIndicator:
        return (("ticks", event.ticker),)
    if type(event) is Candle:
        return () if event.source == "history" else (("candles", event.ticker, event.timeframe),)
    if type(event) is Correction:
        return tuple(("candles", event.ticker, timeframe) for timeframe in TIMEFRAME_MS)
    if type(event) is Signal:
        return (("signals", event.ticker), ("signals", EVERY))
    return ()


class Ring:
    """The newest frames of one partition; empty, and of no incarnation, until `begin`."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.epoch_ms = 0
        self.oldest_seq = 1
        self.last_seq = 0
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._begin_empty()

    def _begin_empty(self) -> None:
        self._sent: deque[tuple[int, int]] = deque(maxlen=EVENTS_MAX)  # seq, broker time
        self._events = 0
        self._bytes = 0
        self._held: deque[_Held] = deque()
        self._topics: dict[Topic, deque[Entry]] = {}

    def __len__(self) -> int:
        """How many events there are."""
        return self._events

    @property
    def begun(self) -> bool:
        """Whether it is known which incarnation of the stream this is."""
        return self.epoch_ms > 0

    def begin(self, epoch_ms: int, start_seq: int) -> None:
        """Forget everything; what comes is of this incarnation, and complete from `start_seq`."""
        self.epoch_ms = epoch_ms
        self.oldest_seq = start_seq
        self.last_seq = start_seq - 1
        self._begin_empty()

    def add(self, seq: int, frame: Frame, size_bytes: int) -> None:
        """Take the next frame in; its sequence is higher than all before."""
        self.last_seq = seq
        self._sent.append((seq, frame.sent_ms))
        topics: dict[Topic, None] = {}
        events = 0
        for event in frame.events:
            found = topics_of(event)
            if not found:
                continue
            events += 1
            entry = Entry(seq, frame.received_ms, event)
            for topic in found:
                topics[topic] = None
                self._topics.setdefault(topic, deque()).append(entry)
        if events:
            self._held.append(_Held(seq, size_bytes, events, tuple(topics)))
            self._events += events
            self._bytes += size_bytes
        while len(self._held) > 1 and not self._fits():
            self._drop(self._held.popleft())

    def reaches(self, seq: int) -> bool:
        """Whether every event after `seq` is here, or still to come."""
        return seq >= self.oldest_seq - 1

    def sent_ms(self, seq: int) -> int:
        """Return the broker's time up to which a frame goes; 0 if it is not known here."""
        return next((sent_ms for known, sent_ms in reversed(self._sent) if known <= seq), 0)

    def since(self, topic: Topic, seq: int) -> list[Entry]:
        """Return the topic's events after `seq`, in order."""
        found = list(takewhile(lambda entry: entry.seq > seq, self._newest_first(topic)))
        found.reverse()
        return found

    def _newest_first(self, topic: Topic) -> Iterator[Entry]:
        return reversed(self._topics.get(topic, ()))

    def _fits(self) -> bool:
        return self._events <= self._events_max and self._bytes <= self._bytes_max

    def _drop(self, held: _Held) -> None:
        self.oldest_seq = held.seq + 1
        self._events -= held.events
        self._bytes -= held.size_bytes
        for topic in held.topics:
            entries = self._topics[topic]
            while entries and entries[0].seq <= held.seq:
                entries.popleft()
            if not entries:
                del self._topics[topic]
