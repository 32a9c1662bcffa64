"""Schwab's streamer frames, read with suspicion: text in, checked items or rejects out.

Nothing here raises on hostile input except `BadItem`, whose `reason` is a short constant fit for a
metric's label. A frame that cannot be read at all is one reject; inside a frame every item stands
for itself.

Field numbers are those of the wire; the names follow Schwab's streamer guide.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

__all__ = [
    "CHART",
    "EXCERPT_CHARS_MAX",
    "FRAME_BYTES_MAX",
    "LEVEL_ONE",
    "BadItem",
    "ChartItem",
    "LevelOneItem",
    "Reject",
    "chart_item",
    "check_bar",
    "excerpt",
    "level_one_item",
    "message_of",
    "newest_stamp_ms",
    "price",
    "time_ms",
    "unknown_fields",
    "whole",
]

LEVEL_ONE = "LEVELONE_EQUITIES"
CHART = "CHART_EQUITY"

FRAME_BYTES_MAX = 8 << 20
EXCERPT_CHARS_MAX = 512

_PRICE_MAX = 99_999_999.0  # what the price columns hold
_WHOLE_MAX = 1 << 53  # what a double in somebody's JSON still counts exactly
_PRICE_DECIMALS = 4
_NAME_CHARS_MAX = 32
_EARLIEST_MS = 946_684_800_000  # the year 2000

_LEVEL_ONE_FIELDS = frozenset({"1", "2", "3", "8", "32", "34", "35"})
_CHART_FIELDS = frozenset({"1", "2", "3", "4", "5", "6", "7", "8"})
# Sent with an image or an item besides the numbered fields.
_NAMED_FIELDS = frozenset({"key", "seq", "delayed", "assetMainType", "assetSubType", "cusip"})
_LEVEL_ONE_KNOWN = _LEVEL_ONE_FIELDS | _NAMED_FIELDS | {"0"}
_CHART_KNOWN = _CHART_FIELDS | _NAMED_FIELDS | {"0"}

_decode = msgspec.json.Decoder().decode


class BadItem(Exception):
    """An item that breaks the protocol; `reason` is a constant."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Reject(Struct, frozen=True):
    """Something from the wire that was not taken, fit for a dead letter."""

    reason: str
    excerpt: str


class LevelOneItem(Struct, frozen=True, gc=False):
    """One symbol's changed fields; None means unchanged. Prices of 0 mean there is none."""

    ticker: str
    bid: float | None
    ask: float | None
    last: float | None
    total_volume: int | None
    quote_ms: int | None
    trade_ms: int | None
    unknown: bool
    status: str | None = None


class ChartItem(Struct, frozen=True, gc=False):
    """One finished minute; `seq` counts the bars sent for this symbol, if it is there."""

    ticker: str
    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    seq: int | None
    unknown: bool


def message_of(raw: str | bytes) -> dict[str, Any] | Reject:
    """Parse one frame; whatever is no JSON object of bearable size and depth is a reject."""
    if len(raw) > FRAME_BYTES_MAX:
        return Reject("too_big", excerpt(raw))
    try:
        message = _decode(raw)
    except (msgspec.DecodeError, UnicodeError):
        message = _lenient(raw)
    except RecursionError:
        return Reject("too_deep", excerpt(raw))
    if isinstance(message, Reject):
        return message
    if not isinstance(message, dict):
        return Reject("not_an_object", excerpt(raw))
    return message


def _lenient(raw: str | bytes) -> Any:
    """Parse what is almost JSON: NaN and Infinity cost an item, not the whole frame."""
    try:
        return json.loads(raw)
    except RecursionError:
        return Reject("too_deep", excerpt(raw))
    except ValueError:
        return Reject("bad_json", excerpt(raw))


