"""What holds for every sequence of calls and faults, on both buses.

The first property compares a bus with the simplest model of it, call by call. The second lets two
instances of one operator compete for a partition while everything around them breaks, and asks of
the result what exactly-once means.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.servers.nats import NatsServer
from libs.common.bus import Bus, Lease, Message
from libs.common.bus.memory import MemoryBus
from libs.common.errors import BusError, Fenced
from tests.contract.buses import DEADLINE_S, PLAN, Client, MemoryWorld, NatsWorld, World
from tests.servers import Running
from tests.waiting import eventually_async

SUBJECTS = ("market.0", "market.1")
READ_SUBJECT = SUBJECTS[0]


# -- against a model -------------------------------------------------------------------------------

CALLS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(SUBJECTS), st.sampled_from((0, 0, 0, -1, 1))),
    st.tuples(st.just("append"), st.sampled_from(SUBJECTS)),
    st.tuples(st.just("read"), st.sampled_from(SUBJECTS), st.integers(0, 30)),
    st.tuples(st.just("receive"), st.integers(1, 5)),
    st.tuples(st.just("reset"), st.integers(1, 30)),
    st.tuples(st.just("ack")),
    st.tuples(st.just("reopen")),
)


class Model:
    """A bus as simple as can be: lists, a position, and what was acknowledged."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stored: dict[str, list[tuple[int, bytes]]] = {subject: [] for subject in SUBJECTS}
        self._last_seq = 0
        self._position = 1  # the next sequence that the lease may deliver
        self._floor = 0
        self._newest: Message | None = None
        self._stack = AsyncExitStack()
        self._lease: Lease | None = None

    async def open(self) -> None:
        """Connect."""
        self.writer: Bus = (await self._world.connect("ingest")).bus
        self.reader: Bus = (await self._world.connect("writer")).bus

    async def close(self) -> None:
        """Give the partition back."""
        await self._stack.aclose()
        self._lease = None

    async def call(self, name: str, *arguments: object) -> None:
        """Make one call on bus and model, and compare."""
        await getattr(self, f"_{name}")(*arguments)

    def _seqs(self, subject: str, start: int = 1) -> list[int]:
        return [seq for seq, _ in self._stored[subject] if seq >= start]

    def _take(self, subject: str, data: bytes) -> int:
        self._last_seq += 1
        self._stored[subject].append((self._last_seq, data))
        return self._last_seq

    async def _publish(self, subject: str, off_by: int) -> None:
        newest = (self._seqs(subject) or [0])[-1]
        expected = max(0, newest + off_by)
        data = b"%d" % self._last_seq
        if expected == newest:
            seq = await self.writer.publish(subject, data, expected_last_seq=expected)
            assert seq == self._take(subject, data)
        else:
            with pytest.raises(Fenced):
                await self.writer.publish(subject, data, expected_last_seq=expected)
        stored = await self.writer.last("MARKET", subject)
        found = None if stored is None else (stored.seq, stored.data)
        assert found == (self._stored[subject][-1] if self._stored[subject] else None)

    async def _append(self, subject: str) -> None:
        assert await self.writer.append(subject, b"appended") == self._take(subject, b"appended")
        assert (await self.writer.stream("MARKET")).last_seq == self._last_seq

    async def _read(self, subject: str, start_seq: int) -> None:
        stored = await self.reader.read("MARKET", subject, start_seq=start_seq)
        expected = self._seqs(subject, start_seq)
        assert (stored.seq if stored else None) == (expected[0] if expected else None)

    async def _hold(self) -> Lease | None:
        """Have the lease if there is anything that would make us the owner."""
        if self._lease is None and self._seqs(READ_SUBJECT, self._floor + 1):
            async with asyncio.timeout(DEADLINE_S):
                lease = await self._stack.enter_async_context(
                    self.reader.lease("MARKET", "writer-0")
                )
            await lease.reset(self._position)
            self._floor = self._position - 1
            self._lease = lease
        return self._lease

    async def _receive(self, count_max: int) -> None:
        lease = await self._hold()
        expected = self._seqs(READ_SUBJECT, self._position)
        if lease is None or not expected:
            return
        messages = await lease.receive(frames_max=count_max, wait_s=DEADLINE_S)
        assert 1 <= len(messages) <= count_max
        assert [message.seq for message in messages] == expected[: len(messages)]
        self._newest = messages[-1]
        self._position = self._newest.seq + 1

    async def _reset(self, start_seq: int) -> None:
        lease = await self._hold()
        if lease is not None:
            self._position = min(start_seq, self._last_seq + 1)
            await lease.reset(self._position)
            self._floor, self._newest = self._position - 1, None

    async def _ack(self) -> None:
        if self._lease is not None and self._newest is not None:
            await self._lease.ack(self._newest)
            self._floor = self._newest.seq

    async def _reopen(self) -> None:
        await self.close()
        self._stack, self._newest = AsyncExitStack(), None
        await self._hold()


async def agree(world: World, calls: list[tuple[str, object]]) -> None:
    """Make all calls on a bus and on its model."""
    model = Model(world)
    await model.open()
    try:
        for name, *arguments in calls:
            await model.call(name, *arguments)
    finally:
        await model.close()


@given(st.lists(CALLS, max_size=40))
@settings(max_examples=200)
def test_the_bus_in_memory_agrees_with_the_model(calls: list[tuple[str, object]]) -> None:
    """Every sequence of calls gives what the model gives."""

    async def main() -> None:
        async with MemoryWorld.open(PLAN) as world:
            await agree(world, calls)

    asyncio.run(main())


