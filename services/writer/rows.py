"""Events as lines of Postgres's COPY text format, quickly and exactly.

A line holds the columns named here in this order, separated by tabs, with `\\N` for null. Prices
are written with the decimals that the column keeps, so what is read back is what was sent. Nothing
from outside can break out of its column: text is escaped, and numbers that are none are refused.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec

from libs.common import calendar
from libs.common.errors import CalendarError, SchemaError
from libs.common.events import Candle, Tick, TickIndicator

__all__ = [
    "CANDLE_COLUMNS",
    "INDICATOR_COLUMNS",
    "TICK_COLUMNS",
    "TickRows",
    "candle_line",
    "check_moment",
    "copy_text",
    "day_of",
    "escaped",
    "extras_text",
]

TICK_COLUMNS = ("ticker", "timestamp", "price", "volume", "total_volume", "bid", "ask")
CANDLE_COLUMNS = (
    "ticker", "timeframe", "timestamp", "open", "high", "low", "close", "volume", "sma9", "vwap",
    "extras", "source",
)  # fmt: skip
INDICATOR_COLUMNS = ("ticker", "timestamp", "sma9", "vwap")

_NULL = "\\N"
_MILLISECONDS = tuple(f".{millisecond:03d}+00" for millisecond in range(1000))
_MINUTES = tuple(f"{hour:02d}:{minute:02d}:" for hour in range(24) for minute in range(60))
_NOT_NUMBERS = frozenset({"nan", "inf", "-inf"})
_FIRST_NUMBER_COLUMN = 2
_YEAR_10000_MS = 253_402_300_800_000
_CACHED_NAMES_MAX = 65_536
_CACHED_DAYS_MAX = 4096
_EPOCH = date(1970, 1, 1)
_DAY_MS, _MINUTE_MS = 86_400_000, 60_000
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def escaped(text: str) -> str:
    """Return `text` as one COPY field; raises SchemaError on a character Postgres cannot hold."""
    if "\0" in text:
        raise SchemaError(f"a text field holds a NUL character, which no database keeps: {text!r}")
    return text.translate(_ESCAPES)


def day_of(ts_ms: int) -> date:
    """Return the New York day, by which rows are filed; raises SchemaError where there is none."""
    try:
        return calendar.day_of(ts_ms)
    except CalendarError as error:
        raise SchemaError(f"an event's time is no date that rows can have: {error}") from error


def check_moment(ts_ms: int) -> None:
    """Raise SchemaError when epoch milliseconds lie outside the years 1970 to 9999."""
    if not 0 <= ts_ms < _YEAR_10000_MS:
        raise SchemaError(f"an event's time is no date that rows can have: {ts_ms} ms")


class _Names(dict[str, str]):
    """Escaped tickers by ticker; a ticker's second row costs one look-up."""

    def __missing__(self, name: str) -> str:
        if len(self) >= _CACHED_NAMES_MAX:
            self.clear()
        text = self[name] = escaped(name)
        return text


class _Days(dict[int, str]):
    """Dates as text, by days since 1970."""

    def __missing__(self, day: int) -> str:
        if len(self) >= _CACHED_DAYS_MAX:
            self.clear()
        text = self[day] = f"{_EPOCH + timedelta(day)} "
        return text


_names, _days = _Names(), _Days()


class TickRows:
    """Collects the lines of the two tick tables, and the New York days that they belong to.

    Ticks of one frame mostly share a second, so its text is made once.
    """

    def __init__(self) -> None:
        self.ticks: list[str] = []
        self.indicators: list[str] = []
        self.days: set[date] = set()
        self.newest_s = 0  # the newest second of all lines
        self._names = _Names()
        self._second: int | None = None
        self._second_text = ""

    def clear(self) -> None:
        """Start anew; lists handed out before stay as they are."""
        self.ticks, self.indicators, self.days = [], [], set()
        self.newest_s = 0
        self._second = None

    def tick(self, tick: Tick) -> None:
        """Add a row of `equity_data`."""
        second, millisecond = divmod(tick.ts_ms, 1000)
        if second != self._second:
            self._turn(second, tick.ts_ms)
        bid, ask = tick.bid, tick.ask
        self.ticks.append(
            f"{self._names[tick.ticker]}\t{self._second_text}{_MILLISECONDS[millisecond]}"
            f"\t{tick.price:.4f}\t{tick.volume}\t{tick.total_volume}"
            f"\t{_NULL if bid is None else f'{bid:.4f}'}"
            f"\t{_NULL if ask is None else f'{ask:.4f}'}\n"
        )

    def indicator(self, indicator: TickIndicator) -> None:
        """Add a row of `indicators`."""
        second, millisecond = divmod(indicator.ts_ms, 1000)
        if second != self._second:
            self._turn(second, indicator.ts_ms)
        sma9, vwap = indicator.sma9, indicator.vwap
        self.indicators.append(
            f"{self._names[indicator.ticker]}\t{self._second_text}{_MILLISECONDS[millisecond]}"
            f"\t{_NULL if sma9 is None else f'{sma9:.6f}'}"
            f"\t{_NULL if vwap is None else f'{vwap:.6f}'}\n"
        )

    def _turn(self, second: int, ts_ms: int) -> None:
        self.days.add(day_of(ts_ms))
        self.newest_s = max(self.newest_s, second)
        self._second = second
        self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")


def candle_line(candle: Candle) -> str:
    """Return a row of `candles`, whose numbers are known to be finite."""
    sma9, vwap = candle.sma9, candle.vwap
    return (
        f"{_names[candle.ticker]}\t{candle.timeframe}\t{_moment(candle.ts_ms)}"
        f"\t{candle.open:.4f}\t{candle.high:.4f}\t{candle.low:.4f}\t{candle.close:.4f}"
        f"\t{candle.volume}\t{_NULL if sma9 is None else f'{sma9:.6f}'}"
        f"\t{_NULL if vwap is None else f'{vwap:.6f}'}"
        f"\t{escaped(extras_text(candle.extras)) if candle.extras else '{}'}\t{candle.source}\n"
    )


def _moment(ts_ms: int) -> str:
    """Return a time as COPY takes it; strftime would take longer than the rest of a line."""
    day, rest_ms = divmod(ts_ms, _DAY_MS)
    minute, rest_ms = divmod(rest_ms, _MINUTE_MS)
    second, millisecond = divmod(rest_ms, 1000)
    return f"{_days[day]}{_MINUTES[minute]}{second:02d}{_MILLISECONDS[millisecond]}"


def extras_text(extras: dict[str, float | None]) -> str:
    """Return the values of further indicators as JSON."""
    return msgspec.json.encode(extras).decode() if extras else "{}"


def copy_text(lines: list[str]) -> bytes:
    """Join lines to what COPY is sent; raises SchemaError when a number is NaN or infinite.

    Python writes those as `nan` and `inf`, which Postgres would store. Searching the whole text for
    the letters is cheap; a hit is looked at closely, since a ticker may hold them.
    """
    data = "".join(lines).encode()
    if b"nan" in data or b"inf" in data:
        for line in lines:
            fields = line[:-1].split("\t")[_FIRST_NUMBER_COLUMN:]
            if not _NOT_NUMBERS.isdisjoint(fields):
                raise SchemaError(f"a row holds a number that is none: {line[:-1]!r}")
    return data
