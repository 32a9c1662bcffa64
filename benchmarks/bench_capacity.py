"""How many bytes a row takes with its indexes, and when a database of 500 MB is full.

Rows are written by the writer's own store, in the order in which they come live (all tickers of a
second, then the next second), because the order decides how full the pages of an index are. Then
Postgres is asked how big its tables, indexes and partitions are. What a day costs besides its rows
(partitions are entries in catalogs) is measured by making a month of empty ones.

- `capacity_bytes_per_row_TABLE`: against the 120 bytes that the specification reckons with;
- `capacity_bytes_per_day`: what the partitions of a day cost empty, against all that the
  specification reckons with for a day;
- `capacity_sessions_MODE_N`: trading days until 500 MB are full, with N tickers that trade all the
  time, against the 2 years that the specification recommends to keep.

`--page` writes the tables of docs/capacity.md. Run it as `python -m benchmarks.bench_capacity
[--short] [--page]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from benchmarks.page import machine
from benchmarks.report import report
from benchmarks.stage import database
from cli.servers.postgres import PostgresServer
from libs.common.events import (
    SCHEMA_VERSION,
    TIMEFRAME_MS,
    Candle,
    Event,
    Frame,
    Gap,
    Signal,
    Tick,
    TickIndicator,
    Timeframe,
)
from services.writer.core import Batcher, Limits, Position
from services.writer.store import PostgresStore, Report
from tests.servers import Running, temporary_home

PAGE = Path(__file__).resolve().parent.parent / "docs" / "capacity.md"

PLAN_BYTES = 500_000_000
SPECIFIED_ROW_BYTES = 120.0  # 4.3 MB a month for 35,750 rows
SPECIFIED_DAY_BYTES = 4.3e6 / 22
SPECIFIED_SESSIONS = 504.0  # 2 years
TICKERS = (1, 5, 20, 100, 300)

# A session of a ticker that trades all the time, 07:00 to 20:00: what it leaves in each table.
TICKS_PER_SESSION = 20_000
ROWS_PER_SESSION: Mapping[str, int] = {
    "equity_data": TICKS_PER_SESSION,
    "indicators": TICKS_PER_SESSION,
    "candles": 780 + 156 + 52 + 14,
    "candle_revisions": 10,
    "signals": 30,
    "gaps": 2,
}
TICK_TABLES = ("equity_data", "indicators")
# The writer reports every 15 s, and keeps its reports for 30 days.
REPORTS_KEPT = 30 * 86_400 // 15

OPEN_MS = 1_700_836_200_000  # 2023-11-24 09:30 in New York
_LIMITS = Limits(flush_ms=200, rows_max=20_000, input_bytes_max=4 << 20)
_FRAMES_PER_BATCH = 2
_SIZES = """
    SELECT c.relname, (SELECT sum(pg_total_relation_size(t.relid))
        FROM pg_partition_tree(c.oid) AS t)::bigint AS with_parts,
        pg_total_relation_size(c.oid) AS alone
    FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"""


@dataclass(frozen=True)
class Measured:
    """Bytes of a row by table, of a day's partitions, and of a database without rows."""

    row_bytes: Mapping[str, float]
    day_bytes: float
    empty_bytes: float

    def session_bytes(self, *, with_ticks: bool) -> float:
        """What a session of one ticker takes."""
        return sum(
            count * self.row_bytes[table]
            for table, count in ROWS_PER_SESSION.items()
            if with_ticks or table not in TICK_TABLES
        )

    def sessions(self, tickers: int, *, with_ticks: bool) -> float:
        """How many sessions the plan has room for."""
        fixed = self.empty_bytes + REPORTS_KEPT * self.row_bytes["streaming_metrics"]
        each = tickers * self.session_bytes(with_ticks=with_ticks)
        return max(0.0, PLAN_BYTES - fixed) / (each + (self.day_bytes if with_ticks else 0.0))


# -- what is written -------------------------------------------------------------------------------


def _price(number: int) -> float:
    return round(480 + (number % 977) * 0.0173, 4)


def _ticks(names: Sequence[str], second: int) -> tuple[list[Event], list[Event]]:
    ticks: list[Event] = []
    averages: list[Event] = []
    for item, name in enumerate(names):
        price, ts_ms = _price(second * 31 + item), OPEN_MS + second * 1000 + item
        bid, ask = round(price - 0.01, 4), round(price + 0.01, 4)
        ticks.append(Tick(name, ts_ms, price, 100 + item, 1_000_000 + second * 100, bid, ask))
        average = round(price * 1.000123, 6)
        averages.append(TickIndicator(name, ts_ms, price, average, average))
    return ticks, averages


