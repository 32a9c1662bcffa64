"""Logs on disk: bounded files that the supervisor writes, and `./kite logs` that shows them.

A process writes to a pipe, the supervisor to the file, so a rotation loses no line and a full disk
stops no service: what cannot be written is counted and left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from libs.common.errors import SettingsError

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["LogFile", "follow", "last_lines", "render", "show"]

LOG_BYTES_MAX = 8 << 20
LOG_FILES_OLD_MAX = 2
_LINE_BYTES_MAX = 64 << 10
_POLL_S = 0.2
# Said by the line's own columns already.
_COLUMNS = frozenset({"event", "level", "timestamp", "service", "exception"})


class LogFile:
    """One process's log: appends whole lines, moves on to a new file before it grows too large."""

    def __init__(
        self, path: Path, *, bytes_max: int = LOG_BYTES_MAX, old_max: int = LOG_FILES_OLD_MAX
    ) -> None:
        """Describe the log; the file is opened at the first write."""
        self._path = path
        self._bytes_max = bytes_max
        self._old_max = old_max
        self._descriptor: int | None = None
        self._size_bytes = 0
        self._partial = b""
        self.dropped_bytes = 0

    def write(self, data: bytes) -> list[str]:
        """Append what a process wrote, and return the lines that it completes."""
        whole, newline, self._partial = (self._partial + data).rpartition(b"\n")
        if len(self._partial) > _LINE_BYTES_MAX:  # an endless line is cut into pieces
            whole, newline, self._partial = whole + newline + self._partial, b"\n", b""
        if not newline:
            return []
        self._append(whole + newline)
        return whole.decode(errors="replace").splitlines()

    def close(self) -> list[str]:
        """Write the last line even if it has no end, close, and return it."""
        lines = self.write(b"\n") if self._partial else []
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        return lines

    def _append(self, data: bytes) -> None:
        try:
            if self._descriptor is None or self._size_bytes + len(data) > self._bytes_max:
                self._open_next()
            assert self._descriptor is not None
            written = os.write(self._descriptor, data)
        except OSError:  # most likely a full disk, of which `doctor` and the services tell
            written = 0
        self._size_bytes += written
        self.dropped_bytes += len(data) - written

    def _open_next(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._rotate()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size_bytes = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        for number in range(self._old_max, 0, -1):
            newer = _numbered(self._path, number - 1) if number > 1 else self._path
            with contextlib.suppress(FileNotFoundError):
                newer.replace(_numbered(self._path, number))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


# -- showing ---------------------------------------------------------------------------------------


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last `count` lines of a log, reaching back into rotated files."""
    lines: deque[str] = deque(maxlen=count)
    for number in range(LOG_FILES_OLD_MAX, -1, -1):
        file = _numbered(path, number) if number else path
        with contextlib.suppress(FileNotFoundError), file.open(errors="replace") as opened:
            lines.extend(line.rstrip("\n") for line in opened)
    return list(lines)


def follow(path: Path) -> Iterator[str]:
    """Yield lines as they are written from now on, across rotations, without end."""
    file = path.open(errors="replace") if path.exists() else None
    if file is not None:
        file.seek(0, os.SEEK_END)
    partial = ""
    while True:
        if file is not None:
            while chunk := file.readline():
                partial += chunk
                if partial.endswith("\n"):
                    yield partial.rstrip("\n")
                    partial = ""
        if path.exists() and (file is None or path.stat().st_ino != os.fstat(file.fileno()).st_ino):
            if file is not None:
                file.close()
            file = path.open(errors="replace")
            continue
        time.sleep(_POLL_S)


def render(line: str) -> Text:
    """Make one log line readable: time, level, event, then the rest; other lines stay as is."""
    from rich.text import Text

    from cli.output import LEVEL_STYLES

    record = _record(line)
    if record is None:
        return Text(line, style="dim")
    level = str(record.get("level", "info"))
    text = Text(f"{_local_time(str(record.get('timestamp', '')))} ", style="dim")
    text.append(f"{level:<8}", style=LEVEL_STYLES.get(level, ""))
    text.append(str(record.get("event", "")), style="bold")
    for key, value in record.items():
        if key not in _COLUMNS:
            text.append(f"  {key}=", style="dim")
            text.append(value if isinstance(value, str) else json.dumps(value))
    if "exception" in record:
        text.append(f"\n{record['exception']}", style="red")
    return text


def _record(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _local_time(stamp: str) -> str:
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return "--:--:--.---"


def show(logs: Path, name: str, *, count: int, following: bool, as_json: bool) -> None:
    """Print the last lines of a process's log, and the coming ones if `following`.

    Raises SettingsError when there is no such log.
    """
    from cli.output import console

    path = logs / f"{name}.log"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in logs.glob("*.log"))) or "none yet"
        raise SettingsError([f"there is no log of {name!r} in {logs}; there are: {known}"])
    screen = console()

    def put(line: str) -> None:
        if as_json:
            print(line, flush=True)
        else:
            screen.print(render(line), soft_wrap=True)

    new = follow(path) if following else iter(())
    for line in last_lines(path, count):
        put(line)
    for line in new:
        put(line)
