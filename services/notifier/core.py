"""What is worth telling to whom, and when: pure.

Signals, alarms, the clock and what was told before go in; what to take into the journal, and what
to send next, come out. A message is made once, when its cause arrives; whether it is late, taken
back or too old is judged when it is sent.

Times that end in `_ms` are epoch milliseconds. Signals are timed by the broker's clock, quiet hours
and rate limits by ours: people live by ours.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from libs.common.events import TIMEFRAME_MS, Direction, Signal

__all__ = [
    "FINAL",
    "SEVERITIES",
    "Alert",
    "AlertNews",
    "Channel",
    "Content",
    "Fate",
    "Heard",
    "Item",
    "Now",
    "Plan",
    "SignalNews",
    "Summary",
    "Verdict",
    "age_ms",
    "alert_key",
    "fold",
    "happened_ms",
    "is_quiet",
    "judge",
    "plan",
    "wants_alert",
]

Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")

Timeframe = Literal["tick", "1m", "5m", "15m", "1h"]
Ticker = Annotated[str, Meta(min_length=1, max_length=15)]
QuietSpan = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]

# What is too old waits a moment for more of its kind: one summary says more than ten.
SETTLE_MS: Final = 2_000
RATE_WINDOW_MS: Final = 60_000
# How often a channel looks whether its quiet hours are over, or something has grown old.
LOOK_MS: Final = 1_000
_FACTS_MAX: Final = 8
_TRIES_IN_FRONT: Final = 5
_LENGTHS_MS: Final = {str(timeframe): length_ms for timeframe, length_ms in TIMEFRAME_MS.items()}


class Channel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one channel wants to hear, when and how often; its address is kept elsewhere.

    Empty `tickers`, `timeframes` and `directions` mean all of them. `severity` is the least that an
    alarm must have; `quiet_passes` the least that is told in quiet hours too. A message that may
    have been sent before a crash is sent again, marked, or left, as `in_doubt` says.
    """

    signals: bool = True
    alerts: bool = False
    tickers: tuple[Ticker, ...] = ()
    timeframes: tuple[Timeframe, ...] = ()
    directions: tuple[Direction, ...] = ()
    severity: Severity = "warning"
    quiet: tuple[QuietSpan, ...] = ()
    zone: Annotated[str, Meta(min_length=1, max_length=64)] = "America/New_York"
    quiet_passes: Literal["info", "warning", "critical", "nothing"] = "critical"
    per_minute_max: Annotated[int, Meta(ge=1, le=600)] = 20
    pending_messages_max: Annotated[int, Meta(ge=1, le=10_000)] = 200
    late_s: Annotated[int, Meta(ge=1, le=86_400)] = 120
    too_old_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] = 900
    alerts_too_old_s: Annotated[int, Meta(ge=60, le=7 * 86_400)] = 86_400
    timeout_s: Annotated[int, Meta(ge=5, le=120)] = 15
    in_doubt: Literal["repeat", "leave"] = "repeat"


class Alert(Struct, frozen=True):
    """One alarm of Alertmanager's, in one state."""

    fingerprint: str
    status: Literal["firing", "resolved"]
    name: str
    severity: Severity
    summary: str
    runbook: str
    starts_at: str


class SignalNews(Struct, frozen=True, tag="signal"):
    """A signal; `change` says what is new about it."""

    signal: Signal
    change: Literal["new", "withdrawn", "corrected"] = "new"


class AlertNews(Struct, frozen=True, tag="alerts"):
    """Alarms that came together."""

    alerts: tuple[Alert, ...]


class Summary(Struct, frozen=True, tag="summary"):
    """Messages that were not sent one by one; `facts` counts what they were about.

    `too_old` of them had waited too long, `too_many` were more than may wait.
    """

    too_old: int
    too_many: int
    facts: dict[str, int]
    first_ms: int
    last_ms: int


Content = SignalNews | AlertNews | Summary

Fate = Literal["pending", "sending", "sent", "perhaps", "summarised", "removed"]
# What is in one of these will not be sent any more.
FINAL: Final[frozenset[str]] = frozenset({"sent", "perhaps", "summarised", "removed"})


