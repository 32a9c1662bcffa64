"""Unexplained minutes on a real database: 0 when all is accounted for, and more for each hole.

Each scenario is counted by every way into the database; both have to find the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from libs.common import calendar
from libs.common.clock import ManualClock
from libs.common.events import MARKET_CLOSED, SESSION_CHECK, Candle, Event, Gap, Tick
from libs.common.runner import Runtime
from libs.common.telemetry import Health, Metrics, get_logger
from services.writer.core import Position
from services.writer.minutes import LIVE_GRACE_MS, UNCHECKED_MS_MAX, UnexplainedMinutes
from services.writer.settings import Settings
from services.writer.sinks import open_rows, open_store
from services.writer.store import Store
from services.writer.stored import StoredRows
from tests.databases import Database
from tests.integration.writer.sinks import Sink
from tests.writer_frames import CREATED_MS, TS_MS, batch_of, candle, gap, tick

MINUTE_MS = 60_000
TODAY = calendar.next_session(calendar.day_of(TS_MS - 86_400_000))
BEFORE = calendar.previous_session(TODAY.day)
EARLIER = calendar.previous_session(BEFORE.day)
AFTER_MS = TODAY.post_close_ms + UNCHECKED_MS_MAX
TRADED = (0, 1, 2, 5)
LOSE = {
    "at": "DELETE FROM candles WHERE timestamp = to_timestamp($1 / 1000.0)",
    "before": "DELETE FROM candles WHERE timestamp < to_timestamp($1 / 1000.0)",
}


class Books:
    """A database, what is written into it, and who counts."""

    def __init__(self, store: Store, stored: StoredRows, connection: Any) -> None:
        self._store = store
        self._stored = stored
        self._connection = connection
        self._position = Position(CREATED_MS)
        self.broker_ms: int | None = AFTER_MS
        self.metrics = Metrics()
        runtime: Runtime[Any] = Runtime(
            "writer", None, self.metrics, Health(), ManualClock(), get_logger(), asyncio.Event()
        )
        self.counter = UnexplainedMinutes(runtime, lambda _: self.broker_ms)

    async def write(self, *events: Event) -> None:
        """Store the rows of events as the writer does."""
        batch = batch_of(events, before=self._position)
        await self._store.commit(batch)
        self._position = batch.after

    async def lose(self, how: str, at_ms: int) -> None:
        """Delete candles, as nobody should."""
        await self._connection.execute(LOSE[how], at_ms)

    async def count(self, rounds: int = 2) -> float:
        """Look, and return the metric."""
        for _ in range(rounds):
            await self.counter.round(self._stored)
        return self.metric("kite_writer_unexplained_minutes")

    def metric(self, name: str) -> float:
        """One of its metrics."""
        value = self.metrics.registry.get_sample_value(name)
        assert value is not None
        return value


Play = Callable[[Callable[[Books], Awaitable[None]]], None]


@pytest.fixture
def play(sink: Sink, migrated_database: Database) -> Play:
    """Run a scenario with books of its own."""
    settings = Settings(nats_url="nats://unused", pg_dsn=sink.dsn, **sink.settings)

    async def on_books(scenario: Callable[[Books], Awaitable[None]]) -> None:
        connection = await asyncpg.connect(migrated_database.owner)
        try:
            async with open_store(settings) as store, open_rows(settings) as stored:
                await scenario(Books(store, stored, connection))
        finally:
            await connection.close()

    return lambda scenario: asyncio.run(on_books(scenario))


def first_gap(session: calendar.Session = BEFORE, ticker: str = "QQQ") -> Gap:
    """What a first start lists: the session before, and that it was filled."""
    from_ms = session.pre_open_ms
    return gap(
        from_ms, id=f"{ticker}:bars:{from_ms}", ticker=ticker, to_ms=session.post_close_ms,
        state="filled",
    )  # fmt: skip


def check(session: calendar.Session, bars: int, ticker: str = "QQQ", **fields: Any) -> Gap:
    """What ingest says of a session that it held against price history."""
    told: dict[str, Any] = {"state": "filled", "bars": bars, "cause": SESSION_CHECK} | fields
    return gap(
        session.pre_open_ms, id=f"{ticker}:session:{session.pre_open_ms}", ticker=ticker,
        to_ms=session.post_close_ms, **told,
    )  # fmt: skip


def candles(session: calendar.Session, *minutes: int, ticker: str = "QQQ") -> list[Candle]:
    """Minutes after a session's open."""
    return [candle(session.open_ms + m * MINUTE_MS, ticker=ticker) for m in minutes]


