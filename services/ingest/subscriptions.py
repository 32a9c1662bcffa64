"""Which tickers one service of the streamer gets: the first of the list, as many as it takes.

A service that gets too many says so (code 19), keeps a part of them, and does not say which. So the
cap is read out of its words, and the list asked for anew from its beginning: who is left out
follows from the order of the list and from nothing else. Where the words name no cap, as many
are asked for as were taken before the refusal, and else half of them until that is taken.

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

    @property
    def known(self) -> dict[str, int]:
        """What was learned, by service."""
        return dict(self._caps)

    def learn(self, service: str, asked: int, text: str, *, took: int = 0) -> int:
        """Learn from the refusal of `asked` symbols; the cap is below that in any case.

        `took` is how many of them were taken without a word, before the command that was refused.
        """
        named = {name: int(number) for name, number in _LIMIT.findall(text)}
        cap = named.get(service, asked)
        if cap >= asked:
            cap = asked - named.get("DISCARDED", asked)
        if not 0 < cap < asked:
            cap = took if 0 < took < asked else asked // 2
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
    """Ask for as many of the tickers as the service takes, anew; returns those it has then.

    `on_cut` hears of each refusal: the cap that follows from it, and the broker's words.
    """
    while True:
        wanted = tickers[: caps.of(service)]
        took = 0
        for part in chunks(wanted):
            try:
                await ask(part, first=not took)
            except SubscriptionCut as error:
                cap = caps.learn(service, took + len(part), str(error), took=took)
                on_cut(cap, str(error))
                break
            took += len(part)
        else:
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
