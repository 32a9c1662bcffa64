"""S3, and what speaks its language, as a place for backups.

There is no rename there, so the manifest is the last object to be written and the first to go: who
lists backups lists manifests. An object appears when its upload is complete, and S3 answers later
reads with it; large parts go up in pieces. Uploads that were broken off leave pieces that no list
shows: give the bucket a rule that ends incomplete uploads after a day.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from cli.backup.errors import BackupDamaged, PlaceUnavailable
from cli.backup.manifest import MANIFEST, Manifest, is_backup_name, made_ms_of
from cli.backup.place import Advance
from cli.backup.settings import PlaceSettings
from libs.common.errors import SettingsError

__all__ = ["S3Place", "open_s3"]

_CHUNK_BYTES: Final = 8 << 20
_UPLOADS_AT_ONCE = 4
_MANIFEST_BYTES_MAX = 64 << 20
_RETRY_WAIT_S = 60
_REQUEST_WAIT_S = 120


def open_s3(bucket: str, prefix: str, settings: PlaceSettings) -> S3Place:
    """Return the place; nothing is asked of it yet. Raises SettingsError when a key lacks."""
    problems = []
    if not bucket:
        problems.append("an S3 place is s3://BUCKET/PREFIX: the bucket is missing")
    for name, value in (
        ("KITE_BACKUP_S3_ACCESS_KEY_ID", settings.backup_s3_access_key_id),
        ("KITE_BACKUP_S3_SECRET_ACCESS_KEY", settings.backup_s3_secret_access_key),
    ):
        if not value:
            problems.append(f"{name}: not set, and no file named by {name}_FILE; S3 needs it")
    if problems:
        raise SettingsError(problems)
    endpoint = settings.backup_s3_endpoint_url
    try:
        store = S3Store(
            bucket,
            prefix=prefix or None,
            region=settings.backup_s3_region,
            access_key_id=settings.backup_s3_access_key_id,
            secret_access_key=settings.backup_s3_secret_access_key,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "timeout": timedelta(seconds=_REQUEST_WAIT_S),
            },
            retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=_RETRY_WAIT_S)},
            endpoint=endpoint or None,
        )
    except (BaseError, ValueError) as error:
        raise SettingsError([f"KITE_BACKUP_S3_ENDPOINT_URL: {_reason(error)}"]) from error
    return S3Place(store, f"s3://{bucket}/{prefix}".rstrip("/"))


class S3Place:
    """One prefix of one bucket."""

    def __init__(self, store: S3Store, label: str) -> None:
        self._store = store
        self.label = label

    async def names(self) -> list[str]:
        """Return the backups whose manifest is there, oldest first."""
        return sorted(
            name
            for name, paths in (await self._paths()).items()
            if is_backup_name(name) and f"{name}/{MANIFEST}" in paths
        )

    async def _paths(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        async with self._explained("cannot be listed"):
            async for page in obstore.list(self._store):
                for entry in page:
                    path = str(entry["path"])
                    found.setdefault(path.partition("/")[0], []).append(path)
        return found

    async def manifest(self, name: str) -> bytes:
        """Read a manifest."""
        async with self._explained(f"holds no readable backup {name}"):
            try:
                answer = await obstore.get_async(self._store, f"{name}/{MANIFEST}")
            except FileNotFoundError as error:
                raise BackupDamaged(f"there is no backup {name} in {self.label}") from error
            if answer.meta["size"] > _MANIFEST_BYTES_MAX:
                raise BackupDamaged(f"backup {name}: its manifest is no manifest")
            return bytes(await answer.bytes_async())

    async def put(self, staged: Path, manifest: Manifest, advance: Advance) -> None:
        """Upload the parts, then the manifest."""
        async with self._explained("takes no backup"):
            for part in manifest.parts:
                await self._upload(staged, manifest.name, part.path)
                advance(part.size_bytes)
            await self._upload(staged, manifest.name, MANIFEST)

    async def _upload(self, staged: Path, name: str, path: str) -> None:
        await obstore.put_async(
            self._store, f"{name}/{path}", staged / path,
            chunk_size=_CHUNK_BYTES, max_concurrency=_UPLOADS_AT_ONCE,
        )  # fmt: skip

    async def fetch(self, manifest: Manifest, into: Path, advance: Advance) -> Path:
        """Download the parts below `into`."""
        for part in manifest.parts:
            target = into / part.path
            async with self._explained(f"does not give {part.path}"):
                try:
                    answer = await obstore.get_async(self._store, f"{manifest.name}/{part.path}")
                except FileNotFoundError as error:
                    raise BackupDamaged(
                        f"backup {manifest.name}: {part.path} is missing; use another backup"
                    ) from error
                await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
                await _save(answer.stream(min_chunk_size=1 << 20), target, advance)
        return into

    async def remove(self, name: str) -> None:
        """Delete one backup, its manifest first."""
        await self._delete((await self._paths()).get(name, []))

    async def clean(self, before_ms: int) -> None:
        """Delete old parts without a manifest."""
        for name, paths in (await self._paths()).items():
            whole = not is_backup_name(name) or f"{name}/{MANIFEST}" in paths
            if not whole and made_ms_of(name) < before_ms:
                await self._delete(paths)

    async def _delete(self, paths: list[str]) -> None:
        async with self._explained("deletes nothing"):
            for path in sorted(paths, key=lambda path: not path.endswith(f"/{MANIFEST}")):
                await obstore.delete_async(self._store, path)

    async def close(self) -> None:
        """There is nothing to let go of."""

    @asynccontextmanager
    async def _explained(self, what: str) -> AsyncIterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise PlaceUnavailable(f"{self.label} {what}: {_reason(error)}") from error


async def _save(chunks: AsyncIterator[bytes], target: Path, advance: Advance) -> None:
    with await asyncio.to_thread(target.open, "wb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)
            advance(len(chunk))


def _reason(error: Exception) -> str:
    """Return the first line of what the library says; it names paths and status, no keys."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
