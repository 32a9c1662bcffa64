"""Who may see and do what in the database, asked of the catalog and tried out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date

import asyncpg
import pytest

from cli.servers.postgres import PostgresServer
from deploy.policy import DATABASE_ROLES, FUNCTIONS, TABLES
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
    "session_checks",
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


READS_ALL = {"kite_reader", "kite_backup"}
GATEWAY_ALSO = {"stream_positions", "streaming_metrics"}


def may(role: str, table: str, verb: str) -> bool:
    """Say by hand who may do what: the policy is not asked, it is what is tried here."""
    if role == "kite_owner":
        return True
    if table.startswith("kite_parts."):
        reads = role in READS_ALL
    else:
        reads = (
            role in READS_ALL
            or (role in ("anon", "authenticated") and table in MARKET_DATA)
            or (role == "kite_gateway" and table in MARKET_DATA | GATEWAY_ALSO)
        )
    return verb == "SELECT" and reads


VERBS = {
    "SELECT": "SELECT FROM {table} LIMIT 1",
    "INSERT": "INSERT INTO {table} SELECT * FROM {table} WHERE false",
    "UPDATE": "UPDATE {table} SET {column} = {column} WHERE false",
    "DELETE": "DELETE FROM {table} WHERE false",
    "TRUNCATE": "TRUNCATE {table}",
    "LOCK": "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
    "ALTER": "ALTER TABLE {table} ADD COLUMN mine int",
    "POLICY": "CREATE POLICY mine ON {table} USING (true)",
    "TRIGGER": "CREATE TRIGGER mine BEFORE INSERT ON {table} EXECUTE FUNCTION mine()",
    "OWNER": "ALTER TABLE {table} OWNER TO CURRENT_USER",
    "DROP": "DROP TABLE {table} CASCADE",
}


async def try_all(connection: asyncpg.Connection, role: str, tables: dict[str, str]) -> list[str]:
    """Do everything to every table as `role`, undo it, and return what went other than it should.

    `tables` are their names and a column of each. A role whose transactions read only says
    otherwise first: that is a habit of it and no wall.
    """
    wrong = []
    for table, column in tables.items():
        for verb, statement in VERBS.items():
            await connection.execute("BEGIN READ WRITE")
            try:
                await connection.execute(statement.format(table=table, column=column))
                done = True
            except asyncpg.InsufficientPrivilegeError:
                done = False
            except asyncpg.PostgresError as error:
                # Whoever gets as far as this was let through.
                done = True
                if role != "kite_owner":
                    wrong.append(f"{role} {verb} {table}: {error}")
            await connection.execute("ROLLBACK")
            if done != may(role, table, verb):
                wrong.append(f"{role} {verb} {table}: {'done' if done else 'refused'}")
    return wrong


async def tables_of(connection: asyncpg.Connection) -> dict[str, str]:
    """Return every table and partition that there is, each with its first column."""
    rows = await connection.fetch(
        "SELECT CASE nspname WHEN 'public' THEN '' ELSE nspname || '.' END || relname, attname"
        " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
        " JOIN pg_attribute AS a ON attrelid = c.oid AND attnum = 1"
        " WHERE nspname IN ('public', 'kite_parts') AND relkind IN ('r', 'p') ORDER BY 1"
    )
    return {name: f'"{column}"' for name, column in rows}


def login(database: Database, role: str) -> str:
    """Return how to connect so that one may become `role`: by its own login where it has one."""
    own = {
        "kite_owner": database.owner,
        "kite_reader": database.reader,
        "kite_gateway": database.gateway,
        "kite_backup": database.backup,
    }
    return own.get(role, database.superuser)


@pytest.mark.parametrize("role", list(DATABASE_ROLES))
def test_every_role_on_every_table_by_every_verb(filled: Database, role: str) -> None:
    """Tried out, partitions by their own names included; only the owner does more than read."""

    async def look() -> list[str]:
        async with connected(login(filled, role)) as connection:
            tables = await tables_of(connection)
            assert {name for name in tables if "." not in name} == MARKET_DATA | PRIVATE
            assert len(tables) == len(MARKET_DATA | PRIVATE) + len(PARENTS)
            await connection.execute(f"SET ROLE {role}")
            return await try_all(connection, role, tables)

    assert asyncio.run(look()) == []


@pytest.mark.parametrize("role", list(DATABASE_ROLES))
def test_every_role_on_every_function_and_schema(filled: Database, role: str) -> None:
    """Health is for status, the writer's functions for the service key; only the owner makes."""

    async def look() -> dict[str, bool]:
        calls = {
            "get_streaming_health": "SELECT get_streaming_health('QQQ')",
            "kite_ensure_partition": "SELECT kite_ensure_partition('candles', '2027-01-01')",
            "kite_commit": "SELECT kite_commit('MARKET', 0, 1, 0, 1, 1)",
            "kite_claim": "SELECT kite_claim('{}')",
            "kite_positions": "SELECT kite_positions()",
            "kite_report": 'SELECT kite_report(\'{"instance": "a:1", "now_ms": 1, "status": '
            '"running", "batches": 0, "records": 0, "errors": 0, "processing_ms": 0}\')',
            "kite_prune_reports": "SELECT kite_prune_reports(0)",
            "kite_database_bytes": "SELECT kite_database_bytes()",
            "kite_tally": "SELECT kite_tally('MARKET', 0, '{}', '{}', '{}', 0)",
            "kite_first_day": "SELECT kite_first_day('equity_data')",
            "kite_first_gap": "SELECT kite_first_gap()",
            "kite_open_minutes": "SELECT kite_open_minutes('{QQQ}', '{0}')",
            "kite_traded_minutes": "SELECT kite_traded_minutes(0, 60000)",
            "kite_session_minutes": "SELECT kite_session_minutes(0, 60000, true)",
            "kite_known_tickers": "SELECT kite_known_tickers()",
            "kite_keep": "SELECT kite_keep('ticks')",
            "kite_ticks_since": "SELECT kite_ticks_since()",
            "kite_usage": "SELECT kite_usage('{candles}')",
            "make in kite_parts": "CREATE TABLE kite_parts.mine ()",
            "make in public": "CREATE TABLE public.mine ()",
            "make a schema": "CREATE SCHEMA mine",
            "make a role": "CREATE ROLE mine",
            "read a file": "SELECT pg_read_file('/etc/passwd')",
        }
        done = {}
        async with connected(login(filled, role)) as connection:
            await connection.execute(f"SET ROLE {role}")
            for name, statement in calls.items():
                await connection.execute("BEGIN READ WRITE")
                try:
                    await connection.execute(statement)
                    done[name] = True
                except asyncpg.InsufficientPrivilegeError:
                    done[name] = False
                await connection.execute("ROLLBACK")
        return done

    done = asyncio.run(look())
    owner = role == "kite_owner"
    # What the writer calls with the service key, and nothing else does.
    writes = owner or role == "service_role"
    assert done == {
        "get_streaming_health": owner or role == "kite_reader",
        "kite_ensure_partition": writes,
        "kite_commit": writes,
        "kite_claim": writes,
        "kite_positions": writes,
        "kite_report": writes,
        "kite_prune_reports": writes,
        "kite_database_bytes": writes,
        "kite_tally": writes,
        "kite_first_day": writes,
        "kite_first_gap": writes,
        "kite_open_minutes": writes,
        "kite_traded_minutes": writes,
        "kite_session_minutes": writes,
        "kite_known_tickers": owner,
        "kite_keep": writes,
        "kite_ticks_since": writes,
        "kite_usage": writes,
        "make in kite_parts": owner,
        "make in public": owner,
        "make a schema": owner,
        "make a role": False,
        "read a file": False,
    }


