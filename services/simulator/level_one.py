"""LEVELONE_EQUITIES: what the broker knows of a symbol, and its fields by number on the wire.

A `Snapshot` is the state of one symbol at one instant; `fields` renders it whole. A delta is the
difference of two renderings, so a client that merges image and deltas always holds the rendering.
Absent means unchanged; prices that do not exist yet are 0, as the broker sends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.simulator.ticks import Update

__all__ = ["FIELD_NUMBERS", "IMAGE_EXTRAS", "Snapshot", "Value", "changed", "fields", "statics"]

Value = str | int | float | bool | None

# Names by number, as the real client relabels them.
FIELD_NAMES = (
    "SYMBOL BID_PRICE ASK_PRICE LAST_PRICE BID_SIZE ASK_SIZE ASK_ID BID_ID TOTAL_VOLUME LAST_SIZE "
    "HIGH_PRICE LOW_PRICE CLOSE_PRICE EXCHANGE_ID MARGINABLE DESCRIPTION LAST_ID OPEN_PRICE "
    "NET_CHANGE HIGH_PRICE_52_WEEK LOW_PRICE_52_WEEK PE_RATIO DIVIDEND_AMOUNT DIVIDEND_YIELD NAV "
    "EXCHANGE_NAME DIVIDEND_DATE REGULAR_MARKET_QUOTE REGULAR_MARKET_TRADE "
    "REGULAR_MARKET_LAST_PRICE REGULAR_MARKET_LAST_SIZE REGULAR_MARKET_NET_CHANGE SECURITY_STATUS "
    "MARK QUOTE_TIME_MILLIS TRADE_TIME_MILLIS REGULAR_MARKET_TRADE_MILLIS BID_TIME_MILLIS "
    "ASK_TIME_MILLIS ASK_MIC_ID BID_MIC_ID LAST_MIC_ID NET_CHANGE_PERCENT "
    "REGULAR_MARKET_CHANGE_PERCENT MARK_CHANGE MARK_CHANGE_PERCENT HTB_QUANTITY HTB_RATE "
    "HARD_TO_BORROW IS_SHORTABLE POST_MARKET_NET_CHANGE POST_MARKET_NET_CHANGE_PERCENT"
).split()
FIELD_NUMBERS = range(len(FIELD_NAMES))
_ABSENT = "\0absent"
IMAGE_EXTRAS: Mapping[str, Value] = {
    "delayed": False,
    "assetMainType": "EQUITY",
    "assetSubType": "ETF",
}


@dataclass(slots=True)
class Snapshot:
    """One symbol at one instant; prices in dollars, sizes in shares, times in epoch ms, 0 = none.

    `open`, `high` and `low` belong to the regular session; `close` is the previous session's.
    """

    last: float = 0.0
    print_size: int = 0
    bid: float = 0.0
    ask: float = 0.0
    bid_size: int = 0
    ask_size: int = 0
    volume: int = 0
    open: float = 0.0
    high: float = 0.0
    low: float = 0.0
    close: float = 0.0
    regular_last: float = 0.0
    regular_size: int = 0
    regular_trade_ms: int = 0
    quote_ms: int = 0
    trade_ms: int = 0
    bid_ms: int = 0
    ask_ms: int = 0
    status: str = "Normal"

    def apply(self, update: Update, *, regular: bool, requote: bool = False) -> None:
        """Take in one update of the tape; with `requote` its quote is new even if it is equal."""
        ts_ms = update.ts_ms
        if requote or (update.bid, update.bid_size) != (self.bid, self.bid_size):
            self.bid, self.bid_size = update.bid, update.bid_size
            self.bid_ms = self.quote_ms = ts_ms
        if requote or (update.ask, update.ask_size) != (self.ask, self.ask_size):
            self.ask, self.ask_size = update.ask, update.ask_size
            self.ask_ms = self.quote_ms = ts_ms
        price = update.price
        if price is None:
            return
        self.last, self.print_size, self.trade_ms = price, update.print_size, ts_ms
        self.volume += update.size
        if regular:
            self.regular_last, self.regular_size = price, update.print_size
            self.regular_trade_ms = ts_ms
            self.extend(price, price, price)

    def extend(self, opening: float, high: float, low: float) -> None:
        """Widen the regular session's range."""
        if self.open == 0.0:
            self.open, self.high, self.low = opening, high, low
        else:
            self.high = max(self.high, high)
            self.low = min(self.low, low)

    @property
    def mark(self) -> float:
        """The last price, kept within the quote."""
        if self.bid and self.ask:
            return min(max(self.last, self.bid), self.ask)
        return self.last


def statics(description: str, price: float) -> dict[int, Value]:
    """Return the fields that do not move during a day."""
    return {
        13: "Q",
        14: True,
        15: description,
        19: round(price * 1.18, 2),
        20: round(price * 0.81, 2),
        21: 0,
        22: 0,
        23: 0,
        24: 0,
        25: "NASDAQ",
        26: "",
        27: True,
        28: True,
        46: 100_000,
        47: None,
        48: 0,
        49: 1,
    }


def fields(state: Snapshot) -> dict[int, Value]:
    """Render everything that moves, by field number."""
    close = state.close
    last, mark, regular = state.last, state.mark, state.regular_last
    after = last - regular if regular and state.trade_ms > state.regular_trade_ms else 0.0
    return {
        1: state.bid,
        2: state.ask,
        3: last,
        4: state.bid_size,
        5: state.ask_size,
        6: "P",
        7: "Q",
        8: state.volume,
        9: state.print_size,
        10: state.high,
        11: state.low,
        12: close,
        16: "D",
        17: state.open,
        18: _change(last, close),
        29: regular,
        30: state.regular_size,
        31: _change(regular, close),
        32: state.status,
        33: mark,
        34: state.quote_ms,
        35: state.trade_ms,
        36: state.regular_trade_ms,
        37: state.bid_ms,
        38: state.ask_ms,
        39: "ARCX",
        40: "XNAS",
        41: "XADF",
        42: _percent(last, close),
        43: _percent(regular, close),
        44: _change(mark, close),
        45: _percent(mark, close),
        50: round(after, 4),
        51: round(100 * after / regular, 8) if regular else 0.0,
    }


def changed(
    before: Mapping[int, Value], after: Mapping[int, Value], wanted: Iterable[int]
) -> dict[str, Value]:
    """Return the wanted fields that differ, by their number as text.

    Whole numbers lose their decimals, as they do at the broker: 769.0 is sent as 769.
    """
    out: dict[str, Value] = {}
    for number in wanted:
        value = after.get(number, _ABSENT)
        if value is not _ABSENT and value != before.get(number, _ABSENT):
            out[str(number)] = int(value) if type(value) is float and value.is_integer() else value
    return out


def _change(price: float, close: float) -> float:
    return round(price - close, 4) if close and price else 0.0


def _percent(price: float, close: float) -> float:
    return round(100 * (price - close) / close, 8) if close and price else 0.0
