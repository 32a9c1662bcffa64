"""What must hold after faults: the same rows as without any, nothing lost, doubled or made up.

Rows are compared as text, one canonical line each, in the order of their keys, up to an instant of
broker time; equal tables have equal SHA-256. There are three degrees:

- `same_rows`: nothing that the broker sent was missed. Five tables are equal, column for column,
  and every tick of the simulator's ledger is there.
- `same_minutes`: frames were lost, which no tick tells. Candles and signals end equal here, too,
  and each minute whose bar was never sent lies in a listed gap.
- `same_day`: input was missed. Candles and signals end equal all the same, for the broker's history
  has the minutes; ticks cannot come back, so each one that is missing lies in a listed gap, no
  listed gap holds a stored tick, and nothing is stored that was not sent.

In all, each tick's sma9 and vwap follow from the stored ticks, and its volume from the wire.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from tests.faults.ledger import Sent, SentTick
from tests.faults.tick_values import wrong_values
from tests.faults.watch import LiveTick

__all__ = [
    "TABLES",
    "Book",
    "Query",
    "Table",
    "read_book",
    "same_day",
    "same_minutes",
    "same_rows",
]

_EXAMPLES_MAX = 3
_MINUTE_MS = 60_000


class Query(Protocol):
    """How to ask a database."""

    async def __call__(self, sql: str, *arguments: object) -> list[Any]:
        """Return the rows of an answer."""
        ...


@dataclass(frozen=True)
class Table:
    """A query whose first columns are the time in epoch ms and one line of text for each row."""

    name: str
    sql: str


def _table(
    name: str,
    columns: str,
    *,
    known: str = "timestamp",
    where: str = "",
    order: str = "ticker, timestamp",
) -> Table:
    """`known` is the instant at which the broker's data has decided what the row says."""
    line = f"concat_ws('|', {', '.join(f'coalesce({c}::text, chr(45))' for c in columns.split())})"
    condition = f"WHERE {where}" if where else ""
    stamp = f"(extract(epoch from {known}) * 1000)::bigint"
    what = f"{stamp}, {line} FROM {name} {condition} ORDER BY {order}"
    return Table(name, f"SELECT {what}")


_VALUES = "ticker timeframe timestamp open high low close volume sma9 vwap extras"
_CROSS = "ticker timeframe timestamp kind direction price sma9 vwap"
_BY_FRAME = "ticker, timeframe, timestamp"
_CLOSED = "timestamp + replace(replace(timeframe, 'm', ' minutes'), 'h', ' hours')::interval"
EQUITY = _table("equity_data", "ticker timestamp price volume total_volume bid ask")
INDICATORS = _table("indicators", "ticker timestamp sma9 vwap")
CANDLES = _table("candles", f"{_VALUES} source revision", known=_CLOSED, order=_BY_FRAME)
REVISIONS = _table(
    "candle_revisions",
    f"{_VALUES} source revision",
    known=_CLOSED,
    order=f"{_BY_FRAME}, revision",
)
SIGNALS = _table("signals", f"id revision state late {_CROSS}", known=_CLOSED, order=_BY_FRAME)
TABLES = (EQUITY, INDICATORS, CANDLES, REVISIONS, SIGNALS)

# What must be equal even when input was missed.
NEWEST_CANDLES = _table("candles", _VALUES, known=_CLOSED, order=_BY_FRAME)
ACTIVE_SIGNALS = _table("signals", _CROSS, known=_CLOSED, where="state = 'active'", order=_BY_FRAME)
ESSENCE = (NEWEST_CANDLES, ACTIVE_SIGNALS)

TICKS = """
    SELECT e.ticker, (extract(epoch from timestamp) * 1000)::bigint, e.price::float8,
           e.total_volume, i.sma9::float8, i.vwap::float8, e.volume
    FROM equity_data e FULL JOIN indicators i USING (ticker, timestamp)
    ORDER BY ticker, timestamp
"""
GAPS = """
    SELECT ticker, (extract(epoch from started_at) * 1000)::bigint,
           (extract(epoch from ended_at) * 1000)::bigint, series, state
    FROM gaps ORDER BY ticker, started_at
"""