def test_the_policy_names_every_table_and_function(filled: Database) -> None:
    """A new one has to be put into the policy, or this fails."""

    async def look() -> tuple[set[str], set[str]]:
        async with connected(filled.owner) as connection:
            tables = set(await tables_of(connection))
            functions = await connection.fetch(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            )
            return tables, {row["proname"] for row in functions}

    tables, functions = asyncio.run(look())
    assert {name for name in tables if "." not in name} == set(TABLES)
    assert functions == {signature.partition("(")[0] for signature in FUNCTIONS}


def test_rights_that_somebody_gave_are_taken_back(filled: Database) -> None:
    """The next migration brings the policy into force, whatever was granted by hand."""

    async def run() -> list[str]:
        async with connected(filled.owner) as connection:
            await connection.execute("GRANT ALL ON orders, gaps TO anon, kite_gateway, PUBLIC")
            await connection.execute("REVOKE SELECT ON gaps FROM authenticated")
            await connection.execute("GRANT EXECUTE ON FUNCTION get_streaming_health TO anon")
            await connection.execute("GRANT USAGE ON SCHEMA kite_parts TO anon")
        assert await migrate(filled.owner) == []
        wrong = []
        async with connected(filled.superuser) as connection:
            for role in ("anon", "authenticated", "service_role", "kite_gateway"):
                await connection.execute(f"SET ROLE {role}")
                wrong += await try_all(connection, role, {"orders": '"id"', "gaps": '"id"'})
                await connection.execute("RESET ROLE")
            wrong += await broken_rules(connection)
        return wrong

    assert asyncio.run(run()) == []


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
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetchval("SELECT kite_ensure_partition('candles', '2027-01-01')")
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.execute("CREATE TABLE mine ()")
            row = await connection.fetchrow("SELECT * FROM get_streaming_health('QQQ')")
            assert row is not None
            status: str = row["status"]
            return status

    assert asyncio.run(look()) == "stale"
