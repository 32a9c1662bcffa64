"""Rows of a real database in files: the same rows, in one order, read without a right to write."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from cli.backup.progress import Quiet, Stage
from cli.export.asked import Asked, resolve
from cli.export.commands import Exported, export
from cli.export.files import ExportFailed
from cli.export.tables import TABLES
from libs.common import calendar
from libs.common.errors import StoreMismatch, StoreUnavailable
from libs.common.events import Event
from services.simulator.csv_bars import read_bars
from services.writer.core import Position
from services.writer.store import PostgresStore
from tests.databases import Database, connected
from tests.writer_frames import (
    CREATED_MS,
    TS_MS,
    batch_of,
    candle,
    gap,
    signal,
    tick,
    tick_indicator,
)

ROOT = Path(__file__).resolve().parents[3]
MINUTE_MS = 60_000
DAY_MS = 86_400_000
TICKERS = ("BRK.B", "QQQ", "SPY")
# Friday, the Monday after, and one of the next month.
DAYS_MS = (TS_MS, TS_MS + 3 * DAY_MS, TS_MS + 10 * DAY_MS)


def _events() -> tuple[list[Event], list[Event], list[Event]]:
    """Three days of three tickers: what each stream carries."""
    market: list[Event] = []
    indicators: list[Event] = []
    signals: list[Event] = []
    for ticker in TICKERS:
        for day_ms in DAYS_MS:
            for n in range(30):
                at_ms = day_ms + n * 1234
                market.append(tick(at_ms, ticker=ticker, price=100 + n / 7, bid=None))
                if n % 3:
                    indicators.append(tick_indicator(at_ms, ticker=ticker, sma9=None, vwap=99 + n))
            for n in range(10):
                at_ms = day_ms + n * MINUTE_MS
                indicators.append(candle(at_ms, ticker=ticker, volume=n, extras={"rsi14": n / 3}))
            indicators.append(candle(day_ms, ticker=ticker, timeframe="5m"))
            market.append(
                gap(day_ms, ticker=ticker, id=f"{ticker}:bars:{day_ms}", cause='a, "b"\nc')
            )
            signals.append(signal(day_ms, ticker=ticker, id=f"{ticker}:1m:{day_ms}"))
    indicators.append(candle(TS_MS, ticker="QQQ", volume=7777))  # a correction
    return market, indicators, signals


@pytest.fixture
def filled(migrated_database: Database) -> Database:
    """A database with some of everything."""

    async def fill() -> None:
        async with PostgresStore(
            migrated_database.owner, connections_max=1, statement_timeout_s=30
        ) as store:
            await store.claim({"source": "demo"})
            for name, events in zip(("MARKET", "INDICATORS", "SIGNALS"), _events(), strict=True):
                batch = batch_of(events, stream=name, before=Position(CREATED_MS))
                await store.commit(batch)

    asyncio.run(fill())
    return migrated_database


def exported(database: Database, *what: str, **given: Any) -> list[Exported]:
    """Export as the backup's role, which may only read."""

    async def act() -> list[Exported]:
        request = resolve(Asked(what=what, **given))
        async with aclosing(export(database.backup, request, Quiet())) as files:
            return [file async for file in files]

    return asyncio.run(act())


def stored(database: Database, query: str) -> list[tuple[Any, ...]]:
    """Rows by a query of the test's own."""

    async def act() -> list[tuple[Any, ...]]:
        async with connected(database.superuser) as connection:
            return [tuple(row) for row in await connection.fetch(query)]

    return asyncio.run(act())


QUERIES = {
    "candles": "select * from candles where timeframe = '1m'"
    ' order by ticker, timeframe, "timestamp"',
    "ticks": 'select e.ticker, e."timestamp", price, volume, total_volume, bid, ask, sma9, vwap'
    " from equity_data e left join indicators i using (ticker, timestamp) order by 1, 2",
    "signals": 'select id, ticker, timeframe, "timestamp", kind, direction, price, sma9, vwap,'
    ' state, late, revision from signals order by ticker, "timestamp"',
    "gaps": "select * from gaps order by ticker, started_at",
    "revisions": "select * from candle_revisions",
}


@pytest.mark.parametrize("what", QUERIES)
def test_parquet_holds_what_the_database_holds(what: str, filled: Database, tmp_path: Path) -> None:
    """Every row, every digit, in order of ticker and time."""
    (made,) = exported(filled, what, output=str(tmp_path / "rows.parquet"))
    table = parquet.read_table(tmp_path / "rows.parquet")
    found = [tuple(row.values()) for row in table.to_pylist()]
    wanted = stored(filled, QUERIES[what])
    assert found == wanted
    assert made.rows == len(wanted) > 0


