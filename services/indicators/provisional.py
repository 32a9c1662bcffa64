"""The candle that is still being made, for people who watch: never stored, never a signal.

Its last price stands in for the close that is to come, so sma9 moves with it; vwap stays that of
the last closed candle, because level-one volume is not bar volume. A minute's bar comes some
seconds after the minute, so the ticks of the minute before stand in for it until then.
"""

from __future__ import annotations

from msgspec.structs import replace

from libs.common.events import Candle, HistoryBar
from services.indicators.candles import Bucket
from services.indicators.core import Ticker

__all__ = ["provisional_candles"]


def provisional_candles(state: Ticker) -> list[Candle]:
    """Return the open candle of every timeframe, none when the minute's bar has come already.

    While minutes wait behind a gap the closes are not known, and neither are averages of them.
    """
    book, before, minute = state.book, state.ticks.before, state.ticks.minute
    if minute.start_ms <= book.last_ms:
        return []
    fork = book.fork()
    if before.start_ms > book.last_ms:
        fork.add(_as_bar(before))
    candles = {candle.timeframe: candle for candle in fork.add(_as_bar(minute))}
    candles |= {candle.timeframe: candle for candle in fork.close_all()}
    same_session = fork.reset_ms == book.reset_ms
    made = []
    for series in book.series:
        candle = candles.get(series.timeframe)
        if candle is not None:
            vwap = series.vwap.value if same_session else None
            candle = replace(candle, vwap=vwap)
            made.append(_without_averages(candle) if state.withheld.waiting else candle)
    return made


def _as_bar(minute: Bucket) -> HistoryBar:
    return HistoryBar(
        minute.start_ms, minute.open, minute.high, minute.low, minute.close, minute.volume
    )


def _without_averages(candle: Candle) -> Candle:
    return replace(candle, sma9=None, extras=dict.fromkeys(candle.extras))
