"""The owner loop on the in-memory bus: every input is answered once, whatever goes wrong."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from libs.common import codec
from libs.common.bus import Stored
from libs.common.bus.memory import MemoryBus, MemoryServer
from libs.common.bus.topology import plan
from libs.common.clock import ManualClock
from libs.common.errors import PositionError, SchemaError
from libs.common.events import SCHEMA_VERSION, Clock, Event, Frame, Gap
from libs.common.owner import Answer, OwnerMetrics, Ownership, own, own_all
from libs.common.runner import Runtime
from libs.common.settings import ServiceSettings
from libs.common.share import Share
from libs.common.telemetry import Health, Metrics, get_logger
from tests.waiting import eventually_async

# 09:31 in New York on a winter Wednesday, and the same time a day later.
MORNING_MS = 1_700_058_660_000
DAY_MS = 86_400_000


class RunningSum:
    """An operator whose every output depends on all input so far."""

    def __init__(self) -> None:
        self.total = 0

    def step(self, frame: Frame) -> tuple[Event, ...]:
        """Answer each Clock with the sum up to it."""
        answers = []
        for event in frame.events:
            assert isinstance(event, Clock)
            self.total += event.ts_ms
            answers.append(Clock(self.total))
        return tuple(answers)

    def snapshot(self) -> bytes:
        """Return the sum."""
        return str(self.total).encode()

    def restore(self, state: bytes) -> None:
        """Take up a sum."""
        self.total = int(state or b"0")


def live(_: RunningSum, frame: Frame, answer: Answer) -> Iterable[tuple[str, bytes]]:
    """Tell the world which input was answered where."""
    for index, event in enumerate(answer.frame.events):
        assert isinstance(event, Clock)
        yield f"live.tick.{frame.n}", f"{answer.seq}:{index}:{event.ts_ms}".encode()


class Bench:
    """A server, the input so far, and what the owner must make of it."""

    def __init__(self) -> None:
        self.server = MemoryServer(plan(1, "demo"))
        self.clock = ManualClock(MORNING_MS)
        self.feed = self.server.connect()
        self.n = 0

    async def send(self, *values: int, skip: int = 0, day: int = 0) -> None:
        """Publish one input frame; `skip` loses that many frames before it."""
        self.n += 1 + skip
        stored = await self.feed.last("MARKET", "market.0")
        frame = Frame(
            version=SCHEMA_VERSION,
            epoch=1,
            n=self.n,
            source_seq=0,
            origin_seq=0,
            sent_ms=MORNING_MS + day * DAY_MS + self.n,
            received_ms=self.clock.now_ms(),
            events=tuple(Clock(value) for value in values),
        )
        await self.feed.publish(
            "market.0", codec.encode_frame(frame), expected_last_seq=stored.seq if stored else 0
        )

    async def overtake(self) -> None:
        """Answer the second frame in the owner's place, so that its own answer is refused."""
        other = Frame(SCHEMA_VERSION, 0, 2, 2, 2, MORNING_MS, MORNING_MS, (Clock(11),))
        await self.feed.publish("indicators.0", codec.encode_frame(other), expected_last_seq=1)
        await self.send(10)

    def answers(self) -> list[Frame]:
        """Return every answer in the output stream."""
        stored = self.server.stream("INDICATORS").from_seq("indicators.0", 1, 1_000_000)
        return [codec.decode_frame(message.data) for message in stored]

    def runtime(self) -> Runtime[ServiceSettings]:
        """Return what one instance of the service is given."""
        settings = ServiceSettings(nats_url="")
        return Runtime(
            "indicators", settings, Metrics(), Health(), self.clock, get_logger(), asyncio.Event()
        )

    def owner(self) -> Instance:
        """Start one instance of the service."""
        return Instance(self)

    async def answered(self, count: int) -> list[Frame]:
        """Wait for that many answers."""
        await eventually_async(lambda: len(self.answers()) >= count, 10, f"{count} answers")
        return self.answers()


