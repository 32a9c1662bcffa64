"""kill -9 of anything: no frame lost that was kept, no key repeated, what is missing is listed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from websockets.legacy.client import WebSocketClientProtocol

from cli.servers.nats import NatsServer
from libs.common import calendar
from libs.common.events import Bar, Gap, History, Tick
from tests.integration.ingest.stage import DEADLINE_S, PARTITIONS, Stage, keys, stage
from tests.servers import Running, temporary_home
from tests.waiting import eventually_async

Play = Callable[..., None]


@pytest.fixture
def mortal_nats(server_home: Path) -> Iterator[Running]:
    """A nats-server of this test alone, to be killed."""
    with temporary_home() as home:
        server = NatsServer(home, partitions=PARTITIONS)
        with Running(server, home / "nats.log") as running:
            yield running


def check_keys(events: Sequence[Tick | Bar]) -> None:
    """No key is there twice, and each ticker's keys rise."""
    found = keys(events)
    assert len(set(found)) == len(found)
    for kind, ticker in {key[:2] for key in found}:
        times = [ts_ms for k, t, ts_ms in found if (k, t) == (kind, ticker)]
        assert times == sorted(times)


async def bars_of_epoch(on: Stage, epoch: int, count: int) -> bool:
    """Whether a life has published so many bars."""
    frames = [frame for _, frame in await on.frames() if frame.epoch == epoch]
    return sum(isinstance(event, Bar) for frame in frames for event in frame.events) >= count


class TestBusAway:
    def test_what_came_in_meanwhile_is_all_there_afterwards(
        self, mortal_nats: Running, tmp_path: Path
    ) -> None:
        """The server is killed twice; every change that the simulator sent is a tick, in order."""
        server = mortal_nats.server
        assert isinstance(server, NatsServer)

        async def scenario(on: Stage) -> None:
            async with on.ingest() as running:
                await on.until(Bar, 3)
                for _ in range(2):
                    await asyncio.to_thread(mortal_nats.kill)
                    await eventually_async(
                        lambda: running.metric("kite_ingest_spool_bytes") > 5_000,
                        DEADLINE_S,
                        "frames in the spool",
                    )
                    assert not running.runtime.health.ready
                    await asyncio.to_thread(mortal_nats.start)
                    await eventually_async(
                        lambda: running.metric("kite_ingest_spool_bytes") == 0,
                        DEADLINE_S,
                        "an empty spool",
                    )
                    await eventually_async(
                        lambda: running.runtime.health.ready, DEADLINE_S, "ready again"
                    )
                assert running.metric("kite_ingest_refused_events_total") == 0
            await on.check_ticks()
            await on.check_bars()
            check_keys(await on.events(Tick))

        async def on_stage() -> None:
            async with stage(server, tmp_path, speed=60) as found:
                await scenario(found)

        asyncio.run(on_stage())

    def test_a_start_without_the_bus_waits_for_it(
        self, mortal_nats: Running, tmp_path: Path
    ) -> None:
        """Nothing is asked of the broker before the state is known; stopping it is possible."""
        server = mortal_nats.server
        assert isinstance(server, NatsServer)

        async def scenario(on: Stage) -> None:
            await asyncio.to_thread(mortal_nats.kill)
            process = on.process()
            try:
                await eventually_async(
                    lambda: len(process.said("bus.unavailable")) > 2, DEADLINE_S, "it waits"
                )
                assert await asyncio.to_thread(process.terminate) == 0
                process = on.process()
                await asyncio.to_thread(mortal_nats.start)
                await on.until(Tick, 6)
                assert await asyncio.to_thread(process.terminate) == 0
            finally:
                await asyncio.to_thread(process.kill)

        async def on_stage() -> None:
            async with stage(server, tmp_path) as found:
                await scenario(found)

        asyncio.run(on_stage())

    def test_a_full_spool_ends_in_gaps_and_history(
        self, mortal_nats: Running, tmp_path: Path
    ) -> None:
        """What had no room is listed, bars are filled from history, and it goes on."""
        server = mortal_nats.server
        assert isinstance(server, NatsServer)

        async def scenario(on: Stage) -> None:
            async with on.ingest(KITE_INGEST_SPOOL_BYTES_MAX=str(1 << 18)) as running:
                await on.until(Bar, 3)
                await asyncio.to_thread(mortal_nats.kill)
                await eventually_async(
                    lambda: running.metric("kite_ingest_refused_events_total") > 200,
                    2 * DEADLINE_S,
                    "refused events",
                )
                await asyncio.to_thread(mortal_nats.start)

                async def listed() -> bool:
                    gaps = await on.events(Gap)
                    return any((g.series, g.cause) == ("ticks", "spool_full") for g in gaps)

                await eventually_async(listed, 2 * DEADLINE_S, "what had no room is listed")
                count = len(await on.events(Bar))
                await on.until(Bar, count + 6)
                await on.until_settled()
            causes = {(gap.series, gap.cause) for gap in await on.events(Gap)}
            # A bar that is late because of it may be missed before there is no room for any.
            assert {("bars", "spool_full"), ("bars", "overdue_bar")} & causes
            check_keys(await on.events(Tick))
            await on.check_bars()

        async def on_stage() -> None:
            async with stage(server, tmp_path, speed=120) as found:
                await scenario(found)

        asyncio.run(on_stage())


