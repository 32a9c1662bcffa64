"""Ingest's memory across restarts: a checkpoint per partition, and its own frames since.

`load_positions` says where to go on; `recall` then rebuilds the core from checkpoint and frames.
`Checkpoints.run` writes one whenever a partition has moved and everything offered is stored, so
that a snapshot never claims more than the stream holds. A checkpoint that cannot be written is left
out: the next one, or the frames themselves, make up for it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct

from libs.common import codec, failpoints, subjects
from libs.common.bus import Bus, StreamState
from libs.common.errors import BusError, PositionError
from libs.common.events import SCHEMA_VERSION, Checkpoint
from services.ingest.core import Core
from services.ingest.positions import Position, stored_frame
from services.ingest.publisher import Publisher

__all__ = ["Checkpoints", "Recalled", "load_positions", "recall"]

_EVERY_S = 5.0
_POLL_S = 0.1


async def load_positions(bus: Bus, partitions: int) -> tuple[StreamState, dict[int, Position]]:
    """Return MARKET's state and where each partition stands.

    Raises BusUnavailable, or PositionError when a checkpoint does not fit the stream.
    """
    stream = await bus.stream(subjects.MARKET)
    positions = {}
    for partition in range(partitions):
        checkpoint, _ = await _checkpoint(bus, partition)
        if checkpoint is not None:
            _judge(checkpoint, stream, partition)
        stored = await stored_frame(bus, partition)
        if stored is not None:
            positions[partition] = stored.position
        elif checkpoint is not None:
            # The frames have aged out, their numbers go on.
            positions[partition] = Position(n=checkpoint.source_n)
        else:
            positions[partition] = Position()
    return stream, positions


class Recalled(Struct):
    """How much was taken up again; `holes` counts partitions whose frames had aged out meanwhile.

    A hole does no harm to keys: what it held is older than anything that may come.
    """

    frames: int = 0
    holes: int = 0


async def recall(bus: Bus, core: Core, partitions: int) -> Recalled:
    """Rebuild the core from checkpoints and the frames since.

    Raises BusUnavailable or SchemaError.
    """
    recalled = Recalled()
    for partition in range(partitions):
        checkpoint, _ = await _checkpoint(bus, partition)
        seq = n = 0
        if checkpoint is not None:
            seq, n = checkpoint.source_seq, checkpoint.source_n
            core.restore(checkpoint.state)
        subject = subjects.frame_subject(subjects.MARKET, partition)
        while (stored := await bus.read(subjects.MARKET, subject, start_seq=seq + 1)) is not None:
            frame = codec.decode_frame(stored.data)
            recalled.holes += frame.n != n + 1
            recalled.frames += 1
            seq, n = stored.seq, frame.n
            for event in frame.events:
                core.replay(event)
    return recalled


class Checkpoints:
    """Writes the core's state, one message per partition."""

    def __init__(
        self, bus: Bus, core: Core, publisher: Publisher, stream: StreamState, log: Any
    ) -> None:
        self._bus = bus
        self._core = core
        self._publisher = publisher
        self._created_ms = stream.created_ms
        self._log = log
        self._saved_n: dict[int, int] = {}
        self._seqs: dict[int, int] = {}

    async def run(self) -> None:
        """Write until cancelled."""
        loop = asyncio.get_running_loop()
        next_s = 0.0
        while True:
            await asyncio.sleep(_POLL_S)
            if loop.time() >= next_s and self._publisher.idle:
                next_s = loop.time() + _EVERY_S
                await self.save()

    async def save(self) -> None:
        """Write the state of every partition that has moved, if the bus lets us."""
        for partition in range(self._publisher.partitions):
            place = self._publisher.position(partition)
            if self._saved_n.get(partition) == place.n or not self._publisher.idle:
                continue
            try:
                await self._save(partition, place)
            except BusError as error:
                self._seqs.pop(partition, None)
                self._log.info("checkpoint.skipped", partition=partition, error=str(error))
                return

    async def _save(self, partition: int, place: Position) -> None:
        n = place.n
        state = self._core.snapshot(partition, self._publisher.partitions, place.epoch)
        checkpoint = Checkpoint(
            SCHEMA_VERSION, self._created_ms, self._created_ms, place.seq, n, n, state
        )
        data = codec.encode_checkpoint(checkpoint)
        if partition not in self._seqs:
            _, self._seqs[partition] = await _checkpoint(self._bus, partition)
        failpoints.reach("ingest.checkpoint.before")
        self._seqs[partition] = await self._bus.publish(
            subjects.checkpoint_subject("ingest", partition),
            data,
            expected_last_seq=self._seqs[partition],
        )
        self._saved_n[partition] = n


async def _checkpoint(bus: Bus, partition: int) -> tuple[Checkpoint | None, int]:
    """Return a partition's checkpoint and its sequence, (None, 0) when there is none."""
    stored = await bus.last(subjects.STATE, subjects.checkpoint_subject("ingest", partition))
    if stored is None:
        return None, 0
    return codec.decode_checkpoint(stored.data), stored.seq


def _judge(checkpoint: Checkpoint, stream: StreamState, partition: int) -> None:
    place = f"ingest partition {partition}"
    if checkpoint.source_created_ms != stream.created_ms:
        raise PositionError(
            f"{place}: stream {stream.name} was made anew at {stream.created_ms} ms, but the "
            f"checkpoint is older ({checkpoint.source_created_ms} ms); start with an empty store"
        )
    if checkpoint.source_seq > stream.last_seq:
        raise PositionError(
            f"{place}: the checkpoint stands at {checkpoint.source_seq}, but {stream.name} ends at "
            f"{stream.last_seq}: the stream has lost its tail; restore both from one backup"
        )
