"""LEVELONE_OPTIONS: quotes and Greeks of option contracts, a full image first, then what changed.

A contract is known by its name alone: root, expiry, side and strike. Its price is that of Black and
Scholes over the root's minute bars, with a volatility of its own. While options trade, a move of
the underlying sends price, intrinsic value and Greeks of every contract, about once a second; in a
load symbols take turns instead, so many in each frame. While they do not trade, volatility and
Greeks are -999 and the theoretical value is -1, as the broker has it.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from libs.common import calendar
from services.simulator.feeds import Item, mixed
from services.simulator.level_one import Value, changed
from services.simulator.market import MINUTE_MS, Market, previous_trading_day
from services.simulator.tape import NEVER_MS

__all__ = ["Contract", "OptionsFeed", "parse_contract"]

_CYCLE_MS = 1_000
_ABSENT = -999.0
_NAME = re.compile(r"(?P<root>[A-Z$]{1,6}) *(?P<day>\d{6})(?P<side>[CP])(?P<strike>\d{8})")
_NAME_CHARS = 21
_YEAR_DAYS = 365.0
_RATE = 0.04
_SHARES = 100


@dataclass(frozen=True, slots=True)
class Contract:
    """One option, read from its name."""

    symbol: str
    root: str
    expires: dt.date
    is_call: bool
    strike: float

    @property
    def volatility(self) -> float:
        """Its implied volatility, 12 to 40 percent."""
        return 0.12 + mixed(sum(map(ord, self.symbol)), 11) % 2_800 / 10_000


def parse_contract(symbol: str) -> Contract | None:
    """Read `SPY   261005C00774000`; None when it is no such name."""
    found = _NAME.fullmatch(symbol)
    if found is None or len(symbol) != _NAME_CHARS:
        return None
    try:
        expires = dt.datetime.strptime(found["day"], "%y%m%d").date()  # noqa: DTZ007 - a date alone
    except ValueError:
        return None
    strike = int(found["strike"]) / 1_000
    return Contract(symbol, found["root"], expires, found["side"] == "C", strike)


class OptionsFeed:
    """Implements `Feed`; `load` is a period in virtual ms and how many items each frame has."""

    fields_max = 55

    def __init__(self, market: Market, load: tuple[float, int] | None = None) -> None:
        self._market = market
        self._load = load
        self._contracts: dict[str, Contract | None] = {}
        self._sent: dict[str, dict[int, Value]] = {}
        self._wanted: tuple[int, ...] = ()
        self._done = -1

    @property
    def keys(self) -> Iterable[str]:
        """The subscribed symbols."""
        return self._contracts.keys()

    def subscribe(self, keys: list[str], fields: tuple[int, ...], at_ms: int) -> list[Item]:
        """Add contracts; what is no contract counts, but never says anything."""
        self._wanted = fields
        self._done = max(self._done, math.floor(at_ms / self._period_ms))
        images = []
        for key in keys:
            contract = parse_contract(key)
            known = contract is not None and self._market.knows(contract.root)
            self._contracts[key] = contract if known else None
            if contract is not None and known:
                self._sent[key] = self._values(contract, at_ms)
                extras: Item = {"key": key, "delayed": False, "assetMainType": "OPTION"}
                images.append({**extras, **changed({}, self._sent[key], fields)})
        return images

    def unsubscribe(self, keys: Iterable[str]) -> None:
        """Remove contracts."""
        for key in keys:
            self._contracts.pop(key, None)
            self._sent.pop(key, None)

    def view(self, fields: tuple[int, ...]) -> None:
        """Change the fields."""
        self._wanted = fields

    def due_ms(self, position_ms: int) -> int:
        """Return the instant of the next frame: on the second, while options trade."""
        if not self._sent:
            return NEVER_MS
        next_ms = math.ceil((self._done + 1) * self._period_ms)
        if self._load is not None:
            return next_ms
        next_ms = max(next_ms, position_ms)
        if calendar.is_open(next_ms):
            return next_ms
        session = calendar.session_at(next_ms)
        if session is None or next_ms >= session.close_ms:
            session = calendar.next_session(calendar.day_of(next_ms))
        return session.open_ms

    def emit(self, at_ms: int) -> list[Item]:
        """Return what changed: of all contracts, or of those whose turn it is."""
        self._done = max(self._done + 1, math.floor(at_ms / self._period_ms))
        keys = list(self._sent)
        if self._load is not None:
            count = min(self._load[1], len(keys))
            first = self._done * count
            keys = [keys[(first + turn) % len(keys)] for turn in range(count)]
        return [item for key in keys if len(item := self._delta(key, at_ms)) > 1]

    @property
    def _period_ms(self) -> float:
        return _CYCLE_MS if self._load is None else self._load[0]

    def _delta(self, key: str, at_ms: int) -> Item:
        contract = self._contracts[key]
        assert contract is not None
        before, after = self._sent[key], self._values(contract, at_ms)
        self._sent[key] = after
        return {"key": key, **changed(before, after, self._wanted)}

    def _values(self, contract: Contract, at_ms: int) -> dict[int, Value]:
        """Render all fields of a contract at an instant."""
        spot = self._spot(contract.root, at_ms)
        trades = self._load is not None or calendar.is_open(at_ms)
        days = (contract.expires - calendar.day_of(at_ms)).days
        years = max(days + 0.25, 0.25) / _YEAR_DAYS
        price, greeks = _priced(contract, spot, years)
        sign = 1 if contract.is_call else -1
        intrinsic = max(0.0, sign * (spot - contract.strike))
        mark = max(0.01, round(price, 2))
        noise = mixed(at_ms // _CYCLE_MS, sum(map(ord, contract.symbol)))
        side = "Call" if contract.is_call else "Put"
        expiry = contract.expires
        return {
            0: contract.symbol,
            1: f"{contract.root} {expiry:%m/%d/%Y} {contract.strike:g} {side}",
            2: max(0.0, round(mark - 0.02, 2)), 3: round(mark + 0.02, 2), 4: mark,
            5: round(mark * 1.2, 2), 6: round(mark * 0.8, 2), 7: round(mark * 0.97, 2),
            8: at_ms // 60_000 % 10_000, 9: 100 + mixed(len(contract.symbol), 5) % 9_000,
            10: round(100 * contract.volatility, 8) if trades else _ABSENT,
            11: round(intrinsic, 4), 12: expiry.year, 13: _SHARES, 14: 2, 15: mark,
            16: 1 + noise % 90, 17: 1 + noise // 97 % 90, 18: 1 + noise % 9,
            19: round(mark * 0.03, 4), 20: contract.strike, 21: "C" if contract.is_call else "P",
            22: contract.root, 23: expiry.month, 24: "", 25: round(mark - intrinsic, 4),
            26: expiry.day, 27: days,
            **{28 + number: value if trades else _ABSENT for number, value in enumerate(greeks)},
            33: "Normal" if trades else "Unknown",
            34: round(price, 8) if trades else -1.0, 35: spot, 36: " ", 37: mark,
            38: at_ms if trades else 0, 39: at_ms if trades else 0, 40: "O", 41: "OPR",
            42: calendar.day_bounds_ms(expiry)[0], 43: "P", 48: True, 49: contract.root, 55: "A",
        }  # fmt: skip

    def _spot(self, root: str, at_ms: int) -> float:
        """Return the close of the root's last minute, moved a little within the minute."""
        day = calendar.day_of(at_ms)
        session = calendar.session(day)
        if session is None or at_ms <= session.pre_open_ms:
            day = previous_trading_day(day)
        bars = self._market.bars(root, day)
        index = bisect_right(bars.ts_ms, at_ms - MINUTE_MS) - 1
        base = bars[max(index, 0)].close if len(bars) else 100.0
        cents = mixed(at_ms // _CYCLE_MS, sum(map(ord, root))) % 21 - 10
        return round(base + (cents / 100 if calendar.is_open(at_ms) else 0.0), 4)


def _priced(contract: Contract, spot: float, years: float) -> tuple[float, tuple[float, ...]]:
    """Return price, and delta, gamma, theta, vega, rho with eight decimals."""
    sigma, strike = contract.volatility, contract.strike
    root_years = math.sqrt(years)
    drift = (_RATE + sigma * sigma / 2) * years
    d1 = (math.log(spot / strike) + drift) / (sigma * root_years)
    d2 = d1 - sigma * root_years
    sign = 1.0 if contract.is_call else -1.0
    discounted = strike * math.exp(-_RATE * years)
    price = sign * (spot * _below(sign * d1) - discounted * _below(sign * d2))
    density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    decay = -spot * density * sigma / (2 * root_years)
    theta = (decay - sign * _RATE * discounted * _below(sign * d2)) / _YEAR_DAYS
    greeks = (
        sign * _below(sign * d1),
        density / (spot * sigma * root_years),
        theta,
        spot * density * root_years / 100,
        sign * discounted * years * _below(sign * d2) / 100,
    )
    return price, tuple(round(value, 8) for value in greeks)


def _below(value: float) -> float:
    """The share of a normal distribution below a value."""
    return (1 + math.erf(value / math.sqrt(2))) / 2
