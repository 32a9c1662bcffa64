"""Partitions, constraints, the health function, and the specification's queries as it has them."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from tests.databases import Database, connected, rolled_back

NEW_YORK = ZoneInfo("America/New_York")
ENSURE = "SELECT kite_ensure_partition($1, $2)"
BOUNDS = """
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_class AS c
    WHERE c.relispartition AND c.relkind = 'r' ORDER BY c.relname
"""
TICK = "INSERT INTO equity_data VALUES ($1, $2, 600.1234, 100, 1000, 600, 601)"
METRICS = """
    INSERT INTO streaming_metrics (service, instance, timestamp, broker_timestamp, market_open,
        status, batches, records_processed, errors, processing_ms)
    VALUES ('writer', $5, now() - make_interval(secs => $6), $1, $2, 'running', 1, $3, $4, 5)
"""


def run(coroutine: Any) -> Any:
    """Run one coroutine to its end."""
    return asyncio.run(coroutine)


@pytest.mark.parametrize(
    ("parent", "day", "first", "end"),
    [
        ("equity_data", date(2026, 7, 1), date(2026, 7, 1), date(2026, 7, 2)),
        ("equity_data", date(2026, 3, 8), date(2026, 3, 8), date(2026, 3, 9)),  # 23 hours
        ("indicators", date(2026, 11, 1), date(2026, 11, 1), date(2026, 11, 2)),  # 25 hours
        ("candles", date(2026, 12, 31), date(2026, 12, 1), date(2027, 1, 1)),
        ("option_prices", date(2026, 11, 30), date(2026, 11, 1), date(2026, 12, 1)),
    ],
)
def test_a_partition_spans_new_york_days(
    schema: Database, parent: str, day: date, first: date, end: date
) -> None:
    """Its first and last instants fit in, the instants beside them do not."""

    def midnight(of: date) -> datetime:
        return datetime(of.year, of.month, of.day, tzinfo=NEW_YORK)

    inside = (midnight(first), midnight(end) - timedelta(milliseconds=1))
    outside = (midnight(first) - timedelta(milliseconds=1), midnight(end))

    async def look() -> None:
        async with rolled_back(schema.owner) as connection:
            assert await connection.fetchval(ENSURE, parent, day) is True
            assert await connection.fetchval(ENSURE, parent, day) is False
            bound = (await connection.fetch(BOUNDS))[0][1]
            lower, upper = (datetime.fromisoformat(text) for text in bound.split("'")[1::2])
            for instant in inside:
                assert lower <= instant < upper
            for instant in outside:
                assert not lower <= instant < upper

    run(look())


@pytest.mark.parametrize("first", [date(2026, 2, 27), date(2026, 10, 25), date(2026, 12, 25)])
def test_partitions_follow_each_other_without_a_hole(schema: Database, first: date) -> None:
    """Every day begins where the one before ended: when the clock changes, when the year does."""

    async def look() -> list[tuple[str, str]]:
        async with rolled_back(schema.owner) as connection:
            await connection.fetch(
                "SELECT kite_ensure_partition('equity_data', $1::date + n)"
                " FROM generate_series(0, 14) AS n",
                first,
            )
            rows = await connection.fetch(BOUNDS)
        return [tuple(row[1].split("'")[1::2]) for row in rows]

    bounds = run(look())
    assert len(bounds) == 15
    assert [upper for _, upper in bounds[:-1]] == [lower for lower, _ in bounds[1:]]


def test_two_writers_may_need_the_same_partition_at_once(own_schema: Database) -> None:
    """One makes it, the others find it made; none fails."""

    async def one() -> bool:
        async with connected(own_schema.owner) as connection:
            made: bool = await connection.fetchval(ENSURE, "candles", date(2026, 11, 2))
            return made

    async def all_at_once() -> list[bool]:
        return sorted(await asyncio.gather(*(one() for _ in range(8))))

    assert run(all_at_once()) == [False] * 7 + [True]


def test_a_long_reader_does_not_hold_up_a_new_partition(own_schema: Database) -> None:
    """Making a partition waits for no open transaction that has read the table."""

    async def look() -> bool:
        async with connected(own_schema.reader) as reader, connected(own_schema.owner) as writer:
            await reader.execute("BEGIN")
            await reader.fetch("SELECT * FROM equity_data")
            await writer.execute("SET lock_timeout = '2s'")
            made: bool = await writer.fetchval(ENSURE, "equity_data", date(2026, 11, 2))
            assert await reader.fetch("SELECT * FROM equity_data") == []
            return made

    assert run(look()) is True


def test_unknown_parents_and_detached_partitions_are_refused(schema: Database) -> None:
    """A name that is no partitioned table, or a leftover of an export, is an error that says so."""

    async def look() -> None:
        async with rolled_back(schema.owner) as connection:
            with pytest.raises(asyncpg.InvalidParameterValueError, match="orders is not"):
                async with connection.transaction():
                    await connection.fetchval(ENSURE, "orders", date(2026, 11, 2))
            await connection.fetchval(ENSURE, "equity_data", date(2026, 11, 2))
            await connection.execute(
                "ALTER TABLE equity_data DETACH PARTITION kite_parts.equity_data_20261102"
            )
            with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="is detached"):
                await connection.fetchval(ENSURE, "equity_data", date(2026, 11, 2))

    run(look())


def test_every_partitioned_table_has_partitions_made_for_it(schema: Database) -> None:
    """No partitioned table is unknown to the function."""

    async def look() -> None:
        async with rolled_back(schema.owner) as connection:
            parents = await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'p'")
            assert parents
            for parent in parents:
                assert await connection.fetchval(ENSURE, parent["relname"], date(2026, 11, 2))

    run(look())


@pytest.mark.parametrize(
    ("price", "volume"), [(Decimal("NaN"), 1), (Decimal(-1), 1), (Decimal(600), -1)]
)
def test_impossible_ticks_are_refused(schema: Database, price: Decimal, volume: int) -> None:
    """What the services would never send does not get in by another way either."""

    async def look() -> None:
        async with rolled_back(schema.owner) as connection:
            await connection.fetchval(ENSURE, "equity_data", date(2026, 11, 2))
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(
                    "INSERT INTO equity_data VALUES ('QQQ', '2026-11-02 15:00+00', $1, $2, 1)",
                    price,
                    volume,
                )

    run(look())


SPECIFIED = [
    "SELECT * FROM equity_data WHERE ticker='QQQ' AND timestamp >= '2024-10-16' ORDER BY timestamp",
    "SELECT COUNT(*), MAX(timestamp) FROM equity_data WHERE ticker='QQQ'"
    " AND timestamp::date = CURRENT_DATE;",
    "SELECT * FROM get_streaming_health('QQQ');",
    "SELECT * FROM equity_data LEFT JOIN indicators USING (ticker, timestamp)",
]


@pytest.mark.parametrize("query", SPECIFIED)
def test_the_queries_of_the_specification_run(schema: Database, query: str) -> None:
    """They run word for word and find today's tick."""

    async def look() -> list[asyncpg.Record]:
        async with rolled_back(schema.owner) as connection:
            now = await connection.fetchval("SELECT now()")
            for parent in ("equity_data", "indicators"):
                await connection.fetchval(ENSURE, parent, now.astimezone(NEW_YORK).date())
            await connection.execute(TICK, "QQQ", now)
            rows: list[asyncpg.Record] = await connection.fetch(query)
            return rows

    rows = run(look())
    assert len(rows) == 1
    assert rows[0][0] in ("QQQ", 1)