class TestKilled:
    def test_no_key_is_repeated_and_every_gap_is_listed(self, play: Play) -> None:
        """Three lives, each killed with -9 in the middle, and one that ends in good order."""

        async def scenario(on: Stage) -> None:
            for life in range(1, 5):
                process = on.process()
                try:
                    await eventually_async(
                        partial(bars_of_epoch, on, life, 6), DEADLINE_S, f"bars of life {life}"
                    )
                    if life == 4:
                        await on.until_settled()
                        assert await asyncio.to_thread(process.terminate) == 0
                finally:
                    await asyncio.to_thread(process.kill)
            epochs = {frame.epoch for _, frame in await on.frames()}
            assert epochs == {1, 2, 3, 4}
            check_keys([*await on.events(Tick), *await on.events(Bar)])
            gaps = await on.events(Gap)
            tick_gaps = [gap for gap in gaps if gap.series == "ticks"]
            assert len(tick_gaps) == 12, "three tickers, the first start and three restarts"
            assert {gap.cause for gap in gaps} == {"restart"}
            await on.check_bars()

        play(scenario, speed=120)

    def test_killed_while_the_bus_is_away_too(self, mortal_nats: Running, tmp_path: Path) -> None:
        """The next life sends what the dead one had spooled, before anything of its own."""
        server = mortal_nats.server
        assert isinstance(server, NatsServer)

        async def scenario(on: Stage) -> None:
            process = on.process()
            try:
                await on.until(Bar, 3)
                await asyncio.to_thread(mortal_nats.kill)
                spool = on.home / "ingest" / "spool"
                await eventually_async(
                    lambda: spool.stat().st_size > 5_000, DEADLINE_S, "frames in the spool"
                )
            finally:
                await asyncio.to_thread(process.kill)
            kept = spool.stat().st_size
            await asyncio.to_thread(mortal_nats.start)
            async with on.ingest() as running:
                await on.until(Bar, len(await on.events(Bar)) + 6)
                await on.until_settled()
                await eventually_async(
                    lambda: running.metric("kite_ingest_spool_bytes") == 0, DEADLINE_S, "drained"
                )
            assert kept > 5_000
            frames = await on.frames()
            assert {frame.epoch for _, frame in frames} == {1, 2}
            ticks = await on.events(Tick)
            check_keys(ticks)
            gaps = [gap for gap in await on.events(Gap) if gap.series == "ticks"]
            for gap in gaps:
                inside = [
                    tick for tick in ticks
                    if tick.ticker == gap.ticker and gap.from_ms <= tick.ts_ms < gap.to_ms
                ]  # fmt: skip
                assert not inside, "a gap begins after the last spooled tick"
            await on.check_bars()

        async def on_stage() -> None:
            async with stage(server, tmp_path, speed=60) as found:
                await scenario(found)

        asyncio.run(on_stage())

    def test_an_outage_over_a_night_fills_both_days(self, play: Play) -> None:
        """Yesterday's rest and today so far come as one history for each day.

        The session before them is there from the first start.
        """

        async def scenario(on: Stage) -> None:
            process = on.process()
            try:
                await on.until(Bar, 6)
                await on.until_settled()
            finally:
                await asyncio.to_thread(process.kill)
            last_ms = max(bar.ts_ms for bar in await on.events(Bar))
            await on.wait_for_broker_ms(
                calendar.next_session(calendar.day_of(last_ms)).pre_open_ms + 300_000
            )
            gaps = len(await on.events(Gap))
            async with on.ingest():
                await on.until(Gap, gaps + 3)
                await on.until_settled()
                await on.until(Bar, len(await on.events(Bar)) + 3)
            days = {history.day_ms for history in await on.events(History)}
            assert len(days) == 3
            await on.check_bars()

        play(scenario, speed=240, start="2026-11-19T19:40")


