"""What a backup consists of: the manifest, and how parts are checked against it.

    <name>/manifest.json          written last: without it there is no backup
    <name>/rows/<table>.zst       one table, or one partition of it, as COPY text
    <name>/streams/<STREAM>.s2    one stream with its consumers, as the nats-server gives it
    <name>/files/<file>           small files that the store needs besides

`manifest.json` is `{"sha256": …, "manifest": {…}}`, where the digest is that of the inner object's
bytes as they stand in the file. It holds size and SHA-256 of every part, and digests of what is in
them: those of the rows are taken over the text, before compression, in the order of the key.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from cli.backup.errors import BackupDamaged
from libs.common.settings import StoreSource

__all__ = [
    "FORMAT",
    "MANIFEST",
    "Manifest",
    "MigrationMark",
    "Part",
    "Run",
    "StreamPart",
    "TablePart",
    "backup_name",
    "check_parts",
    "decode",
    "encode",
    "is_backup_name",
    "made_ms_of",
]

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_CHUNK_BYTES = 1 << 20
_NAME = re.compile(r"(\d{8}T\d{6}Z)-(demo|csv|schwab)")


class Part(Struct, frozen=True):
    """One file of a backup, by its path inside of it."""

    path: str
    size_bytes: int
    sha256: str


class TablePart(Struct, frozen=True):
    """Rows of one table, or of one partition: `partition` is its name, empty for a whole table."""

    table: str
    partition: str
    columns: tuple[str, ...]
    rows: int
    text_bytes: int
    text_sha256: str
    path: str


class Run(Struct, frozen=True):
    """Messages of a stream one after another, and the digest of what they hold.

    `oldest_ms` is when the first of them was stored: as streams age, it is the first to go.
    """

    first_seq: int
    last_seq: int
    messages: int
    oldest_ms: int
    sha256: str


class StreamPart(Struct, frozen=True):
    """One stream as it was when its copy began; what came while it was copied may be in it, too.

    `created_ms` is what positions in it refer to. `runs` is empty for streams that make room for
    new messages by themselves: of those nobody can say later what they held.
    """

    name: str
    created_ms: int
    config: dict[str, Any]
    first_seq: int
    last_seq: int
    messages: int
    consumers: int
    runs: tuple[Run, ...]
    path: str


class MigrationMark(Struct, frozen=True):
    """A migration that the database had."""

    version: str
    name: str
    checksum: str


class Manifest(Struct, frozen=True, kw_only=True):
    """Everything there is to know of a backup without opening its parts; times in epoch ms."""

    format: int
    name: str
    made_ms: int
    duration_ms: int
    program: str
    source: StoreSource
    partitions: int
    store: str
    csv_sha256: str
    postgres: str
    nats: str
    migrations: tuple[MigrationMark, ...]
    tables: tuple[TablePart, ...]
    streams: tuple[StreamPart, ...]
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        """What the parts take."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(table.rows for table in self.tables)

    @property
    def messages(self) -> int:
        """How many messages the streams hold."""
        return sum(stream.messages for stream in self.streams)

    @property
    def digest(self) -> str:
        """One digest for everything that was read: rows and messages."""
        whole = hashlib.sha256()
        for table in self.tables:
            whole.update(f"{table.table} {table.partition} {table.text_sha256}\n".encode())
        for stream in self.streams:
            for run in stream.runs:
                whole.update(f"{stream.name} {run.first_seq} {run.sha256}\n".encode())
        return whole.hexdigest()


class _Envelope(Struct):
    sha256: str
    manifest: msgspec.Raw


class _Version(Struct):
    format: int


def backup_name(made_ms: int, source: str) -> str:
    """Name a backup such that names sort by time: `20261123T211500Z-demo`."""
    return f"{dt.datetime.fromtimestamp(made_ms / 1000, dt.UTC):%Y%m%dT%H%M%SZ}-{source}"


def is_backup_name(name: str) -> bool:
    """Tell whether `backup_name` could have made this; anything else is none of our business."""
    return _NAME.fullmatch(name) is not None


def made_ms_of(name: str) -> int:
    """Return when a backup of this name was made, in whole seconds of epoch milliseconds."""
    return round(dt.datetime.fromisoformat(name.partition("-")[0]).timestamp() * 1000)


def encode(manifest: Manifest) -> bytes:
    """Return the text of `manifest.json`."""
    inner = msgspec.json.encode(manifest)
    envelope = _Envelope(hashlib.sha256(inner).hexdigest(), msgspec.Raw(inner))
    return msgspec.json.encode(envelope) + b"\n"


def decode(name: str, text: bytes) -> Manifest:
    """Read a `manifest.json`; raises BackupDamaged when it is not what was written."""
    try:
        envelope = msgspec.json.decode(text, type=_Envelope)
        inner = bytes(envelope.manifest)
        if hashlib.sha256(inner).hexdigest() != envelope.sha256:
            raise BackupDamaged(f"backup {name}: its manifest is damaged; use another backup")
        version = msgspec.json.decode(inner, type=_Version).format
        if version != FORMAT:
            raise BackupDamaged(
                f"backup {name} is of format {version}, this program reads {FORMAT}: "
                "use the version of the program that made it"
            )
        manifest = msgspec.json.decode(inner, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackupDamaged(
            f"backup {name}: its manifest cannot be read; use another backup"
        ) from error
    if manifest.name != name:
        raise BackupDamaged(f"what is called backup {name} is backup {manifest.name}")
    for part in manifest.parts:
        if part.path.startswith("/") or ".." in Path(part.path).parts:
            raise BackupDamaged(f"backup {name}: {part.path!r} is no path inside of it")
    return manifest


def check_parts(
    root: Path, manifest: Manifest, advance: Callable[[int], None] = lambda _: None
) -> None:
    """Compare size and digest of every part below `root`; raises BackupDamaged naming the first."""
    for part in manifest.parts:
        _check(root / part.path, part, manifest.name, advance)


def _check(path: Path, part: Part, name: str, advance: Callable[[int], None]) -> None:
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != part.size_bytes:
            raise BackupDamaged(
                f"backup {name}: {part.path} has {path.stat().st_size} bytes instead of "
                f"{part.size_bytes}; use another backup"
            )
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                advance(len(chunk))
    except FileNotFoundError as error:
        raise BackupDamaged(f"backup {name}: {part.path} is missing; use another backup") from error
    except OSError as error:
        raise BackupDamaged(
            f"backup {name}: {part.path} cannot be read: {error.strerror}"
        ) from error
    if digest.hexdigest() != part.sha256:
        raise BackupDamaged(
            f"backup {name}: {part.path} is not what was written; use another backup"
        )
