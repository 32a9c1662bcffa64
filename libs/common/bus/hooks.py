"""What the bus tells about itself, for whoever counts it; the bus imports no metrics library.

A hook is called on the event loop and must return at once. `NoHooks` is the default.
"""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["BusHooks", "NoHooks", "PublishOutcome"]

PublishOutcome = Literal["stored", "fenced", "doubt", "unavailable", "full"]


class BusHooks(Protocol):
    """Facts that a service may want to count."""

    def connection(self, up: bool) -> None:
        """Say that the connection was made or lost."""
        ...

    def published(self, outcome: PublishOutcome, seconds: float) -> None:
        """Report what became of a durable publish, and how long that took to learn."""
        ...

    def lease(self, consumer: str, held: bool) -> None:
        """Say that this instance became the owner of a consumer's partition, or is it no longer."""
        ...

    def live_dropped(self) -> None:
        """Count a live message that was dropped: disconnected, or too much unsent."""
        ...

    def error(self, kind: str) -> None:
        """Count an asynchronous error by its kind, e.g. `SlowConsumerError`."""
        ...


class NoHooks:
    """Hooks that do nothing."""

    def connection(self, up: bool) -> None:
        """Ignore it."""

    def published(self, outcome: PublishOutcome, seconds: float) -> None:
        """Ignore it."""

    def lease(self, consumer: str, held: bool) -> None:
        """Ignore it."""

    def live_dropped(self) -> None:
        """Ignore it."""

    def error(self, kind: str) -> None:
        """Ignore it."""
