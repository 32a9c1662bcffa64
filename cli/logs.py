"""Logs on disk: bounded files that the supervisor writes, and `./kite logs` that shows them.

A process writes to a pipe, the supervisor to the file, so a rotation loses no line and a full disk
stops no service: what cannot be written is counted and left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cli.home import not_ours
from libs.common.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["LogFile", "last_lines", "read_log", "render", "show"]

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
    return list(read_log(path, count, following=False))


def read_log(path: Path, count: int, *, following: bool) -> Generator[str, None, None]:
    """Yield the last `count` lines; if `following`, then every line to come, without end.

    Between the two no line is missed or doubled; rotations are followed.
    """
    recent: deque[str] = deque(maxlen=count)
    for number in range(LOG_FILES_OLD_MAX, 0, -1):
        with contextlib.suppress(FileNotFoundError), _open(_numbered(path, number)) as older:
            recent.extend(line.rstrip("\n") for line in older)
    try:
        file = _open(path)
    except FileNotFoundError:
        yield from recent
        return
    with _Followed(path, file) as followed:
        recent.extend(followed.new_lines())
        yield from recent
        while following:
            yield from followed.new_lines()
            time.sleep(_POLL_S)


class _Followed:
    """A log file that grows, and is moved away now and then."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._partial = ""

    def __enter__(self) -> _Followed:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def new_lines(self) -> Iterator[str]:
        """Yield the lines that were completed since the last call."""
        yield from self._rest_of_file()
        with contextlib.suppress(FileNotFoundError):
            while self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
                yield from self._rest_of_file()  # written before the file was moved away
                self._file.close()
                self._file = _open(self._path)
                yield from self._rest_of_file()

    def _rest_of_file(self) -> Iterator[str]:
        *whole, self._partial = (self._partial + self._file.read()).split("\n")
        yield from whole


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="replace")


def render(line: str) -> Text:
    """Make one log line readable: UTC, level, event, then the rest; other lines stay as is."""
    from rich.text import Text

    from cli.output import LEVEL_STYLES, printable

    record = _record(line)
    if record is None:
        return Text(printable(line), style="dim")
    level = str(record.get("level", "info"))
    text = Text(f"{_utc_time(str(record.get('timestamp', '')))} ", style="dim")
    text.append(f"{printable(level):<8}", style=LEVEL_STYLES.get(level, ""))
    text.append(printable(str(record.get("event", ""))), style="bold")
    for key, value in record.items():
        if key not in _COLUMNS:
            text.append(f"  {printable(key)}=", style="dim")
            text.append(printable(value) if isinstance(value, str) else json.dumps(value))
    for detail in str(record.get("exception", "")).splitlines():
        text.append(f"\n{printable(detail)}", style="red")
    return text


def _record(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _utc_time(stamp: str) -> str:
    try:
        return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return "--:--:--.---"


def show(logs: Path, name: str, *, count: int, following: bool, as_json: bool) -> None:
    """Print the last lines of a process's log, and the coming ones if `following`.

    Raises SettingsError when there is no such log, or it belongs to another user.
    """
    from cli.output import console

    try:
        _require_log(logs, name)
        lines = read_log(logs / f"{name}.log", count, following=following)
        _show(lines, console(), as_json=as_json)
    except PermissionError as error:
        raise not_ours(logs.parent) from error


def _require_log(logs: Path, name: str) -> None:
    if not (logs / f"{name}.log").exists():
        known = ", ".join(sorted(file.stem for file in logs.glob("*.log"))) or "none yet"
        raise SettingsError([f"there is no log of {name!r} in {logs}; there are: {known}"])


def _show(lines: Iterable[str], screen: Console, *, as_json: bool) -> None:
    # Our own lines only: a server writes its times as it likes, and says so itself.
    untold = sys.stdout.isatty() and not as_json
    for line in lines:
        if as_json:
            print(line, flush=True)
            continue
        if untold and _record(line) is not None:
            print("kite: times are UTC", file=sys.stderr, flush=True)
            untold = False
        screen.print(render(line), soft_wrap=True)
