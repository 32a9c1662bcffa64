"""Which symbols the live socket brings, brought to what is wanted, command by command.

A new connection asks for everything; a change of the list while it lives goes out as UNSUBS and
ADD, in parts that one frame may hold, and never leaves the socket without any symbol, because the
broker hangs up on those. A service that takes fewer than all is asked anew for the first so many of
the list, see `subscriptions`. A cap that was learned holds until the first connection of another
day, because the broker may take more by then. Who is left out is said: in the log, as a metric,
beside readiness, and by `left_out`, for which price history stands in.

The core hears about each change before any data of it can come, through the inbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from libs.common import calendar
from libs.common.telemetry import Health
from services.ingest.inbox import Inbox
from services.ingest.metrics import IngestMetrics
from services.ingest.subscriptions import Caps, SubscriptionCut, chunks, subscribe_within
from services.ingest.watchlist import planned
from services.ingest.wire import CHART, LEVEL_ONE

__all__ = ["BarsFlow", "BarsWanted", "Subscriber", "Symbols", "Watched"]

_SERVICES = (LEVEL_ONE, CHART)
_NAMED_MAX = 20


class Watched(Struct, frozen=True):
    """From here on items of these tickers may come, and bars only of those in `bars`."""

    tickers: tuple[str, ...]
    bars: tuple[str, ...]


class BarsWanted(Struct, frozen=True):
    """The bars of these tickers are about to be asked for, or do not come otherwise.

    Without `ask` the minutes that are missing are listed only, and history is asked for later.
    """

    tickers: tuple[str, ...]
    cause: str
    ask: bool = True


class BarsFlow(Struct, frozen=True):
    """From here on the bars of these tickers flow, if not earlier."""

    tickers: tuple[str, ...]
    cause: str


class Symbols(Protocol):
    """What takes subscriptions; may raise SubscriptionCut, and what `Connection` raises."""

    async def subscribe_level_one(self, tickers: Sequence[str], *, first: bool) -> None:
        """Bring quotes of some more tickers."""
        ...

    async def subscribe_bars(self, tickers: Sequence[str], *, first: bool) -> None:
        """Bring minute bars of some more tickers."""
        ...

    async def unsubscribe(self, service: str, tickers: Sequence[str]) -> None:
        """Bring nothing more of some tickers."""
        ...


class Subscriber:
    """Holds what is wanted, in order of priority, and what the connection at hand brings."""

    def __init__(
        self,
        wanted: Sequence[str],
        inbox: Inbox[Any],
        metrics: IngestMetrics,
        health: Health,
        log: Any,
    ) -> None:
        self.wanted = tuple(wanted)
        self._caps = Caps()
        self._caps_day_ms = 0
        self._done: tuple[str, ...] | None = None  # what the connection was brought to
        self._taken: dict[str, list[str]] = {service: [] for service in _SERVICES}
        self._inbox = inbox
        self._metrics = metrics
        self._health = health
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
    def caps(self) -> dict[str, int]:
        """How many symbols a service takes, as far as it has refused any."""
        return self._caps.known

    @property
    def left_out(self) -> tuple[str, ...]:
        """The tickers that are wanted and whose bars the broker does not send."""
        return tuple(ticker for ticker in self._done or () if ticker not in self.bars)

    @property
    def connected(self) -> bool:
        """Whether a connection stands and was asked for everything once."""
        return self._done is not None

    def lost(self) -> None:
        """The connection is gone, and with it everything it brought."""
        self._done = None
        self._taken = {service: [] for service in _SERVICES}
        self._metrics.tickers_streaming.set(0)

    async def begin(self, connection: Symbols, cause: str, broker_ms: int) -> None:
        """Ask a new connection for everything; raises as `Connection` does."""
        self.lost()
        day_ms = calendar.day_start_ms(broker_ms)
        if day_ms != self._caps_day_ms:
            self._caps.forget()
            self._caps_day_ms = day_ms
        await self._bring(connection, cause)

    async def adjust(self, connection: Symbols) -> None:
        """Bring the connection to what is wanted now; raises as `Connection` does."""
        await self._bring(connection, "added")

    async def _bring(self, connection: Symbols, cause: str) -> None:
        wanted = self.wanted
        there = {ticker for taken in self._taken.values() for ticker in taken}
        self._tell((*wanted, *sorted(there - set(wanted))))
        for service in _SERVICES:
            await self._change(connection, service, wanted, cause)
        self._tell(wanted)
        self._done = wanted
        self._say(wanted)

    async def _change(
        self, connection: Symbols, service: str, wanted: tuple[str, ...], cause: str
    ) -> None:
        gone, new = planned(self._taken[service], wanted, self._caps.of(service))
        if len(gone) == len(self._taken[service]):
            await self._anew(connection, service, wanted, cause)
            return
        await self._leave(connection, service, gone)
        for part in chunks(new):
            took = len(self._taken[service])
            try:
                await self._ask(connection, service, part, cause)
            except SubscriptionCut as cut:
                text = str(cut)
                cap = self._caps.learn(service, took + len(part), text, took=took)
                self._tell_cut(cap, text)
                await self._anew(connection, service, wanted, cause)
                return

    async def _leave(self, connection: Symbols, service: str, gone: Sequence[str]) -> None:
        for part in chunks(gone):
            await connection.unsubscribe(service, part)
            left = set(part)
            self._taken[service] = [t for t in self._taken[service] if t not in left]

    async def _anew(
        self, connection: Symbols, service: str, wanted: tuple[str, ...], cause: str
    ) -> None:
        """Replace all symbols of a service by as many of the list as it takes."""

        async def ask(tickers: Sequence[str], *, first: bool) -> None:
            if first:
                self._taken[service] = []
            await self._ask(connection, service, tickers, cause)

        kept = await subscribe_within(service, wanted, self._caps, ask, self._tell_cut)
        self._taken[service] = list(kept)

    async def _ask(
        self, connection: Symbols, service: str, part: Sequence[str], cause: str
    ) -> None:
        """Ask for some more symbols; raises SubscriptionCut, or as `Connection` does."""
        names, first = tuple(part), not self._taken[service]
        if service == CHART:
            self._inbox.put(BarsWanted(names, cause))
            await connection.subscribe_bars(part, first=first)
            self._inbox.put(BarsFlow(names, cause))
        else:
            await connection.subscribe_level_one(part, first=first)
        self._taken[service] += names

    # -- what is told --

    def _tell(self, tickers: tuple[str, ...]) -> None:
        """Tell the core, which takes nothing of other tickers."""
        self._inbox.put(Watched(tickers, tuple(self._taken[CHART])))

    def _tell_cut(self, cap: int, text: str) -> None:
        self._log.warning("schwab.symbols_refused", cap=cap, reason=text)

    def _say(self, wanted: tuple[str, ...]) -> None:
        whole = self.level_one & self.bars
        self._metrics.tickers_wanted.set(len(wanted))
        self._metrics.tickers_streaming.set(sum(ticker in whole for ticker in wanted))
        for service, taken in self._taken.items():
            there = set(taken)
            self._say_left_out(service, [each for each in wanted if each not in there])
        self._log.info("schwab.subscribed", tickers=len(wanted), whole=len(whole))

    def _say_left_out(self, service: str, left_out: Sequence[str]) -> None:
        """Say who gets nothing from a service: in the log, as a metric, and beside readiness."""
        self._metrics.symbols_left_out.labels(service).set(len(left_out))
        if not left_out:
            self._health.unnote(service)
            return
        named = ", ".join(left_out[:_NAMED_MAX]) + (" …" if len(left_out) > _NAMED_MAX else "")
        cap = self._caps.of(service)
        self._health.note(
            service, f"the broker takes {cap} symbols; without, from the end of the list: {named}"
        )
        self._log.error(
            "schwab.symbols_left_out", service_name=service, cap=cap, number=len(left_out),
            tickers=named,
        )  # fmt: skip
