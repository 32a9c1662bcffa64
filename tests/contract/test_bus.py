"""What every bus promises: the one in memory and the one on a real nats-server run this suite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from cli.servers.nats import NatsServer
from libs.common import codec
from libs.common.bus import Bus, Lease, Message, topology
from libs.common.errors import BusUnavailable, Doubt, Fenced, LeaseLost, StreamFull
from tests.contract.buses import DEADLINE_S, MemoryWorld, NatsWorld, Scenario, World
from tests.servers import Running, temporary_home
from tests.waiting import eventually_async

BUSES = ("memory", "nats")
PARTITIONS = 2
PLAN = topology.plan(PARTITIONS, "demo")
# MARKET of a small plan takes a few messages of this size before it is full.
SMALL_STREAM_BYTES = 1 << 20
BIG = bytes(100_000)

Within = Callable[..., None]


@pytest.fixture(params=BUSES)
def within(request: pytest.FixtureRequest) -> Within:
    """Run a scenario in a fresh world of each kind."""

    server = request.getfixturevalue("fresh_nats") if request.param == "nats" else None

    def run(scenario: Scenario, plan: topology.Topology = PLAN) -> None:
        async def main() -> None:
            if server is None:
                async with MemoryWorld.open(plan) as world:
                    await scenario(world)
            else:
                async with NatsWorld.open(plan, server) as nats_world:
                    await scenario(nats_world)

        asyncio.run(main())

    return run


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A nats-server that a test may kill."""
    with temporary_home() as home:
        server = NatsServer(home, partitions=PARTITIONS)
        with Running(server, home / "nats.log") as running:
            yield running


async def publish_many(bus: Bus, subject: str, count: int, expected: int = 0) -> list[int]:
    """Publish `count` numbered messages, return their sequences."""
    seqs = []
    for number in range(count):
        expected = await bus.publish(subject, b"%d" % number, expected_last_seq=expected)
        seqs.append(expected)
    return seqs


async def read(lease: Lease, count: int, frames_max: int = 7) -> list[Message]:
    """Receive exactly `count` messages."""
    messages: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(messages) < count:
            messages += await lease.receive(
                frames_max=min(frames_max, count - len(messages)), wait_s=1
            )
    return messages


