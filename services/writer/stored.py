"""What the database holds, counted by the database: the reading half of the reconciler.

What `StoredRows` promises, every way in keeps: one connection of its own, so that comparing never
waits for the lanes nor they for it. Everything raises StoreUnavailable when the database does not
answer. Here is the way over Postgres' own protocol, read-only; `rest_stored.py` has the other.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import asyncpg
import msgspec

from libs.common.errors import StoreUnavailable
from libs.common.opening import OpensWith
from libs.common.postgres import Pool, hint
from services.writer.core import Position
from services.writer.findings import Lane
from services.writer.ledger import Group, Rows, Span, Tally
from services.writer.store import CONNECT_TIMEOUT_S, DRIVER_ERRORS, one_line

__all__ = [
    "STRANGERS_MAX",
    "Minute",
    "PostgresRows",
    "Snapshot",
    "StoredRows",
    "columns_of",
    "moment",
]

Minute = tuple[str, int]  # a ticker and when its minute begins, in milliseconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, tzinfo=UTC)
STRANGERS_MAX = 100
_DAY = re.compile(r"_(\d{4})(\d{2})(\d{2})$")

_POSITION = """
    SELECT stream_created_ms, seq, frame_n FROM public.stream_positions
    WHERE stream = $1 AND partition = $2"""
_POSITIONS = """
    SELECT stream, partition, stream_created_ms, seq, frame_n FROM public.stream_positions"""
_TICKS_SINCE = "SELECT value FROM public.kite_meta WHERE key = 'ticks_since'"
# The look-up stands in a subquery with OFFSET 0: always one range of the key per span.
_GROUPS = """
    SELECT i.ticker, (extract(epoch FROM date_trunc('minute', e."timestamp")) * 1000)::bigint,
        count(*), sum(('x' || left(md5({text}), 15))::bit(60)::bigint)::text
    FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS i (ticker, since, until),
        LATERAL (
            SELECT * FROM public.{table} AS s
            WHERE s.ticker = i.ticker AND s."timestamp" >= i.since AND s."timestamp" < i.until
            OFFSET 0
        ) AS e
    GROUP BY 1, 2"""
# Steps from ticker to ticker along the key instead of reading all rows.
_TICKERS = """
    WITH RECURSIVE found AS (
        (SELECT ticker FROM public.{table} WHERE "timestamp" >= $1 ORDER BY ticker LIMIT 1)
        UNION ALL
        SELECT (SELECT s.ticker FROM public.{table} AS s
            WHERE s.ticker > found.ticker AND s."timestamp" >= $1 ORDER BY s.ticker LIMIT 1)
        FROM found WHERE found.ticker IS NOT NULL
    )
    SELECT ticker FROM found WHERE ticker IS NOT NULL AND ticker <> ALL ($2::text[]) LIMIT $3"""
_PARTITIONS = """
    SELECT c.relname FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.{table}'::regclass"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the database: how far it is, and the rows that it holds of some spans.

    `strangers` are rows of tickers that were not asked for, a sample if there are many.
    """

    position: Position | None
    groups: Mapping[Group, Tally]
    strangers: Mapping[Group, Tally]


class StoredRows(Protocol):
    """Reads positions and tallies."""

    async def positions(self) -> dict[Lane, Position]:
        """Return the last committed position of every lane that has one."""
        ...

    async def ticks_since(self) -> dict[Lane, Position]:
        """Return up to which positions frames left no ticks: minutes only were kept then."""
        ...

    async def groups(self, rows: Rows, spans: Sequence[Span]) -> dict[Group, Tally]:
        """Tally the rows of complete spans."""
        ...

    async def snapshot(
        self,
        lane: Lane,
        rows: Rows,
        spans: Sequence[Span],
        *,
        strangers_from_ms: int | None,
    ) -> Snapshot:
        """Tally spans at one moment; `strangers_from_ms` None asks for no other tickers' rows."""
        ...

    async def first_day(self, table: str) -> date | None:
        """Return the oldest New York day that the table has a partition for."""
        ...

    async def first_gap_ms(self) -> int | None:
        """Return when the first gap of any ticker begins, which its first start lists."""
        ...

    async def session_minutes(self, from_ms: int, to_ms: int, *, over: bool) -> Counter[str]:
        """Count a session's unexplained minutes; `over`: it should have been checked by now."""
        ...

    async def traded_minutes(self, from_ms: int, to_ms: int) -> set[Minute]:
        """Return minutes with stored trades that nothing explains."""
        ...

    async def open_minutes(self, minutes: Collection[Minute]) -> set[Minute]:
        """Return those of the minutes that nothing explains."""
        ...


