"""Names of the days on which the exchange is closed; the calendar knows only that it is. Pure."""

from __future__ import annotations

from datetime import date

__all__ = ["holiday_name"]

_FIXED = {
    (1, 1): "New Year's Day",
    (6, 19): "Juneteenth",
    (7, 4): "Independence Day",
    (12, 25): "Christmas Day",
}
_MONDAY, _FRIDAY = 0, 4
_ONCE = {
    date(1994, 4, 27): "Mourning for Richard Nixon",
    date(2001, 9, 11): "September 11 attacks",
    date(2001, 9, 12): "September 11 attacks",
    date(2001, 9, 13): "September 11 attacks",
    date(2001, 9, 14): "September 11 attacks",
    date(2004, 6, 11): "Mourning for Ronald Reagan",
    date(2007, 1, 2): "Mourning for Gerald Ford",
    date(2012, 10, 29): "Hurricane Sandy",
    date(2012, 10, 30): "Hurricane Sandy",
    date(2018, 12, 5): "Mourning for George H. W. Bush",
    date(2025, 1, 9): "Mourning for Jimmy Carter",
}


def holiday_name(day: date) -> str | None:
    """Return what a weekday without a session is called, None when nobody gave it a name."""
    return _ONCE.get(day) or _fixed(day) or _movable(day)


def _fixed(day: date) -> str | None:
    for name, (month, number) in ((name, key) for key, name in _FIXED.items()):
        holiday = date(day.year, month, number)
        # On a Saturday it is kept on the Friday before, on a Sunday on the Monday after.
        kept = holiday.toordinal()
        if holiday.weekday() == 5:
            kept -= 1
        elif holiday.weekday() == 6:
            kept += 1
        if day.toordinal() == kept:
            return name
    return None


def _movable(day: date) -> str | None:
    week = (day.day - 1) // 7 + 1
    last_of_month = day.day > 24
    if day.weekday() == _MONDAY:
        if day.month == 5 and last_of_month:
            return "Memorial Day"
        return {
            (1, 3): "Martin Luther King Jr. Day",
            (2, 3): "Presidents' Day",
            (9, 1): "Labor Day",
        }.get((day.month, week))
    if (day.month, day.weekday(), week) == (11, 3, 4):
        return "Thanksgiving Day"
    if day.weekday() == _FRIDAY and day.month in (3, 4):
        return "Good Friday"
    return None
