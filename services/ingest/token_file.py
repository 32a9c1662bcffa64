"""The account's token on disk, in schwab-py's format, never torn and never overwritten by junk.

A refresh that fails with an unusual answer makes the library hand over that answer as the new
token. Writing therefore checks first; what is no token raises TokenInvalid, and the last good one
stays. Files are replaced atomically, readable by their owner only. No error shows any content.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from libs.common.durable import sync
from libs.common.errors import KiteError

__all__ = ["TokenFile", "TokenInvalid"]

_TOKEN_BYTES_MAX = 1 << 20


class TokenInvalid(KiteError):
    """There is no usable token; a new login mends it."""


class TokenFile:
    """`{"creation_timestamp": seconds, "token": {...}}` at a path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        """Return the wrapped token; raises TokenInvalid when it is missing or not usable."""
        try:
            with self._path.open("rb") as file:
                content = msgspec.json.decode(file.read(_TOKEN_BYTES_MAX))
        except OSError as error:
            raise TokenInvalid(
                f"KITE_SCHWAB_TOKEN_FILE: {self._path}: {error.strerror}; log in to make it"
            ) from None
        except msgspec.DecodeError:
            raise TokenInvalid(f"{self._path}: no JSON; log in to make it anew") from None
        return self._checked(content)

    def is_newer_than(self, creation_timestamp_s: float) -> bool:
        """Whether the file holds a usable token of a login after this one."""
        try:
            return float(self.read()["creation_timestamp"]) > creation_timestamp_s
        except TokenInvalid:
            return False

    def write(self, wrapped: object, *_args: object, **_kwargs: object) -> None:
        """Replace the token durably; raises TokenInvalid or OSError and keeps the old one."""
        content = msgspec.json.encode(self._checked(wrapped))
        fd, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(fd, "wb") as file:  # mkstemp gives mode 0600
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(self._path.parent)

    def _checked(self, wrapped: object) -> dict[str, Any]:
        if isinstance(wrapped, dict) and isinstance(wrapped.get("creation_timestamp"), int | float):
            token = wrapped.get("token")
            if isinstance(token, dict) and _is_token(token):
                return wrapped
        raise TokenInvalid(f"{self._path}: not a token with its creation time; log in again")


def _is_token(token: dict[str, Any]) -> bool:
    texts = all(
        isinstance(token.get(name), str) and token[name]
        for name in ("access_token", "refresh_token")
    )
    expires_at = token.get("expires_at")
    return texts and isinstance(expires_at, int | float) and not isinstance(expires_at, bool)
