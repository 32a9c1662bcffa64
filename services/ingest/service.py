"""Wiring: socket or polling -> inbox -> core -> publisher; beside it price history, dead letters.

Start: lock the data directory, wait for the bus, send what an earlier life left in the spool,
recall the state from the streams, and only then log in. Stop: close the socket first, work off the
inbox, send or spool what is pending, write a last checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from libs.common import calendar
from libs.common.bus import Bus, StreamState
from libs.common.directory_lock import locked
from libs.common.errors import BusUnavailable
from libs.common.events import History
from libs.common.market_clock import MarketClock
from libs.common.market_metrics import export_market_open
from libs.common.runner import Backoff, Runtime, connect_bus
from libs.common.share import Share, announced
from libs.common.token_file import TokenFile, TokenInvalid
from services.ingest.backfill import Backfill, Job
from services.ingest.budget import RequestBudget
from services.ingest.checkpoints import Checkpoints, recall
from services.ingest.commands import Clerk
from services.ingest.core import Core, DayAnswer, Step
from services.ingest.dead_letters import DeadLetters
from services.ingest.inbox import Inbox
from services.ingest.login import App
from services.ingest.logins import Logins
from services.ingest.metrics import IngestMetrics
from services.ingest.pass_book import PassBook
from services.ingest.polling import Polling
from services.ingest.publisher import Publisher
from services.ingest.requests import Requests
from services.ingest.schwab import Account, RequestFailed
from services.ingest.session import Connected, HoursTold, Item, Session, Wire
from services.ingest.settings import Settings
from services.ingest.startup import load, open_book, open_spool
from services.ingest.subscriber import BarsFlow, BarsWanted, Subscriber, Watched
from services.ingest.token_keeper import TokenKeeper
from services.ingest.wire import Reject

__all__ = ["Ingest", "serve"]

_HISTORY_POLL_S = 0.05
_RESUME_EVERY_S = 1.0
_DRAIN_S_MAX = 3.0
_TOKEN_PAUSE_S = 10.0
_TWO_SESSIONS = "two Schwab sessions would evict each other"


class Answered(Struct, frozen=True):
    """Price history's answer to a job."""

    job: Job
    answer: DayAnswer


class Brought(Struct, frozen=True):
    """A whole day that somebody brought; `outcome` hears what came of it."""

    answer: DayAnswer
    outcome: asyncio.Future[str]


async def serve(runtime: Runtime[Settings]) -> None:
    """Run ingest until `runtime.stop`; raises a KiteError for what waiting cannot mend."""
    settings = runtime.settings
    data_dir = Path(settings.ingest_data_dir)
    with (
        locked(data_dir, service="ingest", harm=_TWO_SESSIONS),
        open_book(data_dir, runtime) as book,
    ):
        runtime.health.require("schwab", "waiting for the bus")
        async with connect_bus(runtime) as bus:
            loaded = await load(runtime, bus)
            if loaded is None:
                return
            stream, positions = loaded
            with open_spool(data_dir, stream.created_ms, settings.ingest_spool_bytes_max) as spool:
                if spool.cut_bytes:
                    runtime.log.error("spool.cut", bytes=spool.cut_bytes)
                publisher = Publisher(
                    bus,
                    spool,
                    positions,
                    stream_created_ms=stream.created_ms,
                    spill_after_s=settings.ingest_spill_after_ms / 1000,
                    on_away=lambda reason: _away(runtime, reason),
                    on_back=lambda: _back(runtime),
                )
                if spool.set_aside is not None:
                    runtime.log.error("spool.set_aside", path=str(spool.set_aside))
                # It shares with nobody; whoever watches the stack hears that it is there.
                async with announced(runtime, bus, Share(held=settings.partitions)):
                    await Ingest(runtime, bus, stream, publisher, book).run()


