"""The page of the login to the broker: a real ingest behind it, and a browser made of requests."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from cli.servers.nats import NatsServer
from libs.common.events import Tick
from services.gateway import broker_login
from tests.databases import Database
from tests.integration.gateway.running import Gateway, gateway
from tests.integration.gateway.test_auth_http import HASH, log_in
from tests.integration.ingest.login_steps import code_of
from tests.integration.ingest.stage import PARTITIONS, Stage, stage
from tests.integration.ingest.test_token_life import content_of
from tests.waiting import eventually_async

Scene = Callable[[Gateway, Stage], Awaitable[None]]
DEADLINE_S = 30.0


@pytest.fixture
def play(
    fresh_nats: NatsServer, migrated_database: Database, tmp_path: Path
) -> Callable[..., None]:
    """Run a scene in front of a gateway that asks for a login, with everything behind it."""

    def run(scene: Scene, **settings: Any) -> None:
        values: dict[str, Any] = {
            "gateway_auth": "password", "gateway_password_hash": HASH, "partitions": PARTITIONS,
        }  # fmt: skip
        address = fresh_nats.url("gateway"), migrated_database.gateway

        async def main() -> None:
            async with (
                stage(fresh_nats, tmp_path) as on,
                gateway(*address, **(values | settings)) as found,
            ):
                await scene(found, on)

        asyncio.run(main())

    return run


async def press(found: Gateway, path: str, **fields: str) -> httpx.Response:
    """Send a form of the page."""
    return await found.client.post(
        path, data=fields, headers={"Origin": found.url}, follow_redirects=True
    )


async def opened(found: Gateway) -> tuple[str, str]:
    """Begin a login by the page; returns its id and the link to the broker."""
    page = await press(found, "/schwab/begin")
    assert page.status_code == 200, page.text
    link = re.search(r'<a class="button" href="([^"]+)" target="_blank"', page.text)
    chosen = re.search(r'name="login" value="([0-9a-f]+)"', page.text)
    assert link is not None, page.text
    assert chosen is not None
    return chosen[1], html.unescape(link[1])


async def consent(on: Stage, url: str) -> str:
    """Open the link as a browser does and agree; returns where the browser is sent."""
    page = await on.broker.http.get(url)
    assert page.status_code == 302, page.text
    return str(page.headers["location"])


async def reached(found: Gateway) -> httpx.Response:
    """Return the page, once the gateway has found the bus."""

    async def page() -> httpx.Response | None:
        answer = await found.client.get("/schwab")
        return answer if answer.status_code == 200 else None

    there = await eventually_async(page, DEADLINE_S, "the page")
    assert there is not None
    return there


async def said(found: Gateway) -> str:
    """Return what the page says, once ingest has said how the login is."""

    async def known() -> str:
        text = (await found.client.get("/schwab")).text
        return text if "Next login due" in text else ""

    return await eventually_async(known, DEADLINE_S, "the login is on the page")


def test_the_whole_way(play: Callable[..., None], server_home: Path) -> None:
    """From a wrong paste to a login that runs; nothing that was pasted is shown or kept."""

    async def scene(found: Gateway, on: Stage) -> None:
        await log_in(found)
        async with on.ingest() as ingest:
            await on.until(Tick, 1)
            assert "The login works" in await said(found)
            before = on.token_file.read()["token"]
            login, url = await opened(found)
            assert (await opened(found)) == (login, url), "a second tap begins nothing"
            address = await consent(on, url)
            wrong = await press(
                found, "/schwab/finish", login=login, address=address.replace("state=", "state=x")
            )
            assert (wrong.status_code, "belongs to another login" in wrong.text) == (400, True)
            assert code_of(address) not in wrong.text
            assert "Paste it here" in wrong.text
            done = await press(found, "/schwab/finish", login=login, address=f" {address}\n")
            assert done.status_code == 200
            assert "Logged in; what runs has taken the login over; the next login" in done.text
            assert done.url.path == "/schwab"
            assert on.token_file.read()["token"]["refresh_token"] != before["refresh_token"]
            again = await press(found, "/schwab/finish", login=login, address=address)
            assert "Logged in" in again.text
            assert ingest.metric("kite_ingest_logins_total", outcome="done") == 1
            assert found.metric("gateway_commands_total", service="ingest") == 4
            stored = await asyncio.to_thread(content_of, server_home)
            assert login.encode() in stored, "the streams were not looked at"
            for secret in (code_of(address), *on.secrets()):
                assert secret.encode() not in stored

    play(scene)


@pytest.mark.parametrize(
    ("pasted", "told"),
    [
        ("", "Paste the address line"),
        ("x" * 5000, "Paste the address line"),
        ("https://evil.example/?code=C0.canary&state=x", "does not begin with"),
        ("https://127.0.0.1:8182/", "no code"),
        ("<script>canary</script>", "does not begin with"),
    ],
)
def test_what_is_pasted_wrongly(play: Callable[..., None], pasted: str, told: str) -> None:
    """One line says what to do, the form is still there, and what was pasted is not."""

    async def scene(found: Gateway, on: Stage) -> None:
        await log_in(found)
        async with on.ingest():
            await said(found)
            login, _ = await opened(found)
            page = await press(found, "/schwab/finish", login=login, address=pasted)
            assert (page.status_code, told in page.text) == (400, True), page.text
            assert "Paste it here" in page.text
            assert "canary" not in page.text
            other = await press(
                found, "/schwab/finish", login="0" * 16, address="https://x/?code=1"
            )
            assert (other.status_code, "older login" in other.text) == (409, True)

    play(scene)


def test_strangers_and_other_pages_get_nothing(play: Callable[..., None]) -> None:
    """Without a session a page that leads to the login; with one, but from elsewhere, a refusal."""

    async def scene(found: Gateway, on: Stage) -> None:
        async with on.ingest():
            for method, path in (
                ("GET", "/schwab"), ("GET", "//schwab/"), ("POST", "/schwab/begin"),
                ("POST", "/schwab/finish"),
            ):  # fmt: skip
                answer = await found.client.request(
                    method, f"{found.url}{path}", headers={"Origin": found.url}
                )
                assert answer.status_code == 401, path
                assert "Log in to the gateway first" in answer.text
                assert "broker at" not in answer.text
            await log_in(found)
            await said(found)
            for origin in ("http://evil.example", "null"):
                strange = await found.client.post("/schwab/begin", headers={"Origin": origin})
                assert strange.status_code == 403
                assert strange.json()["error"]["code"] == "wrong_origin"
            assert "Paste it here" not in await said(found)
            page = await found.client.get("/schwab")
            assert page.headers["cache-control"] == "no-store"
            assert "default-src 'self'" in page.headers["content-security-policy"]
            assert page.headers["referrer-policy"] == "same-origin"

    play(scene)


def test_without_a_login_of_its_own_the_gateway_changes_nothing(play: Callable[..., None]) -> None:
    """As with commands: the page shows how the login is, and says what is missing."""

    async def scene(found: Gateway, on: Stage) -> None:
        async with on.ingest():
            assert "KITE_GATEWAY_AUTH=password" in await said(found)
            for path in ("begin", "finish"):
                page = await press(found, f"/schwab/{path}", login="x", address="https://x/?code=1")
                assert page.status_code == 403
                assert "Paste it here" not in page.text
            assert found.metric("gateway_commands_total", service="ingest") == 0

    play(scene, gateway_auth="none", gateway_password_hash="")


def test_ingest_is_away(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first start, and after its end: one line says so, and nothing is promised."""
    monkeypatch.setattr(broker_login, "_ANSWER_WAIT_S", 0.5)

    async def scene(found: Gateway, on: Stage) -> None:
        await log_in(found)
        assert "has not said how the login is" in (await reached(found)).text
        async with on.ingest():
            await said(found)
        page = await press(found, "/schwab/begin")
        assert (page.status_code, "ngest did not answer" in page.text) == (503, True)

    play(scene)


