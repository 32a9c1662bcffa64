"""Rows about the disk: power that is cut, room that runs out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from random import Random

from cli.recording import CLOCK_FILE_NAME
from tests.faults.disks import MIB, LoopDisk
from tests.faults.rig import SERVERS, SERVICES, UP_WITHIN_S, Rig
from tests.faults.row import Row
from tests.faults.scenes import POWER, SMALL_DISK
from tests.waiting import eventually_async

__all__ = ["DISK_ROWS"]

FIRST_START_BYTES = 150 * MIB
LEFT_BYTES_MAX = 1 << 20
FELT_WITHIN_S = 300.0  # the market fills it, at the pace of the scene
MINUTES_MAX = 20
_WELL = frozenset({"running", "starting"})


def _disk(rig: Rig) -> LoopDisk:
    assert isinstance(rig.disk, LoopDisk), "this row needs a disk of its own"
    return rig.disk


async def _cut_power(rig: Rig, random: Random) -> int:
    """Let the machine lose its power, and start again on what was on the disk in that instant."""
    await _lose_power(rig)
    back_ms = rig.now_ms()
    await rig.start()
    return back_ms


async def _cut_power_while_frames_wait(rig: Rig, random: Random) -> int:
    """Cut it while nats-server hangs, so that what arrives is on its way to ingest's spool."""
    pid = rig.pid("nats")
    rig.freeze(pid)
    try:
        await eventually_async(partial(_spools, rig), FELT_WITHIN_S, "frames wait in the spool")
        await rig.trading_goes_on(random.uniform(0.1, MINUTES_MAX))
        await _lose_power(rig)
    finally:
        rig.thaw(pid)
    back_ms = rig.now_ms()
    await rig.start()
    return back_ms


async def _spools(rig: Rig) -> bool:
    return await rig.metric("ingest", "kite_ingest_spool_bytes") > 0


async def _cut_power_at_the_first_start(rig: Rig, random: Random) -> int:
    """Cut it while the very first start makes everything: programs, passwords, stores, tables."""
    disk = _disk(rig)
    await rig.empty()
    goal_bytes = disk.written_bytes + random.randrange(FIRST_START_BYTES)
    starting = asyncio.create_task(rig.start())
    await eventually_async(
        lambda: starting.done() or disk.written_bytes >= goal_bytes, UP_WITHIN_S, "much is written"
    )
    await _lose_power(rig)
    with suppress(AssertionError):  # it did not live to be ready
        await starting
    back_ms = rig.now_ms()
    await rig.start()
    return back_ms


async def _lose_power(rig: Rig) -> None:
    disk = _disk(rig)
    disk.leave_witness()
    await rig.hold_still()
    try:
        copy = await asyncio.to_thread(disk.copy)
    finally:
        await rig.vanish()
    # The broker did not lose its power: its time is what it was, however little of it was synced.
    clock = rig.home.root.glob(f"csv/*/{CLOCK_FILE_NAME}")
    await asyncio.to_thread(disk.swap, copy, keep=list(clock))


async def _fill(rig: Rig, random: Random) -> int:
    """Leave no room, or hardly any, until ingest has to refuse what it hears; then give it back."""
    await _without_room(rig, random, ())
    return rig.now_ms()


async def _fill_and_kill(rig: Rig, random: Random) -> int:
    """Let a process die, too, while there is no room for it to start again."""
    await _without_room(rig, random, random.sample((*SERVICES, *SERVERS), 1))
    return rig.now_ms()


async def _without_room(rig: Rig, random: Random, dying: Iterable[str]) -> None:
    disk = _disk(rig)
    await asyncio.to_thread(disk.fill, random.choice((0, random.randrange(LEFT_BYTES_MAX))))
    try:
        for name in dying:
            rig.kill(name)
        await eventually_async(partial(_is_felt, rig), FELT_WITHIN_S, "somebody feels the lack")
        await rig.trading_goes_on(random.uniform(1, MINUTES_MAX))
    finally:
        await asyncio.to_thread(disk.free)


def _is_felt(rig: Rig) -> bool:
    """Whether a server or the writer says that it cannot work."""
    state = rig.state()
    entries = (*state.servers.values(), state.services["writer"])
    return any(entry.state not in _WELL for entry in entries)


DISK_ROWS = (
    Row("power cut", "the machine loses its power: what was not synced is gone, all start again",
        _cut_power, POWER, misses_input=True),
    Row("power cut at the first start", "the power goes while the store is being made",
        _cut_power_at_the_first_start, POWER, misses_input=True),
    Row("power cut while frames wait", "the power goes while nats-server hangs and the spool fills",
        _cut_power_while_frames_wait, POWER, misses_input=True),
    Row("disk full", "there is no room for anything for minutes of trading, then there is again",
        _fill, SMALL_DISK, misses_input=True),
    Row("disk full and a death", "while there is no room, a process dies, too",
        _fill_and_kill, SMALL_DISK, misses_input=True),
)  # fmt: skip
