"""What was really sent, kept outside the stack that is being tested.

Per service and symbol: how many items and images, the first and last stamp, and a SHA-256 over all
items in order. With a file, every data frame is appended to it as one line (wall time in epoch ms,
a space, the frame), so that a test can compare row by row. `acknowledged` counts answers by
service, command and code.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any

import msgspec

from services.simulator.streamer import Send

__all__ = ["Ledger"]


class _Account:
    """One symbol of one service."""

    __slots__ = ("digest", "first_ms", "images", "items", "last_ms")

    def __init__(self) -> None:
        self.items = 0
        self.images = 0
        self.first_ms = 0
        self.last_ms = 0
        self.digest = hashlib.sha256()


class Ledger:
    """Counts what a socket accepted; call `sent` after each write."""

    def __init__(self, path: Path | None = None) -> None:
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._answers: dict[str, int] = {}
        self._file: IO[bytes] | None = path.open("ab", buffering=0) if path else None

    def sent(self, frame: Send, at_ms: int, wall_ms: int) -> None:
        """Note one frame; `at_ms` is its virtual stamp."""
        if frame.kind == "reply":
            self._answer(frame)
        elif frame.kind == "data":
            for item in frame.items:
                self._note(frame, item, at_ms)
            if self._file is not None:
                self._file.write(b"%d %s\n" % (wall_ms, frame.text))

    def report(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        services: dict[str, dict[str, Any]] = {}
        for (service, key), account in self._accounts.items():
            services.setdefault(service, {})[key] = {
                "items": account.items,
                "images": account.images,
                "first_ms": account.first_ms,
                "last_ms": account.last_ms,
                "sha256": account.digest.hexdigest(),
            }
        return {"sent": services, "acknowledged": dict(self._answers)}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _note(self, frame: Send, item: dict[str, Any], at_ms: int) -> None:
        account = self._accounts.setdefault((frame.service, str(item["key"])), _Account())
        if frame.image:
            account.images += 1
        else:
            account.items += 1
        account.first_ms = account.first_ms or at_ms
        account.last_ms = at_ms
        account.digest.update(msgspec.json.encode(item))

    def _answer(self, frame: Send) -> None:
        for answer in msgspec.json.decode(frame.text)["response"]:
            code = answer["content"]["code"]
            name = f"{answer['service']} {answer['command']} {code}"
            self._answers[name] = self._answers.get(name, 0) + 1
