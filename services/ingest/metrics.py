"""What ingest counts; the names are listed in docs/metrics.md."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Any, get_args

from libs.common.events import (
    SESSION_CHECK,
    Bar,
    Clock,
    Event,
    Gap,
    GapReason,
    History,
    Tick,
)
from libs.common.telemetry import Metrics
from services.ingest import wire
from services.ingest.budget import KINDS, REFUSALS
from services.ingest.core import Step
from services.ingest.schwab import RefreshOutcome

__all__ = ["IngestMetrics"]

CHECK_OUTCOMES = ("equal", "corrected", "short", "unknown")
LOGIN_OUTCOMES = ("done", "failed", "expired", "lost")
RECONNECT_CAUSES = (
    "token", "denied", "silence", "evicted", "stopped", "refused", "reconnect",
)  # fmt: skip

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
        self.idle = metrics.gauge(
            "ingest_idle",
            "1 while there is nothing to fetch and no connection, outside the session",
        )
        self.evicted = metrics.gauge(
            "ingest_evicted", "1 while another session of the account keeps this one away"
        )
        self.symbols_left_out = metrics.gauge(
            "ingest_symbols_left_out",
            "Tickers that a service of the broker does not take",
            ["feed"],
        )
        self.closed_unexpectedly = metrics.gauge(
            "ingest_closed_unexpectedly",
            "1 while the broker says that the market is closed, and the calendar that it is open",
        )
        self.hours_requests = metrics.counter(
            "ingest_hours_requests", "Requests for the hours of a day", ["outcome"]
        )
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
        self.access_token_age_s = metrics.gauge(
            "ingest_access_token_age_seconds", "Time since the access token at hand was fetched"
        )
        self.token_refreshes = metrics.counter(
            "ingest_token_refreshes", "Tries to fetch a new access token", ["outcome"]
        )
        self.logins = metrics.counter(
            "ingest_logins", "Logins begun by command, by how they ended", ["outcome"]
        )
        self.received_s = metrics.gauge(
            "ingest_received_timestamp_seconds", "When the last frame was read off the socket"
        )
        self.spool_bytes_max = metrics.gauge("ingest_spool_bytes_max", "Bytes the spool can hold")
        self._count_minutes(metrics)
        self._count_requests(metrics)
        self._begin_at_zero()

    def _count_minutes(self, metrics: Metrics) -> None:
        """What is missing, what was held against history, and what somebody asked for."""
        self.gaps_open = metrics.gauge("ingest_gaps_open", "Gaps that wait for price history")
        self.gaps = metrics.counter("ingest_gaps", "Gaps reported", ["series", "state", "reason"])
        self.sessions_checked = metrics.counter(
            "ingest_sessions_checked", "Sessions of tickers held against price history", ["outcome"]
        )
        self.sessions_unchecked = metrics.gauge(
            "ingest_sessions_unchecked", "Sessions of tickers that are over and not checked yet"
        )
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

    def _count_requests(self, metrics: Metrics) -> None:
        """How often the broker is asked over HTTP, and how often it may be."""
        self.requests = metrics.counter(
            "ingest_requests", "Requests to the broker over HTTP", ["kind"]
        )
        self.request_refusals = metrics.counter(
            "ingest_request_refusals", "Answers that ask to be left alone", ["status"]
        )
        self.requests_used = metrics.gauge(
            "ingest_requests_last_minute", "Requests made in the last sixty seconds"
        )
        self.requests_max = metrics.gauge(
            "ingest_requests_per_minute_max", "Requests that the budget allows in any minute"
        )
        self.request_pause_s = metrics.gauge(
            "ingest_request_pause_seconds", "For how long no request is made"
        )

    def _begin_at_zero(self) -> None:
        """Show each label from the start, or its first count would be no growth to an alarm."""
        known: list[tuple[Any, Iterable[str]]] = [
            (self.reconnects, RECONNECT_CAUSES),
            (self.symbols_left_out, (wire.LEVEL_ONE, wire.CHART)),
            (self.hours_requests, ("answered", "failed")),
            (self.requests, KINDS),
            (self.request_refusals, map(str, REFUSALS)),
            (self.token_refreshes, get_args(RefreshOutcome)),
            (self.logins, LOGIN_OUTCOMES),
            (self.sessions_checked, CHECK_OUTCOMES),
            (self.backfill_days, ("stored", "unchanged", "empty", "refused")),
        ]
        for metric, labels in known:
            for label in labels:
                metric.labels(label)
        for state in ("open", "filled"):
            self.gaps.labels("bars", state, "")
        for reason in get_args(GapReason)[1:]:
            series = "ticks" if reason == "tick_series" else "bars"
            self.gaps.labels(series, "unfillable", reason)

    def step(self, step: Step) -> None:
        """Count what one step contains."""
        self.items.inc(step.items)
        for kind, number in Tally(map(_kind, step.events)).items():
            self.events.labels(kind).inc(number)
        for event in step.events:
            if isinstance(event, Gap) and event.cause != SESSION_CHECK:
                self.gaps.labels(event.series, event.state, event.reason).inc()
        for outcome in step.checked:
            self.sessions_checked.labels(outcome).inc()
        for note, number in Tally(step.notes).items():
            self.notes.labels(note).inc(number)


def _kind(event: Event) -> str:
    return _KINDS[type(event)]
