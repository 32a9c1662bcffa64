"""Indicators and signals as services: real bars in, answers and live messages out, kills between.

The bus is the one in memory, which keeps the same promises as NATS.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from libs.common import codec, subjects
from libs.common.bus import Bus
from libs.common.bus.memory import MemoryServer
from libs.common.bus.topology import plan
from libs.common.clock import ManualClock
from libs.common.events import SCHEMA_VERSION, Bar, Clock, Event, Frame, Signal
from libs.common.runner import Runtime
from libs.common.settings import ServiceSettings
from libs.common.telemetry import Health, Metrics, get_logger
from services.indicators import core as indicators
from services.indicators import service as indicators_service
from services.indicators.settings import IndicatorsSettings
from services.signals import core as signals
from services.signals import service as signals_service
from services.signals.settings import SignalsSettings
from tests.markets import FULL_DAY, MINUTE_MS, by_day, gap, history, real_bars, tick, with_clocks
from tests.waiting import eventually_async

PARTITIONS = 2
# One ticker for each partition.
TICKERS = ("INDA", "FXY")
DEADLINE_S = 60
S = TypeVar("S", bound=ServiceSettings)


def market() -> list[tuple[int, list[Event]]]:
    """Return frames with their partitions: ticks, bars, heartbeats, an outage and its healing."""
    bars = by_day(real_bars("INDA"))
    days = sorted(bars)[:2]
    events: list[list[Event]] = []
    for event in with_clocks([bar for day in days for bar in bars[day]], every_ms=30_000):
        ticks = [tick(event.ts_ms, event.open, 7, "INDA")] if isinstance(event, Bar) else []
        events.append([*ticks, event])
    lost = events[900:960]
    missed = [event for group in lost for event in group if isinstance(event, Bar)]
    known = [bar for bar in bars[days[0]] if bar.ts_ms <= missed[-1].ts_ms]
    hole = gap(missed[0].ts_ms, missed[-1].ts_ms + MINUTE_MS, ticker="INDA")
    events[900:960] = [[hole], [history(days[0], known, "INDA")]]
    frames = [(subjects.partition_of("INDA", PARTITIONS), group) for group in events]
    other = subjects.partition_of("FXY", PARTITIONS)
    frames += [(other, [event]) for event in with_clocks(real_bars("FXY")[:60], every_ms=30_000)]
    assert {partition for partition, _ in frames} == set(range(PARTITIONS))
    return frames


@dataclass
class Stage:
    """A bus with its two services, and the frames sent to it."""

    server: MemoryServer = field(default_factory=lambda: MemoryServer(plan(PARTITIONS, "csv")))
    clock: ManualClock = field(default_factory=lambda: ManualClock(1_700_000_000_000))
    sent: dict[int, list[Frame]] = field(default_factory=dict)

    async def send(self, partition: int, events: Sequence[Event]) -> None:
        """Publish one MARKET frame, received just now."""
        frames = self.sent.setdefault(partition, [])
        sent_ms = max((e.ts_ms for e in events if isinstance(e, Bar | Clock)), default=0)
        sent_ms = sent_ms or (frames[-1].sent_ms if frames else 0)
        frame = Frame(
            SCHEMA_VERSION, 1, len(frames) + 1, 0, 0, sent_ms, self.clock.now_ms(), tuple(events)
        )
        frames.append(frame)
        bus = self.server.connect()
        subject = subjects.frame_subject(subjects.MARKET, partition)
        last = await bus.last(subjects.MARKET, subject)
        await bus.publish(
            subject, codec.encode_frame(frame), expected_last_seq=last.seq if last else 0
        )
        await bus.close()

    def stored(self, stream: str, partition: int) -> list[Frame]:
        """Return all frames of one partition of a stream."""
        found = self.server.stream(stream).from_seq(
            subjects.frame_subject(stream, partition), 1, 1_000_000
        )
        return [codec.decode_frame(message.data) for message in found]

    async def progressed(self, count: int) -> None:
        """Wait for that many signals frames, over all partitions."""
        await eventually_async(
            lambda: sum(len(self.stored(subjects.SIGNALS, p)) for p in range(PARTITIONS)) >= count,
            DEADLINE_S,
            f"{count} signals frames",
        )

    async def drained(self) -> None:
        """Wait until every frame sent has its signals frame."""
        await eventually_async(
            lambda: all(
                len(self.stored(subjects.SIGNALS, partition)) == len(frames)
                for partition, frames in self.sent.items()
            ),
            DEADLINE_S,
            "a signals frame for every market frame",
        )

    def start(
        self, settings: S, serve: Callable[[Runtime[S], Bus], Awaitable[None]], name: str
    ) -> Instance:
        """Start one instance of a service."""
        runtime = Runtime(
            name, settings, Metrics(), Health(), self.clock, get_logger(), asyncio.Event()
        )
        bus = self.server.connect()
        return Instance(runtime, bus, asyncio.ensure_future(serve(runtime, bus)))

    def start_indicators(self) -> Instance:
        """Start one instance of the indicators."""
        settings = IndicatorsSettings(nats_url="", partitions=PARTITIONS)
        return self.start(settings, indicators_service.run, "indicators")

    def start_signals(self) -> Instance:
        """Start one instance of the signals."""
        settings = SignalsSettings(
            nats_url="", partitions=PARTITIONS, signal_timeframes=("tick", "1m", "5m")
        )
        return self.start(settings, signals_service.run, "signals")

    def expected(self, partition: int) -> tuple[list[Any], list[Any]]:
        """Return what the pure cores make of the same frames without any interruption."""
        first = indicators.Operator()
        second = signals.Operator(("tick", "1m", "5m"))
        between = [first.step(frame) for frame in self.sent[partition]]
        frames = [
            Frame(SCHEMA_VERSION, 0, n, n, n, 0, 0, events) for n, events in enumerate(between, 1)
        ]
        return between, [second.step(frame) for frame in frames]

    def check(self) -> None:
        """Compare both streams with the uninterrupted run, event by event."""
        for partition in range(PARTITIONS):
            between, found = self.expected(partition)
            assert [f.events for f in self.stored(subjects.INDICATORS, partition)] == between
            assert [f.events for f in self.stored(subjects.SIGNALS, partition)] == found


@dataclass
class Instance:
    """One process of a service."""

    runtime: Runtime[Any]
    bus: Any
    task: asyncio.Future[None]

    async def stop(self) -> None:
        """End in good order; whatever went wrong comes out."""
        self.runtime.stop.set()
        await self.task

    async def kill(self) -> None:
        """Die without a goodbye."""
        self.bus.kill()
        self.task.cancel()
        await asyncio.wait({self.task})


def test_what_goes_in_comes_out_once_whoever_dies() -> None:
    """Services killed at random, answers lost: both streams equal the uninterrupted run's."""

    async def work() -> None:
        chance = random.Random(7)
        stage = Stage()
        running = [stage.start_indicators(), stage.start_signals()]
        starts = [stage.start_indicators, stage.start_signals]
        frames = market()
        for n, (partition, events) in enumerate(frames):
            await stage.send(partition, events)
            if n % 150 == 75:
                victim = chance.randrange(2)
                running[victim].bus.lose_next_answer(stored=chance.random() < 0.5)
                await stage.progressed(chance.randrange(n))
                await running[victim].kill()
                running[victim] = starts[victim]()
        await stage.drained()
        for instance in running:
            await instance.stop()
        stage.check()
        signals_found = [
            event
            for partition in range(PARTITIONS)
            for frame in stage.stored(subjects.SIGNALS, partition)
            for event in frame.events
        ]
        assert {type(event) for event in signals_found} == {Signal}

    asyncio.run(work())


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "old"])
def test_only_fresh_answers_leave_live(fresh: bool) -> None:
    """Ticks, candles and signals of a frame just received are sent; those of an old one are not."""

    async def work() -> None:
        stage = Stage()
        bars = by_day(real_bars("INDA"))[FULL_DAY]
        partition = subjects.partition_of("INDA", PARTITIONS)
        with stage.server.subscribe("live.>") as inbox:
            for bar in bars[:120]:
                await stage.send(partition, [tick(bar.ts_ms, bar.open, 7, "INDA"), bar])
            if not fresh:
                stage.clock.advance(60_000)
            running = [stage.start_indicators(), stage.start_signals()]
            await stage.drained()
            for instance in running:
                await instance.stop()
            messages = [
                (subject, json.loads(data))
                for subject, data in inbox.take_all()
                if not subject.startswith("live.status.")
            ]
        if not fresh:
            assert messages == []
            return
        kinds = {subject.split(".")[1] for subject, _ in messages}
        assert kinds == {"tick", "candle", "signal"}
        durable = [m for _, m in messages if m.get("final", True)]
        between, found = stage.expected(partition)
        assert len(durable) == sum(map(len, between)) + sum(map(len, found))
        places = [
            (subject.split(".")[1] == "signal", m["seq"], m["index"]) for subject, m in messages
        ]
        assert len(set(places)) == len(places)

    asyncio.run(work())
