"""How far a long work is: a bar on a terminal, a line for each stage elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Progress", "Quiet", "Stage", "open_progress"]


class Stage(Protocol):
    """A stage of the work, which consists of parts, or of bytes that are known before."""

    def advance(self, count_bytes: int) -> None:
        """Say that so many more bytes are done."""
        ...

    def part_done(self) -> None:
        """Say that one more part is done."""
        ...


class Progress(Protocol):
    """Shows one stage after another."""

    def stage(
        self, name: str, *, parts: int = 0, total_bytes: int = 0
    ) -> AbstractContextManager[Stage]:
        """Begin a stage; it ends with the context."""
        ...


class _Counted:
    """A stage that hands its standing to a callback."""

    def __init__(self, parts: int, total_bytes: int, show: Callable[[float, int], None]) -> None:
        self._parts = parts
        self._total_bytes = total_bytes
        self._show = show
        self._done_parts = self.done_bytes = 0

    def advance(self, count_bytes: int) -> None:
        self.done_bytes += count_bytes
        self._tell()

    def part_done(self) -> None:
        self._done_parts += 1
        self._tell()

    def _tell(self) -> None:
        if self._total_bytes:
            done = self.done_bytes / self._total_bytes
        else:
            done = self._done_parts / max(self._parts, 1)
        self._show(min(done, 1.0), self.done_bytes)


class Quiet:
    """Shows nothing: for services and for JSON."""

    @contextmanager
    def stage(self, name: str, *, parts: int = 0, total_bytes: int = 0) -> Iterator[Stage]:
        """Begin a stage that nobody watches."""
        yield _Counted(parts, total_bytes, lambda done, count: None)


class _Lines:
    """One line for each stage, when it is over."""

    @contextmanager
    def stage(self, name: str, *, parts: int = 0, total_bytes: int = 0) -> Iterator[Stage]:
        from cli.output import size

        stage = _Counted(parts, total_bytes, lambda done, count: None)
        yield stage
        print(f"kite: {name}: {size(stage.done_bytes)}", file=sys.stderr, flush=True)


class _Bars:
    """A bar for each stage, drawn as it goes."""

    @contextmanager
    def stage(self, name: str, *, parts: int = 0, total_bytes: int = 0) -> Iterator[Stage]:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        from cli.output import console, size

        columns = (
            TextColumn("  {task.description:<10}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[size]:>9}"), TimeElapsedColumn(),
        )  # fmt: skip
        with Bar(*columns, console=console(stderr=True)) as bar:
            task = bar.add_task(name, total=1.0, size="")
            yield _Counted(
                parts,
                total_bytes,
                lambda done, count: bar.update(task, completed=done, size=size(count)),
            )
            bar.update(task, completed=1.0)


def open_progress(*, as_json: bool) -> Progress:
    """Return what fits standard error."""
    if as_json:
        return Quiet()
    return _Bars() if sys.stderr.isatty() else _Lines()