async def read_until_over(lease: Lease) -> None:
    """Receive until the lease raises."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            await lease.receive(frames_max=10, wait_s=0.05)


class TestStreams:
    """What is known of a stream without reading it."""

    def test_an_empty_stream_begins_behind_its_end(self, within: Within) -> None:
        """first_seq is last_seq + 1 as long as nothing was stored."""

        async def scenario(world: World) -> None:
            state = await (await world.connect("ingest")).bus.stream("MARKET")
            assert (state.first_seq, state.last_seq) == (1, 0)
            assert state.created_ms > 1_700_000_000_000

        within(scenario)

    def test_counts_all_subjects_of_the_stream(self, within: Within) -> None:
        """Sequences run over all partitions of a stream."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            await bus.publish("market.0", b"a", expected_last_seq=0)
            await bus.publish("market.1", b"b", expected_last_seq=0)
            state = await bus.stream("MARKET")
            assert (state.first_seq, state.last_seq) == (1, 2)

        within(scenario)

    def test_carries_the_metadata_of_the_store(self, within: Within) -> None:
        """Partitions, source and the hash of the settings stand in every stream."""

        async def scenario(world: World) -> None:
            state = await (await world.connect("ingest")).bus.stream("MARKET")
            assert state.metadata.items() >= PLAN.metadata.items()

        within(scenario)

    def test_a_missing_stream_is_unavailable(self, within: Within) -> None:
        """No stream, no state."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("admin")).bus
            with pytest.raises(BusUnavailable):
                await bus.stream("NOWHERE")
            with pytest.raises(BusUnavailable):
                await bus.last("NOWHERE", "nowhere.0")

        within(scenario)


class TestPublish:
    """A message is stored behind the expected one or not at all."""

    def test_what_was_acknowledged_can_be_read_at_once(self, within: Within) -> None:
        """`last` sees each message as soon as its publish returned."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            assert await bus.last("MARKET", "market.0") is None
            seq = 0
            for number in range(20):
                data = b"%d" % number
                seq = await bus.publish("market.0", data, expected_last_seq=seq)
                stored = await bus.last("MARKET", "market.0")
                assert stored is not None
                assert (stored.seq, stored.data) == (seq, data)

        within(scenario)

    def test_stored_messages_can_be_read_one_by_one(self, within: Within) -> None:
        """`read` finds the first message of a subject from a sequence on, also of no length."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            assert await bus.read("MARKET", "market.0", start_seq=1) is None
            for number in range(4):
                await bus.append(f"market.{number % 2}", b"" if number == 2 else b"%d" % number)
            found = [await bus.read("MARKET", "market.0", start_seq=n) for n in range(6)]
            seqs = [stored.seq if stored is not None else None for stored in found]
            assert seqs == [1, 1, 3, 3, None, None]
            assert [stored.data for stored in found if stored] == [b"0", b"0", b"", b""]

        within(scenario)

    def test_a_wrong_expectation_is_fenced(self, within: Within) -> None:
        """Neither an older nor a newer sequence than the last one will do."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            seqs = await publish_many(bus, "market.0", 3)
            for wrong in (0, seqs[0], seqs[-1] + 1):
                with pytest.raises(Fenced):
                    await bus.publish("market.0", b"no", expected_last_seq=wrong)
            assert (await bus.stream("MARKET")).last_seq == seqs[-1]

        within(scenario)

    def test_a_fence_concerns_one_subject(self, within: Within) -> None:
        """Another partition's messages do not get in the way."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            first = await bus.publish("market.0", b"a", expected_last_seq=0)
            await bus.publish("market.1", b"b", expected_last_seq=0)
            assert await bus.publish("market.0", b"c", expected_last_seq=first) == first + 2

        within(scenario)

    def test_of_many_writers_one_wins(self, within: Within) -> None:
        """Twenty publishes behind the same message: one is stored, the others are fenced."""

        async def scenario(world: World) -> None:
            buses = [(await world.connect("ingest")).bus for _ in range(2)]
            outcomes = await asyncio.gather(
                *(
                    buses[number % 2].publish("market.0", b"%d" % number, expected_last_seq=0)
                    for number in range(20)
                ),
                return_exceptions=True,
            )
            assert sum(outcome == 1 for outcome in outcomes) == 1
            assert sum(isinstance(outcome, Fenced) for outcome in outcomes) == 19
            assert (await buses[0].stream("MARKET")).last_seq == 1

        within(scenario)

    def test_a_message_of_the_largest_size_fits(self, within: Within) -> None:
        """FRAME_BYTES_MAX is allowed, one byte more is the caller's mistake."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            largest = bytes(codec.FRAME_BYTES_MAX)
            seq = await bus.publish("market.0", largest, expected_last_seq=0)
            with pytest.raises(ValueError, match="at most"):
                await bus.publish("market.0", largest + b"x", expected_last_seq=seq)
            stored = await bus.last("MARKET", "market.0")
            assert stored is not None
            assert (stored.seq, len(stored.data)) == (seq, len(largest))

        within(scenario)

    def test_a_subject_without_stream_is_unavailable(self, within: Within) -> None:
        """Nobody stores it, so nothing is in doubt."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("admin")).bus
            with pytest.raises(BusUnavailable):
                await bus.publish("nowhere.0", b"x", expected_last_seq=0)
            with pytest.raises(BusUnavailable):
                await bus.append("nowhere.0", b"x")

        within(scenario)

    def test_a_full_stream_refuses_and_keeps_what_it_has(self, within: Within) -> None:
        """MARKET drops nothing that somebody may still have to read."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            seq = 0

            async def fill() -> None:
                nonlocal seq
                for _ in range(100):
                    seq = await bus.publish("market.0", BIG, expected_last_seq=seq)

            with pytest.raises(StreamFull):
                await fill()
            state = await bus.stream("MARKET")
            assert 3 <= state.last_seq < 100
            assert (state.first_seq, state.last_seq) == (1, seq)
            await bus.publish("market.0", b"small ones may fit", expected_last_seq=seq)

        within(scenario, topology.plan(PARTITIONS, "demo", stream_bytes_max=SMALL_STREAM_BYTES))

    def test_dead_letters_need_no_fence_and_make_room(self, within: Within) -> None:
        """The oldest dead letters go when their stream is full."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            admin = (await world.connect("admin")).bus
            seqs = [await bus.append("deadletter.ingest", BIG) for _ in range(5)]
            assert seqs == [1, 2, 3, 4, 5]
            state = await admin.stream("DEADLETTER")
            assert state.last_seq == 5
            assert state.first_seq > 1

        small = topology.plan(PARTITIONS, "demo", stream_bytes_max=4 << 20)
        within(scenario, small)

    def test_two_checkpoints_are_kept_of_each_service(self, within: Within) -> None:
        """STATE holds the newest message and the one before, per subject."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("indicators")).bus
            other = (await world.connect("signals")).bus
            await other.publish("state.signals.0", b"other", expected_last_seq=0)
            seqs = await publish_many(bus, "state.indicators.0", 5)
            state = await bus.stream("STATE")
            assert (state.first_seq, state.last_seq) == (1, seqs[-1])
            await publish_many(other, "state.signals.0", 2, expected=1)
            assert (await bus.stream("STATE")).first_seq == seqs[-2]
            stored = await bus.last("STATE", "state.signals.0")
            assert stored is not None
            assert stored.data == b"1"

        within(scenario)


