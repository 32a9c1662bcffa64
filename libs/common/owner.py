"""One partition, exactly once: read a frame, step a pure core, publish one answer.

Theory of operation. The position travels with the result: the answer to input `s` carries
`source_seq = s`, and every publish names the last answer it follows, so the server refuses a second
writer. State is the last checkpoint plus a re-run of the input since; the operator is
deterministic, so the re-run builds the same state, and its outputs up to the last answer are
dropped. Whatever goes wrong (a fence, a time-out, a lost lease, kill -9), the way back is the
same: throw the state away and load it again. There is no other recovery path that could be wrong.

Rules:

- one input frame gives exactly one answer, empty when nothing happened;
- an input is acknowledged only after its answer is durable;
- a partition that another instance shall have is let go between two frames (see `share`);
- live messages leave only after that, and only while the frame is fresh;
- a position that does not fit its stream is refused (PositionError), never guessed at;
- frames of a partition are numbered without a hole (`Frame.n`). A number that does not follow the
  last one (input that aged out before it was read, a damaged stream) makes the operator blind
  until the next New York day, and the first answer says so with a Gap.

Concurrency: one task per partition; nothing here is shared between partitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from libs.common import calendar, codec, failpoints, subjects
from libs.common.bus import Bus, Lease, Message, StreamState
from libs.common.errors import BusError, PositionError
from libs.common.events import SCHEMA_VERSION, Checkpoint, Event, Frame, Gap
from libs.common.runner import Backoff, Runtime
from libs.common.settings import ServiceSettings
from libs.common.share import Share, announced

__all__ = ["FRESH_MS_MAX", "Answer", "Operator", "OwnerMetrics", "Ownership", "own", "own_all"]

FRESH_MS_MAX = 10_000
_CHECKPOINT_EVERY_S = 1.0
_FRAMES_PER_BATCH_MAX = 64
_RECEIVE_WAIT_S = 0.5
_STOP_GRACE_S = 2.0

S = TypeVar("S", bound=ServiceSettings)
O = TypeVar("O", bound="Operator")  # noqa: E741 - the operator's own type
Live = Callable[[O, "Frame", "Answer"], Iterable[tuple[str, bytes]]]


class Operator(Protocol):
    """A pure, deterministic core with state."""

    def step(self, frame: Frame) -> tuple[Event, ...]:
        """Take one input frame, return all that follows from it."""
        ...

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        ...

    def restore(self, state: bytes) -> None:
        """Take up a state that `snapshot` gave; empty bytes mean a fresh start."""
        ...


class Answer(Struct, frozen=True):
    """A durable output frame, where it stands, and which incarnation of the stream that is."""

    frame: Frame
    seq: int
    epoch_ms: int


class OwnerMetrics:
    """The metrics of all partitions of one service."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        metrics = runtime.metrics
        self.frames = metrics.counter("frames", "Input frames answered", ["partition"])
        self.events = metrics.counter("events_out", "Events published", ["partition"])
        self.reloads = metrics.counter("reloads", "State dropped and reloaded", ["reason"])
        self.position = metrics.gauge("position", "Last input answered", ["partition"])
        self.holes = metrics.counter("holes", "Input frames found missing", ["partition"])
        self.latency = metrics.latency(
            "received_to_published_seconds", "Wire frame received to answer durable"
        )
        self.newest = metrics.gauge(
            "frame_timestamp_seconds", "Receipt of the wire frame last answered", ["partition"]
        )
        self.owned = metrics.gauge("partitions_owned", "Partitions that this instance owns")
        self._begun: set[str] = set()

    def begin(self, partition: str, now_ms: int) -> None:
        """Show a partition from its first owner on, also before anything was answered.

        Who gets stuck at once is then seen to fall behind, and a first hole to be a growth.
        """
        if partition not in self._begun:
            self._begun.add(partition)
            self.newest.labels(partition).set(now_ms / 1000)
            self.holes.labels(partition)


@dataclass(frozen=True, slots=True)
class Ownership(Generic[O]):
    """What one partition's owner does: from where, to where, with which core."""

    service: str
    input_stream: str
    output_stream: str
    partition: int
    new_operator: Callable[[], O]
    live: Live[O]

    @property
    def condition(self) -> str:
        """What readiness waits for while the partition is being loaded or not to be had."""
        return f"partition-{self.partition}"


