"""What the notifier tells about itself, as metrics; docs/metrics.md lists them."""

from __future__ import annotations

from collections.abc import Iterable

from libs.common.telemetry import Metrics

__all__ = ["OUTCOMES", "NotifierMetrics"]

OUTCOMES = ("sent", "failed", "doubt", "perhaps", "summarised")


class NotifierMetrics:
    """The families, each series of which is there from the start."""

    def __init__(self, metrics: Metrics, channels: Iterable[str]) -> None:
        names = tuple(channels)
        self.sent = metrics.counter(
            "notifier_sent", "Tries and ends of messages", ["channel", "outcome"]
        )
        self.pending = metrics.gauge("notifier_pending", "Messages that are to be sent")
        self.failing = metrics.gauge(
            "notifier_channel_failing", "1 while the last try failed", ["channel"]
        )
        self.send_seconds = metrics.latency(
            "notifier_send_seconds", "Duration of a try", ["channel"]
        )
        self.told_seconds = metrics.latency(
            "notifier_told_seconds", "From the wire frame's receipt until a signal was sent"
        )
        self.signals = metrics.counter("notifier_signals", "Signals read from the stream")
        self.alerts = metrics.counter("notifier_alerts", "Alarms received", ["outcome"])
        self.heartbeats = metrics.counter("notifier_heartbeats", "Heartbeats", ["outcome"])
        self.position = metrics.gauge(
            "notifier_position", "Sequence up to which signals are taken in", ["partition"]
        )
        metrics.gauge("notifier_channels", "Channels configured").set(len(names))
        for name in names:
            self.failing.labels(name).set(0)
            for outcome in OUTCOMES:
                self.sent.labels(name, outcome)
        for outcome in ("taken", "repeated", "refused"):
            self.alerts.labels(outcome)
        for outcome in ("sent", "failed"):
            self.heartbeats.labels(outcome)
