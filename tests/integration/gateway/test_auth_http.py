"""Logging in over HTTP: cookies, throttling, tokens, and commands that reach their stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import websockets
from argon2 import PasswordHasher
from websockets import Origin
from websockets.asyncio.client import ClientConnection, connect

from cli.servers.nats import NatsServer
from libs.common.commands import read_command
from libs.common.events import TickIndicator
from services.gateway import live
from tests.databases import Database, connected
from tests.integration.gateway.running import DAY, SESSION, Gateway, add_ticks, fill, gateway
from tests.integration.writer.stage import Feed, feed
from tests.waiting import eventually_async
from tests.writer_frames import TS_MS

PASSWORD = "correct horse battery"
# Cheap to check, for a test that is not about how hard it is to guess.
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)

Scene = Callable[[Gateway, Feed], Awaitable[None]]


def play(server: NatsServer, database: Database, scene: Scene, **settings: Any) -> None:
    """Run a scene against a gateway that asks for a login."""
    values: dict[str, Any] = {"gateway_auth": "password", "gateway_password_hash": HASH}

    async def run() -> None:
        await fill(database.owner)
        async with (
            feed(server) as source,
            gateway(server.url("gateway"), database.gateway, **(values | settings)) as found,
        ):
            await scene(found, source)

    asyncio.run(run())


async def post(found: Gateway, path: str, body: object = None, **headers: str) -> Any:
    """Send JSON as a page of ours would."""
    return await found.client.post(
        f"/api/v1/{path}", json=body, headers={"Origin": found.url} | headers
    )


async def log_in(found: Gateway) -> None:
    """Log in; the client keeps the cookie."""
    assert (await post(found, "login", {"password": PASSWORD})).status_code == 204


def live_url(found: Gateway, query: str = "") -> str:
    """Return the address of live connections."""
    return found.url.replace("http", "ws") + "/api/v1/live" + query


def test_a_session_from_login_to_logout(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Nothing before, everything after, nothing again."""

    async def scene(found: Gateway, _: Feed) -> None:
        assert await found.refusal("tickers") == (401, "login_required", None)
        me = await found.get("me")
        assert (me["auth"], me["authenticated"], me["simulated"]) == ("password", False, True)
        await log_in(found)
        assert (await found.get("me"))["authenticated"] is True
        assert len((await found.get("tickers"))["tickers"]) == 2
        assert found.metric("gateway_logins_total", outcome="accepted") == 1
        stolen = dict(found.client.cookies)
        assert (await post(found, "logout")).status_code == 204
        assert (await found.get("me"))["authenticated"] is False
        found.client.cookies.update(stolen)
        assert (await found.get("me"))["authenticated"] is False

    play(fresh_nats, migrated_database, scene)


def test_wrong_passwords_wait_longer_and_longer(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """After three, even the right one has to wait; what was sent is said nowhere."""

    async def scene(found: Gateway, _: Feed) -> None:
        answers = [await post(found, "login", {"password": f"guess {n}"}) for n in range(3)]
        assert [answer.status_code for answer in answers] == [401] * 3
        assert answers[0].json()["error"] == {
            "code": "wrong_password", "message": "that is not the password",
            "parameter": "password",
        }  # fmt: skip
        waiting = await post(found, "login", {"password": PASSWORD})
        assert (waiting.status_code, waiting.json()["error"]["code"]) == (429, "too_many")
        assert int(waiting.headers["retry-after"]) >= 1

        async def may_try() -> bool:
            answer = await post(found, "login", {"password": PASSWORD})
            return bool(answer.status_code == 204)

        await eventually_async(may_try, 10, "the wait is over")

    play(fresh_nats, migrated_database, scene)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"password":1}', b'{"password":""}', b'{"password":"x","a":1}',
     b"\xff\xfe", b'{"password":"' + b"x" * 2000 + b'"}', b"[" * 5000],
)  # fmt: skip
def test_a_login_that_is_none(
    fresh_nats: NatsServer, migrated_database: Database, body: bytes
) -> None:
    """Whatever is sent, the answer is a 400 of the usual form."""

    async def scene(found: Gateway, _: Feed) -> None:
        answer = await found.client.post("/api/v1/login", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] in ("bad_parameter", "bad_request")

    play(fresh_nats, migrated_database, scene)


