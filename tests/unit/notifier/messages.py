"""Signals, alarms and messages for the notifier's tests, with defaults for what is not said."""

from __future__ import annotations

from typing import Any

from libs.common.events import Signal
from services.notifier.core import Alert, AlertNews, Content, Item, SignalNews, Summary

__all__ = ["MINUTE_MS", "NOON_MS", "alert", "alerts", "item", "news", "signal", "summary"]

MINUTE_MS = 60_000
NOON_MS = 1_767_632_400_000  # 2026-01-05 12:00 in New York


def signal(ts_ms: int = NOON_MS - MINUTE_MS, **fields: Any) -> Signal:
    """Return an upward cross of QQQ in the minute that ends at noon."""
    values: dict[str, Any] = {
        "revision": 0, "state": "active", "late": False, "ticker": "QQQ", "timeframe": "1m",
        "kind": "cross", "direction": "up", "price": 389.75, "sma9": 389.5, "vwap": 389.4,
    } | fields  # fmt: skip
    identity = f"{values['ticker']}:{values['timeframe']}:{ts_ms}"
    return Signal(id=identity, ts_ms=ts_ms, **values)


def alert(name: str = "DataStale", **fields: Any) -> Alert:
    """Return a critical alarm that fires."""
    values: dict[str, Any] = {
        "fingerprint": name.lower(), "status": "firing", "severity": "critical",
        "summary": f"{name} happens.", "runbook": f"docs/runbooks/{name}.md",
        "starts_at": "2026-01-05T15:04:05Z",
    } | fields  # fmt: skip
    return Alert(name=name, **values)


def news(**fields: Any) -> SignalNews:
    """Return a new signal."""
    return SignalNews(signal(**fields))


def alerts(*them: Alert) -> AlertNews:
    """Return alarms that came together, one critical one unless others are given."""
    return AlertNews(them or (alert(),))


def summary(**fields: Any) -> Summary:
    """Return a summary of two messages that were too old."""
    values: dict[str, Any] = {
        "too_old": 2, "too_many": 0, "facts": {"QQQ up": 2}, "first_ms": NOON_MS,
        "last_ms": NOON_MS,
    } | fields  # fmt: skip
    return Summary(**values)


def item(number: int, content: Content, at_ms: int = NOON_MS, **fields: Any) -> Item:
    """Return a message whose cause happened and was known at `at_ms`."""
    values: dict[str, Any] = {
        "happened_ms": at_ms, "sent_ms": at_ms, "received_ms": at_ms, "taken_ms": at_ms,
    } | fields  # fmt: skip
    return Item(id=number, key=f"key:{number}", content=content, **values)