@pytest.mark.parametrize("what", QUERIES)
def test_csv_holds_the_same(what: str, filled: Database, tmp_path: Path) -> None:
    """As text with all digits; what is unknown is empty."""
    exported(filled, what, output=str(tmp_path / "rows.csv"))
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == [column.name for column in TABLES[what].columns]
    wanted = stored(filled, QUERIES[what])
    assert len(rows) == len(wanted)
    for row, values in zip(rows, wanted, strict=True):
        for text, value in zip(row, values, strict=True):
            assert _read(text, value) == value


def _read(text: str, value: object) -> object:
    """Read a cell as what the database's value is."""
    if isinstance(value, bool):
        return text == "true"
    if isinstance(value, dt.datetime):
        assert text.endswith("Z")
        return dt.datetime.fromisoformat(text)
    if value is None:
        return text or None
    if isinstance(value, Decimal):
        assert text == str(value)  # with its zeros
        return Decimal(text)
    if isinstance(value, int):
        return int(text)
    return text


def test_days_are_those_of_new_york(filled: Database, tmp_path: Path) -> None:
    """Both ends are meant whole; an instant is the first moment that is not."""
    day = calendar.day_of(TS_MS).isoformat()
    path = str(tmp_path / "rows.csv")
    assert exported(filled, "candles", since=day, until=day, output=path)[0].rows == 30
    whole = dt.datetime.fromtimestamp(TS_MS / 1000, dt.UTC)
    until = (whole + dt.timedelta(minutes=4)).isoformat()
    limits = {"since": whole.isoformat(), "until": until, "force": True, "output": path}
    assert exported(filled, "candles", **limits)[0].rows == 12
    # A gap that reaches into the time that was asked for is in it.
    inside = {"since": (whole + dt.timedelta(minutes=1)).isoformat(), "until": until}
    assert exported(filled, "gaps", **inside, force=True, output=path)[0].rows == 3


def test_a_directory_has_a_file_for_each_ticker(filled: Database, tmp_path: Path) -> None:
    """And each kind, and each time frame of candles; all of it in one snapshot."""
    made = exported(
        filled, "candles", "signals", timeframes="1m,5m", tickers="qqq,brk.b",
        format="parquet", output=f"{tmp_path}/out/",
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "BRK.B-1m.parquet", "BRK.B-5m.parquet", "BRK.B-signals.parquet",
        "QQQ-1m.parquet", "QQQ-5m.parquet", "QQQ-signals.parquet",
    ]  # fmt: skip
    rows = {(file.what, file.tickers[0], file.timeframe): file.rows for file in made}
    assert rows["candles", "QQQ", "1m"] == 30
    assert rows["candles", "BRK.B", "5m"] == 3
    assert rows["signals", "QQQ", None] == 3


def test_what_was_exported_can_be_played(filled: Database, tmp_path: Path) -> None:
    """A file of minute candles is one that the simulator reads: the same bars, no row lost."""
    exported(filled, "candles", tickers="QQQ", output=f"{tmp_path}/")
    with (tmp_path / "QQQ-1m.csv").open(newline="", encoding="utf-8-sig") as file:
        days, outside = read_bars(file)
    bars = [bar for day in days.values() for bar in day]
    wanted = stored(
        filled,
        'select (extract(epoch from "timestamp") * 1000)::bigint, open::float8, high::float8,'
        " low::float8, close::float8, volume from candles"
        " where ticker = 'QQQ' and timeframe = '1m' order by 1",
    )
    found = [(b.ts_ms, b.open, b.high, b.low, b.close, b.volume) for b in bars]
    assert outside == 0
    assert found == wanted


class TestNothingToWrite:
    """Said in one line, and no file is left."""

    def said(self, database: Database, *what: str, **given: Any) -> str:
        """The refusal."""
        with pytest.raises(ExportFailed) as caught:
            exported(database, *what, **given)
        return str(caught.value)

    def test_an_unknown_ticker(self, filled: Database, tmp_path: Path) -> None:
        """With those that there are."""
        path = str(tmp_path / "rows.csv")
        said = self.said(filled, "candles", tickers="QQQ,TSLA", output=path)
        assert said == "no candles of TSLA are stored; there are BRK.B, QQQ, SPY"
        assert not list(tmp_path.iterdir())

    def test_an_empty_range(self, filled: Database, tmp_path: Path) -> None:
        """In the words of the options."""
        path = str(tmp_path / "rows.parquet")
        said = self.said(
            filled, "candles", tickers="QQQ", since="2023-11-25", until="2023-11-26", output=path
        )
        assert "no candles of QQQ with time frame 1m in 2023-11-25-2023-11-26" in said
        assert not list(tmp_path.iterdir())

    def test_an_empty_database(self, migrated_database: Database) -> None:
        """Nothing has flown yet."""
        assert "no ticks are stored" in self.said(migrated_database, "ticks")

    def test_a_file_that_is_there(self, filled: Database, tmp_path: Path) -> None:
        """Not replaced, unless one says so."""
        path = tmp_path / "rows.csv"
        path.write_text("mine", "utf-8")
        assert "add --force" in self.said(filled, "candles", output=str(path))
        assert path.read_text("utf-8") == "mine"
        assert exported(filled, "candles", output=str(path), force=True)

    def test_a_database_that_is_not_ours(self, empty_database: Database) -> None:
        """Or that is not there."""
        with pytest.raises(StoreMismatch, match="no schema of ours"):
            exported(empty_database, "candles")

    def test_a_partition_that_nobody_knows(self, filled: Database) -> None:
        """Rather refused than passed over."""

        async def act() -> None:
            async with connected(filled.owner) as connection:
                await connection.execute(
                    "create table kite_parts.mine partition of public.candles"
                    " for values from ('2001-01-01') to ('2001-02-01')"
                )

        asyncio.run(act())
        with pytest.raises(StoreMismatch, match="mine is no partition of ours"):
            exported(filled, "candles")


