"""LEVELONE_EQUITIES: a full image first, then what changed, conflated over a cycle."""

from __future__ import annotations

from collections.abc import Iterable

from libs.common import calendar
from services.simulator.feeds import Item, mixed
from services.simulator.level_one import (
    FIELD_NUMBERS,
    IMAGE_EXTRAS,
    Snapshot,
    Value,
    changed,
    fields,
    statics,
)
from services.simulator.market import Market, session_of
from services.simulator.tape import NEVER_MS, Tape, next_reset_ms

__all__ = ["LevelOneFeed", "flush_after_ms", "level_one_image", "level_one_values"]

_CYCLE_MS = 875
_CYCLE_JITTER_MS = 62
_CLOSED_IMAGE_MS = 183_000


def _cycle_end_ms(number: int) -> int:
    jitter_ms = mixed(number, 1) % (2 * _CYCLE_JITTER_MS + 1) - _CYCLE_JITTER_MS
    return number * _CYCLE_MS + jitter_ms


def flush_after_ms(ts_ms: int) -> int:
    """Return the first end of a conflation cycle (751 to 999 ms long) at or after an instant.

    The volume reset has cycles of its own, so that it never shares a delta with a trade.
    """
    number = ts_ms // _CYCLE_MS
    end_ms = next(end for n in range(number, number + 3) if (end := _cycle_end_ms(n)) >= ts_ms)
    reset_ms = next_reset_ms(ts_ms - 1)
    return min(end_ms, reset_ms - 1 if ts_ms < reset_ms else reset_ms)


class LevelOneFeed:
    """Implements `Feed`; while the market is closed, images come every three minutes, unasked."""

    fields_max = FIELD_NUMBERS[-1]

    def __init__(self, market: Market) -> None:
        self._market = market
        self._tapes: dict[str, Tape | None] = {}
        self._sent: dict[str, dict[int, Value]] = {}
        self._wanted: tuple[int, ...] = ()
        self._image_ms = NEVER_MS

    @property
    def keys(self) -> Iterable[str]:
        """The subscribed symbols."""
        return self._tapes.keys()

    def subscribe(self, keys: list[str], fields: tuple[int, ...], at_ms: int) -> list[Item]:
        """Add symbols; unknown ones count, but never say anything."""
        self._wanted = fields
        for key in keys:
            known = self._market.knows(key)
            self._tapes[key] = Tape(self._market, key, at_ms) if known else None
            if not known:
                continue
            self._sent[key] = {}
        self._image_ms = _closed_image_ms(at_ms)
        return [self._image(key) for key in keys if key in self._sent]

    def unsubscribe(self, keys: Iterable[str]) -> None:
        """Remove symbols."""
        for key in keys:
            self._tapes.pop(key, None)
            self._sent.pop(key, None)

    def view(self, fields: tuple[int, ...]) -> None:
        """Change the fields; values of new ones follow as they change."""
        self._wanted = fields

    def due_ms(self, position_ms: int) -> int:
        """Return the end of the cycle in which the next symbol changes."""
        first_ms = min(
            (tape.next_ms for tape in self._tapes.values() if tape is not None), default=NEVER_MS
        )
        if first_ms == NEVER_MS:
            return NEVER_MS
        if self._image_ms < position_ms:
            self._image_ms = _closed_image_ms(position_ms)
        return min(flush_after_ms(max(first_ms, position_ms)), self._image_ms)

    def emit(self, at_ms: int) -> list[Item]:
        """Return the changes of all symbols, or images when it is time for them."""
        moved = [
            key for key, tape in self._tapes.items() if tape is not None and tape.advance(at_ms)
        ]
        if at_ms == self._image_ms:
            self._image_ms = _closed_image_ms(at_ms + 1)
            return [self._image(key) for key in self._sent]
        return [item for key in moved if len(item := self._delta(key)) > 1]

    def _image(self, key: str) -> Item:
        state = self._now(key)
        self._sent[key] = state
        return level_one_image(key, state, self._wanted)

    def _delta(self, key: str) -> Item:
        state = self._now(key)
        item: Item = {"key": key, **changed(self._sent[key], state, self._wanted)}
        self._sent[key] = state
        return item

    def _now(self, key: str) -> dict[int, Value]:
        tape = self._tapes[key]
        assert tape is not None
        return level_one_values(self._market, key, tape.snapshot)


def _closed_image_ms(from_ms: int) -> int:
    """Return the next instant at which images are sent because the market is closed."""
    candidate_ms = -(-from_ms // _CLOSED_IMAGE_MS) * _CLOSED_IMAGE_MS
    if calendar.segment_at(candidate_ms) is calendar.Segment.CLOSED:
        return candidate_ms
    found = session_of(calendar.day_of(candidate_ms))
    return -(-found.post_close_ms // _CLOSED_IMAGE_MS) * _CLOSED_IMAGE_MS


def level_one_values(market: Market, key: str, state: Snapshot) -> dict[int, Value]:
    """Render all fields of a symbol."""
    return statics(market.description(key), state.close or state.last) | fields(state)


def level_one_image(key: str, values: dict[int, Value], wanted: Iterable[int]) -> Item:
    """Return the item that opens a symbol's stream."""
    extras = {**IMAGE_EXTRAS, "cusip": _cusip(key)}
    return {"key": key, **extras, **changed({}, values, wanted)}


def _cusip(key: str) -> str:
    return f"{mixed(sum(map(ord, key)) * 131 + len(key), 4) % 1_000_000_000:09d}"
