"""The broker asked instead of listened to, for accounts that may not stream.

`Polling` stands in for `Session` and puts the same items into the inbox: what REST answers is
written as frames of the streamer, so that everything behind the inbox is the same code. One request
brings the quotes of all tickers every few seconds, one for each ticker its bars after each minute.
Nothing else is lost but what happens between two quotes.

Broker time is the `Date` of the broker's answers (RFC 9110, section 6.6.1), to the second. A
heartbeat is only told when the bars up to that time are in: candles are closed by the clock.

A request for bars that fails is made up for by the next round, which asks from the last bar on; a
failure of the quotes is the end of a connection, and the next success begins a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from libs.common import calendar
from libs.common.events import HistoryBar
from libs.common.runner import Backoff, Runtime
from libs.common.token_file import TokenInvalid
from services.ingest import wire
from services.ingest.budget import live_requests
from services.ingest.core import Core
from services.ingest.inbox import Inbox
from services.ingest.metrics import IngestMetrics
from services.ingest.minutes import MINUTE_MS
from services.ingest.quotes import Quotes
from services.ingest.refusals import BrokerBehind, RequestFailed
from services.ingest.schwab import Account
from services.ingest.session import Connected, Wire
from services.ingest.settings import Settings
from services.ingest.subscriber import Subscriber
from services.ingest.subscriptions import chunks

__all__ = ["Polling", "Rounds", "bars_frame", "quotes_frame"]

SETTLE_MS = 5_000  # after the end of a minute, before its bars are asked for
AGAIN_MS = 4 * MINUTE_MS  # how far back a round looks for bars that came late or changed
_CLOSED_PAUSE_S = 60.0
_TOKEN_PAUSE_S = 10.0
_QUOTE_FIELDS = {
    "1": "bidPrice", "2": "askPrice", "3": "lastPrice",
    "8": "totalVolume", "34": "quoteTime", "35": "tradeTime",
}  # fmt: skip


class _AnyList:
    """Takes every symbol: what stands where a socket would, since each request names its own."""

    async def subscribe_level_one(self, tickers: Sequence[str], *, first: bool) -> None:
        """Nothing has to be said beforehand."""

    async def subscribe_bars(self, tickers: Sequence[str], *, first: bool) -> None:
        """Nothing has to be said beforehand."""

    async def unsubscribe(self, service: str, tickers: Sequence[str]) -> None:
        """Nothing has to be said beforehand."""


class Rounds:
    """When bars are due, from which minute on, and which of an answer are new. Pure."""

    def __init__(self, began_ms: int) -> None:
        self._began_ms = began_ms - began_ms % MINUTE_MS
        self.done_ms = self._began_ms  # the minutes before this were asked for
        self._told: dict[str, dict[int, HistoryBar]] = {}

    def due(self, broker_ms: int) -> int | None:
        """Return the end of the minutes to ask for now, or None when nothing can be new."""
        end_ms = (broker_ms - SETTLE_MS) // MINUTE_MS * MINUTE_MS
        session = calendar.session_at(broker_ms)
        if end_ms <= self.done_ms or session is None:
            return None
        has_begun = end_ms > session.pre_open_ms
        is_over = self.done_ms >= session.post_close_ms
        return end_ms if has_begun and not is_over else None

    def since_ms(self, ticker: str, end_ms: int) -> int:
        """Return the first minute to ask for: some before the last bar, all of today at most."""
        told = self._told.get(ticker)
        from_ms = max(told) - AGAIN_MS if told else self._began_ms
        return max(from_ms, self._began_ms, calendar.day_start_ms(end_ms - 1))

    def news(self, ticker: str, bars: Iterable[HistoryBar]) -> list[HistoryBar]:
        """Return the bars that were not told yet, or told differently; they count as told."""
        told = self._told.setdefault(ticker, {})
        new = [bar for bar in bars if told.get(bar.ts_ms) != bar]
        told.update((bar.ts_ms, bar) for bar in new)
        horizon_ms = max(told, default=0) - AGAIN_MS
        self._told[ticker] = {ts_ms: bar for ts_ms, bar in told.items() if ts_ms >= horizon_ms}
        return new


class Polling:
    """Asks for ever, in the place of a `Session`; `subscriber` has the list of tickers."""

    def __init__(
        self,
        runtime: Runtime[Settings],
        account: Account,
        core: Core,
        inbox: Inbox[Any],
        metrics: IngestMetrics,
        subscriber: Subscriber,
    ) -> None:
        self._settings = runtime.settings
        self._clock = runtime.clock
        self._health = runtime.health
        self._log = runtime.log
        self._account = account
        self._core = core
        self._inbox = inbox
        self._metrics = metrics
        self._subscriber = subscriber
        self._backoff = Backoff(self._settings.ingest_reconnect_first_ms / 1000, _CLOSED_PAUSE_S)
        self._unknown: frozenset[str] = frozenset()

    async def keep_connected(self) -> None:
        """Ask until cancelled; what waiting cannot mend is raised as a KiteError."""
        cause = "restart"
        with live_requests():
            while True:
                cause = await self._poll_once(cause)
                self._subscriber.lost()
                self._metrics.connected.set(0)
                self._metrics.reconnects.labels(cause).inc()
                await asyncio.sleep(self._backoff.next_s())

    def adjust(self) -> None:
        """Something else is wanted now: the next quotes are asked for it."""

    async def follow_hours(self) -> None:
        """Do nothing: the hours of our calendar do, since no silence is taken for a failure."""

    async def _poll_once(self, cause: str) -> str:
        """Live through one connection and return why it ended."""
        try:
            await self._poll(cause)
        except TokenInvalid as error:
            cause = self._failed("token", error)
            await asyncio.sleep(_TOKEN_PAUSE_S)
            return cause
        except BrokerBehind as error:
            cause = self._failed("reconnect", error)
            await asyncio.sleep(_CLOSED_PAUSE_S)
            return cause
        except RequestFailed as error:
            return self._failed("reconnect", error)
        raise AssertionError("polling ends by failing")

    async def _poll(self, cause: str) -> NoReturn:
        """Ask for as long as quotes come."""
        self._health.require("schwab", "asking for quotes")
        quotes = await self._quotes()
        if not self._core.login(quotes.broker_ms):
            raise BrokerBehind(quotes.broker_ms, self._core.broker_ms)
        await self._begin(cause, quotes.broker_ms)
        rounds = Rounds(quotes.broker_ms)
        going_on: asyncio.Task[None] | None = None
        try:
            while True:
                self._put(quotes_frame(quotes.by_ticker, quotes.broker_ms), quotes.size_bytes)
                if going_on is None or going_on.done():
                    end_ms = rounds.due(quotes.broker_ms)
                    if end_ms is None:
                        self._tell_time(rounds, quotes.broker_ms)
                    else:
                        going_on = asyncio.create_task(self._round(rounds, end_ms))
                await self._inbox.room()
                await asyncio.sleep(self._pause_s(quotes.broker_ms))
                if self._subscriber.outdated:
                    await self._subscriber.adjust(_AnyList())
                quotes = await self._quotes()
        finally:
            if going_on is not None:
                going_on.cancel()
                with suppress(asyncio.CancelledError):
                    await going_on

    async def _begin(self, cause: str, broker_ms: int) -> None:
        self._inbox.put(Connected(cause))
        await self._subscriber.begin(_AnyList(), cause, broker_ms)
        self._backoff.reset()
        self._health.met("schwab")
        self._metrics.connected.set(1)
        self._log.info("schwab.polled", tickers=len(self._subscriber.wanted), cause=cause)

    def _pause_s(self, broker_ms: int) -> float:
        """Return how long to wait before the next quotes: longer while nothing trades."""
        session = calendar.session_at(broker_ms)
        pause_s = self._settings.ingest_poll_quotes_ms / 1000
        if session is None or not (
            session.pre_open_ms - MINUTE_MS <= broker_ms < session.post_close_ms + MINUTE_MS
        ):
            return max(pause_s, _CLOSED_PAUSE_S)
        return pause_s

    # -- quotes --

    async def _quotes(self) -> Quotes:
        """Return the quotes of all tickers; of several answers, the newest time."""
        found = Quotes()
        for part in chunks(self._subscriber.wanted):
            found = found.with_more(await self._account.quotes(part))
        if found.unknown - self._unknown:
            names = ", ".join(sorted(found.unknown))
            self._log.error("schwab.symbols_refused", service="quotes", reason=f"unknown: {names}")
        self._unknown = found.unknown
        return found

    # -- bars --

    async def _round(self, rounds: Rounds, end_ms: int) -> None:
        """Ask for the bars of all tickers up to `end_ms`, then say what time it is."""
        turns = asyncio.Semaphore(self._settings.ingest_history_concurrency_max)

        async def one(ticker: str) -> None:
            async with turns:
                await self._bars(rounds, ticker, end_ms)

        await asyncio.gather(*map(one, self._subscriber.wanted))
        rounds.done_ms = end_ms
        self._tell_time(rounds, self._core.broker_ms)

    async def _bars(self, rounds: Rounds, ticker: str, end_ms: int) -> None:
        try:
            bars, bad = await self._account.minutes(ticker, rounds.since_ms(ticker, end_ms), end_ms)
        except (RequestFailed, TokenInvalid) as error:
            self._metrics.history_requests.labels("failed").inc()
            self._log.warning("polling.failed", ticker=ticker, reason=str(error))
            return
        if bad:
            self._metrics.bad_candles.inc(bad)
            self._log.warning("history.bad_candles", ticker=ticker, number=bad)
        new = rounds.news(ticker, bars or ())
        if new:
            # Of the time for which they were asked: what is late is not what was asked for late.
            self._put(bars_frame(ticker, new, end_ms + SETTLE_MS), 0)

    def _tell_time(self, rounds: Rounds, broker_ms: int) -> None:
        """Tell a heartbeat, unless bars from before that time are still to come."""
        if rounds.due(broker_ms) is None:
            self._put({"notify": [{"heartbeat": str(broker_ms)}]}, 0)

    def _put(self, frame: dict[str, Any], size_bytes: int) -> None:
        self._inbox.put(Wire(self._clock.now_ms(), size_bytes, frame), size_bytes)

    # -- failures --

    def _failed(self, cause: str, error: Exception) -> str:
        self._health.require("schwab", f"{cause}: {error}")
        level = self._log.warning if cause == "reconnect" else self._log.error
        level("schwab.disconnected", cause=cause, reason=str(error), kind=type(error).__name__)
        return cause


def quotes_frame(by_ticker: dict[str, dict[str, Any]], broker_ms: int) -> dict[str, Any]:
    """Write quotes as a frame of LEVELONE_EQUITIES; a field that is not there is left out."""
    items = [
        {"key": ticker}
        | {number: quote[name] for number, name in _QUOTE_FIELDS.items() if quote.get(name)}
        | {"8": quote.get("totalVolume", 0)}
        for ticker, quote in by_ticker.items()
    ]
    return _frame(wire.LEVEL_ONE, items, broker_ms)


def bars_frame(ticker: str, bars: Iterable[HistoryBar], broker_ms: int) -> dict[str, Any]:
    """Write minute bars as a frame of CHART_EQUITY; nobody has numbered them."""
    items = [
        {
            "key": ticker, "2": bar.open, "3": bar.high, "4": bar.low, "5": bar.close,
            "6": bar.volume, "7": bar.ts_ms,
        }
        for bar in bars
    ]  # fmt: skip
    return _frame(wire.CHART, items, broker_ms)


def _frame(service: str, items: list[dict[str, Any]], broker_ms: int) -> dict[str, Any]:
    part = {"service": service, "timestamp": broker_ms, "command": "SUBS", "content": items}
    return {"data": [part]}
