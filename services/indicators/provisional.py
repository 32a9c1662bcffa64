"""The candle that is still being made, for people who watch: never stored, never a signal.

Its last price stands in for the close that is to come, so sma9 moves with it; vwap stays that of
the last closed candle, because level-one volume is not bar volume. A minute's bar comes some
seconds after the minute, so the ticks of the minute before stand in for it until then.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from libs.common import calendar
from libs.common.events import Candle
from services.indicators.candles import Bucket, Series
from services.indicators.core import Ticker
from services.indicators.days import anchor_at

__all__ = ["provisional_candles"]


def provisional_candles(state: Ticker) -> list[Candle]:
    """Return the open candle of every timeframe, none when the minute's bar has come already.

    While minutes wait behind a gap the closes are not known, and neither are averages of them.
    """
    book, minute = state.book, state.ticks.minute
    if minute.start_ms <= book.last_ms:
        return []
    anchor = anchor_at(minute.start_ms)
    anew = anchor.day_ms != book.day_ms and not book.continuous
    since_ms = anchor.day_ms if anew else book.last_ms + 1
    minutes = [m for m in (state.ticks.before, minute) if m.start_ms >= since_ms]
    same_session = anchor == (book.day_ms, book.reset_ms)
    candles = []
    for series in book.series:
        buckets = _buckets(series, minutes, since_ms if anew else 0)
        if buckets:
            vwap = series.vwap.value if same_session else None
            candles.append(series.preview(buckets, vwap, anew=anew))
    if state.withheld.waiting:
        return [replace(c, sma9=None, extras=dict.fromkeys(c.extras)) for c in candles]
    return candles


def _buckets(series: Series, minutes: Sequence[Bucket], since_ms: int) -> list[Bucket]:
    """Return the buckets that the minutes make, open one last; none if that one has closed."""
    made: list[Bucket] = []
    if series.bucket is not None and series.bucket.start_ms >= since_ms:
        made.append(replace(series.bucket))
    for minute in minutes:
        if made and minute.start_ms < made[-1].end_ms:
            made[-1].merge(minute)
        elif minute.start_ms < series.closed_ms:
            continue
        else:
            start_ms, end_ms = calendar.bucket(minute.start_ms, series.length_ms)
            made.append(replace(minute, start_ms=start_ms, end_ms=end_ms))
    return made if made and minutes[-1].start_ms < made[-1].end_ms else []