def trade(minute: int, ticker: str = "QQQ", **fields: Any) -> Tick:
    """A tick with volume in a minute after today's open."""
    return tick(TODAY.open_ms + minute * MINUTE_MS + 20_000, ticker=ticker, **fields)


class TestSessionsThatAreOver:
    def test_a_checked_session_is_explained_minute_by_minute(self, play: Play) -> None:
        """Price history has as many bars as there are candles; the others had no trade."""

        async def scenario(books: Books) -> None:
            await books.write(first_gap(), check(BEFORE, 2), check(TODAY, 4))
            await books.write(*candles(BEFORE, 3, 9), *candles(TODAY, *TRADED))
            assert await books.count() == 0
            assert books.metric("kite_writer_unexplained_sessions") == 2

        play(scenario)

    def test_a_deleted_row_is_found(self, play: Play) -> None:
        """Also in a session of long ago, and also one that a gap had covered."""

        async def scenario(books: Books) -> None:
            await books.write(first_gap(EARLIER), check(EARLIER, 1))
            await books.write(
                check(BEFORE, 2), check(TODAY, 4),
                *candles(EARLIER, 7), *candles(BEFORE, 3, 9), *candles(TODAY, *TRADED),
            )  # fmt: skip
            assert await books.count() == 0
            await books.lose("at", TODAY.open_ms + MINUTE_MS)
            assert await books.count() == 1
            await books.lose("before", BEFORE.pre_open_ms)
            assert await books.count() == 2
            await books.write(*candles(EARLIER, 7), *candles(TODAY, 1))
            assert await books.count() == 0

        play(scenario)

    def test_a_session_that_nobody_checked_counts_after_hours(self, play: Play) -> None:
        """Every minute without a candle, but for those that a gap covers."""

        async def scenario(books: Books) -> None:
            await books.write(first_gap(), check(BEFORE, 0), *candles(TODAY, *TRADED))
            books.broker_ms = AFTER_MS - 1
            assert await books.count() == 0
            books.broker_ms = AFTER_MS
            minutes = (TODAY.post_close_ms - TODAY.pre_open_ms) // MINUTE_MS
            assert await books.count() == minutes - len(TRADED)
            later_ms = TODAY.open_ms + 10 * MINUTE_MS
            await books.write(gap(later_ms, to_ms=later_ms + 30 * MINUTE_MS, state="unfillable"))
            assert await books.count() == minutes - len(TRADED) - 30
            await books.write(check(TODAY, 4))
            assert await books.count() == 0

        play(scenario)

    def test_a_session_that_the_broker_closed_is_explained(self, play: Play) -> None:
        """Also one that nobody has held against price history, because ingest is idle then."""

        async def scenario(books: Books) -> None:
            shut = gap(
                TODAY.pre_open_ms, id=f"QQQ:closed:{TODAY.pre_open_ms}", cause=MARKET_CLOSED,
                to_ms=TODAY.post_close_ms, state="unfillable", reason="closed",
            )  # fmt: skip
            await books.write(first_gap(), check(BEFORE, 0))
            await books.write(gap(TODAY.open_ms, to_ms=TODAY.open_ms + MINUTE_MS))
            assert await books.count() > 0
            await books.write(shut)
            assert await books.count() == 0

        play(scenario)

    def test_what_price_history_knows_nothing_of_is_said_and_explained(self, play: Play) -> None:
        """A check without a number: what came live stands, and nobody can know more."""

        async def scenario(books: Books) -> None:
            unknown = check(TODAY, 0, state="unfillable", reason="no_history")
            await books.write(first_gap(), check(BEFORE, 0), unknown, *candles(TODAY, *TRADED))
            assert await books.count() == 0

        play(scenario)

    def test_nothing_before_the_first_start_counts(self, play: Play) -> None:
        """Imported candles of older days are nobody's account."""

        async def scenario(books: Books) -> None:
            old = calendar.previous_session(EARLIER.day)
            await books.write(*candles(old, *TRADED), first_gap(TODAY, "SPY"))
            await books.write(check(TODAY, 0, "SPY"), *candles(BEFORE, 1, 2))
            assert await books.count(5) == 0
            assert books.metric("kite_writer_unexplained_sessions") == 1

        play(scenario)

    def test_each_ticker_stands_for_itself(self, play: Play) -> None:
        """One that has too many rows hides no other that has too few."""

        async def scenario(books: Books) -> None:
            await books.write(first_gap(TODAY), first_gap(TODAY, "SPY"))
            await books.write(check(TODAY, 2), check(TODAY, 4, "SPY"))
            await books.write(*candles(TODAY, *TRADED), *candles(TODAY, 0, 1, ticker="SPY"))
            assert await books.count() == 2
            assert books.counter.found == {"SPY": 2}

        play(scenario)


