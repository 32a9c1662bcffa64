"""Puts a backup back: into a new store of a data home, or into empty servers that run elsewhere.

A store is made beside its place, by servers of its own, compared with the backup, and then renamed:
whatever happens on the way, the home has the whole store or none, and the next try begins anew.

Servers that run already take the streams first and the rows last, in one transaction. A restore
that breaks off leaves a mark in the database, by which the next one may clear away what it left.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from cli.backup import rows, scratch, streams
from cli.backup.errors import BackupDamaged, NotEmpty
from cli.backup.manifest import Manifest, MigrationMark, Run, StreamPart
from cli.backup.progress import Progress
from cli.backup.streams import StreamState
from cli.home import Home, Store, StoreIdentity
from deploy.nats.policy import ADMIN, inbox_prefix
from deploy.private_files import explain_os_errors, write_private
from deploy.supabase import migrate
from libs.common.clock import Clock
from libs.common.durable import sync
from libs.common.errors import StoreMismatch

__all__ = ["into_home", "into_servers", "require_free", "try_out"]

_CHUNK_BYTES: Final = 256 * 1024


async def into_home(
    home: Home, root: Path, manifest: Manifest, clock: Clock, progress: Progress
) -> Path:
    """Make a store of the checked backup below `root`; return where it is.

    The caller holds the home's lock. Raises NotEmpty when there is such a store already.
    """
    require_free(home, manifest)
    store = Store(home.root / manifest.store)
    staged = store.root.with_name(f".{store.root.name}.restoring")
    with explain_os_errors(home.root):
        staged.parent.mkdir(parents=True, exist_ok=True)
        _clear(staged, home.runtime)
    await _build(staged, home, root, manifest, clock, progress)
    with explain_os_errors(home.root):
        staged.rename(store.root)
        sync(store.root.parent)
    return store.root


def require_free(home: Home, manifest: Manifest) -> None:
    """Raise NotEmpty when the home has a store where the backup's belongs."""
    root = home.root / manifest.store
    if root.exists():
        raise NotEmpty(f"{root} is there already: name another --home, or move it away first")


async def try_out(
    home: Home, root: Path, manifest: Manifest, clock: Clock, progress: Progress
) -> None:
    """Restore the checked backup below `root` into servers for the purpose, and throw it away.

    The caller holds a lock, so that one of these runs in a home at a time.
    """
    staged = home.root / ".verifying"
    try:
        _clear(staged, home.runtime)
        await _build(staged, home, root, manifest, clock, progress)
    finally:
        with explain_os_errors(home.root):
            _clear(staged, home.runtime)


def _clear(staged: Path, runtime: Path) -> None:
    """Remove what an earlier run left, after its servers have ended."""
    if staged.exists():
        scratch.stop_leftovers(staged, runtime)
        shutil.rmtree(staged)


async def _build(
    staged: Path, home: Home, root: Path, manifest: Manifest, clock: Clock, progress: Progress
) -> None:
    """Make the store `staged` of a backup, compare the two, and stop its servers."""
    _require_known(manifest)
    Store(staged).claim(StoreIdentity(manifest.source, manifest.partitions, manifest.csv_sha256))
    logs = home.logs
    async with (
        scratch.servers(staged, home.runtime, manifest.partitions, logs) as (nats, postgres),
        streams.connected(nats.url(ADMIN), inbox_prefix(ADMIN)) as client,
    ):
        await _restore_streams(client, root, manifest, progress)
        await _apply(postgres.dsn(), manifest.migrations)
        await _restore_rows(postgres.dsn(), root, manifest, progress)
        await _compare(client, postgres.dsn(), manifest, clock, progress)
        await migrate.migrate(postgres.dsn())
    for path in sorted((root / "files").glob("*")):
        write_private(staged / path.name, path.read_text(encoding="utf-8"))


async def into_servers(
    nats_url: str, dsn: str, root: Path, manifest: Manifest, clock: Clock, progress: Progress
) -> None:
    """Restore the checked backup below `root` into servers that run and hold nothing.

    `nats_url` is the administrator's, `dsn` the owner's. Raises NotEmpty when they hold anything
    but what a restore of this very backup left behind.
    """
    _require_known(manifest)
    async with streams.connected(nats_url, inbox_prefix(ADMIN)) as client:
        resumed = await rows.restoring(dsn) == manifest.name
        await _require_empty(client, dsn, resumed=resumed)
        await _apply(dsn, manifest.migrations)
        await rows.mark_restoring(dsn, manifest.name)
        for name in await streams.find_streams(client):
            await streams.delete(client, name)
        await _restore_streams(client, root, manifest, progress)
        await _restore_rows(dsn, root, manifest, progress)
        await _compare(client, dsn, manifest, clock, progress)
        await migrate.migrate(dsn)


