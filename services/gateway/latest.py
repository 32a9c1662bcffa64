"""What counts only in its newest form: quotes, candles in the making, and how the services stand.

Each change gets the next number, so that a client that has seen all up to some number can be given
what changed since: the newest of it, not the way there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from libs.common.events import Candle, TickIndicator
from services.gateway.messages import Quote

__all__ = ["TICKERS_MAX", "Latest"]

# Far above any symbol cap, and above what a stack has of services and instances.
TICKERS_MAX = 10_000
INSTANCES_MAX = 256
NAMES_MAX = 4096
INSTANCE_GONE_S = 3.0

Provisional = Mapping[str, Any]


@dataclass(slots=True)
class _Instance:
    partitions: int
    since_s: float
    heard_s: float


class Latest:
    """The newest of everything; bounded by the number of tickers."""

    def __init__(self) -> None:
        self.version = 0
        self._quotes: dict[str, tuple[int, Quote]] = {}  # in the order of their last change
        self._provisional: dict[tuple[str, str], tuple[int, Provisional]] = {}
        self._closed_ms: dict[tuple[str, str], int] = {}
        self._instances: dict[tuple[str, str], _Instance] = {}
        self._status: tuple[int, dict[str, list[dict[str, Any]]]] = (0, {})
        self._names: dict[tuple[str, str], None] = {}  # all ever heard, in that order
        self._starts: Counter[str] = Counter()
        self._most_at_once: dict[str, int] = {}

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
        known = self._instances.get(key)
        if known is not None:
            known.partitions, known.heard_s = partitions, now_s
        elif len(self._instances) < INSTANCES_MAX:
            self._instances[key] = _Instance(partitions, now_s, now_s)
            self._note_start(key)

    def restarts(self, service: str) -> int:
        """Return how many instances of a service took the place of another since we listen.

        Each process gives itself a new name, so all names but as many as ever were there at once
        belong to such ones.
        """
        return max(0, self._starts[service] - self._most_at_once.get(service, 1))

    def _note_start(self, key: tuple[str, str]) -> None:
        if key in self._names:
            return
        self._names[key] = None
        if len(self._names) > NAMES_MAX:
            del self._names[next(iter(self._names))]
        self._starts[key[0]] += 1

    def look_round(self, now_s: float) -> None:
        """Forget the instances that fell silent, and note how the services stand."""
        services: dict[str, list[dict[str, Any]]] = {}
        there: dict[str, list[_Instance]] = {}
        for key, found in sorted(self._instances.items()):
            if now_s - found.heard_s > INSTANCE_GONE_S:
                del self._instances[key]
                continue
            service, name = key
            there.setdefault(service, []).append(found)
            services.setdefault(service, []).append(
                {"instance": name, "partitions": found.partitions}
            )
        for service, instances in there.items():
            most = self._most_at_once.get(service, 1)
            self._most_at_once[service] = max(most, _at_once(instances))
        if services != self._status[1]:
            self._status = (self._next(), services)

    def status_since(self, version: int) -> dict[str, list[dict[str, Any]]] | None:
        """Return how the services stand if that changed after `version`."""
        changed, services = self._status
        return services if changed > version else None

    def _next(self) -> int:
        self.version += 1
        return self.version


def _at_once(instances: list[_Instance]) -> int:
    """Count those that were heard after the last of them had come; who was killed was not."""
    newest_s = max(instance.since_s for instance in instances)
    return sum(instance.heard_s >= newest_s for instance in instances)
