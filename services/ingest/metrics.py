"""What ingest counts; the names are listed in docs/metrics.md."""

from __future__ import annotations

from collections import Counter as Tally

from libs.common.events import Bar, Clock, Event, Gap, History, Tick
from libs.common.telemetry import Metrics
from services.ingest.core import Step

__all__ = ["IngestMetrics"]

_KINDS: dict[type, str] = {
    Tick: "tick",
    Bar: "bar",
    Gap: "gap",
    Clock: "clock",
    History: "history",
}


class IngestMetrics:
    """Counters of the wire, of the events made from it, and of the way to the bus."""

    def __init__(self, metrics: Metrics) -> None:
        self.wire_frames = metrics.counter("ingest_wire_frames", "Frames read off the socket")
        self.wire_bytes = metrics.counter("ingest_wire_bytes", "Bytes read off the socket")
        self.items = metrics.counter("ingest_items", "Items in data frames")
        self.events = metrics.counter("ingest_events", "Events offered to MARKET", ["kind"])
        self.notes = metrics.counter("ingest_notes", "Noteworthy items by what they were", ["note"])
        self.reconnects = metrics.counter("ingest_reconnects", "Connections ended", ["cause"])
        self.history_requests = metrics.counter(
            "ingest_history_requests", "Price history requests", ["outcome"]
        )
        self.refused = metrics.counter(
            "ingest_refused_events", "Events neither memory nor spool had room for"
        )
        self.bad_candles = metrics.counter(
            "ingest_bad_candles", "Candles of price history that were unusable"
        )
        self.connected = metrics.gauge("ingest_connected", "1 while logged in and subscribed")
        self.lag_ms = metrics.gauge(
            "ingest_lag_ms", "Receipt (wall clock) minus broker time of the last data frame"
        )
        self.broker_ms = metrics.gauge("ingest_broker_time_ms", "Broker time last learned")
        self.spool_bytes = metrics.gauge("ingest_spool_bytes", "Bytes that wait in the spool")
        self.inbox_items = metrics.gauge("ingest_inbox_items", "Items that wait for the core")
        self.backfill_jobs = metrics.gauge(
            "ingest_backfill_jobs", "Days of price history waiting or being asked for"
        )
        self.token_age_s = metrics.gauge(
            "ingest_token_age_seconds", "Time since the login that the token goes back to"
        )

    def step(self, step: Step) -> None:
        """Count what one step contains."""
        self.items.inc(step.items)
        for kind, number in Tally(map(_kind, step.events)).items():
            self.events.labels(kind).inc(number)
        for note, number in Tally(step.notes).items():
            self.notes.labels(note).inc(number)


def _kind(event: Event) -> str:
    return _KINDS[type(event)]
