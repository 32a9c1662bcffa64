"""What MARKET holds of a partition, and whether that is ours.

Ingest has no input stream to take its position from. Its frames carry (epoch, n) instead, and the
last stored one of each partition says where the next one goes, and settles every doubt.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from libs.common import codec, subjects
from libs.common.bus import Bus
from libs.common.errors import EXIT_REFUSED, KiteError, PositionError
from services.ingest.spool import Record

__all__ = ["Position", "Stored", "TakenOver", "judge", "stored_frame"]


class TakenOver(KiteError):
    """Another ingest publishes to this store; two Schwab sessions would evict each other."""

    exit_code = EXIT_REFUSED


class Position(Struct):
    """The last stored frame of a partition: its number, its epoch, its sequence in MARKET."""

    n: int = 0
    epoch: int = 0
    seq: int = 0


class Stored(Struct, frozen=True):
    """The last stored frame of a partition, with its bytes."""

    position: Position
    data: bytes


async def stored_frame(bus: Bus, partition: int) -> Stored | None:
    """Read a partition's last frame; None when there is none. Raises BusUnavailable."""
    subject = subjects.frame_subject(subjects.MARKET, partition)
    stored = await bus.last(subjects.MARKET, subject)
    if stored is None:
        return None
    frame = codec.decode_frame(stored.data)
    return Stored(Position(frame.n, frame.epoch, stored.seq), stored.data)


def judge(
    partition: int, known: Position, stored: Stored, pending: Iterable[Record], epoch: int
) -> None:
    """Accept what is stored if it is what we know, or one of the frames that we still hold.

    Raises TakenOver when another ingest wrote it, PositionError when it cannot be explained.
    """
    found = stored.position
    if found.epoch > epoch:
        raise TakenOver(
            f"another ingest (epoch {found.epoch}) publishes to this store; this one (epoch "
            f"{epoch}) stops: run one ingest only"
        )
    if found.n == known.n:
        return
    for record in pending:
        if record.partition == partition and record.n == found.n:
            if record.data == stored.data:
                return
            raise TakenOver(
                f"market.{partition} holds another ingest's frame {found.n}: run one ingest only"
            )
    raise PositionError(
        f"market.{partition} ends at frame {found.n}, and the last one known is {known.n}: the "
        "stream was restored from another time; start with an empty store, or restore it again"
    )
