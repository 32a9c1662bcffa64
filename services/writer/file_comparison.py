"""A stream's newest file held against what the server gives out of its memory."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from pathlib import Path

from libs.common.bus import Bus
from libs.common.subjects import frame_subject
from services.writer.alarm import Alarm
from services.writer.findings import Finding
from services.writer.stream_files import Record, StreamFile

__all__ = ["FileComparison"]

# The lane of findings on a stream's files.
_FILES = -2
_BATCH_MESSAGES_MAX = 64
_BATCH_BYTES_MAX = 128 * 1024


class FileComparison:
    """Compares the newest file of one stream, a round at a time.

    A pass begins with the file as unknown and ends when all of it is known. Later rounds look at
    what is known and what is new. A record that differs makes the next round a new pass, so that
    the finding stands until the record is right.
    """

    def __init__(self, bus: Bus, alarm: Alarm, files: Path, stream: str, partitions: int) -> None:
        self._bus = bus
        self._alarm = alarm
        self._stream = stream
        self._partitions = partitions
        self._lane = (stream, _FILES)
        self._file = StreamFile(files / stream / "msgs")
        self._number = alarm.next_number(self._lane)

    async def round(self, bytes_per_s: float) -> None:
        """Look at the file once; raises OSError, BusError."""
        state = await self._bus.stream(self._stream)
        look = await asyncio.to_thread(self._file.look, state.last_seq)
        differing = await self._differing(look.records, bytes_per_s)
        for what in [*differing, *filter(None, [look.fault])]:
            facts = {"file": look.name}
            self._alarm.report(Finding("file", self._lane, what, facts), self._number)
        if differing:
            self._file.forget()
        elif not look.fault:
            if not look.complete:
                return  # the pass goes on
            self._alarm.settle(self._lane, self._number)
        self._number = self._alarm.next_number(self._lane)

    async def _differing(self, records: Sequence[Record], bytes_per_s: float) -> list[str]:
        """Name the messages that the server gives out otherwise than the file has them."""
        if not records:
            return []
        wanted = {record.seq: record.crc for record in records}
        differing = []
        for partition in range(self._partitions):
            subject = frame_subject(self._stream, partition)
            seq = records[0].seq
            while batch := await self._bus.read_many(
                self._stream, subject, start_seq=seq,
                messages_max=_BATCH_MESSAGES_MAX, bytes_max=_BATCH_BYTES_MAX,
            ):  # fmt: skip
                differing += [
                    f"message {stored.seq} differs from the server's"
                    for stored in batch
                    if stored.seq in wanted and wanted[stored.seq] != zlib.crc32(stored.data)
                ]
                seq = batch[-1].seq + 1
                if seq > records[-1].seq:
                    break
                await asyncio.sleep(sum(len(stored.data) for stored in batch) / bytes_per_s)
        return differing