class TestDoubt:
    """An answer that does not come leaves two possibilities, and both occur."""

    def test_it_was_stored(self, within: Within) -> None:
        """The answer is lost: repeating the publish is fenced."""

        async def scenario(world: World) -> None:
            client = await world.connect("ingest")
            async with client.answers_lost(stored=True):
                with pytest.raises(Doubt):
                    await client.bus.publish("market.0", b"once", expected_last_seq=0)
            with pytest.raises(Fenced):
                await client.bus.publish("market.0", b"once", expected_last_seq=0)
            stored = await client.bus.last("MARKET", "market.0")
            assert stored is not None
            assert stored.seq == 1

        within(scenario)

    def test_it_was_not_stored(self, within: Within) -> None:
        """The request is lost: repeating the publish stores it once."""

        async def scenario(world: World) -> None:
            client = await world.connect("ingest")
            async with client.answers_lost(stored=False):
                with pytest.raises(Doubt):
                    await client.bus.publish("market.0", b"once", expected_last_seq=0)
            assert await client.bus.last("MARKET", "market.0") is None
            assert await client.bus.publish("market.0", b"once", expected_last_seq=0) == 1

        within(scenario)


class TestLease:
    """An owner reads its partition in order, without a hole, or learns that it is no owner."""

    def test_delivers_its_partition_in_order(self, within: Within) -> None:
        """Everything of the partition from the reset on, nothing of the others."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            seqs: list[int] = []
            for number in range(300):
                previous = seqs[-1] if seqs else 0
                seqs.append(
                    await bus.publish("market.0", b"%d" % number, expected_last_seq=previous)
                )
                if number % 10 == 0:
                    await bus.append("market.1", b"other")
            reader = (await world.connect("indicators")).bus
            async with reader.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                messages = await read(lease, 300)
                await lease.ack(messages[-1])
            assert [message.seq for message in messages] == seqs
            assert [message.data for message in messages] == [b"%d" % n for n in range(300)]
            assert {message.subject for message in messages} == {"market.0"}

        within(scenario)

    def test_large_messages_pass(self, within: Within) -> None:
        """The prefetch's bound in bytes slows nothing down for ever."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            seq = 0
            for size in (1, codec.FRAME_BYTES_MAX, 10, codec.FRAME_BYTES_MAX) * 12:
                seq = await bus.publish("market.0", bytes(size), expected_last_seq=seq)
            reader = (await world.connect("indicators")).bus
            async with reader.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                messages = await read(lease, 48, frames_max=3)
            assert [message.seq for message in messages] == list(range(1, 49))

        within(scenario)

    def test_stands_by_while_there_is_nothing(self, within: Within) -> None:
        """The first message of an empty stream makes an owner, and is delivered after the reset."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus

            async def first() -> Message:
                async with reader.lease("MARKET", "indicators-0") as lease:
                    await lease.reset(1)
                    return (await read(lease, 1))[0]

            reading = asyncio.create_task(first())
            await writer.publish("market.1", b"not mine", expected_last_seq=0)
            await writer.publish("market.0", b"mine", expected_last_seq=0)
            async with asyncio.timeout(DEADLINE_S):
                assert (await reading).data == b"mine"

        within(scenario)

    def test_standing_by_can_be_given_up(self, within: Within) -> None:
        """A service that stops does not wait for a partition; the next one gets it."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            async with AsyncExitStack() as stack:
                entering = asyncio.create_task(
                    stack.enter_async_context(reader.lease("MARKET", "indicators-0"))
                )
                done, _ = await asyncio.wait({entering}, timeout=0.05)
                assert not done
                entering.cancel()
                await asyncio.wait({entering})
            await writer.publish("market.0", b"x", expected_last_seq=0)
            async with asyncio.timeout(DEADLINE_S), reader.lease("MARKET", "indicators-0"):
                pass

        within(scenario)

    def test_returns_nothing_when_nothing_comes(self, within: Within) -> None:
        """`receive` gives up after `wait_s`."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            seqs = await publish_many(writer, "market.0", 3)
            async with reader.lease("MARKET", "indicators-0") as lease:
                await lease.reset(seqs[-1] + 1)
                assert list(await lease.receive(frames_max=10, wait_s=0.02)) == []
                await writer.publish("market.0", b"late", expected_last_seq=seqs[-1])
                assert [message.data for message in await read(lease, 1)] == [b"late"]

        within(scenario)

    def test_a_reset_drops_what_was_in_flight(self, within: Within) -> None:
        """After a reset only what is from there on comes, in order, however often."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            await publish_many(writer, "market.0", 60)
            async with reader.lease("MARKET", "indicators-0") as lease:
                for start in (1, 30, 3, 60, 1):
                    await lease.reset(start)
                    messages = await read(lease, min(20, 61 - start))
                    expected = list(range(start, start + len(messages)))
                    assert [message.seq for message in messages] == expected

        within(scenario)

    def test_must_be_reset_before_reading(self, within: Within) -> None:
        """Where to begin is nothing to guess, and sequences begin at 1."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            await writer.publish("market.0", b"x", expected_last_seq=0)
            async with reader.lease("MARKET", "indicators-0") as lease:
                with pytest.raises(RuntimeError):
                    await lease.receive(frames_max=1, wait_s=0.01)
                with pytest.raises(ValueError, match="begin at 1"):
                    await lease.reset(0)

        within(scenario)

    def test_an_owner_is_told_nothing_twice(self, within: Within) -> None:
        """The server delivers again what is not acknowledged in time, the lease does not."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            seqs = await publish_many(writer, "market.0", 20)
            async with reader.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                messages = await read(lease, 20)
                await world.redelivered("MARKET", "indicators-0")
                seqs += await publish_many(writer, "market.0", 20, expected=seqs[-1])
                messages += await read(lease, 20)
                assert [message.seq for message in messages] == seqs

        within(scenario)


