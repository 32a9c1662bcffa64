"""`./kite doctor`: can the stack run here, and if not, what mends it? One line for each thing.

Looks only, changes nothing but one small file that it writes to time the disk. Exit code 1 when
something would keep the stack from running; a warning does not.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import psutil

from cli import node, page
from cli.control import current_state
from cli.home import CHECKOUT, Home
from cli.output import console, size, table
from cli.ports import GATEWAY_PORT, NATS_PORT, POSTGRES_PORT, is_free
from cli.processes import leftovers
from cli.servers.binaries import nats_program, postgres_programs
from cli.servers.host import server_account
from cli.state import NotRunningError
from libs.common import calendar
from libs.common.clock import SystemClock
from libs.common.errors import KiteError

__all__ = ["Finding", "examine", "run"]

PYTHON_MIN = (3, 11)
FREE_BYTES_FAIL = 512 << 20
FREE_BYTES_WARN = 4 << 30
MEMORY_BYTES_WARN = 768 << 20
FSYNC_MS_WARN = 20.0
_FSYNC_TRIES = 15
_PACKAGES = ("aiohttp", "asyncpg", "msgspec", "nats-py", "schwab-py", "structlog", "uvloop")
_TIME_ERROR = 5  # what adjtimex returns while nobody disciplines the clock

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and how to mend it."""

    name: str
    verdict: Verdict
    detail: str
    mend: str = ""


def run(home: Home, *, as_json: bool) -> int:
    """Print all findings; return 1 when one of them is a failure."""
    found = list(examine(home))
    failed = any(finding.verdict == "fail" for finding in found)
    if as_json:
        answer = {"ok": not failed, "findings": found}
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    else:
        _draw(found)
    return 1 if failed else 0


def examine(home: Home) -> Iterator[Finding]:
    """Look at everything, cheap things first."""
    running = home.is_locked()
    yield _python()
    yield _packages()
    yield from _programs(home)
    yield _page(home)
    yield _home(home)
    yield _disk(home)
    yield _fsync(home)
    yield _memory()
    yield from _ports(home, running)
    yield _clock()
    yield _calendar()
    yield _leftovers(home, running)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] < PYTHON_MIN:
        return Finding(
            "python", "fail", version, "install Python 3.11 or newer, or set KITE_PYTHON"
        )
    return Finding("python", "ok", f"{version} on {platform.system()} {platform.machine()}")


def _packages() -> Finding:
    missing = []
    for name in _PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", "fail", f"missing: {', '.join(missing)}", "run make setup")
    return Finding("packages", "ok", "installed")


def _programs(home: Home) -> Iterator[Finding]:
    """Run each server's program once: a wheel for another system installs, but does not run."""
    places: dict[str, Callable[[], Path]] = {
        "nats-server": lambda: nats_program(home.runtime, copy=False),
        "postgres": lambda: Path(postgres_programs(home.runtime, copy=False).path("postgres")),
    }
    for name, find in places.items():
        try:
            answer = subprocess.run(
                [find(), "--version"], capture_output=True, text=True, check=True, timeout=20
            )
        except (KiteError, OSError, subprocess.SubprocessError) as error:
            yield Finding(name, "fail", str(error), "Linux with glibc 2.28+ or macOS; make setup")
        else:
            yield Finding(name, "ok", answer.stdout.strip())


def _page(home: Home) -> Finding:
    """Look for what builds the page where it is missing; the stack runs without it all the same."""
    dashboard, chosen = CHECKOUT / "dashboard", os.environ.get("KITE_GATEWAY_DASHBOARD_DIR")
    if chosen:
        return Finding("page", "ok", f"from {chosen}")
    try:
        if page.built(dashboard, page.directory(CHECKOUT, home.runtime)):
            return Finding("page", "ok", "built")
        return Finding("page", "ok", f"not built yet; the next ./kite up uses {node.find().node}")
    except (KiteError, OSError) as error:
        mend = "./kite up runs without a page until then"
        return Finding("page", "warn", f"cannot be built: {error}", mend)


def _home(home: Home) -> Finding:
    place = _existing(home.root)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("data home", "fail", f"{home.root} cannot be written", "pass --home DIR")
    try:
        account = server_account()
    except KiteError as error:
        return Finding("data home", "fail", str(error))
    whose = f", servers run as {account.name}" if account else ""
    return Finding("data home", "ok", f"{home.root}{whose}")


