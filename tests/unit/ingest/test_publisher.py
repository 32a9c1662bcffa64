"""Frames reach MARKET once, in order and numbered without a hole, whatever the bus does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common import codec
from libs.common.bus import topology
from libs.common.bus.memory import MemoryBus, MemoryServer
from libs.common.errors import PositionError
from libs.common.events import SCHEMA_VERSION, Clock, Event, Frame, Tick
from services.ingest.checkpoints import load_positions
from services.ingest.positions import TakenOver
from services.ingest.publisher import MEMORY_FRAMES_MAX, Publisher
from services.ingest.spool import Record, Spool
from tests.waiting import eventually_async

PARTITIONS = 2
TICKERS = ("QQQ", "SPY")  # of partitions 0 and 1
SPOOL_BYTES_MAX = 1 << 20


def tick(ticker: str, number: int) -> Tick:
    """The ticker's tick of that number."""
    return Tick(ticker, number, 10.0, 1, number, None, None)


class Life:
    """One process's publisher, started on what an earlier one left."""

    def __init__(self, bus: MemoryBus, publisher: Publisher, task: asyncio.Task[None]) -> None:
        self.bus = bus
        self.publisher = publisher
        self.task = task
        self.went_away: list[str] = []

    async def settled(self) -> None:
        """Wait until everything offered is stored."""
        await eventually_async(
            lambda: self.publisher.idle or self.task.done(), 10.0, "everything is stored"
        )
        if self.task.done():
            self.task.result()


class Stage:
    """A server in memory and a data directory; lives come and go."""

    def __init__(self, directory: Path, *, bytes_max: int = SPOOL_BYTES_MAX) -> None:
        self.server = MemoryServer(topology.plan(PARTITIONS, "demo"))
        self.path = directory / "spool"
        self.bytes_max = bytes_max

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Life]:
        """A publisher that runs; leaving kills it, nothing is flushed."""
        bus = self.server.connect()
        stream, positions = await load_positions(bus, PARTITIONS)
        spool = Spool(self.path, stream.created_ms, self.bytes_max)
        away: list[str] = []
        publisher = Publisher(
            bus, spool, positions, stream_created_ms=stream.created_ms, spill_after_s=0.2,
            on_away=away.append, on_back=away.clear,
        )  # fmt: skip
        life = Life(bus, publisher, asyncio.create_task(publisher.run()))
        life.went_away = away
        try:
            yield life
        finally:
            life.task.cancel()
            await asyncio.wait({life.task})
            spool.close()
            bus.kill()

    async def frames(self, partition: int) -> list[Frame]:
        """Everything that MARKET holds of a partition."""
        bus, frames, seq = self.server.connect(), [], 0
        while (
            stored := await bus.read("MARKET", f"market.{partition}", start_seq=seq + 1)
        ) is not None:
            seq = stored.seq
            frames.append(codec.decode_frame(stored.data))
        return frames

    async def check(self, expected: dict[str, list[int]]) -> None:
        """The stream holds exactly these ticks, its numbers rise by one, its epochs never fall."""
        found: dict[str, list[int]] = {ticker: [] for ticker in TICKERS}
        for partition in range(PARTITIONS):
            frames = await self.frames(partition)
            assert [frame.n for frame in frames] == list(range(1, len(frames) + 1))
            epochs = [frame.epoch for frame in frames]
            assert epochs == sorted(epochs)
            for frame in frames:
                for event in frame.events:
                    if isinstance(event, Tick):
                        found[event.ticker].append(event.ts_ms)
        assert found == expected


Scenario = Callable[[Stage], Awaitable[None]]


def play(scenario: Scenario, directory: Path, *, bytes_max: int = SPOOL_BYTES_MAX) -> None:
    """Run a scenario on a stage of its own."""

    async def run() -> None:
        await scenario(Stage(directory, bytes_max=bytes_max))

    asyncio.run(run())


