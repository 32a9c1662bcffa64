"""Wiring: a lane for each stream and partition, one store, one reporter.

A lane stands by until the bus makes it the owner, reads its position from the database, and writes
what follows. While one batch is being committed, the next one is filled: at most two batches of a
lane are in memory. A frame is acknowledged after its rows are committed.

Whatever goes wrong on the way (the bus or the database away, another writer, a commit nobody
answered), the way back is the same: drop what is in memory, read the position again, go on behind
it. The position moved with the rows or not at all, so nothing is lost and nothing doubled. What no
repetition can heal ends the service: a position that does not fit, a frame it cannot read, rows the
database will never take.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from prometheus_client import Gauge

from libs.common import codec, failpoints, subjects
from libs.common.bus import Bus, Lease, Message
from libs.common.errors import BusError, KiteError, StoreError, StoreFenced
from libs.common.market_metrics import export_market_open
from libs.common.runner import Backoff, Runtime, connect_bus, run_standing_by
from libs.common.share import Share, announced
from services.writer.core import Batch, Batcher, Limits, Position, judge_position
from services.writer.minutes import UnexplainedMinutes
from services.writer.reconciler import Reconciler
from services.writer.report import Reporter
from services.writer.room import LOOK_EVERY_S, Room
from services.writer.settings import Settings
from services.writer.sinks import open_store
from services.writer.store import Store

__all__ = ["Lane", "run", "serve"]

_FRAMES_PER_RECEIVE_MAX = 64
_IDLE_WAIT_S = 0.25
_WATCH_S = 1.0
_BACKOFF_MAX_S = 2.0
_REPORTS_KEPT_MS = 30 * 86_400_000
_PRUNE_EVERY_S = 3600.0


async def serve(runtime: Runtime[Settings]) -> None:
    """Connect to database and bus, then write until stopped."""
    async with open_store(runtime.settings) as store, connect_bus(runtime) as bus:
        await run(runtime, bus, store)


async def run(runtime: Runtime[Settings], bus: Bus, store: Store) -> None:
    """Write every partition of every stream until stopped; raises what is final."""
    settings = runtime.settings
    instance = f"{socket.gethostname()}:{os.getpid()}"
    reporter = Reporter(runtime.metrics, runtime.clock, instance)
    export_market_open(runtime.metrics, runtime.clock, settings.source, reporter.broker_now_ms)
    room = Room(runtime, bus, store)
    # 0 from the start: a database that is away then is away too.
    answers = runtime.metrics.gauge("writer_database_connected", "Whether the database answers")
    await _claim(runtime, store)
    share = Share(
        runtime.metrics.gauge("writer_lanes_owned", "Lanes that this instance writes").set
    )
    lanes = [
        Lane(runtime, bus, store, reporter, share, stream, partition)
        for stream in subjects.DURABLE_STREAMS
        for partition in range(settings.partitions)
    ]
    try:
        async with announced(runtime, bus, share), asyncio.TaskGroup() as group:
            group.create_task(_watch(runtime, store, reporter, answers))
            group.create_task(_look_for_room(runtime, room))
            for lane in lanes:
                group.create_task(lane.run())
            minutes = UnexplainedMinutes(runtime, reporter.broker_now_ms)
            owned = partial(_owned, lanes)
            group.create_task(Reconciler(runtime, bus, owned, minutes).run())
    except ExceptionGroup as group:
        refusals, surprises = group.split(KiteError)
        if refusals is None or surprises is not None:
            raise
        await _report(runtime, store, reporter, status="refused")
        raise refusals.exceptions[0] from None
    await _report(runtime, store, reporter, status="stopped")


def _owned(lanes: Sequence[Lane]) -> set[tuple[str, int]]:
    return {each.key for each in lanes if each.owned}


async def _claim(runtime: Runtime[Settings], store: Store) -> None:
    """Make sure that the database is ours, waiting while it is away; raises StoreMismatch."""
    settings = runtime.settings
    meta = {"source": settings.source, "partitions": str(settings.partitions)}
    runtime.health.require("database", "connecting")
    backoff = Backoff(max_s=_BACKOFF_MAX_S)
    while not runtime.stop.is_set():
        try:
            await store.claim(meta)
            await store.keep(settings.store)
        except StoreError as error:
            _database_away(runtime, error)
            await backoff.pause(runtime.stop)
        else:
            return


async def _watch(
    runtime: Runtime[Settings], store: Store, reporter: Reporter, answers: Gauge
) -> None:
    """Keep readiness true to the database, and report now and then, until stopped."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + runtime.settings.writer_report_s
    prune_s = loop.time()
    while not runtime.stop.is_set():
        try:
            await store.ping()
            runtime.health.met("database")
            answers.set(1)
        except StoreError as error:
            answers.set(0)
            _database_away(runtime, error)
        if reporter.overdue or loop.time() >= due_s:
            due_s = loop.time() + runtime.settings.writer_report_s
            await _report(runtime, store, reporter, status="running")
        if loop.time() >= prune_s:
            prune_s = loop.time() + _PRUNE_EVERY_S
            await _prune(runtime, store)
        await _sleep(runtime, _WATCH_S)


