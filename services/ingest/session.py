"""The socket kept alive: connect, subscribe, read; and again, with patience.

`keep_connected` runs until cancelled and ends by itself only for errors of the operator's. All it
does with what it reads is to put it into the inbox, in the order of arrival, together with marks
where a connection began and where bars of some tickers began to flow. How long it waits between two
connections is in `patience`, what a connection is asked for in `subscriber`.

At night and at weekends a connection is kept as long as the broker keeps it. Once it is gone nobody
hurries: that is idle, which is neither a failure nor a reason not to be ready. `follow_hours` asks
the broker for the hours of each day, because the calendar does not know everything.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import date, datetime
from typing import Any

from msgspec import Struct

from libs.common import calendar
from libs.common.calendar import NEW_YORK
from libs.common.calendar import Session as MarketSession
from libs.common.clock import Clock
from libs.common.errors import CalendarError, KiteError
from libs.common.market_clock import MarketClock
from libs.common.runner import Runtime
from libs.common.token_file import TokenInvalid
from services.ingest.core import Core
from services.ingest.hours import Hours
from services.ingest.inbox import Inbox
from services.ingest.metrics import IngestMetrics
from services.ingest.patience import Cause, Patience, Pause
from services.ingest.refusals import BrokerBehind, CommandRefused, Denied, RequestFailed
from services.ingest.schwab import EVICTED, Account, Connection
from services.ingest.settings import Settings
from services.ingest.subscriber import BarsFlow, BarsWanted, Subscriber, Watched
from services.ingest.wire import Reject

__all__ = ["Connected", "HoursTold", "Item", "Session", "Wire"]

_FROZEN_FRAMES_MIN = 100
_FROZEN_MEANS = 50
_HOURS_POLL_S = 0.25
_HOURS_AGAIN_MS = 3_600_000  # an early close may be announced at any hour
_HOURS_RETRY_S = 60.0
_HOURS_APART_S_MIN = 1.0
_LEFT_OUT_EVERY_MS = 900_000  # how often history stands in for bars that the broker does not send
_LISTED_EVERY_MS = 120_000  # and how often these are listed as gaps
# Nobody at fault: the broker or the line ended it, as they do at night.
_PLAIN_CAUSES = frozenset({"silence", "stopped", "reconnect"})


class Wire(Struct, frozen=True):
    """One frame as it came, or why it could not be read; `received_ms` is wall time."""

    received_ms: int
    size_bytes: int
    message: dict[str, Any] | Reject


class Connected(Struct, frozen=True):
    """A new connection begins here; `cause` says why the one before ended."""

    cause: str


class HoursTold(Struct, frozen=True):
    """What the broker says of a day's session; None: the market stays closed."""

    day: date
    session: MarketSession | None


Item = Wire | Connected | HoursTold | Watched | BarsWanted | BarsFlow


class _Silence(Exception):
    """The socket stands, but what should come over it does not."""


class _Ended(Exception):
    """The broker has said that it ends the connection."""


