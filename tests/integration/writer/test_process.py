"""The writer as the process that it is: killed with -9, stopped, refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

import pytest

from cli.servers.nats import NatsServer
from tests.databases import Database, connected
from tests.integration.writer.sinks import Sink
from tests.integration.writer.stage import Feed, feed, read_rows, wait_written
from tests.postgrest import service_key
from tests.waiting import eventually_async
from tests.writer_frames import tick

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 30.0


class Process:
    """One writer process, with its log."""

    def __init__(self, server: NatsServer, sink: Sink, **settings: str) -> None:
        self._environ = {
            "PATH": os.environ["PATH"], "KITE_NATS_URL": server.url("writer"),
            "KITE_WRITER_FLUSH_MS": "20", **sink.environ, **settings,
        }  # fmt: skip

    def __enter__(self) -> Process:
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.writer"],
            cwd=ROOT, env=self._environ, stderr=self._log,
        )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(10)
        self._log.close()

    def log(self) -> str:
        """Return what it has said so far."""
        self._log.seek(0)
        return self._log.read().decode()

    async def exit_code(self) -> int:
        """Wait until it ends."""
        return await asyncio.to_thread(self.process.wait, DEADLINE_S)


async def frames_written(dsn: str) -> int:
    """Return how many frames of all lanes are written."""
    async with connected(dsn) as connection:
        written = await connection.fetchval("SELECT coalesce(sum(seq), 0) FROM stream_positions")
        return int(written)


def test_killed_again_and_again(
    fresh_nats: NatsServer, migrated_database: Database, sink: Sink
) -> None:
    """kill -9 in the middle of the work, three times: no row is lost, none is doubled."""
    dsn = migrated_database.superuser

    async def scenario() -> None:
        async with feed(fresh_nats) as source:
            await source.send_some(100)
            for _ in range(3):
                with Process(fresh_nats, sink):
                    before = await frames_written(dsn)

                    async def advanced(before: int = before) -> bool:
                        return await frames_written(dsn) > before

                    await source.send_some(20)
                    await eventually_async(advanced, DEADLINE_S, "it writes")
            with Process(fresh_nats, sink):
                await wait_written(dsn, source)
            assert await read_rows(dsn) == source.expected.rows()

    asyncio.run(scenario())


def test_stops_in_order(fresh_nats: NatsServer, migrated_database: Database, sink: Sink) -> None:
    """SIGTERM ends it with 0, and nothing it logged holds a password."""

    async def scenario() -> None:
        async with feed(fresh_nats) as source:
            await source.send_some(5)
            with Process(fresh_nats, sink) as writer:
                await wait_written(migrated_database.superuser, source)
                writer.process.send_signal(signal.SIGTERM)
                assert await writer.exit_code() == 0
                log = writer.log()
        assert "service.stopped" in log
        for url in (migrated_database.owner, fresh_nats.url("writer")):
            assert url.split(":")[2].split("@")[0] not in log
        assert service_key().rpartition(".")[2] not in log

    asyncio.run(scenario())


async def _stream_made_anew(source: Feed, database: Database) -> None:
    await source.send("MARKET", 0, [tick()])
    async with connected(database.superuser) as connection:
        await connection.execute(
            "INSERT INTO stream_positions (stream, partition, seq, frame_n, stream_created_ms) "
            "VALUES ('MARKET', 0, 1, 1, 12345)"
        )


async def _stored_already(source: Feed, database: Database) -> None:
    await source.send("MARKET", 0, [tick()])
    await source.send("MARKET", 0, [tick()])


async def _another_source(source: Feed, database: Database) -> None:
    async with connected(database.superuser) as connection:
        await connection.execute("INSERT INTO kite_meta (key, value) VALUES ('source', 'csv')")


@pytest.mark.parametrize(
    ("prepare", "code", "reason"),
    [
        (_stream_made_anew, 3, "made anew"),
        (_stored_already, 3, "QQQ"),
        (_another_source, 2, "KITE_SOURCE=csv"),
    ],
    ids=["position", "doubled", "source"],
)
def test_refuses(
    fresh_nats: NatsServer,
    migrated_database: Database,
    sink: Sink,
    prepare: Callable[[Feed, Database], Awaitable[None]],
    code: int,
    reason: str,
) -> None:
    """What cannot heal ends the process with its own exit code and one clear line."""

    async def scenario() -> None:
        async with feed(fresh_nats) as source:
            await prepare(source, migrated_database)
            with Process(fresh_nats, sink) as writer:
                assert await writer.exit_code() == code
                (line,) = [each for each in writer.log().splitlines() if "service.refused" in each]
        assert reason in line

    asyncio.run(scenario())
