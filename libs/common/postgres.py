"""Connections to Postgres: encrypted wherever they leave this machine, pooled, and through poolers.

- `secured`: an address of another machine gets TLS, with `pg_ca_file` also a check of who answers.
  One that asks for a plain connection is refused, because passwords and rows would cross the
  network readable; `pg_private_host` names the one host that is on a network of our own.
- `Pool` lends connections whose session is set up as the caller wants it. A pooler that keeps a
  server connection for each session is none the wiser. One that lends it for a transaction only
  (Supabase's port 6543, PgBouncer's `transaction`) keeps neither settings nor prepared statements,
  so there everything happens in transactions, which carry their settings, and nothing is cached.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit, urlunsplit

import asyncpg

from libs.common.addresses import is_loopback
from libs.common.settings import ServiceSettings

__all__ = ["DatabaseSettings", "Pool", "hint", "secured"]

_ENCRYPTED = ("require", "verify-ca", "verify-full")
_TRANSACTION_PORT = 6543
_STATEMENTS_CACHED_MAX = 100
_NO_ADDRESS = (
    "KITE_PG_DSN: its value is not a Postgres address: expected "
    "postgresql://user:password@host:port/database"
)
_PLAIN = (
    "KITE_PG_DSN: its sslmode lets the connection to another machine go unencrypted: leave sslmode "
    "out, or use require or verify-full"
)
_LOST_STATEMENTS = (
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
_OLD_SCHEMA = (
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
)


class DatabaseSettings(ServiceSettings, frozen=True, kw_only=True):
    """How to connect to a database.

    To another machine a connection is always encrypted. With `pg_ca_file`, the certificate of the
    authority that signed the server's, it is also checked who answers (sslmode verify-full).
    `pg_private_host` is the one other machine that is on a private network, as the container of
    Postgres is, where a plain connection is allowed. `pg_pooler` is `transaction` if the address is
    that of a pooler that lends a connection for a transaction only; port 6543 always is.
    """

    pg_ca_file: str = ""
    pg_private_host: str = ""
    pg_pooler: Literal["session", "transaction"] = "session"

    def pg_fault(self, dsn: str) -> str | None:
        """Return what is wrong with an address, without repeating it: it holds a password."""
        try:
            self.secured(dsn)
        except ValueError as error:
            return str(error)
        return None

    def secured(self, dsn: str) -> str:
        """Return the address as it may be used; raises ValueError, one line without secrets."""
        return secured(dsn, ca_file=self.pg_ca_file, private_host=self.pg_private_host)

    def by_transaction(self, dsn: str) -> bool:
        """Whether a pooler behind the address lends connections for a transaction only."""
        return self.pg_pooler == "transaction" or urlsplit(dsn).port == _TRANSACTION_PORT


def secured(dsn: str, *, ca_file: str = "", private_host: str = "") -> str:
    """Return an address that is encrypted if it leads to another machine; raises ValueError."""
    try:
        parts = urlsplit(dsn)
        query = parse_qs(parts.query, keep_blank_values=True)
        hosts = _hosts(parts.netloc, query)
        usable = parts.scheme in ("postgres", "postgresql")
    except ValueError:
        usable, hosts, query, parts = False, [], {}, urlsplit("")
    if not usable:
        raise ValueError(_NO_ADDRESS)
    if all(_stays_here(host, private_host) for host in hosts):
        return dsn
    mode = query.get("sslmode", ["require"])[-1]
    if mode not in _ENCRYPTED:
        raise ValueError(_PLAIN)
    if ca_file:
        _require_file(ca_file)
        mode, query["sslrootcert"] = "verify-full", [ca_file]
    query["sslmode"] = [mode]
    text = urlencode({name: values[-1] for name, values in query.items()}, quote_via=quote)
    return urlunsplit(parts._replace(query=text))


def _hosts(netloc: str, query: Mapping[str, list[str]]) -> list[str]:
    """Return every host that an address names; raises ValueError for a port that is none."""
    listed = netloc.rpartition("@")[2] or query.get("host", [""])[-1]
    hosts = []
    for each in listed.split(","):
        if unquote(each).startswith("/"):
            hosts.append("/")
            continue
        part = urlsplit(f"//{each}")
        if part.port == 0:
            raise ValueError("no port")
        hosts.append(part.hostname or "")
    return hosts


def _stays_here(host: str, private_host: str) -> bool:
    """Whether a host is this machine, a socket on it, or the one said to be on a private network.

    Without a host it is the driver's own default, a socket.
    """
    return host in ("", "/") or is_loopback(host) or host == private_host.lower()


def _require_file(path: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        raise ValueError(f"KITE_PG_CA_FILE: {path}: {error.strerror}") from error


def hint(error: BaseException) -> str:
    """Return what to do about an error that only a person can mend; else nothing."""
    if isinstance(error, _LOST_STATEMENTS):
        return " (the address leads to a transaction pooler: set KITE_PG_POOLER=transaction)"
    if isinstance(error, _OLD_SCHEMA):
        return " (bring the schema up to date: ./kite db migrate)"
    return ""


class Pool:
    """Lends connections, made when they are needed; a context manager.

    `session` are Postgres' settings for all that is done over them.
    """

    def __init__(
        self,
        dsn: str,
        *,
        name: str,
        connections_max: int,
        timeout_s: float,
        command_timeout_s: float,
        session: Mapping[str, str],
        by_transaction: bool = False,
    ) -> None:
        self._dsn = dsn
        self._name = name
        self._connections_max = connections_max
        self._timeout_s = timeout_s
        self._command_timeout_s = command_timeout_s
        self._by_transaction = by_transaction
        self._session = _set_sql(session, local=False)
        self._transaction = _set_sql(session, local=True)
        self._pool: asyncpg.Pool[Any] | None = None

    async def __aenter__(self) -> Pool:
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._connections_max,
            timeout=self._timeout_s,
            command_timeout=self._command_timeout_s,
            init=self._set_up,
            statement_cache_size=0 if self._by_transaction else _STATEMENTS_CACHED_MAX,
            reset=_keep_session,
            # All else is set once connected: poolers refuse what they do not know.
            server_settings={"application_name": self._name},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def lend(self, *, snapshot: bool = False) -> AsyncIterator[Any]:
        """Lend a connection; with `snapshot` in a transaction that reads, and sees one moment."""
        assert self._pool is not None, "the pool is used outside its context"
        async with self._pool.acquire(timeout=self._timeout_s) as connection:
            if not snapshot and not self._by_transaction:
                yield connection
                return
            isolation: Any = "repeatable_read" if snapshot else None
            async with connection.transaction(isolation=isolation, readonly=snapshot):
                if self._by_transaction:
                    await connection.execute(self._transaction)
                yield connection

    async def _set_up(self, connection: Any) -> None:
        if not self._by_transaction:
            await connection.execute(self._session)


async def _keep_session(_: object) -> None:
    """Reset nothing when a connection comes back: our transactions leave no trace in it."""


def _set_sql(session: Mapping[str, str], *, local: bool) -> str:
    """Return the statement that sets what the session, or the transaction, shall have."""
    calls = []
    for name, value in session.items():
        # A default comes too late for a transaction that has begun.
        name = name.removeprefix("default_") if local else name
        quoted = value.replace("'", "''")
        calls.append(f"set_config('{name}', '{quoted}', {str(local).lower()})")
    return "SELECT " + ", ".join(calls) if calls else "SELECT 1"
