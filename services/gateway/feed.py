"""From the bus into the hub: every durable frame once and in order, and what is only said live.

The durable streams are read, partition by partition, from a place of our own; no consumer is needed
and nobody is disturbed. Live messages ring the bell, and carry what stands in no frame: candles in
the making, bid and ask, and how the services stand. One that gets lost delays something by
`POLL_S`, and that is all.

A stream made anew, or a frame missing in between, starts the partition anew: clients have to take
a new snapshot, so they cannot miss anything without noticing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from libs.common import codec, subjects
from libs.common.bus import Bus, Stored
from libs.common.errors import BusError
from libs.common.runner import Backoff, Runtime
from libs.common.share import Status
from services.gateway.hub import Hub

__all__ = ["Feed"]

# How many frames of each partition are read back at the start, about, so that clients find what
# their snapshot lacks.
FRAMES_BACK = 2_000
POLL_S = 0.25
# Frames of one read; decoding them must not hold up everybody else for long.
_FRAMES_PER_READ = 128
_BYTES_PER_READ = 512 * 1024
# The bell is not answered more often than this: reading costs more than frames do.
_REST_S = 0.01
_LOOK_S = 1.0

_CANDLE_PLACE = frozenset({"ticker", "timeframe", "final", "epoch", "seq", "index"})
_CANDLE_FIELDS = frozenset(
    {"ts_ms", "open", "high", "low", "close", "volume", "sma9", "vwap", "source", "revision"}
)


class _LiveTick(Struct):
    """What of a live tick stands in no durable frame that is read here."""

    ticker: str
    bid: float | None
    ask: float | None


_tick_decoder = msgspec.json.Decoder(_LiveTick)
_candle_decoder = msgspec.json.Decoder(dict[str, Any])
_status_decoder = msgspec.json.Decoder(Status)


class Feed:
    """Fills a hub for as long as `run` runs."""

    def __init__(
        self, runtime: Runtime[Any], bus: Bus, partitions: int, hub: Hub | None = None
    ) -> None:
        self.hub = hub or Hub(partitions, runtime.settings.source)
        self._runtime = runtime
        self._bus = bus
        self._tails = {
            (stream, partition): _Tail(runtime, bus, self.hub, stream, partition)
            for stream in (subjects.INDICATORS, subjects.SIGNALS)
            for partition in range(partitions)
        }

    async def run(self) -> None:
        """Read until stopped; raises SchemaError for frames of an unknown version."""
        await self._bus.listen("live.tick.>", self._tick)
        await self._bus.listen("live.candle.>", self._candle)
        await self._bus.listen("live.signal.>", self._signal)
        await self._bus.listen("live.status.>", self._status)
        async with asyncio.TaskGroup() as group:
            for tail in self._tails.values():
                group.create_task(tail.run())
            group.create_task(self._look_round())

    async def _look_round(self) -> None:
        """Now and then see to streams made anew, services gone, and the time of a quiet market."""
        subject = subjects.frame_subject(subjects.MARKET, 0)
        while not self._runtime.stop.is_set():
            self.hub.latest.look_round(asyncio.get_running_loop().time())
            with suppress(BusError):  # the tails say so, and go on looking
                for stream in (subjects.INDICATORS, subjects.SIGNALS):
                    created_ms = (await self._bus.stream(stream)).created_ms
                    for partition in range(self.hub.partitions):
                        self._tails[stream, partition].expect(created_ms)
                stored = await self._bus.last(subjects.MARKET, subject)
                if stored is not None:
                    frame = codec.decode_frame(stored.data)
                    self.hub.clock.observe(frame.sent_ms, frame.received_ms)
            self.hub.wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._runtime.stop.wait()

    # -- live messages: whatever is wrong with one, the durable frame will tell -------------------

    def _tick(self, data: bytes) -> None:
        with suppress(msgspec.MsgspecError):
            tick = _tick_decoder.decode(data)
            self.hub.latest.book(tick.ticker, tick.bid, tick.ask)
            self._ring(subjects.INDICATORS, tick.ticker)

    def _candle(self, data: bytes) -> None:
        with suppress(msgspec.MsgspecError, KeyError):
            candle = _candle_decoder.decode(data)
            ticker = candle["ticker"]
            if not candle["final"]:
                self._provisional(ticker, candle)
            self._ring(subjects.INDICATORS, ticker)

    def _provisional(self, ticker: str, candle: dict[str, Any]) -> None:
        if candle["epoch"] != self.hub.ring_of(subjects.INDICATORS, ticker).epoch_ms:
            return
        fields = {name: candle[name] for name in sorted(_CANDLE_FIELDS)}
        known = _CANDLE_FIELDS | _CANDLE_PLACE
        fields["extras"] = {name: value for name, value in candle.items() if name not in known}
        self.hub.latest.provisional(ticker, candle["timeframe"], fields)

    def _signal(self, data: bytes) -> None:
        with suppress(msgspec.MsgspecError, KeyError):
            self._ring(subjects.SIGNALS, _candle_decoder.decode(data)["ticker"])

    def _status(self, data: bytes) -> None:
        with suppress(msgspec.MsgspecError):
            status = _status_decoder.decode(data)
            now_s = asyncio.get_running_loop().time()
            self.hub.latest.heard(status.service, status.instance, status.partitions, now_s)

    def _ring(self, stream: str, ticker: str) -> None:
        partition = subjects.partition_of(ticker, self.hub.partitions)
        self._tails[stream, partition].bell.set()


class _Tail:
    """Reads one partition of one stream to its end, again and again."""

    def __init__(
        self, runtime: Runtime[Any], bus: Bus, hub: Hub, stream: str, partition: int
    ) -> None:
        self.bell = asyncio.Event()
        self._runtime = runtime
        self._bus = bus
        self._hub = hub
        self._stream = stream
        self._partition = partition
        self._subject = subjects.frame_subject(stream, partition)
        self._ring = hub.ring(stream, partition)
        self._anew = True
        self._n: int | None = None  # of the last frame
        self._condition = f"feed-{self._subject}"
        runtime.health.require(self._condition, "loading")

    def expect(self, epoch_ms: int) -> None:
        """Start anew when the stream is of another incarnation than what was read."""
        if self._ring.begun and self._ring.epoch_ms != epoch_ms:
            self._anew = True
            self.bell.set()

    async def run(self) -> None:
        """Read until stopped; raises SchemaError."""
        stop, backoff = self._runtime.stop, Backoff(max_s=2.0)
        while not stop.is_set():
            try:
                await self._read_to_end()
            except BusError as error:
                self._runtime.health.require(self._condition, str(error))
                self._runtime.log.warning("feed.away", subject=self._subject, error=str(error))
                await backoff.pause(stop)
                continue
            self._runtime.health.met(self._condition)
            backoff.reset()
            await asyncio.sleep(_REST_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self.bell.wait()

    async def _read_to_end(self) -> None:
        """Take in what is new; raises BusError, SchemaError."""
        while not self._runtime.stop.is_set():
            if self._anew:
                await self._begin()
            rung = self.bell.is_set()
            self.bell.clear()
            stored = await self._bus.read_many(
                self._stream, self._subject, start_seq=self._ring.last_seq + 1,
                messages_max=_FRAMES_PER_READ, bytes_max=_BYTES_PER_READ,
            )  # fmt: skip
            if not self._anew:
                await self._take(stored)
            if stored or rung:
                self._hub.wake()
            if len(stored) < _FRAMES_PER_READ and _size(stored) < _BYTES_PER_READ:
                return

    async def _begin(self) -> None:
        """Begin a little before the stream's end, or where this partition has nothing after it."""
        state = await self._bus.stream(self._stream)
        last = await self._bus.last(self._stream, self._subject)
        start_seq = 1
        if last is not None:
            # A stream counts the frames of all partitions.
            back = FRAMES_BACK * self._hub.partitions
            back_seq = max(state.first_seq, state.last_seq - back + 1)
            start_seq = min(back_seq, last.seq + 1)
        self._hub.begin(self._stream, self._partition, state.created_ms, start_seq)
        self._n = None
        self._anew = False
        self._runtime.log.info(
            "feed.begun", subject=self._subject, epoch=state.created_ms, seq=start_seq
        )

    async def _take(self, stored: Sequence[Stored]) -> None:
        """Give frames to the hub; a number that does not follow the last one is a hole."""
        for message in stored:
            frame = codec.decode_frame(message.data)
            if self._n is not None and frame.n != self._n + 1:
                state = await self._bus.stream(self._stream)
                if state.created_ms != self._ring.epoch_ms:
                    self._anew = True
                    return
                self._runtime.log.error(
                    "feed.hole", subject=self._subject, expected_n=self._n + 1, found_n=frame.n
                )
                self._hub.begin(self._stream, self._partition, state.created_ms, message.seq)
            self._n = frame.n
            self._hub.add(self._stream, self._partition, message.seq, frame, len(message.data))


def _size(stored: Sequence[Stored]) -> int:
    return sum(len(message.data) for message in stored)
