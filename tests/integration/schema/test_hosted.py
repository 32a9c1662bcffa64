"""The schema on a database as Supabase hands it out: an owner without powers, open by default."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date

import asyncpg
import pytest

from cli.servers.postgres import PostgresServer
from deploy.policy import MARKET_DATA, OPERATIONS, TABLES, TRADING
from deploy.supabase.migrate import migrate, read
from libs.common.errors import RowsRefused
from libs.common.events import Event
from services.writer.rest import RestStore
from services.writer.store import PostgresStore
from tests.databases import connected
from tests.integration.schema.lints import broken_rules
from tests.postgrest import postgrest, service_key
from tests.supabase import authenticator, hosted_database
from tests.writer_frames import TS_MS, batch_of, candle, gap, signal, tick, tick_indicator

READ, WRITE = "SELECT * FROM public.{} LIMIT 1", "DELETE FROM public.{} WHERE false"
WEB = ("anon", "authenticated", "service_role")
PARENTS = ("equity_data", "indicators", "candles", "option_prices")


@pytest.fixture(scope="module")
def hosted(any_postgres: PostgresServer) -> Iterator[str]:
    """A project's database with the schema, as its owner, and partitions made in both ways."""
    with hosted_database(any_postgres) as dsn:
        assert [step.label for step in asyncio.run(migrate(dsn))] == [each.label for each in read()]
        asyncio.run(_fill(any_postgres, dsn))
        yield dsn


async def _fill(server: PostgresServer, dsn: str) -> None:
    events: list[Event] = [tick(), tick_indicator(), candle(), gap(), signal()]
    async with PostgresStore(dsn, connections_max=1, statement_timeout_s=10) as store:
        first = batch_of(events)
        await store.commit(first)
    async with connected(dsn) as connection:
        await connection.execute(
            "SELECT kite_ensure_partition('option_prices', $1)", date(2023, 11, 24)
        )
    login = await asyncio.to_thread(authenticator, server, dsn.rpartition("/")[2])
    with postgrest(login) as url:
        async with RestStore(
            url, service_key(), connections_max=1, statement_timeout_s=10
        ) as store:
            later_ms = TS_MS + 40 * 86_400_000
            later: list[Event] = [tick(later_ms), tick_indicator(later_ms), candle(later_ms)]
            await store.commit(batch_of(later, before=first.after))
            with pytest.raises(RowsRefused, match="QQQ"):
                await store.commit(batch_of([tick()], stream="INDICATORS"))


async def _as(dsn: str, role: str, statement: str) -> str:
    """Do something as PostgREST does it; the SQLSTATE of a refusal, else nothing."""
    async with connected(dsn) as connection:
        await connection.execute("BEGIN")
        await connection.execute(f"SET LOCAL ROLE {role}")
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError as error:
            return error.sqlstate or "?"
        return ""


def test_the_owner_is_nobody_special(hosted: str) -> None:
    """All of it was made by a role that is no superuser."""

    async def look() -> bool:
        async with connected(hosted) as connection:
            row = await connection.fetchrow(
                "SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
            )
            assert row is not None
            return bool(row["rolsuper"])

    assert asyncio.run(look()) is False


def test_what_is_made_there_is_open_by_default(hosted: str, any_postgres: PostgresServer) -> None:
    """The stage is as dangerous as the real one: a table that nobody closes can be read and filled.

    Without that, every test here would be green for nothing.
    """

    async def look() -> list[str]:
        async with connected(hosted) as connection:
            await connection.execute("CREATE TABLE public.careless (n int)")
        try:
            login = await asyncio.to_thread(authenticator, any_postgres, hosted.rpartition("/")[2])
            return [
                await _as(login, "anon", "SELECT * FROM careless"),
                await _as(login, "anon", "INSERT INTO careless VALUES (1)"),
            ]
        finally:
            async with connected(hosted) as connection:
                await connection.execute("DROP TABLE public.careless")

    assert asyncio.run(look()) == ["", ""]


def test_the_catalog_breaks_no_rule(hosted: str) -> None:
    """Every lint is clean there, too."""

    async def look() -> list[str]:
        async with connected(hosted) as connection:
            return await broken_rules(connection)

    assert asyncio.run(look()) == []


@pytest.mark.parametrize("role", WEB)
def test_no_partition_can_be_reached(hosted: str, any_postgres: PostgresServer, role: str) -> None:
    """Not those that migrations, the writer or the REST interface made, by whatever verb."""

    async def look() -> dict[str, str]:
        login = await asyncio.to_thread(authenticator, any_postgres, hosted.rpartition("/")[2])
        async with connected(hosted) as connection:
            names = await connection.fetch(
                "SELECT relname FROM pg_class WHERE relnamespace = 'kite_parts'::regnamespace"
                " AND relkind = 'r'"
            )
        assert len(names) >= 2 * 3 + 1
        return {
            f"{name} {verb}": await _as(login, role, statement.format(f"kite_parts.{name}"))
            for (name,) in names
            for verb, statement in (
                ("read", "SELECT * FROM {} LIMIT 1"), ("write", "DELETE FROM {} WHERE false"),
                ("empty", "TRUNCATE {}"), ("lock", "LOCK TABLE {}"),
            )
        }  # fmt: skip

    assert set(asyncio.run(look()).values()) == {"42501"}


@pytest.mark.parametrize("role", WEB)
def test_tables_show_what_they_should(hosted: str, any_postgres: PostgresServer, role: str) -> None:
    """Market data to anon and authenticated, nothing to the service key, private tables to none."""

    async def look() -> dict[str, tuple[str, str]]:
        login = await asyncio.to_thread(authenticator, any_postgres, hosted.rpartition("/")[2])
        return {
            table: (
                await _as(login, role, READ.format(table)),
                await _as(login, role, WRITE.format(table)),
            )
            for table in TABLES
        }

    reads = {*MARKET_DATA} if role != "service_role" else set()
    found = asyncio.run(look())
    assert {*TRADING, *OPERATIONS}.isdisjoint(reads)
    for table, (reading, writing) in found.items():
        assert reading == ("" if table in reads else "42501"), table
        assert writing == "42501", table


def test_a_change_of_the_schema_is_told(hosted: str) -> None:
    """PostgREST hears of new functions, which else it would not find."""

    async def look() -> list[str]:
        heard: asyncio.Queue[str] = asyncio.Queue()
        async with connected(hosted) as listener, connected(hosted) as connection:
            await listener.add_listener("pgrst", lambda *rest: heard.put_nowait(str(rest[-1])))
            await connection.execute("COMMENT ON TABLE public.gaps IS 'as it was'")
            async with asyncio.timeout(10):
                return [await heard.get()]

    assert asyncio.run(look()) == ["reload schema"]
