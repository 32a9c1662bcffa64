"""What the writer tells about itself: metrics for Prometheus, rows for `streaming_metrics`.

Rows are summed up over `writer_report_s`, not written per batch. Freshness is a matter of the
broker's time, so each row says how far that had come; where that runs faster than ours, a row is
due after a minute of it, though not more often than every second of ours.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

from libs.common import subjects
from libs.common.clock import Clock
from libs.common.market_clock import MarketClock
from libs.common.market_metrics import market_open
from libs.common.telemetry import Metrics
from services.writer.core import Batch
from services.writer.store import Report

__all__ = ["Reporter"]

_BROKER_STEP_MS = 60_000
_SPACING_MS = 1_000
_TICK_TABLES = ("equity_data", "indicators")
_TICK_STREAMS = (subjects.MARKET, subjects.INDICATORS)


class Reporter:
    """Counts what all lanes of one process do."""

    def __init__(self, metrics: Metrics, clock: Clock, instance: str) -> None:
        self._clock = clock
        self._instance = instance
        lane = ["stream", "partition"]
        self._rows = metrics.counter("writer_rows", "Rows committed", ["table"])
        self._frames = metrics.counter("writer_frames", "Frames committed", lane)
        self._batches = metrics.counter("writer_batches", "Batches committed", lane)
        self._batch_rows = metrics.gauge("writer_batch_rows", "Rows of the last batch", lane)
        self._position = metrics.gauge("writer_position", "Last sequence committed", lane)
        self._flush = metrics.latency("writer_flush_seconds", "Duration of a commit", ["stream"])
        self._lag = metrics.latency(
            "writer_commit_lag_seconds", "Wire frame received to rows committed", ["stream"]
        )
        self._fenced = metrics.counter("writer_fenced", "Batches another writer was faster with")
        self._errors = metrics.counter("writer_errors", "Failures of lanes", ["kind"])
        self._newest = metrics.gauge(
            "writer_frame_timestamp_seconds", "Receipt of the wire frame last committed", lane
        )
        self._lanes_seen: set[tuple[str, str]] = set()
        self._market = MarketClock()
        self._newest_tick_s = dict.fromkeys(_TICK_STREAMS, 0)
        freshness = metrics.gauge(
            "writer_freshness_seconds", "Broker time minus the newest tick stored", ["stream"]
        )
        for stream in _TICK_STREAMS:
            freshness.labels(stream).set_function(partial(self.freshness_s, stream))
        self._broker_ms: int | None = None
        self._told_broker_ms: int | None = None
        self._told_ms: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._batch_count = self._record_count = self._error_count = 0
        self._tick_rows = Counter[str]()
        self._processing_s = 0.0

    def loaded(self, stream: str, partition: int, seq: int) -> None:
        """A lane took up its position."""
        lane = (stream, str(partition))
        self._position.labels(*lane).set(seq)
        if lane not in self._lanes_seen:  # who gets stuck at once shall be seen to fall behind
            self._lanes_seen.add(lane)
            self._newest.labels(*lane).set(self._clock.now_ms() / 1000)

    def committed(self, batch: Batch, took_s: float) -> None:
        """A batch is in the database."""
        lane = (batch.stream, str(batch.partition))
        total = 0
        for table, count in batch.rows.items():
            if count:
                self._rows.labels(table).inc(count)
                total += count
        self._tick_rows.update({name: batch.rows.get(name, 0) for name in _TICK_TABLES})
        self._frames.labels(*lane).inc(batch.frames)
        self._batches.labels(*lane).inc()
        self._batch_rows.labels(*lane).set(total)
        self._position.labels(*lane).set(batch.after.seq)
        self._flush.labels(batch.stream).observe(took_s)
        now_ms = self._clock.now_ms()
        lag = self._lag.labels(batch.stream)
        for received_ms in batch.received_ms:
            lag.observe(max(0, now_ms - received_ms) / 1000)
        if batch.received_ms:
            self._newest.labels(*lane).set(batch.received_ms[-1] / 1000)
            self._market.observe(batch.sent_ms, batch.received_ms[-1])
        if batch.newest_tick_s > self._newest_tick_s.get(batch.stream, math.inf):
            self._newest_tick_s[batch.stream] = batch.newest_tick_s
        self._broker_ms = max(self._broker_ms or 0, batch.sent_ms)
        self._batch_count += 1
        self._record_count += total
        self._processing_s += took_s

    def fenced(self) -> None:
        """Another writer moved a position first."""
        self._fenced.inc()

    def failed(self, kind: str) -> None:
        """A lane failed and starts over."""
        self._errors.labels(kind).inc()
        self._error_count += 1

    def broker_now_ms(self, wall_ms: int) -> int | None:
        """Return broker time at a time of the wall clock; None before the first batch."""
        return self._market.now_ms(wall_ms)

    def freshness_s(self, stream: str) -> float:
        """Return how far a stream's newest tick is behind the broker's clock; infinite without one.

        Asked at each scrape, from another thread, so it grows while nothing comes.
        """
        newest_s = self._newest_tick_s[stream]
        broker_ms = self.broker_now_ms(self._clock.now_ms())
        if broker_ms is None or not newest_s:
            return math.inf
        return max(0.0, broker_ms / 1000 - newest_s)

    @property
    def unheard(self) -> bool:
        """Whether the broker's time is known and no report has tried to tell it yet."""
        return self._broker_ms is not None and self._told_broker_ms is None

    @property
    def overdue(self) -> bool:
        """Whether the broker's time has left the last report a minute behind."""
        if self._broker_ms is None or self._told_broker_ms is None or self._told_ms is None:
            return self.unheard
        moved_ms = self._broker_ms - self._told_broker_ms
        return moved_ms >= _BROKER_STEP_MS and self._clock.now_ms() - self._told_ms >= _SPACING_MS

    def take(self, status: str) -> Report:
        """Return what happened since the last call, and begin anew."""
        report = Report(
            instance=self._instance,
            now_ms=self._clock.now_ms(),
            broker_ms=self._broker_ms,
            market_open=market_open(self._broker_ms),
            status=status,
            batches=self._batch_count,
            records=self._record_count,
            errors=self._error_count,
            processing_ms=self._processing_s * 1000,
            equity_rows=self._tick_rows["equity_data"],
            indicator_rows=self._tick_rows["indicators"],
            newest_tick_s=self._newest_tick_s[subjects.MARKET],
        )
        self._told_broker_ms, self._told_ms = self._broker_ms, report.now_ms
        self._begin()
        return report

    def put_back(self, report: Report) -> None:
        """Count a report that could not be stored in with the next one."""
        self._batch_count += report.batches
        self._record_count += report.records
        self._error_count += report.errors
        self._processing_s += report.processing_ms / 1000
        self._tick_rows["equity_data"] += report.equity_rows
        self._tick_rows["indicators"] += report.indicator_rows
