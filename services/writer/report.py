"""What the writer tells about itself: metrics for Prometheus, rows for `streaming_metrics`.

Rows are summed up over `writer_report_s`, not written per batch. Freshness is a matter of the
broker's time, so each row says how far that had come; where that runs faster than ours, a row is
due after a minute of it, though not more often than every second of ours.
"""

from __future__ import annotations

from libs.common import calendar
from libs.common.clock import Clock
from libs.common.errors import CalendarError
from libs.common.telemetry import Metrics
from services.writer.core import Batch
from services.writer.store import Report

__all__ = ["Reporter"]

_BROKER_STEP_MS = 60_000
_SPACING_MS = 1_000


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
        self._broker_ms: int | None = None
        self._told_broker_ms: int | None = None
        self._told_ms: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._batch_count = self._record_count = self._error_count = 0
        self._processing_s = 0.0

    def loaded(self, stream: str, partition: int, seq: int) -> None:
        """A lane took up its position."""
        self._position.labels(stream, str(partition)).set(seq)

    def committed(self, batch: Batch, took_s: float) -> None:
        """A batch is in the database."""
        lane = (batch.stream, str(batch.partition))
        total = 0
        for table, count in batch.rows.items():
            if count:
                self._rows.labels(table).inc(count)
                total += count
        self._frames.labels(*lane).inc(batch.frames)
        self._batches.labels(*lane).inc()
        self._batch_rows.labels(*lane).set(total)
        self._position.labels(*lane).set(batch.after.seq)
        self._flush.labels(batch.stream).observe(took_s)
        now_ms = self._clock.now_ms()
        lag = self._lag.labels(batch.stream)
        for received_ms in batch.received_ms:
            lag.observe(max(0, now_ms - received_ms) / 1000)
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
            market_open=_market_open(self._broker_ms),
            status=status,
            batches=self._batch_count,
            records=self._record_count,
            errors=self._error_count,
            processing_ms=self._processing_s * 1000,
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


def _market_open(broker_ms: int | None) -> bool | None:
    """Whether the regular session is on; None when nobody can say."""
    if broker_ms is None:
        return None
    try:
        return calendar.is_open(broker_ms)
    except CalendarError:
        return None
