"""When the next backup is due: pure. Once a day, at a time of day in New York."""

from __future__ import annotations

import datetime as dt

from libs.common.calendar import NEW_YORK

__all__ = ["last_due_ms", "next_due_ms", "parse_time"]

_ONE_DAY = dt.timedelta(days=1)


def parse_time(text: str) -> dt.time:
    """Read `20:30`; raises ValueError for anything else."""
    try:
        found = dt.datetime.strptime(text, "%H:%M").replace(tzinfo=NEW_YORK)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time of day: write for example 20:30") from error
    return found.time()


def last_due_ms(now_ms: int, at: dt.time) -> int:
    """Return the latest due moment that is not after now; both in epoch milliseconds."""
    now = dt.datetime.fromtimestamp(now_ms / 1000, NEW_YORK)
    due = dt.datetime.combine(now.date(), at, NEW_YORK)
    if _ms(due) > now_ms:
        due = dt.datetime.combine(now.date() - _ONE_DAY, at, NEW_YORK)
    return _ms(due)


def next_due_ms(now_ms: int, at: dt.time) -> int:
    """Return the first due moment after now."""
    day = dt.datetime.fromtimestamp(last_due_ms(now_ms, at) / 1000, NEW_YORK).date()
    return _ms(dt.datetime.combine(day + _ONE_DAY, at, NEW_YORK))


def _ms(moment: dt.datetime) -> int:
    return round(moment.timestamp() * 1000)
