"""One bus message as a line: JSON for programs, columns and colours for people.

Times are those of the event, in New York; what matters most stands first, because a narrow terminal
cuts the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from rich.text import Text

from cli.output import printable
from libs.common import codec
from libs.common.calendar import NEW_YORK
from libs.common.errors import SchemaError
from libs.common.events import Frame

__all__ = ["json_line", "lines"]

_TEXT_CHARS_MAX = 400
_TS_MS_MAX = 4_102_444_800_000  # the year 2100
_UP, _DOWN = "green", "red"
# Fields that every event of a frame repeats, or that the line shows elsewhere.
_PLACED = frozenset({"ticker", "ts_ms", "epoch", "seq", "index"})


def json_line(subject: str, data: bytes) -> str:
    """Return one JSON object: the message's fields and its `subject`."""
    decoded = _decoded(subject, data)
    if isinstance(decoded, Frame):
        fields = msgspec.structs.asdict(decoded)
        fields["events"] = [
            {"type": type(event).__name__, **_fields(event)} for event in decoded.events
        ]
    elif isinstance(decoded, dict):
        fields = decoded
    else:
        fields = {"data": decoded}
    return msgspec.json.encode({"subject": subject, **fields}).decode()


def lines(subject: str, data: bytes) -> Iterator[Text]:
    """Yield one line for a live message, and one for every event of a frame."""
    decoded = _decoded(subject, data)
    if isinstance(decoded, Frame):
        head = f"{subject} #{decoded.n}"
        if not decoded.events:
            yield _line(decoded.sent_ms, head, "dim", "", [("", "nothing happened", "dim")])
        for event in decoded.events:
            yield _generic(head, type(event).__name__, _fields(event))
    elif not isinstance(decoded, dict):
        yield Text.assemble((f"{subject}  ", "dim"), printable(str(decoded)[:_TEXT_CHARS_MAX]))
    elif subject.startswith("live.tick."):
        yield _tick(decoded)
    elif subject.startswith("live.candle."):
        yield _candle(decoded)
    elif subject.startswith("live.signal."):
        yield _signal(decoded)
    else:
        yield _generic(subject, "", decoded)


def _decoded(subject: str, data: bytes) -> Any:
    """Return what a message carries: a frame on durable subjects, else JSON, else text."""
    if not subject.startswith("live."):
        with contextlib.suppress(SchemaError):
            return codec.decode_frame(data)
    try:
        return msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return data.decode(errors="replace")


def _fields(event: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(event)


# -- lines for people ------------------------------------------------------------------------------


def _tick(tick: Mapping[str, Any]) -> Text:
    sma9, vwap = tick.get("sma9"), tick.get("vwap")
    return _line(
        tick.get("ts_ms"),
        "tick",
        "cyan",
        tick.get("ticker"),
        [
            ("", f"{_price(tick.get('price')):>10}", "bold"),
            ("", f"{_count(tick.get('volume'), sign=True):>9}", "dim"),
            ("sma9", _average(sma9), _relation(sma9, vwap)),
            ("vwap", _average(vwap), ""),
            ("", f"{_price(tick.get('bid'))} × {_price(tick.get('ask'))}", "dim"),
        ],
    )


def _candle(candle: Mapping[str, Any]) -> Text:
    final = bool(candle.get("final"))
    opened, closed = candle.get("open"), candle.get("close")
    rising = _UP if _number(closed) >= _number(opened) else _DOWN
    sma9, vwap = candle.get("sma9"), candle.get("vwap")
    text = _line(
        candle.get("ts_ms"),
        f"{candle.get('timeframe')} {'candle' if final else '…'}",
        "magenta" if final else "dim",
        candle.get("ticker"),
        [
            ("", f"{_price(closed):>10}", f"bold {rising}" if final else rising),
            ("", f"{_count(candle.get('volume')):>9}", "dim"),
            ("sma9", _average(sma9), _relation(sma9, vwap)),
            ("vwap", _average(vwap), ""),
            ("o", _price(opened), "dim"),
            ("h", _price(candle.get("high")), "dim"),
            ("l", _price(candle.get("low")), "dim"),
        ],
    )
    if not final:
        text.stylize("dim")
    return text


def _signal(signal: Mapping[str, Any]) -> Text:
    up = signal.get("direction") == "up"
    style = f"bold white on {_UP if up else _DOWN}"
    notes = [name for name in ("late",) if signal.get(name)]
    if signal.get("state") not in (None, "active"):
        notes.append(str(signal["state"]))
    return _line(
        signal.get("ts_ms"),
        "signal",
        "bold yellow",
        signal.get("ticker"),
        [
            ("", f"{_price(signal.get('price')):>10}", "bold"),
            ("", f" {'▲' if up else '▼'} {signal.get('direction')} ", style),
            ("", f"{signal.get('kind')} {signal.get('timeframe')}", ""),
            ("sma9", _average(signal.get("sma9")), ""),
            ("vwap", _average(signal.get("vwap")), ""),
            ("", " ".join(notes), "yellow"),
        ],
    )


def _generic(head: str, kind: str, fields: Mapping[str, Any]) -> Text:
    rest = [(name, _short(value), "") for name, value in fields.items() if name not in _PLACED]
    label = f"{head} {kind}".strip()
    return _line(fields.get("ts_ms"), label, "blue", fields.get("ticker"), rest)


def _line(
    ts_ms: object, label: str, style: str, ticker: object, parts: list[tuple[str, str, str]]
) -> Text:
    text = Text.assemble((f"{_time(ts_ms)}  ", "dim"), (f"{printable(label):<10}", style))
    text.append(f" {printable(str(ticker or '')):<6}", style="bold")
    for name, value, part_style in parts:
        text.append(f"  {printable(name)} " if name else " ", style="dim")
        text.append(printable(value), style=part_style)
    return text


def _time(ts_ms: object) -> str:
    if not isinstance(ts_ms, int) or not 0 <= ts_ms <= _TS_MS_MAX:
        return " " * 12
    return datetime.fromtimestamp(ts_ms / 1000, NEW_YORK).strftime("%H:%M:%S.%f")[:-3]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _price(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else "-"


def _average(value: object) -> str:
    """Write an average, or its absence, as wide as an ordinary price: columns stay in place."""
    return f"{_price(value):<6}"


def _count(value: object, *, sign: bool = False) -> str:
    if not isinstance(value, int):
        return "-"
    return f"{value:+,}" if sign else f"{value:,}"


def _relation(sma9: object, vwap: object) -> str:
    """Green while the average is above vwap, red below: what signals are made of."""
    if not isinstance(sma9, (int, float)) or not isinstance(vwap, (int, float)):
        return ""
    return _UP if sma9 > vwap else _DOWN if sma9 < vwap else ""


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{len(value)}]"
    return str(value)
