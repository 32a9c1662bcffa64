"""The REST interface: market data as JSON and CSV, health and the clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Stream

from services.gateway import answers, exports
from services.gateway.answers import ErrorAnswer
from services.gateway.desk import Desk
from services.gateway.http import (
    JSON,
    Day,
    FirstDay,
    LastDay,
    OptionalTicker,
    OptionalTimeframe,
    SeriesTimeframe,
    Ticker,
    Version,
    json_answer,
)

__all__ = ["HANDLERS", "REFUSALS", "responses"]

AnyRequest = Request[Any, Any, Any]

_YEAR_S = 31_536_000
# What may and must be in a query; the types stand in the handlers.
_DAY = ("ticker", "date", "timeframe")
_SERIES = {"parameters": _DAY, "required": ("ticker", "date")}
_SERIES_OF_VERSION = {"parameters": (*_DAY, "version"), "required": ("ticker", "date")}
_SIGNALS = {"parameters": ("date", "ticker", "timeframe"), "required": ("date",)}
_GAPS = {"parameters": ("date", "ticker"), "required": ("date",)}
_encoder = msgspec.json.Encoder()

REFUSALS = {
    status: ResponseSpec(ErrorAnswer, description=text, media_type=JSON, generate_examples=False)
    for status, text in {
        400: "A parameter is wrong",
        401: "Log in first",
        403: "Not for this page or name",
        413: "Too much at once",
        429: "Too many requests",
        503: "Database or bus away, see Retry-After",
    }.items()
}


def responses(answer: type[msgspec.Struct], *, status: int = 200) -> dict[int, ResponseSpec]:
    """Describe a handler's answers for the OpenAPI document."""
    found = ResponseSpec(
        answer, description=(answer.__doc__ or "").strip(), generate_examples=False
    )
    return {status: found, **REFUSALS}


_CSV = {
    200: ResponseSpec(str, description="CSV", media_type="text/csv", generate_examples=False),
    **REFUSALS,
}


def _desk(state: State) -> Desk:
    desk: Desk = state.desk
    return desk


@get("/tickers", responses=responses(answers.Tickers), tags=["market"], summary="Watchlist")
async def tickers(request: AnyRequest, state: State) -> Response[bytes]:
    """Every ticker with its last price, change and sparkline."""
    return await json_answer(request, _encoder.encode(await _desk(state).tickers()))


@get(
    "/sessions", responses=responses(answers.Sessions), tags=["market"], summary="Trading days",
    opt={"parameters": ("from", "to")},
)  # fmt: skip
async def sessions(
    request: AnyRequest, state: State, first: FirstDay = None, last: LastDay = None
) -> Response[bytes]:
    """Weekdays with their hours, holidays, half days, and which of them have data."""
    found = await _desk(state).sessions(first, last)
    return await json_answer(request, _encoder.encode(found))


@get(
    "/series", responses=responses(answers.Series), tags=["market"], summary="A day of a ticker",
    opt=_SERIES_OF_VERSION,
)  # fmt: skip
async def series(
    request: AnyRequest, state: State, ticker: Ticker, day: Day,
    timeframe: SeriesTimeframe = "1m", version: Version = None,
) -> Response[bytes]:  # fmt: skip
    """Ticks or candles of one day in columns; `last_seq` is where live messages go on."""
    # Asked for first: what is read afterwards is at least as new.
    is_current = version is not None and version == await _desk(state).version()
    found = await _desk(state).series(ticker, day, timeframe)
    cache = "no-cache"
    if found.complete and is_current:
        who = "public" if state.settings.public_market else "private"
        cache = f"{who}, max-age={_YEAR_S}, immutable"
    return await json_answer(request, _encoder.encode(found), cache=cache)


@get(
    "/signals", responses=responses(answers.Signals), tags=["market"], summary="Signals of a day",
    opt=_SIGNALS,
)  # fmt: skip
async def signals(
    request: AnyRequest,
    state: State,
    day: Day,
    ticker: OptionalTicker = None,
    timeframe: OptionalTimeframe = None,
) -> Response[bytes]:
    """Crosses of SMA9 and VWAP; `last_seq` says for each partition where live messages go on."""
    found = await _desk(state).signals(day, ticker, timeframe)
    return await json_answer(request, _encoder.encode(found))


@get(
    "/gaps", responses=responses(answers.Gaps), tags=["market"], summary="Gaps of a day",
    opt=_GAPS,
)  # fmt: skip
async def gaps(
    request: AnyRequest, state: State, day: Day, ticker: OptionalTicker = None
) -> Response[bytes]:
    """What is or was missing on a day."""
    return await json_answer(request, _encoder.encode(await _desk(state).gaps(day, ticker)))


@get("/clock", responses=responses(answers.Clock), tags=["market"], summary="The broker's time")
async def clock(request: AnyRequest, state: State) -> Response[bytes]:
    """Broker time, how fast it runs, and what comes next in the trading day."""
    return await json_answer(request, _encoder.encode(_desk(state).clock()), cache="no-store")


_HEALTH = {
    **responses(answers.Health),
    503: ResponseSpec(answers.Health, description="Database or bus away", generate_examples=False),
}


@get("/health", responses=_HEALTH, tags=["operation"], summary="Is everything well?")
async def health(request: AnyRequest, state: State) -> Response[bytes]:
    """Checks, what services said of themselves, and how far the rows are behind the streams."""
    found = await _desk(state).health()
    status = 503 if found.status == "down" else 200
    return await json_answer(request, _encoder.encode(found), cache="no-store", status=status)


# -- CSV ------------------------------------------------------------------------------------------


def _csv(pieces: Iterator[str], name: str) -> Stream:
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-cache",
    }
    return Stream(pieces, headers=headers, media_type="text/csv")


@get(
    "/series.csv", responses=_CSV, tags=["CSV"], summary="A day of a ticker as CSV",
    opt=_SERIES,
)  # fmt: skip
async def series_csv(
    state: State, ticker: Ticker, day: Day, timeframe: SeriesTimeframe = "1m"
) -> Stream:
    """Ticks or candles of one day, a row each, with UTC and New York times."""
    found = await _desk(state).series(ticker, day, timeframe)
    name = exports.file_name(ticker, day.isoformat(), timeframe)
    return _csv(exports.series_lines(found), name)


@get(
    "/signals.csv", responses=_CSV, tags=["CSV"], summary="Signals of a day as CSV",
    opt=_SIGNALS,
)  # fmt: skip
async def signals_csv(
    state: State, day: Day, ticker: OptionalTicker = None, timeframe: OptionalTimeframe = None
) -> Stream:
    """Crosses of SMA9 and VWAP, a row each."""
    found = await _desk(state).signals(day, ticker, timeframe)
    name = exports.file_name(ticker, day.isoformat(), timeframe, "signals")
    return _csv(exports.signal_lines(found.signals), name)


@get(
    "/gaps.csv", responses=_CSV, tags=["CSV"], summary="Gaps of a day as CSV",
    opt=_GAPS,
)  # fmt: skip
async def gaps_csv(state: State, day: Day, ticker: OptionalTicker = None) -> Stream:
    """What is or was missing on a day, a row each."""
    found = await _desk(state).gaps(day, ticker)
    name = exports.file_name(ticker, day.isoformat(), "gaps")
    return _csv(exports.gap_lines(found.gaps), name)


HANDLERS = [
    tickers, sessions, series, signals, gaps, clock, health, series_csv, signals_csv, gaps_csv,
]  # fmt: skip
