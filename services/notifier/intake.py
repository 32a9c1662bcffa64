"""Signals from the bus into the journal, partition by partition.

The position is the journal's, moved together with the messages that a frame makes; the consumer on
the server only delivers. The first start begins behind the stream's end: what was before is
history. A stream made anew is read from its beginning, because what it holds is new to us; so is
one that has dropped frames that we did not read. What of it is too old by then is summed up.

Frames come all the time, mostly without signals, and tell the broker's time. Their position is
noted every few seconds only: reading an empty frame again does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from libs.common import codec, failpoints, subjects
from libs.common.bus import Bus, Lease, Message
from libs.common.errors import BusError
from libs.common.events import Frame, Signal
from libs.common.market_clock import MarketClock
from libs.common.runner import Backoff, Runtime, run_standing_by
from services.notifier.core import Channel
from services.notifier.journal import Journal, JournalAway, News
from services.notifier.metrics import NotifierMetrics

__all__ = ["Intake"]

NOTE_EVERY_S = 5.0
_FRAMES_PER_RECEIVE_MAX = 256
_IDLE_WAIT_S = 0.25


class Intake:
    """One partition of SIGNALS."""

    def __init__(
        self, runtime: Runtime[Any], bus: Bus, journal: Journal, channels: Mapping[str, Channel],
        partition: int, clock: MarketClock, metrics: NotifierMetrics, ring: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._runtime = runtime
        self._bus = bus
        self._journal = journal
        self._channels = channels
        self._partition = partition
        self._clock = clock
        self._metrics = metrics
        self._ring = ring
        self._condition = f"signals-{partition}"
        self._backoff = Backoff(max_s=2.0)
        self._standing_by = False
        self._created_ms = 0
        self._noted_s = 0.0
        runtime.health.require(self._condition, "loading")

    async def run(self) -> None:
        """Take in until stopped; raises SchemaError for frames of an unknown version."""
        await run_standing_by(self._until_stopped(), self._runtime.stop, lambda: self._standing_by)

    async def _until_stopped(self) -> None:
        while not self._runtime.stop.is_set():
            try:
                await self._own()
            except (BusError, JournalAway) as error:
                self._runtime.health.require(self._condition, str(error))
                self._runtime.log.warning(
                    "notifier.reload", partition=self._partition, error=str(error)
                )
                await self._backoff.pause(self._runtime.stop)

    async def _own(self) -> None:
        await self._begin()
        self._runtime.health.met(self._condition)
        self._standing_by = True
        consumer = subjects.consumer_name(self._runtime.name, self._partition)
        async with self._bus.lease(subjects.SIGNALS, consumer) as lease:
            self._standing_by = False
            seq = await self._begin()
            await lease.reset(seq + 1)
            await self._pump(lease)
        self._standing_by = True

    async def _begin(self) -> int:
        """Return the sequence behind which to read on, noting it if it is not that of before."""
        journal, log = self._journal, self._runtime.log
        state = await self._bus.stream(subjects.SIGNALS)
        known = await journal.do(journal.position, self._partition)
        self._created_ms = state.created_ms
        before_first = state.first_seq - 1
        if known is None:
            seq = state.last_seq
            log.info("notifier.begins", partition=self._partition, seq=seq)
        elif known[0] != state.created_ms:
            seq = before_first
            log.warning("notifier.stream_anew", partition=self._partition, seq=seq)
        elif known[1] < before_first:
            seq = before_first
            log.error(
                "notifier.frames_gone", partition=self._partition, read=known[1], first=seq + 1
            )
        elif known[1] > state.last_seq:
            seq = state.last_seq
            log.error("notifier.stream_shorter", partition=self._partition, read=known[1], last=seq)
        else:
            return known[1]
        await self._note(seq, ())
        return seq

    async def _pump(self, lease: Lease) -> None:
        """Take in what comes, until stopped."""
        unnoted: Message | None = None
        now_s = asyncio.get_running_loop().time
        while not self._runtime.stop.is_set():
            messages = await lease.receive(frames_max=_FRAMES_PER_RECEIVE_MAX, wait_s=_IDLE_WAIT_S)
            news = self._read(messages)
            if messages:
                unnoted = messages[-1]
            if unnoted is None or (not news and now_s() < self._noted_s + NOTE_EVERY_S):
                continue
            await self._note(unnoted.seq, news)
            await lease.ack(unnoted)
            unnoted = None
            self._backoff.reset()
        if unnoted is not None:
            await self._note(unnoted.seq, ())

    def _read(self, messages: Sequence[Message]) -> list[News]:
        news: list[News] = []
        for message in messages:
            frame = codec.decode_frame(message.data)
            self._clock.observe(frame.sent_ms, frame.received_ms)
            news += _signals_of(frame)
        self._metrics.signals.inc(len(news))
        return news

    async def _note(self, seq: int, news: Sequence[News]) -> None:
        journal = self._journal
        now_ms = self._runtime.clock.now_ms()
        if news:
            failpoints.reach("notifier.intake.before")
        made = await journal.do(
            journal.take, self._channels, self._partition, self._created_ms, seq, news,
            broker_ms=self._clock.now_ms(now_ms), now_ms=now_ms,
        )  # fmt: skip
        if news:
            failpoints.reach("notifier.intake.stored")
        self._noted_s = asyncio.get_running_loop().time()
        self._metrics.position.labels(str(self._partition)).set(seq)
        for name, verdict in made:
            if verdict not in ("ignore", "note"):
                self._ring(name)


def _signals_of(frame: Frame) -> list[News]:
    return [
        News(event, frame.sent_ms, frame.received_ms)
        for event in frame.events
        if isinstance(event, Signal)
    ]