def command(database: Database, *words: str, home: Path) -> subprocess.CompletedProcess[bytes]:
    """`./kite export …` with another database than the stack's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KITE_")}
    environ = {"KITE_PG_DSN": database.reader, "KITE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "cli", "export", *words],
        env=clean | environ, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


class TestCommand:
    """As a person calls it."""

    def test_rows_go_to_standard_output(self, filled: Database, tmp_path: Path) -> None:
        """CSV or Parquet, whole, and nothing else."""
        done = command(filled, "signals", home=tmp_path)
        assert done.returncode == 0
        assert len(list(csv.DictReader(io.StringIO(done.stdout.decode())))) == 9
        done = command(filled, "signals", "--format", "parquet", home=tmp_path)
        assert parquet.read_table(io.BytesIO(done.stdout)).num_rows == 9

    def test_json_says_what_was_written(self, filled: Database, tmp_path: Path) -> None:
        """With digests, for whoever copies the files elsewhere."""
        done = command(
            filled, "ticks", "--json", "-o", f"{tmp_path}/", "--tickers", "QQQ", home=tmp_path
        )
        summary = json.loads(done.stdout)
        (file,) = summary["files"]
        assert summary["rows"] == file["rows"] == 90
        assert file["path"] == str(tmp_path / "QQQ-ticks.csv")
        assert file["bytes"] == (tmp_path / "QQQ-ticks.csv").stat().st_size
        assert done.stderr == b""

    def test_a_reader_who_has_seen_enough(self, filled: Database, tmp_path: Path) -> None:
        """`| head` ends it without a word."""
        words = f"{sys.executable} -m cli export ticks | head -n 1"
        environ = {**os.environ, "KITE_PG_DSN": filled.reader, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["/bin/sh", "-c", words], env=environ, capture_output=True, timeout=60, check=False
        )
        assert done.stdout.startswith(b"ticker,timestamp,price")
        assert b"Traceback" not in done.stderr

    def test_mistakes_are_one_line(self, filled: Database, tmp_path: Path) -> None:
        """Asked wrongly: 2. Nothing there: 1."""
        wrong = command(filled, "candles", "--from", "soon", home=tmp_path)
        assert (wrong.returncode, wrong.stderr.count(b"\n")) == (2, 1)
        empty = command(filled, "candles", "--tickers", "TSLA", home=tmp_path)
        assert (empty.returncode, empty.stderr.count(b"\n")) == (1, 1)


def test_a_server_that_refuses_leaves_no_file(filled: Database, tmp_path: Path) -> None:
    """A wrong password is said as one."""
    wrong = re.sub(r":[^:@]+@", ":wrong@", filled.backup)
    with pytest.raises(StoreUnavailable, match="refuses the login"):
        exported(replace(filled, backup=wrong), "ticks", output=str(tmp_path / "rows.csv"))
    assert not list(tmp_path.iterdir())


def test_a_session_that_ends_in_the_middle_leaves_no_file(filled: Database, tmp_path: Path) -> None:
    """What was written so far is taken away."""
    request = resolve(Asked(what=("ticks",), output=str(tmp_path / "rows.csv")))
    end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'kite_backup'"
    before: list[list[Path]] = []

    class Ending(Quiet):
        """Ends the session at the first rows."""

        @contextmanager
        def stage(self, name: str, *, parts: int = 0, total_bytes: int = 0) -> Iterator[Stage]:
            class Part:
                """The whole of the work is one."""

                def advance(self, count_bytes: int) -> None:
                    before.append(list(tmp_path.iterdir()))
                    as_superuser_of(filled, end)

                def part_done(self) -> None:
                    """The rows of the first part may have come before the end."""

            yield Part()

    async def act() -> None:
        async with aclosing(export(filled.backup, request, Ending())) as files:
            async for _ in files:
                raise AssertionError("it was written")

    with pytest.raises(StoreUnavailable, match="cannot be read"):
        asyncio.run(act())
    assert before[0]
    assert not list(tmp_path.iterdir())


def as_superuser_of(database: Database, query: str) -> None:
    """Run a query beside a loop that is running."""
    thread = threading.Thread(target=stored, args=(database, query))
    thread.start()
    thread.join()
