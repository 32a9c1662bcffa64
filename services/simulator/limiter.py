"""How many requests a minute are answered: a sliding window on injected time."""

from __future__ import annotations

from collections import deque

__all__ = ["RateLimiter"]

_WINDOW_MS = 60_000


class RateLimiter:
    """Allows `per_minute` requests in any minute; 0 allows all."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._times_ms: deque[int] = deque(maxlen=per_minute or 1)

    def allow(self, now_ms: int) -> bool:
        """Count a request made now; a refused one does not count."""
        times_ms = self._times_ms
        full = self._per_minute and len(times_ms) == self._per_minute
        if full and now_ms - times_ms[0] < _WINDOW_MS:
            return False
        times_ms.append(now_ms)
        return True
