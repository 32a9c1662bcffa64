"""A batch as the arguments of `kite_commit`: one JSON array per column of each table.

Numbers travel as the text that COPY would be sent, so both ways in store the same digits; the
columns' types turn them into numbers in the database. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from libs.common.events import Gap, Signal
from services.writer import upserts
from services.writer.core import Batch, Lines
from services.writer.rows import CANDLE_COLUMNS, INDICATOR_COLUMNS, TICK_COLUMNS, candle_line

__all__ = ["Columns", "commit_arguments", "text_columns"]

Columns = dict[str, list[Any]]

_NULL = "\\N"
_UNESCAPED = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
_GAP_COLUMNS = ("id", "ticker", "series", "started_at", "ended_at", "cause", "state", "reason")
_CHECK_COLUMNS = ("ticker", "started_at", "ended_at", "bars")
_SIGNAL_COLUMNS = (
    "id", "revision", "state", "late", "ticker", "timeframe", "timestamp", "kind", "direction",
    "price", "sma9", "vwap",
)  # fmt: skip
_PRICE_DECIMALS, _AVERAGE_DECIMALS = 4, 6


def commit_arguments(batch: Batch) -> dict[str, Any]:
    """Return what `kite_commit` is called with; tables without rows are left out."""
    before, after = batch.before, batch.after
    rows = {
        "equity_data": _lines(TICK_COLUMNS, batch.ticks),
        "indicators": _lines(INDICATOR_COLUMNS, batch.indicators),
        "candles": [
            text_columns(CANDLE_COLUMNS, "".join(map(candle_line, wave))) for wave in batch.candles
        ],
        "gaps": _gaps(batch.gaps),
        "session_checks": _checks(batch.checks),
        "signals": _signals(batch.signals),
    }
    return {
        "stream": batch.stream,
        "partition": batch.partition,
        "stream_created_ms": after.created_ms,
        "before_seq": before.seq,
        "seq": after.seq,
        "frame_n": after.n,
    } | {table: columns for table, columns in rows.items() if columns}


def _lines(names: Sequence[str], lines: Lines) -> Columns:
    return text_columns(names, lines.data.decode()) if lines.count else {}


def text_columns(names: Sequence[str], text: str) -> Columns:
    """Turn lines of COPY text into columns; a null is None."""
    fields = zip(*(line.split("\t") for line in text.split("\n")[:-1]), strict=True)
    return {name: _plain(column) for name, column in zip(names, fields, strict=True)}


def _plain(column: Iterable[str]) -> list[str | None]:
    return [_unescaped(field) if "\\" in field else field for field in column]


def _unescaped(field: str) -> str | None:
    if field == _NULL:
        return None
    pieces, rest = [], field
    while (at := rest.find("\\")) >= 0:
        pieces += [rest[:at], _UNESCAPED[rest[at : at + 2]]]
        rest = rest[at + 2 :]
    return "".join([*pieces, rest])


def _gaps(gaps: Sequence[Gap]) -> Columns:
    if not gaps:
        return {}
    columns: Columns = dict(zip(_GAP_COLUMNS, upserts.gap_columns(gaps), strict=True))
    return _with_moments(columns, "started_at", "ended_at")


def _checks(checks: Sequence[Gap]) -> Columns:
    if not checks:
        return {}
    columns: Columns = dict(zip(_CHECK_COLUMNS, upserts.check_columns(checks), strict=True))
    return _with_moments(columns, "started_at", "ended_at")


def _signals(signals: Sequence[Signal]) -> Columns:
    if not signals:
        return {}
    columns: Columns = dict(zip(_SIGNAL_COLUMNS, upserts.signal_columns(signals), strict=True))
    columns["price"] = [f"{price:.{_PRICE_DECIMALS}f}" for price in columns["price"]]
    for name in ("sma9", "vwap"):
        columns[name] = [f"{value:.{_AVERAGE_DECIMALS}f}" for value in columns[name]]
    return _with_moments(columns, "timestamp")


def _with_moments(columns: Columns, *names: str) -> Columns:
    return columns | {name: [moment.isoformat() for moment in columns[name]] for name in names}
