"""A writer that was stopped in the middle of a transaction does not keep its successor waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from libs.common.errors import StoreUnavailable
from services.writer.rows import TICK_COLUMNS
from services.writer.store import PostgresStore
from tests.databases import Database
from tests.waiting import eventually_async
from tests.writer_frames import batch_of, tick

TAKES_OVER_WITHIN_S = 10.0
MOVE = "UPDATE stream_positions SET seq = seq + 1 WHERE stream = 'MARKET' AND partition = 0"
SESSION = "SELECT state, wait_event FROM pg_stat_activity WHERE pid = $1"

Stall = Callable[[asyncpg.Connection, asyncio.Event], Awaitable[None]]


async def silent(connection: asyncpg.Connection, woken: asyncio.Event) -> None:
    """Say nothing more, between two statements."""
    await woken.wait()


async def within_copy(connection: asyncpg.Connection, woken: asyncio.Event) -> None:
    """Say nothing more, in the middle of COPY: no time-out of the database ends that."""

    async def lines() -> AsyncIterator[bytes]:
        yield b""
        await woken.wait()

    await connection.copy_to_table(
        "equity_data", schema_name="public", columns=TICK_COLUMNS, source=lines(), format="text"
    )


@pytest.mark.parametrize(("stall", "state"), [(silent, "idle in"), (within_copy, "active")])
def test_its_successor_goes_on(migrated_database: Database, stall: Stall, state: str) -> None:
    """Whoever waits for it too long ends its session, and commits with the next attempt."""
    dsn = migrated_database.owner
    woken = asyncio.Event()

    async def freeze(zombie: asyncpg.Connection) -> None:
        async with zombie.transaction():
            await zombie.execute(MOVE)
            await stall(zombie, woken)

    async def scenario() -> None:
        async with PostgresStore(dsn, connections_max=2, statement_timeout_s=30) as store:
            first = batch_of([tick()])
            await store.commit(first)
            zombie = await asyncpg.connect(dsn, server_settings={"application_name": "kite-writer"})
            observer = await asyncpg.connect(migrated_database.superuser)
            frozen = asyncio.create_task(freeze(zombie))
            pid = zombie.get_server_pid()

            async def is_frozen() -> bool:
                row: Any = await observer.fetchrow(SESSION, pid)
                return bool(row["wait_event"] == "ClientRead" and row["state"].startswith(state))

            await eventually_async(is_frozen, TAKES_OVER_WITHIN_S, "the zombie is frozen")

            async def committed() -> bool:
                try:
                    await store.commit(batch_of([], before=first.after))
                except StoreUnavailable:
                    return False
                return True

            await eventually_async(committed, TAKES_OVER_WITHIN_S, "its successor commits")
            woken.set()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await frozen
            zombie.terminate()
            await observer.close()

    asyncio.run(scenario())
