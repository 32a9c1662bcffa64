"""The real schwab-py client, a simulated broker, a real bus: what comes in comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from libs.common import calendar
from libs.common.events import Bar, Clock, Gap, History, Tick
from tests.integration.ingest.stage import DEADLINE_S, TICKERS, Stage, keys
from tests.waiting import eventually_async

Play = Callable[..., None]


def test_the_last_session_the_day_so_far_and_live_data_arrive(play: Play) -> None:
    """Ticks within moments, the minutes before them behind, a clock, and readiness."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 6)
            await eventually_async(lambda: running.runtime.health.ready, DEADLINE_S, "ready")
            histories = await on.until(History, 6)
            await on.until_settled()
        today_ms = max(history.day_ms for history in histories)
        before = calendar.previous_session(calendar.day_of(today_ms))
        lengths = {(each.ticker, each.day_ms): len(each.bars) for each in histories}
        assert lengths == {
            (ticker, day_ms): minutes
            for ticker in TICKERS
            for day_ms, minutes in (
                (calendar.day_start_ms(before.open_ms), 780),  # 07:00 to 20:00
                (today_ms, 210),  # 07:00 to 10:30
            )
        }
        ticks = await on.events(Tick)
        assert len(set(keys(ticks))) == len(ticks)
        await on.check_bars()

    play(scenario)


def test_bars_clocks_and_ticks_of_fast_hours(play: Play) -> None:
    """Every change that was sent is one tick, and every minute is the broker's own."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Bar, 3 * 12)
            assert running.metric("kite_ingest_rejects_total", reason="future_time") == 0
        frames = await on.frames()
        assert all(frame.received_ms > 0 for _, frame in frames)
        clocks = await on.events(Clock)
        assert len(clocks) > 2 * 12
        bars = await on.events(Bar)
        assert len(set(keys(bars))) == len(bars)
        await on.check_bars()
        await on.check_ticks()

    play(scenario, speed=100)


def test_a_dropped_connection_is_replaced_and_its_minutes_filled(play: Play) -> None:
    """After a reset of the socket: a tick gap, a bar gap that history fills, no key twice."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Bar, 6)
            before = set(await on.events(Gap))
            await on.broker.faults(next={"drop": 1})
            await eventually_async(
                lambda: running.metric("kite_ingest_reconnects_total", cause="reconnect") == 1,
                DEADLINE_S,
                "a reconnect",
            )
            await on.until(Bar, len(await on.events(Bar)) + 12)
            await on.until_settled()
        gaps = [gap for gap in await on.events(Gap) if gap not in before]
        assert {gap.cause for gap in gaps if gap.series == "ticks"} == {"reconnect"}
        assert all(gap.state == "unfillable" for gap in gaps if gap.series == "ticks")
        events: list[Tick | Bar] = [*await on.events(Tick), *await on.events(Bar)]
        assert len(set(keys(events))) == len(events)
        await on.check_bars()

    play(scenario, speed=100)


