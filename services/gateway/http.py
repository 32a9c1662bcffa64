"""What all handlers share: parameters, errors, and answers with ETag and gzip.

A parameter that is unknown, given twice or does not fit gets a 400 that names it and says what
would fit. Whatever else goes wrong has the same form; what is not expected is logged, and the
client is told as little as possible about it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from datetime import date
from typing import Annotated, Any, Literal

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.params import QueryParameter

from libs.common.errors import BusError, CalendarError, Doubt, StoreError
from libs.common.telemetry import get_logger
from services.gateway.answers import Refusal, Refused, error_body
from services.gateway.store import TooMuch

__all__ = [
    "JSON",
    "Day",
    "FirstDay",
    "LastDay",
    "OptionalTicker",
    "OptionalTimeframe",
    "SeriesTimeframe",
    "Ticker",
    "Version",
    "failure",
    "json_answer",
    "only_known_parameters",
]

JSON = "application/json"
_GZIP_LEVEL = 1  # a day of ticks in a third of the size; higher levels cost more than they save
_GZIP_BYTES_MIN = 1024
_IN_THREAD_BYTES_MIN = 64 * 1024
_RETRY_AFTER_S = 2
TICKER_PATTERN = r"^[A-Z0-9$^./ -]{1,20}$"
Timeframe = Literal["tick", "1m", "5m", "15m", "1h"]

_HINTS = {
    "ticker": "expected a symbol in capitals, e.g. ticker=QQQ",
    "date": "expected a New York trading day, e.g. date=2026-01-05",
    "from": "expected a date, e.g. from=2026-01-05",
    "to": "expected a date, e.g. to=2026-01-05",
    "timeframe": "expected tick, 1m, 5m, 15m or 1h, e.g. timeframe=1m",
    "version": "expected the version that /sessions told",
    "service": "expected ingest, indicators, signals or writer",
    "password": "expected a JSON object with the password as a text",
    "command": "expected a JSON object with a command of small letters, an object of arguments "
    "and, if you like, an id of at most 64 characters",
}

Ticker = Annotated[str, QueryParameter(pattern=TICKER_PATTERN, description="symbol, e.g. QQQ")]
OptionalTicker = Annotated[
    str | None, QueryParameter(pattern=TICKER_PATTERN, description="only this symbol")
]
Day = Annotated[date, QueryParameter(name="date", description="New York trading day")]
FirstDay = Annotated[date | None, QueryParameter(name="from", description="first day")]
LastDay = Annotated[date | None, QueryParameter(name="to", description="last day")]
SeriesTimeframe = Annotated[Timeframe, QueryParameter(description="length of a candle, or ticks")]
Version = Annotated[
    str | None,
    QueryParameter(
        pattern=r"^[0-9a-f.]{1,60}$", description="of /sessions; a finished day is then kept"
    ),
]
OptionalTimeframe = Annotated[
    Timeframe | None,
    QueryParameter(description="only those of candles of this length, or of ticks"),
]


# -- answers --------------------------------------------------------------------------------------


async def json_answer(
    request: Request[Any, Any, Any], body: bytes, *, cache: str = "no-cache", status: int = 200
) -> Response[bytes]:
    """Return encoded JSON with a strong ETag, compressed if the client takes that, or a 304."""
    compressed = len(body) >= _GZIP_BYTES_MIN and _takes_gzip(request)
    digest = hashlib.blake2b(body, digest_size=16).hexdigest()
    # Equal tags promise equal bytes, so each encoding has its own.
    tag = f'"{digest}-gzip"' if compressed else f'"{digest}"'
    headers = {"ETag": tag, "Cache-Control": cache, "Vary": "Accept-Encoding, Origin, Cookie"}
    if status == 200 and _has(request.headers.get("if-none-match", ""), tag):
        return Response(b"", status_code=304, headers=headers, media_type=JSON)
    if compressed:
        headers["Content-Encoding"] = "gzip"
        body = await _gzipped(body)
    return Response(body, status_code=status, headers=headers, media_type=JSON)


def _takes_gzip(request: Request[Any, Any, Any]) -> bool:
    offers = request.headers.get("accept-encoding", "").lower().split(",")
    return any(
        offer.partition(";")[0].strip() == "gzip" and not offer.replace(" ", "").endswith(";q=0")
        for offer in offers
    )


def _has(if_none_match: str, tag: str) -> bool:
    return any(part.strip().removeprefix("W/") in (tag, "*") for part in if_none_match.split(","))


async def _gzipped(body: bytes) -> bytes:
    if len(body) < _IN_THREAD_BYTES_MIN:
        return gzip.compress(body, _GZIP_LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL, mtime=0)


# -- errors ---------------------------------------------------------------------------------------


def only_known_parameters(request: Request[Any, Any, Any]) -> None:
    """Refuse parameters that the handler does not know, that come twice, or that are missing."""
    known: tuple[str, ...] = _opt(request).get("parameters", ())
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            fit = f"it takes {', '.join(known)}" if known else "it takes none"
            message = f"{name[:40]}: there is no such parameter here: {fit}"
            raise Refused(400, "bad_parameter", message, parameter=name[:40])
        if given.count(name) > 1:
            message = f"{name}: give it once"
            raise Refused(400, "bad_parameter", message, parameter=name)
    _require(request, given)


def _require(request: Request[Any, Any, Any], given: list[str]) -> None:
    """Name the first that is missing, in the order in which people read them."""
    for name in _opt(request).get("required", ()):
        if name not in given:
            message = f"{name}: missing, {_HINTS[name]}"
            raise Refused(400, "bad_parameter", message, parameter=name)


def failure(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Return the answer to a request that ended in `error`."""
    refusal = _refusal_of(error, request)
    headers = {"Cache-Control": "no-store"}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if isinstance(error, HTTPException):
        given = {name.lower(): value for name, value in (error.headers or {}).items()}
        if "allow" in given:
            headers["Allow"] = given["allow"]
    return Response(
        error_body(refusal), status_code=refusal.status, headers=headers, media_type=JSON
    )