async def _require_empty(client: Client, dsn: str, *, resumed: bool) -> None:
    table = await rows.first_filled(dsn)
    if table:
        raise NotEmpty(
            f"the database holds rows in {table}: restore into an empty one, or remove them first"
        )
    if resumed:
        return
    for name in await streams.find_streams(client):
        state = await streams.stream_state(client, name)
        if state is not None and state.last_seq > 0:
            raise NotEmpty(
                f"the nats-server holds messages in {name}: restore into an empty one, or delete "
                "its streams first"
            )


def _require_known(manifest: Manifest) -> None:
    """Raise StoreMismatch when the backup is of a schema that this program cannot make."""
    known = {step.version: step.checksum for step in migrate.read()}
    for mark in manifest.migrations:
        if known.get(mark.version) != mark.checksum:
            raise StoreMismatch(
                f"backup {manifest.name} has migration {mark.version}_{mark.name}, which this "
                "version does not have: use the version of the program that made it, or a newer one"
            )


async def _apply(dsn: str, marks: Sequence[MigrationMark]) -> None:
    """Bring an empty database to the schema of the backup, even where newer migrations exist."""
    wanted = {mark.version for mark in marks}
    there = await rows.applied(dsn)
    if there - wanted:
        raise StoreMismatch(
            "the database has a newer schema than the backup: restore into one without any schema, "
            "which is then brought up to date"
        )
    with tempfile.TemporaryDirectory(prefix="kite-migrations-") as name:
        for path in sorted(migrate.MIGRATIONS.glob("*.sql")):
            if path.name.partition("_")[0] in wanted:
                shutil.copy(path, name)
        await migrate.migrate(dsn, directory=Path(name))


# -- the two halves --------------------------------------------------------------------------------


async def _restore_streams(
    client: Client, root: Path, manifest: Manifest, progress: Progress
) -> None:
    """Make the streams, in the order in which they were copied backwards: sources first."""
    sizes = {part.path: part.size_bytes for part in manifest.parts}
    total_bytes = sum(sizes[stream.path] for stream in manifest.streams)
    with progress.stage("streams", total_bytes=total_bytes) as stage:
        for part in reversed(manifest.streams):
            archive = _chunks(root / part.path)
            await streams.restore(client, part.name, _as_state(part), archive, stage.advance)


async def _restore_rows(dsn: str, root: Path, manifest: Manifest, progress: Progress) -> None:
    total_bytes = sum(table.text_bytes for table in manifest.tables)
    with progress.stage("rows", total_bytes=total_bytes) as stage:
        await rows.load(dsn, root, manifest.tables, stage.advance)


async def _compare(
    client: Client, dsn: str, manifest: Manifest, clock: Clock, progress: Progress
) -> None:
    """Read everything again; raises BackupDamaged at the first difference."""
    total_bytes = sum(table.text_bytes for table in manifest.tables)
    with progress.stage("compare", total_bytes=total_bytes) as stage:
        await rows.compare(dsn, manifest.tables, stage.advance)
        for part in manifest.streams:
            await _compare_stream(client, part, clock)


async def _compare_stream(client: Client, part: StreamPart, clock: Clock) -> None:
    state = await streams.stream_state(client, part.name)
    if state is None or state.created_ms != part.created_ms or state.consumers < part.consumers:
        raise BackupDamaged(f"stream {part.name} was not restored as it was")
    if state.last_seq < part.last_seq:
        raise BackupDamaged(
            f"stream {part.name} ends at {state.last_seq} instead of {part.last_seq}"
        )
    for run in part.runs:
        found = await streams.digest_runs(client, part.name, run.first_seq, run.last_seq)
        if [_content(run)] != [_content(each) for each in found] and not _aged(part, run, clock):
            raise BackupDamaged(
                f"stream {part.name}: messages {run.first_seq} to {run.last_seq} are not those of "
                "the backup"
            )


def _content(run: Run) -> tuple[int, int, int, str]:
    return (run.first_seq, run.last_seq, run.messages, run.sha256)


def _aged(part: StreamPart, run: Run, clock: Clock) -> bool:
    """Tell whether messages of a run may be gone because of their age: streams go on aging."""
    age_ms_max = int(part.config.get("max_age", 0)) // 1_000_000
    return 0 < age_ms_max <= clock.now_ms() - run.oldest_ms


def _as_state(part: StreamPart) -> StreamState:
    return StreamState(
        part.created_ms, part.config, part.first_seq, part.last_seq, part.messages, part.consumers
    )


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
