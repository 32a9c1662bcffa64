"""Two instances of everything on 1, 2, 4 and 8 partitions: who works, and what becomes of a death.

A trial begins when the two share the work evenly. Then one of them dies, and the other has to do
all of it; what died comes back and gets its share again before the next trial. So the recovery of
these rows is the time that it takes to take partitions over.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from random import Random

from tests.faults.rig import CORE, Rig
from tests.faults.row import Row
from tests.faults.scenes import TWINS
from tests.waiting import eventually_async

__all__ = ["SCALE_ROWS"]

PARTITIONS = (1, 2, 4, 8)
SHARED_WITHIN_S = 120.0
_OWNED = {"writer": "kite_writer_lanes_owned"}
_STREAMS_OF_WRITER = 3


def _row(partitions: int) -> Row:
    return Row(
        f"scale {partitions}: one of two dies",
        f"two instances share {partitions} partitions evenly, and one of them dies",
        partial(_one_dies, partitions),
        dataclasses.replace(
            TWINS,
            name=f"scale {partitions}",
            partitions=partitions,
            # Each heartbeat is a frame in every partition, and the disk syncs each of them thrice.
            speed=min(TWINS.speed, 2 * TWINS.speed / partitions),
        ),
    )


async def _one_dies(partitions: int, rig: Rig, random: Random) -> int:
    service = random.choice(CORE)
    twin = rig.twin(service)
    shares = await eventually_async(
        partial(_even_shares, service, partitions, rig),
        SHARED_WITHIN_S,
        f"two instances of {service} share the work",
    )
    assert shares is not None
    supervised, twins = shares
    twin_dies = twins > supervised or (twins == supervised and random.random() < 0.5)
    rig.counts["taken over"] += twins if twin_dies else supervised
    rig.counts["kept"] += supervised if twin_dies else twins
    struck_ms = rig.now_ms()
    if twin_dies:
        twin.kill()
    else:
        rig.kill(service)
    return struck_ms


async def _even_shares(service: str, partitions: int, rig: Rig) -> tuple[int, int] | None:
    """Return what the supervised instance and its twin hold, once that is all, and even."""
    name = _OWNED.get(service, "kite_partitions_owned")
    supervised, twins = map(int, await rig.metric_of_all(service, name))
    everything = partitions * (_STREAMS_OF_WRITER if service == "writer" else 1)
    even = supervised + twins == everything and abs(supervised - twins) <= 1
    return (supervised, twins) if even else None


SCALE_ROWS: tuple[Row, ...] = tuple(_row(partitions) for partitions in PARTITIONS)
