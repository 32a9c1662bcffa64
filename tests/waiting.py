"""Waiting for an event instead of for a time: the only place in the tests that sleeps.

A test states what it waits for and how long that may take at most. It goes on as soon as the event
is there, and a miss fails with the sentence that was given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

__all__ = ["eventually", "eventually_async"]

T = TypeVar("T")

_POLL_S = 0.01


def eventually(predicate: Callable[[], T], deadline_s: float, what: str) -> T:
    """Call ``predicate`` until its result is true, and return that result.

    Raises AssertionError naming ``what`` and the last result once ``deadline_s`` seconds are over.
    """
    end = time.monotonic() + deadline_s
    while not (result := predicate()):
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline_s} s: {what} (last result: {result!r})")
        time.sleep(_POLL_S)
    return result


@overload
async def eventually_async(
    predicate: Callable[[], Awaitable[T]], deadline_s: float, what: str
) -> T: ...
@overload
async def eventually_async(predicate: Callable[[], T], deadline_s: float, what: str) -> T: ...
async def eventually_async(
    predicate: Callable[[], T | Awaitable[T]], deadline_s: float, what: str
) -> T:
    """Do what ``eventually`` does without blocking the loop; ``predicate`` may be a coroutine.

    A predicate that hangs counts as a miss: it is cancelled at the deadline.
    """
    result: T | None = None
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                outcome = predicate()
                result = await outcome if isinstance(outcome, Awaitable) else outcome
                if result:
                    return result
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise AssertionError(
            f"not within {deadline_s} s: {what} (last result: {result!r})"
        ) from None
