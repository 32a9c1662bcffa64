"""The database as the writer sees it, and its Postgres adapter.

What every store promises (tests/contract/test_store.py):

- `commit` moves the position from `batch.before` to `batch.after` and stores the batch's rows, or
  does neither. When the position is not `batch.before` it raises StoreFenced and stores nothing.
- StoreUnavailable leaves open whether a commit happened: read the position, which tells.
- RowsRefused is final: the rows contradict what is stored, or do not fit its types. A tick stored
  twice is such a contradiction; it is never passed over in silence.
- A candle equal to the stored one changes nothing. A different one replaces it with the next
  revision, and what it replaces goes to `candle_revisions`. A gap replaces the one of its id; a
  signal does if its revision is higher.

On Postgres the UPDATE of the position is the first statement of the transaction: its row lock makes
a second writer wait, then find the position moved. Partitions are made before the transaction, so
that no lane holds locks while another makes a table.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date
from io import BytesIO
from typing import Any, Protocol

import asyncpg
from msgspec import Struct

from libs.common import failpoints
from libs.common.errors import RowsRefused, StoreFenced, StoreMismatch, StoreUnavailable
from libs.common.events import Candle
from libs.common.opening import OpensWith
from libs.common.postgres import Pool, hint
from libs.common.telemetry import get_logger
from services.writer import upserts
from services.writer.core import Batch, Lines, Position
from services.writer.rows import CANDLE_COLUMNS, INDICATOR_COLUMNS, TICK_COLUMNS, candle_line

__all__ = [
    "CONNECT_TIMEOUT_S",
    "DRIVER_ERRORS",
    "PARTITIONS_CACHED_MAX",
    "TABLES",
    "PostgresStore",
    "Report",
    "Store",
    "Usage",
    "one_line",
    "require_owner",
]

CONNECT_TIMEOUT_S = 10.0
_COMMAND_MARGIN_S = 10
# Nobody holds for long what another writer waits for, unless it was stopped in the middle.
_LOCK_TIMEOUT_S = 2
PARTITIONS_CACHED_MAX = 4096
_LINES_PER_BITE = 500

# SQLSTATE classes: the data themselves are wrong, and will be the next time.
_DATA_EXCEPTION, _CONSTRAINT_VIOLATION = "22", "23"

# What the driver raises when a connection breaks; the last one when that happens at a bad moment.
DRIVER_ERRORS = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_META = "SELECT value FROM public.kite_meta WHERE key = $1"
_CLAIM_META = "INSERT INTO public.kite_meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_SET_META = """
    INSERT INTO public.kite_meta AS kept (key, value) VALUES ($1, $2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()
    WHERE kept.value <> excluded.value"""
# Up to these positions frames have left no ticks.
_TICKS_SINCE = """
    INSERT INTO public.kite_meta (key, value)
    SELECT 'ticks_since', coalesce(json_agg(json_build_array(
        stream, partition, stream_created_ms, seq, frame_n)), '[]')::text
    FROM public.stream_positions
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()"""
_POSITION = """
    SELECT stream_created_ms, seq, frame_n FROM public.stream_positions
    WHERE stream = $1 AND partition = $2"""
_FIRST_POSITION = """
    INSERT INTO public.stream_positions (stream, partition, seq, frame_n, stream_created_ms)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"""
_MOVE_POSITION = """
    UPDATE public.stream_positions SET seq = $3, frame_n = $4, updated_at = now()
    WHERE stream = $1 AND partition = $2 AND stream_created_ms = $5 AND seq = $6"""
_REPORT = """
    INSERT INTO public.streaming_metrics (service, instance, "timestamp", broker_timestamp,
        market_open, status, batches, records_processed, errors, processing_ms)
    VALUES ($1, $2, to_timestamp($3 / 1000.0), to_timestamp($4 / 1000.0), $5, $6, $7, $8, $9, $10)
    ON CONFLICT DO NOTHING"""
# A bounded bite, and no waiting for another writer that is at the same ones.
_PRUNE = """
    DELETE FROM public.streaming_metrics WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM public.streaming_metrics WHERE "timestamp" < to_timestamp($1 / 1000.0)
        ORDER BY "timestamp" LIMIT 100000 FOR UPDATE SKIP LOCKED))"""
# Sessions of writers in a transaction whose own process has not said a word for a while. No
# time-out covers them all: while COPY waits for its client, Postgres heeds none. Another writer
# has the lease by now, and the fence decides should this one wake.
_END_STALLED = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()
        AND application_name = current_setting('application_name') AND wait_event = 'ClientRead'
        AND xact_start < clock_timestamp() - make_interval(secs => $1)
        AND greatest(query_start, state_change) < clock_timestamp() - make_interval(secs => $1)"""
