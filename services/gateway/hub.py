"""Who gets what: subscriptions, how each channel is delivered, and what clients share.

Theory of operation. A subscription is a place in a ring, not a queue: what a client has not got
yet is what the ring holds after that place. So nothing is sent twice or left out, a client that
does not read costs a few numbers, and all clients at the same place get the same text, made once.

Three classes of delivery:

- `append` (ticks, candles): all after the place. Who is too far behind gets `resync`;
- `last` (quotes, provisional candles, status): only the newest, by ticker;
- `must` (signals): all after the place. Who was under way and missed what the ring no longer has is
  cut off, because a trader who waits for signals must notice; else `resync`, as above.

Nothing here waits, sends or asks for the time; `Feed` fills the hub and `live` empties it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from libs.common import subjects
from libs.common.calendar import day_of
from libs.common.events import Candle, Correction, Frame, Signal, TickIndicator
from libs.common.market_clock import MarketClock
from services.gateway import messages
from services.gateway.latest import Latest
from services.gateway.messages import Misunderstood, Quote, Resync, Subscribe
from services.gateway.ring import EVENTS_MAX, EVERY, Entry, Ring, Topic

__all__ = ["Batch", "Client", "CutOff", "DeliveryClass", "Hub", "Limits"]

DeliveryClass = Literal["append", "last", "must", "control"]
# Why a subscription could not go on: its snapshot was too old, it fell behind by events or by
# points, or the stream was made anew.
Resynced = Literal["old", "missed", "behind", "anew"]

POINTS_MAX = 2_000
LIVE_HZ, REPLAY_HZ = 10.0, 20.0
_TEXTS_MAX, _TEXTS_LENGTH_MAX = 256, 8 << 20


class Limits(Struct, frozen=True):
    """How much a live connection may take, and how many events each partition keeps."""

    subscriptions_max: int = 64
    message_bytes_max: int = 8 * 1024
    ring_events_max: int = EVENTS_MAX


class CutOff(Exception):
    """A client missed what it must not miss; its connection has to end."""


class Batch(Struct, frozen=True, gc=False):
    """A message to send; `received_ms` is when its oldest news reached us, 0 for no news."""

    text: str
    kind: DeliveryClass
    received_ms: int = 0
    resync: Resynced | None = None


class _Text(NamedTuple):
    """A message that many clients share: all but the subscription's id."""

    op: str
    body: str
    received_ms: int


_Texts = tuple[_Text, ...]


