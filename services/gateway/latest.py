"""What counts only in its newest form: quotes, candles in the making, and how the services stand.

Each change gets the next number, so that a client that has seen all up to some number can be given
what changed since: the newest of it, not the way there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from libs.common.events import Candle, TickIndicator
from services.gateway.messages import Quote

__all__ = ["TICKERS_MAX", "Latest"]

# Far above any symbol cap, and above what a stack has of services and instances.
TICKERS_MAX = 10_000
INSTANCES_MAX = 256
INSTANCE_GONE_S = 3.0

Provisional = Mapping[str, Any]


class Latest:
    """The newest of everything; bounded by the number of tickers."""

    def __init__(self) -> None:
        self.version = 0
        self._quotes: dict[str, tuple[int, Quote]] = {}  # in the order of their last change
        self._provisional: dict[tuple[str, str], tuple[int, Provisional]] = {}
        self._closed_ms: dict[tuple[str, str], int] = {}
        self._instances: dict[tuple[str, str], tuple[int, float]] = {}
        self._status: tuple[int, dict[str, list[dict[str, Any]]]] = (0, {})

    def forget(self) -> None:
        """Forget the market; the services remain."""
        self._quotes.clear()
        self._provisional.clear()
        self._closed_ms.clear()

    # -- quotes -----------------------------------------------------------------------------------

    def tick(self, tick: TickIndicator) -> None:
        """Note the last price."""
        known = self.quote(tick.ticker) or Quote()
        if known.ts_ms is None or tick.ts_ms > known.ts_ms:
            self._put_quote(tick.ticker, replace(known, last=tick.price, ts_ms=tick.ts_ms))

    def book(self, ticker: str, bid: float | None, ask: float | None) -> None:
        """Note bid and ask."""
        known = self.quote(ticker) or Quote()
        if (known.bid, known.ask) != (bid, ask):
            self._put_quote(ticker, replace(known, bid=bid, ask=ask))

    def quote(self, ticker: str) -> Quote | None:
        """Return what is known of a ticker."""
        found = self._quotes.get(ticker)
        return None if found is None else found[1]

    def quotes_since(self, version: int) -> dict[str, Quote]:
        """Return the quotes that changed after `version`."""
        found: dict[str, Quote] = {}
        for ticker, (changed, quote) in reversed(self._quotes.items()):
            if changed <= version:
                break
            found[ticker] = quote
        return found

    def _put_quote(self, ticker: str, quote: Quote) -> None:
        if self._quotes.pop(ticker, None) is None and len(self._quotes) >= TICKERS_MAX:
            return
        self._quotes[ticker] = (self._next(), quote)

    # -- candles in the making --------------------------------------------------------------------

    def closed(self, candle: Candle) -> None:
        """Note that a candle is final: what was provisional about it no longer counts."""
        key = (candle.ticker, candle.timeframe)
        if key in self._closed_ms or len(self._closed_ms) < TICKERS_MAX:
            self._closed_ms[key] = max(candle.ts_ms, self._closed_ms.get(key, 0))
        self._drop_closed(key)

    def provisional(self, ticker: str, timeframe: str, candle: Provisional) -> None:
        """Note a candle that is being made; late ones, of a closed candle, are ignored."""
        key = (ticker, timeframe)
        if key in self._provisional or len(self._provisional) < TICKERS_MAX:
            self._provisional[key] = (self._next(), candle)
        self._drop_closed(key)

    def provisional_since(self, ticker: str, timeframe: str, version: int) -> Provisional | None:
        """Return the candle in the making if it changed after `version`."""
        changed, candle = self._provisional.get((ticker, timeframe), (0, None))
        return candle if changed > version else None

    def _drop_closed(self, key: tuple[str, str]) -> None:
        _, candle = self._provisional.get(key, (0, None))
        if candle is not None and candle["ts_ms"] <= self._closed_ms.get(key, -1):
            del self._provisional[key]

    # -- services ---------------------------------------------------------------------------------

    def heard(self, service: str, instance: str, partitions: int, now_s: float) -> None:
        """Note what an instance says of itself."""
        key = (service, instance)
        if key in self._instances or len(self._instances) < INSTANCES_MAX:
            self._instances[key] = (partitions, now_s)

    def look_round(self, now_s: float) -> None:
        """Forget the instances that fell silent, and note how the services stand."""
        services: dict[str, list[dict[str, Any]]] = {}
        for key, (partitions, heard_s) in sorted(self._instances.items()):
            if now_s - heard_s > INSTANCE_GONE_S:
                del self._instances[key]
                continue
            service, instance = key
            services.setdefault(service, []).append(
                {"instance": instance, "partitions": partitions}
            )
        if services != self._status[1]:
            self._status = (self._next(), services)

    def status_since(self, version: int) -> dict[str, list[dict[str, Any]]] | None:
        """Return how the services stand if that changed after `version`."""
        changed, services = self._status
        return services if changed > version else None

    def _next(self) -> int:
        self.version += 1
        return self.version
