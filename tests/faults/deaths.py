"""Deaths at the named moments: one row for each point of `libs.common.failpoints`.

A trial arms a point, sees to it that the point is passed, and counts only what it has seen: the
file that arms it is gone, so some process has reached it and died there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random

from libs.common.failpoints import FAILPOINTS
from tests.faults.rig import Rig
from tests.faults.row import Row, Strike
from tests.faults.scenes import PLAIN, Scene

__all__ = ["DEATH_ROWS"]

# An emptied store takes the rows of the trial before with it: each is judged by itself.
FIRST_STARTS = Scene("first start", trials_max=1)
_AT_START = ("migrate.", "bootstrap.")
_LOADING = ".load.middle"
_SPOOLING = "ingest.spool."


def _row(point: str) -> Row:
    strike, when = _circumstance(point)
    return Row(
        f"failpoint {point}",
        f"a process dies exactly there, {when}",
        strike,
        FIRST_STARTS if point.startswith(_AT_START) else PLAIN,
        misses_input=point.startswith("ingest."),
    )


def _circumstance(point: str) -> tuple[Strike, str]:
    """How to make a process pass this point, and how to say that."""
    if point.startswith(_AT_START):
        return partial(_at_the_first_start, point), "during the first start of an empty store"
    if point.startswith(_SPOOLING):
        return partial(_while_nats_is_silent, point), "while nats-server is stopped"
    if point.endswith(_LOADING):
        return partial(_at_a_restart, point), "on its way back from a kill -9"
    return partial(_at_work, point), "at work"


async def _at_work(point: str, rig: Rig, random: Random) -> int:
    service = point.partition(".")[0]
    pid = rig.pid(service)
    rig.arm(point)
    struck_ms = await rig.reached()
    await rig.replaced(service, pid)
    return struck_ms


async def _at_a_restart(point: str, rig: Rig, random: Random) -> int:
    service = point.partition(".")[0]
    rig.arm(point)
    pid = rig.kill(service)
    struck_ms = await rig.reached()
    await rig.replaced(service, pid)
    return struck_ms


async def _while_nats_is_silent(point: str, rig: Rig, random: Random) -> int:
    pid = rig.pid("ingest")
    async with _silent_nats(rig):
        rig.arm(point)
        await rig.reached()
    healed_ms = rig.now_ms()
    await rig.replaced("ingest", pid)
    return healed_ms


@asynccontextmanager
async def _silent_nats(rig: Rig) -> AsyncIterator[None]:
    pid = rig.pid("nats")
    rig.freeze(pid)
    try:
        yield
    finally:
        rig.thaw(pid)


async def _at_the_first_start(point: str, rig: Rig, random: Random) -> int:
    await rig.empty()
    rig.arm(point)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.start())
        reached = tasks.create_task(rig.reached())
    return reached.result()


# The notifier writes no rows; tests/integration/notifier kills it at its own points. Commands are
# given by nobody here; tests/integration/ingest does, and kills ingest while it takes them.
DEATH_ROWS: tuple[Row, ...] = tuple(
    _row(point) for point in FAILPOINTS if not point.startswith(("notifier.", "ingest.command."))
)
