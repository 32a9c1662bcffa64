"""A stand-in for PostgREST in front of a real Postgres: as much of it as the page asks for.

Each request is one read-only transaction as the role that its JWT names, so grants and row-level
security decide what is seen, as they do behind Supabase. It knows `select` of columns, the filters
`eq`, `gt`, `gte` and `lt`, `order` and `limit`, hands out at most 1,000 rows, and refuses all else.
Source: https://docs.postgrest.org/en/stable/references/api/tables_views.html
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from aiohttp import web

__all__ = ["anon_key", "postgrest"]

ROWS_MAX = 1000
_SECRET = b"a secret that only this stand-in and its keys share"
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_OPERATORS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<"}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    # By its name, because an asterisk does not stand for Authorization.
    "Access-Control-Allow-Headers": "accept-profile, apikey, authorization, x-client-info, "
    "x-retry-count",
    "Access-Control-Max-Age": "600",
}


def anon_key(role: str = "anon") -> str:
    """Return a key as Supabase hands them out: a JWT (HS256) that names a role."""
    parts = [_coded(json.dumps(each).encode()) for each in ({"alg": "HS256"}, {"role": role})]
    signed = ".".join(parts)
    return f"{signed}.{_coded(hmac.digest(_SECRET, signed.encode(), hashlib.sha256))}"


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, "details": None, "hint": None}


def _role(key: str) -> str:
    signed, _, signature = key.rpartition(".")
    wanted = _coded(hmac.digest(_SECRET, signed.encode(), hashlib.sha256))
    if not hmac.compare_digest(signature, wanted):
        raise _Refused(401, "PGRST301", "JWSError JWSInvalidSignature")
    payload = signed.partition(".")[2]
    role: str = json.loads(base64.urlsafe_b64decode(payload + "=="))["role"]
    return _name(role)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise _Refused(400, "PGRST100", f'failed to parse "{text}"')
    return text


def _query(table: str, asked: list[tuple[str, str]]) -> str:
    """Return the SQL for a request, with all names and values checked or quoted."""
    columns, order, limit, conditions = "*", "", ROWS_MAX, ["true"]
    for name, value in asked:
        if name == "select":
            columns = ", ".join(_name(column) for column in value.split(","))
        elif name == "order":
            order = "order by " + ", ".join(_ordering(part) for part in value.split(","))
        elif name == "limit":
            limit = min(int(value), ROWS_MAX)
        else:
            operator, _, text = value.partition(".")
            if operator not in _OPERATORS:
                raise _Refused(400, "PGRST100", f"failed to parse filter ({value})")
            quoted = text.replace("'", "''")
            conditions.append(f"{_name(name)} {_OPERATORS[operator]} '{quoted}'")
    rows = (
        f"select {columns} from public.{_name(table)} "  # noqa: S608 - names and values are checked
        f"where {' and '.join(conditions)} {order} limit {limit}"
    )
    made = "coalesce(json_agg(found), '[]')::text"
    return f"select {made} from ({rows}) as found"  # noqa: S608 - checked above


def _ordering(part: str) -> str:
    name, _, way = part.partition(".")
    return f"{_name(name)} {'desc' if way.startswith('desc') else 'asc'}"


async def _answer(dsn: str, request: web.Request) -> web.Response:
    if request.method == "OPTIONS":
        return web.Response(status=204, headers=_CORS)
    try:
        role = _role(request.headers.get("Authorization", "").removeprefix("Bearer "))
        sql = _query(request.match_info["table"], list(request.query.items()))
        text = await _run(dsn, role, sql)
    except _Refused as refused:
        return web.json_response(refused.body, status=refused.status, headers=_CORS)
    return web.Response(text=text, content_type="application/json", headers=_CORS)


async def _run(dsn: str, role: str, sql: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(readonly=True):
            await connection.execute(f"set local role {role}")
            text: str = await connection.fetchval(sql)
            return text
    except asyncpg.InsufficientPrivilegeError as error:
        raise _Refused(401, "42501", str(error)) from None
    except asyncpg.PostgresError as error:
        raise _Refused(400, error.sqlstate or "", str(error)) from None
    finally:
        await connection.close()


@contextmanager
def postgrest(dsn: str) -> Iterator[str]:
    """Serve a database, to which `dsn` opens as somebody who may take every role; the address."""
    ready: Any = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        app = web.Application()

        async def answer(request: web.Request) -> web.Response:
            return await _answer(dsn, request)

        app.router.add_route("*", "/rest/v1/{table}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await found["stop"].wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield found["url"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(10)
