"""Level one as a load: so many frames a second, so many items in each, every item a trade.

The shape of a busy account, for measurements. Symbols take turns in the order of subscription; each
item changes trade time, price and volume. Everything follows from virtual time, so that a restart
goes on where the load was. Minute bars and history stay those of the market.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from libs.common import calendar
from services.simulator.feeds import Item, mixed
from services.simulator.level_one import FIELD_NUMBERS, Snapshot, Value, changed, fields
from services.simulator.level_one_feed import level_one_image, level_one_values
from services.simulator.market import Market
from services.simulator.tape import NEVER_MS, Tape

__all__ = ["LoadFeed"]

_SHARES_PER_TURN = 200
_SWING_CENTS = 20


class LoadFeed:
    """Implements `Feed` for LEVELONE_EQUITIES; a frame comes every `period_ms` of virtual time."""

    fields_max = FIELD_NUMBERS[-1]

    def __init__(self, market: Market, period_ms: float, items_per_frame: int) -> None:
        self._market = market
        self._period_ms = period_ms
        self._items_per_frame = items_per_frame
        self._states: dict[str, Snapshot] = {}
        self._middles: dict[str, float] = {}
        self._sent: dict[str, dict[int, Value]] = {}
        self._unknown: dict[str, None] = {}
        self._wanted: tuple[int, ...] = ()
        self._done = -1

    @property
    def keys(self) -> Iterable[str]:
        """The subscribed symbols."""
        return [*self._states, *self._unknown]

    def subscribe(self, keys: list[str], fields: tuple[int, ...], at_ms: int) -> list[Item]:
        """Add symbols; each starts from where the market has it."""
        self._wanted = fields
        self._done = max(self._done, math.floor(at_ms / self._period_ms))
        images = []
        for key in keys:
            if not self._market.knows(key):
                self._unknown[key] = None
                continue
            state = Tape(self._market, key, at_ms).snapshot
            self._states[key], self._middles[key] = state, state.last
            self._trade(key, self._done, at_ms)
            self._sent[key] = level_one_values(self._market, key, state)
            images.append(level_one_image(key, self._sent[key], fields))
        return images

    def unsubscribe(self, keys: Iterable[str]) -> None:
        """Remove symbols."""
        for key in keys:
            self._unknown.pop(key, None)
            self._states.pop(key, None)

    def view(self, fields: tuple[int, ...]) -> None:
        """Change the fields."""
        self._wanted = fields

    def due_ms(self, position_ms: int) -> int:
        """Return the instant of the next frame; frames are never left out."""
        return math.ceil((self._done + 1) * self._period_ms) if self._states else NEVER_MS

    def emit(self, at_ms: int) -> list[Item]:
        """Return the next frame's items: the symbols whose turn it is."""
        self._done += 1
        keys = list(self._states)
        count = min(self._items_per_frame, len(keys))
        first = self._done * count
        return [
            self._tick(keys[(first + turn) % len(keys)], self._done, at_ms) for turn in range(count)
        ]

    def _tick(self, key: str, frame: int, at_ms: int) -> Item:
        self._trade(key, frame, at_ms)
        before = self._sent[key]
        after = before | fields(self._states[key])
        self._sent[key] = after
        return {"key": key, **changed(before, after, self._wanted)}

    def _trade(self, key: str, frame: int, at_ms: int) -> None:
        """Set the state to the trade that a symbol makes in a frame."""
        state = self._states[key]
        noise = mixed(frame, len(key) * 1009 + ord(key[-1]) * 31 + ord(key[0]))
        cents = noise % (2 * _SWING_CENTS + 1) - _SWING_CENTS
        price = max(0.02, round(self._middles[key] + cents / 100, 2))
        # One cent more where the price would repeat: every item shall be a change of price.
        state.last = price if price != state.last else round(price + 0.01, 2)
        state.bid, state.ask = round(state.last - 0.01, 2), round(state.last + 0.01, 2)
        since_midnight = frame - math.floor(calendar.day_start_ms(at_ms) / self._period_ms)
        state.print_size = 1 + noise % (_SHARES_PER_TURN - 1)
        state.volume = since_midnight * _SHARES_PER_TURN + state.print_size
        state.regular_last, state.regular_size = state.last, state.print_size
        for name in ("trade_ms", "regular_trade_ms", "quote_ms", "bid_ms", "ask_ms"):
            setattr(state, name, at_ms)
        state.extend(state.last, state.last, state.last)
