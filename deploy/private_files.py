"""Files with secrets: replaced whole, durably, and readable by one account only.

What fails because of disk or rights fails as `ServerError`, in one line that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from libs.common.durable import sync
from libs.common.errors import ServerError

__all__ = ["Account", "explain_os_errors", "write_private"]


@dataclass(frozen=True)
class Account:
    """The account a server runs under."""

    name: str
    uid: int
    gid: int


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write below `path` into a ServerError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ServerError(
                f"no space left on the disk of {path}: free some and retry"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise ServerError(
                f"cannot write to {error.filename or path} ({error.strerror}): "
                "set KITE_HOME to a directory that you own"
            ) from error
        raise ServerError(f"cannot use {path}: {error}") from error


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Replace `path` atomically and durably by `text`, readable by its owner alone."""
    with explain_os_errors(path.parent):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        staged = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                if account is not None:
                    os.fchown(file.fileno(), account.uid, account.gid)
                os.fsync(file.fileno())
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        sync(path.parent)
