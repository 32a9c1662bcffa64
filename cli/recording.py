"""What a CSV market tells about itself while it is played: rows that it leaves out, and its end.

The simulator writes both down, the one in its log, the other in the file of its clock. Here they
are turned into words; whoever plays a recording should not have to look for them.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from cli.options import Market
from libs.common import calendar
from libs.common.errors import CalendarError

__all__ = ["CLOCK_FILE_NAME", "LEFT_OUT", "end_line", "left_out_line"]

CLOCK_FILE_NAME = "simulator-clock.json"
LEFT_OUT = "csv.rows_left_out"
# How far back from its end a file is searched for a row that is played: more than a night's rows.
_ROWS_BACK_MAX = 2_000


class _Clock(msgspec.Struct, frozen=True):
    """The part of the simulator's clock file that concerns us."""

    ended: bool = False


def left_out_line(line: str) -> str | None:
    """Turn the simulator's log line about rows that it cannot play into words, if it is one."""
    try:
        record = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    count = record.get("count")
    if record.get("event") != LEFT_OUT or not isinstance(count, int):
        return None
    rows, are = ("row", "is") if count == 1 else ("rows", "are")
    sessions = "07:00-20:00 New York on trading days (to 17:00 on half days)"
    return f"{count} {rows} of the CSV {are} outside {sessions} and {are} left out"


def end_line(market: Market, store: Path) -> str | None:
    """Say that the recording in this store was played to its end; None while it was not."""
    if not market.csv or not _ended(store / CLOCK_FILE_NAME):
        return None
    end_ms = _end_ms(market)
    when = f" ({_new_york(end_ms)})" if end_ms is not None else ""
    return f"the recording is played to its end{when}; --fresh plays it again"


def _ended(clock_file: Path) -> bool:
    try:
        return msgspec.json.decode(clock_file.read_bytes(), type=_Clock).ended
    except (OSError, msgspec.MsgspecError):  # not there yet; the simulator tells what else it is
        return False


def _new_york(at_ms: int) -> str:
    at = dt.datetime.fromtimestamp(at_ms / 1000, calendar.NEW_YORK)
    return f"{at:%Y-%m-%d %H:%M} New York"


def _end_ms(market: Market) -> int | None:
    """Return the end of the last session that has a row in any file."""
    try:
        ends = [_file_end_ms(path) for _, path in market.csv]
    except (OSError, ValueError, OverflowError, csv.Error, KeyError, TypeError, CalendarError):
        return None  # the file was changed meanwhile
    return max((end_ms for end_ms in ends if end_ms is not None), default=None)


def _file_end_ms(path: Path) -> int | None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        last = deque((row["timestamp"] for row in reader), maxlen=_ROWS_BACK_MAX)
    for text in reversed(last):
        stamp = dt.datetime.fromisoformat(text.strip())
        stamp = stamp.replace(tzinfo=dt.UTC) if stamp.tzinfo is None else stamp
        at_ms = round(stamp.timestamp() * 1000)
        session = calendar.session_at(at_ms)
        if session is not None and session.pre_open_ms <= at_ms < session.post_close_ms:
            return session.post_close_ms
    return None