async def own_all(
    runtime: Runtime[S],
    bus: Bus,
    *,
    input_stream: str,
    output_stream: str,
    new_operator: Callable[[], O],
    new_live: Callable[[], Live[O]],
) -> None:
    """Own every partition that the server gives us, until `runtime.stop`; raises as `own` does.

    Each partition has an operator and a live feed of its own.
    """
    metrics = OwnerMetrics(runtime)
    share = Share(metrics.owned.set)
    async with announced(runtime, bus, share), asyncio.TaskGroup() as owners:
        for partition in range(runtime.settings.partitions):
            ownership = Ownership(
                service=runtime.name,
                input_stream=input_stream,
                output_stream=output_stream,
                partition=partition,
                new_operator=new_operator,
                live=new_live(),
            )
            owners.create_task(own(runtime, bus, ownership, metrics, share))


async def own(
    runtime: Runtime[S],
    bus: Bus,
    ownership: Ownership[O],
    metrics: OwnerMetrics,
    share: Share,
) -> None:
    """Own the partition whenever the server and our share let us, until `runtime.stop`.

    Raises PositionError or SchemaError; every BusError is answered with a reload.
    """
    idle = asyncio.Event()
    work = asyncio.create_task(_own_until_stopped(runtime, bus, ownership, metrics, share, idle))
    stopped = asyncio.create_task(runtime.stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        # The loop ends by itself between two frames; only standing by needs to be interrupted.
        if idle.is_set():
            work.cancel()
        await asyncio.wait({work}, timeout=_STOP_GRACE_S)
        if work.done() and not work.cancelled():
            work.result()
    finally:
        stopped.cancel()
        work.cancel()
        await asyncio.wait({work})


async def _own_until_stopped(
    runtime: Runtime[S],
    bus: Bus,
    ownership: Ownership[O],
    metrics: OwnerMetrics,
    share: Share,
    idle: asyncio.Event,
) -> None:
    """Own, lose and own again; `idle` is set while only others can end the waiting."""
    backoff = Backoff()
    consumer = subjects.consumer_name(ownership.service, ownership.partition)
    condition = ownership.condition
    while not runtime.stop.is_set():
        idle.set()
        try:
            # Judged before standing by as well: an empty stream, such as one made anew, has no
            # owner, so a position that does not fit it would otherwise never be refused.
            await _read_standing(bus, ownership)
            runtime.health.met(condition)
            async with bus.lease(ownership.input_stream, consumer) as lease:
                idle.clear()
                with share.holding():
                    await _Owner(runtime, bus, lease, ownership, metrics, share).run(backoff)
            idle.set()
            await share.rest(runtime.stop)
        except BusError as error:
            reason = type(error).__name__
            metrics.reloads.labels(reason).inc()
            runtime.log.warning(
                "owner.reload", partition=ownership.partition, reason=reason, error=str(error)
            )
            runtime.health.require(condition, f"{reason}: {error}")
            await backoff.pause(runtime.stop)


class _Owner(Generic[O]):
    """The state of one ownership, from loading it to losing it."""

    def __init__(
        self,
        runtime: Runtime[Any],
        bus: Bus,
        lease: Lease,
        ownership: Ownership[O],
        metrics: OwnerMetrics,
        share: Share,
    ) -> None:
        self._runtime = runtime
        self._share = share
        self._bus = bus
        self._lease = lease
        self._what = ownership
        self._metrics = metrics
        self._operator = ownership.new_operator()
        self._reach = failpoints.within(ownership.service)
        partition = str(ownership.partition)
        self._frames = metrics.frames.labels(partition)
        self._events = metrics.events.labels(partition)
        self._position = metrics.position.labels(partition)
        self._newest = metrics.newest.labels(partition)
        metrics.begin(partition, runtime.clock.now_ms())
        self._answer_subject = subjects.frame_subject(ownership.output_stream, ownership.partition)
        self._state_subject = subjects.checkpoint_subject(ownership.service, ownership.partition)
        self._source_created_ms = 0
        self._output_created_ms = 0
        self._answered_seq = 0  # input sequence of the last durable answer
        self._answer_seq = 0  # stream sequence of the last durable answer
        self._answer_n = 0
        self._answered_at_ms = 0  # broker time of the last durable answer
        self._seen_seq = 0  # input sequence that the operator's state includes
        self._seen_n = 0  # and that frame's number
        self._saved_seq = -1  # input sequence of the last checkpoint
        self._state_seq = 0  # stream sequence of the last checkpoint
        self._blind: _Blind | None = None
        self._saved_at_s = 0.0

    async def run(self, backoff: Backoff) -> None:
        """Load, then answer frame after frame until stopped or one too many.

        Raises BusError to be loaded anew.
        """
        self._runtime.health.require(self._what.condition, "loading")
        await self._load()
        self._runtime.health.met(self._what.condition)
        loop = asyncio.get_running_loop()
        while not self._runtime.stop.is_set() and not self._share.lets_go(loop.time()):
            messages = await self._lease.receive(
                frames_max=_FRAMES_PER_BATCH_MAX, wait_s=_RECEIVE_WAIT_S
            )
            for message in messages:
                await self._take(message)
            if messages:
                backoff.reset()
            due = loop.time() - self._saved_at_s >= _CHECKPOINT_EVERY_S
            if self._seen_seq > self._saved_seq and (due or not messages):
                await self._save(loop.time())
        if self._seen_seq > self._saved_seq:
            await self._save(loop.time())

    async def _load(self) -> None:
        """Take up checkpoint and last answer, and rewind the input to where the state is."""
        standing = await _read_standing(self._bus, self._what)
        checkpoint, answer = standing.checkpoint, standing.answer
        self._source_created_ms = standing.source.created_ms
        self._output_created_ms = standing.output.created_ms
        self._state_seq, self._answer_seq = standing.state_seq, standing.answer_seq
        self._answered_seq = standing.answered_seq
        if checkpoint is not None:
            self._saved_seq = self._seen_seq = checkpoint.source_seq
            self._seen_n, self._answer_n = checkpoint.source_n, checkpoint.answer_n
        if answer is not None:
            self._answer_n, self._answered_at_ms = answer.n, answer.sent_ms
        self._operator.restore(checkpoint.state if checkpoint is not None else b"")
        self._reach("load.middle")
        await self._lease.reset(self._seen_seq + 1)
        if checkpoint is None:
            # The first checkpoint is taken before any work, so that the incarnations of the
            # streams are on record from the first answer on.
            await self._save(asyncio.get_running_loop().time())
        self._runtime.log.info(
            "owner.loaded", partition=self._what.partition, checkpoint_seq=self._seen_seq,
            answered_seq=self._answered_seq, source_last_seq=standing.source.last_seq,
        )  # fmt: skip

    async def _take(self, message: Message) -> None:
        if message.seq <= self._seen_seq:
            return
        frame = codec.decode_frame(message.data)
        events = self._step(frame)
        self._seen_seq, self._seen_n = message.seq, frame.n
        if message.seq > self._answered_seq:
            answer = await self._publish(message, frame, events)
        elif message.seq == self._answered_seq:
            answer = self._repeat(message, frame, events)
        else:
            answer = None
        await self._lease.ack(message)
        if answer is not None and self._blind is None and self._is_fresh(frame):
            for subject, payload in self._what.live(self._operator, frame, answer):
                await self._bus.publish_live(subject, payload)

    def _step(self, frame: Frame) -> tuple[Event, ...]:
        if frame.n != self._seen_n + 1:
            self._go_blind(frame)
        if self._blind is not None:
            if self._blind.covers(frame):
                return self._blind.report(frame)
            self._blind = None
        return self._operator.step(frame)

    def _go_blind(self, frame: Frame) -> None:
        partition = self._what.partition
        self._metrics.holes.labels(str(partition)).inc()
        self._runtime.log.error(
            "owner.hole", partition=partition, expected_n=self._seen_n + 1, found_n=frame.n
        )
        self._blind = _Blind(known_until_ms=self._answered_at_ms)
        self._operator = self._what.new_operator()
        self._operator.restore(b"")

    async def _publish(self, message: Message, frame: Frame, events: tuple[Event, ...]) -> Answer:
        out = self._frame(message, frame, events, self._answer_n + 1)
        self._reach("publish.before")
        self._answer_seq = await self._bus.publish(
            self._answer_subject, codec.encode_frame(out), expected_last_seq=self._answer_seq
        )
        self._reach("publish.stored")
        self._answer_n += 1
        self._answered_seq = message.seq
        self._answered_at_ms = frame.sent_ms
        self._frames.inc()
        self._events.inc(len(events))
        self._position.set(message.seq)
        self._newest.set(frame.received_ms / 1000)
        self._metrics.latency.observe(
            max(0, self._runtime.clock.now_ms() - frame.received_ms) / 1000
        )
        return Answer(out, self._answer_seq, self._output_created_ms)

    def _repeat(self, message: Message, frame: Frame, events: tuple[Event, ...]) -> Answer:
        """Say the last answer's live messages again: we may have died before we sent them."""
        out = self._frame(message, frame, events, self._answer_n)
        return Answer(out, self._answer_seq, self._output_created_ms)

    def _frame(self, message: Message, frame: Frame, events: tuple[Event, ...], n: int) -> Frame:
        return Frame(
            version=SCHEMA_VERSION,
            epoch=0,
            n=n,
            source_seq=message.seq,
            origin_seq=frame.origin_seq or message.seq,
            sent_ms=frame.sent_ms,
            received_ms=frame.received_ms,
            events=events,
        )

    def _is_fresh(self, frame: Frame) -> bool:
        return self._runtime.clock.now_ms() - frame.received_ms < FRESH_MS_MAX

    async def _save(self, now_s: float) -> None:
        if self._blind is not None:
            return  # a fresh state under a real position would hide the hole
        checkpoint = Checkpoint(
            SCHEMA_VERSION,
            self._source_created_ms,
            self._output_created_ms,
            self._seen_seq,
            self._seen_n,
            self._answer_n,
            self._operator.snapshot(),
        )
        self._reach("checkpoint.before")
        self._state_seq = await self._bus.publish(
            self._state_subject,
            codec.encode_checkpoint(checkpoint),
            expected_last_seq=self._state_seq,
        )
        self._saved_seq = self._seen_seq
        self._saved_at_s = now_s


class _Blind:
    """The rest of a day whose beginning is lost: answers are empty, the first one says why."""

    def __init__(self, known_until_ms: int) -> None:
        self._known_until_ms = known_until_ms
        self._day_ms: int | None = None

    def covers(self, frame: Frame) -> bool:
        """Whether this frame still belongs to the day in which the hole ends."""
        day_ms = calendar.day_start_ms(frame.sent_ms)
        if self._day_ms is None:
            self._day_ms = day_ms
            return True
        return day_ms == self._day_ms

    def report(self, frame: Frame) -> tuple[Event, ...]:
        """Return the Gap with the first frame, nothing afterwards."""
        if self._known_until_ms < 0:
            return ()
        from_ms, self._known_until_ms = self._known_until_ms, -1
        gap_id = f"*:bars:{from_ms}"
        return (Gap(gap_id, "*", "bars", from_ms, frame.sent_ms, "state_lost", "unfillable"),)


class _Standing(Struct, frozen=True):
    """What the streams hold of one partition; the sequences are those of the stored messages."""

    source: StreamState
    output: StreamState
    checkpoint: Checkpoint | None
    state_seq: int
    answer: Frame | None
    answer_seq: int

    @property
    def answered_seq(self) -> int:
        """Input sequence of the last answer."""
        answered = self.answer.source_seq if self.answer is not None else 0
        return max(answered, self.checkpoint.source_seq if self.checkpoint is not None else 0)


async def _read_standing(bus: Bus, what: Ownership[Any]) -> _Standing:
    """Read checkpoint and last answer; raises PositionError when they do not fit the streams."""
    state_subject = subjects.checkpoint_subject(what.service, what.partition)
    answer_subject = subjects.frame_subject(what.output_stream, what.partition)
    state = await bus.last(subjects.STATE, state_subject)
    answer = await bus.last(what.output_stream, answer_subject)
    # In this order: another owner may be at work, and what is read later is never behind.
    source = await bus.stream(what.input_stream)
    output = await bus.stream(what.output_stream)
    standing = _Standing(
        source,
        output,
        codec.decode_checkpoint(state.data) if state is not None else None,
        state.seq if state is not None else 0,
        codec.decode_frame(answer.data) if answer is not None else None,
        answer.seq if answer is not None else 0,
    )
    _judge(what, standing)
    return standing


def _judge(what: Ownership[Any], standing: _Standing) -> None:
    """Refuse a position that cannot belong to these streams."""
    place = f"{what.service} partition {what.partition}"
    source, output, checkpoint = standing.source, standing.output, standing.checkpoint
    if checkpoint is not None:
        for stream, created_ms in (
            (source, checkpoint.source_created_ms),
            (output, checkpoint.output_created_ms),
        ):
            if created_ms != stream.created_ms:
                raise PositionError(
                    f"{place}: stream {stream.name} was made anew at {stream.created_ms} ms, the "
                    f"checkpoint belongs to the one of {created_ms} ms; start with an empty store"
                )
        if standing.answer is not None and standing.answer.n < checkpoint.answer_n:
            raise PositionError(
                f"{place}: {output.name} ends with answer {standing.answer.n}, but answer "
                f"{checkpoint.answer_n} was stored: the stream has lost its tail; restore all "
                "streams from one backup"
            )
    if standing.answered_seq > source.last_seq:
        raise PositionError(
            f"{place}: position {standing.answered_seq} is ahead of {source.name}, which ends at "
            f"{source.last_seq}: the stream has lost its tail; restore both from one backup"
        )
