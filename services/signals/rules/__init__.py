"""The rules: one a file, all of one protocol.

A file `cross.py` offers `make() -> Rule` and is then known as `cross`, which is also the `kind` of
its signals. Name it in `KITE_SIGNAL_RULES`; nothing else needs to change.

A rule sees one ticker in one timeframe during one regular session, in order, and says when
something happened. It is deterministic; what it remembers, `snapshot` gives away and `restore`
takes back.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol

from msgspec import Struct

from libs.common.events import Direction

__all__ = ["Memory", "Rule", "Sample", "known", "make"]

Memory = int | float | str | None


class Sample(Struct, frozen=True, gc=False):
    """What a rule looks at: a closed candle's close or a tick's price, and the averages then."""

    ts_ms: int
    price: float
    sma9: float
    vwap: float


class Rule(Protocol):
    """One way to find signals."""

    def update(self, sample: Sample) -> Direction | None:
        """Take the next sample; return a direction if it makes a signal."""
        ...

    def snapshot(self) -> Memory:
        """Return what is remembered."""
        ...

    def restore(self, memory: Memory) -> None:
        """Take up what `snapshot` gave; None is the beginning of a session."""
        ...


def known() -> tuple[str, ...]:
    """Return the names of all rules, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def make(name: str) -> Rule:
    """Build a rule by name; raises ValueError that lists the known ones."""
    if name not in known():
        raise ValueError(f"{name!r} is not a rule; known are {', '.join(known())}")
    rule: Rule = importlib.import_module(f"{__name__}.{name}").make()
    return rule