async def health(
    schema: Database,
    *,
    behind_s: float | None,
    market_open: bool = True,
    records: int = 100,
    errors: int = 0,
    broker: datetime | None = None,
    earlier: tuple[tuple[str, float, float], ...] = (),
) -> asyncpg.Record:
    """Ask for health when the last tick is `behind_s` behind the broker's clock (None: no tick).

    `earlier` adds reports: by which instance, how long ago, how far its clock was behind.
    """
    async with rolled_back(schema.owner) as connection:
        now = broker or await connection.fetchval("SELECT now()")
        await connection.execute(METRICS, now, market_open, records, errors, "a", 0)
        for instance, ago_s, clock_behind_s in earlier:
            clock = now - timedelta(seconds=clock_behind_s)
            await connection.execute(METRICS, clock, market_open, records, errors, instance, ago_s)
        if behind_s is not None:
            moment = now - timedelta(seconds=behind_s)
            await connection.fetchval(ENSURE, "equity_data", moment.astimezone(NEW_YORK).date())
            await connection.execute(TICK, "QQQ", moment)
        row = await connection.fetchrow("SELECT * FROM get_streaming_health('QQQ')")
        assert row is not None
        return row


@pytest.mark.parametrize(
    ("situation", "status"),
    [
        ({"behind_s": None}, "no_data"),
        ({"behind_s": 5}, "healthy"),
        ({"behind_s": 300}, "stale"),
        ({"behind_s": 30 * 86_400}, "stale"),
        ({"behind_s": 300, "market_open": False}, "closed"),
        ({"behind_s": 5, "errors": 10}, "error"),
        ({"behind_s": 5, "broker": datetime(2023, 11, 24, 15, tzinfo=UTC)}, "healthy"),
        ({"behind_s": 300, "broker": datetime(2023, 11, 24, 15, tzinfo=UTC)}, "stale"),
        # The writer goes on reporting, but the broker's clock has stood still for ten minutes.
        ({"behind_s": 5, "earlier": (("a", 600, 0),)}, "stale"),
        ({"behind_s": 5, "earlier": (("a", 600, 0),), "market_open": False}, "stale"),
        # It moved on since the report before; or another instance is far behind.
        ({"behind_s": 5, "earlier": (("a", 600, 600),)}, "healthy"),
        ({"behind_s": 5, "earlier": (("b", 0, 9000),)}, "healthy"),
    ],
)
def test_health_is_judged_on_the_brokers_clock(
    schema: Database, situation: dict[str, Any], status: str
) -> None:
    """A minute without ticks is stale in market hours, in any year that the broker lives in."""
    row = run(health(schema, **situation))
    assert row["status"] == status
    assert row["ticker"] == "QQQ"


