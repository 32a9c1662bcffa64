"""How the command talks: one place for consoles, colours, tables and last lines.

Results go to standard output, everything else to standard error. Colours and live updates appear
only on a terminal; `NO_COLOR` is respected. rich is imported when something is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["LEVEL_STYLES", "STATE_STYLES", "console", "duration", "printable", "size", "table"]

STATE_STYLES = {
    "waiting": "dim",
    "starting": "cyan",
    "running": "green",
    "unready": "yellow",
    "restarting": "yellow",
    "refused": "bold red",
    "stopping": "cyan",
    "stopped": "dim",
    "done": "green",
}
LEVEL_STYLES = {
    "debug": "dim",
    "info": "cyan",
    "warning": "yellow",
    "error": "bold red",
    "critical": "bold red",
}
_SECONDS_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def console(*, stderr: bool = False) -> Console:
    """Return a console that neither highlights nor interprets what it is not told to."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return a table without lines: a dim header, columns named in `right` to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return made


def printable(text: str) -> str:
    """Replace what a terminal would obey: nobody's data may move the cursor or forge a line."""
    return "".join(character if character.isprintable() else "·" for character in text)


def duration(seconds: float) -> str:
    """Write a duration in its two largest units, e.g. `2h 5m`."""
    rest = int(seconds)
    parts: list[str] = []
    for length, unit in _SECONDS_UNITS:
        count, rest = divmod(rest, length)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join([*parts, f"{rest}s"][:2])


def size(count_bytes: float) -> str:
    """Write a number of bytes with a binary unit, e.g. `37 MiB`."""
    value = float(count_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
