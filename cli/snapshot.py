"""One snapshot of the database, read without a right to change anything.

All of it is one `repeatable read`, read-only transaction, under settings that make text of the same
rows the same on every server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from deploy.supabase import migrate
from libs.common.errors import StoreUnavailable

__all__ = ["ERRORS", "SETTINGS", "one_line", "reading"]

# What text depends on, besides the rows.
SETTINGS: Final = """
    set local timezone = 'UTC'; set local datestyle = 'ISO, YMD';
    set local intervalstyle = 'postgres'; set local extra_float_digits = 1;
    set local bytea_output = 'hex'; set local client_encoding = 'UTF8'; set local search_path = '';
    set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;
    set local lock_timeout = '30s'"""

# What the driver raises when the server refuses or goes away.
ERRORS: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


@asynccontextmanager
async def reading(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Open one snapshot of the database; raises StoreUnavailable when it cannot be reached.

    After a failure nothing is rolled back, but the connection closed: there is nothing to undo, and
    after a COPY whose reader failed at the last piece the driver would wait for ever before the
    next statement, for the end of a statement that has ended already.
    """
    connection = await migrate.connect(dsn)
    try:
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
        await connection.execute(SETTINGS)
        await connection.fetchval("select pg_current_snapshot()::text")  # from here on
        yield connection
        await transaction.commit()
    except ERRORS as error:
        raise StoreUnavailable(f"the database cannot be read: {one_line(error)}") from error
    finally:
        connection.terminate()


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    said: Any = getattr(error, "message", None) or str(error) or type(error).__name__
    return str(said).splitlines()[0]
