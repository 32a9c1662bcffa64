"""Where a run takes place: on which file system, how many partitions, who stands in between."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.rig import CORE, Rig
from tests.servers import temporary_home

__all__ = ["PLAIN", "TWINS", "Scene"]

SPEED = 300.0
"""As fast as two cores follow with room for the backlog that a fault leaves behind."""


async def _nothing(rig: Rig) -> None:
    """Leave the rig as it started."""


@contextmanager
def _directory(home: Path) -> Iterator[Path]:
    """Keep the data in an ordinary directory."""
    yield home


@dataclass(frozen=True)
class Scene:
    """A kind of rig. `disk` turns a directory into the data home, `prepare` follows the start."""

    name: str
    partitions: int = 2
    speed: float = SPEED
    settings: Mapping[str, str] = field(default_factory=dict)
    disk: Callable[[Path], AbstractContextManager[Path]] = _directory
    prepare: Callable[[Rig], Awaitable[None]] = _nothing
    unusable: Callable[[], str | None] = lambda: None

    @asynccontextmanager
    async def rig(self, recording: Iterable[Path]) -> AsyncIterator[Rig]:
        """Start a rig of this kind, and leave nothing behind."""
        with (
            temporary_home() as base,
            tempfile.TemporaryDirectory(prefix="kite-outside-") as outside,
        ):
            home = base / "home"
            home.mkdir(mode=0o755)
            with self.disk(home) as data:
                rig = Rig(
                    data, Path(outside), recording,
                    speed=self.speed, partitions=self.partitions, **self.settings,
                )  # fmt: skip
                async with rig:
                    await self.prepare(rig)
                    yield rig


async def _two_of_each(rig: Rig) -> None:
    for service in CORE:
        rig.twin(service)


PLAIN = Scene("plain")
TWINS = Scene("twins", prepare=_two_of_each)
