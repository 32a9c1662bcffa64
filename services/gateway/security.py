"""The gate in front of everything: an ASGI application around the one that answers.

What it lets pass:

- only requests for a name of ours (Host), and of what changes or listens only requests of our own
  page or of one on the list (Origin): pages of strangers get nothing by way of a visitor's browser;
- what needs a login only with a session's cookie, or for one live connection with a token;
- so many requests and live connections from one address, bodies of so many bytes.

All it refuses gets the JSON error of the interface, a live connection before it is accepted; only
who asks for a closed page without a session gets a page that leads to the login. Every answer
leaves with the headers that tell browsers to be strict. Nothing is logged of what a request
contained; refusals are counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from libs.common.clock import Clock
from services.gateway.answers import Refusal, error_body
from services.gateway.auth import Keys, Names, RateLimit, Throttle, address_key
from services.gateway.broker_page import BEGIN_PATH, FINISH_PATH, LOGIN_FIRST, PATH
from services.gateway.settings import Settings

__all__ = ["API", "LIVE", "Gate", "Visitor", "visitor_of"]

App = Callable[[Any, Any, Any], Any]
Header = tuple[bytes, bytes]

API = "/api/v1"
LIVE = f"{API}/live"
SESSION_LIFE_MS = 12 * 3_600_000
LIVE_TOKEN_LIFE_MS = 60_000
_SESSIONS_MAX = 1000
_LIVE_TOKENS_MAX = 1000
_BODY_TIMEOUT_S = 10.0
_COOKIE, _LOCAL_COOKIE = "__Host-kite", "kite"
_TRY_AGAIN_LATER = 1013
_MARK = "kite.visitor"

_MARKET = frozenset(
    f"{API}/{name}"
    for name in (
        "tickers", "sessions", "series", "signals", "gaps", "clock", "series.csv", "signals.csv",
        "gaps.csv", "live",
    )
)  # fmt: skip
# Who logs in has no session yet, and the page must be able to ask whether it has to.
_FOR_ALL = frozenset({f"{API}/login", f"{API}/logout", f"{API}/me"})
# Pages that a browser asks for itself, so who may not see them is told in a page, too.
_CLOSED_PAGES = frozenset({PATH, BEGIN_PATH, FINISH_PATH})
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_CORS_METHODS = b"GET, POST"


class Visitor:
    """What the gate found out about a request; handlers find it in the scope.

    Who came with a token instead of a cookie is known `until_ms`.
    """

    __slots__ = ("address", "authenticated", "key", "local", "until_ms")

    def __init__(self, address: str, *, local: bool, key: str, authenticated: bool) -> None:
        self.address = address
        self.local = local
        self.key = key
        self.authenticated = authenticated
        self.until_ms = 0


def visitor_of(scope: Any) -> Visitor:
    """Return what the gate noted in a scope that passed it."""
    visitor: Visitor = scope[_MARK]
    return visitor


class Gate:
    """Wraps an ASGI application; also what `admit`s live connections and knows the sessions."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        clock: Clock,
        refused: Callable[[str], object] = lambda code: None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._clock = clock
        self._refused = refused
        self._names = Names(
            settings.gateway_host, settings.gateway_origins,
            any_address=settings.gateway_allow_remote or settings.gateway_auth == "password",
        )  # fmt: skip
        self._rates = RateLimit(settings.gateway_requests_per_minute_max)
        self._live: Counter[str] = Counter()
        self.sessions = Keys(life_ms=SESSION_LIFE_MS, keys_max=_SESSIONS_MAX)
        self.live_tokens = Keys(life_ms=LIVE_TOKEN_LIFE_MS, keys_max=_LIVE_TOKENS_MAX)
        self.logins = Throttle()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request or connection; see ASGI."""
        if "path" in scope:
            scope = {**scope, "path": _canonical(scope["path"])}
        if scope["type"] == "http":
            await self._http(scope, receive, _with_headers(send, self._headers(scope)))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    # -- what is let in ---------------------------------------------------------------------------

    def admit(self, scope: Any) -> Refusal | None:
        """Say why a request or upgrade is refused, or None; notes the visitor in the scope."""
        if _MARK in scope:
            return None
        headers = _headers_of(scope)
        refusal = self._stranger(scope, headers)
        if refusal is not None:
            return refusal
        visitor = self._visitor(scope, headers)
        if not visitor.authenticated and scope["path"] == LIVE and self._has_token(scope):
            visitor.authenticated = True
            visitor.until_ms = self._clock.now_ms() + SESSION_LIFE_MS
        if self._needs_login(scope["path"]) and not visitor.authenticated:
            return _LOGIN_FIRST
        wait_ms = 0
        if scope["path"].startswith("/api/") or scope["path"] in _CLOSED_PAGES:
            wait_ms = self._rates.wait_ms(visitor.address, self._clock.now_ms())
        if wait_ms > 0:
            return _too_many("requests", -(-wait_ms // 1000))
        scope[_MARK] = visitor
        return None

    def trusts(self, scope: Any) -> bool:
        """Tell whether what was admitted may see more than the market."""
        return visitor_of(scope).authenticated

    def may_stay(self, scope: Any) -> bool:
        """Tell whether the login that a connection was admitted with still holds."""
        visitor = visitor_of(scope)
        if self._settings.gateway_auth == "none" or not visitor.authenticated:
            return True
        now_ms = self._clock.now_ms()
        return now_ms < visitor.until_ms or self.sessions.holds(visitor.key, now_ms)

    def _stranger(self, scope: Any, headers: dict[str, str]) -> Refusal | None:
        host = headers.get("host", "")
        if not self._names.is_ours(host):
            return _WRONG_HOST
        if scope["type"] != "websocket" and scope["method"] not in _UNSAFE:
            return None
        origin = headers.get("origin")
        if origin is None:
            # Only programs leave it out; browsers that do so at least say where they come from.
            crossed = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
            return _WRONG_ORIGIN if crossed else None
        return None if self._names.may_call(origin, host) else _WRONG_ORIGIN

    def _visitor(self, scope: Any, headers: dict[str, str]) -> Visitor:
        client = scope.get("client") or ("unknown", 0)
        local = scope.get("scheme") in ("http", "ws") and self._names.is_local(headers["host"])
        key = _cookies(headers).get(_LOCAL_COOKIE if local else _COOKIE, "")
        known = bool(key) and self.sessions.holds(key, self._clock.now_ms())
        authenticated = known or self._settings.gateway_auth == "none"
        return Visitor(address_key(client[0]), local=local, key=key, authenticated=authenticated)

    def _needs_login(self, path: str) -> bool:
        if self._settings.gateway_auth == "none":
            return False
        if path in _CLOSED_PAGES:
            return True
        if not path.startswith(f"{API}/"):
            return False
        if self._settings.public_market and path in _MARKET:
            return False
        return path not in _FOR_ALL

    def _has_token(self, scope: Any) -> bool:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=20)
        tokens = query.get("token", [])
        return len(tokens) == 1 and self.live_tokens.take(tokens[0], self._clock.now_ms())

    # -- sessions ---------------------------------------------------------------------------------

    def log_in(self, visitor: Visitor) -> str:
        """Begin a session and return the cookie to set."""
        return _cookie(visitor, self.sessions.make(self._clock.now_ms()), SESSION_LIFE_MS // 1000)

    def log_out(self, visitor: Visitor) -> str:
        """End the visitor's session and return the cookie that makes browsers forget it."""
        self.sessions.drop(visitor.key)
        return _cookie(visitor, "", 0)

    # -- HTTP -------------------------------------------------------------------------------------

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "OPTIONS" and self._is_preflight(scope):
            await _empty(send, 204)
            return
        refusal = self.admit(scope)
        if refusal is None and scope["method"] in _UNSAFE:
            body, refusal = await self._body(scope, receive)
            receive = _replay(body, receive)
        if refusal is not None:
            self._refused(refusal.code)
            if refusal is _LOGIN_FIRST and scope["path"] in _CLOSED_PAGES:
                await _login_page(send)
            else:
                await _refuse(send, refusal)
            return
        await self._app(scope, receive, send)

    async def _body(self, scope: Any, receive: Any) -> tuple[bytes, Refusal | None]:
        """Read a body that is small and comes soon."""
        bytes_max = self._settings.gateway_body_bytes_max
        announced = _headers_of(scope).get("content-length", "0")
        if not announced.isdigit() or int(announced[:20]) > bytes_max:
            return b"", _too_large(bytes_max)
        body = b""
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return b"", _TOO_SLOW
                    body += message.get("body", b"")
                    if len(body) > bytes_max:
                        return b"", _too_large(bytes_max)
                    if not message.get("more_body", False):
                        return body, None
        except TimeoutError:
            return b"", _TOO_SLOW

    def _is_preflight(self, scope: Any) -> bool:
        headers = _headers_of(scope)
        listed = self._names.is_listed(headers.get("origin", ""))
        ours = self._names.is_ours(headers.get("host", ""))
        return listed and ours and "access-control-request-method" in headers

    def _headers(self, scope: Any) -> list[Header]:
        """Return what every answer carries."""
        headers = _headers_of(scope)
        host = headers.get("host", "")
        sockets = f" ws://{host} wss://{host}" if self._names.is_ours(host) else ""
        policy = _POLICY.format(sockets=sockets)
        found = [*_STRICT, (b"content-security-policy", policy.encode("latin-1", "replace"))]
        if scope["path"].startswith("/api/"):
            found.append((b"vary", b"Origin, Cookie"))
        origin = headers.get("origin", "")
        if self._names.is_listed(origin) and self._names.is_ours(host):
            found += [
                (b"access-control-allow-origin", origin.encode("latin-1", "replace")),
                (b"access-control-allow-credentials", b"true"),
                (b"access-control-allow-methods", _CORS_METHODS),
                (b"access-control-allow-headers", b"content-type, if-none-match"),
                (b"access-control-expose-headers", b"etag, retry-after"),
                (b"access-control-max-age", b"600"),
            ]
        return found

    # -- live connections -------------------------------------------------------------------------

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        refusal = self.admit(scope)
        if refusal is None:
            refusal = self._full(visitor_of(scope).address)
        if refusal is not None:
            self._refused(refusal.code)
            await _refuse_upgrade(scope, receive, send, refusal)
            return
        address = visitor_of(scope).address
        self._live[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._live[address] -= 1
            if not self._live[address]:
                del self._live[address]

    def _full(self, address: str) -> Refusal | None:
        if self._live[address] >= self._settings.gateway_connections_per_address_max:
            return _too_many("live connections of one address", 30)
        if self._live.total() >= self._settings.gateway_connections_max:
            return Refusal(503, "busy", "all live connections are taken", None, 30)
        return None


# -- headers and refusals -------------------------------------------------------------------------

_POLICY = (
    "default-src 'self'; connect-src 'self'{sockets}; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
_STRICT: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
]
_LOGIN_FIRST = Refusal(401, "login_required", f"log in first: POST {API}/login with the password")
_WRONG_HOST = Refusal(
    403,
    "wrong_host",
    "this gateway does not answer to that name: use the address it printed, or add the name's "
    "origin to KITE_GATEWAY_ORIGINS",
)
_WRONG_ORIGIN = Refusal(
    403,
    "wrong_origin",
    "pages of that origin may not do this: add the origin to KITE_GATEWAY_ORIGINS",
)
_TOO_SLOW = Refusal(400, "incomplete", f"the body did not arrive within {_BODY_TIMEOUT_S:.0f} s")


def _too_large(bytes_max: int) -> Refusal:
    return Refusal(413, "too_large", f"a body holds at most {bytes_max} bytes, and says how many")


def _too_many(what: str, retry_after_s: int) -> Refusal:
    message = f"too many {what}: wait {retry_after_s} s"
    return Refusal(429, "too_many", message, None, retry_after_s)


def _headers_of(scope: Any) -> dict[str, str]:
    """Return headers by name; of a repeated one the first, but of Host none."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key == "host" and key in found:
            return {**found, "host": ""}
        found.setdefault(key, value.decode("latin-1"))
    return found


def _canonical(path: str) -> str:
    """Return a path as the router reads it, so that no other spelling of it passes the gate."""
    return "/" + "/".join(part for part in path.split("/") if part)


def _cookies(headers: dict[str, str]) -> dict[str, str]:
    """Return cookies by name; one that is malformed, as of another program here, harms no other."""
    pairs = (pair.partition("=") for pair in headers.get("cookie", "").split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cookie(visitor: Visitor, key: str, age_s: int) -> str:
    name, secure = (_LOCAL_COOKIE, "") if visitor.local else (_COOKIE, " Secure;")
    return f"{name}={key}; Path=/; Max-Age={age_s};{secure} HttpOnly; SameSite=Strict"


def _with_headers(send: Any, headers: list[Header]) -> Any:
    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            more = [(name, value) for name, value in headers if name not in given]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return send_with_headers


def _refusal_headers(refusal: Refusal, body: bytes) -> list[Header]:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    return headers


async def _refuse(send: Any, refusal: Refusal, kind: str = "http.response") -> None:
    body = error_body(refusal)
    headers = _refusal_headers(refusal, body)
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


async def _login_page(send: Any) -> None:
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(LOGIN_FIRST)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": LOGIN_FIRST})


async def _refuse_upgrade(scope: Any, receive: Any, send: Any, refusal: Refusal) -> None:
    """Refuse with a plain answer, or with a close code where the server cannot send one."""
    await receive()  # the connect
    if "websocket.http.response" in scope.get("extensions", {}):
        await _refuse(send, refusal, "websocket.http.response")
    else:
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": refusal.code})


async def _empty(send: Any, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _replay(body: bytes, receive: Any) -> Any:
    """Return a `receive` that hands out a body which was read already."""
    told = False

    async def receive_again() -> Any:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
