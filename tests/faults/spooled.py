"""The row about the spool's own promise: what is in it outlives ingest.

A gap would explain ticks that went lost with the spool, so the ordinary judge cannot see them: this
row itself holds what was in the spool against the rows.
"""

from __future__ import annotations

import asyncio
from random import Random

from tests.faults.ledger import read_ledger
from tests.faults.oracle import TICKS
from tests.faults.rig import Rig
from tests.faults.row import Row
from tests.waiting import eventually_async

__all__ = ["SPOOL_ROWS"]

SPOOLED_WITHIN_S = 120.0
_SPOOL_BYTES = "kite_ingest_spool_bytes"
_BROKER_MS = "kite_ingest_broker_time_ms"
_SPOOLED_BYTES_MIN, _SPOOLED_BYTES_MAX = 8 << 10, 64 << 10
# A tick is sent up to some seconds after its trade.
_SENT_AFTER_MS_MAX = 20_000


async def _outlived(rig: Rig, random: Random) -> int:
    """Stop nats-server until the spool has grown, kill ingest, and let both come back."""
    wanted = random.randint(_SPOOLED_BYTES_MIN, _SPOOLED_BYTES_MAX)
    ingest, nats = rig.pid("ingest"), rig.pid("nats")

    async def spooled() -> bool:
        return await rig.metric("ingest", _SPOOL_BYTES) >= wanted

    rig.freeze(nats)
    try:
        from_ms = int(await rig.metric("ingest", _BROKER_MS))
        await eventually_async(spooled, SPOOLED_WITHIN_S, f"{wanted} bytes are in the spool")
        to_ms = int(await rig.metric("ingest", _BROKER_MS)) - _SENT_AFTER_MS_MAX
        rig.kill("ingest")
    finally:
        rig.thaw(nats)
    healed_ms = rig.now_ms()
    await rig.replaced("ingest", ingest)
    await rig.caught_up(healed_ms)
    await _all_stored(rig, from_ms, to_ms)
    return healed_ms


async def _all_stored(rig: Rig, from_ms: int, to_ms: int) -> None:
    """Raise AssertionError if a tick that was sent in this time is not stored."""
    stored = {(row[0], row[1]) for row in await rig.watch.read(TICKS)}
    sent = await asyncio.to_thread(read_ledger, rig.ledger_file)
    spooled = [
        (ticker, ts_ms)
        for ticker, ticks in sent.items()
        for ts_ms, tick in ticks.items()
        if from_ms <= ts_ms < to_ms and not tick.image
    ]
    lost = [each for each in spooled if each not in stored]
    assert spooled, "nothing was sent while the spool grew"
    assert not lost, f"{len(lost)} of {len(spooled)} ticks in the spool are not stored: {lost[:3]}"
    rig.counts["spooled"] += len(spooled)


SPOOL_ROWS = (
    Row("kill -9 ingest with a spool", "nats-server stands, and ingest dies with frames in its "
        "spool", _outlived, misses_input=True),
)  # fmt: skip
