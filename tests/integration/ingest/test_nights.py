"""Nights, weekends, holidays and weeks: idle when there is nothing to fetch, and there in time.

The broker's clock runs thousands of times as fast as ours. Its market trades a minute every half
hour, so that weeks of it are little work; everything else is as in production: one process of
ingest, the real client, a real bus.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.servers.nats import NatsServer
from libs.common import calendar
from libs.common.events import MARKET_CLOSED, SESSION_CHECK, Bar, Gap, History, Tick
from tests.integration.ingest.stage import Running, Stage, keys, stage
from tests.waiting import eventually_async

pytestmark = [pytest.mark.soak, pytest.mark.weeks]

TICKER = "QQQ"
DEADLINE_S = 90.0
HALF_HOUR_MS = 1_800_000
SCHWAB = {"KITE_SOURCE": "schwab", "KITE_TICKERS": TICKER}
WEDNESDAY = dt.date(2026, 11, 18)
# The recordings have a minute in thirty: a gap may hold none of them.
EXPLAINED = {("filled", ""), ("unfillable", "no_trade")}


def recording(first: dt.date, last: dt.date, home: Path) -> str:
    """Write a file with a minute every half hour of each session; return it as the setting does."""
    lines = ["timestamp,open,high,low,close,volume"]
    for session in calendar.sessions(first, last):
        for number, ms in enumerate(
            range(session.pre_open_ms, session.post_close_ms, HALF_HOUR_MS)
        ):
            price = 500 + session.day.day + number / 100
            stamp = dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat()
            lines.append(f"{stamp},{price},{price + 1},{price - 1},{price},{1_000 + number}")
    path = home / f"{TICKER}-weeks.csv"
    path.write_text("\n".join(lines) + "\n")
    return f"{TICKER}={path}"


@pytest.fixture
def weeks(fresh_nats: NatsServer, tmp_path: Path) -> Callable[..., None]:
    """Run a scenario on a market of days that go by in seconds."""

    def run(scenario: Any, first: dt.date, last: dt.date, **settings: Any) -> None:
        named = {"speed": 20_000, "skip_closed": False, **settings}
        csv = (recording(first - dt.timedelta(days=7), last, tmp_path),)

        async def on_stage() -> None:
            async with stage(
                fresh_nats, tmp_path, source="schwab", csv=csv, ticks_per_bar=4, **named
            ) as found:
                await scenario(found)

        asyncio.run(on_stage())

    return run


async def broker_reaches(on: Stage, day: dt.date, hour: int, minute: int = 0) -> None:
    """Wait for a New York time of the simulated clock."""
    at = dt.datetime.combine(day, dt.time(hour, minute), calendar.NEW_YORK)
    at_ms = int(at.timestamp() * 1000)
    await eventually_async(lambda: on.simulation.now_ms() >= at_ms, DEADLINE_S, f"{at}")


async def connected(running: Running) -> None:
    """Wait until it is logged in and subscribed."""
    await eventually_async(
        lambda: running.task.done() or running.metric("kite_ingest_connected") == 1,
        DEADLINE_S,
        "connected",
    )
    assert not running.task.done(), running.task


class TestNights:
    def test_a_broker_that_closes_at_night_is_left_alone_until_morning(self, weeks: Any) -> None:
        """Idle and ready, a try in half an hour, and connected when the next session begins."""

        async def scenario(on: Stage) -> None:
            await on.broker.faults(nights_closed=True)
            async with on.ingest(**SCHWAB) as running:
                await connected(running)
                await eventually_async(
                    lambda: running.metric("kite_ingest_idle") == 1, DEADLINE_S, "idle"
                )
                assert "schwab" not in running.runtime.health.reasons
                evening = on.logins()
                await broker_reaches(on, WEDNESDAY + dt.timedelta(days=1), 6, 30)
                # Ten hours and a half: not more than one try in half an hour.
                assert 1 <= on.logins() - evening <= 21
                await broker_reaches(on, WEDNESDAY + dt.timedelta(days=1), 9)
                await connected(running)
                assert running.metric("kite_ingest_idle") == 0
                await on.until_settled()
            await on.check_bars([TICKER])

        weeks(scenario, WEDNESDAY, WEDNESDAY + dt.timedelta(days=1), start="2026-11-18T12:00",
              speed=4_000)  # fmt: skip

    def test_a_broker_that_stays_open_at_night_is_kept(self, weeks: Any) -> None:
        """One login for two days and the night between them."""

        async def scenario(on: Stage) -> None:
            async with on.ingest(**SCHWAB) as running:
                await connected(running)
                await broker_reaches(on, WEDNESDAY + dt.timedelta(days=1), 12)
                assert on.logins() == 1
                assert running.metric("kite_ingest_connected") == 1
                await on.until_settled()
            await on.check_bars([TICKER])

        weeks(scenario, WEDNESDAY, WEDNESDAY + dt.timedelta(days=1), start="2026-11-18T18:00")

    def test_a_new_login_at_night_is_taken_up_at_once(self, weeks: Any) -> None:
        """A dead login is no reason to hammer the broker, nor a new one to wait for morning."""

        async def scenario(on: Stage) -> None:
            await on.broker.faults(nights_closed=True)
            async with on.ingest(**SCHWAB, KITE_INGEST_IDLE_RETRY_MS="86400000") as running:
                await connected(running)
                await on.broker.login()  # ends the access token
                await on.broker.faults(token_status=400)
                await eventually_async(
                    lambda: running.runtime.health.reasons.get("schwab", "").startswith("token"),
                    DEADLINE_S,
                    "the login is refused",
                )
                assert running.metric("kite_ingest_idle") == 0, "somebody has to do something"
                await on.broker.faults(token_status=0, nights_closed=False)
                await on.log_in()
                await connected(running)
                assert calendar.segment_at(on.simulation.now_ms()) == "closed"

        # Slow enough that the night does not end before somebody has logged in.
        weeks(scenario, WEDNESDAY, WEDNESDAY + dt.timedelta(days=1), start="2026-11-18T19:50",
              speed=600)  # fmt: skip


class TestWhatTheBrokerSays:
    def test_an_unexpected_holiday_is_respected_and_said(self, weeks: Any) -> None:
        """Not frozen, not failed, not open: idle until the next day."""
        holiday = WEDNESDAY + dt.timedelta(days=1)

        async def scenario(on: Stage) -> None:
            await on.broker.faults(nights_closed=True, closed_days=[holiday.isoformat()])
            async with on.ingest(**SCHWAB) as running:
                await connected(running)
                await broker_reaches(on, holiday, 9, 45)
                await eventually_async(
                    lambda: running.metric("kite_ingest_closed_unexpectedly") == 1,
                    DEADLINE_S, "known to be closed",
                )  # fmt: skip
                note = running.runtime.health.notes["market hours"]
                assert note == ("2026-11-19: the broker says closed, our calendar 09:30 to 16:00")
                await eventually_async(
                    lambda: running.metric("kite_ingest_idle") == 1, DEADLINE_S, "idle"
                )
                assert "schwab" not in running.runtime.health.reasons
                await broker_reaches(on, holiday + dt.timedelta(days=1), 10)
                await connected(running)
                await eventually_async(
                    lambda: not running.runtime.health.notes, DEADLINE_S, "nothing to say any more"
                )
                assert running.metric("kite_ingest_closed_unexpectedly") == 0
                assert running.metric("kite_ingest_reconnects_total", cause="silence") == 0
                await on.until_settled()
            days = {calendar.day_of(history.day_ms) for history in await on.events(History)}
            assert holiday not in days
            await on.check_bars([TICKER])
            session = calendar.next_session(WEDNESDAY)
            await check_closed(on, session.pre_open_ms, session.post_close_ms)

        weeks(scenario, WEDNESDAY, holiday + dt.timedelta(days=1), start="2026-11-18T12:00",
              speed=4_000)  # fmt: skip

    def test_an_unexpected_early_close_is_respected_and_said(self, weeks: Any) -> None:
        """The afternoon is closed, the evening is short, and the next day is a day again."""
        early = WEDNESDAY + dt.timedelta(days=1)

        async def scenario(on: Stage) -> None:
            await on.broker.faults(nights_closed=True, early_days=[early.isoformat()])
            async with on.ingest(**SCHWAB) as running:
                await broker_reaches(on, early, 13, 15)
                await eventually_async(
                    lambda: running.metric("kite_ingest_closed_unexpectedly") == 1,
                    DEADLINE_S, "known to be closed",
                )  # fmt: skip
                assert "09:30 to 13:00" in running.runtime.health.notes["market hours"]
                await eventually_async(
                    lambda: running.metric("kite_ingest_idle") == 1, DEADLINE_S, "idle"
                )
                assert on.simulation.now_ms() < calendar.day_bounds_ms(early)[1]
            await broker_reaches(on, early + dt.timedelta(days=1), 8)
            async with on.ingest(**SCHWAB) as running:  # another life, which has to know it
                await connected(running)
                await on.until_settled()
            await on.check_bars([TICKER])
            session = calendar.next_session(WEDNESDAY)
            await check_closed(on, session.post_close_ms - 3 * 3_600_000, session.post_close_ms)

        weeks(scenario, WEDNESDAY, early + dt.timedelta(days=1), start="2026-11-19T12:00",
              speed=4_000)  # fmt: skip

    def test_hours_are_asked_for_as_soon_as_the_broker_answers(self, weeks: Any) -> None:
        """Without its API nobody logs in; then data flows, and the hours follow."""

        async def scenario(on: Stage) -> None:
            await on.broker.faults(rest_status=503)
            async with on.ingest(**SCHWAB) as running:
                await eventually_async(
                    lambda: "503" in running.runtime.health.reasons.get("schwab", ""),
                    DEADLINE_S, "no login without the API",
                )  # fmt: skip
                await on.broker.faults("DELETE")
                await connected(running)
                await on.until(Bar, 1)
                await eventually_async(
                    lambda: running.metric("kite_ingest_hours_requests_total", outcome="answered"),
                    DEADLINE_S, "hours",
                )  # fmt: skip

        weeks(scenario, WEDNESDAY, WEDNESDAY, start="2026-11-18T10:00", speed=600)


@pytest.mark.timeout(600)
class TestWeeks:
    def test_a_week_with_the_end_of_summer_time_and_of_the_login(self, weeks: Any) -> None:
        """Thursday to Friday of the week after: one process, one new login, nothing missing."""
        login, last = dt.date(2026, 10, 29), dt.date(2026, 11, 6)

        async def scenario(on: Stage) -> None:
            await on.broker.faults(nights_closed=True)
            async with on.ingest(**SCHWAB) as running:
                await connected(running)
                for day in (2, 3, 4, 5):
                    await broker_reaches(on, dt.date(2026, 11, day), 11)
                    await connected(running)
                # Seven days after the login, Thursday at 12:00, no refresh is granted any more.
                await broker_reaches(on, dt.date(2026, 11, 5), 12)
                await eventually_async(
                    lambda: running.runtime.health.reasons.get("schwab", "").startswith("token"),
                    DEADLINE_S, "the login has ended",
                )  # fmt: skip
                assert running.metric("kite_ingest_token_refreshes_total", outcome="refused") > 0
                await on.log_in()
                await broker_reaches(on, last, 11)
                await connected(running)
                await on.until_settled()
            check_quiet_nights(on, login, last)
            await check_complete(on, login, last)

        weeks(scenario, login, last, start="2026-10-29T12:00", speed=6_000)

    def test_thanksgiving_week(self, weeks: Any) -> None:
        """A holiday, a half day, a weekend: idle, there in time, and nothing missing."""
        first, last = dt.date(2026, 11, 24), dt.date(2026, 12, 1)

        async def scenario(on: Stage) -> None:
            await on.broker.faults(nights_closed=True)
            async with on.ingest(**SCHWAB) as running:
                await connected(running)
                await broker_reaches(on, dt.date(2026, 11, 26), 12)
                assert running.metric("kite_market_open") == 0
                await broker_reaches(on, dt.date(2026, 11, 27), 11)
                await connected(running)
                await broker_reaches(on, dt.date(2026, 11, 28), 12)
                assert running.metric("kite_ingest_connected") == 0
                await broker_reaches(on, last, 11)
                await connected(running)
                assert not running.runtime.health.notes
                await on.until_settled()
            check_quiet_nights(on, first, last)
            await check_complete(on, first, last)

        weeks(scenario, first, last, start="2026-11-24T12:00", speed=6_000)


async def check_closed(on: Stage, from_ms: int, to_ms: int) -> None:
    """The ledger says once that the market was closed then, and misses none of these minutes."""
    gaps = [gap for gap in await on.events(Gap) if gap.series == "bars"]
    closed = [gap for gap in gaps if gap.cause == MARKET_CLOSED]
    assert [(gap.from_ms, gap.to_ms, gap.state, gap.reason) for gap in closed] == [
        (from_ms, to_ms, "unfillable", "closed")
    ]
    lost = {gap.id: gap for gap in gaps if gap.cause not in (MARKET_CLOSED, SESSION_CHECK)}
    assert {(gap.state, gap.reason) for gap in lost.values()} <= EXPLAINED
    assert not [gap for gap in lost.values() if gap.from_ms < to_ms and gap.to_ms > from_ms]


def check_quiet_nights(on: Stage, first: dt.date, last: dt.date) -> None:
    """There was a try in half an hour of closed market at most, and a few for each session."""
    sessions = calendar.sessions(first, last)
    open_ms = sum(item.post_close_ms - item.pre_open_ms for item in sessions)
    closed_ms = ((last - first).days + 1) * 86_400_000 - open_ms
    assert on.logins() <= closed_ms / HALF_HOUR_MS + 4 * len(sessions)


async def check_complete(on: Stage, first: dt.date, last: dt.date) -> None:
    """Every day is as price history has it, no tick is there twice, every gap is closed."""
    await on.check_bars([TICKER])
    published = {calendar.day_of(bar.ts_ms) for bar in await on.events(Bar)}
    published |= {calendar.day_of(history.day_ms) for history in await on.events(History)}
    assert {item.day for item in calendar.sessions(first, last)} <= published
    ticks = await on.events(Tick)
    assert len(set(keys(ticks))) == len(ticks)
    ends = {gap.id: gap for gap in await on.events(Gap) if gap.series == "bars"}
    assert {(gap.state, gap.reason) for gap in ends.values()} <= EXPLAINED
