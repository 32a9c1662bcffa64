"""Wiring: signals and alarms into the journal, and out of it a worker for each channel.

What Alertmanager says is taken, and what waits is sent, also while the bus is away: that NATS is
down is what people most want to hear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from libs.common.market_clock import MarketClock
from libs.common.runner import Runtime, connect_bus
from services.notifier import book
from services.notifier.alarms import Alarms, Heartbeat
from services.notifier.book import Book
from services.notifier.core import Now
from services.notifier.intake import Intake
from services.notifier.journal import Journal, JournalAway, open_at
from services.notifier.metrics import NotifierMetrics
from services.notifier.sender import Sender, senders
from services.notifier.settings import Settings
from services.notifier.worker import Worker

__all__ = ["serve"]

_LOOK_S = 1.0
_PRUNE_EVERY_S = 3600.0
_DAY_MS = 86_400_000


async def serve(runtime: Runtime[Settings]) -> None:
    """Tell people until stopped; raises SettingsError for what is wrong with the notify file."""
    settings = runtime.settings
    found = book.load(settings.notify_file)
    # In a thread, because Apprise takes a while to load.
    ways = await asyncio.to_thread(senders, found.entries)
    with open_at(Path(settings.notifier_data_dir)) as journal:
        await _Notifier(runtime, found, ways, journal).run()


class _Notifier:
    """All parts of one running notifier."""

    def __init__(
        self,
        runtime: Runtime[Settings],
        found: Book,
        ways: Mapping[str, Sender],
        journal: Journal,
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._channels = {entry.name: entry.channel for entry in found.entries}
        self._metrics = NotifierMetrics(runtime.metrics, self._channels)
        self._clock = MarketClock()
        self._workers = {
            name: Worker(
                runtime, journal, self._channels[name], sender, self._metrics, self._now
            )
            for name, sender in ways.items()
        }  # fmt: skip
        heartbeat = found.heartbeat
        self._alarms = Alarms(
            runtime, journal, self._channels, self._metrics, self._ring,
            None if heartbeat is None else Heartbeat(runtime, heartbeat, self._metrics),
        )  # fmt: skip
        if not self._channels:
            runtime.log.warning(
                "notifier.nobody_is_told",
                why="no channel is configured; docs/guides/notifications.md says how",
            )

    async def run(self) -> None:
        """Take in and send until stopped."""
        await self._recover()
        async with self._alarms, asyncio.TaskGroup() as group:
            for worker in self._workers.values():
                group.create_task(worker.run())
            group.create_task(self._take_signals())
            group.create_task(self._look_round())

    async def _recover(self) -> None:
        journal, now_ms = self._journal, self._runtime.clock.now_ms()
        done = await journal.do(journal.recover, self._channels, now_ms)
        for (channel, what), messages in sorted(done.items()):
            if what == "perhaps":
                self._metrics.sent.labels(channel, what).inc(messages)
            self._runtime.log.warning(
                "notifier.recovered", channel=channel, messages=messages, outcome=what
            )

    async def _take_signals(self) -> None:
        async with connect_bus(self._runtime) as bus, asyncio.TaskGroup() as group:
            for partition in range(self._runtime.settings.partitions):
                intake = Intake(
                    self._runtime, bus, self._journal, self._channels, partition, self._clock,
                    self._metrics, self._ring,
                )  # fmt: skip
                group.create_task(intake.run())

    async def _look_round(self) -> None:
        """Count what waits, and forget what is long over, until stopped."""
        loop, journal, runtime = asyncio.get_running_loop(), self._journal, self._runtime
        prune_s = loop.time()
        while not runtime.stop.is_set():
            try:
                self._metrics.pending.set(await journal.do(journal.pending))
                if loop.time() >= prune_s:
                    prune_s = loop.time() + _PRUNE_EVERY_S
                    keep_ms = runtime.settings.notifier_keep_days * _DAY_MS
                    await journal.do(journal.prune, runtime.clock.now_ms() - keep_ms)
            except JournalAway as error:
                runtime.log.warning("notifier.journal", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await runtime.stop.wait()

    def _ring(self, channel: str) -> None:
        self._workers[channel].ring()

    def _now(self) -> Now:
        wall_ms = self._runtime.clock.now_ms()
        return Now(wall_ms, self._clock.now_ms(wall_ms))
