"""`./kite export`: from the stack's database, or the one that KITE_PG_DSN names, into files."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from cli.backup.progress import Progress, Quiet, Stage, open_progress
from cli.export.asked import Asked, Request, resolve
from cli.export.files import (
    Digested,
    ExportFailed,
    Output,
    ReaderGone,
    open_output,
    refuse_taken,
    whole_file,
)
from cli.export.source import Rows, Stretch, opened
from cli.export.tables import Table
from cli.home import Home
from libs.common.errors import SettingsError
from libs.common.settings import load

__all__ = ["Exported", "export", "run"]

_NAMED_MAX = 20


class _Database(msgspec.Struct, frozen=True, kw_only=True):
    """A database that `./kite up` does not run."""

    pg_dsn: str = ""


class Exported(msgspec.Struct, frozen=True):
    """A file that is whole."""

    path: str
    what: str
    tickers: tuple[str, ...]
    timeframe: str | None
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _File:
    """A file that is to be written: these tickers, these time frames (none: all)."""

    path: Path | None
    table: Table
    tickers: tuple[str, ...]
    timeframes: tuple[str, ...]


def run(home: Home, asked: Asked) -> None:
    """Export what was asked for and say what became of it; raises KiteError."""
    request = resolve(asked)
    if request.path is None and request.format == "parquet" and sys.stdout.isatty():
        raise SettingsError(["Parquet is nothing for a terminal: add -o FILE, or redirect it"])
    if request.path is not None and not request.in_directory:
        refuse_taken(request.path, force=request.force)
    # Bars between the rows that somebody looks at would be in the way.
    quiet = asked.as_json or (request.path is None and sys.stdout.isatty())
    progress = Quiet() if quiet else open_progress(as_json=False)
    try:
        done = asyncio.run(_collected(_dsn(home), request, progress))
    except ReaderGone:
        raise BrokenPipeError from None
    if request.path is None:
        return
    if asked.as_json:
        summary = {"rows": sum(file.rows for file in done), "files": done}
        print(msgspec.json.encode(summary).decode())
        return
    from cli.output import size

    for file in done:
        print(f"{file.path}: {file.rows} rows, {size(file.bytes)}")


def _dsn(home: Home) -> str:
    """Return how to log in to read: as whom the environment names, else as a role that only can."""
    if dsn := load(_Database, os.environ).pg_dsn:
        return dsn
    from cli.database import dsn_of
    from deploy.supabase.roles import BACKUP_ROLE

    return dsn_of(home, BACKUP_ROLE)


async def _collected(dsn: str, request: Request, progress: Progress) -> list[Exported]:
    async with aclosing(export(dsn, request, progress)) as files:
        return [file async for file in files]


async def export(dsn: str, request: Request, progress: Progress) -> AsyncGenerator[Exported, None]:
    """Write every file of a request, and yield each when it is whole.

    Raises ExportFailed when there is nothing to write or no way to write it, ReaderGone when
    nobody takes standard output any more.
    """
    async with opened(dsn) as rows:
        facts = {"source": await rows.meta("source")}
        exported = 0
        for table in request.tables:
            tickers = await _tickers(rows, table, request)
            stretches = await rows.stretches(table, request.from_ms, request.to_ms)
            files = list(_files(request, table, tickers))
            parts = len(stretches) * sum(len(file.tickers) for file in files)
            with progress.stage(table.name, parts=max(parts, 1)) as stage:
                for file in files:
                    made = await _write(rows, file, request, stretches, facts, stage)
                    if made is not None:
                        exported += 1
                        yield made
        if not exported:
            raise ExportFailed(_nothing(request))


async def _tickers(rows: Rows, table: Table, request: Request) -> tuple[str, ...]:
    """Return which tickers to export; raises ExportFailed for one of which there is nothing."""
    known = await rows.tickers(table)
    if missing := [ticker for ticker in request.tickers if ticker not in known]:
        there = f"there are {_some(known)}" if known else await _why_none(rows, table)
        raise ExportFailed(f"no {table.name} of {', '.join(missing)} are stored; {there}")
    if not known and len(request.tables) == 1:
        raise ExportFailed(f"no {table.name} are stored; {await _why_none(rows, table)}")
    return request.tickers or tuple(known)


async def _why_none(rows: Rows, table: Table) -> str:
    if table.name == "ticks" and await rows.meta("store") == "minutes":
        return "this database keeps minutes only (KITE_STORE)"
    return "there are none of any ticker"


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _files(request: Request, table: Table, tickers: tuple[str, ...]) -> Iterator[_File]:
    """Say which files there shall be; in a directory none of them holds two tickers."""
    timeframes = request.timeframes_of(table)
    if not request.in_directory:
        yield _File(request.path, table, tickers, timeframes)
        return
    apart = timeframes if table.name == "candles" and timeframes else (None,)
    for ticker in tickers:
        for each in apart:
            path = request.file(table, ticker, each)
            yield _File(path, table, (ticker,), timeframes if each is None else (each,))


async def _write(
    rows: Rows,
    file: _File,
    request: Request,
    stretches: list[Stretch],
    facts: dict[str, str],
    stage: Stage,
) -> Exported | None:
    """Write one file; None when there are no rows for it, and so no file either."""
    if file.path is None:
        out = Digested(cast(BinaryIO, sys.stdout.buffer), "standard output")
        count = await _fill(rows, file, request, stretches, facts, stage, out)
        return _exported(file, count, out) if count else None
    refuse_taken(file.path, force=request.force)
    try:
        with whole_file(file.path, force=request.force) as out:
            count = await _fill(rows, file, request, stretches, facts, stage, out)
            if not count:
                raise _NoRows
    except _NoRows:
        return None
    return _exported(file, count, out)


class _NoRows(Exception):
    """There is nothing to write: leave no file."""


async def _fill(
    rows: Rows,
    file: _File,
    request: Request,
    stretches: list[Stretch],
    facts: dict[str, str],
    stage: Stage,
    out: Digested,
) -> int:
    """Write the rows, and return how many; what begins a file is written before the first."""
    table = file.table
    output: Output | None = None

    def take(lines: bytes) -> None:
        nonlocal output
        if output is None:
            output = open_output(request.format, out, table.columns, facts)
        output.write(lines)
        stage.advance(len(lines))

    count = 0
    for ticker in file.tickers:
        for stretch in stretches:
            count += await rows.copy(table, ticker, stretch, file.timeframes, take)
            stage.part_done()
    if output is not None:
        output.finish()
    return count


def _exported(file: _File, count: int, out: Digested) -> Exported:
    timeframe = file.timeframes[0] if len(file.timeframes) == 1 else None
    return Exported(
        str(file.path or "-"), file.table.name, file.tickers, timeframe, count, out.count_bytes,
        out.sha256,
    )  # fmt: skip


def _nothing(request: Request) -> str:
    """Say that there are no such rows, in the words of what was asked for."""
    what = " nor ".join(table.name for table in request.tables)
    whose = f" of {', '.join(request.tickers)}" if request.tickers else ""
    when = f" in {request.span}" if request.span else ""
    frames = sorted({each for table in request.tables for each in request.timeframes_of(table)})
    length = f" with time frame {', '.join(frames)}" if frames else ""
    return f"there are no {what}{whose}{length}{when}; nothing was written"
