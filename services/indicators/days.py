"""Where averages start anew: with each New York day, VWAP also with the regular session's open."""

from __future__ import annotations

from typing import NamedTuple

from libs.common import calendar

__all__ = ["Anchor", "anchor_at"]


class Anchor(NamedTuple):
    """The New York day of an instant (its midnight), and when VWAP next starts anew."""

    day_ms: int
    until_ms: int


def anchor_at(ts_ms: int) -> Anchor:
    """Return the anchor that holds the instant; raises CalendarError outside the calendar."""
    session = calendar.session_at(ts_ms)
    if session is not None and ts_ms < session.open_ms:
        return Anchor(calendar.day_start_ms(ts_ms), session.open_ms)
    _, end_ms = calendar.day_bounds_ms(calendar.day_of(ts_ms))
    return Anchor(calendar.day_start_ms(ts_ms), end_ms)
