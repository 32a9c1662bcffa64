"""The hours of a day as this broker keeps them: the calendar's, unless a fault says otherwise."""

from __future__ import annotations

import dataclasses
import datetime as dt

from libs.common import calendar
from libs.common.calendar import Session
from services.simulator.faults import Faults

__all__ = ["is_shut", "session_on"]

_EARLY_MS = 3 * 3_600_000


def session_on(day: dt.date, faults: Faults) -> Session | None:
    """Return the session of a day, or None when the market stays closed."""
    found = calendar.session(day)
    if found is None or day.isoformat() in faults.closed_days:
        return None
    if day.isoformat() not in faults.early_days or found.half_day:
        return found
    return dataclasses.replace(
        found,
        close_ms=found.close_ms - _EARLY_MS,
        post_close_ms=found.post_close_ms - _EARLY_MS,
        half_day=True,
    )


def is_shut(at_ms: int, faults: Faults) -> bool:
    """Tell whether an instant lies outside the extended session of its day."""
    session = session_on(calendar.day_of(at_ms), faults)
    return session is None or not session.pre_open_ms <= at_ms < session.post_close_ms
