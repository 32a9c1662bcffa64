"""When the last minute's requests were made, in a file: the budget's memory over restarts.

A service that dies and starts again every few seconds would begin each life with a fresh minute.
So each pass is written down before its request leaves, and the next life counts what it finds. A
pass that is noted and not used counts as well; never the other way around.

Theory of operation. The file is a ring of as many times as a minute may hold requests: a place is
written again only when what stood there is a minute old. Times are the wall clock's, in
milliseconds, rounded up; one that lies in the future, because the clock was set back, counts as
now. Writing is one `pwrite` of 8 bytes, without a sync: it outlives the process. A power cut may
take the last of them; the machine has to boot first then.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from libs.common.clock import Clock

__all__ = ["PassBook"]

_TIME = struct.Struct("<q")
_MINUTE_MS = 60_000
_BYTES_MAX = 1 << 20


class PassBook:
    """Opens the file, or makes it; raises OSError. `on_error` hears when it cannot be written."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        per_minute_max: int,
        on_error: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        self._clock = clock
        self._on_error = on_error
        self._broken = False
        self._fresh_ms = self._read(path)
        self._places = max(per_minute_max, len(self._fresh_ms))
        self._next = len(self._fresh_ms) % self._places
        self._file = self._begin(path)

    def ages_s(self) -> list[float]:
        """Return how long ago the earlier lives' requests of the last minute were, oldest first."""
        now_ms = self._clock.now_ms()
        return [max(0, now_ms - at_ms) / 1000 for at_ms in self._fresh_ms]

    def note(self) -> None:
        """Write down that a request is about to leave."""
        at = self._next * _TIME.size
        self._next = (self._next + 1) % self._places
        try:
            os.pwrite(self._file, _TIME.pack(self._clock.now_ms() + 1), at)
            self._broken = False
        except OSError as error:
            if not self._broken:
                self._on_error(error)
            self._broken = True

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _read(self, path: Path) -> list[int]:
        """Return the times that still count, none later than now, in order."""
        now_ms = self._clock.now_ms()
        try:
            with path.open("rb") as file:
                data = file.read(_BYTES_MAX)
        except FileNotFoundError:
            return []
        whole = data[: len(data) - len(data) % _TIME.size]
        times_ms = (at_ms for (at_ms,) in _TIME.iter_unpack(whole))
        return sorted(min(at_ms, now_ms) for at_ms in times_ms if at_ms > now_ms - _MINUTE_MS)

    def _begin(self, path: Path) -> int:
        """Put the times that count at the ring's beginning, whole or not at all, and open it."""
        staged = path.with_name(f"{path.name}.new")
        padded = self._fresh_ms + [0] * (self._places - len(self._fresh_ms))
        file = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, b"".join(map(_TIME.pack, padded)))
            staged.replace(path)
        except OSError:
            os.close(file)
            raise
        return file
