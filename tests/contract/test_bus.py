"""What every bus promises of streams, publishes and live messages.

The one in memory and the one on a real nats-server run the same suite; leases have a suite of their
own.
"""

from __future__ import annotations

import asyncio

import pytest

from libs.common import codec
from libs.common.bus import topology
from libs.common.errors import BusUnavailable, Doubt, Fenced, StreamFull
from tests.contract.buses import DEADLINE_S, PARTITIONS, PLAN, Within, World, publish_many
from tests.waiting import eventually_async

# MARKET of a small plan takes a few messages of this size before it is full.
SMALL_STREAM_BYTES = 1 << 20
BIG = bytes(100_000)


class TestStreams:
    """What is known of a stream without reading it."""

    def test_an_empty_stream_begins_behind_its_end(self, bus_within: Within) -> None:
        """first_seq is last_seq + 1 as long as nothing was stored."""

        async def scenario(world: World) -> None:
            state = await (await world.connect("ingest")).bus.stream("MARKET")
            assert (state.first_seq, state.last_seq) == (1, 0)
            assert state.created_ms > 1_700_000_000_000

        bus_within(scenario)

    def test_counts_all_subjects_of_the_stream(self, bus_within: Within) -> None:
        """Sequences run over all partitions of a stream."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            await bus.publish("market.0", b"a", expected_last_seq=0)
            await bus.publish("market.1", b"b", expected_last_seq=0)
            state = await bus.stream("MARKET")
            assert (state.first_seq, state.last_seq, state.messages) == (1, 2, 2)
            assert state.age_ms_max == 7 * 86_400_000

        bus_within(scenario)

    def test_carries_the_metadata_of_the_store(self, bus_within: Within) -> None:
        """Partitions, source and the hash of the settings stand in every stream."""

        async def scenario(world: World) -> None:
            state = await (await world.connect("ingest")).bus.stream("MARKET")
            assert state.metadata.items() >= PLAN.metadata.items()

        bus_within(scenario)

    def test_a_missing_stream_is_unavailable(self, bus_within: Within) -> None:
        """No stream, no state."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("admin")).bus
            with pytest.raises(BusUnavailable):
                await bus.stream("NOWHERE")
            with pytest.raises(BusUnavailable):
                await bus.last("NOWHERE", "nowhere.0")

        bus_within(scenario)


