"""Uvicorn's HTTP protocol with a limit on time: nobody holds a connection without using it.

Uvicorn waits for ever for the first request, for the rest of a request's head, and for a client to
read its answer. Here a connection is closed when between two looks nothing began, and cut when one
answer is not read to its end in `ANSWER_S`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["ImpatientProtocol"]

LOOK_S = 10.0
ANSWER_S = 120.0


class ImpatientProtocol(H11Protocol):
    """Looks at its connection now and then, until another protocol takes it over."""

    look_s = LOOK_S
    answer_s = ANSWER_S

    def connection_made(self, transport: Any) -> None:
        """Begin to look."""
        super().connection_made(transport)
        self._seen: Any = None
        self._seen_s = self.loop.time()
        self._look: asyncio.TimerHandle | None = self.loop.call_later(self.look_s, self._look_now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no longer."""
        self._end_looking()
        super().connection_lost(exc)

    def _end_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _request(self) -> Any:
        """Return the newest request with its answer, None before the first."""
        return self.cycle

    def _look_now(self) -> None:
        if self.transport.get_protocol() is not self:  # a live connection by now
            self._look = None
            return
        now_s, cycle = self.loop.time(), self._request()
        if cycle is not self._seen:
            self._seen, self._seen_s = cycle, now_s
        elif cycle is None or cycle.response_complete or now_s - self._seen_s > self.answer_s:
            self._look = None
            self.transport.abort()
            return
        self._look = self.loop.call_later(self.look_s, self._look_now)
