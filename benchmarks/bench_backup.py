"""How fast a backup is taken and put back, against pg_dump and pg_restore of the same rows.

Both sides read the same tables of one server in one run, and write files on the same disk. A
backup does more: it orders rows by their key, digests them, and after a restore reads all of them
again and compares; and it has the streams.

- `backup_rows_pg_dump`: rows/s out of the database and compressed into files, against `pg_dump` in
  its own format;
- `restore_rows_pg_restore`: rows/s into a database with the schema, compared afterwards, against
  `pg_restore` into one without, which then makes its indexes at the end;
- `backup_streams_cp`: bytes/s of stream files copied and digested, against a copy with fsync;
- `restore_whole_store`: from the files alone to a store on which `./kite up` can start, servers'
  start and comparison included, in seconds; the target is the 15 minutes of docs/guides/backup.md.

Run it as `python -m benchmarks.bench_backup [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from benchmarks.report import report
from benchmarks.stage import database, make_streams
from cli.backup import restore, rows, work
from cli.backup.manifest import Manifest
from cli.backup.place import DirectoryPlace
from cli.backup.progress import Quiet, Stage
from cli.backup.take import Source
from cli.home import Home
from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from deploy.supabase.roles import BACKUP_ROLE
from libs.common.bus import nats
from libs.common.clock import SystemClock
from libs.common.durable import sync_tree
from tests.databases import throw_away_database
from tests.servers import Running, temporary_home

ROWS, ROWS_SHORT = 1_000_000, 100_000
FRAMES, FRAMES_SHORT = 4_000, 400
FRAME_BYTES = 20_000
TARGET_S = 900.0
_TICKS = """
    insert into public.equity_data (ticker, "timestamp", price, volume, total_volume, bid, ask)
    select 'T' || n % 250, '2026-11-20 14:30Z'::timestamptz + n / 250 * interval '1 second',
        100 + n % 977 / 7.0, n % 1000, n, 100 + n % 977 / 7.0, 101 + n % 977 / 7.0
    from generate_series(1, $1) n"""


def main() -> None:
    """Fill a database and streams, then measure both sides, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer rows and frames")
    short = parser.parse_args().short
    count, frames = (ROWS_SHORT, FRAMES_SHORT) if short else (ROWS, FRAMES)
    with temporary_home() as home:
        server, streams = PostgresServer(home), NatsServer(home)
        with (
            Running(server, home / "postgres.log"),
            Running(streams, home / "nats.log"),
            database(server) as dsn,
        ):
            asyncio.run(_fill(dsn, count))
            asyncio.run(_fill_streams(streams.url("admin"), frames))
            reader = server.dsn(BACKUP_ROLE, dsn.rpartition("/")[2])
            made, root = _rows_and_streams(home, server, streams, dsn, reader, count)
        _whole_store(root, made)


async def _fill(dsn: str, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("select public.kite_ensure_partition('equity_data', '2026-11-20')")
        await connection.execute(_TICKS, count, timeout=600)
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def _fill_streams(url: str, frames: int) -> None:
    await make_streams(url)
    bus = await nats.connect(url, name="bench")
    try:
        for n in range(frames):
            await bus.publish("market.0", os.urandom(FRAME_BYTES), expected_last_seq=n)
    finally:
        await bus.close()


def _rows_and_streams(
    home: Path, server: PostgresServer, streams: NatsServer, dsn: str, reader: str, count: int
) -> tuple[Manifest, Path]:
    """Measure out of and into a database; return the backup and where it is."""
    source = Source(nats_url=streams.url("backup"), pg_dsn=reader)
    place, clock = DirectoryPlace(home / "backups"), SystemClock()
    stages = _Timed()
    made = asyncio.run(work.back_up(source, place, home, clock, stages))
    root = home / "backups" / made.name
    dumped = home / "dump.custom"
    dump_s = _timed([server.programs.path("pg_dump"), "-Fc", "-f", str(dumped), "-d", dsn])
    report("backup_rows_pg_dump", "rows/s", count / stages.took_s["rows"], count / dump_s)
    _streams(home, made, stages.took_s["streams"])
    with database(server) as target:
        begin_s = time.perf_counter()
        asyncio.run(_load(target, root, made))
        ours_s = time.perf_counter() - begin_s
    with throw_away_database(server) as target_database:
        theirs_s = _timed(
            [server.programs.path("pg_restore"), "--no-owner", "--no-privileges",
             "--no-publications", "-d", target_database.superuser, str(dumped)]
        )  # fmt: skip
    report("restore_rows_pg_restore", "rows/s", count / ours_s, count / theirs_s)
    kept = home.with_name(f"{home.name}-kept")
    shutil.copytree(root, kept / made.name)
    return made, kept / made.name


def _streams(home: Path, made: Manifest, took_s: float) -> None:
    """Compare the streams' stage with a plain copy of the server's files."""
    files = home / "nats" / "jetstream"
    size = sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
    begin_s = time.perf_counter()
    shutil.copytree(files, home / "copied")
    sync_tree(home / "copied")
    copy_s = time.perf_counter() - begin_s
    report("backup_streams_cp", "bytes/s", size / took_s, size / copy_s)


async def _load(dsn: str, root: Path, made: Manifest) -> None:
    await rows.load(dsn, root, made.tables, lambda _: None)
    await rows.compare(dsn, made.tables)


def _whole_store(root: Path, made: Manifest) -> None:
    """Measure from the files to a store that can be started on."""
    try:
        with temporary_home() as home:
            begin_s = time.perf_counter()
            asyncio.run(_restore(Home(home), root, made))
            report("restore_whole_store", "s", time.perf_counter() - begin_s, TARGET_S)
    finally:
        shutil.rmtree(root.parent)


async def _restore(home: Home, root: Path, made: Manifest) -> None:
    home.prepare()
    place = DirectoryPlace(root.parent)
    async with work.checked(place, made.name, home.root, Quiet()) as (parts, found):
        await restore.into_home(home, parts, found, SystemClock(), Quiet())


def _timed(command: list[str]) -> float:
    begin_s = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begin_s


class _Timed(Quiet):
    """Notes how long each stage takes."""

    def __init__(self) -> None:
        self.took_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, *, parts: int = 0, total_bytes: int = 0) -> Iterator[Stage]:
        """Begin a stage, and look at the clock when it is over."""
        begin_s = time.perf_counter()
        with super().stage(name, parts=parts, total_bytes=total_bytes) as stage:
            yield stage
        self.took_s[name] = time.perf_counter() - begin_s


if __name__ == "__main__":
    main()