class TestSending:
    def test_one_step_is_one_frame_per_partition_touched(self, tmp_path: Path) -> None:
        """A clock goes everywhere, a tick to its partition, together."""

        async def scenario(stage: Stage) -> None:
            async with stage.life() as life:
                events: list[Event] = [tick("QQQ", 1), Clock(5)]
                assert life.publisher.offer(events, 5, 7)
                await life.settled()
            first, second = await stage.frames(0), await stage.frames(1)
            assert [frame.events for frame in first] == [(tick("QQQ", 1), Clock(5))]
            assert [frame.events for frame in second] == [(Clock(5),)]
            frame = first[0]
            assert (frame.version, frame.epoch, frame.n) == (SCHEMA_VERSION, 1, 1)
            assert (frame.sent_ms, frame.received_ms) == (5, 7)

        play(scenario, tmp_path)

    def test_each_life_has_the_next_epoch_and_numbers_go_on(self, tmp_path: Path) -> None:
        """A restart continues the numbers of its predecessor."""

        async def scenario(stage: Stage) -> None:
            for life_number in range(1, 4):
                async with stage.life() as life:
                    assert life.publisher.epoch == life_number
                    life.publisher.offer([tick("QQQ", life_number)], 0, 0)
                    await life.settled()
            await stage.check({"QQQ": [1, 2, 3], "SPY": []})

        play(scenario, tmp_path)


STEPS = st.lists(
    st.sampled_from(["tick", "tick", "lost before", "lost after", "stop", "start", "kill"]),
    max_size=30,
)


class TestDoubt:
    @pytest.mark.parametrize("stored", [True, False])
    def test_a_lost_answer_is_settled_by_the_stream(self, tmp_path: Path, stored: bool) -> None:
        """Stored or not, the frame is there once, and so are those behind it."""

        async def scenario(stage: Stage) -> None:
            async with stage.life() as life:
                life.bus.lose_next_answer(stored=stored)
                for n in range(1, 6):
                    life.publisher.offer([tick("QQQ", n)], 0, 0)
                await life.settled()
                assert not life.publisher.away
            await stage.check({"QQQ": [1, 2, 3, 4, 5], "SPY": []})

        play(scenario, tmp_path)

    @given(STEPS)
    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    def test_no_fault_loses_or_doubles_a_frame(
        self, tmp_path_factory: pytest.TempPathFactory, steps: list[str]
    ) -> None:
        """Answers get lost, the server goes and comes, the process is killed while it is away."""
        play(lambda stage: _Trouble(stage, steps).run(), tmp_path_factory.mktemp("stage"))


class _Trouble:
    """Plays a list of steps, over as many lives as it takes."""

    def __init__(self, stage: Stage, steps: list[str]) -> None:
        self._stage = stage
        self._steps = list(reversed(steps))
        self._number = 0
        self._said: dict[str, list[int]] = {ticker: [] for ticker in TICKERS}

    async def run(self) -> None:
        """Play everything, then let a last life find what is left."""
        while self._steps:
            async with self._stage.life() as life:
                await self._live(life)
            self._stage.server.start()
        async with self._stage.life() as life:
            await life.publisher.settle()
        await self._stage.check(self._said)

    async def _live(self, life: Life) -> None:
        while self._steps and (step := self._steps.pop()) != "kill":
            self._play(step, life)
            await asyncio.sleep(0)
        # What is on its way when a process dies is a gap, not a loss. So the kill comes when all
        # is stored, or on disk because the bus is away.
        await eventually_async(
            lambda: life.publisher.idle or life.publisher.away, 5.0, "everything is kept"
        )

    def _play(self, step: str, life: Life) -> None:
        if step == "tick":
            self._number += 1
            ticker = TICKERS[self._number % 2]
            assert life.publisher.offer([tick(ticker, self._number)], 0, 0)
            self._said[ticker].append(self._number)
        elif step == "stop":
            self._stage.server.stop()
        elif step == "start":
            self._stage.server.start()
        else:
            life.bus.lose_next_answer(stored=step == "lost after")


