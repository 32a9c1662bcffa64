"""The vocabulary on the bus: frozen facts, and the frame that carries them.

A `Frame` is one message: many events of one partition, atomic, with its own position inside. Times
are epoch milliseconds UTC and end in `_ms`; prices are floats that hold at most four decimals
(ingest sees to it), volumes are whole shares.

Structs are array-like on the wire: a field's place is its name. A new field is added at the end
with a default, which the previous version ignores and fills in; anything else needs a new
`SCHEMA_VERSION` (see `codec`).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = [
    "MARKET_CLOSED",
    "SCHEMA_VERSION",
    "SESSION_CHECK",
    "TIMEFRAME_MS",
    "Bar",
    "Candle",
    "Checkpoint",
    "Clock",
    "Correction",
    "Direction",
    "Event",
    "Frame",
    "Gap",
    "GapReason",
    "GapSeries",
    "GapState",
    "History",
    "HistoryBar",
    "Signal",
    "SignalState",
    "Source",
    "Tick",
    "TickIndicator",
    "Timeframe",
]

SCHEMA_VERSION = 1

Timeframe = Literal["1m", "5m", "15m", "1h"]
TIMEFRAME_MS: dict[Timeframe, int] = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "1h": 3_600_000,
}

Source = Literal["stream", "history"]
GapSeries = Literal["bars", "ticks"]
GapState = Literal["open", "filled", "unfillable"]
GapReason = Literal[
    "", "no_trade", "halted", "closed", "beyond_history", "no_history", "incomplete", "tick_series"
]
SESSION_CHECK = "session_check"
"""The cause of a Gap that is none: a whole session that was held against price history."""
MARKET_CLOSED = "market_closed"
"""The cause of a Gap of minutes that the calendar has, and the broker says are closed."""
Direction = Literal["up", "down"]
SignalState = Literal["active", "superseded"]


class _Event(Struct, frozen=True, array_like=True, gc=False):
    """What all events share: immutable, encoded as an array, never part of a reference cycle."""


class Tick(_Event, tag=1, frozen=True):
    """A change of last price, day volume or trade time of one ticker.

    `ts_ms` is the trade time, made unique per ticker. `volume` is the growth of the day's volume
    since the last tick; `total_volume` the day's volume as the broker states it. `bid`/`ask` are
    None when unknown. `flags` is a bit set, see `TICK_*` in services.ingest.core.
    """

    ticker: str
    ts_ms: int
    price: float
    volume: int
    total_volume: int
    bid: float | None
    ask: float | None
    flags: int = 0


class Bar(_Event, tag=2, frozen=True):
    """One final minute bar of the broker, published once; `ts_ms` is its start."""

    ticker: str
    timeframe: Timeframe
    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    source: Source = "stream"


class Gap(_Event, tag=3, frozen=True):
    """Minutes `[from_ms, to_ms)` of one series that are missing, and what became of them.

    `id` is `TICKER:SERIES:FROM_MS`; a later Gap with the same id updates the earlier one. `reason`
    says why an unfillable one is: nothing was traded, trading was halted, the market was closed;
    the broker keeps no history that far back, has none of this ticker, or never completed it; ticks
    have no history.

    With the cause `SESSION_CHECK` and the id `TICKER:session:FROM_MS` it says that a session, from
    its pre-market to its end, was compared with price history and made equal to it, and that `bars`
    of its minutes have a bar. In the others nothing was traded.

    With the cause `MARKET_CLOSED` and the id `TICKER:closed:FROM_MS` it says that the broker closes
    the market in minutes that the calendar has open; `filled`, that it said so and took it back.
    """

    id: str
    ticker: str
    series: GapSeries
    from_ms: int
    to_ms: int
    cause: str
    state: GapState
    reason: str = ""
    bars: int = 0


class Clock(_Event, tag=4, frozen=True):
    """Broker time at a heartbeat: silence must not freeze bar closes."""

    ts_ms: int


class HistoryBar(Struct, frozen=True, array_like=True, gc=False):
    """One minute of a `History`; `ts_ms` is its start."""

    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: int


class History(_Event, tag=5, frozen=True):
    """All minute bars of one ticker and one New York day so far, ascending and complete.

    `day_ms` is New York midnight of that day. The only carrier of corrections: its day is computed
    anew from these bars alone. It reaches at least to the last bar already published for the
    ticker. A frame that carries a History carries nothing else.
    """

    ticker: str
    day_ms: int
    bars: tuple[HistoryBar, ...]


class TickIndicator(_Event, tag=6, frozen=True):
    """SMA9 and session VWAP at one tick; None until they are defined."""

    ticker: str
    ts_ms: int
    price: float
    sma9: float | None
    vwap: float | None


class Correction(_Event, tag=7, frozen=True):
    """Stands before the candles of a day that was computed anew; they follow in the same frame.

    `revision` counts the corrections of this ticker and day, from 1. What the day had before and is
    not among these candles no longer holds.
    """

    ticker: str
    day_ms: int
    revision: int


class Candle(_Event, tag=8, frozen=True):
    """A closed candle with its indicators; `ts_ms` is its start.

    `revision` is 0 when computed live, else the day's `Correction.revision` it came with. `extras`
    maps the output names of further indicators to their values.
    """

    ticker: str
    timeframe: Timeframe
    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    sma9: float | None
    vwap: float | None
    extras: dict[str, float | None]
    source: Source
    revision: int = 0


class Signal(_Event, tag=9, frozen=True):
    """A change of relation between two series, for example SMA9 crossing VWAP.

    `id` is `TICKER:TIMEFRAME:TS_MS`. A later Signal with the same id and a higher `revision`
    replaces the earlier one. `late` ones came out of a correction and must not be traded.
    """

    id: str
    revision: int
    state: SignalState
    late: bool
    ticker: str
    timeframe: str
    ts_ms: int
    kind: str
    direction: Direction
    price: float
    sma9: float
    vwap: float


Event = Tick | Bar | Gap | Clock | History | TickIndicator | Correction | Candle | Signal


class Frame(Struct, frozen=True, array_like=True):
    """One durable message.

    `version` stands first so that a reader can refuse before it decodes. Frames of MARKET carry
    ingest's position `(epoch, n)`: `epoch` counts ingest's lives, `n` the frames of the partition,
    from 1 and without a hole. Frames of the other streams answer exactly one input frame each:
    `source_seq` is its sequence in the input stream, `origin_seq` the MARKET sequence it goes back
    to (0 on MARKET itself). `sent_ms` is broker time; `received_ms` the wall clock when the wire
    frame arrived, before it was parsed.
    """

    version: int
    epoch: int
    n: int
    source_seq: int
    origin_seq: int
    sent_ms: int
    received_ms: int
    events: tuple[Event, ...]


class Checkpoint(Struct, frozen=True, array_like=True):
    """The state of one operator and partition after input `source_seq`, frame number `source_n`.

    `answer_n` is the number of the last answer, so that numbering goes on when the answers
    themselves have aged out. `source_created_ms` and `output_created_ms` name the incarnations of
    the input and the output stream: a stream made anew has other numbers.
    """

    version: int
    source_created_ms: int
    output_created_ms: int
    source_seq: int
    source_n: int
    answer_n: int
    state: bytes