class Ingest:
    """All parts of a running ingest, and what they do together."""

    def __init__(
        self,
        runtime: Runtime[Settings],
        bus: Bus,
        stream: StreamState,
        publisher: Publisher,
        book: PassBook,
    ) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._bus = bus
        self._publisher = publisher
        self._core = Core(settings.tickers)
        self._inbox: Inbox[Item | Answered | Brought] = Inbox()
        self._metrics = IngestMetrics(runtime.metrics)
        self._dead_letters = DeadLetters(bus, runtime.metrics, runtime.log)
        self._budget = RequestBudget(
            settings.ingest_requests_per_minute_max,
            runtime.clock,
            lambda kind: self._metrics.requests.labels(kind).inc(),
            lambda status: self._metrics.request_refusals.labels(str(status)).inc(),
            book,
        )
        self._account = Account(
            settings.schwab_app_key,
            settings.schwab_app_secret,
            Path(settings.schwab_token_file),
            settings.schwab_base_url,
            lambda outcome: self._metrics.token_refreshes.labels(outcome).inc(),
            budget=self._budget,
            token_key=settings.schwab_token_key,
        )
        self._market = MarketClock()
        self._subscriber = Subscriber(
            settings.tickers, self._inbox, self._metrics, runtime.health, runtime.log
        )
        self._backfill = Backfill(settings.ingest_history_retry_first_ms / 1000)
        self._feed = self._make_feed()
        self._keeper = TokenKeeper(runtime, self._account)
        self._logins = Logins(
            App.of(settings),
            TokenFile(Path(settings.schwab_token_file), settings.schwab_token_key),
            self._keeper,
            self._metrics,
            runtime.clock,
            runtime.log,
            self._budget.hooks,
        )
        self._requests = Requests(
            settings,
            self._core,
            self._subscriber,
            self._backfill,
            self._metrics,
            adjust=self._feed.adjust,
            stored=lambda: publisher.idle,
            publish_day=self._publish_day,
        )
        self._clerk = Clerk(
            bus,
            self._requests.handlers() | self._logins.handlers(),
            settings.tickers,
            on_change=self._requests.on_change,
            refreshed=lambda desk: self._logins.refreshed(self._requests.refreshed(desk)),
            metrics=runtime.metrics,
            log=runtime.log,
            now_ms=runtime.clock.now_ms,
        )
        self._checkpoints = Checkpoints(bus, self._core, publisher, stream, runtime.log)
        self._short = False  # there was no room for events; gaps must be listed before more leave
        self._resume_s = 0.0
        self._export()

    def _make_feed(self) -> Session | Polling:
        parts = (self._runtime, self._account, self._core, self._inbox, self._metrics)
        if self._runtime.settings.ingest_feed == "poll":
            return Polling(*parts, self._subscriber)
        return Session(*parts, self._market, self._subscriber)

    def _export(self) -> None:
        """Let each scrape ask for what changes without anything happening."""
        settings, metrics, wall = self._runtime.settings, self._metrics, self._runtime.clock
        metrics.token_age_s.set_function(lambda: self._account.token_age_s(wall.now_ms()))
        metrics.access_token_age_s.set_function(
            lambda: self._account.access_token_age_s(wall.now_ms())
        )
        metrics.gaps_open.set_function(lambda: self._core.gaps_open)
        metrics.sessions_unchecked.set_function(lambda: self._core.sessions_unchecked)
        metrics.spool_bytes_max.set(settings.ingest_spool_bytes_max)
        now_s, budget = asyncio.get_running_loop().time, self._budget
        metrics.requests_max.set(settings.ingest_requests_per_minute_max)
        metrics.requests_used.set_function(lambda: budget.used(now_s()))
        metrics.request_pause_s.set_function(lambda: budget.pause_s(now_s()))
        export_market_open(self._runtime.metrics, wall, settings.source, self._market.now_ms)

    async def run(self) -> None:
        """Recall, connect, and work until stopped; then drain."""
        try:
            await self._run()
        finally:
            await self._account.forget_client()

    async def _run(self) -> None:
        stop = self._runtime.stop
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._publisher.run())
            letters = tasks.create_task(self._dead_letters.run())
            if await _unless_stopped(stop, self._recall()):
                saving = tasks.create_task(self._checkpoints.run())
                inputs = [tasks.create_task(self._clerk.run())]
                inputs += [tasks.create_task(self._feed.keep_connected())]
                inputs += [tasks.create_task(self._feed.follow_hours())]
                inputs += [tasks.create_task(self._keeper.run())]
                inputs += [tasks.create_task(self._logins.run())]
                inputs += [
                    tasks.create_task(self._ask_for_history())
                    for _ in range(self._runtime.settings.ingest_history_concurrency_max)
                ]
                working = tasks.create_task(self._work())
                await stop.wait()
                await _cancel(*inputs)
                await _cancel(working, saving)
                await self._finish()
            await _cancel(sending, letters)

    async def _recall(self) -> None:
        """Send what an earlier life left behind, then rebuild the state from the streams."""
        await self._publisher.settle()
        backoff = Backoff()
        while True:
            try:
                recalled = await recall(self._bus, self._core, self._publisher.partitions)
                await self._clerk.load()
            except BusUnavailable as error:
                self._runtime.log.warning("ingest.recall_waits", error=str(error))
                await backoff.pause(self._runtime.stop)
                continue
            self._core.begin(self._clerk.desk.tickers)
            self._publisher.begin_epoch(self._core.epoch + 1)
            self._runtime.log.info(
                "ingest.recalled",
                frames=recalled.frames,
                holes=recalled.holes,
                epoch=self._publisher.epoch,
                broker_ms=self._core.broker_ms,
            )
            return

    async def _finish(self) -> None:
        """Work off what was read, store or spool it, and leave a checkpoint."""
        for item in self._inbox.take_all():
            self._handle(item)
        await self._publisher.drain(_DRAIN_S_MAX)
        await self._checkpoints.save()

    # -- the core's side --

    async def _work(self) -> None:
        while True:
            self._handle(await self._inbox.get())
            await asyncio.sleep(0)

    def _handle(self, item: Item | Answered | Brought) -> None:
        if isinstance(item, Wire):
            self._handle_wire(item)
        elif isinstance(item, Connected):
            self._core.connected(item.cause)
        elif isinstance(item, HoursTold):
            self._publish(self._core.hours(item.day, item.session))
        elif isinstance(item, Watched):
            self._publish(self._core.watch(item.tickers, item.bars))
        elif isinstance(item, BarsWanted):
            step = self._core.interrupted(item.tickers, item.cause)
            self._publish(step if item.ask else replace(step, wanted=[]))
        elif isinstance(item, BarsFlow):
            self._publish(self._core.flowing(item.tickers, item.cause))
        elif isinstance(item, Answered):
            self._handle_answer(item)
        elif isinstance(item, Brought):
            self._handle_brought(item)
        self._metrics.inbox_items.set(len(self._inbox))
        self._metrics.spool_bytes.set(self._publisher.spool_bytes)
        self._metrics.backfill_jobs.set(len(self._backfill))

    def _handle_wire(self, wire: Wire) -> None:
        self._metrics.wire_frames.inc()
        self._metrics.wire_bytes.inc(wire.size_bytes)
        self._metrics.received_s.set(wire.received_ms / 1000)
        if isinstance(wire.message, Reject):
            self._dead_letters.put(wire.message, wire.received_ms)
            return
        step = self._core.step(wire.message)
        self._publish(step, wire.received_ms)
        if step.items:
            self._metrics.lag_ms.set(wire.received_ms - step.sent_ms)
        self._metrics.broker_ms.set(self._core.broker_ms)
        self._market.observe(self._core.broker_ms, wire.received_ms)

    def _handle_answer(self, answered: Answered) -> None:
        job = answered.job
        wanted, asked_again = job.wanted, job.wanted.changes_only
        step = self._core.history(answered.answer, last_try=job.last_try, changes_only=asked_again)
        if step is None:
            self._metrics.history_requests.labels("incomplete").inc()
            self._backfill.incomplete(job, asyncio.get_running_loop().time())
            return
        self._metrics.history_requests.labels("complete").inc()
        self._backfill.done(job)
        if self._publish(step):
            self._requests.answered(wanted, _outcome(answered.answer, step))
        else:
            self._requests.refused(wanted)

    def _handle_brought(self, brought: Brought) -> None:
        step = self._core.history(brought.answer, last_try=True, changes_only=True)
        assert step is not None, "the last try says something"
        took = self._publish(step)
        if not brought.outcome.done():
            brought.outcome.set_result(_outcome(brought.answer, step) if took else "no room")

    async def _publish_day(self, answer: DayAnswer) -> str:
        """Publish a day that somebody brought; returns what came of it, once that is stored."""
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._inbox.put(Brought(answer, outcome))
        said = await outcome
        await self._publisher.settle()
        return said

    def _publish(self, step: Step, received_ms: int | None = None) -> bool:
        """Hand a step's results to whoever takes them; False when there was no room for events."""
        now_ms = self._runtime.clock.now_ms() if received_ms is None else received_ms
        for reject in step.rejects:
            self._dead_letters.put(reject, now_ms)
        for reason in step.further_rejects:
            self._dead_letters.count(reason)
        for wanted in step.wanted:
            self._backfill.want(wanted)
        self._metrics.step(step)
        if not step.events:
            return True
        if self._has_room() and self._publisher.offer(step.events, step.sent_ms, now_ms):
            return True
        if not self._short:
            self._runtime.log.error("ingest.no_room", spool_bytes=self._publisher.spool_bytes)
        self._short = True
        self._metrics.refused.inc(len(step.events))
        self._core.refused(step.events, "spool_full")
        return False

    def _has_room(self) -> bool:
        """After a refusal, list what was missed before anything else leaves."""
        now_s = asyncio.get_running_loop().time()
        if not self._short:
            return True
        if now_s < self._resume_s:
            return False
        self._resume_s = now_s + _RESUME_EVERY_S
        step = self._core.interrupted(self._core.active, "spool_full")
        if not self._publisher.offer(step.events, step.sent_ms, self._runtime.clock.now_ms()):
            self._core.unlisted(step.events)
            return False
        self._metrics.step(step)
        for wanted in step.wanted:
            self._backfill.want(wanted)
        self._short = False
        self._runtime.log.info("ingest.room_again", spool_bytes=self._publisher.spool_bytes)
        return True

    # -- price history --

    async def _ask_for_history(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            job = self._backfill.next(loop.time(), self._core.broker_ms)
            if job is None:
                await asyncio.sleep(_HISTORY_POLL_S)
                continue
            try:
                answer = await self._ask(job)
            except (RequestFailed, TokenInvalid) as error:
                self._metrics.history_requests.labels("failed").inc()
                self._runtime.log.warning(
                    "history.failed", ticker=job.wanted.ticker, reason=str(error)
                )
                self._requests.failed(job.wanted, str(error))
                pause_s = _TOKEN_PAUSE_S if isinstance(error, TokenInvalid) else 0.0
                self._backfill.failed(job, loop.time(), pause_s)
            else:
                await self._inbox.room()
                self._inbox.put(Answered(job, answer))

    async def _ask(self, job: Job) -> DayAnswer:
        wanted, asked_ms = job.wanted, self._core.broker_ms
        day_end_ms = calendar.day_bounds_ms(calendar.day_of(wanted.day_ms))[1]
        candles, bad = await self._account.minutes(
            wanted.ticker, wanted.day_ms, min(asked_ms, day_end_ms)
        )
        if bad:
            self._metrics.bad_candles.inc(bad)
            self._runtime.log.warning("history.bad_candles", ticker=wanted.ticker, number=bad)
        if candles is None:
            self._runtime.log.warning("history.refused", ticker=wanted.ticker)
        return DayAnswer(wanted.ticker, wanted.day_ms, asked_ms, candles)


def _outcome(answer: DayAnswer, step: Step) -> str:
    """Return in one word what came of a day of price history."""
    if answer.candles is None:
        return "refused"
    if "history_unchanged" in step.notes:
        return "unchanged"
    if any(isinstance(event, History) for event in step.events):
        return "stored"
    return "unchanged" if answer.candles else "empty"


# -- starting and stopping --


def _away(runtime: Runtime[Settings], reason: str) -> None:
    runtime.health.require("market", f"frames wait in the spool: {reason}")
    runtime.log.warning("market.away", reason=reason)


def _back(runtime: Runtime[Settings]) -> None:
    runtime.health.met("market")
    runtime.log.info("market.back")


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Finish `work` unless told to stop first; whether it was finished."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        await _cancel(task, stopped)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
