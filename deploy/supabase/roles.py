"""The database's login roles outside Supabase, and the SQL that makes them: pure.

`kite_owner` owns the schema and is what the writer logs in as; it is no superuser. `kite_reader`
reads everything, in read-only transactions, for status and for people. The web roles `anon`,
`authenticated` and `service_role` exist on Supabase already; elsewhere they are made here, because
an owner without further rights could not. Grants to them are the migrations' business.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

__all__ = [
    "DATABASE",
    "LOGIN_ROLES",
    "OWNER",
    "READER",
    "SUPERUSER",
    "WEB_ROLES",
    "roles_sql",
    "scram_verifier",
]

DATABASE: Final = "kite"
SUPERUSER: Final = "postgres"
OWNER: Final = "kite_owner"
READER: Final = "kite_reader"
LOGIN_ROLES: Final = (SUPERUSER, OWNER, READER)
WEB_ROLES: Final = ("anon", "authenticated", "service_role")

# Readers may not use up the server: the writer must always get a connection.
_READER_CONNECTIONS_MAX = 20
_READER_STATEMENT_TIMEOUT = "30s"
_SCRAM_ITERATIONS = 4096


def roles_sql(verifiers: Mapping[str, str]) -> list[str]:
    """Return statements that make the roles or renew their passwords, to be run by a superuser.

    `verifiers` are passwords as `scram_verifier` makes them. Each statement is one line and may run
    again. Run in `template1`, so that every database has the defaults.
    """
    statements = [_ensure_role(role) for role in (OWNER, READER, *WEB_ROLES)]
    statements += [f"ALTER ROLE {role} LOGIN PASSWORD '{verifiers[role]}'" for role in LOGIN_ROLES]
    return [
        *statements,
        # Row-level security lets nobody but owner and exempt roles see the trading tables.
        f"ALTER ROLE {READER} BYPASSRLS CONNECTION LIMIT {_READER_CONNECTIONS_MAX}",
        f"GRANT pg_read_all_data TO {READER}",
        f"ALTER ROLE {READER} SET default_transaction_read_only = on",
        f"ALTER ROLE {READER} SET statement_timeout = '{_READER_STATEMENT_TIMEOUT}'",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT EXECUTE ON FUNCTIONS TO {READER}",
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
