"""SMA9 crosses the session's VWAP.

The relation is above or below; equal values keep the last one, so flat prices never cross. The
first relation of a session is the baseline, only a change of it is a signal. So directions
alternate.
"""

from __future__ import annotations

from typing import cast

from libs.common.events import Direction
from services.signals.rules import Memory, Sample

__all__ = ["Cross", "make"]


class Cross:
    """Remembers the last relation: `up` when sma9 is above vwap, `down` when below."""

    __slots__ = ("_relation",)

    def __init__(self) -> None:
        self._relation: Direction | None = None

    def update(self, sample: Sample) -> Direction | None:
        """Return the new relation if it changed."""
        if sample.sma9 == sample.vwap:
            return None
        before = self._relation
        now: Direction = "up" if sample.sma9 > sample.vwap else "down"
        self._relation = now
        return now if before is not None and before != now else None

    def snapshot(self) -> Memory:
        """Return the relation."""
        return self._relation

    def restore(self, memory: Memory) -> None:
        """Take up a relation."""
        self._relation = cast("Direction | None", memory)


def make() -> Cross:
    """Build the rule."""
    return Cross()
