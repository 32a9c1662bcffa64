"""Broken wire input, kept for whoever wants to look: `deadletter.ingest`.

The queue is bounded; what does not fit is counted and forgotten, because a hostile feed must not
cost the good one its memory. Nothing here can fail the service.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from libs.common import codec, subjects
from libs.common.bus import Bus
from libs.common.errors import BusError
from libs.common.runner import Backoff
from libs.common.telemetry import Metrics
from services.ingest.wire import Reject

__all__ = ["WAITING_MAX", "DeadLetters"]

WAITING_MAX = 1_000


class DeadLetters:
    """Appends rejects to the dead-letter subject in the background."""

    def __init__(self, bus: Bus, metrics: Metrics, log: Any) -> None:
        self._bus = bus
        self._log = log
        self._waiting: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._rejects = metrics.counter("ingest_rejects", "Wire input refused", ["reason"])
        self._stored = metrics.counter("ingest_dead_letters", "Dead letters stored")
        self._dropped = metrics.counter("ingest_dead_letters_dropped", "Dead letters not kept")

    def put(self, reject: Reject, received_ms: int) -> None:
        """Count one reject and keep it if there is room."""
        self.count(reject.reason)
        if len(self._waiting) >= WAITING_MAX:
            self._dropped.inc()
            return
        letter = {
            "service": "ingest",
            "reason": reject.reason,
            "received_ms": received_ms,
            "excerpt": reject.excerpt,
        }
        self._waiting.append(codec.encode_json(letter))
        self._filled.set()

    def count(self, reason: str) -> None:
        """Count a reject that is not kept."""
        self._rejects.labels(reason).inc()

    async def run(self) -> None:
        """Append until cancelled."""
        backoff = Backoff()
        subject = subjects.dead_letter_subject("ingest")
        while True:
            await self._filled.wait()
            if not self._waiting:
                self._filled.clear()
                continue
            try:
                await self._bus.append(subject, self._waiting[0])
            except BusError as error:
                self._log.debug("dead_letters.waiting", error=str(error))
                await asyncio.sleep(backoff.next_s())
            else:
                self._waiting.popleft()
                self._stored.inc()
                backoff.reset()
