"""What every bus promises of leases: order, no hole, one owner, and failover.

The lease in memory and the one on a real nats-server run the same suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from cli.servers.nats import NatsServer
from libs.common import codec
from libs.common.bus import Bus, Lease, Message
from libs.common.errors import BusUnavailable, Doubt, Fenced, LeaseLost
from tests.contract.buses import (
    BUSES,
    DEADLINE_S,
    PLAN,
    MemoryWorld,
    NatsWorld,
    Within,
    World,
    publish_many,
)
from tests.servers import Running
from tests.waiting import eventually_async


async def read(lease: Lease, count: int, frames_max: int = 7) -> list[Message]:
    """Receive exactly `count` messages."""
    messages: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(messages) < count:
            messages += await lease.receive(
                frames_max=min(frames_max, count - len(messages)), wait_s=1
            )
    return messages


async def read_until_over(lease: Lease, *, delivers_nothing: bool = False) -> None:
    """Receive until the lease raises."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            messages = await lease.receive(frames_max=10, wait_s=0.05)
            assert not (messages and delivers_nothing), messages


class TestLease:
    """An owner reads its partition in order, without a hole, or learns that it is no owner."""

    def test_delivers_its_partition_in_order(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_large_messages_pass(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_stands_by_while_there_is_nothing(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_standing_by_can_be_given_up(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_returns_nothing_when_nothing_comes(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_a_reset_drops_what_was_in_flight(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_must_be_reset_before_reading(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_an_owner_is_told_nothing_twice(self, bus_within: Within) -> None:
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

        bus_within(scenario)


class TestFailover:
    """One owner at a time; the next one takes over by itself."""

    def test_a_released_partition_goes_to_the_stand_by(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_an_idle_partition_finds_an_owner_too(self, bus_within: Within) -> None:
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
                        await world.acknowledged("MARKET", "indicators-0")

        bus_within(scenario)

    def test_an_idle_owner_is_left_alone(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_a_dead_owner_is_replaced(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_an_owner_that_lost_its_pin_learns_of_it(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_a_hole_ends_the_lease(self, bus_within: Within) -> None:
        """Somebody else moved the consumer on: what does not follow is not delivered."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            seqs = await publish_many(writer, "market.0", 5)
            async with reader.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                await read(lease, 5)
                await world.rewind("MARKET", "indicators-0", seqs[-1] + 3)
                await publish_many(writer, "market.0", 6, expected=seqs[-1])
                with pytest.raises(LeaseLost):
                    await read_until_over(lease, delivers_nothing=True)

        bus_within(scenario)

    def test_a_silent_hole_ends_the_lease(self, bus_within: Within) -> None:
        """The consumer was moved, and then nothing comes: the lease learns of it all the same."""

        async def scenario(world: World) -> None:
            writer = (await world.connect("ingest")).bus
            reader = (await world.connect("indicators")).bus
            seqs = await publish_many(writer, "market.0", 5)
            async with reader.lease("MARKET", "indicators-0") as lease:
                await lease.reset(1)
                await read(lease, 5)
                await world.rewind("MARKET", "indicators-0", seqs[-1] + 1)
                with pytest.raises(LeaseLost):
                    await read_until_over(lease, delivers_nothing=True)

        bus_within(scenario)

    def test_a_lost_lease_can_be_taken_again(self, bus_within: Within) -> None:
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

        bus_within(scenario)


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

    running: Running | None = request.getfixturevalue("own_nats_server") if kind == "nats" else None

    async def main() -> None:
        if running is None:
            async with MemoryWorld.open(PLAN) as world:
                await scenario(world)
        else:
            assert isinstance(running.server, NatsServer)
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
