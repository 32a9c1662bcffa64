"""A stand-in for PostgREST in front of a real Postgres: as much of it as page and writer ask for.

Each request is one transaction as the role that its key names, so grants and row-level security
decide what is seen and done, as they do behind Supabase. Of tables it knows `select` of columns,
the filters `eq`, `gt`, `gte` and `lt`, `order` and `limit`, hands out at most 1,000 rows, and lets
nobody write. Functions (`rpc_calls.py`) are called by POST with their arguments by name. All else
is refused.
Sources: https://docs.postgrest.org/en/stable/references/api/tables_views.html and
https://docs.postgrest.org/en/stable/references/api/functions.html
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from aiohttp import web

from tests.api_keys import anon_key, claims_of, service_key
from tests.rpc_calls import Refused, call_function, checked_name, in_transaction

__all__ = ["anon_key", "postgrest", "service_key"]

ROWS_MAX = 1000
_BODY_BYTES_MAX = 64 << 20
_CONNECTIONS_MAX = 10
_OPERATORS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<"}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    # By its name, because an asterisk does not stand for Authorization.
    "Access-Control-Allow-Headers": "accept-profile, apikey, authorization, x-client-info, "
    "x-retry-count",
    "Access-Control-Max-Age": "600",
}


def _query(table: str, asked: list[tuple[str, str]]) -> str:
    """Return the SQL for a request, with all names and values checked or quoted."""
    columns, order, limit, conditions = "*", "", ROWS_MAX, ["true"]
    for name, value in asked:
        if name == "select":
            columns = ", ".join(checked_name(column) for column in value.split(","))
        elif name == "order":
            order = "order by " + ", ".join(_ordering(part) for part in value.split(","))
        elif name == "limit":
            limit = min(int(value), ROWS_MAX)
        else:
            operator, _, text = value.partition(".")
            if operator not in _OPERATORS:
                raise Refused(400, "PGRST100", f"failed to parse filter ({value})")
            quoted = text.replace("'", "''")
            conditions.append(f"{checked_name(name)} {_OPERATORS[operator]} '{quoted}'")
    source = f"public.{checked_name(table)}"
    rows = (
        f"select {columns} from {source} "  # noqa: S608 - names and values are checked
        f"where {' and '.join(conditions)} {order} limit {limit}"
    )
    made = "coalesce(json_agg(found), '[]')::text"
    return f"select {made} from ({rows}) as found"  # noqa: S608 - checked above


def _ordering(part: str) -> str:
    name, _, way = part.partition(".")
    return f"{checked_name(name)} {'desc' if way.startswith('desc') else 'asc'}"


async def _answer(pool: asyncpg.Pool[Any], request: web.Request) -> web.Response:
    if request.method == "OPTIONS":
        return web.Response(status=204, headers=_CORS)
    try:
        claims = claims_of(request.headers)
        name = request.match_info["name"]
        if "/rpc/" in request.path:
            text = await call_function(pool, claims, name, await request.read())
        else:
            text = await _read(pool, claims, _query(name, list(request.query.items())))
    except Refused as refused:
        return web.json_response(refused.body, status=refused.status, headers=_CORS)
    return web.Response(text=text, content_type="application/json", headers=_CORS)


async def _read(pool: asyncpg.Pool[Any], claims: dict[str, Any], sql: str) -> str:
    async with in_transaction(pool, claims, readonly=True) as connection:
        text: str = await connection.fetchval(sql)
        return text


async def _no_reset(_: object) -> None:
    """Leave a connection as it is: what was set ended with its transaction."""


@contextmanager
def postgrest(dsn: str) -> Iterator[str]:
    """Serve a database, to which `dsn` opens as somebody who may take every role; the address."""
    ready: Any = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        pool = await asyncpg.create_pool(
            dsn, min_size=0, max_size=_CONNECTIONS_MAX, reset=_no_reset
        )
        app = web.Application(client_max_size=_BODY_BYTES_MAX)

        async def answer(request: web.Request) -> web.Response:
            return await _answer(pool, request)

        app.router.add_route("POST", "/rest/v1/rpc/{name}", answer)
        app.router.add_route("*", "/rest/v1/{name}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await found["stop"].wait()
        await runner.cleanup()
        pool.terminate()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield found["url"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(10)
