"""What `up` tells of a recording that it plays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.options import Market
from cli.recording import CLOCK_FILE_NAME, end_line, left_out_line
from services.simulator import clock_file
from services.simulator.virtual_clock import Anchor

HEADER = "timestamp,open,high,low,close,volume\n"


@pytest.fixture
def market(tmp_path: Path) -> Market:
    """Two days of a recording, with one row after the last session."""
    path = tmp_path / "INDA-july.csv"
    stamps = ("2023-07-27 14:30:00", "2023-07-28 14:30:00", "2023-07-29 02:00:00")
    path.write_text(HEADER + "".join(f"{stamp},1,1,1,1,1\n" for stamp in stamps))
    return Market("csv", ("INDA",), (("INDA", path),), "0" * 64)


def save(store: Path, *, ended: bool) -> None:
    """Write the clock's file as the simulator does."""
    clock_file.save(store / CLOCK_FILE_NAME, Anchor("m", 1, 2, 3, 1.0, 4, ended=ended))


def test_the_end_is_told_when_it_is_there(market: Market, tmp_path: Path) -> None:
    """Not without a clock, not while it runs, and with the end of the last day that was played."""
    assert end_line(market, tmp_path) is None
    save(tmp_path, ended=False)
    assert end_line(market, tmp_path) is None
    save(tmp_path, ended=True)
    line = end_line(market, tmp_path)
    assert line is not None
    assert "to its end (2023-07-28 20:00 New York); --fresh" in line
    assert end_line(Market("demo", ("QQQ",)), tmp_path) is None


def test_an_end_is_told_without_the_file(market: Market, tmp_path: Path) -> None:
    """It may have been moved since; only the time is missing then."""
    save(tmp_path, ended=True)
    market.csv[0][1].unlink()
    assert end_line(market, tmp_path) == (
        "the recording is played to its end; --fresh plays it again"
    )


def test_rows_that_are_left_out_are_told() -> None:
    """With their number; other lines of a log say nothing of the kind."""
    line = left_out_line(json.dumps({"event": "csv.rows_left_out", "count": 28}))
    assert line is not None
    assert line.startswith("28 rows of the CSV are outside 07:00-20:00 New York")
    for other in ("csv.rows_left_out", "{", '{"event":"x","count":1}', '{"event":[]}'):
        assert left_out_line(other) is None