def test_health_gives_the_figures(schema: Database) -> None:
    """Freshness, recent rows, error rate and last tick are what was put in."""
    broker = datetime(2023, 11, 24, 15, tzinfo=UTC)
    row = run(health(schema, behind_s=20, records=99, errors=1, broker=broker))
    assert row["last_tick"] == broker - timedelta(seconds=20)
    assert 20 <= row["freshness_seconds"] < 30
    assert row["recent_rows"] == 1
    assert float(row["error_rate"]) == 0.01
    assert row["market_open"] is True
    assert row["service_status"] == "running"


@pytest.mark.parametrize(
    ("behind_s", "status"), [(None, "no_data"), (70, "healthy"), (170, "healthy"), (250, "stale")]
)
def test_health_of_a_store_of_minutes_is_judged_by_minutes(
    schema: Database, behind_s: int | None, status: str
) -> None:
    """Ticks from before count for nothing; a minute counts from its end."""
    broker = datetime(2023, 11, 24, 15, tzinfo=UTC)

    async def look() -> asyncpg.Record:
        async with rolled_back(schema.owner) as connection:
            await connection.execute(METRICS, broker, True, 100, 0, "a", 0)
            await connection.execute("INSERT INTO kite_meta VALUES ('store', 'minutes')")
            await connection.fetchval(ENSURE, "equity_data", broker.date())
            await connection.execute(TICK, "QQQ", broker - timedelta(seconds=1))
            if behind_s is not None:
                await connection.fetchval(ENSURE, "candles", broker.date())
                await connection.execute(
                    "INSERT INTO candles VALUES ('QQQ', '1m', $1, 1, 1, 1, 1, 1, NULL, NULL, '{}',"
                    " 'stream')",
                    broker - timedelta(seconds=behind_s + 60),
                )
            row = await connection.fetchrow("SELECT * FROM get_streaming_health('QQQ')")
            assert row is not None
            return row

    row = run(look())
    assert row["status"] == status
    assert row["recent_rows"] == (0 if behind_s is None else 1)
    if behind_s is not None:
        assert behind_s <= row["freshness_seconds"] < behind_s + 10
