"""Answers that several who ask within a moment share: one of them makes it, and all get it.

So a burst of questions costs the database one, and while it is frozen nobody waits behind anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from libs.common.clock import Clock

__all__ = ["Kept"]

T = TypeVar("T")


class Kept(Generic[T]):
    """A value that several who ask within a moment share; made by one of them."""

    def __init__(self, make: Callable[[], Awaitable[T]], clock: Clock, kept_ms: int) -> None:
        self._make = make
        self._clock = clock
        self._kept_ms = kept_ms
        self._made: tuple[int, T] | None = None
        self._making: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the value, made anew if it is older than allowed; raises what making it raised."""
        now_ms = self._clock.now_ms()
        if self._made is not None and 0 <= now_ms - self._made[0] < self._kept_ms:
            return self._made[1]
        if self._making is None:
            self._making = asyncio.create_task(self._renew(now_ms))
            self._making.add_done_callback(self._settle)
        return await asyncio.shield(self._making)

    async def _renew(self, now_ms: int) -> T:
        value = await self._make()
        self._made = (now_ms, value)
        return value

    def _settle(self, task: asyncio.Task[T]) -> None:
        self._making = None
        if not task.cancelled():
            task.exception()  # whoever asked has it; if all of them left, it is nobody's
