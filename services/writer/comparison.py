"""One lane compared: its frames read again, and their rows held against the table.

Two walks go through the lane. The *follower* reads what is new, so that a difference shows soon
however long the stream is. The *sweep* begins at the stream's beginning, ends at what is committed,
and begins anew; it alone finds what changed long after it was written.

Nothing is compared that is not committed: a walk stops at the lane's position. Where it has
arrived, position and rows are read in one snapshot of the database, the walk reads on to exactly
that position, and so the minute that is still open can be compared as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from libs.common import calendar, codec
from libs.common.bus import Bus, Stored, StreamState
from libs.common.errors import CalendarError, SchemaError
from libs.common.events import Frame
from libs.common.runner import Runtime
from libs.common.subjects import frame_subject, partition_of
from services.writer.alarm import Alarm
from services.writer.core import Position
from services.writer.findings import Finding, Lane, of_rows
from services.writer.ledger import ROWS, Difference, Group, Tally, Walk, differences
from services.writer.settings import Settings
from services.writer.stored import StoredRows

__all__ = ["Comparison"]

_BATCH_MESSAGES_MAX = 64
_BATCH_BYTES_MAX = 128 * 1024
# How many minutes of tickers may wait for the database.
_GROUPS_MAX = 1_000


class _AgedError(Exception):
    """What a walk was about to read has left the stream by age: begin anew."""


@dataclass(slots=True)
class _Sweep:
    """One comparison of the whole lane: its number, when it began, how far it is."""

    number: int
    began_s: float
    walk: Walk


class Comparison:
    """Compares one lane, a round at a time, over one incarnation of its stream."""

    def __init__(self, runtime: Runtime[Settings], bus: Bus, alarm: Alarm, lane: Lane) -> None:
        self._runtime = runtime
        self._bus = bus
        self._alarm = alarm
        self._lane = lane
        self._stream, self._partition = lane
        self._subject = frame_subject(*lane)
        # Where only minutes are kept no rows are compared; frames still have to be whole.
        self._rows = ROWS.get(self._stream) if runtime.settings.store == "ticks" else None
        self._bytes_per_s = 1.0
        self._created_ms = 0
        self._follower: Walk | None = None
        self._sweep: _Sweep | None = None

    async def round(self, stored: StoredRows, until_s: float, bytes_per_s: float) -> None:
        """Compare what is new, then sweep on until the time `until_s` of the loop."""
        self._bytes_per_s = bytes_per_s
        position = (await stored.positions()).get(self._lane)
        state = await self._bus.stream(self._stream)
        if position is None or position.created_ms != state.created_ms:
            return  # nothing is written yet, or the stream's shape is what is wrong
        if self._created_ms != state.created_ms:
            self._created_ms, self._follower, self._sweep = state.created_ms, None, None
        try:
            await self._follow(stored, position, until_s)
            await self._sweep_on(stored, state, position, until_s)
        except _AgedError:
            self._follower = self._sweep = None

    # -- the two walks ----------------------------------------------------------------------------

    async def _follow(self, stored: StoredRows, position: Position, until_s: float) -> None:
        walk = self._follower
        number = self._sweep.number if self._sweep is not None else 0
        if walk is not None:
            arrived = await self._walk(stored, walk, position, number, until_s)
            if arrived:
                await self._finish(stored, walk, number)
                return
        # There is none, or it cannot keep up: leave what lies before to the sweep.
        self._follower = Walk(self._rows, first=False, seq=position.seq, n=position.n)

    async def _sweep_on(
        self, stored: StoredRows, state: StreamState, position: Position, until_s: float
    ) -> None:
        now_s = asyncio.get_running_loop().time
        sweep = self._sweep
        if sweep is None:
            walk = await self._beginning(stored, state)
            sweep = _Sweep(self._alarm.next_number(self._lane), now_s(), walk)
            self._sweep = sweep
        if not await self._walk(stored, sweep.walk, position, sweep.number, until_s):
            return
        await self._finish(stored, sweep.walk, sweep.number, strangers=True)
        self._sweep = None
        self._alarm.settle(self._lane, sweep.number)
        self._alarm.swept(self._lane, now_s() - sweep.began_s)

    async def _beginning(self, stored: StoredRows, state: StreamState) -> Walk:
        """Begin where the stream does, or where ticks began to be kept."""
        since = (await stored.ticks_since()).get(self._lane) if self._rows else None
        if since and since.created_ms == state.created_ms and since.seq >= state.first_seq:
            return Walk(self._rows, first=False, seq=since.seq, n=since.n)
        return Walk(self._rows, first=state.first_seq == 1, seq=state.first_seq - 1)

    async def _walk(
        self, stored: StoredRows, walk: Walk, position: Position, number: int, until_s: float
    ) -> bool:
        """Walk to `position`, comparing minutes on the way; tells whether it got there in time."""
        now_s = asyncio.get_running_loop().time
        while walk.seq < position.seq:
            if now_s() >= until_s:
                return False
            bytes_read = await self._step(walk, position, number)
            if walk.groups >= _GROUPS_MAX:
                await self._compare(stored, walk, number)
            await asyncio.sleep(bytes_read / self._bytes_per_s)
        await self._compare(stored, walk, number)
        return True

    async def _step(self, walk: Walk, position: Position, number: int) -> int:
        """Read the next frames, not beyond `position`; returns how many bytes they had."""
        batch = await self._bus.read_many(
            self._stream, self._subject, start_seq=walk.seq + 1,
            messages_max=_BATCH_MESSAGES_MAX, bytes_max=_BATCH_BYTES_MAX,
        )  # fmt: skip
        batch = [message for message in batch if message.seq <= position.seq]
        if not batch:
            await self._missing(walk, position.seq + 1, position.n + 1, number)
            walk.skip(position.seq, position.n)
        for message in batch:
            await self._take(walk, message, number)
            await asyncio.sleep(0)  # a frame is the longest that the lanes wait for us
        if walk.seq == position.seq and position.n and walk.n != position.n:
            facts = {"n": walk.n, "written_n": position.n}
            self._report("frames", f"message {walk.seq} is another frame", facts, number)
        size = sum(len(message.data) for message in batch)
        self._alarm.read(self._lane, size)
        return size

    async def _take(self, walk: Walk, message: Stored, number: int) -> None:
        frame = self._decode(message, number)
        if frame is None:
            walk.skip(message.seq)
            return
        if walk.misses(message.seq, frame.n, sole=self._runtime.settings.partitions == 1):
            await self._missing(walk, message.seq, frame.n, number)
        walk.add(message.seq, frame)
        for ticker, ts_ms in walk.disorder:
            self._report("order", f"{ticker} at {ts_ms} ms", {"seq": message.seq}, number)
        walk.disorder.clear()

    async def _missing(self, walk: Walk, seq: int, n: int, number: int) -> None:
        """Report that frames before `seq` are not there, unless they have left by age meanwhile."""
        state = await self._bus.stream(self._stream)
        if state.first_seq > walk.seq + 1:
            raise _AgedError
        facts = {"after_seq": walk.seq, "before_seq": seq, "after_n": walk.n, "before_n": n}
        self._report("frames", f"between messages {walk.seq} and {seq}", facts, number)

    def _decode(self, message: Stored, number: int) -> Frame | None:
        try:
            return codec.decode_frame(message.data)
        except SchemaError as error:
            self._report("frames", f"message {message.seq}", {"error": str(error)}, number)
            return None

    # -- rows -------------------------------------------------------------------------------------

    async def _compare(self, stored: StoredRows, walk: Walk, number: int) -> None:
        """Compare the minutes that are complete."""
        spans, expected = walk.take()
        if self._rows is None or not spans:
            return
        found = await stored.groups(self._rows, spans)
        await self._judge(stored, expected, found, number)

    async def _finish(
        self, stored: StoredRows, walk: Walk, number: int, *, strangers: bool = False
    ) -> None:
        """Compare the rest of what is committed, at one moment of the database.

        `strangers` looks for rows of tickers, too, that no frame has any of.
        """
        if self._rows is None:
            return
        spans = walk.rest()
        snapshot = await stored.snapshot(
            self._lane, self._rows, spans,
            strangers_from_ms=walk.claims_from_ms if strangers else None,
        )  # fmt: skip
        position = snapshot.position
        if position is None or position.created_ms != self._created_ms:
            return
        while walk.seq < position.seq:
            await self._step(walk, position, number)
        await self._judge(stored, walk.take_rest(spans), snapshot.groups, number)
        phantoms = {
            (ticker, minute_ms): tally
            for (ticker, minute_ms), tally in snapshot.strangers.items()
            if ticker not in walk.tickers
            and partition_of(ticker, self._runtime.settings.partitions) == self._partition
        }
        await self._judge(stored, {}, phantoms, number)

    async def _judge(
        self,
        stored: StoredRows,
        expected: Mapping[Group, Tally],
        found: Mapping[Group, Tally],
        number: int,
    ) -> None:
        assert self._rows is not None
        self._alarm.compared(self._lane, len(expected.keys() | found.keys()))
        differing = differences(expected, found)
        if any(not each.table.count for each in differing):
            differing = await self._still_kept(stored, differing)
        for finding in of_rows(self._lane, self._rows.table, differing):
            self._alarm.report(finding, number)

    async def _still_kept(
        self, stored: StoredRows, differing: list[Difference]
    ) -> list[Difference]:
        """Leave out minutes without rows that lie before the first day which the table keeps."""
        assert self._rows is not None
        first_day = await stored.first_day(self._rows.table)
        return [
            each
            for each in differing
            if each.table.count or first_day is None or not _before(each.minute_ms, first_day)
        ]

    def _report(self, kind: str, place: str, facts: Mapping[str, object], number: int) -> None:
        self._alarm.report(Finding(kind, self._lane, place, facts), number)


def _before(minute_ms: int, first_day: date) -> bool:
    try:
        return calendar.day_of(minute_ms) < first_day
    except CalendarError:
        return False
