"""Which symbols the live socket brings, brought to what is wanted, command by command.

A new connection asks for everything; a change of the list while it lives goes out as UNSUBS and
ADD, in parts that one frame may hold, and never leaves the socket without any symbol, because the
broker hangs up on those. When the broker refuses some for their number it says how many it takes,
and not which ones it kept: the service is then subscribed anew with the first so many of the list,
so that the order of the list decides, and nothing else. A cap that was learned holds until ingest
is started again.

The core hears about each change before any data of it can come, through the inbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from services.ingest.inbox import Inbox
from services.ingest.metrics import IngestMetrics
from services.ingest.schwab import Connection, SubscriptionCut
from services.ingest.watchlist import cap_of, planned
from services.ingest.wire import CHART, LEVEL_ONE

__all__ = ["REQUEST_KEYS_MAX", "BarsFlow", "BarsWanted", "Subscriber", "Watched", "chunks"]

REQUEST_KEYS_MAX = 500
REQUEST_KEY_BYTES_MAX = 48_000
_SERVICES = (LEVEL_ONE, CHART)
_CUTS_MAX = 5
_NAMED_MAX = 20


class Watched(Struct, frozen=True):
    """From here on items of these tickers may come, and bars only of those in `bars`."""

    tickers: tuple[str, ...]
    bars: tuple[str, ...]


class BarsWanted(Struct, frozen=True):
    """The bars of these tickers are about to be asked for."""

    tickers: tuple[str, ...]
    cause: str


class BarsFlow(Struct, frozen=True):
    """From here on the bars of these tickers flow, if not earlier."""

    tickers: tuple[str, ...]
    cause: str


class Subscriber:
    """Holds what is wanted, in order of priority, and what the connection at hand brings."""

    def __init__(
        self, wanted: Sequence[str], inbox: Inbox[Any], metrics: IngestMetrics, log: Any
    ) -> None:
        self.wanted = tuple(wanted)
        self.caps: dict[str, int] = {}
        self._done: tuple[str, ...] | None = None  # what the connection was brought to
        self._taken: dict[str, list[str]] = {service: [] for service in _SERVICES}
        self._inbox = inbox
        self._metrics = metrics
        self._log = log

    @property
    def outdated(self) -> bool:
        """Whether something else is wanted than the connection was asked for."""
        return self._done is not None and self._done != self.wanted

    @property
    def level_one(self) -> frozenset[str]:
        """The tickers whose quotes come."""
        return frozenset(self._taken[LEVEL_ONE])

    @property
    def bars(self) -> frozenset[str]:
        """The tickers whose bars come."""
        return frozenset(self._taken[CHART])

    @property
    def connected(self) -> bool:
        """Whether a connection stands and was asked for everything once."""
        return self._done is not None

    def lost(self) -> None:
        """The connection is gone, and with it everything it brought."""
        self._done = None
        self._taken = {service: [] for service in _SERVICES}
        self._metrics.tickers_streaming.set(0)

    async def begin(self, connection: Connection, cause: str) -> None:
        """Ask a new connection for everything; raises as `Connection` does."""
        self.lost()
        await self._bring(connection, cause)

    async def adjust(self, connection: Connection) -> None:
        """Bring the connection to what is wanted now; raises as `Connection` does."""
        await self._bring(connection, "added")

    async def _bring(self, connection: Connection, cause: str) -> None:
        wanted = self.wanted
        there = {ticker for taken in self._taken.values() for ticker in taken}
        self._tell((*wanted, *sorted(there - set(wanted))))
        for service in _SERVICES:
            await self._change(connection, service, wanted, cause)
        self._tell(wanted)
        self._done = wanted
        self._say(wanted)

    async def _change(
        self, connection: Connection, service: str, wanted: tuple[str, ...], cause: str
    ) -> None:
        taken = self._taken[service]
        gone, new = planned(taken, wanted, self.caps.get(service))
        if gone and len(gone) == len(taken):
            self._taken[service] = []  # whoever asks anew replaces all of them at once
        else:
            await self._leave(connection, service, gone)
        if not await self._ask(connection, service, new, cause):
            await self._anew(connection, service, wanted, cause)

    async def _leave(self, connection: Connection, service: str, gone: Sequence[str]) -> None:
        for part in chunks(gone):
            await connection.unsubscribe(service, part)
            left = set(part)
            self._taken[service] = [t for t in self._taken[service] if t not in left]

    async def _ask(
        self, connection: Connection, service: str, new: Sequence[str], cause: str
    ) -> bool:
        """Ask for more symbols; False when the broker took a part of them only."""
        for part in chunks(new):
            names = tuple(part)
            if service == CHART:
                self._inbox.put(BarsWanted(names, cause))
            try:
                if service == CHART:
                    await connection.subscribe_bars(part, first=not self._taken[service])
                else:
                    await connection.subscribe_level_one(part, first=not self._taken[service])
            except SubscriptionCut as cut:
                if self._learn(service, str(cut)):
                    return False
            self._taken[service] += names
            if service == CHART:
                self._inbox.put(BarsFlow(names, cause))
        return True

    async def _anew(
        self, connection: Connection, service: str, wanted: tuple[str, ...], cause: str
    ) -> None:
        """Replace a service's symbols by the first of the list; lower caps may turn up yet."""
        for _ in range(_CUTS_MAX):
            self._taken[service] = []
            if await self._ask(connection, service, wanted[: self.caps[service]], cause):
                return
        self._taken[service] = []
        self._log.error("schwab.symbols_refused", service=service, caps=self.caps[service])

    def _learn(self, service: str, text: str) -> bool:
        """Take the cap from the broker's text; False when it names none, or none that helps."""
        cap = cap_of(text, service)
        known = self.caps.get(service)
        self._log.error("schwab.symbols_refused", service=service, reason=text)
        if cap is None or (known is not None and cap >= known):
            return False
        self.caps[service] = cap
        return True

    def _tell(self, tickers: tuple[str, ...]) -> None:
        self._inbox.put(Watched(tickers, tuple(self._taken[CHART])))

    def _say(self, wanted: tuple[str, ...]) -> None:
        whole = self.level_one & self.bars
        dropped = [ticker for ticker in wanted if ticker not in whole]
        self._metrics.tickers_wanted.set(len(wanted))
        self._metrics.tickers_streaming.set(len(wanted) - len(dropped))
        if dropped:
            self._log.error(
                "schwab.tickers_dropped",
                number=len(dropped),
                tickers=dropped[:_NAMED_MAX],
                caps=self.caps,
            )
        self._log.info("schwab.subscribed", tickers=len(wanted), dropped=len(dropped))


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