def test_other_pages_get_nothing(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """Neither a POST nor an upgrade from another origin passes, even with the cookie."""

    async def scene(found: Gateway, _: Feed) -> None:
        await log_in(found)
        strange = await post(
            found, "commands/ingest", {"command": "halt"}, Origin="http://evil.com"
        )
        assert (strange.status_code, strange.json()["error"]["code"]) == (403, "wrong_origin")
        cookie = "; ".join(f"{name}={value}" for name, value in found.client.cookies.items())
        headers = {"Cookie": cookie}
        with pytest.raises(websockets.InvalidStatus) as caught:
            await connect(
                live_url(found), origin=Origin("http://evil.com"), additional_headers=headers
            )
        assert caught.value.response.status_code == 403
        assert msgspec.json.decode(caught.value.response.body)["error"]["code"] == "wrong_origin"
        async with connect(live_url(found), additional_headers=headers) as socket:
            assert msgspec.json.decode(await socket.recv())["op"] == "hello"

    play(fresh_nats, migrated_database, scene)


def test_a_token_opens_one_live_connection(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """A page on the list of another site listens with a token, once."""

    async def scene(found: Gateway, _: Feed) -> None:
        assert (await post(found, "live-token")).status_code == 401
        await log_in(found)
        made = (await post(found, "live-token")).json()
        assert made["expires_ms"] > found.runtime.clock.now_ms()
        url = live_url(found, f"?token={made['token']}")
        async with connect(url, origin=Origin("https://kite.example.com")) as socket:
            assert msgspec.json.decode(await socket.recv())["op"] == "hello"
        with pytest.raises(websockets.InvalidStatus) as caught:
            await connect(url, origin=Origin("https://kite.example.com"))
        assert caught.value.response.status_code == 401

    play(fresh_nats, migrated_database, scene, gateway_origins=("https://kite.example.com",))


def test_a_command_reaches_its_stream(fresh_nats: NatsServer, migrated_database: Database) -> None:
    """Behind the login it is stored for the service; what is no command is refused."""

    async def scene(found: Gateway, source: Feed) -> None:
        assert (await post(found, "commands/ingest", {"command": "halt"})).status_code == 401
        await log_in(found)
        body = {"command": "tickers-add", "arguments": {"tickers": ["QQQ"]}}
        stored = await post(found, "commands/ingest", body)
        assert (stored.status_code, stored.json()) == (202, {"seq": 1})
        message = await source.bus.last("COMMANDS", "commands.ingest")
        assert message is not None
        command = msgspec.json.decode(message.data)
        assert (command["command"], command["arguments"]) == ("tickers-add", body["arguments"])
        for path, wrong in (
            ("commands/gateway", {"command": "halt"}),
            ("commands/ingest", {"command": "Halt!"}),
            ("commands/ingest", {"arguments": {}}),
            ("commands/ingest", {"command": "halt", "arguments": []}),
        ):
            answer = await post(found, path, wrong)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_parameter")
        large = {"command": "halt", "arguments": {"x": "x" * 20_000}}
        assert (await post(found, "commands/ingest", large)).status_code == 413

    play(fresh_nats, migrated_database, scene)


def test_a_command_with_an_id_is_stored_once(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Whoever got no answer sends it again and is answered as the first time; also in pairs."""

    async def scene(found: Gateway, source: Feed) -> None:
        await log_in(found)
        body = {"command": "tickers-add", "arguments": {"tickers": ["QQQ"]}, "id": "a 1ö\r\n"}
        replies = await asyncio.gather(*(post(found, "commands/ingest", body) for _ in range(4)))
        assert {(reply.status_code, reply.json()["seq"]) for reply in replies} == {(202, 1)}
        message = await source.bus.last("COMMANDS", "commands.ingest")
        assert message is not None
        assert (message.seq, read_command(message.data).id) == (1, body["id"])
        # The same id for another service is another command, and so is one without an id.
        assert (await post(found, "commands/writer", body)).json() == {"seq": 2}
        del body["id"]
        assert (await post(found, "commands/ingest", body)).json() == {"seq": 3}
        assert (await post(found, "commands/ingest", body)).json() == {"seq": 4}
        for wrong in ("x" * 65, 7, None):
            answer = await post(found, "commands/ingest", {**body, "id": wrong})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_parameter")

    play(fresh_nats, migrated_database, scene)


def test_no_other_spelling_opens_anything(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Slashes more or less lead to the same place, and to the same question."""

    async def scene(found: Gateway, _: Feed) -> None:
        for path in ("//api/v1/health", "/api//v1/health", "/%61pi/v1//health/"):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(found.url[-5:]))
            host = found.url.removeprefix("http://")
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == b"401", path
            writer.close()

    play(fresh_nats, migrated_database, scene)


def test_logging_out_ends_live_connections(
    fresh_nats: NatsServer, migrated_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a heartbeat, with the code that says that one may not."""
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.05)

    async def scene(found: Gateway, _: Feed) -> None:
        await log_in(found)
        cookie = "; ".join(f"{name}={value}" for name, value in found.client.cookies.items())
        async with connect(live_url(found), additional_headers={"Cookie": cookie}) as socket:
            assert msgspec.json.decode(await socket.recv())["op"] == "hello"
            await post(found, "logout")
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1008, "logged out")

    play(fresh_nats, migrated_database, scene)


def test_without_a_login_there_are_no_commands(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """An open gateway shows, and changes nothing."""

    async def scene(found: Gateway, _: Feed) -> None:
        answer = await post(found, "commands/ingest", {"command": "halt"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "login_required")
        assert (await post(found, "login", {"password": "x"})).status_code == 400

    play(fresh_nats, migrated_database, scene, gateway_auth="none", gateway_password_hash="")


def test_a_public_market_needs_no_login(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """Market data and the live connection are open, the rest is not."""

    async def scene(found: Gateway, _: Feed) -> None:
        await found.get("series", ticker="QQQ", date=str(DAY), timeframe="1m")
        assert await found.refusal("health") == (401, "login_required", None)
        async with connect(live_url(found)) as socket:
            assert msgspec.json.decode(await socket.recv())["op"] == "hello"
            await socket.send('{"op": "sub", "id": 7, "channel": "status"}')
            refused = msgspec.json.decode(await said(socket, "error"))
            assert (refused["id"], refused["message"]) == (7, "status: log in first")
            await socket.send('{"op": "sub", "id": 8, "channel": "quotes"}')
            assert msgspec.json.decode(await said(socket, "subscribed"))["id"] == 8

    async def said(socket: ClientConnection, op: str) -> str | bytes:
        async for text in socket:
            if msgspec.json.decode(text)["op"] == op:
                return text
        raise AssertionError(f"the gateway left before it said {op}")

    play(fresh_nats, migrated_database, scene, public_market=True)


def test_snapshot_then_live_without_a_gap_or_a_double(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """A client reads a series, subscribes from where it ends, and has every later tick once."""

    def tick(n: int) -> TickIndicator:
        return TickIndicator("QQQ", SESSION.close_ms + n * 1000, 500.0 + n, None, 500.0)

    async def scene(found: Gateway, source: Feed) -> None:
        source.advance(SESSION.close_ms - TS_MS)
        for n in range(1, 6):
            await source.send("INDICATORS", 0, [tick(n)])
        created_ms = (await source.bus.stream("INDICATORS")).created_ms
        # The writer is as far as the third of them.
        async with connected(migrated_database.owner) as connection:
            await add_ticks(
                connection, "QQQ", [(tick(n).ts_ms, tick(n).price) for n in range(1, 4)]
            )
            await connection.execute(
                "UPDATE stream_positions SET seq = 3, stream_created_ms = $1 "
                "WHERE stream = 'INDICATORS'",
                created_ms,
            )
        series = await found.get("series", ticker="QQQ", date=str(DAY), timeframe="tick")
        got = series["price"][-3:]
        assert (series["last_seq"], series["epoch_ms"]) == (3, created_ms)
        async with connect(live_url(found)) as socket:
            await socket.send(
                msgspec.json.encode(
                    {"op": "sub", "id": 1, "channel": "ticks", "ticker": "QQQ",
                     "epoch_ms": created_ms, "from_seq": series["last_seq"]}
                ).decode()
            )  # fmt: skip
            for n in range(6, 9):
                await source.send("INDICATORS", 0, [tick(n)])
            while len(got) < 8:
                message = msgspec.json.decode(await asyncio.wait_for(socket.recv(), 10))
                assert message["op"] != "resync", message
                if message["op"] == "ticks":
                    got += message["price"]
        assert got == [500.0 + n for n in range(1, 9)]
        assert (await found.get("tickers"))["tickers"][0]["last"] == 508.0

    play(fresh_nats, migrated_database, scene, gateway_auth="none", gateway_password_hash="")


def test_live_connections_are_told_when_it_stops(
    fresh_nats: NatsServer, migrated_database: Database
) -> None:
    """A stop closes them with 1001, so that a page knows to come back."""

    async def scene(found: Gateway, feed_: Feed) -> None:
        socket = await connect(live_url(found))
        await socket.recv()
        await found.stop()
        under_way = [message async for message in socket]  # ends with the connection
        assert len(under_way) < 10
        assert socket.close_code == 1001

    play(fresh_nats, migrated_database, scene, gateway_auth="none", gateway_password_hash="")
