"""The session that fault runs play: real minute bars of eight tickers, all hours full.

One recorded fund gives a ticker its prices: on day `d`, ticker `k` plays the regular minutes of two
recorded days, the first from 07:00, the second from 13:30 New York. Minutes in which nothing traded
stay empty. The eight names lie in eight different partitions of eight, so every smaller power of
two is balanced, too.
"""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

from libs.common import calendar
from libs.common.calendar import NEW_YORK

__all__ = ["DAYS", "TICKERS", "write_recording"]

DATA = Path(__file__).resolve().parent.parent / "data"
TICKERS = ("META", "GE", "QQQ", "AAPL", "IWM", "SPY", "FXY", "KO")
DAYS = tuple(dt.date(2023, 7, day) for day in (10, 11, 12, 13, 14, 17, 18, 19, 20, 21))
_THIN = "FXY"  # many minutes without a trade
_HALF_MINUTES = 390
_HEADER = ("timestamp", "open", "high", "low", "close", "volume")

Bars = dict[int, list[str]]  # minute since the regular open -> prices and volume as recorded


def write_recording(folder: Path) -> list[Path]:
    """Write one CSV for each ticker into `folder` and return the files in the tickers' order."""
    busy = _recorded_days(DATA / "INDA-1min-2023-07.csv")
    thin = _recorded_days(DATA / "FXY-1min-2023-11.csv")
    files = []
    for index, ticker in enumerate(TICKERS):
        source = thin if ticker == _THIN else busy
        path = folder / f"{ticker}-1min.csv"
        with path.open("w", encoding="ascii", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_HEADER)
            for number, day in enumerate(DAYS):
                first = 2 * number + index
                halves = (source[first % len(source)], source[(first + 1) % len(source)])
                writer.writerows(_rows(day, *halves))
        files.append(path)
    return files


def _rows(day: dt.date, morning: Bars, afternoon: Bars) -> list[list[str]]:
    session = calendar.session(day)
    assert session is not None
    rows = []
    for begins, half in ((0, morning), (_HALF_MINUTES, afternoon)):
        for minute, values in sorted(half.items()):
            at_ms = session.pre_open_ms + (begins + minute) * 60_000
            stamp = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
            rows.append([f"{stamp:%Y-%m-%d %H:%M:%S}", *values])
    return rows


def _recorded_days(path: Path) -> list[Bars]:
    days: dict[dt.date, Bars] = {}
    with path.open(encoding="ascii", newline="") as file:
        for row in csv.DictReader(file):
            at = dt.datetime.fromisoformat(row["timestamp"]).replace(tzinfo=dt.UTC)
            local = at.astimezone(NEW_YORK)
            minute = (local.hour - 9) * 60 + local.minute - 30
            if 0 <= minute < _HALF_MINUTES:
                days.setdefault(local.date(), {})[minute] = [row[name] for name in _HEADER[1:]]
    return list(days.values())
