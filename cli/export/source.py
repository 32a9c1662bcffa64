"""Reads rows out of the database: one snapshot, one ticker and stretch of time after another.

A stretch is a partition, so that the server sorts and joins little at a time, and the first row of
years comes as soon as that of a day. Everything raises StoreUnavailable when the database does not
answer.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from cli.export.tables import Table, Unit
from cli.snapshot import reading
from libs.common import calendar
from libs.common.errors import StoreMismatch

__all__ = ["Rows", "Stretch", "opened"]

_EARLIEST = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
_LATEST = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)
_SUFFIX = re.compile(r"_(\d{4})(\d{2})(\d{2})?$")

_PARTITIONS = """
    select c.relname from pg_catalog.pg_inherits i
    join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = to_regclass($1) order by c.relname"""
# Steps from ticker to ticker along the key instead of reading all rows.
_TICKERS = """
    with recursive found as (
        (select {ticker} as name from public.{relation} order by {ticker} limit 1)
        union all
        select (select s.{ticker} from public.{relation} s where s.{ticker} > found.name
            order by s.{ticker} limit 1)
        from found where found.name is not null
    )
    select name from found where name is not null"""
_META = "select value from public.kite_meta where key = $1"
_COUNT = re.compile(r"COPY (\d+)")


@dataclass(frozen=True)
class Stretch:
    """A stretch of time `[since, until)`."""

    since: dt.datetime
    until: dt.datetime


class Rows:
    """What one snapshot of the database holds."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def meta(self, key: str) -> str:
        """Return what the store says of itself, "" where it says nothing."""
        return str(await self._connection.fetchval(_META, key) or "")

    async def tickers(self, table: Table) -> list[str]:
        """Return every ticker that has rows, in order."""
        query = _TICKERS.format(ticker=table.ticker, relation=table.relation)
        return [row["name"] for row in await self._connection.fetch(query)]

    async def stretches(
        self, table: Table, from_ms: int | None, to_ms: int | None
    ) -> list[Stretch]:
        """Return the stretches that hold what lies in `[from_ms, to_ms)`, in order."""
        asked = Stretch(
            _EARLIEST if from_ms is None else _instant(from_ms),
            _LATEST if to_ms is None else _instant(to_ms),
        )
        if table.unit is None:
            return [asked]
        names = await self._connection.fetch(_PARTITIONS, f"public.{table.relation}")
        found = (_partition(name, table.unit) for (name,) in names)
        cut = (
            Stretch(max(each.since, asked.since), min(each.until, asked.until)) for each in found
        )
        return sorted((each for each in cut if each.since < each.until), key=lambda s: s.since)

    async def copy(
        self,
        table: Table,
        ticker: str,
        stretch: Stretch,
        timeframes: Sequence[str],
        take: Callable[[bytes], None],
    ) -> int:
        """Give the rows as lines of CSV to `take`, and return how many they are.

        Raises what `take` raises; nothing more can be read then.
        """
        arguments: list[object] = [ticker, stretch.since, stretch.until]
        if timeframes:
            arguments.append(list(timeframes))

        async def hand_over(lines: bytes) -> None:  # the driver gives whole rows
            take(lines)

        answer = await self._connection.copy_from_query(
            _query(table, bool(timeframes)), *arguments, output=hand_over, format="csv"
        )
        match = _COUNT.match(answer)
        assert match is not None, answer
        return int(match[1])


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Rows]:
    """Open a snapshot; raises StoreMismatch where our schema is not."""
    async with reading(dsn) as connection:
        if await connection.fetchval("select to_regclass('public.kite_migrations')") is None:
            raise StoreMismatch("the database has no schema of ours: nothing to export")
        yield Rows(connection)


def _query(table: Table, by_timeframe: bool) -> str:
    columns = ", ".join(column.sql for column in table.columns)
    end = f"greatest(t.{table.until}, t.{table.at} + interval '1 us')" if table.until else ""
    conditions = [
        f"t.{table.ticker} = $1",
        f"{end} > $2" if end else f't."{table.at}" >= $2',
        f't."{table.at}" < $3',
        *(["t.timeframe = any ($4)"] if by_timeframe else []),
    ]
    query = f"select {columns} from public.{table.relation} t {table.joined}"  # noqa: S608  # ours
    return f"{query} where {' and '.join(conditions)} order by {table.order}"


def _partition(name: str, unit: Unit) -> Stretch:
    """Return the days of New York that a partition holds, by its name."""
    match = _SUFFIX.search(name)
    if match is None or (match[3] is None) != (unit == "month"):
        raise StoreMismatch(f"{name} is no partition of ours: nobody knows what it holds")
    first = dt.date(int(match[1]), int(match[2]), int(match[3] or 1))
    last = first if unit == "day" else _last_of_month(first)
    return Stretch(*map(_instant, _bounds_ms(first, last)))


def _bounds_ms(first: dt.date, last: dt.date) -> Iterator[int]:
    yield calendar.day_bounds_ms(first)[0]
    yield calendar.day_bounds_ms(last)[1]


def _last_of_month(day: dt.date) -> dt.date:
    return (day.replace(day=28) + dt.timedelta(days=4)).replace(day=1) - dt.timedelta(days=1)


def _instant(ts_ms: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ts_ms)
