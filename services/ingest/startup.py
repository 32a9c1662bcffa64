"""What must be there before ingest may speak: its directory and what is in it, the positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libs.common.bus import Bus, StreamState
from libs.common.errors import BusUnavailable, SettingsError
from libs.common.runner import Backoff, Runtime
from services.ingest.checkpoints import load_positions
from services.ingest.pass_book import PassBook
from services.ingest.positions import Position
from services.ingest.settings import Settings
from services.ingest.spool import Spool

__all__ = ["load", "open_book", "open_spool"]


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


@contextmanager
def open_book(data_dir: Path, runtime: Runtime[Settings]) -> Iterator[PassBook]:
    """Open what remembers requests while the context lasts; raises SettingsError."""

    def tell(error: OSError) -> None:
        runtime.log.error("requests.not_remembered", reason=error.strerror)

    per_minute_max = runtime.settings.ingest_requests_per_minute_max
    try:
        book = PassBook(data_dir / "requests", runtime.clock, per_minute_max, tell)
    except OSError as error:
        raise SettingsError(
            [f"KITE_INGEST_DATA_DIR: {data_dir} cannot hold a file: {error.strerror}"]
        ) from None
    try:
        yield book
    finally:
        book.close()


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
