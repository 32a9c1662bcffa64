"""Price history's JSON -> minute bars, each candle judged for itself."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from libs.common.events import HistoryBar
from services.ingest import wire

__all__ = ["CANDLES_MAX", "minutes_of"]

CANDLES_MAX = 10_000


class _Candle(Struct):
    datetime: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class _Answer(Struct):
    candles: list[msgspec.Raw] = []


def minutes_of(content: bytes, start_ms: int, end_ms: int) -> tuple[list[HistoryBar], int]:
    """Return the bars that begin in [start_ms, end_ms), ascending, and how many were unusable.

    Of equal times the last one counts. Raises ValueError when the whole answer does not decode.
    """
    try:
        candles = msgspec.json.decode(content, type=_Answer).candles
    except msgspec.DecodeError as error:
        raise ValueError(f"price history does not decode: {error}") from None
    kept: dict[int, HistoryBar] = {}
    bad = max(0, len(candles) - CANDLES_MAX)
    for candle in candles[:CANDLES_MAX]:
        try:
            bar = _bar(msgspec.json.decode(candle, type=_Candle))
        except (msgspec.MsgspecError, wire.BadItem):
            bad += 1
            continue
        if start_ms <= bar.ts_ms < end_ms:
            kept[bar.ts_ms] = bar
    return [kept[ts_ms] for ts_ms in sorted(kept)], bad


def _bar(candle: _Candle) -> HistoryBar:
    opened, high = wire.price(candle.open), wire.price(candle.high)
    low, close = wire.price(candle.low), wire.price(candle.close)
    ts_ms = wire.time_ms(candle.datetime)
    wire.check_bar(ts_ms, opened, high, low, close)
    return HistoryBar(ts_ms, opened, high, low, close, wire.whole(candle.volume))
