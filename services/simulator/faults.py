"""Faults on demand: what can go wrong, and when it does.

`Faults` is the documented set of options; `FaultPlan` holds the current one for the whole simulator
and decides when a kind strikes. All choices follow from the seed and virtual time. What a strike
does to a connection is in `fault_filter`.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["FaultPlan", "Faults", "Kind"]

Kind = Literal[
    "drop",
    "close",
    "stall",
    "swallow_ack",
    "late_ack",
    "fail_command",
    "stop",
    "stray_response",
    "malformed",
    "big_frame",
    "hostile",
    "duplicate_bar",
    "late_bar",
    "missing_bar",
    "volume_reset",
    "lost_frame",
]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=1_000_000)]


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong.

    Kinds strike once per opportunity. `next`: the next so many opportunities are hit, after `skip`
    opportunities that are not. `every_s`: about once in that many virtual seconds. `share`: each
    opportunity with that chance.

    - `drop`: the TCP connection is reset without a word; `close`: it is closed politely.
    - `stall`: nothing is sent for `stall_s` wall seconds, then everything at once, with old stamps.
    - `stop`: code 30, then the socket is closed. `fail_command`: a command is answered with
      `fail_code`.
    - `swallow_ack`: a command is carried out but not answered; `late_ack`: answered `late_ack_s`
      wall seconds later.
    - `stray_response`: an answer that nobody asked for; `malformed`: half a frame; `big_frame`: a
      data frame beyond one MiB; `hostile`: data of wrong types, absurd values and unknown names.
    - `duplicate_bar`: a minute bar comes twice; `late_bar`: after the one that follows it;
      `missing_bar`: never.
    - `volume_reset`: a symbol's day volume starts from 0 again.
    - `lost_frame`: a data frame is not sent. Images are: who never got one knows no state at all,
      and what it makes of the changes is nobody's ledger.

    The others last as long as they are set. `nights_closed`: outside the extended session sockets
    are closed soon after they were opened. `closed_days`, `early_days`: on these dates the market
    stays closed or closes at 13:00, against the calendar; hours, data and history say so.
    `token_delay_s`, `rest_delay_s`: so many wall seconds pass before the token endpoint, or the
    API, answers. `no_pongs`: pings are not answered. `no_heartbeats`.
    `freeze_data`: heartbeats only. `halted`: these symbols stand still and say so. `token_status`
    and `rest_status`: HTTP status of the token endpoint and of API calls (0: as it should be).
    """

    next: dict[Kind, Count] = {}
    skip: dict[Kind, Count] = {}
    every_s: dict[Kind, Annotated[float, Meta(gt=0)]] = {}
    share: dict[Kind, Share] = {}
    stall_s: Seconds = 5.0
    late_ack_s: Seconds = 5.0
    fail_code: Literal[3, 9, 11, 12, 20, 21, 22, 24, 30] = 22
    nights_closed: bool = False
    closed_days: tuple[str, ...] = ()
    early_days: tuple[str, ...] = ()
    token_delay_s: Seconds = 0.0
    rest_delay_s: Seconds = 0.0
    no_pongs: bool = False
    no_heartbeats: bool = False
    freeze_data: bool = False
    halted: tuple[str, ...] = ()
    token_status: Literal[0, 400, 401, 403, 429, 500, 503] = 0
    rest_status: Literal[0, 401, 403, 429, 500, 502, 503] = 0


class FaultPlan:
    """The faults in force, and when they strike; shared by all connections."""

    def __init__(self, faults: Faults, seed: str) -> None:
        self._seed = seed
        self.struck: dict[str, int] = {}
        self._opportunities: dict[Kind, int] = {}
        self.set(faults)

    def set(self, faults: Faults) -> None:
        """Replace all faults."""
        self.current = faults
        self._left = dict(faults.next)
        self._skipped = dict(faults.skip)
        self._windows: dict[Kind, int] = {}

    def strikes(self, kind: Kind, at_ms: int) -> bool:
        """Take one opportunity at a virtual instant; tell whether it is hit."""
        hit = self._left.get(kind, 0) > 0
        if hit and self._skipped.get(kind, 0) > 0:
            self._skipped[kind] -= 1
            return False
        if hit:
            self._left[kind] -= 1
        elif kind in self.current.every_s:
            hit = self._window_strikes(kind, at_ms, self.current.every_s[kind] * 1000)
        elif kind in self.current.share:
            place = self._opportunities[kind] = self._opportunities.get(kind, 0) + 1
            hit = self.number(f"{kind}/share", place, 1_000_000) < 1e6 * self.current.share[kind]
        if hit:
            self.struck[kind] = self.struck.get(kind, 0) + 1
        return hit

    def number(self, salt: str, at_ms: int, below: int) -> int:
        """Return a number from 0 to `below` - 1 that depends on seed, salt and instant."""
        digest = hashlib.blake2b(f"{self._seed}/{salt}/{at_ms}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % below

    def _window_strikes(self, kind: Kind, at_ms: int, window_ms: float) -> bool:
        """Time is cut into windows; each has one instant, and what comes first after it is hit."""
        window = math.floor(at_ms / window_ms)
        offset_ms = self.number(kind, window, 1_000) / 1_000 * window_ms
        passed = window if at_ms >= window * window_ms + offset_ms else window - 1
        last = self._windows.setdefault(kind, passed)
        self._windows[kind] = passed
        return passed > last
