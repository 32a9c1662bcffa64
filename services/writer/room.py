"""How full what the writer writes to and reads from is: streams, their disk, and the database.

Streams refuse when they are full, and a hosted database has the room that its plan has; both shall
be known long before. The writer tells, because it reads every stream that refuses, and their files
where they are on this machine. What cannot be asked at the moment keeps its last value: whoever is
away has alarms of its own.
"""

from __future__ import annotations

import shutil

from libs.common import subjects
from libs.common.bus import Bus
from libs.common.errors import BusError, StoreError
from libs.common.runner import Runtime
from services.writer.settings import Settings
from services.writer.store import Store

__all__ = ["Room"]

LOOK_EVERY_S = 15.0
# The size of a database is summed up over all of its files.
_LOOKS_PER_SIZE = 20


class Room:
    """Looks now and then, and exports what it sees."""

    def __init__(self, runtime: Runtime[Settings], bus: Bus, store: Store) -> None:
        self._bus = bus
        self._store = store
        self._log = runtime.log
        self._looks = 0
        metrics = runtime.metrics
        self._held = metrics.gauge("writer_stream_bytes", "Bytes that a stream holds", ["stream"])
        self._most = metrics.gauge(
            "writer_stream_bytes_max", "Bytes at which a stream refuses", ["stream"]
        )
        self._database = metrics.gauge("writer_database_bytes", "Size of the whole database")
        metrics.gauge("writer_database_bytes_max", "Size that its plan allows, 0: any").set(
            runtime.settings.writer_database_bytes_max
        )
        self._tables = metrics.gauge(
            "writer_table_bytes", "Size of a table with its indexes", ["table"]
        )
        self._connections = metrics.gauge(
            "writer_database_connections", "Connections that the database has, anybody's"
        )
        self._connections_max = metrics.gauge(
            "writer_database_connections_max", "Connections that it takes, 0: not known yet"
        )
        self._files_dir = runtime.settings.writer_stream_files_dir
        self._disk_free = metrics.gauge("writer_disk_free_bytes", "Free on the disk of the streams")
        self._disk = metrics.gauge("writer_disk_bytes", "Size of that disk, 0: it is not ours")

    async def look(self) -> None:
        """Ask the bus, and every few times the database."""
        try:
            for name in subjects.DURABLE_STREAMS:
                state = await self._bus.stream(name)
                self._held.labels(name).set(state.bytes_held)
                self._most.labels(name).set(state.bytes_max)
        except BusError as error:
            self._log.info("writer.room_unknown", of="streams", error=str(error))
        self._look_at_disk()
        if self._looks % _LOOKS_PER_SIZE == 0:
            await self._look_at_database()
        self._looks += 1

    def _look_at_disk(self) -> None:
        if not self._files_dir:
            return
        try:
            disk = shutil.disk_usage(self._files_dir)
        except OSError as error:
            self._log.info("writer.room_unknown", of="disk", error=str(error))
            return
        self._disk_free.set(disk.free)
        self._disk.set(disk.total)

    async def _look_at_database(self) -> None:
        try:
            self._database.set(await self._store.size_bytes())
            usage = await self._store.usage()
            for table, count_bytes in usage.table_bytes.items():
                self._tables.labels(table).set(count_bytes)
            self._connections.set(usage.connections)
            self._connections_max.set(usage.connections_max)
        except StoreError as error:
            self._looks -= 1  # ask again at the next look
            self._log.info("writer.room_unknown", of="database", error=str(error))
