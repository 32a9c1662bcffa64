"""An async context manager that is open for as long as what it stands on.

A store stands on a pool of connections or on an HTTP client: with one `async with` it is opened and
closed together with that.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

__all__ = ["OpensWith"]


class OpensWith:
    """What opens and closes with one other thing."""

    def __init__(self, base: AbstractAsyncContextManager[Any]) -> None:
        self.__base = base

    async def __aenter__(self) -> Self:
        await self.__base.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.__base.__aexit__(kind, error, traceback)