_SIZE = "SELECT pg_database_size(current_database())"
TABLES = (
    "equity_data", "indicators", "candles", "candle_revisions", "signals", "gaps", "option_prices",
    "orders", "trades", "positions", "daily_pnl", "streaming_metrics",
)  # fmt: skip
_TABLE_SIZES = """
    SELECT name, (SELECT sum(pg_total_relation_size(part.oid)) FROM (
        SELECT to_regclass('public.' || name)::oid AS oid
        UNION ALL SELECT inhrelid FROM pg_inherits
            WHERE inhparent = to_regclass('public.' || name)) AS part)::bigint AS bytes
    FROM unnest($1::text[]) AS name"""
_CONNECTIONS = """
    SELECT sum(numbackends)::integer, current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
    FROM pg_stat_database WHERE datname IS NOT NULL"""
_ENSURE_PARTITION = "SELECT public.kite_ensure_partition($1, $2)"


class Report(Struct, frozen=True):
    """A row of `streaming_metrics`: what one instance did since its report before.

    Only the log tells the last three: rows of both tick tables, and the newest tick of all in
    seconds since the epoch, 0 before the first.
    """

    instance: str
    now_ms: int
    broker_ms: int | None
    market_open: bool | None
    status: str
    batches: int
    records: int
    errors: int
    processing_ms: float
    equity_rows: int = 0
    indicator_rows: int = 0
    newest_tick_s: int = 0


class Usage(Struct, frozen=True):
    """What is used of a database: bytes of our tables by name, and connections of anybody."""

    table_bytes: dict[str, int]
    connections: int
    connections_max: int


class Store(Protocol):
    """Where rows and positions go."""

    async def claim(self, meta: Mapping[str, str]) -> None:
        """Make the store belong to `meta`, or raise StoreMismatch if it belongs to something else.

        Raises StoreUnavailable.
        """
        ...

    async def keep(self, what: str) -> None:
        """Note that from now on `ticks` are stored, or `minutes` only; raises StoreUnavailable."""
        ...

    async def position(self, stream: str, partition: int) -> Position | None:
        """Return the last committed position, None before the first; raises StoreUnavailable."""
        ...

    async def commit(self, batch: Batch) -> None:
        """Store rows and position together; raises as said above."""
        ...

    async def ping(self) -> None:
        """Return if the store answers; raises StoreUnavailable."""
        ...

    async def size_bytes(self) -> int:
        """Return how big the whole database is; raises StoreUnavailable."""
        ...

    async def usage(self) -> Usage:
        """Return what is used of the database; raises StoreUnavailable."""
        ...

    async def report(self, report: Report) -> None:
        """Keep a report; raises StoreUnavailable."""
        ...

    async def prune_reports(self, before_ms: int) -> None:
        """Drop reports from before `before_ms`, the oldest first; raises StoreUnavailable."""
        ...


