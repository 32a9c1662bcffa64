"""Time: the only module that may ask the operating system for it.

Logic runs on event time, which travels inside frames. The wall clock serves latencies, time-outs
and log lines; code that needs it takes a `Clock`, so that a test can hand in its own.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Wall clock in epoch milliseconds (UTC)."""

    def now_ms(self) -> int:
        """Return the current time in epoch milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return the current time in epoch milliseconds."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when it is told to; for tests and replays."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Return the time last set."""
        return self._now_ms

    def advance(self, by_ms: int) -> None:
        """Move forward by `by_ms` milliseconds; a clock never runs backwards (ValueError)."""
        if by_ms < 0:
            raise ValueError(f"a clock cannot go back by {-by_ms} ms")
        self._now_ms += by_ms
