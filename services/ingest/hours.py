"""When the market is open: by the calendar, unless the broker says otherwise of a day. Pure.

`Hours` answers for instants of broker time. What the broker's own page of hours says of a day goes
before the calendar: nobody can know today of a day of mourning next year. Outside the extended
session ingest has nothing to fetch; `awake` says when it has, from shortly before the session to
shortly after it.

An instant that no calendar covers counts as awake: ignorance is no reason to stay away.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from libs.common import calendar
from libs.common.calendar import Session
from libs.common.errors import CalendarError

__all__ = ["LEAD_MS", "TAIL_MS", "Hours", "hours_of"]

LEAD_MS = 300_000  # connect that long before the extended session
TAIL_MS = 120_000  # and be there that long after it: the last bars and quotes come late
_DAYS_TOLD_MAX = 16
_FULL_DAY_S = 6.5 * 3_600


class Hours:
    """The sessions of days, as far as they are known."""

    def __init__(self) -> None:
        self._told: dict[dt.date, Session | None] = {}

    def tell(self, day: dt.date, session: Session | None) -> bool:
        """Note what the broker says of a day (None: closed); whether the calendar says else."""
        self._told.pop(day, None)
        self._told[day] = session
        while len(self._told) > _DAYS_TOLD_MAX:
            del self._told[next(iter(self._told))]
        return session != calendar.session(day)

    def knows(self, day: dt.date) -> bool:
        """Whether the broker has said anything of a day."""
        return day in self._told

    def session(self, day: dt.date) -> Session | None:
        """Return the day's session, or None when the market stays closed."""
        return self._told[day] if day in self._told else calendar.session(day)

    def awake(self, now_ms: int) -> bool:
        """Whether there is something to fetch: the extended session is on, or nearly."""
        try:
            session = self.session(calendar.day_of(now_ms))
        except CalendarError:
            return True
        if session is None:
            return False
        return session.pre_open_ms - LEAD_MS <= now_ms < session.post_close_ms + TAIL_MS

    def ms_until_awake(self, now_ms: int) -> int:
        """Return how long there will be nothing to fetch; 0 when there is."""
        if self.awake(now_ms):
            return 0
        day = calendar.day_of(now_ms)
        while (session := self.session(day)) is None or session.pre_open_ms - LEAD_MS < now_ms:
            day += dt.timedelta(days=1)
            if day > calendar.LAST_DAY:
                return 0
        return session.pre_open_ms - LEAD_MS - now_ms

    def regular(self, now_ms: int) -> bool:
        """Whether the regular session is on."""
        try:
            session = self.session(calendar.day_of(now_ms))
        except CalendarError:
            return False
        return session is not None and session.open_ms <= now_ms < session.close_ms

    def closed_unexpectedly(self, now_ms: int) -> bool:
        """Whether the calendar has the regular session on, and the broker says it is not."""
        try:
            return calendar.is_open(now_ms) and not self.regular(now_ms)
        except CalendarError:
            return False


def hours_of(body: bytes, day: dt.date) -> Session | None:
    """Read the broker's page of a day's hours for equities; None when it says closed all day.

    Raises ValueError with the reason when the page makes no sense or tells of another day.
    """
    product = _product(body)
    if product.get("date") != day.isoformat():
        raise ValueError("the broker's hours are not those of the day that was asked for")
    spans = product.get("sessionHours")
    if not spans:
        if product.get("isOpen") is False:
            return None
        raise ValueError("the broker's hours say open and give no hours")
    try:
        regular = [_span_ms(span) for span in spans["regularMarket"]]
        every = [_span_ms(span) for part in spans.values() for span in part]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("the broker's hours cannot be read") from None
    return _session(day, regular, every)


def _product(body: bytes) -> dict[str, Any]:
    try:
        page = msgspec.json.decode(body, type=dict[str, dict[str, dict[str, Any]]])
        return next(iter(page["equity"].values()))
    except (msgspec.MsgspecError, KeyError, StopIteration):
        raise ValueError("the broker's hours are no page of hours") from None


def _session(
    day: dt.date, regular: list[tuple[int, int]], every: list[tuple[int, int]]
) -> Session | None:
    if not regular:
        return None
    open_ms, close_ms = min(regular)[0], max(end for _, end in regular)
    pre_open_ms, post_close_ms = min(every)[0], max(end for _, end in every)
    start_ms, end_ms = calendar.day_bounds_ms(day)
    if not start_ms <= pre_open_ms <= open_ms < close_ms <= post_close_ms <= end_ms:
        raise ValueError("the broker's hours are in no order")
    half_day = close_ms - open_ms < _FULL_DAY_S * 1_000
    return Session(day, pre_open_ms, open_ms, close_ms, post_close_ms, half_day)


def _span_ms(span: dict[str, str]) -> tuple[int, int]:
    start, end = (dt.datetime.fromisoformat(span[name]) for name in ("start", "end"))
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("a time without its offset")
    return round(start.timestamp() * 1000), round(end.timestamp() * 1000)
