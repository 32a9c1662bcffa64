"""What can be asked for: make a backup and store it, list, check, restore, delete the old ones.

`./kite db` and the backup service call these; neither prints anything here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from cli.backup import manifest as manifests
from cli.backup import restore, retention
from cli.backup.errors import BackupFailed
from cli.backup.manifest import Manifest
from cli.backup.place import PARTIAL, DirectoryPlace, Place
from cli.backup.progress import Progress
from cli.backup.take import Source, take
from cli.home import Home
from libs.common.clock import Clock
from libs.common.errors import SettingsError

__all__ = ["back_up", "check", "checked", "find", "newest", "prune", "restore_home", "try_restore"]

# A backup that takes longer is none that anybody waits for.
_LEFT_FOR_MS = 86_400_000


async def back_up(
    source: Source, place: Place, staging: Path, clock: Clock, progress: Progress
) -> Manifest:
    """Make a backup and store it in `place`; return its manifest.

    `staging` is where it lies meanwhile, unless the place itself is a directory of this machine.
    Raises KiteError; then the place holds nothing that counts.
    """
    await place.clean(clock.now_ms() - _LEFT_FOR_MS)
    root = place.staging_root if isinstance(place, DirectoryPlace) else staging
    with _temporary(root) as staged:
        made = await take(source, staged, clock, progress)
        if made.name in await place.names():
            raise BackupFailed(f"there is a backup {made.name} already: wait a second")
        with progress.stage("store", total_bytes=made.size_bytes) as stage:
            await place.put(staged, made, stage.advance)
    return made


@contextmanager
def _temporary(root: Path) -> Iterator[Path]:
    """Yield a directory below `root`, for our account alone, that is gone or renamed afterwards."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        outer = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=root))
    except OSError as error:
        raise BackupFailed(f"cannot write to {root}: {error.strerror}") from error
    try:
        yield outer
    except OSError as error:
        raise BackupFailed(f"cannot write to {root}: {error.strerror}") from error
    finally:
        shutil.rmtree(outer, ignore_errors=True)


async def find(place: Place, name: str = "") -> Manifest:
    """Return the manifest of a backup, of the newest whole one if none is named."""
    chosen = name or await newest(place)
    return manifests.decode(chosen, await place.manifest(chosen))


async def newest(place: Place) -> str:
    """Return the name of the newest backup; raises BackupFailed when there is none."""
    names = await place.names()
    if not names:
        raise BackupFailed(f"there is no backup in {place.label}")
    return names[-1]


@asynccontextmanager
async def checked(
    place: Place, name: str, staging: Path, progress: Progress
) -> AsyncIterator[tuple[Path, Manifest]]:
    """Yield a backup's directory on this machine and its manifest, every byte of it checked.

    Raises BackupDamaged before anything else is done with it.
    """
    made = await find(place, name)
    with _temporary(staging) as fetched:
        with progress.stage("fetch", total_bytes=made.size_bytes) as stage:
            root = await place.fetch(made, fetched, stage.advance)
        with progress.stage("check", total_bytes=made.size_bytes) as stage:
            await asyncio.to_thread(manifests.check_parts, root, made, stage.advance)
        yield root, made


async def check(place: Place, name: str, staging: Path, progress: Progress) -> Manifest:
    """Check a backup's bytes and return its manifest."""
    async with checked(place, name, staging, progress) as (_, made):
        return made


async def try_restore(
    place: Place, name: str, home: Home, clock: Clock, progress: Progress
) -> Manifest:
    """Check a backup, and restore it into servers of its own which are thrown away."""
    home.prepare()
    with _only_one(home):
        async with checked(place, name, home.root, progress) as (root, made):
            await restore.try_out(home, root, made, clock, progress)
            return made


@contextmanager
def _only_one(home: Home) -> Iterator[None]:
    """Refuse a second trial in one home."""
    descriptor = os.open(home.run / "verify.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BackupFailed(f"a backup is being tried in {home.root} already") from error
    finally:
        os.close(descriptor)


async def restore_home(
    place: Place, name: str, home: Home, clock: Clock, progress: Progress
) -> tuple[Path, Manifest]:
    """Make a new store of a backup; return where it is. Raises NotEmpty, SettingsError."""
    home.prepare()
    lock = home.lock()
    if lock is None:
        raise SettingsError(
            [f"the stack runs on {home.root}: ./kite down stops it, --home DIR names another place"]
        )
    try:
        restore.require_free(home, await find(place, name))
        async with checked(place, name, home.root, progress) as (root, made):
            return await restore.into_home(home, root, made, clock, progress), made
    finally:
        os.close(lock)


async def prune(place: Place, policy: retention.Policy) -> Sequence[str]:
    """Delete what the policy does not keep; return the names. Damaged ones are deleted alike."""
    doomed = retention.doomed(await place.names(), policy)
    for name in doomed:
        await place.remove(name)
    return doomed
