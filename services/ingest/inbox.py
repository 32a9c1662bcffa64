"""What waits for the core: frames of the wire and answers of price history, in arrival order.

Bounded in frames and bytes. Putting never waits, because a frame that was read must not be lost;
the reader waits for room before it reads the next one, and so the broker's own buffers fill.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

__all__ = ["INBOX_BYTES_MAX", "INBOX_ITEMS_MAX", "Inbox"]

INBOX_ITEMS_MAX = 1_000
INBOX_BYTES_MAX = 32 << 20

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue with one reader of its items and a bound that producers honour."""

    def __init__(self) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size_bytes: int = 0) -> None:
        """Add an item at the end."""
        self._items.append((item, size_bytes))
        self._bytes += size_bytes
        self._filled.set()
        if len(self._items) >= INBOX_ITEMS_MAX or self._bytes >= INBOX_BYTES_MAX:
            self._room.clear()

    async def room(self) -> None:
        """Wait until another item may be put."""
        await self._room.wait()

    async def get(self) -> T:
        """Return the first item, waiting for one."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        item, size_bytes = self._items.popleft()
        self._bytes -= size_bytes
        if len(self._items) < INBOX_ITEMS_MAX and self._bytes < INBOX_BYTES_MAX:
            self._room.set()
        return item

    def take_all(self) -> list[T]:
        """Return everything that waits, and forget it."""
        items = [item for item, _ in self._items]
        self._items.clear()
        self._bytes = 0
        self._room.set()
        return items
