"""Who is let in to the live connection, and who has to go: one client harms no other."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cli.servers.nats import NatsServer
from libs.common import subjects
from services.gateway import live
from services.gateway.answers import Refusal
from services.gateway.hub import POINTS_MAX, Limits
from tests.integration.gateway.live_stage import (
    DEADLINE_S,
    Stage,
    Watcher,
    seconds,
    staged,
    sub,
)
from tests.live_frames import signal, tick
from tests.waiting import eventually_async


def test_who_is_not_admitted_gets_an_answer(fresh_nats: NatsServer) -> None:
    """An HTTP status and the JSON of every other error."""

    async def main() -> None:
        async with staged(fresh_nats) as stage:
            stage.door.refusal = Refusal(403, "wrong_origin", "this page may not connect")
            with pytest.raises(InvalidStatus) as refused:
                await connect(stage.url)
            response = refused.value.response
            assert response.status_code == 403
            assert json.loads(response.body or b"")["error"]["code"] == "wrong_origin"
            assert stage.hub.clients == 0

    asyncio.run(main())


def test_who_talks_too_much_has_to_go(
    fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the code that says so, and a count."""
    monkeypatch.setattr(live, "REQUESTS_MAX", 10)

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            for number in range(11):
                await watcher.say("pong", n=number)
            assert await watcher.ends() == 1008
            assert stage.count("dropped_clients_total", reason="talkative") == 1

    asyncio.run(main())


def test_who_misses_signals_is_cut_off(fresh_nats: NatsServer) -> None:
    """A slow client must notice that it lacks some: 1013, come again."""

    async def main() -> None:
        limits = Limits(ring_events_max=5)
        async with staged(fresh_nats, limits=limits) as stage, stage.watching() as watcher:
            publisher = await stage.publisher(subjects.SIGNALS)
            epoch_ms = await stage.epoch_ms(subjects.SIGNALS)
            await watcher.say("sub", **sub("signals", epoch_ms))
            await publisher.publish([signal(1)])
            await watcher.hears("signals")
            await watcher.say("rate", hz=0.5)
            for number in range(2, 12):
                await publisher.publish([signal(number)])
            assert await watcher.ends() == 1013
            assert stage.count("dropped_clients_total", reason="missed") == 1

    asyncio.run(main())


def test_the_gateway_says_goodbye(fresh_nats: NatsServer) -> None:
    """Clients know that it went away and come back by themselves."""

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            await watcher.hears("hello")
            stage.hub.stop()
            assert await watcher.ends() == 1001

    asyncio.run(main())


def test_a_client_that_never_reads_harms_nobody(
    fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held for it is bounded, others get everything meanwhile, and it is cut in the end."""
    monkeypatch.setattr(live, "SEND_TIMEOUT_S", 2.0)
    monkeypatch.setattr(live, "CUT_AFTER_S", 0.1)

    async def main() -> None:
        async with staged(fresh_nats) as stage, stage.watching() as watcher:
            publisher = await stage.publisher()
            epoch_ms = await stage.epoch_ms()
            writer = await never_reading(stage)
            assert stage.http is not None
            transports = [each.transport for each in stage.http.server_state.connections]
            await watcher.say("rate", hz=20)
            await watcher.say("sub", **sub("ticks", epoch_ms))
            number, most_bytes = 0, 0

            async def more() -> bool:
                nonlocal number, most_bytes
                points = POINTS_MAX // 4
                await publisher.publish([tick(number + item) for item in range(points)])
                number += points
                held = [transport.get_write_buffer_size() for transport in transports]
                most_bytes = max(most_bytes, *held)
                await everything(watcher, number)
                return stage.count("dropped_clients_total", reason="stalled") == 1

            await eventually_async(more, 60, "the client that never reads is given up")
            assert 0 < most_bytes < 1 << 20
            assert watcher.all("resync") == []
            assert stage.hub.clients == 1
            connections = stage.http.server_state.connections
            await eventually_async(lambda: len(connections) == 1, DEADLINE_S, "cut")
            writer.transport.abort()

    asyncio.run(main())


async def everything(watcher: Watcher, count: int) -> None:
    """Wait until a client has the first so many ticks."""
    await eventually_async(
        lambda: len(seconds(watcher.all("ticks"))) >= count, DEADLINE_S, "the others' ticks"
    )
    assert seconds(watcher.all("ticks")) == list(range(count))


async def never_reading(stage: Stage) -> asyncio.StreamWriter:
    """Connect, subscribe many times, and read no byte of what comes."""
    _, writer = await asyncio.open_connection(*address(stage), limit=1)
    transport: Any = writer.transport
    transport.pause_reading()
    writer.write(
        b"GET /api/v1/live HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    await eventually_async(lambda: stage.hub.clients == 2, DEADLINE_S, "let in")
    epoch_ms = await stage.epoch_ms()
    for number in range(60):
        text = json.dumps({"op": "sub", **sub("ticks", epoch_ms, id=number)}).encode()
        writer.write(bytes([0x81, 0x80 | 126, len(text) >> 8, len(text) & 255, 0, 0, 0, 0]) + text)
    return writer


def address(stage: Stage) -> tuple[str, int]:
    """Return where the gateway listens."""
    host, _, port = stage.url.split("/")[2].partition(":")
    return host, int(port)
