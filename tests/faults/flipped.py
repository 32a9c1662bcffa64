"""One bit that turns over in a stream's file: the reconciler must raise its alarm within a minute.

A strike flips a random bit of a random file of MARKET, INDICATORS or SIGNALS under the running
server, waits for the alarm, and flips the bit back, after which the alarm must end. The recovery of
this row is the time until the alarm. Nothing restarts meanwhile, so no service reads the damage.

The bit lies in what the reconciler has compared at least once. In younger records a bit of the
head or of the server's own checksum shows only when the server reads its file again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.faults.scenes import Scene
from tests.waiting import eventually_async

__all__ = ["FLIPPED_ROWS"]

COMPARED_WITHIN_S = 90.0
ALARM_WITHIN_S = 60.0
MENDED_WITHIN_S = 120.0
_STREAMS = ("MARKET", "INDICATORS", "SIGNALS")
_ROUND_S = 20.0  # KITE_WRITER_RECONCILE_INTERVAL_S, where nobody sets it
_STANDING = "kite_writer_reconcile_mismatches"


async def _flip(rig: Rig, random: Random) -> int:
    path = random.choice(sorted(_files(rig)))
    offset, bit = random.randrange(path.stat().st_size), 1 << random.randrange(8)
    await eventually_async(
        partial(_compared, rig, rig.now_ms() / 1000), COMPARED_WITHIN_S, "two further comparisons"
    )
    flipped_ms = rig.now_ms()
    _turn_over(path, offset, bit)
    try:
        await eventually_async(
            lambda: _stands(rig), ALARM_WITHIN_S, f"an alarm for bit {bit} at {offset} of {path}"
        )
        alarm_ms = rig.now_ms() - flipped_ms
    finally:
        _turn_over(path, offset, bit)
    await eventually_async(lambda: _is_over(rig), MENDED_WITHIN_S, "the alarm has ended")
    return rig.now_ms() - alarm_ms


def _files(rig: Rig) -> list[Path]:
    return [
        path
        for stream in _STREAMS
        for path in rig.home.root.glob(f"csv/*/nats/**/streams/{stream}/msgs/*.blk")
        if path.stat().st_size
    ]


def _turn_over(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (value,) = file.read(1)
        file.seek(offset)
        file.write(bytes([value ^ bit]))


async def _compared(rig: Rig, since_s: float) -> bool:
    """Whether each lane was compared from end to end in a round that began later."""
    lanes = len(_STREAMS) * rig.partitions
    swept = await rig.metric("writer", "kite_writer_reconcile_sweep_timestamp_seconds")
    return swept / lanes > since_s + _ROUND_S


async def _stands(rig: Rig) -> bool:
    return await rig.metric("writer", _STANDING) > 0


async def _is_over(rig: Rig) -> bool:
    return await rig.metric("writer", _STANDING) == 0


FLIPPED_ROWS = (
    Row(
        "flipped bit",
        "a bit of a stream's file turns over; the alarm must come within 60 s, and end with it",
        _flip,
        Scene("slow", speed=30.0, trials_max=6),
    ),
)