def excerpt(value: object) -> str:
    """Return the beginning of anything as text that every encoder takes."""
    if isinstance(value, bytes):
        text = value[:EXCERPT_CHARS_MAX].decode("utf-8", "backslashreplace")
    elif isinstance(value, str):
        text = value[:EXCERPT_CHARS_MAX]
    else:
        try:
            text = repr(value)[:EXCERPT_CHARS_MAX]
        except (RecursionError, ValueError):
            text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def price(value: object) -> float:
    """Return a price at four decimals; raises BadItem unless it is a bearable number >= 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadItem("bad_price")
    if not 0 <= value <= _PRICE_MAX:  # also refuses NaN
        raise BadItem("bad_price")
    return round(float(value), _PRICE_DECIMALS)


def whole(value: object, reason: str = "bad_volume") -> int:
    """Return a count >= 0, also from a float without a fraction; raises BadItem."""
    if isinstance(value, float):
        if not math.isfinite(value) or value != math.floor(value):
            raise BadItem(reason)
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _WHOLE_MAX:
        raise BadItem(reason)
    return value


def time_ms(value: object) -> int:
    """Return epoch milliseconds, also from text as in heartbeats; raises BadItem."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:
        value = int(value)
    return whole(value, "bad_time")


def level_one_item(item: object) -> LevelOneItem:
    """Check one element of a LEVELONE_EQUITIES content list; raises BadItem."""
    fields = _fields(item)
    get = fields.get
    bid, ask, last = get("1"), get("2"), get("3")
    volume, quote, trade = get("8"), get("34"), get("35")
    return LevelOneItem(
        _ticker(fields),
        None if bid is None else price(bid),
        None if ask is None else price(ask),
        None if last is None else price(last),
        None if volume is None else whole(volume),
        None if quote is None else _instant(quote),
        None if trade is None else _instant(trade),
        not fields.keys() <= _LEVEL_ONE_KNOWN,
        _text(get("32"), "bad_status"),
    )


def chart_item(item: object) -> ChartItem:
    """Check one element of a CHART_EQUITY content list; raises BadItem."""
    fields = _fields(item)
    seq = fields.get("seq")
    bar = ChartItem(
        ticker=_ticker(fields),
        ts_ms=time_ms(fields.get("7")),
        open=price(fields.get("2")),
        high=price(fields.get("3")),
        low=price(fields.get("4")),
        close=price(fields.get("5")),
        volume=whole(fields.get("6")),
        seq=None if seq is None else whole(seq, "bad_seq"),
        unknown=not fields.keys() <= _CHART_KNOWN,
    )
    check_bar(bar.ts_ms, bar.open, bar.high, bar.low, bar.close)
    return bar


def newest_stamp_ms(message: dict[str, Any]) -> int:
    """Return the newest time that a frame's heartbeats and data parts claim; 0 without any."""
    newest_ms = 0
    for name, key in (("notify", "heartbeat"), ("data", "timestamp")):
        parts = message.get(name)
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, dict) and key in part:
                with suppress(BadItem):
                    newest_ms = max(newest_ms, time_ms(part[key]))
    return newest_ms


def unknown_fields(item: dict[str, Any], service: str) -> set[str]:
    """Return the names of an item's fields that this program has never heard of."""
    known = _LEVEL_ONE_KNOWN if service == LEVEL_ONE else _CHART_KNOWN
    return {excerpt(name)[:_NAME_CHARS_MAX] for name in item.keys() - known}


def check_bar(ts_ms: int, opened: float, high: float, low: float, close: float) -> None:
    """Raise BadItem unless the bar begins on a minute and its range holds open and close."""
    if ts_ms % 60_000:
        raise BadItem("bad_minute")
    if ts_ms < _EARLIEST_MS:
        raise BadItem("bad_time")
    if not 0 < low <= min(opened, close) <= max(opened, close) <= high:
        raise BadItem("bad_range")


def _instant(value: object) -> int | None:
    """Return a quote or trade time; 0 stands for never, and other distant pasts are nonsense."""
    instant_ms = time_ms(value)
    if 0 < instant_ms < _EARLIEST_MS:
        raise BadItem("bad_time")
    return instant_ms or None


def _text(value: object, reason: str) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= _NAME_CHARS_MAX):
        return value
    raise BadItem(reason)


def _fields(item: object) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise BadItem("bad_item")
    return item


def _ticker(fields: dict[str, Any]) -> str:
    key = fields.get("key")
    if not isinstance(key, str):
        raise BadItem("bad_key")
    return key
