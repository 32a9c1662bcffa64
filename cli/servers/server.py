"""The shape that both local servers share, so that one supervisor runs them alike."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from deploy.private_files import Account
from libs.common.errors import ServerError

__all__ = [
    "CLEAN_ENVIRONMENT",
    "Command",
    "LocalServer",
    "ServerFrozen",
    "explain_log",
    "stop_process",
    "wait_for",
]

# Servers need none of our environment, and must not inherit the passwords in it.
CLEAN_ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}

_POLL_S = 0.02


class ServerFrozen(ServerError):
    """A server says that it will not work any more until it is restarted."""


@dataclass(frozen=True)
class Command:
    """What to spawn, and which signal stops it in good order."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    account: Account | None
    stop_signal: signal.Signals

    def spawn_options(self) -> dict[str, Any]:
        """Return keyword arguments for `subprocess.Popen` or `asyncio.create_subprocess_exec`."""
        options: dict[str, Any] = {"env": dict(self.env), "cwd": self.cwd}
        if self.account is not None:
            options |= {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        return options


class LocalServer(Protocol):
    """A server that a supervisor can run; see the package's docstring for the order of calls."""

    @property
    def name(self) -> str:
        """What logs and status call it."""
        ...

    def prepare(self) -> None:
        """Make everything ready to spawn; raises ServerError with one clear line."""
        ...

    def command(self) -> Command:
        """Return what to spawn; valid after `prepare`."""
        ...

    def require_room(self) -> None:
        """Raise ServerError when the disk has too little room for the server to start."""
        ...

    async def wait_ready(
        self, *, deadline_s: float = 30.0, alive: Callable[[], bool] = lambda: True
    ) -> None:
        """Return when the server answers.

        Raises ServerError at the deadline or when it died, ServerFrozen as soon as it says so.
        """
        ...

    def stop_leftover(self, *, deadline_s: float = 10.0) -> bool:
        """Stop this server if an earlier supervisor left it running; tell whether it was."""
        ...

    def explain(self, log_tail: str) -> str | None:
        """Name the cause of a failed start in one line, from the end of the server's log."""
        ...


async def wait_for(
    name: str,
    answers: Callable[[], Awaitable[bool]],
    *,
    deadline_s: float,
    alive: Callable[[], bool],
) -> None:
    """Call `answers` until it is true; raises ServerError when the process died or time is up."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    while True:
        if not alive():
            raise ServerError(f"{name} stopped while starting")
        if await answers():
            return
        if loop.time() >= end_s:
            raise ServerError(f"{name} did not answer within {deadline_s:g} s")
        await asyncio.sleep(_POLL_S)


def stop_process(process: psutil.Process, stop: signal.Signals, *, deadline_s: float) -> None:
    """Stop one process in good order, or by force at the deadline."""
    try:
        process.send_signal(stop)
        process.wait(deadline_s)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(deadline_s)


def explain_log(log_tail: str, causes: Sequence[tuple[str, str]]) -> str | None:
    """Return the explanation of the first pattern found in `log_tail`, case aside."""
    for pattern, explanation in causes:
        if re.search(pattern, log_tail, re.IGNORECASE):
            return explanation
    return None
