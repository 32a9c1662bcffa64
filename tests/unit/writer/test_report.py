"""When the writer owes the world a row about itself."""

from __future__ import annotations

from dataclasses import replace

from libs.common.clock import ManualClock
from libs.common.telemetry import Metrics
from services.writer.core import Batch
from services.writer.report import Reporter
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
