"""Rows about servers that are away for minutes of the market's time, and about a full spool.

A server is stopped in its tracks, because a killed one is back within a second. At 150 times the
market's pace, ten seconds are 25 minutes: what decides is how much piles up meanwhile, and that
is what a trial waits for. NATS comes back before the supervisor takes it for sick and restarts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import psutil

from libs.common.codec import FRAME_BYTES_MAX
from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.faults.scenes import Scene
from tests.waiting import eventually_async

__all__ = ["ABSENCE_ROWS"]

FELT_WITHIN_S = 120.0
_SPOOL_BYTES = "kite_ingest_spool_bytes"
_BROKER_MS = "kite_ingest_broker_time_ms"
_REFUSED = "kite_ingest_refused_events_total"
# At half this pace the spool would not be full before `kite up` loses patience with a NATS that
# does not answer, and starts another one after half a minute.
SMALL_SPOOL = Scene(
    "small spool",
    speed=150.0,
    settings={"KITE_INGEST_SPOOL_BYTES_MAX": str(FRAME_BYTES_MAX)},
)


@contextmanager
def _frozen(name: str, rig: Rig) -> Iterator[None]:
    """Stop a server with all its children for a while."""
    server = psutil.Process(rig.pid(name))
    family = [server, *server.children(recursive=True)]
    for process in family:
        rig.freeze(process.pid)
    try:
        yield
    finally:
        for process in reversed(family):
            rig.thaw(process.pid)


async def _grown(rig: Rig, name: str, least: int) -> None:
    async def enough() -> bool:
        return await rig.metric("ingest", name) >= least

    await eventually_async(enough, FELT_WITHIN_S, f"{name} is at {least}")


async def _nats_away(rig: Rig, random: Random) -> int:
    """Let ingest's spool grow to a random size, then let NATS come back."""
    before_ms = await rig.metric("ingest", _BROKER_MS)
    with _frozen("nats", rig):
        await _grown(rig, _SPOOL_BYTES, random.randint(1, 48 << 10))
        rig.counts["spooled bytes"] += int(await rig.metric("ingest", _SPOOL_BYTES))
        away_ms = await rig.metric("ingest", _BROKER_MS) - before_ms
    rig.counts["market minutes"] += int(away_ms / 60_000)
    return rig.now_ms()


async def _postgres_away(rig: Rig, random: Random) -> int:
    """Let the market go on for some minutes without the database."""
    with _frozen("postgres", rig):
        await rig.a_moment(random, minutes_max=40)
    return rig.now_ms()


async def _spool_full(rig: Rig, random: Random) -> int:
    """Keep NATS away until the spool refuses more, and some time beyond that."""
    refused = int(await rig.metric("ingest", _REFUSED))
    with _frozen("nats", rig):
        await _grown(rig, _REFUSED, refused + random.randint(1, 400))
    rig.counts["refused"] += int(await rig.metric("ingest", _REFUSED)) - refused
    return rig.now_ms()


async def _spool_cramped(rig: Rig, random: Random) -> int:
    """Let the disk take only some bytes of the spool, in the middle of a record as a rule."""
    ingest = psutil.Process(rig.pid("ingest"))
    _, hard = ingest.rlimit(psutil.RLIMIT_FSIZE)
    ingest.rlimit(psutil.RLIMIT_FSIZE, (random.randint(1 << 10, 24 << 10), hard))
    try:
        return await _spool_full(rig, random)
    finally:
        ingest.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))


ABSENCE_ROWS: tuple[Row, ...] = (
    Row("NATS away", "nats-server stands still until up to 48 KiB wait in ingest's spool",
        _nats_away),
    Row("Postgres away", "every process of Postgres stands still for up to 40 minutes of the "
        "market's time", _postgres_away),
    Row("spool full", "NATS stays away for longer than the spool lasts", _spool_full, SMALL_SPOOL,
        misses_input=True),
    Row("spool cannot grow", "NATS is away, and the disk takes only a part of the spool",
        _spool_cramped, misses_input=True),
)  # fmt: skip
