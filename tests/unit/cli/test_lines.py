"""How `./kite tail` shows messages."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from cli.lines import json_line, lines
from libs.common.codec import encode_frame
from libs.common.events import SCHEMA_VERSION, Clock, Event, Frame, Tick

TICK = {
    "ticker": "QQQ", "ts_ms": 1_700_836_205_123, "price": 390.25, "volume": 1200,
    "total_volume": 10, "bid": 390.2, "ask": 390.3, "sma9": 390.1, "vwap": None, "epoch": 1,
    "seq": 2, "index": 0,
}  # fmt: skip


def shown(subject: str, message: object) -> list[str]:
    """Return the lines for people."""
    return [line.plain for line in lines(subject, json.dumps(message).encode())]


def frame(*events: Event) -> bytes:
    """Return an encoded frame."""
    return encode_frame(Frame(SCHEMA_VERSION, 1, 7, 0, 0, 1_700_836_205_000, 0, events))


def test_a_tick_shows_time_in_new_york_price_and_indicators() -> None:
    """What is not known yet is a dash."""
    (line,) = shown("live.tick.QQQ", TICK)
    assert line.startswith("09:30:05.123  tick")
    for part in ("QQQ", "390.25", "+1,200", "sma9 390.10", "vwap -", "390.20 × 390.30"):
        assert part in line


def test_a_missing_average_moves_no_column() -> None:
    """The eye follows them downwards."""
    (known,), (missing,) = (
        shown("live.tick.QQQ", TICK),
        shown("live.tick.QQQ", TICK | {"sma9": None}),
    )
    assert known.index("vwap") == missing.index("vwap")
    assert known.index("×") == missing.index("×")


def test_an_open_candle_differs_from_a_final_one() -> None:
    """A provisional value must not be taken for the result."""
    candle = {
        "ticker": "QQQ", "timeframe": "5m", "ts_ms": TICK["ts_ms"], "open": 1, "high": 2,
        "low": 0.5, "close": 1.5, "volume": 3, "sma9": None, "vwap": 1.25,
    }  # fmt: skip
    (final,) = shown("live.candle.5m.QQQ", candle | {"final": True})
    (provisional,) = shown("live.candle.5m.QQQ", candle | {"final": False})
    assert "5m candle" in final
    assert "5m …" in provisional


def test_a_late_signal_says_so() -> None:
    """Nobody shall trade it."""
    signal = {
        "ticker": "QQQ", "ts_ms": TICK["ts_ms"], "direction": "down", "kind": "cross",
        "timeframe": "1m", "price": 1.5, "sma9": 1.4, "vwap": 1.45, "late": True,
        "state": "superseded",
    }  # fmt: skip
    (line,) = shown("live.signal.QQQ", signal)
    assert "▼ down" in line
    assert "late superseded" in line


def test_a_frame_is_shown_event_by_event() -> None:
    """Durable subjects carry frames, also empty ones."""
    tick = Tick("QQQ", 1_700_836_205_123, 390.25, 1, 2, None, None)
    first, second = (
        line.plain for line in lines("market.0", frame(Clock(1_700_836_205_000), tick))
    )
    assert "market.0 #7 Clock" in first
    assert "market.0 #7 Tick" in second
    assert "390.25" in second
    (empty,) = lines("market.0", frame())
    assert "nothing happened" in empty.plain


def test_json_lines_carry_subject_and_all_fields() -> None:
    """A program gets back what was sent."""
    assert json.loads(json_line("live.tick.QQQ", json.dumps(TICK).encode())) == {
        "subject": "live.tick.QQQ", **TICK
    }  # fmt: skip
    decoded = json.loads(json_line("market.0", frame(Clock(5))))
    assert decoded["events"] == [{"type": "Clock", "ts_ms": 5}]
    assert decoded["n"] == 7


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
messages = st.dictionaries(st.sampled_from([*TICK, "open", "close", "direction", "state"]), values)


@given(
    st.sampled_from(["live.tick.Q", "live.candle.1m.Q", "live.signal.Q", "market.0", "x"]),
    st.binary() | (values | messages).map(lambda value: json.dumps(value).encode()),
)
def test_anything_on_the_bus_can_be_shown(subject: str, data: bytes) -> None:
    """Whatever is published: no error, no forged line, nothing that a terminal would obey."""
    for line in lines(subject, data):
        assert line.plain.isprintable()
    assert json.loads(json_line(subject, data))["subject"] == subject
