"""A disk that takes nothing for a while: nothing is answered, sent or sent again because of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.clock import SystemClock
from libs.common.runner import Runtime
from libs.common.telemetry import Health, Metrics, get_logger
from services.notifier.alarms import Alarms
from services.notifier.book import parse
from services.notifier.core import Channel, Now
from services.notifier.journal import Journal, open_at
from services.notifier.metrics import NotifierMetrics
from services.notifier.sender import senders
from services.notifier.settings import Settings
from services.notifier.worker import Worker
from tests.integration.notifier.stage import DEADLINE_S, Sink
from tests.integration.notifier.test_alarms import alert, message
from tests.unit.notifier import messages
from tests.waiting import eventually_async

CHANNELS = {"hook": Channel(alerts=True)}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    with open_at(tmp_path) as made:
        yield made


async def refuse(journal: Journal, *, writes: bool) -> None:
    """Let the journal refuse every change, or take it again."""
    await journal.do(journal._connection.execute, f"PRAGMA query_only = {int(writes)}")


def runtime(place: Path) -> Runtime[Settings]:
    """What a running notifier is given."""
    settings = Settings(nats_url="nats://", notifier_data_dir=str(place), notifier_port=0)
    return Runtime(
        "notifier", settings, Metrics(), Health(), SystemClock(), get_logger(), asyncio.Event()
    )


def test_alertmanager_is_told_to_come_again(journal: Journal, tmp_path: Path) -> None:
    """503 until the alarm is in the journal; then it is taken as new."""
    rung: list[str] = []

    async def scenario() -> None:
        given = runtime(tmp_path)
        metrics = NotifierMetrics(given.metrics, CHANNELS)
        body: Any = message(alert())
        alarms = Alarms(given, journal, CHANNELS, metrics, rung.append, None)
        async with alarms, httpx.AsyncClient() as client:
            await refuse(journal, writes=True)
            answer = await client.post(alarms.url, json=body)
            assert (answer.status_code, rung) == (503, [])
            await refuse(journal, writes=False)
            answer = await client.post(alarms.url, json=body)
            assert (answer.status_code, rung) == (200, ["hook"])

    asyncio.run(scenario())


def test_what_was_sent_is_not_sent_again(journal: Journal, tmp_path: Path) -> None:
    """The outcome waits for the disk, and the channel for its outcome."""

    async def scenario(sink: Sink) -> None:
        given = runtime(tmp_path)
        gate = sink.gates["hook"] = threading.Event()
        book = parse(f'[channels.hook]\nurl = "{sink.url("hook")}"\nalerts = true\n')
        (sender,) = senders(book.entries).values()
        clock = given.clock
        worker = Worker(
            given, journal, book.entries[0].channel, sender,
            NotifierMetrics(given.metrics, CHANNELS), lambda: Now(clock.now_ms()),
        )  # fmt: skip
        them = [messages.alert(), messages.alert("FeedLate")]
        await refuse(journal, writes=False)
        for each in them:
            await journal.do(journal.take_alerts, CHANNELS, [each], clock.now_ms())
        work = asyncio.create_task(worker.run())
        await sink.wait_received(1)
        await refuse(journal, writes=True)
        gate.set()
        failed = given.metrics.registry.get_sample_value
        await eventually_async(
            lambda: failed("kite_notifier_send_seconds_count", {"channel": "hook"}),
            DEADLINE_S, "the try is over",
        )  # fmt: skip
        await refuse(journal, writes=False)
        await sink.wait_received(2)
        given.stop.set()
        await work
        assert [each.title for each in sink.received] == [
            "CRITICAL: DataStale",
            "CRITICAL: FeedLate",
        ]
        assert await journal.do(journal.pending) == 0

    with Sink() as sink:
        asyncio.run(scenario(sink))
