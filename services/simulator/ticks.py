"""A minute bar -> the trades and quotes that could have made it.

The trades of a minute respect its bar exactly: the first is its open, the last its close, the high
and the low are reached and never passed, the sizes add up to the volume asked for, and all lie
within the minute. They depend on (seed, ticker, minute) alone, so any minute can be made at any
time.

Two updates of a ticker lie at least a second apart, also across minutes. Level one is conflated in
cycles shorter than that, so no trade hides another one.
"""

from __future__ import annotations

import math
from random import Random
from typing import NamedTuple

from services.simulator.market import MINUTE_MS, MinuteBar

__all__ = ["SLOTS", "Update", "round_lot", "updates_in_bar"]

SLOTS = 60
_SLOT_MS = MINUTE_MS // SLOTS
_QUOTE_ONLY = 0.3
_SUB_PENNY = 0.02
_QUOTE_MOVES = 0.5
_PRINT_SHARES_MAX = 500


class Update(NamedTuple):
    """One change of level one. `price` None: only the quote changed, and `size` is 0.

    `size` is the growth of the day's volume, `print_size` the shares of the last single trade.
    """

    ts_ms: int
    price: float | None
    size: int
    print_size: int
    bid: float
    ask: float
    bid_size: int
    ask_size: int


def round_lot(price: float) -> int:
    """Return the exchange's round lot in shares; quoted sizes are multiples of it."""
    if price <= 250:
        return 100
    if price <= 1000:
        return 40
    return 10 if price <= 10_000 else 1


def updates_in_bar(
    bar: MinuteBar, volume: int, updates_max: int, seed: str, ticker: str
) -> list[Update]:
    """Cut a bar into at most `updates_max` (1 to 60) updates whose sizes add up to `volume`.

    More are made where the bar needs them to reach open, high, low and close (at most 4).
    """
    rng = Random(f"{seed}/{ticker}/{bar.ts_ms}")
    anchors = _anchors(bar, rng)
    count = min(SLOTS, max(updates_max, len(anchors)))
    trades = max(len(anchors), min(math.ceil(count * (1 - _QUOTE_ONLY)), volume))
    times = _times(bar.ts_ms, count, seed, ticker, rng)
    # A bar lasts from its first trade to its last, yet quotes may follow after it.
    at = {0, *rng.sample(range(1, count), trades - 1)}
    prices = iter(_prices(bar, anchors, trades, rng))
    sizes = iter(_sizes(volume, trades, rng))
    quote = _Quote(bar.open, rng)
    out = []
    for index, ts_ms in enumerate(times):
        price, size = (next(prices), next(sizes)) if index in at else (None, 0)
        quote.move(price)
        shares = min(size, 1 + int(rng.expovariate(0.01)), _PRINT_SHARES_MAX)
        out.append(Update(ts_ms, price, size, shares, *quote.fields()))
    return out


def _anchors(bar: MinuteBar, rng: Random) -> list[float]:
    """Return the prices that must appear, in order: open, the extremes not yet met, close."""
    ends = (bar.open, bar.close)
    extremes = [price for price in (bar.high, bar.low) if price not in ends]
    if len(extremes) == 2 and rng.random() < 0.5:
        extremes.reverse()
    anchors = [bar.open, *extremes, bar.close]
    return anchors[:1] if len(anchors) == 2 and bar.open == bar.close else anchors


def _times(start_ms: int, count: int, seed: str, ticker: str, rng: Random) -> list[int]:
    """Choose `count` instants: a grid of seconds, its phase the ticker's, loosened where it can."""
    phase_ms = 1 + Random(f"{seed}/{ticker}").randrange(_SLOT_MS - 1)
    slots = sorted(rng.sample(range(SLOTS), count))
    times = []
    for slot, following in zip(slots, [*slots[1:], SLOTS], strict=True):
        slack_ms = 0 if following - slot == 1 else _SLOT_MS - 1
        times.append(start_ms + slot * _SLOT_MS + phase_ms + int(rng.random() * slack_ms))
    return times


def _prices(bar: MinuteBar, anchors: list[float], count: int, rng: Random) -> list[float]:
    """Walk from anchor to anchor in `count` trades, never past high and low."""
    inner = sorted(rng.sample(range(1, count - 1), len(anchors) - 2)) if len(anchors) > 2 else []
    places = [0, *inner, count - 1] if len(anchors) > 1 else [0]
    prices = [bar.open] * count
    noise = (bar.high - bar.low) * 0.25
    legs = zip(places, places[1:], anchors, anchors[1:], strict=False)
    for first, last, start, end in legs:
        for step in range(first + 1, last):
            drawn = start + (end - start) * (step - first) / (last - first)
            prices[step] = _printed(drawn + rng.gauss(0, 1) * noise, bar, rng)
        prices[last] = end
    return prices


def _printed(price: float, bar: MinuteBar, rng: Random) -> float:
    decimals = 4 if rng.random() < _SUB_PENNY else 2
    return min(max(round(price, decimals), bar.low), bar.high)


def _sizes(volume: int, count: int, rng: Random) -> list[int]:
    """Cut `volume` into `count` parts, each at least one share when there are enough of them."""
    least = 1 if volume >= count else 0
    free = volume - least * count
    cuts = sorted(rng.randint(0, free) for _ in range(count - 1))
    return [least + high - low for low, high in zip([0, *cuts], [*cuts, free], strict=True)]


class _Quote:
    """The best bid and ask around the last trade, in whole cents."""

    def __init__(self, price: float, rng: Random) -> None:
        self._rng = rng
        self._lot = round_lot(price)
        # About one basis point, at least a cent.
        self._spread_cents_max = max(1, round(price * 0.015))
        self._centre(price)
        self._bid_size = self._size()
        self._ask_size = self._size()

    def move(self, price: float | None) -> None:
        """Follow a trade, or change one side by itself."""
        chance = self._rng.random()
        if price is not None:
            cents = price * 100
            outside = not self._bid <= cents <= self._ask
            if outside or chance < _QUOTE_MOVES:
                self._centre(price)
        if chance < 0.6:
            self._bid_size = self._size()
        if chance > 0.3:
            self._ask_size = self._size()

    def fields(self) -> tuple[float, float, int, int]:
        """Return bid, ask, bid size and ask size."""
        return self._bid / 100, self._ask / 100, self._bid_size, self._ask_size

    def _centre(self, price: float) -> None:
        spread = 1 + int(self._rng.random() * self._spread_cents_max)
        below = math.floor(price * 100 + 1e-6)
        self._bid = max(1, below - int(self._rng.random() * (spread + 1)))
        self._ask = max(self._bid + spread, math.ceil(price * 100 - 1e-6))

    def _size(self) -> int:
        return self._lot * (1 + int(self._rng.expovariate(0.35)))