def _refusal_of(error: Exception, request: Request[Any, Any, Any]) -> Refusal:
    if isinstance(error, Refused):
        return error.refusal
    if isinstance(error, ValidationException):
        return _invalid(error, request)
    if isinstance(error, RecursionError | UnicodeDecodeError) or _is_bad_body(error):
        return _invalid(None, request)
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, TooMuch):
        return Refusal(413, "too_large", f"{error}: ask for one ticker or a shorter time")
    if isinstance(error, CalendarError):
        message = str(error).partition(";")[0]
        return Refusal(400, "bad_parameter", f"date: {message}", "date")
    if isinstance(error, Doubt):
        message = "the bus did not confirm it: it may be stored or not, so look before you repeat"
        return Refusal(503, "unconfirmed", message)
    if isinstance(error, StoreError | BusError):
        get_logger().warning("gateway.unavailable", error=str(error), path=request.url.path)
        what = "database" if isinstance(error, StoreError) else "bus"
        message = f"the {what} is away at the moment: try again in {_RETRY_AFTER_S} s"
        return Refusal(503, "unavailable", message, None, _RETRY_AFTER_S)
    get_logger().error("gateway.failed", path=request.url.path, exc_info=error)
    return Refusal(500, "internal", "the gateway failed; its log says more")


def _is_bad_body(error: Exception) -> bool:
    return isinstance(error, HTTPException) and error.status_code == 400


def _invalid(error: ValidationException | None, request: Request[Any, Any, Any]) -> Refusal:
    """Say which parameter was wrong; of a body, what it is about."""
    name = None if error is None else _wrong_parameter(error)
    name = name or _opt(request).get("body")
    if name is None:
        return Refusal(400, "bad_request", "the request does not fit: see /api/docs")
    hint = _HINTS.get(name, "see /api/docs")
    return Refusal(400, "bad_parameter", f"{name}: {hint}", name)


def _wrong_parameter(error: ValidationException) -> str | None:
    """Find the name of what was wrong: extra says so, or the text of what is missing."""
    if isinstance(error.extra, list):
        for item in error.extra:
            key = str(item.get("key", "")) if isinstance(item, dict) else ""
            name = _WIRE_NAMES.get(key, key)
            if name in _HINTS:
                return name
    return next((name for name in _HINTS if f"'{name}'" in error.detail), None)


# Where a handler's name for a parameter differs from the one in requests.
_WIRE_NAMES = {"day": "date", "first": "from", "last": "to"}


def _opt(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return what the handler says of itself; there is none where nothing matched."""
    handler = request.scope.get("route_handler")
    opt: dict[str, Any] = getattr(handler, "opt", {})
    return opt


def _of_http(error: HTTPException) -> Refusal:
    status = error.status_code
    if status == 404:
        return Refusal(404, "not_found", "there is nothing here: see /api/docs")
    if status == 405:
        return Refusal(405, "bad_method", "not with this method: see /api/docs")
    if status == 413:
        return Refusal(413, "too_large", "the body is too large")
    if status >= 500:
        get_logger().error("gateway.failed", exc_info=error)
        return Refusal(500, "internal", "the gateway failed; its log says more")
    return Refusal(status, "bad_request", "the request does not fit: see /api/docs")
