"""The catalogue of faults, one row for each; what `make faults` runs and the page lists.

What a row is stands in `row`; families of rows that need more than a line each have modules of
their own.
"""

from __future__ import annotations

from functools import partial
from random import Random

from tests.faults.absences import ABSENCE_ROWS
from tests.faults.connections import CONNECTION_ROWS
from tests.faults.deaths import DEATH_ROWS
from tests.faults.disk_faults import DISK_ROWS
from tests.faults.flipped import FLIPPED_ROWS
from tests.faults.lossy import LOSSY_ROWS
from tests.faults.rig import CORE, SERVERS, SERVICES, UP_WITHIN_S, Rig
from tests.faults.row import Row
from tests.faults.scale import SCALE_ROWS
from tests.faults.spooled import SPOOL_ROWS
from tests.faults.twins import TWIN_ROWS
from tests.faults.wire_faults import WIRE_ROWS
from tests.waiting import eventually_async

__all__ = ["ROWS", "Row"]


# -- kill -9 ---------------------------------------------------------------------------------------


async def _kill(name: str, rig: Rig, random: Random) -> int:
    struck_ms = rig.now_ms()
    pid = rig.kill(name)
    await rig.replaced(name, pid)
    return struck_ms


async def _kill_some(rig: Rig, random: Random) -> int:
    """Kill two to four processes within a moment, the simulator excepted."""
    names = random.sample((*SERVICES, *SERVERS), random.randint(2, 4))
    struck_ms = rig.now_ms()
    pids = {name: rig.kill(name) for name in names}
    for name, pid in pids.items():
        await rig.replaced(name, pid)
    return struck_ms


async def _kill_everything(rig: Rig, random: Random) -> int:
    """Kill every process in one go, the supervisor too, and start again."""
    struck_ms = rig.now_ms()
    await rig.vanish()
    await rig.start()
    return struck_ms


async def _roll(names: tuple[str, ...], rig: Rig, random: Random) -> int:
    """Restart one after the other in a random order."""
    struck_ms = rig.now_ms()
    for name in random.sample(names, len(names)):
        struck_ms = rig.now_ms()
        await rig.restart(name)
    return struck_ms


async def _kill_gateway(rig: Rig, random: Random) -> int:
    """Recovery is over when the page that was open is told ticks again."""
    struck_ms = rig.now_ms()
    pid = rig.kill("gateway")
    await rig.replaced("gateway", pid)
    told = rig.page.told  # what the old one sent is read by now
    await eventually_async(lambda: rig.page.told > told, UP_WITHIN_S, "the page is told ticks")
    return struck_ms


def _kills() -> list[Row]:
    rows = [
        Row(f"kill -9 {name}", f"{name} dies at a random instant", partial(_kill, name),
            process=True, misses_input=name in ("ingest", "simulator"))
        for name in (*SERVICES, *SERVERS) if name != "gateway"
    ]  # fmt: skip
    return [
        *rows,
        Row("kill -9 gateway", "the gateway dies at a random instant, and a page is open",
            _kill_gateway, process=True),
        Row("kill -9 several", "two to four processes die in one moment", _kill_some,
            misses_input=True),
        Row("kill -9 everything", "all processes and the supervisor die, then all start again",
            _kill_everything, misses_input=True),
        Row("rolling restart", "the core services are restarted one after the other under load",
            partial(_roll, CORE)),
        Row("rolling restart with ingest", "ingest is restarted, too",
            partial(_roll, SERVICES), misses_input=True),
    ]  # fmt: skip


ROWS: tuple[Row, ...] = (
    *_kills(),
    *DEATH_ROWS,
    *TWIN_ROWS,
    *SCALE_ROWS,
    *DISK_ROWS,
    *FLIPPED_ROWS,
    *CONNECTION_ROWS,
    *ABSENCE_ROWS,
    *SPOOL_ROWS,
    *WIRE_ROWS,
    *LOSSY_ROWS,
)
