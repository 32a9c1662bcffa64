"""Where backups are kept: what every place promises, and a directory as one.

- `names` lists the whole backups only, oldest first; what an interrupted one left is none.
- `put` makes a backup that is whole in a staging directory appear whole, or not at all.
- `fetch` brings parts to this machine. Who fetches checks them: a place is not trusted.
- `remove` takes a backup's manifest away first, so that half of it is never mistaken for one.

Places are named by an address: a path or `file:` URL, `s3://bucket/prefix`, `ssh://user@host/path`.
An address holds no password and no key: those come from the environment.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from cli.backup.errors import BackupDamaged, PlaceUnavailable
from cli.backup.manifest import MANIFEST, Manifest, is_backup_name
from cli.backup.settings import PlaceSettings
from libs.common.durable import sync, sync_tree
from libs.common.errors import SettingsError

__all__ = ["PARTIAL", "DirectoryPlace", "Place", "open_place"]

PARTIAL: Final = ".partial-"
Advance = Callable[[int], None]


class Place(Protocol):
    """One place; every method raises PlaceUnavailable when it cannot be reached or refuses."""

    @property
    def label(self) -> str:
        """How to call it in a sentence."""
        ...

    async def names(self) -> list[str]:
        """Return the names of the whole backups, oldest first."""
        ...

    async def manifest(self, name: str) -> bytes:
        """Return the text of a backup's manifest; raises BackupDamaged when there is none."""
        ...

    async def put(self, staged: Path, manifest: Manifest, advance: Advance) -> None:
        """Store the backup that lies in `staged`, which is taken away where that saves a copy."""
        ...

    async def fetch(self, manifest: Manifest, into: Path, advance: Advance) -> Path:
        """Return a directory with all the parts: `into`, or where they are already."""
        ...

    async def remove(self, name: str) -> None:
        """Delete one backup."""
        ...

    async def clean(self, before_ms: int) -> None:
        """Delete what backups left that were interrupted before `before_ms` (epoch)."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


async def open_place(address: str, settings: PlaceSettings) -> Place:
    """Connect to a place; raises SettingsError for an address that is none, PlaceUnavailable."""
    try:
        parts = urlsplit(address)
        secret, port = parts.password, parts.port
    except ValueError as error:
        raise SettingsError([f"{address!r} is no place for backups: {error}"]) from error
    if secret is not None:
        raise SettingsError(
            ["the address of a place for backups may hold no password: it would be seen; "
             "set KITE_BACKUP_S3_SECRET_ACCESS_KEY or KITE_BACKUP_SSH_KEY"]
        )  # fmt: skip
    if parts.scheme == "s3":
        from cli.backup.place_s3 import open_s3

        return open_s3(parts.netloc, parts.path.strip("/"), settings)
    if parts.scheme == "ssh":
        from cli.backup.place_ssh import open_ssh

        return await open_ssh(
            parts.hostname or "", port or 22, parts.username or "", unquote(parts.path), settings
        )
    if parts.scheme == "file":
        return _directory(unquote(parts.path))
    if "://" in address:
        raise SettingsError(
            [f"{parts.scheme}: is no place for backups; give a directory, s3://… or ssh://…"]
        )
    return _directory(address)


def _directory(path: str) -> DirectoryPlace:
    return DirectoryPlace(Path(path).expanduser().absolute())


class DirectoryPlace:
    """A directory of this machine, or of a disk that is mounted here."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def label(self) -> str:
        """Its path."""
        return str(self._root)

    @property
    def staging_root(self) -> Path:
        """Where a backup that is meant for here is best made: a rename then stores it."""
        return self._root

    async def names(self) -> list[str]:
        """Return the whole backups, oldest first."""
        return await asyncio.to_thread(self._names)

    def _names(self) -> list[str]:
        try:
            return sorted(
                path.name
                for path in self._root.iterdir()
                if is_backup_name(path.name) and (path / MANIFEST).is_file()
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PlaceUnavailable(f"{self._root} cannot be read: {error.strerror}") from error

    async def manifest(self, name: str) -> bytes:
        """Read a manifest."""
        try:
            return await asyncio.to_thread((self._root / name / MANIFEST).read_bytes)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BackupDamaged(f"there is no backup {name} in {self._root}") from error
        except OSError as error:
            raise PlaceUnavailable(f"{self._root} cannot be read: {error.strerror}") from error

    async def put(self, staged: Path, manifest: Manifest, advance: Advance) -> None:
        """Rename, or copy from another disk beside the place and rename."""
        await asyncio.to_thread(self._put, staged, manifest)
        advance(manifest.size_bytes)

    def _put(self, staged: Path, manifest: Manifest) -> None:
        try:
            (staged / MANIFEST).stat()  # without it, it would never be found again
            self._root.mkdir(parents=True, exist_ok=True)
            if staged.parent != self._root:
                copied = self._root / f"{PARTIAL}{manifest.name}"
                shutil.rmtree(copied, ignore_errors=True)
                shutil.copytree(staged, copied)
                sync_tree(copied)
                staged = copied
            staged.rename(self._root / manifest.name)
            sync(self._root)
        except OSError as error:
            raise PlaceUnavailable(f"{self._root} takes no backup: {error.strerror}") from error

    async def fetch(self, manifest: Manifest, into: Path, advance: Advance) -> Path:
        """Nothing is to be fetched: the parts are here."""
        advance(manifest.size_bytes)
        return self._root / manifest.name

    async def remove(self, name: str) -> None:
        """Delete one backup."""
        await asyncio.to_thread(self._remove, name)

    def _remove(self, name: str) -> None:
        doomed = self._root / f"{PARTIAL}{name}"
        try:
            (self._root / name).rename(doomed)
            sync(self._root)
            shutil.rmtree(doomed)
        except OSError as error:
            raise PlaceUnavailable(f"{self._root / name} stays: {error.strerror}") from error

    async def clean(self, before_ms: int) -> None:
        """Delete what has no name yet and is old."""
        await asyncio.to_thread(self._clean, before_ms)

    def _clean(self, before_ms: int) -> None:
        try:
            for path in self._root.glob(f"{PARTIAL}*"):
                if path.stat().st_mtime * 1000 < before_ms:
                    shutil.rmtree(path)
        except OSError as error:
            raise PlaceUnavailable(f"{error.filename} stays: {error.strerror}") from error

    async def close(self) -> None:
        """There is nothing to let go of."""
