"""How full streams, their disk and database are, as the writer tells it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from libs.common.bus import topology
from libs.common.bus.memory import MemoryServer
from libs.common.clock import SystemClock
from libs.common.errors import StoreUnavailable
from libs.common.runner import Runtime
from libs.common.telemetry import Health, Metrics, get_logger
from services.writer.room import Room
from services.writer.settings import Settings
from services.writer.store import Usage


class Database:
    """A store that knows its size, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0

    async def size_bytes(self) -> int:
        """See Store."""
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        return 123_456

    async def usage(self) -> Usage:
        """See Store."""
        return Usage({"candles": 4096, "signals": 0}, 7, 97)


def runtime_of(metrics: Metrics, files_dir: Path | str = "") -> Runtime[Settings]:
    """A writer on a plan of 500 MB, with the streams' files in `files_dir`."""
    settings = Settings(
        nats_url="",
        pg_dsn="postgresql://a/b",
        writer_database_bytes_max=500_000_000,
        writer_stream_files_dir=str(files_dir),
    )
    return Runtime(
        "writer", settings, metrics, Health(), SystemClock(), get_logger(), asyncio.Event()
    )


def test_streams_and_database_are_measured() -> None:
    """Streams at each look, each with its bound; the database less often, unless it was away."""

    async def main() -> None:
        server, metrics, database = MemoryServer(topology.plan(1, "demo")), Metrics(), Database()
        bus = server.connect()

        def exported(name: str, **labels: str) -> float | None:
            return metrics.registry.get_sample_value(f"kite_writer_{name}", labels)

        store: Any = database  # all of a store that is asked for here
        room = Room(runtime_of(metrics), bus, store)
        assert exported("database_bytes_max") == 500_000_000
        database.away = True
        await room.look()
        assert exported("stream_bytes", stream="MARKET") == 0
        assert exported("stream_bytes_max", stream="MARKET") == topology.STREAM_BYTES_MAX
        assert exported("database_bytes") == 0
        database.away = False
        await bus.publish("market.0", b"frame", expected_last_seq=0)
        await room.look()
        assert (exported("stream_bytes", stream="MARKET") or 0) > 5
        assert exported("database_bytes") == 123_456
        assert exported("table_bytes", table="candles") == 4096
        assert exported("database_connections") == 7
        assert exported("database_connections_max") == 97
        await room.look()
        assert database.asked == 2

    asyncio.run(main())


def test_the_disk_is_measured_where_the_streams_are_on_it(tmp_path: Path) -> None:
    """Its size and what is free; nothing where their files are elsewhere, or not there yet."""

    def measured(files_dir: Path | str) -> tuple[float | None, float | None]:
        metrics = Metrics()
        store: Any = Database()  # all of a store that is asked for here
        bus = MemoryServer(topology.plan(1, "demo")).connect()
        asyncio.run(Room(runtime_of(metrics, files_dir), bus, store).look())
        value = metrics.registry.get_sample_value
        return value("kite_writer_disk_bytes"), value("kite_writer_disk_free_bytes")

    total, free = measured(tmp_path)
    assert total == shutil.disk_usage(tmp_path).total
    assert free is not None
    assert 0 < free < total
    assert measured("") == (0, 0)
    assert measured(tmp_path / "not-yet") == (0, 0)