@pytest.mark.parametrize(
    "fault",
    [
        {"swallow_ack": 1},
        {"stray_response": 3},
        {"close": 1},
        {"late_ack": 1},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_trouble_with_commands_ends_well(play: Play, fault: dict[str, int]) -> None:
    """Acknowledgements that never come, come late or were not asked for: it streams in the end."""

    async def scenario(on: Stage) -> None:
        await on.broker.faults(next=fault, late_ack_s=0.5)
        async with on.ingest(KITE_INGEST_ANSWER_MS_MAX="300") as running:
            await on.until(Tick, 6)
            await eventually_async(lambda: running.runtime.health.ready, DEADLINE_S, "ready")
            await on.until_settled()
        await on.check_bars()

    play(scenario)


def test_what_arrives_while_an_answer_is_awaited_is_neither_lost_nor_doubled(play: Play) -> None:
    """Level one flows already while the library still waits for the answer about bars."""

    async def scenario(on: Stage) -> None:
        await on.broker.faults(next={"late_ack": 3}, late_ack_s=0.4)
        async with on.ingest():
            await on.until(Bar, 3)
            await on.until_settled()
        await on.check_ticks(under_way_max=10)
        await on.check_bars()

    play(scenario, speed=60)


@pytest.mark.parametrize("switch", ["success_codes", "limit_in_one_frame"])
def test_the_other_dialects_of_the_streamer_are_understood(play: Play, switch: str) -> None:
    """Success codes that the library does not know, and a cap on symbols, are no failures."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 4)
            await eventually_async(lambda: running.runtime.health.ready, DEADLINE_S, "ready")

    play(scenario, **{switch: True}, equities_max=2)


def test_bars_that_are_doubled_late_or_missing_end_as_history(play: Play) -> None:
    """The series is the broker's own in the end, and no bar was published twice."""

    async def scenario(on: Stage) -> None:
        await on.broker.faults(every_s={"duplicate_bar": 100, "late_bar": 130, "missing_bar": 160})
        async with on.ingest() as running:
            await on.until(Bar, 3 * 12)
            await on.broker.faults("DELETE")
            struck = (await on.broker.faults())["struck"]
            assert set(struck) == {"duplicate_bar", "late_bar", "missing_bar"}
            count = len(await on.events(Bar))
            await on.until(Bar, count + 9)
            await eventually_async(
                lambda: running.metric("kite_ingest_backfill_jobs") == 0, DEADLINE_S, "all asked"
            )
            await on.until_settled()
        bars = await on.events(Bar)
        assert len(set(keys(bars))) == len(bars)
        await on.check_bars()

    play(scenario, speed=100)


def test_hostile_frames_end_as_dead_letters(play: Play) -> None:
    """Garbage between good frames costs nothing but itself."""

    async def scenario(on: Stage) -> None:
        await on.broker.faults(every_s={"hostile": 3, "malformed": 5, "big_frame": 100})
        async with on.ingest() as running:
            await on.until(Bar, 3 * 8)
            await eventually_async(
                lambda: running.metric("kite_ingest_dead_letters_total") > 20, DEADLINE_S, "letters"
            )
            await on.broker.faults("DELETE")
            await on.until_settled()
        letters = await on.dead_letters()
        assert "bad_json" in {letter["reason"] for letter in letters}
        assert len({letter["reason"] for letter in letters}) > 3
        assert all(len(letter["excerpt"]) <= 512 for letter in letters)
        ticks = await on.events(Tick)
        assert len(set(keys(ticks))) == len(ticks)
        await on.check_bars()

    play(scenario, speed=100)


def test_silence_is_noticed(play: Play) -> None:
    """A socket that stands but says nothing is replaced, and the gap says why."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_INGEST_SILENCE_MS="400") as running:
            await on.until(Tick, 3)
            await on.broker.faults(next={"stall": 1}, stall_s=60.0)
            await eventually_async(
                lambda: running.metric("kite_ingest_reconnects_total", cause="silence") == 1,
                DEADLINE_S,
                "silence noticed",
            )
            await on.until(Tick, len(await on.events(Tick)) + 6)
        assert "silence" in {gap.cause for gap in await on.events(Gap)}

    play(scenario, speed=60)


def test_a_frozen_feed_is_noticed(play: Play) -> None:
    """Heartbeats alone are not enough in mid-session, where there were many frames a second."""

    async def scenario(on: Stage) -> None:
        async with on.ingest(KITE_INGEST_FROZEN_MS="300") as running:
            await eventually_async(
                lambda: running.metric("kite_ingest_wire_frames_total") > 150, DEADLINE_S, "data"
            )
            await on.broker.faults(freeze_data=True)
            await eventually_async(
                lambda: running.metric("kite_ingest_reconnects_total", cause="silence") == 1,
                DEADLINE_S,
                "a frozen feed noticed",
            )
            await on.broker.faults("DELETE")
            await on.until(Tick, len(await on.events(Tick)) + 6)

    play(scenario, speed=100)


def test_an_evicted_session_does_not_fight(play: Play) -> None:
    """Another login of the same user closes ours, and we stay away for long."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(Tick, 3)
            async with await on.broker.stream():
                await eventually_async(
                    lambda: running.metric("kite_ingest_reconnects_total", cause="evicted") == 1,
                    DEADLINE_S,
                    "evicted",
                )
                assert "evicted" in running.runtime.health.reasons["schwab"]

    play(scenario)


def test_a_refused_access_token_is_refreshed(play: Play) -> None:
    """A login elsewhere that ends our access token costs one refresh, not the session."""

    async def scenario(on: Stage) -> None:
        await on.broker.login()  # revokes the access token in the file
        async with on.ingest() as running:
            await on.until(Tick, 3)
            await on.until_settled()
            assert running.metric("kite_ingest_connected") == 1

    play(scenario)


@pytest.mark.parametrize("status", [401, 429, 500])
def test_trouble_with_the_token_leaves_it_waiting(play: Play, status: int) -> None:
    """Not ready, with a reason, until the broker takes the token again; the file is never junk."""

    async def scenario(on: Stage) -> None:
        path = on.home / "token.json"
        await on.broker.login()
        before = await asyncio.to_thread(path.read_bytes)
        await on.broker.faults(token_status=status)
        async with on.ingest() as running:
            await eventually_async(
                lambda: (
                    running.metric("kite_ingest_connected") == 0
                    and "schwab" in running.runtime.health.reasons
                    and ":" in running.runtime.health.reasons["schwab"]
                ),
                DEADLINE_S,
                "waiting with a reason",
            )
            assert await asyncio.to_thread(path.read_bytes) == before
            await on.broker.faults("DELETE")
            await on.until(Tick, 3)

    play(scenario)


@pytest.mark.parametrize("status", [401, 502])
def test_price_history_that_fails_is_asked_again(play: Play, status: int) -> None:
    """Live goes on meanwhile, and the day is filled when history comes back."""

    async def scenario(on: Stage) -> None:
        async with on.ingest() as running:
            await on.until(History, 3)
            await on.broker.faults(next={"missing_bar": 3}, rest_status=status)
            await eventually_async(
                lambda: running.metric("kite_ingest_history_requests_total", outcome="failed") > 0,
                DEADLINE_S,
                "a request that failed",
            )
            await on.until(Bar, len(await on.events(Bar)) + 3)
            await on.broker.faults("DELETE")
            await eventually_async(
                lambda: running.metric("kite_ingest_backfill_jobs") == 0, DEADLINE_S, "all asked"
            )
            await on.until_settled()
        await on.check_bars()

    play(scenario, speed=100)
