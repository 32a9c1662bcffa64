"""Prices as whole ten-thousandths, and the one division that rounds.

Prices arrive with at most four decimals, so sums of them are exact integers and cannot drift,
whatever the order and wherever a run was interrupted. A value is divided once, to six decimals,
half to even.
"""

from __future__ import annotations

__all__ = ["DECIMALS", "quotient", "rounded", "ten_thousandths"]

DECIMALS = 6

_UNITS_PER_DOLLAR = 10_000
_MICROS_PER_UNIT = 100
_MICROS_PER_DOLLAR = 1e6


def ten_thousandths(price: float) -> int:
    """Return the price in units of 0.0001."""
    return round(price * _UNITS_PER_DOLLAR)


def quotient(units: int, divisor: int) -> float:
    """Return `units / divisor` in dollars, to six decimals, half to even; `divisor` > 0."""
    micros, rest = divmod(units * _MICROS_PER_UNIT, divisor)
    twice = rest + rest
    if twice > divisor or (twice == divisor and micros & 1):
        micros += 1
    return micros / _MICROS_PER_DOLLAR


def rounded(value: float | None) -> float | None:
    """Round what was computed in floats to the decimals that are published and stored."""
    return None if value is None else round(value, DECIMALS)
