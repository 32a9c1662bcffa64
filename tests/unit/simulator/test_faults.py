"""Each fault does what its description says, and nothing without being asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from services.simulator.fault_filter import Drop, FaultFilter, Hold, Later
from services.simulator.faults import FaultPlan, Faults
from services.simulator.feeds import Item
from services.simulator.hostile import hostile_frames
from services.simulator.streamer import Close, Send, data_frame

BARS, QUOTES = "CHART_EQUITY", "LEVELONE_EQUITIES"
HEARTBEAT = Send(b'{"notify":[{"heartbeat":"1"}]}', "heartbeat")
REPLY = Send(b'{"response":[]}', "reply")


class Wire:
    """A filter with a plan; sends frames a second apart."""

    def __init__(self, **faults: Any) -> None:
        self.plan = FaultPlan(Faults(**faults), "1")
        self.filter = FaultFilter(self.plan)
        self.at_ms = 1_000_000

    def push(self, output: Any) -> list[Any]:
        """What comes out for one output."""
        self.at_ms += 1_000
        return list(self.filter.apply(output, self.at_ms))

    def items(self, service: str, *items: Item, image: bool = False) -> list[Item]:
        """The items that come out for one data frame."""
        out = self.push(data_frame(service, list(items), self.at_ms, image=image))
        return [item for frame in out for item in frame.items]


def bar(number: int) -> Item:
    """A minute bar of QQQ."""
    return {"key": "QQQ", "7": number * 60_000, "seq": number}


def test_without_faults_everything_passes_untouched() -> None:
    """The very same objects come out."""
    wire = Wire()
    for output in (
        data_frame(QUOTES, [{"key": "QQQ", "3": 1.0}], 5),
        HEARTBEAT,
        REPLY,
        Close(1000),
    ):
        assert wire.push(output) == [output]


def test_skipped_opportunities_pass_before_the_next_are_hit() -> None:
    """The second of three answers is swallowed."""
    wire = Wire(next={"swallow_ack": 1}, skip={"swallow_ack": 1})
    assert [wire.push(REPLY) for _ in range(3)] == [[REPLY], [], [REPLY]]
    assert wire.plan.struck == {"swallow_ack": 1}


def test_next_hits_the_next_opportunities_and_no_more() -> None:
    """Two swallowed answers, the third passes, and the plan counts them."""
    wire = Wire(next={"swallow_ack": 2})
    assert [len(wire.push(REPLY)) for _ in range(3)] == [0, 0, 1]
    assert wire.plan.struck == {"swallow_ack": 2}


def test_every_s_hits_about_once_in_that_time_and_always_the_same_way() -> None:
    """The seed decides when."""

    def hits(seed: str) -> list[int]:
        plan = FaultPlan(Faults(every_s={"drop": 60.0}), seed)
        return [at_s for at_s in range(36_000) if plan.strikes("drop", at_s * 1000)]

    assert hits("1") == hits("1") != hits("2")
    assert 590 <= len(hits("1")) <= 601


@pytest.mark.parametrize(("kind", "result"), [("drop", [Drop()]), ("close", [Close(1000)])])
def test_connections_end_on_demand(kind: Any, result: list[object]) -> None:
    """Without a word or politely; the frame is lost with them."""
    assert Wire(next={kind: 1}).push(HEARTBEAT) == result


def test_a_stall_holds_back_and_then_sends_all() -> None:
    """The frame comes after the wait."""
    assert Wire(next={"stall": 1}, stall_s=2.0).push(HEARTBEAT) == [Hold(2.0), HEARTBEAT]


def test_answers_come_late_or_unasked() -> None:
    """A late one is handed over with its delay; a stray one stands before the real one."""
    assert Wire(next={"late_ack": 1}, late_ack_s=3.0).push(REPLY) == [Later(REPLY, 3.0)]
    stray, real = Wire(next={"stray_response": 1}).push(REPLY)
    assert json.loads(stray.text)["response"][0]["requestid"] == "987654"
    assert real is REPLY


def test_garbled_frames_are_extra_ones() -> None:
    """Half a frame that no parser takes, then the whole one."""
    frame = data_frame(QUOTES, [{"key": "QQQ", "3": 1.0}], 5)
    garbled, real = Wire(next={"malformed": 1}).push(frame)
    with pytest.raises(json.JSONDecodeError):
        json.loads(garbled.text)
    assert garbled.items == ()
    assert real is frame


def test_a_big_frame_is_beyond_a_mebibyte_and_says_the_same() -> None:
    """The padding is a field that nobody knows."""
    (frame,) = Wire(next={"big_frame": 1}).push(data_frame(QUOTES, [{"key": "QQQ", "3": 1.0}], 5))
    assert len(frame.text) > 1 << 20
    item = json.loads(frame.text)["data"][0]["content"][0]
    assert {name: item[name] for name in ("key", "3")} == {"key": "QQQ", "3": 1.0}


def test_hostile_frames_are_extra_ones_of_many_kinds() -> None:
    """Over time the whole catalogue comes, each before an untouched frame."""
    wire = Wire(next={"hostile": 2_000})
    frame = data_frame(QUOTES, [{"key": "QQQ", "3": 1.0}], 5)
    seen = set()
    for _ in range(2_000):
        hostile, real = wire.push(frame)
        assert real is frame
        seen.add(hostile.text.replace(str(wire.at_ms).encode(), b""))
    assert len(seen) >= len(hostile_frames(QUOTES, "QQQ", 0))


def test_bars_are_doubled_delayed_and_lost() -> None:
    """Each exactly once."""
    assert Wire(next={"duplicate_bar": 1}).items(BARS, bar(1)) == [bar(1), bar(1)]
    assert Wire(next={"missing_bar": 1}).items(BARS, bar(1)) == []
    wire = Wire(next={"late_bar": 1})
    assert wire.items(BARS, bar(1)) == []
    assert wire.items(BARS, bar(2)) == [bar(2), bar(1)]
    assert wire.items(BARS, bar(3)) == [bar(3)]


def test_a_volume_reset_starts_the_day_again_from_nothing() -> None:
    """Growth goes on to be right; the broker's own reset ends it."""
    wire = Wire()
    assert wire.items(QUOTES, {"key": "QQQ", "8": 1_000})[0]["8"] == 1_000
    wire.plan.set(Faults(next={"volume_reset": 1}))
    volumes = [
        wire.items(QUOTES, {"key": "QQQ", "8": total})[0]["8"] for total in (1_100, 1_250, 10, 30)
    ]
    assert volumes == [100, 250, 10, 30]


