"""A database as Supabase hands it out: its roles, and what they are granted before anybody asks.

- `postgres` there is no superuser: it owns the database, may make roles, and passes row-level
  security. Here it is called `supabase_postgres`, because the tests' superuser has its name.
- `supabase_admin` is the superuser, whom no customer gets.
- `authenticator` is what PostgREST logs in as: it inherits nothing and becomes what a key names.
- Whatever is made in `public` is granted to the web roles, all of it, by default.
- PostgREST is told of each change of the schema by an event trigger.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from urllib.parse import urlsplit

from cli.servers.postgres import PostgresServer
from deploy.supabase.roles import SUPERUSER
from tests.databases import as_superuser

__all__ = ["AUTHENTICATOR", "HOSTED_OWNER", "authenticator", "hosted_database"]

AUTHENTICATOR = "authenticator"
HOSTED_OWNER = "supabase_postgres"

_PASSWORD = "known-to-the-tests"
_KINDS = ("TABLES", "FUNCTIONS", "SEQUENCES")
_WEB = "anon, authenticated, service_role"
_numbers = itertools.count(1)


def _login(server: PostgresServer, role: str, database: str) -> str:
    at = urlsplit(server.dsn(SUPERUSER, database))
    return f"postgresql://{role}:{_PASSWORD}@{at.hostname}:{at.port}/{database}"


def _role(name: str, attributes: str) -> str:
    there = f"SELECT FROM pg_roles WHERE rolname = '{name}'"
    return (
        f"DO $$ BEGIN IF NOT EXISTS ({there}) THEN CREATE ROLE {name}; END IF; END $$;"
        f"ALTER ROLE {name} {attributes}"
    )


def authenticator(server: PostgresServer, database: str) -> str:
    """Make the role that PostgREST logs in as, let it into a database, and return how."""
    as_superuser(
        server,
        _role(AUTHENTICATOR, f"LOGIN NOINHERIT PASSWORD '{_PASSWORD}'"),
        f"GRANT {_WEB} TO {AUTHENTICATOR}",
        f"ALTER ROLE {AUTHENTICATOR} SET statement_timeout = '8s'",
        f"ALTER ROLE {AUTHENTICATOR} SET lock_timeout = '8s'",
        f"GRANT CONNECT ON DATABASE {database} TO {AUTHENTICATOR}",
    )
    return _login(server, AUTHENTICATOR, database)


@contextlib.contextmanager
def hosted_database(server: PostgresServer) -> Iterator[str]:
    """Yield how a customer connects to a new project's database."""
    name = f"hosted_{next(_numbers)}"
    as_superuser(
        server,
        _role(HOSTED_OWNER, f"LOGIN CREATEDB CREATEROLE BYPASSRLS PASSWORD '{_PASSWORD}'"),
        _role("supabase_admin", "SUPERUSER NOLOGIN"),
        _role("service_role", "NOINHERIT BYPASSRLS"),
        f"CREATE DATABASE {name} OWNER {HOSTED_OWNER}",
    )
    try:
        _furnish(server, name)
        authenticator(server, name)
        yield _login(server, HOSTED_OWNER, name)
    finally:
        as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


def _furnish(server: PostgresServer, name: str) -> None:
    grants = [
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT ALL ON {kind} TO {_WEB}"
        for owner in (HOSTED_OWNER, "supabase_admin")
        for kind in _KINDS
    ]
    as_superuser(
        server,
        f"GRANT USAGE ON SCHEMA public TO {_WEB}",
        *grants,
        "CREATE SCHEMA extensions",
        "CREATE FUNCTION extensions.pgrst_ddl_watch() RETURNS event_trigger LANGUAGE plpgsql "
        "AS $$ BEGIN NOTIFY pgrst, 'reload schema'; END $$",
        "CREATE EVENT TRIGGER pgrst_ddl_watch ON ddl_command_end "
        "EXECUTE FUNCTION extensions.pgrst_ddl_watch()",
        database=name,
    )