async def _look_for_room(runtime: Runtime[Settings], room: Room) -> None:
    while not runtime.stop.is_set():
        await room.look()
        await _sleep(runtime, LOOK_EVERY_S)


async def _sleep(runtime: Runtime[Settings], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await runtime.stop.wait()
    except TimeoutError:
        return


async def _report(
    runtime: Runtime[Settings], store: Store, reporter: Reporter, status: str
) -> None:
    report = reporter.take(status)
    try:
        await store.report(report)
    except StoreError as error:
        reporter.put_back(report)
        runtime.log.warning("writer.report_failed", error=str(error))
        return
    if report.batches or report.errors:
        newest = datetime.fromtimestamp(report.newest_tick_s, UTC) if report.newest_tick_s else None
        runtime.log.info(
            "writer.reported",
            equity_rows=report.equity_rows,
            indicator_rows=report.indicator_rows,
            records=report.records,
            batches=report.batches,
            errors=report.errors,
            processing_ms=round(report.processing_ms, 1),
            latest_timestamp=newest,
        )


async def _prune(runtime: Runtime[Settings], store: Store) -> None:
    """Drop reports that nobody will read any more."""
    try:
        await store.prune_reports(runtime.clock.now_ms() - _REPORTS_KEPT_MS)
    except StoreError as error:
        runtime.log.warning("writer.prune_failed", error=str(error))


def _database_away(runtime: Runtime[Settings], error: StoreError) -> None:
    runtime.health.require("database", str(error))
    runtime.log.warning("writer.database_away", error=str(error))


@dataclass(slots=True)
class _Flight:
    """A batch on its way into the database, and the last message in it."""

    task: asyncio.Task[None]
    last: Message


class Lane:
    """One partition of one stream, from the bus to the database."""

    def __init__(
        self,
        runtime: Runtime[Settings],
        bus: Bus,
        store: Store,
        reporter: Reporter,
        share: Share,
        stream: str,
        partition: int,
    ) -> None:
        self._runtime = runtime
        self._bus = bus
        self._store = store
        self._reporter = reporter
        self._share = share
        self._stream = stream
        self._partition = partition
        self._name = f"{stream} partition {partition}"
        self.key = (stream, partition)
        self.owned = False
        self._condition = f"{stream.lower()}-{partition}"
        settings = runtime.settings
        self._limits = Limits(
            settings.writer_flush_ms, settings.writer_rows_max, settings.writer_input_bytes_max
        )
        self._backoff = Backoff(max_s=_BACKOFF_MAX_S)
        self._standing_by = False
        self._flight: _Flight | None = None
        runtime.health.require(self._condition, "loading")

    async def run(self) -> None:
        """Write until stopped; raises PositionError, SchemaError or RowsRefused."""
        await run_standing_by(self._until_stopped(), self._runtime.stop, lambda: self._standing_by)

    async def _until_stopped(self) -> None:
        while not self._runtime.stop.is_set():
            try:
                await self._own()
            except (BusError, StoreError) as error:
                kind = type(error).__name__
                self._reporter.failed(kind)
                self._runtime.health.require(self._condition, f"{kind}: {error}")
                self._runtime.log.warning(
                    "writer.reload", lane=self._name, error=str(error), kind=kind
                )
                await self._backoff.pause(self._runtime.stop)
            except KiteError as error:
                self._reporter.failed(type(error).__name__)
                self._runtime.health.require(self._condition, str(error))
                raise

    async def _own(self) -> None:
        """Stand by with a position that fits, then write for as long as the lease holds."""
        await self._load()
        self._runtime.health.met(self._condition)
        if self._runtime.stop.is_set():
            return
        self._standing_by = True
        consumer = subjects.consumer_name(self._runtime.name, self._partition)
        async with self._bus.lease(self._stream, consumer) as lease:
            self._standing_by = False
            with self._share.holding():
                # Another instance may have written while this one stood by.
                await self._write(lease, await self._load())
        self._standing_by = True
        await self._share.rest(self._runtime.stop)

    async def _load(self) -> Position:
        """Read the position and judge it; raises PositionError."""
        stored = await self._store.position(self._stream, self._partition)
        state = await self._bus.stream(self._stream)
        position = judge_position(
            stored,
            state.created_ms,
            state.first_seq,
            state.last_seq,
            self._name,
            sole=self._runtime.settings.partitions == 1,
        )
        self._reporter.loaded(self._stream, self._partition, position.seq)
        return position

    async def _write(self, lease: Lease, position: Position) -> None:
        await lease.reset(position.seq + 1)
        self.owned = True
        self._runtime.log.info("writer.lane_owned", lane=self._name, seq=position.seq)
        try:
            with_ticks = self._runtime.settings.store == "ticks"
            batcher = Batcher(
                self._stream, self._partition, position, self._limits, with_ticks=with_ticks
            )
            await self._pump(lease, batcher)
        except asyncio.CancelledError:
            if self._flight is not None:
                self._flight.task.cancel()
            raise
        finally:
            self.owned = False
            await self._abandon_flight()

    async def _pump(self, lease: Lease, batcher: Batcher) -> None:
        """Fill batches and commit them, one at a time, until stopped or one lane too many."""
        now_s = asyncio.get_running_loop().time
        message: Message | None = None
        while not self._runtime.stop.is_set() and not self._share.lets_go(now_s()):
            messages = await lease.receive(
                frames_max=_FRAMES_PER_RECEIVE_MAX,
                wait_s=min(_IDLE_WAIT_S, batcher.wait_s(now_s())),
            )
            for message in messages:
                frame = codec.decode_frame(message.data)
                batcher.add(message.seq, frame, len(message.data), now_s())
                if batcher.full:
                    await self._launch(lease, batcher.take(), message)
            if message is not None and batcher.due(now_s()):
                await self._launch(lease, batcher.take(), message)
            elif self._flight is not None and self._flight.task.done():
                await self._land(lease)
        if message is not None and batcher.frames:
            await self._launch(lease, batcher.take(), message)
        await self._land(lease)

    async def _launch(self, lease: Lease, batch: Batch, last: Message) -> None:
        """Begin to commit a batch once the one before it is committed."""
        await self._land(lease)
        self._flight = _Flight(asyncio.create_task(self._commit(batch)), last)

    async def _land(self, lease: Lease) -> None:
        """Wait for the batch on its way, raise what it raised, and acknowledge its frames."""
        if self._flight is None:
            return
        await asyncio.wait({self._flight.task})
        flight, self._flight = self._flight, None
        flight.task.result()
        failpoints.reach("writer.committed")
        await lease.ack(flight.last)
        self._backoff.reset()

    async def _abandon_flight(self) -> None:
        """Let a commit that nobody waits for any more end; the position will tell how it went."""
        if self._flight is None:
            return
        flight, self._flight = self._flight, None
        await asyncio.wait({flight.task})
        if not flight.task.cancelled() and (error := flight.task.exception()) is not None:
            self._runtime.log.warning("writer.commit_failed", lane=self._name, error=str(error))

    async def _commit(self, batch: Batch) -> None:
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        try:
            await self._store.commit(batch)
        except StoreFenced:
            # Counted here, because nobody may be waiting: a zombie's lease is mostly over by now.
            self._reporter.fenced()
            raise
        self._reporter.committed(batch, now_s() - began_s)
        if self._reporter.unheard:  # whoever looks right after the start wants to see something
            await _report(self._runtime, self._store, self._reporter, status="running")
