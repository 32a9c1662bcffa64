"""Two instances of everything on 1, 2, 4 and 8 partitions: who works, and what becomes of a death.

Strikes hit the instance that owns most, so each trial is a real hand-over. It counts how many
partitions had to change hands, and how many the other instance had of its own at that time: only
where that is above 0 did the two share the work.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from random import Random

from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.faults.scenes import TWINS, Scene
from tests.waiting import eventually_async

__all__ = ["SCALE_ROWS"]

PARTITIONS = (1, 2, 4, 8)
OWNED_WITHIN_S = 20.0
_OWNERS = ("indicators", "signals")
_OWNED = "kite_partitions_owned"


def _row(partitions: int) -> Row:
    return Row(
        f"scale {partitions}: one of two dies",
        f"the instance that owns most of {partitions} partitions of indicators or signals dies",
        partial(_kill_the_owner, partitions),
        _scene(partitions),
    )


def _scene(partitions: int) -> Scene:
    return dataclasses.replace(TWINS, name=f"scale {partitions}", partitions=partitions)


async def _kill_the_owner(partitions: int, rig: Rig, random: Random) -> int:
    service = random.choice(_OWNERS)
    twin = rig.twin(service)
    owned = await eventually_async(
        lambda: _all_owned(service, partitions, rig), OWNED_WITHIN_S, "each partition has an owner"
    )
    assert owned is not None
    supervised, twins = owned
    rig.counts["partitions taken over"] += max(supervised, twins)
    rig.counts["partitions of the other"] += min(supervised, twins)
    struck_ms = rig.now_ms()
    if twins > supervised:
        twin.kill()
        await rig.caught_up(struck_ms)
        twin.start()
    else:
        pid = rig.kill(service)
        await rig.caught_up(struck_ms)
        await rig.replaced(service, pid)
    return struck_ms


async def _all_owned(service: str, partitions: int, rig: Rig) -> tuple[int, int] | None:
    """Return how many each of the two owns, once these are all partitions."""
    supervised, twins = map(int, await rig.metric_of_all(service, _OWNED))
    return (supervised, twins) if supervised + twins == partitions else None


SCALE_ROWS: tuple[Row, ...] = tuple(_row(partitions) for partitions in PARTITIONS)