class TestTheRunningSession:
    def test_a_traded_minute_without_a_candle_counts_until_it_has_one(self, play: Play) -> None:
        """Not at once: bars and their gaps take their time."""

        async def scenario(books: Books) -> None:
            await books.write(first_gap(), check(BEFORE, 0), *candles(TODAY, 0, 2))
            await books.write(trade(0), trade(1), trade(2), trade(4, volume=0))
            books.broker_ms = TODAY.open_ms + 2 * MINUTE_MS + LIVE_GRACE_MS - 1
            assert await books.count() == 0
            books.broker_ms = TODAY.open_ms + 9 * MINUTE_MS + LIVE_GRACE_MS
            assert await books.count() == 1
            assert await books.count() == 1
            await books.write(*candles(TODAY, 1))
            assert await books.count() == 0

        play(scenario)

    @pytest.mark.parametrize("state", ["open", "filled", "unfillable"])
    def test_a_gap_explains_it_whatever_became_of_it(self, play: Play, state: str) -> None:
        """Also one that comes later, and one of all tickers."""

        async def scenario(books: Books) -> None:
            await books.write(first_gap(), check(BEFORE, 0), trade(1), trade(3))
            books.broker_ms = TODAY.open_ms + 9 * MINUTE_MS + LIVE_GRACE_MS
            assert await books.count() == 2
            begin_ms = TODAY.open_ms + MINUTE_MS
            await books.write(gap(begin_ms, to_ms=begin_ms + MINUTE_MS, state=state))
            assert await books.count() == 1
            await books.write(
                gap(begin_ms, id="*:bars:1", ticker="*", cause="state_lost", state="unfillable")
            )
            assert await books.count() == 0

        play(scenario)

    def test_a_missing_gap_of_ticks_explains_no_minute(self, play: Play) -> None:
        """That ticks are missing is no reason for a bar to be."""

        async def scenario(books: Books) -> None:
            await books.write(first_gap(), check(BEFORE, 0), trade(1))
            await books.write(gap(TODAY.open_ms, id="QQQ:ticks:1", series="ticks"))
            books.broker_ms = TODAY.open_ms + 9 * MINUTE_MS + LIVE_GRACE_MS
            assert await books.count() == 1

        play(scenario)

    def test_trades_outside_a_session_have_no_bar(self, play: Play) -> None:
        """At night the broker sends old images and single trades."""

        async def scenario(books: Books) -> None:
            night_ms = TODAY.pre_open_ms - 30 * MINUTE_MS
            await books.write(first_gap(), check(BEFORE, 0), tick(night_ms))
            books.broker_ms = night_ms + 10 * MINUTE_MS + LIVE_GRACE_MS
            assert await books.count() == 0

        play(scenario)


class TestWhoCounts:
    def test_before_anything_is_known_nothing_is_said_to_be_counted(self, play: Play) -> None:
        """Neither without the broker's time nor without a first start."""

        async def scenario(books: Books) -> None:
            assert await books.count() == 0
            assert books.metric("kite_writer_unexplained_sessions") == 0
            books.broker_ms = None
            await books.write(first_gap())
            await books.count()
            assert books.metric("kite_writer_unexplained_sessions") == 0

        play(scenario)

    def test_who_hands_over_forgets(self, play: Play) -> None:
        """Else two instances would tell two numbers, one of them old."""

        async def scenario(books: Books) -> None:
            await books.write(first_gap(TODAY), check(TODAY, 3), *candles(TODAY, 0))
            assert await books.count() == 2
            books.counter.forget()
            assert books.metric("kite_writer_unexplained_minutes") == 0
            assert await books.count() == 2

        play(scenario)
