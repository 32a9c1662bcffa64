"""Live clients on a real bus: no gap and no double, whoever goes away; and nobody harms another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.servers.nats import NatsServer
from libs.common import subjects
from libs.common.bus import nats, topology
from libs.common.codec import encode_json
from libs.common.events import TickIndicator
from services.gateway import live
from tests.integration.gateway.live_stage import (
    DEADLINE_S,
    Publisher,
    Stage,
    Watcher,
    seconds,
    staged,
    sub,
)
from tests.live_frames import candle, correction, signal, tick
from tests.servers import Running, temporary_home
from tests.waiting import eventually_async

FRAMES = 300
CLIENTS = 6


async def visit_again_and_again(stage: Stage, chance: random.Random, until: int) -> list[int]:
    """Be a client that loses its connection at random and goes on from the last sequence."""
    epoch_ms = await stage.epoch_ms()
    got: list[int] = []
    seq = 0
    while not got or got[-1] < until:
        async with stage.watching() as watcher:
            await watcher.say("sub", **sub("ticks", epoch_ms, seq))
            await some_batches(watcher, chance.randint(1, 6), until)
            watcher.break_off()
            await watcher.ends()
            assert watcher.all("resync") == []
            for message in watcher.all("ticks"):
                assert message["seq"] > seq
                seq = message["seq"]
            got += seconds(watcher.all("ticks"))
    return got


async def some_batches(watcher: Watcher, count: int, until: int) -> None:
    """Wait for some batches of ticks, or for the last tick."""

    def enough() -> bool:
        batches = watcher.all("ticks")
        return len(batches) >= count or until in seconds(batches)

    await eventually_async(enough, DEADLINE_S, "ticks")


async def publish_ticks(publisher: Publisher, sizes: list[int]) -> None:
    """Publish frames with so many ticks of two tickers."""
    number = 0
    for size in sizes:
        events: list[TickIndicator] = []
        for _ in range(size):
            number += 1
            events += [tick(number), tick(number, "SPY")]
        await publisher.publish(events)


def test_no_gap_and_no_double_through_lost_connections(fresh_nats: NatsServer) -> None:
    """Clients that come and go while frames are published get each tick once and in order."""

    async def main() -> None:
        chance = random.Random(7)
        sizes = [*(chance.randint(0, 4) for _ in range(FRAMES)), 1]
        last = sum(sizes)
        async with staged(fresh_nats) as stage:
            publisher = await stage.publisher()
            visits = [
                asyncio.create_task(
                    visit_again_and_again(stage, random.Random(chance.random()), last)
                )
                for _ in range(CLIENTS)
            ]
            await publish_ticks(publisher, sizes)
            for got in await asyncio.gather(*visits):
                assert got == list(range(1, last + 1))
            assert stage.count("received_to_sent_seconds_count") > 0
            assert stage.count("messages_total", **{"class": "append"}) >= CLIENTS
            assert stage.count("bytes_total") > 0
            await eventually_async(lambda: stage.count("clients") == 0, DEADLINE_S, "all gone")

    asyncio.run(main())


def test_two_partitions_of_signals(fresh_nats: NatsServer) -> None:
    """One subscription to all tickers, a place in each partition."""

    async def main() -> None:
        async with staged(fresh_nats, partitions=2) as stage:
            tickers = {subjects.partition_of(ticker, 2): ticker for ticker in ("INDA", "FXY")}
            before: dict[str, int] = {}
            publishers = {}
            for partition, ticker in tickers.items():
                publisher = publishers[partition] = await stage.publisher(
                    subjects.SIGNALS, partition
                )
                before[str(partition)] = await publisher.publish([signal(1, ticker)])
            async with stage.watching() as watcher:
                epoch_ms = await stage.epoch_ms(subjects.SIGNALS)
                await watcher.say("sub", **sub("signals", epoch_ms, before, ticker="*"))
                await watcher.hears("subscribed")
                for partition, publisher in publishers.items():
                    await publisher.publish([signal(2, tickers[partition])])
                await watcher.hears("signals", 2)
                found = {m["partition"]: m["signals"] for m in watcher.all("signals")}
                assert {p: [s["id"] for s in said] for p, said in found.items()} == {
                    partition: [signal(2, ticker).id] for partition, ticker in tickers.items()
                }

    asyncio.run(main())


@pytest.fixture
def mortal_nats() -> Iterator[Running]:
    """A nats-server that may be killed."""
    with temporary_home() as home:
        running = Running(NatsServer(home, partitions=1), Path(home) / "nats.log")
        with running:
            yield running


def test_the_bus_is_killed_and_comes_back(mortal_nats: Running) -> None:
    """Live connections stay, say nothing wrong, and go on where they were."""

    async def main() -> None:
        server = mortal_nats.server
        assert isinstance(server, NatsServer)
        async with staged(server) as stage, stage.watching() as watcher:
            publisher = await stage.publisher()
            await watcher.say("sub", **sub("ticks", await stage.epoch_ms()))
            for number in range(1, 6):
                await publisher.publish([tick(number)])
            await eventually_async(
                lambda: seconds(watcher.all("ticks")) == [1, 2, 3, 4, 5], DEADLINE_S, "ticks"
            )
            await asyncio.to_thread(mortal_nats.kill)
            await eventually_async(
                lambda: not stage.runtime.health.ready, DEADLINE_S, "not ready without a bus"
            )
            await asyncio.to_thread(mortal_nats.start)
            await eventually_async(lambda: publisher.bus.connected, DEADLINE_S, "back")
            for number in range(6, 11):
                await publisher.publish([tick(number)])
            await eventually_async(
                lambda: seconds(watcher.all("ticks")) == list(range(1, 11)), DEADLINE_S, "the rest"
            )
            assert watcher.all("resync") == []
            await eventually_async(lambda: stage.runtime.health.ready, DEADLINE_S, "ready")

    asyncio.run(main())


def test_a_stream_made_anew_resyncs(fresh_nats: NatsServer) -> None:
    """Whoever subscribed is told, and the new incarnation is served."""

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            publisher = await stage.publisher()
            epoch_ms = await stage.epoch_ms()
            for number in range(3):
                await publisher.publish([tick(number)])
            await watcher.say("sub", **sub("ticks", epoch_ms))
            await watcher.hears("ticks")
            admin = await stage.bus("admin")
            await admin.ask("$JS.API.STREAM.DELETE.INDICATORS", b"")
            await topology.apply(admin, topology.plan(1, "demo"))
            again = await stage.publisher()
            await again.publish([tick(77)])
            assert "anew" in (await watcher.hears("resync"))["reason"]
            assert stage.count("resyncs_total", reason="anew") == 1
            anew_ms = await stage.epoch_ms()
            assert anew_ms > epoch_ms
            await watcher.say("sub", **sub("ticks", anew_ms))
            await watcher.hears("ticks", 2)
            assert seconds(watcher.all("ticks")[1:]) == [77]

    asyncio.run(main())


def test_a_frame_that_is_missing_resyncs(fresh_nats: NatsServer) -> None:
    """Its number tells; what comes after it is served to who took a new snapshot."""

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            publisher = await stage.publisher()
            await publisher.publish([tick(1)])
            await watcher.say("sub", **sub("ticks", await stage.epoch_ms()))
            await watcher.hears("ticks")
            gone = await publisher.publish([tick(2)])
            await watcher.hears("ticks", 2)
            publisher.n += 1
            admin = await stage.bus("admin")
            hidden = Publisher(admin, subjects.MARKET, 0)
            await hidden.publish()
            seq = await publisher.publish([tick(4)])
            assert seq == gone + 1
            # No sequence is missing, so nothing was lost on the way: the client goes on.
            await watcher.hears("ticks", 3)
            assert stage.hub.ring(subjects.INDICATORS, 0).oldest_seq == seq
            await watcher.say("sub", **sub("ticks", await stage.epoch_ms(), 0, id=2))
            assert (await watcher.hears("resync"))["id"] == 2

    asyncio.run(main())


# -- what only counts in its newest form ----------------------------------------------------------


def test_candles_closed_in_the_making_and_corrected(fresh_nats: NatsServer) -> None:
    """A provisional candle comes from the live subject alone; a correction says what to load."""

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            publisher = await stage.publisher()
            epoch_ms = await stage.epoch_ms()
            wanted = sub("candles", epoch_ms, timeframe="1m")
            await watcher.say("sub", **wanted)
            await publisher.publish([candle(1)])
            closed = (await watcher.hears("candles"))["candles"]
            assert [item["extras"] for item in closed] == [{"ema9": 1.5}]
            making = {
                "ticker": "QQQ", "timeframe": "1m", "ts_ms": candle(2).ts_ms, "open": 1.0,
                "high": 2.0, "low": 0.5, "close": 1.75, "volume": 7, "sma9": None, "vwap": 1.2,
                "ema9": 1.6, "final": False, "source": "stream", "revision": 0,
                "epoch": epoch_ms, "seq": 1, "index": 3,
            }  # fmt: skip
            other_epoch = {**making, "epoch": epoch_ms - 1, "close": 9.0}
            for message in (other_epoch, making):
                await publisher.bus.publish_live("live.candle.1m.QQQ", encode_json(message))
            shown = (await watcher.hears("provisional"))["candle"]
            assert (shown["ts_ms"], shown["close"]) == (candle(2).ts_ms, 1.75)
            assert shown["extras"] == {"ema9": 1.6}
            assert not {"final", "epoch", "ticker"} & shown.keys()
            again = [candle(n, source="history", revision=1) for n in range(2)]
            seq = await publisher.publish([correction(), *again])
            corrected = await watcher.hears("corrected")
            assert (corrected["date"], corrected["seq"]) == ("2023-11-24", seq)

    asyncio.run(main())


def test_quotes_and_status(fresh_nats: NatsServer) -> None:
    """Last price from the frames, bid and ask from the live ticks; services as they announce."""

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            publisher = await stage.publisher()
            await stage.epoch_ms()
            await watcher.say("sub", id=1, channel="quotes")
            await watcher.say("sub", id=2, channel="status")
            await publisher.publish([tick(1), tick(2)])
            said = {"ticker": "QQQ", "bid": 1.5, "ask": 1.75, "price": 9.0, "ts_ms": 1}
            await publisher.bus.publish_live("live.tick.QQQ", encode_json(said))
            expected = {"last": 102.0, "ts_ms": tick(2).ts_ms, "bid": 1.5, "ask": 1.75}
            await eventually_async(
                lambda: [m["quotes"].get("QQQ") for m in watcher.all("quotes")][-1:] == [expected],
                DEADLINE_S, "the quote",
            )  # fmt: skip
            for junk in (b"", b"[]", b'{"ticker":1}'):
                await publisher.bus.publish_live("live.tick.QQQ", junk)
                await publisher.bus.publish_live("live.candle.1m.QQQ", junk)
            status = {"service": "indicators", "instance": "ab", "partitions": 1}
            await publisher.bus.publish_live("live.status.indicators", encode_json(status))
            await eventually_async(
                lambda: {"indicators": [{"instance": "ab", "partitions": 1}]}
                in [message["services"] for message in watcher.all("status")],
                DEADLINE_S, "the status",
            )  # fmt: skip

    asyncio.run(main())


def test_the_clock_follows_the_market(fresh_nats: NatsServer) -> None:
    """Also when nothing is computed: a heartbeat on MARKET is enough."""

    async def main() -> None:
        async with staged(fresh_nats) as stage:
            await Publisher(await stage.bus("ingest"), subjects.MARKET, 0).publish()
            clock, wall = stage.hub.clock, stage.runtime.clock
            await eventually_async(
                lambda: clock.now_ms(wall.now_ms()) is not None, DEADLINE_S, "broker time"
            )
            assert abs((clock.now_ms(wall.now_ms()) or 0) - wall.now_ms()) < 5_000

    asyncio.run(main())


# -- the conversation -----------------------------------------------------------------------------


def test_hello_heartbeats_and_the_round_trip(
    fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pong is measured and told in the next heartbeat."""
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.1)

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            hello = await watcher.hears("hello")
            assert hello == {
                "op": "hello", "version": 1, "heartbeat_ms": 100, "hz": 10.0, "source": "demo",
                "simulated": True,
            }  # fmt: skip
            first = await watcher.hears("heartbeat")
            assert (first["n"], first["rtt_ms"], first["speed"]) == (1, None, 1.0)
            assert abs(first["wall_ms"] - stage.runtime.clock.now_ms()) < 5_000

            async def measured() -> bool:
                await watcher.say("pong", n=watcher.all("heartbeat")[-1]["n"])
                return watcher.all("heartbeat")[-1]["rtt_ms"] is not None

            await eventually_async(measured, DEADLINE_S, "a round trip")
            assert 0 <= watcher.all("heartbeat")[-1]["rtt_ms"] < 5_000

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not understood"),
        ('{"op":"dance","id":4}', "dance"),
        ('{"op":"rate","hz":1000}', "20"),
        (b"\x00", "binary"),
        ('{"op":"pong","n":"' + "x" * 9000 + '"}', "at most 8192 bytes"),
        ('{"op":"pong","n":"' + "\u00e9" * 5000 + '"}', "at most 8192 bytes"),
    ],
)
def test_what_means_nothing_is_answered(
    fresh_nats: NatsServer, text: str | bytes, complaint: str
) -> None:
    """With a clear error; the connection and its subscriptions live on."""

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            publisher = await stage.publisher()
            await watcher.say("sub", **sub("ticks", await stage.epoch_ms()))
            await watcher.connection.send(text)
            assert complaint in (await watcher.hears("error"))["message"]
            await publisher.publish([tick(1)])
            await watcher.hears("ticks")

    asyncio.run(main())


