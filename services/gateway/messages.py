"""What is said over the live WebSocket: JSON text, one object a message, told apart by `op`.

A client asks (`Request`): `sub`, `unsub`, `rate`, `pong`. It names each subscription by an `id` of
its own, which stands in everything that belongs to it. The gateway answers `subscribed`, and then
sends what happens after `from_seq`; the `seq` of a message is from where to subscribe again after a
lost connection. `resync` ends a subscription: take a new snapshot and subscribe from there.

After `corrected`, load that day anew until its snapshot's `last_seq` reaches `seq`.

`heartbeat` comes every 5 s, and whoever sends its `n` back as a `pong` finds the round trip in the
next one. Fields may be added; ignore those that you do not know.

The bodies of messages that many clients get are made once and without the id, see `with_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict

from libs.common.codec import encode_json
from libs.common.events import Candle, Signal, TickIndicator, Timeframe
from services.gateway.ring import EVERY

__all__ = [
    "HZ_MAX",
    "HZ_MIN",
    "Channel",
    "Error",
    "Heartbeat",
    "Hello",
    "Misunderstood",
    "Pong",
    "Quote",
    "Rate",
    "Request",
    "Resync",
    "Said",
    "Subscribe",
    "Subscribed",
    "Unsubscribe",
    "candle_fields",
    "candles_body",
    "corrected_body",
    "encode",
    "parse",
    "provisional_body",
    "quotes_text",
    "signals_body",
    "status_text",
    "ticks_body",
    "with_id",
]

VERSION = 1
HZ_MIN, HZ_MAX = 0.2, 20.0

Channel = Literal["ticks", "candles", "signals", "quotes", "status"]
_Id = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
_Seq = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Ticker = Annotated[str, Meta(min_length=1, max_length=32)]


class Misunderstood(Exception):
    """A message that means nothing here; the text says what is wrong with it."""

    def __init__(self, text: str, request_id: int | None = None) -> None:
        super().__init__(text)
        self.request_id = request_id


# -- what clients say -----------------------------------------------------------------------------


class Subscribe(Struct, frozen=True, tag_field="op", tag="sub"):
    """Send me this channel after `from_seq` of the incarnation `epoch_ms`, both of a snapshot."""

    id: _Id
    channel: Channel
    ticker: _Ticker = EVERY
    timeframe: Timeframe | None = None
    epoch_ms: _Seq = 0
    from_seq: _Seq | dict[_Seq, _Seq] = 0


class Unsubscribe(Struct, frozen=True, tag_field="op", tag="unsub"):
    """Send me no more of this."""

    id: _Id


class Rate(Struct, frozen=True, tag_field="op", tag="rate"):
    """Send me something at most so many times a second."""

    hz: Annotated[float, Meta(ge=HZ_MIN, le=HZ_MAX)]


class Pong(Struct, frozen=True, tag_field="op", tag="pong"):
    """I heard heartbeat `n`."""

    n: _Seq


Request = Subscribe | Unsubscribe | Rate | Pong
_request_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


class _Numbered(Struct):
    id: _Id | None = None


def parse(text: str) -> Request:
    """Read what a client says; raises Misunderstood."""
    try:
        request = _request_decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Misunderstood(f"not understood: {error}", _id_of(text)) from error
    if isinstance(request, Subscribe) and (problem := _problem(request)):
        raise Misunderstood(problem, request.id)
    return request


def _id_of(text: str) -> int | None:
    try:
        return msgspec.json.decode(text, type=_Numbered).id
    except (msgspec.MsgspecError, RecursionError):
        return None


def _problem(wanted: Subscribe) -> str:
    """Say what the types alone do not."""
    everything, many = wanted.ticker == EVERY, isinstance(wanted.from_seq, dict)
    if wanted.channel in ("ticks", "candles") and everything:
        return f'{wanted.channel}: name one ticker, such as "ticker": "QQQ"'
    if wanted.channel in ("ticks", "candles") and many:
        return f"{wanted.channel}: from_seq is one number, the snapshot's last_seq"
    if wanted.channel == "candles" and wanted.timeframe is None:
        return "candles: name a timeframe: 1m, 5m, 15m or 1h"
    if wanted.channel == "signals" and everything and not many:
        return "signals of all tickers: from_seq is an object of partition and sequence"
    if wanted.channel == "signals" and not everything and many:
        return "signals of one ticker: from_seq is one number, its partition's last_seq"
    return ""


# -- what the gateway says ------------------------------------------------------------------------


class Hello(Struct, frozen=True, tag_field="op", tag="hello"):
    """The first message: what this is, and how often something comes."""

    heartbeat_ms: int
    hz: float
    source: str
    simulated: bool
    version: int = VERSION


class Subscribed(Struct, frozen=True, tag_field="op", tag="subscribed"):
    """What belongs to this id follows."""

    id: int


class Heartbeat(Struct, frozen=True, tag_field="op", tag="heartbeat"):
    """The time, and the round trip of the heartbeat that was answered last."""

    n: int
    wall_ms: int
    broker_ms: int | None
    speed: float
    rtt_ms: float | None


class Resync(Struct, frozen=True, tag_field="op", tag="resync"):
    """This subscription ended: take a new snapshot and subscribe from its `last_seq`."""

    id: int
    reason: str


class Error(Struct, frozen=True, tag_field="op", tag="error", omit_defaults=True):
    """What was wrong with a message; nothing else changed."""

    message: str
    id: int | None = None


class Quote(Struct, frozen=True):
    """What is known of a ticker now."""

    last: float | None = None
    ts_ms: int | None = None
    bid: float | None = None
    ask: float | None = None


Said = Hello | Subscribed | Heartbeat | Resync | Error


def encode(message: Said) -> str:
    """Write a message that concerns one client alone."""
    return encode_json(message).decode()


def with_id(op: str, subscription_id: int, body: str) -> str:
    """Complete a body that other clients get, too, under ids of their own."""
    return f'{{"op":"{op}","id":{subscription_id},{body}'


def ticks_body(seq: int, ticks: Sequence[TickIndicator]) -> str:
    """Write ticks as columns."""
    return _body(
        {
            "seq": seq,
            "ts_ms": [tick.ts_ms for tick in ticks],
            "price": [tick.price for tick in ticks],
            "sma9": [tick.sma9 for tick in ticks],
            "vwap": [tick.vwap for tick in ticks],
        }
    )


def candles_body(seq: int, candles: Sequence[Candle]) -> str:
    """Write closed candles."""
    return _body({"seq": seq, "candles": [candle_fields(asdict(candle)) for candle in candles]})


def corrected_body(seq: int, date: str, revision: int) -> str:
    """Write that a day was computed anew."""
    return _body({"seq": seq, "date": date, "revision": revision})


def provisional_body(candle: Mapping[str, Any]) -> str:
    """Write a candle that is still being made."""
    return _body({"candle": candle})


def signals_body(seq: int, partition: int, signals: Sequence[Signal]) -> str:
    """Write signals of one partition."""
    return _body({"seq": seq, "partition": partition, "signals": [asdict(s) for s in signals]})


def quotes_text(quotes: Mapping[str, Quote]) -> str:
    """Write quotes by ticker."""
    return encode_json({"op": "quotes", "quotes": quotes}).decode()


def status_text(services: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Write the instances of each service, and how many partitions each holds."""
    return encode_json({"op": "status", "services": services}).decode()


def candle_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what the subscription says already."""
    return {name: value for name, value in fields.items() if name not in ("ticker", "timeframe")}


def _body(fields: Mapping[str, Any]) -> str:
    return encode_json(fields)[1:].decode()
