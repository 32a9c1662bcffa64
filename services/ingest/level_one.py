"""Level one deltas of one ticker -> ticks.

Schwab sends only what changed since it last looked, so the state of a ticker is merged from its
items. The rules:

- the first item with a total volume after a subscription is the image: a state, not a change;
- afterwards a change of last price, total volume or trade time makes a tick; its volume is the
  growth of the total, and a total that falls (the daily reset) is no volume;
- ticks of a ticker never share a time: an equal or earlier one becomes the last one plus 1 ms;
- an item whose quote and trade times both lie before what is known is an old image sent again.

Split the items into frames as you like: the ticks are the same.
"""

from __future__ import annotations

from libs.common import calendar
from libs.common.events import Gap, Tick
from services.ingest.wire import BadItem, LevelOneItem

__all__ = ["FUTURE_MS_MAX", "TICK_MOVED", "TICK_OUT_OF_SESSION", "TICK_RESET", "LevelOne"]

TICK_RESET = 1  # the day's volume began anew; this tick's volume is 0
TICK_MOVED = 2  # ts_ms is not the trade time, which was taken by an earlier tick
TICK_OUT_OF_SESSION = 4  # traded before 07:00, after the post-market or on a closed day

FUTURE_MS_MAX = 5_000
_HALTED = "Halted"


class LevelOne:
    """The merged state of one ticker; `last_tick_ms` and the pending gap outlive restarts."""

    __slots__ = (
        "_ask",
        "_bid",
        "_halted_ms",
        "_last",
        "_quote_ms",
        "_resumed_ms",
        "_trade_ms",
        "_volume",
        "gap_cause",
        "gap_from_ms",
        "imaged",
        "last_tick_ms",
        "ticker",
    )

    def __init__(self, ticker: str) -> None:
        self.ticker = ticker
        self.imaged = False
        self.last_tick_ms = 0
        self.gap_from_ms = 0
        self.gap_cause = ""
        self._last = 0.0
        self._volume = 0
        self._bid: float | None = None
        self._ask: float | None = None
        self._quote_ms = 0
        self._trade_ms = 0
        self._halted_ms = 0  # when the last halt was first heard of
        self._resumed_ms = 0  # and when it was over; 0 while it lasts

    def interrupted(self, cause: str, trading_since_ms: int) -> None:
        """Begin anew with the next image; ticks may be missing since the last one.

        Where none is known, they are missing since the session that is going on began to trade, at
        `trading_since_ms`; 0 when none is.
        """
        self.imaged = False
        from_ms = self.last_tick_ms + 1 if self.last_tick_ms else trading_since_ms
        if from_ms:
            self.missed(cause, from_ms)

    def missed(self, cause: str, from_ms: int) -> None:
        """Note that ticks are missing from `from_ms` to the next tick."""
        if not self.gap_cause or from_ms < self.gap_from_ms:
            self.gap_from_ms, self.gap_cause = from_ms, cause

    def take(self, item: LevelOneItem, sent_ms: int) -> Tick | str | None:
        """Merge one item; returns the tick it makes, a word for what it was, or None.

        Raises BadItem, before anything is merged, when a time lies in the future of `sent_ms`.
        """
        limit_ms = sent_ms + FUTURE_MS_MAX
        quote_ms, trade_ms = item.quote_ms, item.trade_ms
        if (quote_ms or 0) > limit_ms or (trade_ms or 0) > limit_ms:
            raise BadItem("future_time")
        if (
            quote_ms is not None
            and trade_ms is not None
            and quote_ms < self._quote_ms
            and trade_ms < self._trade_ms
        ):
            return "stale_image"
        if item.status is not None:
            self._heed(item.status, sent_ms)
        if not self.imaged:
            self._merge(item)
            self.imaged = item.total_volume is not None
            return "image" if self.imaged else "before_image"
        before = (self._last, self._volume, self._trade_ms)
        self._merge(item)
        if before == (self._last, self._volume, self._trade_ms) or not self._last:
            return None
        growth = self._volume - before[1]
        if growth < 0 and before[0] == self._last and before[2] == self._trade_ms:
            return "reset"
        return self._tick(growth, sent_ms)

    def gap_until(self, to_ms: int) -> Gap | None:
        """Return what is missing before a tick at `to_ms`, once."""
        cause, from_ms = self.gap_cause, self.gap_from_ms
        if not cause:
            return None
        self.gap_cause, self.gap_from_ms = "", 0
        gap_id = f"{self.ticker}:ticks:{from_ms}"
        return Gap(gap_id, self.ticker, "ticks", from_ms, to_ms, cause, "unfillable", "tick_series")

    def halted(self, from_ms: int, to_ms: int) -> bool:
        """Whether trading was halted at some time between, as far as this life has heard."""
        if not self._halted_ms:
            return False
        return self._halted_ms < to_ms and (not self._resumed_ms or self._resumed_ms > from_ms)

    def _heed(self, status: str, sent_ms: int) -> None:
        lasts = bool(self._halted_ms) and not self._resumed_ms
        if status == _HALTED and not lasts:
            # An image tells of a halt that began unheard, at the last tick or later.
            self._halted_ms = sent_ms if self.imaged else self.last_tick_ms + 1
            self._resumed_ms = 0
        elif status != _HALTED and lasts:
            self._resumed_ms = sent_ms

    def _merge(self, item: LevelOneItem) -> None:
        if item.bid is not None:
            self._bid = item.bid or None
        if item.ask is not None:
            self._ask = item.ask or None
        if item.last:
            self._last = item.last
        if item.total_volume is not None:
            self._volume = item.total_volume
        if item.quote_ms is not None:
            self._quote_ms = item.quote_ms
        if item.trade_ms is not None:
            self._trade_ms = item.trade_ms

    def _tick(self, growth: int, sent_ms: int) -> Tick:
        traded_ms = self._trade_ms or sent_ms
        ts_ms = max(traded_ms, self.last_tick_ms + 1)
        flags = TICK_RESET if growth < 0 else 0
        if ts_ms != traded_ms:
            flags |= TICK_MOVED
        if calendar.segment_at(ts_ms) is calendar.Segment.CLOSED:
            flags |= TICK_OUT_OF_SESSION
        self.last_tick_ms = ts_ms
        return Tick(
            self.ticker,
            ts_ms,
            self._last,
            max(growth, 0),
            self._volume,
            self._bid,
            self._ask,
            flags,
        )