class TestPublish:
    """A message is stored behind the expected one or not at all."""

    def test_what_was_acknowledged_can_be_read_at_once(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_stored_messages_can_be_read_one_by_one(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_a_wrong_expectation_is_fenced(self, bus_within: Within) -> None:
        """Neither an older nor a newer sequence than the last one will do."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            seqs = await publish_many(bus, "market.0", 3)
            for wrong in (0, seqs[0], seqs[-1] + 1):
                with pytest.raises(Fenced):
                    await bus.publish("market.0", b"no", expected_last_seq=wrong)
            assert (await bus.stream("MARKET")).last_seq == seqs[-1]

        bus_within(scenario)

    def test_a_fence_concerns_one_subject(self, bus_within: Within) -> None:
        """Another partition's messages do not get in the way."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            first = await bus.publish("market.0", b"a", expected_last_seq=0)
            await bus.publish("market.1", b"b", expected_last_seq=0)
            assert await bus.publish("market.0", b"c", expected_last_seq=first) == first + 2

        bus_within(scenario)

    def test_of_many_writers_one_wins(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_a_message_of_the_largest_size_fits(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_a_subject_without_stream_is_unavailable(self, bus_within: Within) -> None:
        """Nobody stores it, so nothing is in doubt."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("admin")).bus
            with pytest.raises(BusUnavailable):
                await bus.publish("nowhere.0", b"x", expected_last_seq=0)
            with pytest.raises(BusUnavailable):
                await bus.append("nowhere.0", b"x")

        bus_within(scenario)

    def test_a_full_stream_refuses_and_keeps_what_it_has(self, bus_within: Within) -> None:
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

        bus_within(scenario, topology.plan(PARTITIONS, "demo", stream_bytes_max=SMALL_STREAM_BYTES))

    def test_dead_letters_need_no_fence_and_make_room(self, bus_within: Within) -> None:
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
        bus_within(scenario, small)

    def test_a_message_with_a_known_id_is_stored_once(self, bus_within: Within) -> None:
        """Whoever got no answer sends it again, and learns where the first one is."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("operator")).bus
            admin = (await world.connect("admin")).bus
            assert await bus.append("commands.ingest", b"first", message_id="a") == 1
            assert await bus.append("commands.ingest", b"again", message_id="a") == 1
            assert await bus.append("commands.ingest", b"other", message_id="b") == 2
            assert await bus.append("commands.ingest", b"no id") == 3
            assert await bus.append("commands.ingest", b"no id") == 4
            first = await admin.read("COMMANDS", "commands.ingest", start_seq=1)
            assert first is not None
            assert first.data == b"first"

        bus_within(scenario)

    def test_two_checkpoints_are_kept_of_each_service(self, bus_within: Within) -> None:
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

        bus_within(scenario)


class TestReadMany:
    """Batches of what is stored."""

    def test_give_one_subject_in_order_up_to_its_end(self, bus_within: Within) -> None:
        """Going on behind the last one finds every message once, and then none."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            ours: list[int] = []
            theirs = 0
            for _ in range(10):
                ours += await publish_many(bus, "market.0", 1, ours[-1] if ours else 0)
                (theirs,) = await publish_many(bus, "market.1", 1, theirs)
            found: list[int] = []
            while batch := await bus.read_many(
                "MARKET", "market.0", start_seq=found[-1] + 1 if found else 1,
                messages_max=3, bytes_max=1 << 20,
            ):  # fmt: skip
                assert len(batch) <= 3
                found += [stored.seq for stored in batch]
            assert found == ours

        bus_within(scenario)

    def test_are_bounded_in_bytes(self, bus_within: Within) -> None:
        """The bound ends a batch, but never before its first message."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("ingest")).bus
            seq = 0
            for _ in range(5):
                seq = await bus.publish("market.0", BIG, expected_last_seq=seq)
            batch = await bus.read_many(
                "MARKET", "market.0", start_seq=1, messages_max=5, bytes_max=len(BIG) * 2
            )
            assert 1 <= len(batch) <= 3
            assert [stored.data for stored in batch] == [BIG] * len(batch)
            (first,) = await bus.read_many(
                "MARKET", "market.0", start_seq=1, messages_max=5, bytes_max=1
            )
            assert first.seq == 1

        bus_within(scenario)

    def test_of_a_missing_stream_are_unavailable(self, bus_within: Within) -> None:
        """No stream, no messages."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("admin")).bus
            with pytest.raises(BusUnavailable):
                await bus.read_many(
                    "NOWHERE", "nowhere.0", start_seq=1, messages_max=1, bytes_max=1
                )

        bus_within(scenario)


class TestDoubt:
    """An answer that does not come leaves two possibilities, and both occur."""

    def test_it_was_stored(self, bus_within: Within) -> None:
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

        bus_within(scenario)

    def test_it_was_not_stored(self, bus_within: Within) -> None:
        """The request is lost: repeating the publish stores it once."""

        async def scenario(world: World) -> None:
            client = await world.connect("ingest")
            async with client.answers_lost(stored=False):
                with pytest.raises(Doubt):
                    await client.bus.publish("market.0", b"once", expected_last_seq=0)
            assert await client.bus.last("MARKET", "market.0") is None
            assert await client.bus.publish("market.0", b"once", expected_last_seq=0) == 1

        bus_within(scenario)


class TestLive:
    """Live messages are for whoever listens now."""

    def test_reach_a_listener_outside(self, bus_within: Within) -> None:
        """Whoever subscribed to the pattern gets the message as it is."""

        async def scenario(world: World) -> None:
            bus = (await world.connect("indicators")).bus
            async with world.listener("live.tick.*") as take:
                taken = asyncio.ensure_future(take())

                async def said() -> bool:
                    """Say it again: a live message is dropped while a connection is renewed."""
                    await bus.publish_live("live.candle.1m.QQQ", b"{}")
                    await bus.publish_live("live.tick.QQQ", b'{"price":1}')
                    return taken.done()

                await eventually_async(said, DEADLINE_S, "heard")
                assert taken.result() == ("live.tick.QQQ", b'{"price":1}')

        bus_within(scenario)

    def test_reach_a_service_that_listens_also_after_a_reconnect(self, bus_within: Within) -> None:
        """Its own subject of status is the one that a service may hear."""

        async def scenario(world: World) -> None:
            first, second = await world.connect("signals"), await world.connect("signals")
            heard: list[bytes] = []
            subject = "live.status.signals"
            await second.bus.listen(subject, heard.append)

            async def said(word: bytes) -> bool:
                await first.bus.publish_live(subject, word)
                return word in heard

            await eventually_async(lambda: said(b"one"), DEADLINE_S, "heard")
            await first.bus.publish_live("live.signal.QQQ", b"not for it")
            await second.drop()
            await eventually_async(lambda: said(b"two"), DEADLINE_S, "heard again")
            assert set(heard) == {b"one", b"two"}

        bus_within(scenario)

    def test_are_dropped_while_disconnected(self, bus_within: Within) -> None:
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

        bus_within(scenario)