def _disk(home: Home) -> Finding:
    free = shutil.disk_usage(_existing(home.root)).free
    mend = "free some space, or pass --home DIR on another disk"
    if free < FREE_BYTES_FAIL:
        return Finding("disk space", "fail", f"{size(free)} free", mend)
    if free < FREE_BYTES_WARN:
        return Finding("disk space", "warn", f"{size(free)} free", mend)
    return Finding("disk space", "ok", f"{size(free)} free")


def _fsync(home: Home) -> Finding:
    """Time what every acknowledged frame waits for."""
    took_ms = []
    try:
        with tempfile.TemporaryFile(dir=_existing(home.root)) as file:
            for _ in range(_FSYNC_TRIES):
                file.write(b"x" * 4096)
                file.flush()
                begin_s = time.perf_counter()
                os.fsync(file.fileno())
                took_ms.append((time.perf_counter() - begin_s) * 1000)
    except OSError as error:
        return Finding("disk speed", "fail", f"cannot write: {error.strerror}", "pass --home DIR")
    median_ms = statistics.median(took_ms)
    detail = f"{median_ms:.1f} ms to make 4 KiB durable (median of {_FSYNC_TRIES})"
    if median_ms > FSYNC_MS_WARN:
        return Finding("disk speed", "warn", detail, "a faster disk lowers every latency")
    return Finding("disk speed", "ok", detail)


def _memory() -> Finding:
    available = psutil.virtual_memory().available
    detail = f"{size(available)} available"
    if available < MEMORY_BYTES_WARN:
        return Finding(
            "memory", "warn", detail, "the stack takes about 500 MiB: stop other programs"
        )
    return Finding("memory", "ok", detail)


def _ports(home: Home, running: bool) -> Iterator[Finding]:
    ours = _ports_in_use(home) if running else {}
    for name, port, option in (
        ("page", GATEWAY_PORT, "--port"),
        ("nats", NATS_PORT, "--nats-port"),
        ("postgres", POSTGRES_PORT, "--postgres-port"),
    ):
        label, used = f"{name} port", ours.get(name)
        if used == port:
            yield Finding(label, "ok", f"{port} is used by this stack")
        elif used is not None:
            state = "free" if is_free(port) else "taken by another program"
            yield Finding(label, "ok", f"{port} is {state}; this stack uses {used}")
        elif is_free(port):
            yield Finding(label, "ok", f"{port} is free")
        else:
            mend = f"another port is taken instead; {option} chooses which"
            yield Finding(label, "warn", f"{port} is taken by another program", mend)


def _ports_in_use(home: Home) -> dict[str, int]:
    """Return the running stack's ports by name, nothing while it is only just starting."""
    try:
        state = current_state(home)
    except NotRunningError:
        return {}
    urls = {"page": state.gateway, "nats": state.nats, "postgres": state.postgres}
    found = {name: urlsplit(url).port for name, url in urls.items() if url}
    return {name: port for name, port in found.items() if port is not None}


def _clock() -> Finding:
    today = calendar.day_of(SystemClock().now_ms())
    state = "not known to be synchronised"
    if sys.platform == "linux":
        timex = ctypes.create_string_buffer(256)
        if ctypes.CDLL(None).adjtimex(timex) == _TIME_ERROR:
            mend = "turn on NTP (for example: timedatectl set-ntp true)"
            return Finding("clock", "warn", f"{today} New York, not synchronised (no NTP)", mend)
        state = "synchronised"
    return Finding("clock", "ok", f"{today} New York, {state}")


def _calendar() -> Finding:
    last = calendar.LAST_DAY
    if calendar.day_of(SystemClock().now_ms()) > last:
        return Finding("calendar", "fail", f"ends {last}", "update to a newer version")
    return Finding("calendar", "ok", f"known until {last}")


def _leftovers(home: Home, running: bool) -> Finding:
    left = [] if running else leftovers(home.run / "pids")
    if left:
        detail = f"{', '.join(left)} still run without a supervisor"
        return Finding("leftovers", "warn", detail, "the next ./kite up stops them first")
    return Finding("leftovers", "ok", "none, the stack runs" if running else "none")


def _existing(path: Path) -> Path:
    """Return the nearest directory that exists: what would have to be written to."""
    while not path.exists():
        path = path.parent
    return path


def _draw(found: list[Finding]) -> None:
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}
    shown = table("", "", "")
    shown.show_header = False
    shown.columns[-1].no_wrap = False
    for finding in found:
        detail = Text(finding.detail)
        if finding.mend:
            detail.append(f"\n→ {finding.mend}", style="yellow")
        shown.add_row(Text(*marks[finding.verdict]), finding.name, detail)
    console().print(shown)
