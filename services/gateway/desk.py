"""Answers out of rows and the live feed: what handlers say, without HTTP.

Rows give a moment of the past, exactly; the hub knows the present: broker time, last prices, ticks
whose price another lane of the writer has not stored yet. Where both are needed they meet here.

`today` is the broker's, so a replay of an old day has its day; without any frame it is the last
broker time that the writer noted, and in an empty store the machine's day.
"""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Any, Protocol

from msgspec.structs import replace

from libs.common import calendar, subjects
from libs.common.bus import Stored
from libs.common.clock import Clock
from libs.common.errors import BusError, StoreUnavailable
from libs.common.events import TIMEFRAME_MS, Correction
from libs.common.market_clock import MarketClock
from services.gateway import answers
from services.gateway.days import (
    day_answer,
    phase_at,
    require_known,
    require_range,
    series_session,
)
from services.gateway.kept import Kept
from services.gateway.latest import Latest
from services.gateway.messages import Quote
from services.gateway.ring import Ring
from services.gateway.settings import Settings
from services.gateway.store import TICKERS_MAX, LastPrice, Position, Store, TickColumns

__all__ = ["Desk", "Ends", "Market"]

READS_MAX = 5
READ_AGAIN_S = 0.1
SPARKLINE_MAX = 60
_TICKERS_KEPT_MS, _NAMES_KEPT_MS, _DAYS_KEPT_MS, _HEALTH_KEPT_MS = 1_000, 10_000, 30_000, 1_000
_VERSION_KEPT_MS = 10_000
_LOOK_BACK = timedelta(days=40)
_CLOSES_OF_DAYS_MAX = 5
_BROKER_KEPT_MS = 5_000
# Frames that rows may be behind their stream in the ordinary course of things.
_LAG_MAX = 2_000
_CHECK_TIMEOUT_S = 3.0


class Market(Protocol):
    """What the live feed knows."""

    @property
    def clock(self) -> MarketClock:
        """The broker's time."""
        ...

    def ring(self, stream: str, partition: int) -> Ring:
        """Return the newest events of a lane."""
        ...

    def last(self, ticker: str) -> Quote | None:
        """Return what is known of a ticker now."""
        ...

    @property
    def latest(self) -> Latest:
        """The newest of everything, also how the services stand."""
        ...


