"""Every stream, subject and consumer name, built and parsed here only.

Durable subjects are numbered by partition; live subjects are named by ticker. A ticker belongs to
partition `fnv1a32(ticker) mod N`, the same number that the server's `partition()` transform gives.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "DURABLE_STREAMS",
    "INDICATORS",
    "MARKET",
    "SIGNALS",
    "STATE",
    "checkpoint_subject",
    "command_subject",
    "consumer_name",
    "dead_letter_subject",
    "desk_subject",
    "escape",
    "frame_subject",
    "live_candle",
    "live_signal",
    "live_status",
    "live_tick",
    "partition_of",
    "unescape",
]

MARKET: Final = "MARKET"
INDICATORS: Final = "INDICATORS"
SIGNALS: Final = "SIGNALS"
TRADES: Final = "TRADES"
COMMANDS: Final = "COMMANDS"
STATE: Final = "STATE"
DEADLETTER: Final = "DEADLETTER"

DURABLE_STREAMS: Final = (MARKET, INDICATORS, SIGNALS)

_FNV32_OFFSET = 2166136261
_FNV32_PRIME = 16777619
_UINT32_MASK = 0xFFFFFFFF

# A subject token may hold neither of these; `%` escapes itself. Tickers are upper case, so the
# two-digit codes cannot be mistaken for part of one.
_ESCAPES = {"%": "%25", ".": "%2E", " ": "%20", "*": "%2A", ">": "%3E"}


def partition_of(ticker: str, partitions: int) -> int:
    """Return the partition of a ticker: FNV-1a 32 of its UTF-8 bytes modulo `partitions`."""
    digest = _FNV32_OFFSET
    for byte in ticker.encode():
        digest = ((digest ^ byte) * _FNV32_PRIME) & _UINT32_MASK
    return digest % partitions


def frame_subject(stream: str, partition: int) -> str:
    """Return the subject of a stream's partition, e.g. `market.0`."""
    return f"{stream.lower()}.{partition}"


def checkpoint_subject(service: str, partition: int) -> str:
    """Return where a service keeps its state, e.g. `state.indicators.0`."""
    return f"state.{service}.{partition}"


def desk_subject(service: str) -> str:
    """Return where a service keeps what people asked of it, e.g. `state.ingest.desk`."""
    return f"state.{service}.desk"


def consumer_name(service: str, partition: int) -> str:
    """Return the durable consumer of a service and partition, e.g. `writer-0`."""
    return f"{service}-{partition}"


def command_subject(service: str) -> str:
    """Return where a service is told what to do, e.g. `commands.ingest`."""
    return f"commands.{service}"


def dead_letter_subject(service: str) -> str:
    """Return where a service puts broken wire input, e.g. `deadletter.ingest`."""
    return f"deadletter.{service}"


def escape(symbol: str) -> str:
    """Make a symbol fit one subject token, e.g. `BRK.B` -> `BRK%2EB`."""
    return "".join(_ESCAPES.get(character, character) for character in symbol)


def unescape(token: str) -> str:
    """Undo `escape`."""
    for character, code in reversed(_ESCAPES.items()):
        token = token.replace(code, character)
    return token


def live_tick(ticker: str) -> str:
    """Return the live subject of a ticker's ticks, e.g. `live.tick.QQQ`."""
    return f"live.tick.{escape(ticker)}"


def live_candle(timeframe: str, ticker: str) -> str:
    """Return the live subject of a ticker's candles, e.g. `live.candle.1m.QQQ`."""
    return f"live.candle.{timeframe}.{escape(ticker)}"


def live_signal(ticker: str) -> str:
    """Return the live subject of a ticker's signals, e.g. `live.signal.QQQ`."""
    return f"live.signal.{escape(ticker)}"


def live_status(service: str) -> str:
    """Return the live subject of a service's state; not public."""
    return f"live.status.{service}"
