"""What is kept of the backups, and when the next one is due."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.backup import retention, schedule
from cli.backup.manifest import backup_name, made_ms_of
from cli.backup.retention import Policy
from libs.common.calendar import NEW_YORK
from libs.common.errors import SettingsError

HOUR_MS = 3_600_000
moments = st.integers(1_700_000_000_000, 1_900_000_000_000)
policies = st.builds(Policy, st.integers(1, 5), st.integers(0, 10), st.integers(0, 8))


def nightly(days: int) -> list[str]:
    """A backup each evening at 20:30 New York up to Sunday, 2026-11-22."""
    evening = dt.datetime(2026, 11, 22, 20, 30, tzinfo=NEW_YORK)
    times = [evening - dt.timedelta(days=back) for back in range(days)]
    return sorted(backup_name(round(time.timestamp() * 1000), "demo") for time in times)


def test_the_usual_policy_keeps_a_week_and_five_weeks() -> None:
    """Three, seven days, and the last of each of five weeks, of which two are among the days."""
    names = nightly(60)
    kept = [name for name in names if name not in retention.doomed(names, Policy(3, 7, 5))]
    assert kept[-7:] == names[-7:]
    assert len(kept) == 7 + 4
    weekdays = {
        dt.datetime.fromtimestamp(made_ms_of(name) / 1000, NEW_YORK).weekday() for name in kept[:4]
    }
    assert weekdays == {6}  # Sundays: the newest of their week


@given(st.sets(moments, max_size=60), policies)
def test_the_newest_stays_and_no_more_than_promised(times: set[int], policy: Policy) -> None:
    """Whatever there is and whatever is asked for."""
    names = sorted({backup_name(time, "demo") for time in times})
    kept = set(names) - set(retention.doomed(names, policy))
    assert not names or names[-1] in kept
    assert len(kept) <= policy.last + policy.daily + policy.weekly
    assert len(kept) >= min(len(names), policy.last)


@given(st.sets(moments, max_size=60), policies)
def test_a_second_look_deletes_nothing_more(times: set[int], policy: Policy) -> None:
    """What is kept is kept."""
    names = sorted({backup_name(time, "demo") for time in times})
    kept = sorted(set(names) - set(retention.doomed(names, policy)))
    assert retention.doomed(kept, policy) == []


def test_a_policy_is_read() -> None:
    """Whatever is left out keeps none, but for the newest."""
    assert retention.parse("last=3, daily=7,weekly=5") == Policy(3, 7, 5)
    assert retention.parse("daily=2") == Policy(1, 2, 0)


@pytest.mark.parametrize("text", ["", "daily", "daily=x", "monthly=3", "daily=0", "last=99999"])
def test_what_is_no_policy_is_refused(text: str) -> None:
    """Before anything is deleted by it."""
    with pytest.raises(SettingsError):
        retention.parse(text)


@given(moments, st.times())
def test_due_moments_are_a_day_apart_around_now(now_ms: int, at: dt.time) -> None:
    """One is not after now, the next one is; a day may have 23 or 25 hours."""
    at = at.replace(second=0, microsecond=0)
    last_ms, next_ms = schedule.last_due_ms(now_ms, at), schedule.next_due_ms(now_ms, at)
    assert last_ms <= now_ms < next_ms
    assert 22 * HOUR_MS <= next_ms - last_ms <= 26 * HOUR_MS


def test_due_is_meant_in_new_york() -> None:
    """Summer and winter, the evening stays the evening."""
    for month, utc_hour in ((1, 1), (7, 0)):
        now = dt.datetime(2026, month, 15, 12, 0, tzinfo=dt.UTC)
        due_ms = schedule.next_due_ms(round(now.timestamp() * 1000), schedule.parse_time("20:30"))
        due = dt.datetime.fromtimestamp(due_ms / 1000, dt.UTC)
        assert (due.day, due.hour, due.minute) == (16, utc_hour, 30)


@pytest.mark.parametrize("text", ["", "8pm", "24:00", "20:30:00", "20.30"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With an example of one that is."""
    with pytest.raises(ValueError, match="20:30"):
        schedule.parse_time(text)
