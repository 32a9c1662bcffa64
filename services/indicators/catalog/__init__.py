"""The catalogue: one indicator a file, all of one protocol.

A file `ema.py` offers `make(period) -> Indicator` and is known by its name: `ema`, or `ema9` with
another period than its own default. Put a file here and name it in `KITE_EXTRAS`, and its values
appear in the candles' `extras`. Nothing else needs to change.

Every indicator is deterministic, sees the candles of one timeframe of one ticker in order, and
keeps a bounded state that `snapshot` gives away and `restore` takes back without a difference.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["PERIOD_MAX", "Indicator", "Ohlcv", "chosen_period", "known", "make", "output_names"]

PERIOD_MAX = 400  # bars; bounds the state

_NAME = re.compile(r"([a-z_]+?)(\d{1,4})?")


class Ohlcv(Protocol):
    """What an indicator may look at: one closed candle, prices in dollars, volume in shares."""

    @property
    def high(self) -> float:
        """Highest price."""
        ...

    @property
    def low(self) -> float:
        """Lowest price."""
        ...

    @property
    def close(self) -> float:
        """Last price."""
        ...

    @property
    def volume(self) -> int:
        """Shares traded."""
        ...


class Indicator(Protocol):
    """One running computation; `outputs` names its values, `""` if there is just one."""

    outputs: tuple[str, ...]
    warm_up: int

    @property
    def ready(self) -> bool:
        """Whether `values` are defined, which takes `warm_up` candles."""
        ...

    def update(self, bar: Ohlcv) -> None:
        """Take the next closed candle."""
        ...

    def values(self) -> tuple[float | None, ...]:
        """Return one value for each output, None until ready; not rounded unless exact."""
        ...

    def snapshot(self) -> Sequence[Any]:
        """Return the state as integers, floats, None and sequences of them."""
        ...

    def restore(self, state: Sequence[Any]) -> None:
        """Take up a state that `snapshot` gave."""
        ...


def known() -> tuple[str, ...]:
    """Return the names in the catalogue, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def make(name: str) -> Indicator:
    """Build an indicator by name, e.g. `rsi14`; raises ValueError that says what would be right."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in known():
        raise ValueError(f"{name!r} is not an indicator; known are {', '.join(known())}")
    module = importlib.import_module(f"{__name__}.{match[1]}")
    try:
        indicator: Indicator = module.make(int(match[2]) if match[2] else None)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error
    return indicator


def output_names(name: str, indicator: Indicator) -> tuple[str, ...]:
    """Return the keys of its values: `rsi14`, or `bollinger20_upper` and so on."""
    return tuple(f"{name}_{output}" if output else name for output in indicator.outputs)


def chosen_period(period: int | None, *, default: int, least: int = 1) -> int:
    """Return the period asked for or the default; raises ValueError when it is out of bounds."""
    chosen = default if period is None else period
    if not least <= chosen <= PERIOD_MAX:
        raise ValueError(f"a period of {chosen} is not between {least} and {PERIOD_MAX}")
    return chosen
