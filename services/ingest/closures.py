"""Minutes that our calendar has and the broker says the market is closed in. Pure.

Nobody can know today of a day of mourning next year. When the broker's page of hours says that a
day has no session, or a shorter one, the rest of the calendar's session is *closed*: nothing comes
in those minutes, so none of them is missing, and the ledger has to hold why.

`Closures` knows them by day, for all tickers. `ClosedMinutes` is one ticker's half of it: which of
them were published for it, as a Gap with the cause `MARKET_CLOSED`; so each is published once, by
whatever life of ingest. Broker and calendar are held against each other by the regular session
alone, because the broker's extended one may be another than ours on any day.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from libs.common import calendar
from libs.common.calendar import Session
from libs.common.events import MARKET_CLOSED, Gap, GapState

__all__ = ["ClosedMinutes", "Closures", "closed_spans"]

_DAYS_MAX = 16

Span = tuple[int, int]


def closed_spans(day: dt.date, told: Session | None) -> list[Span]:
    """Return what is closed of a day's session by what the broker says of it (None: all of it)."""
    planned = calendar.session(day)
    if planned is None:
        return []
    if told is None:
        return [(planned.pre_open_ms, planned.post_close_ms)]
    spans = []
    if told.open_ms > planned.open_ms:
        spans.append((planned.pre_open_ms, told.pre_open_ms))
    if told.close_ms < planned.close_ms:
        spans.append((told.post_close_ms, planned.post_close_ms))
    return [(from_ms, to_ms) for from_ms, to_ms in spans if from_ms < to_ms]


class Closures:
    """What is closed of the last days that were not as the calendar has them."""

    def __init__(self) -> None:
        self._days: dict[dt.date, dict[int, int]] = {}

    def tell(self, day: dt.date, spans: Iterable[Span]) -> None:
        """Take for true what is closed of a day, whatever was before."""
        self._days.pop(day, None)
        for from_ms, to_ms in spans:
            self.add(from_ms, to_ms)

    def add(self, from_ms: int, to_ms: int) -> None:
        """Note one more stretch that is closed."""
        self._days.setdefault(calendar.day_of(from_ms), {})[from_ms] = to_ms
        while len(self._days) > _DAYS_MAX:
            del self._days[min(self._days)]

    def drop(self, from_ms: int) -> None:
        """Forget a stretch."""
        self._days.get(calendar.day_of(from_ms), {}).pop(from_ms, None)

    def until(self, from_ms: int) -> int | None:
        """Return the end of the stretch that begins there; None when there is none."""
        return self._days.get(calendar.day_of(from_ms), {}).get(from_ms)

    def since(self, ms: int) -> list[Span]:
        """Return the stretches that end later than an instant, in order."""
        return sorted(
            span for spans in self._days.values() for span in spans.items() if span[1] > ms
        )

    def open_part(self, from_ms: int, to_ms: int) -> Span:
        """Return what of [from, to), within a session, is open: from late and to early."""
        for start_ms, end_ms in self._days.get(calendar.day_of(from_ms), {}).items():
            if start_ms <= from_ms:
                from_ms = max(from_ms, end_ms)
            elif end_ms >= to_ms:
                to_ms = min(to_ms, start_ms)
        return from_ms, to_ms

    def cover(self, from_ms: int, to_ms: int) -> bool:
        """Whether none of [from, to), within a session, is open."""
        start_ms, end_ms = self.open_part(from_ms, to_ms)
        return start_ms >= end_ms


class ClosedMinutes:
    """Which closed stretches were published for one ticker."""

    __slots__ = ("_closures", "_said", "_ticker")

    def __init__(self, ticker: str, closures: Closures) -> None:
        self._ticker = ticker
        self._closures = closures
        self._said: dict[int, int] = {}

    def news(self, since_ms: int) -> list[Gap]:
        """Return what is to be published of what is closed after an instant, and note it."""
        gaps = []
        for from_ms, to_ms in self._closures.since(since_ms):
            if self._said.get(from_ms) != to_ms:
                self._said[from_ms] = to_ms
                gaps.append(self._gap(from_ms, to_ms, "unfillable"))
        while len(self._said) > 2 * _DAYS_MAX:
            del self._said[min(self._said)]
        return gaps

    def taken_back(self, day: dt.date) -> list[Gap]:
        """Return what was published of a day and holds no longer, and forget it.

        Those minutes are as all others again: whatever is missing of them has a gap of its own.
        """
        start_ms, end_ms = calendar.day_bounds_ms(day)
        wrong = [
            from_ms
            for from_ms in self._said
            if start_ms <= from_ms < end_ms and self._closures.until(from_ms) is None
        ]
        return [self._gap(from_ms, self._said.pop(from_ms), "filled") for from_ms in wrong]

    def note(self, gap: Gap) -> None:
        """Take up what an earlier life published."""
        if gap.state == "unfillable":
            self._said[gap.from_ms] = gap.to_ms
            self._closures.add(gap.from_ms, gap.to_ms)
        else:
            self._said.pop(gap.from_ms, None)
            self._closures.drop(gap.from_ms)

    def refused(self, gap: Gap) -> None:
        """Take back one that could not be published; it is news again."""
        if gap.state == "unfillable":
            self._said.pop(gap.from_ms, None)
        else:
            self._said[gap.from_ms] = gap.to_ms

    def packed(self) -> tuple[int, ...]:
        """Return everything as numbers: pairs of beginnings and ends."""
        return tuple(ms for span in sorted(self._said.items()) for ms in span)

    def unpack(self, packed: Sequence[int]) -> None:
        """Take up what `packed` gave."""
        self._said = dict(zip(packed[::2], packed[1::2], strict=True))
        for from_ms, to_ms in self._said.items():
            self._closures.add(from_ms, to_ms)

    def _gap(self, from_ms: int, to_ms: int, state: GapState) -> Gap:
        reason = "closed" if state == "unfillable" else ""
        gap_id = f"{self._ticker}:closed:{from_ms}"
        return Gap(gap_id, self._ticker, "bars", from_ms, to_ms, MARKET_CLOSED, state, reason)
