"""The trading calendar of New York: which day, session, segment and bucket an instant belongs to.

Promises:

- Instants are epoch milliseconds UTC, days are New York dates, and daylight saving is right.
- The days and hours equal those of the exchange for 1990 to 2035 (``table.py``, generated).
  Anything outside raises ``CalendarError``; nothing is ever guessed.
- It never asks what time it is, so that the same input gives the same answer in every replay.
- The per-tick calls cost one dictionary look-up.

Theory of operation. New York differs from UTC by whole hours, and every segment begins and ends on
a half hour. All instants of one half hour UTC therefore share day, session and segment, so one
cached ``_Span`` per half hour answers every question, without a notion of "the current day" that
would have to be moved forward.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from libs.common.calendar import table
from libs.common.errors import CalendarError

__all__ = [
    "FIRST_DAY",
    "LAST_DAY",
    "NEW_YORK",
    "CalendarError",
    "Segment",
    "Session",
    "bucket",
    "day_bounds_ms",
    "day_of",
    "day_start_ms",
    "is_open",
    "next_session",
    "previous_session",
    "segment_at",
    "segment_bounds_ms",
    "session",
    "session_at",
    "sessions",
]

NEW_YORK = ZoneInfo("America/New_York")
FIRST_DAY = dt.date(table.FIRST_YEAR, 1, 1)
LAST_DAY = dt.date(table.LAST_YEAR, 12, 31)

_PRE_OPEN = dt.time(7, 0)
_OPEN = dt.time(9, 30)
_CLOSE = dt.time(16, 0)
_POST_LENGTH_MS = 4 * 3_600_000  # until 20:00 after a full day, until 17:00 after a half day
_HALF_HOUR_MS = 1_800_000
_ONE_DAY = dt.timedelta(days=1)
# Both caches hold several weeks: far more than live work touches, and a bound for a long replay.
_CACHED_HALF_HOURS_MAX = 4096
_CACHED_DAYS_MAX = 512


class Segment(StrEnum):
    """The part of a trading day. Equal to its own name as a string."""

    PRE = "pre"
    REGULAR = "regular"
    POST = "post"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Session:
    """One day on which the exchange trades: half-open segments, bounded by epoch milliseconds."""

    day: dt.date
    pre_open_ms: int
    open_ms: int
    close_ms: int
    post_close_ms: int
    half_day: bool


@dataclass(frozen=True, slots=True)
class _Span:
    """A segment, or a closed stretch between two segments, within one New York day."""

    segment: Segment
    start_ms: int
    end_ms: int
    day: dt.date
    day_start_ms: int
    session: Session | None


def session(day: dt.date) -> Session | None:
    """Return the session of a New York day, or None when the exchange is closed all day."""
    return _session(day)


def session_at(ts_ms: int) -> Session | None:
    """Return the session of the New York day that holds the instant, be it on then or not."""
    return _span(ts_ms // _HALF_HOUR_MS).session


def day_of(ts_ms: int) -> dt.date:
    """Return the New York calendar date of the instant."""
    return _span(ts_ms // _HALF_HOUR_MS).day


def day_start_ms(ts_ms: int) -> int:
    """Return New York midnight at or before the instant."""
    return _span(ts_ms // _HALF_HOUR_MS).day_start_ms


def day_bounds_ms(day: dt.date) -> tuple[int, int]:
    """Return the New York day as [start, end): 23, 24 or 25 hours long."""
    _require_known(day)
    return _instant_ms(day, dt.time.min), _instant_ms(day + _ONE_DAY, dt.time.min)


def segment_at(ts_ms: int) -> Segment:
    """Return the segment that holds the instant; a bound belongs to the segment it opens."""
    return _span(ts_ms // _HALF_HOUR_MS).segment


def segment_bounds_ms(ts_ms: int) -> tuple[int, int]:
    """Return [start, end) of the segment, or closed stretch of the day, around the instant."""
    span = _span(ts_ms // _HALF_HOUR_MS)
    return span.start_ms, span.end_ms


def is_open(ts_ms: int) -> bool:
    """Tell whether the regular session is on at the instant."""
    return _span(ts_ms // _HALF_HOUR_MS).segment is Segment.REGULAR


def bucket(ts_ms: int, length_ms: int) -> tuple[int, int]:
    """Return [start, end) of the bar of the given length that holds the instant.

    Buckets count from the open of their segment and are cut at its end: hours of the regular
    segment start at 09:30, and the last one is 15:30-16:00. Closed stretches begin on whole hours
    of New York, so the same rule aligns them to whole hours; no bucket crosses midnight.
    ``length_ms`` is positive.
    """
    span = _span(ts_ms // _HALF_HOUR_MS)
    start_ms = ts_ms - (ts_ms - span.start_ms) % length_ms
    return start_ms, min(start_ms + length_ms, span.end_ms)


def next_session(after: dt.date) -> Session:
    """Return the first session on a day later than ``after``."""
    return _nearest(after, _ONE_DAY)


def previous_session(before: dt.date) -> Session:
    """Return the last session on a day earlier than ``before``."""
    return _nearest(before, -_ONE_DAY)


def sessions(first: dt.date, last: dt.date) -> list[Session]:
    """Return every session from ``first`` to ``last``, both included, in order."""
    _require_known(first)
    _require_known(last)
    days = (first + dt.timedelta(days=n) for n in range((last - first).days + 1))
    return [found for day in days if (found := _session(day)) is not None]


def _nearest(day: dt.date, step: dt.timedelta) -> Session:
    found = None
    while found is None:
        day += step
        found = _session(day)
    return found


def _require_known(day: dt.date) -> None:
    if not FIRST_DAY <= day <= LAST_DAY:
        raise _unknown(day.isoformat())


def _unknown(what: str) -> CalendarError:
    return CalendarError(
        f"{what} is outside the calendar, which covers {FIRST_DAY} to {LAST_DAY}; for other years"
        " run `python -m libs.common.calendar.generate --first YEAR --last YEAR`, commit table.py"
    )


def _instant_ms(day: dt.date, time: dt.time) -> int:
    # Only midnight and session bounds come here, none of which daylight saving repeats or skips.
    return int(dt.datetime.combine(day, time, NEW_YORK).timestamp()) * 1000


@lru_cache(maxsize=1)
def _weekday_holidays() -> frozenset[dt.date]:
    return frozenset(
        dt.date(year, int(item[:2]), int(item[2:]))
        for year, items in table.HOLIDAYS.items()
        for item in items.split()
    )


@lru_cache(maxsize=1)
def _early_closes() -> dict[dt.date, dt.time]:
    return {
        dt.date(year, int(item[:2]), int(item[2:4])): dt.time(int(item[5:7]), int(item[7:]))
        for year, items in table.EARLY_CLOSES.items()
        for item in items.split()
    }


@lru_cache(maxsize=_CACHED_DAYS_MAX)
def _session(day: dt.date) -> Session | None:
    _require_known(day)
    if day.weekday() >= 5 or day in _weekday_holidays():
        return None
    close = _early_closes().get(day, _CLOSE)
    close_ms = _instant_ms(day, close)
    return Session(
        day=day,
        pre_open_ms=_instant_ms(day, _PRE_OPEN),
        open_ms=_instant_ms(day, _OPEN),
        close_ms=close_ms,
        post_close_ms=close_ms + _POST_LENGTH_MS,
        half_day=close != _CLOSE,
    )


@lru_cache(maxsize=_CACHED_HALF_HOURS_MAX)
def _span(half_hour: int) -> _Span:
    ts_ms = half_hour * _HALF_HOUR_MS
    try:
        day = dt.datetime.fromtimestamp(ts_ms // 1000, NEW_YORK).date()
    except (ValueError, OverflowError, OSError) as error:
        raise _unknown(f"the instant {ts_ms} ms") from error
    start_ms, end_ms = day_bounds_ms(day)
    found = _session(day)
    for segment, from_ms, to_ms in _segments(start_ms, end_ms, found):
        if ts_ms < to_ms:
            return _Span(segment, from_ms, to_ms, day, start_ms, found)
    raise AssertionError(f"{ts_ms} ms does not lie in {day}")


def _segments(
    start_ms: int, end_ms: int, found: Session | None
) -> Iterator[tuple[Segment, int, int]]:
    """Cut one day into its segments, in order and without a hole."""
    if found is None:
        yield Segment.CLOSED, start_ms, end_ms
        return
    yield Segment.CLOSED, start_ms, found.pre_open_ms
    yield Segment.PRE, found.pre_open_ms, found.open_ms
    yield Segment.REGULAR, found.open_ms, found.close_ms
    yield Segment.POST, found.close_ms, found.post_close_ms
    yield Segment.CLOSED, found.post_close_ms, end_ms
