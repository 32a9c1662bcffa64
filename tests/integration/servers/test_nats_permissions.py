"""Tried on the real server: what each user of the bus may do, and what it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from cli.servers.nats import NatsServer
from deploy.nats.policy import (
    ADMIN,
    BACKUP,
    GATEWAY,
    NOTIFIER,
    OBSERVER,
    PUBLIC,
    inbox_prefix,
)
from libs.common.bus.link import bare_client
from tests.waiting import eventually_async

SERVICES = ["ingest", "indicators", "signals", "writer"]
OTHERS = [NOTIFIER, BACKUP, GATEWAY, OBSERVER, PUBLIC]
ANSWER_S = 2.0
FORBIDDEN = "nobody.may.publish.this"


class Visitor:
    """A connection as one user who is not `admin`, and what the server refused it, in order."""

    def __init__(self, client: Client, refused: list[str]) -> None:
        self.client = client
        self.refused = refused

    async def may_publish(self, subject: str, data: bytes = b"") -> bool:
        """Publish and tell whether the server let it through."""
        before = len(self.refused)
        await self.client.publish(subject, data)
        return await self._refusals_since(before) == 0

    async def may_subscribe(self, subject: str) -> bool:
        """Subscribe and tell whether the server let it."""
        before = len(self.refused)
        await self.client.subscribe(subject)
        return await self._refusals_since(before) == 0

    async def _refusals_since(self, before: int) -> int:
        """Count refusals up to now: a subject refused to everybody comes after what came before."""
        await self.client.publish(FORBIDDEN)
        await eventually_async(
            lambda: any(FORBIDDEN in text for text in self.refused[before:]), 5, "the refusal"
        )
        return len(self.refused) - before - 1


@asynccontextmanager
async def visit(server: NatsServer, user: str) -> AsyncIterator[Visitor]:
    """Connect as one user."""
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    prefix = inbox_prefix(user)
    client = await bare_client(server.url(user), error_cb=note, inbox_prefix=prefix)
    try:
        yield Visitor(client, refused)
    finally:
        await client.close()


@pytest.fixture
def flowing(fresh_nats: NatsServer) -> NatsServer:
    """A server with the streams of the flow and one consumer for each reader of MARKET."""

    async def make() -> None:
        async with visit(fresh_nats, ADMIN) as admin:
            jetstream = admin.client.jetstream()
            for name in ("MARKET", "INDICATORS", "SIGNALS", "STATE", "DEADLETTER"):
                subjects = [f"{name.lower()}.>"]
                config = StreamConfig(name=name, subjects=subjects, allow_direct=True)
                await jetstream.add_stream(config)
            for consumer in ("indicators-0", "writer-0"):
                wanted = ConsumerConfig(
                    durable_name=consumer, filter_subject="market.0", ack_policy=AckPolicy.ALL
                )
                await jetstream.add_consumer("MARKET", wanted)

    asyncio.run(make())
    return fresh_nats


def test_each_service_can_do_its_work(flowing: NatsServer) -> None:
    """Publish own frames, state and dead letters; read back; pull from own consumers; be refused
    nothing of it.
    """

    async def work() -> None:
        async with visit(flowing, "ingest") as ingest, visit(flowing, "indicators") as indicators:
            for visitor, subject in (
                (ingest, "market.0"),
                (ingest, "state.ingest.0"),
                (ingest, "deadletter.ingest"),
                (indicators, "indicators.7"),
                (indicators, "state.indicators.7"),
            ):
                answer = await visitor.client.request(subject, b"x", timeout=ANSWER_S)
                assert b'"seq"' in answer.data, subject
            for subject in (
                "$JS.API.STREAM.INFO.MARKET",
                "$JS.API.DIRECT.GET.MARKET.market.0",
                "$JS.API.DIRECT.GET.STATE.state.ingest.0",
            ):
                answer = await ingest.client.request(subject, b"", timeout=ANSWER_S)
                assert b"error" not in answer.data, subject
            inbox = indicators.client.new_inbox()
            pulled = await indicators.client.subscribe(inbox)
            await indicators.client.publish(
                "$JS.API.CONSUMER.MSG.NEXT.MARKET.indicators-0", b'{"batch": 1}', reply=inbox
            )
            frame = await pulled.next_msg(timeout=ANSWER_S)
            assert frame.data == b"x"
            assert await indicators.may_publish(frame.reply, b"+ACK")
            assert await indicators.may_publish("live.tick.QQQ")
            assert ingest.refused == []

    asyncio.run(work())


@pytest.mark.parametrize("user", [*SERVICES, *OTHERS])
def test_nobody_but_admin_changes_streams(flowing: NatsServer, user: str) -> None:
    """Making, updating, purging and deleting streams and consumers is refused."""

    async def attempt() -> list[str]:
        async with visit(flowing, user) as visitor:
            return [
                subject
                for subject in (
                    "$JS.API.STREAM.CREATE.MINE",
                    "$JS.API.STREAM.UPDATE.MARKET",
                    "$JS.API.STREAM.PURGE.MARKET",
                    "$JS.API.STREAM.DELETE.MARKET",
                    "$JS.API.STREAM.MSG.DELETE.MARKET",
                    "$JS.API.CONSUMER.CREATE.MARKET.mine",
                    "$JS.API.CONSUMER.DURABLE.CREATE.MARKET.mine",
                    "$JS.API.CONSUMER.DELETE.MARKET.writer-0",
                    "$JS.API.CONSUMER.PAUSE.MARKET.writer-0",
                    "$SYS.REQ.SERVER.PING",
                )
                if await visitor.may_publish(subject)
            ]

    assert asyncio.run(attempt()) == []


@pytest.mark.parametrize("user", [*SERVICES, *OTHERS])
def test_nobody_speaks_for_another_service(flowing: NatsServer, user: str) -> None:
    """Frames, state, live values, dead letters and consumers of others are refused."""

    async def attempt() -> list[str]:
        async with visit(flowing, user) as visitor:
            return [
                subject
                for owner, subject in (
                    ("ingest", "market.0"),
                    ("indicators", "indicators.0"),
                    ("signals", "signals.0"),
                    ("signals", "state.signals.0"),
                    ("signals", "live.signal.QQQ"),
                    ("indicators", "live.tick.QQQ"),
                    ("writer", "live.status.writer"),
                    ("ingest", "deadletter.ingest"),
                    ("writer", "$JS.API.CONSUMER.MSG.NEXT.MARKET.writer-0"),
                    ("writer", "$JS.API.CONSUMER.RESET.MARKET.writer-0"),
                    ("writer", "$JS.ACK.MARKET.writer-0.1.1.1.1.0"),
                    ("admin", "trades.paper"),
                    (GATEWAY, "commands.ingest"),
                )
                if owner != user and await visitor.may_publish(subject)
            ]

    assert asyncio.run(attempt()) == []


@pytest.mark.parametrize("user", SERVICES)
def test_services_hear_only_their_own_answers(flowing: NatsServer, user: str) -> None:
    """Other inboxes, frames and live subjects are refused to a service."""

    async def attempt() -> list[str]:
        others = [f"{inbox_prefix(other)}.>" for other in SERVICES if other != user]
        async with visit(flowing, user) as visitor:
            subjects = [*others, "_INBOX.>", "market.>", "live.>", ">"]
            return [subject for subject in subjects if await visitor.may_subscribe(subject)]

    assert asyncio.run(attempt()) == []


def test_the_public_hears_live_values_and_nothing_else(flowing: NatsServer) -> None:
    """Ticks, candles, signals and options reach the public; status, trades and frames do not."""

    async def listen() -> None:
        async with visit(flowing, PUBLIC) as public, visit(flowing, "indicators") as indicators:
            for subject in ("live.tick.>", "live.candle.1m.QQQ", "live.signal.*", "live.option.>"):
                assert await public.may_subscribe(subject), subject
            for subject in ("live.>", "live.trade.>", "live.status.>", "market.>", "_INBOX.>"):
                assert not await public.may_subscribe(subject), subject
            heard: list[bytes] = []

            async def hear(message: Msg) -> None:
                heard.append(message.data)

            await public.client.subscribe("live.tick.QQQ", cb=hear)

            async def tick_arrives() -> bool:
                await indicators.client.publish("live.tick.QQQ", b"600")
                return b"600" in heard

            await eventually_async(tick_arrives, 5, "a tick arrives")

    asyncio.run(listen())


def test_the_observer_reads_everything(flowing: NatsServer) -> None:
    """`status` sees streams, consumers and every subject, stored or live."""

    async def look() -> None:
        async with visit(flowing, OBSERVER) as observer:
            assert await observer.may_subscribe(">")
            jetstream = observer.client.jetstream()
            assert len(await jetstream.streams_info()) == 5
            consumers = await jetstream.consumers_info("MARKET")
            assert {consumer.name for consumer in consumers} == {"indicators-0", "writer-0"}
            assert len(observer.refused) == 1  # the subject that everybody is refused

    asyncio.run(look())


def test_the_gateway_reads_what_it_shows(flowing: NatsServer) -> None:
    """Frames by direct get and live values; it writes nothing but commands."""

    async def look() -> None:
        async with visit(flowing, "ingest") as ingest, visit(flowing, GATEWAY) as gateway:
            await ingest.client.request("market.0", b"x", timeout=ANSWER_S)
            answer = await gateway.client.request(
                "$JS.API.DIRECT.GET.MARKET", b'{"seq": 1, "next_by_subj": "market.0"}', ANSWER_S
            )
            assert answer.data == b"x"
            for stream in ("MARKET", "INDICATORS", "SIGNALS", "COMMANDS"):
                assert await gateway.may_publish(f"$JS.API.STREAM.INFO.{stream}"), stream
            assert await gateway.may_publish("commands.ingest")
            for subject in ("live.tick.>", "live.candle.>", "live.signal.>", "live.status.*"):
                assert await gateway.may_subscribe(subject), subject
            for subject in ("market.>", "live.>", "live.trade.>", "commands.>", "_INBOX.>", ">"):
                assert not await gateway.may_subscribe(subject), subject
            for subject in (
                "$JS.API.DIRECT.GET.STATE",
                "$JS.API.DIRECT.GET.COMMANDS",
                "$JS.API.STREAM.MSG.GET.MARKET",
                "live.status.gateway",
                "deadletter.gateway",
            ):
                assert not await gateway.may_publish(subject), subject

    asyncio.run(look())


@pytest.mark.parametrize("url", ["nats://{host}", "nats://ingest:guess@{host}"])
def test_strangers_are_not_let_in(nats_server: NatsServer, url: str) -> None:
    """Without a user, or with a wrong password, there is no connection."""
    address = url.format(host=nats_server.address.removeprefix("nats://"))

    async def attempt() -> None:
        client = Client()
        try:
            await client.connect(address, allow_reconnect=False, max_reconnect_attempts=0)
        finally:
            await client.close()

    with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
        asyncio.run(attempt())
