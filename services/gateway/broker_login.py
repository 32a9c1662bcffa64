"""The weekly login to the broker, through the gateway: asks ingest, and shows what it says.

The gateway holds neither the app's secret nor a token, and keeps nothing of a login: the page is
made of ingest's desk each time, so it may be loaded again, on another device too. What a person
pastes is sealed for ingest at once; the bus, its files and everybody who may read them get that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from litestar import Request, Response, get, post
from litestar.datastructures import State
from msgspec import Struct

from libs.common.asking import Way, answered, read_desk, send
from libs.common.broker_login import BEGIN, FINISH, BrokerLogin, LoginTry
from libs.common.clock import Clock
from libs.common.commands import Answer
from libs.common.errors import BusError, Doubt
from libs.common.sealing import seal_for
from libs.common.telemetry import get_logger
from services.gateway.broker_page import (
    BEGIN_PATH,
    FINISH_PATH,
    PATH,
    STYLE,
    STYLE_PATH,
    render,
)
from services.gateway.security import visitor_of

__all__ = ["HANDLERS", "BrokerDesk"]

AnyRequest = Request[Any, Any, Any]

_SERVICE = "ingest"
_ANSWER_WAIT_S = 15.0
# After that the page goes on waiting by itself.
_EXCHANGE_WAIT_S = 5.0
_EXCHANGE_POLL_S = 0.1
_ADDRESS_CHARS_MAX = 4096
_FIELDS_MAX = 8

# A form's POST has an Origin only if its page may say where it is from.
_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
_AWAY = "the bus is away at the moment: try again in a few seconds"
_UNSURE = "the bus did not confirm it: look below how far the login is, then go on"
_SILENT = (
    f"ingest did not answer within {_ANSWER_WAIT_S:.0f} s: it is down or starting. When it runs, "
    "begin again"
)
_NO_ADDRESS = "paste the address line of the browser, all of it"
_OTHER = "that page was of an older login; go on with this one, or begin again"


class _Desk(Struct, frozen=True, kw_only=True):
    """What of ingest's desk is shown here."""

    login: BrokerLogin | None = None


class BrokerDesk:
    """The way to ingest; raises BusError."""

    def __init__(self, bus: Way, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock

    async def login(self) -> BrokerLogin | None:
        """Return how the login is; None if ingest has not said so yet."""
        desk = await read_desk(self._bus, _SERVICE, _Desk)
        return None if desk is None else desk.login

    async def newest(self) -> LoginTry | None:
        """Return the login that was begun last."""
        login = await self.login()
        return None if login is None else login.newest

    async def ask(self, command: str, arguments: Mapping[str, str]) -> Answer | None:
        """Give a command and wait for its answer; None if there is none in time."""
        place = await send(self._bus, _SERVICE, command, arguments, self._clock.now_ms())
        return await answered(self._bus, _SERVICE, *place, _ANSWER_WAIT_S)

    async def exchanged(self) -> None:
        """Wait a moment for a login that is being finished."""
        deadline_s = asyncio.get_running_loop().time() + _EXCHANGE_WAIT_S
        while asyncio.get_running_loop().time() < deadline_s:
            newest = await self.newest()
            if newest is None or newest.state != "exchanging":
                return
            await asyncio.sleep(_EXCHANGE_POLL_S)


def _may_change(request: AnyRequest, state: State) -> bool:
    """Tell whether this visitor may log in here: as with commands, only behind a login."""
    return state.settings.gateway_auth != "none" and visitor_of(request.scope).authenticated


async def _page(
    request: AnyRequest, state: State, notice: str = "", status: int = 200
) -> Response[bytes]:
    desk: BrokerDesk = state.broker_desk
    try:
        login = await desk.login()
    except BusError as error:
        get_logger().warning("gateway.unavailable", error=str(error), path=request.url.path)
        login, notice, status = None, _AWAY, 503
    may_change = _may_change(request, state)
    body = render(login, state.wall.now_ms(), may_change=may_change, notice=notice)
    return Response(body, status_code=status, media_type="text/html", headers=_HEADERS)


def _shown_anew() -> Response[bytes]:
    """Lead to the page, so that loading it again repeats nothing."""
    return Response(b"", status_code=303, headers=_HEADERS | {"Location": PATH})


async def _changed(
    request: AnyRequest, state: State, command: str, arguments: Mapping[str, str]
) -> Response[bytes]:
    """Give ingest a command, and show what came of it."""
    desk: BrokerDesk = state.broker_desk
    try:
        answer = await desk.ask(command, arguments)
        state.commands.labels(_SERVICE).inc()
        if answer is not None and answer.ok:
            await desk.exchanged()
            return _shown_anew()
    except Doubt:
        return await _page(request, state, _UNSURE, 503)
    except BusError:
        return await _page(request, state, _AWAY, 503)
    if answer is None:
        return await _page(request, state, _SILENT, 503)
    return await _page(request, state, answer.text, 400)


@get(STYLE_PATH, include_in_schema=False, sync_to_thread=False)
def style() -> Response[bytes]:
    """Return the looks of the page."""
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "no-cache"})


@get(PATH, include_in_schema=False)
async def show(request: AnyRequest, state: State) -> Response[bytes]:
    """Show how the login is, and how to make the next one."""
    return await _page(request, state)


@post(BEGIN_PATH, include_in_schema=False)
async def begin(request: AnyRequest, state: State) -> Response[bytes]:
    """Begin a login."""
    if not _may_change(request, state):
        return await _page(request, state, status=403)
    return await _changed(request, state, BEGIN, {})


@post(FINISH_PATH, include_in_schema=False)
async def finish(request: AnyRequest, state: State) -> Response[bytes]:
    """Hand ingest the address at which the browser ended."""
    if not _may_change(request, state):
        return await _page(request, state, status=403)
    given = _form(await request.body())
    address = given.get("address", "").strip()
    if not 0 < len(address) <= _ADDRESS_CHARS_MAX:
        return await _page(request, state, _NO_ADDRESS, 400)
    desk: BrokerDesk = state.broker_desk
    try:
        newest = await desk.newest()
    except BusError:
        return await _page(request, state, _AWAY, 503)
    if newest is None or newest.id != given.get("login"):
        return await _page(request, state, _OTHER, 409)
    if newest.state != "open":
        return _shown_anew()  # a second tap: the page says what became of the first
    sealed = seal_for(newest.letterbox, address.encode())
    return await _changed(request, state, FINISH, {"login": newest.id, "sealed": sealed})


def _form(body: bytes) -> dict[str, str]:
    """Return the fields of a form, each once; nothing of what is no form."""
    try:
        fields = parse_qs(body.decode(), max_num_fields=_FIELDS_MAX)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


HANDLERS = [style, show, begin, finish]
