"""Broker time between the frames that tell it: pure, asked with the wall clock.

A frame says that it was `sent_ms` at the broker when it was `received_ms` here. How fast broker
time runs is measured over the last seconds: 1 in a live market, 150 in a replay. Between frames
time goes on at that speed, after a silence at the speed of the wall clock, because a replay that
ended must not run away.
"""

from __future__ import annotations

from collections import deque

__all__ = ["MarketClock"]

_SAMPLE_EVERY_MS = 250
_SAMPLES_MAX = 60
_MEASURED_MS_MIN = 1_000
# Heartbeats come at least every 10 s; what is silent for longer is not running.
SILENCE_MS_MAX = 30_000
# A market whose clock is off by more than this, in seconds of the wall clock, was moved.
_JUMP_MS = 3_000
# Messages are late by fractions of a second: so close to 1 is 1.
_STEADY = 0.1


class MarketClock:
    """Broker time and its speed, learned from frames."""

    def __init__(self) -> None:
        self.speed = 1.0
        self._samples: deque[tuple[int, int]] = deque(maxlen=_SAMPLES_MAX)  # received, sent
        self._newest: tuple[int, int] | None = None

    @property
    def fast(self) -> bool:
        """Whether this is a replay that runs faster than a market does."""
        return self.speed > 1

    def observe(self, sent_ms: int, received_ms: int) -> None:
        """Learn from a frame; those that are older than the newest one are ignored."""
        if sent_ms <= 0 or received_ms <= 0:
            return
        if self._newest is not None and received_ms <= self._newest[0]:
            return
        if self._jumped(sent_ms, received_ms):
            self._samples.clear()
        self._newest = (received_ms, sent_ms)
        if not self._samples or received_ms - self._samples[-1][0] >= _SAMPLE_EVERY_MS:
            self._samples.append(self._newest)
            self._measure()

    def now_ms(self, wall_ms: int) -> int | None:
        """Return broker time at a time of the wall clock; None before the first frame."""
        if self._newest is None:
            return None
        received_ms, sent_ms = self._newest
        passed_ms = max(0, wall_ms - received_ms)
        running_ms = min(passed_ms, SILENCE_MS_MAX)
        return round(sent_ms + running_ms * self.speed + (passed_ms - running_ms))

    def _jumped(self, sent_ms: int, received_ms: int) -> bool:
        expected_ms = self.now_ms(received_ms)
        # Until the speed is measured, nobody knows where the time should be.
        if expected_ms is None or self._measured_ms < _MEASURED_MS_MIN:
            return False
        return abs(sent_ms - expected_ms) > _JUMP_MS * max(1.0, self.speed)

    @property
    def _measured_ms(self) -> int:
        return self._samples[-1][0] - self._samples[0][0] if self._samples else 0

    def _measure(self) -> None:
        if self._measured_ms < _MEASURED_MS_MIN:
            return
        speed = max(0.0, (self._samples[-1][1] - self._samples[0][1]) / self._measured_ms)
        self.speed = 1.0 if abs(speed - 1) < _STEADY else round(speed, 2)