class Hub:
    """What there is to deliver, and the clients that it goes to."""

    def __init__(self, partitions: int, source: str, limits: Limits | None = None) -> None:
        self.partitions = partitions
        self.source = source
        self.limits = limits or Limits()
        self.clock = MarketClock()
        self.latest = Latest()
        self.stopped = False
        self._rings = {
            (stream, partition): Ring(self.limits.ring_events_max)
            for stream in (subjects.INDICATORS, subjects.SIGNALS)
            for partition in range(partitions)
        }
        self._clients: set[Client] = set()
        self._texts: dict[tuple[Any, ...], _Texts] = {}
        self._texts_length = 0
        self._epoch_ms = 0  # the incarnation of INDICATORS

    @property
    def simulated(self) -> bool:
        """Whether this is not a broker's market."""
        return self.source != "schwab"

    @property
    def hz(self) -> float:
        """How often a client gets something unless it asked for another rate."""
        return REPLAY_HZ if self.clock.fast else LIVE_HZ

    def ring(self, stream: str, partition: int) -> Ring:
        """Return the ring of a stream's partition."""
        return self._rings[stream, partition]

    def ring_of(self, stream: str, ticker: str) -> Ring:
        """Return the ring that a ticker's events are in."""
        return self._rings[stream, subjects.partition_of(ticker, self.partitions)]

    def last(self, ticker: str) -> Quote | None:
        """Return what is known of a ticker now."""
        return self.latest.quote(ticker)

    # -- what the feed brings ---------------------------------------------------------------------

    def begin(self, stream: str, partition: int, epoch_ms: int, start_seq: int) -> None:
        """Start a partition anew; of another incarnation, nothing that was known holds."""
        if stream == subjects.INDICATORS and epoch_ms != self._epoch_ms:
            # Once for all partitions: what one of them has told since then holds.
            if self._epoch_ms:
                self.clock = MarketClock()
                self.latest.forget()
            self._epoch_ms = epoch_ms
        self._rings[stream, partition].begin(epoch_ms, start_seq)
        self.wake()

    def add(self, stream: str, partition: int, seq: int, frame: Frame, size_bytes: int) -> None:
        """Take in a durable frame."""
        self._rings[stream, partition].add(seq, frame, size_bytes)
        for event in frame.events:
            if type(event) is TickIndicator:
                self.latest.tick(event)
            elif type(event) is Candle:
                self.latest.closed(event)
        if stream == subjects.INDICATORS:
            self.clock.observe(frame.sent_ms, frame.received_ms)

    def wake(self) -> None:
        """Tell every client that there may be something for it."""
        self._forget_texts()
        for client in self._clients:
            client.wake()

    def stop(self) -> None:
        """Let every connection end."""
        self.stopped = True
        self.wake()

    # -- clients ----------------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self._clients)

    def join(self, wake: Callable[[], None]) -> Client:
        """Take a connection in; how many there may be is the gate's business."""
        client = Client(self, wake)
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """Forget a connection."""
        self._clients.discard(client)

    def shared(self, key: tuple[Any, ...], make: Callable[[], _Texts]) -> _Texts:
        """Return what was made for another client at the same place, or make it."""
        made = self._texts.get(key)
        if made is None:
            if len(self._texts) >= _TEXTS_MAX or self._texts_length >= _TEXTS_LENGTH_MAX:
                self._forget_texts()
            made = self._texts[key] = make()
            self._texts_length += sum(len(text.body) for text in made)
        return made

    def _forget_texts(self) -> None:
        self._texts.clear()
        self._texts_length = 0


