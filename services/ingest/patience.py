"""How long to leave the broker alone after a connection ended. Pure but for its jitter.

- After a failure 1, 2, 5, 10, 30, 60 s with jitter (the first is a setting, the others keep their
  ratio to it), begun anew after five good minutes.
- After an eviction five minutes (a setting), twice as long with each further one, up to an hour:
  another session of the same user has come, and two of them would evict each other for ever. Begun
  anew after a good hour.
- Outside the extended session there is nothing to fetch, so nobody hurries: half an hour (a
  setting) from one try to the next, and one shortly before the next session. Both are broker time,
  which in a replay runs faster than ours.
"""

from __future__ import annotations

import random
from typing import Literal

from msgspec import Struct

from services.ingest.hours import Hours

__all__ = ["Cause", "Patience", "Pause"]

Cause = Literal[
    "restart", "token", "denied", "silence", "evicted", "stopped", "refused", "reconnect"
]

_RETRY_RATIOS = (1, 2, 5, 10, 30, 60)
_GOOD_S = 300.0
_EVICTED_RATIO_MAX = 12
_UNDISTURBED_S = 3_600.0


class Pause(Struct, frozen=True):
    """So long to wait; `idle`: because there is nothing to fetch."""

    wall_s: float
    idle: bool


class Patience:
    """Counts what went wrong in a row, and knows how long to wait."""

    def __init__(self, hours: Hours, *, first_s: float, evicted_s: float, idle_s: float) -> None:
        self._hours = hours
        self._first_s = first_s
        self._evicted_s = evicted_s
        self._idle_s = idle_s
        self._failures = 0
        self._evictions = 0

    def pause(self, cause: Cause, up_s: float, now_ms: int | None, speed: float) -> Pause:
        """Return how long to wait after a connection that stood for `up_s`.

        `now_ms` is broker time, None when nobody knows what part of the day it is.
        """
        if up_s >= _GOOD_S:
            self._failures = 0
        if up_s >= _UNDISTURBED_S:
            self._evictions = 0
        if cause == "evicted":
            ratio = min(2**self._evictions, _EVICTED_RATIO_MAX)
            self._evictions = min(self._evictions + 1, _EVICTED_RATIO_MAX)
            return Pause(ratio * self._evicted_s, idle=False)
        closed_ms = 0 if now_ms is None else self._hours.ms_until_awake(now_ms)
        if closed_ms:
            self._failures = 0
            return Pause(min(closed_ms / 1_000, self._idle_s) / max(speed, 1.0), idle=True)
        ratio = _RETRY_RATIOS[min(self._failures, len(_RETRY_RATIOS) - 1)]
        self._failures += 1
        return Pause(ratio * self._first_s * random.uniform(0.75, 1.25), idle=False)
