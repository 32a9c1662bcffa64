"""Rows about the disk: power that is cut, room that runs out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

from cli.recording import CLOCK_FILE_NAME
from tests.faults.disks import LoopDisk
from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.faults.scenes import POWER

__all__ = ["DISK_ROWS"]


def _disk(rig: Rig) -> LoopDisk:
    assert isinstance(rig.disk, LoopDisk), "this row needs a disk of its own"
    return rig.disk


async def _cut_power(rig: Rig, random: Random) -> int:
    """Let the machine lose its power, and start again on what was on the disk in that instant."""
    disk = _disk(rig)
    store = rig.state().store
    assert store is not None
    clock = Path(store, CLOCK_FILE_NAME)
    disk.leave_witness()
    await rig.hold_still()
    try:
        copy = await asyncio.to_thread(disk.copy)
    finally:
        await rig.vanish()
    # The broker did not lose its power: its time is what it was, however little of it was synced.
    await asyncio.to_thread(disk.swap, copy, keep=clock)
    back_ms = rig.now_ms()
    await rig.start()
    return back_ms


DISK_ROWS = (
    Row("power cut", "the machine loses its power: what was not synced is gone, all start again",
        _cut_power, POWER, misses_input=True),
)  # fmt: skip
