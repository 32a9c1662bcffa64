"""The browser's part of the broker's login, done by program: only ever against the simulator.

Authorize, take the code out of the redirect, exchange it, write the token file as schwab-py keeps
it. Skipped while the token at hand still opens the door.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec

from cli.servers.host import write_private
from libs.common.clock import SystemClock
from libs.common.errors import KiteError

__all__ = ["App", "LoginError", "log_in"]

_ANSWER_WAIT_S = 5.0
_POLL_S = 0.05


class LoginError(KiteError):
    """The simulator's login did not go as it should."""


@dataclass(frozen=True)
class App:
    """The application that logs in, and where."""

    base_url: str
    key: str
    secret: str
    callback: str


async def log_in(app: App, token_file: Path, *, deadline_s: float) -> bool:
    """Leave a working token in `token_file`; return False when the one in it still worked.

    Waits for the simulator to answer. Raises LoginError at the deadline or when it refuses.
    """
    async with httpx.AsyncClient(base_url=app.base_url, timeout=_ANSWER_WAIT_S) as client:
        await _answering(client, deadline_s)
        if await _still_good(client, app, token_file):
            return False
        reply = await client.get(
            "/v1/oauth/authorize",
            params={"response_type": "code", "client_id": app.key, "redirect_uri": app.callback}
            | {"state": secrets.token_urlsafe(16)},
        )
        code = parse_qs(urlsplit(reply.headers.get("location", "")).query).get("code")
        if not code:
            raise LoginError(f"the simulator gave no code: HTTP {reply.status_code}")
        grant = {"grant_type": "authorization_code", "code": code[0], "redirect_uri": app.callback}
        token = await _token(client, app, grant)
    now_s = SystemClock().now_ms() // 1000
    token["expires_at"] = now_s + int(token["expires_in"])
    text = msgspec.json.encode({"creation_timestamp": now_s, "token": token}).decode()
    write_private(token_file, text + "\n")
    return True


async def _answering(client: httpx.AsyncClient, deadline_s: float) -> None:
    """Return as soon as somebody answers, whatever the answer is."""
    end_s = time.monotonic() + deadline_s
    while True:
        try:
            await client.get("/")
        except httpx.TransportError as error:
            if time.monotonic() >= end_s:
                raise LoginError(f"the simulator does not answer: {error}") from error
            await asyncio.sleep(_POLL_S)
        else:
            return


async def _still_good(client: httpx.AsyncClient, app: App, token_file: Path) -> bool:
    """Tell whether the refresh token in the file is accepted; its file may be missing or broken."""
    try:
        kept = msgspec.json.decode(await asyncio.to_thread(token_file.read_bytes))
        refresh = kept["token"]["refresh_token"]
        await _token(client, app, {"grant_type": "refresh_token", "refresh_token": refresh})
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, LoginError):
        return False
    return True


async def _token(
    client: httpx.AsyncClient, app: App, grant: dict[str, str]
) -> dict[str, str | int]:
    reply = await client.post("/v1/oauth/token", data=grant, auth=(app.key, app.secret))
    if reply.status_code != httpx.codes.OK:
        raise LoginError(f"the simulator refuses a token: HTTP {reply.status_code}")
    return msgspec.json.decode(reply.content, type=dict[str, str | int])
