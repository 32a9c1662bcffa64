"""The broker's HTTP side: OAuth, user preference, price history, quotes, market hours."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import uuid
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec
from aiohttp import web

from libs.common import calendar
from libs.common.errors import CalendarError
from services.simulator import history, hours, quotes
from services.simulator.oauth import OAuthError
from services.simulator.simulation import Simulation

__all__ = ["SIMULATION", "middleware", "routes"]

SIMULATION: web.AppKey[Simulation] = web.AppKey("simulation", Simulation)

_DENIED_PAGE = "<!doctype html><title>Access Denied</title><h1>Access Denied</h1>"
_DAYS_PER_STEP = 2

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes() -> list[web.RouteDef]:
    """Return every path of the broker's API that exists here."""
    return [
        web.get("/v1/oauth/authorize", _authorize),
        web.post("/v1/oauth/token", _token),
        web.get("/trader/v1/userPreference", _user_preference),
        web.get("/marketdata/v1/pricehistory", _price_history),
        web.get("/marketdata/v1/quotes", _quotes),
        web.get("/marketdata/v1/{symbol}/quotes", _quote),
        web.get("/marketdata/v1/markets", _markets),
        web.get("/marketdata/v1/markets/{market}", _markets),
    ]


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check token and rate of API calls, and turn refusals into the broker's error bodies."""
    simulation = request.app[SIMULATION]
    if not request.path.startswith(("/trader/", "/marketdata/")):
        return await handler(request)
    if simulation.faults.current.rest_delay_s:
        await asyncio.sleep(simulation.faults.current.rest_delay_s)
    if simulation.faults.current.rest_status:
        return _out_of_order(simulation.faults.current.rest_status)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not simulation.token_valid(token):
        return _error(request, 401, "Unauthorized", "Client not authorized")
    if not simulation.request_allowed():
        return _too_many(request)
    try:
        response = await handler(request)
    except history.BadRequest as error:
        source = {"parameter": error.parameter}
        return _error(request, 400, "Bad Request", error.detail, source)
    except (CalendarError, OverflowError) as error:
        return _error(request, 400, "Bad Request", str(error))
    except web.HTTPException as error:
        return _error(request, error.status, error.reason, error.reason)
    response.headers["Date"] = formatdate(simulation.now_ms() / 1000, usegmt=True)
    response.headers["Schwab-Client-CorrelId"] = _uuid(request)
    response.headers["Schwab-Resource-Version"] = "1.0"
    return response


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )


def _uuid(request: web.Request) -> str:
    seed = f"{request.path_qs}/{request.app[SIMULATION].wall.now_ms()}"
    return str(uuid.UUID(bytes=hashlib.sha256(seed.encode()).digest()[:16], version=4))


def _error(
    request: web.Request, status: int, title: str, detail: str, source: object = None
) -> web.Response:
    trader = request.path.startswith("/trader/")
    error: dict[str, object] = {
        "id": _uuid(request),
        "status": status if status == 401 else str(status),
        "title": title,
        "detail": detail,
    }
    if source is not None:
        error["source"] = source
    body: dict[str, object] = {"errors": [error]}
    if trader and status != 401:
        body["message"] = detail
    return _json(body, status)


def _too_many(request: web.Request) -> web.Response:
    """Refuse a request beyond the limit; nobody knows for sure what that looks like."""
    settings = request.app[SIMULATION].settings
    if settings.sim_too_many_body == "json":
        answer = _error(request, 429, "Too Many Requests", "Rate limit exceeded")
    else:
        text = "Too Many Requests" if settings.sim_too_many_body == "text" else ""
        answer = web.Response(status=429, text=text)
    if settings.sim_retry_after_s:
        answer.headers["Retry-After"] = str(settings.sim_retry_after_s)
    return answer


def _out_of_order(status: int) -> web.Response:
    """Answer as the broker does when something of its own is wrong."""
    if status == 403:
        return web.Response(text=_DENIED_PAGE, status=403, content_type="text/html")
    bodies: dict[int, object] = {
        400: {"error": "unsupported_token_type", "error_description": "400 Bad Request"},
        401: {"error": "invalid_client", "error_description": "Unauthorized"},
        429: {"message": "Too Many Requests"},
    }
    fault = {"faultstring": "Service unavailable", "detail": {"errorcode": "simulated"}}
    return _json(bodies.get(status, {"fault": fault}), status)


# -- OAuth ----------------------------------------------------------------------------------------


async def _authorize(request: web.Request) -> web.Response:
    """Consent at once and send the browser back with a code."""
    simulation = request.app[SIMULATION]
    query = request.query
    wall_ms = simulation.wall.now_ms()
    callback = query.get("redirect_uri", "")
    try:
        code = simulation.oauth.authorize(
            query.get("client_id", ""),
            callback,
            query.get("response_type", ""),
            wall_ms,
            simulation.clock.token_ms(wall_ms),
        )
    except OAuthError as error:
        return web.Response(text=_DENIED_PAGE, status=error.status, content_type="text/html")
    back = {"code": code, "session": _uuid(request)}
    if "state" in query:
        back["state"] = query["state"]
    location = _with_query(callback, urlencode(back, quote_via=quote, safe=""))
    return web.Response(status=302, headers={"Location": location})


