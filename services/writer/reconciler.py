"""Reads the streams again and compares them with the database, all the time and slowly.

Three comparisons, none of which ever stops a lane or makes the writer unready:

- every few seconds the *shape* of each stream: as many messages as its bounds say, an end that is
  not before what was written or seen, the same incarnation;
- every `writer_reconcile_interval_s` what is *new* since the last time;
- beside it a *sweep* from the stream's beginning, `writer_reconcile_bytes_per_s_max` fast, again
  and again. A small stream is swept once per interval, a big one takes its time, which is a metric.

The last two read frames as anybody could, count their rows (`ledger`) and ask the database for the
same counts and digests of what is committed. Frames must be numbered without a hole, for the server
passes over what it can no longer read. Only lanes that this instance owns are compared.

A round that the bus or the database cannot serve is given up; the next one begins where it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from libs.common import subjects
from libs.common.bus import Bus, StreamState
from libs.common.errors import BusError, StoreError
from libs.common.runner import Runtime
from services.writer.alarm import Alarm
from services.writer.comparison import Comparison
from services.writer.core import Position
from services.writer.file_comparison import FileComparison
from services.writer.findings import Finding, Lane
from services.writer.minutes import UnexplainedMinutes
from services.writer.settings import Settings
from services.writer.sinks import open_rows
from services.writer.stored import StoredRows

__all__ = ["Reconciler", "shape_faults"]

LOOK_S = 5.0
_WHOLE_STREAM = -1
_MINUTES_EVERY_S = 10.0
_COUNTS_MINUTES: Lane = (subjects.MARKET, 0)  # whoever has this one counts for all


class Reconciler:
    """Compares every lane that this instance owns, until stopped."""

    def __init__(
        self,
        runtime: Runtime[Settings],
        bus: Bus,
        owned: Callable[[], Collection[Lane]],
        minutes: UnexplainedMinutes,
    ) -> None:
        """`owned` names the lanes that this instance owns at the moment."""
        self._runtime = runtime
        self._bus = bus
        self._owned = owned
        self._minutes = minutes
        self._interval_s = runtime.settings.writer_reconcile_interval_s
        self._alarm = Alarm(runtime)
        self._comparisons: dict[Lane, Comparison] = {}
        self._by_file: dict[str, FileComparison] = {}
        self._last_seqs: dict[tuple[str, int], int] = {}

    async def run(self) -> None:
        """Compare until stopped; returns at once where the interval is 0."""
        if not self._interval_s:
            return
        work = asyncio.create_task(self._work())
        stopped = asyncio.create_task(self._runtime.stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled():
            work.result()

    async def _work(self) -> None:
        async with open_rows(self._runtime.settings) as stored:
            await asyncio.gather(
                self._looks(stored), self._rounds(stored), self._look_for_minutes(stored)
            )

    async def _look_for_minutes(self, stored: StoredRows) -> None:
        """Count unexplained minutes, if this instance is the one that does."""
        while True:
            if _COUNTS_MINUTES in self._owned():
                await self._guarded(partial(self._minutes.round, stored))
            else:
                self._minutes.forget()
            await asyncio.sleep(min(_MINUTES_EVERY_S, self._interval_s))

    async def _looks(self, stored: StoredRows) -> None:
        while True:
            streams = {stream for stream, _ in self._owned()}
            await self._guarded(partial(self._look, stored, streams))
            await asyncio.sleep(min(LOOK_S, self._interval_s))

    async def _rounds(self, stored: StoredRows) -> None:
        """Let all lanes go on at once, each at its share of the speed."""
        now_s = asyncio.get_running_loop().time
        round_s = now_s()
        while True:
            round_s += self._interval_s
            await asyncio.sleep(round_s - now_s())
            round_s = now_s()
            lanes = [self._comparison(lane) for lane in sorted(self._owned())]
            bytes_per_s = self._runtime.settings.writer_reconcile_bytes_per_s_max / max(
                1, len(lanes)
            )
            await asyncio.gather(
                *(
                    self._guarded(
                        partial(lane.round, stored, round_s + self._interval_s, bytes_per_s)
                    )
                    for lane in lanes
                ),
                *(self._guarded(partial(files.round, bytes_per_s)) for files in self._files()),
            )

    def _comparison(self, lane: Lane) -> Comparison:
        if lane not in self._comparisons:
            self._comparisons[lane] = Comparison(self._runtime, self._bus, self._alarm, lane)
        return self._comparisons[lane]

    def _files(self) -> list[FileComparison]:
        """Return the comparisons of the files of streams that this instance reads first."""
        settings = self._runtime.settings
        if not settings.writer_stream_files_dir:
            return []
        for stream, partition in self._owned():
            if partition == 0 and stream not in self._by_file:
                self._by_file[stream] = FileComparison(
                    self._bus, self._alarm, Path(settings.writer_stream_files_dir), stream,
                    settings.partitions,
                )  # fmt: skip
        return [self._by_file[stream] for stream, partition in self._owned() if partition == 0]

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a part of a round; whatever goes wrong in it is told and concerns nobody else."""
        try:
            await work()
        except (BusError, StoreError, OSError) as error:
            self._alarm.given_up(error)
        except Exception as error:  # noqa: BLE001 - comparing must never stop the flow
            self._alarm.given_up(error, surprise=True)

    async def _look(self, stored: StoredRows, streams: Collection[str]) -> None:
        """Compare each stream's shape with what it says itself, what was written, and before."""
        positions = await stored.positions() if streams else {}
        now_ms = self._runtime.clock.now_ms()
        for stream in streams:
            written = [position for (name, _), position in positions.items() if name == stream]
            state = await self._bus.stream(stream)
            seen = self._last_seqs.get((stream, state.created_ms), 0)
            self._last_seqs[stream, state.created_ms] = max(seen, state.last_seq)
            whole = (stream, _WHOLE_STREAM)
            number = self._alarm.next_number(whole)
            for place, facts in shape_faults(state, written, seen, now_ms).items():
                self._alarm.report(Finding("shape", whole, place, facts), number)
            self._alarm.settle(whole, number)


def shape_faults(
    state: StreamState, written: Sequence[Position], last_seq_seen: int, now_ms: int
) -> dict[str, dict[str, int]]:
    """Say what is wrong with a stream as a whole, and the figures that show it."""
    faults: dict[str, dict[str, int]] = {}
    expected = state.last_seq - state.first_seq + 1
    if state.messages != expected:
        faults["messages are gone in the middle"] = {
            "first_seq": state.first_seq, "last_seq": state.last_seq,
            "messages": state.messages, "messages_expected": expected,
        }  # fmt: skip
    ours = [position for position in written if position.created_ms == state.created_ms]
    if len(ours) < len(written):
        faults["the stream was made anew"] = {"created_ms": state.created_ms}
    written_seq = max((position.seq for position in ours), default=0)
    if state.last_seq < max(written_seq, last_seq_seen):
        faults["the stream lost its end"] = {
            "last_seq": state.last_seq, "written_seq": written_seq, "last_seq_seen": last_seq_seen,
        }  # fmt: skip
    if state.first_seq > 1 and state.messages and state.created_ms + state.age_ms_max > now_ms:
        faults["the stream lost its beginning"] = {"first_seq": state.first_seq}
    return faults
