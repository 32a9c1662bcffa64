"""Tables as CSV: the same rows as the JSON, with UTC and New York times, row by row.

Numbers are written as the JSON has them; what is unknown is empty. A text that a spreadsheet would
take for a formula is led by an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from libs.common.calendar import NEW_YORK
from services.gateway.answers import Gap, Series, Signal

__all__ = ["file_name", "gap_lines", "new_york", "series_lines", "signal_lines", "utc"]

_ROWS_PER_PIECE = 500
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TICK_COLUMNS = ("price", "volume", "sma9", "vwap")
_CANDLE_COLUMNS = ("open", "high", "low", "close", "volume", "sma9", "vwap", "revision")


def file_name(*parts: str | None) -> str:
    """Return `QQQ-2026-01-05-1m.csv` of the parts there are, without a surprise for any system."""
    name = "-".join(part for part in parts if part)
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in name) + ".csv"


def utc(ts_ms: int) -> str:
    """Return an instant as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(ts_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ts_ms % 1000:03d}Z"


def new_york(ts_ms: int) -> str:
    """Return an instant as New York's clocks show it, with the offset, to the millisecond."""
    moment = datetime.fromtimestamp(ts_ms // 1000, NEW_YORK)
    offset = moment.strftime("%z")
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ts_ms % 1000:03d}{offset[:3]}:{offset[3:]}"


def series_lines(series: Series) -> Iterator[str]:
    """Yield a series in pieces of many lines."""
    names = _TICK_COLUMNS if series.timeframe == "tick" else _CANDLE_COLUMNS
    columns: list[list[Any]] = [getattr(series, name) for name in names]
    extras = {} if series.extras is msgspec.UNSET else series.extras
    header = ["ticker", "utc", "new_york", *names, *extras]
    columns += extras.values()
    rows = (
        [series.ticker, utc(ts_ms), new_york(ts_ms), *values]
        for ts_ms, *values in zip(series.ts_ms, *columns, strict=True)
    )
    return _pieces(header, rows)


def signal_lines(signals: Iterable[Signal]) -> Iterator[str]:
    """Yield signals in pieces of many lines."""
    names = (
        "id", "ticker", "timeframe", "kind", "direction", "price", "sma9", "vwap", "state", "late",
        "revision",
    )  # fmt: skip
    rows = (
        [utc(signal.ts_ms), new_york(signal.ts_ms), *(getattr(signal, name) for name in names)]
        for signal in signals
    )
    return _pieces(["utc", "new_york", *names], rows)


def gap_lines(gaps: Iterable[Gap]) -> Iterator[str]:
    """Yield gaps in pieces of many lines."""
    header = ["id", "ticker", "series", "from_utc", "from_new_york", "to_utc", "to_new_york",
              "cause", "state", "reason"]  # fmt: skip
    rows = (
        [gap.id, gap.ticker, gap.series, utc(gap.from_ms), new_york(gap.from_ms), utc(gap.to_ms),
         new_york(gap.to_ms), gap.cause, gap.state, gap.reason]
        for gap in gaps
    )  # fmt: skip
    return _pieces(header, rows)


def _pieces(header: list[str], rows: Iterable[list[Any]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(header)
    for count, row in enumerate(rows, 1):
        writer.writerow([_cell(value) for value in row])
        if count % _ROWS_PER_PIECE == 0:
            yield _emptied(buffer)
    yield _emptied(buffer)


def _emptied(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
