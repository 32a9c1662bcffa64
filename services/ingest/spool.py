"""Frames that wait on disk for the bus: one file, appended, drained from the front, bounded.

What it promises:

- `append` takes all of its records or none (SpoolFull, or OSError of the disk), and after it a
  kill -9 loses nothing. `sync` makes them outlive a power cut; the owner calls it in groups.
- Every record carries a checksum. Opening a file keeps the records before the first damaged one
  and cuts off the rest, `cut_bytes` of it: a torn tail is normal after a power cut, and what it
  held is found missing and listed as a gap by the numbers of the frames.
- The file belongs to one stream's incarnation; that of another store is kept under another name
  (`set_aside`) and never sent.

Layout: a header (magic, stream's creation time, checksum), then records of a fixed head (checksum,
length, partition, epoch, n) and the encoded frame. All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from libs.common import failpoints
from libs.common.durable import sync
from libs.common.errors import KiteError

__all__ = ["Record", "Spool", "SpoolDamaged", "SpoolFull"]

_MAGIC = b"KITESPL1"
_HEADER = struct.Struct("<8sQI")
_HEAD = struct.Struct("<IIHQQ")
_RECORD_BYTES_MAX = 1 << 20
FILE_MODE = 0o600


class SpoolFull(Exception):
    """There is no room for these records."""


class SpoolDamaged(KiteError):
    """A record that was written and checked cannot be read back: the disk is failing."""


class Record(Struct, frozen=True):
    """One encoded frame and its place in its partition."""

    partition: int
    epoch: int
    n: int
    data: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes in the file."""
        return _HEAD.size + len(self.data)


class Spool:
    """The open file; one process, one thread at a time except for `sync`."""

    def __init__(self, path: Path, stream_created_ms: int, bytes_max: int) -> None:
        """Open or create it; raises OSError when the directory does not allow that."""
        self._path = path
        self._created_ms = stream_created_ms
        self._bytes_max = bytes_max
        self._head = self._tail = _HEADER.size
        self.cut_bytes = 0
        self.set_aside: Path | None = None
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            self._open()
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def empty(self) -> bool:
        """Whether everything that was appended has been released."""
        return self._head >= self._tail

    @property
    def used_bytes(self) -> int:
        """What waits to be sent."""
        return self._tail - self._head

    def append(self, records: Iterable[Record]) -> None:
        """Write records at the end; raises SpoolFull or OSError, and then nothing is kept."""
        encoded = [_encode(record) for record in records]
        data = b"".join(encoded)
        if self._tail + len(data) > self._bytes_max:
            raise SpoolFull
        if encoded and failpoints.is_armed("ingest.spool.append.torn"):
            self._tear(data[: len(data) - len(encoded[-1]) // 2])
        try:
            written = os.pwrite(self._fd, data, self._tail)
            if written != len(data):
                raise OSError(28, "no space left for the spool")
        except OSError:
            os.ftruncate(self._fd, self._tail)
            raise
        self._tail += len(data)
        failpoints.reach("ingest.spool.appended")

    def all(self) -> Iterator[Record]:
        """Go through everything that waits, from the front; raises SpoolDamaged."""
        at = self._head
        while at < self._tail:
            for record in self._read(at, _RECORD_BYTES_MAX):
                at += record.size
                yield record

    def peek(self, bytes_max: int) -> list[Record]:
        """Return the first records, at least one if there is any; raises SpoolDamaged."""
        return self._read(self._head, bytes_max)

    def release(self, records: Iterable[Record]) -> None:
        """Forget the first records, as `peek` gave them; an empty file is cut short."""
        self._head += sum(record.size for record in records)
        if self.empty:
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._fd, _HEADER.size)
        self._head = self._tail = _HEADER.size

    def put_aside(self) -> None:
        """Keep the file under another name, for whoever wants to look, and begin an empty one."""
        self.set_aside = self._path.with_suffix(".set-aside")
        self._path.rename(self.set_aside)
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        self._begin()

    def sync(self) -> None:
        """Bring all that was appended to the disk; may run in another thread; raises OSError."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._fd)

    def _tear(self, data: bytes) -> None:
        """Die while writing: this much is in the file, and its last record is incomplete."""
        os.pwrite(self._fd, data, self._tail)
        self.sync()
        failpoints.reach("ingest.spool.append.torn")

    def _open(self) -> None:
        size = os.fstat(self._fd).st_size
        header = os.pread(self._fd, _HEADER.size, 0)
        if header == _header(self._created_ms):
            self._scan(size)
        elif size > _HEADER.size:
            self.put_aside()
        else:
            self._begin()  # new, or torn before anything was in it

    def _begin(self) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, _header(self._created_ms), 0)
        os.fsync(self._fd)
        sync(self._path.parent)
        self._head = self._tail = _HEADER.size

    def _read(self, at: int, bytes_max: int) -> list[Record]:
        chunk = os.pread(self._fd, min(max(bytes_max, _RECORD_BYTES_MAX), self._tail - at), at)
        records: list[Record] = []
        offset = 0
        while offset < len(chunk) and offset < bytes_max:
            record = _decode(chunk, offset)
            if record is None:
                if records:
                    break
                raise SpoolDamaged(f"{self._path}: unreadable at byte {at + offset}")
            records.append(record)
            offset += record.size
        return records

    def _scan(self, size: int) -> None:
        """Find the end of the undamaged records and cut off what follows."""
        while self._tail < size:
            chunk = os.pread(self._fd, _RECORD_BYTES_MAX, self._tail)
            offset = 0
            while (record := _decode(chunk, offset)) is not None:
                offset += record.size
            if offset == 0:
                break
            self._tail += offset
        self.cut_bytes = size - self._tail
        if self.cut_bytes:
            os.ftruncate(self._fd, self._tail)


def _encode(record: Record) -> bytes:
    body = _HEAD.pack(0, len(record.data), record.partition, record.epoch, record.n)[4:]
    body += record.data
    return zlib.crc32(body).to_bytes(4, "little") + body


def _decode(chunk: bytes, offset: int) -> Record | None:
    """Return the record at `offset`, None when it is incomplete or damaged."""
    if offset + _HEAD.size > len(chunk):
        return None
    checksum, length, partition, epoch, n = _HEAD.unpack_from(chunk, offset)
    end = offset + _HEAD.size + length
    if end > len(chunk) or zlib.crc32(chunk[offset + 4 : end]) != checksum:
        return None
    return Record(partition, epoch, n, chunk[offset + _HEAD.size : end])


def _header(stream_created_ms: int) -> bytes:
    body = _MAGIC + stream_created_ms.to_bytes(8, "little")
    return body + zlib.crc32(body).to_bytes(4, "little")