class Book(msgspec.Struct, frozen=True):
    """The rows of a stack: lines by table name and degree, ticks by ticker, gaps.

    `volumes` are the ticks' own volumes, in the order of `ticks`.
    """

    lines: dict[str, list[tuple[int, str]]]
    ticks: dict[str, list[LiveTick]]
    gaps: list[tuple[str, int, int, str, str]]
    orphans: list[int]
    volumes: dict[str, list[int]] = {}

    def digest(self, name: str, until_ms: int) -> str:
        """Return the SHA-256 of a table's rows that lie before an instant."""
        found = hashlib.sha256()
        for line in self.until(name, until_ms):
            found.update(line.encode() + b"\n")
        return found.hexdigest()

    def until(self, name: str, until_ms: int) -> list[str]:
        """Return a table's lines that lie before an instant."""
        return [line for at_ms, line in self.lines[name] if at_ms < until_ms]


async def read_book(query: Query) -> Book:
    """Read everything that is compared, in one go."""
    lines = {}
    for kind, tables in (("", TABLES), ("essence of ", ESSENCE)):
        for table in tables:
            lines[kind + table.name] = [(row[0], row[1]) for row in await query(table.sql)]
    ticks: dict[str, list[LiveTick]] = {}
    volumes: dict[str, list[int]] = {}
    orphans = []
    for ticker, ts_ms, price, total_volume, sma9, vwap, volume in await query(TICKS):
        if price is None:
            orphans.append(ts_ms)
            continue
        ticks.setdefault(ticker, []).append(
            LiveTick(ticker, ts_ms, price, total_volume, sma9, vwap)
        )
        volumes.setdefault(ticker, []).append(volume)
    gaps = [tuple(row) for row in await query(GAPS)]
    return Book(lines, ticks, gaps, orphans, volumes)


def same_rows(
    book: Book, expected: Book, sent: Sent, live: Iterable[LiveTick], until_ms: int
) -> list[str]:
    """Return what differs although nothing was missed; empty when all is well."""
    names = [table.name for table in TABLES]
    found = [line for name in names for line in _difference(book, expected, name, until_ms)]
    for ticker, ticks in sent.items():
        stored = {tick.ts_ms for tick in book.ticks.get(ticker, [])}
        lost = [
            ts_ms
            for ts_ms, tick in ticks.items()
            if ts_ms < until_ms and ts_ms not in stored and not tick.image
        ]
        if lost:
            found.append(f"{len(lost)} ticks of {ticker} were sent and not stored: {_few(lost)}")
    return [*found, *_never_lied(book, sent, live, until_ms)]


def same_day(
    book: Book, expected: Book, sent: Sent, live: Iterable[LiveTick], until_ms: int
) -> list[str]:
    """Return what differs beyond what missed input explains; empty when all is well."""
    names = [f"essence of {table.name}" for table in ESSENCE]
    found = [line for name in names for line in _difference(book, expected, name, until_ms)]
    for ticker, ticks in expected.ticks.items():
        found += _unexplained(ticker, ticks, book, until_ms)
    return [*found, *_never_lied(book, sent, live, until_ms)]


def same_minutes(
    book: Book,
    expected: Book,
    sent: Sent,
    live: Iterable[LiveTick],
    until_ms: int,
    bars_sent: Mapping[str, Container[int]],
) -> list[str]:
    """Return what differs although frames were lost; empty when all is well."""
    names = [f"essence of {table.name}" for table in ESSENCE]
    found = [line for name in names for line in _difference(book, expected, name, until_ms)]
    missing: dict[str, list[int]] = {}
    for closed_ms, line in expected.lines["candles"]:
        ticker, timeframe = line.split("|", 2)[:2]
        start_ms = closed_ms - _MINUTE_MS
        if (
            timeframe == "1m"
            and closed_ms < until_ms
            and start_ms not in bars_sent.get(ticker, ())
            and not _in_gap(ticker, start_ms, book)
        ):
            missing.setdefault(ticker, []).append(start_ms)
    found += [
        f"{len(times)} minutes of {ticker} never came and are in no gap: {_few(times)}"
        for ticker, times in missing.items()
    ]
    return [*found, *_never_lied(book, sent, live, until_ms)]