class Instance:
    """One process of the service; leaving the block stops it in good order, `kill` does not."""

    def __init__(self, bench: Bench, bus: MemoryBus | None = None) -> None:
        self.runtime = bench.runtime()
        self.bus = bus or bench.server.connect()
        what = Ownership("indicators", "MARKET", "INDICATORS", 0, RunningSum, live)
        metrics = OwnerMetrics(self.runtime)
        self.task = asyncio.create_task(own(self.runtime, self.bus, what, metrics, Share()))

    async def kill(self) -> None:
        """End without a goodbye, wherever the loop is."""
        self.bus.kill()
        self.task.cancel()
        await asyncio.wait({self.task})

    async def __aenter__(self) -> Instance:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.runtime.stop.set()
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.result()


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def values(frames: Iterable[Frame]) -> list[int]:
    """Return the sums that were answered."""
    return [event.ts_ms for frame in frames for event in frame.events if isinstance(event, Clock)]


@in_loop
async def test_each_input_frame_has_one_numbered_answer_also_an_empty_one() -> None:
    """Answers carry the input's sequence and origin, and are numbered without a hole."""
    bench = Bench()
    await bench.send(1, 2)
    await bench.send()
    await bench.send(3)
    async with bench.owner():
        answers = await bench.answered(3)
    assert [(a.source_seq, a.origin_seq, a.n) for a in answers] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    assert [len(a.events) for a in answers] == [2, 0, 1]
    assert values(answers) == [1, 3, 6]


@in_loop
async def test_a_restart_goes_on_from_the_checkpoint() -> None:
    """A stopped owner leaves a checkpoint; its successor continues the sum and repeats nothing."""
    bench = Bench()
    await bench.send(5)
    async with bench.owner():
        await bench.answered(1)
    await bench.send(7)
    async with bench.owner():
        answers = await bench.answered(2)
    assert values(answers) == [5, 12]


@in_loop
async def test_whoever_stands_by_stops_at_once() -> None:
    """There is nothing to bring to an end, so none of the time for that is used."""
    bench = Bench()
    await bench.send(5)
    async with bench.owner():
        await bench.answered(1)
        async with bench.owner():
            await bench.send(7)
            await bench.answered(2)
            begin_s = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begin_s < 1


@pytest.mark.parametrize("seed", range(12))
@in_loop
async def test_any_crashes_and_doubts_change_nothing(seed: int) -> None:
    """Owners killed and answers lost at random leave the same output as an undisturbed run."""
    chance = random.Random(seed)
    bench = Bench()
    inputs = [[chance.randrange(1000) for _ in range(chance.randrange(4))] for _ in range(120)]
    sent = 0
    while sent < len(inputs):
        owner = bench.owner()
        for _ in range(chance.randrange(3)):
            owner.bus.lose_next_answer(stored=chance.random() < 0.5)
        for values_of_frame in inputs[sent : sent + chance.randrange(1, 40)]:
            await bench.send(*values_of_frame)
            sent += 1
        if chance.random() < 0.7:
            await bench.answered(chance.randrange(sent))
        await owner.kill()
    async with bench.owner():
        answers = await bench.answered(len(inputs))
    expected, total = [], 0
    for value in (value for frame in inputs for value in frame):
        total += value
        expected.append(total)
    assert values(answers) == expected
    assert [answer.source_seq for answer in answers] == list(range(1, len(inputs) + 1))
    assert [answer.n for answer in answers] == list(range(1, len(inputs) + 1))


@in_loop
async def test_two_instances_share_nothing_but_the_result() -> None:
    """A stand-by takes over when the owner dies without a goodbye, and the sum goes on."""
    bench = Bench()
    first, second = bench.owner(), bench.owner()
    await bench.send(1)
    await bench.answered(1)
    await first.kill()
    await bench.send(2)
    await bench.answered(2)
    await second.kill()
    async with bench.owner():
        await bench.send(3)
        answers = await bench.answered(3)
    assert values(answers) == [1, 3, 6]


@in_loop
async def test_a_zombie_is_fenced_and_reloads() -> None:
    """Who publishes on top of somebody else's answer is refused, reloads, and goes on rightly."""
    bench = Bench()
    async with bench.owner() as owner:
        await bench.send(1)
        await bench.answered(1)
        await bench.overtake()
        await bench.send(100)
        answers = await bench.answered(3)
        fenced = owner.runtime.metrics.registry.get_sample_value(
            "kite_reloads_total", {"reason": "Fenced"}
        )
    assert values(answers) == [1, 11, 111]
    assert fenced == 1


