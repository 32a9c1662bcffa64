"""Frames to MARKET: numbered, fenced, in order, and through the spool while the bus is away.

Theory of operation. `offer` numbers the frames of one step and puts them into memory; `run` sends
what is pending, all partitions at once, each partition's frames one after another. Every publish
names the partition's last sequence, so nobody else can have written in between. As soon as a
publish fails or takes too long, everything pending moves to the spool and `offer` goes on there;
`run` then finds out what the stream really holds and drains the spool from the front, dropping what
was stored after all. When the spool is empty, frames go through memory again.

On doubt the last stored frame decides: ours means stored, the one before means send again, a newer
epoch means that another ingest took over (`TakenOver`).

Concurrency: everything runs on one loop; only `Spool.sync` uses a thread.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from libs.common import failpoints, subjects
from libs.common.bus import Bus
from libs.common.errors import BusError, PositionError
from libs.common.events import Event
from libs.common.runner import Backoff
from services.ingest.frames import Router, encoded
from services.ingest.positions import Position, judge, stored_frame
from services.ingest.spool import Record, Spool, SpoolFull

__all__ = ["MEMORY_BYTES_MAX", "MEMORY_FRAMES_MAX", "Publisher"]

MEMORY_FRAMES_MAX = 1_000
MEMORY_BYTES_MAX = 8 << 20
_BATCH_FRAMES_MAX = 64
_BATCH_BYTES_MAX = 32 << 10
_SYNC_PAUSE_S = 0.02
_SYNC_RETRY_S = 1.0


class _Waiting(Struct, frozen=True):
    """A frame in memory, and since when (event loop's time)."""

    since_s: float
    record: Record


class Publisher:
    """Sends frames of all partitions; `positions` are what the stream holds."""

    def __init__(
        self,
        bus: Bus,
        spool: Spool,
        positions: dict[int, Position],
        *,
        stream_created_ms: int,
        spill_after_s: float,
        on_away: Callable[[str], None],
        on_back: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._spool = spool
        self._positions = positions
        self._created_ms = stream_created_ms
        self._spill_after_s = spill_after_s
        self._on_away = on_away
        self._on_back = on_back
        self._router = Router(len(positions))
        self._assigned = {partition: place.n for partition, place in positions.items()}
        self._memory: deque[_Waiting] = deque()
        self._memory_bytes = 0
        self._away = False
        self._in_doubt = True  # until the first look at the stream
        self._pending = asyncio.Event()
        self._settled = asyncio.Event()
        self._unsynced = asyncio.Event()
        self.epoch = 1 + max(place.epoch for place in positions.values())
        self._take_over_spool()

    # -- what others may ask --

    @property
    def spool_bytes(self) -> int:
        """What waits in the spool."""
        return self._spool.used_bytes

    @property
    def idle(self) -> bool:
        """Whether everything offered is stored."""
        return not self._memory and self._spool.empty

    @property
    def away(self) -> bool:
        """Whether frames go through the spool."""
        return self._away

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return len(self._positions)

    def begin_epoch(self, at_least: int) -> None:
        """Number the frames from now on with a new epoch, not below `at_least`."""
        self.epoch = max(self.epoch, at_least)

    def position(self, partition: int) -> Position:
        """Return what the stream holds of a partition."""
        return self._positions[partition]

    def offer(self, events: Iterable[Event], sent_ms: int, received_ms: int) -> bool:
        """Take events to publish, all or none; False when neither memory nor disk has room."""
        records: list[Record] = []
        assigned = dict(self._assigned)
        for partition, groups in self._router.split(events).items():
            for group in groups:
                for data in encoded(
                    group,
                    epoch=self.epoch,
                    n=assigned[partition] + 1,
                    sent_ms=sent_ms,
                    received_ms=received_ms,
                ):
                    assigned[partition] += 1
                    records.append(Record(partition, self.epoch, assigned[partition], data))
        if not self._keep(records):
            return False
        self._assigned = assigned
        self._settled.clear()
        self._pending.set()
        return True

    # -- sending --

    async def run(self) -> None:
        """Send until cancelled; raises TakenOver or PositionError."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sync_groups())
            tasks.create_task(self._send_for_ever())

    async def settle(self) -> None:
        """Wait, while `run` works, until everything that was offered or spooled is stored."""
        await self._settled.wait()

    async def drain(self, deadline_s: float) -> None:
        """Wait until everything is stored, at most so long; the rest is safe on disk then."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._settled.wait()
        except TimeoutError:
            self._spill()
        await asyncio.to_thread(self._spool.sync)

    async def _send_for_ever(self) -> None:
        backoff = Backoff(0.05, 2.0)
        while True:
            await self._pending.wait()
            batch = self._batch()
            if not batch:
                self._pending.clear()
                self._settled.set()
                continue
            try:
                if self._in_doubt:
                    await self._resync()
                await self._send(batch)
            except (BusError, TimeoutError) as error:
                self._in_doubt = True
                self._go_away(f"{type(error).__name__}: {error}")
                self._release()
                await asyncio.sleep(backoff.next_s())
            else:
                self._release()
                backoff.reset()

    def _batch(self) -> list[Record]:
        if self._away:
            if self._spool.empty and not self._memory:
                self._away = False
                self._on_back()
            elif not self._spool.empty:
                return self._spool.peek(_BATCH_BYTES_MAX)
        return [waiting.record for waiting in itertools.islice(self._memory, _BATCH_FRAMES_MAX)]

    async def _send(self, batch: list[Record]) -> None:
        """Publish a batch: partitions side by side, the frames of each in order."""
        lanes: dict[int, list[Record]] = {}
        for record in batch:
            lanes.setdefault(record.partition, []).append(record)
        results = await asyncio.gather(
            *(self._send_lane(partition, lane) for partition, lane in lanes.items()),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send_lane(self, partition: int, records: list[Record]) -> None:
        place = self._positions[partition]
        subject = subjects.frame_subject(subjects.MARKET, partition)
        for record in records:
            if record.n <= place.n:
                continue
            failpoints.reach("ingest.publish.before")
            async with asyncio.timeout(self._spill_after_s):
                place.seq = await self._bus.publish(
                    subject, record.data, expected_last_seq=place.seq
                )
            failpoints.reach("ingest.publish.stored")
            place.n, place.epoch = record.n, record.epoch

    def _release(self) -> None:
        """Let go of what is stored; it may have moved from memory to the spool meanwhile."""
        while self._memory and self._is_stored(self._memory[0].record):
            self._memory_bytes -= self._memory.popleft().record.size
        if not self._spool.empty:
            done = []
            for record in self._spool.peek(_BATCH_BYTES_MAX):
                if not self._is_stored(record):
                    break
                done.append(record)
            self._spool.release(done)

    def _is_stored(self, record: Record) -> bool:
        return record.n <= self._positions[record.partition].n

    # -- doubt --

    async def _resync(self) -> None:
        """Learn what the stream really holds; raises TakenOver, PositionError, BusUnavailable."""
        stream = await self._bus.stream(subjects.MARKET)
        if stream.created_ms != self._created_ms:
            raise PositionError(
                f"stream {subjects.MARKET} was made anew while ingest was running; start ingest "
                "with an empty store"
            )
        for partition, place in self._positions.items():
            stored = await stored_frame(self._bus, partition)
            if stored is None:
                place.seq = 0  # all of it has aged out; the numbers go on
                continue
            in_memory = (waiting.record for waiting in self._memory)
            pending = itertools.chain(self._spool.all(), in_memory)
            judge(partition, place, stored, pending, self.epoch)
            found = stored.position
            place.n, place.epoch, place.seq = found.n, found.epoch, found.seq
        self._in_doubt = False

    # -- memory and spool --

    def _keep(self, records: list[Record]) -> bool:
        if self._away:
            return self._spill() and self._append(records)
        now_s = asyncio.get_running_loop().time()
        self._memory.extend(_Waiting(now_s, record) for record in records)
        self._memory_bytes += sum(record.size for record in records)
        if len(self._memory) > MEMORY_FRAMES_MAX or self._memory_bytes > MEMORY_BYTES_MAX:
            self._go_away("more is pending than memory may hold")
        elif self._memory and now_s - self._memory[0].since_s > self._spill_after_s:
            self._go_away("the bus is slower than the broker")
        return True

    def _go_away(self, reason: str) -> None:
        if not self._away:
            self._away = True
            self._on_away(reason)
        self._spill()

    def _spill(self) -> bool:
        """Move what is pending in memory to the spool; False when the spool does not take it."""
        if self._memory:
            if not self._append([waiting.record for waiting in self._memory]):
                return False
            self._memory.clear()
            self._memory_bytes = 0
        return True

    def _append(self, records: list[Record]) -> bool:
        try:
            self._spool.append(records)
        except (SpoolFull, OSError):
            return False
        self._unsynced.set()
        self._pending.set()
        return True

    async def _sync_groups(self) -> None:
        while True:
            await self._unsynced.wait()
            self._unsynced.clear()
            try:
                await asyncio.to_thread(self._spool.sync)
            except OSError as error:
                self._on_away(f"the spool does not reach the disk: {error.strerror}")
                self._unsynced.set()
                await asyncio.sleep(_SYNC_RETRY_S)
            await asyncio.sleep(_SYNC_PAUSE_S)

    def _take_over_spool(self) -> None:
        """Number on from what an earlier life left in the spool, if it fits the stream."""
        self._pending.set()
        for record in self._spool.all():
            known = self._assigned.get(record.partition)
            if known is None or record.n > known + 1:
                self._spool.put_aside()
                self._assigned = {p: place.n for p, place in self._positions.items()}
                return
            self._assigned[record.partition] = max(known, record.n)
            self.epoch = max(self.epoch, record.epoch + 1)
        self._away = not self._spool.empty
