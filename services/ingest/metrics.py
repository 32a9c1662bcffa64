"""What ingest counts; the names are listed in docs/metrics.md."""

from __future__ import annotations

from collections import Counter as Tally
from itertools import product
from typing import get_args

from libs.common.events import Bar, Clock, Event, Gap, History, Tick
from libs.common.telemetry import Metrics
from services.ingest.core import Step
from services.ingest.schwab import RefreshOutcome

__all__ = ["IngestMetrics"]

RECONNECT_CAUSES = ("token", "denied", "silence", "evicted", "reconnect")

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
        self.token_refreshes = metrics.counter(
            "ingest_token_refreshes", "Tries to fetch a new access token", ["outcome"]
        )
        self.received_s = metrics.gauge(
            "ingest_received_timestamp_seconds", "When the last frame was read off the socket"
        )
        self.spool_bytes_max = metrics.gauge("ingest_spool_bytes_max", "Bytes the spool can hold")
        self.gaps_open = metrics.gauge("ingest_gaps_open", "Gaps that wait for price history")
        self.tickers_wanted = metrics.gauge("ingest_tickers", "Tickers on the list")
        self.tickers_streaming = metrics.gauge(
            "ingest_tickers_streaming", "Tickers whose quotes and bars the broker sends"
        )
        self.backfill_days = metrics.counter(
            "ingest_backfill_days",
            "Days that somebody asked for, by what came of them",
            ["outcome"],
        )
        self.backfill_left = metrics.gauge(
            "ingest_backfill_days_left", "Days that somebody asked for and that are not answered"
        )
        self.gaps = metrics.counter("ingest_gaps", "Gaps reported", ["series", "state"])
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show each label from the start, or its first count would be no growth to an alarm."""
        for cause in RECONNECT_CAUSES:
            self.reconnects.labels(cause)
        for outcome in get_args(RefreshOutcome):
            self.token_refreshes.labels(outcome)
        for outcome in ("stored", "unchanged", "empty", "refused"):
            self.backfill_days.labels(outcome)
        for series, state in product(("bars", "ticks"), ("open", "filled", "unfillable")):
            self.gaps.labels(series, state)

    def step(self, step: Step) -> None:
        """Count what one step contains."""
        self.items.inc(step.items)
        for kind, number in Tally(map(_kind, step.events)).items():
            self.events.labels(kind).inc(number)
        for event in step.events:
            if isinstance(event, Gap):
                self.gaps.labels(event.series, event.state).inc()
        for note, number in Tally(step.notes).items():
            self.notes.labels(note).inc(number)


def _kind(event: Event) -> str:
    return _KINDS[type(event)]
