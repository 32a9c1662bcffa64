"""The account's token on disk: sealed, for us alone, never torn, never overwritten by junk.

- A refresh that fails with an unusual answer makes the library hand over that answer as the new
  token. Writing therefore checks first; what is no token raises TokenInvalid.
- What lies there and cannot be trusted (torn, readable by others, another account's, sealed by
  another key) raises TokenUnsafe and is not replaced: a person decides.
- The file is sealed, replaced atomically and durably, mode 0600, in a folder of mode 0700. One in
  the open, as schwab-py writes it, is read; the next write seals it.
- Who renews or replaces the token holds the lock, so that there is one at a time, over all
  processes.

No error shows any content.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from libs.common.durable import sync
from libs.common.errors import KiteError
from libs.common.sealing import (
    Damaged,
    Key,
    KeyInvalid,
    WrongKey,
    is_sealed,
    kept_key,
    open_sealed,
    seal,
)

__all__ = [
    "LOGIN_LIFE_S",
    "TokenBusy",
    "TokenFile",
    "TokenInvalid",
    "TokenMissing",
    "TokenUnsafe",
    "private_folder",
]

# Schwab ends a login after so long, whatever is done with it.
LOGIN_LIFE_S: Final = 7 * 86_400

_TOKEN_BYTES_MAX = 1 << 20
_LOCK_WAIT_S = 60.0
_LOCK_POLL_S = 0.05
_OTHERS = 0o077


class TokenInvalid(KiteError):
    """There is no usable token; a new login mends it."""


class TokenMissing(TokenInvalid):
    """There is no token at all."""


class TokenUnsafe(TokenInvalid):
    """What is there cannot be trusted, and is not replaced before a person has looked at it."""


class TokenBusy(KiteError):
    """Another process has held the lock for too long."""


class TokenFile:
    """`{"creation_timestamp": seconds, "token": {...}}` at a path, sealed.

    `key` is the key's text; empty means that it is kept beside the file, and made on first use.
    """

    def __init__(self, path: Path, key: str = "") -> None:
        self.path = path
        self.key = key

    @property
    def key_file(self) -> Path:
        """Where the key is if none was given."""
        return self.path.with_suffix(".key")

    def read(self) -> dict[str, Any]:
        """Return the wrapped token; raises TokenMissing, TokenUnsafe or TokenInvalid."""
        content = self._text()
        try:
            if is_sealed(content):
                content = open_sealed(self._key(make=False), content)
        except WrongKey as error:
            raise TokenUnsafe(
                f"{self.path}: {error}; give back that key (KITE_SCHWAB_TOKEN_KEY or "
                f"KITE_SCHWAB_TOKEN_KEY_FILE), or {self._aside()}"
            ) from None
        except Damaged as error:
            raise TokenUnsafe(f"{self.path}: damaged, {error}; {self._aside()}") from None
        try:
            return _checked(msgspec.json.decode(content))
        except (msgspec.DecodeError, UnicodeDecodeError, _NoToken):
            raise TokenUnsafe(
                f"{self.path}: no token with its creation time; {self._aside()}"
            ) from None

    @property
    def sealed(self) -> bool:
        """Whether it lies there sealed; raises TokenMissing or TokenUnsafe."""
        return is_sealed(self._text())

    def is_newer_than(self, creation_timestamp_s: float) -> bool:
        """Whether the file holds a usable token of a login after this one."""
        try:
            return float(self.read()["creation_timestamp"]) > creation_timestamp_s
        except TokenInvalid:
            return False

    def require_replaceable(self) -> None:
        """Raise TokenUnsafe if a new token could not be written for what is there."""
        try:
            self.read()
        except TokenMissing:
            self._require_private_folder()
        self._key()

    def write(self, wrapped: object, *_args: object, **_kwargs: object) -> None:
        """Replace the token durably; raises TokenInvalid or OSError and keeps the old one."""
        try:
            content = msgspec.json.encode(_checked(wrapped))
        except _NoToken:
            raise TokenInvalid(
                f"{self.path}: what came is no token with its creation time; nothing was changed"
            ) from None
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.require_replaceable()
        sealed = seal(self._key(), content)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        staged = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:  # mkstemp gives mode 0600
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self.path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        sync(self.path.parent)

    # -- one at a time --

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who renews or replaces the token; raises TokenBusy or TokenUnsafe."""
        descriptor = self._lock_file()
        try:
            end_s = time.monotonic() + _LOCK_WAIT_S
            while not _try_lock(descriptor):
                self._require_patience(end_s)
                time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Do the same without blocking the loop."""
        descriptor = self._lock_file()
        try:
            end_s = time.monotonic() + _LOCK_WAIT_S
            while not _try_lock(descriptor):
                self._require_patience(end_s)
                await asyncio.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def _lock_file(self) -> int:
        path = self.path.parent / f".{self.path.name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise TokenUnsafe(f"{path}: {error.strerror}; the folder must be ours") from None

    def _require_patience(self, end_s: float) -> None:
        if time.monotonic() >= end_s:
            raise TokenBusy(
                f"{self.path}: another process has been renewing the token for {_LOCK_WAIT_S:g} s; "
                "look at ingest's log, and try again"
            )

    # -- what is trusted --

    def _text(self) -> bytes:
        try:
            # Whatever is there, opening it shall not wait.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                self._require_private_folder()
                self._require_private(os.fstat(file.fileno()))
                return file.read(_TOKEN_BYTES_MAX)
        except FileNotFoundError:
            raise TokenMissing(
                f"KITE_SCHWAB_TOKEN_FILE: {self.path}: there is no token; log in to make it"
            ) from None
        except OSError as error:
            raise TokenUnsafe(
                f"KITE_SCHWAB_TOKEN_FILE: {self.path}: {error.strerror}; {self._aside()}"
            ) from None

    def _require_private(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise TokenUnsafe(f"{self.path}: is no file; {self._aside()}")
        if found.st_uid != os.geteuid():
            raise TokenUnsafe(
                f"{self.path}: belongs to another account (uid {found.st_uid}, ours is "
                f"{os.geteuid()}); run as that one, or {self._aside()}"
            )
        if found.st_mode & _OTHERS:
            raise TokenUnsafe(
                f"{self.path}: others may read it (mode {stat.S_IMODE(found.st_mode):04o}); if "
                f"nobody else has been on this machine: chmod 600 {self.path}; else {self._aside()}"
            )

    def _require_private_folder(self) -> None:
        folder = self.path.parent
        try:
            found = folder.stat()
        except FileNotFoundError:
            return  # it will be made as it should be
        if found.st_uid != os.geteuid():
            raise TokenUnsafe(
                f"{folder}: the token's folder belongs to another account (uid {found.st_uid}, "
                f"ours is {os.geteuid()}); run as that one, or choose a folder of ours"
            )
        if found.st_mode & _OTHERS:
            raise TokenUnsafe(
                f"{folder}: the token's folder is open to others (mode "
                f"{stat.S_IMODE(found.st_mode):04o}); chmod 700 {folder}, or give the token a "
                "folder of its own"
            )

    def _key(self, *, make: bool = True) -> Key:
        try:
            if self.key:
                return Key.parse(self.key)
            return kept_key(self.key_file, make=make)
        except KeyInvalid as error:
            where = "KITE_SCHWAB_TOKEN_KEY: " if self.key else ""
            raise TokenUnsafe(f"{where}{error}") from None
        except OSError as error:
            raise TokenUnsafe(
                f"{self.key_file}: the token's key: {error.strerror}; put it back"
            ) from None

    def _aside(self) -> str:
        return f"put it aside (mv {self.path} {self.path}.bad) and log in again"


def private_folder(path: Path) -> None:
    """Make a folder that is ours alone, or make one of ours so; raises OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if stat.S_IMODE(path.stat().st_mode) & _OTHERS:
        path.chmod(0o700)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _NoToken(Exception):
    """It does not look like a token."""


def _checked(wrapped: object) -> dict[str, Any]:
    if isinstance(wrapped, dict) and _is_number(wrapped.get("creation_timestamp")):
        token = wrapped.get("token")
        if isinstance(token, dict) and _is_token(token):
            return wrapped
    raise _NoToken


def _is_token(token: dict[str, Any]) -> bool:
    texts = all(
        isinstance(token.get(name), str) and token[name]
        for name in ("access_token", "refresh_token")
    )
    return texts and _is_number(token.get("expires_at"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
