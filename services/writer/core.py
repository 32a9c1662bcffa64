"""Frames -> batches of rows: what is written together, and when.

A `Batcher` takes the frames of one partition of one stream in order and gives batches, each of
which moves the partition's position from where the one before left it. Within a batch

- ticks and tick indicators are lines for COPY: every one is a row of its own;
- candles are upserted and compared with the row before them, so two of one key keep their order:
  the n-th candle of a key stands in the n-th wave;
- of several gaps of one id the last counts, of several signals of one id the highest revision;
- a gap that says that a session was checked is a row of another table.

Pure: time comes in as an argument (`now_s`, any steadily growing clock), nothing is sent anywhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from libs.common.errors import PositionError, SchemaError
from libs.common.events import (
    SESSION_CHECK,
    Bar,
    Candle,
    Clock,
    Correction,
    Event,
    Frame,
    Gap,
    History,
    Signal,
    Tick,
    TickIndicator,
)
from services.writer.rows import TickRows, check_moment, copy_text, day_of

__all__ = ["Batch", "Batcher", "Limits", "Lines", "Position", "judge_position"]

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is handed over: this long after its first frame, or at this size.

    The sizes are judged after each frame, so a batch can be one frame larger. `input_bytes_max`
    counts encoded frames; their rows take about twice as much.
    """

    flush_ms: int
    rows_max: int
    input_bytes_max: int


@dataclass(frozen=True, slots=True)
class Position:
    """The last frame whose rows are committed: its sequence in the stream and its number.

    `created_ms` names the incarnation of the stream. Frames of a partition are numbered from 1
    without a hole, so `n` tells a frame that was lost from one of another partition; 0 means that
    nothing is known of the frame before (nothing was read yet, or an operator accepted a hole).
    """

    created_ms: int
    seq: int = 0
    n: int = 0


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of COPY text and how many they are."""

    count: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of consecutive frames of one partition, and the positions before and after them.

    `partitions` names each table and New York day that has rows here. `candles` holds waves, see
    above. `sent_ms` is the newest broker time, `received_ms` the wall clock at each frame's
    arrival; `newest_tick_s` is the second of the newest tick or tick indicator, 0 without any.
    """

    stream: str
    partition: int
    before: Position
    after: Position
    frames: int = 0
    ticks: Lines = Lines()
    indicators: Lines = Lines()
    partitions: frozenset[tuple[str, date]] = frozenset()
    candles: Sequence[Sequence[Candle]] = ()
    gaps: Sequence[Gap] = ()
    checks: Sequence[Gap] = ()
    signals: Sequence[Signal] = ()
    sent_ms: int = 0
    received_ms: Sequence[int] = ()
    newest_tick_s: int = 0

    @property
    def rows(self) -> dict[str, int]:
        """How many rows go to each table."""
        return {
            "equity_data": self.ticks.count,
            "indicators": self.indicators.count,
            "candles": sum(len(wave) for wave in self.candles),
            "gaps": len(self.gaps),
            "session_checks": len(self.checks),
            "signals": len(self.signals),
        }


def judge_position(
    position: Position | None,
    created_ms: int,
    first_seq: int,
    last_seq: int,
    name: str,
    *,
    sole: bool,
) -> Position:
    """Return where to go on, or refuse a position that cannot belong to its stream.

    Without a position the stream is read from its beginning. `sole` says that the stream has one
    partition, so that every sequence is one of ours; with more of them the frame numbers tell
    (`Batcher.add`). Raises PositionError, which says what does not fit and how to mend it.
    """
    if position is None:
        position = Position(created_ms)
    if position.created_ms != created_ms:
        raise PositionError(
            f"{name}: the stream was made anew at {created_ms} ms, the rows go up to message "
            f"{position.seq} of the one made at {position.created_ms} ms; restore streams and "
            "database from one backup, or start both empty"
        )
    if position.seq > last_seq:
        raise PositionError(
            f"{name}: the rows go up to message {position.seq}, but the stream ends at {last_seq}: "
            "it lost its tail; restore streams and database from one backup"
        )
    if sole and position.seq + 1 < first_seq:
        raise _hole(name, position, first_seq)
    return position


def _hole(name: str, position: Position, found_seq: int) -> PositionError:
    return PositionError(
        f"{name}: messages after {position.seq} and before {found_seq} left the stream before they "
        "were written; restore the stream from a backup or, to go on without them, set seq = "
        f"{found_seq - 1} and frame_n = 0 in its row of stream_positions"
    )


