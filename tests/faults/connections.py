"""Rows about connections: answers that never arrive, and lines that fall silent.

Each lies in wait on the line between one service and one server until the server has done what it
was asked for and says so; the service never hears that. The trial fails unless it happened.
"""

from __future__ import annotations

from functools import partial
from random import Random

from tests.faults.lines import COMMITTED, Blow, Line, stored_in
from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.faults.scenes import DETOURED, Scene
from tests.waiting import eventually_async

__all__ = ["CONNECTION_ROWS"]

STRUCK_WITHIN_S = 120.0
# The writer gives up a silent connection ten seconds after its statements' own limit.
IMPATIENT_WRITER = Scene(
    "impatient writer", detoured=True, settings={"KITE_WRITER_STATEMENT_TIMEOUT_S": "3"}
)

_PUBLISHES = {
    "ingest": ("MARKET",),
    "indicators": ("INDICATORS", "STATE"),
    "signals": ("SIGNALS", "STATE"),
}


async def _withhold(line: Line, answer: bytes, blow: Blow, rig: Rig) -> int:
    """Wait until one answer was withheld; the way back begins there."""
    ambush = line.ambush(answer, blow)
    await eventually_async(lambda: ambush.struck, STRUCK_WITHIN_S, f"the server said {answer!r}")
    rig.counts["withheld"] += ambush.struck
    return rig.now_ms()


async def _commit(blow: Blow, rig: Rig, random: Random) -> int:
    return await _withhold(rig.detours.postgres, COMMITTED, blow, rig)


async def _publish(service: str, blow: Blow, rig: Rig, random: Random) -> int:
    stream = random.choice(_PUBLISHES[service])
    return await _withhold(rig.detours.nats[service], stored_in(stream), blow, rig)


async def _silence(service: str, rig: Rig, random: Random) -> int:
    """Let one direction of a service's connection to NATS go nowhere, or both, for good."""
    to_server, to_client = random.choice(((True, False), (False, True), (True, True)))
    struck = rig.detours.nats[service].silence(to_server=to_server, to_client=to_client)
    assert struck, f"{service} has no connection to NATS"
    rig.counts["silenced"] += struck
    return rig.now_ms()


def _rows() -> list[Row]:
    rows = [
        Row("ambiguous commit", "Postgres has committed, and the connection breaks before the "
            "writer hears it", partial(_commit, "cut"), DETOURED),
        Row("half-open commit", "Postgres has committed, and from then on the writer's connection "
            "stands in silence", partial(_commit, "silence"), IMPATIENT_WRITER),
    ]  # fmt: skip
    for service in _PUBLISHES:
        rows += [
            Row(f"ambiguous publish: {service}",
                f"NATS has stored a message, and the connection breaks before {service} hears it",
                partial(_publish, service, "cut"), DETOURED),
            Row(f"half-open publish: {service}",
                f"NATS has stored a message, and from then on {service}'s connection stands in "
                "silence", partial(_publish, service, "silence"), DETOURED),
        ]  # fmt: skip
    rows += [
        Row(f"half-open: {service}", f"{service}'s connection to NATS stands, and one direction "
            "of it or both lead nowhere", partial(_silence, service), DETOURED)
        for service in (*_PUBLISHES, "writer")
    ]  # fmt: skip
    return rows


CONNECTION_ROWS: tuple[Row, ...] = tuple(_rows())
