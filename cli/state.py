"""What the running stack tells about itself in `run/state.json`, and who reads it.

The supervisor replaces the file at every change; `status`, `tail`, `health` and `restart` read it.
It holds addresses with the passwords of users who may only read, so only its owner can open it.
"""

from __future__ import annotations

import os

import msgspec

from cli.home import Home
from libs.common.errors import KiteError

__all__ = ["NotRunningError", "ProcessState", "StackState", "read_state", "write_state"]


class NotRunningError(KiteError):
    """Nothing runs on this data home."""


class ProcessState(msgspec.Struct, frozen=True):
    """One process: `pid` is None while there is none, `since_ms` when it was started."""

    pid: int | None
    state: str
    restarts: int
    metrics: str | None
    reason: str = ""
    since_ms: int | None = None


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    """The stack as a whole; the first five fields are a contract with the outside."""

    nats: str | None
    postgres: str | None
    gateway: str | None
    schwab: str | None
    services: dict[str, ProcessState]
    servers: dict[str, ProcessState]
    running: bool
    ready: bool
    home: str
    source: str | None = None
    store: str | None = None
    tickers: tuple[str, ...] = ()
    partitions: int = 1
    supervisor: int | None = None
    started_ms: int | None = None
    timings_ms: dict[str, int] = {}
    reason: str = ""


def write_state(home: Home, state: StackState) -> None:
    """Replace the state file atomically, but not durably: it means nothing after a reboot.

    Raises OSError.
    """
    written = home.state_file.with_name(f".{home.state_file.name}.new")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(state))
    written.replace(home.state_file)


def read_state(home: Home) -> StackState:
    """Return the running stack's state; raises NotRunningError, SettingsError if it is not ours."""
    if not home.is_locked():
        raise NotRunningError(f"nothing is running on {home.root}; start it with ./kite up")
    try:
        return msgspec.json.decode(home.state_file.read_bytes(), type=StackState)
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        raise NotRunningError("the stack is only just starting: try again in a second") from error
