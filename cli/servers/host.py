"""What the local servers need of the operating system: an account, directories, ports, space.

Everything that fails here fails as `ServerError`, in one line that says what to do about it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import random
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from deploy.private_files import Account, explain_os_errors
from libs.common.errors import ServerError

__all__ = [
    "LOOPBACK",
    "book_port",
    "choose_port",
    "claim_port",
    "make_directory",
    "make_home",
    "processes_named",
    "require_free_space",
    "reserve_port",
    "server_account",
]

LOOPBACK = "127.0.0.1"

# An account of our own is better than `nobody`, which other programs use too; we do not create one.
_UNPRIVILEGED_NAMES = ("alphakite", "nobody")

# Below every usual range of ephemeral ports, so that no outgoing connection of this machine takes a
# server's port while the server restarts.
_PORT_RANGE = range(20_000, 32_000)
_PORT_ATTEMPTS = 200


def server_account() -> Account | None:
    """Return the unprivileged account to switch to when we are root, else None (stay ourselves)."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED_NAMES:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "Postgres does not run as root, and there is no account 'nobody' to run it under: "
        "create one named 'alphakite', or start as an ordinary user"
    )


def make_home(home: Path, account: Account | None) -> None:
    """Create the data home, and see to it that `account` can reach what lies in it.

    The home itself holds no secret in the open: every file with one is readable by its owner only.
    """
    with explain_os_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        if account is None:
            if not os.access(home, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(home))
            return
        home.chmod(stat.S_IMODE(home.stat().st_mode) | 0o011)
    for directory in home.resolve().parents:
        if not _may_enter(directory, account):
            raise ServerError(
                f"the servers run as '{account.name}', who may not enter {directory}: "
                "set KITE_HOME to another directory, for example /var/lib/alphakite"
            )


def _may_enter(directory: Path, account: Account) -> bool:
    status = directory.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def make_directory(path: Path, account: Account | None, mode: int = 0o700) -> None:
    """Create `path` with `mode`, owned by `account` (None: by us)."""
    with explain_os_errors(path):
        path.mkdir(exist_ok=True)
        path.chmod(mode)
        if account is not None:
            os.chown(path, account.uid, account.gid)


def require_free_space(path: Path, needed_bytes: int) -> None:
    """Raise ServerError when the disk that holds `path` has less than `needed_bytes` left."""
    with explain_os_errors(path):
        free_bytes = shutil.disk_usage(path).free
    if free_bytes < needed_bytes:
        raise ServerError(
            f"only {free_bytes >> 20} MiB left on the disk of {path}, at least "
            f"{needed_bytes >> 20} MiB are needed: free some or set KITE_HOME to another disk"
        )


def choose_port() -> int:
    """Return a loopback port on which nobody listens now, and which nobody has reserved."""
    picker = random.SystemRandom()
    for _ in range(_PORT_ATTEMPTS):
        port = picker.choice(_PORT_RANGE)
        if (reservation := reserve_port(port)) is not None:
            reservation.close()
            return port
    raise ServerError(f"no free port found between {_PORT_RANGE.start} and {_PORT_RANGE.stop}")


def reserve_port(port: int) -> socket.socket | None:
    """Keep a loopback port from other programs that look for a free one, until closed.

    None if it is not free. Whoever it was chosen for may listen on it meanwhile: Linux lets a
    socket with SO_REUSEADDR bind beside one that has the option, too, and does not listen. Bound
    first and given the option afterwards, the reservation is refused to all that come without it.
    Elsewhere the port is only looked at.
    """
    reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        reservation.bind((LOOPBACK, port))
    except OSError:
        reservation.close()
        return None
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform != "linux":
        reservation.close()
    return reservation


def book_port(port: int) -> socket.socket | None:
    """Keep a loopback port from other stacks of ours until closed; None if one has booked it.

    For a port that may have lingering connections, which no reservation can be bound beside: the
    booking is a name in Linux's abstract namespace, which is as wide as the loopback's ports are
    and free again when its process ends. Elsewhere it is only looked at.
    """
    booking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if sys.platform == "linux":
        try:
            booking.bind(f"\0alpha-kite-max/port/{port}")
        except OSError:
            booking.close()
            return None
    return booking


def claim_port(port: int, server: str) -> int:
    """Return `port` if it is free on loopback, any free one for 0; raises ServerError."""
    if port == 0:
        return choose_port()
    if not _is_free(port):
        raise ServerError(
            f"port {port} for {server} is taken by another program: stop that or choose another"
        )
    return port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do themselves: connections that still linger from before do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def processes_named(name: str) -> Iterator[psutil.Process]:
    """Yield the live processes whose program is called `name`."""
    for process in psutil.process_iter(["name", "status"]):
        if process.info["name"] == name and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process
