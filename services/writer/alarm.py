"""How the reconciler makes itself heard: metrics, and a log line for every new finding.

A finding raises the counter once and the gauge for as long as it stands. Of one lane's comparison
only the first FINDINGS_LOGGED_MAX are logged one by one, so that a lost file does not fill the disk
with lines; the gauge counts them all.
"""

from __future__ import annotations

from collections import Counter

from libs.common.runner import Runtime
from services.writer.findings import Finding, Findings, Lane
from services.writer.settings import Settings

__all__ = ["Alarm"]

FINDINGS_LOGGED_MAX = 20


class Alarm:
    """Takes findings and tells of them."""

    def __init__(self, runtime: Runtime[Settings]) -> None:
        self._log = runtime.log
        self._clock = runtime.clock
        self._findings = Findings()
        self._numbers: Counter[Lane] = Counter()
        self._logged: Counter[tuple[Lane, int]] = Counter()
        metrics = runtime.metrics
        labels = ["kind", "stream", "partition"]
        self._found = metrics.counter(
            "writer_reconcile_mismatch", "Differences found between streams and rows", labels
        )
        self._standing = metrics.gauge(
            "writer_reconcile_mismatches", "Differences that stand", labels
        )
        lane = ["stream", "partition"]
        self._minutes = metrics.counter(
            "writer_reconcile_minutes", "Minutes of tickers that were compared", lane
        )
        self._swept = metrics.gauge(
            "writer_reconcile_sweep_timestamp_seconds", "When a whole lane was last compared", lane
        )
        self._sweep = metrics.gauge(
            "writer_reconcile_sweep_seconds", "How long the last whole comparison took", lane
        )
        self._bytes = metrics.counter(
            "writer_reconcile_read_bytes", "Bytes of frames read again", lane
        )
        self._given_up = metrics.counter(
            "writer_reconcile_given_up", "Rounds that bus or database could not serve", ["kind"]
        )

    def next_number(self, lane: Lane) -> int:
        """Number the next comparison of a lane."""
        self._numbers[lane] += 1
        return self._numbers[lane]

    def report(self, finding: Finding, number: int) -> None:
        """Take what comparison `number` found."""
        if not self._findings.report(finding, number):
            return
        stream, partition = finding.lane
        self._found.labels(finding.kind, stream, _name(partition)).inc()
        self._show()
        self._logged[finding.lane, number] += 1
        logged = self._logged[finding.lane, number]
        if logged <= FINDINGS_LOGGED_MAX:
            self._log.error(
                "writer.reconcile_mismatch", kind=finding.kind, stream=stream,
                partition=_name(partition), place=finding.place, **finding.facts,
            )  # fmt: skip
        elif logged == FINDINGS_LOGGED_MAX + 1:
            self._log.error(
                "writer.reconcile_mismatch_more", stream=stream, partition=_name(partition)
            )

    def settle(self, lane: Lane, number: int) -> None:
        """End comparison `number`: what it did not find any more is mended."""
        for finding in self._findings.settle(lane, number):
            stream, partition = finding.lane
            self._log.info(
                "writer.reconcile_mended", kind=finding.kind, stream=stream,
                partition=_name(partition), place=finding.place,
            )  # fmt: skip
        for key in [key for key in self._logged if key[0] == lane and key[1] < number]:
            del self._logged[key]
        self._show()

    def swept(self, lane: Lane, took_s: float) -> None:
        """Say that a whole lane was compared."""
        labels = (lane[0], _name(lane[1]))
        self._swept.labels(*labels).set(self._clock.now_ms() / 1000)
        self._sweep.labels(*labels).set(took_s)

    def compared(self, lane: Lane, minutes: int) -> None:
        """Count minutes of tickers."""
        self._minutes.labels(lane[0], _name(lane[1])).inc(minutes)

    def read(self, lane: Lane, bytes_read: int) -> None:
        """Count what was read again."""
        self._bytes.labels(lane[0], _name(lane[1])).inc(bytes_read)

    def given_up(self, error: Exception, *, surprise: bool = False) -> None:
        """Say that a round ended early."""
        self._given_up.labels(type(error).__name__).inc()
        if surprise:
            self._log.error("writer.reconcile_failed", exc_info=error)
        else:
            self._log.info("writer.reconcile_given_up", error=str(error))

    def _show(self) -> None:
        self._standing.clear()
        for (kind, (stream, partition)), count in self._findings.standing().items():
            self._standing.labels(kind, stream, _name(partition)).set(count)


def _name(partition: int) -> str:
    return "all" if partition < 0 else str(partition)