class TestOneOnly:
    def test_a_second_one_is_refused_with_a_clear_word(self, play: Play) -> None:
        """Two sessions would evict each other: exit code 3, and the first one goes on."""

        async def scenario(on: Stage) -> None:
            async with on.ingest() as running:
                await on.until(Tick, 3)
                second = on.process()
                assert await asyncio.to_thread(second.popen.wait, DEADLINE_S) == 3
                (line,) = second.said("service.refused")
                assert "another ingest" in line["error"]
                assert running.metric("kite_ingest_connected") == 1

        play(scenario)

    def test_a_directory_that_cannot_be_written_is_named(self, play: Play) -> None:
        """Exit code 2 and the variable's name."""

        async def scenario(on: Stage) -> None:
            process = on.process(KITE_INGEST_DATA_DIR="/proc/nowhere")
            assert await asyncio.to_thread(process.popen.wait, DEADLINE_S) == 2
            (line,) = process.said("service.refused")
            assert "KITE_INGEST_DATA_DIR" in line["error"]

        play(scenario)

    def test_nothing_secret_is_ever_logged(self, play: Play) -> None:
        """Not the app's secret, not the tokens, also when things go wrong."""

        async def scenario(on: Stage) -> None:
            await on.broker.login()  # revokes the access token in the file
            await on.broker.faults(token_status=401)
            process = on.process(KITE_LOG_LEVEL="debug")
            try:
                await eventually_async(
                    lambda: len(process.said("schwab.disconnected")) > 1, DEADLINE_S, "failures"
                )
                await on.broker.faults("DELETE")
                await on.until(Tick, 3)
                assert await asyncio.to_thread(process.terminate) == 0
            finally:
                await asyncio.to_thread(process.kill)
            log = await asyncio.to_thread((on.home / "ingest.log").read_text)
            for secret in await asyncio.to_thread(on.secrets):
                assert secret not in log

        play(scenario)

    def test_a_stop_while_a_socket_closes_is_not_forgotten(
        self, play: Play, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The library's close swallows a cancellation while the broker's answer is out."""
        closing = asyncio.Event()

        async def unanswered(socket: WebSocketClientProtocol) -> None:
            closing.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        monkeypatch.setattr(WebSocketClientProtocol, "close", unanswered)

        async def scenario(on: Stage) -> None:
            async with on.ingest() as running:
                await on.until(Tick, 1)
                await on.broker.faults(next={"drop": 1})
                await asyncio.wait_for(closing.wait(), DEADLINE_S)
                await running.stop()

        play(scenario)

    def test_another_time_does_not_fit_the_store(
        self, play: Play, fresh_nats: NatsServer, tmp_path: Path
    ) -> None:
        """A broker whose clock stands before what is stored is not listened to."""

        async def first(on: Stage) -> None:
            async with on.ingest():
                await on.until(Tick, 6)

        async def second(on: Stage) -> None:
            count = len(await on.events(Tick))
            async with on.ingest() as running:
                await eventually_async(
                    lambda: "lies before" in running.runtime.health.reasons.get("schwab", ""),
                    DEADLINE_S,
                    "refused",
                )
                assert running.metric("kite_ingest_connected") == 0
            assert len(await on.events(Tick)) == count

        play(first, start="2026-11-20T12:00")
        play(second, start="2026-11-20T11:00")