def test_the_bus_on_nats_agrees_with_the_model(nats_server: NatsServer) -> None:
    """Every sequence of calls gives what the model gives."""

    async def main(calls: list[tuple[str, object]]) -> None:
        async with NatsWorld.open(PLAN, nats_server) as world:
            await agree(world, calls)

    @given(st.lists(CALLS, min_size=10, max_size=30))
    @settings(max_examples=20)
    def compare(calls: list[tuple[str, object]]) -> None:
        asyncio.run(main(calls))

    compare()


# -- exactly once ----------------------------------------------------------------------------------


class Operator:
    """Answers each number on market.0 with its double on indicators.0, exactly once.

    The position is in the answer: `<input sequence>:<double>`. Whatever the bus raises, the way
    back is to read the last answer again.
    """

    def __init__(self, client: Client) -> None:
        self._bus = client.bus
        self.restarts = 0

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                async with self._bus.lease("MARKET", "indicators-0") as lease:
                    await self._work(lease)
            except BusError:
                self.restarts += 1
                await asyncio.sleep(0)

    async def _work(self, lease: Lease) -> None:
        last = await self._bus.last("INDICATORS", "indicators.0")
        out_seq = last.seq if last is not None else 0
        done = int(last.data.partition(b":")[0]) if last is not None else 0
        await lease.reset(done + 1)
        while True:
            for message in await lease.receive(frames_max=8, wait_s=0.5):
                answer = b"%d:%d" % (message.seq, 2 * int(message.data))
                out_seq = await self._bus.publish("indicators.0", answer, expected_last_seq=out_seq)
                await lease.ack(message)


class Source:
    """Publishes 0, 1, 2, ... on market.0, each exactly once."""

    def __init__(self, client: Client, count: int) -> None:
        self._bus = client.bus
        self.count = count
        self.stored = 0

    async def run(self) -> None:
        """Publish until all numbers are stored."""
        while self.stored < self.count:
            with suppress(BusError):
                last = await self._bus.last("MARKET", "market.0")
                seq = last.seq if last is not None else 0
                self.stored = int(last.data) + 1 if last is not None else 0
                while self.stored < self.count:
                    data = b"%d" % self.stored
                    seq = await self._bus.publish("market.0", data, expected_last_seq=seq)
                    self.stored += 1
            await asyncio.sleep(0)


async def answers(bus: Bus) -> list[tuple[int, int]]:
    """Read every answer: input sequence and double."""
    found: list[tuple[int, int]] = []
    start_seq = 1
    while stored := await bus.read("INDICATORS", "indicators.0", start_seq=start_seq):
        position, _, double = stored.data.partition(b":")
        found.append((int(position), int(double)))
        start_seq = stored.seq + 1
    return found


MEMORY_FAULTS = ("drop", "unpin", "rewind", "restart", "doubt, stored", "doubt, not stored")


async def survive(world: World, count: int, faults: list[str], rng: random.Random) -> int:
    """Let one source and two operators work through `faults`, spread over the work.

    Returns how often an operator had to begin anew.
    """
    source = Source(await world.connect("ingest"), count)
    clients = [await world.connect("indicators") for _ in range(2)]
    operators = [Operator(client) for client in clients]
    watcher = (await world.connect("admin")).bus
    tasks = [asyncio.create_task(source.run())]
    tasks += [asyncio.create_task(operator.run()) for operator in operators]

    async def progress() -> int:
        try:
            last = await watcher.last("INDICATORS", "indicators.0")
        except BusError:
            return 0
        return int(last.data.partition(b":")[2]) // 2 + 1 if last is not None else 0

    async def reached(goal: int) -> bool:
        return await progress() >= goal

    try:
        for number, fault in enumerate(faults):
            goal = count * number // len(faults)
            await eventually_async(partial(reached, goal), 60, f"{goal} answers")
            await strike(world, clients, fault, rng)
        await eventually_async(partial(reached, count), 60, "every answer")
        expected = [(number + 1, 2 * number) for number in range(count)]
        assert await answers(watcher) == expected
        return sum(operator.restarts for operator in operators)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def strike(world: World, clients: list[Client], fault: str, rng: random.Random) -> None:
    """Let one thing go wrong."""
    if fault == "unpin":
        await world.unpin("MARKET", "indicators-0")
    elif fault == "rewind":
        await world.rewind("MARKET", "indicators-0", 1)
    elif fault == "restart":
        await world.restart()
    elif fault.startswith("doubt"):
        for client in clients:
            assert isinstance(client.bus, MemoryBus)
            client.bus.lose_next_answer(stored=fault == "doubt, stored")
    else:
        await rng.choice(clients).drop()


@given(st.lists(st.sampled_from(MEMORY_FAULTS), max_size=8), st.randoms())
@settings(max_examples=60)
def test_nothing_is_lost_or_doubled_in_memory(faults: list[str], rng: random.Random) -> None:
    """Any sequence of faults leaves one answer to each number, in order."""

    async def main() -> None:
        async with MemoryWorld.open(PLAN) as world:
            await survive(world, 60, faults, rng)

    asyncio.run(main())


def test_nothing_is_lost_or_doubled_on_nats(own_nats_server: Running) -> None:
    """Broken connections, lost pins, rewinds and kill -9 of the server, one after the other."""
    faults = ["unpin", "drop", "rewind", "restart", "drop", "unpin", "restart"]

    async def main() -> None:
        assert isinstance(own_nats_server.server, NatsServer)
        async with NatsWorld.open(PLAN, own_nats_server.server, own_nats_server) as world:
            assert await survive(world, 3_000, faults, random.Random(7)) >= 2

    asyncio.run(main())
