"""What `./kite up` shows while it works: a small live table on a terminal, plain lines elsewhere.

All of it goes to standard error; standard output gets the one line that says `ready`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["Progress", "Row", "open_progress"]

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_PER_S = 10
_SILENCE_S_MAX = 10.0
_LEVEL_MARKS = {"info": "", "warning": "warning: ", "error": "error: "}


@dataclass(frozen=True)
class Row:
    """One unit's line: its state, when it was reached (seconds from the start), what to add."""

    state: str
    reached_s: float | None
    note: str = ""


class Progress(Protocol):
    """Shows how a start goes; `show` is to be called ten times a second, or when it pleases."""

    def show(self, rows: Mapping[str, Row]) -> None:
        """Show where every unit stands."""
        ...

    def say(self, level: str, text: str) -> None:
        """Show one line; `level` is info, warning or error."""
        ...

    def finish(self, lines: list[tuple[str, str]]) -> None:
        """End the live part; show what to do next, pairs of a label and a command."""
        ...


def open_progress(title: str) -> Progress:
    """Return what fits standard error."""
    return _Live(title) if sys.stderr.isatty() else _Plain(title)


class _Plain:
    """One line for each unit when it gets ready, and now and then what is waited for."""

    def __init__(self, title: str) -> None:
        self._shown: set[str] = set()
        self._news_s = time.monotonic()
        self.say("info", title)

    def show(self, rows: Mapping[str, Row]) -> None:
        for name, row in rows.items():
            if row.reached_s is not None and name not in self._shown:
                self._shown.add(name)
                self.say("info", f"{name} {row.state} after {row.reached_s:.2f} s")
        if time.monotonic() - self._news_s > _SILENCE_S_MAX:
            missing = {name: row for name, row in rows.items() if name not in self._shown}
            notes = (f"{name} ({row.note or row.state})" for name, row in missing.items())
            self.say("info", f"still waiting for {', '.join(notes) or 'the others'}")

    def say(self, level: str, text: str) -> None:
        self._news_s = time.monotonic()
        print(f"kite: {_LEVEL_MARKS.get(level, '')}{text}", file=sys.stderr, flush=True)

    def finish(self, lines: list[tuple[str, str]]) -> None:
        """Say the first only: nobody is there to be told what to do next."""
        for label, text in lines[:1]:
            self.say("info", f"{label} {text}")


class _Live:
    """A table that follows the start and stays on the screen when it is over."""

    def __init__(self, title: str) -> None:
        from rich.live import Live
        from rich.text import Text

        from cli.output import console

        self._console: Console = console(stderr=True)
        self._console.print(Text.assemble(("Alpha Kite Max", "bold"), f"  {title}\n"))
        # Drawn when we are called, not by a thread: processes are forked beside it.
        self._live: Live | None = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def show(self, rows: Mapping[str, Row]) -> None:
        if self._live is not None:
            self._live.update(self._render(rows), refresh=True)

    def say(self, level: str, text: str) -> None:
        from rich.text import Text

        from cli.output import LEVEL_STYLES

        mark = "✗" if level == "error" else "!" if level == "warning" else "·"
        self._console.print(
            Text.assemble("  ", (mark, LEVEL_STYLES.get(level, "")), f" {text}"), soft_wrap=True
        )

    def finish(self, lines: list[tuple[str, str]]) -> None:
        from rich.text import Text

        if self._live is None:
            return
        self._live.stop()
        self._live = None
        self._console.print()
        for label, command in lines:
            self._console.print(Text.assemble("  ", (f"{label:<8}", "dim"), (command, "bold")))
        if lines:
            self._console.print()

    def _render(self, rows: Mapping[str, Row]) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        from cli.output import STATE_STYLES

        grid = Table.grid(padding=(0, 2, 0, 0))
        for name, row in rows.items():
            style = STATE_STYLES.get(row.state, "")
            mark = Text(f" {_mark(row.state)}", style=style)
            took = f"{row.reached_s:6.2f} s" if row.reached_s is not None else ""
            grid.add_row(mark, name, Text(row.state, style=style), took, Text(row.note, "dim"))
        return grid


def _mark(state: str) -> str:
    if state in ("running", "done"):
        return "✓"
    if state in ("starting", "restarting", "stopping"):
        return _SPINNER[int(time.monotonic() * _FRAMES_PER_S) % len(_SPINNER)]
    return "✗" if state == "refused" else "·"
