"""Which session of the calendar is going on, and which is over, at a broker time. Pure."""

from __future__ import annotations

from libs.common import calendar

__all__ = ["SESSION_SETTLED_MS", "is_known", "last_over", "session_over", "trading_since_ms"]

SESSION_SETTLED_MS = 600_000  # so long after its end a session's price history is final


def trading_since_ms(broker_ms: int) -> int:
    """Return when the session that is going on began, pre-market included; 0 when none is."""
    session = calendar.session_at(broker_ms) if broker_ms else None
    if session is None or not session.pre_open_ms < broker_ms < session.post_close_ms:
        return 0
    return session.pre_open_ms


def session_over(day_ms: int, at_ms: int) -> calendar.Session | None:
    """Return the day's session if its price history is final at that time."""
    session = calendar.session_at(day_ms)
    if session is None or at_ms < session.post_close_ms + SESSION_SETTLED_MS:
        return None
    return session


def last_over(broker_ms: int) -> calendar.Session:
    """Return the last session whose price history is final."""
    return session_over(calendar.day_start_ms(broker_ms), broker_ms) or calendar.previous_session(
        calendar.day_of(broker_ms)
    )


def is_known(broker_ms: int) -> bool:
    """Whether the calendar covers an instant."""
    try:
        calendar.day_of(broker_ms)
    except calendar.CalendarError:
        return False
    return True
