"""The steps of a login by command, as the gateway and a person with a browser take them."""

from __future__ import annotations

from typing import Any

from libs.common.broker_login import LoginTry
from libs.common.sealing import seal_for
from tests.integration.ingest.desk import answered, until
from tests.integration.ingest.stage import Stage

__all__ = ["begin", "code_of", "consent", "letter", "newest"]


async def newest(on: Stage, *states: str) -> LoginTry:
    """The login that was begun last, once it is in one of these states."""

    def holds(desk: Any) -> bool:
        found = desk.login.newest if desk.login is not None else None
        return found is not None and found.state in states

    desk = await until(on.bus, holds, f"a login that is {' or '.join(states)}")
    assert desk.login is not None
    assert desk.login.newest is not None
    return desk.login.newest


async def begin(on: Stage) -> LoginTry:
    """Begin a login."""
    answer = await answered(on.bus, "login-begin")
    assert answer.ok, answer.text
    return await newest(on, "open")


async def consent(on: Stage, login: LoginTry) -> str:
    """Open the address as a browser does and agree; returns where the browser is sent."""
    page = await on.broker.http.get(login.url)
    assert page.status_code == 302, page.text
    return str(page.headers["location"])


def letter(login: LoginTry, address: str) -> dict[str, str]:
    """The arguments that finish a login with an address."""
    return {"login": login.id, "sealed": seal_for(login.letterbox, address.encode())}


def code_of(address: str) -> str:
    """The secret part of an address."""
    return address.partition("code=")[2].partition("&")[0].removesuffix("%40")
