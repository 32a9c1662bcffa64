"""What the broker really sent, read from the simulator's ledger and turned into ticks here.

The ledger has every data frame that a socket accepted. The rule applied to it is written once more,
in other words than in the service under test: an item is laid over what the symbol had before, and
a change of price, day volume or trade time is a tick at the trade time.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["Sent", "SentTick", "read_ledger"]


class SentTick(msgspec.Struct, frozen=True):
    """One tick on the wire; an `image` opens a connection and need not be a tick of its own."""

    price: float
    total_volume: int
    image: bool


Sent = dict[str, dict[int, SentTick]]
"""By ticker and time of the trade in epoch ms."""

_PRICE, _VOLUME, _TRADED_MS = "3", "8", "35"
_IMAGE_MARK = "cusip"
_WATCHED = (_PRICE, _VOLUME, _TRADED_MS)


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
    state.update(news)
    if len(state) == len(_WATCHED):
        ticks = sent.setdefault(str(item["key"]), {})
        traded_ms = int(state[_TRADED_MS])
        image = _IMAGE_MARK in item and (traded_ms not in ticks or ticks[traded_ms].image)
        ticks[traded_ms] = SentTick(state[_PRICE], int(state[_VOLUME]), image)
