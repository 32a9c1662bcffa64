"""Whether the market is open, as a metric: what every rule about freshness is held against.

Market hours are those of the broker's clock, so a replay of an old day has its own. It is asked at
each scrape and goes on while frames stay away: a feed that died before the open must still be found
missing after it. Three services export it, each from what it sees, so that one may be down.
"""

from __future__ import annotations

from collections.abc import Callable

from libs.common import calendar
from libs.common.clock import Clock
from libs.common.errors import CalendarError
from libs.common.telemetry import Metrics

__all__ = ["export_market_open", "market_open"]


def export_market_open(
    metrics: Metrics, wall: Clock, source: str, broker_now: Callable[[int], int | None]
) -> None:
    """Export `kite_market_open`; `broker_now` turns the wall clock's time into the broker's.

    Before the broker told its time only a real account's is known: it is the machine's. So an
    account that cannot log in at all is missed in market hours too.
    """

    def is_open() -> float:
        wall_ms = wall.now_ms()
        broker_ms = broker_now(wall_ms)
        if broker_ms is None and source == "schwab":
            broker_ms = wall_ms
        return float(market_open(broker_ms) is True)

    metrics.gauge("market_open", "1 in the regular session, by the broker's clock").set_function(
        is_open
    )


def market_open(broker_ms: int | None) -> bool | None:
    """Whether the regular session is on; None when nobody can say."""
    if broker_ms is None:
        return None
    try:
        return calendar.is_open(broker_ms)
    except CalendarError:
        return None