class TestAway:
    def test_what_is_offered_while_the_bus_is_away_comes_later_in_order(
        self, tmp_path: Path
    ) -> None:
        """Through the spool and back to the direct way."""

        async def scenario(stage: Stage) -> None:
            async with stage.life() as life:
                life.publisher.offer([tick("QQQ", 1)], 0, 0)
                await life.settled()
                stage.server.stop()
                for n in range(2, 50):
                    assert life.publisher.offer([tick("QQQ", n), tick("SPY", n)], 0, 0)
                await eventually_async(lambda: life.publisher.spool_bytes > 0, 5.0, "spooling")
                assert life.went_away
                stage.server.start()
                await life.settled()
                await eventually_async(lambda: not life.publisher.away, 5.0, "back")
                life.publisher.offer([tick("QQQ", 50)], 0, 0)
                await life.settled()
            await stage.check({"QQQ": list(range(1, 51)), "SPY": list(range(2, 50))})

        play(scenario, tmp_path)

    def test_a_spool_outlives_its_process(self, tmp_path: Path) -> None:
        """The next life sends it first, under its old epoch, and then its own."""

        async def scenario(stage: Stage) -> None:
            async with stage.life() as life:
                stage.server.stop()
                for n in range(1, 20):
                    life.publisher.offer([tick("QQQ", n)], 0, 0)
                await eventually_async(lambda: life.publisher.away, 5.0, "away")
            stage.server.start()
            async with stage.life() as life:
                await life.publisher.settle()
                assert life.publisher.epoch == 2
                life.publisher.offer([tick("QQQ", 20)], 0, 0)
                await life.settled()
            await stage.check({"QQQ": list(range(1, 21)), "SPY": []})

        play(scenario, tmp_path)

    def test_what_was_stored_after_all_is_not_sent_again(self, tmp_path: Path) -> None:
        """A spool whose first frames are in the stream already is drained behind them."""

        async def scenario(stage: Stage) -> None:
            async with stage.life() as life:
                for n in range(1, 4):
                    life.publisher.offer([tick("QQQ", n)], 0, 0)
                await life.settled()
                created_ms = (await life.bus.stream("MARKET")).created_ms
            stored = [codec.encode_frame(frame) for frame in await stage.frames(0)]
            new = Frame(SCHEMA_VERSION, 1, 4, 0, 0, 0, 0, (tick("QQQ", 4),))
            spool = Spool(stage.path, created_ms, SPOOL_BYTES_MAX)
            spool.append(Record(0, 1, n + 2, data) for n, data in enumerate(stored[1:]))
            spool.append([Record(0, 1, 4, codec.encode_frame(new))])
            spool.close()
            async with stage.life() as life:
                await life.publisher.settle()
            await stage.check({"QQQ": [1, 2, 3, 4], "SPY": []})

        play(scenario, tmp_path)

    def test_a_spool_with_a_hole_is_set_aside(self, tmp_path: Path) -> None:
        """Frames whose predecessors are lost cannot be numbered on; the gap tells of them."""

        async def scenario(stage: Stage) -> None:
            bus = stage.server.connect()
            created_ms = (await bus.stream("MARKET")).created_ms
            frame = Frame(SCHEMA_VERSION, 1, 3, 0, 0, 0, 0, (tick("QQQ", 3),))
            spool = Spool(stage.path, created_ms, SPOOL_BYTES_MAX)
            spool.append([Record(0, 1, 3, codec.encode_frame(frame))])
            spool.close()
            async with stage.life() as life:
                await life.publisher.settle()
                life.publisher.offer([tick("QQQ", 9)], 0, 0)
                await life.settled()
            await stage.check({"QQQ": [9], "SPY": []})

        play(scenario, tmp_path)
        assert list(tmp_path.glob("*.set-aside"))

    def test_a_full_spool_refuses_the_newest(self, tmp_path: Path) -> None:
        """What was taken before is kept and sent; what was refused never had a number."""

        async def scenario(stage: Stage) -> None:
            async with stage.life() as life:
                stage.server.stop()
                taken = []
                for n in range(1, MEMORY_FRAMES_MAX + 2_000):
                    if not life.publisher.offer([tick("QQQ", n)], 0, 0):
                        break
                    taken.append(n)
                    await asyncio.sleep(0)
                else:
                    pytest.fail("the spool never filled up")
                stage.server.start()
                await life.settled()
                assert life.publisher.offer([tick("QQQ", 10_000)], 0, 0), "there is room again"
                await life.settled()
            await stage.check({"QQQ": [*taken, 10_000], "SPY": []})

        play(scenario, tmp_path, bytes_max=50_000)

    def test_too_much_for_memory_goes_through_the_spool(self, tmp_path: Path) -> None:
        """A burst that the bus cannot take at once is bounded in memory, and complete."""

        async def scenario(stage: Stage) -> None:
            async with stage.life() as life:
                count = MEMORY_FRAMES_MAX + 10
                for n in range(1, count + 1):
                    assert life.publisher.offer([tick("QQQ", n)], 0, 0)
                assert life.publisher.spool_bytes > 0
                await life.settled()
            await stage.check({"QQQ": list(range(1, count + 1)), "SPY": []})

        play(scenario, tmp_path)