class Item(Struct, frozen=True, kw_only=True):
    """A message that waits: when its cause happened, and when the broker and we knew of it.

    `doubt`: it may have been sent before.
    """

    id: int
    key: str
    content: Content
    happened_ms: int
    sent_ms: int
    received_ms: int
    taken_ms: int
    tries: int = 0
    doubt: bool = False


class Now(Struct, frozen=True):
    """Our time, and the broker's if it is known."""

    wall_ms: int
    broker_ms: int | None = None


# -- what to take in ------------------------------------------------------------------------------


class Heard(Struct, frozen=True):
    """What a channel knows of a signal: its newest revision, and what became of the message."""

    signal: Signal
    fate: Fate


Verdict = Literal["ignore", "tell", "replace", "note", "withdraw", "correct"]


def happened_ms(signal: Signal) -> int:
    """Return when a signal came about: at the close of its candle, or with its tick."""
    return signal.ts_ms + _LENGTHS_MS.get(signal.timeframe, 0)


def judge(channel: Channel, signal: Signal, heard: Heard | None, begun_ms: int) -> Verdict:
    """Decide what a signal means to a channel.

    `tell` it; `replace` the message that still waits; `note` the new values of one that was told,
    or tell that it was taken back (`withdraw`) or turned (`correct`). A correction of the time
    before the notifier's first start is history, and nobody's news.
    """
    if heard is None:
        if not _wants(channel, signal) or signal.state != "active":
            return "ignore"
        return "ignore" if signal.late and happened_ms(signal) < begun_ms else "tell"
    if signal.revision <= heard.signal.revision:
        return "ignore"
    if heard.fate == "pending":
        return "replace"
    known = heard.signal
    changed = (signal.state, signal.direction) != (known.state, known.direction)
    if not changed or heard.fate in ("summarised", "removed"):
        return "note"
    return "withdraw" if signal.state == "superseded" else "correct"


def _wants(channel: Channel, signal: Signal) -> bool:
    return (
        channel.signals
        and _among(signal.ticker, channel.tickers)
        and _among(signal.timeframe, channel.timeframes)
        and _among(signal.direction, channel.directions)
    )


def _among(value: str, wanted: Collection[str]) -> bool:
    return not wanted or value in wanted


def wants_alert(channel: Channel, alert: Alert) -> bool:
    """Whether a channel is told of an alarm of this severity."""
    return channel.alerts and _rank(alert.severity) >= _rank(channel.severity)


def alert_key(alert: Alert) -> str:
    """Return what makes two notices the same: this alarm, since then, in this state."""
    return f"{alert.fingerprint}:{alert.starts_at}:{alert.status}"


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


# -- what to send next ----------------------------------------------------------------------------


class Plan(Struct, frozen=True):
    """What to do now: put `fold` into one summary, or send `send`, or look again in `wait_ms`."""

    fold: tuple[Item, ...] = ()
    send: Item | None = None
    wait_ms: int | None = None


def plan(channel: Channel, waiting: Sequence[Item], told_ms: Sequence[int], now: Now) -> Plan:
    """Return the next step of a channel whose messages `waiting` are in the order they came.

    `told_ms` is when it was last sent something. None is sent twice, and none is left for ever:
    each is sent, or counted in a summary.
    """
    if not waiting:
        return Plan()
    quiet = is_quiet(channel, now.wall_ms)
    stale = [item for item in waiting if _is_stale(channel, item, now)]
    stale_ids = {item.id for item in stale}
    fresh = [item for item in waiting if item.id not in stale_ids]
    gone = _gone(channel, stale, fresh, now, quiet=quiet)
    if gone:
        return Plan(fold=(*gone, *(item for item in fresh if _is_open_summary(item))))
    sendable = [item for item in fresh if not quiet or _passes_quiet(channel, item)]
    if not sendable:
        return Plan(wait_ms=LOOK_MS)
    recent = sorted(at for at in told_ms if 0 <= now.wall_ms - at < RATE_WINDOW_MS)
    if len(recent) >= channel.per_minute_max:
        free_ms = recent[-channel.per_minute_max] + RATE_WINDOW_MS - now.wall_ms
        return Plan(wait_ms=min(max(1, free_ms), LOOK_MS))
    return Plan(send=min(sendable, key=_order))


