"""What goes into the core and what comes out of it, beside frames."""

from __future__ import annotations

from msgspec import Struct

from libs.common.events import Event, HistoryBar
from services.ingest import wire
from services.ingest.wire import Reject

__all__ = ["REJECTS_PER_FRAME_MAX", "DayAnswer", "DayWanted", "Step"]

REJECTS_PER_FRAME_MAX = 100


class DayWanted(Struct, frozen=True):
    """Price history to ask for, once broker time has reached `after_ms`.

    `changes_only`: somebody asked for the day again, and an answer that says nothing new is none.
    """

    ticker: str
    day_ms: int
    after_ms: int = 0
    changes_only: bool = False


class DayAnswer(Struct, frozen=True):
    """What price history said: the day's minutes, ascending; None when it never will say any."""

    ticker: str
    day_ms: int
    asked_ms: int
    candles: list[HistoryBar] | None


class Step(Struct):
    """What one input led to; `sent_ms` is the broker time of its events.

    `checked` says of each session that was held against price history how that ended: equal,
    corrected, short (history has less than came live) or unknown (it has nothing).
    """

    sent_ms: int
    events: list[Event] = []
    rejects: list[Reject] = []
    wanted: list[DayWanted] = []
    notes: list[str] = []
    checked: list[str] = []
    further_rejects: list[str] = []
    items: int = 0

    def reject(self, reason: str, value: object) -> None:
        """Refuse something; beyond a bound only its reason is kept."""
        if len(self.rejects) < REJECTS_PER_FRAME_MAX:
            self.rejects.append(Reject(reason, wire.excerpt(value)))
        else:
            self.further_rejects.append(reason)