class PostgresRows(OpensWith):
    """Reads over a connection to Postgres; an async context manager."""

    def __init__(self, dsn: str, *, statement_timeout_s: int, by_transaction: bool = False) -> None:
        self._pool = Pool(
            dsn,
            name="kite-reconciler",
            connections_max=1,
            timeout_s=CONNECT_TIMEOUT_S,
            command_timeout_s=statement_timeout_s + CONNECT_TIMEOUT_S,
            session={
                "default_transaction_read_only": "on",
                "statement_timeout": str(statement_timeout_s * 1000),
                "timezone": "UTC",
            },
            by_transaction=by_transaction,
        )
        super().__init__(self._pool)

    async def positions(self) -> dict[Lane, Position]:
        """See StoredRows."""
        async with self._connection() as connection:
            rows = await connection.fetch(_POSITIONS)
        return {(row[0], row[1]): Position(*row[2:]) for row in rows}

    async def ticks_since(self) -> dict[Lane, Position]:
        """See StoredRows."""
        async with self._connection() as connection:
            text = await connection.fetchval(_TICKS_SINCE)
        found: list[tuple[str, int, int, int, int]] = json.loads(text or "[]")
        return {(stream, partition): Position(*rest) for stream, partition, *rest in found}

    async def groups(self, rows: Rows, spans: Sequence[Span]) -> dict[Group, Tally]:
        """See StoredRows."""
        async with self._connection() as connection:
            return await _groups(connection, rows, spans)

    async def snapshot(
        self,
        lane: Lane,
        rows: Rows,
        spans: Sequence[Span],
        *,
        strangers_from_ms: int | None,
    ) -> Snapshot:
        """See StoredRows."""
        async with self._connection(snapshot=True) as connection:
            row = await connection.fetchrow(_POSITION, *lane)
            position = None if row is None else Position(*row)
            groups = await _groups(connection, rows, spans)
            strangers: dict[Group, Tally] = {}
            if strangers_from_ms is not None:
                names = await connection.fetch(
                    _TICKERS.format(table=rows.table), moment(strangers_from_ms),
                    [span.ticker for span in spans], STRANGERS_MAX,
                )  # fmt: skip
                strange = [Span(name, strangers_from_ms, None) for (name,) in names]
                strangers = await _groups(connection, rows, strange)
            return Snapshot(position, groups, strangers)

    async def first_day(self, table: str) -> date | None:
        """See StoredRows."""
        async with self._connection() as connection:
            names = await connection.fetch(_PARTITIONS.format(table=table))
        found = [_DAY.search(name) for (name,) in names]
        days = [date(*map(int, match.groups())) for match in found if match is not None]
        return min(days, default=None)

    async def first_gap_ms(self) -> int | None:
        """See StoredRows."""
        found: int | None = await self._call("kite_first_gap()", int | None)
        return found

    async def session_minutes(self, from_ms: int, to_ms: int, *, over: bool) -> Counter[str]:
        """See StoredRows."""
        call = "kite_session_minutes($1, $2, $3)"
        return Counter(await self._call(call, dict[str, int], from_ms, to_ms, over))

    async def traded_minutes(self, from_ms: int, to_ms: int) -> set[Minute]:
        """See StoredRows."""
        call = "kite_traded_minutes($1, $2)"
        found: set[Minute] = await self._call(call, set[Minute], from_ms, to_ms)
        return found

    async def open_minutes(self, minutes: Collection[Minute]) -> set[Minute]:
        """See StoredRows."""
        call = "kite_open_minutes($1, $2)"
        found: set[Minute] = await self._call(call, set[Minute], *columns_of(minutes))
        return found

    async def _call(self, function: str, kind: Any, *arguments: Any) -> Any:
        """Return what one of the functions that both ways in call answers, of its `kind`."""
        async with self._connection() as connection:
            text = await connection.fetchval(f"SELECT to_json(public.{function})", *arguments)
        return msgspec.json.decode(text or "null", type=kind)

    @asynccontextmanager
    async def _connection(self, *, snapshot: bool = False) -> AsyncIterator[Any]:
        try:
            async with self._pool.lend(snapshot=snapshot) as connection:
                yield connection
        except (asyncpg.PostgresError, *DRIVER_ERRORS) as error:
            raise StoreUnavailable(one_line(error) + hint(error)) from error


async def _groups(connection: Any, rows: Rows, spans: Iterable[Span]) -> dict[Group, Tally]:
    spans = list(spans)
    if not spans:
        return {}
    found = await connection.fetch(
        _GROUPS.format(table=rows.table, text=rows.sql),
        [span.ticker for span in spans],
        [moment(span.from_ms) for span in spans],
        [_END if span.to_ms is None else moment(span.to_ms) for span in spans],
    )
    return {(row[0], row[1]): Tally(row[2], int(row[3])) for row in found}


def columns_of(minutes: Collection[Minute]) -> tuple[list[str], list[int]]:
    """Return tickers and times of minutes, as `kite_open_minutes` takes them."""
    return [ticker for ticker, _ in minutes], [ts_ms for _, ts_ms in minutes]


def moment(ts_ms: int) -> datetime:
    """Return epoch milliseconds as the driver takes them."""
    return _EPOCH + timedelta(milliseconds=ts_ms)
