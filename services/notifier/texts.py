"""What people read: one message as a title and a few short lines, pure.

Times are New York's. What is late, taken back or perhaps repeated says so in its first words, where
a phone shows it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from libs.common.calendar import NEW_YORK
from libs.common.events import Signal
from services.notifier.core import (
    Alert,
    AlertNews,
    Channel,
    Item,
    Now,
    SignalNews,
    Summary,
    age_ms,
)

__all__ = ["Text", "render"]

Level = Literal["info", "success", "warning", "failure"]

_ALERTS_SHOWN_MAX = 10
_FACTS_SHOWN_MAX = 12
_LINE_LENGTH_MAX = 300
_ARROWS = {"up": "▲", "down": "▼"}
_RULES = {"cross": "SMA9 crossed VWAP"}


class Text(Struct, frozen=True):
    """A message as it is sent; `level` is how a channel may colour it."""

    title: str
    body: str
    level: Level


def render(item: Item, channel: Channel, now: Now) -> Text:
    """Put a message into words, as things stand when it is sent."""
    content = item.content
    if isinstance(content, SignalNews):
        text = _signal(content, channel, age_ms(item, now))
    elif isinstance(content, AlertNews):
        text = _alerts(content.alerts)
    else:
        text = _summary(content)
    if item.doubt:
        return Text(f"(repeated?) {text.title}", text.body, text.level)
    return text


def _signal(news: SignalNews, channel: Channel, old_ms: int) -> Text:
    signal = news.signal
    arrow = _ARROWS.get(signal.direction, "")
    title = f"{signal.ticker} {signal.timeframe} {arrow} {signal.direction} at {signal.price:g}"
    rule = _RULES.get(signal.kind, signal.kind)
    lines = [f"{rule}, {_time(signal.ts_ms)} New York. SMA9 {signal.sma9:g}, VWAP {signal.vwap:g}."]
    marks = []
    if signal.state == "superseded":
        marks.append("WITHDRAWN")
        lines.append("A correction of the data took this signal back.")
    elif news.change == "corrected":
        marks.append("CORRECTED")
        lines.append("A correction of the data changed this signal: it is not to be traded.")
    elif signal.late or old_ms > channel.late_s * 1000:
        marks.append("LATE")
        lines.append(_why_late(signal, old_ms))
    return Text(" ".join([*marks, title]), "\n".join(lines), "warning" if marks else "info")


def _why_late(signal: Signal, old_ms: int) -> str:
    if signal.late:
        return "Found by a correction of the past: for the record, not to be traded."
    return f"This was {_duration(old_ms)} old when it was sent."


def _alerts(alerts: tuple[Alert, ...]) -> Text:
    firing = [alert for alert in alerts if alert.status == "firing"]
    resolved = [alert for alert in alerts if alert.status == "resolved"]
    parts = []
    if firing:
        worst = "critical" if any(alert.severity == "critical" for alert in firing) else "warning"
        parts.append(f"{worst.upper()}: {_names(firing)}")
    if resolved:
        parts.append(f"Resolved: {_names(resolved)}")
    shown = [*firing, *resolved][:_ALERTS_SHOWN_MAX]
    lines = [_alert_line(alert) for alert in shown]
    if len(alerts) > len(shown):
        lines.append(f"and {len(alerts) - len(shown)} more")
    return Text("; ".join(parts), "\n".join(lines), _level(firing))


def _level(firing: list[Alert]) -> Level:
    if not firing:
        return "success"
    return "failure" if any(alert.severity == "critical" for alert in firing) else "warning"


def _names(alerts: Iterable[Alert]) -> str:
    names = list(dict.fromkeys(alert.name for alert in alerts))
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _alert_line(alert: Alert) -> str:
    state = "resolved: " if alert.status == "resolved" else ""
    line = f"{state}{alert.summary or alert.name}"
    if alert.runbook and alert.status == "firing":
        line += f" ({alert.runbook})"
    return line[:_LINE_LENGTH_MAX]


def _summary(summary: Summary) -> Text:
    count = summary.too_old + summary.too_many
    noun = "message was" if count == 1 else "messages were"
    causes = [f"{summary.too_old} too old"] if summary.too_old else []
    causes += [f"{summary.too_many} too many at once"] if summary.too_many else []
    facts = sorted(summary.facts.items(), key=lambda fact: (-fact[1], fact[0]))
    shown = [f"{name} ×{times}" for name, times in facts[:_FACTS_SHOWN_MAX]]
    if len(facts) > len(shown):
        shown.append(f"and {len(facts) - len(shown)} kinds more")
    span = f"{_day_and_time(summary.first_ms)} to {_day_and_time(summary.last_ms)} New York"
    return Text(
        f"{count} {noun} not sent one by one",
        f"{', '.join(causes)}; {span}.\n{', '.join(shown)}",
        "warning",
    )


def _time(at_ms: int) -> str:
    return _local(at_ms).strftime("%H:%M:%S" if at_ms % 60_000 else "%H:%M")


def _day_and_time(at_ms: int) -> str:
    return _local(at_ms).strftime("%Y-%m-%d %H:%M")


def _local(at_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ms / 1000, NEW_YORK)


def _duration(length_ms: int) -> str:
    seconds = length_ms // 1000
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
