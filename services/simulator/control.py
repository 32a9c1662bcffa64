"""The simulator's own endpoints: faults and ledger, for tests on this machine.

They exist only when `KITE_SIM_CONTROL_TOKEN` is set, and ask for it as a Bearer token. `POST
/sim/faults` with a JSON object changes the faults named in it, `PUT` replaces all of them, `DELETE`
ends them; each answers with what is in force. `GET /sim/ledger` tells what was sent.
"""

from __future__ import annotations

import hmac

import msgspec
from aiohttp import web

from services.simulator.faults import Faults
from services.simulator.rest import SIMULATION
from services.simulator.wire import HUB

__all__ = ["routes"]


def routes(token: str) -> list[web.RouteDef]:
    """Return the endpoints, or none without a token."""
    if not token:
        return []
    return [
        web.get("/sim/faults", _show),
        web.post("/sim/faults", _merge),
        web.put("/sim/faults", _replace),
        web.delete("/sim/faults", _clear),
        web.get("/sim/ledger", _ledger),
    ]


def _check(request: web.Request) -> None:
    expected = f"Bearer {request.app[SIMULATION].settings.sim_control_token}"
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise web.HTTPUnauthorized(text="the control token is missing or wrong\n")


async def _show(request: web.Request) -> web.Response:
    _check(request)
    plan = request.app[SIMULATION].faults
    return _json({"faults": plan.current, "struck": plan.struck})


async def _merge(request: web.Request) -> web.Response:
    _check(request)
    plan = request.app[SIMULATION].faults
    before = msgspec.to_builtins(plan.current)
    # Counters of the past are spent; only what is named now strikes again.
    return await _apply(request, {**before, "next": {}, "skip": {}})


async def _replace(request: web.Request) -> web.Response:
    _check(request)
    return await _apply(request, {})


async def _clear(request: web.Request) -> web.Response:
    _check(request)
    request.app[SIMULATION].faults.set(Faults())
    return await _show(request)


async def _apply(request: web.Request, before: dict[str, object]) -> web.Response:
    try:
        named = msgspec.json.decode(await request.read(), type=dict[str, object])
        faults = msgspec.convert({**before, **named}, Faults)
    except msgspec.MsgspecError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error
    request.app[SIMULATION].faults.set(faults)
    return await _show(request)


async def _ledger(request: web.Request) -> web.Response:
    _check(request)
    return _json(request.app[HUB].ledger.report())


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
