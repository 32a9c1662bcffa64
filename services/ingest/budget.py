"""How often the broker may be asked at all: one budget for every request over HTTP.

`RequestBudget` hangs in the HTTP session itself, so nothing leaves without a pass: price history,
what a login needs, and the token. It promises:

- at most `per_minute_max` requests in any sixty seconds, not on average, and over all lives that
  share a `PassBook`;
- the last few of them are kept for logins and tokens, so that hundreds of days of history that
  wait for their turn never hold up the way back to the feed;
- what a feed that is polled asks for (`live_requests`) goes before history, for the same reason;
- when the broker refuses (429, or the page with which its edge blocks, 403), nobody asks until the
  pause is over: as long as its `Retry-After` says, else 10 s or 5 s, twice as long each time up to
  five minutes. Then one request alone finds out, and with its answer all go on.

History waits for its pass. Logins and tokens do not sit out a pause, because whoever waits for
them has a deadline: they fail at once and say for how long.

Time is the event loop's; only a date in `Retry-After` is held against the wall clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from libs.common.clock import Clock
from services.ingest.pass_book import PassBook

__all__ = [
    "KINDS",
    "PAUSE_S_MAX",
    "REFUSALS",
    "BudgetPaused",
    "RequestBudget",
    "kind_of",
    "live_requests",
]

PAUSE_S_MAX = 300.0
REFUSALS = (int(HTTPStatus.TOO_MANY_REQUESTS), int(HTTPStatus.FORBIDDEN))
_FIRST_PAUSE_S = {HTTPStatus.TOO_MANY_REQUESTS: 10.0, HTTPStatus.FORBIDDEN: 5.0}
_MINUTE_S = 60.0
_KEPT_BACK_MAX = 10
_PROBE_S_MAX = 60.0  # an answer that takes longer never comes
_LOGIN_PATHS = {"/v1/oauth/token": "token", "/trader/v1/userPreference": "login"}
_HISTORY_PATH = "/marketdata/v1/pricehistory"
KINDS = ("token", "login", "live", "history", "other")

_live: ContextVar[bool] = ContextVar("live", default=False)


@contextmanager
def live_requests() -> Iterator[None]:
    """Call what is requested in here, by this task and those it starts, live."""
    before = _live.set(True)
    try:
        yield
    finally:
        _live.reset(before)


class BudgetPaused(Exception):
    """The broker wants to be left alone for `pause_s` more seconds."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        super().__init__(f"the broker refuses requests; none is made for {pause_s:.0f} s")


