"""Everything at once: frames get lost while the feed stalls and breaks, and ingest dies.

A lost frame is the worst that can happen to input, because nothing says so: the connection stands,
heartbeats come, and the next tick looks like any other. Only the broker's numbers of bars tell, and
its price history.
"""

from __future__ import annotations

from random import Random

from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.faults.scenes import Scene
from tests.faults.wire_faults import IMPATIENT

__all__ = ["LOSSY_ROWS"]

LOSSY = Scene("lossy", settings=IMPATIENT.settings, trials_max=3)
_SHARE_LOST = 0.05
_STALL_EVERY_S, _DROP_EVERY_S = 900.0, 1_500.0
_STALL_S = 1.0
_MINUTES_MAX = 25


async def _everything(rig: Rig, random: Random) -> int:
    """Lose a frame in twenty for up to an hour of the market, in which ingest dies up to twice."""
    before = await rig.broker_struck()
    await rig.broker_faults(
        share={"lost_frame": _SHARE_LOST},
        every_s={"stall": _STALL_EVERY_S, "drop": _DROP_EVERY_S},
        stall_s=_STALL_S,
    )
    try:
        for _ in range(random.randint(1, 2)):
            await rig.a_moment(random, minutes_max=_MINUTES_MAX)
            pid = rig.kill("ingest")
            await rig.replaced("ingest", pid)
        await rig.trading_goes_on(minutes=random.randint(5, _MINUTES_MAX))
        struck = await rig.broker_struck()
    finally:
        await rig.broker_well()
    lost = struck.get("lost_frame", 0) - before.get("lost_frame", 0)
    assert lost, "no frame was lost"
    rig.counts["lost frames"] += lost
    return rig.now_ms()


LOSSY_ROWS: tuple[Row, ...] = (
    Row("a lossy feed", "one frame in twenty is lost, the feed stalls and breaks, ingest dies",
        _everything, LOSSY, misses_input=True, loses_frames=True),
)  # fmt: skip