class Client:
    """One connection: what it subscribed to, and when it may get something again."""

    def __init__(self, hub: Hub, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.asked_hz: float | None = None
        self._hub = hub
        self._subscriptions: dict[int, _Subscription] = {}
        self._sent_s = 0.0

    @property
    def due_s(self) -> float:
        """When the next batch may leave: one in each period, at its beginning if there is news.

        Periods begin at the same times for all clients, so that they share what is made.
        """
        hz = self.asked_hz or self._hub.hz
        return (math.floor(self._sent_s * hz) + 1) / hz

    def check(self, wanted: Subscribe) -> None:
        """Raise Misunderstood when there is no room for another subscription."""
        room = self._hub.limits.subscriptions_max
        if wanted.id not in self._subscriptions and len(self._subscriptions) >= room:
            raise Misunderstood(f"there are {room} subscriptions already", wanted.id)

    def subscribe(self, wanted: Subscribe) -> None:
        """Begin to deliver; a subscription of the same id ends."""
        self._subscriptions[wanted.id] = _CHANNELS[wanted.channel](self._hub, wanted)
        self.wake()

    def unsubscribe(self, subscription_id: int) -> None:
        """End a subscription; one that is not there is no matter."""
        self._subscriptions.pop(subscription_id, None)

    def collect(self, now_s: float) -> Iterator[Batch]:
        """Yield all that there is for this client now; raises CutOff.

        What was yielded counts as sent.
        """
        self._sent_s = now_s
        for subscription_id, subscription in list(self._subscriptions.items()):
            try:
                for batch in subscription.batches():
                    # While a batch was sent, the client may have ended or replaced this one.
                    if self._subscriptions.get(subscription_id) is not subscription:
                        break
                    yield batch
            except _Lost as lost:
                if self._subscriptions.get(subscription_id) is not subscription:
                    continue
                if subscription.must_deliver and lost.reason == "missed":
                    raise CutOff(lost.text) from lost
                self.unsubscribe(subscription_id)
                text = messages.encode(Resync(subscription_id, lost.text))
                yield Batch(text, "control", resync=lost.reason)


class _Lost(Exception):
    """A subscription cannot go on from where it is."""

    def __init__(self, reason: Resynced, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class _Place:
    """Up to where a subscription got the events of one partition."""

    def __init__(self, ring: Ring, partition: int, topic: Topic, epoch_ms: int, seq: int) -> None:
        self.started = False
        self.topic = topic
        self.partition = partition
        self._ring = ring
        self._epoch_ms = epoch_ms
        self._seq = seq

    def take(self, hub: Hub, make: Callable[[int, list[Entry]], Iterator[_Text]]) -> _Texts:
        """Move to the ring's end and return what `make` makes of the events passed.

        Raises _Lost.
        """
        ring, begin = self._ring, self._seq
        if not ring.begun:
            return ()
        if ring.epoch_ms != self._epoch_ms:
            raise _Lost("anew", "the stream was made anew: take a new snapshot")
        if not ring.reaches(begin):
            reason: Resynced = "missed" if self.started else "old"
            raise _Lost(reason, "older than what is kept here: take a new snapshot")
        self._seq = max(begin, ring.last_seq)
        end = self._seq
        texts = hub.shared(
            (self.topic, self.partition, self._epoch_ms, begin, end),
            lambda: tuple(make(end, ring.since(self.topic, begin))),
        )
        if not self.started:
            # What a newcomer catches up with says nothing about how fast we are.
            texts = tuple(text._replace(received_ms=0) for text in texts)
            self.started = True
        return texts


class _Subscription(Protocol):
    """What a client asked for."""

    must_deliver: bool

    def batches(self) -> Iterator[Batch]:
        """Yield what is new and go on from there; raises _Lost."""
        ...


class _Ticks:
    """Ticks of one ticker, in columns."""

    must_deliver = False

    def __init__(self, hub: Hub, wanted: Subscribe) -> None:
        self._hub = hub
        self._id = wanted.id
        self._place = _place_of(hub, subjects.INDICATORS, ("ticks", wanted.ticker), wanted)

    def batches(self) -> Iterator[Batch]:
        for op, body, received_ms in self._place.take(self._hub, self._make):
            yield Batch(messages.with_id(op, self._id, body), "append", received_ms)

    @staticmethod
    def _make(seq: int, entries: list[Entry]) -> Iterator[_Text]:
        _require_near(entries)
        ticks = [entry.event for entry in entries if type(entry.event) is TickIndicator]
        if ticks:
            yield _Text("ticks", messages.ticks_body(seq, ticks), entries[0].received_ms)


class _Candles:
    """Candles of one ticker and timeframe: closed, corrected, and in the making."""

    must_deliver = False

    def __init__(self, hub: Hub, wanted: Subscribe) -> None:
        self._hub = hub
        self._id = wanted.id
        self._key = (wanted.ticker, str(wanted.timeframe))
        self._version = 0
        self._place = _place_of(hub, subjects.INDICATORS, ("candles", *self._key), wanted)

    def batches(self) -> Iterator[Batch]:
        for op, body, received_ms in self._place.take(self._hub, self._make):
            yield Batch(messages.with_id(op, self._id, body), "append", received_ms)
        latest = self._hub.latest
        candle = latest.provisional_since(*self._key, self._version)
        if candle is not None:
            version = self._version = latest.version
            texts = self._hub.shared(
                ("provisional", *self._key, version),
                lambda: (_Text("provisional", messages.provisional_body(candle), 0),),
            )
            yield Batch(messages.with_id("provisional", self._id, texts[0].body), "last")

    @staticmethod
    def _make(seq: int, entries: list[Entry]) -> Iterator[_Text]:
        """Make the corrections first: only the last message moves the client's place."""
        _require_near(entries)
        for entry in entries:
            event = entry.event
            if type(event) is Correction:
                date = day_of(event.day_ms).isoformat()
                body = messages.corrected_body(entry.seq, date, event.revision)
                yield _Text("corrected", body, entry.received_ms)
        candles = [entry.event for entry in entries if type(entry.event) is Candle]
        if entries:
            yield _Text("candles", messages.candles_body(seq, candles), entries[0].received_ms)


class _Signals:
    """Signals of one ticker, or of all of them with a place in each partition."""

    must_deliver = True

    def __init__(self, hub: Hub, wanted: Subscribe) -> None:
        self._hub = hub
        self._id = wanted.id
        topic = ("signals", wanted.ticker)
        if isinstance(wanted.from_seq, dict):
            self._places = [
                _Place(
                    hub.ring(subjects.SIGNALS, partition), partition, topic, wanted.epoch_ms,
                    wanted.from_seq.get(partition, 0),
                )
                for partition in range(hub.partitions)
            ]  # fmt: skip
        else:
            self._places = [_place_of(hub, subjects.SIGNALS, topic, wanted)]

    def batches(self) -> Iterator[Batch]:
        for place in self._places:
            make = partial(self._make, place.partition)
            for op, body, received_ms in place.take(self._hub, make):
                yield Batch(messages.with_id(op, self._id, body), "must", received_ms)

    @staticmethod
    def _make(partition: int, seq: int, entries: list[Entry]) -> Iterator[_Text]:
        _require_near(entries)
        signals = [entry.event for entry in entries if type(entry.event) is Signal]
        if signals:
            body = messages.signals_body(seq, partition, signals)
            yield _Text("signals", body, entries[0].received_ms)


class _Quotes:
    """The newest of every ticker, or of one."""

    must_deliver = False

    def __init__(self, hub: Hub, wanted: Subscribe) -> None:
        self._hub = hub
        self._version = 0
        self._ticker = wanted.ticker

    def batches(self) -> Iterator[Batch]:
        latest, begin = self._hub.latest, self._version
        self._version = latest.version
        key = ("quotes", self._ticker, begin, self._version)
        for text in self._hub.shared(key, lambda: tuple(self._make(begin))):
            yield Batch(text.body, "last")

    def _make(self, begin: int) -> Iterator[_Text]:
        quotes = self._hub.latest.quotes_since(begin)
        if self._ticker != EVERY:
            quotes = {ticker: quote for ticker, quote in quotes.items() if ticker == self._ticker}
        if quotes:
            yield _Text("quotes", messages.quotes_text(quotes), 0)


class _Status:
    """How the services stand."""

    must_deliver = False

    def __init__(self, hub: Hub, _: Subscribe) -> None:
        self._hub = hub
        self._version = -1  # so that the first answer comes even when nothing was heard yet

    def batches(self) -> Iterator[Batch]:
        services = self._hub.latest.status_since(self._version)
        self._version = self._hub.latest.version
        if services is not None:
            yield Batch(messages.status_text(services), "last")


def _place_of(hub: Hub, stream: str, topic: Topic, wanted: Subscribe) -> _Place:
    """Return the place in the ring of the subscription's ticker."""
    partition = subjects.partition_of(wanted.ticker, hub.partitions)
    seq = wanted.from_seq if isinstance(wanted.from_seq, int) else 0
    return _Place(hub.ring(stream, partition), partition, topic, wanted.epoch_ms, seq)


def _require_near(entries: list[Entry]) -> None:
    """Raise _Lost when a client had better load a snapshot."""
    if len(entries) > POINTS_MAX:
        raise _Lost("behind", f"more than {POINTS_MAX} points behind: take a new snapshot")


_CHANNELS: Mapping[str, Callable[[Hub, Subscribe], _Subscription]] = {
    "ticks": _Ticks,
    "candles": _Candles,
    "signals": _Signals,
    "quotes": _Quotes,
    "status": _Status,
}
