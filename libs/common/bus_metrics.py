"""The bus's hooks as metrics: the only place where the two meet."""

from __future__ import annotations

from libs.common.bus.hooks import PublishOutcome
from libs.common.telemetry import Metrics

__all__ = ["BusMetrics"]


class BusMetrics:
    """Counts what a service's bus reports; implements `bus.hooks.BusHooks`."""

    def __init__(self, metrics: Metrics) -> None:
        self._connected = metrics.gauge("bus_connected", "Whether the bus is connected")
        self._disconnects = metrics.counter("bus_disconnects", "Connections to the bus lost")
        self._publishes = metrics.counter("bus_publishes", "Durable publishes", ["outcome"])
        self._latency = metrics.latency(
            "bus_publish_seconds", "Durable publish sent to outcome known"
        )
        self._live_dropped = metrics.counter("bus_live_dropped", "Live messages not sent")
        self._errors = metrics.counter("bus_errors", "Errors the bus met on the side", ["kind"])

    def connection(self, up: bool) -> None:
        """See `BusHooks`."""
        self._connected.set(up)
        if not up:
            self._disconnects.inc()

    def published(self, outcome: PublishOutcome, seconds: float) -> None:
        """See `BusHooks`."""
        self._publishes.labels(outcome).inc()
        self._latency.observe(seconds)

    def lease(self, consumer: str, held: bool) -> None:
        """Ignore it: the owner loop and the writer count what they own."""

    def live_dropped(self) -> None:
        """See `BusHooks`."""
        self._live_dropped.inc()

    def error(self, kind: str) -> None:
        """See `BusHooks`."""
        self._errors.labels(kind).inc()