def _in_gap(ticker: str, at_ms: int, book: Book) -> bool:
    return any(
        name in (ticker, "*") and series == "bars" and from_ms <= at_ms < to_ms
        for name, from_ms, to_ms, series, _ in book.gaps
    )


def _difference(book: Book, expected: Book, name: str, until_ms: int) -> list[str]:
    if book.digest(name, until_ms) == expected.digest(name, until_ms):
        return []
    ours, theirs = book.until(name, until_ms), expected.until(name, until_ms)
    more, fewer = set(ours) - set(theirs), set(theirs) - set(ours)
    if not more and not fewer:
        return [f"{name}: the same rows in another number, {len(ours)} instead of {len(theirs)}"]
    return [
        f"{name}: {len(more)} rows that should not be, {_few(sorted(more))}; "
        f"{len(fewer)} that are missing, {_few(sorted(fewer))}"
    ]


def _unexplained(ticker: str, expected: Sequence[LiveTick], book: Book, until_ms: int) -> list[str]:
    """Hold missing ticks against the listed gaps, both ways."""
    stored = [tick.ts_ms for tick in book.ticks.get(ticker, [])]
    known = set(stored)
    gaps = [
        (from_ms, to_ms)
        for name, from_ms, to_ms, series, _ in book.gaps
        if name in (ticker, "*") and series == "ticks"
    ]
    missing = [tick.ts_ms for tick in expected if tick.ts_ms < until_ms and tick.ts_ms not in known]
    silent = [ts for ts in missing if not any(begin <= ts < end for begin, end in gaps)]
    found = []
    if silent:
        found.append(f"{len(silent)} ticks of {ticker} are in no gap: {_few(silent)}")
    for begin, end in gaps:
        inside = bisect_left(stored, end) - bisect_left(stored, begin)
        if inside:
            found.append(f"the gap of {ticker} from {begin} to {end} holds {inside} stored ticks")
    return found


def _never_lied(book: Book, sent: Sent, live: Iterable[LiveTick], until_ms: int) -> list[str]:
    """Nothing is stored that was not sent, and what was said live is stored as it was said."""
    orphans = [ts_ms for ts_ms in book.orphans if ts_ms < until_ms]
    found = [f"{len(orphans)} rows of indicators belong to no tick"] if orphans else []
    stored = {}
    for ticker, ticks in book.ticks.items():
        wire = sent.get(ticker, {})
        for tick in ticks:
            stored[ticker, tick.ts_ms] = tick
        invented = [tick for tick in ticks if not _was_sent(tick, wire.get(tick.ts_ms))]
        if invented:
            found.append(f"{len(invented)} ticks of {ticker} were never sent: {_few(invented)}")
    found += _wrong_figures(book, sent, until_ms)
    broken = [
        tick
        for tick in live
        if tick.ts_ms < until_ms and stored.get((tick.ticker, tick.ts_ms)) != tick
    ]
    if broken:
        found.append(f"{len(broken)} live ticks are not stored as they were said: {_few(broken)}")
    return found


def _wrong_figures(book: Book, sent: Sent, until_ms: int) -> list[str]:
    """Hold each tick's volume against the wire, and its sma9 and vwap against the ticks."""
    found = []
    for ticker, volumes in book.volumes.items():
        ticks, wire = book.ticks[ticker], sent.get(ticker, {})
        wrong = [tick for tick in wrong_values(ticks, volumes) if tick.ts_ms < until_ms]
        if wrong:
            found.append(f"{len(wrong)} values of {ticker} do not follow: {_few(wrong)}")
        grown = [
            (tick.ts_ms, volume)
            for tick, volume in zip(ticks, volumes, strict=True)
            if (on_wire := wire.get(tick.ts_ms)) is not None
            and on_wire.volume not in (None, volume)
        ]
        if grown:
            found.append(f"{len(grown)} volumes of {ticker} are not the wire's: {_few(grown)}")
    return found


def _was_sent(tick: LiveTick, wire: SentTick | None) -> bool:
    return wire is not None and wire.tells(tick.price, tick.total_volume)


def _few(values: Sequence[object]) -> str:
    more = f" and {len(values) - _EXAMPLES_MAX} more" if len(values) > _EXAMPLES_MAX else ""
    return ", ".join(str(value) for value in values[:_EXAMPLES_MAX]) + more if values else "none"
