"""A market read from CSV files of minute bars, one file a ticker.

Columns `timestamp,open,high,low,close,volume` in any order, others are ignored; `timestamp` is the
start of the minute, UTC unless it says otherwise. Minutes without a row stay empty. A mistake in a
file is a SettingsError that names file, line and remedy. Rows outside the extended session (07:00
to 20:00 New York, to 17:00 on half days) are left out and counted.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from libs.common import calendar
from libs.common.errors import CalendarError, SettingsError
from services.simulator.market import MINUTE_MS, DayBars, MinuteBar, session_of

__all__ = ["CsvMarket", "load", "parse_sources", "read_bars"]

_COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
_TICKER = re.compile(r"[A-Z$][A-Z0-9./$]{0,9}")
_EMPTY = DayBars()


def parse_sources(texts: Iterable[str]) -> dict[str, Path]:
    """Turn `TICKER=PATH` or `PATH` (ticker = file name up to the first `-`) into ticker -> path.

    Raises SettingsError with a line for each text that names no ticker, or one named before.
    """
    sources: dict[str, Path] = {}
    problems = []
    for text in texts:
        ticker, separator, path = text.partition("=")
        if not separator:
            ticker, path = Path(text).stem.split("-")[0], text
        if not _TICKER.fullmatch(ticker):
            problems.append(
                f"KITE_SIM_CSV: {text!r} names no ticker; call the file TICKER-anything.csv "
                "or write TICKER=FILE"
            )
        elif ticker in sources:
            problems.append(f"KITE_SIM_CSV: two files for {ticker}: {sources[ticker]} and {path}")
        else:
            sources[ticker] = Path(path)
    if problems:
        raise SettingsError(problems)
    return sources


def load(sources: Mapping[str, Path], seed: str, updates_per_bar: int) -> tuple[CsvMarket, int]:
    """Read all files; return the market and how many rows lay outside the extended session.

    Raises SettingsError naming every file that cannot be used.
    """
    problems: list[str] = []
    days: dict[str, dict[dt.date, DayBars]] = {}
    dropped = 0
    for ticker, path in sources.items():
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                days[ticker], outside = read_bars(file)
            dropped += outside
            if not days[ticker]:
                raise ValueError("holds no row within the trading sessions; nothing can be played")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            problems.append(f"KITE_SIM_CSV: cannot read {path}: {reason}")
        except (ValueError, csv.Error, CalendarError) as error:
            problems.append(f"KITE_SIM_CSV: {path}: {error}")
    if problems:
        raise SettingsError(problems)
    return CsvMarket(days, seed, updates_per_bar), dropped


def read_bars(file: TextIO) -> tuple[dict[dt.date, DayBars], int]:
    """Read one file; return its bars by New York day, and the number of rows left out.

    Raises ValueError with the line number when a row cannot be used.
    """
    reader = csv.DictReader(file)
    header = [name.strip() for name in reader.fieldnames or []]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise ValueError(
            f"column {', '.join(missing)} is missing; the first line must name {','.join(_COLUMNS)}"
        )
    reader.fieldnames = header
    days: dict[dt.date, DayBars] = {}
    outside = 0
    last_ms = -1
    for row in reader:
        try:
            bar = _bar(row)
            if bar.ts_ms <= last_ms:
                raise ValueError("timestamp is not later than the row before; sort the rows")
        except ValueError as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
        last_ms = bar.ts_ms
        session = calendar.session_at(bar.ts_ms)
        if session is None or not session.pre_open_ms <= bar.ts_ms < session.post_close_ms:
            outside += 1
        else:
            days.setdefault(session.day, DayBars()).append(bar)
    return days, outside


def _bar(row: Mapping[str, str | None]) -> MinuteBar:
    opening, high, low, close = (_price(row, name) for name in ("open", "high", "low", "close"))
    if high < low:
        raise ValueError(f"high {high} is below low {low}")
    if not low <= min(opening, close) or not high >= max(opening, close):
        raise ValueError("open and close must lie between low and high")
    return MinuteBar(_start_ms(row["timestamp"]), opening, high, low, close, _volume(row))


def _start_ms(text: str | None) -> int:
    try:
        stamp = dt.datetime.fromisoformat((text or "").strip())
    except ValueError as error:
        raise ValueError(f"timestamp {text!r} is not a date and time") from error
    stamp = stamp.replace(tzinfo=dt.UTC) if stamp.tzinfo is None else stamp
    ts_ms = round(stamp.timestamp() * 1000)
    if ts_ms % MINUTE_MS:
        raise ValueError(f"timestamp {text!r} is not the start of a minute")
    return ts_ms


def _number(row: Mapping[str, str | None], name: str) -> float:
    text = row[name]
    try:
        value = float(text or "")
    except ValueError as error:
        raise ValueError(f"{name} {text!r} is not a number") from error
    if not math.isfinite(value):
        raise ValueError(f"{name} {text!r} is not a number")
    return value


def _price(row: Mapping[str, str | None], name: str) -> float:
    value = round(_number(row, name), 4)
    if not 0 < value < 1e8:
        raise ValueError(f"{name} {row[name]!r} is not a price")
    return value


def _volume(row: Mapping[str, str | None]) -> int:
    value = _number(row, "volume")
    if value < 0 or value != int(value) or value > 1e15:
        raise ValueError(f"volume {row['volume']!r} is not a number of whole shares")
    return int(value)


class CsvMarket:
    """Implements `Market` with recorded days; level one's volume equals that of the bars."""

    def __init__(
        self, days: Mapping[str, Mapping[dt.date, DayBars]], seed: str, updates_per_bar: int
    ) -> None:
        self.seed = seed
        self._updates_per_bar = updates_per_bar
        self._bars = days
        self._days = {ticker: sorted(found) for ticker, found in days.items()}
        self._all_days = sorted({day for found in days.values() for day in found})
        self._numbers = {ticker: self._number(ticker) for ticker in days}

    @property
    def name(self) -> str:
        """Say which market this is."""
        return f"csv:{','.join(sorted(self._bars))}:{self._all_days[0]}"

    def knows(self, ticker: str) -> bool:
        """Tell whether there is a file for the ticker."""
        return ticker in self._bars

    def description(self, ticker: str) -> str:
        """Return the ticker: files say no more."""
        return ticker

    def bars(self, ticker: str, day: dt.date) -> DayBars:
        """Return the rows of the day, or none."""
        return self._bars[ticker].get(day, _EMPTY) if ticker in self._bars else _EMPTY

    def day_before(self, ticker: str, day: dt.date) -> dt.date | None:
        """Return the last earlier day that has rows."""
        days = self._days.get(ticker, [])
        place = bisect_left(days, day)
        return days[place - 1] if place else None

    def bars_before(self, ticker: str, day: dt.date) -> int:
        """Count the rows of all earlier days."""
        return self._numbers.get(ticker, {}).get(day, 0)

    def next_open_ms(self, after_ms: int) -> int | None:
        """Return the pre-market open of the next day with rows; None after the last one."""
        today = calendar.day_of(after_ms)
        return next((session_of(day).pre_open_ms for day in self._all_days if day > today), None)

    def first_open_ms(self) -> int | None:
        """Return the pre-market open of the first day with rows."""
        return session_of(self._all_days[0]).pre_open_ms

    def updates_per_minute(self, ticker: str, bar: MinuteBar) -> int:
        """Return the setting: files do not say how busy a minute was."""
        return self._updates_per_bar

    def day_volume(self, volume: int) -> int:
        """Level one and bars agree here."""
        return volume

    def _number(self, ticker: str) -> dict[dt.date, int]:
        numbers, count = {}, 0
        for day in self._days[ticker]:
            numbers[day] = count
            count += len(self._bars[ticker][day])
        return numbers
