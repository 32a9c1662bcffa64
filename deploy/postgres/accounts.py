"""Makes roles and database on a running Postgres of our own; can be repeated.

Where Postgres runs as a container there is no single-user mode to do it in, as `./kite up` has; so
the superuser logs in, once per start. Hosted databases have their own roles and do not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import asyncpg

from deploy.supabase.migrate import connect
from deploy.supabase.roles import DATABASE, database_sql, roles_sql, scram_verifier
from libs.common.errors import StoreUnavailable

__all__ = ["make_accounts"]

_CLOSE_WAIT_S = 5.0


async def make_accounts(superuser_dsn: Callable[[str], str], passwords: Mapping[str, str]) -> None:
    """Bring roles, their passwords and the database up to date.

    `superuser_dsn` gives the address of a database by its name. Raises StoreUnavailable.
    """
    verifiers = {role: scram_verifier(password) for role, password in passwords.items()}
    # First in the template, so that the database made of it has the defaults.
    await _run(superuser_dsn("template1"), roles_sql(verifiers))
    create, *grants = database_sql()
    exists = f"SELECT FROM pg_catalog.pg_database WHERE datname = '{DATABASE}'"
    await _run(superuser_dsn("postgres"), [create], unless=exists)
    await _run(superuser_dsn("postgres"), grants)


async def _run(dsn: str, statements: list[str], unless: str | None = None) -> None:
    """Execute statements one by one, or none if the query `unless` has a row."""
    connection = await connect(dsn)
    try:
        if unless is not None and await connection.fetch(unless):
            return
        for statement in statements:
            await connection.execute(statement)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable(f"Postgres refuses the roles: {error}") from error
    finally:
        await connection.close(timeout=_CLOSE_WAIT_S)