def test_a_restart_of_ingest_in_between(play: Callable[..., None]) -> None:
    """Whoever was at the broker meanwhile is told to begin again."""

    async def scene(found: Gateway, on: Stage) -> None:
        await log_in(found)
        async with on.ingest():
            await said(found)
            login, url = await opened(found)
            address = await consent(on, url)
        async with on.ingest() as ingest:
            page = await press(found, "/schwab/finish", login=login, address=address)
            assert "restarted meanwhile" in page.text, page.text
            assert "Log in again" in page.text
            assert ingest.metric("kite_ingest_logins_total", outcome="lost") == 1

    play(scene)


def test_bodies_that_are_no_forms(play: Callable[..., None]) -> None:
    """Whatever is sent, the answer is the page."""

    async def scene(found: Gateway, on: Stage) -> None:
        await log_in(found)
        await reached(found)
        for body in (b"", b"\xff\xfe=1", b"&" * 100, b"a=1&" * 100, b"[" * 5000,
                     f"login={quote('<b>')}&address=x".encode()):  # fmt: skip
            answer = await found.client.post(
                "/schwab/finish", content=body, headers={"Origin": found.url}
            )
            assert answer.status_code in (400, 409), answer.text
            assert "<h1>Broker login</h1>" in answer.text
            assert "<b>" not in answer.text

    play(scene)