class RequestBudget:
    """Passes for requests, and the pauses that the broker demands.

    `on_pass` is told each request's kind, `on_refusal` the status of each refusal. `book` remembers
    what earlier lives asked for; without one each life begins with a whole minute.
    """

    def __init__(
        self,
        per_minute_max: int,
        clock: Clock,
        on_pass: Callable[[str], None] = lambda kind: None,
        on_refusal: Callable[[int], None] = lambda status: None,
        book: PassBook | None = None,
    ) -> None:
        self._per_minute_max = per_minute_max
        self._on_pass = on_pass
        self._on_refusal = on_refusal
        self._clock = clock
        self._kept_back = min(_KEPT_BACK_MAX, per_minute_max // 10)
        self._book = book
        self._passes_s: deque[float] = deque()
        if book is not None:
            now_s = asyncio.get_running_loop().time()
            self._passes_s.extend(now_s - age_s for age_s in book.ages_s())
        self._turn = asyncio.Lock()  # history passes in the order in which it came
        self._paused_until_s = 0.0
        self._refused_in_a_row = 0
        self._probe_until_s = 0.0
        self._live_waiting = 0
        self._changed = asyncio.Event()

    @property
    def hooks(self) -> dict[str, list[Callable[..., Any]]]:
        """What an httpx client takes as `event_hooks`."""
        return {"request": [self._request], "response": [self._response]}

    def used(self, now_s: float) -> int:
        """Return how many requests were made in the last sixty seconds."""
        # A copy, because metrics are read on another thread.
        return sum(passed_s > now_s - _MINUTE_S for passed_s in list(self._passes_s))

    def pause_s(self, now_s: float) -> float:
        """Return for how long nobody may ask; 0 when the broker answers."""
        return max(0.0, self._paused_until_s - now_s)

    async def take(self, kind: str = "history") -> None:
        """Wait for a pass; raises BudgetPaused for what cannot wait."""
        if kind in _LOGIN_PATHS.values():
            await self._take(kind, self._per_minute_max, patient=False)
            return
        if kind == "live":
            self._live_waiting += 1
            try:
                await self._take(kind, self._per_minute_max - self._kept_back, patient=True)
            finally:
                self._live_waiting -= 1
                self._changed.set()
            return
        async with self._turn:
            await self._take(kind, self._per_minute_max - self._kept_back, patient=True)

    def answered(self, status: int, *, html: bool = False, retry_after: str | None = None) -> None:
        """Learn from an answer whether the broker wants to be left alone."""
        if status not in REFUSALS or (status == HTTPStatus.FORBIDDEN and not html):
            self._refused_in_a_row = 0
            self._probe_until_s = 0.0
            self._changed.set()
            return
        self._on_refusal(status)
        now_s = asyncio.get_running_loop().time()
        if self.pause_s(now_s):
            return  # it was under way when the first one was refused
        wanted_s = self._retry_after_s(retry_after)
        grown_s = _FIRST_PAUSE_S[HTTPStatus(status)] * 2.0 ** min(self._refused_in_a_row, 16)
        self._refused_in_a_row += 1
        self._paused_until_s = now_s + min(max(grown_s, wanted_s), PAUSE_S_MAX)
        self._probe_until_s = 0.0
        self._changed.set()

    async def _take(self, kind: str, most: int, *, patient: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            paused_s = self.pause_s(now_s)
            if paused_s and not patient:
                raise BudgetPaused(paused_s)
            wait_s = paused_s or self._probe_until_s - now_s or 0.0
            if wait_s <= 0:
                wait_s = self._until_free_s(most, now_s)
            if wait_s <= 0 and kind != "live" and patient and self._live_waiting:
                wait_s = _MINUTE_S  # until those have passed
            if wait_s <= 0:
                break
            self._changed.clear()
            await self._change(wait_s)
        self._passes_s.append(now_s)
        if self._book is not None:
            self._book.note()
        self._on_pass(kind)
        if self._refused_in_a_row:
            self._probe_until_s = now_s + _PROBE_S_MAX

    def _until_free_s(self, most: int, now_s: float) -> float:
        while self._passes_s and self._passes_s[0] <= now_s - _MINUTE_S:
            self._passes_s.popleft()
        if len(self._passes_s) < most:
            return 0.0
        return self._passes_s[len(self._passes_s) - most] + _MINUTE_S - now_s

    async def _change(self, s_max: float) -> None:
        try:
            async with asyncio.timeout(s_max):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _request(self, request: httpx.Request) -> None:
        kind = kind_of(request.url.path)
        await self.take("live" if _live.get() and kind in ("history", "other") else kind)

    async def _response(self, response: httpx.Response) -> None:
        html = "html" in response.headers.get("content-type", "")
        self.answered(
            response.status_code, html=html, retry_after=response.headers.get("retry-after")
        )

    def _retry_after_s(self, text: str | None) -> float:
        """Read seconds or a date; anything else says nothing."""
        if text is None:
            return 0.0
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            at_s = parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError):
            return 0.0
        return at_s - self._clock.now_ms() / 1000


def kind_of(path: str) -> str:
    """Name what a request is for by its path."""
    if path == _HISTORY_PATH:
        return "history"
    return _LOGIN_PATHS.get(path, "other")
