"""Ingest's memory: a checkpoint and the frames since, and what does not fit the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from libs.common import codec
from libs.common.bus import topology
from libs.common.bus.memory import MemoryBus, MemoryServer
from libs.common.errors import PositionError
from libs.common.events import SCHEMA_VERSION, Checkpoint, Tick
from libs.common.telemetry import get_logger
from services.ingest.checkpoints import Checkpoints, load_positions, recall
from services.ingest.core import Core
from services.ingest.publisher import Publisher
from services.ingest.spool import Spool
from tests.waiting import eventually_async

PARTITIONS = 2
TICKERS = ("QQQ", "SPY")


def play(scenario: Callable[[MemoryBus], Awaitable[None]]) -> None:
    """Run a scenario on a bus of its own."""

    async def run() -> None:
        await scenario(MemoryServer(topology.plan(PARTITIONS, "demo")).connect())

    asyncio.run(run())


async def publish(bus: MemoryBus, directory: Path, core: Core, times: range) -> None:
    """One life: publish a tick of QQQ for each time and leave a checkpoint after half of them."""
    stream, positions = await load_positions(bus, PARTITIONS)
    spool = Spool(directory / "spool", stream.created_ms, 1 << 20)
    publisher = Publisher(
        bus, spool, positions, stream_created_ms=stream.created_ms, spill_after_s=1.0,
        on_away=lambda _: None, on_back=lambda: None,
    )  # fmt: skip
    checkpoints = Checkpoints(bus, core, publisher, stream, get_logger())
    sending = asyncio.create_task(publisher.run())
    for number, ts_ms in enumerate(times):
        tick = Tick("QQQ", ts_ms, 1.0, 1, 1, None, None)
        core.replay(tick)
        assert publisher.offer([tick], ts_ms, 0)
        await eventually_async(lambda: publisher.idle, 5.0, "stored")
        if number == len(times) // 2:
            await checkpoints.save()
    sending.cancel()
    await asyncio.wait({sending})
    spool.close()


def test_checkpoint_and_frames_since_make_the_state(tmp_path: Path) -> None:
    """The next life knows the last tick, though it came after the checkpoint."""

    async def scenario(bus: MemoryBus) -> None:
        core, born = Core(TICKERS), Core(TICKERS)
        await publish(bus, tmp_path, core, range(1, 10))
        recalled = await recall(bus, born, PARTITIONS)
        assert born.snapshot(0, 1, 1) == core.snapshot(0, 1, 1)
        assert (recalled.frames, recalled.holes) == (4, 0)
        assert born.epoch == 1

    play(scenario)


def test_without_a_checkpoint_the_frames_are_enough(tmp_path: Path) -> None:
    """A life that was killed before its first checkpoint left all there is in the stream."""

    async def scenario(bus: MemoryBus) -> None:
        core, born = Core(TICKERS), Core(TICKERS)
        await publish(bus, tmp_path, core, range(1, 4))
        fresh = MemoryServer(topology.plan(PARTITIONS, "demo")).connect()
        for seq in range(1, 4):
            stored = await bus.read("MARKET", "market.0", start_seq=seq)
            assert stored is not None
            await fresh.append("market.0", stored.data)
        recalled = await recall(fresh, born, PARTITIONS)
        assert (recalled.frames, recalled.holes) == (3, 0)
        assert born.snapshot(0, 1, 1) == core.snapshot(0, 1, 1)

    play(scenario)


@pytest.mark.parametrize(
    ("created_by_ms", "seq", "said"), [(1, 1, "made anew"), (0, 9, "lost its tail")]
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, created_by_ms: int, seq: int, said: str
) -> None:
    """Of another incarnation of the stream, or ahead of it: start with an empty store."""

    async def scenario(bus: MemoryBus) -> None:
        await publish(bus, tmp_path, Core(TICKERS), range(1, 3))
        created_ms = (await bus.stream("MARKET")).created_ms + created_by_ms
        strange = Checkpoint(SCHEMA_VERSION, created_ms, created_ms, seq, seq, seq, b"")
        last = await bus.last("STATE", "state.ingest.0")
        assert last is not None
        await bus.publish(
            "state.ingest.0", codec.encode_checkpoint(strange), expected_last_seq=last.seq
        )
        with pytest.raises(PositionError, match=said):
            await load_positions(bus, PARTITIONS)

    play(scenario)


def test_numbers_go_on_when_all_frames_have_aged_out(tmp_path: Path) -> None:
    """After weeks of absence the checkpoint alone knows the last number."""

    async def scenario(bus: MemoryBus) -> None:
        created_ms = (await bus.stream("MARKET")).created_ms
        state = Core(TICKERS).snapshot(0, PARTITIONS, 7)
        old = Checkpoint(SCHEMA_VERSION, created_ms, created_ms, 0, 41, 41, state)
        await bus.publish("state.ingest.0", codec.encode_checkpoint(old), expected_last_seq=0)
        _, positions = await load_positions(bus, PARTITIONS)
        assert (positions[0].n, positions[0].seq, positions[1].n) == (41, 0, 0)
        born = Core(TICKERS)
        await recall(bus, born, PARTITIONS)
        assert born.epoch == 7

    play(scenario)
