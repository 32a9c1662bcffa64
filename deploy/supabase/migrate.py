"""Brings a database's schema up to date: the files in `migrations/`, in order, each exactly once.

Promises: each migration and the note that it was applied are one transaction, so a run that is
killed leaves nothing half done; runs that meet wait for each other; a file that was edited after it
was applied, one that came too late, or one that only the database knows stops the run before
anything is changed. Needs no superuser, works through a connection pooler, and takes over where
Supabase's own command line applied the same files.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from deploy.supabase import grants
from libs.common import failpoints
from libs.common.errors import KiteError, SettingsError, StoreMismatch, StoreUnavailable
from libs.common.postgres import secured

__all__ = [
    "MIGRATIONS",
    "Applied",
    "Migration",
    "MigrationError",
    "connect",
    "migrate",
    "pending",
    "read",
]

MIGRATIONS: Final = Path(__file__).parent / "migrations"

_FILE_NAME = re.compile(r"(\d{14})_([a-z0-9_]+)\.sql")
_CONNECT_WAIT_S = 10.0
# A migration that waits for a lock makes everybody else wait behind it: better give up, try later.
_LOCK_WAIT = "30s"
_ADVISORY_LOCK_KEY = int.from_bytes(hashlib.sha256(b"kite_migrations").digest()[:8], signed=True)

_SUPABASE_HISTORY = "supabase_migrations.schema_migrations"
_MAKE_HISTORY = """
create table public.kite_migrations (
    version text primary key,
    name text not null,
    checksum text not null,
    duration_ms double precision not null,
    applied_at timestamptz not null default now()
);
comment on table public.kite_migrations is 'Which migrations were applied, and what they said.';
alter table public.kite_migrations enable row level security;
revoke all on public.kite_migrations from public;
"""
# These roles may be absent until the first migration, and on Supabase get everything by default.
_HIDE_HISTORY = "revoke all on public.kite_migrations from anon, authenticated, service_role"


class MigrationError(KiteError):
    """The database refused a migration, which left no trace."""


@dataclass(frozen=True)
class Migration:
    """One file: `<version>_<name>.sql`."""

    version: str
    name: str
    sql: str

    @property
    def label(self) -> str:
        """The file's name without its suffix."""
        return f"{self.version}_{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True)
class Applied:
    """A migration that this run applied, and how long it took."""

    label: str
    duration_ms: float