class TestFailover:
    """One owner at a time; the next one takes over by itself."""

    def test_a_released_partition_goes_to_the_stand_by(self, within: Within) -> None:
        """Leaving in good order hands over, with everything that was not acknowledged."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            first = (await world.connect("indicators")).bus
            second = (await world.connect("indicators")).bus
            await publish_many(writer, "market.0", 5)
            async with AsyncExitStack() as stack:
                lease = await stack.enter_async_context(first.lease("MARKET", "indicators-0"))
                await lease.reset(1)
                messages = await read(lease, 5)
                await lease.ack(messages[1])
                entering = asyncio.create_task(_hold(second))
                done, _ = await asyncio.wait({entering}, timeout=0.2)
                assert not done, "two owners"
            async with asyncio.timeout(DEADLINE_S):
                next_lease, release = await entering
            await next_lease.reset(3)
            assert [message.seq for message in await read(next_lease, 3)] == [3, 4, 5]
            await release()

        within(scenario)

    def test_an_idle_partition_finds_an_owner_too(self, within: Within) -> None:
        """All is acknowledged and nothing comes: the next instance takes over all the same."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            await publish_many(writer, "market.0", 5)
            await writer.append("market.1", b"not ours")
            for _ in range(2):
                reader = (await world.connect("indicators")).bus
                async with asyncio.timeout(DEADLINE_S):
                    async with reader.lease("MARKET", "indicators-0") as lease:
                        await lease.reset(4)
                        messages = await read(lease, 2)
                        assert [message.seq for message in messages] == [4, 5]
                        await lease.ack(messages[-1])

        within(scenario)

    def test_an_idle_owner_is_left_alone(self, within: Within) -> None:
        """A stand-by does not claim a partition that has an owner, however quiet."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            first = (await world.connect("indicators")).bus
            second = (await world.connect("indicators")).bus
            seqs = await publish_many(writer, "market.0", 5)
            async with AsyncExitStack() as stack:
                lease = await stack.enter_async_context(first.lease("MARKET", "indicators-0"))
                await lease.reset(1)
                await lease.ack((await read(lease, 5))[-1])
                entering = asyncio.create_task(_hold(second))
                assert list(await lease.receive(frames_max=1, wait_s=2.5)) == []
                assert not entering.done(), "two owners"
                await writer.publish("market.0", b"new", expected_last_seq=seqs[-1])
                assert [message.data for message in await read(lease, 1)] == [b"new"]
            async with asyncio.timeout(DEADLINE_S):
                _, release = await entering
            await release()

        within(scenario)

    def test_a_dead_owner_is_replaced(self, within: Within) -> None:
        """The connection of the owner breaks without a goodbye: the stand-by takes over."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            first = await world.connect("indicators")
            second = (await world.connect("indicators")).bus
            await publish_many(writer, "market.0", 5)
            async with first.bus.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                await read(lease, 5)
                entering = asyncio.create_task(_hold(second))
                await first.kill()
                with pytest.raises(BusUnavailable):
                    await read_until_over(lease)
                async with asyncio.timeout(DEADLINE_S):
                    next_lease, release = await entering
            await next_lease.reset(1)
            assert [message.seq for message in await read(next_lease, 5)] == [1, 2, 3, 4, 5]
            await release()

        within(scenario)

    def test_an_owner_that_lost_its_pin_learns_of_it(self, within: Within) -> None:
        """Reading on is refused, and so is a reset, once another one is pinned."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            first = (await world.connect("indicators")).bus
            second = (await world.connect("indicators")).bus
            seqs = await publish_many(writer, "market.0", 5)
            async with first.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                await read(lease, 5)
                entering = asyncio.create_task(_hold(second))
                done, _ = await asyncio.wait({entering}, timeout=0.2)
                assert not done, "two owners"
                await world.unpin("MARKET", "indicators-0")
                await writer.publish("market.0", b"new", expected_last_seq=seqs[-1])
                async with asyncio.timeout(DEADLINE_S):
                    next_lease, release = await entering
                with pytest.raises(LeaseLost):
                    await read_until_over(lease)
                with pytest.raises(LeaseLost):
                    await lease.reset(1)
            await next_lease.reset(1)
            assert len(await read(next_lease, 6)) == 6
            await release()

        within(scenario)

    def test_a_hole_ends_the_lease(self, within: Within) -> None:
        """Somebody else reset the consumer: what comes next does not follow what came before."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            seqs = await publish_many(writer, "market.0", 5)
            async with reader.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                await read(lease, 5)
                await world.rewind("MARKET", "indicators-0", seqs[-1] + 1)
                await writer.publish("market.0", b"new", expected_last_seq=seqs[-1])
                with pytest.raises(LeaseLost):
                    await read_until_over(lease)

        within(scenario)

    def test_a_lost_lease_can_be_taken_again(self, within: Within) -> None:
        """The same instance stands by anew and goes on."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            await publish_many(writer, "market.0", 5)
            for _ in range(3):
                async with asyncio.timeout(DEADLINE_S):
                    async with reader.lease("MARKET", "indicators-0") as lease:
                        await lease.reset(1)
                        assert len(await read(lease, 5)) == 5
                        await world.rewind("MARKET", "indicators-0", 1)
                        with pytest.raises(LeaseLost):
                            await read_until_over(lease)

        within(scenario)


class TestLive:
    """Live messages are for whoever listens now."""

    def test_reach_a_listener_outside(self, within: Within) -> None:
        """Whoever subscribed to the pattern gets the message as it is."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("indicators")).bus
            async with world.listener("live.tick.*") as take:
                await bus.publish_live("live.candle.1m.QQQ", b"{}")
                await bus.publish_live("live.tick.QQQ", b'{"price":1}')
                assert await take() == ("live.tick.QQQ", b'{"price":1}')

        within(scenario)

    def test_are_dropped_while_disconnected(self, within: Within) -> None:
        """Nobody waits and nobody is told."""

        async def scenario(world: World) -> None:
            client = await world.connect("indicators")
            await client.kill()
            await eventually_async(lambda: not client.bus.connected, DEADLINE_S, "disconnected")
            await client.bus.publish_live("live.tick.QQQ", b"{}")
            with pytest.raises(BusUnavailable):
                await client.bus.publish("indicators.0", b"x", expected_last_seq=0)
            with pytest.raises(BusUnavailable):
                await client.bus.last("INDICATORS", "indicators.0")

        within(scenario)


