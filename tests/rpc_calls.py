"""How the stand-in for PostgREST calls a function: as a role, in one transaction, by name.

The function is looked up by its arguments' names, and JSON becomes their types by `json_to_record`,
as PostgREST does it. What Postgres refuses comes back with its SQLSTATE and with the HTTP status
that PostgREST gives to it.
Source: https://docs.postgrest.org/en/stable/references/errors.html
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

__all__ = ["Refused", "call_function", "checked_name", "in_transaction", "status_of"]

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
# The longest beginning of a SQLSTATE decides.
_STATUS = {
    "08": 503, "09": 500, "0L": 403, "0P": 403, "23503": 409, "23505": 409, "25006": 405,
    "25": 500, "28": 403, "2D": 500, "38": 500, "39": 500, "3B": 500, "40": 500, "53400": 500,
    "53": 503, "54": 500, "55": 500, "57": 500, "58": 500, "F0": 500, "HV": 500, "P0001": 400,
    "P0": 500, "42883": 404, "42P01": 404, "42P17": 500,
}  # fmt: skip
_FUNCTIONS = """
    SELECT p.proargnames[:p.pronargs] AS names, p.pronargs - p.pronargdefaults AS required,
        ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS _ (t, n)
            ORDER BY n) AS types
    FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace AND p.proname = $1"""
_BECOME = """
    SELECT set_config('search_path', 'public', true), set_config('role', $1, true),
        set_config('request.jwt.claims', $2, true), set_config('request.method', $3, true)"""


class Refused(Exception):
    """What is answered instead of rows."""

    def __init__(
        self, status: int, code: str, message: str, details: str | None = None,
        hint: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.body: dict[str, str | None] = {
            "message": message, "details": details, "hint": hint,
        } | ({"code": code} if code else {})  # fmt: skip


def checked_name(text: str) -> str:
    """Return a name that may stand in SQL; raises Refused."""
    if not _NAME.fullmatch(text):
        raise Refused(400, "PGRST100", f'failed to parse "{text}"')
    return text


def status_of(sqlstate: str, role: str) -> int:
    """Return the HTTP status that PostgREST gives to an error of Postgres."""
    if re.fullmatch(r"PT\d{3}", sqlstate):
        return int(sqlstate[2:])
    if sqlstate == "42501":
        return 401 if role == "anon" else 403
    fitting = [begin for begin in _STATUS if sqlstate.startswith(begin)]
    return _STATUS[max(fitting, key=len)] if fitting else 400


@asynccontextmanager
async def in_transaction(
    pool: asyncpg.Pool[Any], claims: dict[str, Any], *, readonly: bool = False
) -> AsyncIterator[Any]:
    """Lend a connection in a transaction of the role that the claims name; raises Refused."""
    role = checked_name(str(claims.get("role", "anon")))
    method = "GET" if readonly else "POST"
    try:
        async with pool.acquire() as connection, connection.transaction(readonly=readonly):
            await connection.execute(_BECOME, role, json.dumps(claims), method)
            yield connection
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        detail, hint = getattr(error, "detail", None), getattr(error, "hint", None)
        raise Refused(status_of(state, role), state, error.message, detail, hint) from None
    except (OSError, asyncpg.InterfaceError) as error:
        raise Refused(503, "PGRST000", "Database connection error", str(error)) from None


async def call_function(
    pool: asyncpg.Pool[Any], claims: dict[str, Any], name: str, body: bytes
) -> str:
    """Return the JSON of what the function returns; raises Refused."""
    checked_name(name)
    try:
        given = json.loads(body or b"{}")
    except ValueError:
        raise Refused(400, "PGRST102", "Empty or invalid json") from None
    if not isinstance(given, dict):
        raise Refused(400, "PGRST102", "All object keys must match")
    async with in_transaction(pool, claims) as connection:
        arguments = await _arguments(connection, name, given)
        passed = ", ".join(f'"{each}" := args."{each}"' for each in arguments)
        if arguments:
            typed = ", ".join(f'"{each}" {kind}' for each, kind in arguments.items())
            source = f"FROM json_to_record($1::json) AS args ({typed})"
        else:
            source = "WHERE $1::text IS NOT NULL"
        sql = f"SELECT coalesce(to_json(public.{name}({passed})), 'null')::text {source}"
        text: str = await connection.fetchval(sql, (body or b"{}").decode())
        return text


async def _arguments(connection: Any, name: str, given: dict[str, Any]) -> dict[str, str]:
    for names, required, types in await connection.fetch(_FUNCTIONS, name):
        names = names or []
        if set(names[:required]) <= set(given) <= set(names):
            known = dict(zip(names, types, strict=True))
            return {each: known[each] for each in given}
    wanted = ", ".join(sorted(given))
    raise Refused(
        404, "PGRST202",
        f"Could not find the function public.{name}({wanted}) in the schema cache",
        f"Searched for the function public.{name} with parameters {wanted}",
    )  # fmt: skip
