"""Lines of COPY text against a real Postgres: what was sent is what is read."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common import calendar
from libs.common.events import Candle, Tick, TickIndicator
from services.writer.rows import (
    CANDLE_COLUMNS,
    INDICATOR_COLUMNS,
    TICK_COLUMNS,
    TickRows,
    candle_line,
    copy_text,
)
from tests.databases import Database, connected

FIRST_MS = calendar.day_bounds_ms(calendar.FIRST_DAY)[0]
LAST_MS = calendar.day_bounds_ms(calendar.LAST_DAY)[1] - 1

tickers = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12
)
moments = st.integers(FIRST_MS, LAST_MS)
prices = st.integers(1, 10**12 - 1).map(lambda units: units / 10_000)
averages = st.none() | st.integers(-(10**15), 10**15).map(lambda units: units / 1_000_000)
volumes = st.integers(0, 2**63 - 1)

ticks = st.builds(
    Tick, tickers, moments, prices, volumes, volumes, st.none() | prices, st.none() | prices
)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
candles = st.builds(
    Candle, tickers, st.sampled_from(["1m", "1h"]), moments, prices, prices, prices, prices,
    volumes, averages, averages, st.dictionaries(names, averages, max_size=3), st.just("history"),
)  # fmt: skip
indicators = st.builds(TickIndicator, tickers, moments, prices, averages, averages)


def _exact(value: float | None, decimals: int) -> Decimal | None:
    """The decimal number that a quantised float stands for."""
    return None if value is None else round(Decimal(repr(value)), decimals)


def _moment(ts_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts_ms)


def _copied(
    database: Database, table: str, columns: tuple[str, ...], data: bytes
) -> list[tuple[Any, ...]]:
    """COPY into an unpartitioned twin of `table` without constraints, and read it back in order."""

    async def run() -> list[tuple[Any, ...]]:
        async with connected(database.superuser) as connection:
            # Names of tables and columns are this file's own.
            make = f"CREATE TEMP TABLE twin AS SELECT * FROM {table}"  # noqa: S608 - as said
            query = f"SELECT {', '.join(columns)} FROM twin ORDER BY ctid"  # noqa: S608 - as said
            await connection.execute(make)
            await connection.copy_to_table(
                "twin", columns=columns, source=BytesIO(data), format="text"
            )
            return [tuple(row) for row in await connection.fetch(query)]

    return asyncio.run(run())


shared_database = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@shared_database
@given(events=st.lists(ticks, max_size=40))
def test_ticks_come_back(migrated_database: Database, events: list[Tick]) -> None:
    """Every ticker, time, price and volume survives, in every order and of every second."""
    rows = TickRows()
    for event in events:
        rows.tick(event)
    found = _copied(migrated_database, "equity_data", TICK_COLUMNS, copy_text(rows.ticks))
    assert found == [
        (
            event.ticker, _moment(event.ts_ms), _exact(event.price, 4), event.volume,
            event.total_volume, _exact(event.bid, 4), _exact(event.ask, 4),
        )
        for event in events
    ]  # fmt: skip


@shared_database
@given(events=st.lists(indicators, max_size=40))
def test_indicators_come_back(migrated_database: Database, events: list[TickIndicator]) -> None:
    """Averages keep their six decimals; what is undefined is null."""
    rows = TickRows()
    for event in events:
        rows.indicator(event)
    found = _copied(migrated_database, "indicators", INDICATOR_COLUMNS, copy_text(rows.indicators))
    assert found == [
        (event.ticker, _moment(event.ts_ms), _exact(event.sma9, 6), _exact(event.vwap, 6))
        for event in events
    ]


@shared_database
@given(events=st.lists(candles, max_size=20))
def test_candles_come_back(migrated_database: Database, events: list[Candle]) -> None:
    """Candles keep their decimals and their extras, whatever those are called."""
    data = "".join(candle_line(event) for event in events).encode()
    found = _copied(migrated_database, "candles", CANDLE_COLUMNS, data)
    assert [(*row[:10], json.loads(row[10]), row[11]) for row in found] == [
        (
            event.ticker, event.timeframe, _moment(event.ts_ms), _exact(event.open, 4),
            _exact(event.high, 4), _exact(event.low, 4), _exact(event.close, 4), event.volume,
            _exact(event.sma9, 6), _exact(event.vwap, 6), event.extras, event.source,
        )
        for event in events
    ]  # fmt: skip
