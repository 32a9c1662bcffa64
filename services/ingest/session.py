"""The socket kept alive: connect, subscribe, read; and again, with patience.

`keep_connected` runs until cancelled and ends by itself only for errors of the operator's. All it
does with what it reads is to put it into the inbox, in the order of arrival, together with marks
where a connection began and where bars of some tickers began to flow.

Waiting: 1, 2, 5, 10, 30, 60 s with jitter after failures (the first is a setting, the others keep
their ratio to it), begun anew after five good minutes; much longer when the broker closed the
socket in favour of another session, because two sessions would evict each other for ever.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from msgspec import Struct

from libs.common import calendar
from libs.common.clock import Clock
from libs.common.errors import KiteError
from libs.common.runner import Runtime
from services.ingest.core import Core
from services.ingest.inbox import Inbox
from services.ingest.metrics import IngestMetrics
from services.ingest.schwab import (
    Account,
    Connection,
    Denied,
    RequestFailed,
)
from services.ingest.settings import Settings
from services.ingest.subscriber import BarsFlow, BarsWanted, Subscriber, Watched
from services.ingest.token_file import TokenInvalid
from services.ingest.wire import Reject

__all__ = ["Connected", "Item", "Session", "Wire"]

_RETRY_RATIOS = (1, 2, 5, 10, 30, 60)
_GOOD_S = 300.0
_FROZEN_FRAMES_MIN = 100
_FROZEN_MEANS = 50


class Wire(Struct, frozen=True):
    """One frame as it came, or why it could not be read; `received_ms` is wall time."""

    received_ms: int
    size_bytes: int
    message: dict[str, Any] | Reject


class Connected(Struct, frozen=True):
    """A new connection begins here; `cause` says why the one before ended."""

    cause: str


Item = Wire | Connected | Watched | BarsWanted | BarsFlow


class _BrokerBehind(Exception):
    """The broker's time lies before what the store holds."""


class _Silence(Exception):
    """The socket stands, but what should come over it does not."""


class Session:
    """The one login and socket of this process."""

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
        self._clock: Clock = runtime.clock
        self._health = runtime.health
        self._log = runtime.log
        self._account = account
        self._core = core
        self._inbox = inbox
        self._metrics = metrics
        self._subscriber = subscriber
        self._reading: asyncio.Timeout | None = None
        self._nudged = False
        self._failures = 0
        self._watch = _DataWatch(self._settings.ingest_frozen_ms / 1000)

    async def keep_connected(self) -> None:
        """Connect for ever; raises a KiteError only if waiting cannot mend it."""
        cause = "restart"
        while True:
            began_s = asyncio.get_running_loop().time()
            cause = await self._connect_once(cause)
            if asyncio.get_running_loop().time() - began_s >= _GOOD_S:
                self._failures = 0
            self._metrics.connected.set(0)
            self._metrics.reconnects.labels(cause).inc()
            await asyncio.sleep(self._pause_s(cause))

    def adjust(self) -> None:
        """Something else is wanted now: do not wait for the next frame to ask for it."""
        reading = self._reading
        if reading is None or reading.expired() or not self._subscriber.outdated:
            return
        self._nudged = True
        reading.reschedule(asyncio.get_running_loop().time())

    async def _connect_once(self, cause: str) -> str:
        """Live through one connection and return why it ended."""
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
        except Exception as error:  # noqa: BLE001 - a foreign library on a foreign wire
            return self._failed("evicted" if connection.evicted else "reconnect", error)
        finally:
            self._subscriber.lost()
            await connection.close()
        return "reconnect"

    async def _read(self, connection: Connection, cause: str) -> None:
        self._health.require("schwab", "logging in")
        broker_ms = await connection.login()
        if not self._core.login(broker_ms):
            raise _BrokerBehind(
                f"broker time {broker_ms} lies before {self._core.broker_ms}, up to which the "
                "store is filled; use an empty store for another time"
            )
        self._inbox.put(Connected(cause))
        await self._subscriber.begin(connection, cause)
        self._health.met("schwab")
        self._metrics.connected.set(1)
        self._log.info("schwab.connected", tickers=len(self._subscriber.wanted), cause=cause)
        self._watch = _DataWatch(self._settings.ingest_frozen_ms / 1000)
        while True:
            if self._subscriber.outdated:
                await self._subscriber.adjust(connection)
            await self._next(connection)
            if self._watch.frozen(calendar.is_open(self._core.broker_ms)):
                raise _Silence("heartbeats come, data has stopped coming in mid-session")
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

    async def _refresh(self) -> None:
        try:
            await self._account.refresh()
        except (TokenInvalid, RequestFailed) as error:
            self._log.error("schwab.refresh_failed", reason=str(error))

    def _take(self, received_ms: int, size_bytes: int, message: dict[str, Any] | Reject) -> None:
        self._inbox.put(Wire(received_ms, size_bytes, message), size_bytes)
        if isinstance(message, dict) and "data" in message:
            self._watch.data()

    def _failed(self, cause: str, error: Exception) -> str:
        reason = str(error) or type(error).__name__
        self._health.require("schwab", f"{cause}: {reason}")
        if cause in ("evicted", "token", "denied"):
            self._log.error("schwab.disconnected", cause=cause, reason=reason)
        else:
            self._log.warning(
                "schwab.disconnected", cause=cause, reason=reason, kind=type(error).__name__
            )
        return cause

    def _pause_s(self, cause: str) -> float:
        if cause == "evicted":
            return self._settings.ingest_evicted_pause_ms / 1000
        ratio = _RETRY_RATIOS[min(self._failures, len(_RETRY_RATIOS) - 1)]
        self._failures += 1
        return ratio * self._settings.ingest_reconnect_first_ms / 1000 * random.uniform(0.75, 1.25)


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