@in_loop
async def test_who_was_fenced_and_stands_by_is_ready() -> None:
    """It could take over at any moment; only who is ready gets its share of the partitions."""
    bench = Bench()
    async with bench.owner() as first:
        await bench.send(1)
        await bench.answered(1)
        async with bench.owner() as second:
            await bench.overtake()
            await bench.send(100)
            await bench.answered(3)

            def both_ready() -> bool:
                return first.runtime.health.ready and second.runtime.health.ready

            await eventually_async(both_ready, 10, "both are ready")


@in_loop
async def test_missing_input_makes_blind_until_the_next_day() -> None:
    """After a hole the day's answers are empty but for one Gap; the next day starts anew."""
    bench = Bench()
    await bench.send(1)
    await bench.send(2, skip=3)
    await bench.send(4)
    await bench.send(8, day=1)
    await bench.send(16, day=1)
    async with bench.owner():
        answers = await bench.answered(5)
    gaps = [event for answer in answers for event in answer.events if isinstance(event, Gap)]
    assert [(gap.ticker, gap.state, gap.cause) for gap in gaps] == [
        ("*", "unfillable", "state_lost")
    ]
    assert (gaps[0].from_ms, gaps[0].to_ms) == (answers[0].sent_ms, answers[1].sent_ms)
    assert values(answers) == [1, 8, 24]


@in_loop
async def test_a_restart_while_blind_stays_blind() -> None:
    """The hole is found again after a crash, and no wrong state is saved over it."""
    bench = Bench()
    await bench.send(1)
    await bench.send(2, skip=1)
    owner = bench.owner()
    await bench.answered(2)
    await owner.kill()
    await bench.send(4)
    await bench.send(8, day=1)
    async with bench.owner():
        answers = await bench.answered(4)
    assert values(answers) == [1, 8]


@in_loop
async def test_a_stream_that_lost_its_tail_is_refused() -> None:
    """A position ahead of its stream stops the service with a clear error."""
    bench = Bench()
    ahead = Frame(SCHEMA_VERSION, 0, 1, 99, 99, MORNING_MS, MORNING_MS, ())
    await bench.feed.publish("indicators.0", codec.encode_frame(ahead), expected_last_seq=0)
    await bench.send(1)
    with pytest.raises(PositionError, match="99 is ahead of MARKET, which ends at 1"):
        async with bench.owner() as owner:
            await asyncio.wait({owner.task})


@pytest.mark.parametrize("stream", ["MARKET", "INDICATORS"])
@in_loop
async def test_a_stream_made_anew_is_refused(stream: str) -> None:
    """A checkpoint belongs to one incarnation of its input and of its output."""
    bench = Bench()
    await bench.send(1)
    async with bench.owner():
        await bench.answered(1)
    bench.server.recreate(stream)
    bench.n = 0
    await bench.send(1)
    with pytest.raises(PositionError, match=f"stream {stream} was made anew"):
        async with bench.owner() as owner:
            await asyncio.wait({owner.task})


@in_loop
async def test_an_unknown_schema_version_stops_the_reader_and_keeps_the_position() -> None:
    """A frame from the future is neither skipped nor answered."""
    bench = Bench()
    await bench.send(1)
    future = codec.encode_frame(Frame(99, 1, 2, 0, 0, MORNING_MS, MORNING_MS, ()))
    await bench.feed.publish("market.0", future, expected_last_seq=1)
    with pytest.raises(SchemaError, match="schema version 99"):
        async with bench.owner() as owner:
            await asyncio.wait({owner.task})
    assert values(bench.answers()) == [1]


@in_loop
async def test_live_messages_follow_the_answer_and_only_while_fresh() -> None:
    """Old frames, as in a catch-up, are answered but not sent live."""
    bench = Bench()
    with bench.server.subscribe("live.>") as outside:
        await bench.send(1)
        bench.clock.advance(10_000)
        await bench.send(2)
        async with bench.owner():
            await bench.answered(2)
            subject, payload = await outside.take()
    assert (subject, payload) == ("live.tick.2", b"2:0:3")
    assert outside.take_all() == []


@in_loop
async def test_a_server_restart_is_survived() -> None:
    """While the server is away nothing is lost; readiness says so, and the sum goes on."""
    bench = Bench()
    async with bench.owner() as owner:
        await bench.send(1)
        await bench.answered(1)
        bench.server.stop()
        await eventually_async(lambda: not owner.runtime.health.ready, 5, "not ready")
        bench.server.start()
        await bench.send(2)
        answers = await bench.answered(2)
        await eventually_async(lambda: owner.runtime.health.ready, 5, "ready again")
    assert values(answers) == [1, 3]


