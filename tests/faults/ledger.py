"""What the broker really sent, read from the simulator's ledger and turned into ticks here.

The ledger has every data frame that a socket accepted. The rule applied to it is written once more,
in other words than in the service under test: an item is laid over what the symbol had before, and
a change of price, day volume or trade time is a tick at the trade time. A day volume that falls by
itself is the daily reset, which is none.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["Sent", "SentTick", "read_bars", "read_ledger"]


class SentTick(msgspec.Struct, frozen=True):
    """One tick on the wire; an `image` opens a connection and need not be a tick of its own.

    `volume` is what the day's volume has grown by, None if an image says nothing about that. A
    later image may tell the same trade again with another day volume, which is then in `retold`:
    who has missed the first has that one.
    """

    price: float
    total_volume: int
    image: bool
    volume: int | None = None
    retold: tuple[int, ...] = ()

    def tells(self, price: float, total_volume: int) -> bool:
        """Whether the wire has said these of the trade."""
        return price == self.price and total_volume in (self.total_volume, *self.retold)


Sent = dict[str, dict[int, SentTick]]
"""By ticker and time of the trade in epoch ms."""

_PRICE, _VOLUME, _TRADED_MS = "3", "8", "35"
_MINUTE_MS = "7"
_IMAGE_MARK = "cusip"
_WATCHED = (_PRICE, _VOLUME, _TRADED_MS)


def read_bars(path: Path) -> dict[str, set[int]]:
    """Return the minutes of each ticker whose bar went over the wire, by their start."""
    bars: dict[str, set[int]] = {}
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                continue
            for data in msgspec.json.decode(line.partition(b" ")[2]).get("data", ()):
                if data.get("service") == "CHART_EQUITY":
                    for item in data["content"]:
                        bars.setdefault(item["key"], set()).add(int(item[_MINUTE_MS]))
    return bars


def read_ledger(path: Path) -> Sent:
    """Return every tick that went over the wire, images included."""
    sent: Sent = {}
    states: dict[str, dict[str, float]] = {}
    with path.open("rb") as file:
        for line in file:
            body = line.partition(b" ")[2]
            if not line.endswith(b"\n"):
                continue  # torn: its writer was killed, so the socket never had it
            for data in msgspec.json.decode(body).get("data", ()):
                if data.get("service") != "LEVELONE_EQUITIES":
                    continue
                for item in data["content"]:
                    _lay_over(item, states.setdefault(item["key"], {}), sent)
    return sent


def _lay_over(item: dict[str, float], state: dict[str, float], sent: Sent) -> None:
    news = {name: item[name] for name in _WATCHED if name in item}
    if not news:
        return
    before = dict(state)
    state.update(news)
    if len(state) == len(_WATCHED) and not _is_reset(before, state):
        ticks = sent.setdefault(str(item["key"]), {})
        traded_ms, total_volume = int(state[_TRADED_MS]), int(state[_VOLUME])
        in_image = _IMAGE_MARK in item
        known = ticks.get(traded_ms)
        if in_image and known is not None and known.price == state[_PRICE]:
            retold = (*known.retold, total_volume)
            ticks[traded_ms] = msgspec.structs.replace(known, volume=None, retold=retold)
            return
        volume = None
        if not in_image and _VOLUME in before:
            volume = max(int(state[_VOLUME] - before[_VOLUME]), 0)
        image = in_image and (known is None or known.image)
        ticks[traded_ms] = SentTick(state[_PRICE], total_volume, image, volume)


def _is_reset(before: dict[str, float], state: dict[str, float]) -> bool:
    fallen = state[_VOLUME] < before.get(_VOLUME, 0)
    return fallen and all(before.get(name) == state[name] for name in (_PRICE, _TRADED_MS))
