"""The newest file of a stream, read past the server: what the server cannot see while it is busy.

The nats-server keeps what it writes in memory for as long as anybody reads behind the writer, and
meanwhile never looks at its own file. A bit that flips there shows only at the next restart, when
the server cuts the stream off in front of it. So where the file is on this machine it is read too:

- what was in the file before must still be there: its checksum is kept from look to look;
- what is new must be whole records, numbered one after another, with the same payload as the
  message that the server gives out.

A file ends being the newest when the server begins the next one; from then on nobody holds it in
memory and the sweep reads it through the server.

Records (nats-server 2.10 to 2.15, no encryption, no compression): length with a flag for headers,
sequence, time, length of the subject; subject, headers with their length, payload, checksum.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["Look", "Record", "StreamFile"]

_HEAD: Final = struct.Struct("<IQQH")
_LENGTH: Final = struct.Struct("<I")
_CHECKSUM_BYTES = 8
_WITH_HEADERS = 1 << 31
# Sequences with one of these bits mark what was removed.
_MARKS = 3 << 62
_RECORD_BYTES_MAX = 1 << 20
_NEW_BYTES_MAX = 2 << 20
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """A message as the file has it: its sequence and the CRC-32 of its payload."""

    seq: int
    crc: int


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the newest file gave: its name, new records, and what is wrong, if anything.

    `complete` says that everything up to the wanted message was looked at.
    """

    name: str
    records: Sequence[Record] = ()
    fault: str = ""
    complete: bool = False


class StreamFile:
    """Looks at the newest file of one stream again and again."""

    def __init__(self, directory: Path) -> None:
        """`directory` holds the stream's `*.blk` files."""
        self._directory = directory
        self.forget()

    def forget(self) -> None:
        """Begin anew: all that is in the file counts as new."""
        self._identity = (0, 0)
        self._checked_bytes = 0
        self._crc = 0
        self._last_seq = 0
        self._ended_early = False

    def look(self, last_seq: int) -> Look:
        """Read it again, up to message `last_seq`, which must be in it; raises OSError.

        Blocks: call it on a thread.
        """
        paths = [path for path in self._directory.glob("*.blk") if path.stem.isdecimal()]
        if not paths:
            return Look("", complete=True)
        path = max(paths, key=lambda each: int(each.stem))
        with path.open("rb", buffering=0) as file:
            return self._look(path.name, file, last_seq)

    def _look(self, name: str, file: BinaryIO, last_seq: int) -> Look:
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino)
        if identity != self._identity:
            self.forget()
            self._identity = identity
        if status.st_size < self._checked_bytes:
            return Look(name, fault="is shorter than it was")
        if _crc_of(file, self._checked_bytes) != self._crc:
            return Look(name, fault="has changed where it was written before")
        data = file.read(_NEW_BYTES_MAX)
        records, used, fault = self._parse(data, last_seq)
        self._crc = zlib.crc32(data[:used], self._crc)
        self._checked_bytes += used
        complete = len(data) < _NEW_BYTES_MAX
        # A record may be on its way into the file at this moment; not at the next look as well.
        ended_early = complete and 0 < self._last_seq < last_seq
        if ended_early and self._ended_early and not records and not fault:
            fault = f"ends behind message {self._last_seq}"
        self._ended_early = ended_early
        return Look(name, records, fault, complete)

    def _parse(self, data: bytes, last_seq: int) -> tuple[list[Record], int, str]:
        """Take whole records off the front; returns them, their bytes, and what is wrong next."""
        records: list[Record] = []
        begin = 0
        while begin + _HEAD.size <= len(data):
            length, seq, _, subject_bytes = _HEAD.unpack_from(data, begin)
            with_headers, length = bool(length & _WITH_HEADERS), length & ~_WITH_HEADERS
            fault = f"holds no record behind message {self._last_seq}"
            if not _HEAD.size + _CHECKSUM_BYTES <= length <= _RECORD_BYTES_MAX:
                return records, begin, fault
            end = begin + length
            if end > len(data):
                break
            if not seq & _MARKS:
                if self._last_seq and seq != self._last_seq + 1:
                    return records, begin, fault
                if seq > last_seq:
                    break
                body = begin + _HEAD.size + subject_bytes
                if with_headers and body + _LENGTH.size <= end:
                    body += _LENGTH.size + _LENGTH.unpack_from(data, body)[0]
                if body > end - _CHECKSUM_BYTES:
                    return records, begin, fault
                records.append(Record(seq, zlib.crc32(data[body : end - _CHECKSUM_BYTES])))
                self._last_seq = seq
            begin = end
        return records, begin, ""


def _crc_of(file: BinaryIO, size: int) -> int:
    crc = 0
    while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
        crc = zlib.crc32(chunk, crc)
        size -= len(chunk)
    return crc