def read(directory: Path = MIGRATIONS) -> list[Migration]:
    """Return the migrations of a directory in order; raises StoreMismatch on a wrong file name."""
    found: dict[str, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None or match.group(1) in found:
            raise StoreMismatch(
                f"{path.name} cannot be a migration: the name must be <14 digits>_<words>.sql, and "
                "the digits must be its own"
            )
        # Universal newlines: a checkout on another system has the same checksum.
        migration = Migration(match.group(1), match.group(2), path.read_text(encoding="utf-8"))
        found[migration.version] = migration
    if not found:
        raise StoreMismatch(f"there are no migrations in {directory}")
    return list(found.values())


def pending(known: Sequence[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """Return what is still to be applied, given the checksums of what was, by version.

    Raises StoreMismatch when the database's past is not the one that the files tell.
    """
    by_version = {migration.version: migration for migration in known}
    newest = max(applied, default="")
    for version, checksum in sorted(applied.items()):
        if version not in by_version:
            raise StoreMismatch(
                f"the database has migration {version}, which this version does not know: "
                "it was written by a newer one, update the program"
            )
        if by_version[version].checksum != checksum:
            raise StoreMismatch(
                f"migration {by_version[version].label} was edited after it was applied: "
                "restore the file and put the change into a new one"
            )
    missing = [migration for migration in known if migration.version not in applied]
    if missing and missing[0].version < newest:
        raise StoreMismatch(
            f"migration {missing[0].label} is older than {newest}, which was applied already: "
            "give it a newer number"
        )
    return missing


async def migrate(
    dsn: str,
    *,
    directory: Path = MIGRATIONS,
    report: Callable[[Applied], None] = lambda _: None,
) -> list[Applied]:
    """Apply what is pending and return it; `report` hears of each as soon as it is committed.

    Then bring into force what the policy lets each role read, if it is not so already.

    Raises StoreUnavailable when the database cannot be reached, StoreMismatch when its past does
    not fit, MigrationError when it refuses a migration.
    """
    known = read(directory)
    connection = await connect(dsn)
    applied: list[Applied] = []
    try:
        while (step := await _step(connection, known)) is not None:
            applied.append(step)
            report(step)
        if directory == MIGRATIONS:
            await _grant(connection)
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable(f"the database went away during a migration: {error}") from error
    finally:
        await connection.close(timeout=_CONNECT_WAIT_S)
    return applied


async def connect(dsn: str) -> asyncpg.Connection:
    """Connect, also through a pooler; raises StoreUnavailable, or SettingsError for no address.

    To another machine it is encrypted, as KITE_PG_CA_FILE and KITE_PG_PRIVATE_HOST say.
    """
    try:
        dsn = secured(
            dsn,
            ca_file=os.environ.get("KITE_PG_CA_FILE", ""),
            private_host=os.environ.get("KITE_PG_PRIVATE_HOST", ""),
        )
    except ValueError as error:
        raise SettingsError([str(error)]) from error
    try:
        # No prepared statements: a pooler may serve every transaction by another session.
        return await asyncpg.connect(dsn, timeout=_CONNECT_WAIT_S, statement_cache_size=0)
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise StoreUnavailable(f"the database refuses the login: {error}") from error
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        reason = str(error) or type(error).__name__
        raise StoreUnavailable(f"the database cannot be reached: {reason}") from error
    except ValueError as error:
        raise SettingsError(["KITE_PG_DSN: not a Postgres address"]) from error


async def _step(connection: asyncpg.Connection, known: Sequence[Migration]) -> Applied | None:
    """Apply the next pending migration in one transaction; None when there is none."""
    next_up: Migration | None = None
    try:
        async with connection.transaction():
            await connection.execute(f"set local lock_timeout = '{_LOCK_WAIT}'")
            await connection.execute("set local statement_timeout = 0")
            await connection.execute("set local search_path = ''")
            await connection.execute("select pg_advisory_xact_lock($1)", _ADVISORY_LOCK_KEY)
            next_up = next(iter(pending(known, await _history(connection, known))), None)
            if next_up is None:
                return None
            started_s = time.monotonic()
            await connection.execute(next_up.sql)
            failpoints.reach("migrate.middle")
            applied = Applied(next_up.label, round((time.monotonic() - started_s) * 1000, 1))
            await connection.execute(
                "insert into public.kite_migrations (version, name, checksum, duration_ms)"
                " values ($1, $2, $3, $4)",
                next_up.version,
                next_up.name,
                next_up.checksum,
                applied.duration_ms,
            )
            await connection.execute(_HIDE_HISTORY)
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.LockNotAvailableError as error:
        raise StoreUnavailable(
            f"somebody else held a lock for {_LOCK_WAIT}: try again, or stop the writer first"
        ) from error
    except asyncpg.PostgresError as error:
        what = next_up.label if next_up else "the history of migrations"
        hint = f" ({error.hint})" if error.hint else ""
        raise MigrationError(f"{what}: {error.message}{hint}") from error
    return applied


async def _grant(connection: asyncpg.Connection) -> None:
    """Grant what the policy says, in one transaction; mostly there is nothing to change."""
    tables, functions = map(json.dumps, grants.wanted())
    try:
        async with connection.transaction():
            await connection.execute(f"set local lock_timeout = '{_LOCK_WAIT}'")
            await connection.execute("select pg_advisory_xact_lock($1)", _ADVISORY_LOCK_KEY)
            if await connection.fetchval(grants.DIFFERS, tables, functions):
                for statement in grants.grants_sql():
                    await connection.execute(statement)
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.PostgresError as error:
        raise MigrationError(f"the roles' rights: {error.message}") from error


async def _history(connection: asyncpg.Connection, known: Sequence[Migration]) -> dict[str, str]:
    """Return applied versions and checksums; makes the table the first time."""
    if await connection.fetchval("select to_regclass('public.kite_migrations')") is None:
        await connection.execute(_MAKE_HISTORY)
        await _take_over(connection, known)
    rows = await connection.fetch("select version, checksum from public.kite_migrations")
    return {row["version"]: row["checksum"] for row in rows}


async def _take_over(connection: asyncpg.Connection, known: Sequence[Migration]) -> None:
    """Note as applied what Supabase's command line applied under the same version."""
    if await connection.fetchval("select to_regclass($1)", _SUPABASE_HISTORY) is None:
        return
    rows = await connection.fetch(f"select version from {_SUPABASE_HISTORY}")  # noqa: S608  # ours
    theirs = {row["version"] for row in rows}
    await connection.executemany(
        "insert into public.kite_migrations (version, name, checksum, duration_ms)"
        " values ($1, $2, $3, 0)",
        [(each.version, each.name, each.checksum) for each in known if each.version in theirs],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate the database of KITE_PG_DSN; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kite db migrate", description="Update the schema.")
    parser.add_argument("--json", action="store_true", help="one JSON line per migration")
    wants_json = parser.parse_args(arguments).json

    def report(step: Applied) -> None:
        if wants_json:
            print(json.dumps({"applied": step.label, "duration_ms": step.duration_ms}), flush=True)
        else:
            print(f"applied {step.label} ({step.duration_ms:g} ms)", flush=True)

    try:
        dsn = os.environ.get("KITE_PG_DSN", "")
        if not dsn:
            raise SettingsError(["KITE_PG_DSN: required, but not set"])
        applied = asyncio.run(migrate(dsn, report=report))
    except KiteError as error:
        print(f"kite db migrate: {error}", file=sys.stderr)
        return error.exit_code
    if wants_json:
        print(json.dumps({"up_to_date": True, "applied": len(applied)}))
    elif not applied:
        print("the schema is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
