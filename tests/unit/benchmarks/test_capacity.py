"""The page on capacity is what was measured, and its arithmetic is right."""

from __future__ import annotations

import re

import pytest

from benchmarks.bench_capacity import (
    PAGE,
    PLAN_BYTES,
    REPORTS_KEPT,
    ROWS_PER_SESSION,
    Measured,
    rewritten,
    tables_of,
)
from libs.common import calendar
from libs.common.events import TIMEFRAME_MS

HUNDRED = dict.fromkeys((*ROWS_PER_SESSION, "streaming_metrics"), 100.0)


def test_a_plan_is_full_when_its_bytes_are_used() -> None:
    """Rows of all tickers, what a day costs besides, and what is there from the beginning."""
    found = Measured(HUNDRED, day_bytes=1000.0, empty_bytes=10e6)
    room = PLAN_BYTES - 10e6 - REPORTS_KEPT * 100
    rows = sum(ROWS_PER_SESSION.values())
    ticks = ROWS_PER_SESSION["equity_data"] + ROWS_PER_SESSION["indicators"]
    assert found.sessions(3, with_ticks=True) == pytest.approx(room / (300 * rows + 1000))
    assert found.sessions(3, with_ticks=False) == pytest.approx(room / (300 * (rows - ticks)))


def test_a_session_has_the_candles_of_the_calendar() -> None:
    """As many as there are buckets from 07:00 to 20:00."""
    session = calendar.next_session(calendar.FIRST_DAY)
    starts = {
        (timeframe, calendar.bucket(ts_ms, length_ms)[0])
        for timeframe, length_ms in TIMEFRAME_MS.items()
        for ts_ms in range(session.pre_open_ms, session.post_close_ms, 60_000)
    }
    assert ROWS_PER_SESSION["candles"] == len(starts)


def test_a_run_replaces_every_table_of_the_page() -> None:
    """And no word around them."""
    page = PAGE.read_text("utf-8")
    tables = {**tables_of(Measured(HUNDRED, 1.0, 1.0)), "machine": "Here.\n"}
    names = re.findall(r"<!-- measured: (\w+) -->", page)
    assert sorted(names) == sorted(tables)
    new = rewritten(page, tables)
    assert all(text in new for text in tables.values())
    assert rewritten(new, tables) == new
    measured = re.compile(r"(<!-- measured: \w+ -->\n).*?(<!-- end -->)", re.DOTALL)
    assert measured.sub(r"\1\2", new) == measured.sub(r"\1\2", page)


def test_the_page_holds_a_measurement() -> None:
    """Of every table that rows go to."""
    page = PAGE.read_text("utf-8")
    for table in HUNDRED:
        assert re.search(rf"^\| `{table}` \| \d+ \|", page, re.MULTILINE), table