class TestStrangers:
    def test_a_newer_epoch_ends_the_older_one(self, tmp_path: Path) -> None:
        """Whoever started later owns the store."""

        async def scenario(stage: Stage) -> None:
            (tmp_path / "other").mkdir()
            other = Stage(tmp_path / "other")
            other.server = stage.server
            async with stage.life() as old:
                old.publisher.offer([tick("QQQ", 1)], 0, 0)
                await old.settled()
                async with other.life() as new:
                    new.publisher.offer([tick("QQQ", 2)], 0, 0)
                    await new.settled()
                    old.publisher.offer([tick("QQQ", 3)], 0, 0)
                    with pytest.raises(ExceptionGroup) as caught:
                        await old.settled()
                    assert caught.group_contains(TakenOver)
            await stage.check({"QQQ": [1, 2], "SPY": []})

        play(scenario, tmp_path)

    def test_two_that_start_at_once_are_told_apart_by_their_frames(self, tmp_path: Path) -> None:
        """The same epoch and number, but other bytes: the slower one stops."""

        async def scenario(stage: Stage) -> None:
            (tmp_path / "other").mkdir()
            other = Stage(tmp_path / "other")
            other.server = stage.server
            async with stage.life() as one, other.life() as two:
                assert one.publisher.epoch == two.publisher.epoch
                one.publisher.offer([tick("QQQ", 1)], 0, 0)
                await one.settled()
                two.publisher.offer([tick("QQQ", 2)], 0, 0)
                with pytest.raises(ExceptionGroup) as caught:
                    await two.settled()
                assert caught.group_contains(TakenOver)
            await stage.check({"QQQ": [1], "SPY": []})

        play(scenario, tmp_path)

    def test_a_stream_from_another_time_is_refused(self, tmp_path: Path) -> None:
        """Frames that nobody here has written under our own epoch cannot be explained."""

        async def scenario(stage: Stage) -> None:
            async with stage.life() as life:
                life.publisher.offer([tick("QQQ", 1)], 0, 0)
                await life.settled()
                strange = Frame(SCHEMA_VERSION, 1, 7, 0, 0, 0, 0, ())
                await life.bus.append("market.0", codec.encode_frame(strange))
                life.publisher.offer([tick("QQQ", 2)], 0, 0)
                with pytest.raises(ExceptionGroup) as caught:
                    await life.settled()
                assert caught.group_contains(PositionError)

        play(scenario, tmp_path)
