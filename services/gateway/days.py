"""The calendar in the words of the interface: sessions, weekdays, parts of a day, and refusals."""

from __future__ import annotations

from datetime import date

from libs.common import calendar
from libs.common.calendar import Segment
from libs.common.errors import CalendarError
from services.gateway import answers
from services.gateway.answers import Refused
from services.gateway.holidays import holiday_name

__all__ = ["day_answer", "phase_at", "require_known", "require_range", "series_session"]

SESSION_DAYS_MAX = 1500


def series_session(day: date) -> answers.SeriesSession | None:
    """Return the bounds of a day, or None when there is no session."""
    session = calendar.session(day)
    if session is None:
        return None
    return answers.SeriesSession(
        "half" if session.half_day else "full", session.pre_open_ms, session.open_ms,
        session.close_ms, session.post_close_ms,
    )  # fmt: skip


def day_answer(day: date, has_data: bool) -> answers.Day:
    """Return what the calendar says of a weekday."""
    session = calendar.session(day)
    if session is None:
        name = holiday_name(day)
        return answers.Day(day.isoformat(), "holiday", name, None, None, None, None, has_data)
    return answers.Day(
        day.isoformat(), "half" if session.half_day else "full", None, session.pre_open_ms,
        session.open_ms, session.close_ms, session.post_close_ms, has_data,
    )  # fmt: skip


def require_known(name: str, day: date) -> None:
    """Raise Refused for a day that the calendar does not have."""
    if not calendar.FIRST_DAY <= day <= calendar.LAST_DAY:
        known = f"{calendar.FIRST_DAY} to {calendar.LAST_DAY}"
        message = f"{name}: {day} is outside the calendar, {known}"
        raise Refused(400, "bad_parameter", message, parameter=name)


def require_range(first: date, last: date) -> None:
    """Raise Refused for a range that is none, or too long."""
    if first > last:
        message = f"from: {first} is after to, {last}: exchange them"
        raise Refused(400, "bad_parameter", message, parameter="from")
    if (last - first).days >= SESSION_DAYS_MAX:
        message = f"from: at most {SESSION_DAYS_MAX} days at once: ask for the others by themselves"
        raise Refused(400, "bad_parameter", message, parameter="from")


def phase_at(broker_ms: int) -> tuple[answers.Phase, answers.NextPhase | None]:
    """Return the part of the trading day that it is, and what comes next, if that is known."""
    segment = calendar.segment_at(broker_ms)
    session = calendar.session_at(broker_ms)
    if segment is Segment.CLOSED or session is None:
        if session is None or broker_ms >= session.post_close_ms:
            try:
                session = calendar.next_session(calendar.day_of(broker_ms))
            except CalendarError:
                return "closed", None
        return "closed", answers.NextPhase("pre", session.pre_open_ms)
    if segment is Segment.PRE:
        return "pre", answers.NextPhase("regular", session.open_ms)
    if segment is Segment.REGULAR:
        return "regular", answers.NextPhase("post", session.close_ms)
    return "post", answers.NextPhase("closed", session.post_close_ms)
