"""Rows as columns of JSON: nothing is lost on the way from COPY's text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.writer.columns import commit_arguments, text_columns
from services.writer.core import Position
from services.writer.rows import escaped
from tests.writer_frames import CREATED_MS, batch_of, candle, gap, signal, tick, tick_indicator

TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(TEXT, st.none() | TEXT), min_size=1, max_size=10))
def test_every_text_comes_back(rows: list[tuple[str, str | None]]) -> None:
    """Tabs, line ends, backslashes and nulls of COPY's text become what they stand for."""
    lines = "".join(_line(name, value) for name, value in rows)
    columns = text_columns(("name", "value"), lines)
    assert list(zip(columns["name"], columns["value"], strict=True)) == rows


def _line(name: str, value: str | None) -> str:
    shown = "\\N" if value is None else escaped(value)
    return f"{escaped(name)}\t{shown}\n"


def test_all_kinds_of_rows() -> None:
    """Numbers are the text that COPY would be sent, times are instants, absent tables absent."""
    before = Position(CREATED_MS, 7, 7)
    batch = batch_of([tick(), tick_indicator(), candle(), gap(), signal()], before=before)
    found = commit_arguments(batch)
    assert {name: found[name] for name in ("stream", "before_seq", "seq", "frame_n")} == {
        "stream": "MARKET", "before_seq": 7, "seq": 8, "frame_n": 8,
    }  # fmt: skip
    assert found["equity_data"] == {
        "ticker": ["QQQ"], "timestamp": ["2023-11-24 14:30:00.000+00"], "price": ["389.5125"],
        "volume": ["100"], "total_volume": ["5000"], "bid": ["389.5100"], "ask": [None],
    }  # fmt: skip
    assert found["indicators"]["vwap"] == ["389.123457"]
    (wave,) = found["candles"]
    assert (wave["close"], wave["extras"], wave["vwap"]) == (["389.7500"], ["{}"], [None])
    assert found["gaps"]["started_at"] == ["2023-11-24T14:30:00+00:00"]
    assert (found["signals"]["price"], found["signals"]["sma9"]) == (["389.7500"], ["389.500000"])
    assert commit_arguments(batch_of([])).keys() == {
        "stream", "partition", "stream_created_ms", "before_seq", "seq", "frame_n",
    }  # fmt: skip
