"""When the market is open: the calendar, unless the broker says otherwise, summer and winter."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.calendar import NEW_YORK
from services.ingest.hours import LEAD_MS, TAIL_MS, Hours, hours_of
from services.simulator.faults import Faults
from services.simulator.hours import session_on
from services.simulator.quotes import market_hours

WEDNESDAY = dt.date(2026, 11, 18)
THANKSGIVING = dt.date(2026, 11, 26)
HALF_DAY = dt.date(2026, 11, 27)
MONDAY = dt.date(2026, 11, 30)


def at(day: dt.date, hour: int, minute: int = 0) -> int:
    """A New York time of day in epoch milliseconds."""
    return int(dt.datetime.combine(day, dt.time(hour, minute), NEW_YORK).timestamp() * 1000)


def page(day: dt.date, faults: Faults | None = None) -> bytes:
    """The simulated broker's page of hours."""
    session = session_on(day, faults or Faults())
    return json.dumps(market_hours(["equity"], day, day, session)).encode()


@pytest.mark.parametrize(
    ("now_ms", "awake"),
    [
        (at(WEDNESDAY, 6, 54), False),
        (at(WEDNESDAY, 6, 55), True),
        (at(WEDNESDAY, 12), True),
        (at(WEDNESDAY, 20, 1), True),
        (at(WEDNESDAY, 20, 2), False),
        (at(THANKSGIVING, 12), False),
        (at(HALF_DAY, 16, 59), True),
        (at(HALF_DAY, 17, 2), False),
        (at(dt.date(2026, 11, 28), 12), False),
    ],
)
def test_awake_from_shortly_before_to_shortly_after_the_session(now_ms: int, awake: bool) -> None:
    """Nights, a weekend, a holiday and the evening of a half day are not."""
    assert Hours().awake(now_ms) is awake


def test_the_wait_ends_five_minutes_before_the_next_session() -> None:
    """From the half day after Thanksgiving over the weekend to Monday."""
    hours = Hours()
    evening_ms = at(HALF_DAY, 18)
    assert evening_ms + hours.ms_until_awake(evening_ms) == at(MONDAY, 6, 55)
    assert hours.ms_until_awake(at(MONDAY, 6, 55)) == 0
    assert at(MONDAY, 2) + hours.ms_until_awake(at(MONDAY, 2)) == at(MONDAY, 6, 55)


def test_the_wait_over_the_end_of_summer_time_is_an_hour_longer() -> None:
    """Friday evening to Monday morning, when clocks go back on Sunday."""
    friday_ms, monday_ms = at(dt.date(2026, 10, 30), 20, 30), at(dt.date(2026, 11, 2), 6, 55)
    assert Hours().ms_until_awake(friday_ms) == monday_ms - friday_ms
    assert monday_ms - friday_ms == (58 * 60 + 25 + 60) * 60_000


@given(st.integers(946_684_800_000, 2_082_758_400_000))
def test_one_is_awake_when_the_wait_is_over_and_not_before(now_ms: int) -> None:
    """For every instant of the calendar's years."""
    hours = Hours()
    wait_ms = hours.ms_until_awake(now_ms)
    assert hours.awake(now_ms + wait_ms)
    assert wait_ms == 0 or not hours.awake(now_ms + wait_ms - 1)
    session = calendar.session_at(now_ms + wait_ms)
    assert session is not None
    assert wait_ms == 0 or now_ms + wait_ms == session.pre_open_ms - LEAD_MS


def test_where_no_calendar_reaches_nobody_stays_away() -> None:
    """A wrong clock is no reason to miss a session."""
    assert Hours().awake(0)
    assert Hours().ms_until_awake(0) == 0
    assert not Hours().regular(0)
    assert not Hours().closed_unexpectedly(0)


def test_an_unexpected_holiday_goes_before_the_calendar() -> None:
    """Closed, idle until the next day, and known to be unexpected."""
    hours = Hours()
    assert hours.tell(WEDNESDAY, None)
    assert hours.knows(WEDNESDAY)
    noon_ms = at(WEDNESDAY, 12)
    assert not hours.awake(noon_ms)
    assert noon_ms + hours.ms_until_awake(noon_ms) == at(WEDNESDAY + dt.timedelta(days=1), 6, 55)
    assert hours.closed_unexpectedly(noon_ms)
    assert not hours.closed_unexpectedly(at(WEDNESDAY, 18))


