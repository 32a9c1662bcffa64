"""The calendar equals the exchange's on every day, and its buckets tile every New York day."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.calendar import Segment, generate
from libs.common.errors import CalendarError

NEW_YORK = ZoneInfo("America/New_York")
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
FIRST_MS = int(dt.datetime(1990, 1, 1, tzinfo=NEW_YORK).timestamp()) * 1000
LAST_MS = int(dt.datetime(2036, 1, 1, tzinfo=NEW_YORK).timestamp()) * 1000 - 1

instants = st.integers(FIRST_MS, LAST_MS)
# Any length that an operator may ask for, also ones that do not divide a segment.
lengths = st.integers(1, 300).map(lambda minutes: minutes * MINUTE_MS)


def at(text: str) -> int:
    """Epoch milliseconds of a New York date and time such as ``2024-07-03 12:59``."""
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp() * 1000)


def clock(ts_ms: int) -> str:
    """New York wall clock of an instant, for readable comparisons."""
    return dt.datetime.fromtimestamp(ts_ms / 1000, NEW_YORK).strftime("%H:%M")


def test_every_day_of_46_years_equals_the_reference_calendar() -> None:
    """Open and close of each session, and the absence of one, are those of exchange-calendars."""
    reference = {
        item.day: (
            int(dt.datetime.combine(item.day, item.open, NEW_YORK).timestamp() * 1000),
            int(dt.datetime.combine(item.day, item.close, NEW_YORK).timestamp() * 1000),
        )
        for item in generate.exchange_days(1990, 2035)
    }
    ours = {
        item.day: (item.open_ms, item.close_ms)
        for item in calendar.sessions(calendar.FIRST_DAY, calendar.LAST_DAY)
    }
    assert ours == reference
    assert len(ours) > 11_500


def test_the_committed_table_is_what_the_generator_writes() -> None:
    """Nobody edited the generated table by hand."""
    assert generate.TABLE_PATH.read_text(encoding="utf-8") == generate.render(1990, 2035)


@pytest.mark.parametrize(
    ("day", "hours", "half_day"),
    [
        ("2024-07-02", ("07:00", "09:30", "16:00", "20:00"), False),
        ("2024-07-03", ("07:00", "09:30", "13:00", "17:00"), True),
        ("1990-12-24", ("07:00", "09:30", "14:00", "18:00"), True),
    ],
)
def test_a_session_has_its_four_bounds(day: str, hours: tuple[str, ...], half_day: bool) -> None:
    """Post-market lasts four hours, after a half day as well."""
    found = calendar.session(dt.date.fromisoformat(day))
    assert found is not None
    bounds = (found.pre_open_ms, found.open_ms, found.close_ms, found.post_close_ms)
    assert tuple(map(clock, bounds)) == hours
    assert found.half_day is half_day


@pytest.mark.parametrize("day", ["2001-09-11", "2024-12-25", "2025-01-09", "2024-06-01"])
def test_a_closed_day_has_no_session(day: str) -> None:
    """A holiday, a day of mourning, a disaster and a Saturday: closed from midnight to midnight."""
    assert calendar.session(dt.date.fromisoformat(day)) is None
    assert calendar.session_at(at(f"{day} 12:00")) is None
    assert calendar.segment_at(at(f"{day} 12:00")) is Segment.CLOSED


@pytest.mark.parametrize(
    ("instant", "segment"),
    [
        ("2024-07-02 06:59", "closed"),
        ("2024-07-02 07:00", "pre"),
        ("2024-07-02 09:29", "pre"),
        ("2024-07-02 09:30", "regular"),
        ("2024-07-02 15:59", "regular"),
        ("2024-07-02 16:00", "post"),
        ("2024-07-02 19:59", "post"),
        ("2024-07-02 20:00", "closed"),
        ("2024-07-03 12:59", "regular"),
        ("2024-07-03 13:00", "post"),
        ("2024-07-03 17:00", "closed"),
    ],
)
def test_a_bound_belongs_to_the_segment_that_it_opens(instant: str, segment: str) -> None:
    """Segments are half-open."""
    assert calendar.segment_at(at(instant)) == segment
    assert calendar.is_open(at(instant)) is (segment == "regular")


@pytest.mark.parametrize(
    ("instant", "minutes", "expected"),
    [
        ("2024-07-02 09:45", 60, ("09:30", "10:30")),
        ("2024-07-02 15:59", 60, ("15:30", "16:00")),
        ("2024-07-03 12:31", 60, ("12:30", "13:00")),
        ("2024-07-03 13:59", 60, ("13:00", "14:00")),
        ("2024-07-02 09:29", 60, ("09:00", "09:30")),
        ("2024-07-02 09:29", 15, ("09:15", "09:30")),
        ("2024-07-02 06:12", 60, ("06:00", "07:00")),
        ("2024-07-02 21:12", 60, ("21:00", "22:00")),
        ("2024-07-06 10:12", 60, ("10:00", "11:00")),
        ("2024-07-02 10:07", 5, ("10:05", "10:10")),
    ],
)
def test_buckets_count_from_the_open_of_their_segment(
    instant: str, minutes: int, expected: tuple[str, str]
) -> None:
    """Hours start at 09:30 in the regular segment and on the whole hour outside the sessions."""
    start_ms, end_ms = calendar.bucket(at(instant), minutes * MINUTE_MS)
    assert (clock(start_ms), clock(end_ms)) == expected


@given(ts_ms=instants, length_ms=lengths)
def test_a_bucket_holds_its_instant_and_lies_in_one_segment(ts_ms: int, length_ms: int) -> None:
    """Whatever the length: no bucket crosses a segment, and its end opens the next one."""
    start_ms, end_ms = calendar.bucket(ts_ms, length_ms)
    from_ms, to_ms = calendar.segment_bounds_ms(ts_ms)
    assert from_ms <= start_ms <= ts_ms < end_ms <= to_ms
    assert end_ms - start_ms == length_ms or end_ms == to_ms
    assert calendar.bucket(start_ms, length_ms) == (start_ms, end_ms)
    assert calendar.bucket(end_ms - 1, length_ms) == (start_ms, end_ms)


@given(ts_ms=instants)
def test_day_and_midnight_agree_with_the_time_zone_database(ts_ms: int) -> None:
    """The cached answers equal a direct conversion, on 23 and 25 hour days as well."""
    direct = dt.datetime.fromtimestamp(ts_ms // 1000, NEW_YORK)
    midnight = dt.datetime.combine(direct.date(), dt.time.min, NEW_YORK)
    assert calendar.day_of(ts_ms) == direct.date()
    assert calendar.day_start_ms(ts_ms) == int(midnight.timestamp()) * 1000
    start_ms, end_ms = calendar.day_bounds_ms(direct.date())
    assert start_ms <= ts_ms < end_ms


@pytest.mark.parametrize(("day", "hours"), [("2024-03-10", 23), ("2024-11-03", 25)])
def test_the_days_of_the_clock_change_have_their_true_length(day: str, hours: int) -> None:
    """Every half hour of such a day belongs to it."""
    start_ms, end_ms = calendar.day_bounds_ms(dt.date.fromisoformat(day))
    assert end_ms - start_ms == hours * HOUR_MS
    days = {calendar.day_of(ts_ms) for ts_ms in range(start_ms, end_ms, HOUR_MS // 2)}
    assert days == {dt.date.fromisoformat(day)}


def test_neighbouring_sessions_skip_weekends_and_holidays() -> None:
    """Next and previous never return the day asked about."""
    thursday, friday = dt.date(2024, 7, 4), dt.date(2024, 7, 5)
    assert calendar.next_session(thursday).day == friday
    assert calendar.next_session(friday).day == dt.date(2024, 7, 8)
    assert calendar.previous_session(friday).day == dt.date(2024, 7, 3)
    listed = [item.day for item in calendar.sessions(dt.date(2024, 7, 3), dt.date(2024, 7, 8))]
    assert listed == [dt.date(2024, 7, 3), friday, dt.date(2024, 7, 8)]
    assert calendar.sessions(friday, thursday) == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda: calendar.session(dt.date(1989, 12, 29)),
        lambda: calendar.session(dt.date(2036, 1, 2)),
        lambda: calendar.next_session(dt.date(2035, 12, 31)),
        lambda: calendar.previous_session(dt.date(1990, 1, 2)),
        lambda: calendar.sessions(dt.date(2035, 12, 31), dt.date(2036, 1, 2)),
        lambda: calendar.day_of(FIRST_MS - 1),
        lambda: calendar.segment_at(LAST_MS + 1),
        lambda: calendar.bucket(10**300, MINUTE_MS),
        lambda: calendar.day_start_ms(-(10**18)),
    ],
)
def test_outside_the_calendar_is_an_error_that_says_how_to_extend_it(
    ask: Callable[[], object],
) -> None:
    """No day is guessed, and hostile instants do not raise anything else."""
    with pytest.raises(CalendarError, match=r"1990-01-01 to 2035-12-31.*calendar\.generate"):
        ask()