class Ends(Protocol):
    """What is asked of the bus."""

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message of a subject; raises BusUnavailable."""
        ...


class Desk:
    """Answers every question of the REST interface; raises StoreUnavailable and Refused."""

    def __init__(
        self, settings: Settings, store: Store, market: Market, bus: Ends, clock: Clock
    ) -> None:
        self._settings = settings
        self._store = store
        self._market = market
        self._bus = bus
        self._clock = clock
        self._tickers = Kept(self._make_tickers, clock, _TICKERS_KEPT_MS)
        self._names = Kept(self._make_names, clock, _NAMES_KEPT_MS)
        self._health = Kept(self._make_health, clock, _HEALTH_KEPT_MS)
        self._noted_ms = Kept(store.broker_ms, clock, _BROKER_KEPT_MS)
        self._version = Kept(store.version, clock, _VERSION_KEPT_MS)
        self._days: dict[tuple[date, date], tuple[int, set[date]]] = {}

    # -- time -------------------------------------------------------------------------------------

    async def today(self) -> date:
        """Return the trading day or calendar day that it is in New York for the broker."""
        broker_ms = self._market.clock.now_ms(self._clock.now_ms())
        if broker_ms is None:
            try:
                broker_ms = await self._noted_ms.get()
            except StoreUnavailable:
                broker_ms = None
        return calendar.day_of(broker_ms or self._clock.now_ms())

    def clock(self) -> answers.Clock:
        """Return the broker's time and what comes next."""
        wall_ms = self._clock.now_ms()
        broker_ms = self._market.clock.now_ms(wall_ms)
        source = self._settings.source
        day, phase, following = None, None, None
        if broker_ms is not None:
            day = calendar.day_of(broker_ms).isoformat()
            phase, following = phase_at(broker_ms)
        return answers.Clock(
            broker_ms, wall_ms, self._market.clock.speed, source, source != "schwab", day, phase,
            following,
        )  # fmt: skip

    # -- a day of one ticker ----------------------------------------------------------------------

    async def series(
        self, ticker: str, day: date, timeframe: answers.SeriesTimeframe
    ) -> answers.Series:
        """Return a day's columns, and where live messages go on."""
        partition = self._partition(ticker)
        if timeframe == "tick":
            ticks = await self._priced(ticker, partition, day)
            position, columns = ticks.position, _tick_columns(ticks)
        else:
            candles = await self._store.candles(ticker, partition, timeframe, day)
            position = candles.position
            columns = {
                name: getattr(candles, name)
                for name in candles.__struct_fields__
                if name != "position"
            }
        position = self._known(position, subjects.INDICATORS, partition)
        known = None not in columns.get("price", ()) and None not in columns["volume"]
        complete = (
            bool(columns["ts_ms"]) and known and await self._is_settled(ticker, day, position)
        )
        return answers.Series(
            ticker=ticker, date=day.isoformat(), timeframe=timeframe,
            epoch_ms=position.epoch_ms, last_seq=position.seq, complete=complete,
            session=series_session(day), **columns,
        )  # fmt: skip

    async def _priced(self, ticker: str, partition: int, day: date) -> TickColumns:
        """Read ticks until each has a price, from the rows or from the feed."""
        for _ in range(READS_MAX - 1):
            ticks = await self._store.ticks(ticker, partition, day)
            if self._fill(ticks, ticker, partition):
                return ticks
            await asyncio.sleep(READ_AGAIN_S)
        ticks = await self._store.ticks(ticker, partition, day)
        self._fill(ticks, ticker, partition)
        return ticks

    def _fill(self, ticks: TickColumns, ticker: str, partition: int) -> bool:
        missing = [index for index, price in enumerate(ticks.price) if price is None]
        if not missing:
            return True
        ring = self._market.ring(subjects.INDICATORS, partition)
        known: dict[int, float] = {}
        for entry in ring.since(("ticks", ticker), 0):
            event: Any = entry.event
            known[event.ts_ms] = event.price
        for index in missing:
            ticks.price[index] = known.get(ticks.ts_ms[index])
        return all(ticks.price[index] is not None for index in missing)

    def _partition(self, ticker: str) -> int:
        return subjects.partition_of(ticker, self._settings.partitions)

    def _known(self, position: Position, stream: str, partition: int) -> Position:
        """Return the position, or the begin of the stream while no row was ever written."""
        if position.epoch_ms:
            return position
        return Position(self._market.ring(stream, partition).epoch_ms, 0)

    async def _is_settled(self, ticker: str, day: date, position: Position) -> bool:
        """Tell whether a day is over and all of it is in the rows, as far as anybody can know.

        The clock on the wall says nothing about that: indicators may have stopped before the end.
        So the frame up to which the rows go has to be of a later day.
        """
        ring = self._market.ring(subjects.INDICATORS, self._partition(ticker))
        if ring.epoch_ms != position.epoch_ms or not ring.reaches(position.seq):
            return False
        begin_ms, end_ms = calendar.day_bounds_ms(day)
        if ring.sent_ms(position.seq) < end_ms:
            return False
        topics = [("ticks", ticker), *(("candles", ticker, frame) for frame in TIMEFRAME_MS)]
        for topic in topics:
            for entry in ring.since(topic, position.seq):
                event: Any = entry.event
                ts_ms = event.day_ms if type(event) is Correction else event.ts_ms
                if begin_ms <= ts_ms < end_ms:
                    return False
        return all(gap.state != "open" for gap in await self._store.gaps(day, ticker))

    # -- signals and gaps -------------------------------------------------------------------------

    async def signals(
        self, day: date, ticker: str | None, timeframe: str | None
    ) -> answers.Signals:
        """Return a day's signals, and where live messages of each partition go on."""
        found, signals = await self._store.signals(day, ticker, timeframe)
        partitions = range(self._settings.partitions)
        if ticker is not None:
            partitions = range(self._partition(ticker), self._partition(ticker) + 1)
        known = {
            number: self._known(found.get(number, Position()), subjects.SIGNALS, number)
            for number in partitions
        }
        # All partitions are in one stream; a position of an older incarnation counts for nothing.
        epoch_ms = max((position.epoch_ms for position in known.values()), default=0)
        last_seq = {
            str(number): position.seq if position.epoch_ms == epoch_ms else 0
            for number, position in known.items()
        }
        return answers.Signals(epoch_ms, last_seq, signals)

    async def gaps(self, day: date, ticker: str | None) -> answers.Gaps:
        """Return the gaps that touch a day."""
        return answers.Gaps(await self._store.gaps(day, ticker))

    # -- the watchlist ----------------------------------------------------------------------------

    async def tickers(self) -> answers.Tickers:
        """Return every ticker with its last price and its day."""
        return await self._tickers.get()

    async def _make_names(self) -> list[str]:
        today = await self.today()
        return await self._store.tickers(max(today - _LOOK_BACK, calendar.FIRST_DAY), today)

    async def _make_tickers(self) -> answers.Tickers:
        # The feed knows a new ticker before the rows do.
        heard = self._market.latest.quotes_since(0)
        names = sorted({*await self._names.get(), *heard})[:TICKERS_MAX]
        today = await self.today()
        first = max(today - _LOOK_BACK, calendar.FIRST_DAY)
        rows = {row.ticker: row for row in await self._store.last_prices(names, first, today)}
        lasts = {name: self._newest(name, rows.get(name)) for name in names}
        closes = await self._closes({name: last for name, last in lasts.items() if last})
        return answers.Tickers([_ticker(name, lasts[name], closes.get(name)) for name in names])

    def _newest(self, ticker: str, row: LastPrice | None) -> LastPrice | None:
        quote = self._market.last(ticker)
        if quote is None or quote.last is None or quote.ts_ms is None:
            return row
        if row is not None and row.ts_ms > quote.ts_ms:
            return row
        return LastPrice(ticker, quote.ts_ms, quote.last)

    async def _closes(
        self, lasts: dict[str, LastPrice]
    ) -> dict[str, tuple[float | None, list[float]]]:
        """Read each ticker's closes of the day of its last price, for the newest few days."""
        by_day: dict[date, list[str]] = {}
        for name, last in lasts.items():
            by_day.setdefault(calendar.day_of(last.ts_ms), []).append(name)
        found: dict[str, tuple[float | None, list[float]]] = {}
        for day in sorted(by_day, reverse=True)[:_CLOSES_OF_DAYS_MAX]:
            found |= await self._store.closes(by_day[day], day)
        return found

    async def version(self) -> str:
        """Return a text that is another one after anything stored before has changed."""
        return await self._version.get()

    # -- the calendar -----------------------------------------------------------------------------

    async def sessions(self, first: date | None, last: date | None) -> answers.Sessions:
        """Return the weekdays between two days; by default around today."""
        today = await self.today()
        for name, day in (("from", first), ("to", last)):
            if day is not None:
                require_known(name, day)
        first = first or max(today - timedelta(days=400), calendar.FIRST_DAY)
        last = last or min(max(first, today) + timedelta(days=30), calendar.LAST_DAY)
        require_range(first, last)
        count = (last - first).days + 1
        days = [day for n in range(count) if (day := first + timedelta(days=n)).weekday() < 5]
        version = await self.version()
        with_data = await self._with_data(days)
        found = [day_answer(day, day in with_data) for day in days]
        return answers.Sessions(today.isoformat(), version, found)

    async def _with_data(self, days: list[date]) -> set[date]:
        if not days:
            return set()
        key = (days[0], days[-1])
        now_ms = self._clock.now_ms()
        kept = self._days.get(key)
        if kept is None or not 0 <= now_ms - kept[0] < _DAYS_KEPT_MS:
            kept = (now_ms, await self._store.days_with_data(days))
            if len(self._days) >= 16:
                self._days.clear()
            self._days[key] = kept
        return kept[1]

    # -- health -----------------------------------------------------------------------------------

    async def health(self) -> answers.Health:
        """Return whether the stack does its job, and how far each part is."""
        return await self._health.get()

    async def _make_health(self) -> answers.Health:
        positions: dict[tuple[str, int], Position] = {}
        services: list[answers.Service] = []
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                positions = await self._store.positions()
                services = await self._store.services()
            database = answers.Check("database", ok=True, detail="answers")
        except (StoreUnavailable, TimeoutError) as error:
            database = answers.Check("database", ok=False, detail=str(error) or "no answer")
        ends, bus = await self._ends()
        lanes = _lanes(self._settings.partitions, positions, ends)
        services += self._heard({service.service for service in services})
        services = [self._completed(service, lanes) for service in services]
        checks = [database, bus]
        if database.ok:
            checks.append(_writer_check(services))
        if database.ok and bus.ok:
            checks.append(_rows_check(lanes))
        status: answers.Status = "ok" if all(check.ok for check in checks) else "degraded"
        if not (database.ok and bus.ok):
            status = "down"
        return answers.Health(status, checks, services, lanes)

    def _heard(self, known: set[str]) -> list[answers.Service]:
        """Return the instances that say on the bus that they are ready, and write no report."""
        now_ms = self._clock.now_ms()
        return [
            answers.Service(
                name, str(instance["instance"]), "ready", now_ms, None, None, None, None, None
            )
            for name, instances in (self._market.latest.status_since(0) or {}).items()
            for instance in instances
            if name not in known
        ]

    def _completed(self, service: answers.Service, lanes: list[answers.Lane]) -> answers.Service:
        """Add what the service does not say of itself."""
        restarts = self._market.latest.restarts(service.service)
        lag = None
        if service.service == "writer":
            lag = max((lane.lag for lane in lanes if lane.lag is not None), default=None)
        return replace(service, lag=lag, restarts=restarts)

    async def _ends(self) -> tuple[dict[tuple[str, int], int], answers.Check]:
        """Read where each lane ends now."""
        keys = [
            (stream, partition)
            for stream in subjects.DURABLE_STREAMS
            for partition in range(self._settings.partitions)
        ]

        async def end(key: tuple[str, int]) -> int:
            found = await self._bus.last(key[0], subjects.frame_subject(*key))
            return found.seq if found else 0

        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                ends = await asyncio.gather(*(end(key) for key in keys))
        except (BusError, TimeoutError) as error:
            return {}, answers.Check("bus", ok=False, detail=str(error) or "no answer")
        return dict(zip(keys, ends, strict=True)), answers.Check("bus", ok=True, detail="answers")