@in_loop
async def test_numbering_goes_on_when_all_answers_have_aged_out() -> None:
    """After a week without work the streams are empty; the readers' numbers must still follow."""
    bench = Bench()
    for value in (1, 2):
        await bench.send(value)
    async with bench.owner():
        await bench.answered(2)
    for stream, subject in (("INDICATORS", "indicators.0"), ("MARKET", "market.0")):
        for _ in range(2):
            bench.server.stream(stream).drop_oldest(subject)
    await bench.send(4)
    async with bench.owner():
        (answer,) = await bench.answered(1)
    assert (answer.n, answer.source_seq) == (3, 3)
    assert values([answer]) == [7]


@in_loop
async def test_an_output_that_lost_its_tail_is_refused() -> None:
    """A checkpoint that knows of an answer which is not there any more ends in a clear error."""
    bench = Bench()
    for value in (1, 2):
        await bench.send(value)
    async with bench.owner():
        await bench.answered(2)
    bench.server.stream("INDICATORS").drop_newest("indicators.0")
    with pytest.raises(PositionError, match="ends with answer 1, but answer 2 was stored"):
        async with bench.owner() as owner:
            await asyncio.wait({owner.task})


@in_loop
async def test_an_empty_stream_made_anew_is_refused_without_waiting_for_input() -> None:
    """Nobody is made owner of an empty stream, and still the service does not wait for ever."""
    bench = Bench()
    await bench.send(1)
    async with bench.owner():
        await bench.answered(1)
    bench.server.recreate("MARKET")
    with pytest.raises(PositionError, match="stream MARKET was made anew"):
        async with bench.owner() as owner:
            await asyncio.wait({owner.task})


class BusyBus(MemoryBus):
    """While somebody reads the last answer, another owner gets one more input and answers it."""

    bench: Bench

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Let the other one work, once, and answer as it then stands."""
        if stream == "INDICATORS" and not self.bench.answers():
            await self.bench.send(1)
            answer = Frame(SCHEMA_VERSION, 0, 1, 1, 1, MORNING_MS, MORNING_MS, (Clock(1),))
            await self.bench.feed.publish(subject, codec.encode_frame(answer), expected_last_seq=0)
        return await super().last(stream, subject)


@in_loop
async def test_a_stand_by_does_not_take_anothers_progress_for_a_lost_tail() -> None:
    """What is answered between two reads of a busy partition is no reason to refuse."""
    bench = Bench()
    bus = BusyBus(bench.server)
    bus.bench = bench
    async with Instance(bench, bus):
        await bench.answered(1)
        await bench.send(2)
        answers = await bench.answered(2)
    assert values(answers) == [1, 3]


@in_loop
async def test_a_second_instance_gets_its_share_and_a_lonely_one_all() -> None:
    """Four partitions end two and two, and all come back when the other instance stops."""
    server = MemoryServer(plan(4, "demo"))
    feed = server.connect()
    for partition in range(4):
        frame = Frame(SCHEMA_VERSION, 1, 1, 0, 0, MORNING_MS, MORNING_MS, (Clock(1),))
        subject = f"market.{partition}"
        await feed.publish(subject, codec.encode_frame(frame), expected_last_seq=0)

    def start() -> tuple[Runtime[ServiceSettings], asyncio.Task[None]]:
        settings = ServiceSettings(nats_url="", partitions=4)
        clock, log, stop = ManualClock(MORNING_MS), get_logger(), asyncio.Event()
        runtime = Runtime("indicators", settings, Metrics(), Health(), clock, log, stop)
        serving = own_all(
            runtime, server.connect(), input_stream="MARKET", output_stream="INDICATORS",
            new_operator=RunningSum, new_live=lambda: live,
        )  # fmt: skip
        return runtime, asyncio.create_task(serving)

    def owned(runtime: Runtime[ServiceSettings]) -> float:
        return runtime.metrics.registry.get_sample_value("kite_partitions_owned") or 0.0

    (first, first_work), (second, second_work) = start(), start()
    try:
        await eventually_async(lambda: (owned(first), owned(second)) == (2, 2), 20, "two each")
        second.stop.set()
        await second_work
        await eventually_async(lambda: owned(first) == 4, 20, "all four again")
    finally:
        first.stop.set()
        second.stop.set()
        await asyncio.wait({first_work, second_work})
    first_work.result()
