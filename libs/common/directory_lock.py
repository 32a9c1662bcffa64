"""One process at a time has a service's directory.

The lock is the kernel's and ends with the process, however that ends; the file stays.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libs.common.errors import EXIT_REFUSED, KiteError, SettingsError
from libs.common.token_file import private_folder

__all__ = ["AlreadyRunning", "locked"]


class AlreadyRunning(KiteError):
    """Another process of the same service uses the directory."""

    exit_code = EXIT_REFUSED


@contextmanager
def locked(directory: Path, *, service: str, harm: str) -> Iterator[None]:
    """Make `directory` ours alone and hold it while the context lasts.

    Raises AlreadyRunning, which tells the `harm` that two would do, or SettingsError when the
    directory cannot be used; it is named as the setting `KITE_<SERVICE>_DATA_DIR`.
    """
    path = directory / f"{service}.lock"
    try:
        private_folder(directory)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(
            [f"KITE_{service.upper()}_DATA_DIR: {directory} is not writable: {error.strerror}"]
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise AlreadyRunning(
            f"another {service} holds {path}; {harm}: stop the other one first"
        ) from None
    try:
        yield
    finally:
        os.close(lock)
