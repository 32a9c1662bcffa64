"""What the REST interface says: one Struct for each answer, and the one form of every error.

Times are epoch milliseconds UTC and end in `_ms`; dates are New York trading days. A series is
columnar: lists of equal length, one per field.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

__all__ = [
    "Check",
    "Clock",
    "Day",
    "Error",
    "ErrorAnswer",
    "Gap",
    "Gaps",
    "Health",
    "Lane",
    "LiveToken",
    "Me",
    "NextPhase",
    "Phase",
    "Refusal",
    "Refused",
    "Series",
    "SeriesSession",
    "SeriesTimeframe",
    "Service",
    "Sessions",
    "Signal",
    "Signals",
    "Status",
    "Ticker",
    "Tickers",
    "error_body",
]

Phase = Literal["pre", "regular", "post", "closed"]
SeriesTimeframe = Literal["tick", "1m", "5m", "15m", "1h"]
Status = Literal["ok", "degraded", "down"]
Numbers = list[float | None]


class Error(Struct, frozen=True, omit_defaults=True):
    """What went wrong and how to mend it; `parameter` names the one that was wrong."""

    code: str
    message: str
    parameter: str | None = None


class ErrorAnswer(Struct, frozen=True):
    """The body of every answer from 400 on."""

    error: Error


class Refusal(Struct, frozen=True):
    """Why a request is not answered: a status, and the body's content."""

    status: int
    code: str
    message: str
    parameter: str | None = None
    retry_after_s: int | None = None


class Refused(Exception):
    """A handler's way to refuse."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        parameter: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.refusal = Refusal(status, code, message, parameter, retry_after_s)


def error_body(refusal: Refusal) -> bytes:
    """Return a refusal as the body of an answer."""
    error = Error(refusal.code, refusal.message, refusal.parameter)
    return msgspec.json.encode(ErrorAnswer(error))


class Ticker(Struct, frozen=True):
    """A line of the watchlist; `change` is against the previous session's last regular close."""

    ticker: str
    last: float | None
    ts_ms: int | None
    change: float | None
    change_percent: float | None
    previous_close: float | None
    date: str | None
    sparkline: list[float]


class Tickers(Struct, frozen=True):
    """Every ticker that has data."""

    tickers: list[Ticker]


class Day(Struct, frozen=True):
    """A weekday of the calendar; without bounds on a holiday."""

    date: str
    kind: Literal["full", "half", "holiday"]
    name: str | None
    pre_open_ms: int | None
    open_ms: int | None
    close_ms: int | None
    post_close_ms: int | None
    has_data: bool


class Sessions(Struct, frozen=True):
    """Weekdays, and which of them is today by the broker's clock.

    Whoever asks for a finished day with `version` gets an answer that a browser keeps.
    """

    today: str
    version: str
    days: list[Day]


class SeriesSession(Struct, frozen=True):
    """The bounds of a series' day."""

    kind: Literal["full", "half"]
    pre_open_ms: int
    open_ms: int
    close_ms: int
    post_close_ms: int


class Series(Struct, frozen=True, omit_defaults=True):
    """A day of one ticker: `price` and `volume` for ticks, the other columns for candles.

    Live messages with a sequence above `last_seq` go on exactly where the columns end.
    """

    ticker: str
    date: str
    timeframe: SeriesTimeframe
    epoch_ms: int
    last_seq: int
    complete: bool
    session: SeriesSession | None
    ts_ms: list[int]
    sma9: Numbers
    vwap: Numbers
    price: Numbers | msgspec.UnsetType = msgspec.UNSET
    volume: list[int | None] | msgspec.UnsetType = msgspec.UNSET
    open: Numbers | msgspec.UnsetType = msgspec.UNSET
    high: Numbers | msgspec.UnsetType = msgspec.UNSET
    low: Numbers | msgspec.UnsetType = msgspec.UNSET
    close: Numbers | msgspec.UnsetType = msgspec.UNSET
    revision: list[int] | msgspec.UnsetType = msgspec.UNSET
    extras: dict[str, Numbers] | msgspec.UnsetType = msgspec.UNSET


class Signal(Struct, frozen=True):
    """A cross; the highest revision of an id."""

    id: str
    revision: int
    state: Literal["active", "superseded"]
    late: bool
    ticker: str
    timeframe: str
    ts_ms: int
    kind: str
    direction: Literal["up", "down"]
    price: float
    sma9: float
    vwap: float


class Signals(Struct, frozen=True):
    """A day's signals, and up to where they are complete, by partition."""

    epoch_ms: int
    last_seq: dict[str, int]
    signals: list[Signal]


class Gap(Struct, frozen=True):
    """What is or was missing: `from_ms` up to but without `to_ms`.

    `reason` says why an unfillable one is, in the words of `events.GapReason`; else it is empty.
    """

    id: str
    ticker: str
    series: Literal["bars", "ticks"]
    from_ms: int
    to_ms: int
    cause: str
    state: Literal["open", "filled", "unfillable"]
    reason: str = ""


class Gaps(Struct, frozen=True):
    """The gaps that touch a day."""

    gaps: list[Gap]


class Check(Struct, frozen=True):
    """One thing that the gateway needs."""

    name: str
    ok: bool
    detail: str


class Service(Struct, frozen=True):
    """What a service last said of itself; only the writer counts what it did.

    `restarts` are those since the gateway listens.
    """

    service: str
    instance: str
    status: str
    at_ms: int
    batches: int | None
    records: int | None
    errors: int | None
    processing_ms: float | None
    lag: int | None
    restarts: int = 0


class Lane(Struct, frozen=True):
    """How far the rows of one partition of a stream are behind the stream."""

    stream: str
    partition: int
    seq: int | None
    end_seq: int | None
    lag: int | None


class Health(Struct, frozen=True):
    """Whether the stack does its job."""

    status: Status
    checks: list[Check]
    services: list[Service]
    lanes: list[Lane]


class NextPhase(Struct, frozen=True):
    """What comes after the present part of the trading day."""

    phase: Phase
    at_ms: int


class Clock(Struct, frozen=True):
    """The broker's time, and where in the trading day that is."""

    broker_ms: int | None
    wall_ms: int
    speed: float
    source: str
    simulated: bool
    date: str | None
    phase: Phase | None
    next: NextPhase | None


class Me(Struct, frozen=True):
    """What the caller is to this gateway."""

    auth: Literal["none", "password"]
    authenticated: bool
    public_market: bool
    source: str
    simulated: bool
    version: str


class LiveToken(Struct, frozen=True):
    """A key to one live connection, for pages that send no cookie."""

    token: str
    expires_ms: int
