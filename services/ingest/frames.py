"""Events to frames: which partition each event goes to, and where one message ends.

A History stands alone in its frame, a Clock goes to every partition, and no encoded frame exceeds
the bus's limit. The order of events within a partition is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from libs.common.codec import FRAME_BYTES_MAX, encode_frame
from libs.common.events import SCHEMA_VERSION, Bar, Clock, Event, Frame, Gap, History, Tick
from libs.common.subjects import partition_of

__all__ = ["Router", "encoded"]


class Router:
    """Splits events by partition, remembering where each ticker goes."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._known: dict[str, int] = {}

    def split(self, events: Iterable[Event]) -> dict[int, list[tuple[Event, ...]]]:
        """Return, per partition touched, groups of events that each make one frame."""
        groups: dict[int, list[list[Event]]] = {}
        for event in events:
            for partition in self._partitions_of(event):
                held = groups.setdefault(partition, [])
                alone = isinstance(event, History)
                if not held or alone or isinstance(held[-1][0], History):
                    held.append([])
                held[-1].append(event)
        return {partition: [tuple(group) for group in held] for partition, held in groups.items()}

    def _partitions_of(self, event: Event) -> Iterable[int]:
        if isinstance(event, Clock):
            return range(self._partitions)
        assert isinstance(event, Tick | Bar | Gap | History)
        partition = self._known.get(event.ticker)
        if partition is None:
            partition = self._known[event.ticker] = partition_of(event.ticker, self._partitions)
        return (partition,)


def encoded(
    events: tuple[Event, ...], *, epoch: int, n: int, sent_ms: int, received_ms: int
) -> list[bytes]:
    """Encode events as the frames n, n + 1, ... as few as the bus's limit allows.

    Raises ValueError when a single event is larger than a frame may be.
    """
    frame = Frame(SCHEMA_VERSION, epoch, n, 0, 0, sent_ms, received_ms, events)
    data = encode_frame(frame)
    if len(data) <= FRAME_BYTES_MAX:
        return [data]
    if len(events) == 1:
        raise ValueError(f"one event of {len(data)} bytes does not fit a frame")
    # Frames of halves: the second half's numbers follow from how many the first one took.
    middle = len(events) // 2
    first = encoded(events[:middle], epoch=epoch, n=n, sent_ms=sent_ms, received_ms=received_ms)
    second = encoded(
        events[middle:], epoch=epoch, n=n + len(first), sent_ms=sent_ms, received_ms=received_ms
    )
    return first + second
