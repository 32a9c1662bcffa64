"""Which tickers one service of the streamer gets: the first of the list, as many as it takes.

A service that gets too many says so (code 19), keeps a part of them, and does not say which. So the
cap is read out of its words, and the list asked for anew from its beginning: who is left out
follows from the order of the list and from nothing else. Where the words name no cap, the list is
halved until it is taken.

One command names at most `REQUEST_KEYS_MAX` tickers and stays far below the 65,535 bytes at which
the broker hangs up; the first command of a service replaces what it had, the others add.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

__all__ = ["Caps", "SubscriptionCut", "chunks", "subscribe_within"]

REQUEST_KEYS_MAX = 500
REQUEST_KEY_BYTES_MAX = 48_000
# "(LEVELONE_OPTIONS=3000, DISCARDED=2181)"
_LIMIT = re.compile(r"\b([A-Z_]{3,40})\s*=\s*(\d{1,9})\b")


class SubscriptionCut(Exception):
    """The broker took only a part of the symbols; the text is its own."""


class Ask(Protocol):
    """One command for some more tickers; raises SubscriptionCut."""

    def __call__(self, tickers: Sequence[str], *, first: bool) -> Awaitable[None]:
        """Ask; `first` replaces what the service had."""
        ...


class Caps:
    """How many symbols each service takes, as far as it has refused any."""

    def __init__(self) -> None:
        self._caps: dict[str, int] = {}

    def of(self, service: str) -> int | None:
        """Return the cap that was learned, if any."""
        return self._caps.get(service)

    def learn(self, service: str, asked: int, text: str) -> int:
        """Learn from the refusal of `asked` symbols; the cap is below that in any case."""
        named = {name: int(number) for name, number in _LIMIT.findall(text)}
        cap = named.get(service, asked)
        if cap >= asked:
            cap = asked - named.get("DISCARDED", asked)
        if not 0 < cap < asked:
            cap = asked // 2
        self._caps[service] = cap
        return cap

    def forget(self) -> None:
        """Forget all caps: what they are is asked anew."""
        self._caps.clear()


async def subscribe_within(
    service: str,
    tickers: Sequence[str],
    caps: Caps,
    ask: Ask,
    on_cut: Callable[[int, str], None] = lambda cap, text: None,
) -> Sequence[str]:
    """Ask for as many of the tickers as the service takes; returns those it has then.

    `on_cut` hears of each refusal: the cap that follows from it, and the broker's words.
    """
    while True:
        wanted = tickers[: caps.of(service)]
        asked = 0
        try:
            for index, part in enumerate(chunks(wanted)):
                asked += len(part)
                await ask(part, first=index == 0)
        except SubscriptionCut as error:
            on_cut(caps.learn(service, asked, str(error)), str(error))
            continue
        return wanted


def chunks(tickers: Sequence[str]) -> list[Sequence[str]]:
    """Cut a list of tickers into parts that one command may name."""
    parts: list[Sequence[str]] = []
    begin = size = 0
    for index, ticker in enumerate(tickers):
        size += len(ticker.encode()) + 1
        if index - begin >= REQUEST_KEYS_MAX or size > REQUEST_KEY_BYTES_MAX:
            parts.append(tickers[begin:index])
            begin, size = index, len(ticker.encode()) + 1
    if begin < len(tickers):
        parts.append(tickers[begin:])
    return parts