# -- pure parts -----------------------------------------------------------------------------------


def _tick_columns(ticks: TickColumns) -> dict[str, Any]:
    return {
        "ts_ms": ticks.ts_ms, "price": ticks.price, "volume": ticks.volume, "sma9": ticks.sma9,
        "vwap": ticks.vwap,
    }  # fmt: skip


def _ticker(
    name: str, last: LastPrice | None, closes: tuple[float | None, list[float]] | None
) -> answers.Ticker:
    if last is None:
        return answers.Ticker(name, None, None, None, None, None, None, [])
    previous, day_closes = closes or (None, [])
    change = percent = None
    if previous:
        change = round(last.price - previous, 4)
        percent = round(100 * (last.price - previous) / previous, 4)
    sparkline = [*day_closes[-SPARKLINE_MAX + 1 :], last.price]
    day = calendar.day_of(last.ts_ms).isoformat()
    return answers.Ticker(name, last.price, last.ts_ms, change, percent, previous, day, sparkline)


def _lanes(
    partitions: int, positions: dict[tuple[str, int], Position], ends: dict[tuple[str, int], int]
) -> list[answers.Lane]:
    lanes = []
    for stream in subjects.DURABLE_STREAMS:
        for partition in range(partitions):
            key = (stream, partition)
            seq = positions[key].seq if key in positions else None
            end_seq = ends.get(key)
            lag = max(0, end_seq - (seq or 0)) if end_seq is not None and positions else None
            lanes.append(answers.Lane(stream, partition, seq, end_seq, lag))
    return lanes


def _writer_check(services: list[answers.Service]) -> answers.Check:
    running = [service for service in services if service.service == "writer"]
    detail = f"{len(running)} in the last two minutes" if running else "silent for two minutes"
    return answers.Check("writer", ok=bool(running), detail=detail)


def _rows_check(lanes: list[answers.Lane]) -> answers.Check:
    worst = max((lane.lag or 0 for lane in lanes), default=0)
    return answers.Check("rows", ok=worst <= _LAG_MAX, detail=f"{worst} frames behind the streams")
