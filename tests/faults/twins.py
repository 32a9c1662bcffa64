"""Two instances of a service: zombies, whose stale writes must be refused, and deaths of one.

A zombie is made on purpose. Stopped by a signal from outside, a process mostly notices on waking
that its lease is over, and writes nothing. So it is also told to stop itself at the point right
before a write: that write has to come when the process wakes, its twin has made it long ago, and
the trial passes only if a fence has refused it.
"""

from __future__ import annotations

from functools import partial
from random import Random

import psutil

from libs.common.failpoints import STOP
from tests.faults.rig import CORE, Rig
from tests.faults.row import Row
from tests.faults.scenes import TWINS
from tests.waiting import eventually_async

__all__ = ["TWIN_ROWS", "kill_one_of_two"]

_WAKES_WITHIN_S = 60.0
_BEFORE_A_WRITE = {
    "indicators": "indicators.publish.before",
    "signals": "signals.publish.before",
    "writer": "writer.transaction.before",
}


def _rows() -> list[Row]:
    """List the rows of each service that may run twice."""
    rows = []
    for service in CORE:
        rows += [
            Row(f"zombie {service}",
                f"{service} stops right before a write, and goes on when its twin has made it",
                partial(_stale_write, service), TWINS),
            Row(f"frozen {service}",
                f"{service} is stopped at a random instant until its twin has taken over",
                partial(_frozen, service), TWINS),
            Row(f"one of two: {service}", f"one of two instances of {service} dies",
                partial(kill_one_of_two, service), TWINS),
        ]  # fmt: skip
    return rows


async def _stale_write(service: str, rig: Rig, random: Random) -> int:
    instances = (rig.twin(service).pid, rig.pid(service))
    before = await rig.fenced(service)
    rig.arm(_BEFORE_A_WRITE[service], STOP)
    await rig.reached()
    zombie = await eventually_async(
        partial(_stopped, instances), _WAKES_WITHIN_S, f"one {service} has stopped itself"
    )
    assert zombie is not None
    await _while_the_twin_works(zombie, rig, random)
    woken_ms = rig.now_ms()

    async def refused() -> int:
        return max(0, await rig.fenced(service) - before)  # one that died counts from nothing

    rig.counts["fenced"] += await eventually_async(
        refused, _WAKES_WITHIN_S, f"the stale write of {service} is refused"
    )
    return woken_ms


async def _frozen(service: str, rig: Rig, random: Random) -> int:
    frozen = random.choice((rig.twin(service).pid, rig.pid(service)))
    before = await rig.fenced(service)
    rig.freeze(frozen)
    await _while_the_twin_works(frozen, rig, random)
    woken_ms = rig.now_ms()
    await rig.caught_up(woken_ms)
    rig.counts["fenced"] += await rig.fenced(service) - before
    return woken_ms


async def _while_the_twin_works(pid: int, rig: Rig, random: Random) -> None:
    """Wait until the other one does all the work, let that go on, and wake the stopped one."""
    try:
        await rig.caught_up(rig.now_ms())
        await rig.a_moment(random)
    finally:
        rig.thaw(pid)


async def kill_one_of_two(service: str, rig: Rig, random: Random) -> int:
    """Let one of two instances die; it comes back when the other has caught up alone."""
    twin = rig.twin(service)
    struck_ms = rig.now_ms()
    if random.random() < 0.5:
        twin.kill()
        await rig.caught_up(struck_ms)
        twin.start()
    else:
        pid = rig.kill(service)
        await rig.caught_up(struck_ms)
        await rig.replaced(service, pid)
    return struck_ms


def _stopped(pids: tuple[int, ...]) -> int | None:
    for pid in pids:
        if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            return pid
    return None


TWIN_ROWS: tuple[Row, ...] = tuple(_rows())
