"""What must be there before ingest may speak: its directory, its spool, the positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libs.common.bus import Bus, StreamState
from libs.common.errors import BusUnavailable, SettingsError
from libs.common.runner import Backoff, Runtime
from services.ingest.checkpoints import load_positions
from services.ingest.positions import Position
from services.ingest.settings import Settings
from services.ingest.spool import Spool

__all__ = ["load", "open_spool"]


@contextmanager
def open_spool(data_dir: Path, stream_created_ms: int, bytes_max: int) -> Iterator[Spool]:
    """Open the spool while the context lasts; raises SettingsError when the disk refuses."""
    try:
        spool = Spool(data_dir / "spool", stream_created_ms, bytes_max)
    except OSError as error:
        raise SettingsError(
            [f"KITE_INGEST_DATA_DIR: the spool in {data_dir} cannot be used: {error.strerror}"]
        ) from None
    try:
        yield spool
    finally:
        spool.close()


async def load(
    runtime: Runtime[Settings], bus: Bus
) -> tuple[StreamState, dict[int, Position]] | None:
    """Read the positions as soon as the bus answers; None when stopped before."""
    backoff = Backoff()
    while not runtime.stop.is_set():
        try:
            return await load_positions(bus, runtime.settings.partitions)
        except BusUnavailable as error:
            runtime.log.warning("ingest.load_waits", error=str(error))
            await backoff.pause(runtime.stop)
    return None