class Batcher:
    """Builds one partition's batches. Frames that are written already are passed over."""

    def __init__(
        self,
        stream: str,
        partition: int,
        position: Position,
        limits: Limits,
        *,
        with_ticks: bool = True,
    ) -> None:
        """Without ticks their frames move the position as ever, and leave no rows."""
        self._stream = stream
        self._partition = partition
        self._limits = limits
        self._lines = TickRows()
        self._take: dict[type[Event], Callable[[Any], None]] = {
            Tick: self._lines.tick if with_ticks else self._see,
            TickIndicator: self._lines.indicator if with_ticks else self._see,
            Candle: self._candle,
            Gap: self._gap,
            Signal: self._signal,
            Bar: _pass_over,
            Clock: _pass_over,
            Correction: _pass_over,
            History: _pass_over,
        }
        self._begin(position)

    def _begin(self, position: Position) -> None:
        self._before = self._after = position
        self._lines.clear()
        self._frames = self._rows = self._input_bytes = self._sent_ms = 0
        self._due_s = math.inf
        self._received_ms: list[int] = []
        self._waves: list[list[Candle]] = []
        self._seen: Counter[Key] = Counter()
        self._candle_days: set[date] = set()
        self._gaps: dict[str, Gap] = {}
        self._checks: dict[str, Gap] = {}
        self._signals: dict[str, Signal] = {}
        self._seen_s = 0

    @property
    def frames(self) -> int:
        """How many frames the batch holds so far."""
        return self._frames

    @property
    def full(self) -> bool:
        """Whether the batch must be taken before another frame is added."""
        return (
            self._rows >= self._limits.rows_max or self._input_bytes >= self._limits.input_bytes_max
        )

    def due(self, now_s: float) -> bool:
        """Whether the batch has waited long enough."""
        return now_s >= self._due_s

    def wait_s(self, now_s: float) -> float:
        """Return how long until the batch is due; infinity while it is empty."""
        return max(0.0, self._due_s - now_s)

    def add(self, seq: int, frame: Frame, frame_bytes: int, now_s: float) -> None:
        """Take the rows of the frame at `seq`, whose encoded size is `frame_bytes`.

        Raises PositionError when frames are missing before it, SchemaError when it holds what no
        column can.
        """
        position = self._after
        if seq <= position.seq:
            return
        known = position.n or not position.seq
        if known and frame.n != position.n + 1:
            raise _hole(f"{self._stream} partition {self._partition}", position, seq)
        for event in frame.events:
            self._take[type(event)](event)
        self._after = Position(position.created_ms, seq, frame.n)
        self._frames += 1
        self._rows += len(frame.events)
        self._input_bytes += frame_bytes
        self._sent_ms = max(self._sent_ms, frame.sent_ms)
        self._received_ms.append(frame.received_ms)
        if self._due_s is math.inf:
            self._due_s = now_s + self._limits.flush_ms / 1000

    def take(self) -> Batch:
        """Hand over the rows so far and begin the next batch; raises SchemaError on NaN."""
        lines = self._lines
        batch = Batch(
            stream=self._stream,
            partition=self._partition,
            before=self._before,
            after=self._after,
            frames=self._frames,
            ticks=Lines(len(lines.ticks), copy_text(lines.ticks)),
            indicators=Lines(len(lines.indicators), copy_text(lines.indicators)),
            partitions=self._partitions(),
            candles=self._waves,
            gaps=[self._gaps[gap_id] for gap_id in sorted(self._gaps)],
            checks=[self._checks[check_id] for check_id in sorted(self._checks)],
            signals=[self._signals[signal_id] for signal_id in sorted(self._signals)],
            sent_ms=self._sent_ms,
            received_ms=self._received_ms,
            newest_tick_s=max(lines.newest_s, self._seen_s),
        )
        self._begin(self._after)
        return batch

    def _partitions(self) -> frozenset[tuple[str, date]]:
        lines = self._lines
        return frozenset(
            [("equity_data", day) for day in lines.days if lines.ticks]
            + [("indicators", day) for day in lines.days if lines.indicators]
            + [("candles", day) for day in self._candle_days]
        )

    def _see(self, tick: Tick | TickIndicator) -> None:
        """Take no row of a tick; how fresh the data are shall be known all the same."""
        check_moment(tick.ts_ms)
        self._seen_s = max(self._seen_s, tick.ts_ms // 1000)

    def _candle(self, candle: Candle) -> None:
        _check_numbers(
            candle.open, candle.high, candle.low, candle.close, candle.sma9, candle.vwap,
            *candle.extras.values(), what=candle,
        )  # fmt: skip
        key = (candle.ticker, candle.timeframe, candle.ts_ms)
        wave = self._seen[key]
        if wave == len(self._waves):
            self._waves.append([])
        self._waves[wave].append(candle)
        self._seen[key] = wave + 1
        self._candle_days.add(day_of(candle.ts_ms))

    def _gap(self, gap: Gap) -> None:
        check_moment(gap.from_ms)
        check_moment(gap.to_ms)
        known = self._checks if gap.cause == SESSION_CHECK else self._gaps
        known[gap.id] = gap

    def _signal(self, signal: Signal) -> None:
        _check_numbers(signal.price, signal.sma9, signal.vwap, what=signal)
        check_moment(signal.ts_ms)
        known = self._signals.get(signal.id)
        if known is None or signal.revision > known.revision:
            self._signals[signal.id] = signal


def _pass_over(_: Event) -> None:
    """Take no row from an event that only others need."""


def _check_numbers(*numbers: float | None, what: Event) -> None:
    if not all(number is None or math.isfinite(number) for number in numbers):
        raise SchemaError(f"an event holds a number that is none: {what}")
