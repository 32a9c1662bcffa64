"""Makes a backup: rows first, then streams, then what lies beside them, then the manifest.

The order is what makes the parts fit together (see the package): the database's snapshot is taken
before the first stream, and a stream that is derived from another one before that one. The clock of
the simulated market comes last: it must not be behind the messages.

What is written is a directory of its own, in which everything is on the disk when `take` returns.
"""

from __future__ import annotations

import asyncio
import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, cast

import asyncpg
from msgspec import Struct, structs
from nats.aio.client import Client

from cli.backup import manifest as manifests
from cli.backup import rows, streams
from cli.backup.errors import BackupDamaged, BackupFailed
from cli.backup.manifest import MANIFEST, Manifest, Part, Run, StreamPart, TablePart
from cli.backup.progress import Progress
from deploy.nats.policy import BACKUP, inbox_prefix
from libs.common.bus.topology import PARTITIONS_META, SOURCE_META
from libs.common.clock import Clock
from libs.common.durable import sync_tree
from libs.common.errors import StoreMismatch
from libs.common.settings import StoreSource

__all__ = ["CLOCK_FILE", "Source", "take"]

CLOCK_FILE: Final = "simulator-clock.json"
_ROOT = Path(__file__).resolve().parents[2]


class Source(Struct, frozen=True, kw_only=True):
    """What is backed up: how to reach it, and which files beside the servers' belong to it.

    `store` is where below the data home it belongs, empty: the name of its source.
    """

    nats_url: str
    pg_dsn: str
    store: str = ""
    csv_sha256: str = ""
    files: Mapping[str, Path] = {}


async def take(source: Source, into: Path, clock: Clock, progress: Progress) -> Manifest:
    """Write a backup into the empty directory `into`, and say what it holds.

    Raises BackupFailed, BackupDamaged when a stream has lost messages, BusUnavailable,
    StoreUnavailable, StoreMismatch.
    """
    made_ms = clock.now_ms()
    for folder in ("rows", "streams", "files"):
        (into / folder).mkdir()
    async with streams.connected(source.nats_url, inbox_prefix(BACKUP)) as client:
        async with rows.reading(source.pg_dsn) as connection:
            postgres = await rows.server_version(connection)
            migrations = await rows.migrations(connection)
            tables = await _take_rows(connection, into, progress)
        copied = await _take_streams(client, into, progress)
        nats = streams.server_version(client)
    _take_files(source.files, into / "files")
    metadata = _metadata(copied)
    made = Manifest(
        format=manifests.FORMAT,
        name=manifests.backup_name(made_ms, metadata[SOURCE_META]),
        made_ms=made_ms,
        duration_ms=0,
        program=_program_version(),
        source=cast(StoreSource, metadata[SOURCE_META]),
        partitions=int(metadata[PARTITIONS_META]),
        store=source.store or metadata[SOURCE_META],
        csv_sha256=source.csv_sha256,
        postgres=postgres,
        nats=nats,
        migrations=migrations,
        tables=tuple(tables),
        streams=tuple(copied),
        parts=tuple(await asyncio.to_thread(_parts, into)),
    )
    return await asyncio.to_thread(_seal, made, into, clock)


def _seal(made: Manifest, into: Path, clock: Clock) -> Manifest:
    """Bring the parts to the disk, and only then write the manifest that makes them count."""
    sync_tree(into)
    sealed = structs.replace(made, duration_ms=clock.now_ms() - made.made_ms)
    (into / MANIFEST).write_bytes(manifests.encode(sealed))
    sync_tree(into)
    return sealed


async def _take_rows(
    connection: asyncpg.Connection, into: Path, progress: Progress
) -> list[TablePart]:
    found = await rows.pieces(connection)
    taken = []
    with progress.stage("rows", parts=len(found)) as stage:
        for piece in found:
            path = into / "rows" / f"{piece.name}.zst"
            taken.append(await rows.dump(connection, piece, path, stage.advance))
            stage.part_done()
    return taken


async def _take_streams(client: Client, into: Path, progress: Progress) -> list[StreamPart]:
    names = await streams.find_streams(client)
    taken = []
    with progress.stage("streams", parts=len(names)) as stage:
        for name in names:
            taken.append(await _take_stream(client, name, into, stage.advance))
            stage.part_done()
    return taken


async def _take_stream(
    client: Client, name: str, into: Path, advance: Callable[[int], None]
) -> StreamPart:
    path = f"streams/{name}.s2"
    with (into / path).open("wb") as file:

        def write(chunk: bytes) -> None:
            file.write(chunk)
            advance(len(chunk))

        state = await streams.snapshot(client, name, write)
    runs: list[Run] = []
    if streams.keeps_everything(state.config):
        runs = await streams.digest_runs(client, name, state.first_seq, state.last_seq)
        _require_whole(name, state.last_seq, runs)
    return StreamPart(
        name, state.created_ms, state.config, state.first_seq, state.last_seq, state.messages,
        state.consumers, tuple(runs), path,
    )  # fmt: skip


def _require_whole(name: str, last_seq: int, runs: list[Run]) -> None:
    """Refuse to keep a stream with holes: the server passes over what it cannot read."""
    if not runs:
        return
    whole = last_seq - runs[0].first_seq + 1
    found = sum(run.messages for run in runs)
    if found != whole:
        raise BackupDamaged(
            f"stream {name}: {whole - found} of {whole} messages cannot be read; "
            "restore the backup before"
        )


def _take_files(files: Mapping[str, Path], into: Path) -> None:
    """Copy small files; one that is not there yet is none of the backup."""
    for name, path in files.items():
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BackupFailed(f"cannot read {path}: {error.strerror}") from error
        (into / name).write_bytes(content)


def _metadata(copied: Iterable[StreamPart]) -> Mapping[str, str]:
    """Return what the streams were made for; raises StoreMismatch for streams of somebody else."""
    for stream in copied:
        metadata: dict[str, str] = stream.config.get("metadata") or {}
        if {SOURCE_META, PARTITIONS_META} <= metadata.keys():
            return metadata
    raise StoreMismatch("the nats-server has no streams of ours: nothing to back up")


def _parts(into: Path) -> list[Part]:
    found = []
    for path in sorted(path for path in into.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(Part(path.relative_to(into).as_posix(), path.stat().st_size, digest))
    return found


def _program_version() -> str:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])
