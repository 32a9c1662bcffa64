"""What a row of the catalogue is.

A fault strikes a running rig once and returns the wall time, in epoch ms, since which the way back
counts: the blow itself if the stack has to get up by itself, or the moment in which the outside
world is well again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from tests.faults.rig import Rig
from tests.faults.scenes import PLAIN, Scene

__all__ = ["Row", "Strike"]

Strike = Callable[[Rig, Random], Awaitable[int]]


@dataclass(frozen=True)
class Row:
    """A fault. `process` rows get more trials; the last two say which oracle judges.

    With `loses_frames` some of the broker's frames never came, and nothing told so but the numbers
    of the bars; such rows have a scene of their own.
    """

    name: str
    what: str
    strike: Strike
    scene: Scene = PLAIN
    process: bool = False
    misses_input: bool = False
    loses_frames: bool = False
