"""One channel's messages, from the journal to its sender: each channel has a worker of its own.

The order of things is what the promise rests on: note that a try begins, try, note its outcome. A
death before the first leaves the message as it was; one after the last has nothing left to do; in
between nobody can know, and the message counts as perhaps sent (`Journal.recover`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from libs.common import failpoints
from libs.common.runner import Backoff, Runtime
from services.notifier import core
from services.notifier.core import Channel, Item, Now, SignalNews
from services.notifier.journal import Journal, JournalAway
from services.notifier.metrics import NotifierMetrics
from services.notifier.sender import Outcome, Sender
from services.notifier.texts import render

__all__ = ["Worker"]

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 300.0
_IDLE_S = 60.0


class Worker:
    """Sends one channel's messages, one at a time."""

    def __init__(
        self, runtime: Runtime[Any], journal: Journal, channel: Channel, sender: Sender,
        metrics: NotifierMetrics, now: Callable[[], Now],
    ) -> None:  # fmt: skip
        self.name = sender.name
        self._runtime = runtime
        self._journal = journal
        self._channel = channel
        self._sender = sender
        self._metrics = metrics
        self._now = now
        self._bell = asyncio.Event()
        self._backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)

    def ring(self) -> None:
        """Say that there is something new."""
        self._bell.set()

    async def run(self) -> None:
        """Send until stopped; what is being sent then is brought to its end."""
        while not self._runtime.stop.is_set():
            self._bell.clear()
            try:
                wait_s = await self._step()
            except JournalAway as error:
                self._runtime.log.warning("notifier.journal", channel=self.name, error=str(error))
                await self._backoff.pause(self._runtime.stop)
                continue
            if wait_s:
                await self._wait(wait_s)

    async def _step(self) -> float:
        """Do the next thing; return how long to wait before the one after it, in seconds."""
        now = self._now()
        waiting = await self._journal.do(self._journal.waiting, self.name)
        if not waiting:
            return _IDLE_S
        since_ms = now.wall_ms - core.RATE_WINDOW_MS
        told_ms = await self._journal.do(self._journal.told_ms, self.name, since_ms)
        plan = core.plan(self._channel, waiting, told_ms, now)
        if plan.fold:
            await self._fold(plan.fold, now)
            return 0
        if plan.send is None:
            return (plan.wait_ms or core.LOOK_MS) / 1000
        outcome = await self._send(plan.send, now)
        if outcome.result == "sent":
            self._backoff.reset()
        else:
            await self._backoff.pause(self._runtime.stop)
        return 0

    async def _fold(self, items: tuple[Item, ...], now: Now) -> None:
        summary = core.fold(items, self._channel, now)
        await self._journal.do(self._journal.fold, self.name, items, summary, now.wall_ms)
        self._metrics.sent.labels(self.name, "summarised").inc(len(items))
        self._runtime.log.warning(
            "notifier.summarised", channel=self.name, messages=len(items),
            too_old=summary.too_old, too_many=summary.too_many,
        )  # fmt: skip

    async def _send(self, item: Item, now: Now) -> Outcome:
        text = render(item, self._channel, now)
        failpoints.reach("notifier.send.before")
        await self._journal.do(self._journal.intend, item.id)
        failpoints.reach("notifier.send.intended")
        begun_s = asyncio.get_running_loop().time()
        outcome = await self._sender.send(text, item.key)
        failpoints.reach("notifier.send.sent")
        self._metrics.send_seconds.labels(self.name).observe(
            asyncio.get_running_loop().time() - begun_s
        )
        await self._settle(item, outcome)
        failpoints.reach("notifier.send.stored")
        self._tell(item, outcome)
        return outcome

    async def _settle(self, item: Item, outcome: Outcome) -> None:
        """Note the outcome, however long the disk takes: what was sent must not be sent again."""
        fate: core.Fate = "sent" if outcome.result == "sent" else "pending"
        if outcome.result == "doubt" and self._channel.in_doubt == "leave":
            fate = "perhaps"
            self._metrics.sent.labels(self.name, "perhaps").inc()
        doubt = outcome.result == "doubt"
        backoff = Backoff()
        while True:
            try:
                now_ms = self._runtime.clock.now_ms()
                await self._journal.do(self._journal.settle, item.id, fate, now_ms, doubt=doubt)
            except JournalAway as error:
                self._runtime.log.warning("notifier.journal", channel=self.name, error=str(error))
                await asyncio.sleep(backoff.next_s())
            else:
                return

    def _tell(self, item: Item, outcome: Outcome) -> None:
        """Show the outcome in metrics and log; neither tells the text."""
        self._metrics.sent.labels(self.name, outcome.result).inc()
        good = outcome.result == "sent"
        self._metrics.failing.labels(self.name).set(not good)
        if good:
            self._runtime.log.info(
                "notifier.sent", channel=self.name, message=item.key, tries=item.tries + 1
            )
            if isinstance(item.content, SignalNews):
                took_ms = self._runtime.clock.now_ms() - item.received_ms
                self._metrics.told_seconds.observe(max(0, took_ms) / 1000)
            return
        self._runtime.log.warning(
            "notifier.failed", channel=self.name, message=item.key, tries=item.tries + 1,
            outcome=outcome.result, reason=outcome.reason,
        )  # fmt: skip

    async def _wait(self, wait_s: float) -> None:
        """Wait until something is new, the time is over, or the service stops."""
        stopped = asyncio.create_task(self._runtime.stop.wait())
        rung = asyncio.create_task(self._bell.wait())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await asyncio.wait({stopped, rung}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            rung.cancel()