def _candle(name: str, timeframe: Timeframe, ts_ms: int, shift: float = 0.0) -> Candle:
    price = _price(ts_ms // 60_000)
    return Candle(
        ticker=name, timeframe=timeframe, ts_ms=ts_ms, open=price, high=round(price + 0.5, 4),
        low=round(price - 0.5, 4), close=price, volume=12_345, sma9=round(price + 0.123456, 6),
        vwap=round(price + shift + 0.654321, 6), extras={}, source="stream",
    )  # fmt: skip


def _minutes(names: Sequence[str], minutes: int) -> Iterator[list[Event]]:
    """Candles of all time frames as they close, with a correction and a signal now and then."""
    for minute in range(minutes):
        ts_ms = OPEN_MS + minute * 60_000
        events: list[Event] = []
        for timeframe, length_ms in TIMEFRAME_MS.items():
            if (minute * 60_000) % length_ms == 0:
                events += [_candle(name, timeframe, ts_ms) for name in names]
        yield events
        if minute % 20 == 0:
            yield [_candle(name, "1m", ts_ms, shift=1.0) for name in names]


def _signal(name: str, ts_ms: int) -> Signal:
    price = _price(ts_ms // 60_000)
    return Signal(
        ts_ms=ts_ms, id=f"{name}:1m:{ts_ms}", revision=0, state="active", late=False, ticker=name,
        timeframe="1m", kind="sma9_vwap", direction="up", price=price, sma9=price, vwap=price,
    )  # fmt: skip


def _gap(name: str, ts_ms: int) -> Gap:
    return Gap(
        from_ms=ts_ms, id=f"{name}:bars:{ts_ms}", ticker=name, series="bars",
        to_ms=ts_ms + 60_000, cause="reconnect", state="filled",
    )  # fmt: skip


async def _write(store: PostgresStore, stream: str, frames: Iterator[list[Event]]) -> None:
    """Commit frames as the writer does: a few at a time, each moving the position."""
    batcher = Batcher(stream, 0, Position(1), _LIMITS)
    for n, events in enumerate(frames, 1):
        frame = Frame(SCHEMA_VERSION, 1, n, 0, 0, OPEN_MS, OPEN_MS, tuple(events))
        batcher.add(n, frame, 0, 0.0)
        if n % _FRAMES_PER_BATCH == 0:
            await store.commit(batcher.take())
    await store.commit(batcher.take())


async def _fill(store: PostgresStore, *, short: bool) -> None:
    names = [f"T{number:02d}" for number in range(20)]
    seconds, minutes = (400, 200) if short else (4000, 780)
    rounds = [_ticks(names, second) for second in range(seconds)]
    await _write(store, "MARKET", iter([ticks for ticks, _ in rounds]))

    def rest() -> Iterator[list[Event]]:
        for _, averages in rounds:
            yield averages
        yield from _minutes(names, minutes)
        for minute in range(minutes):
            yield [_gap(name, OPEN_MS + minute * 60_000) for name in names]

    await _write(store, "INDICATORS", rest())
    crosses: Iterator[list[Event]] = (
        [_signal(name, OPEN_MS + minute * 60_000) for name in names] for minute in range(minutes)
    )
    await _write(store, "SIGNALS", crosses)
    for number in range(minutes * 5):
        now_ms = OPEN_MS + number * 15_000
        await store.report(Report("host:1234", now_ms, now_ms, True, "running", 9, 999, 0, 12.5))


# -- what it takes ---------------------------------------------------------------------------------


async def _sizes(connection: asyncpg.Connection) -> dict[str, int]:
    return {
        row["relname"]: row["with_parts"] or row["alone"] for row in await connection.fetch(_SIZES)
    }


async def measure(dsn: str, *, short: bool) -> Measured:
    """Fill a database without rows and ask how it grew."""
    connection = await asyncpg.connect(dsn)
    try:
        empty_bytes = await connection.fetchval("SELECT pg_database_size(current_database())")
        before = await _sizes(connection)
        async with PostgresStore(dsn, connections_max=1, statement_timeout_s=60) as store:
            await _fill(store, short=short)
        after = await _sizes(connection)
        row_bytes = {}
        for table in (*ROWS_PER_SESSION, "streaming_metrics"):
            query = f"SELECT count(*) FROM public.{table}"  # noqa: S608  # names of ours
            row_bytes[table] = (after[table] - before[table]) / await connection.fetchval(query)
        return Measured(row_bytes, await _day_bytes(connection), float(empty_bytes))
    finally:
        await connection.close()


async def _day_bytes(connection: asyncpg.Connection) -> float:
    """Make the partitions of a month, and return what those of a day take, catalogs included."""
    days = 30
    size = "SELECT pg_database_size(current_database())"
    before = await connection.fetchval(size)
    for day in range(days):
        for table in TICK_TABLES:
            await connection.execute(
                "SELECT public.kite_ensure_partition($1, $2)",
                table,
                dt.date(2027, 1, 1) + dt.timedelta(days=day),
            )
    return float(await connection.fetchval(size) - before) / days


# -- what is said of it ----------------------------------------------------------------------------


def tables_of(found: Measured) -> dict[str, str]:
    """Return the tables of the page, by their names in it."""
    rows = "".join(
        f"| `{table}` | {found.row_bytes[table]:.0f} | {count:,} "
        f"| {count * found.row_bytes[table] / 1000:,.0f} kB |\n"
        for table, count in ROWS_PER_SESSION.items()
    )
    fixed = REPORTS_KEPT * found.row_bytes["streaming_metrics"]
    rows += (
        f"| `streaming_metrics` | {found.row_bytes['streaming_metrics']:.0f} "
        f"| {REPORTS_KEPT:,} in all, those of 30 days | {fixed / 1e6:.0f} MB in all |\n"
    )
    until = "".join(
        f"| {tickers} | {_until(found.sessions(tickers, with_ticks=True))} "
        f"| {_until(found.sessions(tickers, with_ticks=False))} |\n"
        for tickers in TICKERS
    )
    sums = (
        f"A session of one ticker takes {found.session_bytes(with_ticks=True) / 1e6:.1f} MB with "
        f"ticks and {found.session_bytes(with_ticks=False) / 1e6:.2f} MB without. A database "
        f"without rows has {found.empty_bytes / 1e6:.0f} MB, the partitions of a day of ticks "
        f"take {found.day_bytes / 1000:.0f} kB before the first row.\n"
    )
    return {
        "rows": "| table | bytes a row | rows of a ticker and session | |\n|---|---|---|---|\n"
        + rows,
        "sums": sums,
        "until": "| tickers | `ticks` | `minutes` |\n|---|---|---|\n" + until,
    }


def _until(sessions: float) -> str:
    """Say how long a number of trading days is."""
    if sessions < 1:
        return "less than a day"
    if sessions < 42:
        return f"{sessions:.0f} trading days"
    if sessions < 504:
        return f"{sessions / 21:.0f} months"
    return f"{sessions / 252:.1f} years"


def rewritten(page: str, found: Mapping[str, str]) -> str:
    """Return the page with other tables."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}{found[match['name']]}{match[4]}"

    pattern = r"(<!-- measured: (?P<name>\w+) -->\n)(.*?)(<!-- end -->)"
    return re.sub(pattern, table, page, flags=re.DOTALL)


def _report(found: Measured) -> None:
    for table, value in found.row_bytes.items():
        report(f"capacity_bytes_per_row_{table}", "bytes", value, SPECIFIED_ROW_BYTES)
    report("capacity_bytes_per_day", "bytes", found.day_bytes, SPECIFIED_DAY_BYTES)
    modes: Sequence[tuple[str, bool]] = (("ticks", True), ("minutes", False))
    for mode, with_ticks in modes:
        for tickers in TICKERS:
            value = found.sessions(tickers, with_ticks=with_ticks)
            report(f"capacity_sessions_{mode}_{tickers}", "sessions", value, SPECIFIED_SESSIONS)


def main() -> None:
    """Measure, print, and with `--page` write the page."""
    parser = argparse.ArgumentParser(prog="benchmarks.bench_capacity", description="Bytes a row.")
    parser.add_argument("--short", action="store_true", help="fewer rows")
    parser.add_argument("--page", action="store_true", help="write docs/capacity.md as well")
    wanted = parser.parse_args()
    where = machine()
    with temporary_home() as home:
        server = PostgresServer(home)
        running = Running(server, home / "postgres.log", extra=("-c", "fsync=off"))
        with running, database(server) as dsn:
            found = asyncio.run(measure(dsn, short=wanted.short))
    _report(found)
    if wanted.page:
        tables = {**tables_of(found), "machine": f"{where}\n"}
        PAGE.write_text(rewritten(PAGE.read_text("utf-8"), tables), "utf-8")


if __name__ == "__main__":
    main()
