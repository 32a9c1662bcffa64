"""The database as the gateway sees it: read-only, bounded, and each snapshot of one moment.

What is promised:

- A snapshot and the position of the writer come from one transaction that sees one state of the
  database, so that rows and position belong together: all events up to the position are in the
  rows, none after it. Live messages go on from there without a gap or a double.
- A day is read through the keys of its own partitions; columns come back as arrays, because rows
  one by one would take twice as long.
- Nothing is unbounded: connections, rows, the time a statement may take.

Every method raises StoreUnavailable when the database is away, too slow or too busy, and TooMuch
when an answer would have more rows than anybody can use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from libs.common import calendar, subjects
from libs.common.errors import StoreUnavailable
from libs.common.opening import OpensWith
from libs.common.postgres import Pool, hint
from services.gateway import queries
from services.gateway.answers import Gap, Service, Signal

__all__ = [
    "TICKERS_MAX",
    "CandleColumns",
    "LastPrice",
    "Position",
    "Store",
    "TickColumns",
    "TooMuch",
]

ROWS_MAX = 250_000
SIGNALS_MAX = 20_000
GAPS_MAX = 20_000
TICKERS_MAX = 1000
CONNECTIONS_MAX = 8
STATEMENT_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 5.0
_COMMAND_MARGIN_S = 2
# So many tickers are asked which days have candles; ticks tell by their partitions.
_WITNESSES_MAX = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DRIVER_ERRORS = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class TooMuch(Exception):
    """An answer would have more rows than this interface gives."""


class Position(Struct, frozen=True):
    """The last frame of a lane that is in the rows; 0, 0 before the first."""

    epoch_ms: int = 0
    seq: int = 0


class TickColumns(Struct, frozen=True):
    """A day's ticks; `price` and `volume` are None where another lane is not as far yet."""

    position: Position
    ts_ms: list[int]
    price: list[float | None]
    volume: list[int | None]
    sma9: list[float | None]
    vwap: list[float | None]


class CandleColumns(Struct, frozen=True):
    """A day's candles of one timeframe, latest revisions."""

    position: Position
    ts_ms: list[int]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[int]
    sma9: list[float | None]
    vwap: list[float | None]
    extras: dict[str, list[float | None]]
    revision: list[int]


class LastPrice(Struct, frozen=True):
    """The newest price of a ticker in the rows."""

    ticker: str
    ts_ms: int
    price: float


