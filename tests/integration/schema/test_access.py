"""Who may see and do what in the database, asked of the catalog and tried out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date

import asyncpg
import pytest

from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate
from deploy.supabase.roles import OWNER
from tests.databases import Database, connected, throw_away_database
from tests.integration.schema.lints import broken_rules

MARKET_DATA = {
    "equity_data",
    "indicators",
    "candles",
    "candle_revisions",
    "signals",
    "gaps",
    "option_prices",
}
PRIVATE = {
    "orders",
    "trades",
    "positions",
    "daily_pnl",
    "stream_positions",
    "streaming_metrics",
    "kite_meta",
    "kite_migrations",
}
PARENTS = ("equity_data", "indicators", "candles", "option_prices")
DAY = date(2026, 11, 2)
TICK = "INSERT INTO equity_data VALUES ('QQQ', '2026-11-02 15:00:00+00', 600, 1, 1)"

# What Supabase does in every project before anybody creates a table.
SUPABASE_DEFAULTS = "; ".join(
    f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public GRANT ALL ON {kind} TO "
    "anon, authenticated, service_role"
    for kind in ("TABLES", "FUNCTIONS", "SEQUENCES")
)


@pytest.fixture(scope="module", params=["plain", "supabase"])
def filled(any_postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database with a tick and a partition of each kind, on either kind of server."""

    async def fill(database: Database) -> None:
        if request.param == "supabase":
            async with connected(database.superuser) as connection:
                await connection.execute(SUPABASE_DEFAULTS)
        await migrate(database.owner)
        async with connected(database.owner) as connection:
            for parent in PARENTS:
                await connection.fetchval("SELECT kite_ensure_partition($1, $2)", parent, DAY)
            await connection.execute(TICK)

    with throw_away_database(any_postgres) as database:
        asyncio.run(fill(database))
        yield database


def test_the_catalog_breaks_no_rule(filled: Database) -> None:
    """Every lint is clean, also where the web roles are granted everything by default."""

    async def look() -> list[str]:
        async with connected(filled.superuser) as connection:
            return await broken_rules(connection)

    assert asyncio.run(look()) == []


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("CREATE TABLE open (n int PRIMARY KEY)", "row-level security is off: open"),
        ("ALTER TABLE orders FORCE ROW LEVEL SECURITY", "row-level security is forced: orders"),
        ("GRANT INSERT ON signals TO anon", "the web may write: signals INSERT anon"),
        ("GRANT SELECT ON kite_parts.candles_202611 TO anon", "a partition is granted"),
        ("GRANT USAGE ON SCHEMA kite_parts TO PUBLIC", "the schema of partitions is granted"),
        ("CREATE POLICY p ON gaps FOR UPDATE USING (true)", "a policy lets somebody write: gaps.p"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "mutable search_path: f()"),
        ("ALTER FUNCTION get_streaming_health SECURITY DEFINER", "lends its owner's rights: get_"),
        ("GRANT EXECUTE ON FUNCTION get_streaming_health TO PUBLIC", "the web may call a function"),
        ("CREATE VIEW v AS SELECT * FROM orders", "a view lends its owner's rights: v"),
    ],
)
def test_the_lints_find_planted_faults(filled: Database, fault: str, found: str) -> None:
    """Each rule can fail: a fault put in on purpose is named."""

    async def look() -> list[str]:
        async with connected(filled.owner) as connection:
            await connection.execute("BEGIN")  # closed without a commit: the next test sees nothing
            await connection.execute(fault)
            return await broken_rules(connection)

    assert found in "\n".join(asyncio.run(look()))


def test_the_matrix_of_roles(filled: Database) -> None:
    """The web reads market data and nothing else; the reader reads all; nobody else writes."""
    privileges = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
    roles = ("anon", "authenticated", "service_role", "kite_reader", "kite_owner")

    def expected(role: str, table: str, privilege: str) -> bool:
        if role == "kite_owner":
            return True
        reads = role == "kite_reader" or (role != "service_role" and table in MARKET_DATA)
        return privilege == "SELECT" and reads

    async def look() -> list[asyncpg.Record]:
        async with connected(filled.superuser) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(
                "SELECT r AS role, relname AS table, p AS privilege,"
                " has_table_privilege(r, c.oid, p) AS granted"
                " FROM pg_class AS c, unnest($1::text[]) AS r, unnest($2::text[]) AS p"
                " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')",
                roles,
                privileges,
            )
            return rows

    rows = asyncio.run(look())
    assert {row["table"] for row in rows} == MARKET_DATA | PRIVATE
    wrong = [
        dict(row)
        for row in rows
        if row["granted"] != expected(row["role"], row["table"], row["privilege"])
    ]
    assert wrong == []


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_the_web_sees_ticks_through_the_parent_only(filled: Database, role: str) -> None:
    """Row-level security lets the rows through; the partition itself refuses by name."""

    async def look() -> int:
        async with connected(filled.superuser) as connection:
            await connection.execute(f"SET ROLE {role}")
            for refused in (
                "SELECT * FROM kite_parts.equity_data_20261102",
                "SELECT * FROM orders",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(refused)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(TICK)
            seen: int = await connection.fetchval("SELECT count(*) FROM equity_data")
            return seen

    assert asyncio.run(look()) == 1


def test_the_reader_may_ask_for_health_and_not_for_partitions(filled: Database) -> None:
    """`kite_reader` calls the health function over everything it needs, and changes nothing."""

    async def look() -> str:
        async with connected(filled.reader) as connection:
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.fetchval("SELECT kite_ensure_partition('candles', '2027-01-01')")
            row = await connection.fetchrow("SELECT * FROM get_streaming_health('QQQ')")
            assert row is not None
            status: str = row["status"]
            return status

    assert asyncio.run(look()) == "stale"
