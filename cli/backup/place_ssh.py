"""A directory of another machine, over ssh: its SFTP subsystem is all that is needed there.

The host must be known: its key is given or stands in `known_hosts`, or nothing is sent. We log in
by key only. A backup goes up under a name that does not count and is renamed when all of it is
there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final

import asyncssh

from cli.backup.errors import BackupDamaged, PlaceUnavailable
from cli.backup.manifest import MANIFEST, Manifest, is_backup_name, made_ms_of
from cli.backup.place import PARTIAL, Advance
from cli.backup.settings import PlaceSettings
from libs.common.errors import SettingsError

__all__ = ["SshPlace", "open_ssh"]

_CONNECT_WAIT_S: Final = 20
_KEEPALIVE_S = 15
_CHUNK_BYTES = 32 * 1024
_KEY_KINDS = ("ssh-", "ecdsa-", "sk-")


async def open_ssh(host: str, port: int, user: str, path: str, settings: PlaceSettings) -> SshPlace:
    """Log in; raises SettingsError for an address or key that is none, PlaceUnavailable."""
    if not host or not path.strip("/"):
        raise SettingsError(["an ssh place is ssh://USER@HOST:PORT/PATH: host or path is missing"])
    options: dict[str, Any] = {
        "port": port,
        "config": None,
        "connect_timeout": _CONNECT_WAIT_S,
        "login_timeout": _CONNECT_WAIT_S,
        "keepalive_interval": _KEEPALIVE_S,
        "preferred_auth": "publickey",
    }
    if user:
        options["username"] = user
    if settings.backup_ssh_host_key:
        options["known_hosts"] = (_host_keys(settings.backup_ssh_host_key), [], [])
    if settings.backup_ssh_key:
        try:
            options["client_keys"] = [asyncssh.import_private_key(settings.backup_ssh_key + "\n")]
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            # Without the library's words, which may hold a piece of it.
            raise SettingsError(
                ["KITE_BACKUP_SSH_KEY: not a private key without a passphrase"]
            ) from error
    label = f"ssh://{host}:{port}{path}"
    try:
        connection = await asyncssh.connect(host, **options)
        sftp = await connection.start_sftp_client()
    except asyncssh.HostKeyNotVerifiable as error:
        raise PlaceUnavailable(
            f"{label}: the host's key is not the known one, or none is known: compare it and add "
            "it to ~/.ssh/known_hosts, or set KITE_BACKUP_SSH_HOST_KEY to what "
            f"`ssh-keyscan -p {port} {host}` prints"
        ) from error
    except (OSError, TimeoutError, asyncssh.Error) as error:
        raise PlaceUnavailable(f"{label} cannot be reached: {_reason(error)}") from error
    return SshPlace(connection, sftp, PurePosixPath(path), label)


def _host_keys(text: str) -> list[asyncssh.SSHKey]:
    """Read public keys, a line each, with or without the host in front of them."""
    keys = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        found = words[-2:] if len(words) == 3 and not words[0].startswith(_KEY_KINDS) else words
        try:
            keys.append(asyncssh.import_public_key(" ".join(found)))
        except asyncssh.KeyImportError as error:
            raise SettingsError(
                [f"KITE_BACKUP_SSH_HOST_KEY: not a public key as ssh-keyscan prints it: {error}"]
            ) from error
    return keys


class SshPlace:
    """One directory there."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        sftp: asyncssh.SFTPClient,
        root: PurePosixPath,
        label: str,
    ) -> None:
        self._connection = connection
        self._sftp = sftp
        self._root = root
        self.label = label

    async def names(self) -> list[str]:
        """Return the whole backups, oldest first."""
        async with self._explained("cannot be listed"):
            return [
                name
                for name in await self._entries()
                if is_backup_name(name)
                and await self._sftp.isfile(str(self._root / name / MANIFEST))
            ]

    async def _entries(self) -> list[str]:
        try:
            return sorted(str(name) for name in await self._sftp.listdir(str(self._root)))
        except asyncssh.SFTPNoSuchFile:
            return []

    async def manifest(self, name: str) -> bytes:
        """Read a manifest."""
        async with self._explained(f"holds no readable backup {name}"):
            try:
                async with self._sftp.open(str(self._root / name / MANIFEST), "rb") as file:
                    text: Any = await file.read()  # bytes, as it was opened for
                    return bytes(text)
            except asyncssh.SFTPNoSuchFile as error:
                raise BackupDamaged(f"there is no backup {name} in {self.label}") from error

    async def put(self, staged: Path, manifest: Manifest, advance: Advance) -> None:
        """Upload beside the place, bring to the disk where the server can, and rename."""
        partial = self._root / f"{PARTIAL}{manifest.name}"
        async with self._explained("takes no backup"):
            await self._remove_tree(partial)
            for folder in ("rows", "streams", "files"):
                await self._sftp.makedirs(str(partial / folder), exist_ok=True)
            for part in manifest.parts:
                await self._upload(staged / part.path, partial / part.path, advance)
            await self._upload(staged / MANIFEST, partial / MANIFEST, lambda _: None)
            await self._sftp.posix_rename(str(partial), str(self._root / manifest.name))

    async def _upload(self, source: Path, target: PurePosixPath, advance: Advance) -> None:
        await self._sftp.put(str(source), str(target), block_size=_CHUNK_BYTES)
        async with self._sftp.open(str(target), "rb+") as file:
            try:
                await file.fsync()
            except asyncssh.SFTPOpUnsupported:  # then it is as durable as the server makes it
                advance(0)
        advance((await asyncio.to_thread(source.stat)).st_size)

    async def fetch(self, manifest: Manifest, into: Path, advance: Advance) -> Path:
        """Download the parts below `into`."""
        async with self._explained(f"does not give backup {manifest.name}"):
            for part in manifest.parts:
                target = into / part.path
                await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
                try:
                    await self._sftp.get(str(self._root / manifest.name / part.path), str(target))
                except asyncssh.SFTPNoSuchFile as error:
                    raise BackupDamaged(
                        f"backup {manifest.name}: {part.path} is missing; use another backup"
                    ) from error
                advance(part.size_bytes)
        return into

    async def remove(self, name: str) -> None:
        """Delete one backup, its name first."""
        doomed = self._root / f"{PARTIAL}{name}"
        async with self._explained(f"keeps {name}"):
            await self._sftp.posix_rename(str(self._root / name), str(doomed))
            await self._remove_tree(doomed)

    async def clean(self, before_ms: int) -> None:
        """Delete what has no name yet and is old."""
        async with self._explained("keeps what interrupted backups left"):
            for name in await self._entries():
                made = name.removeprefix(PARTIAL)
                if made != name and is_backup_name(made) and made_ms_of(made) < before_ms:
                    await self._remove_tree(self._root / name)

    async def _remove_tree(self, path: PurePosixPath) -> None:
        if await self._sftp.isdir(str(path)):
            await self._sftp.rmtree(str(path))

    async def close(self) -> None:
        """Log out."""
        self._sftp.exit()
        self._connection.close()
        await self._connection.wait_closed()

    @asynccontextmanager
    async def _explained(self, what: str) -> AsyncIterator[None]:
        try:
            yield
        except (OSError, asyncssh.Error) as error:
            raise PlaceUnavailable(f"{self.label} {what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
