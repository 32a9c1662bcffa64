"""How the frames of one connection suffer from faults.

A `FaultFilter` stands between a session and its socket and turns each frame into what is really
sent; the session itself stays faithful. Damage is added, not done to the data, wherever the
broker's contract would otherwise be broken for good: garbled and hostile frames are extra ones, and
what a freeze or a halt held back is merged into what follows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from services.simulator.faults import FaultPlan
from services.simulator.feeds import Item
from services.simulator.hostile import hostile_frames
from services.simulator.hours import is_shut
from services.simulator.streamer import Close, Code, Output, Send, data_frame, stop_notice

__all__ = ["Drop", "FaultFilter", "Hold", "Later"]

_BIG_FRAME_BYTES = (1 << 20) + 4_096
_HELD_BARS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Drop:
    """Reset the TCP connection."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Send nothing for `wall_s` seconds."""

    wall_s: float


@dataclass(frozen=True, slots=True)
class Later:
    """Send a frame `wall_s` seconds from now, whatever is sent before."""

    frame: Send
    wall_s: float


class FaultFilter:
    """Turns the frames of one session into what its socket gets."""

    def __init__(self, plan: FaultPlan, close_code: int = 1000) -> None:
        self._plan = plan
        self._close_code = close_code
        self._halted: set[str] = set()
        self._held: dict[str, dict[str, Item]] = {}
        self._held_bars: list[Item] = []
        self._late_bars: list[Item] = []
        self._volumes: dict[str, int] = {}
        self._offsets: dict[str, int] = {}

    def apply(self, output: Output, at_ms: int) -> Iterator[Output | Drop | Hold | Later]:
        """Yield what takes the place of one output made at a virtual instant."""
        if not isinstance(output, Send):
            # 1006 stands for no close frame at all; it cannot be sent.
            yield Drop() if output == Close(1006) else output
            return
        strikes = self._plan.strikes
        if strikes("stall", at_ms):
            yield Hold(self._plan.current.stall_s)
        if strikes("drop", at_ms):
            yield Drop()
            return
        if strikes("close", at_ms):
            yield Close(1000)
            return
        if strikes("stop", at_ms):
            yield stop_notice(Code.STOP_STREAMING, "Stop streaming due to slowness", at_ms)
            yield from self.apply(Close(self._close_code), at_ms)
            return
        if output.kind == "reply":
            yield from self._reply(output, at_ms)
        elif output.kind == "data":
            yield from self._data(output, at_ms)
        elif output.kind == "heartbeat" and self._shut(at_ms):
            yield Close(1000)
        elif not (output.kind == "heartbeat" and self._plan.current.no_heartbeats):
            yield output
            yield from self._released(at_ms)

    def _shut(self, at_ms: int) -> bool:
        current = self._plan.current
        return current.nights_closed and is_shut(at_ms, current)

    def _reply(self, frame: Send, at_ms: int) -> Iterator[Output | Later]:
        if self._plan.strikes("stray_response", at_ms):
            yield Send(_STRAY, "reply")
        if self._plan.strikes("swallow_ack", at_ms):
            return
        if self._plan.strikes("fail_command", at_ms):
            frame = _failed(frame, self._plan.current.fail_code)
        if self._plan.strikes("late_ack", at_ms):
            yield Later(frame, self._plan.current.late_ack_s)
        else:
            yield frame

    def _is_withheld(self, frame: Send, at_ms: int) -> bool:
        """Whether a frame is lost, or of a market that is not the one the calendar has."""
        if frame.image:
            return False
        current = self._plan.current
        if (current.closed_days or current.early_days) and is_shut(at_ms, current):
            return True
        return self._plan.strikes("lost_frame", at_ms)

    def _data(self, frame: Send, at_ms: int) -> Iterator[Output]:
        strikes = self._plan.strikes
        if self._is_withheld(frame, at_ms):
            return
        if strikes("malformed", at_ms):
            yield Send(frame.text[: len(frame.text) // 2], "garbage")
        if strikes("hostile", at_ms):
            key = str(frame.items[0]["key"])
            texts = hostile_frames(frame.service, key, at_ms)
            yield Send(texts[self._plan.number("hostile", at_ms, len(texts))], "garbage")
        if strikes("stray_response", at_ms):
            yield Send(_STRAY, "reply")
        yield from self._released(at_ms)
        items = list(frame.items)
        if frame.service == "CHART_EQUITY" and not frame.image:
            items = self._bars(items, at_ms)
        elif frame.service == "LEVELONE_EQUITIES":
            items = [self._level_one(item, at_ms, frame.image) for item in items]
        items = self._kept(frame.service, [item for item in items if len(item) > 1], frame.image)
        if not items:
            return
        if items != list(frame.items):
            frame = data_frame(frame.service, items, at_ms, image=frame.image)
        if strikes("big_frame", at_ms):
            padded = [{**items[0], "padding": "x" * _BIG_FRAME_BYTES}, *items[1:]]
            text = data_frame(frame.service, padded, at_ms).text
            frame = Send(text, "data", frame.service, tuple(items), frame.image)
        yield frame

    # -- bars -------------------------------------------------------------------------------------

    def _bars(self, items: list[Item], at_ms: int) -> list[Item]:
        late, self._late_bars = self._late_bars, []
        out: list[Item] = []
        for item in items:
            if self._plan.strikes("missing_bar", at_ms):
                continue
            if self._plan.strikes("late_bar", at_ms):
                self._late_bars.append(item)
                continue
            out.append(item)
            if self._plan.strikes("duplicate_bar", at_ms):
                out.append(item)
        return [*out, *late]

    # -- level one --------------------------------------------------------------------------------

    def _level_one(self, item: Item, at_ms: int, image: bool) -> Item:
        key, volume = str(item["key"]), item.get("8")
        if not isinstance(volume, int):
            return item
        if volume < self._volumes.get(key, 0) or image:
            self._offsets.pop(key, None)
        before = self._volumes.get(key, volume)
        self._volumes[key] = volume
        if not image and self._plan.strikes("volume_reset", at_ms):
            self._offsets[key] = before
        return {**item, "8": volume - self._offsets[key]} if key in self._offsets else item

    # -- what is held back ------------------------------------------------------------------------

    def _kept(self, service: str, items: list[Item], image: bool) -> list[Item]:
        """Return what may pass now; remember the rest."""
        current = self._plan.current
        halted = set(current.halted)
        out = []
        for item in items:
            key = str(item["key"])
            if image and not current.freeze_data:
                self._held.get(service, {}).pop(key, None)
                out.append({**item, "32": "Halted"} if key in halted and "32" in item else item)
            elif current.freeze_data or key in halted:
                self._hold(service, key, item)
            else:
                out.append(item)
        if service == "LEVELONE_EQUITIES" and not current.freeze_data:
            # What was held back is older than what comes now.
            return [*self._news_of_halts(halted), *out]
        return out

    def _news_of_halts(self, halted: set[str]) -> list[Item]:
        """Return status items for symbols of this connection that were halted or set free."""
        news: list[Item] = []
        for key in halted - self._halted:
            if key in self._volumes:
                self._halted.add(key)
                news.append({"key": key, "32": "Halted"})
        for key in self._halted - halted:
            self._halted.discard(key)
            held = self._held.get("LEVELONE_EQUITIES", {}).pop(key, {"key": key})
            news.append({**held, "32": "Normal"})
        return news

    def _hold(self, service: str, key: str, item: Item) -> None:
        if service == "CHART_EQUITY":
            if len(self._held_bars) < _HELD_BARS_MAX:
                self._held_bars.append(item)
        else:
            held = self._held.setdefault(service, {})
            held[key] = {**held.get(key, {}), **item}

    def _released(self, at_ms: int) -> Iterator[Send]:
        """Yield what was held and may go now."""
        current = self._plan.current
        if current.freeze_data or not (self._held or self._held_bars):
            return
        halted = set(current.halted)
        for service, held in self._held.items():
            free = [held.pop(key) for key in list(held) if key not in halted | self._halted]
            if free:
                yield data_frame(service, free, at_ms)
        bars = [item for item in self._held_bars if item["key"] not in halted]
        self._held_bars = [item for item in self._held_bars if item["key"] in halted]
        if bars:
            yield data_frame("CHART_EQUITY", bars, at_ms)


def _failed(frame: Send, code: int) -> Send:
    """Return an answer as a refusal with that code."""
    message = msgspec.json.decode(frame.text)
    for response in message["response"]:
        response["content"] = {"code": code, "msg": f"{response['command']} command failed"}
    return Send(msgspec.json.encode(message), "reply")


def _stray() -> bytes:
    content: dict[str, Any] = {"code": 0, "msg": "SUBS command succeeded"}
    response = {
        "service": "LEVELONE_EQUITIES",
        "command": "SUBS",
        "requestid": "987654",
        "SchwabClientCorrelId": "",
        "timestamp": 0,
        "content": content,
    }
    return msgspec.json.encode({"response": [response]})


_STRAY = _stray()