class Store(OpensWith):
    """Reads over a few connections, made when they are needed; used as a context manager."""

    def __init__(self, dsn: str, *, by_transaction: bool = False) -> None:
        limit_ms = str(STATEMENT_TIMEOUT_S * 1000)
        self._pool = Pool(
            dsn,
            name="kite-gateway",
            connections_max=CONNECTIONS_MAX,
            timeout_s=_CONNECT_TIMEOUT_S,
            command_timeout_s=STATEMENT_TIMEOUT_S + _COMMAND_MARGIN_S,
            session={
                "default_transaction_read_only": "on",
                "statement_timeout": limit_ms,
                "idle_in_transaction_session_timeout": limit_ms,
                # A plan for any day would have to lock the partitions of all days.
                "plan_cache_mode": "force_custom_plan",
                "jit": "off",
                "timezone": "UTC",
            },
            by_transaction=by_transaction,
        )
        super().__init__(self._pool)

    async def ping(self) -> None:
        """Return if the database answers."""
        async with self._connection() as connection:
            await connection.execute("SELECT 1")

    # -- snapshots --------------------------------------------------------------------------------

    async def ticks(self, ticker: str, partition: int, day: date) -> TickColumns:
        """Return a day's ticks with their averages, and how far INDICATORS is in the rows."""
        async with self._snapshot() as connection:
            position = await _position(connection, subjects.INDICATORS, partition)
            row = await connection.fetchrow(queries.TICKS, ticker, *_bounds(day), ROWS_MAX + 1)
        columns = _columns(row, ROWS_MAX)
        return TickColumns(position, *columns)

    async def candles(
        self, ticker: str, partition: int, timeframe: str, day: date
    ) -> CandleColumns:
        """Return a day's candles, and how far INDICATORS is in the rows."""
        async with self._snapshot() as connection:
            position = await _position(connection, subjects.INDICATORS, partition)
            row = await connection.fetchrow(
                queries.CANDLES, ticker, timeframe, *_bounds(day), ROWS_MAX + 1
            )
        moments, opens, highs, lows, closes, volumes, *rest = _columns(row, ROWS_MAX)
        sma9, vwap, extras, revision = rest
        return CandleColumns(
            position, moments, opens, highs, lows, closes, volumes, sma9, vwap, _extras(extras),
            revision,
        )  # fmt: skip

    async def signals(
        self, day: date, ticker: str | None, timeframe: str | None
    ) -> tuple[dict[int, Position], list[Signal]]:
        """Return a day's signals, and how far each partition of SIGNALS is in the rows."""
        async with self._snapshot() as connection:
            positions = await connection.fetch(queries.POSITIONS_OF, subjects.SIGNALS)
            rows = await connection.fetch(
                queries.SIGNALS, _one(ticker), *_bounds(day), timeframe, SIGNALS_MAX + 1
            )
        _require_few(rows, SIGNALS_MAX)
        found = {row["partition"]: Position(row["epoch_ms"], row["seq"]) for row in positions}
        return found, [Signal(**dict(row)) for row in rows]

    async def gaps(self, day: date, ticker: str | None) -> list[Gap]:
        """Return the gaps that touch a day."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries.GAPS, _one(ticker), *_bounds(day), GAPS_MAX + 1)
        _require_few(rows, GAPS_MAX)
        return [Gap(**dict(row)) for row in rows]

    # -- the watchlist and the calendar -----------------------------------------------------------

    async def tickers(self, first: date, last: date) -> list[str]:
        """Return the tickers that have candles in the months of these days or ticks on them."""
        async with self._connection() as connection:
            return await _tickers(connection, first, last)

    async def last_prices(self, tickers: Sequence[str], first: date, last: date) -> list[LastPrice]:
        """Return the newest price of each ticker between two days, where there is any."""
        begin, _ = _bounds(first)
        _, end = _bounds(last)
        ticks_begin, _ = _bounds(max(first, last - timedelta(days=7)))
        async with self._connection() as connection:
            rows = await connection.fetch(
                queries.LAST_PRICES, list(tickers), ticks_begin, begin, end
            )
        return [LastPrice(**dict(row)) for row in rows]

    async def closes(
        self, tickers: Sequence[str], day: date
    ) -> dict[str, tuple[float | None, list[float]]]:
        """Return, by ticker, the last regular close before `day`, and the closes of `day`."""
        before = calendar.previous_session(day)
        async with self._connection() as connection:
            rows = await connection.fetch(
                queries.CLOSES, list(tickers), _moment(before.open_ms), _moment(before.close_ms),
                *_bounds(day),
            )  # fmt: skip
        return {row["ticker"]: (row["previous"], row["closes"] or []) for row in rows}

    async def days_with_data(self, days: Sequence[date]) -> set[date]:
        """Return those of `days` (in order, not empty) that have ticks or candles."""
        bounds = [_bounds(day) for day in days]
        begins, ends = [begin for begin, _ in bounds], [end for _, end in bounds]
        async with self._connection() as connection:
            names = await connection.fetch(queries.TICK_PARTITIONS)
            witnesses = (await _tickers(connection, days[0], days[-1]))[:_WITNESSES_MAX]
            rows = await connection.fetch(queries.DAYS, list(days), begins, ends, witnesses)
        ticks = {datetime.strptime(row[0], "%Y%m%d").replace(tzinfo=UTC).date() for row in names}
        return (ticks & set(days)) | {row[0] for row in rows}

    async def version(self) -> str:
        """Return a text that is another one after anything stored before has changed."""
        async with self._connection() as connection:
            row = await connection.fetchrow(queries.VERSION)
        return ".".join(f"{value:x}" for value in row.values())

    # -- health -----------------------------------------------------------------------------------

    async def positions(self) -> dict[tuple[str, int], Position]:
        """Return how far every lane is in the rows."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries.POSITIONS)
        return {
            (row["stream"], row["partition"]): Position(row["epoch_ms"], row["seq"]) for row in rows
        }

    async def services(self) -> list[Service]:
        """Return what services said of themselves in the last minutes."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries.SERVICES)
        return [Service(**dict(row), lag=None) for row in rows]

    async def broker_ms(self) -> int | None:
        """Return the newest broker time that the writer noted."""
        async with self._connection() as connection:
            found: int | None = await connection.fetchval(queries.BROKER_TIME)
        return found

    # -- connections ------------------------------------------------------------------------------

    def _snapshot(self) -> AbstractAsyncContextManager[Any]:
        """Lend a connection on which all statements see one state of the database."""
        return self._connection(snapshot=True)

    @asynccontextmanager
    async def _connection(self, *, snapshot: bool = False) -> AsyncIterator[Any]:
        try:
            async with self._pool.lend(snapshot=snapshot) as connection:
                yield connection
        except (*_DRIVER_ERRORS, asyncpg.PostgresError) as error:
            # Of the message only the first line; none of it holds the address's password.
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise StoreUnavailable(f"the database: {reason}{hint(error)}") from error


async def _position(connection: Any, stream: str, partition: int) -> Position:
    row = await connection.fetchrow(queries.POSITION, stream, partition)
    return Position() if row is None else Position(row["epoch_ms"], row["seq"])


async def _tickers(connection: Any, first: date, last: date) -> list[str]:
    # Whole months of candles: then each step of the search ends at the first row it sees.
    month, _ = _bounds(first.replace(day=1))
    _, end = _bounds(last)
    ticks_begin, _ = _bounds(max(first, last - timedelta(days=7)))
    rows = await connection.fetch(queries.TICKERS, month, end, ticks_begin, TICKERS_MAX)
    return sorted(row[0] for row in rows)[:TICKERS_MAX]


def _bounds(day: date) -> tuple[datetime, datetime]:
    begin_ms, end_ms = calendar.day_bounds_ms(day)
    return _moment(begin_ms), _moment(end_ms)


def _moment(ts_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ts_ms)


def _one(ticker: str | None) -> list[str] | None:
    return None if ticker is None else [ticker]


def _columns(row: Any, rows_max: int) -> list[list[Any]]:
    """Return arrays of one row as lists: no rows at all are nulls."""
    columns = [column or [] for column in row]
    _require_few(columns[0], rows_max)
    return columns


def _require_few(rows: Sequence[object], rows_max: int) -> None:
    if len(rows) > rows_max:
        raise TooMuch(f"more than {rows_max} rows")


def _extras(texts: list[str]) -> dict[str, list[float | None]]:
    """Turn each candle's further values into columns, with null where a candle has none."""
    objects = [msgspec.json.decode(text, type=dict[str, float | None]) for text in texts]
    names = sorted({name for values in objects for name in values})
    return {name: [values.get(name) for values in objects] for name in names}
