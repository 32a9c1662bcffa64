"""An account that may not stream: the same frames, made of quotes and price history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from libs.common.events import Bar, Clock, Gap, Tick
from tests.integration.ingest.desk import answered
from tests.integration.ingest.stage import DEADLINE_S, TICKERS, Stage, keys
from tests.waiting import eventually_async

Play = Callable[..., None]
POLL = {"KITE_INGEST_FEED": "poll", "KITE_INGEST_POLL_QUOTES_MS": "100"}


def test_bars_and_ticks_come_without_a_socket(play: Play) -> None:
    """Every bar is the broker's, once; ticks are what changed between quotes; time goes on."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(**POLL) as running:
            await on.until(Bar, 3 * 8)
            await on.until(Tick, 3 * 20)
            await on.until_settled()
            assert running.metric("kite_ingest_connected") == 1
            assert running.metric("kite_ingest_notes_total", note="late_bar") == 0
        bars = await on.events(Bar)
        assert len(set(keys(bars))) == len(bars)
        await on.check_bars()
        clocks = [clock.ts_ms for clock in await on.events(Clock)]
        assert clocks
        ticks = await on.events(Tick)
        assert {tick.ticker for tick in ticks} == set(TICKERS)
        assert len(set(keys(ticks))) == len(ticks)
        assert not (on.home / "ledger").read_bytes(), "nothing was streamed"

    play(scenario, speed=60)


def test_no_bar_comes_after_a_clock_that_closes_its_candle(play: Play) -> None:
    """However slow a round is: candles are closed by the clock, some seconds after their end."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(**POLL):
            await on.until(Bar, 3 * 6)
        clock_ms = 0
        for partition, frame in await on.frames():
            if partition:
                continue
            for event in frame.events:
                if isinstance(event, Clock):
                    clock_ms = max(clock_ms, event.ts_ms)
                elif isinstance(event, Bar):
                    assert event.ts_ms + 60_000 + 15_000 > clock_ms

    play(scenario, speed=60)


def test_an_outage_is_a_gap_that_is_filled(play: Play) -> None:
    """Answers 500 for a while: a new connection, a tick gap, and no minute missing in the end."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(**POLL) as running:
            await on.until(Bar, 3 * 2)
            await on.until(Tick, 3 * 20)
            await on.until_settled()
            before = set(await on.events(Gap))
            await on.broker.faults(rest_status=500)
            await eventually_async(
                lambda: running.metric("kite_ingest_connected") == 0, DEADLINE_S, "the end of it"
            )
            assert "quotes: HTTP 500" in running.runtime.health.reasons["schwab"]
            await on.wait_for_broker_ms(on.simulation.now_ms() + 4 * 60_000)
            await on.broker.faults("DELETE")
            await on.until(Bar, len(await on.events(Bar)) + 6)
            await on.until_settled()
            assert running.runtime.health.ready
        gaps = [gap for gap in await on.events(Gap) if gap not in before]
        assert {gap.cause for gap in gaps} == {"reconnect"}
        assert {gap.series for gap in gaps} == {"ticks", "bars"}
        await on.check_bars()

    play(scenario, speed=60)


def test_tickers_come_and_go_while_it_polls(play: Play) -> None:
    """As on a socket; and no more than the budget has room for."""

    async def scenario(on: Stage) -> None:
        few = {"KITE_TICKERS": "QQQ,SPY", "KITE_INGEST_REQUESTS_PER_MINUTE_MAX": "670"}
        async with on.ingest(**POLL | few):
            await on.until(Bar, 4)
            answer = await answered(on.bus, "tickers-add", tickers=["NVDA"])
            assert (answer.ok, answer.text) == (True, "added NVDA; 3 tickers")
            answer = await answered(on.bus, "tickers-add", tickers=["IWM"])
            assert not answer.ok
            assert "polling has requests for 3 only: remove 1 others first" in answer.text
            answer = await answered(on.bus, "tickers-remove", tickers=["SPY"])
            assert answer.ok
            bars = len(await on.events(Bar))
            found = await on.until(Bar, bars + 6)
            assert "NVDA" in {bar.ticker for bar in found}
        await on.until_settled()

    play(scenario, speed=60)


def test_killed_it_goes_on_where_it_was(play: Play) -> None:
    """The next life repeats no key and fills what was missed."""

    async def scenario(on: Stage) -> None:
        for life in (1, 2):
            process = on.process(**POLL)
            try:
                await on.until(Bar, 9 * life)
                if life == 2:
                    await on.until_settled()
            finally:
                await asyncio.to_thread(process.kill)
        events: list[Any] = [*await on.events(Tick), *await on.events(Bar)]
        assert len(set(keys(events))) == len(events)
        await on.check_bars()

    play(scenario, speed=60)