def test_a_share_of_the_frames_is_lost_and_always_the_same_ones() -> None:
    """One in twenty of what holds data; images, heartbeats and answers are not touched."""

    def lost(seed: str) -> list[int]:
        wire = Wire(share={"lost_frame": 0.05})
        wire.plan = FaultPlan(wire.plan.current, seed)
        wire.filter = FaultFilter(wire.plan)
        missing = [number for number in range(2_000) if not wire.items(BARS, bar(number))]
        for number in range(200):
            assert wire.items(BARS, bar(number), image=True)
            assert wire.push(HEARTBEAT) == [HEARTBEAT]
            assert wire.push(REPLY) == [REPLY]
        assert wire.plan.struck == {"lost_frame": len(missing)}
        return missing

    assert 60 < len(lost("1")) < 140
    assert lost("1") == lost("1") != lost("2")


def test_heartbeats_can_stop() -> None:
    """Data goes on."""
    wire = Wire(no_heartbeats=True)
    assert wire.push(HEARTBEAT) == []
    assert wire.items(QUOTES, {"key": "QQQ", "3": 1.0})


def merged(items: Iterator[Item] | list[Item]) -> dict[str, Any]:
    """What a client holds after applying items in order."""
    state: dict[str, Any] = {}
    for item in items:
        state.update(item)
    return state


def test_frozen_data_comes_merged_when_the_freeze_ends() -> None:
    """Heartbeats go on meanwhile; no bar and no last value is lost."""
    wire = Wire(freeze_data=True)
    assert wire.items(QUOTES, {"key": "QQQ", "3": 1.0, "8": 5}) == []
    assert wire.items(QUOTES, {"key": "QQQ", "3": 2.0}) == []
    assert wire.items(BARS, bar(1)) == []
    assert wire.push(HEARTBEAT) == [HEARTBEAT]
    wire.plan.set(Faults())
    out = [item for frame in wire.push(HEARTBEAT) for item in frame.items]
    assert out == [{"key": "QQQ", "3": 2.0, "8": 5}, bar(1)]
    assert wire.items(QUOTES, {"key": "QQQ", "3": 3.0}) == [{"key": "QQQ", "3": 3.0}]


def test_a_halted_symbol_says_so_and_stands_still() -> None:
    """Others go on; when it is set free it has everything that it missed."""
    wire = Wire()
    wire.items(QUOTES, {"key": "QQQ", "3": 1.0, "8": 5, "32": "Normal"}, image=True)
    wire.plan.set(Faults(halted=("QQQ",)))
    said = wire.items(QUOTES, {"key": "QQQ", "3": 2.0, "8": 6}, {"key": "SPY", "3": 9.0})
    assert said == [{"key": "QQQ", "32": "Halted"}, {"key": "SPY", "3": 9.0}]
    assert wire.items(QUOTES, {"key": "QQQ", "35": 7}, {"key": "SPY", "3": 8.0}) == [
        {"key": "SPY", "3": 8.0}
    ]
    assert wire.items(BARS, bar(1)) == []
    wire.plan.set(Faults())
    said = wire.items(QUOTES, {"key": "QQQ", "3": 4.0})
    assert [item for item in said if "seq" in item] == [bar(1)]
    assert merged([item for item in said if "seq" not in item]) == {
        "key": "QQQ", "3": 4.0, "8": 6, "35": 7, "32": "Normal",
    }  # fmt: skip


def test_unknown_faults_are_refused() -> None:
    """A mistyped option must not be a test that tests nothing."""
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"freeze": True}, Faults)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"next": {"explode": 1}}, Faults)
