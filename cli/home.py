"""The data home: where everything on disk is, who may use it, whose store it is.

    <home>/run/      lock, state.json, control socket, one file per live process
    <home>/logs/     one log per process, rotated
    <home>/runtime/  copies of server programs, where they are needed
    <home>/demo/ <home>/schwab/ <home>/csv/<file>/
                     one store per source: streams, database, passwords, tokens, spool

Promises: at most one `up` per home (a lock that the system releases however its holder ends); a
store is used only by the source that made it; files with secrets are readable by their owner only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cli.servers.host import make_home, server_account
from deploy.private_files import explain_os_errors, write_private
from libs.common.errors import SettingsError
from libs.common.settings import StoreSource

__all__ = ["CHECKOUT", "Home", "Store", "StoreIdentity", "default_home", "not_ours"]

CHECKOUT = Path(__file__).resolve().parent.parent
_ROOT_HOME = Path("/var/lib/alphakite")
_STORE_VERSION = 1
# A Unix socket's path holds 104 bytes on macOS, 108 on Linux, with its final zero.
_SOCKET_PATH_BYTES_MAX = 103
_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_S = 0.03


def default_home(environ: Mapping[str, str]) -> Path:
    """Return the data home when none is named.

    `KITE_HOME`; for root the system's place; else inside the checkout, or the user's own place when
    the checkout is not theirs to write to.
    """
    if environ.get("KITE_HOME"):
        return Path(environ["KITE_HOME"])
    if os.geteuid() == 0:
        return _ROOT_HOME
    if os.access(CHECKOUT, os.W_OK):
        return CHECKOUT / ".kite"
    return Path(environ.get("HOME", "/nonexistent")) / ".local" / "share" / "alphakite"


def not_ours(root: Path) -> SettingsError:
    """Return the refusal of a data home that we may not look into."""
    return SettingsError([f"{root} belongs to another user: run this as that user, or pass --home"])


class StoreIdentity(msgspec.Struct, frozen=True):
    """What a store was made for; kept in its `store.json`."""

    source: StoreSource
    partitions: int
    csv_sha256: str = ""
    version: int = _STORE_VERSION


@dataclass(frozen=True)
class Home:
    """The paths below one data home."""

    root: Path

    @property
    def run(self) -> Path:
        """What concerns the stack that runs now."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Where each process's log is."""
        return self.root / "logs"

    @property
    def runtime(self) -> Path:
        """Where server programs are copied to."""
        return self.root / "runtime"

    @property
    def lock_file(self) -> Path:
        """Held by the running `up`."""
        return self.run / "lock"

    @property
    def state_file(self) -> Path:
        """What `status` reads."""
        return self.run / "state.json"

    @property
    def socket_file(self) -> Path:
        """Where the running `up` takes orders; somewhere short when the home's path is long."""
        path = self.run.absolute() / "control.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
            return path
        name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        return Path(base) / f"kite-{os.geteuid()}-{name}" / "control.sock"

    def prepare(self) -> None:
        """Create the directories; raises ServerError when that cannot be done."""
        account = server_account()
        make_home(self.root, account)
        with explain_os_errors(self.root):
            for directory, mode in ((self.run, 0o700), (self.logs, 0o700), (self.runtime, 0o755)):
                directory.mkdir(exist_ok=True)
                directory.chmod(mode)
            (self.run / "pids").mkdir(exist_ok=True)

    def lock(self) -> int | None:
        """Take the home for this process; return what holds it, or None when it is taken."""
        with explain_os_errors(self.lock_file):
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        if not _try_lock(descriptor):
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor

    def is_locked(self) -> bool:
        """Tell whether an `up` runs on this home; raises SettingsError when it is not ours."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError as error:
            raise not_ours(self.root) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def lock_holder(self) -> int | None:
        """Return the process id that the lock's holder wrote down."""
        try:
            return int(self.lock_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None


def _try_lock(descriptor: int) -> bool:
    """Lock for this process; a moment's patience, because `status` locks to find out, too."""
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


@dataclass(frozen=True)
class Store:
    """One source's data."""

    root: Path

    @property
    def identity_file(self) -> Path:
        """Says what the store was made for."""
        return self.root / "store.json"

    def clear(self) -> None:
        """Delete everything in the store."""
        with explain_os_errors(self.root):
            if self.root.exists():
                shutil.rmtree(self.root)

    def identity(self) -> StoreIdentity | None:
        """Return what the store was made for, None for one that is not there yet.

        Raises SettingsError when its description cannot be read.
        """
        try:
            return msgspec.json.decode(self.identity_file.read_bytes(), type=StoreIdentity)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise SettingsError(
                [f"{self.identity_file} cannot be read ({error}): use another --home, or delete it"]
            ) from error

    def claim(self, wanted: StoreIdentity) -> None:
        """Create the store for `wanted`, or check that it was made for it.

        Raises SettingsError with one line for each thing that differs.
        """
        found = self.identity()
        if found is None:
            make_home(self.root, server_account())
            write_private(self.identity_file, msgspec.json.encode(wanted).decode() + "\n")
            return
        if problems := _differences(self.root, found, wanted):
            raise SettingsError(problems)


def _differences(root: Path, found: StoreIdentity, wanted: StoreIdentity) -> list[str]:
    if found.version != wanted.version:
        return [f"{root} is a store of version {found.version}, this is {wanted.version}"]
    if found.source != wanted.source:
        return [
            f"{root} holds data of source {found.source}, not {wanted.source}: "
            "use another --home, or --fresh to delete what is there"
        ]
    problems = []
    if found.csv_sha256 != wanted.csv_sha256:
        problems.append(
            f"{root} was filled from another version of the CSV file: "
            "use --fresh to delete it and start anew, or another --home"
        )
    if found.partitions != wanted.partitions:
        problems.append(
            f"{root} was made with {found.partitions} partition(s), not {wanted.partitions}: "
            f"use --partitions {found.partitions}, or --fresh to delete it and start anew"
        )
    return problems
