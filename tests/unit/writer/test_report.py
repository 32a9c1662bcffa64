"""When the writer owes the world a row about itself."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.testing import capture_logs

from libs.common.clock import ManualClock
from libs.common.errors import StoreUnavailable
from libs.common.runner import Runtime
from libs.common.telemetry import Health, Metrics
from services.writer.core import Batch
from services.writer.report import Reporter
from services.writer.service import _report
from services.writer.settings import Settings
from services.writer.store import Report
from tests.writer_frames import TS_MS, batch_of, tick

WALL_MS = 1_800_000_000_000


def batch(sent_ms: int) -> Batch:
    """One tick, sent when the broker's time was `sent_ms`."""
    return replace(batch_of([tick(sent_ms)]), sent_ms=sent_ms)


def owes(reporter: Reporter) -> tuple[bool, bool]:
    """Whether it is unheard, and whether a report is overdue."""
    return reporter.unheard, reporter.overdue


def test_the_first_commit_is_told_at_once() -> None:
    """Nothing to tell before, unheard after it, and no longer once a report was taken."""
    reporter = Reporter(Metrics(), ManualClock(WALL_MS), "a:1")
    assert owes(reporter) == (False, False)
    assert reporter.take("running").broker_ms is None
    reporter.committed(batch(TS_MS), 0.1)
    assert owes(reporter) == (True, True)
    assert reporter.take("running").broker_ms == TS_MS
    assert owes(reporter) == (False, False)


def test_a_minute_of_the_brokers_time_makes_a_report_due() -> None:
    """As soon as it has passed, but not within a second of ours since the last one."""
    clock = ManualClock(WALL_MS)
    reporter = Reporter(Metrics(), clock, "a:1")
    reporter.committed(batch(TS_MS), 0.1)
    reporter.take("running")
    reporter.committed(batch(TS_MS + 59_999), 0.1)
    clock.advance(5_000)
    assert owes(reporter) == (False, False)
    reporter.committed(batch(TS_MS + 60_000), 0.1)
    assert owes(reporter) == (False, True)
    reporter.take("running")
    reporter.committed(batch(TS_MS + 600_000), 0.1)
    clock.advance(999)
    assert owes(reporter) == (False, False)
    clock.advance(1)
    assert owes(reporter) == (False, True)


def test_freshness_grows_by_itself_in_broker_time() -> None:
    """How far the newest tick is behind the broker's clock, which goes on while nothing comes."""
    clock = ManualClock(WALL_MS)
    metrics = Metrics()
    reporter = Reporter(metrics, clock, "a:1")

    def exported(stream: str) -> float | None:
        return metrics.registry.get_sample_value(
            "kite_writer_freshness_seconds", {"stream": stream}
        )

    assert exported("MARKET") == math.inf
    arrived = replace(batch(TS_MS + 2_000), received_ms=[WALL_MS], newest_tick_s=TS_MS // 1000)
    reporter.committed(arrived, 0.1)
    assert exported("MARKET") == 2
    assert exported("INDICATORS") == math.inf
    clock.advance(90_000)
    assert exported("MARKET") == 92


def test_a_lane_is_seen_to_fall_behind_from_its_start_on() -> None:
    """It begins with when it was loaded, and goes on with the receipt of what is committed."""
    clock = ManualClock(WALL_MS)
    metrics = Metrics()
    reporter = Reporter(metrics, clock, "a:1")

    def newest() -> float | None:
        lane = {"stream": "MARKET", "partition": "0"}
        return metrics.registry.get_sample_value("kite_writer_frame_timestamp_seconds", lane)

    reporter.loaded("MARKET", 0, 7)
    clock.advance(5_000)
    reporter.loaded("MARKET", 0, 7)
    assert newest() == WALL_MS / 1000
    reporter.committed(replace(batch(TS_MS), received_ms=[WALL_MS + 4_000]), 0.1)
    assert newest() == WALL_MS / 1000 + 4


class Shelf:
    """A store that takes reports, or is away."""

    def __init__(self) -> None:
        self.away = False

    async def report(self, report: Report) -> None:
        """See Store."""
        if self.away:
            raise StoreUnavailable("away")


def test_a_report_is_a_line_of_the_log_as_well() -> None:
    """With rows by table and the newest tick; what could not be reported is told with the next."""
    settings = Settings(nats_url="", pg_dsn="postgresql://a/b")
    stop = asyncio.Event()
    shelf, metrics = Shelf(), Metrics()
    store: Any = shelf  # all of a store that is asked for here
    with capture_logs() as logged:
        clock, log = ManualClock(WALL_MS), structlog.get_logger()
        runtime = Runtime("writer", settings, metrics, Health(), clock, log, stop)
        reporter = Reporter(metrics, clock, "a:1")
        asyncio.run(_report(runtime, store, reporter, "running"))
        assert logged == []
        shelf.away = True
        reporter.committed(replace(batch(TS_MS), newest_tick_s=TS_MS // 1000), 0.1)
        asyncio.run(_report(runtime, store, reporter, "running"))
        shelf.away = False
        reporter.committed(replace(batch(TS_MS + 500), newest_tick_s=TS_MS // 1000), 0.1)
        asyncio.run(_report(runtime, store, reporter, "running"))
    refused, told = logged
    assert refused["event"] == "writer.report_failed"
    assert told["event"] == "writer.reported"
    assert (told["equity_rows"], told["indicator_rows"], told["batches"]) == (2, 0, 2)
    assert told["latest_timestamp"] == datetime.fromtimestamp(TS_MS // 1000, UTC)
