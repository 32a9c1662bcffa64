"""The hub while things change under a client: its own subscriptions, and the streams."""

from __future__ import annotations

import json

from libs.common import subjects
from services.gateway.hub import POINTS_MAX
from services.gateway.messages import Subscribe
from tests.hubs import EPOCH_MS, candles_from, hub_of, join, said, signals_from, ticks_from
from tests.live_frames import candle, correction, frame, signal, tick

INDICATORS, SIGNALS = subjects.INDICATORS, subjects.SIGNALS


def test_what_was_replaced_says_nothing_more() -> None:
    """A client subscribes anew under the same id while a batch of the old one is on its way."""
    hub = hub_of()
    client = join(hub)
    client.subscribe(candles_from(0))
    hub.add(INDICATORS, 0, 1, frame(1, [correction(), candle(3)]), 10)
    batches = client.collect(1.0)
    assert json.loads(next(batches).text)["op"] == "corrected"
    client.subscribe(candles_from(1))
    assert list(batches) == []
    assert said(client) == []
    hub.add(INDICATORS, 0, 2, frame(2, [candle(4)]), 10)
    assert [message["seq"] for message in said(client)] == [2]


def test_what_was_replaced_takes_nothing_with_it() -> None:
    """The old subscription was lost; the one that took its place goes on."""
    hub = hub_of()
    client, other = join(hub), join(hub)
    client.subscribe(ticks_from(0, subscription_id=5))
    client.subscribe(ticks_from(0))
    hub.add(INDICATORS, 0, 1, frame(1, [tick(1)]), 10)
    batches = client.collect(1.0)
    assert json.loads(next(batches).text)["id"] == 5
    hub.begin(INDICATORS, 0, EPOCH_MS + 1, 1)
    client.subscribe(Subscribe(1, "ticks", "QQQ", None, EPOCH_MS + 1, 0))
    assert list(batches) == []
    hub.add(INDICATORS, 0, 1, frame(1, [tick(1)]), 10)
    assert {message["op"] for message in said(client) if message["id"] == 1} == {"ticks"}
    assert said(other) == []


def test_streams_made_anew_are_forgotten_once() -> None:
    """What the first partition tells of the new stream stays when the others begin."""
    hub = hub_of(partitions=2)
    hub.add(INDICATORS, 0, 1, frame(1, [tick(1)]), 10)
    hub.begin(INDICATORS, 1, EPOCH_MS + 1, 1)
    assert hub.last("QQQ") is None
    hub.add(INDICATORS, 1, 1, frame(1, [tick(1, "SPY")]), 10)
    hub.begin(SIGNALS, 0, EPOCH_MS + 1, 1)
    hub.begin(INDICATORS, 0, EPOCH_MS + 1, 1)
    assert hub.last("SPY") is not None


def test_who_asks_for_too_many_signals_takes_a_snapshot() -> None:
    """One catch-up is as small as those of ticks; the connection stays."""
    hub = hub_of()
    client = join(hub)
    client.subscribe(signals_from({0: 0}))
    for seq in range(1, 4):
        many = [signal(seq * POINTS_MAX + number) for number in range(POINTS_MAX // 2)]
        hub.add(SIGNALS, 0, seq, frame(seq, many), 10)
    assert [message["op"] for message in said(client)] == ["resync"]
    client.subscribe(signals_from({0: 2}))
    (caught_up,) = said(client)
    assert len(caught_up["signals"]) == POINTS_MAX // 2