def test_an_unexpected_early_close_ends_the_day_early() -> None:
    """Open until 13:00, awake until the end of the shorter evening."""
    hours = Hours()
    told = hours_of(page(WEDNESDAY, Faults(early_days=(WEDNESDAY.isoformat(),))), WEDNESDAY)
    assert told is not None
    assert hours.tell(WEDNESDAY, told)
    assert hours.regular(at(WEDNESDAY, 12, 59))
    assert not hours.regular(at(WEDNESDAY, 13))
    assert hours.closed_unexpectedly(at(WEDNESDAY, 13))
    assert hours.awake(told.post_close_ms + TAIL_MS - 1)
    assert not hours.awake(told.post_close_ms + TAIL_MS)


def test_a_market_that_opens_against_the_calendar_is_attended() -> None:
    """The exchange may drop a holiday, too."""
    hours = Hours()
    session = calendar.session(WEDNESDAY)
    assert session is not None
    day_ms = at(THANKSGIVING, 0) - at(WEDNESDAY, 0)
    shifted = dataclasses.replace(
        session,
        day=THANKSGIVING,
        pre_open_ms=session.pre_open_ms + day_ms,
        open_ms=session.open_ms + day_ms,
        close_ms=session.close_ms + day_ms,
        post_close_ms=session.post_close_ms + day_ms,
    )
    assert hours.tell(THANKSGIVING, shifted)
    assert hours.awake(at(THANKSGIVING, 12))


@pytest.mark.parametrize("day", [WEDNESDAY, THANKSGIVING, HALF_DAY, MONDAY, dt.date(2026, 11, 1)])
def test_a_page_that_agrees_with_the_calendar_is_no_news(day: dt.date) -> None:
    """Full day, holiday, half day, weekend."""
    told = hours_of(page(day), day)
    assert told == calendar.session(day)
    assert not Hours().tell(day, told)


def span(start: str, end: str) -> list[dict[str, str]]:
    """A span as the page has it."""
    return [{"start": f"2026-11-18T{start}", "end": f"2026-11-18T{end}"}]


@pytest.mark.parametrize(
    "product",
    [
        {},
        {"date": "2026-11-17", "isOpen": False},
        {"date": "2026-11-18"},
        {"date": "2026-11-18", "isOpen": True},
        {"date": "2026-11-18", "sessionHours": {"regularMarket": [{"start": "09:30"}]}},
        {"date": "2026-11-18", "sessionHours": {"regularMarket": span("09:30:00", "16:00:00")}},
        {"date": "2026-11-18", "sessionHours": {"preMarket": span("07:00-05:00", "09:30-05:00")}},
        {
            "date": "2026-11-18",
            "sessionHours": {"regularMarket": span("16:00-05:00", "09:30-05:00")},
        },
        {"date": "2026-11-18", "sessionHours": ["09:30"]},
        {"date": "2026-11-18", "sessionHours": {"regularMarket": 5}},
    ],
    ids=str,
)
def test_a_page_that_makes_no_sense_is_refused(product: dict[str, object]) -> None:
    """The calendar is right then."""
    with pytest.raises(ValueError, match="broker's hours"):
        hours_of(json.dumps({"equity": {"EQ": product}}).encode(), WEDNESDAY)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"equity":{}}', b'{"equity":5}'])
def test_something_else_is_no_page_of_hours(body: bytes) -> None:
    """An error page, an empty answer, another market."""
    with pytest.raises(ValueError, match="no page of hours"):
        hours_of(body, WEDNESDAY)


def test_only_the_last_days_are_remembered() -> None:
    """A process runs for years."""
    hours = Hours()
    for number in range(100):
        hours.tell(WEDNESDAY + dt.timedelta(days=number), None)
    assert not hours.knows(WEDNESDAY)
    assert hours.knows(WEDNESDAY + dt.timedelta(days=99))
