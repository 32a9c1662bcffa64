"""The one division that rounds."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.indicators.exact import quotient, rounded, ten_thousandths


@given(st.integers(-(10**18), 10**18), st.integers(1, 10**12))
def test_a_quotient_is_the_exact_one_rounded_once(units: int, divisor: int) -> None:
    """Six decimals, half to even, as the decimal module rounds the exact quotient."""
    with localcontext() as context:
        context.prec = 60
        exact = Decimal(units) / (Decimal(divisor) * 10_000)
        expected = exact.quantize(Decimal("0.000001"), rounding=ROUND_HALF_EVEN)
    assert quotient(units, divisor) == float(expected)


@pytest.mark.parametrize(("units", "divisor", "value"), [(1, 200, 0.0), (3, 200, 0.000002)])
def test_a_tie_goes_to_the_even_neighbour(units: int, divisor: int, value: float) -> None:
    """0.0000005 becomes 0, and 0.0000015 becomes 0.000002."""
    assert quotient(units, divisor) == value


@given(st.integers(0, 10**10))
def test_a_price_of_four_decimals_is_whole(units: int) -> None:
    """What ingest lets through survives the way to integers."""
    assert ten_thousandths(units / 10_000) == units


def test_no_value_stays_none() -> None:
    """Rounding passes None on."""
    assert rounded(None) is None
    assert rounded(1.23456789) == 1.234568
