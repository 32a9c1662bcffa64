"""Rows as CSV: exact numbers, both times, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.answers import Gap, Series, Signal
from services.gateway.exports import (
    file_name,
    gap_lines,
    new_york,
    series_lines,
    signal_lines,
    utc,
)

TS_MS = 1_767_796_200_123  # 2026-01-07 09:30 in New York


def table(pieces: Iterator[str]) -> list[list[str]]:
    """Read CSV as a program would."""
    return list(csv.reader(io.StringIO("".join(pieces), newline="")))


def ticks(count: int) -> Series:
    """Return a series of ticks a millisecond apart."""
    return Series(
        ticker="QQQ", date="2026-01-07", timeframe="tick", epoch_ms=1, last_seq=1, complete=False,
        session=None, ts_ms=[TS_MS + n for n in range(count)], sma9=[None] * count,
        vwap=[400.123456] * count, price=[400.1] * count, volume=[100] * count,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ts_ms", "in_utc", "in_new_york"),
    [
        (TS_MS, "2026-01-07T14:30:00.123Z", "2026-01-07T09:30:00.123-05:00"),
        (1_783_000_000_000, "2026-07-02T13:46:40.000Z", "2026-07-02T09:46:40.000-04:00"),
        (0, "1970-01-01T00:00:00.000Z", "1969-12-31T19:00:00.000-05:00"),
    ],
)
def test_times_are_told_twice(ts_ms: int, in_utc: str, in_new_york: str) -> None:
    """To the millisecond, in UTC and as the clocks of New York show it in winter and summer."""
    assert (utc(ts_ms), new_york(ts_ms)) == (in_utc, in_new_york)


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1500])
def test_every_row_is_there_once(count: int) -> None:
    """Pieces join without a gap, whatever their number."""
    rows = table(series_lines(ticks(count)))
    assert rows[0] == ["ticker", "utc", "new_york", "price", "volume", "sma9", "vwap"]
    assert [row[1] for row in rows[1:]] == [utc(TS_MS + n) for n in range(count)]
    assert all(row[3:] == ["400.1", "100", "", "400.123456"] for row in rows[1:])


def test_pieces_are_small() -> None:
    """A long day does not stand in memory as one text."""
    pieces = list(series_lines(ticks(5000)))
    assert len(pieces) > 5
    assert max(map(len, pieces)) < 64 * 1024


def test_candles_have_their_extras() -> None:
    """Further indicators are further columns."""
    candles = Series(
        ticker="QQQ", date="2026-01-07", timeframe="1m", epoch_ms=1, last_seq=1, complete=True,
        session=None, ts_ms=[TS_MS], sma9=[1.5], vwap=[None], volume=[7], open=[1.0], high=[2.0],
        low=[0.5], close=[1.25], revision=[3], extras={"ema9": [9.5]},
    )  # fmt: skip
    header, row = table(series_lines(candles))
    assert header[3:] == ["open", "high", "low", "close", "volume", "sma9", "vwap", "revision",
                          "ema9"]  # fmt: skip
    assert row[3:] == ["1.0", "2.0", "0.5", "1.25", "7", "1.5", "", "3", "9.5"]


def test_signals_and_gaps() -> None:
    """Every field is a column; yes and no are words."""
    signal = Signal("QQQ:1m:1", 2, "superseded", True, "QQQ", "1m", TS_MS, "cross", "up", 1.0, 2.0,
                    3.0)  # fmt: skip
    header, row = table(signal_lines([signal]))
    assert dict(zip(header, row, strict=True))["late"] == "true"
    gap = Gap("g", "QQQ", "bars", TS_MS, TS_MS + 1, "wire", "unfillable", "no_trade")
    header, row = table(gap_lines([gap]))
    cells = dict(zip(header, row, strict=True))
    assert (cells["from_utc"], cells["reason"]) == (utc(TS_MS), "no_trade")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_no_text_becomes_a_formula_or_another_row(text: str) -> None:
    """A cause is whatever somebody wrote; it stays one cell that begins harmlessly."""
    rows = table(gap_lines([Gap("g", "QQQ", "bars", TS_MS, TS_MS, text, "open")]))
    assert len(rows) == 2
    cell = rows[1][7]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.endswith(text)


def test_file_names_are_harmless() -> None:
    """Whatever a ticker is called, the name fits every system and every header."""
    assert file_name("QQQ", "2026-01-05", "1m") == "QQQ-2026-01-05-1m.csv"
    assert file_name(None, "2026-01-05", "gaps") == "2026-01-05-gaps.csv"
    assert file_name('../$S"P/X\r\n', "x") == ".._" + "_S_P_X__-x.csv"
