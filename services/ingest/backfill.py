"""Which days of price history to ask for next.

`Backfill` is a queue without duplicates: a ticker's day waits at most once, from when it is due.
Failed requests come back with a growing pause; a pause that holds for all is one of the caller's.
How often the broker may be asked at all is said in `budget`.

Time is the event loop's monotonic clock for pauses, broker time for when a day is due.
"""

from __future__ import annotations

from msgspec import Struct

from services.ingest.core import DayWanted

__all__ = ["TRIES_MAX", "Backfill", "Job"]

TRIES_MAX = 12  # answers that were not complete yet, before a day is given up
PAUSE_S_MAX = 60.0


class Job(Struct):
    """A day to ask for; `tries` counts answers that were not enough, `failures` requests."""

    wanted: DayWanted
    due_s: float = 0.0
    tries: int = 0
    failures: int = 0
    again: bool = False

    @property
    def last_try(self) -> bool:
        """Whether an answer that is still incomplete has to do."""
        return self.tries >= TRIES_MAX


class Backfill:
    """Jobs by ticker and day, in the order in which they were wanted."""

    def __init__(self, retry_first_s: float) -> None:
        self._retry_first_s = retry_first_s
        self._waiting: dict[DayWanted, Job] = {}
        self._running: dict[DayWanted, Job] = {}
        self._not_before_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    def want(self, wanted: DayWanted) -> None:
        """Ask for a day; while it is being asked for, once more afterwards."""
        running = self._running.get(wanted)
        if running is not None:
            running.again = True
        elif wanted not in self._waiting:
            self._waiting[wanted] = Job(wanted)

    def next(self, now_s: float, broker_ms: int) -> Job | None:
        """Take the first job that is due, or None."""
        if now_s < self._not_before_s:
            return None
        for wanted, job in self._waiting.items():
            if job.due_s <= now_s and wanted.after_ms <= broker_ms:
                del self._waiting[wanted]
                self._running[wanted] = job
                return job
        return None

    def done(self, job: Job) -> None:
        """A job was answered; if it was wanted meanwhile, it waits anew."""
        del self._running[job.wanted]
        if job.again:
            self.want(job.wanted)

    def incomplete(self, job: Job, now_s: float) -> None:
        """A job's answer was not complete yet: ask again later."""
        job.tries += 1
        self._later(job, now_s + self._pause_s(job.tries))

    def failed(self, job: Job, now_s: float, pause_s: float) -> None:
        """A job's request failed; `pause_s` is for how long nobody shall ask."""
        job.failures += 1
        if pause_s:
            self._not_before_s = now_s + min(pause_s * 2 ** (job.failures - 1), PAUSE_S_MAX)
        self._later(job, now_s + self._pause_s(job.failures))

    def _pause_s(self, times: int) -> float:
        return min(self._retry_first_s * 2.0 ** min(times - 1, 16), PAUSE_S_MAX)

    def _later(self, job: Job, due_s: float) -> None:
        del self._running[job.wanted]
        job.due_s, job.again = due_s, False
        self._waiting[job.wanted] = job
