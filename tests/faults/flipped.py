"""One bit that turns over in a stream's file: the reconciler must raise its alarm within a minute.

A strike flips a random bit of a random file of MARKET, INDICATORS or SIGNALS under the running
server, waits for the alarm, and flips the bit back, after which the alarm must end. The recovery of
this row is the time until the alarm. Nothing restarts meanwhile, so no service reads the damage.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.waiting import eventually_async

__all__ = ["FLIPPED_ROWS"]

ALARM_WITHIN_S = 60.0
MENDED_WITHIN_S = 120.0
_STREAMS = ("MARKET", "INDICATORS", "SIGNALS")
_STANDING = "kite_writer_reconcile_mismatches"


async def _flip(rig: Rig, random: Random) -> int:
    path = random.choice(sorted(_files(rig)))
    offset, bit = random.randrange(path.stat().st_size), 1 << random.randrange(8)
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


async def _stands(rig: Rig) -> bool:
    return await rig.metric("writer", _STANDING) > 0


async def _is_over(rig: Rig) -> bool:
    return await rig.metric("writer", _STANDING) == 0


FLIPPED_ROWS = (
    Row(
        "flipped bit",
        "a bit of a stream's file turns over; the alarm must come within 60 s, and end with it",
        _flip,
    ),
)
