"""Orders to the running stack, over a Unix socket that only its owner can open.

One line of JSON each way: `{"verb": "restart", "unit": "ingest"}` is answered by
`{"ok": true, "text": "…"}`. Whoever sent an order asks for the state to see what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from cli.home import Home
from cli.processes import process_identity
from cli.state import NotRunningError, ProcessState, StackState, read_state
from deploy.private_files import explain_os_errors
from libs.common.errors import KiteError, SettingsError

__all__ = ["Answer", "Order", "current_state", "down", "listen", "restart"]

_ORDER_BYTES_MAX = 4096
_ANSWER_BYTES_MAX = 1 << 20
_ANSWER_WAIT_S = 5.0
_POLL_S = 0.05
DOWN_WAIT_S = 90.0
RESTART_WAIT_S = 60.0


class Order(msgspec.Struct, frozen=True):
    """What somebody wants of the running stack."""

    verb: Literal["restart", "state", "stop"]
    unit: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Whether the order was taken, and why not; the state, if that was asked for."""

    ok: bool
    text: str = ""
    state: StackState | None = None


async def listen(home: Home, take: Callable[[Order], Answer]) -> asyncio.Server:
    """Take orders until the returned server is closed."""
    path = home.socket_file
    with explain_os_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.parent.stat().st_uid != os.geteuid():
            raise PermissionError(f"{path.parent} belongs to somebody else")
        path.unlink(missing_ok=True)

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(_ANSWER_WAIT_S):
                line = await reader.readline()
                writer.write(msgspec.json.encode(_answer(line, take)) + b"\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(on_connection, path, limit=_ORDER_BYTES_MAX)
    path.chmod(0o600)
    return server


def _answer(line: bytes, take: Callable[[Order], Answer]) -> Answer:
    try:
        return take(msgspec.json.decode(line, type=Order))
    except msgspec.MsgspecError as error:
        return Answer(ok=False, text=f"not an order: {error}")


# -- the other end ---------------------------------------------------------------------------------


def _send(home: Home, order: Order) -> Answer:
    """Send an order and return the answer; raises OSError or MsgspecError when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_WAIT_S)
        connection.connect(str(home.socket_file))
        connection.sendall(msgspec.json.encode(order) + b"\n")
        with connection.makefile("rb") as answers:
            return msgspec.json.decode(answers.readline(_ANSWER_BYTES_MAX), type=Answer)


def current_state(home: Home) -> StackState:
    """Return the running stack's state, from itself or, if it is too busy, from its file.

    Raises NotRunningError, or SettingsError when the home belongs to another user.
    """
    kept = read_state(home)
    try:
        return _send(home, Order("state")).state or kept
    except (OSError, msgspec.MsgspecError):
        return kept


def down(home: Home) -> None:
    """Stop the running stack and wait for its end, that of its supervisor's process included.

    Raises NotRunningError, or KiteError when it does not end in time.
    """
    if not home.is_locked():
        raise NotRunningError(f"nothing is running on {home.root}")
    holder = home.lock_holder()
    identity = process_identity(holder) if holder is not None else None
    try:
        _send(home, Order("stop"))
    except (OSError, msgspec.MsgspecError) as error:
        _stop_by_signal(home, error)
    end_s = time.monotonic() + DOWN_WAIT_S
    while home.is_locked() or _lives(holder, identity):
        if time.monotonic() >= end_s:
            raise KiteError(f"the stack did not stop within {DOWN_WAIT_S:.0f} s: see ./kite status")
        time.sleep(_POLL_S)
    print("kite: stopped", file=sys.stderr)


def _lives(pid: int | None, identity: str | None) -> bool:
    """Tell whether a process is still the one that was seen before."""
    return pid is not None and identity is not None and process_identity(pid) == identity


def _stop_by_signal(home: Home, cause: Exception) -> None:
    """Ask the lock's holder in the other way; the lock proves that it is alive."""
    pid = home.lock_holder()
    if pid is None:
        raise KiteError(f"the running stack does not answer: {cause}") from cause
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def restart(home: Home, unit: str) -> None:
    """Restart one process and wait until it runs again.

    Raises NotRunningError, SettingsError for an unknown name, KiteError when it does not come back.
    """
    before = _process(current_state(home), unit)
    try:
        answer = _send(home, Order("restart", unit))
    except (OSError, msgspec.MsgspecError) as error:
        raise KiteError(f"the running stack does not answer: {error}") from error
    if not answer.ok:
        raise KiteError(answer.text)
    end_s = time.monotonic() + RESTART_WAIT_S
    while (now := _process(current_state(home), unit)).state != "running" or now.pid == before.pid:
        if time.monotonic() >= end_s:
            reason = f": {now.reason}" if now.reason else ""
            raise KiteError(f"{unit} is {now.state} after {RESTART_WAIT_S:.0f} s{reason}")
        time.sleep(_POLL_S)
    print(f"kite: {unit} runs again, as pid {now.pid}", file=sys.stderr)


def _process(state: StackState, unit: str) -> ProcessState:
    processes = {**state.servers, **state.services}
    if unit not in processes:
        raise SettingsError([f"there is no {unit!r}; choose one of {', '.join(processes)}"])
    return processes[unit]
