"""What a data service of the streamer is: subscriptions in, items out, at instants that depend on
virtual time alone.

A `Feed` serves one connection and one service. `due_ms` says when it has something to say next,
`emit` says it; nothing is ever skipped when the caller is late. To add a service, write its feed
and put it into the table of `simulation`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from services.simulator.level_one import Value

__all__ = ["Feed", "Item", "mixed"]

Item = dict[str, Value]


class Feed(Protocol):
    """One service for one connection; times are virtual epoch milliseconds."""

    @property
    def keys(self) -> Iterable[str]:
        """The subscribed symbols, in the order they came."""
        ...

    @property
    def fields_max(self) -> int:
        """The highest field number of the service."""
        ...

    def subscribe(self, keys: list[str], fields: tuple[int, ...], at_ms: int) -> list[Item]:
        """Add symbols and choose the fields of the whole service; return the images."""
        ...

    def unsubscribe(self, keys: Iterable[str]) -> None:
        """Remove symbols; unknown ones are no error."""
        ...

    def view(self, fields: tuple[int, ...]) -> None:
        """Change the fields of the whole service."""
        ...

    def due_ms(self, position_ms: int) -> int:
        """Return when `emit` wants to be called next."""
        ...

    def emit(self, at_ms: int) -> list[Item]:
        """Return everything that happened up to `at_ms` and was not emitted yet."""
        ...


def mixed(number: int, salt: int) -> int:
    """Return a well-mixed 32-bit number for a number."""
    word = (number * 0x9E3779B97F4A7C15 + salt * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    word ^= word >> 31
    return (word * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF) >> 32