class PostgresStore(OpensWith):
    """Rows by text COPY and upserts over a few connections; used as a context manager.

    Connections are made when they are needed, so it starts while the database is away.
    """

    def __init__(
        self,
        dsn: str,
        *,
        connections_max: int,
        statement_timeout_s: int,
        by_transaction: bool = False,
    ) -> None:
        limit_ms = str(statement_timeout_s * 1000)
        self._pool = Pool(
            dsn,
            name="kite-writer",
            connections_max=connections_max,
            timeout_s=CONNECT_TIMEOUT_S,
            # The server's own limit comes first and says more; this one is for a silent network.
            command_timeout_s=statement_timeout_s + _COMMAND_MARGIN_S,
            session={
                "statement_timeout": limit_ms,
                "lock_timeout": str(_LOCK_TIMEOUT_S * 1000),
                # Not the only answer to a writer that was frozen, see `_END_STALLED`.
                "idle_in_transaction_session_timeout": limit_ms,
                "timezone": "UTC",
            },
            by_transaction=by_transaction,
        )
        super().__init__(self._pool)
        self._partitions: set[tuple[str, date]] = set()

    async def claim(self, meta: Mapping[str, str]) -> None:
        """See Store."""
        async with self._connection() as connection:
            for key, wanted in meta.items():
                await connection.execute(_CLAIM_META, key, wanted)
                require_owner(key, wanted, await connection.fetchval(_META, key))

    async def keep(self, what: str) -> None:
        """See Store."""
        async with self._connection() as connection, connection.transaction():
            if await connection.fetchval(_META, "store") == "minutes" and what == "ticks":
                await connection.execute(_TICKS_SINCE)
            await connection.execute(_SET_META, "store", what)

    async def position(self, stream: str, partition: int) -> Position | None:
        """See Store."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_POSITION, stream, partition)
            return None if row is None else Position(*row)

    async def commit(self, batch: Batch) -> None:
        """See Store."""
        try:
            await self._commit(batch)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                await self._end_stalled()
            raise

    async def _commit(self, batch: Batch) -> None:
        await self._ensure_partitions(batch)
        async with self._connection() as connection:
            failpoints.reach("writer.transaction.before")
            async with connection.transaction():
                await _move_position(connection, batch)
                failpoints.reach("writer.transaction.begun")
                await _copy(connection, "equity_data", TICK_COLUMNS, batch.ticks)
                await _copy(connection, "indicators", INDICATOR_COLUMNS, batch.indicators)
                for wave in batch.candles:
                    await _write_candles(connection, wave)
                if batch.gaps:
                    await connection.execute(upserts.GAPS, *upserts.gap_columns(batch.gaps))
                if batch.checks:
                    await connection.execute(upserts.CHECKS, *upserts.check_columns(batch.checks))
                if batch.signals:
                    columns = upserts.signal_columns(batch.signals)
                    await connection.execute(upserts.SIGNALS, *columns)
                failpoints.reach("writer.commit.before")
                if failpoints.is_armed("writer.commit.sent"):
                    await _die_committing(connection)

    async def _end_stalled(self) -> None:
        async with self._connection() as connection:
            ended = await connection.fetchval(_END_STALLED, float(_LOCK_TIMEOUT_S))
        get_logger().warning("store.stalled_sessions_ended", sessions=ended)

    async def ping(self) -> None:
        """See Store."""
        async with self._connection() as connection:
            await connection.execute("SELECT 1")

    async def size_bytes(self) -> int:
        """See Store."""
        async with self._connection() as connection:
            return int(await connection.fetchval(_SIZE))

    async def usage(self) -> Usage:
        """See Store."""
        async with self._connection() as connection:
            sizes = await connection.fetch(_TABLE_SIZES, list(TABLES))
            connections = await connection.fetchrow(_CONNECTIONS)
        return Usage({row["name"]: row["bytes"] or 0 for row in sizes}, *connections)

    async def report(self, report: Report) -> None:
        """See Store."""
        async with self._connection() as connection:
            await connection.execute(
                _REPORT, "writer", report.instance, report.now_ms, report.broker_ms,
                report.market_open, report.status, report.batches, report.records, report.errors,
                report.processing_ms,
            )  # fmt: skip

    async def prune_reports(self, before_ms: int) -> None:
        """See Store."""
        async with self._connection() as connection:
            await connection.execute(_PRUNE, before_ms)

    async def _ensure_partitions(self, batch: Batch) -> None:
        if len(self._partitions) > PARTITIONS_CACHED_MAX:
            self._partitions.clear()
        for table, day in sorted(batch.partitions - self._partitions):
            try:
                await self._ensure_partition(table, day)
            except StoreUnavailable as error:
                # Another lane made it while this one waited for the lock, and a transaction does
                # not see by name what appeared since it began to look: ask once more.
                if not isinstance(error.__cause__, asyncpg.DuplicateTableError):
                    raise
                await self._ensure_partition(table, day)
            self._partitions.add((table, day))

    async def _ensure_partition(self, table: str, day: date) -> None:
        """Make it durably: behind a transaction pooler, what is lent is one transaction."""
        async with self._connection() as connection:
            await connection.execute(_ENSURE_PARTITION, table, day)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """Lend a connection; whatever the driver raises meanwhile comes out as an error of ours."""
        try:
            async with self._pool.lend() as connection:
                try:
                    yield connection
                except DRIVER_ERRORS:
                    # Nobody knows what state it is in, unless the pool took it back already.
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                    raise
        except asyncpg.PostgresError as error:
            if _is_missing_partition(error):
                self._partitions.clear()  # somebody removed one: make it again
            elif (error.sqlstate or "")[:2] in (_DATA_EXCEPTION, _CONSTRAINT_VIOLATION):
                raise RowsRefused(one_line(error)) from error
            raise StoreUnavailable(one_line(error) + hint(error)) from error
        except DRIVER_ERRORS as error:
            raise StoreUnavailable(one_line(error)) from error


def require_owner(key: str, wanted: str, found: str | None) -> None:
    """Raise StoreMismatch unless the database says of `key` what this writer runs for."""
    if found != wanted:
        raise StoreMismatch(
            f"the database was made for {key} {found!r}, this writer runs for {wanted!r}: use "
            f"another database, or set KITE_{key.upper()}={found}"
        )


async def _move_position(connection: Any, batch: Batch) -> None:
    before, after = batch.before, batch.after
    if before.seq == 0:
        answer = await connection.execute(
            _FIRST_POSITION, batch.stream, batch.partition, after.seq, after.n, after.created_ms
        )
        if answer == "INSERT 0 1":
            return
    answer = await connection.execute(
        _MOVE_POSITION, batch.stream, batch.partition, after.seq, after.n, after.created_ms,
        before.seq,
    )  # fmt: skip
    if answer != "UPDATE 1":
        raise StoreFenced(
            f"{batch.stream} partition {batch.partition} is no longer at message {before.seq}: "
            "another writer moved it"
        )


async def _copy(connection: Any, table: str, columns: tuple[str, ...], lines: Lines) -> None:
    if lines.count:
        await connection.copy_to_table(
            table, schema_name="public", columns=columns, source=BytesIO(lines.data), format="text"
        )
        failpoints.reach("writer.transaction.middle")


async def _write_candles(connection: Any, wave: Sequence[Candle]) -> None:
    """Add the new ones, and compare the others with what is stored."""
    stretches = upserts.stretches(wave)
    found = await connection.fetch(upserts.STORED, *upserts.stretch_columns(stretches))
    new, known = wave, list[Candle]()
    if found:
        stored = {
            (stretches[place - 1].ticker, stretches[place - 1].timeframe, ts_ms)
            for place, ts_ms in found
        }
        new, known = [], []
        for each in wave:
            is_known = (each.ticker, each.timeframe, each.ts_ms) in stored
            (known if is_known else new).append(each)
    if new:
        await connection.copy_to_table(
            "candles", schema_name="public", columns=CANDLE_COLUMNS, source=_lines(new),
            format="text",
        )  # fmt: skip
    if known:
        await connection.execute(upserts.CANDLES, *upserts.candle_columns(known))


async def _lines(candles: Sequence[Candle]) -> AsyncIterator[bytes]:
    """Yield the text bit by bit: the database takes one in while the next is made."""
    for begin in range(0, len(candles), _LINES_PER_BITE):
        yield "".join(map(candle_line, candles[begin : begin + _LINES_PER_BITE])).encode()


async def _die_committing(connection: Any) -> None:
    """Die with COMMIT on the wire and its answer unread."""
    committing = asyncio.ensure_future(connection.execute("COMMIT"))
    await asyncio.sleep(0)  # the driver hands it to the transport
    await asyncio.sleep(0)  # and uvloop's transport to the socket, at the end of that turn
    failpoints.reach("writer.commit.sent")
    await committing  # another instance was faster; a second COMMIT does no harm


def _is_missing_partition(error: asyncpg.PostgresError) -> bool:
    """A row without a partition counts as a check violation, but of no constraint."""
    return isinstance(error, asyncpg.CheckViolationError) and not error.constraint_name


def one_line(error: BaseException) -> str:
    """Say what the database said, with the row or key that it names."""
    detail = getattr(error, "detail", None)
    text = ": ".join(filter(None, (type(error).__name__, str(error))))
    text += f" ({detail})" if detail else ""
    return " ".join(text.split())
