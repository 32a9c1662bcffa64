"""The hub: however it is cut, late or stalled, each event once and in order, or a resync."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event as seen
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import subjects
from libs.common.events import Candle, Signal, TickIndicator
from services.gateway.hub import (
    LIVE_HZ,
    POINTS_MAX,
    REPLAY_HZ,
    CutOff,
    Hub,
)
from services.gateway.messages import Misunderstood, Quote, Subscribe
from tests.hubs import (
    EPOCH_MS,
    candles_from,
    hub_of,
    join,
    said,
    signals_from,
    spoken,
    ticks_from,
)
from tests.live_frames import OPEN_MS, candle, correction, frame, signal, tick

INDICATORS, SIGNALS = subjects.INDICATORS, subjects.SIGNALS
TICKERS = ("QQQ", "SPY")


# -- the promise ----------------------------------------------------------------------------------


@dataclass
class Reader:
    """A client of the protocol as a browser is one: it keeps what it got and up to where."""

    channel: str
    ticker: str
    seq: int
    got: list[int] = field(default_factory=list)
    lost: str = ""

    def wanted(self) -> Subscribe:
        """Return the subscription that goes on from here."""
        if self.channel == "ticks":
            return ticks_from(self.seq, self.ticker)
        if self.channel == "candles":
            return candles_from(self.seq, self.ticker)
        return signals_from({0: self.seq})

    def take(self, messages: Iterable[dict[str, Any]]) -> None:
        """Take messages in, until the subscription or the connection ends."""
        try:
            for message in messages:
                assert not self.lost
                if message["op"] == "resync":
                    self.lost = "resync"
                else:
                    self._take(message)
        except CutOff:
            self.lost = "cut off"

    def _take(self, message: dict[str, Any]) -> None:
        assert message["seq"] > self.seq
        self.seq = message["seq"]
        if self.channel == "ticks":
            self.got += message["ts_ms"]
        else:
            self.got += [item["ts_ms"] for item in message[self.channel]]


groups = st.lists(
    st.tuples(
        st.sampled_from((INDICATORS, SIGNALS)),
        st.integers(1, 4),
        st.lists(st.tuples(st.booleans(), st.sampled_from(TICKERS)), max_size=5),
    ),
    max_size=30,
)


class Market:
    """One partition of each stream, and what was published on it."""

    def __init__(self, hub: Hub, channel: str) -> None:
        self.hub = hub
        self.watched: type = {"ticks": TickIndicator, "candles": Candle, "signals": Signal}[channel]
        self.stream = SIGNALS if channel == "signals" else INDICATORS
        self.tickers = TICKERS if channel == "signals" else ("QQQ",)
        self.last = {INDICATORS: 0, SIGNALS: 0}
        self.stored: list[tuple[int, int]] = []  # sequence and time of what is watched
        self._number = 0

    def publish(self, stream: str, step: int, kinds: list[tuple[bool, str]]) -> None:
        """Publish a frame, `step` sequences after the last one."""
        self.last[stream] += step
        events: list[TickIndicator | Candle | Signal] = []
        for is_tick, ticker in kinds:
            self._number += 1
            make = signal if stream == SIGNALS else tick if is_tick else candle
            event = make(self._number, ticker)
            events.append(event)
            if isinstance(event, self.watched) and ticker in self.tickers:
                self.stored.append((self.last[stream], event.ts_ms))
        self.hub.add(stream, 0, self.last[stream], frame(self._number, events), 10)
        self.hub.wake()


@settings(max_examples=300)
@given(st.data(), groups, st.integers(2, 20), st.sampled_from(["ticks", "candles", "signals"]))
def test_each_event_once_and_in_order_or_resync(
    data: st.DataObject,
    content: list[tuple[str, int, list[tuple[bool, str]]]],
    ring_events_max: int,
    channel: str,
) -> None:
    """Any cut into frames, any place to begin, any stalls, any lost connections."""
    hub = hub_of(ring_events_max=ring_events_max)
    market = Market(hub, channel)
    before = data.draw(st.integers(0, len(content)), label="frames before the first visit")
    for group in content[:before]:
        market.publish(*group)
    begin = data.draw(st.integers(0, market.last[market.stream]), label="the snapshot's last_seq")
    reader, client = Reader(channel, "QQQ", begin), join(hub)
    client.subscribe(reader.wanted())
    for group in content[before:]:
        market.publish(*group)
        what = data.draw(st.sampled_from(["read", "stall", "break"]), label="what the client does")
        if reader.lost:
            break
        if what == "read":
            reader.take(spoken(client))
        elif what == "break":  # and what was under way is lost with the connection
            hub.leave(client)
            client = join(hub)
            client.subscribe(reader.wanted())
    if not reader.lost:
        reader.take(spoken(client))
    seen(reader.lost or "complete")
    due = [ts_ms for seq, ts_ms in market.stored if seq > begin]
    if reader.lost:
        assert reader.got == due[: len(reader.got)]
        assert not hub.ring(market.stream, 0).reaches(reader.seq)
    else:
        assert reader.got == due


def test_a_client_before_the_first_frame_waits() -> None:
    """A gateway that has not reached the bus yet promises nothing and refuses nothing."""
    hub = Hub(1, "demo")
    client = join(hub)
    client.subscribe(ticks_from(4))
    assert said(client) == []
    hub.begin(INDICATORS, 0, EPOCH_MS, 3)
    for seq in (4, 5):
        hub.add(INDICATORS, 0, seq, frame(seq, [tick(seq)]), 10)
    hub.wake()
    [message] = said(client)
    assert (message["seq"], message["ts_ms"]) == (5, [tick(5).ts_ms])


def test_a_snapshot_ahead_of_the_feed_gets_nothing_twice() -> None:
    """The database may know a frame before it is read here."""
    hub = hub_of()
    client = join(hub)
    hub.add(INDICATORS, 0, 1, frame(1, [tick(1)]), 10)
    client.subscribe(ticks_from(2))
    assert said(client) == []
    for seq in (2, 3):
        hub.add(INDICATORS, 0, seq, frame(seq, [tick(seq)]), 10)
        hub.wake()
    [message] = said(client)
    assert message["ts_ms"] == [tick(3).ts_ms]


# -- what cannot go on ----------------------------------------------------------------------------


def test_another_incarnation_of_the_stream_resyncs_everybody() -> None:
    """At once, and for signals, too; a subscription of the new one lives."""
    hub = hub_of()
    client = join(hub)
    client.subscribe(ticks_from(0))
    client.subscribe(signals_from({0: 0}))
    hub.add(INDICATORS, 0, 1, frame(1, [tick(1)]), 10)
    assert [message["op"] for message in said(client)] == ["ticks"]
    for stream in (INDICATORS, SIGNALS):
        hub.begin(stream, 0, EPOCH_MS + 1, 1)
    batches = list(client.collect(2.0))
    assert [batch.resync for batch in batches] == ["anew", "anew"]
    assert [json.loads(batch.text)["id"] for batch in batches] == [1, 3]
    assert said(client) == []
    client.subscribe(Subscribe(1, "ticks", "QQQ", None, EPOCH_MS + 1, 0))
    hub.add(INDICATORS, 0, 1, frame(1, [tick(9)]), 10)
    [message] = said(client)
    assert message["ts_ms"] == [tick(9).ts_ms]  # and not what stood there before


def test_who_is_too_many_points_behind_resyncs() -> None:
    """A snapshot is cheaper than so many points."""
    hub = hub_of()
    client = join(hub)
    client.subscribe(ticks_from(0))
    hub.add(INDICATORS, 0, 1, frame(1, [tick(n) for n in range(POINTS_MAX)]), 10)
    [message] = said(client)
    assert len(message["ts_ms"]) == POINTS_MAX
    hub.add(INDICATORS, 0, 2, frame(2, [tick(n) for n in range(POINTS_MAX + 1)]), 10)
    hub.wake()
    [batch] = client.collect(2.0)
    assert batch.resync == "behind"


def test_who_misses_signals_is_cut_off() -> None:
    """But a snapshot that is too old from the start only needs another one."""
    hub = hub_of(ring_events_max=2)
    client, newcomer = join(hub), join(hub)
    client.subscribe(signals_from({0: 0}))
    assert said(client) == []
    for seq in range(1, 5):
        hub.add(SIGNALS, 0, seq, frame(seq, [signal(seq)]), 10)
    hub.wake()
    with pytest.raises(CutOff):
        said(client)
    newcomer.subscribe(signals_from({0: 0}))
    [batch] = newcomer.collect(2.0)
    assert batch.resync == "old"


# -- signals, candles, quotes ---------------------------------------------------------------------


def test_signals_of_all_partitions() -> None:
    """Each message says of which partition its sequence is."""
    hub = hub_of(partitions=2)
    places = {ticker: subjects.partition_of(ticker, 2) for ticker in ("INDA", "FXY")}
    assert sorted(places.values()) == [0, 1]
    client = join(hub)
    client.subscribe(signals_from({0: 0, 1: 5}))
    for ticker, partition in places.items():
        for seq in (3, 7):
            hub.add(SIGNALS, partition, seq, frame(seq, [signal(seq, ticker)]), 10)
    found = {message["partition"]: message for message in said(client)}
    assert [len(found[0]["signals"]), found[0]["seq"]] == [2, 7]
    assert [len(found[1]["signals"]), found[1]["seq"]] == [1, 7]


def test_a_correction_is_told_and_moves_no_place_by_itself() -> None:
    """First what to load anew, then an end to go on from."""
    hub = hub_of()
    client = join(hub)
    client.subscribe(candles_from(0))
    again = [candle(n, source="history", revision=1) for n in range(3)]
    hub.add(INDICATORS, 0, 1, frame(1, [candle(1), correction(), *again, candle(3)]), 10)
    corrected, candles = said(client)
    assert corrected == {
        "op": "corrected", "id": 2, "seq": 1, "date": "2023-11-24", "revision": 1,
    }  # fmt: skip
    assert [item["ts_ms"] for item in candles["candles"]] == [candle(1).ts_ms, candle(3).ts_ms]
    assert candles["seq"] == 1


def provisional(minute: int, close: float = 1.0) -> dict[str, Any]:
    """Return the candle of a minute in the making."""
    return {"ts_ms": candle(minute).ts_ms, "close": close}


def test_only_the_newest_provisional_candle_is_sent() -> None:
    """Never again, not for another timeframe, and not once it is closed."""
    hub = hub_of()
    client, other = join(hub), join(hub)
    client.subscribe(candles_from(0))
    other.subscribe(candles_from(0, "SPY"))
    for close in (1.0, 2.0):
        hub.latest.provisional("QQQ", "1m", provisional(4, close))
    hub.latest.provisional("QQQ", "5m", provisional(4, 3.0))
    assert said(other) == []
    assert said(client) == [{"op": "provisional", "id": 2, "candle": provisional(4, 2.0)}]
    assert said(client) == []
    hub.latest.provisional("QQQ", "1m", provisional(4, 4.0))
    hub.add(INDICATORS, 0, 1, frame(1, [candle(4)]), 10)
    hub.latest.provisional("QQQ", "1m", provisional(4, 5.0))  # said before, heard after
    hub.wake()
    assert [message["op"] for message in said(client)] == ["candles"]
    newcomer = join(hub)
    hub.latest.provisional("QQQ", "1m", provisional(5, 6.0))
    newcomer.subscribe(candles_from(1))
    assert [message["op"] for message in said(newcomer)] == ["provisional"]


def test_quotes_are_conflated_by_ticker() -> None:
    """The newest of each that changed, whatever happened in between."""
    hub = hub_of()
    client, one = join(hub), join(hub)
    client.subscribe(Subscribe(5, "quotes"))
    one.subscribe(Subscribe(5, "quotes", "SPY"))
    assert said(client) == []
    for number in range(50):
        hub.add(INDICATORS, 0, number + 1, frame(1, [tick(number), tick(number, "SPY")]), 10)
        hub.latest.book("QQQ", 1.0 + number, 2.0 + number)
    hub.wake()
    newest = {"last": 149.0, "ts_ms": OPEN_MS + 49_000}
    spy = {**newest, "bid": None, "ask": None}
    qqq = {**newest, "bid": 50.0, "ask": 51.0}
    assert said(client) == [{"op": "quotes", "quotes": {"QQQ": qqq, "SPY": spy}}]
    assert said(one) == [{"op": "quotes", "quotes": {"SPY": spy}}]
    assert said(client) == []
    hub.latest.book("QQQ", 50.0, 52.0)
    hub.wake()
    assert said(client) == [{"op": "quotes", "quotes": {"QQQ": {**qqq, "ask": 52.0}}}]
    assert said(one) == []
    assert hub.last("QQQ") == Quote(149.0, OPEN_MS + 49_000, 50.0, 52.0)


def test_services_that_fall_silent_disappear() -> None:
    """Status is sent when it changes, and once at the beginning."""
    hub = hub_of()
    client = join(hub)
    client.subscribe(Subscribe(6, "status"))
    assert said(client) == [{"op": "status", "services": {}}]
    for now_s in (1.0, 2.0):
        hub.latest.heard("writer", "a", 2, now_s)
        hub.latest.look_round(now_s)
    expected = {"writer": [{"instance": "a", "partitions": 2}]}
    assert said(client) == [{"op": "status", "services": expected}]
    assert said(client) == []
    hub.latest.look_round(30.0)
    assert said(client) == [{"op": "status", "services": {}}]


def test_instances_that_take_the_place_of_others_are_restarts() -> None:
    """One that dies and comes back counts, a second one beside the first does not."""
    latest = hub_of().latest

    def said(now_s: float, *instances: str) -> int:
        for instance in instances:
            latest.heard("writer", instance, 1, now_s)
        latest.look_round(now_s)
        return latest.restarts("writer")

    assert latest.restarts("writer") == 0
    assert said(1.0, "a") == 0
    assert said(2.0, "b") == 1, "a was killed, and is not yet given up"
    assert said(3.0, "b") == 1
    assert said(4.0, "b", "c") == 1, "c came to stand beside b"
    assert said(5.0, "b", "c") == 1
    assert said(9.0, "b", "c") == 1
    assert said(10.0, "b", "d") == 2
    assert said(60.0, "d") == 2
    assert said(61.0, "e") == 3


# -- sharing, pace, limits ------------------------------------------------------------------------


def test_clients_at_the_same_place_share_one_text() -> None:
    """It is made once, whatever ids they use; who comes later catches up by itself."""
    hub = hub_of()
    made: list[object] = []
    clients = [join(hub) for _ in range(20)]
    for number, client in enumerate(clients):
        client.subscribe(ticks_from(0, subscription_id=number))
        assert said(client) == []
    hub.add(INDICATORS, 0, 1, frame(1, [tick(1)], received_ms=5), 10)
    hub.wake()
    shared = hub.shared

    def counted(key: Any, make: Any) -> Any:
        def counting() -> Any:
            made.append(key)
            return make()

        return shared(key, counting)

    hub.shared = counted  # type: ignore[method-assign]  # to count what is made
    batches = [batch for client in clients for batch in client.collect(2.0)]
    assert len(batches) == 20
    assert len(made) == 1
    assert {batch.received_ms for batch in batches} == {5}
    assert [json.loads(batch.text)["id"] for batch in batches] == list(range(20))


def test_a_client_gets_one_flush_in_each_period() -> None:
    """At once after a silence, at the period's end while it goes on, at the same time as others."""
    client = join(hub_of())
    assert client.due_s <= 1000.0
    for now_s, due_s in ((1000.0, 1000.1), (1000.1, 1000.2), (1000.24, 1000.3), (1007.77, 1007.8)):
        list(client.collect(now_s))
        assert client.due_s == pytest.approx(due_s)
    client.asked_hz = 0.5
    assert client.due_s == pytest.approx(1008.0)


def test_a_replay_is_shown_faster() -> None:
    """Unless the client asked for a rate of its own."""
    hub = hub_of()
    assert hub.hz == LIVE_HZ
    for number in range(20):
        sent_ms, received_ms = OPEN_MS + number * 10_000, OPEN_MS + number * 100
        hub.add(
            INDICATORS, 0, number + 1, frame(1, [], sent_ms=sent_ms, received_ms=received_ms), 1
        )
    assert hub.hz == REPLAY_HZ
    assert hub.clock.speed == pytest.approx(100)


def test_subscriptions_are_limited() -> None:
    """One of an id that is there replaces it."""
    hub = hub_of(subscriptions_max=2)
    client = join(hub)
    for number in (1, 2):
        client.check(ticks_from(0, subscription_id=number))
        client.subscribe(ticks_from(0, subscription_id=number))
    client.check(ticks_from(0, subscription_id=2))
    with pytest.raises(Misunderstood):
        client.check(ticks_from(0, subscription_id=3))
    client.unsubscribe(1)
    client.unsubscribe(1)
    client.check(ticks_from(0, subscription_id=3))
