"""The database's login roles outside Supabase, and the SQL that makes them: pure.

Who there is and how they may log in stands in `deploy.policy`. `kite_owner` owns the schema and is
what the writer logs in as; it is no superuser. The others read, in read-only transactions. The web
roles `anon`, `authenticated` and `service_role` exist on Supabase already; elsewhere they are made
here, because an owner without further rights could not. What each may read: `grants`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

from deploy.policy import DATABASE_ROLES, EVERYTHING, WEB_ROLES, DatabaseRole

__all__ = [
    "BACKUP_ROLE",
    "DATABASE",
    "GATEWAY_ROLE",
    "LOGIN_ROLES",
    "OWNER",
    "READER",
    "SUPERUSER",
    "WEB_ROLES",
    "database_sql",
    "roles_sql",
    "scram_verifier",
]

DATABASE: Final = "kite"
SUPERUSER: Final = "postgres"
OWNER: Final = "kite_owner"
READER: Final = "kite_reader"
GATEWAY_ROLE: Final = "kite_gateway"
BACKUP_ROLE: Final = "kite_backup"

_LOGINS: Final = {name: role for name, role in DATABASE_ROLES.items() if role.logs_in}
LOGIN_ROLES: Final = (SUPERUSER, *_LOGINS)

_SCRAM_ITERATIONS = 4096


def roles_sql(verifiers: Mapping[str, str]) -> list[str]:
    """Return statements that make the roles or renew their passwords, to be run by a superuser.

    `verifiers` are passwords as `scram_verifier` makes them. Each statement is one line and may run
    again.
    """
    statements = [_ensure_role(role) for role in DATABASE_ROLES]
    statements += [f"ALTER ROLE {role} LOGIN PASSWORD '{verifiers[role]}'" for role in LOGIN_ROLES]
    for name, role in _LOGINS.items():
        statements += [] if role.owns else _reader_sql(name, role)
    return statements


def _reader_sql(name: str, role: DatabaseRole) -> list[str]:
    """Return what makes a role a reader: what it may read is granted to it, by the owner."""
    everything = "GRANT" if role.reads == EVERYTHING else "REVOKE"
    way = "TO" if everything == "GRANT" else "FROM"
    return [
        # Row-level security is there for the web; here the grants say who sees what.
        f"ALTER ROLE {name} BYPASSRLS CONNECTION LIMIT {role.connections_max}",
        f"{everything} pg_read_all_data {way} {name}",
        f"ALTER ROLE {name} SET default_transaction_read_only = on",
        f"ALTER ROLE {name} SET statement_timeout = '{role.statement_timeout_s}s'",
    ]


def database_sql(database: str = DATABASE) -> list[str]:
    """Return the statement that makes the database, and those that say who may connect to it.

    To be run by a superuser, outside of any transaction; all but the first may run again.
    """
    readers = ", ".join(name for name, role in _LOGINS.items() if not role.owns)
    return [
        f"CREATE DATABASE {database} OWNER {OWNER}",
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {database} TO {readers}",
    ]


def _ensure_role(role: str) -> str:
    exists = f"SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}'"
    return f"DO $$ BEGIN IF NOT EXISTS ({exists}) THEN CREATE ROLE {role} NOLOGIN; END IF; END $$"


def scram_verifier(password: str) -> str:
    """Derive what the server stores (RFC 5803), so that no statement or log holds the password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
