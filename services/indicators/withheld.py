"""Minutes of one ticker that wait because earlier ones are missing.

While a gap in the bars is open, what follows it would be computed from the wrong closes. So it
waits until the gap's last day comes as History, the gap is settled, or 90 s of broker time have
passed since the first clock or bar after the gap was announced; then the computation goes on with
what is there. Gaps and minutes are bounded: what is over the bound no longer waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from libs.common import calendar
from libs.common.events import Bar, Gap, HistoryBar

__all__ = ["PATIENCE_MS", "WITHHELD_BARS_MAX", "Withheld"]

PATIENCE_MS = 90_000
WITHHELD_BARS_MAX = 64
_GAPS_MAX = 16


class Withheld:
    """The open gaps of one ticker and the minutes behind them."""

    __slots__ = ("_gaps", "bars")

    def __init__(self) -> None:
        # By id: midnight of the last day it touches, and when patience ends (0: not yet started).
        self._gaps: dict[str, tuple[int, int]] = {}
        self.bars: list[HistoryBar] = []

    @property
    def waiting(self) -> bool:
        """Whether minutes have to wait."""
        return bool(self._gaps)

    def open(self, gap: Gap) -> None:
        """Wait for a gap; beyond the bound the one opened first is given up."""
        day_ms = calendar.day_start_ms(max(gap.from_ms, gap.to_ms - 1))
        _, deadline_ms = self._gaps.get(gap.id, (0, 0))
        self._gaps[gap.id] = (day_ms, deadline_ms)
        if len(self._gaps) > _GAPS_MAX:
            del self._gaps[next(iter(self._gaps))]

    def settle(self, gap_id: str) -> None:
        """Stop waiting for a gap that is filled or can never be."""
        self._gaps.pop(gap_id, None)

    def pass_time(self, now_ms: int) -> bool:
        """Take broker time; tell whether patience with some gap ended."""
        before = len(self._gaps)
        self._gaps = {
            gap_id: (day_ms, deadline_ms or now_ms + PATIENCE_MS)
            for gap_id, (day_ms, deadline_ms) in self._gaps.items()
            if not deadline_ms or now_ms < deadline_ms
        }
        return len(self._gaps) < before

    def keep(self, bar: Bar) -> bool:
        """Keep a minute; False when there is no room, and then nothing waits any more.

        Raises CalendarError for a time at which it could not be computed later.
        """
        calendar.day_of(bar.ts_ms)
        if len(self.bars) == WITHHELD_BARS_MAX:
            self._gaps.clear()
            return False
        self.bars.append(HistoryBar(bar.ts_ms, bar.open, bar.high, bar.low, bar.close, bar.volume))
        return True

    def meet(self, day_ms: int, last_ms: int) -> None:
        """A day has come as History, up to the minute `last_ms`: drop what it contains."""
        self._gaps = {key: gap for key, gap in self._gaps.items() if gap[0] > day_ms}
        self.bars = [bar for bar in self.bars if bar.ts_ms > last_ms]

    def release(self) -> list[HistoryBar]:
        """Give the minutes away."""
        bars, self.bars = self.bars, []
        return bars

    def snapshot(self) -> list[Any]:
        """Return the whole state."""
        return [[[key, *gap] for key, gap in self._gaps.items()], self.bars]

    def restore(self, state: Sequence[Any]) -> None:
        """Take up a state that `snapshot` gave and MessagePack carried."""
        gaps, bars = state
        self._gaps = {key: (day_ms, deadline_ms) for key, day_ms, deadline_ms in gaps}
        self.bars = msgspec.convert(bars, list[HistoryBar])
