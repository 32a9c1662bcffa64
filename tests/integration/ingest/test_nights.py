"""Nights, weekends, holidays and weeks: idle when there is nothing to fetch, and there in time.

The broker's clock runs thousands of times as fast as ours. Its market trades a minute every half
hour, so that weeks of it are little work; everything else is as in production: one process of
ingest, the real client, a real bus.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.servers.nats import NatsServer
from libs.common import calendar
from libs.common.events import Bar, Gap, History, Tick
from services.simulator.wire import HUB
from tests.integration.ingest.stage import Running, Stage, keys, stage
from tests.waiting import eventually_async

Play = Callable[..., None]

TICKER = "QQQ"
DEADLINE_S = 90.0
HALF_HOUR_MS = 1_800_000
SCHWAB = {"KITE_SOURCE": "schwab", "KITE_TICKERS": TICKER}
WEDNESDAY = dt.date(2026, 11, 18)


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
                assert running.runtime.health.ready
                evening = on.logins()
                await broker_reaches(on, WEDNESDAY + dt.timedelta(days=1), 6, 30)
                # Ten hours and a half: not more than one try in half an hour.
                assert 1 <= on.logins() - evening <= 21
                await broker_reaches(on, WEDNESDAY + dt.timedelta(days=1), 9)
                await connected(running)
                assert running.metric("kite_ingest_idle") == 0
                await on.until_settled()
            await on.check_bars([TICKER])

        weeks(scenario, WEDNESDAY, WEDNESDAY + dt.timedelta(days=1), start="2026-11-18T18:00",
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
