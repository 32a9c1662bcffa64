"""Frames to bytes and back, and which bytes are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from libs.common import codec
from libs.common.errors import SchemaError
from libs.common.events import (
    SCHEMA_VERSION,
    Bar,
    Candle,
    Checkpoint,
    Clock,
    Correction,
    Event,
    Frame,
    Gap,
    History,
    HistoryBar,
    Signal,
    Tick,
    TickIndicator,
)

EVENTS: tuple[Event, ...] = (
    Tick("QQQ", 1_700_000_000_000, 371.25, 100, 5_000, 371.24, None, 3),
    Bar("QQQ", "1m", 1_700_000_000_000, 1.0, 2.5, 0.5, 2.0, 10),
    Gap("QQQ:bars:0", "QQQ", "bars", 0, 60_000, "outage", "open"),
    Clock(1_700_000_000_000),
    History(
        "QQQ", 0, (HistoryBar(0, 1.0, 1.0, 1.0, 1.0, 0), HistoryBar(60_000, 1.0, 2.0, 1.0, 2.0, 5))
    ),
    TickIndicator("QQQ", 1, 371.25, None, 371.2),
    Correction("QQQ", 0, 2),
    Candle("QQQ", "5m", 0, 1.0, 1.0, 1.0, 1.0, 0, None, None, {"ema9": None}, "history", 1),
    Signal("QQQ:1m:0", 0, "active", False, "QQQ", "1m", 0, "cross", "up", 1.0, 1.0, 0.9),
)
FRAME = Frame(SCHEMA_VERSION, 1, 2, 3, 4, 5, 6, EVENTS)
CHECKPOINT = Checkpoint(SCHEMA_VERSION, 1, 2, 3, 4, 5, b"state")


def encode(*fields: Any) -> bytes:
    """Encode an array as a frame or checkpoint would be."""
    return msgspec.msgpack.encode(fields)


class TestRoundTrip:
    """What was encoded is what is decoded."""

    def test_a_frame_with_every_kind_of_event(self) -> None:
        """All events come back as they were."""
        assert codec.decode_frame(codec.encode_frame(FRAME)) == FRAME

    def test_every_kind_of_event_is_covered(self) -> None:
        """The frame above leaves none out."""
        assert {type(event) for event in EVENTS} == set(Event.__args__)

    def test_a_checkpoint(self) -> None:
        """State is opaque bytes."""
        assert codec.decode_checkpoint(codec.encode_checkpoint(CHECKPOINT)) == CHECKPOINT

    def test_equal_frames_give_equal_bytes(self) -> None:
        """A replay can be compared byte by byte."""
        decoded = codec.decode_frame(codec.encode_frame(FRAME))
        assert codec.encode_frame(decoded) == codec.encode_frame(FRAME)

    @given(st.floats(allow_nan=False))
    def test_every_float_survives(self, price: float) -> None:
        """No digit is lost on the bus."""
        tick = Tick("A", 0, price, 0, 0, None, None)
        frame = msgspec.structs.replace(FRAME, events=(tick,))
        assert codec.decode_frame(codec.encode_frame(frame)).events == (tick,)


class TestVersions:
    """Versions N-1 and N read each other; any other is refused before it is decoded."""

    def test_fields_that_a_newer_program_added_are_ignored(self) -> None:
        """At the end of an event and at the end of the frame."""
        clock = [4, 1_700_000_000_000, "new", {"more": 1}]
        data = encode(SCHEMA_VERSION, 1, 2, 3, 4, 5, 6, [clock], "newer")
        expected = msgspec.structs.replace(FRAME, events=(Clock(1_700_000_000_000),))
        assert codec.decode_frame(data) == expected

    def test_fields_that_an_older_program_lacks_are_filled_in(self) -> None:
        """A tick without flags and a bar without source have the defaults."""
        tick = [1, "QQQ", 1, 2.0, 3, 4, None, None]
        bar = [2, "QQQ", "1m", 0, 1.0, 1.0, 1.0, 1.0, 5]
        frame = codec.decode_frame(encode(SCHEMA_VERSION, 1, 2, 3, 4, 5, 6, [tick, bar]))
        assert frame.events == (
            Tick("QQQ", 1, 2.0, 3, 4, None, None, flags=0),
            Bar("QQQ", "1m", 0, 1.0, 1.0, 1.0, 1.0, 5, source="stream"),
        )

    def test_the_version_is_read_without_decoding(self) -> None:
        """Even of a frame whose rest means nothing."""
        assert codec.version_of(encode(SCHEMA_VERSION, "whatever")) == SCHEMA_VERSION

    @pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, 127])
    def test_an_unknown_version_is_refused(self, version: int) -> None:
        """The error says what to do, for frames and checkpoints."""
        with pytest.raises(SchemaError, match="upgrade"):
            codec.decode_frame(encode(version, 1, 2, 3, 4, 5, 6, []))
        with pytest.raises(SchemaError, match="upgrade"):
            codec.decode_checkpoint(encode(version, 1, 2, 3, 4, b""))

    def test_the_last_two_versions_are_readable(self) -> None:
        """What N-1 wrote is read by N, so services can be upgraded one by one."""
        assert SCHEMA_VERSION in codec.READABLE_VERSIONS
        assert len(codec.READABLE_VERSIONS) <= 2
        assert max(1, SCHEMA_VERSION - 1) in codec.READABLE_VERSIONS


class TestGarbage:
    """Broken bytes raise SchemaError and nothing else."""

    @given(st.binary(max_size=200))
    def test_random_bytes(self, data: bytes) -> None:
        """Whatever they are."""
        for decode in (codec.decode_frame, codec.decode_checkpoint):
            with pytest.raises(SchemaError):
                decode(data)

    @given(st.data())
    def test_damaged_frames(self, data: st.DataObject) -> None:
        """A frame with one byte changed decodes to something else or is refused."""
        encoded = bytearray(codec.encode_frame(FRAME))
        encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
        _decode_or_refuse(bytes(encoded))

    @given(st.integers(0, len(codec.encode_frame(FRAME)) - 1))
    def test_cut_frames(self, length: int) -> None:
        """A frame that ends too early is refused."""
        with pytest.raises(SchemaError):
            codec.decode_frame(codec.encode_frame(FRAME)[:length])

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=20,
        )
    )
    def test_other_messages(self, value: object) -> None:
        """Well-formed MessagePack that is no frame is refused, however it begins."""
        for fields in ((value,), (SCHEMA_VERSION, value), (SCHEMA_VERSION, *[value] * 7)):
            _decode_or_refuse(encode(*fields))

    def test_deep_nesting(self) -> None:
        """A hundred thousand arrays in each other are refused, also where a field is skipped."""
        nested = b"\x91" * 100_000
        for begin in (bytes([0x98, SCHEMA_VERSION]), encode(SCHEMA_VERSION, 1, 2, 3, 4, 5, 6, [])):
            longer = bytes([begin[0] + 1]) + begin[1:]
            with pytest.raises(SchemaError):
                codec.decode_frame(longer + nested)

    @pytest.mark.parametrize(
        "head", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff"]
    )
    def test_lengths_that_promise_too_much(self, head: bytes) -> None:
        """An array or map of four thousand million elements that are not there is refused."""
        begin = bytes([0x98, SCHEMA_VERSION, 1, 2, 3, 4, 5, 6])
        with pytest.raises(SchemaError):
            codec.decode_frame(begin + head)

    def test_a_wrong_kind_of_event(self) -> None:
        """An event whose tag nobody knows is no event."""
        with pytest.raises(SchemaError):
            codec.decode_frame(encode(SCHEMA_VERSION, 1, 2, 3, 4, 5, 6, [[99, 1]]))


def _decode_or_refuse(data: bytes) -> None:
    """Decode; fails if anything but SchemaError comes out."""
    for decode in (codec.decode_frame, codec.decode_checkpoint):
        try:
            decoded: Struct | None = decode(data)
        except SchemaError:
            decoded = None
        assert decoded is None or isinstance(decoded, (Frame, Checkpoint))


def test_live_messages_are_flat_json() -> None:
    """Whatever a live message holds is written as JSON without spaces."""
    assert codec.encode_json({"ticker": "QQQ", "sma9": None}) == b'{"ticker":"QQQ","sma9":null}'


class _OlderTick(Struct, frozen=True, array_like=True, tag=1):
    ticker: str
    ts_ms: int
    price: float


def test_an_older_reader_takes_what_it_knows() -> None:
    """A program that knows fewer fields of an event reads a newer one's frame."""
    encoded = msgspec.msgpack.encode(EVENTS[0])
    tick = msgspec.msgpack.decode(encoded, type=_OlderTick)
    assert (tick.ticker, tick.price) == ("QQQ", 371.25)
