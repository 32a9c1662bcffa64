"""The account's REST side: a token endpoint that answers nonsense, a disk that is full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from libs.common.clock import SystemClock
from libs.common.token_file import TokenFile, TokenInvalid
from services.ingest.budget import RequestBudget
from services.ingest.schwab import Account, RequestFailed

DAY_MS = 86_400_000
NOW_MS = 1_795_185_000_000
OLD_TOKEN = {
    "access_token": "old", "refresh_token": "again", "token_type": "Bearer",
    "expires_in": 1800, "expires_at": 1,
}  # fmt: skip
LOGIN_S = 1_795_000_000
EXPIRED = {"creation_timestamp": LOGIN_S, "token": OLD_TOKEN}


def unlimited() -> RequestBudget:
    """A budget that no test here uses up."""
    return RequestBudget(100, SystemClock())


def ask(
    token_file: Path,
    token_answer: web.Response,
    heard: list[str] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[object, list[str]]:
    """Ask for minutes with an expired token; returns the outcome and the tokens that were used.

    The last of them is the one with which the library would log in to the streamer afterwards.
    `heard` gets what the account says of its refreshes; `meanwhile` happens during one.
    """
    used: list[str] = []

    async def token(_: web.Request) -> web.Response:
        meanwhile()
        return web.Response(
            status=token_answer.status,
            body=token_answer.body,
            content_type=token_answer.content_type,
        )

    async def history(request: web.Request) -> web.Response:
        used.append(request.headers["Authorization"])
        return web.json_response({"symbol": "QQQ", "empty": True, "candles": []})

    async def run() -> object:
        app = web.Application()
        app.router.add_post("/v1/oauth/token", token)
        app.router.add_get("/marketdata/v1/pricehistory", history)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        hear: Callable[[str], None] = (heard if heard is not None else []).append
        account = Account(
            "key", "secret", token_file, f"http://127.0.0.1:{port}", hear, budget=unlimited()
        )
        try:
            outcome = await _outcome(lambda: account.minutes("QQQ", NOW_MS - DAY_MS, NOW_MS))
            used.append(account.client().token_metadata.token["access_token"])
            return outcome
        finally:
            await account.forget_client()
            await runner.cleanup()

    return asyncio.run(run()), used


async def _outcome(work: Callable[[], Awaitable[object]]) -> object:
    try:
        return await work()
    except (RequestFailed, TokenInvalid) as error:
        return error


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A token that must be refreshed before it can be used."""
    path = tmp_path / "token.json"
    path.write_text(json.dumps(EXPIRED))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("body", ["<html>maintenance</html>", "[]", "null", '{"expires_in": "x"}'])
def test_nonsense_from_the_token_endpoint_is_a_failed_request(token_file: Path, body: str) -> None:
    """It is tried again later, and the token on disk stays what it was."""
    answer = web.Response(text=body, content_type="application/json")
    outcome, used = ask(token_file, answer)
    assert isinstance(outcome, Exception)
    assert used == ["old"]
    assert json.loads(token_file.read_text()) == EXPIRED


def test_a_token_that_cannot_be_saved_is_used_all_the_same(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk ends no session and hinders no login; the next refresh writes again."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TokenFile, "write", full)
    new = {**OLD_TOKEN, "access_token": "new", "expires_at": 4_000_000_000}
    outcome, used = ask(token_file, web.json_response(new))
    assert outcome == ([], 0)
    assert used == ["Bearer new", "new"]


NEW_TOKEN = {**OLD_TOKEN, "access_token": "new", "expires_at": 4_000_000_000}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, NEW_TOKEN, "renewed"),
        (400, {"error": "invalid_grant"}, "refused"),
        (503, {}, "failed"),
        (200, [], "failed"),
    ],
)
def test_every_refresh_is_told(token_file: Path, status: int, body: object, outcome: str) -> None:
    """Somebody counts them, and calls a person when the broker refuses."""
    heard: list[str] = []
    ask(token_file, web.json_response(body, status=status), heard)
    assert heard == [outcome]


def test_the_age_goes_back_to_the_login_and_stays_known(token_file: Path) -> None:
    """A refused token does not get younger because there is no client any more."""

    async def main() -> None:
        account = Account("key", "secret", token_file, None, budget=unlimited())
        assert account.token_age_s(NOW_MS) == 0
        account.client()
        await account.forget_client()
        assert account.token_age_s(NOW_MS) == 185_000

    asyncio.run(main())


def test_a_newer_login_is_taken_over_and_not_overwritten(token_file: Path) -> None:
    """Who logs in again before the old login ends needs no restart, and keeps the new one."""
    login = {
        "creation_timestamp": LOGIN_S + 600,
        "token": {**NEW_TOKEN, "access_token": "of the new login"},
    }
    heard: list[str] = []
    outcome, used = ask(
        token_file,
        web.json_response(NEW_TOKEN),
        heard,
        meanwhile=lambda: token_file.write_text(json.dumps(login)),
    )
    assert outcome == ([], 0)
    assert used == ["Bearer new", "of the new login"]
    assert json.loads(token_file.read_text()) == login
    assert heard == ["renewed"]
