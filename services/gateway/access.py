"""The REST interface: logging in and out, tokens for live connections, and commands."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from libs.common import subjects
from libs.common.commands import CommandId, CommandName
from services.gateway import answers
from services.gateway.answers import Refused
from services.gateway.api import REFUSALS, responses
from services.gateway.auth import PASSWORD_LENGTH_MAX
from services.gateway.http import JSON, json_answer
from services.gateway.security import Gate, visitor_of

__all__ = ["HANDLERS", "VERSION"]

AnyRequest = Request[Any, Any, Any]

VERSION = "0.1.0"
# Checking a password takes 64 MiB for a moment.
_CHECKS_AT_ONCE_MAX = 2
_ARGUMENTS_BYTES_MAX = 16 * 1024
_checks = asyncio.Semaphore(_CHECKS_AT_ONCE_MAX)


class Login(Struct, frozen=True, forbid_unknown_fields=True):
    """What a login sends."""

    password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    """What a service shall do; it decides what it understands.

    Whoever chooses an `id` may send the same again when no answer came: it is done once.
    """

    command: CommandName
    arguments: dict[str, Any] = {}
    id: CommandId = ""


class Accepted(Struct, frozen=True):
    """The command is stored; `seq` is its number."""

    seq: int


_DONE = {204: ResponseSpec(None, description="Done"), **REFUSALS}


def _gate(state: State) -> Gate:
    gate: Gate = state.admission
    return gate


def _require_login(request: AnyRequest) -> None:
    """Refuse strangers again, should the gate ever let one pass."""
    if not visitor_of(request.scope).authenticated:
        raise Refused(401, "login_required", "log in first")


@post(
    "/login", opt={"body": "password"}, responses=_DONE, tags=["access"], summary="Log in",
    status_code=204,
)  # fmt: skip
async def login(request: AnyRequest, state: State, data: JSONBody[Login]) -> Response[None]:
    """Begin a session: the answer sets a cookie that lasts 12 hours."""
    if state.settings.gateway_auth == "none":
        raise Refused(400, "no_login", "this gateway asks for no login: just go on")
    gate, visitor, now_ms = _gate(state), visitor_of(request.scope), state.wall.now_ms()
    wait_ms = gate.logins.begin(visitor.address, now_ms)
    if wait_ms > 0:
        wait_s = -(-wait_ms // 1000)
        state.logins.labels("throttled").inc()
        raise Refused(
            429, "too_many", f"too many wrong passwords: wait {wait_s} s", retry_after_s=wait_s
        )
    async with _checks:
        fits = await asyncio.to_thread(state.password.fits, data.password)
    state.logins.labels("accepted" if fits else "refused").inc()
    if not fits:
        raise Refused(401, "wrong_password", "that is not the password", parameter="password")
    gate.logins.succeeded(visitor.address)
    return Response(None, status_code=204, headers={"Set-Cookie": gate.log_in(visitor)})


@post("/logout", responses=_DONE, tags=["access"], summary="Log out", status_code=204)
async def logout(request: AnyRequest, state: State) -> Response[None]:
    """End the session."""
    cookie = _gate(state).log_out(visitor_of(request.scope))
    return Response(None, status_code=204, headers={"Set-Cookie": cookie})


@get("/me", responses=responses(answers.Me), tags=["access"], summary="Who am I here?")
async def me(request: AnyRequest, state: State) -> Response[bytes]:
    """Whether a login is needed, and whose data this is."""
    settings = state.settings
    found = answers.Me(
        auth=settings.gateway_auth,
        authenticated=visitor_of(request.scope).authenticated,
        public_market=settings.public_market,
        source=settings.source,
        simulated=settings.source != "schwab",
        version=VERSION,
    )
    return await json_answer(request, msgspec.json.encode(found), cache="no-store")


@post(
    "/live-token", responses=responses(answers.LiveToken), tags=["access"], status_code=200,
    summary="A token for one live connection",
)  # fmt: skip
async def live_token(request: AnyRequest, state: State) -> Response[bytes]:
    """A token for `/api/v1/live?token=`: valid once, within a minute."""
    _require_login(request)
    tokens, now_ms = _gate(state).live_tokens, state.wall.now_ms()
    found = answers.LiveToken(tokens.make(now_ms), now_ms + tokens.life_ms)
    return await json_answer(request, msgspec.json.encode(found), cache="no-store")


@post(
    "/commands/{service:str}", responses=responses(Accepted, status=202), tags=["access"],
    status_code=202, opt={"body": "command"}, summary="Tell a service what to do",
)  # fmt: skip
async def command(
    request: AnyRequest,
    state: State,
    service: FromPath[Literal["ingest", "indicators", "signals", "writer"]],
    data: JSONBody[Command],
) -> Response[bytes]:
    """Store a command for a service; only behind a login."""
    if state.settings.gateway_auth == "none":
        message = "commands need a login: set KITE_GATEWAY_AUTH=password"
        raise Refused(403, "login_required", message)
    _require_login(request)
    body = msgspec.json.encode({**msgspec.to_builtins(data), "sent_ms": state.wall.now_ms()})
    if len(body) > _ARGUMENTS_BYTES_MAX:
        raise Refused(413, "too_large", f"a command holds at most {_ARGUMENTS_BYTES_MAX} bytes")
    message_id = _message_id(service, data.id)
    seq = await state.bus.append(subjects.command_subject(service), body, message_id=message_id)
    state.commands.labels(service).inc()
    return Response(msgspec.json.encode(Accepted(seq)), status_code=202, media_type=JSON)


def _message_id(service: str, command_id: str) -> str:
    """Return what the stream knows a repeated command by: a header, so it has to be a plain word.

    Two services may be given the same id.
    """
    if not command_id:
        return ""
    return hashlib.sha256(f"{service} {command_id}".encode()).hexdigest()


HANDLERS = [login, logout, me, live_token, command]
