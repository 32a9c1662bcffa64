"""Where a run takes place: on which file system, how many partitions, who stands in between."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.faults.detours import Detours
from tests.faults.disks import MIB, Disk, directory, loop_disk, loop_unusable
from tests.faults.planted import planted
from tests.faults.rig import CORE, Rig
from tests.servers import temporary_home

__all__ = ["DETOURED", "PLAIN", "POWER", "SMALL_DISK", "TWINS", "Scene"]

SPEED = 150.0
"""Two stacks side by side on two cores follow, with room for the backlog that a fault leaves.

Each frame is synced to the disk three times, one after the other: at twice this pace a busy machine
needs half a minute for what piled up in ten seconds.
"""


async def _nothing(rig: Rig) -> None:
    """Leave the rig as it started."""


@dataclass(frozen=True)
class Scene:
    """A kind of rig. `disk` turns a directory into the data home, `prepare` follows the start.

    One run in it takes at most `trials_max` faults before its rows are judged. With `detoured`,
    services reach their servers over lines that can break.
    """

    name: str
    partitions: int = 2
    trials_max: int = 24
    speed: float = SPEED
    settings: Mapping[str, str] = field(default_factory=dict)
    disk: Callable[[Path], AbstractContextManager[Disk]] = directory
    prepare: Callable[[Rig], Awaitable[None]] = _nothing
    defect: Path | None = None
    detoured: bool = False
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
            with planted(self.defect) as repository, self.disk(home) as disk:
                rig = Rig(
                    disk, Path(outside), recording, speed=self.speed,
                    partitions=self.partitions, repository=repository,
                    detours=Detours() if self.detoured else None, **self.settings,
                )  # fmt: skip
                async with rig:
                    await self.prepare(rig)
                    yield rig


async def _two_of_each(rig: Rig) -> None:
    for service in CORE:
        rig.twin(service)


PLAIN = Scene("plain")
TWINS = Scene("twins", prepare=_two_of_each)
DETOURED = Scene("detoured", detoured=True)
POWER = Scene("power", disk=partial(loop_disk, 2048 * MIB), unusable=loop_unusable)
SMALL_DISK = Scene("small disk", disk=partial(loop_disk, 600 * MIB), unusable=loop_unusable)