def _with_query(callback: str, query: str) -> str:
    parts = urlsplit(callback)
    joined = f"{parts.query}&{query}" if parts.query else query
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", joined, ""))


async def _token(request: web.Request) -> web.Response:
    simulation = request.app[SIMULATION]
    if simulation.faults.current.token_delay_s:
        await asyncio.sleep(simulation.faults.current.token_delay_s)
    if simulation.faults.current.token_status:
        return _out_of_order(simulation.faults.current.token_status)
    form = {name: value for name, value in (await request.post()).items() if type(value) is str}
    wall_ms = simulation.wall.now_ms()
    try:
        body = simulation.oauth.token(
            request.headers.get("Authorization", ""),
            form,
            wall_ms,
            simulation.clock.token_ms(wall_ms),
            simulation.clock.speed,
        )
    except OAuthError as error:
        return _json(error.body, error.status)
    return _json(body)


# -- account --------------------------------------------------------------------------------------


async def _user_preference(request: web.Request) -> web.Response:
    simulation = request.app[SIMULATION]
    account = {
        "accountNumber": "10000001",
        "primaryAccount": True,
        "type": "BROKERAGE",
        "nickName": "Simulated",
        "displayAcctId": "...001",
        "autoPositionEffect": False,
        "accountColor": "Green",
    }
    streamer = {
        "streamerSocketUrl": _socket_url(request),
        "schwabClientCustomerId": simulation.identity.customer_id,
        "schwabClientCorrelId": simulation.identity.correl_id,
        "schwabClientChannel": "N9",
        "schwabClientFunctionId": "APIAPP",
    }
    offer = {"level2Permissions": True, "mktDataPermission": "NP"}
    return _json({"accounts": [account], "streamerInfo": [streamer], "offers": [offer]})


def _socket_url(request: web.Request) -> str:
    # Never the Host header: a client that is redirected here still names the broker in it.
    assert request.transport is not None
    host, port = request.transport.get_extra_info("sockname")[:2]
    return f"ws://{host}:{port}/ws"


# -- market data ----------------------------------------------------------------------------------


async def _price_history(request: web.Request) -> web.Response:
    simulation = request.app[SIMULATION]
    settings, market = simulation.settings, simulation.market
    now_ms = simulation.now_ms()
    query = history.parse(
        request.query,
        now_ms,
        minute_depth_days=settings.sim_minute_depth_days,
        whole_days=settings.sim_history_whole_days,
    )
    if not market.knows(query.symbol):
        if settings.sim_unknown_symbol == "404":
            return _error(request, 404, "Not Found", f"No data for symbol {query.symbol}")
        return _json(history.envelope(query.symbol, []))
    candles: list[dict[str, float | int]] = []
    for number, day in enumerate(history.days_of(query)):
        session = hours.session_on(day, simulation.faults.current)
        if session is not None:
            end_ms = session.post_close_ms
            made = history.candles_of(market, query, day, now_ms)
            candles.extend(candle for candle in made if candle["datetime"] < end_ms)
        if number % _DAYS_PER_STEP == 0:
            await asyncio.sleep(0)
    previous = history.previous_close(market, query) if query.previous_close else None
    return _json(history.envelope(query.symbol, candles, previous))


async def _quotes(request: web.Request) -> web.Response:
    symbols = _split(request.query.get("symbols", ""))
    if not symbols:
        raise history.BadRequest("symbols is required", "symbols")
    if len(symbols) > quotes.SYMBOLS_MAX:
        raise history.BadRequest(f"at most {quotes.SYMBOLS_MAX} symbols", "symbols")
    return await _quotes_of(request, symbols)


async def _quote(request: web.Request) -> web.Response:
    return await _quotes_of(request, [request.match_info["symbol"].upper()])


async def _quotes_of(request: web.Request, symbols: list[str]) -> web.Response:
    simulation = request.app[SIMULATION]
    sections = request.query.get("fields", "").split(",")
    simulation.clock.start(simulation.wall.now_ms())  # whoever polls listens, too
    now_ms = simulation.now_ms()
    body: dict[str, object] = {}
    unknown = []
    for symbol in symbols:
        if not simulation.market.knows(symbol):
            unknown.append(symbol)
            continue
        body[symbol] = quotes.quote(simulation.market, symbol, sections, now_ms)
        await asyncio.sleep(0)
    if unknown:
        body["errors"] = {"invalidSymbols": unknown}
    return _json(body)


async def _markets(request: web.Request) -> web.Response:
    today = calendar.day_of(request.app[SIMULATION].now_ms())
    names = request.match_info.get("market") or request.query.get("markets", "")
    text = request.query.get("date")
    try:
        day = dt.date.fromisoformat(text) if text else today
    except ValueError:
        raise history.BadRequest("date must be yyyy-MM-dd", "date") from None
    session = hours.session_on(day, request.app[SIMULATION].faults.current)
    body = quotes.market_hours(names.lower().split(","), day, today, session)
    if isinstance(body, str):
        raise history.BadRequest(body, "date" if body.startswith("Date") else "markets")
    return _json(body)


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