@pytest.mark.parametrize("kind", BUSES)
def test_a_restarted_server_has_lost_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    """The server dies as with kill -9 in mid-stream; the bus comes back and all is still there."""

    async def scenario(world: World) -> None:
        writer = (await world.connect("ingest")).bus
        reader = (await world.connect("indicators")).bus
        stored: list[bytes] = []
        writing = asyncio.create_task(_write_through(writer, stored, 400))
        async with reader.lease("MARKET", "indicators-0") as lease:
            await lease.reset(1)
            await read(lease, 50)
            await world.restart()
            with pytest.raises(BusUnavailable):
                await read_until_over(lease)
        async with asyncio.timeout(DEADLINE_S):
            await writing
            async with reader.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                messages = await read(lease, 400)
        assert [message.data for message in messages] == stored
        assert [message.seq for message in messages] == list(range(1, 401))

    running = request.getfixturevalue("own_server") if kind == "nats" else None

    async def main() -> None:
        if running is None:
            async with MemoryWorld.open(PLAN) as world:
                await scenario(world)
        else:
            async with NatsWorld.open(PLAN, running.server, running) as nats_world:
                await scenario(nats_world)

    asyncio.run(main())


async def _hold(bus: Bus) -> tuple[Lease, Callable[[], Awaitable[None]]]:
    """Take the lease of partition 0 and return it with the way to release it."""
    stack = AsyncExitStack()
    lease = await stack.enter_async_context(bus.lease("MARKET", "indicators-0"))
    return lease, stack.aclose


async def _write_through(bus: Bus, stored: list[bytes], count: int) -> None:
    """Publish `count` messages exactly once, whatever happens to the server meanwhile."""
    seq = 0
    while len(stored) < count:
        data = b"%d" % len(stored)
        try:
            seq = await bus.publish("market.0", data, expected_last_seq=seq)
            stored.append(data)
        except (Doubt, Fenced, BusUnavailable):
            await eventually_async(lambda: bus.connected, DEADLINE_S, "connected again")
            try:
                last = await bus.last("MARKET", "market.0")
            except BusUnavailable:
                continue
            if last is not None and last.data == data and last.seq > seq:
                stored.append(data)
            seq = last.seq if last is not None else 0
