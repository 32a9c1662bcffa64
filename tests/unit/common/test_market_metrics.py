"""When the market is said to be open."""

from __future__ import annotations

import pytest

from libs.common.clock import ManualClock
from libs.common.market_clock import MarketClock
from libs.common.market_metrics import export_market_open, market_open
from libs.common.telemetry import Metrics

OPEN_MS = 1_700_836_200_000  # 2023-11-24 09:30 in New York, a half day
CLOSE_MS = OPEN_MS + 12_600_000


@pytest.mark.parametrize(
    ("broker_ms", "expected"),
    [
        (None, None),
        (OPEN_MS - 1, False),
        (OPEN_MS, True),
        (CLOSE_MS - 1, True),
        (CLOSE_MS, False),
        (99_999_999_999_999, None),
    ],
)
def test_the_regular_session_counts(broker_ms: int | None, expected: bool | None) -> None:
    """Pre-market and after-hours are closed; what the calendar does not cover, nobody knows."""
    assert market_open(broker_ms) is expected


def exported(metrics: Metrics) -> float | None:
    """Read the gauge as a scrape does."""
    return metrics.registry.get_sample_value("kite_market_open")


def test_it_opens_while_nothing_comes() -> None:
    """A feed that died before the open is missing after it."""
    wall, clock, metrics = ManualClock(OPEN_MS - 60_000), MarketClock(), Metrics()
    export_market_open(metrics, wall, "schwab", clock.now_ms)
    clock.observe(OPEN_MS - 60_000, OPEN_MS - 60_000)
    assert exported(metrics) == 0
    wall.advance(60_000)
    assert exported(metrics) == 1


@pytest.mark.parametrize(("source", "expected"), [("schwab", 1), ("demo", 0), ("csv", 0)])
def test_without_the_broker_only_a_real_account_has_a_time(source: str, expected: int) -> None:
    """Who could never log in is missed too; a simulated market may be in any year."""
    metrics = Metrics()
    export_market_open(metrics, ManualClock(OPEN_MS), source, MarketClock().now_ms)
    assert exported(metrics) == expected