def test_the_rate_is_the_clients_choice(fresh_nats: NatsServer) -> None:
    """Slower means fewer messages with more in each; nothing is left out."""

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as fast, stage.watching() as slow:
            publisher = await stage.publisher()
            epoch_ms = await stage.epoch_ms()
            await fast.say("rate", hz=20)
            await slow.say("rate", hz=0.5)
            for watcher in (fast, slow):
                await watcher.say("sub", **sub("ticks", epoch_ms))
                await watcher.hears("subscribed")
            number = 0

            async def more() -> bool:
                nonlocal number
                number += 1
                await publisher.publish([tick(number)])
                return len(slow.all("ticks")) >= 2

            await eventually_async(more, DEADLINE_S, "two slow batches")
            await eventually_async(
                lambda: number in seconds(fast.all("ticks")), DEADLINE_S, "all of it, fast"
            )
            got = seconds(slow.all("ticks"))
            assert got == list(range(1, len(got) + 1))
            assert len(fast.all("ticks")) > 3 * len(slow.all("ticks"))

    asyncio.run(main())


def test_after_unsub_nothing_comes(fresh_nats: NatsServer) -> None:
    """Other subscriptions of the connection go on."""

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            publisher = await stage.publisher()
            epoch_ms = await stage.epoch_ms()
            for number in (1, 2):
                await watcher.say("sub", **sub("ticks", epoch_ms, id=number))
                await watcher.hears("subscribed", number)
            await watcher.say("unsub", id=1)
            await watcher.say("dance")
            await watcher.hears("error")
            await publisher.publish([tick(1)])
            assert (await watcher.hears("ticks"))["id"] == 2
            assert len(watcher.all("ticks")) == 1

    asyncio.run(main())


def test_a_gateway_that_starts_late_knows_the_last_frames(fresh_nats: NatsServer) -> None:
    """So a client finds what its snapshot lacks; one from before that is told to resync."""

    async def main() -> None:
        admin = await nats.connect(fresh_nats.url("admin"), name="init")
        await topology.apply(admin, topology.plan(1, "demo"))
        publisher = Publisher(admin, subjects.INDICATORS, 0)
        seqs = [await publisher.publish([tick(number)]) for number in range(20)]
        await admin.close()
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            await watcher.say("sub", **sub("ticks", await stage.epoch_ms(), seqs[9]))
            await watcher.hears("ticks")
            assert seconds(watcher.all("ticks")) == list(range(10, 20))

    asyncio.run(main())
