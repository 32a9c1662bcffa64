"""What clients may say, and how they are told what was wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import messages
from services.gateway.messages import (
    Error,
    Misunderstood,
    Pong,
    Rate,
    Request,
    Subscribe,
    Unsubscribe,
    parse,
)
from tests.live_frames import candle, signal, tick

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (
            '{"op":"sub","id":1,"channel":"ticks","ticker":"QQQ","epoch_ms":5,"from_seq":7}',
            Subscribe(1, "ticks", "QQQ", None, 5, 7),
        ),
        (
            '{"op":"sub","id":2,"channel":"candles","ticker":"QQQ","timeframe":"5m"}',
            Subscribe(2, "candles", "QQQ", "5m"),
        ),
        (
            '{"op":"sub","id":3,"channel":"signals","ticker":"*","from_seq":{"0":4,"1":9}}',
            Subscribe(3, "signals", "*", None, 0, {0: 4, 1: 9}),
        ),
        ('{"op":"sub","id":4,"channel":"quotes"}', Subscribe(4, "quotes")),
        ('{"op":"unsub","id":4,"comment":"unknown fields are ignored"}', Unsubscribe(4)),
        ('{"op":"rate","hz":0.5}', Rate(0.5)),
        ('{"op":"pong","n":7}', Pong(7)),
    ],
)
def test_what_clients_say_is_understood(text: str, request_: Request) -> None:
    """Each operation of the protocol."""
    assert parse(text) == request_


@pytest.mark.parametrize(
    ("text", "complaint", "request_id"),
    [
        ("", "truncated", None),
        ("{", "truncated", None),
        ("[1]", "Expected `object`", None),
        ('{"id":3}', "missing required field `op`", 3),
        ('{"op":"dance","id":3}', "'dance'", 3),
        ('{"op":"sub","id":3,"channel":"weather"}', "'weather'", 3),
        ('{"op":"sub","id":-1,"channel":"quotes"}', ">= 0", None),
        ('{"op":"sub","id":3,"channel":"ticks"}', "name one ticker", 3),
        ('{"op":"sub","id":3,"channel":"ticks","ticker":""}', "length >= 1", 3),
        ('{"op":"sub","id":3,"channel":"candles","ticker":"QQQ"}', "name a timeframe", 3),
        ('{"op":"sub","id":3,"channel":"candles","ticker":"QQQ","timeframe":"2m"}', "'2m'", 3),
        ('{"op":"sub","id":3,"channel":"ticks","ticker":"A","from_seq":{"0":1}}', "one number", 3),
        ('{"op":"sub","id":3,"channel":"ticks","ticker":"A","from_seq":-1}', ">= 0", 3),
        ('{"op":"sub","id":3,"channel":"signals","ticker":"*","from_seq":1}', "object", 3),
        ('{"op":"sub","id":3,"channel":"signals","ticker":"A","from_seq":{"0":1}}', "number", 3),
        ('{"op":"rate","hz":0.1}', ">= 0.2", None),
        ('{"op":"rate","hz":21}', "<= 20", None),
        ('{"op":"pong","n":"x"}', "Expected `int`", None),
        ('{"op":"pong","x":' + "[" * 100_000, "recursion", None),
    ],
)
def test_what_means_nothing_is_explained(text: str, complaint: str, request_id: int | None) -> None:
    """One clear sentence, with the id if there was one."""
    with pytest.raises(Misunderstood) as refusal:
        parse(text)
    assert complaint in str(refusal.value)
    assert refusal.value.request_id == request_id


@given(st.text(max_size=50) | json_values.map(json.dumps))
def test_whatever_is_said_is_understood_or_explained(text: str) -> None:
    """Nothing else ever leaves `parse`."""
    try:
        parse(text)
    except Misunderstood as error:
        answer = messages.encode(Error(str(error), error.request_id))
    else:
        answer = '{"op":"error"}'
    assert json.loads(answer)["op"] == "error"


def test_bodies_are_completed_with_an_id() -> None:
    """What clients share becomes one object of each."""
    ticks = json.loads(messages.with_id("ticks", 5, messages.ticks_body(9, [tick(1), tick(2)])))
    assert ticks == {
        "op": "ticks", "id": 5, "seq": 9, "ts_ms": [tick(1).ts_ms, tick(2).ts_ms],
        "price": [101.0, 102.0], "sma9": [None, None], "vwap": [99.5, 99.5],
    }  # fmt: skip
    body = messages.candles_body(9, [candle(1)])
    [shown] = json.loads(messages.with_id("candles", 5, body))["candles"]
    assert shown == {
        "ts_ms": candle(1).ts_ms, "open": 1.0, "high": 2.0, "low": 0.5, "close": 2.5,
        "volume": 100, "sma9": None, "vwap": 1.25, "extras": {"ema9": 1.5}, "source": "stream",
        "revision": 0,
    }  # fmt: skip
    body = messages.signals_body(9, 3, [signal(1)])
    said = json.loads(messages.with_id("signals", 5, body))
    assert (said["partition"], said["signals"][0]["id"]) == (3, signal(1).id)
