"""Processes that die at a failpoint leave in the real servers exactly what its name says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from cli.servers.nats import NatsServer
from cli.servers.postgres import PostgresServer
from deploy.supabase.migrate import migrate, read
from libs.common.bus import nats, topology
from libs.common.errors import BusUnavailable
from services.ingest.spool import Spool
from tests.databases import Database, connected
from tests.postgrest import postgrest, service_key
from tests.supabase import authenticator
from tests.waiting import eventually_async

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 20.0

PUBLISH = """
import asyncio, sys
from libs.common.bus import nats
async def main():
    bus = await nats.connect(sys.argv[1], name="indicators")
    await bus.publish(sys.argv[2], b"last words", expected_last_seq=0)
asyncio.run(main())
"""
MAKE_STREAMS = """
import asyncio, sys
from libs.common.bus import nats, topology
async def main():
    bus = await nats.connect(sys.argv[1], name="bootstrap")
    await topology.apply(bus, topology.plan(1, "demo"))
asyncio.run(main())
"""
COMMIT = """
import asyncio, sys
import uvloop
from services.writer.store import PostgresStore
from tests.writer_frames import batch_of, gap, tick
async def main():
    async with PostgresStore(sys.argv[1], connections_max=1, statement_timeout_s=10) as store:
        await store.commit(batch_of([tick()], [gap()]))
run = uvloop.run if sys.argv[2] == "uvloop" else asyncio.run
run(main())
"""
COMMIT_REST = """
import asyncio, sys
from services.writer.rest import RestStore
from tests.writer_frames import batch_of, gap, tick
async def main():
    url, key = sys.argv[1:]
    async with RestStore(url, key, connections_max=1, statement_timeout_s=10) as store:
        await store.commit(batch_of([tick()], [gap()]))
asyncio.run(main())
"""
MIGRATE = """
import asyncio, sys
from deploy.supabase.migrate import migrate
asyncio.run(migrate(sys.argv[1]))
"""
SPOOL = """
import sys
from pathlib import Path
from services.ingest.spool import Record, Spool
spool = Spool(Path(sys.argv[1]), 1, 1 << 20)
spool.append([Record(0, 1, n, b"some bytes") for n in (1, 2, 3)])
"""


@pytest.fixture
def die_at(tmp_path: Path) -> Callable[..., None]:
    """Run a few lines with one point armed, and see them die there."""

    def run(point: str, code: str, *arguments: str) -> None:
        file = tmp_path / "failpoint"
        file.write_text(point)
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            env=os.environ | {"KITE_FAILPOINT_FILE": str(file)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not file.exists()

    return run


@pytest.mark.parametrize(
    ("point", "stream", "subject"),
    [
        ("indicators.publish.sent", "INDICATORS", "indicators.0"),
        ("indicators.checkpoint.sent", "STATE", "state.indicators.0"),
    ],
)
def test_what_was_sent_to_the_bus_is_stored(
    fresh_nats: NatsServer, die_at: Callable[..., None], point: str, stream: str, subject: str
) -> None:
    """The server has the message although nobody waited for its answer."""

    async def scenario() -> None:
        bus = await nats.connect(fresh_nats.url("admin"), name="test")
        await topology.apply(bus, topology.plan(1, "demo"))
        await asyncio.to_thread(die_at, point, PUBLISH, fresh_nats.url("admin"), subject)
        await eventually_async(lambda: bus.last(stream, subject), DEADLINE_S, "the message")
        stored = await bus.last(stream, subject)
        assert stored is not None
        assert stored.data == b"last words"
        await bus.close()

    asyncio.run(scenario())


def test_streams_half_made_are_completed(
    fresh_nats: NatsServer, die_at: Callable[..., None]
) -> None:
    """A store that is half made is not taken for one, and the next run makes the rest."""
    die_at("bootstrap.streams.middle", MAKE_STREAMS, fresh_nats.url("admin"))

    async def scenario() -> None:
        bus = await nats.connect(fresh_nats.url("admin"), name="test")
        assert (await bus.stream("MARKET")).last_seq == 0
        with pytest.raises(BusUnavailable, match="COMMANDS"):
            await bus.stream("COMMANDS")
        await topology.apply(bus, topology.plan(1, "demo"))
        assert (await bus.stream("COMMANDS")).last_seq == 0
        await bus.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("point", "stored"),
    [
        ("writer.transaction.before", False),
        ("writer.transaction.begun", False),
        ("writer.transaction.middle", False),
        ("writer.commit.before", False),
        ("writer.commit.sent", True),
    ],
)
def test_rows_and_position_live_or_die_together(
    migrated_database: Database, die_at: Callable[..., None], point: str, stored: bool, loop: str
) -> None:
    """Until COMMIT is on the wire nothing is stored, from then on everything."""
    die_at(point, COMMIT, migrated_database.owner, loop)

    async def scenario() -> None:
        async with connected(migrated_database.superuser) as connection:
            await nobody_else_connected(connection)
            for table in ("equity_data", "gaps", "stream_positions"):
                rows = await connection.fetch(f"TABLE {table}")
                assert len(rows) == int(stored), table

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("point", "stored"), [("writer.transaction.before", False), ("writer.commit.sent", True)]
)
def test_a_request_is_all_or_nothing(
    postgres: PostgresServer,
    migrated_database: Database,
    die_at: Callable[..., None],
    point: str,
    stored: bool,
) -> None:
    """Through the REST interface, too: what was answered is stored though nobody read it."""
    with postgrest(authenticator(postgres, migrated_database.name)) as url:
        die_at(point, COMMIT_REST, url, service_key())

    async def scenario() -> None:
        async with connected(migrated_database.superuser) as connection:
            for table in ("equity_data", "gaps", "stream_positions"):
                rows = await connection.fetch(f"TABLE {table}")
                assert len(rows) == int(stored), table

    asyncio.run(scenario())


async def nobody_else_connected(connection: asyncpg.Connection) -> None:
    """Wait until the session of the dead has ended, whatever it still had to do."""
    sessions = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'kite-writer' AND datname = current_database()"""

    async def none() -> bool:
        return bool(await connection.fetchval(sessions) == 0)

    await eventually_async(none, DEADLINE_S, "the session ends")


def test_a_migration_cut_short_leaves_nothing(
    empty_database: Database, die_at: Callable[..., None]
) -> None:
    """What was applied and not noted is gone, and the next run applies everything."""
    die_at("migrate.middle", MIGRATE, empty_database.owner)
    applied = asyncio.run(migrate(empty_database.owner))
    assert [step.label for step in applied] == [migration.label for migration in read()]


@pytest.mark.parametrize(
    ("point", "whole", "torn"),
    [("ingest.spool.append.torn", 2, True), ("ingest.spool.appended", 3, False)],
)
def test_the_spool_keeps_what_was_whole(
    tmp_path: Path, die_at: Callable[..., None], point: str, whole: int, torn: bool
) -> None:
    """A torn record is cut off; those before it are there."""
    path = tmp_path / "spool"
    die_at(point, SPOOL, str(path))
    spool = Spool(path, 1, 1 << 20)
    assert len(list(spool.all())) == whole
    assert (spool.cut_bytes > 0) == torn