def age_ms(item: Item, now: Now) -> int:
    """Return how long ago the cause of a message was, in the broker's time if that is known."""
    if not isinstance(item.content, SignalNews):
        return max(0, now.wall_ms - item.happened_ms)
    broker_ms = now.broker_ms
    if broker_ms is None:
        broker_ms = item.sent_ms + max(0, now.wall_ms - item.received_ms)
    return max(0, broker_ms - item.happened_ms)


def is_quiet(channel: Channel, wall_ms: int) -> bool:
    """Whether a channel has quiet hours now; a span may pass midnight."""
    if not channel.quiet:
        return False
    local = dt.datetime.fromtimestamp(wall_ms / 1000, ZoneInfo(channel.zone))
    minute = local.hour * 60 + local.minute
    for span in channel.quiet:
        begin, end = _minutes(span)
        inside = begin <= minute < end if begin <= end else minute >= begin or minute < end
        if inside:
            return True
    return False


def fold(items: Sequence[Item], channel: Channel, now: Now) -> Summary:
    """Count messages into one summary; summaries among them are counted with what they hold."""
    facts: Counter[str] = Counter()
    too_old = too_many = 0
    times: list[int] = []
    for item in items:
        content = item.content
        if isinstance(content, Summary):
            facts.update(content.facts)
            too_old, too_many = too_old + content.too_old, too_many + content.too_many
            times += [content.first_ms, content.last_ms]
            continue
        times.append(item.happened_ms)
        stale = _is_stale(channel, item, now)
        too_old, too_many = too_old + stale, too_many + (not stale)
        if isinstance(content, SignalNews):
            facts[f"{content.signal.ticker} {content.signal.direction}"] += 1
        else:
            facts.update(f"{alert.name} {alert.status}" for alert in content.alerts[:_FACTS_MAX])
    return Summary(too_old, too_many, dict(facts), min(times), max(times))


@lru_cache(maxsize=256)
def _minutes(span: str) -> tuple[int, int]:
    begin_hour, begin_minute, end_hour, end_minute = (int(part) for part in re.split("[:-]", span))
    return begin_hour * 60 + begin_minute, end_hour * 60 + end_minute


def _is_stale(channel: Channel, item: Item, now: Now) -> bool:
    if isinstance(item.content, Summary):
        return False
    limit_s = channel.too_old_s
    if isinstance(item.content, AlertNews):
        limit_s = channel.alerts_too_old_s
    return age_ms(item, now) > limit_s * 1000


def _gone(
    channel: Channel, stale: Sequence[Item], fresh: Sequence[Item], now: Now, *, quiet: bool
) -> list[Item]:
    """Return what will not be sent one by one: what is too old, and the oldest of too many."""
    single = [item for item in fresh if not _is_open_summary(item)]
    too_many = len(stale) + len(single) - channel.pending_messages_max
    if too_many > 0:
        # One more, for the place that the summary takes.
        return [*stale, *single[: max(0, too_many + 1 - len(stale))]]
    if not stale or quiet:
        return []
    settling_ms = max(item.taken_ms for item in stale) + SETTLE_MS - now.wall_ms
    return [] if 0 < settling_ms <= SETTLE_MS else list(stale)


def _is_open_summary(item: Item) -> bool:
    """Whether more may be added: one that may have been sent already stays as it is."""
    return isinstance(item.content, Summary) and not item.doubt


def _passes_quiet(channel: Channel, item: Item) -> bool:
    if not isinstance(item.content, AlertNews):
        return False
    worst = max(_rank(alert.severity) for alert in item.content.alerts)
    return worst >= _rank(channel.quiet_passes)


def _order(item: Item) -> tuple[int, int, int]:
    """Alarms first, then as they came; what was refused again and again lets others pass."""
    kind = 0 if isinstance(item.content, AlertNews) else 1
    return (item.tries // _TRIES_IN_FRONT, kind, item.id)
