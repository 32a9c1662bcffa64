"""The gate, with requests made by hand: who gets through, and what the others are told."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from libs.common.clock import ManualClock
from services.gateway.security import SESSION_LIFE_MS, Gate, visitor_of
from services.gateway.settings import Settings

HOST = "127.0.0.1:8080"
OWN = f"http://{HOST}"
LISTED = "https://kite.example.com"
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA"
LOCKED = {"gateway_auth": "password", "gateway_password_hash": HASH}


class Stage:
    """A gate in front of an application that says yes to everything."""

    def __init__(self, **settings: Any) -> None:
        values: dict[str, Any] = {"gateway_origins": (LISTED,)}
        self.clock = ManualClock(1_700_000_000_000)
        self.seen: list[Any] = []
        self.gate = Gate(
            self._app,
            Settings(nats_url="nats://x", pg_dsn="postgresql://x/y", **(values | settings)),
            self.clock,
        )

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def ask(
        self,
        path: str = "/api/v1/tickers",
        method: str = "GET",
        body: tuple[bytes, ...] = (b"",),
        query: str = "",
        **headers: Any,
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body of an answer; errors as their code."""
        scope = self._scope("http", path, headers, query) | {"method": method}
        return asyncio.run(self._ask(scope, body))

    def upgrade(self, query: str = "", path: str = "/api/v1/live", **headers: Any) -> int:
        """Return the status of an upgrade that is refused, or 101."""
        scope = self._scope("websocket", path, headers, query)
        status, _, _ = asyncio.run(self._ask(scope, ()))
        return status

    def _scope(self, kind: str, path: str, headers: dict[str, str], query: str) -> dict[str, Any]:
        named = {"host": HOST} | {key.replace("_", "-"): value for key, value in headers.items()}
        return {
            "type": kind, "path": path, "scheme": "http" if kind == "http" else "ws",
            "client": ("127.0.0.1", 5), "query_string": query.encode(),
            "headers": [(key.encode(), value.encode()) for key, value in named.items()],
            "extensions": {"websocket.http.response": {}},
        }  # fmt: skip

    async def _ask(self, scope: Any, body: tuple[bytes, ...]) -> tuple[int, dict[str, str], Any]:
        pieces = [
            {"type": "http.request", "body": piece, "more_body": n < len(body) - 1}
            for n, piece in enumerate(body)
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return pieces.pop(0) if pieces else {"type": f"{scope['type']}.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.gate(scope, receive, send)
        if sent[0]["type"] == "websocket.accept":
            return 101, {}, None
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        status = sent[0]["status"]
        return status, headers, msgspec.json.decode(answer)["error"] if status >= 400 else answer


def test_without_a_login_everybody_on_this_machine_may() -> None:
    """The default: no cookie, no origin, no question."""
    assert Stage().ask()[0] == 200
    assert Stage().upgrade() == 101


def test_a_stranger_s_name_gets_nothing() -> None:
    """A page that points its own name at this machine is refused, be it reading or listening."""
    status, headers, error = Stage().ask(host="evil.com")
    assert (status, error["code"]) == (403, "wrong_host")
    assert headers["content-type"] == "application/json"
    assert "evil.com" not in headers["content-security-policy"]
    assert Stage().ask(path="/", host="evil.com")[0] == 403
    assert Stage().upgrade(host="evil.com") == 403


def test_two_hosts_are_none() -> None:
    """Nobody may choose which of two Host headers counts."""
    stage = Stage()
    scope = stage._scope("http", "/api/v1/me", {}, "") | {"method": "GET"}
    scope["headers"].append((b"host", b"localhost"))
    assert asyncio.run(stage._ask(scope, ()))[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": OWN}, 200),
        ({"origin": LISTED}, 200),
        ({}, 200),
        ({"origin": "http://evil.com"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "same-origin"}, 200),
    ],
)
def test_only_our_page_changes_or_listens(headers: dict[str, Any], status: int) -> None:
    """A POST and an upgrade come from our page, a listed one, or from a program."""
    assert Stage().ask("/api/v1/logout", "POST", **headers)[0] == status
    assert Stage().upgrade(**headers) == (101 if status == 200 else 403)


def test_what_needs_a_login() -> None:
    """Data does, the page and the questions about logging in do not."""
    stage = Stage(**LOCKED)
    for path in ("/api/v1/tickers", "/api/v1/health", "/api/v1/nothing", "/api/v1/series.csv"):
        status, _, error = stage.ask(path)
        assert (status, error["code"]) == (401, "login_required"), path
    for path in ("/", "/assets/x.js", "/api/docs", "/api/openapi.json", "/api/v1/me"):
        assert stage.ask(path)[0] == 200, path
    assert stage.upgrade() == 401


@pytest.mark.parametrize(
    "spelling",
    ["//api/v1/{}", "api/v1/{}", "/api//v1/{}", "/api/v1/{}/", "//api/v1/{}//", "/api///v1///{}"],
)
def test_no_other_spelling_of_a_path_passes(spelling: str) -> None:
    """The router reads them all alike, and so does the gate; what passes has the one spelling."""
    stage = Stage(**LOCKED)
    for name, method in (("health", "GET"), ("commands/ingest", "POST"), ("live-token", "POST")):
        assert stage.ask(spelling.format(name), method)[0] == 401, name
    assert stage.upgrade(path=spelling.format("live")) == 401
    assert stage.seen == []
    assert stage.ask(spelling.format("me"))[0] == 200
    assert stage.seen[-1]["path"] == "/api/v1/me"


def test_a_public_market_shows_the_market_only() -> None:
    """Health, commands and tokens stay behind the login."""
    stage = Stage(**LOCKED, public_market=True)
    for path in ("/api/v1/tickers", "/api/v1/series", "/api/v1/gaps.csv", "/api/v1/clock"):
        assert stage.ask(path)[0] == 200, path
    assert stage.upgrade() == 101
    assert not visitor_of(stage.seen[-1]).authenticated
    assert stage.ask("/api/v1/health")[0] == 401
    for path in ("/api/v1/live-token", "/api/v1/commands/ingest"):
        assert stage.ask(path, "POST")[0] == 401, path


def logged_in(stage: Stage, **headers: Any) -> str:
    """Begin a session as the login's handler does, and return the cookie."""
    stage.ask("/api/v1/me", **headers)
    return stage.gate.log_in(visitor_of(stage.seen[-1]))


def test_a_session_opens_until_it_ends() -> None:
    """The cookie works, for twelve hours or until the logout, and no other does."""
    stage = Stage(**LOCKED)
    cookie = logged_in(stage)
    key = cookie.partition(";")[0]
    assert stage.ask(cookie=f"other=1; {key}")[0] == 200
    assert stage.ask(cookie=key[:-1])[0] == 401
    stage.clock.advance(SESSION_LIFE_MS)
    assert stage.ask(cookie=key)[0] == 401
    key = logged_in(stage).partition(";")[0]
    stage.ask("/api/v1/logout", "POST", cookie=key)
    stage.gate.log_out(visitor_of(stage.seen[-1]))
    assert stage.ask(cookie=key)[0] == 401


def test_cookies_are_for_us_alone() -> None:
    """Off this machine only TLS carries them; scripts and other pages never see them."""
    stage = Stage(**LOCKED)
    local, remote = logged_in(stage), logged_in(stage, host="kite.example.com")
    assert local.startswith("kite=")
    assert "Secure" not in local
    assert remote.startswith("__Host-kite=")
    assert "Path=/; " in remote
    assert "Secure;" in remote
    assert "Domain" not in remote
    for cookie in (local, remote):
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie


def test_a_token_opens_one_live_connection() -> None:
    """Once, within a minute, and nothing else."""
    stage = Stage(**LOCKED)
    tokens, now_ms = stage.gate.live_tokens, stage.clock.now_ms()
    token = tokens.make(now_ms)
    assert stage.ask(query=f"token={token}")[0] == 401
    assert stage.upgrade(f"token={token}", origin="http://evil.com") == 403
    assert stage.upgrade(f"token={token}", origin=LISTED) == 101
    assert stage.upgrade(f"token={token}", origin=LISTED) == 401
    late = tokens.make(now_ms)
    stage.clock.advance(60_000)
    assert stage.upgrade(f"token={late}") == 401


def test_a_token_shows_who_one_is_where_nobody_has_to() -> None:
    """In a public market, too: whoever brings one sees how the services stand."""
    stage = Stage(**LOCKED, public_market=True)
    assert stage.upgrade() == 101
    assert not stage.gate.trusts(stage.seen[-1])
    token = stage.gate.live_tokens.make(stage.clock.now_ms())
    assert stage.upgrade(f"token={token}") == 101
    assert stage.gate.trusts(stage.seen[-1])


def test_a_live_connection_ends_with_its_login() -> None:
    """After a logout, after twelve hours; what nobody had to log in for stays."""
    stage = Stage(**LOCKED)
    key = logged_in(stage).partition(";")[0]
    assert stage.upgrade(cookie=key) == 101
    mine = stage.seen[-1]
    token = stage.gate.live_tokens.make(stage.clock.now_ms())
    assert stage.upgrade(f"token={token}") == 101
    by_token = stage.seen[-1]
    assert stage.gate.may_stay(mine)
    stage.ask("/api/v1/logout", "POST", cookie=key)
    stage.gate.log_out(visitor_of(stage.seen[-1]))
    assert not stage.gate.may_stay(mine)
    assert stage.gate.may_stay(by_token)
    stage.clock.advance(SESSION_LIFE_MS)
    assert not stage.gate.may_stay(by_token)
    for open_stage in (Stage(), Stage(**LOCKED, public_market=True)):
        assert open_stage.upgrade() == 101
        assert open_stage.gate.may_stay(open_stage.seen[-1])


def test_a_cookie_of_another_program_locks_nobody_out() -> None:
    """All that listens on this machine shares its cookies, also malformed ones."""
    stage = Stage(**LOCKED)
    key = logged_in(stage).partition(";")[0]
    for others in ('prefs={"a":1}; ', "path=/; version=1; ", "odd; =x; ;; ", 'a="b;c"; '):
        assert stage.ask(cookie=others + key)[0] == 200, others


def test_a_body_has_a_limit() -> None:
    """Announced or not, a body that is too large is refused before anybody reads it."""
    stage = Stage(gateway_body_bytes_max=1024)
    answers = [
        stage.ask("/api/v1/login", "POST", content_length="1025"),
        stage.ask("/api/v1/login", "POST", content_length="9" * 5000),
        stage.ask("/api/v1/login", "POST", content_length="-1"),
        stage.ask("/api/v1/login", "POST", (b"x" * 600, b"x" * 600)),
    ]
    assert [(status, error["code"]) for status, _, error in answers] == [(413, "too_large")] * 4
    assert stage.seen == []
    assert stage.ask("/api/v1/login", "POST", (b"ab", b"cd"))[2] == b"abcd"


def test_requests_have_a_rate() -> None:
    """Too many of one address get 429 and the time to wait; the page's files do not count."""
    stage = Stage(gateway_requests_per_minute_max=60)
    statuses = [stage.ask()[0] for _ in range(20)]
    assert statuses.count(429) > 5
    status, headers, error = stage.ask()
    assert (status, error["code"]) == (429, "too_many")
    assert stage.ask("/assets/x.js")[0] == 200
    stage.clock.advance(int(headers["retry-after"]) * 1000)
    assert stage.ask()[0] == 200


def test_live_connections_have_a_limit() -> None:
    """So many of one address, and so many of all; a closed one makes room."""
    stage = Stage(gateway_connections_per_address_max=2, gateway_connections_max=5)

    async def scene() -> None:
        leave = asyncio.Event()

        async def open_one() -> int:
            statuses: list[int] = []

            async def receive() -> Any:
                if statuses:
                    await leave.wait()
                    return {"type": "websocket.disconnect"}
                return {"type": "websocket.connect"}

            async def send(message: Any) -> None:
                statuses.append(message.get("status", 101))

            scope = stage._scope("websocket", "/api/v1/live", {}, "")
            task = asyncio.create_task(stage.gate(scope, receive, send))
            tasks.append(task)
            for _ in range(20):
                await asyncio.sleep(0)
            return statuses[0]

        tasks: list[asyncio.Task[None]] = []
        assert [await open_one() for _ in range(3)] == [101, 101, 429]
        leave.set()
        await asyncio.gather(*tasks)
        leave.clear()
        assert await open_one() == 101
        leave.set()
        await asyncio.gather(*tasks)

    asyncio.run(scene())


def test_pages_on_the_list_may_read_the_answers() -> None:
    """Browsers hand answers to listed pages of other origins, and to no other page."""
    stage = Stage()
    headers = stage.ask(origin=LISTED)[1]
    assert headers["access-control-allow-origin"] == LISTED
    assert headers["access-control-allow-credentials"] == "true"
    assert "Origin" in headers["vary"]
    assert "access-control-allow-origin" not in stage.ask(origin="http://evil.com")[1]
    preflight = stage.ask(method="OPTIONS", origin=LISTED, access_control_request_method="POST")
    assert preflight[0] == 204
    assert stage.ask(origin=LISTED, host="evil.com")[0] == 403


def test_every_answer_is_strict() -> None:
    """Refusals carry the same headers as answers."""
    for headers in (Stage().ask()[1], Stage(**LOCKED).ask()[1], Stage().ask(host="evil.com")[1]):
        assert headers["content-security-policy"].startswith("default-src 'self'; connect-src ")
        assert "'unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-opener-policy"] == "same-origin"