class Session:
    """The one login and socket of this process.

    `market` tells broker time between frames.
    """

    def __init__(
        self,
        runtime: Runtime[Settings],
        account: Account,
        core: Core,
        inbox: Inbox[Any],
        metrics: IngestMetrics,
        market: MarketClock,
        subscriber: Subscriber,
    ) -> None:
        settings = self._settings = runtime.settings
        self._clock: Clock = runtime.clock
        self._health = runtime.health
        self._log = runtime.log
        self._account = account
        self._core = core
        self._inbox = inbox
        self._metrics = metrics
        self._market = market
        self._hours = Hours()
        self._subscriber = subscriber
        self._reading: asyncio.Timeout | None = None
        self._nudged = False
        self._left_out: tuple[str, ...] = ()  # tickers for which history stands in
        self._left_out_ms = 0  # when it was asked for last
        self._listed_ms = 0  # when their gaps were listed last
        self._patience = Patience(
            self._hours,
            first_s=settings.ingest_reconnect_first_ms / 1000,
            evicted_s=settings.ingest_evicted_pause_ms / 1000,
            idle_s=settings.ingest_idle_retry_ms / 1000,
        )
        self._watch = _DataWatch(settings.ingest_frozen_ms / 1000)
        metrics.closed_unexpectedly.set_function(self._closed_unexpectedly)

    async def keep_connected(self) -> None:
        """Connect for ever; raises a KiteError only if waiting cannot mend it."""
        cause: Cause = "restart"
        while True:
            began_s = asyncio.get_running_loop().time()
            cause = await self._connect_once(cause)
            up_s = asyncio.get_running_loop().time() - began_s
            self._metrics.connected.set(0)
            self._metrics.reconnects.labels(cause).inc()
            pause = self._patience.pause(cause, up_s, self._day_time_ms(), self._market.speed)
            self._tell_idle(pause, cause)
            await self._wait(pause.wall_s, cause)
            self._metrics.idle.set(0)

    def adjust(self) -> None:
        """Something else is wanted now: do not wait for the next frame to ask for it."""
        reading = self._reading
        if reading is None or reading.expired() or not self._subscriber.outdated:
            return
        self._nudged = True
        reading.reschedule(asyncio.get_running_loop().time())

    async def follow_hours(self) -> None:
        """Ask for the hours of each day, and every hour again while they matter."""
        loop = asyncio.get_running_loop()
        asked_ms, not_before_s = 0, 0.0
        while True:
            await asyncio.sleep(_HOURS_POLL_S)
            now_ms = self._market.now_ms(self._clock.now_ms())
            if (
                now_ms is None
                or loop.time() < not_before_s
                or not self._hours_due(now_ms, asked_ms)
            ):
                continue
            asked_ms, not_before_s = now_ms, loop.time() + _HOURS_APART_S_MIN
            if not await self._ask_hours(now_ms):
                not_before_s = loop.time() + _HOURS_RETRY_S

    # -- one connection --

    async def _connect_once(self, cause: Cause) -> Cause:
        """Live through one connection and return why it ended."""
        self._account.login_read.clear()
        connection = Connection(
            self._account,
            self._clock,
            self._take,
            answer_s_max=self._settings.ingest_answer_ms_max / 1000,
            ping_s=self._settings.ingest_ping_ms / 1000,
        )
        try:
            await self._read(connection, cause)
        except TokenInvalid as error:
            return self._failed("token", error)
        except KiteError:
            raise
        except Denied as error:
            await self._refresh()
            return self._failed("denied", error)
        except _Silence as error:
            return self._failed("silence", error)
        except BrokerBehind as error:
            return self._failed("refused", error)
        except CommandRefused as error:
            return self._failed("evicted" if error.code == EVICTED else "refused", error)
        except Exception as error:  # noqa: BLE001 - a foreign library on a foreign wire
            if not connection.ended_by_broker:
                return self._failed("reconnect", error)
            cause = "evicted" if connection.evicted else "stopped"
            return self._failed(cause, _Ended(connection.ended_by_broker))
        finally:
            self._subscriber.lost()
            await connection.close()
        return "reconnect"

    async def _read(self, connection: Connection, cause: str) -> None:
        self._health.require("schwab", "logging in")
        broker_ms = await connection.login()
        if not self._core.login(broker_ms):
            raise BrokerBehind(broker_ms, self._core.broker_ms)
        self._inbox.put(Connected(cause))
        await self._subscriber.begin(connection, cause, self._core.broker_ms)
        self._left_out = ()
        self._health.met("schwab")
        self._metrics.connected.set(1)
        self._metrics.evicted.set(0)
        self._log.info("schwab.connected", tickers=len(self._subscriber.wanted), cause=cause)
        self._watch = _DataWatch(self._settings.ingest_frozen_ms / 1000)
        while True:
            if self._subscriber.outdated:
                await self._subscriber.adjust(connection)
            await self._next(connection)
            if connection.ended_by_broker:
                raise _Ended(connection.ended_by_broker)
            if self._watch.frozen(self._hours.regular(self._core.broker_ms)):
                await self._require_open()
            self._stand_in()
            await self._inbox.room()

    async def _next(self, connection: Connection) -> None:
        """Read one frame, or return before it because something else is wanted now."""
        silence_ms = self._settings.ingest_silence_ms
        try:
            async with asyncio.timeout(silence_ms / 1000) as self._reading:
                await connection.read()
        except TimeoutError:
            if not self._nudged:
                raise _Silence(f"no frame for {silence_ms} ms, not even a heartbeat") from None
        finally:
            self._reading, self._nudged = None, False

    async def _require_open(self) -> None:
        """Data has stopped in mid-session: raises _Silence unless the broker says it is closed."""
        await self._ask_hours(self._core.broker_ms)
        if self._hours.regular(self._core.broker_ms):
            raise _Silence("heartbeats come, data has stopped coming in mid-session")

    async def _refresh(self) -> None:
        try:
            await self._account.refresh()
        except (TokenInvalid, RequestFailed) as error:
            self._log.error("schwab.refresh_failed", reason=str(error))

    def _take(self, received_ms: int, size_bytes: int, message: dict[str, Any] | Reject) -> None:
        self._inbox.put(Wire(received_ms, size_bytes, message), size_bytes)
        if isinstance(message, dict) and "data" in message:
            self._watch.data()

    def _stand_in(self) -> None:
        """Let price history stand in, now and then, for the bars that the broker does not send."""
        left_out, now_ms = self._subscriber.left_out, self._core.broker_ms
        if left_out != self._left_out:
            self._left_out, self._left_out_ms, self._listed_ms = left_out, 0, 0
        if not left_out or now_ms - self._listed_ms < _LISTED_EVERY_MS:
            return
        ask = now_ms - self._left_out_ms >= _LEFT_OUT_EVERY_MS
        if not self._left_out_ms or self._hours.awake(now_ms):
            self._inbox.put(BarsWanted(left_out, "symbol_limit", ask))
        self._listed_ms = now_ms
        if ask:
            self._left_out_ms = now_ms

    # -- between two connections --

    def _failed(self, cause: Cause, error: Exception) -> Cause:
        reason = str(error) or type(error).__name__
        self._health.require("schwab", f"{cause}: {reason}")
        if cause == "evicted":
            self._metrics.evicted.set(1)
        if cause in ("evicted", "token", "denied", "refused"):
            self._log.error("schwab.disconnected", cause=cause, reason=reason)
        else:
            self._log.warning(
                "schwab.disconnected", cause=cause, reason=reason, kind=type(error).__name__
            )
        return cause

    def _tell_idle(self, pause: Pause, cause: Cause) -> None:
        """Nothing to fetch is no failure, unless a person has to do something meanwhile."""
        self._log.info("schwab.waits", seconds=round(pause.wall_s, 1), idle=pause.idle, cause=cause)
        if pause.idle and cause in _PLAIN_CAUSES:
            self._metrics.idle.set(1)
            self._health.met("schwab")

    async def _wait(self, wall_s: float, cause: Cause) -> None:
        """Wait, but not longer than until another login is there, if that is what it needs."""
        if cause not in ("token", "denied"):
            await asyncio.sleep(wall_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wall_s):
                await self._account.login_read.wait()

    # -- hours --

    def _day_time_ms(self) -> int | None:
        """Return broker time if the time of day means something: a simulated clock leaps nights."""
        if self._settings.source != "schwab":
            return None
        wall_ms = self._clock.now_ms()
        known_ms = self._market.now_ms(wall_ms)
        return wall_ms if known_ms is None else known_ms

    def _closed_unexpectedly(self) -> float:
        now_ms = self._market.now_ms(self._clock.now_ms())
        return float(now_ms is not None and self._hours.closed_unexpectedly(now_ms))

    def _hours_due(self, now_ms: int, asked_ms: int) -> bool:
        try:
            day = calendar.day_of(now_ms)
        except CalendarError:
            return False
        if not self._hours.knows(day):
            return True
        session = calendar.session(day)
        is_over = session is None or now_ms >= session.close_ms
        return not is_over and now_ms - asked_ms >= _HOURS_AGAIN_MS

    async def _ask_hours(self, now_ms: int) -> bool:
        """Ask for the hours of a day and take them for true; whether there was an answer."""
        day = calendar.day_of(now_ms)
        try:
            told = await self._account.market_hours(day)
        except (RequestFailed, TokenInvalid) as error:
            self._metrics.hours_requests.labels("failed").inc()
            self._log.warning("market.hours_unknown", day=day.isoformat(), reason=str(error))
            return False
        self._metrics.hours_requests.labels("answered").inc()
        self._inbox.put(HoursTold(day, told))
        known = self._hours.session(day)
        if not self._hours.tell(day, told):
            self._health.unnote("market hours")
            return True
        planned = _in_words(calendar.session(day))
        text = f"{day}: the broker says {_in_words(told)}, our calendar {planned}"
        self._health.note("market hours", text)
        if told != known:
            self._log.warning("market.hours_differ", reason=text)
        return True


def _in_words(session: MarketSession | None) -> str:
    """Return the regular session as people write it."""
    if session is None:
        return "closed"
    times = (
        datetime.fromtimestamp(ms / 1000, NEW_YORK) for ms in (session.open_ms, session.close_ms)
    )
    return " to ".join(f"{time:%H:%M}" for time in times)


class _DataWatch:
    """Tells a frozen feed from a quiet market, by how often this connection brought data before."""

    def __init__(self, frozen_s_min: float) -> None:
        self._frozen_s_min = frozen_s_min
        self._began_s = self._last_s = asyncio.get_running_loop().time()
        self._frames = 0

    def data(self) -> None:
        """Note a data frame."""
        self._frames += 1
        self._last_s = asyncio.get_running_loop().time()

    def frozen(self, in_session: bool) -> bool:
        """Whether data has stayed away much longer than it ever did on average."""
        if not in_session:
            self._last_s = asyncio.get_running_loop().time()
            return False
        if self._frames < _FROZEN_FRAMES_MIN:
            return False
        mean_s = (self._last_s - self._began_s) / self._frames
        silent_s = asyncio.get_running_loop().time() - self._last_s
        return silent_s > max(self._frozen_s_min, _FROZEN_MEANS * mean_s)
